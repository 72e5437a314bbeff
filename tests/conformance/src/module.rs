//! A compiled model in the sandbox: what runs on a device with this CPU.

use anyhow::{Result, ensure};
use sandpiper_compiler::{Options, Report, compile};
use sandpiper_sandbox::{Instance, Origin, load_wasm};
use std::time::Duration;

/// Generous: tells an endless loop from a slow model.
const DEADLINE: Duration = Duration::from_secs(60);

/// A module with one input and one output of f32, loaded.
#[derive(Debug)]
pub struct Module {
    instance: Instance,
    report: Report,
    outputs: Vec<Vec<u8>>,
    sample_bytes: usize,
}

impl Module {
    /// Compiles an ONNX file with the default options, and loads it into this process.
    ///
    /// # Errors
    /// When the compiler or the sandbox refuses it, or it has several inputs or outputs.
    pub fn compile(onnx: &[u8]) -> Result<Self> {
        let made = compile(onnx, &Options::default())?;
        let (inputs, outputs) = (made.abi.inputs.len(), made.abi.outputs.len());
        ensure!(
            (inputs, outputs) == (1, 1),
            "the model has {inputs} inputs and {outputs} outputs, not one of each"
        );
        let sample_bytes = made.abi.inputs[0].spec.size_bytes(1);
        let instance = load_wasm(&made.wasm, &made.weights, Origin::OwnCompiler, DEADLINE)?;
        Ok(Self {
            instance,
            report: made.report,
            outputs: vec![Vec::new()],
            sample_bytes,
        })
    }

    /// What the compiler says of it.
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// Bytes of one sample.
    pub fn sample_bytes(&self) -> usize {
        self.sample_bytes
    }

    /// Runs one batch of little-endian f32: as many samples as the bytes hold, at most what the
    /// module takes. Gives the bytes of the output.
    ///
    /// # Errors
    /// When the sizes do not fit or the module traps.
    pub fn infer(&mut self, input: &[u8]) -> Result<&[u8]> {
        let batch = u32::try_from(input.len() / self.sample_bytes)?;
        self.instance.infer(batch, &[input], &mut self.outputs)?;
        Ok(&self.outputs[0])
    }

    /// Runs all samples in the largest batches that the module takes; gives the output of each.
    ///
    /// # Errors
    /// As [`Module::infer`].
    pub fn rows(&mut self, input: &[u8]) -> Result<Vec<Vec<f32>>> {
        let max = self.instance.abi().max_batch as usize;
        let sample_bytes = self.sample_bytes;
        let mut rows = Vec::with_capacity(input.len() / sample_bytes);
        for chunk in input.chunks(max * sample_bytes) {
            let output = self.infer(chunk)?;
            let row_bytes = output.len() / (chunk.len() / sample_bytes);
            rows.extend(output.chunks(row_bytes).map(floats));
        }
        Ok(rows)
    }
}

/// Little-endian bytes of f32, as the sandbox takes them.
pub fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    let values = bytes.as_chunks().0.iter();
    values.map(|b| f32::from_le_bytes(*b)).collect()
}
