//! Versions made by hand: small artefacts whose bytes say what they are. No code in them runs.

use super::Fleet;
use sandpiper_core::abi::{ABI_VERSION, ModuleAbi, PlacedTensor};
use sandpiper_core::digest::{ArtefactRef, Digest};
use sandpiper_core::manifest::{
    Accuracy, AccuracySource, Golden, NativeCode, VariantManifest, VersionManifest,
};
use sandpiper_core::signed::{Purpose, Signed};
use sandpiper_core::target::Target;
use sandpiper_core::tensor::{DType, Dim, TensorSpec};
use sandpiper_core::time::Millis;
use sandpiper_transport::signing::SigningKey;

/// The model of every test.
pub(crate) const MODEL: &str = "activity";
/// The variant of every version.
pub(crate) const VARIANT: &str = "small-f32";
/// The runtime that the played devices say they have.
pub(crate) const RUNTIME: &str = "test-runtime";

/// An artefact of a version, by kind.
pub(crate) fn bytes(version: &str, kind: &str) -> Vec<u8> {
    format!("{kind} of {version}").into_bytes()
}

/// The digest of a version's native code.
pub(crate) fn code(version: &str) -> Digest {
    Digest::of(&bytes(version, "native"))
}

fn tensor(name: &str, offset: u32) -> PlacedTensor {
    PlacedTensor {
        spec: TensorSpec {
            name: name.to_owned(),
            dtype: DType::F32,
            dims: vec![Dim::Batch, Dim::Fixed(4)],
        },
        offset,
    }
}

/// A version with one variant.
pub(crate) fn manifest(version: &str) -> VersionManifest {
    let artefact = |kind: &str| ArtefactRef::of(&bytes(version, kind));
    let (input, output) = (tensor("x", 0), tensor("y", 64));
    let native = NativeCode {
        artefact: artefact("native"),
        runtime_key: RUNTIME.to_owned(),
    };
    let variant = VariantManifest {
        name: VARIANT.parse().unwrap(),
        accuracy: Accuracy {
            value: 0.9,
            samples: 100,
            source: AccuracySource::Measured,
        },
        abi: ModuleAbi {
            abi: ABI_VERSION,
            inputs: vec![input.clone()],
            outputs: vec![output.clone()],
            max_batch: 1,
            memory_bytes: 65536,
            weights: None,
            bounded: true,
        },
        macs: [(DType::F32, 1000)].into(),
        params: 1,
        wasm: artefact("wasm"),
        native: [(Target::X8664V2, native)].into(),
        weights: None,
        golden: Golden {
            artefact: artefact("golden"),
            tolerance: 1e-4,
        },
        host_latency: None,
    };
    VersionManifest {
        model: MODEL.parse().unwrap(),
        version: version.parse().unwrap(),
        publisher: "admin".parse().unwrap(),
        published_at: Millis(1),
        inputs: vec![input.spec],
        outputs: vec![output.spec],
        labels: Vec::new(),
        evaluation: None,
        variants: vec![variant],
    }
}

/// A manifest signed by a key.
pub(crate) fn sign(key: &SigningKey, manifest: &VersionManifest) -> Signed {
    key.sign(Purpose::Version, serde_json::to_vec(manifest).unwrap())
}

/// Uploads the artefacts of a version.
pub(crate) async fn upload(fleet: &Fleet, version: &str) {
    let mut operator = fleet.operator().await;
    for kind in ["native", "wasm", "golden"] {
        let bytes = bytes(version, kind);
        let artefact = ArtefactRef::of(&bytes);
        operator.upload(artefact, &bytes).await.unwrap();
    }
}

/// Uploads and publishes a version.
pub(crate) async fn publish(fleet: &Fleet, version: &str) {
    upload(fleet, version).await;
    let signed = sign(&fleet.publisher(), &manifest(version));
    fleet.operator().await.publish(signed).await.unwrap();
}
