//! What a process gives up once its module is loaded: load first, then lock, and only then touch
//! input. Each measure stands alone; one that the kernel lacks is reported, and the rest is taken.
//!
//! Order matters: forbidding new executable memory before loading would forbid loading, and
//! forbidding new files would hide `/proc/self/statm`. A filter of system calls will be one more
//! measure at the end of [`lock`].

use rustix::process::{Resource, Rlimit};
use std::collections::BTreeMap;
use std::fmt;

/// What the locked process will still need.
#[derive(Debug, Clone, Copy)]
pub struct LockSpec {
    /// Address space in bytes that it may still take: buffers for its largest request and answer,
    /// and what its stack and allocator may grow by. What it has at the time of locking stays.
    pub headroom_bytes: u64,
}

/// One thing that is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Measure {
    /// No program started from here gains privileges.
    NoNewPrivileges,
    /// Memory that was writable never becomes executable.
    NoNewCode,
    /// Address space is bounded.
    AddressSpace,
    /// No file grows.
    NoFileWrites,
    /// A crash leaves no image of the memory on disk.
    NoCoreDump,
    /// No process or thread is started.
    NoProcesses,
    /// No file or socket is opened.
    NoFiles,
}

impl Measure {
    /// Every measure, in the order they are taken.
    pub const ALL: [Self; 7] = [
        Self::NoNewPrivileges,
        Self::NoNewCode,
        Self::AddressSpace,
        Self::NoFileWrites,
        Self::NoCoreDump,
        Self::NoProcesses,
        Self::NoFiles,
    ];

    /// Name in profiles and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::NoNewPrivileges => "no_new_privileges",
            Self::NoNewCode => "no_new_code",
            Self::AddressSpace => "address_space",
            Self::NoFileWrites => "no_file_writes",
            Self::NoCoreDump => "no_core_dump",
            Self::NoProcesses => "no_processes",
            Self::NoFiles => "no_files",
        }
    }
}

/// What became of a measure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is in force.
    Applied,
    /// It is not, and why.
    Unavailable(String),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Applied => f.write_str("applied"),
            Self::Unavailable(why) => write!(f, "unavailable: {why}"),
        }
    }
}

/// What became of every measure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockReport {
    /// One entry for each of [`Measure::ALL`].
    pub outcomes: BTreeMap<Measure, Outcome>,
}

impl LockReport {
    /// Name of the measure -> `applied` or why not, as a device profile carries it.
    pub fn to_map(&self) -> BTreeMap<String, String> {
        self.outcomes
            .iter()
            .map(|(m, o)| (m.name().to_owned(), o.to_string()))
            .collect()
    }
}

/// Locks the whole process for good. Nothing here can be undone.
pub fn lock(spec: &LockSpec) -> LockReport {
    let take = |measure| match apply(measure, spec) {
        Ok(()) => (measure, Outcome::Applied),
        Err(why) => (measure, Outcome::Unavailable(why)),
    };
    LockReport {
        outcomes: Measure::ALL.into_iter().map(take).collect(),
    }
}

fn apply(measure: Measure, spec: &LockSpec) -> Result<(), String> {
    match measure {
        Measure::NoNewPrivileges => {
            rustix::thread::set_no_new_privs(true).map_err(|e| e.to_string())
        }
        Measure::NoNewCode => refuse_new_code(),
        Measure::AddressSpace => limit(
            Resource::As,
            address_space_bytes()?.saturating_add(spec.headroom_bytes),
        ),
        Measure::NoFileWrites => limit(Resource::Fsize, 0),
        Measure::NoCoreDump => limit(Resource::Core, 0),
        Measure::NoProcesses => {
            limit(Resource::Nproc, 0)?;
            if rustix::process::geteuid().is_root() {
                return Err("the kernel does not hold root to this limit".into());
            }
            Ok(())
        }
        // Descriptors that are open stay open.
        Measure::NoFiles => limit(Resource::Nofile, 0),
    }
}

fn limit(resource: Resource, most: u64) -> Result<(), String> {
    let both = Rlimit {
        current: Some(most),
        maximum: Some(most),
    };
    rustix::process::setrlimit(resource, both).map_err(|e| e.to_string())
}

/// Address space this process has taken, in bytes.
fn address_space_bytes() -> Result<u64, String> {
    let statm = std::fs::read_to_string("/proc/self/statm")
        .map_err(|e| format!("/proc/self/statm cannot be read: {e}"))?;
    let pages = statm
        .split_whitespace()
        .next()
        .and_then(|n| n.parse::<u64>().ok());
    let pages = pages.ok_or("/proc/self/statm is not a list of numbers")?;
    Ok(pages.saturating_mul(rustix::param::page_size() as u64))
}

fn refuse_new_code() -> Result<(), String> {
    let bits = libc::c_ulong::from(libc::PR_MDWE_REFUSE_EXEC_GAIN);
    let none: libc::c_ulong = 0;
    // SAFETY: this option takes flags by value and touches no memory of ours.
    #[allow(unsafe_code)]
    let result = unsafe { libc::prctl(libc::PR_SET_MDWE, bits, none, none, none) };
    if result == 0 {
        return Ok(());
    }
    let error = std::io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::EINVAL) => Err("the kernel is older than 6.3".into()),
        _ => Err(error.to_string()),
    }
}
