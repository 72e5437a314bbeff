//! Load, then lock: what still works in a locked process and what does not.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod common;

use common::{ADD_ONE, PATIENT, abi, brought, infer, module, run};
use sandpiper_sandbox::lockdown::{LockSpec, Measure, Outcome, isolate};
use sandpiper_sandbox::{InferError, Origin, load_wasm};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Output};

/// Runs the ignored test of this name in a process of its own: locking cannot be undone.
fn in_own_process(test: &str) {
    let output = own_process(test);
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("1 passed"), "{text}");
}

fn own_process(test: &str) -> Output {
    let exe = std::env::current_exe().unwrap();
    let args = [
        "--ignored",
        "--exact",
        test,
        "--nocapture",
        "--test-threads=1",
    ];
    Command::new(exe).args(args).output().unwrap()
}

#[test]
fn a_locked_process_runs_its_module_and_nothing_else() {
    in_own_process("locked");
}

#[test]
#[ignore = "started by a_locked_process_runs_its_module_and_nothing_else in a process of its own"]
fn locked() {
    let isolated = isolate(&[]);
    let mut good = brought(&infer(1, ADD_ONE), &abi(1)).unwrap();
    let mut trapping = brought(&infer(1, "(i32.load (i32.const 70000))"), &abi(1)).unwrap();
    let mut growing = brought(
        &infer(1, "(i32.add (memory.grow (i32.const 1)) (i32.const 1))"),
        &abi(1),
    )
    .unwrap();
    let endless = module(&infer(1, "(loop $l (br $l)) (i32.const 0)"), &abi(1));
    let soon = std::time::Duration::from_millis(30);
    let mut endless = load_wasm(&endless, &[], Origin::Brought, soon).unwrap();

    let report = isolated.lock(&LockSpec {
        headroom_bytes: 64 << 20,
    });
    assert_eq!(report.to_map().len(), Measure::all().count());
    for (measure, outcome) in &report.outcomes {
        eprintln!("{}: {outcome}", measure.name());
    }
    for measure in [
        Measure::NoNewPrivileges,
        Measure::AddressSpace,
        Measure::NoFiles,
        Measure::NoCoreDump,
    ] {
        assert_eq!(report.outcomes[&measure], Outcome::Applied);
    }

    assert_eq!(run(&mut good).unwrap(), [2, 3, 4, 5]);
    assert!(run(&mut growing).is_ok());
    assert!(matches!(run(&mut trapping), Err(InferError::Trap { .. })));
    assert_eq!(run(&mut endless), Err(InferError::Deadline));

    assert!(
        std::fs::File::open("/proc/self/exe").is_err(),
        "no file may be opened"
    );
    let huge: Result<(), _> = Vec::<u8>::new().try_reserve_exact(1 << 30);
    assert!(huge.is_err(), "no address space beyond the headroom");
    if report.outcomes[&Measure::NoNewCode] == Outcome::Applied {
        assert!(
            load_wasm(
                &module(&infer(1, ADD_ONE), &abi(1)),
                &[],
                Origin::Brought,
                PATIENT
            )
            .is_err()
        );
    }
    assert_eq!(run(&mut good).unwrap(), [2, 3, 4, 5]);
}

#[test]
fn whoever_opens_a_socket_in_a_locked_process_is_killed() {
    if cfg!(any(target_arch = "x86_64", target_arch = "aarch64")) {
        let status = own_process("connecting").status;
        assert_eq!(status.signal(), Some(libc::SIGSYS), "{status}");
    } else {
        in_own_process("connecting");
    }
}

#[test]
#[ignore = "started by whoever_opens_a_socket_in_a_locked_process_is_killed in a process of its own"]
fn connecting() {
    let report = isolate(&[]).lock(&LockSpec {
        headroom_bytes: 64 << 20,
    });
    eprintln!("{}", report.outcomes[&Measure::FewCalls]);
    assert!(std::net::UdpSocket::bind("127.0.0.1:0").is_err());
}

#[test]
fn too_little_address_space_is_said_so() {
    in_own_process("cramped");
}

#[test]
#[ignore = "started by too_little_address_space_is_said_so in a process of its own"]
fn cramped() {
    let most = Some(4 << 30);
    let limit = rustix::process::Rlimit {
        current: most,
        maximum: most,
    };
    rustix::process::setrlimit(rustix::process::Resource::As, limit).unwrap();
    let error = brought(&infer(1, ADD_ONE), &abi(1)).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("failed to reserve"), "{text}");
}
