//! How rollouts and their histories are shown.

use crate::api::client::Item;
use crate::cli::columns::{instant, text};
use crate::cli::output::{Grid, Output};
use sandpiper_core::rollout::{Approval, DeviceRollout, Reading, Wait};
use sandpiper_core::time::Millis;
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
            why(device),
        ]);
    }
    let part = |path: &str| text(&document, path).unwrap_or_else(|| "-".to_owned());
    let why = text(&document, "/state/why")
        .map(|w| format!(": {w}"))
        .unwrap_or_default();
    let mut notes = vec![format!(
        "{} to {} is {}{why} ({} succeeded, {} failed, {} waves)",
        part("/deployment"),
        part("/version"),
        part("/state/state").replace('_', "-"),
        part("/succeeded"),
        part("/failed"),
        part("/waves"),
    )];
    notes.extend(awaited(&document));
    let gates = document.pointer("/gates").and_then(Value::as_array);
    for gate in gates.into_iter().flatten() {
        if let Ok(reading) = serde_json::from_value::<Reading>(gate.clone()) {
            notes.push(format!("gate: {reading}"));
        }
    }
    Output::Report {
        name: format!("rollout/{}", item.name),
        document,
        table,
        notes,
    }
}

/// Why a device stands where it does, as far as there is more to say.
fn why(device: &Value) -> String {
    let failed = text(device, "/progress/message");
    let progress = device.get("progress").cloned();
    let progress = progress.and_then(|p| serde_json::from_value::<DeviceRollout>(p).ok());
    let waits = progress.as_ref().and_then(waits);
    failed.or(waits).unwrap_or_else(|| "-".to_owned())
}

/// What a device waits for, and until when.
pub(in crate::cli::commands) fn waits(progress: &DeviceRollout) -> Option<String> {
    let opens = |what: &str, until: &Option<Millis>| match until {
        Some(until) => format!("its {what} window opens {}", instant(until.0)),
        None => format!("no {what} window opens while it is waited for"),
    };
    match progress {
        DeviceRollout::Held { until, .. } => Some(opens("download", until)),
        DeviceRollout::Parked { wait, until, .. } => Some(match wait {
            Wait::Download => opens("download", until),
            Wait::Switch => format!("has all, {}", opens("switch", until)),
            Wait::Clock => "nobody has told it the time".to_owned(),
        }),
        _ => None,
    }
}

/// Whose word a rollout waits for, and since when.
fn awaited(document: &Value) -> Option<String> {
    let state = document.get("state")?;
    if text(state, "/state")? != "awaiting_approval" {
        return None;
    }
    let approval = document.pointer("/spec/approval").cloned();
    let approval = approval.and_then(|a| serde_json::from_value::<Approval>(a).ok());
    let who = approval.map_or_else(|| "any operator".to_owned(), |a| a.who());
    let wave = state.get("wave")?.as_u64()? + 1;
    let since = instant(state.get("since")?.as_u64()?);
    Some(format!(
        "wave {wave} waits since {since} until {who} approves it: sandpiper rollout approve {}",
        text(document, "/name").unwrap_or_else(|| "NAME".to_owned())
    ))
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::cli::args::Format;
    use crate::cli::render::render;
    use serde_json::json;

    fn shown(output: &Output) -> String {
        let mut out = Vec::new();
        render(&mut out, output, Format::Table).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn item(document: Value) -> Item {
        Item {
            name: "activity-2".to_owned(),
            document,
        }
    }

    #[test]
    fn a_rollout_that_waits_for_its_gates() {
        let device = |name: &str, progress: Value| {
            json!({ "wave": 1, "device": name, "ladder": { "rungs": { "mains": "small" } },
                    "progress": progress })
        };
        let failed = json!({ "state": "failed", "message": "small: output is not finite" });
        let output = status(item(json!({
            "deployment": "activity", "version": "v2", "waves": 3, "succeeded": 1, "failed": 1,
            "state": { "state": "paused", "by": "gates", "wave": 0, "ran_ms": 0,
                       "why": "wave 1: traps: inconclusive" },
            "devices": [device("pi-1", json!({ "state": "succeeded" })), device("pi-2", failed)],
            "gates": [
                { "metric": "latency_p95", "verdict": "pass", "change": 2.04, "low": -9.0,
                  "high": 8.9, "limit": 10.0, "devices": 1, "inferences": 412 },
                { "metric": "traps", "verdict": "inconclusive", "change": 0.0, "low": 0.0,
                  "high": 0.0, "limit": 5.0, "devices": 0, "inferences": 0 },
            ],
        })));
        insta::assert_snapshot!(shown(&output), @r"
        WAVE  DEVICE  VARIANT  PROGRESS   WHY
        1     pi-1    small    succeeded  -
        1     pi-2    small    failed     small: output is not finite
        activity to v2 is paused: wave 1: traps: inconclusive (1 succeeded, 1 failed, 3 waves)
        gate: p95 latency: pass, +2.0% (-9.0 to +8.9), limit +10.0, 1 devices, 412 inferences
        gate: traps: inconclusive, no device was measured before and after
        ");
    }

    fn document(state: Value, devices: &[(usize, &str, Value)]) -> Value {
        let device = |(wave, name, progress): &(usize, &str, Value)| {
            json!({ "wave": wave, "device": name, "ladder": { "rungs": { "mains": "small" } },
                    "progress": progress })
        };
        let count = |word: &str| devices.iter().filter(|(.., p)| p["state"] == word).count();
        json!({
            "deployment": "activity", "version": "v2", "waves": 2, "state": state,
            "succeeded": count("succeeded"), "failed": count("failed"), "gates": [],
            "devices": devices.iter().map(device).collect::<Vec<_>>(),
        })
    }

    #[test]
    fn a_rollout_under_way() {
        let output = status(item(document(
            json!({ "state": "running", "wave": 1, "since": 90_000 }),
            &[
                (1, "pi-1", json!({ "state": "succeeded" })),
                (1, "pi-2", json!({ "state": "gone" })),
                (2, "pi-3", json!({ "state": "assigned", "since": 90_000 })),
                (
                    2,
                    "pi-4",
                    json!({ "state": "serving", "since": 91_000, "inferences": 7 }),
                ),
                (2, "pi-5", json!({ "state": "waiting" })),
            ],
        )));
        insta::assert_snapshot!(shown(&output), @r"
        WAVE  DEVICE  VARIANT  PROGRESS   WHY
        1     pi-1    small    succeeded  -
        1     pi-2    small    gone       -
        2     pi-3    small    assigned   -
        2     pi-4    small    serving    -
        2     pi-5    small    waiting    -
        activity to v2 is running (1 succeeded, 0 failed, 2 waves)
        ");
    }

    #[test]
    fn devices_that_wait_for_their_windows() {
        let at = 1_700_000_000_000u64;
        let parked = |wait: &str| json!({ "state": "parked", "since": at, "wait": wait, "until": at, "worked_ms": 9 });
        let output = status(item(document(
            json!({ "state": "running", "wave": 0, "since": at }),
            &[
                (
                    1,
                    "pi-1",
                    json!({ "state": "held", "since": at, "until": at }),
                ),
                (
                    1,
                    "pi-2",
                    json!({ "state": "held", "since": at, "until": null }),
                ),
                (1, "pi-3", parked("download")),
                (1, "pi-4", parked("switch")),
                (
                    1,
                    "pi-5",
                    json!({ "state": "parked", "since": at, "wait": "clock", "until": null, "worked_ms": 0 }),
                ),
                (
                    1,
                    "pi-6",
                    json!({ "state": "switching", "since": at, "worked_ms": 9 }),
                ),
            ],
        )));
        insta::assert_snapshot!(shown(&output), @r"
        WAVE  DEVICE  VARIANT  PROGRESS   WHY
        1     pi-1    small    held       its download window opens 2023-11-14T22:13:20Z
        1     pi-2    small    held       no download window opens while it is waited for
        1     pi-3    small    parked     its download window opens 2023-11-14T22:13:20Z
        1     pi-4    small    parked     has all, its switch window opens 2023-11-14T22:13:20Z
        1     pi-5    small    parked     nobody has told it the time
        1     pi-6    small    switching  -
        activity to v2 is running (0 succeeded, 0 failed, 2 waves)
        ");
    }

    #[test]
    fn a_rollout_that_waits_for_an_operator() {
        let mut waits = document(
            json!({ "state": "awaiting_approval", "wave": 1, "since": 1_700_000_000_000u64 }),
            &[
                (1, "pi-1", json!({ "state": "succeeded" })),
                (2, "pi-2", json!({ "state": "waiting" })),
            ],
        );
        waits["name"] = json!("activity-2");
        waits["spec"] = json!({ "approval": { "waves": "after-first", "by": ["anna", "bert"] } });
        insta::assert_snapshot!(shown(&status(item(waits))), @r"
        WAVE  DEVICE  VARIANT  PROGRESS   WHY
        1     pi-1    small    succeeded  -
        2     pi-2    small    waiting    -
        activity to v2 is awaiting-approval (1 succeeded, 0 failed, 2 waves)
        wave 2 waits since 2023-11-14T22:13:20Z until anna or bert approves it: sandpiper rollout approve activity-2
        ");
    }

    #[test]
    fn a_rollout_that_went_back() {
        let why = "wave 1: 1 failed, 0 unfinished at the deadline, 0 tolerated";
        let devices = [
            (1, "pi-1", json!({ "state": "back" })),
            (1, "pi-2", json!({ "state": "going_back" })),
            (2, "pi-3", json!({ "state": "waiting" })),
        ];
        let back =
            |state: &str| document(json!({ "state": state, "why": why, "since": 0 }), &devices);
        let both = ["rolling_back", "rolled_back"].map(|s| shown(&status(item(back(s)))));
        insta::assert_snapshot!(both.join("\n"), @r"
        WAVE  DEVICE  VARIANT  PROGRESS    WHY
        1     pi-1    small    back        -
        1     pi-2    small    going-back  -
        2     pi-3    small    waiting     -
        activity to v2 is rolling-back: wave 1: 1 failed, 0 unfinished at the deadline, 0 tolerated (0 succeeded, 0 failed, 2 waves)

        WAVE  DEVICE  VARIANT  PROGRESS    WHY
        1     pi-1    small    back        -
        1     pi-2    small    going-back  -
        2     pi-3    small    waiting     -
        activity to v2 is rolled-back: wave 1: 1 failed, 0 unfinished at the deadline, 0 tolerated (0 succeeded, 0 failed, 2 waves)
        ");
    }

    #[test]
    fn rollouts_that_ended_without_a_word() {
        let device = [(1, "pi-1", json!({ "state": "succeeded" }))];
        let ended = |state: &str| document(json!({ "state": state }), &device);
        let both = ["promoted", "superseded"].map(|s| shown(&status(item(ended(s)))));
        insta::assert_snapshot!(both.join("\n"), @r"
        WAVE  DEVICE  VARIANT  PROGRESS   WHY
        1     pi-1    small    succeeded  -
        activity to v2 is promoted (1 succeeded, 0 failed, 2 waves)

        WAVE  DEVICE  VARIANT  PROGRESS   WHY
        1     pi-1    small    succeeded  -
        activity to v2 is superseded (1 succeeded, 0 failed, 2 waves)
        ");
    }

    #[test]
    fn a_history_of_nothing() {
        insta::assert_snapshot!(shown(&history(&item(json!({})))), @"AT  SUBJECT  ACTOR  REASON  MESSAGE");
    }

    #[test]
    fn a_history() {
        let output = history(&item(json!({ "history": [
            { "at": 1_700_000_000_000u64, "severity": "info", "subject": "rollout/activity-2",
              "actor": "anna", "reason": "Started", "message": "started" },
        ] })));
        insta::assert_snapshot!(shown(&output), @r"
        AT                    SUBJECT             ACTOR  REASON   MESSAGE
        2023-11-14T22:13:20Z  rollout/activity-2  anna   Started  started
        ");
    }
}
