//! `cargo xtask pi`: Raspberry Pis that exist only in emulation. The agent's package is installed
//! into a Debian of the board's architecture, joins a controller on this machine, and serves models
//! that were compiled here, for each CPU of the boards; the results are held against this machine's.

mod board;
mod emulator;
mod kernels;
mod root;
mod serving;

use self::board::{Board, boards};
use self::emulator::Emulator;
use crate::dist::{self, Debian, Platform, Program};
use anyhow::{Context as _, Result, ensure};
use sandpiper_e2e::binaries::Binaries;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Choices.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// For these platforms only; arm64 and armhf otherwise. amd64 is this machine, without emulation.
    #[arg(long)]
    target: Vec<Platform>,
    /// Cargo's profile for the agent: `dist` is what people install and takes long to build.
    #[arg(long, default_value = "dist")]
    profile: String,
    /// This agent, for the one `--target`, instead of one that is built now.
    #[arg(long)]
    agent: Option<PathBuf>,
    /// Only this part.
    #[arg(long)]
    only: Option<Part>,
}

/// A part of what is done for each board.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Native code in the agent's runner.
    Code,
    /// Whole devices, installed from packages.
    Devices,
}

/// Runs and prints.
#[allow(clippy::print_stderr)]
pub(crate) fn run(args: &Args) -> ExitCode {
    let both = [Platform::Arm64, Platform::Armhf];
    let chosen = if args.target.is_empty() {
        &both[..]
    } else {
        &args.target
    };
    match all(args, chosen) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Why there are no virtual boards on this machine, if so.
pub(crate) fn obstacle() -> Option<String> {
    if !cfg!(target_arch = "x86_64") {
        return Some("results are held against an x86-64 machine".to_owned());
    }
    if let Some(why) = root::obstacle() {
        return Some(why.to_owned());
    }
    let debian = dist::debian();
    CHECKED_ON.into_iter().find_map(|platform| {
        let toolchain = dist::has_toolchain(platform);
        let emulator = Emulator::find(platform, &debian);
        let error = toolchain.and(emulator.map(drop)).err()?;
        Some(format!("no boards of {}: {error:#}", platform.name()))
    })
}

/// As a check, where there is no [`obstacle`].
///
/// # Errors
/// What did not pass.
pub(crate) fn check() -> Result<()> {
    let args = Args {
        target: Vec::new(),
        profile: CHECKED.to_owned(),
        agent: None,
        only: None,
    };
    all(&args, &CHECKED_ON)
}

/// Installs a package around this agent into a system of its platform, and has it serve; a line that
/// tells why not, where this machine cannot.
///
/// # Errors
/// What did not pass.
pub(crate) fn installed(platform: Platform, agent: &Path) -> Result<()> {
    let args = Args {
        target: vec![platform],
        profile: CHECKED.to_owned(),
        agent: Some(agent.to_owned()),
        only: Some(Part::Devices),
    };
    all(&args, &[platform])
}

/// The profile of a check: quick to build, and the code that decides is the same.
const CHECKED: &str = "dev";
const CHECKED_ON: [Platform; 1] = [Platform::Arm64];

#[allow(clippy::print_stdout)]
fn all(args: &Args, platforms: &[Platform]) -> Result<()> {
    let debian = dist::debian();
    let dir = tempfile::tempdir()?;
    let mut agents = Vec::new();
    for &platform in platforms {
        let agent = match &args.agent {
            Some(agent) => {
                ensure!(platforms.len() == 1, "--agent goes with one --target");
                std::path::absolute(agent)?
            }
            None => dist::build(platform, Program::Agent, &args.profile)?,
        };
        dist::package_agent(platform, &agent, dir.path())?;
        agents.push((platform, Emulator::find(platform, &debian)?, agent));
    }
    dist::seal(dir.path())?;
    let cases = match args.only {
        Some(Part::Devices) => Vec::new(),
        _ => kernels::cases()?,
    };
    for (platform, emulator, agent) in &agents {
        for board in boards(*platform).iter().filter(|_| !cases.is_empty()) {
            let compared = kernels::compare(&cases, board, emulator, agent)?;
            println!(
                "{}: {} integer models give the same bits as here, {} float models differ by at most {:.1e}",
                title(board),
                compared.exact,
                compared.floats,
                compared.farthest
            );
        }
    }
    if args.only == Some(Part::Code) {
        return Ok(());
    }
    if let Some(why) = root::obstacle() {
        println!(
            "0 devices installed from packages, {} skipped: {why}",
            agents.len()
        );
        return Ok(());
    }
    let binaries = Binaries::build("dev")?;
    let site = serving::Site::start(&binaries, dir.path())?;
    for (platform, emulator, _) in &agents {
        whole(&site, *platform, &debian, emulator, dir.path())?;
    }
    Ok(())
}

fn title(board: &Board) -> String {
    format!("{} ({}, code for {})", board.name, board.cpu, board.target)
}

/// One installation for each board of a platform.
#[allow(clippy::print_stdout)]
fn whole(
    site: &serving::Site,
    platform: Platform,
    debian: &Debian,
    emulator: &Emulator,
    packages: &Path,
) -> Result<()> {
    for board in &boards(platform) {
        let served = site
            .device(board, debian, emulator, packages)
            .and_then(|device| site.serve(&device, board))
            .with_context(|| format!("a virtual {}", title(board)))?;
        println!(
            "{}: installed from its .deb, {} answers as here (floats within {:.1e}); reported as not fully isolated: {}",
            title(board),
            served.answers,
            served.farthest,
            served.degraded.join(", ")
        );
    }
    Ok(())
}
