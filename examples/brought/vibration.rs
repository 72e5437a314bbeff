//! A module by hand that keeps ABI v1: of 256 samples of an accelerometer the mean, the variance and
//! the largest distance from the mean.
//!
//! ```sh
//! rustup target add wasm32-unknown-unknown
//! rustc --edition 2021 --target wasm32-unknown-unknown --crate-type cdylib -O -C panic=abort \
//!   -C link-arg=-zstack-size=16384 -C link-arg=--stack-first \
//!   -C link-arg=--initial-memory=65536 -C link-arg=--max-memory=65536 vibration.rs
//! ```
//!
//! One page of 64 KiB, in this order: the stack, what the compiler places, and from the offsets of
//! `abi.json` on the input and the output. Nothing is allocated and nothing is imported.

#![no_std]

use core::slice;

/// `max_batch` of `abi.json`.
const MAX_BATCH: usize = 8;
const SAMPLES: usize = 256;
const FEATURES: usize = 3;
/// The offsets of `abi.json`.
const INPUT: usize = 32768;
const OUTPUT: usize = 49152;

/// The custom section that tells the host where the tensors are.
#[link_section = "sandpiper.abi"]
#[used]
static ABI: [u8; include_bytes!("abi.json").len()] = *include_bytes!("abi.json");

/// 0 when the features of `batch` items are written, 1 when there are too many.
#[no_mangle]
pub extern "C" fn infer(batch: i32) -> i32 {
    let batch = batch as usize;
    if batch > MAX_BATCH {
        return 1;
    }
    // SAFETY: both places lie in the only page, behind stack and data, and do not overlap; the host
    // touches them only while this function does not run.
    let (input, output) = unsafe {
        (
            slice::from_raw_parts(INPUT as *const f32, batch * SAMPLES),
            slice::from_raw_parts_mut(OUTPUT as *mut f32, batch * FEATURES),
        )
    };
    for (samples, features) in input.chunks_exact(SAMPLES).zip(output.chunks_exact_mut(FEATURES)) {
        features.copy_from_slice(&vibration(samples));
    }
    0
}

fn vibration(samples: &[f32]) -> [f32; FEATURES] {
    let mut sum = 0.0;
    for s in samples {
        sum += s;
    }
    let mean = sum / SAMPLES as f32;
    let (mut squares, mut peak) = (0.0, 0.0);
    for s in samples {
        let far = s - mean;
        squares += far * far;
        let far = if far < 0.0 { -far } else { far };
        if far > peak {
            peak = far;
        }
    }
    [mean, squares / SAMPLES as f32, peak]
}

#[panic_handler]
fn stop(_: &core::panic::PanicInfo<'_>) -> ! {
    core::arch::wasm32::unreachable()
}
