//! The way from a file to a module.

use crate::emit::module;
use crate::error::CompileError;
use crate::eval;
use crate::graph;
use crate::kernels::Kernel;
use crate::lower::Program;
use crate::onnx::{ModelProto, decode};
use crate::options::Options;
use crate::plan::plan;
use crate::report::{Report, StepReport};
use crate::rewrite::rewrite;
use crate::tensor::Tensor;
use crate::typed;
use sandpiper_core::abi::ModuleAbi;
use std::collections::BTreeMap;

/// A module and its weights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compiled {
    /// The module: core wasm, ABI v1, no imports.
    pub wasm: Vec<u8>,
    /// What the host maps at the place that the ABI names; may be empty.
    pub weights: Vec<u8>,
    /// The ABI, as in the module's custom section.
    pub abi: ModuleAbi,
    /// What was made.
    pub report: Report,
}

/// Compiles an ONNX file. The same bytes and options give the same result, on every host.
///
/// # Errors
/// [`CompileError`]: not an ONNX file, too large, or with nodes that are not supported, which are
/// listed.
pub fn compile(onnx: &[u8], options: &Options) -> Result<Compiled, CompileError> {
    options.check()?;
    let mut graph = typed::Graph::import(&decode(onnx)?, options)?;
    rewrite(&mut graph)?;
    let program = Program::of(&graph)?;
    let plan = plan(&graph, &program, options.max_batch)?;
    let kernels: Vec<&dyn Kernel> = program.steps.iter().map(|s| s.kernel.as_ref()).collect();
    let wasm = module(&kernels, &plan.places, &plan.abi);
    let mut macs = BTreeMap::new();
    for step in program.steps.iter().filter(|s| s.macs > 0) {
        *macs.entry(step.dtype).or_insert(0) += step.macs;
    }
    let step = |s: &crate::lower::Step| StepReport {
        kernel: s.kernel.name(),
        nodes: s.nodes.clone(),
        shape: s.shape.clone(),
        macs: s.macs,
        dtype: s.dtype,
    };
    let report = Report {
        macs,
        memory_bytes: plan.abi.memory_bytes,
        weights_bytes: program.weights.bytes.len() as u64,
        arena_bytes: plan.arena_bytes,
        wasm_bytes: wasm.len() as u64,
        steps: program.steps.iter().map(step).collect(),
        params: graph.params,
        opset: graph.opset,
    };
    Ok(Compiled {
        wasm,
        weights: program.weights.bytes,
        abi: plan.abi,
        report,
    })
}

/// Says what [`compile`] would make.
///
/// # Errors
/// As [`compile`].
pub fn check(onnx: &[u8], options: &Options) -> Result<Report, CompileError> {
    compile(onnx, options).map(|c| c.report)
}

/// Evaluates an ONNX file as it was imported, in plain scalar arithmetic: the oracle that
/// generated code is held against. Tensors go in and out by name; the batch is what they agree on.
///
/// # Errors
/// [`CompileError`] as for [`compile`], or when an input is missing, superfluous or of another
/// type or shape.
pub fn evaluate(
    onnx: &[u8],
    options: &Options,
    inputs: &BTreeMap<String, Tensor>,
) -> Result<BTreeMap<String, Tensor>, CompileError> {
    options.check()?;
    let mut model = decode(onnx)?;
    pin(&mut model, &options.shapes);
    eval::evaluate(&graph::Graph::of(model)?, inputs)
}

/// Fixes the free dimensions of inputs that the caller gave.
fn pin(model: &mut ModelProto, shapes: &BTreeMap<String, Vec<Option<u32>>>) {
    for info in model.graph.iter_mut().flat_map(|g| &mut g.input) {
        let Some(given) = shapes.get(&info.name) else {
            continue;
        };
        let tensor = info.r#type.as_mut().and_then(|t| t.tensor_type.as_mut());
        let dims = tensor
            .and_then(|t| t.shape.as_mut())
            .into_iter()
            .flat_map(|s| &mut s.dim);
        for (dim, size) in dims.zip(given) {
            if let (0, Some(size)) = (dim.dim_value, size) {
                dim.dim_value = i64::from(*size);
            }
        }
    }
}
