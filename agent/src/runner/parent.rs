//! The agent's side: a handle to one runner.

use super::error::{End, RunnerError};
use super::pages::Pages;
use super::protocol::{self, Kind, Load, Ready, Refused};
use super::worker::{Link, Request, Worker};
use super::{SUBCOMMAND, spawner, stderr};
use sandpiper_core::abi::ModuleAbi;
use sandpiper_sandbox::{Limits, check_inputs};
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, oneshot, watch};

/// A module with deadline checks is interrupted from inside; the process is killed only if that
/// has not happened this much later.
const INTERRUPT_GRACE: Duration = Duration::from_millis(250);

/// What a runner shall run.
#[derive(Debug, Clone)]
pub struct RunnerSpec {
    /// Program with the hidden subcommand [`SUBCOMMAND`]: the agent's own.
    pub exe: PathBuf,
    /// What the log and the list of processes call it, such as `activity/v3/small-int8`.
    pub name: String,
    /// Native code for this device. **The caller has verified its digest**: it is run as it is.
    pub native: PathBuf,
    /// The weights, if the module has any. The caller has verified their digest.
    pub weights: Option<PathBuf>,
    /// The ABI from the signed manifest.
    pub abi: ModuleAbi,
    /// Memory and time of the module. The time counts from when a request is handed to the process.
    pub limits: Limits,
    /// Cores that one inference uses, if the module can.
    pub workers: u32,
    /// Requests that may wait, at least 1; more are told [`RunnerError::Busy`].
    pub queue: usize,
    /// How long the process may take to be ready: it reads code from a slow card.
    pub load_timeout: Duration,
}

/// Answer to one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inference {
    /// The bytes of every output, in the order of the ABI.
    pub outputs: Vec<Vec<u8>>,
    /// How long the module ran, in microseconds, measured in the runner.
    pub latency_us: u32,
    /// CPU time it took, in microseconds.
    pub cpu_us: u32,
}

/// A runner that is ready, or was. Dropping the last handle stops it.
#[derive(Debug)]
pub struct Runner {
    requests: mpsc::Sender<Request>,
    end: watch::Receiver<Option<End>>,
    stop: watch::Sender<bool>,
    abi: ModuleAbi,
    pid: u32,
    queue: usize,
    ready: Ready,
}

impl Runner {
    /// Starts a process, has it load the module and lock itself down.
    ///
    /// # Errors
    /// [`RunnerError::Spawn`], [`RunnerError::Refused`] with the sandbox's reason,
    /// [`RunnerError::LoadTimeout`], [`RunnerError::Ended`] if it died while loading.
    pub async fn spawn(spec: RunnerSpec) -> Result<Self, RunnerError> {
        let failed = |e: io::Error| RunnerError::Spawn {
            reason: e.to_string(),
        };
        let load =
            protocol::json(Kind::Load, &load_body(&spec).map_err(failed)?).map_err(failed)?;
        let pages = Pages::new(&spec.abi).map_err(failed)?;
        let (ours, theirs) = UnixStream::pair().map_err(failed)?;
        let command = command(&spec, theirs, pages.share().map_err(failed)?);
        let mut child = spawner::spawn(command).await.map_err(failed)?;
        let pid = child
            .id()
            .ok_or_else(|| failed(io::Error::other("it has ended already")))?;
        let mut link = link(&mut child, &spec, ours, pages).map_err(failed)?;

        let answer = tokio::time::timeout(spec.load_timeout, link.exchange(&load)).await;
        let (kind, body) = match answer {
            Ok(Ok(frame)) => frame,
            Ok(Err(error)) => return Err(RunnerError::Ended(Worker::bury(child, error).await)),
            Err(_) => {
                Worker::kill(&mut child).await;
                return Err(RunnerError::LoadTimeout {
                    seconds: spec.load_timeout.as_secs(),
                });
            }
        };
        let ready = match read_ready(kind, &body) {
            Ok(ready) => ready,
            Err(error) => {
                Worker::kill(&mut child).await;
                return Err(error);
            }
        };
        let queue = spec.queue.max(1);
        let (requests, queued) = mpsc::channel(queue);
        let (stop, stopping) = watch::channel(false);
        let (ended, end) = watch::channel(None);
        let grace = if spec.abi.bounded {
            Duration::ZERO
        } else {
            INTERRUPT_GRACE
        };
        let worker = Worker {
            child,
            link,
            abi: spec.abi.clone(),
            kill_after: spec.limits.deadline + grace,
        };
        tokio::spawn(worker.run(queued, stopping, ended));
        Ok(Self {
            requests,
            end,
            stop,
            abi: spec.abi,
            pid,
            queue,
            ready,
        })
    }

    /// Runs one batch. Requests are served one at a time, in order.
    ///
    /// `inputs` as in [`sandpiper_sandbox::Instance::infer`].
    ///
    /// # Errors
    /// See [`RunnerError`]. After one [`RunnerError::Ended`] all that wait or come later get
    /// [`RunnerError::Gone`].
    pub async fn infer(&self, batch: u32, inputs: Vec<Vec<u8>>) -> Result<Inference, RunnerError> {
        check_inputs(&self.abi, batch, &inputs).map_err(RunnerError::Request)?;
        let (reply, answer) = oneshot::channel();
        match self.requests.try_send(Request {
            batch,
            inputs,
            reply,
        }) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(_)) => {
                return Err(RunnerError::Busy { queued: self.queue });
            }
            Err(mpsc::error::TrySendError::Closed(_)) => {
                return Err(RunnerError::Gone(self.ended().await));
            }
        }
        match answer.await {
            Ok(answer) => answer,
            // The worker answers whatever it has begun with; this one still waited.
            Err(_) => Err(RunnerError::Gone(self.ended().await)),
        }
    }

    /// Waits until the runner has ended, and says how. Does not keep the runner alive.
    pub fn ended(&self) -> impl Future<Output = End> + Send + 'static {
        let mut end = self.end.clone();
        async move {
            match end.wait_for(Option::is_some).await {
                Ok(end) => end.clone().unwrap_or(End::Stopped),
                // Its task was cancelled with the runtime, and the process killed with it.
                Err(_) => End::Stopped,
            }
        }
    }

    /// Serves what is queued, ends the process, waits for its end. Requests that come later are
    /// told that it has ended.
    pub async fn stop(&self) -> End {
        self.stop.send_replace(true);
        self.ended().await
    }

    /// Id of the process.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The ABI of the module.
    pub fn abi(&self) -> &ModuleAbi {
        &self.abi
    }

    /// How far the process is locked down: measure -> `applied` or why not.
    pub fn lockdown(&self) -> &BTreeMap<String, String> {
        &self.ready.lockdown
    }

    /// How long loading took, in microseconds.
    pub fn load_us(&self) -> u64 {
        self.ready.load_us
    }
}

/// Empty environment, root directory; the channel as standard input (it goes both ways), the pages of
/// the tensors as standard output, which are the places where a new program finds what it is given.
fn command(spec: &RunnerSpec, channel: UnixStream, pages: File) -> Command {
    let mut command = Command::new(&spec.exe);
    command
        // The name a list of processes shows.
        .arg0(format!("sandpiper-runner {}", spec.name))
        .arg(SUBCOMMAND)
        .env_clear()
        .current_dir("/")
        .stdin(OwnedFd::from(channel))
        .stdout(pages)
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// The runner starts in `/`, so paths are made absolute here.
fn load_body(spec: &RunnerSpec) -> io::Result<Load> {
    let absolute = |path: &Path| std::path::absolute(path);
    Ok(Load {
        abi: spec.abi.clone(),
        native: absolute(&spec.native)?,
        weights: spec.weights.as_deref().map(absolute).transpose()?,
        memory_bytes: spec.limits.memory_bytes,
        deadline_us: u64::try_from(spec.limits.deadline.as_micros()).unwrap_or(u64::MAX),
        workers: spec.workers,
    })
}

fn link(
    child: &mut Child,
    spec: &RunnerSpec,
    channel: UnixStream,
    pages: Pages,
) -> io::Result<Link> {
    let missing = || io::Error::other("a pipe of the process is missing");
    let errors = child.stderr.take().ok_or_else(missing)?;
    tokio::spawn(stderr::log(spec.name.clone(), errors));
    channel.set_nonblocking(true)?;
    let channel = tokio::net::UnixStream::from_std(channel)?;
    Ok(Link::new(channel, pages))
}

fn read_ready(kind: Kind, body: &[u8]) -> Result<Ready, RunnerError> {
    let broken = |what: String| RunnerError::Ended(End::Protocol { what });
    match kind {
        Kind::Ready => serde_json::from_slice(body).map_err(|e| broken(e.to_string())),
        Kind::Refused => match serde_json::from_slice::<Refused>(body) {
            Ok(Refused { reason }) => Err(RunnerError::Refused { reason }),
            Err(e) => Err(broken(e.to_string())),
        },
        other => Err(broken(format!("{other:?} instead of Ready"))),
    }
}
