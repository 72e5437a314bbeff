//! An agent with an emulated profile.

use crate::binaries::Binaries;
use crate::controller::free_address;
use crate::oip::Client;
use crate::process::Process;
use crate::sysfs::Sysfs;
use crate::wait;
use anyhow::{Result, bail};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

/// An agent serves what it holds within this time, or something is wrong.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The hardware that an agent is told to believe in. It is reported as emulated.
#[derive(Debug, Clone)]
pub struct Hardware {
    /// Name of the device.
    pub name: String,
    /// Board, as the device tree would say.
    pub board: &'static str,
    /// System on chip.
    pub soc: &'static str,
    /// RAM, in MiB.
    pub ram_mib: u64,
    /// Of it free, in MiB.
    pub free_mib: u64,
    /// Cores.
    pub cores: u16,
    /// Arithmetic that it is let do.
    pub dtypes: &'static [&'static str],
    /// Charge of its battery; none: on mains.
    pub battery_percent: Option<u8>,
    /// Length of a telemetry window in seconds: energy is measured from three on, with fewer there
    /// are too few readings of a sensor in it.
    pub window_s: u8,
}

impl Hardware {
    /// A device on mains with nothing scarce.
    pub fn plain(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            board: "Raspberry Pi 4 Model B Rev 1.4",
            soc: "BCM2711",
            ram_mib: 4096,
            free_mib: 3000,
            cores: 4,
            dtypes: &["f32", "i8"],
            battery_percent: None,
            window_s: 1,
        }
    }
}

/// An agent in a directory, running or not.
#[derive(Debug)]
pub struct Device {
    /// What it is told to be.
    pub hardware: Hardware,
    /// Its made-up `/sys`.
    pub sysfs: Sysfs,
    binaries: Binaries,
    dir: PathBuf,
    address: String,
    clock_offset_s: i64,
    process: Option<Process>,
}

impl Device {
    /// Writes the configuration of a device below `dir`. Nothing is started.
    ///
    /// # Errors
    /// When files cannot be written.
    pub fn make(binaries: &Binaries, dir: &Path, hardware: Hardware) -> Result<Self> {
        let dir = dir.join(&hardware.name);
        std::fs::create_dir_all(&dir)?;
        let sys = dir.join("sys");
        let sysfs = match hardware.battery_percent {
            Some(percent) => Sysfs::battery(&sys, percent)?,
            None => Sysfs::mains(&sys)?,
        };
        let address = free_address()?;
        let it = Self {
            hardware,
            sysfs,
            binaries: binaries.clone(),
            dir,
            address,
            clock_offset_s: 0,
            process: None,
        };
        std::fs::write(it.config(), it.toml()?)?;
        Ok(it)
    }

    fn toml(&self) -> Result<String> {
        const MIB: u64 = 1 << 20;
        let hw = &self.hardware;
        let mut text = String::new();
        writeln!(text, "state_dir = {:?}", self.state_dir())?;
        writeln!(text, "[serve]\nlisten = {:?}", self.address)?;
        writeln!(text, "[roots]\nsysfs = {:?}", self.sysfs.root())?;
        writeln!(
            text,
            "[emulate]\nboard = {:?}\nsoc = {:?}",
            hw.board, hw.soc
        )?;
        writeln!(text, "ram_total_bytes = {}", hw.ram_mib * MIB)?;
        writeln!(text, "ram_available_bytes = {}", hw.free_mib * MIB)?;
        writeln!(text, "cores = {}\ndtypes = {:?}", hw.cores, hw.dtypes)?;
        writeln!(text, "clock_offset_s = {}", self.clock_offset_s)?;
        // Short, so that a test sees a window and a change of battery soon.
        writeln!(text, "[telemetry]\nwindow_s = {}", hw.window_s)?;
        writeln!(text, "[power]\npoll_s = 1")?;
        Ok(text)
    }

    /// From its next start on its clock is wrong by so many seconds.
    ///
    /// # Errors
    /// When its configuration cannot be rewritten.
    pub fn set_clock(&mut self, offset_s: i64) -> Result<()> {
        self.clock_offset_s = offset_s;
        Ok(std::fs::write(self.config(), self.toml()?)?)
    }

    /// Its configuration file.
    pub fn config(&self) -> PathBuf {
        self.dir.join("agent.toml")
    }

    /// Where it keeps keys, artefacts and telemetry.
    pub fn state_dir(&self) -> PathBuf {
        self.dir.join("state")
    }

    /// Joins with a token, whatever comes of it.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn join(&self, token: &str) -> Result<Output> {
        let mut command = self.command();
        Ok(command
            .args(["join", token, "--name", &self.hardware.name])
            .output()?)
    }

    /// Joins with a token that must be good, and runs.
    ///
    /// # Errors
    /// With what the agent says.
    pub fn join_and_run(&mut self, token: &str) -> Result<()> {
        let output = self.join(token)?;
        if !output.status.success() {
            bail!("join failed: {}", String::from_utf8_lossy(&output.stderr));
        }
        self.run()
    }

    /// From now on it finds its controller at another address. It must have joined.
    ///
    /// # Errors
    /// When it has no identity, or it cannot be rewritten.
    pub fn reroute(&self, address: &str) -> Result<()> {
        let path = self.state_dir().join("identity.json");
        let mut identity: serde_json::Value = serde_json::from_slice(&std::fs::read(&path)?)?;
        identity["address"] = address.into();
        Ok(std::fs::write(&path, identity.to_string())?)
    }

    /// Address of the controller that it knows. It must have joined.
    ///
    /// # Errors
    /// When it has no identity.
    pub fn controller_address(&self) -> Result<String> {
        let path = self.state_dir().join("identity.json");
        let identity: serde_json::Value = serde_json::from_slice(&std::fs::read(&path)?)?;
        Ok(identity["address"].as_str().unwrap_or_default().to_owned())
    }

    /// Bytes of downloads that are not complete yet.
    pub fn partial_bytes(&self) -> u64 {
        let Ok(files) = std::fs::read_dir(self.state_dir().join("partial")) else {
            return 0;
        };
        let chunks = files.flatten().filter(|f| f.path().extension().is_none());
        chunks
            .filter_map(|f| f.metadata().ok())
            .map(|m| m.len())
            .sum()
    }

    /// Starts the agent.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn run(&mut self) -> Result<()> {
        let mut command = self.command();
        self.process = Some(Process::start(
            command.arg("run"),
            &self.dir.join("agent.log"),
        )?);
        Ok(())
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.binaries.agent);
        command.arg("--config").arg(self.config());
        command
    }

    /// Ends the agent as a power cut would.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill(&mut self) -> Result<()> {
        match self.process.take() {
            Some(process) => process.kill(),
            None => bail!("{} does not run", self.hardware.name),
        }
    }

    /// Starts the agent anew if it has ended, as a service manager does. Whether it had.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn revive(&mut self) -> Result<bool> {
        let ended = self.process.as_mut().is_none_or(|p| p.check().is_err());
        if ended {
            self.run()?;
        }
        Ok(ended)
    }

    /// Adds to its configuration, for its next start.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn configure(&self, more: &str) -> Result<()> {
        let text = std::fs::read_to_string(self.config())?;
        Ok(std::fs::write(self.config(), text + more)?)
    }

    /// Id of the agent's process, while it runs.
    pub fn process_id(&self) -> Option<u32> {
        self.process.as_ref().map(Process::id)
    }

    /// The end of its log.
    pub fn log_tail(&self) -> String {
        self.process
            .as_ref()
            .map(Process::log_tail)
            .unwrap_or_default()
    }

    /// A client of what it serves.
    pub fn client(&self) -> Client {
        Client::new(&self.address)
    }

    /// Waits until it serves a model.
    ///
    /// # Errors
    /// When it does not in time, with the end of its log.
    pub fn wait_serving(&mut self, model: &str) -> Result<()> {
        let path = format!("/v2/models/{model}/ready");
        let what = format!("{} serves {model}", self.hardware.name);
        let client = self.client();
        let served = wait::until(&what, PATIENCE, || {
            if let Some(process) = &mut self.process {
                process.check()?;
            }
            Ok(client.ready(&path).then_some(()))
        });
        served.map_err(|error| anyhow::anyhow!("{error}\n{}", self.log_tail()))
    }
}
