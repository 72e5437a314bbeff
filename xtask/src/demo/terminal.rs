//! A terminal of our own: runs a program in it and keeps what it draws, and when.

use anyhow::{Context, Result, bail};
use rustix::fd::OwnedFd;
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use std::fs::File;
use std::io::Read;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Columns and rows, as many as a window on a laptop has.
pub(crate) const COLUMNS: u16 = 144;
pub(crate) const ROWS: u16 = 36;

/// What a program drew.
#[derive(Debug)]
pub(crate) struct Drawn {
    /// Bytes by the time since its start.
    pub(crate) parts: Vec<(Duration, Vec<u8>)>,
    /// How long it ran.
    pub(crate) took: Duration,
    /// Its exit code.
    pub(crate) code: i32,
}

/// Both ends of a new terminal: ours and the program's.
fn open() -> Result<(OwnedFd, OwnedFd)> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let ours = openpt(flags).context("no terminal can be made")?;
    grantpt(&ours)?;
    unlockpt(&ours)?;
    let theirs = ioctl_tiocgptpeer(&ours, flags)?;
    let size = Winsize {
        ws_row: ROWS,
        ws_col: COLUMNS,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(&theirs, size)?;
    Ok((ours, theirs))
}

/// Runs a command on a terminal to its end.
pub(crate) fn run(command: &mut Command) -> Result<Drawn> {
    let (ours, theirs) = open()?;
    command
        .env("TERM", "xterm-256color")
        .env_remove("NO_COLOR")
        .stdin(Stdio::null())
        .stdout(theirs.try_clone()?)
        .stderr(theirs);
    let start = Instant::now();
    let mut child = command.spawn()?;
    // The command holds the program's end open, and we would read for ever.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut parts = Vec::new();
    let mut ours = File::from(ours);
    let mut buffer = [0; 4096];
    loop {
        match ours.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => parts.push((start.elapsed(), buffer[..n].to_vec())),
            // The last one at the other end has gone.
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) => {
                break;
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => bail!("the terminal cannot be read: {error}"),
        }
    }
    let status = child.wait()?;
    Ok(Drawn {
        parts,
        took: start.elapsed(),
        code: status.code().unwrap_or(-1),
    })
}
