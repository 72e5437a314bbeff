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
    fn ask(&mut self, client: &Client, samples: &Samples, index: usize) {
        let shape = [&[1], &samples.shape[1..]].concat();
        self.sent += 1;
        match client.infer(MODEL, INPUT, &shape, samples.sample(index)) {
            Ok(answer) if answer.values.iter().all(|v| v.is_finite()) => {
                self.right += u64::from(argmax(&answer.values) == samples.y[index]);
            }
            Ok(_) => self.fail("the answer is not finite".to_owned()),
            Err(error) => self.fail(format!("{error:#}")),
        }
    }

    fn fail(&mut self, why: String) {
        self.failed += 1;
        self.last_failure = Some(why);
    }

    /// Share of right answers among all requests.
    pub fn accuracy(&self) -> f64 {
        self.right as f64 / self.sent.max(1) as f64
    }
}

/// Sends every test window once.
pub fn once(client: &Client, samples: &Samples) -> Stream {
    let mut stream = Stream::default();
    for index in 0..samples.y.len() {
        stream.ask(client, samples, index);
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
    /// Starts it.
    pub fn start(client: Client, samples: Arc<Samples>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut stream = Stream::default();
            let mut index = 0;
            while !seen.load(Ordering::Relaxed) {
                stream.ask(&client, &samples, index);
                index = (index + 1) % samples.y.len();
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
