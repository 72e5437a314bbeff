//! A rollout that is watched: a tree that is drawn again in its place on a terminal, a line for each
//! change elsewhere.

use crate::cli::output::{Grid, Output};
use crate::cli::terminal::Terminal;

/// Devices of a wave that are drawn; those of which most is to be told come first.
const DEVICES: usize = 8;

/// What is watched, as it was shown last.
#[derive(Debug, Default)]
pub(super) struct Tree {
    drawn: usize,
    last: Option<(Vec<Vec<String>>, Vec<String>)>,
}

/// How a word is coloured.
fn paint(word: &str) -> Option<&'static str> {
    match word {
        "succeeded" | "promoted" | "pass" => Some("32"),
        "failed" | "fail" | "rolled-back" | "rolling-back" | "going-back" => Some("31"),
        "paused" | "inconclusive" | "superseded" | "awaiting-approval" => Some("33"),
        _ => None,
    }
}

/// The line cut to so many columns, with the first of its words that has one in its colour.
fn fitted(line: &str, columns: Option<usize>, colours: bool) -> String {
    let cut: String = line.chars().take(columns.unwrap_or(usize::MAX)).collect();
    if !colours {
        return cut;
    }
    let mut words = cut.split([' ', ':', ',', '(', ')']);
    match words.find_map(|word| Some((word, paint(word)?))) {
        Some((word, colour)) => cut.replacen(word, &format!("\x1b[{colour}m{word}\x1b[0m"), 1),
        None => cut,
    }
}

/// What stands first of a device: the worse, the earlier.
fn urgency(progress: &str) -> usize {
    let order = [
        "failed",
        "going-back",
        "back",
        "assigned",
        "serving",
        "succeeded",
    ];
    let place = order.iter().position(|word| *word == progress);
    place.unwrap_or(order.len())
}

fn cell(row: &[String], at: usize) -> &str {
    row.get(at).map_or("-", String::as_str)
}

fn device(row: &[String], width: usize) -> String {
    let why = match cell(row, 4) {
        "-" => String::new(),
        why => format!(": {why}"),
    };
    let (name, variant, progress) = (cell(row, 1), cell(row, 2), cell(row, 3));
    format!("{name:<width$}  {variant}  {progress}{why}")
}

/// Waves with their devices, then what the gates say.
fn lines(table: &Grid, notes: &[String]) -> Vec<String> {
    let mut waves: Vec<&str> = Vec::new();
    for row in &table.rows {
        if !waves.contains(&cell(row, 0)) {
            waves.push(cell(row, 0));
        }
    }
    let mut branches: Vec<(String, Vec<String>)> = Vec::new();
    for wave in waves {
        let mut rows: Vec<_> = table.rows.iter().filter(|r| cell(r, 0) == wave).collect();
        let counted = |word: &str| rows.iter().filter(|r| cell(r, 3) == word).count();
        let head = match counted("waiting") {
            waiting if waiting == rows.len() => format!("wave {wave}: {waiting} waiting"),
            _ => {
                let (done, all) = (counted("succeeded"), rows.len());
                format!(
                    "wave {wave}: {done} of {all} succeeded, {} failed",
                    counted("failed")
                )
            }
        };
        // Stable: within one state by the order of the plan.
        rows.sort_by_key(|row| urgency(cell(row, 3)));
        let shown = rows.iter().take(DEVICES);
        let width = shown.clone().map(|r| cell(r, 1).chars().count()).max();
        let mut leaves: Vec<_> = shown.map(|r| device(r, width.unwrap_or(0))).collect();
        if rows.len() > DEVICES {
            leaves.push(format!("and {} more", rows.len() - DEVICES));
        }
        branches.push((head, leaves));
    }
    let gates: Vec<String> = notes
        .iter()
        .filter_map(|n| Some(n.strip_prefix("gate: ")?.to_owned()))
        .collect();
    if !gates.is_empty() {
        branches.push(("gates".to_owned(), gates));
    }
    let rest = notes.iter().filter(|n| !n.starts_with("gate: "));
    let mut all: Vec<String> = rest.cloned().collect();
    let last = branches.len().saturating_sub(1);
    for (index, (head, leaves)) in branches.into_iter().enumerate() {
        let (own, below) = match index == last {
            true => ("└─ ", "   "),
            false => ("├─ ", "│  "),
        };
        all.push(format!("{own}{head}"));
        let end = leaves.len().saturating_sub(1);
        all.extend(leaves.into_iter().enumerate().map(|(at, leaf)| {
            let branch = if at == end { "└─ " } else { "├─ " };
            format!("{below}{branch}{leaf}")
        }));
    }
    all
}

/// The metric and the verdict of a gate's line, without its figures.
fn verdict(note: &str) -> &str {
    note.split(',').next().unwrap_or(note)
}

/// What differs from what was shown: whole where there was nothing.
fn changes(
    before: Option<&(Vec<Vec<String>>, Vec<String>)>,
    table: &Grid,
    notes: &[String],
) -> Vec<String> {
    let Some((rows, told)) = before else {
        return notes.iter().take(1).cloned().collect();
    };
    let mut all = Vec::new();
    for (at, row) in table.rows.iter().enumerate() {
        if rows.get(at) != Some(row) {
            all.push(format!("wave {}: {}", cell(row, 0), device(row, 0)));
        }
    }
    for (at, note) in notes.iter().enumerate() {
        let old = told.get(at);
        let changed = match note.starts_with("gate: ") {
            // Its figures change with every report.
            true => old.map(|old| verdict(old)) != Some(verdict(note)),
            false => old != Some(note),
        };
        if changed {
            all.push(note.clone());
        }
    }
    all
}

impl Tree {
    /// What to write so that a reader sees the report: what it takes to draw over what was drawn, or
    /// the lines that have changed. `ended`: nothing follows, so that all figures are told.
    pub(super) fn show(&mut self, report: &Output, terminal: Terminal, ended: bool) -> String {
        let Output::Report { table, notes, .. } = report else {
            return String::new();
        };
        let mut text = String::new();
        match terminal.size {
            Some((_, rows)) => {
                let mut drawn = lines(table, notes);
                // The last row is the cursor's; above the first nothing can be drawn again.
                let room = rows.saturating_sub(1).max(1);
                if drawn.len() > room && !ended {
                    let more = drawn.len() - room + 1;
                    drawn.truncate(room - 1);
                    drawn.push(format!("… {more} lines more"));
                }
                if self.drawn > 0 {
                    text.push_str(&format!("\x1b[{}A\r\x1b[J", self.drawn));
                }
                self.drawn = drawn.len();
                for line in drawn {
                    // What stays is told whole.
                    let columns = terminal.size.filter(|_| !ended).map(|(columns, _)| columns);
                    text.push_str(&fitted(&line, columns, terminal.colours));
                    text.push('\n');
                }
            }
            None => {
                let mut told = changes(self.last.as_ref(), table, notes);
                if ended {
                    let gates = notes.iter().filter(|n| n.starts_with("gate: "));
                    told.retain(|line| !line.starts_with("gate: "));
                    told.extend(gates.cloned());
                }
                for line in told {
                    text.push_str(&line);
                    text.push('\n');
                }
            }
        }
        self.last = Some((table.rows.clone(), notes.clone()));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::super::report;
    use super::*;
    use crate::api::client::Item;
    use serde_json::{Value, json};

    fn rollout(
        state: Value,
        devices: &[(usize, &str, Value)],
        verdict: &str,
        change: f64,
    ) -> Output {
        let device = |(wave, name, progress): &(usize, &str, Value)| {
            json!({ "wave": wave, "device": name, "ladder": { "rungs": { "mains": "small" } },
                    "progress": progress })
        };
        let count = |word: &str| devices.iter().filter(|(.., p)| p["state"] == word).count();
        report::status(Item {
            name: "activity-2".to_owned(),
            document: json!({
                "deployment": "activity", "version": "v2", "waves": 2, "state": state,
                "succeeded": count("succeeded"), "failed": count("failed"),
                "devices": devices.iter().map(device).collect::<Vec<_>>(),
                "gates": [{ "metric": "disagreement", "verdict": verdict, "change": change,
                            "low": 0.0, "high": 9.5, "limit": 10.0, "devices": 1,
                            "inferences": 64 }],
            }),
        })
    }

    fn begun() -> Output {
        let state = json!({ "state": "running", "wave": 0, "since": 0 });
        let devices = [
            (1, "pi-1", json!({ "state": "assigned", "since": 0 })),
            (2, "pi-10", json!({ "state": "waiting" })),
            (2, "pi-2", json!({ "state": "waiting" })),
        ];
        rollout(state, &devices, "inconclusive", 3.1)
    }

    fn gone_back() -> Output {
        let state = json!({ "state": "rolled_back", "why": "wave 1: disagreement: fail" });
        let failed = json!({ "state": "failed", "message": "small: the self-test gave NaN" });
        let devices = [
            (1, "pi-1", failed),
            (2, "pi-10", json!({ "state": "waiting" })),
            (2, "pi-2", json!({ "state": "waiting" })),
        ];
        rollout(state, &devices, "fail", 31.0)
    }

    const WIDE: Terminal = Terminal {
        size: Some((60, 24)),
        colours: false,
    };

    #[test]
    fn a_tree_is_drawn_again_in_its_place() {
        let mut tree = Tree::default();
        let first = tree.show(&begun(), WIDE, false);
        let second = tree.show(&gone_back(), WIDE, true);
        let visible = |text: &str| text.replace('\x1b', "ESC").replace('\r', "CR");
        insta::assert_snapshot!(visible(&[first, second].join("----\n")), @r"
        activity to v2 is running (0 succeeded, 0 failed, 2 waves)
        ├─ wave 1: 0 of 1 succeeded, 0 failed
        │  └─ pi-1  small  assigned
        ├─ wave 2: 2 waiting
        │  ├─ pi-10  small  waiting
        │  └─ pi-2   small  waiting
        └─ gates
           └─ disagreement: inconclusive, +3.1% (+0.0 to +9.5), limi
        ----
        ESC[8ACRESC[Jactivity to v2 is rolled-back: wave 1: disagreement: fail (0 succeeded, 1 failed, 2 waves)
        ├─ wave 1: 0 of 1 succeeded, 1 failed
        │  └─ pi-1  small  failed: small: the self-test gave NaN
        ├─ wave 2: 2 waiting
        │  ├─ pi-10  small  waiting
        │  └─ pi-2   small  waiting
        └─ gates
           └─ disagreement: fail, +31.0% (+0.0 to +9.5), limit +10.0, 1 devices, 64 compared
        ");
    }

    #[test]
    fn elsewhere_each_change_is_a_line() {
        let mut tree = Tree::default();
        let mut text = tree.show(&begun(), Terminal::NONE, false);
        text += "----\n";
        text += &tree.show(&begun(), Terminal::NONE, false);
        text += "----\n";
        text += &tree.show(&gone_back(), Terminal::NONE, true);
        insta::assert_snapshot!(text, @r"
        activity to v2 is running (0 succeeded, 0 failed, 2 waves)
        ----
        ----
        wave 1: pi-1  small  failed: small: the self-test gave NaN
        activity to v2 is rolled-back: wave 1: disagreement: fail (0 succeeded, 1 failed, 2 waves)
        gate: disagreement: fail, +31.0% (+0.0 to +9.5), limit +10.0, 1 devices, 64 compared
        ");
    }

    #[test]
    fn colours_are_only_for_terminals_that_want_them_and_a_small_one_is_not_overrun() {
        let terminal = Terminal {
            size: Some((200, 4)),
            colours: true,
        };
        let text = Tree::default().show(&begun(), terminal, false);
        assert_eq!(text.lines().count(), 3, "{text}");
        assert!(text.ends_with("lines more\n"), "{text}");
        let whole = Tree::default().show(&gone_back(), terminal, true);
        assert!(whole.contains("\x1b[31mrolled-back\x1b[0m"), "{whole}");
        assert!(whole.contains("\x1b[31mfail\x1b[0m"), "{whole}");
        let plain = Tree::default().show(&gone_back(), WIDE, true);
        assert!(!plain.contains('\x1b'), "{plain}");
    }

    #[test]
    fn a_wave_of_many_shows_those_of_which_most_is_to_be_told() {
        let waiting = |n: usize| {
            (
                1,
                ["a", "b", "c", "d", "e", "f", "g", "h", "i"][n],
                json!({ "state": "succeeded" }),
            )
        };
        let mut devices: Vec<_> = (0..9).map(waiting).collect();
        devices.push((1, "z", json!({ "state": "failed", "message": "it died" })));
        let state = json!({ "state": "running", "wave": 0, "since": 0 });
        let text = Tree::default().show(&rollout(state, &devices, "pass", 0.0), WIDE, false);
        let leaves: Vec<&str> = text.lines().skip(2).collect();
        assert!(leaves[0].contains("z  small  failed: it died"), "{text}");
        assert!(text.contains("└─ and 2 more"), "{text}");
    }
}
