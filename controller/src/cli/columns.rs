//! Columns of the lists, by kind of resource.
//!
//! A column reads the document by a path, so that a controller of a later version, with more
//! fields, is shown as well as one of the same. What is not there is shown as `-`.

use crate::api::client::Item;
use sandpiper_proto::convert::ResourceKind;
use serde_json::Value;

/// A column: heading, whether `-o wide` is needed, and how the cell is made.
pub struct Column {
    /// Heading.
    pub title: &'static str,
    /// Only with `-o wide`.
    pub wide: bool,
    cell: fn(&Value) -> Option<String>,
}

impl Column {
    /// The cell of an item.
    pub fn cell(&self, item: &Item) -> String {
        if self.title == "NAME" {
            return item.name.clone();
        }
        (self.cell)(&item.document).unwrap_or_else(|| "-".to_owned())
    }
}

const fn narrow(title: &'static str, cell: fn(&Value) -> Option<String>) -> Column {
    Column {
        title,
        wide: false,
        cell,
    }
}

const fn wide(title: &'static str, cell: fn(&Value) -> Option<String>) -> Column {
    Column {
        title,
        wide: true,
        cell,
    }
}

const NAME: Column = narrow("NAME", |_| None);

/// The columns of a kind.
pub fn of(kind: ResourceKind) -> Vec<Column> {
    match kind {
        ResourceKind::Devices => devices(),
        ResourceKind::Models => vec![
            NAME,
            narrow("VERSIONS", |d| joined(d, "/versions", "/version")),
            narrow("VARIANTS", |d| newest(d, |v| count(v, "/variants"))),
            narrow("PUBLISHED", |d| {
                newest(d, |v| v.pointer("/published_at")?.as_u64().map(instant))
            }),
            narrow("DEVICES", |d| total(d, "/versions", "/devices")),
            wide("PUBLISHER", |d| newest(d, |v| text(v, "/publisher"))),
        ],
        ResourceKind::Variants => vec![
            NAME,
            narrow("ACCURACY", |d| percent(d, "/accuracy/value")),
            narrow("MEMORY", |d| mib(d, "/memory_bytes")),
            narrow("PARAMS", |d| text(d, "/params")),
            narrow("HOST P50", |d| micros(d, "/host_latency/p50_us")),
            wide("SOURCE", |d| text(d, "/accuracy/source")),
            wide("HOST P95", |d| micros(d, "/host_latency/p95_us")),
        ],
        ResourceKind::Deployments => vec![
            NAME,
            narrow("MODEL", |d| field(d, &["/deployment/model", "/model"])),
            narrow("SELECTOR", |d| {
                field(d, &["/deployment/selector", "/selector"])
            }),
            narrow("OBJECTIVE", |d| {
                field(d, &["/deployment/policy/objective", "/policy/objective"])
            }),
            narrow("VERSION", |d| text(d, "/version")),
        ],
        ResourceKind::Rollouts => vec![
            NAME,
            narrow("DEPLOYMENT", |d| text(d, "/deployment")),
            narrow("VERSION", |d| text(d, "/version")),
            narrow("STATE", |d| text(d, "/state/state")),
            narrow("WAVE", wave),
            narrow("DONE", done),
            wide("PREVIOUS", |d| text(d, "/previous")),
            wide("WHY", |d| text(d, "/state/why")),
        ],
        ResourceKind::Events => vec![
            narrow("AT", |d| d.pointer("/at")?.as_u64().map(instant)),
            narrow("SEVERITY", |d| text(d, "/severity")),
            narrow("SUBJECT", |d| text(d, "/subject")),
            narrow("REASON", |d| text(d, "/reason")),
            narrow("MESSAGE", |d| text(d, "/message")),
            wide("ACTOR", |d| text(d, "/actor")),
        ],
        ResourceKind::JoinTokens => vec![
            NAME,
            narrow("EXPIRES", |d| {
                d.pointer("/expires_at")?.as_u64().map(instant)
            }),
            narrow("USED BY", |d| text(d, "/used_by")),
            narrow("LABELS", |d| labels(d, "/labels")),
            narrow("DESCRIPTION", |d| text(d, "/description")),
        ],
        ResourceKind::AgentReleases => vec![
            NAME,
            narrow("FOR", archs),
            narrow("PUBLISHED", |d| {
                d.pointer("/published_at")?.as_u64().map(instant)
            }),
            narrow("ORDERED", |d| text(d, "/ordered")),
            narrow("RUNNING", |d| text(d, "/running")),
            narrow("OLDEST", |d| text(d, "/oldest")),
            wide("PUBLISHER", |d| text(d, "/publisher")),
        ],
    }
}

fn devices() -> Vec<Column> {
    vec![
        NAME,
        narrow("STATUS", status),
        narrow("BOARD", |d| text(d, "/profile/board")),
        narrow("RAM", |d| mib(d, "/profile/ram_total_bytes")),
        narrow("POWER", power),
        narrow("SERVES", serves),
        wide("CORES", |d| text(d, "/profile/cores")),
        wide("CPU", |d| text(d, "/profile/cpu_model")),
        wide("AVAILABLE", |d| mib(d, "/conditions/ram_available_bytes")),
        wide("TEMP", |d| {
            Some(format!(
                "{:.1} °C",
                d.pointer("/conditions/temperature_mc")?.as_f64()? / 1000.0
            ))
        }),
        wide("LABELS", |d| labels(d, "/labels")),
        wide("GENERATION", |d| text(d, "/generation")),
        wide("AGENT", |d| {
            field(d, &["/agent/running", "/profile/agent_version"])
        }),
        wide("UPDATE", update),
    ]
}

/// A scalar as text; empty texts are shown as absent.
pub fn text(document: &Value, path: &str) -> Option<String> {
    match document.pointer(path)? {
        Value::String(text) if text.is_empty() => None,
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(value) => Some(value.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

fn field(document: &Value, paths: &[&str]) -> Option<String> {
    paths.iter().find_map(|path| text(document, path))
}

fn count(document: &Value, path: &str) -> Option<String> {
    Some(document.pointer(path)?.as_array()?.len().to_string())
}

/// A field of the newest version of a model.
fn newest(document: &Value, cell: fn(&Value) -> Option<String>) -> Option<String> {
    cell(document.pointer("/versions")?.as_array()?.last()?)
}

/// One field of every element, joined by commas.
fn joined(document: &Value, list: &str, path: &str) -> Option<String> {
    let all = document.pointer(list)?.as_array()?;
    let texts: Vec<_> = all.iter().filter_map(|v| text(v, path)).collect();
    (!texts.is_empty()).then(|| texts.join(","))
}

/// One number of every element, added up.
fn total(document: &Value, list: &str, path: &str) -> Option<String> {
    let all = document.pointer(list)?.as_array()?;
    let numbers = all.iter().filter_map(|v| v.pointer(path)?.as_u64());
    Some(numbers.sum::<u64>().to_string())
}

/// A share as percent with two decimals.
pub fn percent(document: &Value, path: &str) -> Option<String> {
    Some(format!(
        "{:.2} %",
        document.pointer(path)?.as_f64()? * 100.0
    ))
}

/// Bytes in MiB.
pub fn mib(document: &Value, path: &str) -> Option<String> {
    Some(format!(
        "{:.1} MiB",
        document.pointer(path)?.as_f64()? / f64::from(1 << 20)
    ))
}

/// Microseconds, as milliseconds from 1 ms on.
pub fn micros(document: &Value, path: &str) -> Option<String> {
    let us = document.pointer(path)?.as_f64()?;
    Some(if us < 1000.0 {
        format!("{us:.0} µs")
    } else {
        format!("{:.2} ms", us / 1000.0)
    })
}

/// Energy with its provenance and, where known, its standard error.
pub fn energy(document: &Value) -> Option<String> {
    // No figure is a statement too: its provenance is `unknown`.
    let Some(uj) = document.pointer("/energy_uj").and_then(Value::as_f64) else {
        return text(document, "/energy_provenance");
    };
    let error = document
        .pointer("/energy_standard_error_uj")
        .and_then(Value::as_f64);
    let error = error.map(|e| format!(" ± {e:.0}")).unwrap_or_default();
    let provenance = text(document, "/energy_provenance").unwrap_or_else(|| "unknown".to_owned());
    Some(format!("{uj:.0}{error} µJ ({provenance})"))
}

fn labels(document: &Value, path: &str) -> Option<String> {
    let all = document.pointer(path)?.as_object()?;
    let pairs = all
        .iter()
        .map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default()));
    Some(pairs.collect::<Vec<_>>().join(",")).filter(|joined| !joined.is_empty())
}

fn status(document: &Value) -> Option<String> {
    let is = |path| document.pointer(path).and_then(Value::as_bool);
    let status = match (is("/revoked"), is("/quarantined"), is("/connected")) {
        (Some(true), _, _) => "revoked",
        (_, Some(true), _) => "quarantined",
        (_, _, Some(true)) => "connected",
        (_, _, Some(false)) => "away",
        (_, _, None) => return None,
    };
    Some(status.to_owned())
}

fn power(document: &Value) -> Option<String> {
    let power = document.pointer("/conditions/power")?;
    if text(power, "/source")? == "mains" {
        return Some("mains".to_owned());
    }
    let charging = power.pointer("/charging").and_then(Value::as_bool) == Some(true);
    let sign = if charging { " charging" } else { "" };
    Some(format!("battery {} %{sign}", text(power, "/percent")?))
}

fn serves(document: &Value) -> Option<String> {
    let models = document.pointer("/models")?.as_array()?;
    let one = |m: &Value| {
        // A model's status may stand in the entry itself or in its field `status`.
        let at = |path: &str| field(m, &[path, &format!("/status{path}")]);
        let model = at("/model")?;
        match (at("/serving/version"), at("/serving/variant")) {
            (Some(version), Some(variant)) => Some(format!("{model}/{version}/{variant}")),
            _ => Some(format!("{model} ({})", at("/phase")?)),
        }
    };
    let all: Vec<_> = models.iter().filter_map(one).collect();
    (!all.is_empty()).then(|| all.join(", "))
}

/// Where the newest order for the agent stands, and why.
fn update(document: &Value) -> Option<String> {
    let ordered = document.pointer("/agent_order/number")?.as_u64()?;
    let told = document.pointer("/agent/order").and_then(Value::as_u64);
    let wanted = text(document, "/agent_order/release/version");
    let wanted = wanted.unwrap_or_else(|| "installed".to_owned());
    // What the device says of an order before this one tells nothing of this one.
    let phase = text(document, "/agent/phase").filter(|_| told == Some(ordered));
    let phase = phase.unwrap_or_else(|| "ordered".to_owned());
    let why = text(document, "/agent/why").filter(|_| told == Some(ordered));
    let why = why.map(|why| format!(": {why}")).unwrap_or_default();
    Some(format!("{wanted} {}{why}", phase.replace('_', " ")))
}

/// Architectures of a release.
fn archs(document: &Value) -> Option<String> {
    let all = document.pointer("/size_bytes")?.as_object()?;
    Some(all.keys().cloned().collect::<Vec<_>>().join(","))
}

fn wave(document: &Value) -> Option<String> {
    let now = document.pointer("/state/wave")?.as_u64()?;
    Some(format!(
        "{}/{}",
        now + 1,
        document.pointer("/waves")?.as_u64()?
    ))
}

fn done(document: &Value) -> Option<String> {
    let devices = document.pointer("/devices")?.as_array()?.len();
    Some(format!("{}/{devices}", text(document, "/succeeded")?))
}

/// Milliseconds since the Unix epoch as UTC, `2026-01-31T23:59:59Z`.
///
/// Civil date from a day count by shifting the year to begin in March, so that the leap day is
/// the last of its year.
pub fn instant(millis: u64) -> String {
    let seconds = millis / 1000;
    let (days, rest) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_are_civil_dates() {
        assert_eq!(instant(0), "1970-01-01T00:00:00Z");
        assert_eq!(instant(951_782_400_000), "2000-02-29T00:00:00Z");
        assert_eq!(instant(1_767_225_599_000), "2025-12-31T23:59:59Z");
    }
}
