//! Files of modules, and how to run them.

use crate::common::{self, abi, bytes, infer, module, numbers};
use sandpiper_agent::runner::{Runner, RunnerSpec};
use sandpiper_core::abi::ModuleAbi;
use sandpiper_sandbox::{Limits, Origin, host_target, precompile};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A loop that nothing but a kill or an epoch ends.
pub(crate) const ENDLESS: &str = "(loop $l (br $l)) (i32.const 0)";

/// Short enough for a test that waits for it, long enough for a call that does not loop.
pub(crate) const SOON: Duration = Duration::from_secs(2);

/// Files of modules, and how to run them.
pub(crate) struct Workshop {
    dir: TempDir,
}

impl Workshop {
    pub(crate) fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Compiles a module as our own compiler's (`abi.bounded` is believed).
    pub(crate) fn spec(&self, name: &str, wat: &str, abi: &ModuleAbi) -> RunnerSpec {
        let made = precompile(&module(wat, abi), host_target(), Origin::OwnCompiler).unwrap();
        let native = self.path(name);
        std::fs::write(&native, &made.native).unwrap();
        RunnerSpec {
            exe: PathBuf::from(env!("CARGO_BIN_EXE_sandpiper-agent")),
            name: format!("test/{name}"),
            native,
            weights: None,
            limits: Limits {
                memory_bytes: made.abi.memory_bytes,
                deadline: common::PATIENT,
            },
            workers: 1,
            abi: made.abi,
            queue: 8,
            load_timeout: common::PATIENT,
        }
    }

    pub(crate) async fn start(&self, name: &str, body: &str) -> Runner {
        Runner::spawn(self.spec(name, &infer(1, body), &bounded()))
            .await
            .unwrap()
    }

    /// A program that is no runner.
    pub(crate) fn script(&self, text: &str) -> PathBuf {
        let path = self.path("script");
        std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }
}

pub(crate) fn bounded() -> ModuleAbi {
    ModuleAbi {
        bounded: true,
        ..abi(1)
    }
}

pub(crate) fn input() -> Vec<Vec<u8>> {
    vec![bytes(&[1, 2, 3, 4])]
}

pub(crate) async fn adds_one(runner: &Runner) {
    let answer = runner.infer(1, input()).await.unwrap();
    assert_eq!(numbers(&answer.outputs[0]), [2, 3, 4, 5]);
}

pub(crate) fn exists(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

/// Waits for what a process does in its own time.
pub(crate) fn eventually(what: &str, done: impl Fn() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < common::PATIENT, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
