//! The runner's side: one module, one thread with blocking reads, and, where the agent says so,
//! workers that wait for it.
//!
//! It has to be entered before the program starts threads or an asynchronous runtime, since it
//! forbids new ones.

use super::protocol::{self, Failed, Kind, Load, Ready, Refused};
use crate::memory::Program;
use crate::words::chain;
use rustix::time::{ClockId, clock_gettime};
use sandpiper_sandbox::lockdown::{self, LockSpec};
use sandpiper_sandbox::{Crew, InferError, Limits, LoadSpec, Native, SandboxError, Weights};
use std::fs::File;
use std::io::{self, BufReader, Write as _};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Address space for the stack, the allocator and small buffers. Tensors lie in pages that are mapped
/// before.
const HEADROOM_BYTES: u64 = 32 << 20;

/// Reads this many bytes at once: a request and its header in one call.
const READ_BYTES: usize = 1 << 10;

/// The agent broke the protocol, or a pipe failed.
const EXIT_PROTOCOL: u8 = 2;
/// The module was not loaded.
const EXIT_REFUSED: u8 = 3;
/// The module trapped or was interrupted.
const EXIT_TRAPPED: u8 = 4;

/// Entry of the hidden subcommand `runner`: serves frames on standard input, which is a socket, until it
/// ends. Standard output is the memory with the tensors.
pub fn main() -> ExitCode {
    match serve() {
        Ok(code) => code,
        Err(error) => {
            // The agent reads standard error; there is no other way to say it. If that fails too,
            // the exit code remains.
            let _ = writeln!(io::stderr(), "runner: {error}");
            ExitCode::from(EXIT_PROTOCOL)
        }
    }
}

fn serve() -> io::Result<ExitCode> {
    close_inherited_files();
    let channel = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut output = channel.try_clone()?;
    let mut input = BufReader::with_capacity(READ_BYTES, channel);
    let pages = File::from(io::stdout().as_fd().try_clone_to_owned()?);

    let mut body = Vec::new();
    let load: Load = match protocol::read(&mut input, &mut body, protocol::MAX_JSON_BYTES)? {
        None => return Ok(ExitCode::SUCCESS),
        Some(Kind::Load) => serde_json::from_slice(&body)?,
        Some(other) => return Err(unexpected(other)),
    };
    // While it may still look.
    let program = Program::find();
    let begun = Instant::now();
    let readable: Vec<&Path> = [Some(&load.native), load.weights.as_ref()]
        .into_iter()
        .flatten()
        .map(PathBuf::as_path)
        .collect();
    let isolated = lockdown::isolate(&readable);
    let crew = match load_module(&load, &pages) {
        Ok(crew) => crew,
        Err(error) => {
            let refused = Refused {
                reason: chain(&error),
            };
            output.write_all(&protocol::json(Kind::Refused, &refused)?)?;
            return Ok(ExitCode::from(EXIT_REFUSED));
        }
    };
    let load_us = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
    program.give_back();
    let lockdown = isolated.lock(&LOCK).to_map();
    output.write_all(&protocol::json(Kind::Ready, &Ready { lockdown, load_us })?)?;
    answer_all(crew, &mut input, &mut output, &mut body)
}

/// Closes what the agent, or whoever started the agent, has left open by mistake. The standard
/// library marks its own files to be closed; this is for all others.
fn close_inherited_files() {
    let (first, last): (libc::c_uint, libc::c_uint) = (3, libc::c_uint::MAX);
    // SAFETY: the system call touches no memory, and nothing in this process owns a descriptor
    // above standard error yet: this is the first thing a runner does.
    #[allow(unsafe_code)]
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    if result != 0 {
        // Linux before 5.9. There is nothing to be closed unless somebody made a mistake.
        let error = io::Error::last_os_error();
        let _ = writeln!(io::stderr(), "runner: inherited files stay open: {error}");
    }
}

fn load_module(load: &Load, pages: &File) -> Result<Crew, SandboxError> {
    let spec = LoadSpec {
        native: Native::File(&load.native),
        abi: load.abi.clone(),
        weights: load.weights.as_deref().map(Weights::File),
        limits: Limits {
            memory_bytes: load.memory_bytes,
            deadline: Duration::from_micros(load.deadline_us),
        },
    };
    Crew::load_over(spec, load.workers, pages)
}

const LOCK: LockSpec = LockSpec {
    headroom_bytes: HEADROOM_BYTES,
};

fn answer_all(
    mut crew: Crew,
    input: &mut BufReader<File>,
    output: &mut File,
    body: &mut Vec<u8>,
) -> io::Result<ExitCode> {
    let mut frame = Vec::new();
    loop {
        match protocol::read(input, body, protocol::INFER_BYTES)? {
            None => return Ok(ExitCode::SUCCESS),
            Some(Kind::Infer) => {}
            Some(other) => return Err(unexpected(other)),
        }
        match answer(&mut crew, body, &mut frame) {
            Ok(()) => output.write_all(&frame)?,
            Err(error) => {
                let fatal = error.is_fatal();
                output.write_all(&protocol::json(Kind::Failed, &failed(error))?)?;
                if fatal {
                    return Ok(ExitCode::from(EXIT_TRAPPED));
                }
            }
        }
    }
}

/// Runs the batch that `body` names; leaves a `Done` frame in `frame`.
fn answer(crew: &mut Crew, body: &[u8], frame: &mut Vec<u8>) -> Result<(), InferError> {
    // A body that is too short has no batch: 0 is refused below with the right message.
    let (batch, _) = protocol::take_u32(body).unwrap_or_default();
    let (begun, cpu_begun) = (Instant::now(), cpu_us());
    crew.run(batch)?;
    let latency_us = begun.elapsed().as_micros();
    let cpu_us = cpu_us().saturating_sub(cpu_begun);

    protocol::begin(frame, Kind::Done);
    frame.extend_from_slice(&u32::try_from(latency_us).unwrap_or(u32::MAX).to_le_bytes());
    frame.extend_from_slice(&u32::try_from(cpu_us).unwrap_or(u32::MAX).to_le_bytes());
    // It is as long as any other answer, so it has a length.
    protocol::finish(frame).map_err(|e| InferError::Trap {
        reason: e.to_string(),
    })
}

/// CPU time of all threads in microseconds.
fn cpu_us() -> u64 {
    let now = clock_gettime(ClockId::ProcessCPUTime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds * 1_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0) / 1000
}

fn failed(error: InferError) -> Failed {
    match error {
        InferError::Trap { reason } => Failed::Trap(reason),
        InferError::Deadline => Failed::Deadline,
        InferError::Code(code) => Failed::Code(code),
        // The runner exits after the call that poisons its instance, so this is never sent.
        InferError::Poisoned => Failed::Trap(error.to_string()),
        InferError::BadBatch { .. }
        | InferError::WrongCount { .. }
        | InferError::WrongSize { .. } => Failed::Request(error.to_string()),
    }
}

fn unexpected(kind: Kind) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("unexpected frame {kind:?}"),
    )
}
