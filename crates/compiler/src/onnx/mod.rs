//! The part of the ONNX file format that is read. Field numbers are those of `onnx.proto3`
//! (ONNX IR version 3 and later).

mod attrs;
pub mod build;
mod decode;
mod half;
mod messages;

pub(crate) use attrs::Attrs;
pub(crate) use decode::{HALF, constant_of, decode, dtype_of, tensor_of};
pub(crate) use half::{narrowed, widened};
pub(crate) use messages::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetId, TensorProto, ValueInfoProto,
};
