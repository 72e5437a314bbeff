//! The protocol that every other engine speaks, so that one caller measures them all.
//!
//! One JSON object a line in, one out; between two lines a program waits and takes no CPU.
//!
//! | in | out |
//! |---|---|
//! | (at the start) | `{"version": text}` |
//! | `{"model": path, "inputs": [path ..]}` | `{"outputs": [[number ..] ..]}` of one run |
//! | `{"runs": n}` | `{"ns": [time of each ..]}` |
//!
//! The files of inputs hold little-endian elements in the order in which the model names its inputs;
//! a dimension that the model leaves free is 1. Instead of an answer there may be `{"error": text}`.

use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::io::{BufRead, Write};
use std::path::Path;
use std::time::Instant;

/// A loaded model with its inputs.
pub trait Loaded {
    /// Runs it; the outputs are thrown away.
    ///
    /// # Errors
    /// What the engine says.
    fn run(&mut self) -> Result<()>;

    /// Runs it; gives the elements of each output.
    ///
    /// # Errors
    /// What the engine says.
    fn outputs(&mut self) -> Result<Vec<Vec<f64>>>;
}

/// Answers until the caller closes its end.
///
/// # Errors
/// When the caller is gone.
pub fn serve<M: Loaded>(version: &str, load: fn(&Path, &[Vec<u8>]) -> Result<M>) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", json!({ "version": version }))?;
    out.flush()?;
    let mut model = None;
    for line in std::io::stdin().lock().lines() {
        let reply = answer(&line?, load, &mut model);
        let reply = reply.unwrap_or_else(|e| json!({ "error": format!("{e:#}") }));
        writeln!(out, "{reply}")?;
        out.flush()?;
    }
    Ok(())
}

fn answer<M: Loaded>(
    line: &str,
    load: fn(&Path, &[Vec<u8>]) -> Result<M>,
    model: &mut Option<M>,
) -> Result<Value> {
    let asked: Value = serde_json::from_str(line)?;
    if let Some(path) = asked["model"].as_str() {
        // The one before is dropped first: two large ones need not fit.
        *model = None;
        let inputs = asked["inputs"].as_array().context("no inputs")?;
        let read = |v: &Value| Ok(std::fs::read(v.as_str().context("no path")?)?);
        let inputs = inputs.iter().map(read).collect::<Result<Vec<_>>>()?;
        let loaded = model.insert(load(Path::new(path), &inputs)?);
        return Ok(json!({ "outputs": loaded.outputs()? }));
    }
    let model = model.as_mut().context("no model is loaded")?;
    let runs = asked["runs"].as_u64().context("neither model nor runs")?;
    let mut times = Vec::new();
    for _ in 0..runs {
        let start = Instant::now();
        model.run()?;
        times.push(start.elapsed().as_nanos() as u64);
    }
    Ok(json!({ "ns": times }))
}
