//! The QDQ dialect in integers: dequantise, compute, quantise becomes one operator on integers.
//!
//! Float operators between DequantizeLinear and QuantizeLinear become the QLinear operators of the
//! QOperator dialect, which are lowered to integer kernels; operators that only move elements act on
//! the integers themselves. What does not match stays in floats, which is right, only slower: so
//! does a convolution whose input is not quantised, on purpose in some files.

use super::activation::limits;
use crate::onnx::AttributeProto;
use crate::ops::{Call, OWN, Operator, all_bytes};
use crate::reference::quantize::Scales;
use crate::tensor::{Data, Tensor};
use crate::typed::{Clamp, Graph, Node, Uses, ValueId, replacement};
use sandpiper_core::tensor::DType;
use std::rc::Rc;

/// Scale and zero point of a stored bias may differ from the product of scales by this factor.
const SAME_SCALE: f64 = 1e-4;

/// A value in integers with its scale and zero point.
#[derive(Clone, Copy)]
struct Stored {
    value: ValueId,
    scale: ValueId,
    zero: Option<ValueId>,
}

impl Stored {
    fn inputs(self) -> [Option<ValueId>; 3] {
        [Some(self.value), Some(self.scale), self.zero]
    }
}

/// What ends at a QuantizeLinear.
struct Pattern {
    /// The float operator.
    core: Node,
    /// Limits between it and the QuantizeLinear.
    clamp: Clamp,
    /// Names of what becomes part of the new node.
    fused: Vec<String>,
    /// Scale and zero point of the result, and the result.
    y: Stored,
}

/// Rewrites every pattern. The float nodes stay until nobody reads them.
pub(crate) fn rewrite(graph: &mut Graph) {
    let uses = graph.uses();
    for index in 0..graph.nodes.len() {
        let Some(pattern) = pattern(graph, &uses, index) else {
            continue;
        };
        // The integer form of an operator may take less than its float form, which then stays.
        let node = integer_node(graph, &uses, &pattern);
        if let Some(mut node) = node.filter(|n| n.op.infer(&graph.view(n)).is_ok()) {
            node.clamp = pattern.clamp;
            node.fused.extend(pattern.fused);
            graph.nodes[index] = node;
        }
    }
}

fn pattern(graph: &mut Graph, uses: &Uses, index: usize) -> Option<Pattern> {
    let quantize = graph.nodes[index].clone();
    if !quantize.is("QuantizeLinear") {
        return None;
    }
    let scale = quantize.inputs.get(1).copied().flatten()?;
    if graph.known(Some(scale))?.len() != 1 {
        return None;
    }
    let value = quantize.outputs.first().copied().flatten()?;
    let (mut clamp, mut fused) = (Clamp::NONE, vec![quantize.name.clone()]);
    let mut at = quantize.inputs.first().copied().flatten()?;
    let core = loop {
        if uses.readers[at] != 1 {
            return None;
        }
        let node = &graph.nodes[uses.maker[at]?];
        let Some(more) = limits(graph, node) else {
            break node.clone();
        };
        clamp = more.then(clamp);
        fused.push(node.name.clone());
        at = node.inputs.first().copied().flatten()?;
    };
    // The type of the result is that of the zero point, and u8 without one.
    let zero = match quantize.inputs.get(2).copied().flatten() {
        Some(zero) => zero,
        None => graph.constant(
            &quantize.name,
            Tensor::new(Vec::new(), Data::U8(vec![0])).ok()?,
        ),
    };
    Some(Pattern {
        core,
        clamp,
        fused,
        y: Stored {
            value,
            scale,
            zero: Some(zero),
        },
    })
}

/// The integers that a float value was dequantised from. `single`: with one scale for all.
fn stored(graph: &Graph, uses: &Uses, value: ValueId, single: bool) -> Option<(Stored, i64)> {
    let node = &graph.nodes[uses.maker[value]?];
    if !node.is("DequantizeLinear") {
        return None;
    }
    let input = |i: usize| node.inputs.get(i).copied().flatten();
    let (value, scale) = (input(0)?, input(1)?);
    let count = graph.known(Some(scale))?.len();
    let eight = matches!(graph.values[value].ty.dtype, DType::I8 | DType::U8);
    let blocks = node.attrs().int("block_size", 0) != 0;
    let fits = eight && !blocks && (count == 1 || !single);
    let axis = if count == 1 {
        -1
    } else {
        node.attrs().int("axis", 1)
    };
    fits.then_some((
        Stored {
            value,
            scale,
            zero: input(2),
        },
        axis,
    ))
}

fn integer_node(graph: &mut Graph, uses: &Uses, p: &Pattern) -> Option<Node> {
    let core = &p.core;
    let operand = |graph: &Graph, i: usize| {
        let value = core.inputs.get(i).copied().flatten()?;
        stored(graph, uses, value, true).map(|(s, _)| s)
    };
    if core.is("DequantizeLinear") || core.op.by_element() {
        return by_table(graph, uses, p);
    }
    if core.is("Concat") {
        return concat(graph, uses, p);
    }
    let x = operand(graph, 0)?;
    let (y, out) = ([Some(p.y.scale), p.y.zero], vec![Some(p.y.value)]);
    let attributes = core.proto.attribute.clone();
    let make = |name: (&str, &str), inputs: Vec<Option<ValueId>>| {
        replacement(core, name, attributes.clone(), inputs, out.clone())
    };
    let ms = |name| ("com.microsoft", name);
    let pooled = |name| make(ms(name), [&x.inputs()[..], &y].concat());
    if !matches!(core.proto.domain.as_str(), "" | "ai.onnx") {
        return None;
    }
    match core.proto.op_type.as_str() {
        "Conv" => {
            let w = weights(graph, uses, core, 0)?;
            let bias = bias(graph, uses, core, x, w)?;
            let inputs = [&x.inputs()[..], &w.inputs(), &y, &[bias]].concat();
            replacement(core, ("", "QLinearConv"), attributes, inputs, out)
        }
        "Gemm" => gemm(graph, uses, p, x),
        "MatMul" => {
            let w = weights(graph, uses, core, 1)?;
            make(
                ("", "QLinearMatMul"),
                [&x.inputs()[..], &w.inputs(), &y].concat(),
            )
        }
        name @ ("Add" | "Mul") => {
            let b = operand(graph, 1)?;
            let name = if name == "Add" {
                "QLinearAdd"
            } else {
                "QLinearMul"
            };
            make(ms(name), [&x.inputs()[..], &b.inputs(), &y].concat())
        }
        // The others do not apply limits.
        _ if p.clamp != Clamp::NONE => None,
        "AveragePool" => pooled("QLinearAveragePool"),
        "GlobalAveragePool" => pooled("QLinearGlobalAveragePool"),
        "Softmax" => {
            let opset = AttributeProto {
                name: "opset".into(),
                i: graph.opset,
                ..AttributeProto::default()
            };
            let attributes = attributes.iter().cloned().chain([opset]).collect();
            let inputs = [&x.inputs()[..], &y].concat();
            replacement(core, ms("QLinearSoftmax"), attributes, inputs, out)
        }
        // Axes may be an input, which is then a constant.
        "ReduceMean" => reduce_mean(graph, p, x),
        name if name == "MaxPool" || (core.op.moves() && name != "Concat") => {
            let same = same_scale(graph, x, p.y)?;
            let mut inputs = core.inputs.clone();
            inputs[0] = Some(x.value);
            same.then(|| make(("", name), inputs)).flatten()
        }
        _ => None,
    }
}

/// The table of a function of one value, or of nothing but another scale; limits are part of it.
fn by_table(graph: &mut Graph, uses: &Uses, p: &Pattern) -> Option<Node> {
    let core = &p.core;
    let requantizes = core.is("DequantizeLinear");
    let value = if requantizes {
        core.outputs.first()
    } else {
        core.inputs.first()
    };
    let (x, _) = stored(graph, uses, value.copied().flatten()?, true)?;
    let dtype = graph.values[x.value].ty.dtype;
    let constant = |value: Option<ValueId>| graph.known(value).map(Rc::as_ref);
    let scale = |s: Stored| {
        Some((
            constant(Some(s.scale))?,
            s.zero.and_then(|z| constant(Some(z))),
        ))
    };
    let call = |op: &dyn Operator, node: &Node, inputs: &[Option<&Tensor>]| {
        let (proto, opset) = (&node.proto, graph.opset);
        let results = op
            .eval(&Call {
                proto,
                opset,
                inputs,
            })
            .ok()?;
        results.into_iter().next()
    };
    let scales =
        |(scale, zero): (&Tensor, Option<&Tensor>)| Scales::of(&[256], 0, scale, zero).ok();
    let floats = scales(scale(x)?)?
        .dequantize(&all_bytes(dtype).ok()?)
        .ok()?;
    let values = match requantizes {
        true => floats,
        false => call(core.op, core, &[Some(&floats)])?,
    };
    let cut = |v: &f32| {
        if v.is_nan() {
            *v
        } else {
            v.max(p.clamp.low).min(p.clamp.high)
        }
    };
    let values = Tensor::f32(&[256], values.as_f32().ok()?.iter().map(cut).collect()).ok()?;
    let y = scale(p.y)?;
    let table = scales(y)?.quantize(&values, y.1?.dtype()).ok()?;
    let table = graph.constant(&core.name, table);
    let inputs = vec![Some(x.value), Some(table)];
    let node = replacement(
        core,
        (OWN, "Lookup"),
        Vec::new(),
        inputs,
        vec![Some(p.y.value)],
    )?;
    Some(node)
}

/// QLinearConcat, if every part is dequantised.
fn concat(graph: &mut Graph, uses: &Uses, p: &Pattern) -> Option<Node> {
    if p.clamp != Clamp::NONE {
        return None;
    }
    let mut inputs = vec![Some(p.y.scale), p.y.zero];
    for input in &p.core.inputs {
        let (x, _) = stored(graph, uses, (*input)?, true)?;
        inputs.extend(x.inputs());
    }
    let (name, out) = (("com.microsoft", "QLinearConcat"), vec![Some(p.y.value)]);
    replacement(&p.core, name, p.core.proto.attribute.clone(), inputs, out)
}

/// QLinearReduceMean, with the axes as an attribute.
fn reduce_mean(graph: &Graph, p: &Pattern, x: Stored) -> Option<Node> {
    let mut attributes = p.core.proto.attribute.clone();
    if let Some(axes) = p.core.inputs.get(1).copied().flatten() {
        attributes.push(AttributeProto {
            name: "axes".into(),
            ints: graph.known(Some(axes))?.to_i64().ok()?,
            ..AttributeProto::default()
        });
    }
    let inputs = [&x.inputs()[..], &[Some(p.y.scale), p.y.zero]].concat();
    let (name, out) = (
        ("com.microsoft", "QLinearReduceMean"),
        vec![Some(p.y.value)],
    );
    replacement(&p.core, name, attributes, inputs, out)
}

/// Whether two values mean the same by the same integers.
fn same_scale(graph: &Graph, a: Stored, b: Stored) -> Option<bool> {
    let scale = |s: Stored| graph.known(Some(s.scale))?.as_f32().ok()?.first().copied();
    let zero = |s: Stored| match s.zero {
        Some(zero) => graph.known(Some(zero))?.to_i64().ok()?.first().copied(),
        None => Some(0),
    };
    let dtype = |s: Stored| graph.values[s.value].ty.dtype;
    Some(scale(a)? == scale(b)? && zero(a)? == zero(b)? && dtype(a) == dtype(b))
}

/// Constant weights at input 1, with one scale or one per output channel, which is dimension
/// `channel`.
fn weights(graph: &Graph, uses: &Uses, core: &Node, channel: i64) -> Option<Stored> {
    let (w, axis) = stored(graph, uses, core.inputs.get(1).copied().flatten()?, false)?;
    let rank = graph.known(Some(w.value))?.dims().len() as i64;
    let by_channel = if axis < 0 { axis + rank } else { axis } == channel;
    let single = graph.known(Some(w.scale))?.len() == 1;
    (single || by_channel).then_some(w)
}

fn gemm(graph: &mut Graph, uses: &Uses, p: &Pattern, x: Stored) -> Option<Node> {
    let core = &p.core;
    let plain = |name: &str| core.attrs().float(name).is_none_or(|v| v == 1.0);
    if !plain("alpha") || !plain("beta") || core.attrs().int("transA", 0) != 0 {
        return None;
    }
    let transposed = core.attrs().int("transB", 0);
    let w = weights(graph, uses, core, if transposed != 0 { 0 } else { 1 })?;
    let c = bias(graph, uses, core, x, w)?;
    let transb = AttributeProto {
        name: "transB".into(),
        i: transposed,
        ..AttributeProto::default()
    };
    let inputs = [
        &x.inputs()[..],
        &w.inputs(),
        &[c, Some(p.y.scale), p.y.zero],
    ]
    .concat();
    replacement(
        core,
        ("com.microsoft", "QGemm"),
        vec![transb],
        inputs,
        vec![Some(p.y.value)],
    )
}

/// The bias at input 2 in steps of x scale * w scale: as it is stored, if it is stored so, or
/// rounded. `None`: it is no constant; `Some(None)`: there is none.
fn bias(
    graph: &mut Graph,
    uses: &Uses,
    core: &Node,
    x: Stored,
    w: Stored,
) -> Option<Option<ValueId>> {
    let Some(value) = core.inputs.get(2).copied().flatten() else {
        return Some(None);
    };
    let (ints, own): (Vec<f64>, Vec<f64>) = match graph.known(Some(value)) {
        Some(floats) => {
            let floats = floats.as_f32().ok()?;
            (floats.iter().map(|v| f64::from(*v)).collect(), vec![1.0])
        }
        None => stored_bias(graph, &graph.nodes[uses.maker[value]?])?,
    };
    let x_scale = f64::from(*graph.known(Some(x.scale))?.as_f32().ok()?.first()?);
    let w_scales = graph.known(Some(w.scale))?.as_f32().ok()?.to_vec();
    let one = |v: &[f64], i: usize| {
        if v.len() == 1 {
            v.first().copied()
        } else {
            v.get(i).copied()
        }
    };
    let mut steps = Vec::with_capacity(ints.len());
    for (i, int) in ints.iter().enumerate() {
        let w_scale = if w_scales.len() == 1 {
            w_scales.first()
        } else {
            w_scales.get(i)
        };
        let ratio = one(&own, i)? / (x_scale * f64::from(*w_scale?));
        let value = if (ratio - 1.0).abs() < SAME_SCALE {
            *int
        } else {
            (int * ratio).round_ties_even()
        };
        if value.is_nan() || value.abs() > f64::from(i32::MAX) {
            return None;
        }
        steps.push(value as i32);
    }
    let tensor = Tensor::new(vec![steps.len()], Data::I32(steps)).ok()?;
    Some(Some(graph.constant(&core.name, tensor)))
}

/// Integers and scales of a bias that is dequantised from i32 without a zero point.
fn stored_bias(graph: &Graph, node: &Node) -> Option<(Vec<f64>, Vec<f64>)> {
    if !node.is("DequantizeLinear") {
        return None;
    }
    let constant = |i: usize| graph.known(node.inputs.get(i).copied().flatten());
    let (ints, scales) = (constant(0)?, constant(1)?);
    let centred = match constant(2) {
        Some(zero) => zero.to_i64().ok()?.iter().all(|z| *z == 0),
        None => true,
    };
    let ints = ints.to_i64().ok()?.iter().map(|v| *v as f64).collect();
    let scales = scales
        .as_f32()
        .ok()?
        .iter()
        .map(|v| f64::from(*v))
        .collect();
    centred.then_some((ints, scales))
}
