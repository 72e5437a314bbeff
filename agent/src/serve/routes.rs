//! Which guest answers for which model, swapped atomically; and which one in its place, while the
//! version is new.

use super::activity::Activity;
use super::shadow::{Sampler, Shadow};
use crate::clock;
use crate::guest::{Guest, GuestError};
use crate::tally::{ServedBy, Tally};
use sandpiper_core::abi::{ModuleAbi, PlacedTensor};
use sandpiper_core::names::VersionName;
use sandpiper_core::outputs::{Look, Watch};
use sandpiper_core::tensor::TensorSpec;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

/// A model that serves. Requests in flight hold it, so a switch drops none of them: its guest
/// ends when the last of them has been answered.
pub struct Served {
    /// Who it is.
    pub by: ServedBy,
    /// Places of its tensors.
    pub abi: ModuleAbi,
    /// The guest.
    pub guest: Arc<dyn Guest>,
    /// How its answers are looked at.
    pub look: Look,
    /// Which of its requests the version before is asked too.
    pub sampler: Sampler,
    counts: Mutex<Counts>,
    /// Its death has been counted.
    dead: AtomicBool,
}

/// What is counted of a guest.
struct Counts {
    tally: Tally,
    watch: Watch,
}

/// What a guest answered.
struct Ran {
    outputs: Vec<Vec<u8>>,
    finite: bool,
}

/// An answer to a request.
pub struct Answered {
    /// Who gave it.
    pub by: Arc<Served>,
    /// The outputs.
    pub outputs: Vec<Vec<u8>>,
    /// What is to be done once the answer is on its way.
    pub shadow: Option<Shadow>,
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
    /// A guest that can serve. `classes`: number of classes that its first output tells apart.
    pub fn new(
        by: ServedBy,
        abi: ModuleAbi,
        guest: Arc<dyn Guest>,
        classes: Option<usize>,
    ) -> Self {
        let specs = |tensors: &'_ [PlacedTensor]| -> Vec<TensorSpec> {
            tensors.iter().map(|t| t.spec.clone()).collect()
        };
        let look = Look::new(&specs(&abi.inputs), &specs(&abi.outputs), classes);
        let counts = Counts {
            tally: Tally::new(clock::now()),
            watch: Watch::default(),
        };
        Self {
            by,
            abi,
            guest,
            look,
            sampler: Sampler::default(),
            counts: Mutex::new(counts),
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
        lock(&self.counts).tally.rejected();
    }

    /// Counts the death of its guest, unless the request that killed it has done so.
    pub fn died(&self) {
        if !self.dead.swap(true, Ordering::AcqRel) {
            lock(&self.counts).tally.lost();
        }
    }

    /// Counts answers that the version before was asked for too, and on how many both agree.
    pub fn compared(&self, items: u32, agreed: u32) {
        lock(&self.counts).tally.compared(items, agreed);
    }

    /// Counts CPU time that was spent in the shadow of another version, in microseconds.
    pub fn shadowed(&self, cpu_us: u64) {
        lock(&self.counts).tally.shadowed(cpu_us);
    }

    /// Takes the counts and begins a new window.
    pub fn take_tally(&self) -> Tally {
        std::mem::replace(&mut lock(&self.counts).tally, Tally::new(clock::now()))
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

/// Where the requests of a model go.
#[derive(Clone)]
struct Route {
    served: Arc<Served>,
    /// What served the version before, while it still runs.
    spare: Option<Arc<Served>>,
}

/// The table of what serves.
#[derive(Default)]
pub struct Routes {
    /// What runs now.
    pub activity: Activity,
    table: RwLock<BTreeMap<String, Route>>,
    expected: RwLock<BTreeMap<String, Expected>>,
    status: RwLock<Value>,
}

impl Routes {
    /// What serves this model.
    pub fn get(&self, model: &str) -> Option<Arc<Served>> {
        look(&self.table).get(model).map(|r| r.served.clone())
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

    /// From now on requests of the model go there. Gives what served before and ends with this:
    /// that of another version stays as the spare until it is [dropped](Self::drop_out).
    pub fn switch(&self, served: Arc<Served>) -> Option<Arc<Served>> {
        let mut table = change(&self.table);
        let Some(route) = table.get_mut(served.by.model.as_str()) else {
            let (name, spare) = (served.by.model.to_string(), None);
            table.insert(name, Route { served, spare });
            return None;
        };
        let same = |other: &Served| other.by.version == served.by.version;
        if route.spare.as_deref().is_some_and(same) {
            route.spare = None;
        }
        let before = std::mem::replace(&mut route.served, served.clone());
        if same(&before) {
            return Some(before);
        }
        route.spare.replace(before)
    }

    /// This one answers no more. The spare of its model takes its place if there is one. Whether
    /// it was in the table.
    pub fn drop_out(&self, gone: &Arc<Served>) -> bool {
        let mut table = change(&self.table);
        let name = gone.by.model.as_str();
        let Some(route) = table.get_mut(name) else {
            return false;
        };
        if route.spare.as_ref().is_some_and(|s| Arc::ptr_eq(s, gone)) {
            route.spare = None;
            return true;
        }
        let routed = Arc::ptr_eq(&route.served, gone);
        if routed {
            match route.spare.take() {
                Some(spare) => route.served = spare,
                None => drop(table.remove(name)),
            }
        }
        routed
    }

    /// All that serve or may have to.
    pub fn all(&self) -> Vec<Arc<Served>> {
        let table = look(&self.table);
        let routes = table.values();
        let all = routes.flat_map(|r| [Some(r.served.clone()), r.spare.clone()]);
        all.flatten().collect()
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

    /// Runs one batch and counts it. What a new version dies or errs on, or answers with NaN or
    /// infinity, the spare answers: a rollout takes no answer away.
    ///
    /// # Errors
    /// [`GuestError`].
    pub async fn infer(
        &self,
        served: Arc<Served>,
        batch: u32,
        inputs: Vec<Vec<u8>>,
    ) -> Result<Answered, GuestError> {
        let Some(spare) = self.spare_of(&served) else {
            let ran = self.run_one(&served, batch, inputs).await?;
            return Ok(Answered {
                by: served,
                outputs: ran.outputs,
                shadow: None,
            });
        };
        let kept = inputs.clone();
        let ran = self.run_one(&served, batch, inputs).await;
        let at_fault = match &ran {
            Ok(ran) => !ran.finite,
            Err(GuestError::Code(_) | GuestError::Died(_) | GuestError::Gone(_)) => true,
            Err(_) => false,
        };
        if !at_fault {
            let outputs = ran?.outputs;
            let takes = served.sampler.takes(Instant::now());
            let shadow = takes.then(|| Shadow {
                served: served.clone(),
                spare,
                batch,
                inputs: kept,
                outputs: outputs.clone(),
            });
            return Ok(Answered {
                by: served,
                outputs,
                shadow,
            });
        }
        let second = self.run_one(&spare, batch, kept).await;
        let (by, outputs) = match (ran, second) {
            // Where neither is finite, that is what this model answers.
            (Err(_), Ok(second)) => (spare, second.outputs),
            (Ok(_), Ok(second)) if second.finite => (spare, second.outputs),
            (Ok(ran), _) => (served, ran.outputs),
            // The error that is told is that of the version in force.
            (Err(failed), Err(_)) => return Err(failed),
        };
        Ok(Answered {
            by,
            outputs,
            shadow: None,
        })
    }

    /// What can answer in the place of this one: the same tensors, in batches as large.
    fn spare_of(&self, served: &Served) -> Option<Arc<Served>> {
        let table = look(&self.table);
        let spare = table.get(served.by.model.as_str())?.spare.as_ref()?;
        let fits = spare.inputs() == served.inputs()
            && spare.outputs() == served.outputs()
            && spare.abi.max_batch >= served.abi.max_batch
            && spare.by.version != served.by.version;
        fits.then(|| spare.clone())
    }

    /// Runs one batch on this one alone, and counts it.
    ///
    /// # Errors
    /// [`GuestError`].
    pub async fn run(
        &self,
        served: &Served,
        batch: u32,
        inputs: Vec<Vec<u8>>,
    ) -> Result<Vec<Vec<u8>>, GuestError> {
        let ran = self.run_one(served, batch, inputs).await;
        ran.map(|ran| ran.outputs)
    }

    async fn run_one(
        &self,
        served: &Served,
        batch: u32,
        inputs: Vec<Vec<u8>>,
    ) -> Result<Ran, GuestError> {
        let prints = served.look.inputs(batch, &inputs);
        let running = self.activity.begin();
        let result = served.guest.infer(batch, inputs).await;
        drop(running);
        match result {
            Ok(answer) => {
                let glances = served.look.outputs_to(&prints, &answer.outputs);
                let mut counts = lock(&served.counts);
                let Counts { tally, watch } = &mut *counts;
                tally.succeeded(batch, answer.latency_us, answer.cpu_us);
                tally.looked(watch, &glances);
                Ok(Ran {
                    outputs: answer.outputs,
                    finite: glances.iter().all(|g| g.finite),
                })
            }
            Err(error) => {
                match &error {
                    GuestError::Busy => {}
                    GuestError::BadRequest(_) => served.rejected(),
                    GuestError::Code(_) | GuestError::Load(_) | GuestError::Gone(_) => {
                        lock(&served.counts).tally.failed();
                    }
                    GuestError::Died(_) => {
                        served.dead.store(true, Ordering::Release);
                        lock(&served.counts).tally.died();
                    }
                }
                Err(error)
            }
        }
    }
}
