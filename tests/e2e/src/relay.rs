//! A slow connection: relays TCP on loopback with a bound on the bytes per second, and counts.

use anyhow::Result;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

/// Bytes relayed at a time; small, so that the flow is even.
const STEP_BYTES: usize = 4096;

/// A relay to one address. Its threads end with the connections and with the test's process.
#[derive(Debug)]
pub struct Relay {
    address: String,
    received: Arc<AtomicU64>,
}

impl Relay {
    /// Relays to `target`; towards the caller not more than `bytes_per_s`.
    ///
    /// # Errors
    /// When no port is left.
    pub fn start(target: &str, bytes_per_s: u32) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?.to_string();
        let received = Arc::new(AtomicU64::new(0));
        let (target, count) = (target.to_owned(), received.clone());
        thread::spawn(move || {
            for caller in listener.incoming().flatten() {
                if let Ok(callee) = TcpStream::connect(&target) {
                    connect(caller, callee, bytes_per_s, count.clone());
                }
            }
        });
        Ok(Self { address, received })
    }

    /// Where it listens.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Bytes that went to callers so far.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }
}

fn connect(caller: TcpStream, callee: TcpStream, bytes_per_s: u32, count: Arc<AtomicU64>) {
    let (Ok(from), Ok(to)) = (callee.try_clone(), caller.try_clone()) else {
        return;
    };
    let pause = Duration::from_secs_f64(STEP_BYTES as f64 / f64::from(bytes_per_s.max(1)));
    thread::spawn(move || {
        pump(from, to, |n| {
            count.fetch_add(n as u64, Ordering::Relaxed);
            thread::sleep(pause);
        });
    });
    thread::spawn(move || pump(caller, callee, |_| ()));
}

/// Copies until either side ends, and then ends both.
fn pump(mut from: TcpStream, mut to: TcpStream, mut after: impl FnMut(usize)) {
    let mut buffer = [0; STEP_BYTES];
    while let Ok(n) = from.read(&mut buffer) {
        if n == 0 || to.write_all(&buffer[..n]).is_err() {
            break;
        }
        after(n);
    }
    // Whoever has gone already does not mind.
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
