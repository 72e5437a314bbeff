//! `explain`.

use super::rollout::waits;
use super::{Session, connect};
use crate::cli::args::Format;
use crate::cli::columns::text;
use crate::cli::error::CliError;
use crate::cli::output::{Grid, Output};
use crate::cli::parse;
use sandpiper_core::selection::{Candidate, Prediction, Selection};
use sandpiper_core::view::InRolloutDoc;
use serde_json::Value;

pub(super) async fn explain(
    session: &mut Session<'_>,
    device: &str,
    model: &str,
    version: &str,
    format: Format,
) -> Result<(), CliError> {
    let device = parse::name_of("device", device)?;
    let document = connect(session.context)
        .await?
        .explain(device, model, version)
        .await?;
    session.show(&report(document)?, format)
}

/// The selection is the document itself, or its field `selection`.
fn report(document: Value) -> Result<Output, CliError> {
    let selection = document.pointer("/selection").unwrap_or(&document);
    let selection: Selection =
        serde_json::from_value(selection.clone()).map_err(|e| CliError::Answer(e.to_string()))?;
    let mut table = Grid::new(&[
        "VARIANT", "ACCURACY", "LATENCY", "MEASURED", "ENERGY", "FITS",
    ]);
    table.rows = selection.candidates.iter().map(row).collect();
    let chosen = |c: &sandpiper_core::selection::Choice| {
        let reason = serde_json::to_value(c.reason)
            .ok()
            .and_then(|v| text(&v, ""))
            .unwrap_or_default();
        format!(
            "{}: {} ({})",
            c.power_state,
            c.variant,
            reason.replace('_', " ")
        )
    };
    let mut notes: Vec<_> = selection.choices.iter().map(chosen).collect();
    if notes.is_empty() {
        notes.push("no variant can run on this device".to_owned());
    }
    notes.extend(moving(&document));
    let name = format!("device/{}", selection.device);
    Ok(Output::Report {
        name,
        document,
        table,
        notes,
    })
}

/// Where it stands in the rollout that moves it, and what it waits for.
fn moving(document: &Value) -> Option<String> {
    let moving = document.get("moving")?.clone();
    let moving: InRolloutDoc = serde_json::from_value(moving).ok()?;
    let zone = moving.zone.map(|zone| format!(" ({zone})"));
    let waits = waits(&moving.progress).map(|why| format!(": {why}"));
    Some(format!(
        "rollout/{}, wave {}: {}{}{}",
        moving.rollout,
        moving.wave,
        moving.progress.word(),
        waits.unwrap_or_default(),
        zone.unwrap_or_default(),
    ))
}

fn row(candidate: &Candidate) -> Vec<String> {
    let dash = || "-".to_owned();
    let predicted = |p: &Option<Prediction>, unit: &str| {
        p.as_ref().map_or_else(dash, |p| {
            let provenance = serde_json::to_value(p.provenance)
                .ok()
                .and_then(|v| text(&v, ""));
            format!("{:.0} {unit} ({})", p.value, provenance.unwrap_or_default())
        })
    };
    let measured = candidate
        .measured_latency_us
        .map_or_else(dash, |(p50, p95)| format!("{p50} / {p95} µs"));
    let reasons: Vec<_> = candidate.misfits.iter().map(ToString::to_string).collect();
    let fits = if reasons.is_empty() {
        "yes".to_owned()
    } else {
        format!("no: {}", reasons.join("; "))
    };
    vec![
        candidate.variant.to_string(),
        format!("{:.2} %", candidate.accuracy * 100.0),
        predicted(&candidate.latency_us, "µs"),
        measured,
        predicted(&candidate.energy_uj, "µJ"),
        fits,
    ]
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_a_device_waits_for_is_explained() {
        let of = |progress: Value| {
            moving(&json!({ "moving": {
                "rollout": "activity-2", "wave": 1, "zone": "Europe/Berlin", "progress": progress,
            } }))
            .unwrap()
        };
        let at = 1_700_000_000_000u64;
        insta::assert_snapshot!(
            of(json!({ "state": "held", "since": at, "until": at })),
            @"rollout/activity-2, wave 1: held: its download window opens 2023-11-14T22:13:20Z (Europe/Berlin)"
        );
        insta::assert_snapshot!(
            of(json!({ "state": "waiting" })),
            @"rollout/activity-2, wave 1: waiting (Europe/Berlin)"
        );
        assert_eq!(moving(&json!({})), None);
    }
}
