//! A container image of the controller: one layer with one static program, nothing below it.
//!
//! The layout is that of the OCI image specification, version 1.0, in one tar file, so that
//! `skopeo`, `podman load` and registries take it as it is.

use super::archive::{Entry, gzip, sha256, tar};
use super::platform::Platform;
use anyhow::Result;
use serde_json::{Value, json};

/// Nobody's number in most distributions; the volume has to be writable for it.
const USER: &str = "65532:65532";

struct Blob {
    media: &'static str,
    digest: String,
    bytes: Vec<u8>,
}

impl Blob {
    fn new(media: &'static str, bytes: Vec<u8>) -> Self {
        Self {
            media,
            digest: sha256(&bytes),
            bytes,
        }
    }

    fn json(media: &'static str, value: &Value) -> Result<Self> {
        Ok(Self::new(media, serde_json::to_vec(value)?))
    }

    fn descriptor(&self) -> Value {
        json!({
            "mediaType": self.media,
            "digest": format!("sha256:{}", self.digest),
            "size": self.bytes.len(),
        })
    }

    fn entry(&self) -> Entry {
        let path = format!("blobs/sha256/{}", self.digest);
        Entry::new(path, 0o644, self.bytes.clone())
    }
}

/// The bytes of a tar file that holds the image of a controller made of these files.
///
/// # Errors
/// When a path is too long for a tar file.
pub(super) fn image(
    platform: Platform,
    version: &str,
    files: &[Entry],
    mtime: u64,
) -> Result<Vec<u8>> {
    let layer = tar(files, mtime)?;
    let diff = format!("sha256:{}", sha256(&layer));
    let layer = Blob::new("application/vnd.oci.image.layer.v1.tar+gzip", gzip(&layer)?);
    let config = json!({
        "architecture": platform.name(),
        "os": "linux",
        "config": {
            "User": USER,
            "Entrypoint": ["/usr/bin/sandpiper"],
            "Cmd": ["serve", "--data", "/data"],
            "Env": ["SANDPIPER_CONTEXT=/data/admin.toml"],
            "ExposedPorts": {"7443/tcp": {}, "7444/tcp": {}},
            "Volumes": {"/data": {}},
            "Labels": {
                "org.opencontainers.image.title": "sandpiper",
                "org.opencontainers.image.version": version,
                "org.opencontainers.image.licenses": "Apache-2.0",
            },
        },
        "rootfs": {"type": "layers", "diff_ids": [diff]},
        "history": [{"created_by": "cargo xtask dist"}],
    });
    let config = Blob::json("application/vnd.oci.image.config.v1+json", &config)?;
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config.descriptor(),
        "layers": [layer.descriptor()],
    });
    let manifest = Blob::json("application/vnd.oci.image.manifest.v1+json", &manifest)?;
    let mut named = manifest.descriptor();
    named["annotations"] = json!({"org.opencontainers.image.ref.name": version});
    named["platform"] = json!({"architecture": platform.name(), "os": "linux"});
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [named],
    });
    let entries = [
        Entry::new("oci-layout", 0o644, r#"{"imageLayoutVersion":"1.0.0"}"#),
        Entry::new("index.json", 0o644, serde_json::to_vec(&index)?),
        layer.entry(),
        config.entry(),
        manifest.entry(),
    ];
    tar(&entries, mtime)
}
