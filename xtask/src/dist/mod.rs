//! `cargo xtask dist`: static programs for every platform, packages of Debian, archives with
//! checksums, and a container image. The same sources give the same bytes.

mod apt;
mod archive;
mod check;
mod deb;
mod debian;
mod image;
mod platform;
mod toolchain;

pub(crate) use check::own as check;
pub(crate) use debian::Debian;
pub(crate) use platform::{Platform, Program};

use self::archive::{Entry, gzip, sha256, tar};
use self::toolchain::Toolchain;
use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// Version of what is packaged: that of the whole workspace.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Cargo's profile of what people install.
const PROFILE: &str = "dist";
/// Name of the file with checksums.
const SUMS: &str = "SHA256SUMS";

/// Options of `dist`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// For these only; all otherwise.
    #[arg(long)]
    target: Vec<Platform>,
    /// Build everything once more from nothing, and compare every byte.
    #[arg(long)]
    twice: bool,
    /// Hold the checksums against the files, and run the controller from its image.
    #[arg(long)]
    run: bool,
}

/// Builds and packages; prints the files.
#[allow(clippy::print_stdout, clippy::print_stderr)]
pub(crate) fn run(args: &Args) -> ExitCode {
    let all = Platform::ALL.as_slice();
    let chosen = if args.target.is_empty() {
        all
    } else {
        &args.target
    };
    match lines(args, chosen) {
        Ok(lines) => {
            lines.iter().for_each(|line| println!("{line}"));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// What was made, or what held of it.
fn lines(args: &Args, platforms: &[Platform]) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    if args.twice {
        lines.extend(check::twice(platforms)?);
    }
    if args.run {
        lines.extend(check::tried(platforms)?);
    }
    if !args.twice && !args.run {
        let made = make(platforms, &out())?;
        lines.extend(made.iter().map(|f| f.display().to_string()));
    }
    Ok(lines)
}

#[allow(clippy::print_stderr)]
fn say(text: &str) {
    eprintln!("dist: {text}");
}

fn target_dir() -> PathBuf {
    crate::shell::root().join("target")
}

/// Where toolchains that were fetched are kept.
pub(crate) fn cross_dir() -> PathBuf {
    target_dir().join("cross")
}

/// Where packages are put.
pub(crate) fn out() -> PathBuf {
    target_dir().join("dist")
}

fn deploy(name: &str) -> PathBuf {
    crate::shell::root().join("deploy").join(name)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// File name of a package.
pub(crate) fn deb_name(program: Program, platform: Platform) -> String {
    format!("{}_{VERSION}_{}.deb", program.package(), platform.name())
}

fn make(platforms: &[Platform], out: &Path) -> Result<Vec<PathBuf>> {
    std::fs::create_dir_all(out)?;
    let mtime = source_date()?;
    let installer = read(&deploy("install.sh"))?;
    let mut made = vec![write(out, "install.sh", &installer)?];
    // The controller last: its package brings those of the agents along, to give them to devices.
    for &platform in platforms {
        let program = build(platform, Program::Agent, PROFILE)?;
        made.extend(agent(platform, &program, out, mtime)?);
    }
    for &platform in platforms {
        if platform.programs().contains(&Program::Controller) {
            let program = build(platform, Program::Controller, PROFILE)?;
            made.extend(controller(platform, &program, out, mtime)?);
        }
    }
    made.push(checksums(out)?);
    Ok(made)
}

/// When the sources were made, in seconds: what the files of packages tell as their time.
fn source_date() -> Result<u64> {
    if let Ok(given) = std::env::var("SOURCE_DATE_EPOCH") {
        return given
            .parse()
            .context("SOURCE_DATE_EPOCH is not a number of seconds");
    }
    let asked = Command::new("git")
        .current_dir(crate::shell::root())
        .args(["log", "-1", "--format=%ct"])
        .output();
    let told = asked.ok().and_then(|o| String::from_utf8(o.stdout).ok());
    told.and_then(|t| t.trim().parse().ok())
        .context("git does not say when the sources were made: set SOURCE_DATE_EPOCH")
}

/// Debian's packages, as far as they have been fetched.
pub(crate) fn debian() -> Debian {
    Debian::at(cross_dir())
}

/// Whether programs can be built for a platform here; fetches a toolchain if there is none.
///
/// # Errors
/// Why not, and what to do.
pub(crate) fn has_toolchain(platform: Platform) -> Result<()> {
    Toolchain::find(platform, &cross_dir()).map(drop)
}

/// Puts the packages of one agent into a directory; [`seal`] makes it one to install from.
///
/// # Errors
/// When a file cannot be read or written.
pub(crate) fn package_agent(platform: Platform, program: &Path, out: &Path) -> Result<()> {
    agent(platform, program, out, source_date()?).map(drop)
}

/// Adds installer and checksums to a directory of packages.
///
/// # Errors
/// When a file cannot be read or written.
pub(crate) fn seal(out: &Path) -> Result<()> {
    write(out, "install.sh", &read(&deploy("install.sh"))?)?;
    checksums(out).map(drop)
}

/// Where cargo builds for a platform. Apart for each: what one sets in the environment would make it
/// build the other's macros and build scripts anew.
fn built(platform: Platform) -> PathBuf {
    cross_dir().join("build").join(platform.name())
}

/// Where a program is once it is built.
fn in_place(platform: Platform, program: Program, profile: &str) -> PathBuf {
    let directory = if profile == "dev" { "debug" } else { profile };
    let of_target = built(platform).join(platform.triple());
    of_target.join(directory).join(program.package())
}

/// Builds one program with a profile of cargo; the path of its file.
pub(crate) fn build(platform: Platform, program: Program, profile: &str) -> Result<PathBuf> {
    let cross = cross_dir();
    let toolchain = Toolchain::find(platform, &cross)?;
    let package = program.package();
    say(&format!("building {package} for {}", platform.name()));
    // Alone: together with others, cargo would join features, and the agent carries no compiler.
    let status = toolchain
        .build()
        .args(["--locked", "--quiet", "--profile", profile, "--target-dir"])
        .arg(built(platform))
        .args(["--package", package, "--bin", package])
        .status()
        .context("cannot start cargo")?;
    ensure!(
        status.success(),
        "cargo could not build {package} for {}",
        platform.name()
    );
    let path = in_place(platform, program, profile);
    let size = std::fs::metadata(&path)?.len();
    say(&format!("{package} for {}: {size} bytes", platform.name()));
    ensure!(
        profile != PROFILE || size <= program.max_bytes(platform),
        "{package} for {} has {size} bytes, {} are allowed",
        platform.name(),
        program.max_bytes(platform)
    );
    Ok(path)
}

fn agent(platform: Platform, program: &Path, out: &Path, mtime: u64) -> Result<[PathBuf; 2]> {
    let files = [
        Entry::of("usr/bin/sandpiper-agent", 0o755, program)?,
        Entry::of("etc/sandpiper/agent.toml", 0o644, &deploy("agent.toml"))?,
        Entry::of(
            "usr/lib/systemd/system/sandpiper-agent.service",
            0o644,
            &deploy("sandpiper-agent.service"),
        )?,
        licence(Program::Agent)?,
    ];
    package(Program::Agent, platform, &files, out, mtime)
}

fn controller(platform: Platform, program: &Path, out: &Path, mtime: u64) -> Result<[PathBuf; 3]> {
    let binary = Entry::of("usr/bin/sandpiper", 0o755, program)?;
    let mut files = vec![
        binary.clone(),
        Entry::of(
            "usr/lib/systemd/system/sandpiper.service",
            0o644,
            &deploy("sandpiper.service"),
        )?,
        licence(Program::Controller)?,
    ];
    let mut image_files = vec![binary];
    for file in for_devices(out)? {
        files.push(file.clone());
        image_files.push(file);
    }
    let [deb, archive] = package(Program::Controller, platform, &files, out, mtime)?;
    let image = image::image(platform, VERSION, &image_files, mtime)?;
    let name = format!("sandpiper-image-{VERSION}-{}.tar", platform.name());
    Ok([deb, archive, write(out, &name, &image)?])
}

/// What a controller gives to devices: the installer, and the agents' packages that are built.
fn for_devices(out: &Path) -> Result<Vec<Entry>> {
    const PLACE: &str = "usr/share/sandpiper/packages";
    let mut names = vec!["install.sh".to_owned()];
    for platform in Platform::ALL {
        names.push(deb_name(Program::Agent, platform));
        names.push(archive_name(Program::Agent, platform));
    }
    let built = names.into_iter().filter(|n| out.join(n).exists());
    let mut files: Vec<Entry> = built
        .map(|n| Entry::of(format!("{PLACE}/{n}"), 0o644, &out.join(&n)))
        .collect::<Result<_>>()?;
    // What the controller gives away is what this lists.
    let named = files
        .iter()
        .filter_map(|f| Some((f.path.rsplit_once('/')?.1, &*f.bytes)));
    let sums = sums(named);
    files.push(Entry::new(format!("{PLACE}/{SUMS}"), 0o644, sums));
    Ok(files)
}

fn archive_name(program: Program, platform: Platform) -> String {
    format!("{}-{VERSION}-{}.tar.gz", program.package(), platform.name())
}

/// A package of Debian, and an archive for other systems that unpacks at the root.
fn package(
    program: Program,
    platform: Platform,
    files: &[Entry],
    out: &Path,
    mtime: u64,
) -> Result<[PathBuf; 2]> {
    let deb = deb::deb(program, platform, VERSION, files, mtime)?;
    let archive = gzip(&tar(files, mtime)?)?;
    Ok([
        write(out, &deb_name(program, platform), &deb)?,
        write(out, &archive_name(program, platform), &archive)?,
    ])
}

fn licence(program: Program) -> Result<Entry> {
    let path = format!("usr/share/doc/{}/copyright", program.package());
    Entry::of(path, 0o644, &crate::shell::root().join("LICENSE"))
}

fn write(dir: &Path, name: &str, bytes: &[u8]) -> Result<PathBuf> {
    let path = dir.join(name);
    std::fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

/// One line for every file that is there.
fn checksums(out: &Path) -> Result<PathBuf> {
    let mut files = Vec::new();
    for file in std::fs::read_dir(out)? {
        let file = file?;
        let name = file.file_name().to_string_lossy().into_owned();
        if name != SUMS {
            files.push((name, read(&file.path())?));
        }
    }
    let text = sums(files.iter().map(|(n, b)| (n.as_str(), b.as_slice())));
    write(out, SUMS, text.as_bytes())
}

/// Checksums of these files, sorted by name, as `sha256sum --check` reads them.
fn sums<'a>(files: impl Iterator<Item = (&'a str, &'a [u8])>) -> String {
    let by_name: std::collections::BTreeMap<_, _> = files.collect();
    let line = |(name, bytes)| format!("{}  {name}\n", sha256(bytes));
    by_name.into_iter().map(line).collect()
}
