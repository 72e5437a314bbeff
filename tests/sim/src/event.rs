//! What happens in the world.

use sandpiper_core::assignment::AssignmentBundle;
use sandpiper_core::digest::ArtefactRef;
use sandpiper_core::names::{ModelName, VariantName, VersionName};
use sandpiper_core::telemetry::{Hello, Observation, TelemetryWindow};
use sandpiper_core::time::Millis;

/// What a runner runs.
pub type Key = (ModelName, VersionName, VariantName);

/// A connection, numbered over the whole world.
pub type Conn = u64;

/// One thing that happens.
#[derive(Debug, Clone)]
pub enum Happening {
    /// A fault of the list begins.
    Fault(usize),
    /// A fault of the list ends.
    FaultEnds(usize),
    /// An operator does something.
    Operator(usize),
    /// A message reaches the controller.
    Up(usize, Conn, Up),
    /// A message reaches a device.
    Down(usize, Conn, Down),
    /// A device notices that its connection is dead.
    DeviceNotices(usize, Conn),
    /// The controller notices that a connection is dead.
    ControllerNotices(usize, Conn),
    /// A timer of one start of a device.
    Timer(usize, u64, Timer),
    /// A device gets power.
    Power(usize),
    /// The controller looks at its deadlines.
    ControllerLooks(u64),
    /// Bandwidth is left again for downloads.
    LinkLooks,
    /// The controller is started.
    ControllerStarts,
    /// Everything is mended.
    Heal,
}

/// A message of a device.
#[derive(Debug, Clone)]
pub enum Up {
    /// The first one.
    Hello(Box<Hello>),
    /// How it is.
    Observation(Box<Observation>),
    /// What it measured.
    Telemetry(Vec<TelemetryWindow>),
}

/// A message of the controller.
#[derive(Debug, Clone)]
pub enum Down {
    /// A desired state.
    Assignment(Box<AssignmentBundle>),
    /// Windows are stored.
    Ack {
        /// Of this installation.
        boot: u64,
        /// Up to this one.
        sequence: u64,
    },
    /// What time it is.
    Clock(Millis),
    /// The last message.
    Disconnect {
        /// Whether the device is to come back.
        retry: bool,
    },
}

/// What a device waits for.
#[derive(Debug, Clone)]
pub enum Timer {
    /// Its next attempt to connect.
    Connect,
    /// The end of a telemetry window.
    Window,
    /// A deadline of its reconciler.
    Due,
    /// The end of a download.
    Fetched(ArtefactRef),
    /// The end of a runner's start.
    Started(Key, u64),
    /// The death of a runner.
    Dies(Key, u64),
}
