//! What the fleet can run: published versions, signed, and their artefacts by digest.

mod agents;
mod blobs;

pub use agents::admit_agent;
pub use blobs::{BlobError, Blobs, Upload};
pub use sandpiper_core::fleet::{Published, PublishedAgent};

use sandpiper_core::abi::AbiError;
use sandpiper_core::digest::ArtefactRef;
use sandpiper_core::manifest::{VariantManifest, VersionManifest};
use sandpiper_core::signed::{Purpose, Signed};
use sandpiper_core::target::Arch;
use sandpiper_core::update::ReleaseError;
use sandpiper_transport::signing::{SignatureError, VerifyingKeys};

/// Most variants in one version: more than any board family needs, few enough to compare.
pub const MAX_VARIANTS: usize = 64;

/// Largest manifest, in bytes of JSON: [`MAX_VARIANTS`] variants for every target and a thousand
/// labels stay below it. A device gets the manifests of what it holds in one message of at most
/// 1 MiB, and the store holds each as part of one value.
pub const MAX_MANIFEST_BYTES: usize = 256 << 10;

/// Why a version is not published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// Not signed by a trusted publisher.
    #[error("the version's signature is not accepted")]
    Signature(#[from] SignatureError),
    /// The manifest is too large.
    #[error("the manifest has {0} bytes; at most {MAX_MANIFEST_BYTES} are accepted")]
    Size(usize),
    /// The payload is not a manifest.
    #[error("the signed payload is not a version manifest")]
    Manifest(#[from] serde_json::Error),
    /// The number of variants is out of range.
    #[error("a version has 1 to {MAX_VARIANTS} variants; this one has {0}")]
    Variants(usize),
    /// Two variants share a name.
    #[error("two variants are named `{0}`: names are unique within a version")]
    Duplicate(String),
    /// A variant's interface breaks the rules.
    #[error("the interface of variant `{variant}` is not valid")]
    Abi {
        /// The variant.
        variant: String,
        /// The rule.
        source: AbiError,
    },
    /// A variant's interface and its artefacts name different weights.
    #[error("variant `{0}` does not bring the weights that its interface names")]
    Weights(String),
    /// The payload is not a release of the agent.
    #[error("the signed payload is not a release of the agent")]
    Release(#[source] serde_json::Error),
    /// A release of the agent that breaks the rules.
    #[error("the release of the agent is not valid")]
    Agent(#[from] ReleaseError),
    /// What was uploaded as a program is none for its architecture.
    #[error("the program for {arch} cannot run there: {why}")]
    Program {
        /// The architecture.
        arch: Arch,
        /// Why.
        why: String,
    },
    /// An artefact cannot be read.
    #[error("an artefact cannot be read")]
    Blob(#[from] BlobError),
    /// Artefacts that were not uploaded.
    #[error("{0} artefacts are not here: upload them before publishing")]
    Missing(usize),
}

/// Every artefact that a version needs, each once.
pub fn artefacts(manifest: &VersionManifest) -> Vec<ArtefactRef> {
    let mut all: Vec<ArtefactRef> = manifest
        .variants
        .iter()
        .flat_map(|v| {
            let native = v.native.values().map(|n| n.artefact);
            native.chain([v.wasm, v.golden.artefact]).chain(v.weights)
        })
        .collect();
    all.sort();
    all.dedup();
    all
}

/// Checks a version that somebody wants to publish: signature, shape, and that every artefact
/// is held. Blocks on the file system.
///
/// # Errors
/// [`PublishError`].
pub fn admit(
    signed: Signed,
    publishers: &VerifyingKeys,
    blobs: &Blobs,
) -> Result<Published, PublishError> {
    let payload = publishers.verify(&signed, Purpose::Version)?;
    if payload.len() > MAX_MANIFEST_BYTES {
        return Err(PublishError::Size(payload.len()));
    }
    let manifest: VersionManifest = serde_json::from_slice(payload)?;
    let count = manifest.variants.len();
    if count == 0 || count > MAX_VARIANTS {
        return Err(PublishError::Variants(count));
    }
    let mut names: Vec<&str> = manifest.variants.iter().map(|v| v.name.as_str()).collect();
    names.sort_unstable();
    if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(PublishError::Duplicate(pair[0].to_owned()));
    }
    for variant in &manifest.variants {
        check(variant)?;
    }
    let missing = blobs.missing(&artefacts(&manifest)).len();
    if missing > 0 {
        return Err(PublishError::Missing(missing));
    }
    Ok(Published { signed, manifest })
}

/// Checks what a device would otherwise find out only after it has fetched the variant.
fn check(variant: &VariantManifest) -> Result<(), PublishError> {
    let name = || variant.name.to_string();
    variant.abi.check().map_err(|source| PublishError::Abi {
        variant: name(),
        source,
    })?;
    let named = variant
        .abi
        .weights
        .map(|w| (w.digest, u64::from(w.size_bytes)));
    if named != variant.weights.map(|w| (w.digest, w.size_bytes)) {
        return Err(PublishError::Weights(name()));
    }
    Ok(())
}
