//! Local programs that ask an agent: once through all test data, or on and on.

use crate::oip::Client;
use anyhow::Result;
use sandpiper_testdata::{Samples, argmax};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Model and input of the example.
pub const MODEL: &str = "activity";
const INPUT: &str = "input";
/// Between two requests of a program that asks on and on.
const PAUSE: Duration = Duration::from_millis(5);

/// One request, the `usize`th of its program: whether the answer is right.
pub type Question = Arc<dyn Fn(&Client, usize) -> Result<bool> + Send + Sync>;

/// The test windows of the example, one after the other.
pub fn activity(samples: Arc<Samples>) -> Question {
    Arc::new(move |client, index| {
        let index = index % samples.y.len();
        let shape = [&[1], &samples.shape[1..]].concat();
        let answer = client.infer(MODEL, INPUT, &shape, samples.sample(index))?;
        let finite = answer.values.iter().all(|v| v.is_finite());
        anyhow::ensure!(finite, "the answer is not finite");
        Ok(argmax(&answer.values) == samples.y[index])
    })
}

/// What came of a stream of requests.
#[derive(Debug, Clone, Default)]
pub struct Stream {
    /// Requests.
    pub sent: u64,
    /// Those without a finite answer.
    pub failed: u64,
    /// Those with the right class.
    pub right: u64,
    /// What the last failed request was told.
    pub last_failure: Option<String>,
}

impl Stream {
    fn ask(&mut self, client: &Client, question: &Question, index: usize) {
        self.sent += 1;
        match question(client, index) {
            Ok(right) => self.right += u64::from(right),
            Err(error) => {
                self.failed += 1;
                self.last_failure = Some(format!("{error:#}"));
            }
        }
    }

    /// Share of right answers among all requests.
    pub fn accuracy(&self) -> f64 {
        self.right as f64 / self.sent.max(1) as f64
    }
}

/// Sends every test window once.
pub fn once(client: &Client, samples: &Arc<Samples>) -> Stream {
    let mut stream = Stream::default();
    let question = activity(samples.clone());
    for index in 0..samples.y.len() {
        stream.ask(client, &question, index);
    }
    stream
}

/// A program that asks until it is stopped.
#[derive(Debug)]
pub struct Steady {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Stream>,
}

impl Steady {
    /// Starts one that asks `activity`.
    pub fn start(client: Client, samples: Arc<Samples>) -> Self {
        Self::asking(client, activity(samples))
    }

    /// Starts one.
    pub fn asking(client: Client, question: Question) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut stream = Stream::default();
            let mut index = 0;
            while !seen.load(Ordering::Relaxed) {
                stream.ask(&client, &question, index);
                index += 1;
                std::thread::sleep(PAUSE);
            }
            stream
        });
        Self { stop, thread }
    }

    /// Stops it and gives what came of its requests.
    ///
    /// # Errors
    /// When the program panicked.
    pub fn finish(self) -> Result<Stream> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread
            .join()
            .map_err(|_| anyhow::anyhow!("a client panicked"))
    }
}
