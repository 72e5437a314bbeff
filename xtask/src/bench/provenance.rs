//! Where figures come from: without it they mean nothing.

use crate::shell;
use sandpiper_sandbox::{host_cpu_features, host_target};
use serde::Serialize;
use std::process::Command;

/// Vector extensions that decide how fast integer arithmetic is: by the names of Linux.
const EXTENSIONS: [&str; 9] = [
    "avx",
    "avx2",
    "fma",
    "avx512f",
    "avx_vnni",
    "avx512_vnni",
    "asimd",
    "asimddp",
    "i8mm",
];

/// The machine and the build.
#[derive(Debug, Serialize)]
pub(super) struct Provenance {
    pub(super) cpu: String,
    pub(super) cores: usize,
    /// Of [`EXTENSIONS`], those that this CPU has.
    pub(super) has: Vec<&'static str>,
    /// Of [`EXTENSIONS`] of this architecture, those that it lacks.
    pub(super) lacks: Vec<&'static str>,
    /// What our code is made for.
    pub(super) target: String,
    /// Load of the machine over the last minute, before the benchmark.
    pub(super) load: Option<f64>,
    pub(super) revision: Option<String>,
    /// Profile of the build that was measured.
    pub(super) build: String,
}

impl Provenance {
    /// Of this machine.
    pub(super) fn of(build: &str) -> Self {
        let features = host_cpu_features();
        let present = |name: &&str| features.contains(*name);
        let arm = |name: &str| name.starts_with("asimd") || name == "i8mm";
        let ours = EXTENSIONS
            .into_iter()
            .filter(|e| arm(e) == cfg!(target_arch = "aarch64"));
        let (has, lacks) = ours.partition(present);
        Self {
            cpu: cpu(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            has,
            lacks,
            target: host_target().to_string(),
            load: load(),
            revision: revision(),
            build: build.to_owned(),
        }
    }

    /// Two lines for people.
    pub(super) fn text(&self) -> String {
        let load = self
            .load
            .map_or_else(|| "unknown".to_owned(), |l| format!("{l:.1}"));
        let lacks = match self.lacks.join(" ") {
            none if none.is_empty() => "nothing of the list".to_owned(),
            some => some,
        };
        format!(
            "CPU {}, {} cores, with {}, without {lacks}\ncode for {}, build {}, load {load}, revision {}",
            self.cpu,
            self.cores,
            self.has.join(" "),
            self.target,
            self.build,
            self.revision.as_deref().unwrap_or("unknown"),
        )
    }
}

/// The profile that this very program was built with.
pub(super) fn own_build() -> &'static str {
    if cfg!(debug_assertions) {
        "dev"
    } else {
        "release"
    }
}

fn cpu() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let named = |line: &str| {
        let (key, value) = line.split_once(':')?;
        let key = key.trim();
        (key == "model name" || key == "Model").then(|| value.trim().to_owned())
    };
    let found = text.lines().find_map(named);
    found.unwrap_or_else(|| "unknown".to_owned())
}

fn load() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/loadavg").ok()?;
    text.split(' ').next()?.parse().ok()
}

/// Of the sources, with a mark when they were changed since.
fn revision() -> Option<String> {
    let mut git = Command::new("git");
    let output = git
        .current_dir(shell::root())
        .args(["describe", "--always", "--dirty"])
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    (output.status.success()).then(|| text.trim().to_owned())
}
