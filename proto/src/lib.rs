//! The wire: protobuf files, generated code and conversions into domain types.
