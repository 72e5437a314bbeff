use super::*;
use sandpiper_core::chunks::ChunkTree;
use std::os::unix::fs::PermissionsExt as _;

/// The beginning of a program for x86-64, and more than one chunk of it.
fn program() -> Vec<u8> {
    let mut bytes = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    bytes.extend([3, 0, 62, 0]);
    bytes.resize(CHUNK_BYTES + 1000, 7);
    bytes
}

/// A depot that holds these bytes.
fn depot(dir: &Path, bytes: &[u8]) -> (Depot, ArtefactRef) {
    let depot = Depot::open(dir).unwrap();
    let artefact = ArtefactRef::of(bytes);
    let mut partial = depot.begin(ChunkTree::of(bytes)).unwrap();
    for (index, chunk) in bytes.chunks(CHUNK_BYTES).enumerate() {
        partial.put(index, chunk).unwrap();
    }
    depot.commit(partial).unwrap();
    (depot, artefact)
}

#[test]
fn a_program_lies_ready_for_its_user_alone_and_old_ones_go() {
    let dir = tempfile::tempdir().unwrap();
    let (depot, artefact) = depot(dir.path(), &program());
    let programs = Programs::of(fsio::system(), dir.path());
    assert!(programs.ready().is_empty(), "nothing is made before");
    programs.stage(&depot, artefact, Arch::X86_64).unwrap();
    let path = programs.verify(artefact).unwrap();
    let mode = path.metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    assert_eq!(std::fs::read(&path).unwrap(), program());
    assert_eq!(programs.ready(), [artefact.digest].into());
    // What a copy that was cut leaves behind is none.
    let cut = path.with_file_name(format!(".{NAME}{}.tmp", Digest::of(b"other")));
    std::fs::write(&cut, b"half").unwrap();
    assert_eq!(programs.ready(), [artefact.digest].into());
    programs.save(&UpdateRecord::default()).unwrap();
    programs.collect(&[artefact.digest].into()).unwrap();
    assert!(path.exists() && !cut.exists());
    programs.collect(&BTreeSet::new()).unwrap();
    assert!(!path.exists() && programs.record_path().exists());
}

#[test]
fn one_that_was_damaged_is_not_started() {
    let dir = tempfile::tempdir().unwrap();
    let (depot, artefact) = depot(dir.path(), &program());
    let programs = Programs::of(fsio::system(), dir.path());
    let path = programs.path_of(artefact.digest);
    let spoil: [fn(&mut Vec<u8>); 3] = [|b| b[9000] ^= 1, |b| b.truncate(5000), |b| b.push(0)];
    for spoil in spoil {
        programs.stage(&depot, artefact, Arch::X86_64).unwrap();
        let mut bytes = program();
        spoil(&mut bytes);
        std::fs::write(&path, bytes).unwrap();
        let error = programs.verify(artefact).unwrap_err();
        assert!(matches!(error, StageError::Damaged), "{error}");
        assert!(!path.exists(), "it would be taken for one that lies ready");
    }
    let error = programs.verify(artefact).unwrap_err();
    assert!(matches!(error, StageError::Io { .. }), "{error}");
}

#[test]
fn what_is_no_program_for_this_device_is_never_put_there() {
    let dir = tempfile::tempdir().unwrap();
    let programs = Programs::of(fsio::system(), dir.path());
    for (bytes, why) in [
        (
            program(),
            "it was built for x86_64 and this device is aarch64",
        ),
        (b"#!/bin/sh\n".to_vec(), "no ELF header"),
    ] {
        let (depot, artefact) = depot(dir.path(), &bytes);
        match programs.stage(&depot, artefact, Arch::Aarch64) {
            Err(StageError::Unfit(found)) => assert!(found.contains(why), "{found}"),
            other => panic!("{other:?}"),
        }
        assert!(programs.ready().is_empty());
    }
}

#[test]
fn a_record_that_cannot_be_read_lets_nothing_older_in() {
    let dir = tempfile::tempdir().unwrap();
    let programs = Programs::of(fsio::system(), dir.path());
    assert_eq!(programs.load("0.3.0"), UpdateRecord::default());
    programs.save(&UpdateRecord::default()).unwrap();
    std::fs::write(programs.record_path(), b"{ torn").unwrap();
    let floor = programs.load("0.3.0").floor;
    assert_eq!(floor, Some("0.3.0".parse().unwrap()));
}
