//! What a rollout shall do, from flags or from a file.

use crate::cli::args::RolloutArgs;
use crate::cli::error::CliError;
use crate::cli::parse;
use sandpiper_core::rollout::{Gates, RolloutSpec};
use serde_json::Value;
use std::time::Duration;

/// The rollout that was asked for.
///
/// # Errors
/// [`CliError::File`], [`CliError::Content`].
pub(super) fn read(args: &RolloutArgs) -> Result<RolloutSpec, CliError> {
    let Some(path) = &args.policy else {
        return Ok(of_flags(args));
    };
    let text = std::fs::read_to_string(path).map_err(|source| CliError::File {
        what: "read",
        path: path.clone(),
        source,
    })?;
    of_text(args, &text).map_err(|why| CliError::Content {
        path: path.clone(),
        why,
    })
}

/// A file says how, never what and whither.
fn of_text(args: &RolloutArgs, text: &str) -> Result<RolloutSpec, String> {
    let mut policy: Value = serde_norway::from_str(text).map_err(|e| e.to_string())?;
    let Some(fields) = policy.as_object_mut() else {
        return Err("a rollout policy is a mapping, for example `bake_s: 60`".to_owned());
    };
    for (key, value) in [
        ("deployment", args.deployment.to_string()),
        ("version", args.version.to_string()),
    ] {
        if fields
            .insert(key.to_owned(), Value::String(value))
            .is_some()
        {
            return Err(format!(
                "`{key}` is given on the command line, not in the file"
            ));
        }
    }
    serde_json::from_value(policy).map_err(|e| e.to_string())
}

fn of_flags(args: &RolloutArgs) -> RolloutSpec {
    let waves = match args.equal {
        Some(count) => parse::equal_waves(count),
        None => args.waves.clone(),
    };
    // Whole seconds; a part of one counts as one, so that a short deadline is not none.
    let seconds = |d: Duration| d.as_secs() + u64::from(d.subsec_nanos() > 0);
    let given = [
        args.max_latency_rise,
        args.max_energy_rise,
        args.max_error_rise,
        args.max_trap_rise,
        args.max_nan_rise,
        args.max_constant_rise,
        args.max_class_shift,
        args.max_confidence_shift,
        args.max_disagreement,
    ];
    let usual = Gates::default();
    let gates = Gates {
        latency_p95_percent: args.max_latency_rise,
        energy_percent: args.max_energy_rise,
        errors_permille: args.max_error_rise,
        traps_per_million: args.max_trap_rise,
        nonfinite_permille: args.max_nan_rise.or(usual.nonfinite_permille),
        constant_permille: args.max_constant_rise.or(usual.constant_permille),
        classes_percent: args.max_class_shift,
        confidence_percent: args.max_confidence_shift,
        disagreement_percent: args.max_disagreement,
        min_devices: args.gate_devices,
        ..usual
    };
    RolloutSpec {
        deployment: args.deployment.clone(),
        version: args.version.clone(),
        waves,
        wave_deadline_s: seconds(args.deadline),
        bake_s: seconds(args.bake),
        max_failures: args.max_failures,
        min_inferences: args.min_inferences,
        max_in_flight: args.max_in_flight,
        disruption: args.budget.clone(),
        gates: given.iter().any(Option::is_some).then_some(gates),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Program {
        #[command(flatten)]
        args: RolloutArgs,
    }

    fn args(line: &str) -> RolloutArgs {
        Program::try_parse_from(line.split(' ')).unwrap().args
    }

    #[test]
    fn a_file_says_the_same_as_flags() {
        let flags = args(
            "start activity --version v2 --wave 1 --wave 30% --deadline 1h --bake 60s \
             --max-in-flight 4 --budget site=2 --max-latency-rise 10 --max-disagreement 5 --max-nan-rise 2 --gate-devices 2"
                .split_whitespace()
                .collect::<Vec<_>>()
                .join(" ")
                .as_str(),
        );
        let text = "
            waves: [{count: 1}, {percent: 30}]
            wave_deadline_s: 3600
            bake_s: 60
            max_in_flight: 4
            disruption: {group_by: site, max_unavailable: 2}
            gates: {latency_p95_percent: 10, disagreement_percent: 5, nonfinite_permille: 2, min_devices: 2}
        ";
        let file = of_text(&args("start activity --version v2"), text).unwrap();
        assert_eq!(file, of_flags(&flags));
    }

    #[test]
    fn a_file_with_mistakes_is_refused_with_the_reason() {
        let args = args("start activity --version v2");
        for (text, why) in [
            ("bake: 60", "unknown field `bake`"),
            ("gates: {latency: 10}", "unknown field `latency`"),
            ("version: v3", "`version` is given on the command line"),
            ("- 1", "is a mapping"),
        ] {
            let found = of_text(&args, text).unwrap_err();
            assert!(found.contains(why), "{text}: {found}");
        }
    }
}
