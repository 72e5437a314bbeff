//! What a process gives up so that whoever breaks out of a module inside it has nothing to go on:
//! first [`isolate`], then load, then [`Isolated::lock`], and only then touch input.
//!
//! Each measure stands alone; one that the kernel lacks is reported, and the rest is taken. Most of
//! them overlap: what one of them forbids, a kernel without it leaves to another.
//!
//! | module | what it holds |
//! |---|---|
//! | `surroundings` | before loading: network, capabilities, files of others, life and death |
//! | `calls` | the system calls that are left |
//! | this one | limits, executable memory, and the order of it all |
//!
//! Order matters. What a thread inherits has to come before the threads that loading starts; new
//! executable memory can be forbidden only after loading; and the filter of system calls comes last,
//! since it forbids taking any other measure.

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod calls;
mod surroundings;

use rustix::process::{DumpableBehavior, Resource, Rlimit};
use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::path::Path;

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
    /// When memory runs out, the kernel ends this process before others.
    FirstOutOfMemory,
    /// No program started from here gains privileges.
    NoNewPrivileges,
    /// It has a network of its own, with nothing in it.
    EmptyNetwork,
    /// It has no capabilities, even as root.
    NoCapabilities,
    /// It reads the files of its model and no others, writes none, and signals nobody (Landlock).
    FewFiles,
    /// It dies with the thread that started it.
    EndsWithParent,
    /// Its own user may not look into its memory.
    NotInspected,
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
    /// It may use memory, time and the descriptors that it has. Every other system call fails, and
    /// those that only an intruder makes end the process.
    FewCalls,
}

impl Measure {
    /// What [`isolate`] takes, in this order.
    const BEFORE: [Self; 6] = [
        Self::FirstOutOfMemory,
        Self::NoNewPrivileges,
        Self::EmptyNetwork,
        Self::NoCapabilities,
        Self::FewFiles,
        // After those that change who this process is: the kernel forgets it then.
        Self::EndsWithParent,
    ];

    /// What [`Isolated::lock`] takes, in this order.
    const AFTER: [Self; 8] = [
        Self::NotInspected,
        Self::NoNewCode,
        Self::AddressSpace,
        Self::NoFileWrites,
        Self::NoCoreDump,
        Self::NoProcesses,
        Self::NoFiles,
        Self::FewCalls,
    ];

    /// Every measure, in the order they are taken.
    pub fn all() -> impl Iterator<Item = Self> {
        Self::BEFORE.into_iter().chain(Self::AFTER)
    }

    /// Name in profiles and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::FirstOutOfMemory => "first_out_of_memory",
            Self::NoNewPrivileges => "no_new_privileges",
            Self::EmptyNetwork => "empty_network",
            Self::NoCapabilities => "no_capabilities",
            Self::FewFiles => "few_files",
            Self::EndsWithParent => "ends_with_parent",
            Self::NotInspected => "not_inspected",
            Self::NoNewCode => "no_new_code",
            Self::AddressSpace => "address_space",
            Self::NoFileWrites => "no_file_writes",
            Self::NoCoreDump => "no_core_dump",
            Self::NoProcesses => "no_processes",
            Self::NoFiles => "no_files",
            Self::FewCalls => "few_calls",
        }
    }
}

/// What became of a measure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is in force.
    Applied,
    /// Not all of it is in force, and why.
    Partly(String),
    /// It is not in force, and why.
    Unavailable(String),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Applied => f.write_str("applied"),
            Self::Partly(why) => write!(f, "in part: {why}"),
            Self::Unavailable(why) => write!(f, "unavailable: {why}"),
        }
    }
}

/// What became of every measure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockReport {
    /// One entry for each of [`Measure::all`].
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

/// A measure that was tried: how far it went, or why it was not taken.
type Tried = Result<Outcome, String>;

fn outcome(tried: Tried) -> Outcome {
    tried.unwrap_or_else(Outcome::Unavailable)
}

/// A process that is cut off from its surroundings and can still load a module.
#[derive(Debug)]
pub struct Isolated {
    outcomes: BTreeMap<Measure, Outcome>,
    is_root: bool,
    /// Opened while it could be.
    statm: Result<File, String>,
}

/// Cuts the process off from its surroundings for good. To be called before it starts threads: those
/// that exist keep what this one gives up, and a network of its own is not to be had for several.
///
/// `readable` are the files that loading will open; all others are out of reach from now on.
pub fn isolate(readable: &[&Path]) -> Isolated {
    let is_root = rustix::process::geteuid().is_root();
    let statm = File::open("/proc/self/statm").map_err(|e| e.to_string());
    let take = |measure| (measure, outcome(surroundings::take(measure, readable)));
    Isolated {
        outcomes: Measure::BEFORE.into_iter().map(take).collect(),
        is_root,
        statm,
    }
}

impl Isolated {
    /// Locks the whole process, all its threads, for good.
    pub fn lock(mut self, spec: &LockSpec) -> LockReport {
        for measure in Measure::AFTER {
            let outcome = outcome(self.take(measure, spec));
            self.outcomes.insert(measure, outcome);
        }
        LockReport {
            outcomes: self.outcomes,
        }
    }

    fn take(&mut self, measure: Measure, spec: &LockSpec) -> Tried {
        match measure {
            Measure::NotInspected => {
                let behaviour = DumpableBehavior::NotDumpable;
                rustix::process::set_dumpable_behavior(behaviour).map_err(|e| e.to_string())?;
            }
            Measure::NoNewCode => refuse_new_code()?,
            Measure::AddressSpace => {
                let taken = self.address_space_bytes()?;
                limit(Resource::As, taken.saturating_add(spec.headroom_bytes))?;
            }
            Measure::NoFileWrites => limit(Resource::Fsize, 0)?,
            Measure::NoCoreDump => limit(Resource::Core, 0)?,
            Measure::NoProcesses => {
                limit(Resource::Nproc, 0)?;
                if self.is_root {
                    let why = "the kernel does not hold root to this limit";
                    return Ok(Outcome::Partly(why.into()));
                }
            }
            // Descriptors that are open stay open.
            Measure::NoFiles => limit(Resource::Nofile, 0)?,
            Measure::FewCalls => return few_calls(),
            before => return surroundings::take(before, &[]),
        }
        Ok(Outcome::Applied)
    }

    /// Address space this process has taken, in bytes.
    fn address_space_bytes(&mut self) -> Result<u64, String> {
        let failed = |e: &dyn fmt::Display| format!("/proc/self/statm cannot be read: {e}");
        let file = self.statm.as_mut().map_err(|e| failed(e))?;
        let mut text = String::new();
        file.rewind()
            .and_then(|()| file.read_to_string(&mut text))
            .map_err(|e| failed(&e))?;
        let pages = text.split_whitespace().next();
        let pages = pages.and_then(|n| n.parse::<u64>().ok());
        let pages = pages.ok_or("/proc/self/statm is not a list of numbers")?;
        Ok(pages.saturating_mul(rustix::param::page_size() as u64))
    }
}

fn limit(resource: Resource, most: u64) -> Result<(), String> {
    let both = Rlimit {
        current: Some(most),
        maximum: Some(most),
    };
    rustix::process::setrlimit(resource, both).map_err(|e| e.to_string())
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

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
fn few_calls() -> Tried {
    calls::forbid_others().map(|()| Outcome::Applied)
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn few_calls() -> Tried {
    Err("there is no list of system calls for this architecture".into())
}
