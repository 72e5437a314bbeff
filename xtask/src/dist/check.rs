//! What was built, held against the same built once more from nothing, and run.

use super::image::{Image, read};
use super::platform::{Platform, Program};
use super::{built, in_place, make, say};
use anyhow::{Context, Result, ensure};
use sandpiper_e2e::activity;
use sandpiper_e2e::controller::free_address;
use sandpiper_e2e::process::Process;
use sandpiper_e2e::wait;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// For a controller to start and answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// Files that were made, by name.
type Made = BTreeMap<String, Vec<u8>>;

/// Builds everything for these platforms, then again from nothing, and compares every byte. Gives a line
/// for each thing that held.
///
/// # Errors
/// The first file that differs.
pub(super) fn twice(platforms: &[Platform]) -> Result<Vec<String>> {
    let first = everything(platforms, &super::out())?;
    // In the same place, as on another machine with the same sources: paths are part of names in it.
    let aside = Aside::put(platforms)?;
    let dir = tempfile::tempdir()?;
    let second = everything(platforms, dir.path())?;
    drop(aside);
    ensure!(
        first.keys().eq(second.keys()),
        "other files the second time: {:?} and {:?}",
        first.keys(),
        second.keys()
    );
    let mut lines = Vec::new();
    for (name, bytes) in &first {
        let again = &second[name];
        ensure!(
            bytes == again,
            "{name} differs from byte {} on when it is built again ({} and {} bytes)",
            bytes.iter().zip(again).take_while(|(a, b)| a == b).count(),
            bytes.len(),
            again.len()
        );
        lines.push(format!(
            "built twice, the same {} bytes: {name}",
            bytes.len()
        ));
    }
    Ok(lines)
}

/// Builds everything for these platforms, holds the checksums against the files, and runs the controller
/// from its image.
///
/// # Errors
/// What does not fit, or does not run.
pub(super) fn tried(platforms: &[Platform]) -> Result<Vec<String>> {
    let made = everything(platforms, &super::out())?;
    let mut lines = vec![checksums(&super::out())?];
    for (name, bytes) in made.iter().filter(|(name, _)| name.ends_with(".tar")) {
        lines.push(run(name, bytes)?);
    }
    Ok(lines)
}

/// Packages, archives and images in `out`, and the programs in them.
fn everything(platforms: &[Platform], out: &Path) -> Result<Made> {
    let mut all = Made::new();
    for path in make(platforms, out)? {
        let name = path.file_name().and_then(OsStr::to_str);
        let name = name.context("a file without a name")?.to_owned();
        // It lists what else lies there, too.
        if name != super::SUMS {
            all.insert(name, super::read(&path)?);
        }
    }
    for platform in platforms {
        for program in platform.programs() {
            let path = in_place(*platform, *program, super::PROFILE);
            let name = format!("{} for {}", program.package(), platform.name());
            all.insert(name, super::read(&path)?);
        }
    }
    Ok(all)
}

/// What was built before, out of the way until this is dropped.
struct Aside(Vec<(PathBuf, PathBuf)>);

impl Aside {
    fn put(platforms: &[Platform]) -> Result<Self> {
        let mut aside = Self(Vec::new());
        for platform in platforms {
            let place = built(*platform);
            let kept = place.with_extension("first");
            if kept.exists() {
                fs::remove_dir_all(&kept)?;
            }
            fs::rename(&place, &kept)
                .with_context(|| format!("cannot move {}", place.display()))?;
            aside.0.push((place, kept));
        }
        Ok(aside)
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        for (place, kept) in &self.0 {
            // What is lost is time: it would be built again.
            let _ = fs::remove_dir_all(place);
            let _ = fs::rename(kept, place);
        }
    }
}

/// What people run before they trust a download.
fn checksums(out: &Path) -> Result<String> {
    let output = Command::new("sha256sum")
        .args(["--check", "--strict", super::SUMS])
        .current_dir(out)
        .output()
        .context("there is no sha256sum here")?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "checksums do not fit: {said}");
    Ok(format!("sha256sum --check: {} files", said.lines().count()))
}

/// Runs a controller in the root file system of its image and nothing else: makes a fleet, serves,
/// compiles a model for every target, and says what it has.
fn run(name: &str, bytes: &[u8]) -> Result<String> {
    let image = read(bytes).with_context(|| format!("{name} cannot be read"))?;
    let allowed = Command::new("unshare").args(["--user", "true"]).status();
    if !allowed.is_ok_and(|s| s.success()) {
        return Ok(format!(
            "skipped: {name} is not run, namespaces are not allowed here"
        ));
    }
    say(&format!("running {name}"));
    let dir = tempfile::tempdir()?;
    let root = dir.path().join("root");
    fs::create_dir(&root)?;
    tar::Archive::new(image.layer.as_slice()).unpack(&root)?;
    fs::create_dir(root.join("data"))?;
    let model = activity().join("models/small-int8.onnx");
    fs::copy(&model, root.join("model.onnx"))?;
    let (devices, operators) = (free_address()?, free_address()?);
    let init = ["init", "--data", "/data", "--fleet", "image", "--listen"];
    let addresses = ["127.0.0.1", "--device-address", &devices];
    let operator = ["--operator-address", &operators];
    said(inside(&image, &root)?.args([&init[..], &addresses, &operator].concat()))?;
    let serve = image.command.iter();
    let log = dir.path().join("log");
    let mut process = Process::start(inside(&image, &root)?.args(serve), &log)?;
    wait::until("the controller answers", PATIENCE, || {
        process.check()?;
        let asked = inside(&image, &root)?.args(["get", "devices"]).output()?;
        Ok(asked.status.success().then_some(()))
    })?;
    let import = [
        "model",
        "import",
        "activity",
        "--version",
        "v1",
        "--variant",
    ];
    let claim = ["small=/model.onnx", "--claim-accuracy", "small=0.9"];
    said(inside(&image, &root)?.args([&import[..], &claim].concat()))?;
    let variants = said(inside(&image, &root)?.args(["get", "variants"]))?;
    ensure!(variants.contains("small"), "no variant: {variants}");
    process.stop()?;
    let version = said(inside(&image, &root)?.arg("--version"))?;
    Ok(format!(
        "{name}: {} made a fleet, served and compiled a model in its own root",
        version.trim()
    ))
}

/// The program of an image in its root, with its environment, as a user without rights.
fn inside(image: &Image, root: &Path) -> Result<Command> {
    let program = image.entrypoint.first().context("no entrypoint")?;
    let mut command = Command::new("unshare");
    command
        .args(["--user", "--map-user=65532", "--map-group=65532"])
        .arg(format!("--root={}", root.display()))
        .arg(program)
        .args(&image.entrypoint[1..])
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .envs(image.environment.iter().map(|(k, v)| (k, v)));
    Ok(command)
}

fn said(command: &mut Command) -> Result<String> {
    let output = command.output().context("unshare cannot be started")?;
    ensure!(
        output.status.success(),
        "{command:?} gave {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// As a check of everything for this machine; the other platforms take a toolchain and twice as long.
///
/// # Errors
/// What did not hold.
#[allow(clippy::print_stdout)]
pub(crate) fn own() -> Result<()> {
    let platforms = [Platform::Amd64];
    for line in [twice(&platforms)?, tried(&platforms)?].concat() {
        println!("{line}");
    }
    let agent = in_place(Platform::Amd64, Program::Agent, super::PROFILE);
    crate::pi::installed(Platform::Amd64, &agent)
}
