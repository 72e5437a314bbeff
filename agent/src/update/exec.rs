//! Another program in this process, with the same arguments.

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// A program that shall run in this process.
///
/// Not `std::os::unix::process::CommandExt::exec`: what the kernel does not take for a program, glibc
/// hands to a shell there.
#[derive(Debug)]
pub(super) struct Next {
    path: PathBuf,
    arguments: Vec<OsString>,
    environment: BTreeMap<OsString, OsString>,
}

fn text(bytes: &OsStr) -> io::Result<CString> {
    CString::new(bytes.as_bytes()).map_err(io::Error::other)
}

impl Next {
    /// The same command line and environment with another program.
    pub(super) fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            arguments: std::env::args_os().collect(),
            environment: std::env::vars_os().collect(),
        }
    }

    /// Sets or removes a variable.
    pub(super) fn set(&mut self, name: &str, value: Option<OsString>) {
        match value {
            Some(value) => self.environment.insert(name.into(), value),
            None => self.environment.remove(OsStr::new(name)),
        };
    }

    /// Becomes it. Returns only when that fails.
    pub(super) fn exec(&self) -> io::Error {
        self.try_exec()
            .err()
            .unwrap_or_else(|| io::Error::other("it did not start"))
    }

    fn try_exec(&self) -> io::Result<()> {
        let path = text(self.path.as_os_str())?;
        let arguments: Vec<CString> = self
            .arguments
            .iter()
            .map(|a| text(a))
            .collect::<io::Result<_>>()?;
        let pair = |(name, value): (&OsString, &OsString)| {
            let mut both = name.clone();
            both.push("=");
            both.push(value);
            text(&both)
        };
        let environment: Vec<CString> = self
            .environment
            .iter()
            .map(pair)
            .collect::<io::Result<_>>()?;
        let pointers = |all: &[CString]| {
            let ends = std::iter::once(std::ptr::null());
            all.iter()
                .map(|s| s.as_ptr())
                .chain(ends)
                .collect::<Vec<_>>()
        };
        let (argv, envp) = (pointers(&arguments), pointers(&environment));
        // SAFETY: the path and everything in both lists end with a NUL and live until the call is
        // over; both lists end with a null pointer.
        #[allow(unsafe_code)]
        unsafe {
            libc::execve(path.as_ptr(), argv.as_ptr(), envp.as_ptr());
        }
        Err(io::Error::last_os_error())
    }
}
