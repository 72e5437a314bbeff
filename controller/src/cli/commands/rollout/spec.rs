//! What a rollout shall do, from flags or from a file.

use super::file;
use crate::cli::args::RolloutArgs;
use crate::cli::error::CliError;
use crate::cli::parse;
use sandpiper_core::bandwidth::Bandwidth;
use sandpiper_core::rollout::{Approval, Deadlines, Gates, RolloutSpec, Windows};
use std::time::Duration;

/// The rollout that was asked for.
///
/// # Errors
/// [`CliError::File`], [`CliError::Content`].
pub(super) fn read(args: &RolloutArgs) -> Result<RolloutSpec, CliError> {
    let Some(path) = &args.policy else {
        return Ok(of_flags(args));
    };
    let format = file::Format::of(path);
    let text = std::fs::read_to_string(path).map_err(|source| CliError::File {
        what: "read",
        path: path.clone(),
        source,
    })?;
    of_text(args, &text, format).map_err(|why| CliError::Content {
        path: path.clone(),
        why,
    })
}

/// A file says how, never what and whither. Every mistake of it is reported.
fn of_text(args: &RolloutArgs, text: &str, format: file::Format) -> Result<RolloutSpec, String> {
    let spec = RolloutSpec::new(args.deployment.clone(), args.version.clone());
    file::read(&spec, text, format).map_err(|mistakes| mistakes.join("\n  "))
}

fn of_flags(args: &RolloutArgs) -> RolloutSpec {
    let waves = match args.equal {
        Some(count) => parse::equal_waves(count),
        None => args.waves.clone(),
    };
    // Whole seconds; a part of one counts as one, so that a short deadline is not none.
    let seconds = |d: Duration| d.as_secs() + u64::from(d.subsec_nanos() > 0);
    let gates = Gates {
        latency_p95_percent: args.max_latency_rise,
        energy_percent: args.max_energy_rise,
        errors_permille: args.max_error_rise,
        traps_per_million: args.max_trap_rise,
        min_devices: args.gate_devices,
        ..Gates::default()
    };
    let limits = [
        gates.latency_p95_percent,
        gates.energy_percent,
        gates.errors_permille,
        gates.traps_per_million,
    ];
    let windowed = !(args.download_windows.is_empty() && args.switch_windows.is_empty());
    let bounded = args.bandwidth.is_some() || args.group_bandwidth.is_some();
    RolloutSpec {
        waves,
        wave_deadline_s: seconds(args.deadline),
        bake_s: seconds(args.bake),
        max_failures: args.max_failures,
        min_inferences: args.min_inferences,
        max_in_flight: args.max_in_flight,
        disruption: args.budget.clone(),
        gates: limits.iter().any(Option::is_some).then_some(gates),
        approval: args.approve.clone().map(|waves| Approval {
            waves,
            by: args.approvers.clone(),
        }),
        deadlines: Deadlines {
            fetch_s: args.fetch_deadline.map(seconds),
            switch_s: args.switch_deadline.map(seconds),
            prove_s: args.prove_deadline.map(seconds),
        },
        windows: windowed.then(|| Windows {
            wait_s: seconds(args.window_wait),
            ..Windows::new(args.download_windows.clone(), args.switch_windows.clone())
        }),
        bandwidth: bounded.then(|| Bandwidth {
            bytes_per_s: args.bandwidth,
            per_group: args.group_bandwidth.clone(),
        }),
        ..RolloutSpec::new(args.deployment.clone(), args.version.clone())
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

    const FLAGS: &str = "start activity --version v2 --wave 1 --wave site=lab --wave double:2 \
        --deadline 1h --bake 60s --max-failures 1 --min-inferences 5 --max-in-flight 4 \
        --budget site=2 --max-latency-rise 10 --gate-devices 2 --approve after-first \
        --approver anna --fetch-deadline 30m --switch-deadline 5m --prove-deadline 20m \
        --window-wait 2d --bandwidth 10MB --group-bandwidth site=1MB";

    /// Windows hold blanks, so they are put in here.
    fn flags() -> RolloutArgs {
        let mut words: Vec<&str> = FLAGS.split_whitespace().collect();
        words.extend(["--download-window", "20:00-06:00"]);
        words.extend(["--switch-window", "mon-fri 02:00-04:00"]);
        words.extend(["--switch-window", "sat,sun 00:00-24:00"]);
        Program::try_parse_from(words).unwrap().args
    }

    #[test]
    fn a_file_says_the_same_as_flags() {
        let yaml = "
            waves: [{count: 1}, {selector: 'site=lab'}, {double: 2}]
            wave_deadline_s: 3600
            bake_s: 60
            max_failures: 1
            min_inferences: 5
            max_in_flight: 4
            disruption: {group_by: site, max_unavailable: 2}
            gates: {latency_p95_percent: 10, min_devices: 2}
            approval: {waves: after-first, by: [anna]}
            deadlines: {fetch_s: 1800, switch_s: 300, prove_s: 1200}
            windows:
              download: ['20:00-06:00']
              switch: ['mon-fri 02:00-04:00', 'sat,sun 00:00-24:00']
              wait_s: 172800
            bandwidth: {bytes_per_s: 10000000, per_group: {group_by: site, bytes_per_s: 1000000}}
        ";
        let toml = r#"
            waves = [{ count = 1 }, { selector = "site=lab" }, { double = 2 }]
            wave_deadline_s = 3600
            bake_s = 60
            max_failures = 1
            min_inferences = 5
            max_in_flight = 4
            disruption = { group_by = "site", max_unavailable = 2 }
            gates = { latency_p95_percent = 10, min_devices = 2 }
            approval = { waves = "after-first", by = ["anna"] }
            deadlines = { fetch_s = 1800, switch_s = 300, prove_s = 1200 }
            [windows]
            download = ["20:00-06:00"]
            switch = ["mon-fri 02:00-04:00", "sat,sun 00:00-24:00"]
            wait_s = 172800
            [bandwidth]
            bytes_per_s = 10000000
            per_group = { group_by = "site", bytes_per_s = 1000000 }
        "#;
        let asked = of_flags(&flags());
        assert_eq!(asked.mistakes(), []);
        let args = args("start activity --version v2");
        for (text, format) in [(yaml, file::Format::Yaml), (toml, file::Format::Toml)] {
            assert_eq!(
                of_text(&args, text, format),
                Ok(asked.clone()),
                "{format:?}"
            );
        }
    }

    #[test]
    fn the_example_holds_every_part_and_is_right() {
        let example = include_str!("../../../../../examples/rollout/policy.yaml");
        let args = args("start activity --version v2");
        let spec = of_text(&args, example, file::Format::Yaml).unwrap();
        assert_eq!(spec.mistakes(), []);
        let written = serde_json::to_value(&spec).unwrap();
        let written = written.as_object().unwrap();
        for part in [
            "waves",
            "max_in_flight",
            "disruption",
            "gates",
            "approval",
            "deadlines",
            "windows",
            "bandwidth",
        ] {
            assert!(written.contains_key(part), "{part}");
        }
    }
}
