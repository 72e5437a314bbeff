//! What a power cut can leave on a disk. The model is worse than ext4, and as bad as POSIX lets a
//! file system be whose renames are atomic:
//!
//! - What was written to a file since its last sync is, write by write and in any order, there, not
//!   there, there in its first or its second half only, or as zeros of the right length. A file
//!   that was emptied to be written anew is emptied or not.
//! - Names that were made, renamed or removed since the last sync of their directory are changed or
//!   not, in any order in which a change that needs another one comes after it. A directory whose
//!   own name is lost is lost with everything in it.
//! - Syncing a file makes its content durable, not its name. Syncing a directory makes its names
//!   durable, not the content of its files.
//! - A rename within a directory happens whole or not at all. Between two directories the new name
//!   may come without the old one going, never the other way round.
//!
//! Assumed: what was synced stays, a sync that succeeded did sync, bytes that were not written to do
//! not change. Disks that lie about syncs are outside of it. So is rot, which other tests hold.

use crate::memory::{Tree, write};
use crate::recorder::Op;
use sandpiper_transport::fsio::How;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

type Node = u64;

/// A change of names that happens whole or not at all.
#[derive(Debug, Clone)]
struct Change {
    number: u64,
    /// The directory that is made.
    makes: Option<PathBuf>,
    /// Names, and what they name from then on.
    names: Vec<(PathBuf, Option<Node>)>,
    /// The change that has to be there before this one.
    needs: Option<u64>,
}

impl Change {
    fn paths(&self) -> impl Iterator<Item = &PathBuf> {
        self.makes.iter().chain(self.names.iter().map(|(p, _)| p))
    }

    fn is_in(&self, dir: &Path) -> bool {
        self.paths().any(|p| p.parent() == Some(dir))
    }

    fn apply(&self, dirs: &mut BTreeSet<PathBuf>, names: &mut BTreeMap<PathBuf, Node>) {
        dirs.extend(self.makes.clone());
        for (path, node) in &self.names {
            match node {
                Some(node) => names.insert(path.clone(), *node),
                None => names.remove(path),
            };
        }
    }
}

#[derive(Debug, Clone)]
enum Write {
    Empty,
    At(u64, Arc<[u8]>),
}

/// What became of one write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fate {
    Kept,
    Lost,
    Zeros,
    Head,
    Tail,
}

const FATES: [Fate; 5] = [Fate::Kept, Fate::Lost, Fate::Zeros, Fate::Head, Fate::Tail];

#[derive(Debug, Clone, Default)]
struct File {
    durable: Arc<Vec<u8>>,
    since: Vec<Write>,
    /// Rises with every sync.
    age: u64,
}

impl File {
    fn after(&self, fates: &[Fate]) -> Arc<Vec<u8>> {
        if self.since.is_empty() {
            return self.durable.clone();
        }
        let mut content = self.durable.as_ref().clone();
        for (made, fate) in self.since.iter().zip(fates) {
            let (offset, bytes) = match made {
                Write::Empty if *fate == Fate::Lost => continue,
                Write::Empty => {
                    content.clear();
                    continue;
                }
                Write::At(offset, bytes) => (*offset, bytes),
            };
            let half = bytes.len() / 2;
            match fate {
                Fate::Lost => {}
                Fate::Kept => write(&mut content, bytes, offset),
                Fate::Zeros => write(&mut content, &vec![0; bytes.len()], offset),
                Fate::Head => write(&mut content, &bytes[..half], offset),
                Fate::Tail => write(&mut content, &bytes[half..], offset + half as u64),
            }
        }
        Arc::new(content)
    }
}

/// A generator of numbers that a seed determines.
#[derive(Debug, Clone)]
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % bound as u64).unwrap()
    }
}

/// A disk while operations are done to it: what is durable, and what may be lost.
#[derive(Debug, Clone, Default)]
pub(crate) struct Model {
    dirs: BTreeSet<PathBuf>,
    names: BTreeMap<PathBuf, Node>,
    changes: Vec<Change>,
    files: BTreeMap<Node, File>,
    handles: BTreeMap<u64, Node>,
    next: u64,
}

impl Model {
    /// A disk on which all this is durable.
    pub(crate) fn of(tree: &Tree) -> Self {
        let mut model = Self {
            dirs: tree.dirs.clone(),
            ..Self::default()
        };
        for (path, bytes) in &tree.files {
            let node = model.number();
            model.names.insert(path.clone(), node);
            let durable = bytes.clone();
            let file = File {
                durable,
                ..File::default()
            };
            model.files.insert(node, file);
        }
        model
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn change(&mut self, names: Vec<(PathBuf, Option<Node>)>, needs: Option<u64>) -> u64 {
        let number = self.number();
        self.changes.push(Change {
            number,
            makes: None,
            names,
            needs,
        });
        number
    }

    /// What programs see: everything kept.
    fn seen(&self) -> BTreeMap<PathBuf, Node> {
        let (mut dirs, mut names) = (self.dirs.clone(), self.names.clone());
        for change in &self.changes {
            change.apply(&mut dirs, &mut names);
        }
        names
    }

    /// The content of a file as programs see it.
    pub(crate) fn content(&self, path: &Path) -> Option<Arc<Vec<u8>>> {
        let file = &self.files[self.seen().get(path)?];
        Some(file.after(&vec![Fate::Kept; file.since.len()]))
    }

    /// Does an operation.
    pub(crate) fn apply(&mut self, op: &Op) {
        match op {
            Op::MakeDir(dir) => {
                let number = self.number();
                self.changes.push(Change {
                    number,
                    makes: Some(dir.clone()),
                    names: Vec::new(),
                    needs: None,
                });
            }
            Op::Open { path, how, handle } => {
                let node = match self.seen().get(path) {
                    Some(node) => *node,
                    None => {
                        let node = self.number();
                        self.files.insert(node, File::default());
                        self.change(vec![(path.clone(), Some(node))], None);
                        node
                    }
                };
                self.handles.insert(*handle, node);
                if matches!(how, How::Replace { .. }) {
                    self.file(*handle).since.push(Write::Empty);
                }
            }
            Op::Write {
                handle,
                offset,
                bytes,
            } => {
                let made = Write::At(*offset, bytes.clone());
                self.file(*handle).since.push(made);
            }
            Op::Sync(handle) => {
                let file = self.file(*handle);
                file.durable = file.after(&vec![Fate::Kept; file.since.len()]);
                file.since.clear();
                file.age += 1;
            }
            Op::Rename(from, to) => {
                let node = self.seen()[from];
                let (gone, named) = ((from.clone(), None), (to.clone(), Some(node)));
                if from.parent() == to.parent() {
                    self.change(vec![gone, named], None);
                } else {
                    let first = self.change(vec![named], None);
                    self.change(vec![gone], Some(first));
                }
            }
            Op::Remove(path) => {
                self.change(vec![(path.clone(), None)], None);
            }
            Op::SyncDir(dir) => self.sync_dir(dir),
        }
    }

    fn file(&mut self, handle: u64) -> &mut File {
        self.files.get_mut(&self.handles[&handle]).unwrap()
    }

    fn sync_dir(&mut self, dir: &Path) {
        let mut durable: BTreeSet<usize> = BTreeSet::new();
        for (at, change) in self.changes.iter().enumerate() {
            if change.is_in(dir) {
                durable.insert(at);
            }
        }
        let first: Vec<usize> = durable.iter().copied().collect();
        for at in first {
            self.with_needs(at, &mut durable);
        }
        let changes = std::mem::take(&mut self.changes);
        for (at, change) in changes.into_iter().enumerate() {
            if durable.contains(&at) {
                change.apply(&mut self.dirs, &mut self.names);
            } else {
                self.changes.push(change);
            }
        }
    }

    /// Adds everything that has to be there before a change, but directories.
    fn with_needs(&self, at: usize, all: &mut BTreeSet<usize>) {
        all.insert(at);
        for before in 0..at {
            if !all.contains(&before) && self.is_needed(before, at) {
                self.with_needs(before, all);
            }
        }
    }

    fn is_needed(&self, before: usize, at: usize) -> bool {
        let (before, change) = (&self.changes[before], &self.changes[at]);
        let shares =
            before.makes.is_none() && before.paths().any(|p| change.paths().any(|q| p == q));
        shares || change.needs == Some(before.number)
    }

    /// Sets of changes that may be there together, `cap` of them at most, the empty and the full
    /// one among them.
    fn subsets(&self, cap: usize, dice: &mut Dice) -> Vec<BTreeSet<usize>> {
        let count = self.changes.len();
        let full: BTreeSet<usize> = (0..count).collect();
        let mut found = BTreeSet::from([BTreeSet::new(), full]);
        if count < 12 {
            for mask in 0_usize..1 << count {
                let mut all = BTreeSet::new();
                for at in (0..count).filter(|at| mask >> at & 1 == 1) {
                    self.with_needs(at, &mut all);
                }
                found.insert(all);
            }
        } else {
            for _ in 0..4 * cap {
                let mut all = BTreeSet::new();
                let share = 1 + dice.below(4);
                for at in 0..count {
                    if dice.below(5) < share {
                        self.with_needs(at, &mut all);
                    }
                }
                found.insert(all);
            }
        }
        let mut found: Vec<_> = found.into_iter().collect();
        while found.len() > cap.max(2) {
            // The first is empty; the full one is found by its size.
            let at = 1 + dice.below(found.len() - 1);
            if found[at].len() < count {
                found.swap_remove(at);
            }
        }
        found
    }

    /// What a power cut at this moment can leave: everything where that is `cap` at most, else a
    /// choice of so many, with nothing kept and everything kept among them.
    pub(crate) fn states(&self, cap: usize, dice: &mut Dice) -> Vec<Tree> {
        let (mut seen, mut states) = (BTreeSet::new(), Vec::new());
        for kept in self.subsets(cap, dice) {
            let (mut dirs, mut names) = (self.dirs.clone(), self.names.clone());
            for at in &kept {
                self.changes[*at].apply(&mut dirs, &mut names);
            }
            let home = |path: &Path, dirs: &BTreeSet<PathBuf>| {
                let parent = path.parent().unwrap();
                parent.as_os_str().is_empty() || dirs.contains(parent)
            };
            names.retain(|path, _| home(path, &dirs));
            let open: Vec<Node> = {
                let nodes: BTreeSet<Node> = names.values().copied().collect();
                let open = |n: &Node| !self.files[n].since.is_empty();
                nodes.into_iter().filter(open).collect()
            };
            for fates in self.fates(&open, cap, dice) {
                let mut contents = BTreeMap::new();
                let mut rest = fates.as_slice();
                for node in &open {
                    let (own, others) = rest.split_at(self.files[node].since.len());
                    contents.insert(*node, self.files[node].after(own));
                    rest = others;
                }
                let key: Vec<_> = names
                    .iter()
                    .map(|(path, node)| {
                        let digest = contents.get(node).map(|c| *blake3::hash(c).as_bytes());
                        (path.clone(), *node, self.files[node].age, digest)
                    })
                    .collect();
                if !seen.insert((dirs.clone(), key)) {
                    continue;
                }
                let content = |node: &Node| match contents.get(node) {
                    Some(content) => content.clone(),
                    None => self.files[node].durable.clone(),
                };
                let files = names.iter().map(|(p, n)| (p.clone(), content(n)));
                states.push(Tree {
                    dirs: dirs.clone(),
                    files: files.collect(),
                });
            }
        }
        while states.len() > cap.max(2) {
            let at = dice.below(states.len());
            states.swap_remove(at);
        }
        states
    }

    /// Fates of all writes to these files, one list for each way that it may have gone.
    fn fates(&self, open: &[Node], cap: usize, dice: &mut Dice) -> Vec<Vec<Fate>> {
        let count: usize = open.iter().map(|n| self.files[n].since.len()).sum();
        let all = FATES.len().checked_pow(u32::try_from(count).unwrap());
        if let Some(all) = all.filter(|all| *all <= cap) {
            let of = |mut code: usize| {
                let mut one = Vec::with_capacity(count);
                for _ in 0..count {
                    one.push(FATES[code % FATES.len()]);
                    code /= FATES.len();
                }
                one
            };
            return (0..all).map(of).collect();
        }
        let mut lists = vec![vec![Fate::Kept; count], vec![Fate::Lost; count]];
        lists.push(vec![Fate::Zeros; count]);
        // One that goes another way than the others.
        for at in 0..count {
            for fate in FATES {
                for others in [Fate::Kept, Fate::Lost] {
                    let mut one = vec![others; count];
                    one[at] = fate;
                    lists.push(one);
                }
            }
        }
        for _ in 0..cap {
            let one = (0..count).map(|_| FATES[dice.below(FATES.len())]);
            lists.push(one.collect());
        }
        lists
    }
}
