//! Releases of the agent itself: what is not genuine or does not fit is refused, downloads that are
//! cut go on, and what cannot be started falls back.

use crate::controller::{Controller, Mishap};
use crate::device::bundle_of;
use crate::eventually;
use crate::serving::Setup;
use sandpiper_core::assignment::{Assignment, AssignmentBundle};
use sandpiper_core::chunks::CHUNK_BYTES;
use sandpiper_core::digest::ArtefactRef;
use sandpiper_core::names::ActorName;
use sandpiper_core::signed::{Purpose, Signed};
use sandpiper_core::target::Arch;
use sandpiper_core::telemetry::Observation;
use sandpiper_core::time::Millis;
use sandpiper_core::update::{AgentOrder, AgentRelease, AgentStatus, MAX_AGENT_BYTES, UpdatePhase};
use sandpiper_proto::convert::FromController;
use sandpiper_transport::signing::SigningKey;

const ARCH: Arch = if cfg!(target_arch = "x86_64") {
    Arch::X86_64
} else {
    Arch::Aarch64
};

/// The beginning of a program for a machine with 64 bits, and nothing that could run.
fn program(machine: u8, length: usize) -> Vec<u8> {
    let mut bytes = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    bytes.extend([2, 0, machine, 0]);
    bytes.extend((bytes.len()..length).map(|i| (i * 31 % 251 + i / CHUNK_BYTES) as u8));
    bytes
}

fn own_program(length: usize) -> Vec<u8> {
    program(if ARCH == Arch::X86_64 { 62 } else { 183 }, length)
}

fn release(artefact: ArtefactRef) -> AgentRelease {
    AgentRelease {
        version: "0.2.0".parse().unwrap(),
        publisher: ActorName::new("publisher").unwrap(),
        published_at: Millis(0),
        oldest: None,
        binaries: [(ARCH, artefact)].into(),
    }
}

/// An assignment without models that orders a release, with what is sent as its proof.
fn ordering(
    controller: &Controller,
    generation: u64,
    release: &AgentRelease,
    proof: Option<Signed>,
) -> AssignmentBundle {
    let bundle = bundle_of(controller, "shed-1", generation, &[]);
    let mut assignment: Assignment = serde_json::from_slice(&bundle.assignment.payload).unwrap();
    assignment.agent = Some(AgentOrder {
        number: generation,
        release: Some(release.clone()),
    });
    AssignmentBundle {
        assignment: Controller::sign(&controller.assigner, Purpose::Assignment, &assignment),
        agent: proof,
        ..bundle
    }
}

fn signed(controller: &Controller, release: &AgentRelease) -> Option<Signed> {
    Some(Controller::sign(
        &controller.publisher,
        Purpose::Agent,
        release,
    ))
}

async fn send(setup: &Setup, bundle: AssignmentBundle) {
    let message = FromController::Assignment(Box::new(bundle));
    setup.controller.send(message).await;
}

async fn seen<T>(setup: &Setup, what: &str, look: impl Fn(&Observation) -> Option<T>) -> T {
    eventually(what, async || {
        look(&setup.controller.desk().streams.last()?.hello.observation)
    })
    .await
}

/// Waits until the order of this number has come to a phase.
async fn comes_to(setup: &Setup, order: u64, phase: UpdatePhase) -> AgentStatus {
    seen(setup, &format!("order {order} is {phase:?}"), |o| {
        let agent = o.agent.clone()?;
        (agent.order == order && agent.phase == Some(phase)).then_some(agent)
    })
    .await
}

fn programs(setup: &Setup) -> usize {
    let dir = std::fs::read_dir(setup.device.state_dir().join("agent"));
    let names = dir.into_iter().flatten().flatten().map(|f| f.file_name());
    names
        .filter(|n| n.to_string_lossy().contains("sandpiper-agent-"))
        .count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_that_no_publisher_signed_changes_nothing() {
    let setup = Setup::attached().await;
    let controller = &setup.controller;
    let wanted = release(controller.hold(own_program(1000)));
    let stranger = SigningKey::generate().unwrap();
    let mut other = wanted.clone();
    other.version = "0.3.0".parse().unwrap();
    let mut altered = signed(controller, &wanted).unwrap();
    let last = altered.payload.len() - 2;
    altered.payload[last] ^= 1;
    let proofs = [
        (None, "was not sent"),
        (
            Some(Controller::sign(&stranger, Purpose::Agent, &wanted)),
            "key",
        ),
        // Who steers devices is not who publishes.
        (
            Some(Controller::sign(
                &controller.assigner,
                Purpose::Agent,
                &wanted,
            )),
            "key",
        ),
        (
            Some(Controller::sign(
                &controller.publisher,
                Purpose::Version,
                &wanted,
            )),
            "",
        ),
        (Some(altered), "signature"),
        (signed(controller, &other), "not what its publisher signed"),
    ];
    for (generation, (proof, why)) in (1..).zip(proofs) {
        let bundle = ordering(controller, generation, &wanted, proof);
        send(&setup, bundle).await;
        let refused = seen(&setup, "it is refused", |o| {
            o.refused.clone().filter(|r| r.contains(why))
        });
        let refused = refused.await;
        let told = seen(&setup, "what it says", |o| Some(o.clone())).await;
        assert_eq!(told.generation.0, 0, "{refused}");
        assert_eq!(told.agent.unwrap().order, 0);
        assert!(controller.desk().fetches.is_empty());
        // The same refusal must not pass for the next one.
        let bundle = bundle_of(controller, "shed-1", 0, &[]);
        send(&setup, bundle).await;
        seen(&setup, "another refusal, or none", |o| {
            (o.refused.as_deref() != Some(&refused)).then_some(())
        })
        .await;
    }
    assert_eq!(programs(&setup), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_this_device_is_refused() {
    let setup = Setup::attached().await;
    let controller = &setup.controller;
    let mut large = release(controller.hold(own_program(1000)));
    large.binaries.get_mut(&ARCH).unwrap().size_bytes = MAX_AGENT_BYTES + 1;
    // It says that it is for this architecture, and is not.
    let foreign = release(controller.hold(program(243, 1000)));
    let script = release(controller.hold(b"#!/bin/sh\nexec true\n".to_vec()));
    let mut elsewhere = release(controller.hold(own_program(1000)));
    let own = elsewhere.binaries.remove(&ARCH).unwrap();
    elsewhere.binaries.insert(Arch::Arm, own);
    for (number, (wanted, why)) in (1..).zip([
        (large, "at most 67108864"),
        (elsewhere, "no program for"),
        (foreign, "a machine that the agent does not run on"),
        (script, "no ELF header"),
    ]) {
        let proof = signed(controller, &wanted);
        send(&setup, ordering(controller, number, &wanted, proof)).await;
        let told = comes_to(&setup, number, UpdatePhase::Refused).await;
        assert!(told.why.as_ref().unwrap().contains(why), "{told:?}");
        assert!(told.installed);
    }
    assert_eq!(
        controller.desk().fetches.len(),
        2,
        "two could be refused unseen"
    );
    assert_eq!(programs(&setup), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_that_is_cut_goes_on_and_what_cannot_be_started_falls_back() {
    let setup = Setup::attached().await;
    let controller = &setup.controller;
    let wanted = release(controller.hold(own_program(5 * CHUNK_BYTES)));
    controller.desk().mishaps = vec![Some(Mishap::Cut(2)), Some(Mishap::Damage(3))];
    let proof = signed(controller, &wanted);
    send(&setup, ordering(controller, 1, &wanted, proof)).await;
    let told = comes_to(&setup, 1, UpdatePhase::FellBack).await;
    assert_eq!(
        controller.desk().fetches,
        [0, 2, 3],
        "chunks that came are kept"
    );
    assert!(told.why.unwrap().contains("could not be started"));
    assert!(told.installed);
    // It is another start of the agent in the same process, which goes on.
    eventually("a new stream", async || {
        (controller.desk().streams.len() == 2).then_some(())
    })
    .await;
    assert!(setup.device.status().await.contains("fell back"));
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_bytes_never_lie_ready() {
    let setup = Setup::attached().await;
    let controller = &setup.controller;
    let wanted = release(controller.hold(own_program(2 * CHUNK_BYTES)));
    controller.desk().mishaps = vec![Some(Mishap::Damage(1)); 4];
    let proof = signed(controller, &wanted);
    send(&setup, ordering(controller, 1, &wanted, proof)).await;
    let told = seen(&setup, "the damage is told", |o| o.agent.clone()?.why).await;
    assert!(told.contains("damaged"), "{told}");
    let agent = seen(&setup, "the agent is told of", |o| o.agent.clone()).await;
    assert_eq!(agent.phase, Some(UpdatePhase::Fetching));
    assert_eq!(programs(&setup), 0);
}
