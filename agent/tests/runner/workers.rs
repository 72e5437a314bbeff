//! A runner whose module is run in steps, by two threads, in a locked process.

use crate::common::{bytes, numbers};
use crate::workshop::{Workshop, bounded, input};
use sandpiper_agent::runner::{End, Runner, RunnerError, RunnerSpec};

/// Two steps: `mid[part] = 10 * in[part]`, then `out[part] = mid[1 - part] + parts`: the second one
/// needs what the other worker has done in the first.
fn crossing(broken: &str) -> String {
    format!(
        "(module (memory (export \"memory\") 1 1)
           (global (export \"steps\") i32 (i32.const 2))
           (func (export \"infer\") (param i32) (result i32) (i32.const 7))
           (func (export \"step\")
             (param $step i32) (param $item i32) (param $part i32) (param $parts i32)
             {broken}
             (if (i32.eqz (local.get $step))
               (then (i32.store offset=2048 (i32.shl (local.get $part) (i32.const 2))
                 (i32.mul (i32.const 10) (i32.load (i32.shl (local.get $part) (i32.const 2))))))
               (else (i32.store offset=1024 (i32.shl (local.get $part) (i32.const 2))
                 (i32.add (local.get $parts) (i32.load offset=2048
                   (i32.shl (i32.sub (i32.const 1) (local.get $part)) (i32.const 2)))))))))"
    )
}

fn two(workshop: &Workshop, wat: &str) -> RunnerSpec {
    RunnerSpec {
        workers: 2,
        ..workshop.spec("crossing", wat, &bounded())
    }
}

#[tokio::test]
async fn two_workers_see_what_each_other_did() {
    let workshop = Workshop::new();
    let runner = Runner::spawn(two(&workshop, &crossing(""))).await.unwrap();
    for k in 1..200 {
        let given = vec![bytes(&[k, k + 1, 0, 0])];
        let answer = runner.infer(1, given).await.unwrap();
        let expected = [10 * (k + 1) + 2, 10 * k + 2, 0, 0];
        assert_eq!(numbers(&answer.outputs[0]), expected);
    }
}

#[tokio::test]
async fn a_trap_of_the_other_worker_ends_the_runner() {
    let workshop = Workshop::new();
    let broken = "(if (local.get $part) (then (unreachable)))";
    let runner = Runner::spawn(two(&workshop, &crossing(broken)))
        .await
        .unwrap();
    let error = runner.infer(1, input()).await.unwrap_err();
    assert!(
        matches!(&error, RunnerError::Ended(End::Trap { reason }) if reason.contains("unreachable")),
        "{error}"
    );
}

#[tokio::test]
async fn a_module_without_steps_has_one_worker() {
    let workshop = Workshop::new();
    let wat = crate::common::infer(1, crate::common::ADD_ONE);
    let runner = Runner::spawn(two(&workshop, &wat)).await.unwrap();
    crate::workshop::adds_one(&runner).await;
}

#[tokio::test]
async fn every_thread_is_locked_down() {
    let workshop = Workshop::new();
    let runner = Runner::spawn(two(&workshop, &crossing(""))).await.unwrap();
    let threads = format!("/proc/{}/task", runner.pid());
    let mut seen = 0;
    for thread in std::fs::read_dir(threads).unwrap() {
        let status = std::fs::read_to_string(thread.unwrap().path().join("status")).unwrap();
        for line in ["NoNewPrivs:\t1", "CapEff:\t0000000000000000"] {
            assert!(status.contains(line), "{status}");
        }
        if runner.lockdown()["few_calls"] == "applied" {
            // A filter; 0 is none, 1 the four calls of the strict mode.
            assert!(status.contains("Seccomp:\t2"), "{status}");
        }
        seen += 1;
    }
    assert_eq!(seen, 2, "a caller and a worker");
}
