//! Compiles a model, runs it in the sandbox, and holds it against the scalar evaluation.
#![allow(clippy::unwrap_used, dead_code, unreachable_pub)]

use sandpiper_compiler::build::{Attribute, ModelBuilder};
use sandpiper_compiler::tensor::Data;
use sandpiper_compiler::{Compiled, Options, Tensor, compile, evaluate};
use sandpiper_core::tensor::DType;
use sandpiper_sandbox::{Instance, Origin, load_wasm};
use std::collections::BTreeMap;

/// Tensors by name.
pub type Tensors = BTreeMap<String, Tensor>;

/// A tensor of these bytes.
pub fn tensor(dtype: DType, dims: Vec<usize>, bytes: &[u8]) -> Tensor {
    Tensor::from_bytes(dtype, dims, bytes).unwrap()
}

/// The same inference step by step, each step in three parts, the last of them first: the result
/// must be the same to the bit.
fn in_parts(instance: &mut Instance, batch: u32, expected: &[Vec<u8>]) {
    for item in 0..batch {
        for step in 0..instance.steps() {
            for part in (0..3).rev() {
                instance.step(step, item, (part, 3)).unwrap();
            }
        }
    }
    let mut outputs = vec![Vec::new(); expected.len()];
    instance.take(batch, &mut outputs);
    assert_eq!(outputs, expected, "parts of steps do something else");
}

/// Runs a module, and runs it again in parts.
pub fn run(compiled: &Compiled, batch: u32, inputs: &Tensors) -> Tensors {
    let given: Vec<Vec<u8>> = compiled
        .abi
        .inputs
        .iter()
        .map(|i| inputs[&i.spec.name].to_bytes())
        .collect();
    let given: Vec<&[u8]> = given.iter().map(Vec::as_slice).collect();
    let (origin, deadline) = (Origin::OwnCompiler, std::time::Duration::from_secs(60));
    let mut instance = load_wasm(&compiled.wasm, &compiled.weights, origin, deadline).unwrap();
    let mut outputs = vec![Vec::new(); compiled.abi.outputs.len()];
    instance.infer(batch, &given, &mut outputs).unwrap();
    in_parts(&mut instance, batch, &outputs);
    let named = compiled
        .abi
        .outputs
        .iter()
        .zip(outputs)
        .map(|(port, bytes)| {
            let dims = port.spec.shape(batch).iter().map(|d| *d as usize).collect();
            (
                port.spec.name.clone(),
                tensor(port.spec.dtype, dims, &bytes),
            )
        });
    named.collect()
}

/// Largest difference of two tensors: of floats relative to max(1, |b|), of integers in steps.
/// NaN equals NaN.
pub fn difference(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.dims(), b.dims());
    assert_eq!(a.dtype(), b.dtype());
    if let (Ok(x), Ok(y)) = (a.as_f32(), b.as_f32()) {
        let one = |(x, y): (&f32, &f32)| {
            if x == y || (x.is_nan() && y.is_nan()) {
                return 0.0;
            }
            let far = f64::from((x - y).abs()) / f64::from(y.abs().max(1.0));
            if far.is_nan() { f64::INFINITY } else { far }
        };
        return x.iter().zip(y).map(one).fold(0.0, f64::max);
    }
    let (x, y) = (a.to_i64().unwrap(), b.to_i64().unwrap());
    x.iter()
        .zip(&y)
        .map(|(x, y)| (x - y).abs() as f64)
        .fold(0.0, f64::max)
}

/// Holds a model's module against its evaluation; gives the module.
pub fn agree(onnx: &[u8], batch: u32, inputs: &Tensors, tolerance: f64) -> Compiled {
    let options = Options::default();
    let compiled = compile(onnx, &options).unwrap_or_else(|e| panic!("{e}"));
    let expected = evaluate(onnx, &options, inputs).unwrap_or_else(|e| panic!("{e}"));
    let found = run(&compiled, batch, inputs);
    assert_eq!(
        found.keys().collect::<Vec<_>>(),
        expected.keys().collect::<Vec<_>>()
    );
    for (name, tensor) in &found {
        let far = difference(tensor, &expected[name]);
        assert!(
            far <= tolerance,
            "`{name}` differs by {far}:\n{tensor:?}\n{:?}",
            expected[name]
        );
    }
    compiled
}

/// How far a module's floats may be from the evaluation: relative to max(1, value).
pub const FLOATS: f64 = 2e-5;

/// Holds a graph of one operator against its evaluation: inputs that are given when it runs, and
/// constants after them. Gives the module.
pub fn single<const N: usize>(
    operator: &str,
    inputs: &[Tensor],
    constants: &[Tensor],
    outputs: usize,
    attributes: [(&str, Attribute); N],
) -> Compiled {
    let names: Vec<String> = (0..inputs.len() + constants.len())
        .map(|i| format!("i{i}"))
        .collect();
    let results: Vec<String> = (0..outputs).map(|i| format!("o{i}")).collect();
    let mut model = ModelBuilder::new(18);
    for (name, input) in names.iter().zip(inputs) {
        let dims: Vec<Option<u32>> = input.dims().iter().map(|d| Some(*d as u32)).collect();
        model = model.input(name, input.dtype(), &dims);
    }
    for (name, constant) in names[inputs.len()..].iter().zip(constants) {
        model = model.constant(name, constant);
    }
    let texts = |v: &[String]| v.to_vec();
    let (from, to) = (texts(&names), texts(&results));
    let from: Vec<&str> = from.iter().map(String::as_str).collect();
    let to: Vec<&str> = to.iter().map(String::as_str).collect();
    model = model.node(operator, &from, &to, attributes);
    for result in &results {
        model = model.output(result);
    }
    let given = names.iter().cloned().zip(inputs.iter().cloned()).collect();
    agree(&model.finish(), 1, &given, FLOATS)
}

/// A tensor of floats in shift - factor .. shift + factor.
pub fn scaled(dice: &mut Dice, dims: &[usize], factor: f32, shift: f32) -> Tensor {
    let values = dice.floats(dims);
    let values = values.as_f32().unwrap().iter().map(|v| v * factor + shift);
    Tensor::f32(dims, values.collect()).unwrap()
}

/// The kernels of a module.
pub fn kernels(compiled: &Compiled) -> Vec<&'static str> {
    compiled.report.steps.iter().map(|s| s.kernel).collect()
}

/// Pseudo-random numbers that a test can repeat from its seed (xorshift).
pub struct Dice(pub u64);

impl Dice {
    /// The next 32 bits.
    pub fn bits(&mut self) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 32) as u32
    }

    /// Below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        self.bits() as usize % n
    }

    /// From `low` to `high`, both included.
    pub fn within(&mut self, low: usize, high: usize) -> usize {
        low + self.below(high - low + 1)
    }

    /// One of these.
    pub fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    /// A float in -1..1.
    pub fn float(&mut self) -> f32 {
        self.bits() as f32 / 2f32.powi(31) - 1.0
    }

    /// A tensor of floats in -1..1.
    pub fn floats(&mut self, dims: &[usize]) -> Tensor {
        let n = dims.iter().product();
        Tensor::f32(dims, (0..n).map(|_| self.float()).collect()).unwrap()
    }

    /// A tensor of bytes.
    pub fn bytes(&mut self, dtype: DType, dims: &[usize]) -> Tensor {
        let n: usize = dims.iter().product();
        let bytes: Vec<u8> = (0..n).map(|_| self.bits() as u8).collect();
        tensor(dtype, dims.to_vec(), &bytes)
    }
}

/// A single float.
pub fn scalar(value: f32) -> Tensor {
    Tensor::f32(&[], vec![value]).unwrap()
}

/// A single zero point.
pub fn zero(dtype: DType, value: i32) -> Tensor {
    tensor(dtype, Vec::new(), &[value as u8])
}

/// Integers of 64 bits.
pub fn longs(values: &[i64]) -> Tensor {
    Tensor::new(vec![values.len()], Data::I64(values.to_vec())).unwrap()
}
