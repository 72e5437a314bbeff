//! `top`.

use super::{Session, connect};
use crate::api::client::Item;
use crate::cli::args::{SortKey, Top, TopKind};
use crate::cli::columns::{energy, micros, text};
use crate::cli::error::CliError;
use crate::cli::output::{Grid, Output};
use sandpiper_proto::convert::{ListQuery, ResourceKind};
use serde_json::{Value, json};
use std::time::Duration;

/// Devices report every few seconds; more often would show the same figures.
const REFRESH: Duration = Duration::from_secs(2);

pub(super) async fn top(session: &mut Session<'_>, args: Top) -> Result<(), CliError> {
    let mut client = connect(session.context).await?;
    loop {
        let query = ListQuery {
            kind: ResourceKind::Devices,
            name: None,
            selector: None,
        };
        let mut rows = rows(&client.list(query).await?, args.kind);
        if let Some(key) = args.sort {
            rows.sort_by(|a, b| figure(b, key).total_cmp(&figure(a, key)));
        }
        session.show(&report(args.kind, &rows), args.output)?;
        if !args.watch {
            return Ok(());
        }
        tokio::time::sleep(REFRESH).await;
    }
}

/// One entry per device and model, with the device's name and the label of the line.
fn rows(devices: &[Item], kind: TopKind) -> Vec<Value> {
    let mut rows = Vec::new();
    for device in devices {
        let models = device.document.pointer("/models").and_then(Value::as_array);
        for model in models.into_iter().flatten() {
            // What was learned of the serving variant; a device that has not reported yet has none.
            let learned = model.pointer("/learned").filter(|l| l.is_object());
            let mut row = learned.cloned().unwrap_or_else(|| json!({}));
            let part = |path: &str| {
                text(model, &format!("/status{path}")).unwrap_or_else(|| "-".to_owned())
            };
            let served = format!(
                "{}/{}/{}",
                part("/model"),
                part("/serving/version"),
                part("/serving/variant")
            );
            if let Some(fields) = row.as_object_mut() {
                fields.insert("device".to_owned(), json!(device.name));
                fields.insert("served".to_owned(), json!(served));
            }
            rows.push(row);
        }
    }
    if kind == TopKind::Models {
        rows.sort_by_key(|row| (text(row, "/served"), text(row, "/device")));
    }
    rows
}

fn figure(row: &Value, key: SortKey) -> f64 {
    let path = match key {
        SortKey::Latency => "/latency_us_p95",
        SortKey::Energy => "/energy_uj",
        SortKey::Inferences => "/inferences",
        SortKey::Errors => "/errors",
    };
    row.pointer(path).and_then(Value::as_f64).unwrap_or(-1.0)
}

fn report(kind: TopKind, rows: &[Value]) -> Output {
    let (first, second, name) = match kind {
        TopKind::Devices => ("DEVICE", "SERVES", "devices"),
        TopKind::Models => ("SERVES", "DEVICE", "models"),
    };
    let mut table = Grid::new(&[
        first,
        second,
        "P50",
        "P95",
        "ENERGY",
        "INFERENCES",
        "ERRORS",
    ]);
    let dash = |cell: Option<String>| cell.unwrap_or_else(|| "-".to_owned());
    for row in rows {
        let mut names = [dash(text(row, "/device")), dash(text(row, "/served"))];
        if kind == TopKind::Models {
            names.reverse();
        }
        let figures = [
            micros(row, "/latency_us_p50"),
            micros(row, "/latency_us_p95"),
            energy(row),
            text(row, "/inferences"),
            text(row, "/errors"),
        ];
        table
            .rows
            .push(names.into_iter().chain(figures.map(dash)).collect());
    }
    Output::Report {
        name: name.to_owned(),
        document: json!(rows),
        table,
        notes: Vec::new(),
    }
}
