//! Which guest answers for which model, swapped atomically.

use super::tensors::has_nonfinite;
use crate::clock;
use crate::guest::{Guest, GuestError};
use crate::tally::{ServedBy, Tally};
use sandpiper_core::abi::ModuleAbi;
use sandpiper_core::names::ModelName;
use sandpiper_core::tensor::TensorSpec;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use tokio::sync::mpsc;

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
    dead: AtomicBool,
    seen_cpu_us: AtomicU64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Counters stay usable after a panic elsewhere.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
            seen_cpu_us: AtomicU64::new(0),
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

    /// Whether nothing was inferred since the last look; the look is remembered.
    pub fn is_quiet(&self) -> bool {
        let cpu = lock(&self.tally).cpu_us();
        self.seen_cpu_us.swap(cpu, Ordering::Relaxed) == cpu
    }

    /// Takes the counts and begins a new window.
    pub fn take_tally(&self) -> Tally {
        std::mem::replace(&mut lock(&self.tally), Tally::new(clock::now()))
    }
}

/// The table of what serves.
pub struct Routes {
    table: RwLock<BTreeMap<String, Arc<Served>>>,
    deaths: mpsc::Sender<(Arc<Served>, String)>,
    status: RwLock<Value>,
}

impl Routes {
    /// An empty table; guests that die over a request are told to `deaths`.
    pub fn new(deaths: mpsc::Sender<(Arc<Served>, String)>) -> Self {
        Self {
            table: RwLock::default(),
            deaths,
            status: RwLock::new(Value::Null),
        }
    }

    /// What serves this model.
    pub fn get(&self, model: &str) -> Option<Arc<Served>> {
        self.table
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(model)
            .cloned()
    }

    /// From now on requests of the model go there. Gives what served before.
    pub fn switch(&self, served: Arc<Served>) -> Option<Arc<Served>> {
        let name = served.by.model.to_string();
        self.table
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(name, served)
    }

    /// Nothing serves the model any more.
    pub fn remove(&self, model: &ModelName) -> Option<Arc<Served>> {
        self.table
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(model.as_str())
    }

    /// All that serve.
    pub fn all(&self) -> Vec<Arc<Served>> {
        self.table
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .cloned()
            .collect()
    }

    /// Whether at least one model serves.
    pub fn ready(&self) -> bool {
        !self
            .table
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .is_empty()
    }

    /// The agent's status document.
    pub fn status(&self) -> Value {
        self.status
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Replaces the status document.
    pub fn set_status(&self, status: Value) {
        *self.status.write().unwrap_or_else(PoisonError::into_inner) = status;
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
        let result = served.guest.infer(batch, inputs).await;
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
                    GuestError::Code(_) | GuestError::Load(_) => lock(&served.tally).failed(),
                    GuestError::Died(why) => {
                        lock(&served.tally).died();
                        self.tell_death(served, why).await;
                    }
                }
                Err(error)
            }
        }
    }

    /// Tells a death once, however many requests see it.
    async fn tell_death(&self, served: &Served, why: &str) {
        if served.dead.swap(true, Ordering::AcqRel) {
            return;
        }
        let current = self.get(served.by.model.as_str());
        if let Some(same) = current.filter(|c| std::ptr::eq(Arc::as_ptr(c), served))
            && self.deaths.send((same, why.to_owned())).await.is_err()
        {
            tracing::warn!(model = %served.by.model, "a runner died while the agent stops");
        }
    }
}
