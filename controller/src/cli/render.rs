//! Writes results: table, wide, JSON, YAML, names.

use super::args::Format;
use super::columns;
use super::error::CliError;
use super::output::{Grid, Output};
use serde_json::Value;
use std::io::Write;

/// Writes a result in a format.
///
/// # Errors
/// [`CliError::Output`] when the writer fails.
pub fn render(out: &mut dyn Write, output: &Output, format: Format) -> Result<(), CliError> {
    match (output, format) {
        (Output::Line(line), _) => writeln!(out, "{line}")?,
        (Output::Resources { kind, items, .. }, Format::Table | Format::Wide) => {
            let all = columns::of(*kind);
            let shown: Vec<_> = all
                .iter()
                .filter(|c| !c.wide || format == Format::Wide)
                .collect();
            let header = shown.iter().map(|c| c.title.to_owned()).collect();
            let rows = items
                .iter()
                .map(|item| shown.iter().map(|c| c.cell(item)).collect())
                .collect();
            grid(out, &Grid { header, rows })?;
        }
        (Output::Resources { kind, items, .. }, Format::Name) => {
            let kind = kind.name().trim_end_matches('s');
            for item in items {
                writeln!(out, "{kind}/{}", item.name)?;
            }
        }
        (Output::Resources { items, single, .. }, Format::Json | Format::Yaml) => {
            let mut documents: Vec<_> = items.iter().map(|item| item.document.clone()).collect();
            let value = match (single, documents.len()) {
                (true, 1) => documents.swap_remove(0),
                _ => Value::Array(documents),
            };
            document(out, &value, format)?;
        }
        (Output::Report { table, notes, .. }, Format::Table | Format::Wide) => {
            grid(out, table)?;
            for note in notes {
                writeln!(out, "{note}")?;
            }
        }
        (Output::Report { name, .. }, Format::Name) => writeln!(out, "{name}")?,
        (
            Output::Report {
                document: value, ..
            },
            Format::Json | Format::Yaml,
        ) => {
            document(out, value, format)?;
        }
    }
    Ok(())
}

fn document(out: &mut dyn Write, value: &Value, format: Format) -> Result<(), CliError> {
    let text = match format {
        Format::Yaml => {
            serde_norway::to_string(value).map_err(|e| CliError::Answer(e.to_string()))?
        }
        _ => format!("{value:#}\n"),
    };
    Ok(out.write_all(text.as_bytes())?)
}

/// Columns as wide as their widest cell, two blanks between them, none behind the last.
fn grid(out: &mut dyn Write, grid: &Grid) -> Result<(), CliError> {
    let all = || std::iter::once(&grid.header).chain(&grid.rows);
    let width = |column: usize| {
        all()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
    };
    let widths: Vec<usize> = (0..grid.header.len())
        .map(|c| width(c).unwrap_or(0))
        .collect();
    for row in all() {
        let cells = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"));
        let line = cells.collect::<Vec<_>>().join("  ");
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::api::client::Item;
    use sandpiper_proto::convert::ResourceKind;
    use serde_json::json;

    fn shown(output: &Output, format: Format) -> String {
        let mut out = Vec::new();
        render(&mut out, output, format).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn devices() -> Output {
        let document = json!({
            "connected": true, "revoked": false, "labels": {"app": "activity"},
            "profile": {"board": "Raspberry Pi 4", "ram_total_bytes": 1_073_741_824u64, "cores": 4},
            "conditions": {"power": {"source": "battery", "percent": 61, "charging": false}},
            "models": [{"model": "activity", "phase": "serving",
                        "serving": {"version": "v1", "variant": "small-int8"}}],
        });
        let away = json!({"connected": false});
        let item = |name: &str, document| Item {
            name: name.to_owned(),
            document,
        };
        let items = vec![item("pi-1", document), item("pi-long-name", away)];
        Output::Resources {
            kind: ResourceKind::Devices,
            items,
            single: false,
        }
    }

    #[test]
    fn a_table_of_devices() {
        insta::assert_snapshot!(shown(&devices(), Format::Table), @r"
        NAME          STATUS     BOARD           RAM         POWER         SERVES
        pi-1          connected  Raspberry Pi 4  1024.0 MiB  battery 61 %  activity/v1/small-int8
        pi-long-name  away       -               -           -             -
        ");
    }

    #[test]
    fn names_and_documents() {
        insta::assert_snapshot!(shown(&devices(), Format::Name), @r"
        device/pi-1
        device/pi-long-name
        ");
        let line = shown(&Output::Line("ok".to_owned()), Format::Json);
        assert_eq!(line, "ok\n");
        let parsed: Value = serde_json::from_str(&shown(&devices(), Format::Json)).unwrap();
        assert_eq!(parsed[1]["connected"], false);
        assert!(shown(&devices(), Format::Yaml).starts_with("- conditions:"));
    }

    #[test]
    fn a_table_of_rollouts() {
        let document = json!({
            "deployment": "activity", "version": "v2", "waves": 2, "succeeded": 1,
            "state": {"state": "running", "wave": 0},
            "devices": [{"device": "a"}, {"device": "b"}],
        });
        let items = vec![Item {
            name: "activity-2".to_owned(),
            document,
        }];
        let output = Output::Resources {
            kind: ResourceKind::Rollouts,
            items,
            single: true,
        };
        insta::assert_snapshot!(shown(&output, Format::Table), @r"
        NAME        DEPLOYMENT  VERSION  STATE    WAVE  DONE
        activity-2  activity    v2       running  1/2   1/2
        ");
    }
}
