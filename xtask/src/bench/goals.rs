//! Figures against goals.

use super::provenance::Provenance;
use anyhow::Result;
use serde::Serialize;
use std::fmt::Write as _;

/// What a figure is held against.
#[derive(Debug, Clone, Copy)]
pub(super) enum Goal {
    /// At most this.
    Is(f64),
    /// The figure is there for what it tells.
    None,
}

#[derive(Debug, Serialize)]
struct Row {
    what: String,
    unit: &'static str,
    ours: f64,
    goal: Option<f64>,
    /// The same of another build, measured in the same run.
    #[serde(skip_serializing_if = "Option::is_none")]
    beside: Option<f64>,
    /// Ours as a multiple of the goal: at most 1 when it is met.
    ratio: Option<f64>,
}

/// Everything.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    provenance: Provenance,
    /// What was measured.
    subject: String,
    rows: Vec<Row>,
    notes: Vec<String>,
}

impl Report {
    /// One without rows.
    pub(super) fn new(provenance: Provenance, subject: &str) -> Self {
        Self {
            provenance,
            subject: subject.to_owned(),
            rows: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// Adds a figure.
    pub(super) fn add(&mut self, what: &str, unit: &'static str, ours: f64, goal: Goal) {
        let goal = match goal {
            Goal::Is(value) => Some(value),
            Goal::None => None,
        };
        self.rows.push(Row {
            what: what.to_owned(),
            unit,
            ours,
            goal,
            beside: None,
            ratio: goal.filter(|g| *g > 0.0).map(|g| ours / g),
        });
    }

    /// Puts the figure of another build beside a row, if there is one of this name.
    pub(super) fn beside(&mut self, what: &str, value: f64) {
        if let Some(row) = self.rows.iter_mut().find(|r| r.what == what) {
            row.beside = Some(value);
        }
    }

    /// Adds a remark.
    pub(super) fn note(&mut self, what: String) {
        self.notes.push(what);
    }

    /// For people.
    ///
    /// # Errors
    /// None: writing into a string.
    pub(super) fn text(&self) -> Result<String> {
        let mut text = String::new();
        writeln!(text, "{}", self.provenance.text())?;
        writeln!(text, "{}; ratio: ours / goal\n", self.subject)?;
        writeln!(
            text,
            "{:<48} {:>9} {:>9} {:>9} {:>6}",
            "what", "beside", "ours", "goal", "ratio"
        )?;
        for r in &self.rows {
            let (goal, ratio) = match (r.goal, r.ratio) {
                (Some(goal), Some(ratio)) => (format!("{goal:.2}"), format!("{ratio:.2}")),
                (Some(goal), None) => (format!("{goal:.2}"), String::new()),
                (None, _) => Default::default(),
            };
            let beside = r.beside.map_or_else(String::new, |b| format!("{b:.2}"));
            writeln!(
                text,
                "{:<48} {beside:>9} {:>9.2} {goal:>9} {ratio:>6} {}",
                r.what, r.ours, r.unit
            )?;
        }
        for note in &self.notes {
            writeln!(text, "\n{note}")?;
        }
        Ok(text)
    }
}
