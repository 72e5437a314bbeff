//! A connection as bad as a test wants it: relays TCP on loopback, slowly, late, with stalls and
//! resets, and counts.
//!
//! TCP hides from programs that a packet was lost, came twice or out of order: what they see is that
//! bytes come late, in bursts, or that the connection ends. That is what this makes, from a seed.

use anyhow::Result;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

/// Bytes relayed at a time; small, so that the flow is even.
const STEP_BYTES: usize = 4096;
/// A packet that is lost comes again after the first timeout of TCP (RFC 6298: at least 1 s; Linux
/// takes 200 ms).
const STALL: Duration = Duration::from_millis(200);

/// What is wrong with a connection. Of a thousand steps of up to 4 KiB each.
#[derive(Debug, Clone, Copy, Default)]
pub struct Weather {
    /// Bytes a second towards the caller; 0: as fast as they come.
    pub bytes_per_s: u32,
    /// Each step comes up to so many milliseconds late.
    pub delay_ms: u16,
    /// Steps that are lost first and sent again.
    pub stalls: u16,
    /// Steps that end the connection.
    pub resets: u16,
    /// Where chance comes from.
    pub seed: u64,
}

/// A relay to one address. Its threads end with the connections and with the test's process.
#[derive(Debug)]
pub struct Relay {
    address: String,
    received: Arc<AtomicU64>,
    resets: Arc<AtomicU64>,
    calm: Arc<AtomicBool>,
}

/// What the threads of a relay share.
#[derive(Clone)]
struct Shared {
    weather: Weather,
    received: Arc<AtomicU64>,
    resets: Arc<AtomicU64>,
    calm: Arc<AtomicBool>,
}

impl Relay {
    /// Relays to `target`; towards the caller not more than `bytes_per_s`.
    ///
    /// # Errors
    /// When no port is left.
    pub fn start(target: &str, bytes_per_s: u32) -> Result<Self> {
        Self::in_weather(
            target,
            Weather {
                bytes_per_s,
                ..Weather::default()
            },
        )
    }

    /// Relays to `target` in bad weather.
    ///
    /// # Errors
    /// When no port is left.
    pub fn in_weather(target: &str, weather: Weather) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let it = Self {
            address: listener.local_addr()?.to_string(),
            received: Arc::default(),
            resets: Arc::default(),
            calm: Arc::default(),
        };
        let shared = Shared {
            weather,
            received: it.received.clone(),
            resets: it.resets.clone(),
            calm: it.calm.clone(),
        };
        let target = target.to_owned();
        thread::spawn(move || {
            for (number, caller) in (0_u64..).zip(listener.incoming().flatten()) {
                if let Ok(callee) = TcpStream::connect(&target) {
                    connect(caller, callee, number, &shared);
                }
            }
        });
        Ok(it)
    }

    /// Where it listens.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Bytes that went to callers so far.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Connections that it has ended so far.
    pub fn resets(&self) -> u64 {
        self.resets.load(Ordering::Relaxed)
    }

    /// From now on the weather is fine.
    pub fn calm(&self) {
        self.calm.store(true, Ordering::Relaxed);
    }
}

/// Numbers from a seed: SplitMix64.
#[derive(Debug)]
pub struct Dice(u64);

impl Dice {
    /// Those of this seed and number.
    pub fn new(seed: u64, number: u64) -> Self {
        Self(seed.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    /// One of `0..bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound.max(1)
    }
}

fn connect(caller: TcpStream, callee: TcpStream, number: u64, shared: &Shared) {
    let (Ok(from), Ok(to)) = (callee.try_clone(), caller.try_clone()) else {
        return;
    };
    let rate = shared.weather.bytes_per_s;
    let pause = match rate {
        0 => Duration::ZERO,
        rate => Duration::from_secs_f64(STEP_BYTES as f64 / f64::from(rate)),
    };
    let (down, up) = (shared.clone(), shared.clone());
    thread::spawn(move || {
        let mut dice = Dice::new(down.weather.seed, 2 * number);
        pump(from, to, &mut dice, &down, |n| {
            down.received.fetch_add(n as u64, Ordering::Relaxed);
            thread::sleep(pause);
        });
    });
    thread::spawn(move || {
        let mut dice = Dice::new(up.weather.seed, 2 * number + 1);
        pump(caller, callee, &mut dice, &up, |_| ());
    });
}

/// Copies until either side ends or the weather ends it, and then ends both.
fn pump(
    mut from: TcpStream,
    mut to: TcpStream,
    dice: &mut Dice,
    shared: &Shared,
    mut after: impl FnMut(usize),
) {
    let weather = shared.weather;
    let mut buffer = [0; STEP_BYTES];
    while let Ok(n) = from.read(&mut buffer) {
        if n == 0 {
            break;
        }
        if !shared.calm.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(
                dice.below(u64::from(weather.delay_ms) + 1),
            ));
            if dice.below(1000) < u64::from(weather.stalls) {
                thread::sleep(STALL);
            }
            if dice.below(1000) < u64::from(weather.resets) {
                shared.resets.fetch_add(1, Ordering::Relaxed);
                break;
            }
        }
        if to.write_all(&buffer[..n]).is_err() {
            break;
        }
        after(n);
    }
    // Whoever has gone already does not mind.
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
