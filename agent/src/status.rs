//! `status`: asks the running agent over its local API.

use crate::config::Config;
use anyhow::{Context, ensure};
use sandpiper_core::telemetry::Observation;
use std::fmt::Write as _;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Largest status accepted: 64 models are far below it.
const MAX_BYTES: u64 = 1 << 20;

/// The status as text or JSON.
///
/// # Errors
/// When no agent answers.
pub async fn status(config: &Config, json: bool) -> anyhow::Result<String> {
    let at = config.listen;
    let mut stream = tokio::net::TcpStream::connect(at)
        .await
        .with_context(|| format!("no agent answers on {at}: is `sandpiper-agent run` running?"))?;
    let request = format!("GET /sandpiper/status HTTP/1.0\r\nHost: {at}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.take(MAX_BYTES).read_to_string(&mut answer).await?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .context("the answer is not HTTP")?;
    ensure!(
        head.contains(" 200 "),
        "the agent answers {}",
        head.lines().next().unwrap_or("")
    );
    if json {
        return Ok(body.to_owned());
    }
    let seen: Observation = serde_json::from_str(body).context("the agent has no status yet")?;
    Ok(render(&seen)?)
}

fn render(seen: &Observation) -> Result<String, std::fmt::Error> {
    let mut text = format!("generation {}\n", seen.generation.0);
    if let Some(why) = &seen.refused {
        writeln!(text, "the newest assignment is refused: {why}")?;
    }
    if let Some(agent) = &seen.agent {
        let which = if agent.installed {
            "installed"
        } else {
            "release"
        };
        writeln!(text, "agent {} ({which})", agent.running)?;
        if let Some(why) = &agent.why {
            writeln!(text, "  update: {why}")?;
        }
    }
    for model in &seen.models {
        let serving = model.serving.as_ref().map_or_else(
            || "nothing".to_owned(),
            |s| format!("{} {} ({})", s.version, s.variant, s.power_state),
        );
        writeln!(
            text,
            "{}: wanted {}, {:?}, serves {serving}",
            model.model, model.wanted, model.phase
        )?;
        if let Some(failure) = &model.failure {
            writeln!(
                text,
                "  {:?} of {}: {}",
                failure.kind, failure.variant, failure.message
            )?;
        }
    }
    Ok(text)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use sandpiper_core::assignment::Generation;
    use sandpiper_core::profile::{Conditions, Power};

    #[test]
    fn a_refusal_is_shown() {
        let mut seen = Observation {
            generation: Generation(4),
            conditions: Conditions {
                ram_available_bytes: 0,
                disk_free_bytes: 0,
                power: Power::Mains,
                temperature_mc: None,
                throttled: false,
            },
            models: Vec::new(),
            refused: None,
            agent: None,
        };
        assert_eq!(render(&seen).unwrap(), "generation 4\n");
        seen.refused = Some("it was altered".into());
        let text = render(&seen).unwrap();
        assert!(text.contains("refused: it was altered"), "{text}");
    }
}
