//! A power sensor of a made-up board: an energy counter that rises with time and with every
//! inference, by an amount that depends on the version that answered.

use crate::sysfs::put;
use anyhow::Result;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Power at rest.
const IDLE_W: f64 = 0.5;
/// How often the counter moves, as that of a real package does.
const STEP: Duration = Duration::from_millis(10);
/// File of the counter, in microjoules.
const COUNTER: &str = "energy_uj";
/// Where the counter begins anew.
const RANGE_UJ: u64 = 1 << 38;

/// Energy of the inferences so far, in microjoules.
type Spent = Arc<Mutex<f64>>;

/// A counter in the form of Linux's powercap below a made-up `/sys`, while it lives.
#[derive(Debug)]
pub struct Board {
    spent: Spent,
    cost_uj: BTreeMap<String, f64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Board {
    /// A board on which an inference under each version costs so many microjoules.
    ///
    /// # Errors
    /// When files cannot be written.
    pub fn start(sysfs: &Path, cost_uj: &[(&str, f64)]) -> Result<Self> {
        let dir = sysfs.join("class/powercap/intel-rapl:0");
        std::fs::create_dir_all(&dir)?;
        put(&dir, "name", "package-0")?;
        put(&dir, "max_energy_range_uj", &RANGE_UJ.to_string())?;
        put(&dir, COUNTER, "0")?;
        let (spent, stop) = (Spent::default(), Arc::new(AtomicBool::new(false)));
        let (seen, stopped) = (spent.clone(), stop.clone());
        let thread = std::thread::spawn(move || run(&dir, &seen, &stopped));
        Ok(Self {
            spent,
            cost_uj: cost_uj.iter().map(|(v, c)| ((*v).to_owned(), *c)).collect(),
            stop,
            thread: Some(thread),
        })
    }

    /// This version has answered once.
    pub fn answered(&self, version: &str) {
        let cost = self.cost_uj.get(version).copied().unwrap_or(0.0);
        *self.spent.lock().unwrap_or_else(PoisonError::into_inner) += cost;
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has stopped as well.
            let _ = thread.join();
        }
    }
}

fn run(dir: &Path, spent: &Spent, stop: &AtomicBool) {
    let begin = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        let inferences = *spent.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = IDLE_W * 1e6 * begin.elapsed().as_secs_f64();
        let energy_uj = (idle + inferences) as u64;
        if put(dir, COUNTER, &energy_uj.to_string()).is_err() {
            return; // The directory of the test is gone.
        }
        std::thread::sleep(STEP);
    }
}
