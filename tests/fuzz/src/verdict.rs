//! A compiled network held against the results of another engine.

use crate::network::{Case, Tolerance};
use anyhow::Result;
use sandpiper_compiler::{CompileError, Compiled, Options, compile};
use sandpiper_sandbox::{Crew, Limits, LoadSpec, Native, Origin, Weights, host_target, precompile};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

/// Generous: tells an endless loop from a slow network.
const DEADLINE: Duration = Duration::from_secs(60);

/// What our side makes of a case.
#[derive(Debug, Clone, PartialEq)]
pub enum Made {
    /// The elements of all outputs.
    Outputs(Vec<f64>),
    /// The compiler does not take it, and says why.
    Refused(String),
    /// It panicked, or the module was refused by the sandbox or trapped: a finding by itself.
    Failed(String),
}

/// Compiles a case and runs it in the sandbox.
pub fn run(case: &Case) -> Made {
    // A panic is a finding, and must not end the search.
    let made = catch_unwind(AssertUnwindSafe(|| attempt(case)));
    made.unwrap_or_else(|_| Made::Failed("it panicked".into()))
}

fn attempt(case: &Case) -> Made {
    let compiled = match compile(&case.onnx, &Options::default()) {
        Ok(compiled) => compiled,
        Err(CompileError::Unsupported(refusals)) => {
            let each = refusals
                .iter()
                .map(|r| format!("{}: {}", r.operator, r.why));
            return Made::Refused(each.collect::<Vec<_>>().join("; "));
        }
        Err(error) => return Made::Refused(error.to_string()),
    };
    match outputs(&compiled, &case.input.to_bytes()) {
        Ok([one, two]) if one != two => {
            Made::Failed("two workers give another result than one".into())
        }
        Ok([one, _]) => {
            let floats = one.iter().flat_map(|bytes| bytes.as_chunks().0);
            Made::Outputs(floats.map(|b| f64::from(f32::from_le_bytes(*b))).collect())
        }
        Err(error) => Made::Failed(format!("{error:#}")),
    }
}

/// The bytes of all outputs, by one worker and by two.
fn outputs(compiled: &Compiled, input: &[u8]) -> Result<[Vec<Vec<u8>>; 2]> {
    let made = precompile(&compiled.wasm, host_target(), Origin::OwnCompiler)?;
    let run = |workers| -> Result<Vec<Vec<u8>>> {
        let spec = LoadSpec {
            native: Native::Bytes(&made.native),
            abi: made.abi.clone(),
            weights: made.abi.weights.map(|_| Weights::Bytes(&compiled.weights)),
            limits: Limits {
                memory_bytes: made.abi.memory_bytes,
                deadline: DEADLINE,
            },
        };
        let mut crew = Crew::load(spec, workers)?;
        let mut outputs = vec![Vec::new(); crew.abi().outputs.len()];
        crew.infer(1, &[input], &mut outputs)?;
        Ok(outputs)
    };
    Ok([run(1)?, run(2)?])
}

/// How far our outputs are from the reference, as shares of its largest value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Deviation {
    /// At the element that is farthest off.
    pub largest: f64,
    /// In the mean over all elements.
    pub mean: f64,
}

impl Deviation {
    /// Of outputs with as many elements as the reference; what is not a number is infinitely far
    /// from one, and equal to another that is none.
    ///
    /// # Errors
    /// When the numbers of elements differ.
    pub fn of(ours: &[f64], reference: &[f64]) -> Result<Self, String> {
        if ours.len() != reference.len() {
            let (have, want) = (ours.len(), reference.len());
            return Err(format!("{have} elements instead of {want}"));
        }
        let finite = reference.iter().copied().filter(|v| v.is_finite());
        let size = finite.fold(SMALLEST, |a: f64, v| a.max(v.abs()));
        let far = |(a, b): (&f64, &f64)| match (a - b).abs() / size {
            _ if a == b || (a.is_nan() && b.is_nan()) => 0.0,
            far if far.is_nan() => f64::INFINITY,
            far => far,
        };
        let each = || ours.iter().zip(reference).map(far);
        Ok(Self {
            largest: each().fold(0.0, f64::max),
            mean: each().sum::<f64>() / ours.len().max(1) as f64,
        })
    }

    /// Whether a case allows it.
    pub fn within(&self, allowed: Tolerance) -> bool {
        self.largest <= allowed.largest && self.mean <= allowed.mean
    }
}

/// References below this are zero but for rounding.
const SMALLEST: f64 = 1e-3;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::{grow, quantise};

    #[test]
    fn deviations_are_shares_of_the_largest_reference() {
        let found = Deviation::of(&[1.0, 4.0, -8.0], &[1.0, 4.4, -8.0]).unwrap();
        assert!((found.largest - 0.05).abs() < 1e-9 && (found.mean - 0.05 / 3.0).abs() < 1e-9);
        assert_eq!(
            Deviation::of(&[f64::NAN], &[1.0]).unwrap().largest,
            f64::INFINITY
        );
        assert_eq!(
            Deviation::of(&[f64::NAN], &[f64::NAN]).unwrap().largest,
            0.0
        );
        assert!(Deviation::of(&[1.0], &[]).is_err());
    }

    /// What the search rests on: a network with one constant a little off is told apart, in floats and
    /// quantised.
    #[test]
    fn a_network_that_computes_something_else_is_found() {
        let (mut told, mut tried) = (0, 0);
        for seed in 0..60 {
            let network = grow::network(seed);
            let mut other = network.clone();
            let Some(node) = other
                .nodes
                .iter()
                .find(|n| n.operator == "Conv" || n.operator == "Gemm")
            else {
                continue;
            };
            let weights = other.constants.get_mut(&node.inputs[1]).unwrap();
            let changed = weights.as_f32().unwrap().iter().map(|v| -v).collect();
            *weights = sandpiper_compiler::Tensor::f32(weights.dims(), changed).unwrap();
            let case = if seed % 2 == 0 {
                network.case()
            } else {
                quantise::quantised(&network, seed).unwrap()
            };
            let wrong = if seed % 2 == 0 {
                other.case()
            } else {
                quantise::quantised(&other, seed).unwrap()
            };
            let (Made::Outputs(a), Made::Outputs(b)) = (run(&case), run(&wrong)) else {
                continue;
            };
            tried += 1;
            told += usize::from(!Deviation::of(&b, &a).unwrap().within(case.tolerance));
        }
        assert!(tried > 20 && told * 10 >= tried * 9, "{told} of {tried}");
    }
}
