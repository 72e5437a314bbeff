//! Other engines, each in a process of its own: the programs of `tests/peers`.

mod guest;
mod narrow;

pub(crate) use narrow::rten_at_128_bits;

use crate::dist::{self, Debian};
use crate::{python, shell};
use anyhow::{Context, Result, bail, ensure};
use guest::Guest;
use serde_json::{Value, json};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// Both kinds of vector instructions, and a stack for the recursion of its planner.
const WASM_FLAGS: &str =
    "-C target-feature=+simd128,+relaxed-simd -C link-arg=-zstack-size=4194304";

/// Names a rustc for the wasm module only: with the sources of its library, which are then built with it.
/// It is not `RUSTC`, as the native peers must stay what the compiler in use makes of them.
const WASM_RUSTC: &str = "SANDPIPER_WASM_RUSTC";

/// An engine that can be started.
#[derive(Debug)]
pub(crate) struct Peer {
    /// Short, for the head of a column.
    pub(crate) name: &'static str,
    engine: Engine,
}

#[derive(Debug)]
enum Engine {
    /// In a process of its own.
    Apart {
        program: PathBuf,
        arguments: Vec<PathBuf>,
        process: Option<Process>,
    },
    /// In wasm, with its version.
    Wasm(Guest, &'static str),
}

/// Outputs of a model.
#[derive(Debug)]
pub(crate) struct Answer {
    /// As the engine computes them; the elements of all outputs.
    pub(crate) outputs: Vec<f64>,
    /// As the file means them, from an engine that can tell.
    pub(crate) plain: Option<Vec<f64>>,
}

#[derive(Debug)]
struct Process {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    /// What it complains of; a file, so that it can write as much as it wants.
    errors: tempfile::NamedTempFile,
}

/// ONNX Runtime.
///
/// # Errors
/// When its package cannot be fetched.
pub(crate) fn onnxruntime() -> Result<Peer> {
    let script = shell::root().join("tests/peers/onnxruntime_peer.py");
    Ok(Peer::new("ORT", python::python()?, vec![script]))
}

/// tract and rten.
///
/// # Errors
/// When they cannot be built.
pub(crate) fn rust_engines() -> Result<[Peer; 2]> {
    let root = shell::root();
    let directory = build_in(
        &root.join("tests/peers"),
        &root.join("target/peers"),
        &["--locked"],
        None,
    )?;
    let peer = |name| Peer::new(name, directory.join(name), Vec::new());
    Ok([peer("tract"), peer("rten")])
}

/// Builds the engines of a workspace that is Rust, apart from ours; gives the place of the programs.
fn build_in(
    workspace: &Path,
    target: &Path,
    arguments: &[&str],
    flags: Option<&str>,
) -> Result<PathBuf> {
    let mut build = shell::cargo();
    build
        .args(["build", "--release", "--quiet"])
        .args(arguments)
        .arg("--manifest-path")
        .arg(workspace.join("Cargo.toml"))
        .arg("--target-dir")
        .arg(target);
    if let Some(flags) = flags {
        build.env("RUSTFLAGS", flags);
    }
    let built = build.output()?;
    let said = String::from_utf8_lossy(&built.stderr);
    ensure!(
        built.status.success(),
        "{} cannot be built: {said}",
        workspace.display()
    );
    Ok(target.join("release"))
}

/// rten as a wasm module, built by the compiler in use where it has the target, by Debian's with the
/// sources of its library otherwise, or by that of [`WASM_RUSTC`].
///
/// # Errors
/// When that compiler has neither the target nor the sources of its library.
pub(crate) fn rten_in_wasm() -> Result<Peer> {
    let target = shell::root().join("target/peers-wasm");
    let (mut build, builds_std) = wasm_cargo()?;
    build
        .args(["build", "--release", "--locked", "--quiet"])
        .args(["--package", "sandpiper-peers-guest"])
        .args(["--target", "wasm32-unknown-unknown"])
        .arg("--manifest-path")
        .arg(shell::root().join("tests/peers/Cargo.toml"))
        .arg("--target-dir")
        .arg(&target)
        .env("RUSTFLAGS", WASM_FLAGS);
    if builds_std {
        build
            .env("RUSTC_BOOTSTRAP", "1")
            .arg("-Zbuild-std=std,panic_abort");
    }
    if let Some(linker) = wasm_linker() {
        build.env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", linker);
    }
    let built = build.output()?;
    let said = String::from_utf8_lossy(&built.stderr);
    ensure!(
        built.status.success(),
        "{}: `rustup target add wasm32-unknown-unknown`, or set {WASM_RUSTC} to a rustc that has the sources of \
         its library",
        said.lines()
            .find(|line| line.starts_with("error"))
            .unwrap_or("cargo cannot build for wasm32-unknown-unknown")
    );
    let wasm = target.join("wasm32-unknown-unknown/release/sandpiper_peers_guest.wasm");
    Ok(Peer {
        name: "rten wasm",
        engine: Engine::Wasm(Guest::new(&wasm)?, "rten 0.27.0 inside wasm"),
    })
}

/// A cargo that builds for wasm, and whether it has to build the standard library as well.
fn wasm_cargo() -> Result<(Command, bool)> {
    if let Some(rustc) = std::env::var_os(WASM_RUSTC) {
        let mut cargo = shell::cargo();
        cargo.env("RUSTC", rustc);
        return Ok((cargo, true));
    }
    if shell::rustup_has("wasm32-unknown-unknown") {
        return Ok((shell::cargo(), false));
    }
    let (rustc, cargo) = Debian::at(dist::cross_dir()).rust_with_sources()?;
    Ok((shell::other_cargo(&rustc, &cargo), true))
}

/// The linker that rustup's toolchain brings along: other compilers may come without one.
fn wasm_linker() -> Option<PathBuf> {
    let asked = Command::new("rustc")
        .args(["--print", "target-libdir"])
        .output()
        .ok()?;
    let libraries = PathBuf::from(String::from_utf8_lossy(&asked.stdout).trim());
    let linker = libraries.parent()?.join("bin/rust-lld");
    linker.exists().then_some(linker)
}

impl Peer {
    fn new(name: &'static str, program: PathBuf, arguments: Vec<PathBuf>) -> Self {
        Self {
            name,
            engine: Engine::Apart {
                program,
                arguments,
                process: None,
            },
        }
    }

    /// Its name with its version.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(crate) fn version(&mut self) -> Result<String> {
        match &mut self.engine {
            Engine::Wasm(_, version) => Ok((*version).to_owned()),
            Engine::Apart {
                program,
                arguments,
                process,
            } => {
                let (started, version) = Process::start(program, arguments)?;
                *process = Some(started);
                Ok(version)
            }
        }
    }

    /// Loads a model with a file for each input, and runs it once.
    ///
    /// # Errors
    /// What the engine says.
    pub(crate) fn load(&mut self, model: &Path, inputs: &[&Path]) -> Result<Answer> {
        if let Engine::Wasm(guest, _) = &mut self.engine {
            let outputs = guest.load(model, inputs)?;
            return Ok(Answer {
                outputs,
                plain: None,
            });
        }
        let reply = self.ask(&json!({ "model": model, "inputs": inputs }))?;
        let outputs = numbers(&reply["outputs"]).context("no outputs")?;
        Ok(Answer {
            outputs,
            plain: numbers(&reply["plain"]),
        })
    }

    /// Times of so many runs, in microseconds.
    ///
    /// # Errors
    /// What the engine says.
    pub(crate) fn run(&mut self, runs: usize) -> Result<Vec<f64>> {
        if let Engine::Wasm(guest, _) = &mut self.engine {
            return guest.run(runs);
        }
        let reply = self.ask(&json!({ "runs": runs }))?;
        let times = reply["ns"].as_array().context("no times")?;
        let us = |v: &Value| v.as_f64().map(|ns| ns / 1e3).context("no number");
        times.iter().map(us).collect()
    }

    /// A process that has died on one model is started again for the next.
    fn ask(&mut self, what: &Value) -> Result<Value> {
        let Engine::Apart {
            program,
            arguments,
            process: place,
        } = &mut self.engine
        else {
            bail!("{} has no process", self.name)
        };
        let process = match place {
            Some(process) => process,
            None => place.insert(Process::start(program, arguments)?.0),
        };
        let reply = process.ask(what);
        if reply.is_err() {
            *place = None;
        }
        let reply = reply?;
        match reply["error"].as_str() {
            Some(error) => bail!("{error}"),
            None => Ok(reply),
        }
    }
}

/// All numbers of a list of lists; what is not a number (JSON has no NaN) becomes NaN.
fn numbers(lists: &Value) -> Option<Vec<f64>> {
    let each = lists
        .as_array()?
        .iter()
        .filter_map(Value::as_array)
        .flatten();
    Some(each.map(|v| v.as_f64().unwrap_or(f64::NAN)).collect())
}

impl Process {
    fn start(program: &PathBuf, arguments: &[PathBuf]) -> Result<(Self, String)> {
        let errors = tempfile::NamedTempFile::new()?;
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(errors.path())?)
            .spawn()
            .with_context(|| format!("{} cannot be started", program.display()))?;
        let stdin = child.stdin.take().context("no pipe")?;
        let stdout = BufReader::new(child.stdout.take().context("no pipe")?);
        let mut process = Self {
            child,
            stdin,
            stdout,
            errors,
        };
        let greeting = process.line()?;
        let version = greeting["version"]
            .as_str()
            .context("no version")?
            .to_owned();
        Ok((process, version))
    }

    fn ask(&mut self, what: &Value) -> Result<Value> {
        writeln!(self.stdin, "{what}").with_context(|| self.complaint())?;
        self.line()
    }

    fn line(&mut self) -> Result<Value> {
        let mut line = String::new();
        self.stdout.read_line(&mut line)?;
        serde_json::from_str(&line).with_context(|| self.complaint())
    }

    /// The last line of what it wrote before it died.
    fn complaint(&self) -> String {
        let text = std::fs::read_to_string(self.errors.path()).unwrap_or_default();
        let last = text.lines().rfind(|l| !l.trim().is_empty());
        format!("it died: {}", last.unwrap_or("without a word"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
