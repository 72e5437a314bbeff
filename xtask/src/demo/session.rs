//! `cargo xtask demo --record`: the session of an operator, recorded on a terminal as it happens.

use super::cast::Cast;
use super::report::Requests;
use super::{Demo, PATIENCE, count, say, terminal};
use anyhow::{Context, Result, ensure};
use sandpiper_e2e::binaries::Binaries;
use sandpiper_e2e::device::Device;
use sandpiper_e2e::traffic::{self, Steady};
use sandpiper_e2e::{activity, onnx, root, wait};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

const TITLE: &str = "Sandpiper: six devices, a good version and two bad ones";

enum Step {
    /// The narrator speaks.
    Say(&'static str),
    /// A command, and its exit code.
    Run(&'static str, i32),
    /// Local programs begin to ask their devices, each as soon as it serves.
    Ask,
}

const SCRIPT: &[Step] = &[
    Step::Say("Six boards have joined."),
    Step::Run("sandpiper get devices", 0),
    Step::Say("A model in four variants. Accuracy is measured in the sandbox."),
    Step::Run(
        "sandpiper model import activity --version v1 \\
    --variant large-f32=activity/models/large-f32.onnx \\
    --variant small-f32=activity/models/small-f32.onnx \\
    --variant small-int8=activity/models/small-int8.onnx \\
    --variant tiny-int8=activity/models/tiny-int8.onnx \\
    --eval activity/test.npz --labels activity/labels.txt",
        0,
    ),
    Step::Run(
        "sandpiper deployment apply activity --model activity --selector app=activity \\
    --objective accuracy --latency-slo 50ms --accuracy-floor 0.9",
        0,
    ),
    Step::Say("What a rollout would do. Nothing is sent."),
    Step::Run("sandpiper rollout plan activity --version v1 --waves 2", 0),
    Step::Run(
        "sandpiper rollout start activity --version v1 --waves 2 --bake 3s",
        0,
    ),
    Step::Ask,
    Step::Run("sandpiper rollout status activity-1 -w", 0),
    Step::Say("Why does this device run what it runs?"),
    Step::Run("sandpiper explain device/zero2-tight --model activity", 0),
    Step::Run("sandpiper top devices", 0),
    Step::Say(
        "A version that gives every input the same answer. Its accuracy is claimed, not measured.",
    ),
    Step::Run(
        "sandpiper model import activity --version v2 --variant small-f32=v2.onnx \\
    --claim-accuracy small-f32=0.99",
        0,
    ),
    Step::Run(
        "sandpiper rollout start activity --version v2 --wave 1 --bake 3s --max-constant-rise 200",
        0,
    ),
    Step::Say("The first device tells, and goes back. Exit code 3: it did not go through."),
    Step::Run("sandpiper rollout status activity-2 -w", 3),
    Step::Say("One that answers NaN does not pass the test of the device itself."),
    Step::Run(
        "sandpiper model import activity --version v3 --variant small-f32=v3.onnx \\
    --claim-accuracy small-f32=0.99 --allow-nonfinite",
        0,
    ),
    Step::Run(
        "sandpiper rollout start activity --version v3 --wave 1 --bake 3s",
        0,
    ),
    Step::Run("sandpiper rollout status activity-3 -w", 3),
    Step::Run("sandpiper rollout history activity", 0),
    Step::Run("sandpiper get devices", 0),
];

struct Session<'a> {
    demo: Demo,
    dir: &'a Path,
    cast: Cast,
}

/// Records the session into `to`, and as text beside it.
pub(super) fn record(to: &Path) -> Result<()> {
    let to = root().join(to);
    say("building");
    let binaries = Binaries::build("dev")?;
    let dir = tempfile::tempdir()?;
    say("a controller, and six agents with emulated hardware");
    let mut session = Session {
        demo: Demo::start(&binaries, dir.path())?,
        dir: dir.path(),
        cast: Cast::default(),
    };
    std::os::unix::fs::symlink(activity(), dir.path().join("activity"))?;
    let good = std::fs::read(activity().join("models/small-f32.onnx"))?;
    let stuck = onnx::with_weights(&good, |weights| weights.fill(0.0))?;
    std::fs::write(dir.path().join("v2.onnx"), stuck)?;
    std::fs::write(dir.path().join("v3.onnx"), onnx::with_nan_weights(&good)?)?;
    let requests = session.play(&binaries)?;
    ensure!(
        requests.failed == 0,
        "{} of {} requests failed",
        requests.failed,
        requests.sent
    );
    let last = format!(
        "Local programs asked their devices all the while: {} requests, {} failed.",
        requests.sent, requests.failed
    );
    session.cast.say(&last);
    let text = format!(
        "# A session\n\nRecorded by `cargo xtask demo --record docs/session.cast`: the controller, six agents, the \
         model\nand every request are real, the boards are emulated. `asciinema play docs/session.cast` shows it in\n\
         motion.\n\n{}",
        session.cast.text()
    );
    std::fs::write(&to, session.cast.recording(TITLE)?)
        .with_context(|| format!("{} cannot be written", to.display()))?;
    std::fs::write(to.with_extension("md"), text.trim_end().to_owned() + "\n")?;
    say(&format!("recorded in {}", to.display()));
    Ok(())
}

impl Session<'_> {
    /// Types a command; its exit code must be this one.
    fn run(&mut self, binaries: &Binaries, line: &str, code: i32) -> Result<()> {
        say(line.lines().next().unwrap_or_default());
        let plain = line.replace("\\\n", " ");
        let mut words = plain.split_whitespace();
        ensure!(words.next() == Some("sandpiper"), "not our program: {line}");
        let mut command = Command::new(&binaries.controller);
        command
            .args(words)
            .current_dir(self.dir)
            .env("SANDPIPER_CONTEXT", self.demo.controller.context());
        let drawn = terminal::run(&mut command)?;
        self.cast.command(line, &drawn);
        ensure!(
            drawn.code == code,
            "`{line}` gave {}: {}",
            drawn.code,
            self.cast.text()
        );
        Ok(())
    }

    fn play(&mut self, binaries: &Binaries) -> Result<Requests> {
        let mut asking = Vec::new();
        for step in SCRIPT {
            match step {
                Step::Say(what) => self.cast.say(what),
                Step::Run(line, code) => self.run(binaries, line, *code)?,
                Step::Ask => asking = self.ask_on(),
            }
        }
        let mut requests = Requests::default();
        for stream in asking {
            count(&mut requests, stream.finish()?);
        }
        Ok(requests)
    }

    /// Local programs that ask their device as soon as it serves the model.
    fn ask_on(&self) -> Vec<Steady> {
        let ask = traffic::activity(self.demo.samples.clone());
        let start = |device: &Device| {
            let (name, ask) = (device.hardware.name.clone(), ask.clone());
            Steady::asking(
                device.client(),
                Arc::new(move |client, index| {
                    if index == 0 {
                        wait::until(&format!("{name} serves"), PATIENCE, || {
                            let ready = client.ready("/v2/models/activity/ready");
                            Ok(ready.then_some(()))
                        })?;
                    }
                    ask(client, index)
                }),
            )
        };
        self.demo.devices.iter().map(start).collect()
    }
}
