//! Modules in text form with an ABI section, for the tests.
#![allow(dead_code, clippy::unwrap_used)]

use sandpiper_core::abi::{ABI_VERSION, ModuleAbi, PlacedTensor, SECTION, WeightsRegion};
use sandpiper_core::digest::Digest;
use sandpiper_core::tensor::{DType, Dim, TensorSpec};
use sandpiper_sandbox::{Instance, Limits, LoadSpec, Native, Origin, SandboxError, load_wasm};
use std::time::Duration;

/// Long enough for any test machine: tests that expect a deadline set their own.
pub(crate) const PATIENT: Duration = Duration::from_secs(120);

/// A tensor of `i32` with shape `[batch, width]`.
pub(crate) fn tensor(name: &str, offset: u32, width: u32) -> PlacedTensor {
    let dims = vec![Dim::Batch, Dim::Fixed(width)];
    PlacedTensor {
        spec: TensorSpec {
            name: name.into(),
            dtype: DType::I32,
            dims,
        },
        offset,
    }
}

/// One input `x` of 4 numbers at 0, one output `y` of 4 numbers at 1024, batch up to 8.
pub(crate) fn abi(pages: u64) -> ModuleAbi {
    ModuleAbi {
        abi: ABI_VERSION,
        inputs: vec![tensor("x", 0, 4)],
        outputs: vec![tensor("y", 1024, 4)],
        max_batch: 8,
        memory_bytes: pages << 16,
        weights: None,
        bounded: false,
    }
}

/// The same with weights from page 1 on.
pub(crate) fn abi_with_weights(pages: u64, blob: &[u8]) -> ModuleAbi {
    let weights = WeightsRegion {
        offset: 1 << 16,
        size_bytes: u32::try_from(blob.len()).unwrap(),
        digest: Digest::of(blob),
    };
    ModuleAbi {
        weights: Some(weights),
        ..abi(pages)
    }
}

/// Appends the ABI section to a module in text form.
pub(crate) fn module(wat: &str, abi: &ModuleAbi) -> Vec<u8> {
    with_section(&wat::parse_str(wat).unwrap(), &abi.to_section())
}

/// Appends a custom section `sandpiper.abi` with these bytes.
pub(crate) fn with_section(wasm: &[u8], section: &[u8]) -> Vec<u8> {
    let mut body = leb(SECTION.len());
    body.extend_from_slice(SECTION.as_bytes());
    body.extend_from_slice(section);
    let mut wasm = wasm.to_vec();
    wasm.push(0);
    wasm.extend(leb(body.len()));
    wasm.extend(body);
    wasm
}

fn leb(mut n: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = (n & 0x7f) as u8;
        n >>= 7;
        if n == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}

/// `infer` with this body, over a memory of so many pages. The parameter is `$batch`; `$i` and `$n`
/// are free local variables.
pub(crate) fn infer(pages: u64, body: &str) -> String {
    format!(
        "(module (memory (export \"memory\") {pages} {pages})
           (func (export \"infer\") (param $batch i32) (result i32) (local $i i32) (local $n i32)
             {body}))"
    )
}

/// Copies `batch * 4` numbers from the input to the output and adds 1 to each.
pub(crate) const ADD_ONE: &str = "
    (local.set $n (i32.shl (local.get $batch) (i32.const 4)))
    (loop $next
      (i32.store offset=1024 (local.get $i)
        (i32.add (i32.load (local.get $i)) (i32.const 1)))
      (local.set $i (i32.add (local.get $i) (i32.const 4)))
      (br_if $next (i32.lt_u (local.get $i) (local.get $n))))
    (i32.const 0)";

pub(crate) fn bytes(numbers: &[i32]) -> Vec<u8> {
    numbers.iter().flat_map(|n| n.to_le_bytes()).collect()
}

pub(crate) fn numbers(bytes: &[u8]) -> Vec<i32> {
    bytes
        .chunks_exact(4)
        .map(|b| i32::from_le_bytes(b.try_into().unwrap()))
        .collect()
}

/// Loads a brought module without weights.
pub(crate) fn brought(wat: &str, abi: &ModuleAbi) -> Result<Instance, SandboxError> {
    load_wasm(&module(wat, abi), &[], Origin::Brought, PATIENT)
}

/// Runs batch 1 on the numbers 1, 2, 3, 4.
pub(crate) fn run(instance: &mut Instance) -> Result<Vec<i32>, sandpiper_sandbox::InferError> {
    let mut outputs = [Vec::new()];
    instance.infer(1, &[&bytes(&[1, 2, 3, 4])], &mut outputs)?;
    Ok(numbers(&outputs[0]))
}

pub(crate) fn limits(abi: &ModuleAbi) -> Limits {
    Limits {
        memory_bytes: abi.memory_bytes,
        deadline: PATIENT,
    }
}

/// Loads native code from bytes, without weights.
pub(crate) fn load_native(native: &[u8], abi: ModuleAbi) -> Result<Instance, SandboxError> {
    let limits = limits(&abi);
    Instance::load(LoadSpec {
        native: Native::Bytes(native),
        abi,
        weights: None,
        limits,
    })
}
