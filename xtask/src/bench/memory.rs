//! Memory of processes, as Linux accounts it.

use anyhow::{Context, Result};
use std::path::Path;

/// Proportional set size of a process, in bytes: what it has in RAM, pages that it shares with
/// others divided by the number of sharers.
///
/// # Errors
/// When the process is gone, or this user may not look into it (a runner gives up being looked
/// into by its own user; root may).
pub(super) fn pss_bytes(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("cannot read {path}: the process is gone, or only root may"))?;
    let line = text.lines().find_map(|l| l.strip_prefix("Pss:"));
    let kib = line.and_then(|l| l.trim().strip_suffix("kB"));
    let kib: u64 = kib.context("no Pss in smaps_rollup")?.trim().parse()?;
    Ok(kib * 1024)
}

/// What a process has used since it was started.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Used {
    /// Processor time of all its threads, in nanoseconds.
    pub(super) cpu_ns: u64,
    /// Bytes that it caused to be written to disks, as far as the kernel can tell.
    pub(super) written_bytes: u64,
}

impl Used {
    /// Of a process.
    ///
    /// # Errors
    /// When the process is gone, or this user may not look into it.
    pub(super) fn of(pid: u32) -> Result<Self> {
        let mut cpu_ns = 0;
        for thread in std::fs::read_dir(format!("/proc/{pid}/task"))? {
            // A thread may end meanwhile; what it used is lost, and it is little.
            let text = std::fs::read_to_string(thread?.path().join("schedstat"));
            let text = text.unwrap_or_default();
            cpu_ns += text
                .split(' ')
                .next()
                .and_then(|n| n.parse::<u64>().ok())
                .unwrap_or(0);
        }
        let text = std::fs::read_to_string(format!("/proc/{pid}/io"))?;
        let line = text.lines().find_map(|l| l.strip_prefix("write_bytes: "));
        let written = line.context("no write_bytes in /proc/PID/io")?;
        Ok(Self {
            cpu_ns,
            written_bytes: written.trim().parse()?,
        })
    }

    /// Adds what another one used.
    pub(super) fn add(&mut self, other: &Self) {
        self.cpu_ns += other.cpu_ns;
        self.written_bytes += other.written_bytes;
    }
}

/// Ids of the processes that a process has started and that run.
///
/// # Errors
/// When there is no `/proc`.
pub(super) fn children(pid: u32) -> Result<Vec<u32>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let name = entry.file_name();
        let Some(id) = name.to_str().and_then(|n| n.parse().ok()) else {
            continue;
        };
        if parent(&entry.path()) == Some(pid) {
            found.push(id);
        }
    }
    Ok(found)
}

fn parent(process: &Path) -> Option<u32> {
    let text = std::fs::read_to_string(process.join("status")).ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix("PPid:"))?;
    line.trim().parse().ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_child_is_found_and_has_memory() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let found = children(std::process::id()).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(found.contains(&child.id()));
        assert!(pss_bytes(std::process::id()).unwrap() > 0);
        assert!(Used::of(std::process::id()).unwrap().cpu_ns > 0);
        assert!(pss_bytes(child.id()).is_err());
    }
}
