//! What local programs see of the agent's program over deaths, reboots and refusals.

use crate::controller::Controller;
use crate::device::{Device, bundle, version};
use crate::eventually;
use sandpiper_core::telemetry::ModelPhase;
use sandpiper_proto::convert::FromController;
use std::path::Path;
use std::sync::Arc;
use tokio::task::JoinHandle;

pub(crate) struct Setup {
    pub(crate) controller: Arc<Controller>,
    server: JoinHandle<()>,
    pub(crate) device: Device,
}

impl Setup {
    /// A device that serves its model.
    async fn serving() -> Self {
        let setup = Self::attached().await;
        setup.assign("shed-1", 1).await;
        setup.serves().await;
        setup
    }

    /// A device without a model.
    pub(crate) async fn attached() -> Self {
        let controller = Controller::new();
        let (address, server) = controller.serve().await;
        let mut device = Device::join(&controller, &address).await;
        device.start();
        let setup = Self {
            controller,
            server,
            device,
        };
        eventually("the device attaches", async || {
            (!setup.controller.desk().streams.is_empty()).then_some(())
        })
        .await;
        setup
    }

    async fn assign(&self, device: &str, generation: u64) {
        let version = version(&self.controller);
        let bundle = bundle(&self.controller, device, generation, &version);
        let message = FromController::Assignment(Box::new(bundle));
        self.controller.send(message).await;
    }

    /// The controller is gone.
    pub(crate) fn disconnect(&mut self) {
        self.server.abort();
        self.controller.desk().streams.clear();
    }

    pub(crate) async fn serves(&self) {
        eventually("the model serves", async || {
            let reply = self.device.infer().await?;
            (reply.status == 200).then(|| assert!(reply.body.contains("[2,3,4,5]")))
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_that_dies_at_rest_is_started_anew_and_told_apart_from_no_model() {
    let setup = Setup::serving().await;
    let runner = setup.device.runners()[0];
    let pid = rustix::process::Pid::from_raw(i32::try_from(runner).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    // Nothing is asked of it: the agent buries it and starts another by itself.
    eventually("the runner is buried and replaced", async || {
        let gone = !Path::new(&format!("/proc/{runner}")).exists();
        (gone && !setup.device.runners().is_empty()).then_some(())
    })
    .await;
    eventually("the model serves again", async || {
        let reply = setup.device.infer().await?;
        match reply.status {
            200 => Some(()),
            503 => {
                assert!(reply.retry_after.is_some());
                None
            }
            other => panic!("{other}: {}", reply.body),
        }
    })
    .await;
    assert_ne!(setup.device.runners(), [runner]);
    // The controller knows how runners are locked down here.
    eventually("a hello with the lockdown", async || {
        let desk = setup.controller.desk();
        let last = &desk.streams.last().unwrap().hello;
        (last.profile.lockdown.get("no_files")? == "applied").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_is_assigned_but_not_there_yet_is_worth_asking_for_again() {
    let setup = Setup::attached().await;
    assert_eq!(setup.device.infer().await.unwrap().status, 404);
    setup.controller.gate.forget_permits(1000);
    setup.assign("shed-1", 1).await;
    let away = eventually("the assignment is taken", async || {
        let reply = setup.device.infer().await?;
        (reply.status != 404).then_some(reply)
    })
    .await;
    assert_eq!(away.status, 503);
    assert!(away.retry_after.is_some_and(|s| s > 1));
    assert!(away.body.contains("is being fetched"), "{}", away.body);
    setup.controller.gate.add_permits(1000);
    setup.serves().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_power_cut_the_last_good_model_serves_without_a_controller() {
    let mut setup = Setup::serving().await;
    eventually("the state is kept", async || {
        let desk = setup.controller.desk();
        let models = &desk.streams.last().unwrap().hello.observation.models;
        (models.first()?.phase == ModelPhase::Serving).then_some(())
    })
    .await;
    setup.device.kill();
    setup.server.abort();
    let fetches = setup.controller.desk().fetches.len();
    setup.device.start();
    setup.serves().await;
    assert_eq!(setup.controller.desk().fetches.len(), fetches);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_assignment_is_shown_reported_and_changes_nothing() {
    let setup = Setup::serving().await;
    assert!(!setup.device.status().await.contains("refused"));
    setup.assign("shed-2", 2).await;
    eventually("the refusal is shown", async || {
        let status = setup.device.status().await;
        status
            .contains("refused: the assignment is for device shed-2")
            .then_some(())
    })
    .await;
    setup.serves().await;
    eventually("the refusal is reported", async || {
        let desk = setup.controller.desk();
        let seen = &desk.streams.last().unwrap().hello.observation;
        assert_eq!(seen.generation.0, 1);
        seen.refused.is_some().then_some(())
    })
    .await;
    // Altered on its way: what is wrong is the signature.
    let version = version(&setup.controller);
    let mut altered = bundle(&setup.controller, "shed-1", 3, &version);
    altered.assignment.payload.push(b' ');
    let message = FromController::Assignment(Box::new(altered));
    setup.controller.send(message).await;
    eventually("the alteration is shown", async || {
        setup
            .device
            .status()
            .await
            .contains("altered")
            .then_some(())
    })
    .await;
    setup.assign("shed-1", 4).await;
    eventually("a good one ends it", async || {
        let status = setup.device.status().await;
        (status.contains("generation 4") && !status.contains("refused")).then_some(())
    })
    .await;
}
