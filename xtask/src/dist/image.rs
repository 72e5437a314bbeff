//! A container image of the controller: one layer with one static program, nothing below it.
//!
//! The layout is that of the OCI image specification, version 1.0, in one tar file, so that
//! `skopeo`, `podman load` and registries take it as it is.

use super::archive::{Entry, gzip, sha256, tar};
use super::platform::Platform;
use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Read as _;

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

/// What runs from an image: its files as one tar file, and how it is started.
#[derive(Debug)]
pub(super) struct Image {
    pub(super) layer: Vec<u8>,
    pub(super) entrypoint: Vec<String>,
    pub(super) command: Vec<String>,
    pub(super) environment: Vec<(String, String)>,
}

/// Reads an image of one layer by following its descriptors, each held against its digest and size.
///
/// # Errors
/// When a blob is missing or is not what names it.
pub(super) fn read(bytes: &[u8]) -> Result<Image> {
    let mut files = BTreeMap::new();
    for file in tar::Archive::new(bytes).entries()? {
        let mut file = file?;
        let path = file.path()?.display().to_string();
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        files.insert(path, bytes);
    }
    let named = |descriptor: &Value| -> Result<Vec<u8>> {
        let digest = descriptor["digest"].as_str().context("no digest")?;
        let blob = files.get(&format!("blobs/{}", digest.replace(':', "/")));
        let blob = blob.with_context(|| format!("no blob {digest}"))?;
        let fits = format!("sha256:{}", sha256(blob)) == digest && descriptor["size"] == blob.len();
        ensure!(fits, "blob {digest} is another one");
        Ok(blob.clone())
    };
    let index: Value = serde_json::from_slice(files.get("index.json").context("no index.json")?)?;
    let manifest: Value = serde_json::from_slice(&named(&index["manifests"][0])?)?;
    let config: Value = serde_json::from_slice(&named(&manifest["config"])?)?;
    let mut layer = Vec::new();
    let packed = named(&manifest["layers"][0])?;
    flate2::read::GzDecoder::new(packed.as_slice()).read_to_end(&mut layer)?;
    let diff = format!("sha256:{}", sha256(&layer));
    ensure!(
        config["rootfs"]["diff_ids"] == json!([diff]),
        "another layer"
    );
    let words = |name: &str| -> Vec<String> {
        let list = config["config"][name].as_array().into_iter().flatten();
        list.filter_map(|w| w.as_str().map(str::to_owned)).collect()
    };
    let pair = |text: &String| {
        let (name, value) = text.split_once('=')?;
        Some((name.to_owned(), value.to_owned()))
    };
    Ok(Image {
        layer,
        entrypoint: words("Entrypoint"),
        command: words("Cmd"),
        environment: words("Env").iter().filter_map(pair).collect(),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Files of a tar file by their paths.
    fn walk(bytes: &[u8]) -> BTreeMap<String, (u32, Vec<u8>)> {
        let mut archive = tar::Archive::new(bytes);
        let files = archive.entries().unwrap().map(Result::unwrap);
        let files = files.filter(|f| f.header().entry_type().is_file());
        files
            .map(|mut file| {
                let mut bytes = Vec::new();
                file.read_to_end(&mut bytes).unwrap();
                let path = file.path().unwrap().display().to_string();
                (path, (file.header().mode().unwrap(), bytes))
            })
            .collect()
    }

    #[test]
    fn whoever_follows_the_descriptors_finds_every_file_and_nothing_else() {
        let inside = [
            Entry::new("usr/bin/sandpiper", 0o755, "program"),
            Entry::new("usr/share/a", 0o644, "a"),
        ];
        let bytes = image(Platform::Amd64, "1.2.3", &inside, 7).unwrap();
        assert_eq!(bytes, image(Platform::Amd64, "1.2.3", &inside, 7).unwrap());
        let files = walk(&bytes);
        assert_eq!(files.len(), 5, "{:?}", files.keys());
        assert_eq!(
            serde_json::from_slice::<Value>(&files["oci-layout"].1).unwrap()["imageLayoutVersion"],
            "1.0.0"
        );
        let read = read(&bytes).unwrap();
        assert_eq!(read.entrypoint, ["/usr/bin/sandpiper"]);
        let found = walk(&read.layer);
        let want = inside.map(|e| (e.path, (e.mode, e.bytes)));
        assert_eq!(found, BTreeMap::from(want));
        // One bit of any blob is noticed.
        let mut damaged = bytes;
        let layers = damaged.windows(8).position(|w| w == b"\"layers\"");
        damaged[layers.unwrap() + 1] ^= 1;
        assert!(super::read(&damaged).is_err());
    }

    /// What others make of it: skopeo reads the archive and compares every digest.
    #[test]
    #[allow(clippy::print_stdout)]
    fn skopeo_takes_it() {
        if !crate::shell::has("skopeo", "--version") {
            println!("skipped: there is no skopeo here");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let inside = [Entry::new("usr/bin/sandpiper", 0o755, "program")];
        let bytes = image(Platform::Amd64, "1.2.3", &inside, 7).unwrap();
        std::fs::write(dir.path().join("image.tar"), bytes).unwrap();
        let output = std::process::Command::new("skopeo")
            .args([
                "--insecure-policy",
                "copy",
                "oci-archive:image.tar:1.2.3",
                "dir:out",
            ])
            .current_dir(&dir)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        assert!(dir.path().join("out/manifest.json").exists());
    }
}
