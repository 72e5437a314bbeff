//! An agent whose main loop hangs, under a service manager that watches it.

use crate::common::ADD_ONE;
use crate::device::{bundle, version, version_of};
use crate::eventually;
use crate::serving::Setup;
use sandpiper_core::names::VersionName;
use sandpiper_core::reconcile::MAX_HANGS;
use sandpiper_core::telemetry::{FailureKind, ModelPhase};
use sandpiper_proto::convert::FromController;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Duration;

/// After so much silence the manager takes the agent for dead.
const WITHIN: Duration = Duration::from_secs(6);

/// What a service manager hears; `None` after too much silence.
fn heard(manager: &UnixDatagram) -> Option<String> {
    let mut bytes = [0; 64];
    let n = manager.recv(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes[..n]).into_owned())
}

/// Watches until the agent is silent for too long, and ends it then, as systemd does.
async fn ends_it_when_silent(setup: &mut Setup, manager: &UnixDatagram) {
    let ears = manager.try_clone().unwrap();
    let silence = tokio::task::spawn_blocking(move || while heard(&ears).is_some() {});
    silence.await.unwrap();
    setup.device.abort();
}

async fn serves(setup: &Setup, version: &str) {
    let named = format!("\"model_version\":\"{version}\"");
    eventually("the version serves", async || {
        let reply = setup.device.infer().await?;
        (reply.status == 200 && reply.body.contains(&named)).then_some(())
    })
    .await;
}

/// Opening this for writing waits for a reader, which never comes.
fn trap(path: &Path) {
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
}

/// The main loop hangs when it closes the window of what serves.
#[tokio::test(flavor = "multi_thread")]
async fn fault_34_an_agent_that_hangs_is_restarted_and_the_version_it_hangs_over_given_up() {
    let mut setup = Setup::attached().await;
    setup.device.kill();
    setup.device.configure("[telemetry]\nwindow_s = 1\n");
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("notify");
    let manager = UnixDatagram::bind(&socket).unwrap();
    manager.set_read_timeout(Some(WITHIN)).unwrap();
    setup.device.start_watched(&socket, WITHIN);
    eventually("the device attaches again", async || {
        (setup.controller.desk().streams.len() >= 2).then_some(())
    })
    .await;
    let first = version(&setup.controller);
    // Other machine code, so that giving it up is not giving up the first.
    let other = format!("(i32.store (i32.const 4096) (i32.const 5)) {ADD_ONE}");
    let mut second = version_of(&setup.controller, "activity", &other);
    second.version = VersionName::new("v2").unwrap();
    for (generation, version) in [(1, &first), (2, &second)] {
        let bundle = bundle(&setup.controller, "shed-1", generation, version);
        let message = FromController::Assignment(Box::new(bundle));
        setup.controller.send(message).await;
        serves(&setup, version.version.as_str()).await;
        // It says hello anew once it knows how its runners are locked down.
        eventually("a hello with the lockdown", async || {
            let desk = setup.controller.desk();
            let last = &desk.streams.last()?.hello;
            (!last.profile.lockdown.is_empty()).then_some(())
        })
        .await;
    }
    let fifo = setup.device.state_dir().join("telemetry/.next.tmp");
    // The window that is open may be closed just now; its file is in the way then.
    eventually("the way is blocked", async || {
        let free = !fifo.exists();
        free.then(|| trap(&fifo))
    })
    .await;
    for hang in 1..=MAX_HANGS {
        let reply = setup.device.infer().await;
        assert!(reply.is_some_and(|r| r.status == 200), "{hang}");
        ends_it_when_silent(&mut setup, &manager).await;
        if hang == MAX_HANGS {
            std::fs::remove_file(&fifo).unwrap();
        }
        setup.device.start_watched(&socket, WITHIN);
        // The same model, until the budget is used up.
        let expected = if hang < MAX_HANGS { "v2" } else { "v1" };
        serves(&setup, expected).await;
    }
    eventually("the controller hears why", async || {
        let desk = setup.controller.desk();
        let model = desk
            .streams
            .last()?
            .hello
            .observation
            .models
            .first()?
            .clone();
        let failure = model.failure?;
        let told = failure.kind == FailureKind::Crash && failure.message.contains("hung 3 times");
        (told && model.phase == ModelPhase::Failed).then_some(())
    })
    .await;
    // It lives, and says so.
    let alive = tokio::task::spawn_blocking(move || {
        while heard(&manager).is_some_and(|w| w != "WATCHDOG=1") {}
        heard(&manager).is_some()
    });
    assert!(alive.await.unwrap());
}
