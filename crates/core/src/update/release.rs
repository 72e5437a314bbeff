//! What a publisher signs and an operator asks for.

use crate::digest::ArtefactRef;
use crate::names::ActorName;
use crate::target::Arch;
use crate::time::Millis;
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use std::collections::BTreeMap;

/// Largest program of a release, in bytes: eight times the most that the agent may have.
pub const MAX_AGENT_BYTES: u64 = 64 << 20;
/// Longest text of a version, in bytes.
const MAX_VERSION_LEN: usize = 63;

/// A version of the agent: `MAJOR.MINOR.PATCH`, and perhaps `-SUFFIX` for what comes before it.
///
/// Ordered by its numbers; of two with the same numbers, one with a suffix is older than the one
/// without, and suffixes are ordered as texts.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AgentVersion {
    numbers: [u32; 3],
    suffix: String,
}

/// A text that is no version of an agent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a version of an agent: use MAJOR.MINOR.PATCH such as 0.2.0, perhaps with a suffix of a-z, 0-9, `-` and `.` such as 0.2.0-rc.1"
)]
pub struct AgentVersionError(String);

fn parse(text: &str) -> Option<AgentVersion> {
    if text.len() > MAX_VERSION_LEN {
        return None;
    }
    let (numbers, suffix) = match text.split_once('-') {
        Some((numbers, suffix)) => (numbers, Some(suffix)),
        None => (text, None),
    };
    let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.');
    if suffix.is_some_and(|s| s.is_empty() || !s.bytes().all(good)) {
        return None;
    }
    let mut parts = numbers.split('.');
    let mut number = || {
        let part = parts.next()?;
        // One way to write each number, so that equal versions are equal texts.
        let plain = part.bytes().all(|b| b.is_ascii_digit());
        let leads = part.len() > 1 && part.starts_with('0');
        (plain && !leads).then(|| part.parse().ok())?
    };
    let numbers = [number()?, number()?, number()?];
    let suffix = suffix.unwrap_or_default().to_owned();
    parts
        .next()
        .is_none()
        .then_some(AgentVersion { numbers, suffix })
}

impl std::str::FromStr for AgentVersion {
    type Err = AgentVersionError;
    fn from_str(text: &str) -> Result<Self, AgentVersionError> {
        parse(text).ok_or_else(|| AgentVersionError(text.chars().take(80).collect()))
    }
}

impl TryFrom<String> for AgentVersion {
    type Error = AgentVersionError;
    fn try_from(text: String) -> Result<Self, AgentVersionError> {
        text.parse()
    }
}

impl From<AgentVersion> for String {
    fn from(version: AgentVersion) -> Self {
        version.to_string()
    }
}

impl std::fmt::Display for AgentVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [major, minor, patch] = self.numbers;
        let text = format!("{major}.{minor}.{patch}");
        match self.suffix.as_str() {
            "" => f.pad(&text),
            suffix => f.pad(&format!("{text}-{suffix}")),
        }
    }
}

impl Ord for AgentVersion {
    fn cmp(&self, other: &Self) -> Ordering {
        let last = |v: &Self| v.suffix.is_empty();
        self.numbers
            .cmp(&other.numbers)
            .then_with(|| last(self).cmp(&last(other)))
            .then_with(|| self.suffix.cmp(&other.suffix))
    }
}

impl PartialOrd for AgentVersion {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// A release of the agent: one program for each architecture. Signed as a whole by a publisher; see
/// [`crate::signed`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentRelease {
    /// The version.
    pub version: AgentVersion,
    /// Who published it.
    pub publisher: ActorName,
    /// When it was published, by the publisher's clock. For people only.
    pub published_at: Millis,
    /// The oldest version that a device may be brought to once it has run this one. Whoever steers
    /// devices cannot go below it: only a publisher says that older releases are harmless.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest: Option<AgentVersion>,
    /// The program for each architecture.
    pub binaries: BTreeMap<Arch, ArtefactRef>,
}

/// Why a release is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReleaseError {
    /// No program.
    #[error("the release has no program")]
    Empty,
    /// A program of an impossible size.
    #[error("the program for {arch} has {size_bytes} bytes; a program has 1 to {MAX_AGENT_BYTES}")]
    Size {
        /// For which architecture.
        arch: Arch,
        /// Its size.
        size_bytes: u64,
    },
    /// It would shut itself out.
    #[error("the release {version} is older than {oldest}, the oldest that it allows")]
    Oldest {
        /// Its version.
        version: AgentVersion,
        /// What it calls the oldest.
        oldest: AgentVersion,
    },
}

impl AgentRelease {
    /// Whether it keeps the rules.
    ///
    /// # Errors
    /// [`ReleaseError`].
    pub fn check(&self) -> Result<(), ReleaseError> {
        if self.binaries.is_empty() {
            return Err(ReleaseError::Empty);
        }
        for (arch, artefact) in &self.binaries {
            if !(1..=MAX_AGENT_BYTES).contains(&artefact.size_bytes) {
                return Err(ReleaseError::Size {
                    arch: *arch,
                    size_bytes: artefact.size_bytes,
                });
            }
        }
        match &self.oldest {
            Some(oldest) if *oldest > self.version => Err(ReleaseError::Oldest {
                version: self.version.clone(),
                oldest: oldest.clone(),
            }),
            _ => Ok(()),
        }
    }
}

/// What an operator wants of a device's agent. Part of the assignment, which is signed by the
/// controller; the release in it counts only together with the publisher's signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentOrder {
    /// Rises with every order for the device. One that is settled is not looked at again: asking
    /// again is a new order.
    pub number: u64,
    /// The release to run; the program that is installed when missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<AgentRelease>,
}

impl AgentOrder {
    /// The version that is wanted, if it is a release.
    pub fn version(&self) -> Option<&AgentVersion> {
        self.release.as_ref().map(|r| &r.version)
    }
}
