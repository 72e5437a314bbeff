//! What a selection says: every variant with its figures, why it does not fit, and the choices.

use crate::energy::Provenance;
use crate::names::{DeviceName, ModelName, VariantName, VersionName};
use crate::profile::PowerState;
use crate::target::Target;
use crate::tensor::DType;
use serde::{Deserialize, Serialize};

/// Why a variant does not fit a device. Every figure that led to the verdict is in it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "reason")]
pub enum Misfit {
    /// No native code for any target the device can run.
    NoTarget {
        /// Targets of the device.
        device: Vec<Target>,
    },
    /// Native code is there, but made for another runtime.
    RuntimeMismatch {
        /// Key of the code.
        code: String,
    },
    /// The device must not run this arithmetic.
    DTypeNotAllowed {
        /// Arithmetic of the variant.
        dtype: DType,
    },
    /// Not enough RAM.
    Memory {
        /// Guest memory, native code and runner, in bytes.
        need_bytes: u64,
        /// [`super::RAM_SHARE`] of what is available.
        limit_bytes: u64,
    },
    /// Not enough disk.
    Disk {
        /// Bytes to hold.
        need_bytes: u64,
        /// Bytes free.
        free_bytes: u64,
    },
    /// Too inaccurate for the policy.
    AccuracyFloor {
        /// Accuracy of the variant.
        accuracy: f64,
        /// The floor.
        floor: f64,
    },
    /// Too slow for the policy.
    LatencySlo {
        /// Predicted latency.
        predicted_us: u32,
        /// The objective.
        slo_us: u32,
        /// Probability of meeting it.
        probability: f64,
    },
    /// Takes too much energy for the policy.
    EnergyBudget {
        /// Predicted energy of one inference.
        predicted_uj: u64,
        /// The budget.
        budget_uj: u64,
    },
    /// The battery would not last as long as the policy asks.
    BatteryLife {
        /// Hours it would last.
        predicted_hours: f64,
        /// Hours asked for.
        wanted_hours: f64,
    },
    /// Failed on this device before; not tried again until it is imported anew.
    FailedBefore {
        /// What happened.
        message: String,
    },
}

/// A predicted figure and how sure it is.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Prediction {
    /// Median.
    pub value: f64,
    /// Standard deviation of the natural logarithm.
    pub log_sigma: f64,
    /// `Measured` when this device's own reports dominate, `Modelled` before.
    pub provenance: Provenance,
    /// Inferences behind it.
    pub samples: u64,
}

/// One variant looked at for one device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    /// The variant.
    pub variant: VariantName,
    /// Accuracy, 0..=1.
    pub accuracy: f64,
    /// The accuracy was stated by the publisher and measured by nobody.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub claimed: bool,
    /// Target whose code the device would run.
    pub target: Option<Target>,
    /// RAM it needs in all, in bytes.
    pub need_bytes: u64,
    /// Bytes to hold on the device.
    pub download_bytes: u64,
    /// Latency of one inference in microseconds.
    pub latency_us: Option<Prediction>,
    /// Marginal energy of one inference in microjoules.
    pub energy_uj: Option<Prediction>,
    /// Latency that this device reported (p50, p95 in µs), if it ran the variant.
    pub measured_latency_us: Option<(u32, u32)>,
    /// Energy that this device reported per inference, in µJ.
    pub measured_energy_uj: Option<f64>,
    /// Why it does not fit; empty when it does.
    pub misfits: Vec<Misfit>,
}

/// What a variant is expected to do on a device: what a plan keeps of a candidate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Expected {
    /// The variant.
    pub variant: VariantName,
    /// Accuracy, 0..=1.
    pub accuracy: f64,
    /// The accuracy was stated by the publisher and measured by nobody.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub claimed: bool,
    /// Latency of one inference in microseconds.
    pub latency_us: Option<Prediction>,
    /// Marginal energy of one inference in microjoules.
    pub energy_uj: Option<Prediction>,
}

impl From<&Candidate> for Expected {
    fn from(candidate: &Candidate) -> Self {
        Self {
            variant: candidate.variant.clone(),
            accuracy: candidate.accuracy,
            claimed: candidate.claimed,
            latency_us: candidate.latency_us,
            energy_uj: candidate.energy_uj,
        }
    }
}

/// Why the chosen variant was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChoiceReason {
    /// The only one that fits.
    OnlyFit,
    /// Highest accuracy of those that fit.
    MostAccurate,
    /// Lowest energy among the most accurate (closer than the tie).
    LeastEnergyAmongTies,
    /// Lowest energy of those that fit.
    LeastEnergy,
    /// Lowest latency of those that fit.
    LeastLatency,
    /// Already there, and no other is better by more than the hysteresis.
    KeptByHysteresis,
    /// Nothing fits; this one breaks the policy least. Hard limits are never broken.
    LeastViolation,
}

/// The decision for one device, one power state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Choice {
    /// Power state.
    pub power_state: PowerState,
    /// The variant.
    pub variant: VariantName,
    /// Why.
    pub reason: ChoiceReason,
}

/// The decision for one device and version: every candidate, and a choice per power state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Selection {
    /// Device.
    pub device: DeviceName,
    /// Model.
    pub model: ModelName,
    /// Version.
    pub version: VersionName,
    /// Every variant, in the order of the manifest.
    pub candidates: Vec<Candidate>,
    /// Choices by power state, richest first; empty when no variant can run at all.
    pub choices: Vec<Choice>,
}

impl Misfit {
    /// A hard limit is physical or a matter of trust: it is never broken. The others are the
    /// policy's, and the least violation wins when nothing fits.
    pub fn is_hard(&self) -> bool {
        match self {
            Self::NoTarget { .. }
            | Self::RuntimeMismatch { .. }
            | Self::DTypeNotAllowed { .. }
            | Self::Memory { .. }
            | Self::Disk { .. }
            | Self::FailedBefore { .. } => true,
            Self::AccuracyFloor { .. }
            | Self::LatencySlo { .. }
            | Self::EnergyBudget { .. }
            | Self::BatteryLife { .. } => false,
        }
    }

    /// How far a policy limit is missed: 0 just met, 1 twice the limit. Infinite for hard limits.
    pub fn excess(&self) -> f64 {
        let over = |value: f64, limit: f64| {
            if limit > 0.0 {
                value / limit - 1.0
            } else {
                f64::MAX
            }
        };
        match self {
            Self::AccuracyFloor { accuracy, floor } => over(*floor, *accuracy),
            Self::LatencySlo {
                predicted_us,
                slo_us,
                ..
            } => over(f64::from(*predicted_us), f64::from(*slo_us)).max(0.0),
            Self::EnergyBudget {
                predicted_uj,
                budget_uj,
            } => over(*predicted_uj as f64, *budget_uj as f64),
            Self::BatteryLife {
                predicted_hours,
                wanted_hours,
            } => over(*wanted_hours, *predicted_hours),
            _ => f64::INFINITY,
        }
    }
}

/// Two sizes in the largest unit that tells them apart.
fn sizes(a: u64, b: u64) -> (String, String) {
    let mib = |bytes: u64| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20));
    let kib = |bytes: u64| format!("{:.1} KiB", bytes as f64 / 1024.0);
    let units: [&dyn Fn(u64) -> String; 3] = [&mib, &kib, &|bytes| format!("{bytes} bytes")];
    let mut said = units.iter().map(|unit| (unit(a), unit(b)));
    let apart = said.find(|(a, b)| a != b);
    apart.unwrap_or_else(|| (mib(a), mib(b)))
}

impl std::fmt::Display for Misfit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoTarget { device } => {
                let names: Vec<_> = device.iter().map(|t| t.name()).collect();
                write!(f, "no code for this CPU (it runs {})", names.join(", "))
            }
            Self::RuntimeMismatch { code } => write!(f, "code is made for runtime {code}"),
            Self::DTypeNotAllowed { dtype } => write!(f, "{dtype} arithmetic is not allowed here"),
            Self::Memory {
                need_bytes,
                limit_bytes,
            } => {
                let (need, limit) = sizes(*need_bytes, *limit_bytes);
                write!(f, "needs {need} of RAM, limit {limit}")
            }
            Self::Disk {
                need_bytes,
                free_bytes,
            } => {
                let (need, free) = sizes(*need_bytes, *free_bytes);
                write!(f, "needs {need} of disk, free {free}")
            }
            Self::AccuracyFloor { accuracy, floor } => write!(
                f,
                "accuracy {:.2} % is below the floor of {:.2} %",
                accuracy * 100.0,
                floor * 100.0
            ),
            Self::LatencySlo {
                predicted_us,
                slo_us,
                probability,
            } => write!(
                f,
                "about {predicted_us} µs: meets {slo_us} µs with probability {probability:.2} only"
            ),
            Self::EnergyBudget {
                predicted_uj,
                budget_uj,
            } => {
                write!(
                    f,
                    "about {predicted_uj} µJ per inference, budget {budget_uj} µJ"
                )
            }
            Self::BatteryLife {
                predicted_hours,
                wanted_hours,
            } => write!(
                f,
                "the battery would last {predicted_hours:.1} h, wanted {wanted_hours:.1} h"
            ),
            Self::FailedBefore { message } => write!(f, "failed on this device before: {message}"),
        }
    }
}
