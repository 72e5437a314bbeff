//! `cargo xtask bench agent`: what an agent takes and how soon it answers, against the goals, and
//! beside another build of it.

mod fleet;

use super::goals::{Goal, Report};
use super::provenance::Provenance;
use super::stats::{median, quantile};
use crate::shell;
use anyhow::{Context, Result, ensure};
use fleet::{Bench, Memory, request};
use sandpiper_e2e::activity;
use sandpiper_e2e::binaries::Binaries;
use sandpiper_e2e::traffic::MODEL;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const MIB: f64 = (1 << 20) as f64;
const DAY_S: f64 = 86_400.0;
const HOUR_S: f64 = 3600.0;
/// Versions that are swapped, one after the other, while a program asks.
const SWAPS: usize = 6;
/// How often a quiet device is asked while it is measured what it writes.
const QUIETLY: Duration = Duration::from_secs(1);

/// The goals.
const AT_REST_MIB: f64 = 6.0;
const SERVING_MIB: f64 = 12.0;
const RUNNER_MIB: f64 = 3.0;
const BINARY_MB: f64 = 8.0;
const HTTP_US: f64 = 200.0;
const HOP_US: f64 = 30.0;
const START_MS: f64 = 100.0;
const SWAP_MS: f64 = 50.0;

/// What to measure.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Print one JSON object.
    #[arg(long)]
    pub(super) json: bool,
    /// Profile of cargo that controller and agent are built with, and the program that measures the hop.
    #[arg(long, default_value = "release")]
    profile: String,
    /// A directory that holds both programs, instead of building them: what `dist` made for this machine
    /// is below target/cross/build.
    #[arg(long)]
    programs: Option<PathBuf>,
    /// Variant of examples/activity that is served.
    #[arg(long, default_value = "small-int8")]
    variant: String,
    /// Another program of the agent, whose memory is measured in the same way.
    #[arg(long)]
    against: Option<PathBuf>,
    /// Seconds for which processor and disk are watched at rest.
    #[arg(long, default_value_t = 120)]
    rest: u64,
    /// Memory and size alone: valid on a busy machine, which times are not.
    #[arg(long)]
    memory_only: bool,
}

/// Builds, runs one fleet of one agent, and measures.
///
/// # Errors
/// When something does not start, or does not answer.
pub(super) fn measure(args: &Args) -> Result<Report> {
    let variant = &args.variant;
    let file = activity().join(format!("models/{variant}.onnx"));
    ensure!(
        file.is_file(),
        "examples/activity has no variant `{variant}`"
    );
    let (binaries, build) = programs(args)?;
    let provenance = Provenance::of(&build);
    let subject = format!("one agent, serving activity/{variant}");
    let mut report = Report::new(provenance, &subject);
    let dir = tempfile::tempdir()?;
    let (mut bench, figures) = figures(&binaries, dir.path(), variant, &file)?;
    figures.tell(&mut report);
    size(&mut report, &binaries.agent)?;
    if let Some(agent) = &args.against {
        super::say("the other agent");
        let other = Binaries {
            agent: agent.clone(),
            ..binaries.clone()
        };
        let dir = tempfile::tempdir()?;
        let (_, figures) = self::figures(&other, dir.path(), variant, &file)?;
        for (what, value) in figures.rows() {
            report.beside(&what, value);
        }
        report.beside(SIZE, stripped(agent)? / 1e6);
        report.note(format!("beside: {}", agent.display()));
    }
    if !args.memory_only {
        times(&mut report, &mut bench, args)?;
    }
    Ok(report)
}

/// Both programs, and what they were built as.
fn programs(args: &Args) -> Result<(Binaries, String)> {
    let Some(dir) = &args.programs else {
        super::say("building");
        return Ok((Binaries::build(&args.profile)?, args.profile.clone()));
    };
    // The agent is started from another directory.
    let dir = std::path::absolute(dir)?;
    let binaries = Binaries {
        controller: dir.join("sandpiper"),
        agent: dir.join("sandpiper-agent"),
    };
    for program in [&binaries.controller, &binaries.agent] {
        ensure!(program.is_file(), "there is no {}", program.display());
    }
    let shown = args.programs.as_deref().unwrap_or(&dir).display();
    Ok((binaries, format!("of {shown}")))
}

struct Figures {
    rest: Memory,
    one: Memory,
    three: Memory,
    /// Planned memory of one model, in bytes.
    planned: f64,
}

fn figures(
    binaries: &Binaries,
    dir: &Path,
    variant: &str,
    file: &Path,
) -> Result<(Bench, Figures)> {
    let mut bench = Bench::start(binaries, dir)?;
    super::say("at rest");
    let rest = bench.memory(&[])?;
    super::say("installing a model");
    let planned = bench.install(MODEL, "v1", variant, file)?;
    let mut requests = vec![request(MODEL, true)?];
    super::say("serving");
    let one = bench.memory(&requests)?;
    super::say("installing two more");
    for model in ["second", "third"] {
        bench.install(model, "v1", variant, file)?;
        requests.push(request(model, true)?);
    }
    let three = bench.memory(&requests)?;
    let figures = Figures {
        rest,
        one,
        three,
        planned,
    };
    Ok((bench, figures))
}

fn sum(memory: &Memory) -> f64 {
    memory.agent + memory.runners.iter().sum::<f64>()
}

const REST: &str = "agent at rest, PSS";
const ONE: &str = "serving one model, PSS";
const ONE_AGENT: &str = "  of it the agent";
const ONE_RUNNER: &str = "  of it the runner";
const THREE: &str = "serving three models, PSS";
const THREE_AGENT: &str = "  of them the agent";
const THREE_RUNNER: &str = "  of them the largest runner";
const SIZE: &str = "program, stripped";

impl Figures {
    fn rows(&self) -> Vec<(String, f64)> {
        let largest = self.three.runners.iter().copied().fold(0.0, f64::max);
        let one = self.one.runners.first().copied().unwrap_or(f64::NAN);
        let rows = [
            (REST, sum(&self.rest)),
            (ONE, sum(&self.one)),
            (ONE_AGENT, self.one.agent),
            (ONE_RUNNER, one),
            (THREE, sum(&self.three)),
            (THREE_AGENT, self.three.agent),
            (THREE_RUNNER, largest),
        ];
        let mib = |(what, bytes): (&str, f64)| (what.to_owned(), bytes / MIB);
        rows.into_iter().map(mib).collect()
    }

    fn tell(&self, report: &mut Report) {
        let planned = self.planned / MIB;
        for (what, value) in self.rows() {
            let goal = match what.as_str() {
                REST => Goal::Is(AT_REST_MIB),
                ONE => Goal::Is(SERVING_MIB + planned),
                ONE_RUNNER | THREE_RUNNER => Goal::Is(RUNNER_MIB + planned),
                _ => Goal::None,
            };
            report.add(&what, "MiB", value, goal);
        }
        report.note(format!(
            "the goals of what serves are {SERVING_MIB} MiB for the agent with one runner, and \
             {RUNNER_MIB} MiB for a runner, and the {planned:.2} MiB that the model was planned to take"
        ));
    }
}

fn size(report: &mut Report, agent: &Path) -> Result<()> {
    report.add(SIZE, "MB", stripped(agent)? / 1e6, Goal::Is(BINARY_MB));
    Ok(())
}

/// Bytes of a program without its symbols.
fn stripped(program: &Path) -> Result<f64> {
    let dir = tempfile::tempdir()?;
    let bare = dir.path().join("bare");
    let status = Command::new("strip")
        .arg("-o")
        .arg(&bare)
        .arg(program)
        .status();
    let done = status.context("there is no `strip` here, of binutils")?;
    ensure!(done.success(), "strip failed");
    Ok(std::fs::metadata(bare)?.len() as f64)
}

/// What only a quiet machine tells.
fn times(report: &mut Report, bench: &mut Bench, args: &Args) -> Result<()> {
    let (json, binary) = (request(MODEL, false)?, request(MODEL, true)?);
    super::say("answers");
    for (name, request) in [("binary", &binary), ("JSON", &json)] {
        let times = bench.round_trips(request)?;
        let label = |p: &str| format!("HTTP round trip, {name}, {p}");
        report.add(&label("p50"), "us", median(&times), Goal::Is(HTTP_US));
        report.add(&label("p95"), "us", quantile(&times, 0.95), Goal::None);
    }
    super::say("the way to a runner and back");
    for (bytes, p50) in hops(&args.profile)? {
        let goal = if bytes <= 64 << 10 {
            Goal::Is(HOP_US)
        } else {
            Goal::None
        };
        let what = format!("hop to a runner, {bytes} bytes, p50");
        report.add(&what, "us", p50, goal);
    }
    super::say("at rest, for a while");
    let lasts = Duration::from_secs(args.rest);
    let rest = bench.rest(lasts, None)?;
    let (cpu, disk) = ("processor time in an hour", "written in a day");
    let per = |used: f64, of: &fleet::Rest, span: f64| used / of.seconds * span;
    let of = "three models, not asked";
    report.add(
        &format!("{cpu}, {of}"),
        "s",
        per(rest.cpu_s, &rest, HOUR_S),
        Goal::None,
    );
    let written = per(rest.written_bytes, &rest, DAY_S) / MIB;
    report.add(&format!("{disk}, {of}"), "MiB", written, Goal::None);
    let asked = bench.rest(lasts, Some((&binary, QUIETLY)))?;
    let of = "one asked every second";
    report.add(
        &format!("{cpu}, {of}"),
        "s",
        per(asked.cpu_s, &asked, HOUR_S),
        Goal::None,
    );
    let written = per(asked.written_bytes, &asked, DAY_S) / MIB;
    report.add(&format!("{disk}, {of}"), "MiB", written, Goal::None);
    super::say("starting again and again");
    let starts = bench.starts(&binary)?;
    let (p50, most) = (median(&starts), quantile(&starts, 1.0));
    report.add(
        "start to first answer, median",
        "ms",
        p50,
        Goal::Is(START_MS),
    );
    report.add("start to first answer, longest", "ms", most, Goal::None);
    super::say("swapping versions under load");
    let files: Vec<_> = ["tiny-f32", "small-f32"]
        .map(|v| (v, activity().join(format!("models/{v}.onnx"))))
        .into();
    let variants = files.iter().map(|(v, f)| (*v, f.as_path()));
    let variants: Vec<_> = variants.cycle().take(SWAPS).collect();
    let swaps = bench.swaps(MODEL, &variants)?;
    let most = quantile(&swaps.gaps_ms, 1.0);
    report.add(
        "swap, time without an answer, median",
        "ms",
        median(&swaps.gaps_ms),
        Goal::None,
    );
    report.add(
        "swap, time without an answer, longest",
        "ms",
        most,
        Goal::Is(SWAP_MS),
    );
    report.add(
        "requests that failed meanwhile",
        "",
        swaps.failed as f64,
        Goal::Is(0.0),
    );
    report.note(format!(
        "{} requests while {} versions were swapped",
        swaps.sent,
        swaps.gaps_ms.len()
    ));
    Ok(())
}

/// Bytes of a request, and the median of the way to a runner and back in microseconds.
fn hops(profile: &str) -> Result<Vec<(u32, f64)>> {
    let mut command = shell::cargo();
    command.args(["run", "--quiet", "--profile", profile]);
    command.args(["--package", "sandpiper-agent", "--example", "hop"]);
    let output = command.output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let line = |line: &str| {
        let mut words = line.split(' ');
        let bytes = words.next()?.parse().ok()?;
        Some((bytes, words.next()?.parse().ok()?))
    };
    let rows: Option<Vec<_>> = text.lines().map(line).collect();
    let rows = rows.filter(|r| output.status.success() && !r.is_empty());
    rows.with_context(|| format!("the example `hop` says {text}"))
}
