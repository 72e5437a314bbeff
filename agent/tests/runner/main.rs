//! Runner processes: good modules are served, whatever bad ones do next to them.
#![allow(clippy::unwrap_used)]

mod broken_into;
#[path = "../../../crates/sandbox/tests/common/mod.rs"]
mod common;
mod hostile;
mod served;
mod workers;
mod workshop;

/// `broken_into` runs machine code by hand.
#[cfg(not(target_arch = "x86_64"))]
#[test]
#[allow(clippy::print_stdout)]
fn no_runner_is_broken_into_here() {
    println!("skipped: 5 tests of a runner that was broken into, whose machine code is for x86-64");
}
