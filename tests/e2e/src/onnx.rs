//! Changes the weights of a model file on purpose: the file stays valid, its answers become others.

use anyhow::{Context, Result, ensure};
use std::ops::Range;

/// Numbers of the fields in ONNX's protobuf that lead to the data of an initialiser.
const MODEL_GRAPH: u64 = 7;
const GRAPH_INITIALIZER: u64 = 5;
const TENSOR_DATA_TYPE: u64 = 2;
const TENSOR_RAW_DATA: u64 = 9;
/// `TensorProto.DataType.FLOAT`.
const FLOAT: u64 = 1;

/// The same model with NaN in place of every 32-bit float weight.
///
/// # Errors
/// As [`with_weights`].
pub fn with_nan_weights(model: &[u8]) -> Result<Vec<u8>> {
    with_weights(model, |weights| weights.fill(f32::NAN))
}

/// The same model with other 32-bit float weights: `change` is given those of each tensor.
///
/// # Errors
/// When the bytes are no ONNX file or hold no such weights.
pub fn with_weights(model: &[u8], mut change: impl FnMut(&mut [f32])) -> Result<Vec<u8>> {
    let mut changed = model.to_vec();
    let mut tensors = 0;
    for graph in fields(model, 0..model.len(), MODEL_GRAPH)? {
        for tensor in fields(model, graph.range, GRAPH_INITIALIZER)? {
            let dtype = fields(model, tensor.range.clone(), TENSOR_DATA_TYPE)?;
            if dtype.first().is_none_or(|f| f.number != FLOAT) {
                continue;
            }
            for data in fields(model, tensor.range, TENSOR_RAW_DATA)? {
                let (bytes, _) = changed[data.range].as_chunks_mut::<4>();
                let mut weights: Vec<f32> = bytes.iter().map(|b| f32::from_le_bytes(*b)).collect();
                change(&mut weights);
                for (bytes, weight) in bytes.iter_mut().zip(weights) {
                    *bytes = weight.to_le_bytes();
                }
                tensors += 1;
            }
        }
    }
    ensure!(tensors > 0, "the model holds no float weights as raw data");
    Ok(changed)
}

/// A field: where its bytes are, or its number if it is a plain one.
struct Field {
    range: Range<usize>,
    number: u64,
}

/// Every field of this number in a message.
fn fields(bytes: &[u8], message: Range<usize>, wanted: u64) -> Result<Vec<Field>> {
    let mut at = message.start;
    let mut found = Vec::new();
    while at < message.end {
        let key = varint(bytes, &mut at)?;
        let mut field = Field {
            range: at..at,
            number: 0,
        };
        let length = match key & 7 {
            0 => {
                field.number = varint(bytes, &mut at)?;
                0
            }
            1 => 8,
            2 => usize::try_from(varint(bytes, &mut at)?)?,
            5 => 4,
            other => anyhow::bail!("wire type {other} is not used by ONNX"),
        };
        let end = at.checked_add(length).filter(|e| *e <= message.end);
        let end = end.context("a field ends behind its message")?;
        if key >> 3 == wanted {
            field.range = at..end;
            found.push(field);
        }
        at = end;
    }
    Ok(found)
}

fn varint(bytes: &[u8], at: &mut usize) -> Result<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.get(*at).context("the file ends within a number")?;
        *at += 1;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    anyhow::bail!("a number is longer than 64 bits")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn only_weights_change() {
        let model = std::fs::read(crate::activity().join("models/tiny-f32.onnx")).unwrap();
        let broken = with_nan_weights(&model).unwrap();
        assert_eq!(model.len(), broken.len());
        let differing = model.iter().zip(&broken).filter(|(a, b)| a != b).count();
        // 1094 parameters of 4 bytes, of which some may equal the byte that NaN puts there.
        assert!((3000..=4376).contains(&differing), "{differing}");
    }

    #[test]
    fn other_bytes_are_refused() {
        assert!(with_nan_weights(&[0xff; 40]).is_err());
        assert!(with_nan_weights(&[]).is_err());
    }
}
