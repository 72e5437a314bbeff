//! gRPC for devices and operators: the only place with generated types. A message is converted
//! as soon as it arrives; what goes on is valid.

mod auth;
pub mod client;
mod device;
mod enrolment;
mod fetch;
mod operator;
mod status;
mod throttle;
mod watch;

pub use device::Devices;
pub use enrolment::Enrolments;
pub use operator::Operators;
pub use throttle::Throttle;
