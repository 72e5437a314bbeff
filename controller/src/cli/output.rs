//! What a command gives, before it is shown.

use crate::api::client::Item;
use sandpiper_proto::convert::ResourceKind;
use serde_json::Value;

/// A result.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// Resources of one kind.
    Resources {
        /// Their kind.
        kind: ResourceKind,
        /// The resources.
        items: Vec<Item>,
        /// One was asked for by name: its document is shown, not a list of one.
        single: bool,
    },
    /// One document with its own table.
    Report {
        /// Name of it, for `-o name`.
        name: String,
        /// The document, for `-o json` and `-o yaml`.
        document: Value,
        /// For people.
        table: Grid,
        /// Lines behind the table.
        notes: Vec<String>,
    },
    /// One line.
    Line(String),
}

/// A table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Grid {
    /// Headings.
    pub header: Vec<String>,
    /// Rows, each as long as the header.
    pub rows: Vec<Vec<String>>,
}

impl Grid {
    /// A table without rows.
    pub fn new(header: &[&str]) -> Self {
        Self {
            header: header.iter().map(|h| (*h).to_owned()).collect(),
            rows: Vec::new(),
        }
    }
}
