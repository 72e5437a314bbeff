//! The system calls that are left to a locked process.
//!
//! Two filters, since a filter has one answer for all calls that it names. The first allows what a
//! loaded module needs, and lets every other call fail: a library that tries something unforeseen
//! gets an error, which it must be prepared for, and no outage comes of it. The second one ends the
//! process at calls that nothing in it ever makes: whoever makes them has broken in, and the death
//! counts against the model.

use libc::c_long;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Width, SeccompCmpOp as Op, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch,
};
use std::collections::BTreeMap;

#[cfg(target_arch = "x86_64")]
const ARCH: TargetArch = TargetArch::x86_64;
#[cfg(target_arch = "aarch64")]
const ARCH: TargetArch = TargetArch::aarch64;

/// Allowed whatever their arguments.
const ALLOWED: &[c_long] = &[
    // The descriptors that are open: requests, answers, words for the log.
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_close,
    // Memory, within the limit on the address space.
    libc::SYS_brk,
    libc::SYS_madvise,
    libc::SYS_mremap,
    libc::SYS_munmap,
    // Threads that there are: waiting, waking, ending.
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_futex,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_restart_syscall,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    // Traps of a module are signals.
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    // Time, and seeds of hash tables.
    libc::SYS_clock_getres,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_getrandom,
];

/// Nothing in a runner makes them, not even on its way down.
const ALARMING: &[c_long] = &[
    // Other programs and processes.
    libc::SYS_clone,
    libc::SYS_clone3,
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_kill,
    libc::SYS_pidfd_getfd,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_send_signal,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_ptrace,
    // The network.
    libc::SYS_bind,
    libc::SYS_connect,
    libc::SYS_socket,
    libc::SYS_socketpair,
    // The rest of the kernel.
    libc::SYS_bpf,
    libc::SYS_chroot,
    libc::SYS_finit_module,
    libc::SYS_init_module,
    libc::SYS_io_uring_setup,
    libc::SYS_keyctl,
    libc::SYS_mount,
    libc::SYS_perf_event_open,
    libc::SYS_pivot_root,
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_userfaultfd,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_fork,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_vfork,
];

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Puts both filters over every thread of the process.
pub(super) fn forbid_others() -> Result<(), String> {
    let refused = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let programs = [
        program(alarms(), SeccompAction::Allow, SeccompAction::KillProcess)?,
        // Last: it forbids putting on another one.
        program(permits()?, refused, SeccompAction::Allow)?,
    ];
    for program in &programs {
        seccompiler::apply_filter_all_threads(program).map_err(|e| match e {
            seccompiler::Error::Seccomp(e) if e.raw_os_error() == Some(libc::ENOSYS) => {
                "the kernel has no filters of system calls".to_owned()
            }
            other => other.to_string(),
        })?;
    }
    Ok(())
}

fn program(
    rules: Rules,
    others: SeccompAction,
    named: SeccompAction,
) -> Result<BpfProgram, String> {
    let failed = |e: seccompiler::BackendError| e.to_string();
    let filter = SeccompFilter::new(rules, others, named, ARCH).map_err(failed)?;
    filter.try_into().map_err(failed)
}

/// No rule means any arguments.
fn any_arguments(calls: &[c_long]) -> Rules {
    calls.iter().map(|&call| (call, Vec::new())).collect()
}

fn alarms() -> Rules {
    any_arguments(ALARMING)
}

fn permits() -> Result<Rules, String> {
    let mut rules = any_arguments(ALLOWED);
    // Memory that is not executable: a kernel older than 6.3 knows no other way to forbid it.
    let executable = libc::PROT_EXEC.unsigned_abs().into();
    for call in [libc::SYS_mmap, libc::SYS_mprotect] {
        rules.insert(call, only_if(2, Op::MaskedEq(executable), 0)?);
    }
    // `abort` signals its own process.
    let own = std::process::id().into();
    rules.insert(libc::SYS_tgkill, only_if(0, Op::Eq, own)?);
    Ok(rules)
}

fn only_if(argument: u8, op: Op, value: u64) -> Result<Vec<SeccompRule>, String> {
    let condition = SeccompCondition::new(argument, Width::Dword, op, value);
    let rule = condition.and_then(|c| SeccompRule::new(vec![c]));
    Ok(vec![rule.map_err(|e| e.to_string())?])
}
