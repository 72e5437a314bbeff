//! rten as a wasm module: `room` for each file, `take` it, `load`, `run`, then ask for the outputs.
//!
//! The caller is one thread that makes one call at a time. Texts and numbers are handed out as a place
//! in the memory, valid until the next call.

use anyhow::{Context, Result};
use sandpiper_peers_rten::Rten;
use std::cell::RefCell;

#[derive(Default)]
struct State {
    /// Where the caller writes the next file.
    room: Vec<u8>,
    files: Vec<Vec<u8>>,
    model: Option<Rten>,
    outputs: Vec<f64>,
    complaint: String,
}

thread_local! {
    static STATE: RefCell<State> = RefCell::default();
}

/// 0, or 1 with a [`complaint`].
fn told(work: impl FnOnce(&mut State) -> Result<()>) -> i32 {
    STATE.with_borrow_mut(|state| match work(state) {
        Ok(()) => 0,
        Err(error) => {
            state.complaint = format!("{error:#}");
            1
        }
    })
}

/// The place of so many bytes.
#[unsafe(no_mangle)]
pub extern "C" fn room(bytes: usize) -> *mut u8 {
    STATE.with_borrow_mut(|state| {
        state.room = vec![0; bytes];
        state.room.as_mut_ptr()
    })
}

/// The bytes in `room` are a file: first the model, then each input.
#[unsafe(no_mangle)]
pub extern "C" fn take() {
    STATE.with_borrow_mut(|state| {
        let file = std::mem::take(&mut state.room);
        state.files.push(file);
    });
}

/// Loads what was taken.
#[unsafe(no_mangle)]
pub extern "C" fn load() -> i32 {
    told(|state| {
        let mut files = std::mem::take(&mut state.files).into_iter();
        let onnx = files.next().context("no model")?;
        let inputs: Vec<Vec<u8>> = files.collect();
        state.model = Some(Rten::load(onnx, &inputs)?);
        Ok(())
    })
}

/// One run.
#[unsafe(no_mangle)]
pub extern "C" fn run() -> i32 {
    told(|state| {
        state.model.as_ref().context("no model is loaded")?.run()?;
        Ok(())
    })
}

/// One run whose outputs are kept: the elements of all, one after the other, as f64.
#[unsafe(no_mangle)]
pub extern "C" fn outputs() -> i32 {
    told(|state| {
        let model = state.model.as_ref().context("no model is loaded")?;
        state.outputs = model.outputs()?.concat();
        Ok(())
    })
}

/// Where the outputs are.
#[unsafe(no_mangle)]
pub extern "C" fn outputs_at() -> *const f64 {
    STATE.with_borrow(|state| state.outputs.as_ptr())
}

/// How many elements they have.
#[unsafe(no_mangle)]
pub extern "C" fn outputs_count() -> usize {
    STATE.with_borrow(|state| state.outputs.len())
}

/// Where the reason of a 1 is, in UTF-8.
#[unsafe(no_mangle)]
pub extern "C" fn complaint_at() -> *const u8 {
    STATE.with_borrow(|state| state.complaint.as_ptr())
}

/// Its length in bytes.
#[unsafe(no_mangle)]
pub extern "C" fn complaint_bytes() -> usize {
    STATE.with_borrow(|state| state.complaint.len())
}
