//! The task that owns the process: hands it one request at a time and buries it.

use super::error::{End, RunnerError};
use super::pages::Pages;
use super::parent::Inference;
use super::protocol::{self, Failed, Kind};
use sandpiper_core::abi::ModuleAbi;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::process::Child;
use tokio::sync::{mpsc, oneshot, watch};

/// A process whose channel is closed has nothing left to do: this long it may take to be gone.
const EXIT_TIMEOUT: Duration = Duration::from_secs(2);

/// Reads this many bytes at once: an answer and its header in one call.
const READ_BYTES: usize = 1 << 10;

/// One request.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) batch: u32,
    pub(super) inputs: Vec<Vec<u8>>,
    pub(super) reply: oneshot::Sender<Result<Inference, RunnerError>>,
}

/// The channel to and from the process: frames, and the tensors that they speak of.
#[derive(Debug)]
pub(super) struct Link {
    frames: BufReader<UnixStream>,
    pages: Pages,
}

impl Link {
    pub(super) fn new(frames: UnixStream, pages: Pages) -> Self {
        let frames = BufReader::with_capacity(READ_BYTES, frames);
        Self { frames, pages }
    }

    /// Sends a frame and reads the one that answers it.
    pub(super) async fn exchange(&mut self, frame: &[u8]) -> io::Result<(Kind, Vec<u8>)> {
        self.frames.get_mut().write_all(frame).await?;
        let mut head = [0; protocol::HEADER_BYTES];
        self.frames.read_exact(&mut head).await?;
        let (kind, length) = protocol::header(head, protocol::MAX_JSON_BYTES)?;
        let mut body = vec![0; length];
        self.frames.read_exact(&mut body).await?;
        Ok((kind, body))
    }

    async fn infer(
        &mut self,
        abi: &ModuleAbi,
        batch: u32,
        inputs: &[Vec<u8>],
    ) -> io::Result<(Kind, Vec<u8>)> {
        self.pages.put(abi, inputs)?;
        let mut frame = Vec::with_capacity(protocol::HEADER_BYTES + protocol::INFER_BYTES);
        protocol::begin(&mut frame, Kind::Infer);
        frame.extend_from_slice(&batch.to_le_bytes());
        protocol::finish(&mut frame)?;
        self.exchange(&frame).await
    }
}

/// What came of one request.
enum Outcome {
    /// The runner goes on.
    Answer(Result<Inference, RunnerError>),
    /// The process has to be killed, for this reason.
    Kill(End),
    /// The channel broke: the process is gone or going.
    Broken(io::Error),
}

/// Owner of the process.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) child: Child,
    pub(super) link: Link,
    pub(super) abi: ModuleAbi,
    /// A request that has no answer after this long costs the process its life.
    pub(super) kill_after: Duration,
}

impl Worker {
    /// Serves requests until it is told to stop or the process ends; then says how it ended.
    pub(super) async fn run(
        mut self,
        mut requests: mpsc::Receiver<Request>,
        mut stopping: watch::Receiver<bool>,
        ended: watch::Sender<Option<End>>,
    ) {
        let end = loop {
            let next = tokio::select! {
                request = requests.recv() => request,
                status = self.child.wait() => break status.map_or_else(lost, End::of),
                () = told(&mut stopping) => {
                    requests.close();
                    requests.recv().await
                }
            };
            let Some(request) = next else {
                break self.shut_down().await;
            };
            if request.reply.is_closed() {
                continue; // Whoever asked has gone away.
            }
            match self.serve(request.batch, &request.inputs).await {
                Outcome::Answer(answer) => drop(request.reply.send(answer)),
                Outcome::Kill(end) => {
                    Self::kill(&mut self.child).await;
                    drop(request.reply.send(Err(RunnerError::Ended(end.clone()))));
                    break end;
                }
                Outcome::Broken(error) => {
                    let end = Self::bury(self.child, error).await;
                    drop(request.reply.send(Err(RunnerError::Ended(end.clone()))));
                    break end;
                }
            }
        };
        // First the word, then the end of the queue: who waits for an answer finds the word.
        ended.send_replace(Some(end));
    }

    async fn serve(&mut self, batch: u32, inputs: &[Vec<u8>]) -> Outcome {
        let answer =
            tokio::time::timeout(self.kill_after, self.link.infer(&self.abi, batch, inputs));
        let answer = answer.await;
        match answer {
            Ok(Ok((kind, body))) => self.read_answer(batch, kind, &body),
            Ok(Err(error)) => Outcome::Broken(error),
            Err(_) => Outcome::Kill(End::Deadline),
        }
    }

    fn read_answer(&self, batch: u32, kind: Kind, body: &[u8]) -> Outcome {
        let broken = |what: String| Outcome::Kill(End::Protocol { what });
        match kind {
            Kind::Done => match self.read_done(batch, body) {
                Some(inference) => Outcome::Answer(Ok(inference)),
                None => broken(format!("an answer of {} bytes", body.len())),
            },
            Kind::Failed => match serde_json::from_slice(body) {
                Ok(Failed::Trap(reason)) => Outcome::Kill(End::Trap { reason }),
                Ok(Failed::Deadline) => Outcome::Kill(End::Deadline),
                Ok(Failed::Code(code)) => Outcome::Answer(Err(RunnerError::Code(code))),
                // Requests are checked before they are queued.
                Ok(Failed::Request(what)) => broken(what),
                Err(e) => broken(e.to_string()),
            },
            other => broken(format!("{other:?} instead of Done")),
        }
    }

    fn read_done(&self, batch: u32, body: &[u8]) -> Option<Inference> {
        let (latency_us, rest) = protocol::take_u32(body)?;
        let (cpu_us, rest) = protocol::take_u32(rest)?;
        // The file is as long as the memory of the ABI, so that only the length of the body can fail.
        let outputs = self.link.pages.take(&self.abi, batch).ok()?;
        rest.is_empty().then_some(Inference {
            outputs,
            latency_us,
            cpu_us,
        })
    }

    /// Ends an idle process by closing the channel.
    async fn shut_down(self) -> End {
        let Self {
            mut child, link, ..
        } = self;
        drop(link);
        if tokio::time::timeout(EXIT_TIMEOUT, child.wait())
            .await
            .is_err()
        {
            Self::kill(&mut child).await;
        }
        End::Stopped
    }

    /// How a process ended whose channel broke with this error.
    pub(super) async fn bury(mut child: Child, error: io::Error) -> End {
        if error.kind() == io::ErrorKind::InvalidData {
            Self::kill(&mut child).await;
            return End::Protocol {
                what: error.to_string(),
            };
        }
        match tokio::time::timeout(EXIT_TIMEOUT, child.wait()).await {
            Ok(status) => status.map_or_else(lost, End::of),
            Err(_) => {
                Self::kill(&mut child).await;
                End::Protocol {
                    what: format!("it closed its channel and went on ({error})"),
                }
            }
        }
    }

    /// Kills the process and waits until it is gone. Fails only if it is gone already.
    pub(super) async fn kill(child: &mut Child) {
        let _ = child.kill().await;
    }
}

/// Waits for the word to stop. Without a handle left to say it, the queue ends instead.
async fn told(stopping: &mut watch::Receiver<bool>) {
    if stopping.wait_for(|stop| *stop).await.is_err() {
        std::future::pending().await
    }
}

/// The process is gone, but its status cannot be had.
fn lost(error: io::Error) -> End {
    End::Protocol {
        what: format!("its status is unknown ({error})"),
    }
}
