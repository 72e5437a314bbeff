//! The frames between agent and runner.
//!
//! A frame is its length (`u32`, little-endian, of all that follows), a kind (one byte) and a body.
//! `Load`, `Ready`, `Refused` and `Failed` carry JSON, `Infer` and `Done` numbers (little-endian):
//! tensors lie in memory that both share. Nobody reads a frame that is longer than allowed.

use sandpiper_core::abi::ModuleAbi;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::PathBuf;

/// Longest `Load`, `Ready`, `Refused` or `Failed` body. An ABI has at most 256 tensors.
pub(super) const MAX_JSON_BYTES: usize = 1 << 20;
/// Bytes of the length and the kind.
pub(super) const HEADER_BYTES: usize = 5;
/// Longest body of an `Infer` frame: the batch.
pub(super) const INFER_BYTES: usize = 4;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// To the runner: load this.
    Load,
    /// To the runner: run this batch.
    Infer,
    /// From the runner: loaded and locked down.
    Ready,
    /// From the runner: not loaded; it exits.
    Refused,
    /// From the runner: the answer.
    Done,
    /// From the runner: no answer.
    Failed,
}

impl Kind {
    fn byte(self) -> u8 {
        match self {
            Self::Load => 1,
            Self::Infer => 2,
            Self::Ready => 3,
            Self::Refused => 4,
            Self::Done => 5,
            Self::Failed => 6,
        }
    }

    fn of(byte: u8) -> Option<Self> {
        let all = [
            Self::Load,
            Self::Infer,
            Self::Ready,
            Self::Refused,
            Self::Done,
            Self::Failed,
        ];
        all.into_iter().find(|kind| kind.byte() == byte)
    }
}

/// Body of `Load`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Load {
    /// The ABI from the signed manifest.
    pub(super) abi: ModuleAbi,
    /// Absolute path of the native code, whose digest the agent has verified.
    pub(super) native: PathBuf,
    /// Absolute path of the weights, whose digest the agent has verified.
    pub(super) weights: Option<PathBuf>,
    /// Most memory the module may have, in bytes.
    pub(super) memory_bytes: u64,
    /// Longest time one call may take, in microseconds.
    pub(super) deadline_us: u64,
    /// Threads that work on one call, if the module can be run so.
    pub(super) workers: u32,
}

/// Body of `Ready`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Ready {
    /// Measure -> `applied` or why not.
    pub(super) lockdown: BTreeMap<String, String>,
    /// How long loading took, in microseconds.
    pub(super) load_us: u64,
}

/// Body of `Refused`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Refused {
    /// Why the module was not loaded.
    pub(super) reason: String,
}

/// Body of `Failed`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Failed {
    /// The module trapped; the runner exits.
    Trap(String),
    /// The module was interrupted at its deadline; the runner exits.
    Deadline,
    /// The module returned an error code; the runner goes on.
    Code(i32),
    /// The request does not fit the model; the runner goes on.
    Request(String),
}

/// Starts a frame in `buffer`; [`finish`] completes it.
pub(super) fn begin(buffer: &mut Vec<u8>, kind: Kind) {
    buffer.clear();
    buffer.extend_from_slice(&[0, 0, 0, 0, kind.byte()]);
}

/// Writes the length into a frame begun with [`begin`].
///
/// # Errors
/// `InvalidInput` for a frame of 4 GiB or more, which no ABI allows.
pub(super) fn finish(buffer: &mut [u8]) -> io::Result<()> {
    let length = u32::try_from(buffer.len() - 4)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "the frame is too long"))?;
    buffer[..4].copy_from_slice(&length.to_le_bytes());
    Ok(())
}

/// A whole frame with a JSON body.
///
/// # Errors
/// `InvalidInput` if the body cannot be written as JSON, such as a path that is not UTF-8.
pub(super) fn json<T: Serialize>(kind: Kind, body: &T) -> io::Result<Vec<u8>> {
    let mut frame = Vec::new();
    begin(&mut frame, kind);
    serde_json::to_writer(&mut frame, body)
        .map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))?;
    finish(&mut frame)?;
    Ok(frame)
}

/// Kind and body length of a frame, from its header.
///
/// # Errors
/// `InvalidData` for an unknown kind or a body longer than `max_body_bytes`.
pub(super) fn header(
    bytes: [u8; HEADER_BYTES],
    max_body_bytes: usize,
) -> io::Result<(Kind, usize)> {
    let invalid = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
    let [a, b, c, d, kind] = bytes;
    let length = u32::from_le_bytes([a, b, c, d]) as usize;
    let kind = Kind::of(kind).ok_or_else(|| invalid(format!("frame of unknown kind {kind}")))?;
    match length.checked_sub(1) {
        Some(body) if body <= max_body_bytes => Ok((kind, body)),
        _ => Err(invalid(format!(
            "frame of {length} bytes, {max_body_bytes} are allowed"
        ))),
    }
}

/// Reads a frame into `body`, blocking. `None` at the end of input between two frames.
///
/// # Errors
/// As [`header`], and whatever reading gives.
pub(super) fn read(
    input: &mut impl Read,
    body: &mut Vec<u8>,
    max_body_bytes: usize,
) -> io::Result<Option<Kind>> {
    let mut head = [0; HEADER_BYTES];
    let first = loop {
        match input.read(&mut head[..1]) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            other => break other?,
        }
    };
    if first == 0 {
        return Ok(None);
    }
    input.read_exact(&mut head[1..])?;
    let (kind, length) = header(head, max_body_bytes)?;
    body.resize(length, 0);
    input.read_exact(body)?;
    Ok(Some(kind))
}

/// Splits off the next little-endian `u32`.
pub(super) fn take_u32(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<4>()?;
    Some((u32::from_le_bytes(*head), rest))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_the_way() {
        let frame = json(
            Kind::Refused,
            &Refused {
                reason: "no".into(),
            },
        )
        .unwrap();
        let mut body = Vec::new();
        let mut input = &frame[..];
        assert_eq!(
            read(&mut input, &mut body, 100).unwrap(),
            Some(Kind::Refused)
        );
        assert_eq!(
            serde_json::from_slice::<Refused>(&body).unwrap().reason,
            "no"
        );
        assert_eq!(read(&mut input, &mut body, 100).unwrap(), None);
    }

    #[test]
    fn long_unknown_and_truncated_frames_are_errors() {
        let mut body = Vec::new();
        for bytes in [
            &[0, 0, 0, 0, 1][..],
            &[102, 0, 0, 0, 1],
            &[255, 255, 255, 255, 1],
            &[1, 0, 0, 0, 99],
            &[9, 0, 0],
            &[9, 0, 0, 0, 1, 1],
        ] {
            let mut input = bytes;
            assert!(read(&mut input, &mut body, 100).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn numbers_are_cut_off_or_missed() {
        let bytes = [1, 2, 3, 4, 5];
        assert_eq!(take_u32(&bytes), Some((0x0403_0201, &[5][..])));
        assert_eq!(take_u32(&bytes[..3]), None);
    }
}
