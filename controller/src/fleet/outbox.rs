//! What a job leaves to be done: first the writes, then the messages.

use super::devices::StreamId;
use sandpiper_core::names::DeviceName;
use sandpiper_proto::convert::{FromController, ResourceKind};
use serde::Serialize;

/// Something that operators watch has changed or is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// Its kind.
    pub kind: ResourceKind,
    /// Its name.
    pub name: String,
}

/// Effects of one job.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    pub(super) put: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) delete: Vec<Vec<u8>>,
    pub(super) send: Vec<(DeviceName, StreamId, FromController)>,
    pub(super) changed: Vec<Changed>,
}

impl Outbox {
    /// Queues a record. A later one for the same key replaces it.
    pub(super) fn keep<T: Serialize>(&mut self, key: Vec<u8>, value: &T) {
        let json = serde_json::to_vec(value).expect("records have text keys, so they have JSON");
        self.put.retain(|(k, _)| *k != key);
        self.put.push((key, json));
    }

    pub(super) fn changed(&mut self, kind: ResourceKind, name: impl std::fmt::Display) {
        let change = Changed {
            kind,
            name: name.to_string(),
        };
        if !self.changed.contains(&change) {
            self.changed.push(change);
        }
    }
}
