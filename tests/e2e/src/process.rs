//! A child process with its log, ended by its own id.

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

/// How long a process may take to end after SIGTERM before it is killed.
const GRACE: Duration = Duration::from_secs(10);

/// A running child. Killed when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a program whose output and errors go to a file, appended.
    ///
    /// # Errors
    /// When the file or the process cannot be made.
    pub fn start(command: &mut Command, log: &Path) -> Result<Self> {
        let open = || File::options().create(true).append(true).open(log);
        let file = open().with_context(|| format!("cannot open {}", log.display()))?;
        let errors = file.try_clone()?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(errors)
            .spawn()
            .with_context(|| format!("cannot start {}", command.get_program().display()))?;
        Ok(Self {
            child,
            log: log.to_path_buf(),
        })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The end of its log, for messages.
    pub fn log_tail(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// Fails when the process has ended, with the end of its log.
    ///
    /// # Errors
    /// That it has ended.
    pub fn check(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("a process ended early ({status}):\n{}", self.log_tail()),
        }
    }

    /// Kills it as a power cut would: SIGKILL.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it does not end in time; it is killed then.
    pub fn wait(mut self, limit: Duration) -> Result<ExitStatus> {
        crate::wait::until("a process ends", limit, || Ok(self.child.try_wait()?))
    }

    /// Asks it to end with SIGTERM and waits.
    ///
    /// # Errors
    /// When it does not end in time; it is killed then.
    pub fn stop(mut self) -> Result<ExitStatus> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let pid = pid.context("the process has no id")?;
        kill_process(pid, Signal::TERM)?;
        crate::wait::until("a process ends after SIGTERM", GRACE, || {
            Ok(self.child.try_wait()?)
        })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
