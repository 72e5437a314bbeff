//! A model that turns hostile after its self-test, beside one that does not.

use crate::common::ADD_ONE;
use crate::device::{bundle_of, version, version_of};
use crate::eventually;
use crate::serving::Setup;
use sandpiper_core::telemetry::{FailureKind, ModelPhase};
use sandpiper_proto::convert::FromController;

/// Numbers that the hostile module waits for, and what it does then.
const TRAP: i32 = 666;
const ENDLESS: i32 = 667;
const GROW: i32 = 668;

/// Adds one like the other, but for the numbers above. `grow` answers whether it got more memory
/// than planned.
fn hostile() -> String {
    let when = |number: i32, then: &str| {
        format!("(if (i32.eq (i32.load (i32.const 0)) (i32.const {number})) (then {then}))")
    };
    let grow = "(return (i32.ne (memory.grow (i32.const 1000)) (i32.const -1)))";
    [
        when(TRAP, "unreachable"),
        when(ENDLESS, "(loop $on (br $on))"),
        when(GROW, grow),
        ADD_ONE.to_owned(),
    ]
    .concat()
}

/// A device that serves a good and a hostile model.
async fn both() -> Setup {
    let setup = Setup::attached().await;
    let good = version(&setup.controller);
    let bad = version_of(&setup.controller, "hostile", &hostile());
    let bundle = bundle_of(&setup.controller, "shed-1", 1, &[&good, &bad]);
    let message = FromController::Assignment(Box::new(bundle));
    setup.controller.send(message).await;
    for model in ["activity", "hostile"] {
        serves(&setup, model).await;
    }
    setup
}

async fn serves(setup: &Setup, model: &str) {
    eventually("the model serves", async || {
        let reply = setup.device.ask(model, [1, 2, 3, 4]).await?;
        (reply.status == 200).then(|| assert!(reply.body.contains("[2,3,4,5]")))
    })
    .await;
}

/// The good model answers the first time it is asked.
async fn unharmed(setup: &Setup) {
    let reply = setup.device.infer().await.unwrap();
    assert_eq!(reply.status, 200, "{}", reply.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trap_is_told_to_the_caller_and_the_model_comes_back() {
    let setup = both().await;
    let reply = setup.device.ask("hostile", [TRAP, 0, 0, 0]).await.unwrap();
    assert!(reply.status >= 500, "{}: {}", reply.status, reply.body);
    assert!(reply.body.contains("error"), "{}", reply.body);
    unharmed(&setup).await;
    serves(&setup, "hostile").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endless_loop_is_ended_at_its_deadline_while_the_other_serves() {
    let setup = both().await;
    let looping = setup.device.ask("hostile", [ENDLESS, 0, 0, 0]);
    let others = async {
        for _ in 0..50 {
            unharmed(&setup).await;
        }
    };
    let (reply, ()) = tokio::join!(looping, others);
    let reply = reply.unwrap();
    assert!(reply.status >= 500, "{}: {}", reply.status, reply.body);
    serves(&setup, "hostile").await;
    unharmed(&setup).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_beyond_the_plan_is_refused() {
    let setup = both().await;
    // The module answers 1 if it got more, which would be an error; it did not, and goes on.
    let reply = setup.device.ask("hostile", [GROW, 0, 0, 0]).await.unwrap();
    assert_eq!(reply.status, 200, "{}", reply.body);
    unharmed(&setup).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_loop_is_ended_and_reported() {
    let setup = both().await;
    eventually("the controller hears of it", async || {
        // Whatever the answer: the model is down, starting, or traps once more.
        let _ = setup.device.ask("hostile", [TRAP, 0, 0, 0]).await;
        let desk = setup.controller.desk();
        let seen = &desk.streams.last()?.hello.observation;
        let model = seen.models.iter().find(|m| m.model.as_str() == "hostile")?;
        let failure = model.failure.as_ref()?;
        let given_up = model.phase == ModelPhase::Failed && failure.kind == FailureKind::Crash;
        given_up.then_some(())
    })
    .await;
    unharmed(&setup).await;
}
