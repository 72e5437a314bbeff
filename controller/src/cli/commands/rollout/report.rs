//! How plans, rollouts and their histories are shown.

use crate::api::client::Item;
use crate::cli::columns::{instant, text};
use crate::cli::error::CliError;
use crate::cli::output::{Grid, Output};
use sandpiper_core::rollout::RolloutPlan;
use serde_json::Value;

/// A rollout: a line per device, and where the whole stands.
pub(super) fn status(item: Item) -> Output {
    let document = item.document;
    let mut table = Grid::new(&["WAVE", "DEVICE", "VARIANT", "PROGRESS", "WHY"]);
    let devices = document.pointer("/devices").and_then(Value::as_array);
    for device in devices.into_iter().flatten() {
        let cell = |path: &str| text(device, path).unwrap_or_else(|| "-".to_owned());
        table.rows.push(vec![
            cell("/wave"),
            cell("/device"),
            cell("/ladder/rungs/mains"),
            cell("/progress/state").replace('_', "-"),
            cell("/progress/message"),
        ]);
    }
    let part = |path: &str| text(&document, path).unwrap_or_else(|| "-".to_owned());
    let why = text(&document, "/state/why")
        .map(|w| format!(": {w}"))
        .unwrap_or_default();
    let notes = vec![format!(
        "{} to {} is {}{why} ({} succeeded, {} failed, {} waves)",
        part("/deployment"),
        part("/version"),
        part("/state/state").replace('_', "-"),
        part("/succeeded"),
        part("/failed"),
        part("/waves"),
    )];
    Output::Report {
        name: format!("rollout/{}", item.name),
        document,
        table,
        notes,
    }
}

/// The plan is the document itself, or its field `plan`.
pub(super) fn plan(document: Value) -> Result<Output, CliError> {
    let plan = document.pointer("/plan").unwrap_or(&document);
    let plan: RolloutPlan =
        serde_json::from_value(plan.clone()).map_err(|e| CliError::Answer(e.to_string()))?;
    let mut table = Grid::new(&["WAVE", "DEVICE", "LADDER", "DOWNLOAD"]);
    for (index, wave) in plan.waves.iter().enumerate() {
        for device in wave {
            let rungs = device
                .ladder
                .rungs
                .iter()
                .map(|(state, variant)| format!("{state}={variant}"));
            let download = format!("{:.1} KiB", device.download_bytes as f64 / 1024.0);
            let rungs = rungs.collect::<Vec<_>>().join(" ");
            table.rows.push(vec![
                (index + 1).to_string(),
                device.device.to_string(),
                rungs,
                download,
            ]);
        }
    }
    let mut notes = Vec::new();
    for unfit in &plan.unfit {
        notes.push(format!("{} stays out: no variant fits", unfit.device));
        for candidate in &unfit.selection.candidates {
            let why: Vec<_> = candidate.misfits.iter().map(ToString::to_string).collect();
            notes.push(format!("  {}: {}", candidate.variant, why.join("; ")));
        }
    }
    Ok(Output::Report {
        name: format!("rollout/{}", plan.name),
        document,
        table,
        notes,
    })
}

/// What happened in a rollout.
pub(super) fn history(item: &Item) -> Output {
    let history = item
        .document
        .pointer("/history")
        .cloned()
        .unwrap_or(Value::Array(Vec::new()));
    let mut table = Grid::new(&["AT", "SUBJECT", "ACTOR", "REASON", "MESSAGE"]);
    for event in history.as_array().into_iter().flatten() {
        let at = event
            .pointer("/at")
            .and_then(Value::as_u64)
            .map_or_else(|| "-".to_owned(), instant);
        let rest = ["/subject", "/actor", "/reason", "/message"]
            .map(|path| text(event, path).unwrap_or_else(|| "-".to_owned()));
        table.rows.push(std::iter::once(at).chain(rest).collect());
    }
    Output::Report {
        name: format!("rollout/{}", item.name),
        document: history,
        table,
        notes: Vec::new(),
    }
}
