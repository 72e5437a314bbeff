//! Small texts of the command line: labels, durations, waves, `TYPE/NAME`.

use super::error::CliError;
use sandpiper_core::policy::{LabelError, Labels, check_label_key, check_label_value};
use sandpiper_core::rollout::{DisruptionBudget, WaveSize};
use std::collections::BTreeMap;
use std::time::Duration;

fn usage(text: impl Into<String>) -> CliError {
    CliError::Usage(text.into())
}

/// `10m`, `90s`, `1h`, `2d`, `250ms`; a bare number is seconds.
///
/// # Errors
/// A message that shows how to write one.
pub fn duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("`{text}` is not a duration: write 250ms, 30s, 10m, 2h or 1d");
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let number: u64 = text[..digits].parse().map_err(|_| bad())?;
    let millis = match &text[digits..] {
        "ms" => Some(number),
        "" | "s" => number.checked_mul(1000),
        "m" => number.checked_mul(60_000),
        "h" => number.checked_mul(3_600_000),
        "d" => number.checked_mul(86_400_000),
        _ => None,
    };
    millis.map(Duration::from_millis).ok_or_else(bad)
}

/// `34%`, `5`, `double:1` or `site=lab`.
///
/// # Errors
/// A message that shows how to write one.
pub fn wave(text: &str) -> Result<WaveSize, String> {
    let bad = || {
        format!(
            "`{text}` is not a wave: write a share such as 34%, a number of devices such as 5, double:1, or labels such as site=lab"
        )
    };
    if let Some(first) = text.strip_prefix("double:") {
        return match first.parse() {
            Ok(count @ 1..) => Ok(WaveSize::Double(count)),
            _ => Err(bad()),
        };
    }
    if text.contains('=') || text.starts_with('!') {
        let selector = text.parse().map_err(|e: LabelError| e.to_string())?;
        return Ok(WaveSize::Selector(selector));
    }
    match text.strip_suffix('%') {
        Some(share) => match share.parse() {
            Ok(percent @ 1..=100) => Ok(WaveSize::Percent(percent)),
            _ => Err(bad()),
        },
        None => match text.parse() {
            Ok(count @ 1..) => Ok(WaveSize::Count(count)),
            _ => Err(bad()),
        },
    }
}

/// A disruption budget, `LABEL=N`.
///
/// # Errors
/// A message that shows how to write one.
pub fn budget(text: &str) -> Result<DisruptionBudget, String> {
    let bad = || {
        format!("`{text}` is not a budget: write a label and a number of devices such as site=2")
    };
    let (key, count) = text.split_once('=').ok_or_else(bad)?;
    check_label_key(key).map_err(|e| e.to_string())?;
    match count.parse() {
        Ok(max_unavailable @ 1..) => Ok(DisruptionBudget {
            group_by: key.to_owned(),
            max_unavailable,
        }),
        _ => Err(bad()),
    }
}

/// `count` waves of equal share.
pub fn equal_waves(count: u8) -> Vec<WaveSize> {
    let share = |wave: u32| (wave * 100).div_ceil(u32::from(count)) as u8;
    (1..=u32::from(count))
        .map(|wave| WaveSize::Percent(share(wave)))
        .collect()
}

/// `key=value`, once each.
///
/// # Errors
/// [`CliError::Usage`] naming the malformed one.
pub fn labels(texts: &[String]) -> Result<Labels, CliError> {
    let mut labels = Labels::new();
    for text in texts {
        let (key, value) = text
            .split_once('=')
            .ok_or_else(|| usage(format!("`{text}` is not a label: write key=value")))?;
        put(&mut labels, key, value)?;
    }
    Ok(labels)
}

fn put(labels: &mut Labels, key: &str, value: &str) -> Result<(), CliError> {
    check_label_key(key).map_err(|e| usage(e.to_string()))?;
    check_label_value(value).map_err(|e| usage(e.to_string()))?;
    match labels.insert(key.to_owned(), value.to_owned()) {
        Some(_) => Err(usage(format!("label `{key}` is given twice"))),
        None => Ok(()),
    }
}

/// Labels to set (`key=value`) and keys to remove (`key-`).
///
/// # Errors
/// [`CliError::Usage`] naming the malformed one.
pub fn label_changes(texts: &[String]) -> Result<(Labels, Vec<String>), CliError> {
    let (mut set, mut remove) = (Labels::new(), Vec::new());
    for text in texts {
        match (text.split_once('='), text.strip_suffix('-')) {
            (Some((key, value)), _) => put(&mut set, key, value)?,
            (None, Some(key)) => {
                check_label_key(key).map_err(|e| usage(e.to_string()))?;
                remove.push(key.to_owned());
            }
            (None, None) => {
                return Err(usage(format!(
                    "`{text}` changes no label: write key=value, or key- to remove it"
                )));
            }
        }
    }
    match remove.iter().find(|key| set.contains_key(*key)) {
        Some(key) => Err(usage(format!("label `{key}` is both set and removed"))),
        None => Ok((set, remove)),
    }
}

/// `NAME=VALUE` pairs, once each.
///
/// # Errors
/// [`CliError::Usage`] naming the malformed one.
pub fn pairs(flag: &str, texts: &[String]) -> Result<BTreeMap<String, String>, CliError> {
    let mut pairs = BTreeMap::new();
    for text in texts {
        let (name, value) = text
            .split_once('=')
            .filter(|(name, value)| !name.is_empty() && !value.is_empty())
            .ok_or_else(|| usage(format!("`{text}` after {flag} must be NAME=VALUE")))?;
        if pairs.insert(name.to_owned(), value.to_owned()).is_some() {
            return Err(usage(format!("`{name}` is given twice after {flag}")));
        }
    }
    Ok(pairs)
}

/// `input=4x6x128`, with `N` for the batch.
///
/// # Errors
/// [`CliError::Usage`] naming the malformed one.
pub fn shapes(texts: &[String]) -> Result<BTreeMap<String, Vec<Option<u32>>>, CliError> {
    let mut shapes = BTreeMap::new();
    for (name, value) in pairs("--shape", texts)? {
        let dim = |text: &str| match text {
            "N" | "?" => Ok(None),
            number => match number.parse() {
                Ok(n @ 1..) => Ok(Some(n)),
                _ => Err(usage(format!(
                    "`{value}` is not a shape: write for example 4x6x128 or Nx6x128"
                ))),
            },
        };
        let dims = value.split('x').map(dim).collect::<Result<_, _>>()?;
        shapes.insert(name, dims);
    }
    Ok(shapes)
}

/// The name behind `kind/`; a bare name is taken as it is.
///
/// # Errors
/// [`CliError::Usage`] when it is of another kind or empty.
pub fn name_of<'a>(kind: &str, text: &'a str) -> Result<&'a str, CliError> {
    let (own, name) = text.split_once('/').unwrap_or((kind, text));
    let singular = own.strip_suffix('s').unwrap_or(own);
    if singular != kind || name.is_empty() {
        return Err(usage(format!(
            "`{text}` is not a {kind}: write {kind}/NAME"
        )));
    }
    Ok(name)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn texts(all: &[&str]) -> Vec<String> {
        all.iter().map(|t| (*t).to_owned()).collect()
    }

    #[test]
    fn budgets() {
        let site = budget("site=2").unwrap();
        assert_eq!((site.group_by.as_str(), site.max_unavailable), ("site", 2));
        for bad in ["site", "site=0", "site=-1", "=1", "site=many"] {
            assert!(budget(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn durations() {
        assert_eq!(duration("10m").unwrap(), Duration::from_secs(600));
        assert_eq!(duration("7").unwrap(), Duration::from_secs(7));
        assert_eq!(duration("250ms").unwrap(), Duration::from_millis(250));
        for bad in [
            "",
            "m",
            "-1s",
            "1.5h",
            "10 m",
            "99999999999999999999s",
            "18446744073709551615d",
        ] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn waves() {
        assert_eq!(wave("34%").unwrap(), WaveSize::Percent(34));
        assert_eq!(wave("5").unwrap(), WaveSize::Count(5));
        assert_eq!(wave("double:2").unwrap(), WaveSize::Double(2));
        let lab = "site=lab,floor".parse().unwrap();
        assert_eq!(wave("site=lab,floor").unwrap(), WaveSize::Selector(lab));
        for bad in [
            "0", "0%", "101%", "x", "-1", "%", "double:0", "double:", "=lab",
        ] {
            assert!(wave(bad).is_err(), "{bad}");
        }
        assert_eq!(equal_waves(3), [34, 67, 100].map(WaveSize::Percent));
    }

    #[test]
    fn labels_are_checked() {
        assert_eq!(labels(&texts(&["a=b", "c="])).unwrap().len(), 2);
        for bad in [&["a"][..], &["=x"], &["a=b c"], &["a=1", "a=2"]] {
            assert!(
                matches!(labels(&texts(bad)), Err(CliError::Usage(_))),
                "{bad:?}"
            );
        }
    }

    #[test]
    fn label_changes_set_and_remove() {
        let (set, remove) = label_changes(&texts(&["a=b", "old-"])).unwrap();
        assert_eq!((set["a"].as_str(), remove), ("b", vec!["old".to_owned()]));
        assert!(label_changes(&texts(&["a=b", "a-"])).is_err());
        assert!(label_changes(&texts(&["plain"])).is_err());
    }

    #[test]
    fn shapes_and_names() {
        let parsed = shapes(&texts(&["input=Nx6x128"])).unwrap();
        assert_eq!(parsed["input"], [None, Some(6), Some(128)]);
        assert!(shapes(&texts(&["input=4x0"])).is_err());
        assert_eq!(name_of("device", "device/pi-1").unwrap(), "pi-1");
        assert_eq!(name_of("device", "devices/pi-1").unwrap(), "pi-1");
        assert_eq!(name_of("device", "pi-1").unwrap(), "pi-1");
        assert!(name_of("device", "model/x").is_err());
        assert!(name_of("device", "device/").is_err());
    }
}
