//! Drives the real binaries from outside: a controller and agents as processes in a temporary
//! directory, on loopback, with emulated hardware and a made-up sysfs.
//!
//! | module | what it does |
//! |---|---|
//! | [`binaries`] | builds the two programs, each by itself |
//! | [`process`] | a child process with its log, ended by its own id |
//! | [`controller`] | a fleet: `init`, `serve`, and the command line against it |
//! | [`device`] | an agent with an emulated profile |
//! | [`relay`] | a bad connection |
//! | [`sysfs`] | the tree that an agent reads its battery from |
//! | [`oip`] | the inference protocol as a local program speaks it |
//! | [`onnx`] | breaks a model file on purpose |
//! | [`board`] | a power sensor that knows what an inference costs |
//! | [`vibration`] | a hand-written module that is slow, or dies or errs on some inputs, as a test wants it |
//! | [`gated`] | two devices that serve v1, and how a v2 ends that they are brought |
//! | [`traffic`] | local programs that ask an agent |
//! | [`wait`] | waits with a bound |

pub mod binaries;
pub mod board;
pub mod controller;
pub mod device;
pub mod gated;
pub mod oip;
pub mod onnx;
pub mod process;
pub mod relay;
pub mod sysfs;
pub mod traffic;
pub mod vibration;
pub mod wait;

use std::path::{Path, PathBuf};

/// The root of the workspace.
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_path_buf()
}

/// The example that comes with the sources.
pub fn activity() -> PathBuf {
    root().join("examples/activity")
}
