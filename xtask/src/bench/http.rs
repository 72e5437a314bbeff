//! A client as thin as can be: one connection kept open, requests made beforehand, so that what is
//! measured is the agent.

use anyhow::{Context, Result, bail};
use serde_json::json;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// Longer than any deadline the agent keeps.
const PATIENCE: Duration = Duration::from_secs(15);
/// Longest answer that is read: the outputs of the example are some hundred bytes.
const MAX_BODY: usize = 1 << 20;

/// A request, as its bytes.
#[derive(Debug, Clone)]
pub(super) struct Request(Vec<u8>);

impl Request {
    /// An inference with the numbers as JSON.
    pub(super) fn json(model: &str, input: &str, shape: &[usize], x: &[f32]) -> Self {
        let body = json!({"inputs": [
            {"name": input, "datatype": "FP32", "shape": shape, "data": x}
        ]});
        Self::of(model, "", body.to_string().as_bytes())
    }

    /// An inference with the binary tensor extension, both ways.
    pub(super) fn binary(model: &str, input: &str, shape: &[usize], x: &[f32]) -> Self {
        let head = json!({
            "inputs": [{
                "name": input, "datatype": "FP32", "shape": shape,
                "parameters": {"binary_data_size": x.len() * 4},
            }],
            "parameters": {"binary_data_output": true},
        });
        let head = head.to_string().into_bytes();
        let length = format!("Inference-Header-Content-Length: {}\r\n", head.len());
        let tensor = x.iter().flat_map(|v| v.to_le_bytes());
        let body: Vec<u8> = head.iter().copied().chain(tensor).collect();
        Self::of(model, &length, &body)
    }

    fn of(model: &str, more: &str, body: &[u8]) -> Self {
        let head = format!(
            "POST /v2/models/{model}/infer HTTP/1.1\r\nHost: localhost\r\n{more}Content-Length: {}\r\n\r\n",
            body.len()
        );
        Self([head.as_bytes(), body].concat())
    }
}

/// An open connection.
#[derive(Debug)]
pub(super) struct Connection(BufReader<TcpStream>);

impl Connection {
    /// Connects to `HOST:PORT`.
    ///
    /// # Errors
    /// When nobody listens.
    pub(super) fn open(address: &str) -> Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self(BufReader::new(stream)))
    }

    /// Sends a request and reads the answer to its end.
    ///
    /// # Errors
    /// When it is not answered with 200.
    pub(super) fn ask(&mut self, request: &Request) -> Result<Vec<u8>> {
        self.0.get_mut().write_all(&request.0)?;
        let status = self.line()?;
        let mut length = None;
        loop {
            let line = self.line()?;
            if line.is_empty() {
                break;
            }
            let header = line.split_once(':').context("a malformed header")?;
            if header.0.eq_ignore_ascii_case("content-length") {
                length = Some(header.1.trim().parse::<usize>()?);
            }
        }
        let length = length.context("an answer without a length")?;
        if length > MAX_BODY {
            bail!("an answer of {length} bytes, more than {MAX_BODY}");
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body)?;
        if !status.starts_with("HTTP/1.1 200") {
            bail!("{status}: {}", String::from_utf8_lossy(&body));
        }
        Ok(body)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.0.read_line(&mut line)? == 0 {
            bail!("the agent closed the connection");
        }
        Ok(line.trim_end().to_owned())
    }
}
