//! Emitting wasm: functions, vector idioms, the module.

mod func;
mod module;
mod place;
mod simd;

pub(crate) use func::{Func, Local, at};
pub(crate) use module::module;
pub(crate) use place::{Place, Places, Ref};
pub(crate) use simd::range;
