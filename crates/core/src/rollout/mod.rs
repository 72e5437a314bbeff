//! Moving a deployment from one version to another, wave by wave.
//!
//! [`plan`](plan()) makes an immutable plan that can be printed; [`Rollout`] executes it as a
//! state machine: events in, effects out, time as an argument. A device has succeeded when it
//! served inferences under the code that it was assigned; a silent device has not.
//!
//! | module | what it holds |
//! |---|---|
//! | `spec` | what is asked for, and its mistakes |
//! | `plan` | who moves in which wave to which ladder |
//! | `pace` | how long devices take to move, from how long they took |
//! | `forecast` | what a plan is going to do |
//! | `rehearsal` | the machine driven through a plan, for the times of a forecast |
//! | `course` | when one device of it reports what |
//! | `state` | where a rollout and each of its devices stand |
//! | `devices` | the devices with their states, and counts that are kept along |
//! | `steer` | what operators may ask of a rollout, and when |
//! | `machine` | events in, effects out; pausing and resuming |
//! | `waves` | when a wave begins, is done, has failed |
//! | `fill` | who may move now: bounds on devices in flight |
//! | `approval` | which waves wait for the word of an operator |
//! | `phase` | how long each phase of a device may last |
//! | `windows` | when devices may fetch and switch |
//! | `progress` | what reports say of a device |
//! | `sample` | what a device measured under a version on each rung |
//! | `measured`, `sums` | what devices measured, summed up as it comes |
//! | `gate` | what these figures say of a wave |
//! | `bounds` | the tests behind that: what holds at every look |
//! | `back` | going back |

mod approval;
mod back;
mod bounds;
mod course;
mod devices;
mod fill;
mod forecast;
mod gate;
mod machine;
mod measured;
mod order;
mod pace;
mod phase;
mod plan;
mod progress;
mod rehearsal;
mod sample;
mod spec;
mod state;
mod steer;
mod sums;
mod waves;
mod windows;

pub use approval::{Approval, AskingError, AskingWaves};
pub use bounds::{FALSE_ALARMS, Z_FAIL, Z_PASS, at_every_look};
pub use devices::Devices;
pub use fill::InFlight;
pub use forecast::{Change, Forecast, MoveEnergy, WaveForecast, forecast};
pub use gate::{Gates, LEAST_SPREAD, Metric, Reading, Verdict};
pub use machine::{RolloutEffect, RolloutEvent};
pub use measured::Measured;
pub use pace::{Duration, Move, Pace};
pub use phase::{Deadlines, Phase};
pub use plan::{FleetDevice, PlanError, PlannedDevice, RolloutPlan, Unfit, plan};
pub use sample::{Pair, Pairs, Sample, pairs};
pub use spec::{DisruptionBudget, MAX_WAVES, RolloutSpec, SpecError, WaveSize};
pub use state::{DeviceRollout, Rollout, RolloutState, Wait};
pub use steer::SteerVerb;
pub use windows::{MAX_WAIT_S, Windows};
