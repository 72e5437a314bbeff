//! Who may depend on whom: the table of ARCHITECTURE.md, read from cargo's own metadata.
#![allow(clippy::unwrap_used)]

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package, PackageId};
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

fn metadata() -> Metadata {
    let manifest = sandpiper_tidy::root().join("Cargo.toml");
    MetadataCommand::new()
        .manifest_path(manifest)
        .exec()
        .unwrap()
}

fn package<'a>(all: &'a Metadata, name: &str) -> &'a Package {
    all.packages
        .iter()
        .find(|p| p.name.as_str() == name)
        .unwrap()
}

/// Names of the normal dependencies that a package states itself.
fn direct(package: &Package) -> BTreeSet<String> {
    let normal = package
        .dependencies
        .iter()
        .filter(|d| d.kind == DependencyKind::Normal);
    normal.map(|d| d.name.clone()).collect()
}

/// Names of everything that a package brings along at run time.
fn reach(all: &Metadata, name: &str) -> BTreeSet<String> {
    let resolve = all.resolve.as_ref().unwrap();
    let nodes: BTreeMap<&PackageId, _> = resolve.nodes.iter().map(|n| (&n.id, n)).collect();
    let names: BTreeMap<&PackageId, &str> = all
        .packages
        .iter()
        .map(|p| (&p.id, p.name.as_str()))
        .collect();
    let mut open = vec![&package(all, name).id];
    let mut seen = BTreeSet::new();
    while let Some(id) = open.pop() {
        for dep in &nodes[id].deps {
            let normal = dep
                .dep_kinds
                .iter()
                .any(|k| k.kind == DependencyKind::Normal);
            if normal && seen.insert(&dep.pkg) {
                open.push(&dep.pkg);
            }
        }
    }
    seen.into_iter().map(|id| names[id].to_owned()).collect()
}

#[test]
fn our_crates_depend_in_one_direction() {
    let all = metadata();
    let allowed: &[(&str, &[&str])] = &[
        ("sandpiper-core", &[]),
        ("sandpiper-proto", &["core"]),
        ("sandpiper-transport", &["core", "proto"]),
        ("sandpiper-compiler", &["core"]),
        ("sandpiper-sandbox", &["core"]),
        (
            "sandpiper-agent",
            &["core", "proto", "transport", "sandbox"],
        ),
        (
            "sandpiper",
            &["core", "proto", "transport", "sandbox", "compiler"],
        ),
        // The end-to-end tests see binaries only, so that they cannot reach round an interface.
        ("sandpiper-e2e", &["testdata"]),
        ("sandpiper-testdata", &[]),
        // The simulation drives what decides, and nothing that acts.
        ("sandpiper-sim", &["core"]),
        ("sandpiper-model", &["core", "sim"]),
    ];
    for (name, may) in allowed {
        let may: BTreeSet<String> = may.iter().map(|n| format!("sandpiper-{n}")).collect();
        let ours = direct(package(&all, name));
        let ours: BTreeSet<String> = ours
            .into_iter()
            .filter(|d| d.starts_with("sandpiper"))
            .collect();
        let extra: Vec<_> = ours.difference(&may).collect();
        assert!(extra.is_empty(), "{name} may not depend on {extra:?}");
    }
}

#[test]
fn the_core_is_pure() {
    let reached = reach(&metadata(), "sandpiper-core");
    for banned in [
        "tokio", "tonic", "prost", "sled", "wasmtime", "rustls", "rand",
    ] {
        assert!(
            !reached.contains(banned),
            "sandpiper-core brings {banned} along"
        );
    }
}

#[test]
fn each_place_names_only_what_it_may() {
    let all = metadata();
    let rules: &[(&str, &[&str])] = &[
        ("sandpiper-proto", &["tokio", "sled", "wasmtime", "rustls"]),
        ("sandpiper-transport", &["sled", "wasmtime"]),
        (
            "sandpiper-compiler",
            &["tokio", "tonic", "sled", "wasmtime", "rustls"],
        ),
        ("sandpiper-sandbox", &["tokio", "tonic", "sled", "rustls"]),
        (
            "sandpiper-agent",
            &["wasmtime", "sled", "sandpiper", "sandpiper-compiler"],
        ),
        ("sandpiper", &["wasmtime", "sandpiper-agent"]),
        ("sandpiper-sim", &["tokio", "tonic", "sled", "wasmtime"]),
    ];
    for (name, banned) in rules {
        let stated = direct(package(&all, name));
        for banned in *banned {
            assert!(!stated.contains(*banned), "{name} may not name {banned}");
        }
    }
}

/// Deliberate mistakes must not reach anything that is installed, or that is built by default.
#[test]
fn only_what_proves_makes_mistakes_and_only_when_asked() {
    for package in metadata().workspace_packages() {
        for dependency in &package.dependencies {
            let asks = dependency.features.iter().any(|f| f == "mutants");
            assert!(!asks, "{} always asks for `mutants`", package.name);
        }
        let passes_on = package
            .features
            .values()
            .flatten()
            .any(|f| f.ends_with("/mutants"));
        let by_default = package.features.get("default");
        let by_default = by_default.is_some_and(|d| d.iter().any(|f| f.contains("mutants")));
        let proves = ["sandpiper-sim", "sandpiper-model"].contains(&package.name.as_str());
        let allowed = proves && !by_default;
        assert!(
            !passes_on || allowed,
            "{} passes `mutants` on",
            package.name
        );
    }
}

/// Metadata joins the features of the whole workspace; `cargo tree` does not, as the agent that
/// is installed is built alone.
#[test]
fn the_agent_carries_no_compiler() {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .current_dir(sandpiper_tidy::root())
        .args([
            "tree",
            "--package",
            "sandpiper-agent",
            "--edges",
            "normal",
            "--prefix",
            "none",
        ])
        .args(["--format", "{p}", "--target", "all"])
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let tree = String::from_utf8(output.stdout).unwrap();
    assert!(
        tree.contains("wasmtime "),
        "the sandbox is missing:\n{tree}"
    );
    for banned in [
        "cranelift-codegen",
        "wasmtime-internal-cranelift",
        "protox",
        "sled",
        "wasmtime-wasi",
    ] {
        let found = tree
            .lines()
            .find(|line| line.split(' ').next() == Some(banned));
        assert_eq!(found, None, "the agent carries {banned}");
    }
}

#[test]
fn every_crate_has_our_licence_and_lints() {
    let all = metadata();
    for package in all.workspace_packages() {
        assert_eq!(
            package.license.as_deref(),
            Some("Apache-2.0"),
            "{}",
            package.name
        );
        let manifest = std::fs::read_to_string(&package.manifest_path).unwrap();
        let shared = manifest.contains("[lints]\nworkspace = true");
        assert!(
            shared,
            "{} does not take the lints of the workspace",
            package.name
        );
    }
    assert!(sandpiper_tidy::root().join("LICENSE").is_file());
}
