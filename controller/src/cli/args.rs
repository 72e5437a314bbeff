//! Commands and flags.

use super::agents::AgentCommand;
pub use super::asked::RolloutArgs;
use clap::{Args, Subcommand, ValueEnum};
use sandpiper_core::names::{DeploymentName, ModelName, RolloutName, VersionName};
use sandpiper_core::policy::{Objective, Selector};
use sandpiper_core::target::Target;
use std::path::PathBuf;
use std::time::Duration;

/// How a result is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Format {
    /// Aligned columns.
    #[default]
    Table,
    /// More columns.
    Wide,
    /// Documents, stable from release to release.
    Json,
    /// The same as YAML.
    Yaml,
    /// `TYPE/NAME` only.
    Name,
}

/// What operators and publishers do.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Make, list and revoke the tokens that let a device join.
    #[command(subcommand)]
    JoinToken(JoinToken),
    /// List resources.
    #[command(
        after_help = "Examples:\n  sandpiper get devices -l app=activity -o wide\n  sandpiper get device/pi-07 -o json\n  sandpiper get events -w"
    )]
    Get(Get),
    /// Show everything about one resource.
    #[command(after_help = "Example:\n  sandpiper describe device/pi-07")]
    Describe {
        /// `TYPE/NAME`.
        resource: String,
    },
    /// Latency, energy and errors as measured.
    #[command(
        after_help = "Examples:\n  sandpiper top devices -w\n  sandpiper top devices --sort energy"
    )]
    Top(Top),
    /// Why a device runs what it runs: each variant, whether it fits, and its figures.
    #[command(after_help = "Example:\n  sandpiper explain device/pi-07 --model activity")]
    Explain {
        /// `device/NAME`.
        device: String,
        /// The model.
        #[arg(long)]
        model: ModelName,
        /// The version; the newest by default.
        #[arg(long)]
        version: Option<VersionName>,
        /// How to show it.
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
    /// Import, check, run and inspect models.
    #[command(subcommand)]
    Model(Model),
    /// Say which devices shall run which model, under which policy.
    #[command(subcommand)]
    Deployment(DeploymentCommand),
    /// Move a deployment to a version, in waves.
    #[command(subcommand)]
    Rollout(RolloutCommand),
    /// Publish releases of the agent and bring devices to them.
    #[command(subcommand)]
    Agent(AgentCommand),
    /// Set and remove labels of a device.
    #[command(after_help = "Example:\n  sandpiper label device/pi-07 app=activity spare-")]
    Label {
        /// `device/NAME`.
        device: String,
        /// `key=value` sets, `key-` removes.
        #[arg(required = true)]
        changes: Vec<String>,
    },
    /// Shut a device out for good.
    Revoke {
        /// `device/NAME`.
        device: String,
    },
    /// Let a device out of quarantine, once only one card has its identity.
    Release {
        /// `device/NAME`.
        device: String,
    },
    /// Print what makes a shell complete this program's commands.
    #[command(
        after_help = "Example:\n  sandpiper completion bash > /etc/bash_completion.d/sandpiper"
    )]
    Completion {
        /// The shell.
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
}

/// Join tokens.
#[derive(Debug, Clone, Subcommand)]
pub enum JoinToken {
    /// Make a token for one device; prints the string that the device needs, and how to install it.
    #[command(
        after_help = "Example:\n  sandpiper join-token create --ttl 10m --label app=activity"
    )]
    Create {
        /// How long it is good.
        #[arg(long, default_value = "10m", value_parser = super::parse::duration)]
        ttl: Duration,
        /// Label of the device that uses it, `key=value`.
        #[arg(long = "label")]
        labels: Vec<String>,
        /// What it is for, for people.
        #[arg(long, default_value = "")]
        description: String,
        /// `name`: the token's name instead of the string; `json`, `yaml`: all of it.
        #[arg(short, long, value_enum)]
        output: Option<Format>,
    },
    /// List tokens, without their secrets.
    List {
        /// How to show it.
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
    /// Make a token useless.
    Revoke {
        /// Its id, as `list` shows it.
        id: String,
    },
}

/// `get`.
#[derive(Debug, Clone, Args)]
pub struct Get {
    /// `devices`, `models`, `variants`, `deployments`, `rollouts`, `events`, or `TYPE/NAME`.
    pub kind: String,
    /// Only this one.
    pub name: Option<String>,
    /// Only with these labels, for example `app=activity,!spare`.
    #[arg(short = 'l', long)]
    pub selector: Option<Selector>,
    /// How to show it.
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
    /// Go on and show every change.
    #[arg(short, long)]
    pub watch: bool,
}

/// `top`.
#[derive(Debug, Clone, Args)]
pub struct Top {
    /// `devices` or `models`.
    #[arg(value_enum)]
    pub kind: TopKind,
    /// Refresh every two seconds.
    #[arg(short, long)]
    pub watch: bool,
    /// Largest first by this column; by name otherwise.
    #[arg(long, value_enum)]
    pub sort: Option<SortKey>,
    /// How to show it.
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}

/// What `top` lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TopKind {
    /// One line per device and model.
    Devices,
    /// One line per model, version and variant.
    Models,
}

/// What `top` sorts by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SortKey {
    /// 95th percentile of latency.
    Latency,
    /// Energy per inference.
    Energy,
    /// Inferences.
    Inferences,
    /// Errors.
    Errors,
}

/// Models.
#[derive(Debug, Clone, Subcommand)]
pub enum Model {
    /// Compile, measure, sign and publish a version.
    #[command(
        after_help = "Example:\n  sandpiper model import activity --version v1 --variant large=large.onnx --variant small=small.onnx \\\n    --eval test.npz --inputs x --targets y --labels labels.txt"
    )]
    Import(Box<Import>),
    /// Say whether a file compiles, how much memory it needs, and what is missing. Needs no controller.
    Check {
        /// The ONNX file.
        file: PathBuf,
        /// Largest batch.
        #[arg(long, default_value_t = 8)]
        max_batch: u32,
        /// Fix the shape of an input: `input=4x6x128`.
        #[arg(long = "shape")]
        shapes: Vec<String>,
        /// How to show it.
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
    /// Run a file of ONNX or wasm once in the sandbox. Needs no controller.
    #[command(
        after_help = "Example:\n  sandpiper model run small.onnx --inputs in.npz --outputs out.npz\n\nThe arrays of the input file have the names of the model's inputs."
    )]
    Run {
        /// The file: ONNX, or a wasm module that keeps the ABI.
        file: PathBuf,
        /// Weights of a wasm module whose ABI names some.
        #[arg(long)]
        weights: Option<PathBuf>,
        /// Arrays named like the model's inputs.
        #[arg(long)]
        inputs: PathBuf,
        /// Where the outputs go.
        #[arg(long)]
        outputs: PathBuf,
        /// Fix the shape of an input: `input=4x6x128`.
        #[arg(long = "shape")]
        shapes: Vec<String>,
        /// Items per call of the module.
        #[arg(long, default_value_t = 8)]
        batch: u32,
    },
    /// Show a published version.
    Inspect {
        /// `MODEL/VERSION`.
        version: String,
        /// How to show it.
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
}

/// `model import`.
#[derive(Debug, Clone, Args)]
pub struct Import {
    /// The model.
    pub model: ModelName,
    /// The version.
    #[arg(long)]
    pub version: VersionName,
    /// `NAME=FILE`, once per variant: an ONNX file, or a wasm module that keeps the ABI.
    #[arg(long = "variant", required = true)]
    pub variants: Vec<String>,
    /// `NAME=FILE`: weights of a variant that is a wasm module whose ABI names some.
    #[arg(long)]
    pub weights: Vec<String>,
    /// Labelled evaluation data.
    #[arg(long)]
    pub eval: Option<PathBuf>,
    /// Array of the inputs in the evaluation data.
    #[arg(long, default_value = "x")]
    pub inputs: String,
    /// Array of the right classes in the evaluation data.
    #[arg(long, default_value = "y")]
    pub targets: String,
    /// File of class names, one a line.
    #[arg(long)]
    pub labels: Option<PathBuf>,
    /// Targets to make native code for; all by default.
    #[arg(long = "target")]
    pub native: Vec<Target>,
    /// State an accuracy instead of measuring it: `VARIANT=0.97`.
    #[arg(long = "claim-accuracy")]
    pub claims: Vec<String>,
    /// Accept outputs that are NaN or infinite.
    #[arg(long)]
    pub allow_nonfinite: bool,
    /// Largest batch.
    #[arg(long, default_value_t = 8)]
    pub max_batch: u32,
    /// How to show the variants.
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}

/// Deployments.
#[derive(Debug, Clone, Subcommand)]
pub enum DeploymentCommand {
    /// Make or change a deployment. Nothing moves until a rollout starts.
    #[command(
        after_help = "Examples:\n  sandpiper deployment apply -f deployment.yaml\n  sandpiper deployment apply activity --model activity --selector app=activity --latency-slo 20ms --accuracy-floor 0.9"
    )]
    Apply(Box<Apply>),
    /// Delete a deployment: its devices stop serving the model.
    Delete {
        /// Its name.
        name: DeploymentName,
    },
}

/// `deployment apply`.
#[derive(Debug, Clone, Args)]
pub struct Apply {
    /// A YAML file that says everything.
    #[arg(short, long, conflicts_with_all = ["name", "model", "selector", "objective", "latency_slo", "accuracy_floor", "energy_budget_uj", "battery_life_hours"])]
    pub file: Option<PathBuf>,
    /// Its name.
    #[arg(required_unless_present = "file")]
    pub name: Option<DeploymentName>,
    /// The model.
    #[arg(long, required_unless_present = "file")]
    pub model: Option<ModelName>,
    /// Labels of its devices; every device by default.
    #[arg(long, default_value = "")]
    pub selector: Selector,
    /// What is best: `accuracy`, `energy` or `latency`.
    #[arg(long, value_parser = objective, default_value = "accuracy")]
    pub objective: Objective,
    /// Longest latency, for example `20ms`.
    #[arg(long, value_parser = super::parse::duration)]
    pub latency_slo: Option<Duration>,
    /// Least accuracy, a share in 0..=1.
    #[arg(long)]
    pub accuracy_floor: Option<f64>,
    /// Most energy per inference, in microjoules.
    #[arg(long)]
    pub energy_budget_uj: Option<u64>,
    /// Hours that a full battery must last.
    #[arg(long)]
    pub battery_life_hours: Option<f64>,
}

fn objective(text: &str) -> Result<Objective, String> {
    match text {
        "accuracy" => Ok(Objective::Accuracy),
        "energy" => Ok(Objective::Energy),
        "latency" => Ok(Objective::Latency),
        _ => Err("use accuracy, energy or latency".to_owned()),
    }
}

/// Rollouts.
#[derive(Debug, Clone, Subcommand)]
pub enum RolloutCommand {
    /// Show what a rollout would do. Nothing moves.
    Plan(Box<RolloutArgs>),
    /// Start a rollout; prints its name.
    #[command(
        after_help = "Example:\n  sandpiper rollout start activity --version v2 --wave 34% --wave 100% --deadline 60s"
    )]
    Start(Box<RolloutArgs>),
    /// Show where it stands. Exit code: 0 promoted, 3 aborted or rolled back, 4 timeout.
    Status {
        /// Its name, or that of its deployment for the newest.
        name: RolloutName,
        /// Wait until it ends.
        #[arg(short, long)]
        watch: bool,
        /// Give up waiting after this long.
        #[arg(long, value_parser = super::parse::duration)]
        timeout: Option<Duration>,
        /// How to show it.
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
    /// Hold it.
    Pause {
        /// Its name, or that of its deployment for the newest.
        name: RolloutName,
    },
    /// Let it go on.
    Resume {
        /// Its name, or that of its deployment for the newest.
        name: RolloutName,
    },
    /// Let the wave begin that waits for approval.
    Approve {
        /// Its name, or that of its deployment for the newest.
        name: RolloutName,
        /// Why, for its history.
        #[arg(long, value_name = "TEXT")]
        because: Option<String>,
    },
    /// Let its present wave pass, whatever the gates say.
    Promote {
        /// Its name, or that of its deployment for the newest.
        name: RolloutName,
        /// All waves that are left follow at once and no gate is asked; bounds hold.
        #[arg(long)]
        full: bool,
    },
    /// Plan and start it once more, after it was taken back or superseded.
    Retry {
        /// Its name, or that of its deployment for the newest.
        name: RolloutName,
    },
    /// End it and go back.
    Abort {
        /// Its name, or that of its deployment for the newest.
        name: RolloutName,
    },
    /// Go back to the version before, though it was promoted.
    Undo {
        /// Its name, or that of its deployment for the newest.
        name: RolloutName,
        /// Go to this version instead.
        #[arg(long, value_name = "VERSION")]
        to: Option<VersionName>,
    },
    /// What differs from the rollout of the deployment before it.
    Diff {
        /// Its name, or that of its deployment for the newest.
        name: RolloutName,
        /// Compare with this one instead.
        #[arg(long)]
        with: Option<RolloutName>,
        /// How to show it.
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
    /// What happened in it.
    History {
        /// Its name, or that of its deployment for the newest.
        name: RolloutName,
        /// How to show it.
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Program {
        #[command(subcommand)]
        command: Command,
    }

    fn parse(line: &str) -> Result<Program, clap::Error> {
        Program::try_parse_from(line.split(' '))
    }

    #[test]
    fn the_flags_are_consistent() {
        <Program as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn a_file_says_everything_of_a_deployment() {
        assert!(parse("sandpiper deployment apply -f d.yaml").is_ok());
        assert!(parse("sandpiper deployment apply a --model m --latency-slo 20ms").is_ok());
        assert!(parse("sandpiper deployment apply").is_err());
        assert!(parse("sandpiper deployment apply a").is_err());
        assert!(parse("sandpiper deployment apply a -f d.yaml").is_err());
    }

    #[test]
    fn bad_values_are_usage_errors() {
        for line in [
            "sandpiper get devices -l a=b=c=",
            "sandpiper rollout start a --version v2 --wave 0%",
            "sandpiper rollout start a --version V2",
            "sandpiper rollout start a --version v2 --wave 5 --waves 2",
            "sandpiper join-token create --ttl soon",
            "sandpiper model import m --version v1",
            "sandpiper label device/a",
        ] {
            let error = parse(line).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{line}");
        }
        assert!(parse("sandpiper rollout start a --version v2 --wave 34% --wave 100% --deadline 60s --bake 2s").is_ok());
    }
}
