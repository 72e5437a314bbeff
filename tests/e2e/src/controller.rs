//! A fleet: `init`, `serve`, and the command line against it.

use crate::binaries::Binaries;
use crate::process::Process;
use crate::wait;
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

/// A controller answers within this time after its start, or something is wrong.
const START: Duration = Duration::from_secs(20);

/// A fleet in a directory, with its controller running or not.
#[derive(Debug)]
pub struct Controller {
    binaries: Binaries,
    dir: PathBuf,
    packages: Option<PathBuf>,
    process: Option<Process>,
}

/// What a command of the operator gave.
#[derive(Debug, Clone)]
pub struct Said {
    /// Exit code; -1 when a signal ended it.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Said {
    fn of(output: &Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// An address on loopback that nothing listens on at this moment.
///
/// # Errors
/// When the system has no port left.
pub fn free_address() -> Result<String> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string())
}

impl Controller {
    /// Makes a fleet below `dir` and starts its controller.
    ///
    /// # Errors
    /// When `init` fails or the controller does not answer.
    pub fn start(binaries: &Binaries, dir: &Path) -> Result<Self> {
        Self::start_with(binaries, dir, None)
    }

    /// The same with a directory of packages that devices are installed from.
    ///
    /// # Errors
    /// As [`Controller::start`].
    pub fn start_with(binaries: &Binaries, dir: &Path, packages: Option<&Path>) -> Result<Self> {
        let mut it = Self {
            binaries: binaries.clone(),
            dir: dir.join("controller"),
            packages: packages.map(Path::to_owned),
            process: None,
        };
        let data = it.dir.display().to_string();
        // Fixed ports: after a restart, devices must find the controller where it was.
        let (devices, operators) = (free_address()?, free_address()?);
        let said = it.run(&[
            "init",
            "--data",
            &data,
            "--fleet",
            "test",
            "--listen",
            "127.0.0.1",
            "--device-address",
            &devices,
            "--operator-address",
            &operators,
        ])?;
        if said.code != 0 {
            bail!("init failed: {}", said.err);
        }
        it.serve()?;
        Ok(it)
    }

    /// Starts the controller of this fleet, and waits until it answers.
    ///
    /// # Errors
    /// When it does not.
    pub fn serve(&mut self) -> Result<()> {
        let mut command = Command::new(&self.binaries.controller);
        command.arg("serve").arg("--data").arg(&self.dir);
        if let Some(packages) = &self.packages {
            command.arg("--packages").arg(packages);
        }
        let log = self.dir.with_extension("log");
        let mut process = Process::start(&mut command, &log)?;
        wait::until("the controller answers", START, || {
            process.check()?;
            Ok((self.run(&["get", "devices", "-o", "json"])?.code == 0).then_some(()))
        })?;
        self.process = Some(process);
        Ok(())
    }

    /// Ends the controller as a power cut would.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill(&mut self) -> Result<()> {
        self.process
            .take()
            .context("the controller does not run")?
            .kill()
    }

    /// Ends the controller with SIGTERM.
    ///
    /// # Errors
    /// When it does not run, or not end.
    pub fn stop(&mut self) -> Result<()> {
        self.process
            .take()
            .context("the controller does not run")?
            .stop()?;
        Ok(())
    }

    /// The end of the controller's log.
    pub fn log_tail(&self) -> String {
        self.process
            .as_ref()
            .map(Process::log_tail)
            .unwrap_or_default()
    }

    /// The context file of its first operator.
    pub fn context(&self) -> PathBuf {
        self.dir.join("admin.toml")
    }

    /// Runs a command of the operator, whatever comes of it.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn run(&self, args: &[&str]) -> Result<Said> {
        let output = Command::new(&self.binaries.controller)
            .args(args)
            .env("SANDPIPER_CONTEXT", self.context())
            .output()?;
        Ok(Said::of(&output))
    }

    /// Runs a command that must succeed; gives its standard output.
    ///
    /// # Errors
    /// With what it said, when its exit code is not 0.
    pub fn ok(&self, args: &[&str]) -> Result<String> {
        let said = self.run(args)?;
        if said.code != 0 {
            bail!(
                "`sandpiper {}` gave {}: {}",
                args.join(" "),
                said.code,
                said.err
            );
        }
        Ok(said.out)
    }

    /// Runs a command that must succeed and print JSON; `-o json` is added.
    ///
    /// # Errors
    /// As [`Controller::ok`], or when the output is not JSON.
    pub fn json(&self, args: &[&str]) -> Result<Value> {
        let text = self.ok(&[args, &["-o", "json"]].concat())?;
        serde_json::from_str(&text).with_context(|| format!("not JSON: {text}"))
    }

    /// A one-time token with these labels (`key=value`).
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn token(&self, labels: &[String]) -> Result<String> {
        let mut args = vec!["join-token", "create", "--ttl", "10m"];
        for label in labels {
            args.extend(["--label", label]);
        }
        Ok(self.ok(&args)?.trim().to_owned())
    }

    /// Applies a deployment named as its model, for the devices with these labels.
    ///
    /// # Errors
    /// As [`Controller::ok`].
    pub fn deploy(&self, model: &str, selector: &str) -> Result<()> {
        let apply = ["deployment", "apply", model, "--model", model];
        self.ok(&[&apply[..], &["--selector", selector]].concat())
            .map(drop)
    }

    /// The documents of a kind, for example `devices`: a JSON array, or the `items` of an object.
    ///
    /// # Errors
    /// As [`Controller::json`].
    pub fn list(&self, kind: &str) -> Result<Vec<Value>> {
        let doc = self.json(&["get", kind])?;
        let items = doc
            .as_array()
            .or_else(|| doc.get("items").and_then(Value::as_array));
        Ok(items
            .with_context(|| format!("no list of {kind}: {doc}"))?
            .clone())
    }

    /// Imports files of the example as variants of a version of `activity`.
    ///
    /// # Errors
    /// As [`Controller::ok`].
    pub fn import(&self, version: &str, variants: &[(&str, &Path)], more: &[&str]) -> Result<()> {
        let example = crate::activity();
        let given: Vec<String> = variants
            .iter()
            .map(|(n, p)| format!("{n}={}", p.display()))
            .collect();
        let eval = example.join("test.npz").display().to_string();
        let labels = example.join("labels.txt").display().to_string();
        let mut args = vec!["model", "import", "activity", "--version", version];
        for variant in &given {
            args.extend(["--variant", variant]);
        }
        args.extend([
            "--eval",
            &eval,
            "--inputs",
            "x",
            "--targets",
            "y",
            "--labels",
            &labels,
        ]);
        args.extend(more);
        self.ok(&args).map(drop)
    }
}
