//! What the depot keeps over cuts, damage and garbage collection.
#![allow(clippy::unwrap_used)]

use super::*;

fn artefact(n: usize) -> (Vec<u8>, ChunkTree) {
    let bytes: Vec<u8> = (0..n).map(|i| (i * 7 % 251) as u8).collect();
    let tree = ChunkTree::of(&bytes);
    (bytes, tree)
}

fn chunk(bytes: &[u8], index: usize) -> &[u8] {
    bytes.chunks(CHUNK_BYTES).nth(index).unwrap()
}

fn files(depot: &Depot, dir: &str) -> usize {
    std::fs::read_dir(depot.root().join(dir)).unwrap().count()
}

#[test]
fn a_cut_download_goes_on_after_its_last_whole_chunk() {
    let dir = tempfile::tempdir().unwrap();
    let depot = Depot::open(dir.path()).unwrap();
    let (bytes, tree) = artefact(3 * CHUNK_BYTES + 100);
    let reference = tree.artefact();
    assert!(depot.resume(reference).unwrap().is_none());
    let mut partial = depot.begin(tree).unwrap();
    partial.put(0, chunk(&bytes, 0)).unwrap();
    partial.put(1, chunk(&bytes, 1)).unwrap();
    drop(partial);
    // Killed in the middle of the third chunk: a torn tail.
    let path = depot.partial_path(reference.digest);
    let mut torn = std::fs::read(&path).unwrap();
    torn.extend(&chunk(&bytes, 2)[..CHUNK_BYTES - 1]);
    std::fs::write(&path, &torn).unwrap();
    let depot = Depot::open(dir.path()).unwrap();
    let mut partial = depot.resume(reference).unwrap().unwrap();
    assert_eq!((partial.first_missing(), partial.kept()), (2, 2));
    partial.put(2, chunk(&bytes, 2)).unwrap();
    drop(partial);
    // Power is cut: the last chunk has its length but not its content.
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(bytes.len() as u64).unwrap();
    let mut partial = depot.resume(reference).unwrap().unwrap();
    assert_eq!((partial.first_missing(), partial.is_complete()), (3, false));
    assert!(!depot.has(reference));
    partial.put(3, chunk(&bytes, 3)).unwrap();
    depot.commit(partial).unwrap();
    assert!(depot.has(reference));
    depot.verify(reference).unwrap();
    assert_eq!(files(&depot, "partial"), 0);
}

#[test]
fn only_the_damaged_chunk_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let depot = Depot::open(dir.path()).unwrap();
    let (bytes, tree) = artefact(4 * CHUNK_BYTES);
    let reference = tree.artefact();
    let mut partial = depot.begin(tree).unwrap();
    for index in 0..4 {
        assert!(partial.put(index, &[0; 10]).is_err());
        partial.put(index, chunk(&bytes, index)).unwrap();
    }
    drop(partial);
    let path = depot.partial_path(reference.digest);
    let mut damaged = std::fs::read(&path).unwrap();
    damaged[CHUNK_BYTES + 5] ^= 1;
    std::fs::write(&path, &damaged).unwrap();
    let mut partial = depot.resume(reference).unwrap().unwrap();
    assert_eq!((partial.first_missing(), partial.kept()), (1, 3));
    assert!(!partial.is_missing(2) && !partial.is_missing(4));
    partial.put(1, chunk(&bytes, 1)).unwrap();
    depot.commit(partial).unwrap();
    depot.verify(reference).unwrap();
}

#[test]
fn a_lost_or_damaged_tree_is_asked_for_again_and_the_chunks_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let depot = Depot::open(dir.path()).unwrap();
    let (bytes, tree) = artefact(2 * CHUNK_BYTES);
    let reference = tree.artefact();
    let mut partial = depot.begin(tree.clone()).unwrap();
    partial.put(0, chunk(&bytes, 0)).unwrap();
    drop(partial);
    for damage in [&b"short"[..], &[0; 64], &[0; 65]] {
        std::fs::write(depot.tree_path(reference.digest), damage).unwrap();
        assert!(depot.resume(reference).unwrap().is_none());
    }
    assert_eq!(depot.begin(tree).unwrap().first_missing(), 1);
}

#[test]
fn a_damaged_artefact_is_noticed_and_only_garbage_is_collected() {
    let dir = tempfile::tempdir().unwrap();
    let depot = Depot::open(dir.path()).unwrap();
    let mut refs = Vec::new();
    for n in [10, 20, 30] {
        let (bytes, tree) = artefact(n);
        refs.push(tree.artefact());
        let mut partial = depot.begin(tree).unwrap();
        partial.put(0, &bytes).unwrap();
        if n < 30 {
            depot.commit(partial).unwrap();
        }
    }
    // The third one is on its way, and its tree is being written at this moment.
    let tree = depot.tree_path(refs[2].digest);
    let name = format!(".{}.tree.tmp", refs[2].digest);
    std::fs::write(tree.with_file_name(name), b"").unwrap();
    let keep = [refs[0].digest, refs[2].digest].into();
    assert_eq!(depot.collect(&keep).unwrap(), 1);
    assert!(depot.has(refs[0]) && !depot.has(refs[1]));
    assert_eq!(files(&depot, "partial"), 3);
    std::fs::write(depot.path_of(refs[0].digest), [0; 10]).unwrap();
    assert!(matches!(depot.verify(refs[0]), Err(DepotError::Corrupt(_))));
    assert!(!depot.has(refs[0]));
    assert_eq!(depot.collect(&BTreeSet::new()).unwrap(), 3);
}

#[test]
fn the_state_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let depot = Depot::open(dir.path()).unwrap();
    assert!(depot.load_state().unwrap().is_none());
    let state = DeviceState {
        installation: 7,
        ..DeviceState::default()
    };
    depot.save_state(&state).unwrap();
    assert_eq!(depot.load_state().unwrap(), Some(state));
    std::fs::write(depot.state_path(), b"{").unwrap();
    assert!(matches!(depot.load_state(), Err(DepotError::State { .. })));
}

#[test]
fn code_with_a_flipped_bit_or_a_byte_too_few_never_gets_its_path() {
    let dir = tempfile::tempdir().unwrap();
    let depot = Depot::open(dir.path()).unwrap();
    let (bytes, tree) = artefact(700);
    let reference = tree.artefact();
    let path = depot.path_of(reference.digest);
    let refused = |damaged: &[u8]| {
        std::fs::write(&path, damaged).unwrap();
        let verified = depot.verify(reference);
        assert!(matches!(verified, Err(DepotError::Corrupt(d)) if d == reference.digest));
        assert!(!path.exists(), "it is fetched anew");
    };
    for at in 0..bytes.len() {
        refused(&bytes[..at]);
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << (at % 8);
        refused(&flipped);
    }
    refused(&[bytes.as_slice(), b"x"].concat());
    std::fs::write(&path, &bytes).unwrap();
    assert_eq!(depot.verify(reference).unwrap(), path);
}
