//! Load, then lock: what still works in a locked process and what does not.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod common;

use common::{ADD_ONE, PATIENT, abi, brought, infer, module, run};
use sandpiper_sandbox::lockdown::{LockSpec, Measure, Outcome, lock};
use sandpiper_sandbox::{InferError, Origin, load_wasm};
use std::process::Command;

/// Runs the ignored test of this name in a process of its own: locking cannot be undone.
fn in_own_process(test: &str) {
    let exe = std::env::current_exe().unwrap();
    let args = [
        "--ignored",
        "--exact",
        test,
        "--nocapture",
        "--test-threads=1",
    ];
    let output = Command::new(exe).args(args).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("1 passed"), "{text}");
}

#[test]
fn a_locked_process_runs_its_module_and_nothing_else() {
    in_own_process("locked");
}

#[test]
#[ignore = "started by a_locked_process_runs_its_module_and_nothing_else in a process of its own"]
fn locked() {
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

    let report = lock(&LockSpec {
        headroom_bytes: 64 << 20,
    });
    assert_eq!(report.to_map().len(), Measure::ALL.len());
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
    assert!(
        std::net::TcpListener::bind("127.0.0.1:0").is_err(),
        "no socket may be opened"
    );
    assert!(std::net::UdpSocket::bind("127.0.0.1:0").is_err());
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
