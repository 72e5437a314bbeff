//! What hostile modules do to their runner, and to nobody else.

use crate::common::{ADD_ONE, abi, abi_with_weights, infer, numbers};
use crate::workshop::{ENDLESS, SOON, Workshop, adds_one, bounded, eventually, exists, input};
use sandpiper_agent::runner::{End, Runner, RunnerError, RunnerSpec};
use sandpiper_core::abi::ModuleAbi;
use sandpiper_sandbox::COMPILER_EPOCH;
use std::time::Duration;

#[tokio::test]
async fn a_trap_ends_its_runner_and_no_other() {
    let shop = Workshop::new();
    let good = shop.start("good", ADD_ONE).await;
    for (name, body, part) in [
        ("unreachable", "(unreachable)", "unreachable"),
        (
            "outside",
            "(i32.load offset=70000 (local.get $i))",
            "out of bounds",
        ),
        (
            "zero",
            "(i32.div_u (i32.const 1) (local.get $i))",
            "divide by zero",
        ),
    ] {
        let bad = shop.start(name, body).await;
        match bad.infer(1, input()).await {
            Err(RunnerError::Ended(End::Trap { reason })) => {
                assert!(reason.contains(part), "{reason}");
            }
            other => panic!("{name}: {other:?}"),
        }
        assert!(matches!(bad.ended().await, End::Trap { .. }));
        assert!(!exists(bad.pid()));
        assert!(matches!(
            bad.infer(1, input()).await,
            Err(RunnerError::Gone(End::Trap { .. }))
        ));
        adds_one(&good).await;
    }
}

#[tokio::test]
async fn a_module_that_lies_about_its_loops_is_killed_while_others_are_served() {
    let shop = Workshop::new();
    let good = shop.start("good", ADD_ONE).await;
    let mut spec = shop.spec("liar", &infer(1, ENDLESS), &bounded());
    spec.limits.deadline = SOON;
    let liar = Runner::spawn(spec).await.unwrap();
    let (told, served) = tokio::join!(liar.infer(1, input()), async {
        let mut served = 0;
        while exists(liar.pid()) && served < 100 {
            adds_one(&good).await;
            served += 1;
        }
        served
    });
    assert_eq!(told, Err(RunnerError::Ended(End::Deadline)));
    assert_eq!(liar.ended().await, End::Deadline);
    assert!(!exists(liar.pid()));
    assert_eq!(served, 100, "served while the other one looped");
    adds_one(&good).await;
}

#[tokio::test]
async fn a_module_with_deadline_checks_is_interrupted() {
    let shop = Workshop::new();
    let mut spec = shop.spec("endless", &infer(1, ENDLESS), &abi(1));
    assert!(!spec.abi.bounded);
    spec.limits.deadline = Duration::from_millis(200);
    let runner = Runner::spawn(spec).await.unwrap();
    assert_eq!(
        runner.infer(1, input()).await,
        Err(RunnerError::Ended(End::Deadline))
    );
}

#[tokio::test]
async fn fault_33_code_of_a_banned_compiler_epoch_is_not_loaded() {
    let shop = Workshop::new();
    let spec = shop.spec("banned", &infer(1, ADD_ONE), &bounded());
    let mut native = std::fs::read(&spec.native).unwrap();
    // The version of the runtime and our epoch stand in its header.
    let mark = format!("+{COMPILER_EPOCH}").into_bytes();
    let places: Vec<usize> = (6..native.len() - mark.len())
        .filter(|&at| native[at..].starts_with(&mark) && native[at - 3..at].contains(&b'.'))
        .collect();
    assert_eq!(places.len(), 1, "the epoch is there once");
    native[places[0] + 1] += 1;
    std::fs::write(&spec.native, native).unwrap();
    match Runner::spawn(spec).await {
        Err(RunnerError::Refused { reason }) => {
            assert!(reason.contains("incompatible version"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn memory_does_not_grow_beyond_the_plan() {
    let shop = Workshop::new();
    let body = "(i32.ne (memory.grow (i32.const 1000)) (i32.const -1))";
    let runner = shop.start("grow", body).await;
    assert!(
        runner.infer(1, input()).await.is_ok(),
        "growing fails and the module goes on"
    );
    let mut spec = shop.spec("more", &infer(1, ADD_ONE), &bounded());
    spec.limits.memory_bytes -= 1;
    match Runner::spawn(spec).await {
        Err(RunnerError::Refused { reason }) => assert!(reason.contains("limit"), "{reason}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn weights_are_mapped_and_whatever_happens_to_them_ends_one_runner() {
    let shop = Workshop::new();
    let blob = vec![3; 2 << 16];
    let abi = ModuleAbi {
        bounded: true,
        ..abi_with_weights(3, &blob)
    };
    let weights = shop.path("weights");
    std::fs::write(&weights, &blob).unwrap();
    let start = async |name: &str, body: &str| {
        let spec = shop.spec(name, &infer(3, body), &abi);
        Runner::spawn(RunnerSpec {
            weights: Some(weights.clone()),
            ..spec
        })
        .await
        .unwrap()
    };
    let read = "(i32.store (i32.const 1024) (i32.load8_u (i32.const 190000))) (i32.const 0)";
    let reader = start("reader", read).await;
    let answer = reader.infer(1, input()).await.unwrap();
    assert_eq!(numbers(&answer.outputs[0])[0], 3);

    let writer = start(
        "writer",
        "(i32.store offset=65536 (local.get $i) (i32.const 1)) (i32.const 0)",
    )
    .await;
    assert!(matches!(
        writer.infer(1, input()).await,
        Err(RunnerError::Ended(End::Trap { .. }))
    ));
    // wasmtime performs bulk stores on the host, where a fault is the end of the process.
    let filler = start(
        "filler",
        "(memory.fill (i32.const 65536) (i32.const 1) (i32.const 9)) (i32.const 0)",
    )
    .await;
    assert_eq!(
        filler.infer(1, input()).await,
        Err(RunnerError::Ended(End::Killed { signal: 11 }))
    );
    assert_eq!(std::fs::read(&weights).unwrap(), blob);

    // A disk that cannot deliver: the pages behind the new end are gone.
    let late = start("late", read).await;
    std::fs::OpenOptions::new()
        .write(true)
        .open(&weights)
        .unwrap()
        .set_len(4096)
        .unwrap();
    assert!(matches!(
        late.infer(1, input()).await,
        Err(RunnerError::Ended(
            End::Killed { signal: 7 } | End::Trap { .. }
        ))
    ));
}

#[tokio::test]
async fn a_runner_killed_from_outside_is_noticed_while_idle() {
    let shop = Workshop::new();
    let runner = shop.start("good", ADD_ONE).await;
    kill(runner.pid());
    assert_eq!(runner.ended().await, End::Killed { signal: 9 });
    assert_eq!(
        runner.infer(1, input()).await,
        Err(RunnerError::Gone(End::Killed { signal: 9 }))
    );
}

fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

#[test]
fn runners_die_with_the_agent_even_in_an_endless_loop() {
    let exe = std::env::current_exe().unwrap();
    let args = [
        "--ignored",
        "--exact",
        "hostile::agent_with_an_endless_runner",
        "--nocapture",
    ];
    let shop = Workshop::new();
    let note = shop.path("pid");
    let mut agent = std::process::Command::new(exe)
        .args(args)
        .env("NOTE", &note)
        .spawn()
        .unwrap();
    let pid = || {
        std::fs::read_to_string(&note)
            .ok()?
            .strip_suffix('\n')?
            .parse::<u32>()
            .ok()
    };
    eventually("the agent starts its runner", || pid().is_some());
    let pid = pid().unwrap();
    assert!(exists(pid));
    agent.kill().unwrap();
    agent.wait().unwrap();
    // Whoever adopts it may take its time to bury it: a zombie is dead too.
    let state = || std::fs::read_to_string(format!("/proc/{pid}/stat"));
    eventually("the runner dies", || {
        state().map_or(true, |s| s.contains(") Z "))
    });
}

#[tokio::test]
#[ignore = "started and killed by runners_die_with_the_agent_even_in_an_endless_loop"]
async fn agent_with_an_endless_runner() {
    let shop = Workshop::new();
    let runner = shop.start("endless", ENDLESS).await;
    let (_, ()) = tokio::join!(runner.infer(1, input()), async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let note = std::env::var_os("NOTE").unwrap();
        std::fs::write(note, format!("{}\n", runner.pid())).unwrap();
    });
}
