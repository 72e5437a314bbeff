//! Power cuts between any two operations of what a device lives through, with everything that may
//! be lost then. [`crate::model`] says what that is. The agent's own start goes on from each.

use crate::device::{Running, load};
use crate::memory::{MemoryDisk, Tree};
use crate::model::{Dice, Model};
use crate::recorder::{Op, Recorder};
use crate::story::{joined, recorded};
use crate::world::{Conduct, World};
use sandpiper_agent::assemble::Kept;
use sandpiper_agent::update::VERSION;
use sandpiper_core::reconcile::DeviceState;
use sandpiper_core::update::Start;
use sandpiper_transport::fsio::{self, Disk};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::{JoinSet, LocalSet};

/// Agents at once: each waits for tasks of its own most of the time.
const AT_ONCE: usize = 8;
const STATE: &str = "state.json";
const IDENTITY: &str = "identity.json";
const UPDATE: &str = "agent/update.json";

type Bytes = Option<Arc<Vec<u8>>>;

/// What a file may hold after a cut: what was made durable last, or something newer.
#[derive(Debug, Clone, Default)]
struct OneOf {
    durable: Bytes,
    newer: Vec<Bytes>,
}

impl OneOf {
    fn allows(&self, found: Option<&Arc<Vec<u8>>>) -> bool {
        let same = |b: &Bytes| b.as_ref() == found;
        same(&self.durable) || self.newer.iter().any(same)
    }

    /// Follows the file over one operation, which the model has done.
    fn follow(&mut self, name: &str, op: &Op, model: &Model) {
        match op {
            Op::Rename(_, to) if to == Path::new(name) => {
                self.newer.push(model.content(to));
            }
            Op::SyncDir(dir) if Some(dir.as_path()) == Path::new(name).parent() => {
                if let Some(newest) = self.newer.pop() {
                    self.durable = newest;
                    self.newer.clear();
                }
            }
            _ => {}
        }
    }
}

/// What must hold after a cut at some moment.
#[derive(Debug, Clone, Default)]
struct Promise {
    state: OneOf,
    identity: OneOf,
    /// Starts of a program on trial and what it came to.
    update: OneOf,
    /// Numbers of windows that were given their place for good, and not forgotten since.
    windows: BTreeSet<u64>,
    /// The highest number ever given for good.
    highest: u64,
    /// Named, and not durable yet.
    naming: BTreeSet<u64>,
}

fn window(path: &Path) -> Option<u64> {
    let inside = path.parent() == Some(Path::new("telemetry"));
    path.file_stem()?.to_str()?.parse().ok().filter(|_| inside)
}

impl Promise {
    fn follow(&mut self, op: &Op, model: &Model) {
        self.state.follow(STATE, op, model);
        self.identity.follow(IDENTITY, op, model);
        self.update.follow(UPDATE, op, model);
        match op {
            Op::Rename(_, to) => self.naming.extend(window(to)),
            Op::SyncDir(dir) if dir == Path::new("telemetry") => {
                self.windows.append(&mut self.naming);
                self.highest = self.highest.max(self.windows.last().copied().unwrap_or(0));
            }
            Op::Remove(path) => {
                if let Some(number) = window(path) {
                    self.windows.remove(&number);
                }
            }
            _ => {}
        }
    }
}

fn parsed(bytes: &Arc<Vec<u8>>) -> DeviceState {
    serde_json::from_slice(bytes).unwrap()
}

/// Starts an agent on what a cut left and checks everything that was promised. Gives what it did
/// to the disk.
async fn recovers(
    world: &World,
    disk: Arc<dyn Disk>,
    root: &Path,
    tree: &Tree,
    promise: &Promise,
    online: bool,
) -> Result<(), String> {
    let found = tree.files.get(Path::new(IDENTITY));
    if !promise.identity.allows(found) {
        return Err("the identity is neither the old nor the new one".into());
    }
    let mut kept = match load(&disk, root) {
        Ok(kept) => kept,
        Err(_) if found.is_none() => return Ok(()), // Not joined: it can be repeated.
        Err(error) => return Err(error),
    };
    let found = tree.files.get(Path::new(STATE));
    if !promise.state.allows(found) {
        return Err("the state is neither the old nor the new one".into());
    }
    // The floor of trust: what was durable is not forgotten.
    let floor = promise.state.durable.as_ref().map(parsed);
    let floor = floor.map_or(0, |s| s.generation.0);
    if kept.state.generation.0 < floor {
        return Err(format!(
            "generation {} after {floor}",
            kept.state.generation.0
        ));
    }
    let windows: BTreeSet<u64> = kept
        .ring
        .pending(0, 1000)
        .iter()
        .map(|w| w.sequence)
        .collect();
    if let Some(lost) = promise.windows.difference(&windows).next() {
        return Err(format!("window {lost} is lost"));
    }
    let expected = found.map(parsed).unwrap_or_default();
    if !promise.update.allows(tree.files.get(Path::new(UPDATE))) {
        return Err("what is known of updates is neither the old nor the new".into());
    }
    choose(&mut kept)?;
    let agent = Running::start(world, &disk, root, kept);
    let result = serving(world, &agent, &expected).await;
    let result = match result {
        Ok(()) if online => newest(world, &agent, promise.highest).await,
        other => other,
    };
    let wrong = agent.bench.wrong();
    agent.stop().await;
    result?;
    match wrong.first() {
        Some(what) => Err(format!("a runner was given {what}")),
        None => Ok(()),
    }
}

/// As every start: what it runs is there, whole, and counted.
fn choose(kept: &mut Kept) -> Result<(), String> {
    let program = match kept.update.choose(VERSION) {
        Start::Installed => return Ok(()),
        Start::Confirmed(program) | Start::Trial(program) => program,
    };
    let saved = kept.programs.save(&kept.update);
    saved.map_err(|e| e.to_string())?;
    let there = kept.programs.verify(program.artefact);
    there.map_err(|e| format!("the program that shall run: {e}"))?;
    kept.running = Some(program.artefact.digest);
    Ok(())
}

/// The old or the new model runs, never neither.
async fn serving(world: &World, agent: &Running, state: &DeviceState) -> Result<(), String> {
    let Some(slot) = state.models.values().next() else {
        return Ok(());
    };
    let good =
        |v: &&sandpiper_core::reconcile::SlotVersion| world.conduct(v.version()) == Conduct::Good;
    // A version that dies gives way to the one before.
    let settled = slot.active.as_ref().filter(good);
    let settled = settled.or(slot.previous.as_ref().filter(good));
    let Some(settled) = settled else {
        return Ok(()); // Nothing has ever served.
    };
    let served = agent.serves(world).await?;
    let pending = slot.pending.as_ref().map(|v| v.version());
    let version = &served.by.version;
    if version != settled.version() && Some(version) != pending {
        return Err(format!("{version} serves instead of {}", settled.version()));
    }
    Ok(())
}

/// With its controller back, the device comes to the newest version, and a new window gets a number
/// that none had before.
async fn newest(world: &World, agent: &Running, highest: u64) -> Result<(), String> {
    // Every fetch takes one for ever.
    world.controller.gate.add_permits(10);
    let channel = world.controller.channel().await;
    agent.channel.send_replace(Some(channel));
    agent.assign(world.assigned(9, "v5")).await;
    agent.comes_to(world, "v5").await?;
    let served = agent.serves(world).await?;
    let window = served.take_tally();
    let window = window.close(
        &served.by,
        sandpiper_agent::clock::now(),
        Default::default(),
    );
    let mut ring = agent.ring.lock().unwrap();
    let number = ring.push(window).map_err(|e| e.to_string())?;
    match number > highest {
        true => Ok(()),
        false => Err(format!("number {number} was given again")),
    }
}

/// What is to be done with so many states.
#[derive(Debug, Clone, Copy)]
struct Effort {
    /// States of one moment.
    states: usize,
    /// Of all points, one in so many is cut again while it recovers.
    again: usize,
    /// One in so many gets its controller back.
    online: usize,
    /// One in so many lies on a real disk.
    real: usize,
    /// One in so many moments is taken.
    moments: usize,
    /// Which operations succeed without having been done: what a disk that lies does, and what
    /// code does that forgets them.
    lies: fn(&Op) -> bool,
    /// The first broken point is enough.
    first: bool,
}

#[derive(Debug, Default)]
struct Count {
    points: usize,
    again: usize,
    online: usize,
    real: usize,
    broken: Vec<String>,
}

impl Count {
    fn add(&mut self, other: Self) {
        self.points += other.points;
        self.again += other.again;
        self.online += other.online;
        self.real += other.real;
        self.broken.extend(other.broken);
    }
}

/// One point, and those within its recovery.
async fn point(
    world: Arc<World>,
    tree: Tree,
    promise: Promise,
    number: usize,
    effort: Effort,
    what: String,
) -> Count {
    let mut count = Count {
        points: 1,
        ..Count::default()
    };
    let one_in = |n: usize| number.is_multiple_of(n);
    let online = one_in(effort.online);
    count.online += usize::from(online);
    let result = if one_in(effort.real) {
        count.real += 1;
        let dir = tempfile::tempdir().unwrap();
        tree.make(dir.path());
        recovers(&world, fsio::system(), dir.path(), &tree, &promise, online).await
    } else {
        let root = PathBuf::from("/state");
        let memory = MemoryDisk::new(&root, tree.clone());
        let recorder = Recorder::new(Arc::new(memory), &root);
        let disk: Arc<dyn Disk> = Arc::new(recorder.clone());
        let mut result = recovers(&world, disk, &root, &tree, &promise, online).await;
        if result.is_ok() && one_in(effort.again) {
            let log = recorder.log();
            result = cut_again(&world, &tree, promise, &log, number, &mut count).await;
        }
        result
    };
    if let Err(why) = result {
        count.broken.push(format!("{what}: {why}"));
    }
    count
}

/// Cuts a recovery too: whoever went back goes back again.
async fn cut_again(
    world: &World,
    tree: &Tree,
    mut promise: Promise,
    log: &[Op],
    number: usize,
    count: &mut Count,
) -> Result<(), String> {
    let mut dice = Dice(number as u64);
    let mut model = Model::of(tree);
    promise.naming.clear();
    // What was found is what a cut during the recovery must not lose.
    for (one_of, name) in [
        (&mut promise.state, STATE),
        (&mut promise.identity, IDENTITY),
        (&mut promise.update, UPDATE),
    ] {
        one_of.durable = tree.files.get(Path::new(name)).cloned();
        one_of.newer.clear();
    }
    for op in log {
        model.apply(op);
        promise.follow(op, &model);
        for tree in model.states(2, &mut dice) {
            count.points += 1;
            count.again += 1;
            let root = PathBuf::from("/state");
            let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::new(&root, tree.clone()));
            recovers(world, disk, &root, &tree, &promise, false)
                .await
                .map_err(|why| format!("cut again after {}: {why}", op.name()))?;
        }
    }
    Ok(())
}

async fn all_points(effort: Effort) -> Count {
    let world = Arc::new(World::new());
    let identity = joined(&world).await;
    let log = recorded(&world, &identity).await;
    println!("{} operations were recorded", log.len());
    let (mut model, mut promise) = (Model::default(), Promise::default());
    let (mut total, mut dice, mut number) = (Count::default(), Dice(1), 0);
    let mut tasks = JoinSet::new();
    for (at, op) in log.iter().enumerate() {
        if !(effort.lies)(op) {
            model.apply(op);
        }
        promise.follow(op, &model);
        if !at.is_multiple_of(effort.moments) {
            continue;
        }
        for tree in model.states(effort.states, &mut dice) {
            number += 1;
            let what = format!("point {number}, after operation {at} ({})", op.name());
            let (world, promise) = (world.clone(), promise.clone());
            tasks.spawn_local(point(world, tree, promise, number, effort, what));
            while tasks.len() >= AT_ONCE {
                total.add(tasks.join_next().await.unwrap().unwrap());
            }
        }
        if effort.first && !total.broken.is_empty() {
            break;
        }
    }
    while let Some(done) = tasks.join_next().await {
        total.add(done.unwrap());
    }
    println!(
        "{} points of a cut: {} of them while recovering from another, {} with the controller back, \
         {} on a real disk; {} broken",
        total.points,
        total.again,
        total.online,
        total.real,
        total.broken.len()
    );
    total
}

fn honest(_: &Op) -> bool {
    false
}

fn run(effort: Effort) -> Count {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let count = LocalSet::new().block_on(&runtime, all_points(effort));
    // Threads that wait for a disk have nothing left to do.
    runtime.shutdown_timeout(Duration::from_secs(1));
    count
}

fn unbroken(effort: Effort) -> Count {
    let count = run(effort);
    let broken = &count.broken;
    let first = &broken[..broken.len().min(20)];
    assert!(broken.is_empty(), "{}", first.join("\n"));
    count
}

/// Faults 1, 2 and 3: a share of the points of `every_point`.
#[test]
fn faults_1_and_2_a_cut_at_a_share_of_all_points_leaves_the_old_or_the_new_model() {
    let count = unbroken(Effort {
        states: 3,
        again: 97,
        online: 17,
        real: 29,
        moments: 2,
        lies: honest,
        first: false,
    });
    assert!(count.points > 300, "{count:?}");
    assert!(count.again > 0 && count.online > 0 && count.real > 0);
}

/// Without the syncs that the code makes, the same points break: they can.
#[test]
fn a_forgotten_sync_is_found() {
    type Lie = (fn(&Op) -> bool, usize);
    let lies: [Lie; 4] = [
        (|op| matches!(op, Op::Sync(_)), 5),
        (
            |op| matches!(op, Op::SyncDir(dir) if dir.as_os_str().is_empty()),
            5,
        ),
        (
            |op| matches!(op, Op::SyncDir(dir) if dir == Path::new("artefacts")),
            5,
        ),
        // Few moments follow the first one.
        (
            |op| matches!(op, Op::SyncDir(dir) if dir == Path::new("agent")),
            1,
        ),
    ];
    for (lies, moments) in lies {
        let count = run(Effort {
            states: 3,
            again: usize::MAX,
            online: usize::MAX,
            real: usize::MAX,
            moments,
            lies,
            first: true,
        });
        assert!(!count.broken.is_empty(), "{count:?}");
    }
}

#[test]
#[ignore = "takes minutes: cargo xtask cuts"]
fn every_point() {
    let count = unbroken(Effort {
        states: 64,
        again: 41,
        online: 23,
        real: 101,
        moments: 1,
        lies: honest,
        first: false,
    });
    assert!(count.points >= 10_000, "{} points", count.points);
}
