//! Bounds of what one peer may make the other hold in memory.

/// Largest control message decoded, in bytes. Set as `max_decoding_message_size` of every
/// client and server: an assignment of 16 models with their manifests stays below half of it.
pub const MAX_MESSAGE_BYTES: usize = 1 << 20;

/// Largest message of [`crate::v1::FetchChunk`], in bytes: the chunk tree of an artefact of
/// 4 GiB is 65536 values of 32 bytes, and a message more than twice that is refused.
pub const MAX_FETCH_MESSAGE_BYTES: usize = 4 << 20;

/// Largest piece of an upload, in bytes.
pub const MAX_UPLOAD_DATA_BYTES: usize = 256 << 10;

/// Most windows in one telemetry batch. A device back-fills in several batches.
pub const MAX_WINDOWS_PER_BATCH: usize = 64;

/// Most models a device may report on, which is more than any board holds.
pub const MAX_MODELS_PER_DEVICE: usize = 64;

/// Most labels of one device.
pub use sandpiper_core::policy::MAX_LABELS;

/// Largest certificate request, in bytes: one with a P-256 key has about 300.
pub const MAX_CSR_BYTES: usize = 8 << 10;

/// Longest join token or other free text, in bytes.
pub const MAX_TEXT_BYTES: usize = 4 << 10;

/// Most certificates in a chain.
pub const MAX_CHAIN: usize = 8;

/// Most publisher keys a device trusts.
pub const MAX_PUBLISHER_KEYS: usize = 64;

/// Most versions that come with one assignment.
pub const MAX_VERSIONS_PER_BUNDLE: usize = 128;
