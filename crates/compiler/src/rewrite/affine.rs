//! Factors and summands by channel become part of the weights before them: batch norm, and the
//! Mul and Add that some exporters write in its place.

use crate::onnx::Attrs;
use crate::ops::batch_norm_affine;
use crate::tensor::Tensor;
use crate::typed::{Clamp, Graph, Node, ValueId, replacement};
use std::rc::Rc;

/// y = x * factor + summand, by channel (or one for all).
struct Affine {
    factor: Vec<f32>,
    summand: Vec<f32>,
}

impl Affine {
    fn at(&self, channel: usize) -> (f32, f32) {
        let of = |v: &[f32]| v[if v.len() == 1 { 0 } else { channel }];
        (of(&self.factor), of(&self.summand))
    }
}

/// Folds them, one after the other.
pub(crate) fn rewrite(graph: &mut Graph) {
    let uses = graph.uses();
    for index in 0..graph.nodes.len() {
        let node = &graph.nodes[index];
        let constant_first = graph
            .known(node.inputs.first().copied().flatten())
            .is_some();
        let data = if constant_first && !node.is("BatchNormalization") {
            1
        } else {
            0
        };
        let Some(source) = node.inputs.get(data).copied().flatten() else {
            continue;
        };
        let Some(maker) = uses.maker[source] else {
            continue;
        };
        if uses.readers[source] != 1 || graph.nodes[maker].clamp != Clamp::NONE {
            continue;
        }
        let Some(axis) = channel_axis(graph, &graph.nodes[maker], source) else {
            continue;
        };
        let Some(affine) = affine(graph, node, data, (source, axis)) else {
            continue;
        };
        if let Some(folded) = folded(graph, maker, index, &affine) {
            graph.nodes[index] = folded;
        }
    }
}

/// The dimension of the output channels of what makes `value`.
fn channel_axis(graph: &Graph, maker: &Node, value: ValueId) -> Option<usize> {
    let rank = graph.values[value].ty.dims.len();
    if maker.is("Conv") {
        Some(1)
    } else if maker.is("Gemm") || (maker.is("MatMul") && rank == 2) {
        rank.checked_sub(1)
    } else {
        None
    }
}

fn affine(
    graph: &Graph,
    node: &Node,
    data: usize,
    (source, axis): (ValueId, usize),
) -> Option<Affine> {
    let ty = &graph.values[source].ty;
    if node.is("BatchNormalization") {
        let (factor, summand) = batch_norm_affine(&graph.view(node)).ok()?;
        return (axis == 1).then_some(Affine { factor, summand });
    }
    let constant = graph.known(node.inputs.get(1 - data).copied().flatten())?;
    let result = node.outputs.first().copied().flatten()?;
    if graph.values[result].ty != *ty {
        return None;
    }
    // The constant must vary along the channels only.
    let (dims, rank) = (constant.dims(), ty.dims.len());
    let first = rank.checked_sub(dims.len())?;
    if dims
        .iter()
        .enumerate()
        .any(|(i, d)| first + i != axis && *d != 1)
    {
        return None;
    }
    let values = constant.as_f32().ok()?.to_vec();
    let (one, none) = (vec![1.0], vec![0.0]);
    if node.is("Mul") {
        Some(Affine {
            factor: values,
            summand: none,
        })
    } else if node.is("Add") {
        Some(Affine {
            factor: one,
            summand: values,
        })
    } else if node.is("Sub") && data == 0 {
        let summand = values.iter().map(|v| -v).collect();
        Some(Affine {
            factor: one,
            summand,
        })
    } else {
        None
    }
}

/// The node before with new weights and bias, writing what `index` writes.
fn folded(graph: &mut Graph, maker: usize, index: usize, affine: &Affine) -> Option<Node> {
    let before = graph.nodes[maker].clone();
    let weights = Rc::clone(graph.known(before.inputs.get(1).copied().flatten())?);
    let bias = match before.inputs.get(2).copied().flatten() {
        Some(value) => Some(Rc::clone(graph.known(Some(value))?)),
        None => None,
    };
    let bias = bias.as_ref().map(|b| b.as_f32()).transpose().ok()?;
    let values = weights.as_f32().ok()?;
    let attrs = Attrs::of(&before.proto);
    let conv = before.is("Conv");
    let transposed = attrs.int("transB", 0) != 0;
    let (alpha, beta) = if before.is("Gemm") {
        (
            attrs.float("alpha").unwrap_or(1.0),
            attrs.float("beta").unwrap_or(1.0),
        )
    } else {
        (1.0, 1.0)
    };
    let channels = if conv || transposed {
        weights.dims()[0]
    } else {
        *weights.dims().get(1)?
    };
    let each = (values.len() / channels).max(1);
    let channel_of = |i: usize| {
        if conv || transposed {
            i / each
        } else {
            i % channels
        }
    };
    let scaled = values
        .iter()
        .enumerate()
        .map(|(i, w)| w * alpha * affine.at(channel_of(i)).0);
    let scaled = Tensor::f32(weights.dims(), scaled.collect()).ok()?;
    let shifted = (0..channels).map(|c| {
        let (factor, summand) = affine.at(c);
        let old = bias.map_or(0.0, |b| beta * b[if b.len() == 1 { 0 } else { c }]);
        old * factor + summand
    });
    let shifted = Tensor::f32(&[channels], shifted.collect()).ok()?;
    let (w, b) = (
        graph.constant(&before.name, scaled),
        graph.constant(&before.name, shifted),
    );
    let dropped = |name: &str| matches!(name, "alpha" | "beta");
    let attributes = before
        .proto
        .attribute
        .iter()
        .filter(|a| !dropped(&a.name))
        .cloned()
        .collect();
    let name = if conv { "Conv" } else { "Gemm" };
    let (inputs, outputs) = (
        vec![before.inputs[0], Some(w), Some(b)],
        graph.nodes[index].outputs.clone(),
    );
    let mut node = replacement(&before, ("", name), attributes, inputs, outputs)?;
    node.clamp = graph.nodes[index].clamp;
    node.fused.push(graph.nodes[index].name.clone());
    Some(node)
}
