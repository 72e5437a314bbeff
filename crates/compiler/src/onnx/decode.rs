//! Bytes to messages, and tensors out of messages.

use super::{GraphProto, ModelProto, NodeProto, TensorProto, widened};
use crate::error::{CompileError, Refusal};
use crate::tensor::{Data, Tensor, elements};
use prost::Message;
use sandpiper_core::tensor::DType;
use std::collections::BTreeSet;

/// Largest ONNX file read, in bytes.
pub(crate) const MAX_FILE_BYTES: u64 = 512 << 20;

/// Decodes a model. Integers of 4 bits are only read where a DequantizeLinear reads them.
pub(crate) fn decode(bytes: &[u8]) -> Result<ModelProto, CompileError> {
    let size = bytes.len() as u64;
    if size > MAX_FILE_BYTES {
        let what = "the file (in bytes)".to_owned();
        return Err(CompileError::TooLarge {
            what,
            size,
            limit: MAX_FILE_BYTES,
        });
    }
    let model = ModelProto::decode(bytes).map_err(|e| CompileError::NotOnnx(e.to_string()))?;
    if model.graph.as_ref().is_none_or(|g| g.output.is_empty()) {
        return Err(CompileError::NotOnnx(
            "it has no graph with an output".into(),
        ));
    }
    model.graph.iter().try_for_each(check_nibbles)?;
    Ok(model)
}

/// ONNX's number of 16-bit floats.
pub(crate) const HALF: i32 = 10;

/// The element type of an ONNX type number. 16-bit floats are computed with, and passed to and from
/// modules, as 32-bit ones.
pub(crate) fn dtype_of(number: i32) -> Result<DType, String> {
    Ok(match number {
        1 | HALF => DType::F32,
        2 => DType::U8,
        3 => DType::I8,
        6 => DType::I32,
        7 => DType::I64,
        9 => DType::Bool,
        8 => return Err("tensors of strings are not supported".into()),
        other => return Err(format!("element type {other} of ONNX is not supported")),
    })
}

/// The tensor of a message. Lengths are checked; nothing is trusted.
pub(crate) fn tensor_of(proto: &TensorProto) -> Result<Tensor, String> {
    if proto.data_location != 0 {
        return Err("its data lies in another file; save the model with its data inside".into());
    }
    let dims: Option<Vec<usize>> = proto
        .dims
        .iter()
        .map(|d| usize::try_from(*d).ok())
        .collect();
    let dims = dims.ok_or("a dimension is negative")?;
    let n = elements(&dims).ok_or_else(|| format!("{dims:?} has too many elements"))?;
    let dtype = dtype_of(proto.data_type)?;
    let raw = &proto.raw_data;
    if proto.data_type == HALF {
        return Tensor::f32(&dims, halves(proto)?);
    }
    if !raw.is_empty() && raw.len() != n * dtype.size_bytes() {
        let want = n * dtype.size_bytes();
        return Err(format!(
            "{} bytes of data are there, {want} are needed",
            raw.len()
        ));
    }
    let data = if raw.is_empty() {
        from_fields(proto, dtype)?
    } else {
        from_raw(raw, dtype)
    };
    Tensor::new(dims, data)
}

/// ONNX's numbers of integers of 4 bits, unsigned and signed.
const NIBBLES: [i32; 2] = [21, 22];

/// The constant of a message: also integers of 4 bits, each of which becomes one of 8. Only
/// DequantizeLinear may read those: see [`decode`].
pub(crate) fn constant_of(proto: &TensorProto) -> Result<Tensor, String> {
    if !NIBBLES.contains(&proto.data_type) {
        return tensor_of(proto);
    }
    let dims: Result<Vec<usize>, _> = proto.dims.iter().map(|d| usize::try_from(*d)).collect();
    let dims = dims.map_err(|_| "a dimension is negative")?;
    let n = elements(&dims).ok_or_else(|| format!("{dims:?} has too many elements"))?;
    let bytes = match proto.raw_data.is_empty() {
        true => narrow::<u8>(&proto.int32_data)?,
        false => proto.raw_data.clone(),
    };
    if bytes.len() != n.div_ceil(2) || proto.data_location != 0 {
        return Err(format!("{} bytes of data for {n} elements", bytes.len()));
    }
    // The low half comes first.
    let halves = bytes.iter().flat_map(|b| [b & 15, b >> 4]).take(n);
    let data = match proto.data_type {
        21 => Data::U8(halves.collect()),
        _ => Data::I8(halves.map(|h| (h << 4) as i8 >> 4).collect()),
    };
    Tensor::new(dims, data)
}

/// The nodes of a graph and of all graphs within them. Messages are nested at most 100 deep.
fn all_nodes(graph: &GraphProto) -> Vec<&NodeProto> {
    let mut all = Vec::new();
    for node in &graph.node {
        all.push(node);
        let graphs = node.attribute.iter().filter_map(|a| a.g.as_ref());
        all.extend(graphs.flat_map(all_nodes));
    }
    all
}

/// Refuses nodes that would take integers of 4 bits for such of 8.
fn check_nibbles(graph: &GraphProto) -> Result<(), CompileError> {
    let all = graph.initializer.iter();
    let narrow: BTreeSet<&str> = all
        .filter(|t| NIBBLES.contains(&t.data_type))
        .map(|t| t.name.as_str())
        .collect();
    let other = |(i, name): (usize, &String), node: &NodeProto| {
        let dequantized = node.op_type == "DequantizeLinear" && i != 1;
        narrow.contains(name.as_str()) && !dequantized
    };
    let refused = all_nodes(graph).into_iter().filter(|n| {
        let mut inputs = n.input.iter().enumerate();
        inputs.any(|input| other(input, n))
    });
    let refusals: Vec<Refusal> = refused
        .map(|n| Refusal {
            node: n.name.clone(),
            operator: n.op_type.clone(),
            why: "it reads integers of 4 bits; only DequantizeLinear may".into(),
        })
        .collect();
    let shown = graph
        .output
        .iter()
        .any(|o| narrow.contains(o.name.as_str()));
    match (refusals.is_empty(), shown) {
        (true, false) => Ok(()),
        (true, true) => Err(CompileError::NotOnnx("an output is of 4 bits".into())),
        (false, _) => Err(CompileError::Unsupported(refusals)),
    }
}

/// 16-bit floats: two bytes each, or one in each integer.
fn halves(proto: &TensorProto) -> Result<Vec<f32>, String> {
    if !proto.raw_data.is_empty() {
        return Ok(words(&proto.raw_data, |b| widened(u16::from_le_bytes(b))));
    }
    let bits = narrow::<u16>(&proto.int32_data)?;
    Ok(bits.into_iter().map(widened).collect())
}

fn words<const N: usize, T>(raw: &[u8], read: fn([u8; N]) -> T) -> Vec<T> {
    let (chunks, _) = raw.as_chunks::<N>();
    chunks.iter().map(|c| read(*c)).collect()
}

fn from_raw(raw: &[u8], dtype: DType) -> Data {
    match dtype {
        DType::F32 => Data::F32(words(raw, f32::from_le_bytes)),
        DType::I8 => Data::I8(words(raw, i8::from_le_bytes)),
        DType::U8 => Data::U8(raw.to_vec()),
        DType::I32 => Data::I32(words(raw, i32::from_le_bytes)),
        DType::I64 => Data::I64(words(raw, i64::from_le_bytes)),
        DType::Bool => Data::Bool(raw.iter().map(|b| u8::from(*b != 0)).collect()),
    }
}

fn narrow<T: TryFrom<i32>>(values: &[i32]) -> Result<Vec<T>, String> {
    let all: Result<_, _> = values.iter().map(|v| T::try_from(*v)).collect();
    all.map_err(|_| "a value does not fit its element type".to_owned())
}

fn from_fields(proto: &TensorProto, dtype: DType) -> Result<Data, String> {
    Ok(match dtype {
        DType::F32 => Data::F32(proto.float_data.clone()),
        DType::I8 => Data::I8(narrow(&proto.int32_data)?),
        DType::U8 => Data::U8(narrow(&proto.int32_data)?),
        DType::I32 => Data::I32(proto.int32_data.clone()),
        DType::I64 => Data::I64(proto.int64_data.clone()),
        DType::Bool => Data::Bool(proto.int32_data.iter().map(|v| u8::from(*v != 0)).collect()),
    })
}
