//! Guests in runner processes, and the self-test before one may serve.

use crate::guest::{Answer, Boxed, Guest, GuestError, LaunchSpec, Launcher};
use crate::runner::{End, Runner, RunnerError, RunnerSpec};
use sandpiper_core::abi::ModuleAbi;
use sandpiper_core::tensor::DType;
use sandpiper_sandbox::Limits;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Requests that may wait for one model; more are told to come back.
const QUEUE: usize = 64;
/// How long a runner may take to load from a slow card.
const LOAD_TIMEOUT: Duration = Duration::from_secs(30);

/// Starts runners from this program.
#[derive(Debug, Clone)]
pub struct ProcessLauncher {
    /// The agent's own program.
    pub exe: PathBuf,
    /// Cores that one inference uses.
    pub workers: u32,
}

struct Process(Runner);

impl From<RunnerError> for GuestError {
    fn from(error: RunnerError) -> Self {
        match error {
            RunnerError::Request(e) => Self::BadRequest(e.to_string()),
            RunnerError::Busy { .. }
            | RunnerError::Gone(End::Stopped)
            | RunnerError::Ended(End::Stopped) => Self::Busy,
            RunnerError::Gone(end) => Self::Gone(end.to_string()),
            RunnerError::Code(code) => Self::Code(code),
            RunnerError::Ended(end) => Self::Died(end.to_string()),
            other @ (RunnerError::Spawn { .. }
            | RunnerError::Refused { .. }
            | RunnerError::LoadTimeout { .. }) => Self::Load(other.to_string()),
        }
    }
}

impl Guest for Process {
    fn end(&self) -> Boxed<'static, Option<String>> {
        let ended = self.0.ended();
        Box::pin(async move {
            match ended.await {
                End::Stopped => None,
                died => Some(died.to_string()),
            }
        })
    }

    fn lockdown(&self) -> BTreeMap<String, String> {
        self.0.lockdown().clone()
    }

    fn infer(&self, batch: u32, inputs: Vec<Vec<u8>>) -> Boxed<'_, Result<Answer, GuestError>> {
        Box::pin(async move {
            let done = self.0.infer(batch, inputs).await?;
            Ok(Answer {
                outputs: done.outputs,
                latency_us: done.latency_us,
                cpu_us: u64::from(done.cpu_us),
            })
        })
    }
}

impl Launcher for ProcessLauncher {
    fn launch(&self, spec: LaunchSpec) -> Boxed<'_, Result<Arc<dyn Guest>, GuestError>> {
        Box::pin(async move {
            let limits = Limits {
                memory_bytes: spec.abi.memory_bytes,
                deadline: spec.deadline,
            };
            let runner = Runner::spawn(RunnerSpec {
                exe: self.exe.clone(),
                name: spec.label,
                native: spec.native,
                weights: spec.weights,
                abi: spec.abi,
                limits,
                workers: self.workers,
                queue: QUEUE,
                load_timeout: LOAD_TIMEOUT,
            })
            .await?;
            let guest: Arc<dyn Guest> = Arc::new(Process(runner));
            Ok(guest)
        })
    }
}

/// Runs the golden input and compares the outputs: floats within `tolerance` relative to
/// `max(1, |expected|)`, integers within one step.
///
/// # Errors
/// What differs, in words.
pub async fn self_test(
    guest: &dyn Guest,
    abi: &ModuleAbi,
    golden: &[u8],
    tolerance: f32,
) -> Result<(), String> {
    if golden.len() != abi.input_bytes(1) + abi.output_bytes(1) {
        return Err("the golden file does not have the length that the ABI says".into());
    }
    let mut rest = golden;
    let mut take = |n: usize| {
        let (head, tail) = rest.split_at(n);
        rest = tail;
        head.to_vec()
    };
    let inputs = abi
        .inputs
        .iter()
        .map(|t| take(t.spec.size_bytes(1)))
        .collect();
    let answer = guest.infer(1, inputs).await.map_err(|e| e.to_string())?;
    if answer.outputs.len() != abi.outputs.len() {
        return Err("the model did not give every output".into());
    }
    for (tensor, got) in abi.outputs.iter().zip(&answer.outputs) {
        let want = take(tensor.spec.size_bytes(1));
        compare(tensor.spec.dtype, &want, got, tolerance)
            .map_err(|why| format!("output `{}`: {why}", tensor.spec.name))?;
    }
    Ok(())
}

fn compare(dtype: DType, want: &[u8], got: &[u8], tolerance: f32) -> Result<(), String> {
    if want.len() != got.len() {
        return Err(format!(
            "{} bytes where {} are expected",
            got.len(),
            want.len()
        ));
    }
    let size = dtype.size_bytes();
    for (at, (w, g)) in want
        .chunks_exact(size)
        .zip(got.chunks_exact(size))
        .enumerate()
    {
        let (w, g) = (value(dtype, w), value(dtype, g));
        if !g.is_finite() {
            return Err(format!("element {at} is {g}"));
        }
        let limit = match dtype {
            DType::F32 => f64::from(tolerance) * w.abs().max(1.0),
            DType::Bool => 0.0,
            DType::I8 | DType::U8 | DType::I32 | DType::I64 => 1.0,
        };
        // A golden NaN never compares: the check must not pass because of it.
        if (w - g).abs() > limit || !w.is_finite() {
            return Err(format!("element {at} is {g}, {w} is expected"));
        }
    }
    Ok(())
}

fn value(dtype: DType, b: &[u8]) -> f64 {
    match dtype {
        DType::F32 => f64::from(f32::from_le_bytes([b[0], b[1], b[2], b[3]])),
        DType::I32 => f64::from(i32::from_le_bytes([b[0], b[1], b[2], b[3]])),
        DType::I64 => i64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]) as f64,
        DType::I8 => f64::from(b[0].cast_signed()),
        DType::U8 | DType::Bool => f64::from(b[0]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nan_and_large_differences_fail() {
        let f = |x: f32| x.to_le_bytes();
        assert!(compare(DType::F32, &f(1.0), &f(1.00005), 1e-4).is_ok());
        assert!(compare(DType::F32, &f(1.0), &f(1.1), 1e-4).is_err());
        assert!(compare(DType::F32, &f(1.0), &f(f32::NAN), 1e-4).is_err());
        assert!(compare(DType::F32, &f(f32::NAN), &f(f32::NAN), 1e-4).is_err());
        assert!(compare(DType::I8, &[5], &[6], 0.0).is_ok());
        assert!(compare(DType::I8, &[5], &[7], 0.0).is_err());
    }
}
