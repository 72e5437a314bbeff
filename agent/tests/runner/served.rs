//! What a runner does for the agent.

use crate::common::{ADD_ONE, abi, bytes, infer, numbers};
use crate::workshop::{ENDLESS, SOON, Workshop, adds_one, bounded, eventually, exists, input};
use sandpiper_agent::runner::{End, Runner, RunnerError, RunnerSpec};
use sandpiper_sandbox::InferError;
use std::path::Path;
use std::time::Duration;

#[tokio::test]
async fn a_good_module_is_served_and_stopped() {
    let shop = Workshop::new();
    let runner = shop.start("good", ADD_ONE).await;
    let pid = runner.pid();
    assert!(exists(pid));
    adds_one(&runner).await;
    let many: Vec<i32> = (0..32).collect();
    let answer = runner.infer(8, vec![bytes(&many)]).await.unwrap();
    let expected: Vec<i32> = many.iter().map(|n| n + 1).collect();
    assert_eq!(numbers(&answer.outputs[0]), expected);
    adds_one(&runner).await;
    assert_eq!(runner.stop().await, End::Stopped);
    assert!(!exists(pid));
    assert_eq!(
        runner.infer(1, input()).await,
        Err(RunnerError::Gone(End::Stopped))
    );
    assert_eq!(runner.stop().await, End::Stopped);
}

#[tokio::test]
async fn a_runner_is_locked_down_and_knows_nothing_of_the_agent() {
    let shop = Workshop::new();
    let runner = shop.start("good", ADD_ONE).await;
    let applied = |measure: &str| runner.lockdown()[measure] == "applied";
    for measure in [
        "no_new_privileges",
        "address_space",
        "no_files",
        "no_file_writes",
        "no_core_dump",
        "no_capabilities",
        "ends_with_parent",
        "not_inspected",
        "first_out_of_memory",
    ] {
        assert!(applied(measure), "{:?}", runner.lockdown());
    }
    let of = |file: &str| format!("/proc/{}/{file}", runner.pid());
    let limits = std::fs::read_to_string(of("limits")).unwrap();
    let files = limits
        .lines()
        .find(|l| l.starts_with("Max open files"))
        .unwrap();
    assert_eq!(files.split_whitespace().nth(3), Some("0"));
    if rustix::process::geteuid().is_root() {
        assert_eq!(std::fs::read(of("environ")).unwrap(), b"");
        assert_eq!(std::fs::read_link(of("cwd")).unwrap(), Path::new("/"));
        only_its_channel_is_open(&of("fd"), &shop.path("good"));
    } else {
        // Its own user may not look into it: all of this is out of reach.
        let environ = std::fs::read(of("environ")).unwrap_err();
        assert_eq!(environ.kind(), std::io::ErrorKind::PermissionDenied);
    }
    let command = std::fs::read(of("cmdline")).unwrap();
    assert_eq!(command, b"sandpiper-runner test/good\0runner\0");
    let status = std::fs::read_to_string(of("status")).unwrap();
    for line in ["NoNewPrivs:\t1", "Threads:\t1", "CapEff:\t0000000000000000"] {
        assert!(status.contains(line), "{status}");
    }
    adds_one(&runner).await;
}

/// Its channel, the memory with the tensors, the pipe for the log, and the native code that it maps;
/// nothing of the agent's.
fn only_its_channel_is_open(descriptors: &str, native: &Path) {
    for entry in std::fs::read_dir(descriptors).unwrap() {
        let open = std::fs::read_link(entry.unwrap().path()).unwrap();
        let text = open.to_str().unwrap();
        let kinds = ["socket:", "pipe:", "/memfd:sandpiper-tensors"];
        let own = open == native || kinds.iter().any(|kind| text.starts_with(kind));
        assert!(own, "{} is open", open.display());
    }
}

#[tokio::test]
async fn wrong_requests_cost_nothing() {
    let shop = Workshop::new();
    let runner = shop.start("good", ADD_ONE).await;
    let request = |batch, inputs| runner.infer(batch, inputs);
    assert_eq!(
        request(9, input()).await,
        Err(RunnerError::Request(InferError::BadBatch {
            batch: 9,
            max: 8
        }))
    );
    assert!(matches!(
        request(1, vec![]).await,
        Err(RunnerError::Request(_))
    ));
    assert!(matches!(
        request(1, vec![vec![0; 15]]).await,
        Err(RunnerError::Request(_))
    ));
    adds_one(&runner).await;
}

#[tokio::test]
async fn an_error_code_does_not_end_the_runner() {
    let shop = Workshop::new();
    let runner = shop.start("code", "(i32.const 7)").await;
    for _ in 0..2 {
        assert_eq!(runner.infer(1, input()).await, Err(RunnerError::Code(7)));
    }
    assert!(exists(runner.pid()));
}

#[tokio::test]
async fn a_full_queue_says_so_and_every_queued_request_gets_its_word() {
    let shop = Workshop::new();
    let mut spec = shop.spec("endless", &infer(1, ENDLESS), &bounded());
    spec.queue = 1;
    spec.limits.deadline = SOON;
    let runner = Runner::spawn(spec).await.unwrap();
    // One runs, one waits, the others find the queue full; in which order they come is open.
    let all = tokio::join!(
        runner.infer(1, input()),
        runner.infer(1, input()),
        runner.infer(1, input()),
        runner.infer(1, input()),
    );
    let all = [all.0, all.1, all.2, all.3];
    let busy = all
        .iter()
        .filter(|a| **a == Err(RunnerError::Busy { queued: 1 }))
        .count();
    let ended = all
        .iter()
        .filter(|a| **a == Err(RunnerError::Ended(End::Deadline)))
        .count();
    let waited = all
        .iter()
        .filter(|a| **a == Err(RunnerError::Gone(End::Deadline)))
        .count();
    assert!(busy >= 2 && busy + ended + waited == 4, "{all:?}");
    assert_eq!(ended, 1, "only one was tried: {all:?}");
}

#[tokio::test]
async fn stopping_serves_what_is_queued() {
    let shop = Workshop::new();
    let runner = shop.start("good", ADD_ONE).await;
    let (one, two, end) = tokio::join!(
        runner.infer(1, input()),
        runner.infer(1, input()),
        runner.stop()
    );
    assert!(one.is_ok() && two.is_ok(), "{one:?} {two:?}");
    assert_eq!(end, End::Stopped);
}

#[tokio::test]
async fn whoever_goes_away_leaves_the_runner_as_it_was() {
    let shop = Workshop::new();
    let runner = shop.start("good", ADD_ONE).await;
    for _ in 0..20 {
        // Dropped at its first wait.
        let _ = tokio::time::timeout(Duration::ZERO, runner.infer(1, input())).await;
    }
    adds_one(&runner).await;
    let pid = runner.pid();
    drop(runner);
    tokio::task::spawn_blocking(move || eventually("the runner ends", || !exists(pid)))
        .await
        .unwrap();
}

#[tokio::test]
async fn what_cannot_be_loaded_is_refused_with_its_reason() {
    let shop = Workshop::new();
    let spec = || shop.spec("good", &infer(1, ADD_ONE), &bounded());
    let reason = async |spec| match Runner::spawn(spec).await {
        Err(RunnerError::Refused { reason }) => reason,
        other => panic!("{other:?}"),
    };
    let noise = spec();
    std::fs::write(&noise.native, b"noise").unwrap();
    assert!(reason(noise).await.contains("not native code"));
    let missing = RunnerSpec {
        native: shop.path("nowhere"),
        ..spec()
    };
    let text = reason(missing).await;
    assert!(
        text.contains("nowhere") && text.contains("No such file"),
        "{text}"
    );
    let other = RunnerSpec {
        abi: abi(1),
        ..spec()
    };
    assert!(reason(other).await.contains("epoch interruption"));
}

#[tokio::test]
async fn programs_that_are_no_runners_are_told_apart() {
    let shop = Workshop::new();
    let spec = |exe| RunnerSpec {
        exe,
        ..shop.spec("good", &infer(1, ADD_ONE), &bounded())
    };
    let none = Runner::spawn(spec(shop.path("nowhere"))).await;
    assert!(matches!(none, Err(RunnerError::Spawn { .. })), "{none:?}");
    let exits = Runner::spawn(spec(shop.script("cat >/dev/null & exit 5"))).await;
    assert_eq!(
        exits.unwrap_err(),
        RunnerError::Ended(End::Exit { code: 5 })
    );
    let babbles = Runner::spawn(spec(
        shop.script("echo what a nice day >&0; exec sleep 1000"),
    ))
    .await;
    assert!(
        matches!(babbles, Err(RunnerError::Ended(End::Protocol { .. }))),
        "{babbles:?}"
    );
    let sleeps = spec(shop.script("exec sleep 1000"));
    let sleeps = RunnerSpec {
        load_timeout: Duration::from_millis(300),
        ..sleeps
    };
    assert!(matches!(
        Runner::spawn(sleeps).await,
        Err(RunnerError::LoadTimeout { .. })
    ));
}
