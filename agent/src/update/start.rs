//! Which program a start runs. The one that is installed is asked first, always: it hands its
//! process over. The process keeps its number, so a service manager that watches it sees nothing.

use super::Programs;
use super::exec::Next;
use super::socket::pass;
use crate::words::chain;
use sandpiper_core::digest::Digest;
use sandpiper_core::update::{Staged, Start, UpdateRecord};
use sandpiper_transport::fsio;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What this program calls itself.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Tells a program of a release which one it is: its digest.
const PROGRAM: &str = "SANDPIPER_AGENT_PROGRAM";
/// Tells it which program to hand the process back to.
const INSTALLED: &str = "SANDPIPER_AGENT_INSTALLED";
/// How long runners that were told to end may take.
const REAP: Duration = Duration::from_secs(2);

/// The program that runs.
#[derive(Debug, Clone)]
pub struct Running {
    /// That of a release; the installed one when missing.
    pub release: Option<Digest>,
    /// Where the installed one lies.
    installed: PathBuf,
}

/// Chooses, and hands the process over if another program is to run; then it does not return. To be
/// called while there are no other threads.
///
/// # Errors
/// When this program does not know where it lies.
pub fn choose(state_dir: &Path) -> io::Result<Running> {
    if let (Some(digest), Some(installed)) =
        (std::env::var_os(PROGRAM), std::env::var_os(INSTALLED))
    {
        let digest = digest.to_str().and_then(|d| d.parse().ok());
        return Ok(Running {
            release: Some(
                digest.ok_or_else(|| {
                    io::Error::other(format!("{PROGRAM} holds no digest: unset it"))
                })?,
            ),
            installed: installed.into(),
        });
    }
    let running = Running {
        release: None,
        installed: std::env::current_exe()?,
    };
    let programs = Programs::of(fsio::system(), state_dir);
    // Every round that goes on has given up one program, and there are two.
    loop {
        let before = programs.load(VERSION);
        let mut record = before.clone();
        let choice = record.choose(VERSION);
        let choice = match remember(&programs, &before, &record) {
            true => choice,
            false => untold(choice, before),
        };
        let program = match &choice {
            Start::Installed => return Ok(running),
            Start::Confirmed(program) | Start::Trial(program) => program.clone(),
        };
        let why = hand_over(&programs, &running, &program);
        tracing::error!(version = %program.version, "a release cannot be started: {why}");
        let before = record.clone();
        record.could_not_start(&choice, &why);
        if !remember(&programs, &before, &record) {
            return Ok(running);
        }
    }
}

/// Whether the record is on the disk.
fn remember(programs: &Programs, before: &UpdateRecord, record: &UpdateRecord) -> bool {
    if before == record {
        return true;
    }
    let saved = programs.save(record);
    if let Err(error) = &saved {
        tracing::error!("this start cannot be written down: {}", chain(error));
    }
    saved.is_ok()
}

/// What runs when the start cannot be counted: nothing that has not shown that it works.
fn untold(choice: Start, before: UpdateRecord) -> Start {
    match choice {
        Start::Trial(_) => before.confirmed.map_or(Start::Installed, Start::Confirmed),
        other => other,
    }
}

/// Returns only when it fails, with the reason.
fn hand_over(programs: &Programs, running: &Running, program: &Staged) -> String {
    let path = match programs.verify(program.artefact) {
        Ok(path) => path,
        Err(error) => return chain(&error),
    };
    tracing::info!(version = %program.version, "hands over to a release");
    let mut next = Next::new(&path);
    next.set(PROGRAM, Some(program.artefact.digest.to_string().into()));
    next.set(INSTALLED, Some(running.installed.clone().into()));
    format!("{}: {}", path.display(), next.exec())
}

/// Begins anew with the installed program, which chooses, and leaves it the socket that requests come
/// in at. Returns only when that fails. To be called when nothing runs in this process any more.
pub fn start_again(running: &Running, socket: Option<&OwnedFd>) -> io::Error {
    reap();
    let mut next = Next::new(&running.installed);
    next.set(PROGRAM, None);
    next.set(INSTALLED, None);
    pass(socket, &mut next);
    next.exec()
}

/// Runners that have ended are forgotten by the system only when somebody asks for them, and the
/// program that follows does not know of them.
fn reap() {
    use rustix::process::{WaitOptions, wait};
    let begun = Instant::now();
    while begun.elapsed() < REAP {
        match wait(WaitOptions::NOHANG) {
            Ok(Some(_)) => {}
            Ok(None) => std::thread::sleep(Duration::from_millis(5)),
            // There are none left.
            Err(_) => return,
        }
    }
}
