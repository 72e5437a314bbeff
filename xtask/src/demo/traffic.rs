//! Local programs that ask an agent: once through all test data, or on and on.

use anyhow::Result;
use sandpiper_e2e::npz::{Samples, argmax};
use sandpiper_e2e::oip::Client;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Model and input of the example.
pub(crate) const MODEL: &str = "activity";
const INPUT: &str = "input";
/// Between two requests of a program that asks on and on.
const PAUSE: Duration = Duration::from_millis(5);

/// What came of a stream of requests.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stream {
    pub(crate) sent: u64,
    pub(crate) failed: u64,
    pub(crate) right: u64,
    /// What the last failed request was told.
    pub(crate) last_failure: Option<String>,
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
    pub(crate) fn accuracy(&self) -> f64 {
        self.right as f64 / self.sent.max(1) as f64
    }
}

/// Sends every test window once.
pub(crate) fn once(client: &Client, samples: &Samples) -> Stream {
    let mut stream = Stream::default();
    for index in 0..samples.len() {
        stream.ask(client, samples, index);
    }
    stream
}

/// A program that asks until it is stopped.
pub(crate) struct Steady {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Stream>,
}

impl Steady {
    /// Starts it.
    pub(crate) fn start(client: Client, samples: Arc<Samples>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut stream = Stream::default();
            let mut index = 0;
            while !seen.load(Ordering::Relaxed) {
                stream.ask(&client, &samples, index);
                index = (index + 1) % samples.len();
                std::thread::sleep(PAUSE);
            }
            stream
        });
        Self { stop, thread }
    }

    /// Stops it and gives what came of its requests.
    pub(crate) fn finish(self) -> Result<Stream> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread
            .join()
            .map_err(|_| anyhow::anyhow!("a client panicked"))
    }
}
