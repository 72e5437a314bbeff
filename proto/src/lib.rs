//! The wire: generated code of the `.proto` files, the limits that both ends keep, and the
//! conversions into domain types.
//!
//! Protobuf stops here: a driver converts a message as soon as it arrives, and what it hands
//! on is valid. Every conversion fails with a [`convert::ConvertError`] that names the field.

pub mod convert;
pub mod limits;

/// Messages, clients and servers generated from `proto/sandpiper/v1`.
#[allow(missing_docs, clippy::all, unreachable_pub)]
pub mod v1 {
    tonic::include_proto!("sandpiper.v1");
}
