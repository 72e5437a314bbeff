//! What a job leaves to be done: first the writes, then the messages.

use super::devices::StreamId;
use crate::event::Event;
use crate::names::DeviceName;
use crate::time::Millis;
use crate::view::Kind;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// New values by key; `None` for a key that goes.
pub type Writes = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// Something that operators watch has changed or is gone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Changed {
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub name: String,
}

/// A message for one stream, besides assignments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToDevice {
    /// Windows of this installation up to the sequence are stored.
    TelemetryAck {
        /// The installation.
        boot: u64,
        /// The last sequence stored.
        sequence: u64,
    },
    /// What time it is, before anything that names windows.
    Clock(Millis),
    /// The last message: the stream ends here.
    Disconnect {
        /// For people.
        reason: String,
        /// Whether to come back.
        retry: bool,
    },
}

/// Effects of one job. A job may touch every device of the fleet, so nothing here is searched
/// through for what is there already. The driver makes `writes` durable as one step before it
/// does anything else of it.
#[derive(Debug, Default)]
pub struct Outbox {
    /// What the store shall hold.
    pub writes: Writes,
    /// Messages, in order.
    pub send: Vec<(StreamId, ToDevice)>,
    /// Devices whose assignment is to be sent, as it is when the writes are durable.
    pub assigned: BTreeSet<DeviceName>,
    /// What watchers are told.
    pub changed: BTreeSet<Changed>,
    /// Events that were recorded, for the log.
    pub noted: Vec<Event>,
}

impl Outbox {
    /// Queues a record. A later one for the same key replaces it.
    pub fn keep<T: Serialize>(&mut self, key: Vec<u8>, value: &T) {
        let json = serde_json::to_vec(value).expect("records have text keys, so they have JSON");
        self.writes.insert(key, Some(json));
    }

    /// Queues the end of a record.
    pub fn delete(&mut self, key: Vec<u8>) {
        self.writes.insert(key, None);
    }

    /// Queues a word to watchers.
    pub fn changed(&mut self, kind: Kind, name: impl std::fmt::Display) {
        let name = name.to_string();
        self.changed.insert(Changed { kind, name });
    }
}
