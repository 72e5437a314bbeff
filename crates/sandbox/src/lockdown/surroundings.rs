//! Before a module is loaded: what the process no longer shares with others.

use super::{Measure, Outcome, Tried};
use landlock::{
    ABI, Access as _, AccessFs, AccessNet, PathBeneath, PathFd, Ruleset, RulesetAttr as _,
    RulesetCreatedAttr as _, RulesetError, RulesetStatus, Scope,
};
use rustix::process::Signal;
use rustix::thread::{CapabilitySet, CapabilitySets, UnshareFlags};
use std::path::Path;

/// The kernel ends such a process before others when memory runs out (range -1000..=1000).
const OOM_SCORE_ADJ: &str = "500";

/// The features of Landlock that are asked for, Linux 6.12: files, network, signals. An older
/// kernel enforces what it knows, and that is reported.
const LANDLOCK: ABI = ABI::V6;

/// Takes one of [`Measure::BEFORE`].
pub(super) fn take(measure: Measure, readable: &[&Path]) -> Tried {
    match measure {
        Measure::FirstOutOfMemory => {
            std::fs::write("/proc/self/oom_score_adj", OOM_SCORE_ADJ).map_err(|e| e.to_string())?;
        }
        Measure::NoNewPrivileges => {
            rustix::thread::set_no_new_privs(true).map_err(|e| e.to_string())?;
        }
        Measure::EmptyNetwork => empty_network()?,
        Measure::NoCapabilities => {
            let none = CapabilitySets {
                effective: CapabilitySet::empty(),
                permitted: CapabilitySet::empty(),
                inheritable: CapabilitySet::empty(),
            };
            rustix::thread::set_capabilities(None, none).map_err(|e| e.to_string())?;
        }
        Measure::FewFiles => return few_files(readable).map_err(|e| e.to_string()),
        Measure::EndsWithParent => {
            // An endless loop does not notice the end of its input.
            let signal = Some(Signal::KILL);
            rustix::process::set_parent_process_death_signal(signal).map_err(|e| e.to_string())?;
        }
        _ => return Err("it is taken after loading".into()),
    }
    Ok(Outcome::Applied)
}

/// A network without interfaces, and System V queues of its own. Root gets it directly, others as
/// root of a user namespace, where a distribution allows it.
fn empty_network() -> Result<(), String> {
    let own = UnshareFlags::NEWNET | UnshareFlags::NEWIPC;
    let try_with = |flags| {
        // SAFETY: none of these flags concerns the table of descriptors, which is what could take
        // files away from their owners.
        #[allow(unsafe_code)]
        unsafe {
            rustix::thread::unshare_unsafe(flags)
        }
    };
    try_with(own)
        .or_else(|_| try_with(own | UnshareFlags::NEWUSER))
        .map_err(|e| format!("namespaces are not allowed here: {e}"))
}

/// Landlock: reading the given files is left; listing, writing, making and running files is not, nor
/// TCP, nor signals to and sockets of processes outside.
fn few_files(readable: &[&Path]) -> Result<Outcome, RulesetError> {
    let mut rules = Ruleset::default()
        .handle_access(AccessFs::from_all(LANDLOCK))?
        .handle_access(AccessNet::from_all(LANDLOCK))?
        .scope(Scope::from_all(LANDLOCK))?
        .create()?;
    for path in readable {
        // One that cannot be opened now is missed when it is loaded, which says so better.
        if let Ok(file) = PathFd::new(path) {
            rules = rules.add_rule(PathBeneath::new(file, AccessFs::ReadFile))?;
        }
    }
    Ok(match rules.restrict_self()?.ruleset {
        RulesetStatus::FullyEnforced => Outcome::Applied,
        RulesetStatus::PartiallyEnforced => Outcome::Partly("the kernel is older than 6.12".into()),
        RulesetStatus::NotEnforced => Outcome::Unavailable("the kernel has no Landlock".into()),
    })
}
