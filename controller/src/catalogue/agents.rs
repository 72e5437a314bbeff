//! Releases of the agent that somebody wants to publish.

use super::{BlobError, Blobs, PublishError, PublishedAgent};
use sandpiper_core::digest::ArtefactRef;
use sandpiper_core::signed::{Purpose, Signed};
use sandpiper_core::update::{AgentRelease, elf};
use sandpiper_transport::signing::VerifyingKeys;
use std::io::Read as _;

/// Checks a release: signature, shape, and that every program is held and is one for its
/// architecture. Blocks on the file system.
///
/// # Errors
/// [`PublishError`].
pub fn admit_agent(
    signed: Signed,
    publishers: &VerifyingKeys,
    blobs: &Blobs,
) -> Result<PublishedAgent, PublishError> {
    let payload = publishers.verify(&signed, Purpose::Agent)?;
    if payload.len() > super::MAX_MANIFEST_BYTES {
        return Err(PublishError::Size(payload.len()));
    }
    let release: AgentRelease = serde_json::from_slice(payload).map_err(PublishError::Release)?;
    release.check()?;
    let wanted: Vec<ArtefactRef> = release.binaries.values().copied().collect();
    let missing = blobs.missing(&wanted).len();
    if missing > 0 {
        return Err(PublishError::Missing(missing));
    }
    for (arch, artefact) in &release.binaries {
        let header = header(blobs, *artefact)?;
        elf::check(&header, *arch).map_err(|why| PublishError::Program { arch: *arch, why })?;
    }
    Ok(PublishedAgent { signed, release })
}

fn header(blobs: &Blobs, artefact: ArtefactRef) -> Result<Vec<u8>, BlobError> {
    let (_, file) = blobs.open_at(artefact, 0)?;
    let mut header = Vec::new();
    let read = file.take(elf::HEADER_BYTES as u64).read_to_end(&mut header);
    // What was uploaded and cannot be read any more is damaged.
    read.map_err(|_| BlobError::Damaged(artefact.digest))?;
    Ok(header)
}
