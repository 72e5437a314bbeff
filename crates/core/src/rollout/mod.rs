//! Moving a deployment from one version to another, wave by wave.
//!
//! [`plan`](plan()) makes an immutable plan that can be printed; [`Rollout`] executes it as a
//! state machine: events in, effects out, time as an argument. A device has succeeded when it
//! served inferences under the code that it was assigned; a silent device has not.

mod fill;
mod machine;
mod plan;
mod state;

pub use fill::InFlight;
pub use machine::{RolloutEffect, RolloutEvent, SteerVerb};
pub use plan::{
    DisruptionBudget, FleetDevice, PlanError, PlannedDevice, RolloutPlan, RolloutSpec, Unfit,
    WaveSize, plan,
};
pub use state::{DeviceRollout, Rollout, RolloutState};
