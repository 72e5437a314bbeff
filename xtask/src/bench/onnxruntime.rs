//! ONNX Runtime in a Python process of its own, where it is installed.

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// One JSON object a line in, one out. Between two lines it waits and takes no CPU. The input is
/// bound once: no copy of it is in the times, which favours that engine.
const SCRIPT: &str = r#"
import json, sys, time
import numpy, onnxruntime
def reply(value):
    print(json.dumps(value), flush=True)
reply({"version": onnxruntime.__version__})
for line in sys.stdin:
    asked = json.loads(line)
    if "model" in asked:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(asked["model"], options, providers=["CPUExecutionProvider"])
        x = numpy.fromfile(asked["input"], dtype="<f4").reshape(asked["shape"])
        binding = session.io_binding()
        binding.bind_cpu_input(session.get_inputs()[0].name, x)
        binding.bind_output(session.get_outputs()[0].name)
        session.run_with_iobinding(binding)
        reply({"output": binding.copy_outputs_to_cpu()[0].ravel().tolist()})
    else:
        times = []
        for _ in range(asked["runs"]):
            start = time.perf_counter_ns()
            session.run_with_iobinding(binding)
            times.append(time.perf_counter_ns() - start)
        reply({"ns": times})
"#;

/// The process.
#[derive(Debug)]
pub(super) struct OnnxRuntime {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    pub(super) version: String,
}

impl OnnxRuntime {
    /// Starts it.
    ///
    /// # Errors
    /// Why there is none: no Python, or no such package.
    pub(super) fn start() -> Result<Self> {
        let mut child = Command::new("python3")
            .args(["-c", SCRIPT])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("python3 cannot be started")?;
        let stdin = child.stdin.take().context("no pipe")?;
        let mut stdout = BufReader::new(child.stdout.take().context("no pipe")?);
        let mut line = String::new();
        stdout.read_line(&mut line)?;
        if line.is_empty() {
            drop(stdin);
            let output = child.wait_with_output()?;
            let errors = String::from_utf8_lossy(&output.stderr).into_owned();
            bail!(
                "{}",
                errors.lines().last().unwrap_or("python3 said nothing")
            );
        }
        let greeting: Value = serde_json::from_str(&line)?;
        let version = greeting["version"].as_str().unwrap_or("unknown").to_owned();
        Ok(Self {
            child,
            stdin,
            stdout,
            version,
        })
    }

    fn ask(&mut self, what: &Value) -> Result<Value> {
        writeln!(self.stdin, "{what}")?;
        let mut line = String::new();
        self.stdout.read_line(&mut line)?;
        serde_json::from_str(&line).context("ONNX Runtime failed on this model")
    }

    /// Loads a model and binds a sample, whose little-endian f32 are in a file; gives the output.
    ///
    /// # Errors
    /// When it fails.
    pub(super) fn load(&mut self, model: &Path, input: &Path, shape: &[usize]) -> Result<Vec<f32>> {
        let answer = self.ask(&json!({ "model": model, "input": input, "shape": shape }))?;
        let output = answer["output"].as_array().context("no output")?;
        let value = |v: &Value| v.as_f64().map_or(f32::NAN, |v| v as f32);
        Ok(output.iter().map(value).collect())
    }

    /// Times of so many runs, in microseconds.
    ///
    /// # Errors
    /// When it fails.
    pub(super) fn run(&mut self, runs: usize) -> Result<Vec<f64>> {
        let answer = self.ask(&json!({ "runs": runs }))?;
        let times = answer["ns"].as_array().context("no times")?;
        let us = |v: &Value| v.as_f64().map(|ns| ns / 1e3).context("no number");
        times.iter().map(us).collect()
    }
}

impl Drop for OnnxRuntime {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
