//! `cargo xtask conformance`: ONNX's own tests of single operators. What passed once must pass on.

use anyhow::{Context, Result, bail, ensure};
use sandpiper_conformance::backend::{Outcome, Row, run as run_test, tests};
use sandpiper_conformance::root;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// The release whose Python package carries the tests.
const ONNX: &str = "1.17.0";
/// Names of the tests that pass, one a line.
const PASSING: &str = "tests/conformance/reference/onnx-node-passing.txt";

/// Choices.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Directory with the tests (onnx/backend/test/data/node); fetched with pip if not given.
    #[arg(long)]
    data: Option<PathBuf>,
    /// Only tests whose name contains this text.
    #[arg(long, default_value = "")]
    only: String,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    /// Print each test that did not pass, and why.
    #[arg(long)]
    why: bool,
    /// Write the list of passing tests, if none is lost.
    #[arg(long)]
    update: bool,
}

/// How `cargo xtask test` ends.
pub(crate) enum Ended {
    Passed,
    Failed,
    Absent,
}

/// Runs and prints.
#[allow(clippy::print_stdout, clippy::print_stderr)]
pub(crate) fn run(args: &Args) -> ExitCode {
    match measured(args) {
        Ok((text, lost)) => {
            println!("{text}");
            lost.iter().for_each(|l| eprintln!("{l}"));
            if lost.is_empty() {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        Err(error) => {
            eprintln!("conformance was not measured: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// As a check: absent when the tests cannot be fetched.
#[allow(clippy::print_stdout, clippy::print_stderr)]
pub(crate) fn check() -> Ended {
    if let Err(error) = directory(None) {
        eprintln!("{error:#}");
        return Ended::Absent;
    }
    let args = Args {
        data: None,
        only: String::new(),
        json: false,
        why: false,
        update: false,
    };
    match run(&args) {
        ExitCode::SUCCESS => Ended::Passed,
        _ => Ended::Failed,
    }
}

/// Where the tests are, fetched once.
fn directory(given: Option<&Path>) -> Result<PathBuf> {
    if let Some(given) = given {
        return Ok(given.to_path_buf());
    }
    let home = root()
        .join("target/conformance")
        .join(format!("onnx-{ONNX}"));
    let node = home.join("onnx/backend/test/data/node");
    if node.is_dir() {
        return Ok(node);
    }
    std::fs::create_dir_all(&home)?;
    let package = format!("onnx=={ONNX}");
    // Any platform's package will do: only its data is read.
    let arguments = [
        "-m",
        "pip",
        "download",
        "--quiet",
        "--retries",
        "1",
        "--no-deps",
        "--only-binary",
        ":all:",
        "--python-version",
        "3.11",
        "--platform",
        "manylinux2014_x86_64",
        "--dest",
    ];
    let status = Command::new("python3")
        .args(arguments)
        .arg(&home)
        .arg(package)
        .status();
    let status = status.context("python3 cannot be started")?;
    ensure!(
        status.success(),
        "the Python package onnx {ONNX} cannot be fetched"
    );
    let wheel = std::fs::read_dir(&home)?
        .flatten()
        .map(|e| e.path())
        .find(|p| p.extension().is_some_and(|e| e == "whl"));
    let wheel = wheel.context("pip has left no package")?;
    let mut archive = zip::ZipArchive::new(std::fs::File::open(&wheel)?)?;
    // Unpacked aside and renamed, so that half of it is never taken for all.
    let aside = home.join("unpacked");
    archive.extract(&aside)?;
    std::fs::rename(aside.join("onnx"), home.join("onnx"))?;
    std::fs::remove_dir_all(&aside)?;
    Ok(node)
}

fn measured(args: &Args) -> Result<(String, Vec<String>)> {
    let directory = directory(args.data.as_deref())?;
    let chosen = |p: &PathBuf| p.to_string_lossy().contains(&args.only);
    let paths: Vec<PathBuf> = tests(&directory)?.into_iter().filter(chosen).collect();
    if paths.is_empty() {
        bail!(
            "there is no test whose name contains `{}` in {}",
            args.only,
            directory.display()
        );
    }
    let rows: Vec<Row> = paths.iter().map(|p| run_test(p)).collect();
    let passed: BTreeSet<&str> = rows
        .iter()
        .filter(|r| r.outcome == Outcome::Passed)
        .map(|r| r.test.as_str())
        .collect();
    let file = root().join(PASSING);
    let known = std::fs::read_to_string(&file).unwrap_or_default();
    let run: BTreeSet<&str> = rows.iter().map(|r| r.test.as_str()).collect();
    let mut lost: Vec<String> = known
        .lines()
        .filter(|n| run.contains(n) && !passed.contains(n))
        .map(|n| format!("{n} has passed before, and does not now"))
        .collect();
    for row in &rows {
        if let Outcome::Wrong(why) = &row.outcome {
            lost.push(format!("{} is wrong: {why}", row.test));
        }
    }
    if args.update && lost.is_empty() && args.only.is_empty() {
        let lines: Vec<&str> = passed.into_iter().collect();
        std::fs::write(&file, lines.join("\n") + "\n")?;
    }
    let text = if args.json {
        serde_json::to_string_pretty(&rows)?
    } else {
        table(&rows, args.why)
    };
    Ok((text, lost))
}

/// Passed, refused, out of scope, disputed, wrong.
#[derive(Default)]
struct Counts([usize; 5]);

impl Counts {
    fn add(&mut self, outcome: &Outcome) {
        let index = match outcome {
            Outcome::Passed => 0,
            Outcome::Refused(_) => 1,
            Outcome::OutOfScope(_) => 2,
            Outcome::Disputed(_) => 3,
            Outcome::Wrong(_) => 4,
        };
        self.0[index] += 1;
    }

    fn line(&self, name: &str) -> String {
        let [passed, refused, out, disputed, wrong] = self.0;
        format!("{name:<32} {passed:>7} {refused:>8} {out:>13} {disputed:>9} {wrong:>6}\n")
    }
}

fn table(rows: &[Row], why: bool) -> String {
    let mut by_operator: BTreeMap<&str, Counts> = BTreeMap::new();
    let mut all = Counts::default();
    for row in rows {
        // A test of several nodes is a function written out; it is counted by itself.
        let operator = match row.operators.as_slice() {
            [one] => one.as_str(),
            _ => "(several operators)",
        };
        by_operator.entry(operator).or_default().add(&row.outcome);
        all.add(&row.outcome);
    }
    let mut text = String::new();
    if why {
        for row in rows {
            match &row.outcome {
                Outcome::Passed => {}
                Outcome::Refused(why) => text += &format!("{} refused: {why}\n", row.test),
                Outcome::OutOfScope(why) => text += &format!("{} out of scope: {why}\n", row.test),
                Outcome::Disputed(why) => text += &format!("{} disputed: {why}\n", row.test),
                Outcome::Wrong(why) => text += &format!("{} wrong: {why}\n", row.test),
            }
        }
    }
    text += &format!(
        "{:<32} {:>7} {:>8} {:>13} {:>9} {:>6}\n",
        "operator", "passed", "refused", "out of scope", "disputed", "wrong"
    );
    for (operator, counts) in &by_operator {
        text += &counts.line(operator);
    }
    text += &all.line("all");
    let scope = all.0[0] + all.0[1] + all.0[3] + all.0[4];
    let share = 100.0 * all.0[0] as f64 / scope.max(1) as f64;
    text += &format!("{:.1} % of the {scope} tests in scope pass", share);
    text
}
