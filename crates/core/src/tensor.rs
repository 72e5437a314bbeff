//! Names and shapes of the tensors that go in and out of a model.

use serde::{Deserialize, Serialize};

/// Element type of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DType {
    /// 32-bit float.
    F32,
    /// 8-bit signed integer.
    I8,
    /// 8-bit unsigned integer.
    U8,
    /// 32-bit signed integer.
    I32,
    /// 64-bit signed integer.
    I64,
    /// Boolean, one byte.
    Bool,
}

impl DType {
    /// Bytes of one element.
    pub fn size_bytes(self) -> usize {
        match self {
            Self::I8 | Self::U8 | Self::Bool => 1,
            Self::F32 | Self::I32 => 4,
            Self::I64 => 8,
        }
    }

    /// Name in the Open Inference Protocol: `FP32`, `INT8` ...
    pub fn oip_name(self) -> &'static str {
        match self {
            Self::F32 => "FP32",
            Self::I8 => "INT8",
            Self::U8 => "UINT8",
            Self::I32 => "INT32",
            Self::I64 => "INT64",
            Self::Bool => "BOOL",
        }
    }
}

impl std::fmt::Display for DType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::F32 => "f32",
            Self::I8 => "i8",
            Self::U8 => "u8",
            Self::I32 => "i32",
            Self::I64 => "i64",
            Self::Bool => "bool",
        })
    }
}

/// One dimension of an input or output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dim {
    /// The batch: any value from 1 to the module's maximum.
    Batch,
    /// A constant.
    Fixed(u32),
}

/// Name, element type and shape of an input or output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TensorSpec {
    /// Name, as in the ONNX file.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Dimensions, outermost first.
    pub dims: Vec<Dim>,
}

impl TensorSpec {
    /// Shape for this batch.
    pub fn shape(&self, batch: u32) -> Vec<u32> {
        let size = |d: &Dim| match d {
            Dim::Batch => batch,
            Dim::Fixed(n) => *n,
        };
        self.dims.iter().map(size).collect()
    }

    /// Number of elements for this batch.
    pub fn elements(&self, batch: u32) -> usize {
        self.shape(batch).iter().map(|&n| n as usize).product()
    }

    /// Length in bytes for this batch.
    pub fn size_bytes(&self, batch: u32) -> usize {
        self.elements(batch) * self.dtype.size_bytes()
    }
}
