//! A network between quantisation and dequantisation: what ONNX Runtime's quantiser makes.
//!
//! An activation goes through QuantizeLinear and DequantizeLinear where it is read, with one scale;
//! a weight is stored as int8, with one scale or one per output channel; a bias as int32 at the
//! product of both scales.

use crate::network::{Case, Network, Node, Tolerance, add};
use anyhow::{Context, Result, anyhow};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use sandpiper_compiler::Tensor;
use sandpiper_compiler::build::{Attribute, ModelBuilder};
use sandpiper_compiler::tensor::Data;
use std::collections::{BTreeMap, BTreeSet};

/// Operators that the quantiser puts between quantised values.
const QUANTISED: [&str; 18] = [
    "Conv",
    "Gemm",
    "MatMul",
    "Add",
    "Mul",
    "Sub",
    "MaxPool",
    "AveragePool",
    "GlobalAveragePool",
    "Concat",
    "Relu",
    "Clip",
    "Softmax",
    "Sigmoid",
    "LeakyRelu",
    "Reshape",
    "Transpose",
    "Slice",
];

/// The quantised form of a network, with choices from a seed.
///
/// # Errors
/// When the network is not valid.
pub fn quantised(network: &Network, seed: u64) -> Result<Case> {
    let mut dice = StdRng::seed_from_u64(seed);
    let values = network.values()?;
    let mut writer = Writer {
        signed: dice.random_bool(0.3),
        by_channel: dice.random_bool(0.6),
        dice,
        network,
        values: &values,
        file: network.header(),
        written: BTreeSet::new(),
        ready: BTreeMap::new(),
    };
    for node in &network.nodes {
        writer.node(node)?;
    }
    for output in &network.outputs {
        let name = writer.activation(output)?;
        writer.file = writer.file.output(&name);
    }
    Ok(Case {
        onnx: writer.file.finish(),
        quantised: true,
        // A step is 1/255 of a value's span. A value on the edge between two may fall to either side,
        // and a step of an early layer is seen by later ones.
        tolerance: Tolerance {
            largest: 0.02,
            mean: 0.004,
        },
        ..network.case()
    })
}

struct Writer<'a> {
    dice: StdRng,
    network: &'a Network,
    values: &'a BTreeMap<String, Tensor>,
    file: ModelBuilder,
    /// Activations are i8 instead of u8.
    signed: bool,
    /// Weights have a scale for each output channel.
    by_channel: bool,
    /// Constants that are in the file as they are.
    written: BTreeSet<String>,
    /// Activations that were quantised, and the name of what they became.
    ready: BTreeMap<String, String>,
}

impl Writer<'_> {
    fn add(&mut self, node: &Node) {
        let file = std::mem::replace(&mut self.file, ModelBuilder::new(0));
        self.file = add(file, node);
    }

    fn constant(&mut self, name: &str, tensor: &Tensor) {
        if self.written.insert(name.to_owned()) {
            let file = std::mem::replace(&mut self.file, ModelBuilder::new(0));
            self.file = file.constant(name, tensor);
        }
    }

    fn node(&mut self, node: &Node) -> Result<()> {
        // Some nodes are left in floats, as the quantiser does with what it does not know.
        let inside = QUANTISED.contains(&node.operator) && self.dice.random_bool(0.9);
        let mut inputs = Vec::new();
        for (place, name) in node.inputs.iter().enumerate() {
            let constant = self.network.constants.get(name);
            inputs.push(match constant {
                None if name.is_empty() => String::new(),
                None if inside && !self.follows(node, name) => self.activation(name)?,
                None => name.clone(),
                Some(tensor) if inside && weighs(node.operator) => {
                    self.weight(node, place, name, tensor)?
                }
                Some(tensor) => {
                    self.constant(name, tensor);
                    name.clone()
                }
            });
        }
        self.add(&Node {
            inputs,
            ..node.clone()
        });
        Ok(())
    }

    /// Whether a Relu or Clip reads the layer before it directly, which then is quantised once.
    fn follows(&self, node: &Node, input: &str) -> bool {
        let activation = ["Relu", "Clip"].contains(&node.operator);
        let producer = self.network.nodes.iter().find(|n| n.output == input);
        let readers = self
            .network
            .nodes
            .iter()
            .filter(|n| n.inputs.iter().any(|i| i == input));
        let alone = readers.count() == 1 && !self.network.outputs.iter().any(|o| o == input);
        activation && alone && producer.is_some_and(|p| weighs(p.operator) || p.operator == "Add")
    }

    /// The value `name` after quantisation and dequantisation.
    fn activation(&mut self, name: &str) -> Result<String> {
        if let Some(ready) = self.ready.get(name) {
            return Ok(ready.clone());
        }
        let value = self
            .values
            .get(name)
            .context("a value that was not evaluated")?;
        let (scale, zero) = span(floats(value)?, self.signed);
        let zero = if self.signed {
            Data::I8(vec![zero as i8])
        } else {
            Data::U8(vec![zero as u8])
        };
        let made = self.pair(
            name,
            &Tensor::f32(&[], vec![scale]),
            &Tensor::new(vec![], zero),
        )?;
        self.ready.insert(name.to_owned(), made.clone());
        Ok(made)
    }

    fn pair(
        &mut self,
        name: &str,
        scale: &Result<Tensor, String>,
        zero: &Result<Tensor, String>,
    ) -> Result<String> {
        let part = |what: &str| format!("{name}_{what}");
        self.constant(&part("scale"), scale.as_ref().map_err(|e| anyhow!("{e}"))?);
        self.constant(&part("zero"), zero.as_ref().map_err(|e| anyhow!("{e}"))?);
        let node = |operator, from: String, to: String| Node {
            operator,
            inputs: vec![from, part("scale"), part("zero")],
            output: to,
            attributes: Vec::new(),
        };
        self.add(&node("QuantizeLinear", name.to_owned(), part("q")));
        self.add(&node("DequantizeLinear", part("q"), part("dq")));
        Ok(part("dq"))
    }

    /// A weight or bias as stored integers after dequantisation.
    fn weight(&mut self, node: &Node, place: usize, name: &str, tensor: &Tensor) -> Result<String> {
        let values = floats(tensor)?;
        let (scales, data) = if place == 2 {
            let input = self
                .values
                .get(&node.inputs[0])
                .context("a value that was not evaluated")?;
            let weights = self.network.constants.get(&node.inputs[1]);
            let (x_scale, _) = span(floats(input)?, self.signed);
            let (w_scales, _) = self.weight_scales(node, weights.context("weights")?)?;
            let each = |i: usize| x_scale * w_scales[i % w_scales.len()];
            let stored = values
                .iter()
                .enumerate()
                .map(|(i, v)| (v / each(i)).round() as i32);
            let stored = Data::I32(stored.collect());
            // Of one scale for all weights a bias of one channel is no other than one for all.
            (
                w_scales.iter().map(|s| x_scale * s).collect::<Vec<_>>(),
                stored,
            )
        } else {
            let (scales, channel) = self.weight_scales(node, tensor)?;
            let step = |(i, v): (usize, &f32)| {
                (v / scales[channel(i) % scales.len()])
                    .round()
                    .clamp(-127.0, 127.0) as i8
            };
            let stored = values.iter().enumerate().map(step).collect();
            (scales, Data::I8(stored))
        };
        let axis = if place == 2 { 0 } else { channel_axis(node) };
        let single = scales.len() == 1;
        let dims = if single { vec![] } else { vec![scales.len()] };
        let name = format!("{name}_{}", node.output);
        let stored = Tensor::new(tensor.dims().to_vec(), data).map_err(|e| anyhow!("{e}"))?;
        self.constant(&format!("{name}_q"), &stored);
        let scales = Tensor::f32(&dims, scales).map_err(|e| anyhow!("{e}"))?;
        self.constant(&format!("{name}_scale"), &scales);
        let attributes = if single {
            vec![]
        } else {
            vec![("axis", Attribute::Int(axis as i64))]
        };
        self.add(&Node {
            operator: "DequantizeLinear",
            inputs: vec![format!("{name}_q"), format!("{name}_scale")],
            output: format!("{name}_dq"),
            attributes,
        });
        Ok(format!("{name}_dq"))
    }

    /// Scales of weights, and which channel an element belongs to.
    fn weight_scales(
        &self,
        node: &Node,
        weights: &Tensor,
    ) -> Result<(Vec<f32>, impl Fn(usize) -> usize + use<>)> {
        let axis = channel_axis(node);
        let count = weights.dims()[axis];
        let behind: usize = weights.dims()[axis + 1..].iter().product();
        let channel = move |i: usize| i / behind % count;
        let mut largest = vec![1e-4f32; if self.by_channel { count } else { 1 }];
        let slots = largest.len();
        for (i, v) in floats(weights)?.iter().enumerate() {
            let slot = &mut largest[channel(i) % slots];
            *slot = slot.max(v.abs());
        }
        Ok((largest.iter().map(|v| v / 127.0).collect(), channel))
    }
}

/// Whether the second input may be weights and the third a bias.
fn weighs(operator: &str) -> bool {
    ["Conv", "Gemm", "MatMul"].contains(&operator)
}

/// The dimension of weights that counts output channels.
fn channel_axis(node: &Node) -> usize {
    let transposed = node
        .attributes
        .iter()
        .any(|(n, v)| *n == "transB" && *v == Attribute::Int(1));
    usize::from(!(node.operator == "Conv" || transposed))
}

/// Scale and zero point under which these values, and 0, have 256 steps.
fn span(values: &[f32], signed: bool) -> (f32, i32) {
    let low = values.iter().copied().fold(0.0, f32::min);
    let high = values.iter().copied().fold(0.0, f32::max);
    let scale = ((high - low) / 255.0).max(1e-4);
    let zero = (-low / scale).round().clamp(0.0, 255.0) as i32;
    (scale, if signed { zero - 128 } else { zero })
}

fn floats(tensor: &Tensor) -> Result<&[f32]> {
    tensor.as_f32().map_err(|e| anyhow!("{e}"))
}
