//! Which guest answers for which model, swapped atomically.

use super::activity::Activity;
use super::tensors::has_nonfinite;
use crate::clock;
use crate::guest::{Guest, GuestError};
use crate::tally::{ServedBy, Tally};
use sandpiper_core::abi::ModuleAbi;
use sandpiper_core::names::{ModelName, VersionName};
use sandpiper_core::tensor::TensorSpec;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

/// A model that serves. Requests in flight hold it, so a switch drops none of them: its guest
/// ends when the last of them has been answered.
pub struct Served {
    /// Who it is.
    pub by: ServedBy,
    /// Places of its tensors.
    pub abi: ModuleAbi,
    /// The guest.
    pub guest: Arc<dyn Guest>,
    tally: Mutex<Tally>,
    /// Its death has been counted.
    dead: AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Counters stay usable after a panic elsewhere.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn look<T>(table: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    table.read().unwrap_or_else(PoisonError::into_inner)
}

fn change<T>(table: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    table.write().unwrap_or_else(PoisonError::into_inner)
}

impl Served {
    /// A guest that can serve.
    pub fn new(by: ServedBy, abi: ModuleAbi, guest: Arc<dyn Guest>) -> Self {
        let tally = Mutex::new(Tally::new(clock::now()));
        Self {
            by,
            abi,
            guest,
            tally,
            dead: AtomicBool::new(false),
        }
    }

    /// Its inputs in order.
    pub fn inputs(&self) -> Vec<&TensorSpec> {
        self.abi.inputs.iter().map(|t| &t.spec).collect()
    }

    /// Its outputs in order.
    pub fn outputs(&self) -> Vec<&TensorSpec> {
        self.abi.outputs.iter().map(|t| &t.spec).collect()
    }

    /// Counts a request that did not fit.
    pub fn rejected(&self) {
        lock(&self.tally).rejected();
    }

    /// Counts the death of its guest, unless the request that killed it has done so.
    pub fn died(&self) {
        if !self.dead.swap(true, Ordering::AcqRel) {
            lock(&self.tally).lost();
        }
    }

    /// Takes the counts and begins a new window.
    pub fn take_tally(&self) -> Tally {
        std::mem::replace(&mut lock(&self.tally), Tally::new(clock::now()))
    }
}

/// A model that this device shall serve, for what is told while it does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// Versions that may come to serve.
    pub versions: Vec<VersionName>,
    /// Why it does not serve now, in words that follow the model's name.
    pub why: String,
    /// When it is worth asking again.
    pub retry_after: Duration,
}

/// Why nothing answers for a model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Absent {
    /// The device is not asked to serve it.
    #[error("no model `{0}` is assigned to this device")]
    Unknown(String),
    /// Another version is asked for than serves or may come to serve.
    #[error("version {asked} of `{model}` does not serve on this device")]
    Version {
        /// The model.
        model: String,
        /// The version in the request.
        asked: String,
    },
    /// It is assigned and may serve later.
    #[error("`{model}` {why}")]
    NotNow {
        /// The model.
        model: String,
        /// Why.
        why: String,
        /// When it is worth asking again.
        retry_after: Duration,
    },
}

/// The table of what serves.
#[derive(Default)]
pub struct Routes {
    /// What runs now.
    pub activity: Activity,
    table: RwLock<BTreeMap<String, Arc<Served>>>,
    expected: RwLock<BTreeMap<String, Expected>>,
    status: RwLock<Value>,
}

impl Routes {
    /// What serves this model.
    pub fn get(&self, model: &str) -> Option<Arc<Served>> {
        look(&self.table).get(model).cloned()
    }

    /// What serves this model and, when a version is named, that version.
    ///
    /// # Errors
    /// [`Absent`].
    pub fn find(&self, model: &str, version: Option<&str>) -> Result<Arc<Served>, Absent> {
        let other = |asked: &str| Absent::Version {
            model: model.to_owned(),
            asked: asked.to_owned(),
        };
        if let Some(served) = self.get(model) {
            return match version {
                Some(asked) if served.by.version.as_str() != asked => Err(other(asked)),
                _ => Ok(served),
            };
        }
        let expected = look(&self.expected);
        let Some(expected) = expected.get(model) else {
            return Err(Absent::Unknown(model.to_owned()));
        };
        match version {
            Some(asked) if !expected.versions.iter().any(|v| v.as_str() == asked) => {
                Err(other(asked))
            }
            _ => Err(Absent::NotNow {
                model: model.to_owned(),
                why: expected.why.clone(),
                retry_after: expected.retry_after,
            }),
        }
    }

    /// Replaces what this device shall serve.
    pub fn expect(&self, expected: BTreeMap<String, Expected>) {
        *change(&self.expected) = expected;
    }

    /// From now on requests of the model go there. Gives what served before.
    pub fn switch(&self, served: Arc<Served>) -> Option<Arc<Served>> {
        let name = served.by.model.to_string();
        change(&self.table).insert(name, served)
    }

    /// Nothing serves the model any more.
    pub fn remove(&self, model: &ModelName) -> Option<Arc<Served>> {
        change(&self.table).remove(model.as_str())
    }

    /// All that serve.
    pub fn all(&self) -> Vec<Arc<Served>> {
        look(&self.table).values().cloned().collect()
    }

    /// Whether at least one model serves.
    pub fn ready(&self) -> bool {
        !look(&self.table).is_empty()
    }

    /// The agent's status document.
    pub fn status(&self) -> Value {
        look(&self.status).clone()
    }

    /// Replaces the status document.
    pub fn set_status(&self, status: Value) {
        *change(&self.status) = status;
    }

    /// Runs one batch and counts it.
    ///
    /// # Errors
    /// [`GuestError`].
    pub async fn infer(
        &self,
        served: &Served,
        batch: u32,
        inputs: Vec<Vec<u8>>,
    ) -> Result<Vec<Vec<u8>>, GuestError> {
        let running = self.activity.begin();
        let result = served.guest.infer(batch, inputs).await;
        drop(running);
        match result {
            Ok(answer) => {
                let specs = served.outputs();
                let mut pairs = answer.outputs.iter().zip(&specs);
                let nonfinite = pairs.any(|(bytes, spec)| has_nonfinite(bytes, spec.dtype));
                lock(&served.tally).succeeded(batch, answer.latency_us, answer.cpu_us, nonfinite);
                Ok(answer.outputs)
            }
            Err(error) => {
                match &error {
                    GuestError::Busy => {}
                    GuestError::BadRequest(_) => served.rejected(),
                    GuestError::Code(_) | GuestError::Load(_) | GuestError::Gone(_) => {
                        lock(&served.tally).failed();
                    }
                    GuestError::Died(_) => {
                        served.dead.store(true, Ordering::Release);
                        lock(&served.tally).died();
                    }
                }
                Err(error)
            }
        }
    }
}
