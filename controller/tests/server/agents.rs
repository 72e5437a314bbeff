//! Releases of the agent: what is admitted, what devices are sent, what operators are told.

use crate::support::device::{Device, Live, observation};
use crate::support::{Fleet, soon};
use sandpiper::api::client::CallError;
use sandpiper_core::assignment::{Assignment, AssignmentBundle};
use sandpiper_core::digest::ArtefactRef;
use sandpiper_core::fleet::OrderedDevices;
use sandpiper_core::names::ActorName;
use sandpiper_core::signed::{Purpose, Signed};
use sandpiper_core::target::Arch;
use sandpiper_core::time::Millis;
use sandpiper_core::update::{AgentRelease, AgentStatus, UpdatePhase};
use sandpiper_core::view::AgentReleaseDoc;
use sandpiper_proto::convert::{AgentOrders, FromController, FromDevice, ResourceKind};
use sandpiper_transport::signing::SigningKey;
use tonic::Code;

fn program(machine: u8) -> Vec<u8> {
    let mut bytes = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    bytes.extend([2, 0, machine, 0]);
    bytes.extend([5; 100]);
    bytes
}

/// Programs of the played devices' architecture.
fn own() -> Vec<u8> {
    program(62)
}

fn release(version: &str, arch: Arch, program: &[u8]) -> AgentRelease {
    AgentRelease {
        version: version.parse().unwrap(),
        publisher: ActorName::new("publisher").unwrap(),
        published_at: Millis(0),
        oldest: None,
        binaries: [(arch, ArtefactRef::of(program))].into(),
    }
}

fn sign(key: &SigningKey, release: &AgentRelease) -> Signed {
    key.sign(Purpose::Agent, serde_json::to_vec(release).unwrap())
}

async fn upload(fleet: &Fleet, bytes: &[u8]) {
    let mut operator = fleet.operator().await;
    operator
        .upload(ArtefactRef::of(bytes), bytes)
        .await
        .unwrap();
}

async fn refused(fleet: &Fleet, signed: Signed) -> String {
    let answer = fleet.operator().await.publish_agent(signed).await;
    let error = answer.unwrap_err();
    assert!(
        matches!(&error, CallError::Status(s) if s.code() == Code::InvalidArgument),
        "{error:?}"
    );
    let known: Vec<AgentReleaseDoc> = fleet.list(ResourceKind::AgentReleases).await;
    assert!(known.is_empty());
    error.to_string()
}

#[tokio::test]
async fn a_release_is_published_only_when_all_of_it_is_there_and_genuine() {
    let fleet = Fleet::start().await;
    let key = fleet.publisher();
    let good = release("0.2.0", Arch::X86_64, &own());
    let why = refused(&fleet, sign(&key, &good)).await;
    assert!(why.contains("1 artefacts are not here"), "{why}");
    upload(&fleet, &own()).await;
    let stranger = SigningKey::generate().unwrap();
    let why = refused(&fleet, sign(&stranger, &good)).await;
    assert!(why.contains("not trusted here"), "{why}");
    let mut altered = sign(&key, &good);
    let at = altered.payload.iter().position(|b| *b == b'2').unwrap();
    altered.payload[at] = b'3';
    let why = refused(&fleet, altered).await;
    assert!(why.contains("was altered"), "{why}");
    let json = serde_json::to_vec(&good).unwrap();
    let why = refused(&fleet, key.sign(Purpose::Version, json)).await;
    assert!(why.contains("Version"), "{why}");
    let foreign = release("0.2.0", Arch::Aarch64, &own());
    let why = refused(&fleet, sign(&key, &foreign)).await;
    assert!(why.contains("it was built for x86_64"), "{why}");
    let mut large = good.clone();
    large.binaries.get_mut(&Arch::X86_64).unwrap().size_bytes = (64 << 20) + 1;
    let why = refused(&fleet, sign(&key, &large)).await;
    assert!(why.contains("1 to 67108864"), "{why}");
    let mut itself = good.clone();
    itself.oldest = Some("0.3.0".parse().unwrap());
    let why = refused(&fleet, sign(&key, &itself)).await;
    assert!(why.contains("older than 0.3.0"), "{why}");

    let mut operator = fleet.operator().await;
    operator.publish_agent(sign(&key, &good)).await.unwrap();
    // Again is no mistake; with another content it is one.
    operator.publish_agent(sign(&key, &good)).await.unwrap();
    let mut other = good.clone();
    other.published_at = Millis(1);
    let error = operator.publish_agent(sign(&key, &other)).await;
    assert!(error.unwrap_err().to_string().contains("published already"));
}

async fn order(
    fleet: &Fleet,
    version: Option<&str>,
    devices: OrderedDevices,
) -> Result<sandpiper_core::view::AgentOrdersDoc, CallError> {
    let version = version.map(|v| v.parse().unwrap());
    let orders = AgentOrders { version, devices };
    fleet.operator().await.order_agents(orders).await
}

fn only(name: &str) -> OrderedDevices {
    OrderedDevices::One(name.parse().unwrap())
}

/// What a device says of its agent.
fn told(order: u64, running: &str, phase: Option<UpdatePhase>, why: Option<&str>) -> AgentStatus {
    AgentStatus {
        running: running.to_owned(),
        installed: running == "0.1.0",
        order,
        wanted: None,
        phase,
        why: why.map(str::to_owned),
    }
}

async fn say(live: &Live, generation: u64, agent: AgentStatus) {
    let mut observation = observation(generation, Vec::new());
    observation.agent = Some(agent);
    live.say(FromDevice::Observation(Box::new(observation)))
        .await;
}

async fn bundle(live: &mut Live) -> (Assignment, AssignmentBundle) {
    loop {
        if let FromController::Assignment(bundle) = live.next().await.unwrap().unwrap() {
            let assignment = serde_json::from_slice(&bundle.assignment.payload).unwrap();
            return (assignment, *bundle);
        }
    }
}

async fn event(fleet: &Fleet, reason: &str, part: &str) {
    let reached = async {
        loop {
            let all = fleet.events("device/shed", reason).await;
            if all.iter().any(|message| message.contains(part)) {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    soon(&format!("{reason}: {part}"), reached).await;
}

#[tokio::test]
async fn an_order_travels_in_the_assignment_with_the_publishers_signature() {
    let mut fleet = Fleet::start().await;
    upload(&fleet, &own()).await;
    let wanted = release("0.2.0", Arch::X86_64, &own());
    let proof = sign(&fleet.publisher(), &wanted);
    let mut operator = fleet.operator().await;
    operator.publish_agent(proof.clone()).await.unwrap();
    let device = Device::join(&fleet, "shed").await;
    let why = order(&fleet, Some("0.2.0"), only("shed"))
        .await
        .unwrap_err();
    assert!(why.to_string().contains("has not reported"), "{why}");
    let mut live = device.attach(&fleet, 0, Vec::new()).await;
    // An agent from before there were orders.
    let why = order(&fleet, Some("0.2.0"), only("shed"))
        .await
        .unwrap_err();
    assert!(why.to_string().contains("cannot update itself"), "{why}");
    say(&live, 0, told(0, "0.1.0", None, None)).await;
    let why = order(&fleet, Some("0.9.0"), only("shed"))
        .await
        .unwrap_err();
    assert!(
        why.to_string().contains("no agent-release `0.9.0`"),
        "{why}"
    );
    // It may take a moment until what it said is known.
    let reached = async {
        while order(&fleet, Some("0.2.0"), only("shed")).await.is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    soon("the order is taken", reached).await;
    let (assignment, sent) = bundle(&mut live).await;
    let found = assignment.agent.unwrap();
    assert_eq!((found.number, found.release.as_ref()), (1, Some(&wanted)));
    assert_eq!(sent.agent.as_ref(), Some(&proof));

    let generation = assignment.generation.0;
    let why = Some("it did not attach");
    let fell = told(1, "0.1.0", Some(UpdatePhase::FellBack), why);
    say(&live, generation, fell).await;
    event(
        &fleet,
        "AgentFellBack",
        "agent 0.1.0 runs: it did not attach",
    )
    .await;
    assert_eq!(fleet.device("shed").await.agent.unwrap().order, 1);
    // A restart forgets nothing; the next order is another one, and the installed agent is one too.
    drop(live);
    fleet.restart().await;
    let mut live = device.attach(&fleet, generation, Vec::new()).await;
    let release = told(1, "0.2.0", Some(UpdatePhase::Confirmed), None);
    say(&live, generation, release).await;
    event(&fleet, "AgentUpdated", "agent 0.2.0 runs").await;
    let all = OrderedDevices::Matching("".parse().unwrap());
    let doc = order(&fleet, None, all).await;
    assert!(
        doc.is_err(),
        "nobody orders all devices by forgetting a name"
    );
    order(&fleet, None, only("shed")).await.unwrap();
    let (assignment, sent) = bundle(&mut live).await;
    let found = assignment.agent.unwrap();
    assert_eq!((found.number, found.release), (2, None));
    assert_eq!(sent.agent, None);
}

#[tokio::test]
async fn a_device_that_lost_its_order_is_told_again() {
    let fleet = Fleet::start().await;
    upload(&fleet, &own()).await;
    let wanted = release("0.2.0", Arch::X86_64, &own());
    let mut operator = fleet.operator().await;
    let proof = sign(&fleet.publisher(), &wanted);
    operator.publish_agent(proof).await.unwrap();
    let device = Device::join(&fleet, "shed").await;
    let hello = |generation: u64| {
        let mut observation = observation(generation, Vec::new());
        observation.agent = Some(told(0, "0.1.0", None, None));
        observation
    };
    let mut live = device.try_attach_with(1, &fleet, hello(0)).await.unwrap();
    order(&fleet, Some("0.2.0"), only("shed")).await.unwrap();
    let (first, _) = bundle(&mut live).await;
    assert_eq!(first.agent.unwrap().number, 1);
    // It took the assignment while it did not know of orders; now it does.
    let generation = first.generation.0;
    let again = device.try_attach_with(2, &fleet, hello(generation)).await;
    let (second, _) = bundle(&mut again.unwrap()).await;
    assert_eq!(second.generation.0, generation + 1);
    assert_eq!(second.agent.unwrap().number, 1, "the same order");
}
