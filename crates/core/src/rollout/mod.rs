//! Moving a deployment from one version to another, wave by wave.
//!
//! [`plan`](plan()) makes an immutable plan that can be printed; [`Rollout`] executes it as a
//! state machine: events in, effects out, time as an argument. A device has succeeded when it
//! served inferences under the code that it was assigned; a silent device has not.
//!
//! | module | what it holds |
//! |---|---|
//! | `plan` | who moves in which wave to which ladder |
//! | `state` | where a rollout and each of its devices stand |
//! | `machine` | events in, effects out; pausing and resuming |
//! | `waves` | when a wave begins, is done, has failed |
//! | `fill` | who may move now: bounds on devices in flight |
//! | `progress` | what reports say of a device |
//! | `gate` | what measured figures say of a wave |
//! | `back` | going back |

mod back;
mod fill;
mod gate;
mod machine;
mod plan;
mod progress;
mod state;
mod waves;

pub use fill::InFlight;
pub use gate::{Gates, LEAST_SPREAD, Metric, Pair, Reading, Sample, Verdict, Z_FAIL, Z_PASS};
pub use machine::{RolloutEffect, RolloutEvent, SteerVerb};
pub use plan::{
    DisruptionBudget, FleetDevice, PlanError, PlannedDevice, RolloutPlan, RolloutSpec, Unfit,
    WaveSize, plan,
};
pub use state::{DeviceRollout, Rollout, RolloutState};
