//! rten's wasm kernels as native code of 128 bits: what the sandbox and our own kernels are measured by
//! at equal width. Its sources are edited in a copy under `target`: the wasm side is chosen on this CPU,
//! and takes its instructions from `tests/peers/simd128`.

use super::{Peer, build_in};
use crate::shell;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

/// The packages that name a CPU.
const EDITED: [&str; 2] = ["rten-simd", "rten-gemm"];

/// What stands in them, and what shall. `any()` of nothing is false.
const EDITS: [(&str, &str); 5] = [
    ("target_arch = \"wasm32\"", "not(any())"),
    ("target_feature = \"simd128\"", "not(any())"),
    ("target_feature = \"relaxed-simd\"", "not(any())"),
    ("target_arch = \"x86_64\"", "any()"),
    ("std::arch::wasm32::", "sandpiper_peers_simd128::"),
];

/// The encodings of AVX2, and no vector wider than 128 bits from the compiler's own vectorising.
const FLAGS: &str = "-C target-feature=+avx2,+fma,+prefer-128-bit";

/// rten with vectors of 128 bits.
///
/// # Errors
/// On a CPU where rten has no other width, or when it cannot be built.
pub(crate) fn rten_at_128_bits() -> Result<Peer> {
    ensure!(
        cfg!(target_arch = "x86_64"),
        "the native kernels of rten have 128 bits on this CPU"
    );
    let place = shell::root().join("target/peers-128");
    let workspace = place.join("workspace");
    edit_sources(&place)?;
    copy_workspace(&workspace)?;
    let directory = build_in(&workspace, &place.join("target"), &[], Some(FLAGS))?;
    Ok(Peer::new("rten 128", directory.join("rten"), Vec::new()))
}

/// Copies and edits the packages, as they are in the registry's own cache.
fn edit_sources(place: &Path) -> Result<()> {
    for name in EDITED {
        let to = place.join(name);
        let from = source_of(name)?;
        copy_tree(&from, &to)?;
        edit_tree(&to.join("src"))?;
        let manifest = to.join("Cargo.toml");
        let text = fs::read_to_string(&manifest)?;
        let dependency =
            "[dependencies.sandpiper-peers-simd128]\npath = \"../workspace/simd128\"\n";
        fs::write(&manifest, format!("{text}\n{dependency}"))?;
    }
    Ok(())
}

/// Where cargo keeps a package that the peers depend on.
fn source_of(name: &str) -> Result<PathBuf> {
    let told = shell::cargo()
        .args(["metadata", "--format-version", "1", "--locked"])
        .arg("--manifest-path")
        .arg(shell::root().join("tests/peers/Cargo.toml"))
        .output()?;
    let said = String::from_utf8_lossy(&told.stderr);
    ensure!(told.status.success(), "cargo metadata: {said}");
    let told: Value = serde_json::from_slice(&told.stdout)?;
    let packages = told["packages"].as_array().context("no packages")?;
    let package = packages.iter().find(|p| p["name"] == name);
    let manifest = package.and_then(|p| p["manifest_path"].as_str());
    let manifest = PathBuf::from(manifest.with_context(|| format!("no package {name}"))?);
    let directory = manifest.parent().context("a manifest without a place")?;
    Ok(directory.to_path_buf())
}

/// The peers' own workspace with the edited packages in it; its lock file is written anew there.
fn copy_workspace(to: &Path) -> Result<()> {
    let from = shell::root().join("tests/peers");
    copy_tree(&from, to)?;
    // The other engine takes minutes to build and is no part of this one.
    fs::remove_file(to.join("src/bin/tract.rs"))?;
    let manifest = to.join("Cargo.toml");
    let text = fs::read_to_string(&manifest)?;
    let kept = text.lines().filter(|line| !line.starts_with("tract-onnx"));
    let mut text = kept.collect::<Vec<_>>().join("\n");
    text.push_str("\n\n[patch.crates-io]\n");
    for name in EDITED {
        text.push_str(&format!("{name} = {{ path = \"../{name}\" }}\n"));
    }
    fs::write(&manifest, text)?;
    Ok(())
}

fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            copy_tree(&source, &target)?;
        } else {
            fs::write(&target, fs::read(&source)?)?;
        }
    }
    Ok(())
}

fn edit_tree(directory: &Path) -> Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            edit_tree(&path)?;
        } else {
            let text = fs::read_to_string(&path)?;
            let edit = |text: String, (from, to): &(&str, &str)| text.replace(from, to);
            fs::write(&path, EDITS.iter().fold(text, edit))?;
        }
    }
    Ok(())
}
