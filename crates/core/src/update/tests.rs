//! One path at a time.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::digest::{ArtefactRef, Digest};
use crate::names::{ActorName, ModelName};
use crate::target::Arch;
use crate::time::Millis;
use std::collections::BTreeSet;
use std::time::Duration;

const DEADLINE: Duration = Duration::from_secs(120);
const INSTALLED: &str = "0.1.0";

pub(super) fn version(text: &str) -> AgentVersion {
    text.parse().unwrap()
}

pub(super) fn artefact(version: &str) -> ArtefactRef {
    ArtefactRef::of(version.as_bytes())
}

pub(super) fn release(text: &str) -> AgentRelease {
    AgentRelease {
        version: version(text),
        publisher: ActorName::new("publisher").unwrap(),
        published_at: Millis(0),
        oldest: None,
        binaries: [(Arch::Aarch64, artefact(text))].into(),
    }
}

pub(super) fn order(number: u64, text: &str) -> AgentOrder {
    AgentOrder {
        number,
        release: Some(release(text)),
    }
}

fn models(serving: &[&str]) -> Models {
    let name = |n: &&str| ModelName::new(*n).unwrap();
    Models {
        assigned: [name(&"activity")].into(),
        serving: serving.iter().map(name).collect(),
        busy: false,
    }
}

fn updater(record: UpdateRecord, running: Option<Digest>) -> Updater {
    Updater::new(record, running, INSTALLED, Arch::Aarch64).with(true, DEADLINE)
}

/// The installed program, attached, with one model that serves.
fn at_rest() -> Updater {
    let mut machine = updater(UpdateRecord::default(), None);
    assert_eq!(machine.handle(Millis(0), UpdateEvent::Attached(true)), []);
    let event = UpdateEvent::Models(models(&["activity"]));
    assert_eq!(machine.handle(Millis(0), event), []);
    machine
}

/// Up to the moment at which the process is handed over; gives what was written.
fn brought(machine: &mut Updater, order: AgentOrder) -> UpdateRecord {
    let text = order.version().unwrap().to_string();
    let wanted = artefact(&text);
    let asked = machine.handle(Millis(1), UpdateEvent::Ordered(Some(order)));
    assert_eq!(asked, [UpdateEffect::Fetch(wanted)]);
    let came = machine.handle(Millis(2), UpdateEvent::Fetched(wanted));
    assert_eq!(came, [UpdateEffect::Stage(wanted)]);
    assert_eq!(machine.status().phase, Some(UpdatePhase::Fetching));
    let lies = machine.handle(Millis(3), UpdateEvent::Staged(wanted, Ok(())));
    let want = [
        UpdateEffect::Persist,
        UpdateEffect::Collect,
        UpdateEffect::Restart,
    ];
    assert_eq!(lies, want);
    machine.record().clone()
}

/// The program that a start runs, on a record that is written.
fn started(record: &mut UpdateRecord) -> Updater {
    let order = record.trial.as_ref().map(|t| t.order);
    let running = match record.choose(INSTALLED) {
        Start::Installed => None,
        Start::Confirmed(p) | Start::Trial(p) => Some(p.artefact.digest),
    };
    let order = order.map(|number| order_of(number, record));
    updater(record.clone(), running).resumed(order, BTreeSet::new())
}

fn order_of(number: u64, record: &UpdateRecord) -> AgentOrder {
    let tried = record.trial.as_ref().map(|t| t.program.version.to_string());
    order(number, tried.as_deref().unwrap_or("0.2.0"))
}

#[test]
fn versions_are_ordered_and_written_in_one_way() {
    let all = [
        "0.1.0-rc.1",
        "0.1.0-rc.2",
        "0.1.0",
        "0.2.0",
        "0.10.0",
        "1.0.0",
    ];
    for pair in all.windows(2) {
        assert!(version(pair[0]) < version(pair[1]), "{pair:?}");
        assert_eq!(version(pair[0]).to_string(), pair[0]);
    }
    let long = format!("1.0.0-{}", "a".repeat(60));
    for bad in [
        "", "1", "1.0", "1.0.0.0", "01.0.0", "1.0.0-", "1.0.0-A", "v1.0.0", "+1.0.0", "1..0", &long,
    ] {
        assert!(bad.parse::<AgentVersion>().is_err(), "{bad}");
    }
}

#[test]
fn a_release_that_attaches_and_serves_is_confirmed() {
    let mut record = brought(&mut at_rest(), order(1, "0.2.0"));
    assert_eq!(record.trial.as_ref().unwrap().starts, 0);
    let mut tried = started(&mut record);
    assert_eq!(record.trial.as_ref().unwrap().starts, 1, "counted before");
    assert_eq!(tried.status().phase, Some(UpdatePhase::Trying));
    assert_eq!(tried.status().running, "0.2.0");
    // Attached is not enough: what served before shall serve again.
    assert_eq!(tried.handle(Millis(0), UpdateEvent::Attached(true)), []);
    let event = UpdateEvent::Models(models(&[]));
    assert_eq!(tried.handle(Millis(1), event), []);
    let event = UpdateEvent::Models(models(&["activity"]));
    let done = tried.handle(Millis(2), event);
    assert_eq!(done, [UpdateEffect::Persist, UpdateEffect::Collect]);
    assert_eq!(tried.status().phase, Some(UpdatePhase::Confirmed));
    assert!(!tried.status().installed);
    let mut record = tried.record().clone();
    assert!(matches!(record.choose(INSTALLED), Start::Confirmed(_)));
}

#[test]
fn one_that_does_not_attach_in_time_falls_back_and_is_left_alone() {
    let mut record = brought(&mut at_rest(), order(1, "0.2.0"));
    let mut tried = started(&mut record);
    let event = UpdateEvent::Models(models(&["activity"]));
    assert_eq!(tried.handle(Millis(0), event), []);
    let end = Millis(0).plus(DEADLINE);
    assert_eq!(tried.next_deadline(), Some(end));
    assert_eq!(tried.handle(Millis(end.0 - 1), UpdateEvent::Tick), []);
    let over = tried.handle(end, UpdateEvent::Tick);
    assert_eq!(over, [UpdateEffect::Persist, UpdateEffect::Restart]);
    let record = tried.record().clone();
    let why = &record.settled.as_ref().unwrap().why;
    assert!(
        why.contains("did not attach to the controller within 120 s"),
        "{why}"
    );

    let mut back = updater(record, None).resumed(Some(order(1, "0.2.0")), BTreeSet::new());
    assert_eq!(back.handle(Millis(0), UpdateEvent::Attached(true)), []);
    let event = UpdateEvent::Models(models(&["activity"]));
    assert_eq!(back.handle(Millis(0), event), []);
    assert_eq!(back.status().phase, Some(UpdatePhase::FellBack));
    assert_eq!(back.status().running, INSTALLED);
    // Until the operator asks again.
    let again = back.handle(Millis(9), UpdateEvent::Ordered(Some(order(2, "0.2.0"))));
    assert_eq!(again, [UpdateEffect::Fetch(artefact("0.2.0"))]);
}

#[test]
fn one_whose_models_do_not_serve_falls_back() {
    let mut record = brought(&mut at_rest(), order(1, "0.2.0"));
    let mut tried = started(&mut record);
    tried.handle(Millis(0), UpdateEvent::Attached(true));
    tried.handle(Millis(0), UpdateEvent::Models(models(&[])));
    let over = tried.handle(Millis(0).plus(DEADLINE), UpdateEvent::Tick);
    assert_eq!(over, [UpdateEffect::Persist, UpdateEffect::Restart]);
    let why = tried.record().settled.clone().unwrap().why;
    assert!(
        why.contains("activity did not serve again within 120 s"),
        "{why}"
    );
}

#[test]
fn one_that_dies_again_and_again_uses_its_starts_up() {
    let mut record = brought(&mut at_rest(), order(1, "0.2.0"));
    for _ in 0..MAX_TRIAL_STARTS {
        assert!(matches!(record.choose(INSTALLED), Start::Trial(_)));
    }
    assert_eq!(record.choose(INSTALLED), Start::Installed);
    let settled = record.settled.clone().unwrap();
    assert_eq!((settled.order, settled.outcome), (1, Outcome::FellBack));
    assert!(settled.why.contains("started 3 times"), "{}", settled.why);
    assert_eq!(record.choose(INSTALLED), Start::Installed);
}

#[test]
fn one_that_cannot_be_started_falls_back_to_the_release_before() {
    let mut record = brought(&mut at_rest(), order(1, "0.2.0"));
    let mut first = started(&mut record);
    first.handle(Millis(0), UpdateEvent::Attached(true));
    first.handle(Millis(0), UpdateEvent::Models(models(&["activity"])));
    let mut record = brought(&mut first, order(2, "0.3.0"));
    let choice = record.choose(INSTALLED);
    assert!(matches!(&choice, Start::Trial(p) if p.version == version("0.3.0")));
    record.could_not_start(&choice, "Exec format error");
    let choice = record.choose(INSTALLED);
    assert!(matches!(&choice, Start::Confirmed(p) if p.version == version("0.2.0")));
    let settled = record.settled.clone().unwrap();
    assert_eq!((settled.order, settled.outcome), (2, Outcome::FellBack));
    // And when that one is damaged as well, the installed program runs.
    record.could_not_start(&choice, "it is damaged");
    assert_eq!(record.choose(INSTALLED), Start::Installed);
    assert!(record.settled.unwrap().why.contains("it is damaged"));
}

#[test]
fn a_confirmed_release_that_ends_at_every_start_gives_way() {
    let mut record = brought(&mut at_rest(), order(1, "0.2.0"));
    let mut tried = started(&mut record);
    tried.handle(Millis(0), UpdateEvent::Attached(true));
    tried.handle(Millis(0), UpdateEvent::Models(models(&["activity"])));
    let mut record = tried.record().clone();
    for _ in 1..MAX_STARTS {
        assert!(matches!(record.choose(INSTALLED), Start::Confirmed(_)));
    }
    // One that lives for a while counts anew, also without a controller.
    let digest = artefact("0.2.0").digest;
    let mut lives = updater(record.clone(), Some(digest));
    assert_eq!(lives.handle(Millis(5), UpdateEvent::Tick), []);
    let settles = Millis(5).plus(SETTLED_AFTER);
    assert_eq!(lives.next_deadline(), Some(settles));
    let done = lives.handle(settles, UpdateEvent::Tick);
    assert_eq!(done, [UpdateEffect::Persist]);
    assert_eq!(lives.record().starts, 0);
    assert!(matches!(record.choose(INSTALLED), Start::Confirmed(_)));
    assert_eq!(record.choose(INSTALLED), Start::Installed);
}

#[test]
fn what_is_no_release_for_this_device_is_refused_with_the_reason() {
    let foreign = |r: &mut AgentRelease| {
        let found = r.binaries.remove(&Arch::Aarch64).unwrap();
        r.binaries.insert(Arch::X86_64, found);
    };
    let large = |r: &mut AgentRelease| {
        let of = r.binaries.get_mut(&Arch::Aarch64).unwrap();
        of.size_bytes = MAX_AGENT_BYTES + 1;
    };
    type Spoil<'a> = &'a dyn Fn(&mut AgentRelease);
    let cases: [(Spoil<'_>, &str); 2] = [
        (&foreign, "no program for aarch64"),
        (&large, "at most 67108864"),
    ];
    for (spoil, want) in cases {
        let mut bad = release("0.2.0");
        spoil(&mut bad);
        let bad = AgentOrder {
            number: 1,
            release: Some(bad),
        };
        let mut machine = at_rest();
        let done = machine.handle(Millis(1), UpdateEvent::Ordered(Some(bad)));
        assert_eq!(done, [UpdateEffect::Persist, UpdateEffect::Collect]);
        let status = machine.status();
        assert_eq!(status.phase, Some(UpdatePhase::Refused));
        assert!(status.why.as_ref().unwrap().contains(want), "{status:?}");
    }
    // What is found out when it is there: another architecture in the file itself.
    let mut machine = at_rest();
    let wanted = artefact("0.2.0");
    machine.handle(Millis(1), UpdateEvent::Ordered(Some(order(1, "0.2.0"))));
    machine.handle(Millis(1), UpdateEvent::Fetched(wanted));
    let failure = StageFailure::Unfit("it was built for arm and this device is aarch64".into());
    machine.handle(Millis(1), UpdateEvent::Staged(wanted, Err(failure)));
    assert_eq!(machine.status().phase, Some(UpdatePhase::Refused));
    // A device whose owner does not want this.
    let mut machine = at_rest().with(false, DEADLINE);
    machine.handle(Millis(1), UpdateEvent::Ordered(Some(order(1, "0.2.0"))));
    assert!(machine.status().why.unwrap().contains("accept = false"));
}

#[test]
fn nobody_goes_below_the_floor_and_above_it_an_operator_may_go_back() {
    let mut newer = release("0.3.0");
    newer.oldest = Some(version("0.2.0"));
    let newer = AgentOrder {
        number: 1,
        release: Some(newer),
    };
    let mut record = brought(&mut at_rest(), newer);
    assert_eq!(record.floor, None, "what is on trial raises nothing");
    let mut tried = started(&mut record);
    tried.handle(Millis(0), UpdateEvent::Attached(true));
    tried.handle(Millis(0), UpdateEvent::Models(models(&["activity"])));
    assert_eq!(tried.record().floor, Some(version("0.2.0")));
    tried.handle(Millis(1), UpdateEvent::Ordered(Some(order(2, "0.1.9"))));
    let why = tried.status().why.unwrap();
    assert!(why.starts_with("0.1.9 is older than 0.2.0"), "{why}");
    // Nor to the installed program, which is older still.
    let installed = AgentOrder {
        number: 3,
        release: None,
    };
    tried.handle(Millis(1), UpdateEvent::Ordered(Some(installed)));
    let why = tried.status().why.unwrap();
    assert!(why.starts_with("0.1.0 is older than 0.2.0"), "{why}");
    let back = tried.handle(Millis(1), UpdateEvent::Ordered(Some(order(4, "0.2.0"))));
    assert_eq!(back, [UpdateEffect::Fetch(artefact("0.2.0"))]);
}

#[test]
fn an_operator_goes_back_to_the_installed_program() {
    let mut record = brought(&mut at_rest(), order(1, "0.2.0"));
    let mut tried = started(&mut record);
    tried.handle(Millis(0), UpdateEvent::Attached(true));
    tried.handle(Millis(0), UpdateEvent::Models(models(&["activity"])));
    let installed = AgentOrder {
        number: 2,
        release: None,
    };
    let done = tried.handle(Millis(1), UpdateEvent::Ordered(Some(installed.clone())));
    assert_eq!(done, [UpdateEffect::Persist, UpdateEffect::Restart]);
    let mut record = tried.record().clone();
    assert_eq!(record.choose(INSTALLED), Start::Installed);
    let mut back = updater(record, None).resumed(Some(installed), BTreeSet::new());
    assert_eq!(back.handle(Millis(0), UpdateEvent::Tick), []);
    assert_eq!(back.status().phase, Some(UpdatePhase::Confirmed));
}

#[test]
fn a_program_that_somebody_installs_takes_over() {
    let mut record = brought(&mut at_rest(), order(1, "0.2.0"));
    let mut tried = started(&mut record);
    tried.handle(Millis(0), UpdateEvent::Attached(true));
    tried.handle(Millis(0), UpdateEvent::Models(models(&["activity"])));
    let mut record = tried.record().clone();
    assert_eq!(record.choose("0.1.1"), Start::Installed);
    let settled = record.settled.clone().unwrap();
    assert_eq!((settled.order, settled.outcome), (1, Outcome::Replaced));
    assert_eq!(record.choose("0.1.1"), Start::Installed);
}

#[test]
fn a_disk_that_is_full_is_tried_again_and_a_new_order_stops_the_old() {
    let mut machine = at_rest();
    let wanted = artefact("0.2.0");
    machine.handle(Millis(0), UpdateEvent::Ordered(Some(order(1, "0.2.0"))));
    let failed = UpdateEvent::FetchFailed(wanted, "no room".into());
    assert_eq!(machine.handle(Millis(0), failed), []);
    assert_eq!(machine.status().phase, Some(UpdatePhase::Fetching));
    assert_eq!(machine.status().why.as_deref(), Some("no room"));
    let at = machine.next_deadline().unwrap();
    assert_eq!(machine.handle(Millis(at.0 - 1), UpdateEvent::Tick), []);
    let again = machine.handle(at, UpdateEvent::Tick);
    assert_eq!(again, [UpdateEffect::Fetch(wanted)]);
    let other = artefact("0.3.0");
    let effects = machine.handle(at, UpdateEvent::Ordered(Some(order(2, "0.3.0"))));
    let want = [UpdateEffect::StopFetch(wanted), UpdateEffect::Fetch(other)];
    assert_eq!(effects, want);
    // The answer that still comes is to a question that nobody asks any more.
    assert_eq!(machine.handle(at, UpdateEvent::Fetched(wanted)), []);
    assert_eq!(machine.needed_in_depot(), Some(other.digest));
}

#[test]
fn it_waits_for_a_good_moment() {
    let mut machine = at_rest();
    let wanted = artefact("0.2.0");
    let busy = Models {
        busy: true,
        ..models(&["activity"])
    };
    machine.handle(Millis(0), UpdateEvent::Models(busy));
    machine.handle(Millis(0), UpdateEvent::Ordered(Some(order(1, "0.2.0"))));
    machine.handle(Millis(0), UpdateEvent::Fetched(wanted));
    let lies = machine.handle(Millis(0), UpdateEvent::Staged(wanted, Ok(())));
    assert_eq!(lies, [UpdateEffect::Collect]);
    assert_eq!(machine.status().phase, Some(UpdatePhase::Staged));
    // Without a controller nothing could be shown.
    machine.handle(Millis(1), UpdateEvent::Attached(false));
    let event = UpdateEvent::Models(models(&["activity"]));
    assert_eq!(machine.handle(Millis(1), event), []);
    let done = machine.handle(Millis(2), UpdateEvent::Attached(true));
    assert_eq!(done, [UpdateEffect::Persist, UpdateEffect::Restart]);
    // Nothing follows a restart.
    assert_eq!(machine.handle(Millis(3), UpdateEvent::Tick), []);
}
