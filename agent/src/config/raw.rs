//! The configuration as it is written (TOML), unchecked.

use serde::Deserialize;
use std::collections::BTreeSet;
use std::path::PathBuf;

/// The whole file. Unknown keys are refused, so that a typing mistake is not ignored.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawConfig {
    pub(super) state_dir: Option<PathBuf>,
    pub(super) zone: Option<String>,
    pub(super) serve: RawServe,
    pub(super) roots: RawRoots,
    pub(super) emulate: Option<RawEmulate>,
    pub(super) telemetry: RawTelemetry,
    pub(super) power: RawPower,
    pub(super) update: RawUpdate,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawServe {
    pub(super) listen: Option<String>,
    pub(super) max_body_bytes: Option<i64>,
    pub(super) workers: Option<i64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawRoots {
    pub(super) sysfs: Option<PathBuf>,
    pub(super) procfs: Option<PathBuf>,
    pub(super) powercap: Option<PathBuf>,
    pub(super) localtime: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawEmulate {
    pub(super) board: Option<String>,
    pub(super) soc: Option<String>,
    pub(super) ram_total_bytes: Option<i64>,
    pub(super) ram_available_bytes: Option<i64>,
    pub(super) cores: Option<i64>,
    pub(super) cpu_features: Option<BTreeSet<String>>,
    pub(super) dtypes: Option<Vec<String>>,
    pub(super) clock_offset_s: Option<i64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawTelemetry {
    pub(super) window_s: Option<i64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawPower {
    pub(super) poll_s: Option<i64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawUpdate {
    pub(super) accept: Option<bool>,
    pub(super) within_s: Option<i64>,
}
