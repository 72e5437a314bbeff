//! What differs between two rollouts.

use crate::api::client::Item;
use crate::cli::columns::text;
use crate::cli::output::{Grid, Output};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// A row per part of the request and per device that is not the same.
pub(super) fn diff(old: &Item, new: &Item) -> Output {
    let mut table = Grid::new(&["WHAT", &old.name.to_uppercase(), &new.name.to_uppercase()]);
    let (before, after) = (facts(&old.document), facts(&new.document));
    let names: BTreeSet<_> = before.keys().chain(after.keys()).collect();
    let mut changes = Vec::new();
    for name in names {
        let (was, is) = (before.get(name), after.get(name));
        if was != is {
            let cell = |fact: Option<&String>| fact.cloned().unwrap_or_else(|| "-".to_owned());
            table.rows.push(vec![name.clone(), cell(was), cell(is)]);
            changes.push(json!({ "what": name, "before": was, "after": is }));
        }
    }
    let notes = match changes.is_empty() {
        true => vec![format!("{} and {} are the same", old.name, new.name)],
        false => Vec::new(),
    };
    Output::Report {
        name: format!("rollout/{}", new.name),
        document: Value::Array(changes),
        table,
        notes,
    }
}

fn facts(document: &Value) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    if let Some(spec) = document.get("spec") {
        flatten("", spec, &mut all);
    }
    let devices = document.pointer("/devices").and_then(Value::as_array);
    for device in devices.into_iter().flatten() {
        let part = |path: &str| text(device, path).unwrap_or_else(|| "-".to_owned());
        let fact = format!("wave {}, {}", part("/wave"), part("/ladder/rungs/mains"));
        all.insert(format!("device/{}", part("/device")), fact);
    }
    all
}

fn flatten(path: &str, value: &Value, all: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                let path = match path {
                    "" => key.clone(),
                    path => format!("{path}.{key}"),
                };
                flatten(&path, value, all);
            }
        }
        Value::Null => {}
        Value::String(text) => drop(all.insert(path.to_owned(), text.clone())),
        other => drop(all.insert(path.to_owned(), other.to_string())),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::cli::args::Format;
    use crate::cli::render::render;

    fn item(name: &str, spec: Value, devices: Value) -> Item {
        Item {
            name: name.to_owned(),
            document: json!({ "spec": spec, "devices": devices }),
        }
    }

    fn shown(output: &Output) -> String {
        let mut out = Vec::new();
        render(&mut out, output, Format::Table).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn what_differs_is_shown() {
        let device = |name: &str, variant: &str| json!({ "device": name, "wave": 1, "ladder": { "rungs": { "mains": variant } } });
        let old = item(
            "activity-1",
            json!({ "version": "v1", "bake_s": 30 }),
            json!([device("pi-1", "large"), device("pi-2", "tiny")]),
        );
        let new = item(
            "activity-2",
            json!({ "version": "v2", "bake_s": 30, "gates": { "energy_percent": 10 } }),
            json!([
                device("pi-1", "small"),
                device("pi-2", "tiny"),
                device("pi-3", "tiny")
            ]),
        );
        insta::assert_snapshot!(shown(&diff(&old, &new)), @r"
        WHAT                  ACTIVITY-1     ACTIVITY-2
        device/pi-1           wave 1, large  wave 1, small
        device/pi-3           -              wave 1, tiny
        gates.energy_percent  -              10
        version               v1             v2
        ");
        assert!(shown(&diff(&old, &old)).contains("are the same"));
    }
}
