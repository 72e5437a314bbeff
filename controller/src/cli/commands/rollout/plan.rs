//! How a plan is shown.

use crate::cli::error::CliError;
use crate::cli::output::{Grid, Output};
use sandpiper_core::assignment::Ladder;
use sandpiper_core::energy::Provenance;
use sandpiper_core::names::VariantName;
use sandpiper_core::rollout::{Change, Forecast, PlannedDevice, RolloutPlan, WaveSize};
use sandpiper_core::view::PlanDoc;
use serde_json::Value;
use std::collections::BTreeSet;

/// A line per device, then what the whole is going to do.
pub(super) fn plan(document: Value) -> Result<Output, CliError> {
    let PlanDoc { plan, forecast } =
        serde_json::from_value(document.clone()).map_err(|e| CliError::Answer(e.to_string()))?;
    let mut table = Grid::new(&[
        "WAVE", "DEVICE", "HARDWARE", "LADDER", "WHY", "SENDS", "TAKES",
    ]);
    for (index, wave) in plan.waves.iter().enumerate() {
        let rows = wave.iter().map(|device| row(index + 1, device));
        table.rows.extend(rows);
    }
    let mut notes = Vec::new();
    for unfit in &plan.unfit {
        notes.push(format!("{} stays out: no variant fits", unfit.device));
        for (variant, misfits) in &unfit.misfits {
            let why: Vec<_> = misfits.iter().map(ToString::to_string).collect();
            notes.push(format!("  {variant}: {}", why.join("; ")));
        }
    }
    notes.extend(unseen(&plan));
    notes.extend(asking(&plan));
    notes.extend(foreseen(&forecast));
    Ok(Output::Report {
        name: format!("rollout/{}", plan.name),
        document,
        table,
        notes,
    })
}

fn row(wave: usize, device: &PlannedDevice) -> Vec<String> {
    let takes = device.takes.map(|takes| {
        let about = if takes.provenance == Provenance::Measured {
            ""
        } else {
            "~"
        };
        format!("{about}{:.1} s", takes.ms as f64 / 1e3)
    });
    let reason = serde_json::to_value(device.reason).ok();
    let reason = reason.as_ref().and_then(Value::as_str).unwrap_or("-");
    vec![
        wave.to_string(),
        device.device.to_string(),
        device.hardware.to_string(),
        rungs(&device.ladder),
        reason.replace('_', "-"),
        kib(device.download_bytes),
        takes.unwrap_or_else(|| "unknown".to_owned()),
    ]
}

/// The variants of a ladder with the power states that they are for; of one for all, its name.
fn rungs(ladder: &Ladder) -> String {
    let mut steps: Vec<(Vec<String>, &VariantName)> = Vec::new();
    for (state, variant) in &ladder.rungs {
        match steps.last_mut() {
            Some((states, last)) if *last == variant => states.push(state.to_string()),
            _ => steps.push((vec![state.to_string()], variant)),
        }
    }
    match steps.as_slice() {
        [(_, only)] => only.to_string(),
        steps => {
            let steps = steps.iter();
            let steps = steps.map(|(states, variant)| format!("{}={variant}", states.join(",")));
            steps.collect::<Vec<_>>().join(" ")
        }
    }
}

/// Says so when the first wave is too small to show a fault of every class of hardware.
fn unseen(plan: &RolloutPlan) -> Option<String> {
    let kinds = |devices: &mut dyn Iterator<Item = &PlannedDevice>| {
        let kinds: BTreeSet<_> = devices.map(|d| d.hardware.to_string()).collect();
        kinds.len()
    };
    let first = kinds(&mut plan.waves.first()?.iter());
    let all = kinds(&mut plan.waves.iter().flatten());
    let by_labels = matches!(plan.spec.waves.first(), Some(WaveSize::Selector(_)));
    let enough = match by_labels {
        true => String::new(),
        false => format!(": with {all} devices it holds each"),
    };
    (first < all).then(|| format!("wave 1 holds {first} of {all} kinds of hardware{enough}"))
}

/// Which waves wait for the word of an operator.
fn asking(plan: &RolloutPlan) -> Option<String> {
    let approval = plan.spec.approval.as_ref()?;
    let waves = (0..plan.waves.len()).filter(|wave| approval.asks(*wave));
    let waves: Vec<String> = waves.map(|wave| (wave + 1).to_string()).collect();
    let (waves, who) = (waves.join(", "), approval.who());
    Some(format!("asking for approval, of {who}: waves {waves}"))
}

fn kib(bytes: u64) -> String {
    format!("{:.1} KiB", bytes as f64 / 1024.0)
}

fn foreseen(forecast: &Forecast) -> Vec<String> {
    let mut notes = Vec::new();
    for (index, wave) in forecast.waves.iter().enumerate() {
        let when = match (wave.begins_s, wave.ends_s) {
            (Some(begins), Some(ends)) => format!("from {begins} s to {ends} s"),
            (Some(begins), None) => format!("from {begins} s"),
            _ => "at an unknown time".to_owned(),
        };
        notes.push(format!(
            "wave {}: {} devices, {} to send, {when} ({} measured)",
            index + 1,
            wave.devices,
            kib(wave.download_bytes),
            wave.measured,
        ));
    }
    let energy = &forecast.energy;
    let known = match energy.devices {
        0 => "unknown".to_owned(),
        n => format!(
            "{:.1} J, {} ({n} devices)",
            energy.energy_uj / 1e6,
            energy.provenance
        ),
    };
    let without = match energy.unknown {
        0 => String::new(),
        n => format!(", of {n} devices unknown"),
    };
    notes.push(format!("energy of moving: {known}{without}"));
    notes.push(changes("accuracy", "%", forecast.accuracy, 100.0));
    notes.push(changes("latency", "µs", forecast.latency_us, 1.0));
    notes.push(changes(
        "energy per inference",
        "µJ",
        forecast.energy_uj,
        1.0,
    ));
    if let Some(why) = &forecast.obstacle {
        notes.push(format!("as far as is known: {why}"));
    }
    notes
}

fn changes(what: &str, unit: &str, change: Option<Change>, scale: f64) -> String {
    let Some(change) = change else {
        return format!("{what}: unknown");
    };
    let after = change.after * scale;
    let (devices, provenance) = (change.devices, change.provenance);
    match change.before.map(|before| before * scale) {
        Some(before) => format!(
            "{what}: {before:.2} to {after:.2} {unit} on average, {provenance} ({devices} devices)"
        ),
        None => format!(
            "{what}: {after:.2} {unit} on average, {provenance} ({devices} devices, nothing before)"
        ),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::cli::args::Format;
    use crate::cli::render::render;
    use serde_json::json;

    fn shown(document: Value) -> String {
        let mut out = Vec::new();
        render(&mut out, &plan(document).unwrap(), Format::Table).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_plan_with_its_forecast() {
        let expected = |accuracy: f64| json!({ "variant": "large", "accuracy": accuracy });
        let planned = |device: &str, hardware: &str, takes: Value| {
            json!({
                "device": device, "hardware": hardware, "download_bytes": 1_572_864, "reason": "most_accurate",
                "expected": expected(0.95), "before": expected(0.9), "takes": takes,
                "ladder": { "rungs": { "mains": "large", "high": "large", "low": "tiny" },
                            "low_percent": 40, "critical_percent": 15 },
            })
        };
        let wave = |begins: u64, ends: u64| {
            json!({ "devices": 1, "download_bytes": 1_572_864, "measured": 1,
                    "begins_s": begins, "ends_s": ends })
        };
        let text = shown(json!({
            "name": "activity-2", "model": "activity", "previous": "v1",
            "spec": { "deployment": "activity", "version": "v2",
                      "approval": { "waves": "after-first" } },
            "waves": [
                [planned("pi-1", "Pi 4, cortex-a72", json!({ "ms": 2_500, "provenance": "measured" }))],
                [planned("pi-2", "Pi 5, cortex-a76", json!({ "ms": 4_000, "provenance": "modelled" }))],
            ],
            "unfit": [{ "device": "pi-9", "misfits": {
                "tiny": [{ "reason": "accuracy_floor", "accuracy": 0.8, "floor": 0.9 }] } }],
            "forecast": {
                "waves": [wave(0, 63), wave(63, 130)], "download_bytes": 3_145_728,
                "energy": { "energy_uj": 2_400_000.0, "provenance": "modelled",
                            "devices": 1, "unknown": 1 },
                "accuracy": { "before": 0.9, "after": 0.95, "devices": 2,
                              "provenance": "measured" },
                "latency_us": { "before": null, "after": 5_120.0, "devices": 2,
                                "provenance": "modelled" },
                "energy_uj": null,
            },
        }));
        insta::assert_snapshot!(text, @r"
        WAVE  DEVICE  HARDWARE          LADDER                     WHY            SENDS       TAKES
        1     pi-1    Pi 4, cortex-a72  mains,high=large low=tiny  most-accurate  1536.0 KiB  2.5 s
        2     pi-2    Pi 5, cortex-a76  mains,high=large low=tiny  most-accurate  1536.0 KiB  ~4.0 s
        pi-9 stays out: no variant fits
          tiny: accuracy 80.00 % is below the floor of 90.00 %
        wave 1 holds 1 of 2 kinds of hardware: with 2 devices it holds each
        asking for approval, of any operator: waves 2
        wave 1: 1 devices, 1536.0 KiB to send, from 0 s to 63 s (1 measured)
        wave 2: 1 devices, 1536.0 KiB to send, from 63 s to 130 s (1 measured)
        energy of moving: 2.4 J, modelled (1 devices), of 1 devices unknown
        accuracy: 90.00 to 95.00 % on average, measured (2 devices)
        latency: 5120.00 µs on average, modelled (2 devices, nothing before)
        energy per inference: unknown
        ");
    }
}
