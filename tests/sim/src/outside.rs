//! What lies between devices and controller: time, the future, and a network that fails.

use crate::dice::Dice;
use crate::event::{Conn, Down, Happening, Timer, Up};
use crate::queue::{Queue, Time};
use std::collections::BTreeSet;

/// Longest time until a device notices that its connection is dead: keepalive 45 s, patience 20 s.
const DEVICE_NOTICES_MS: u64 = 65_000;
/// The same of the controller.
const CONTROLLER_NOTICES_MS: u64 = 140_000;

/// Bad weather on the network.
#[derive(Debug, Clone, Copy, Default, PartialEq, serde::Serialize)]
pub struct Weather {
    /// Messages lost for good, of a thousand: each ends its stream.
    pub loss: u16,
    /// Messages that come twice, of a thousand.
    pub twice: u16,
    /// Messages that overtake others, of a thousand.
    pub overtake: u16,
    /// Longest additional delay in milliseconds.
    pub delay_ms: u32,
}

#[derive(Debug, Clone, Default)]
struct Link {
    /// Partitions that this device is in now.
    cut: u32,
    last_up: Time,
    last_down: Time,
}

/// Everything outside of devices and controller.
pub struct Outside {
    /// Now.
    pub now: Time,
    /// What is to come.
    pub queue: Queue,
    /// The weather of the moment.
    pub weather: Weather,
    links: Vec<Link>,
    dead: BTreeSet<Conn>,
    conns: Conn,
    dice: Dice,
}

impl Outside {
    /// A network of so many devices.
    pub fn new(seed: u64, devices: usize) -> Self {
        Self {
            now: 0,
            queue: Queue::default(),
            weather: Weather::default(),
            links: vec![Link::default(); devices],
            dead: BTreeSet::new(),
            conns: 0,
            dice: Dice::new(seed, "network", 0),
        }
    }

    /// One more device.
    pub fn joins(&mut self) {
        self.links.push(Link::default());
    }

    /// Plans something this much later.
    pub fn after(&mut self, ms: u64, what: Happening) {
        self.queue.at(self.now.saturating_add(ms), what);
    }

    /// Plans a timer of one start of a device.
    pub fn timer(&mut self, device: usize, boot: u64, ms: u64, timer: Timer) {
        self.after(ms, Happening::Timer(device, boot, timer));
    }

    /// Whether a device can reach anybody.
    pub fn reaches(&self, device: usize) -> bool {
        self.links[device].cut == 0
    }

    /// A new connection.
    pub fn connect(&mut self) -> Conn {
        self.conns += 1;
        self.conns
    }

    /// Whether messages still go through a connection.
    pub fn is_alive(&self, conn: Conn) -> bool {
        !self.dead.contains(&conn)
    }

    /// A connection dies. Both ends notice late, each at its time.
    pub fn kill(&mut self, device: usize, conn: Conn) {
        if self.dead.insert(conn) {
            let (device_ms, controller_ms) = (
                self.dice.between(1, DEVICE_NOTICES_MS),
                self.dice.between(1, CONTROLLER_NOTICES_MS),
            );
            self.after(device_ms, Happening::DeviceNotices(device, conn));
            self.after(controller_ms, Happening::ControllerNotices(device, conn));
        }
    }

    /// Cuts a device off, or ends one such cut.
    pub fn cut(&mut self, device: usize, cut: bool) {
        let link = &mut self.links[device];
        link.cut = match cut {
            true => link.cut + 1,
            false => link.cut.saturating_sub(1),
        };
    }

    /// Ends all cuts and the bad weather.
    pub fn heal(&mut self) {
        self.weather = Weather::default();
        self.links.iter_mut().for_each(|link| link.cut = 0);
    }

    fn is_lost(&mut self, device: usize, conn: Conn) -> bool {
        let loss = u64::from(self.weather.loss);
        // A stream does not lose a message and go on: what is lost for good ends it.
        if self.dice.below(1000) < loss || self.links[device].cut > 0 {
            self.kill(device, conn);
        }
        !self.is_alive(conn)
    }

    /// When a message arrives, and, if it comes twice, when it comes again.
    fn arrivals(&mut self, last: Time) -> (Time, Option<Time>) {
        let weather = self.weather;
        let delay = self.dice.between(5, 150) + self.dice.below(u64::from(weather.delay_ms) + 1);
        let mut at = self.now + delay;
        if self.dice.below(1000) >= u64::from(weather.overtake) {
            at = at.max(last);
        }
        let again = self.dice.below(1000) < u64::from(weather.twice);
        let again = again.then(|| at + self.dice.between(1, 120_000));
        (at, again)
    }

    /// Sends to the controller.
    pub fn up(&mut self, device: usize, conn: Conn, message: Up) {
        if self.is_lost(device, conn) {
            return;
        }
        let (at, again) = self.arrivals(self.links[device].last_up);
        self.links[device].last_up = self.links[device].last_up.max(at);
        if let Some(again) = again {
            self.queue
                .at(again, Happening::Up(device, conn, message.clone()));
        }
        self.queue.at(at, Happening::Up(device, conn, message));
    }

    /// Sends to a device.
    pub fn down(&mut self, device: usize, conn: Conn, message: Down) {
        if self.is_lost(device, conn) {
            return;
        }
        let (at, again) = self.arrivals(self.links[device].last_down);
        self.links[device].last_down = self.links[device].last_down.max(at);
        if let Some(again) = again {
            self.queue
                .at(again, Happening::Down(device, conn, message.clone()));
        }
        self.queue.at(at, Happening::Down(device, conn, message));
    }
}
