//! A rollout policy as a file. All of its mistakes are found at once: of names, of types and of
//! sense.

use sandpiper_core::rollout::RolloutSpec;
use serde_json::{Map, Value};
use std::path::Path;

/// How a file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Yaml,
    Toml,
}

impl Format {
    /// By the end of the file's name: TOML, or YAML.
    pub(super) fn of(path: &Path) -> Self {
        match path.extension().is_some_and(|end| end == "toml") {
            true => Self::Toml,
            false => Self::Yaml,
        }
    }

    fn parse(self, text: &str) -> Result<Value, String> {
        match self {
            Self::Yaml => serde_norway::from_str(text).map_err(|e| e.to_string()),
            Self::Toml => toml::from_str(text).map_err(|e| e.to_string()),
        }
    }
}

/// What a file says of the rollout of `whole`, which names deployment and version.
///
/// # Errors
/// Every mistake, each with the place that it is at.
pub(super) fn read(
    whole: &RolloutSpec,
    text: &str,
    format: Format,
) -> Result<RolloutSpec, Vec<String>> {
    let mut policy = match format.parse(text).map_err(|why| vec![why])? {
        Value::Object(fields) => fields,
        Value::Null => Map::new(),
        _ => {
            let why = "a rollout policy is a mapping, for example `bake_s: 60`";
            return Err(vec![why.to_owned()]);
        }
    };
    let mut mistakes = Vec::new();
    let fixed = [
        ("deployment", Value::String(whole.deployment.to_string())),
        ("version", Value::String(whole.version.to_string())),
    ];
    for (key, _) in &fixed {
        if policy.remove(*key).is_some() {
            mistakes.push(format!(
                "{key}: is given on the command line, not in the file"
            ));
        }
    }
    let parse = |fields: Map<String, Value>| {
        let fixed = fixed.iter().map(|(k, v)| ((*k).to_owned(), v.clone()));
        let all = Value::Object(fields.into_iter().chain(fixed).collect());
        serde_json::from_value::<RolloutSpec>(all).map_err(|e| e.to_string())
    };
    let mut good = Map::new();
    for (key, value) in policy {
        let alone = |value: Value| {
            let entry = [(key.clone(), value)];
            parse(entry.into_iter().collect()).err()
        };
        let found = wrong(&key, &value, &alone);
        match found.is_empty() {
            true => drop(good.insert(key.clone(), value)),
            false => mistakes.extend(found),
        }
    }
    // Each field is right by itself, and none depends on another.
    let spec = parse(good).map_err(|why| vec![why])?;
    mistakes.extend(spec.mistakes().iter().map(ToString::to_string));
    match mistakes.is_empty() {
        true => Ok(spec),
        false => Err(mistakes),
    }
}

/// What is wrong with one entry, with the parts of it that are, as far as they can be told apart.
fn wrong(path: &str, value: &Value, alone: &dyn Fn(Value) -> Option<String>) -> Vec<String> {
    let Some(why) = alone(value.clone()) else {
        return Vec::new();
    };
    let parts: Vec<String> = match value {
        Value::Object(fields) => fields
            .iter()
            .flat_map(|(key, part)| {
                let within = |part: Value| {
                    let entry = [(key.clone(), part)].into_iter().collect();
                    // What is missing beside it is not the fault of this part.
                    alone(Value::Object(entry)).filter(|why| !why.starts_with("missing field"))
                };
                wrong(&format!("{path}.{key}"), part, &within)
            })
            .collect(),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .flat_map(|(index, item)| {
                let within = |item: Value| alone(Value::Array(vec![item]));
                wrong(&format!("{path}[{}]", index + 1), item, &within)
            })
            .collect(),
        _ => Vec::new(),
    };
    match parts.is_empty() {
        true => vec![format!("{path}: {why}")],
        false => parts,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn mistakes(text: &str) -> Vec<String> {
        let whole = RolloutSpec::new("activity".parse().unwrap(), "v2".parse().unwrap());
        read(&whole, text, Format::Yaml).unwrap_err()
    }

    #[test]
    fn all_mistakes_are_reported_together_with_their_places() {
        let text = "
            version: v3
            bake: 60
            max_failures: many
            waves: [{count: 1}, {sites: lab}, {percent: 300}]
            gates: {latency: 10, energy_percent: -1, min_devices: 1}
            disruption: {group_by: site}
            windows: {download: ['22-06'], switch: ['02:00-04:00'], wait: 5}
            deadlines: {fetch_s: 0}
            max_in_flight: 0
        ";
        let found = mistakes(text);
        for (place, why) in [
            ("version: ", "command line"),
            ("bake: ", "unknown field `bake`"),
            ("max_failures: ", "expected u32"),
            ("waves[2].sites: ", "unknown variant `sites`"),
            ("waves[3].percent: ", "expected u8"),
            ("gates.latency: ", "unknown field `latency`"),
            ("gates.energy_percent: ", "invalid value"),
            ("disruption: ", "missing field `max_unavailable`"),
            ("windows.download[1]: ", "`22-06` is no window"),
            ("windows.wait: ", "unknown field `wait`"),
            ("deadlines.fetch_s is 0", "every device would fail"),
            ("max_in_flight is 0", "no device could ever move"),
        ] {
            let there = found
                .iter()
                .any(|m| m.starts_with(place) && m.contains(why));
            assert!(there, "{place} {why}: {found:#?}");
        }
        assert_eq!(found.len(), 12, "{found:#?}");
    }

    #[test]
    fn an_empty_file_asks_for_the_defaults_and_a_list_for_nothing() {
        let whole = RolloutSpec::new("activity".parse().unwrap(), "v2".parse().unwrap());
        assert_eq!(read(&whole, "", Format::Yaml), Ok(whole.clone()));
        assert_eq!(read(&whole, "", Format::Toml), Ok(whole));
        assert!(mistakes("- 1")[0].contains("is a mapping"));
        assert_eq!(mistakes("a: [").len(), 1);
    }
}
