//! The Open Inference Protocol as a local program speaks it.

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use std::time::Duration;

/// Longer than any deadline the agent keeps, so that its answer is seen and not our impatience.
const PATIENCE: Duration = Duration::from_secs(15);

/// A client of one agent.
#[derive(Debug, Clone)]
pub struct Client {
    agent: ureq::Agent,
    base: String,
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Values of the first output.
    pub values: Vec<f32>,
    /// Version that answered.
    pub version: String,
    /// Variant that answered.
    pub variant: String,
}

impl Client {
    /// A client of the agent that serves at `address` (`HOST:PORT`).
    pub fn new(address: &str) -> Self {
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(PATIENCE))
            .http_status_as_error(false)
            .build();
        Self {
            agent: config.into(),
            base: format!("http://{address}"),
        }
    }

    /// A client of the same agent over connections of its own: those of one that was killed are gone.
    #[must_use]
    pub fn anew(&self) -> Self {
        Self::new(self.base.trim_start_matches("http://"))
    }

    /// Whether a path answers with 200.
    pub fn ready(&self, path: &str) -> bool {
        let response = self.agent.get(format!("{}{path}", self.base)).call();
        response.is_ok_and(|r| r.status() == 200)
    }

    /// Status and document of a path.
    ///
    /// # Errors
    /// When there is no answer or it is not JSON.
    pub fn get(&self, path: &str) -> Result<(u16, Value)> {
        let mut response = self.agent.get(format!("{}{path}", self.base)).call()?;
        let text = response.body_mut().read_to_string()?;
        Ok((
            response.status().as_u16(),
            serde_json::from_str(&text).unwrap_or(Value::Null),
        ))
    }

    /// Posts a body as it is; gives status and text.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn post(&self, path: &str, body: &str) -> Result<(u16, String)> {
        let mut response = self.agent.post(format!("{}{path}", self.base)).send(body)?;
        Ok((
            response.status().as_u16(),
            response.body_mut().read_to_string()?,
        ))
    }

    /// One inference with JSON tensors.
    ///
    /// # Errors
    /// When the agent does not answer with a result.
    pub fn infer(&self, model: &str, input: &str, shape: &[usize], x: &[f32]) -> Result<Answer> {
        let body = json!({"inputs": [
            {"name": input, "datatype": "FP32", "shape": shape, "data": x}
        ]});
        let (status, text) = self.post(&format!("/v2/models/{model}/infer"), &body.to_string())?;
        if status != 200 {
            bail!("status {status}: {text}");
        }
        answer(&text)
    }
}

fn answer(text: &str) -> Result<Answer> {
    let doc: Value = serde_json::from_str(text)?;
    let data = doc.pointer("/outputs/0/data").and_then(Value::as_array);
    let data = data.context("the answer has no data")?;
    let values: Vec<f32> = data
        .iter()
        .map(|v| v.as_f64().map_or(f32::NAN, |v| v as f32))
        .collect();
    ensure!(!values.is_empty(), "the answer is empty");
    let text = |pointer: &str| -> Result<String> {
        let value = doc.pointer(pointer).and_then(Value::as_str);
        Ok(value
            .with_context(|| format!("the answer lacks {pointer}"))?
            .to_owned())
    };
    Ok(Answer {
        values,
        version: text("/model_version")?,
        variant: text("/parameters/variant")?,
    })
}
