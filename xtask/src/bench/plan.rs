//! Planning against its goals: a program with optimisation measures, for fleets of growing size.

use super::goals::{Goal, Report};
use super::provenance::Provenance;
use crate::shell;
use anyhow::{Context, Result, ensure};
use serde::Deserialize;

/// Seconds to plan 100,000 devices x 16 variants.
const PLAN_S: f64 = 1.0;
/// Microseconds to plan again for one device.
const AGAIN_US: f64 = 1_000.0;
/// The size that the goals are for.
const GOAL_DEVICES: usize = 100_000;

#[derive(Debug, Deserialize)]
struct Figures {
    devices: usize,
    variants: usize,
    plan_s: f64,
    foresee_s: f64,
    select_us: f64,
    report_us: f64,
    planned: usize,
    peak_bytes: u64,
}

/// Measures fleets of these sizes.
pub(super) fn measure(sizes: &[usize]) -> Result<Report> {
    let mut report = Report::new(Provenance::of("release"), "planning, on one core");
    for size in sizes {
        super::say(&format!("{size} devices"));
        let figures = one(*size)?;
        ensure!(figures.planned > 0, "the plan of {size} devices is empty");
        add(&mut report, &figures);
    }
    Ok(report)
}

fn one(devices: usize) -> Result<Figures> {
    let mut command = shell::cargo();
    command.args(["run", "--quiet", "--release", "--package", "sandpiper-sim"]);
    command.args(["--bin", "sandpiper-plan", "--"]);
    command.args(["--devices", &devices.to_string()]);
    let output = command.stderr(std::process::Stdio::inherit()).output()?;
    ensure!(output.status.success(), "planning was not measured");
    serde_json::from_slice(&output.stdout).context("the figures are not JSON")
}

fn add(report: &mut Report, figures: &Figures) {
    let goal = |value| match figures.devices == GOAL_DEVICES {
        true => Goal::Is(value),
        false => Goal::None,
    };
    let of = format!(
        "{} devices x {} variants",
        figures.devices, figures.variants
    );
    report.add(&format!("plan {of}"), "s", figures.plan_s, goal(PLAN_S));
    report.add(
        &format!("plan and forecast {of}"),
        "s",
        figures.foresee_s,
        Goal::None,
    );
    let (again, seen) = (figures.select_us, figures.report_us);
    report.add(
        &format!("one device again, {of}"),
        "us",
        again,
        goal(AGAIN_US),
    );
    report.add(&format!("one report, {of}"), "us", seen, goal(AGAIN_US));
    let mib = figures.peak_bytes as f64 / f64::from(1 << 20);
    report.add(&format!("peak memory, {of}"), "MiB", mib, Goal::None);
}
