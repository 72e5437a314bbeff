//! The report for people: times, then sizes, then what has to be said.

use super::{Made, Report, Row, Side};
use std::fmt::{Error, Write as _};

/// What a reader must know of wrong answers.
const WRONG: &str = "*: the answer is not the one that the file means, and the time that of a wrong \
result. What a file means is computed by ONNX Runtime without optimisations, of files with integer \
operators (QOperator and dynamic dialects) by the compiler's scalar evaluation. Floats differ by more \
than 1e-3 of the largest value; of int8 the cosine is below 0.99, or another element is the largest. On \
an x86 CPU without VNNI the int8 kernels of ONNX Runtime saturate in 16 bits.";
/// Longest reason that is printed: engines add whole graphs to theirs.
const REASON: usize = 140;

impl Report {
    /// For people.
    ///
    /// # Errors
    /// None: writing into a string.
    pub(in super::super) fn text(&self) -> Result<String, Error> {
        let mut text = String::new();
        writeln!(text, "{}", self.provenance.text())?;
        writeln!(
            text,
            "batch 1, 1 thread unless two workers are named, medians in us; others: {}; ratio: other / ours\n",
            self.versions.join(", ")
        )?;
        self.times(&mut text)?;
        writeln!(text)?;
        self.sizes(&mut text)?;
        self.notes(&mut text)?;
        Ok(text)
    }

    fn times(&self, text: &mut String) -> Result<(), Error> {
        write!(text, "{:<28} {:>10} {:>10}", "model", "ours", "2 workers")?;
        for engine in &self.engines {
            write!(text, " {engine:>10}")?;
        }
        for engine in &self.engines {
            write!(text, " {:>14}", format!("{engine}/ours"))?;
        }
        writeln!(text)?;
        for row in &self.rows {
            write!(text, "{:<28}", row.model)?;
            let pair = row.two_workers_us.map(|us| format!("{us:.1}"));
            write!(
                text,
                " {:>10} {:>10}",
                time(&row.sides[0]),
                pair.as_deref().unwrap_or("-")
            )?;
            for side in &row.sides[1..] {
                write!(text, " {:>10}", time(side))?;
            }
            for side in &row.sides[1..] {
                let ratio = side
                    .ratio
                    .map_or_else(|| "-".to_owned(), |r| format!("{r:.2}"));
                write!(text, " {ratio:>14}")?;
            }
            writeln!(text)?;
        }
        Ok(())
    }

    fn sizes(&self, text: &mut String) -> Result<(), Error> {
        writeln!(
            text,
            "{:<28} {:>9} {:>9} {:>6} {:>6} {:>9} {:>10} {:>6} {:>7} {:>6}",
            "KiB and ms",
            "memory",
            "weights",
            "wasm",
            "native",
            "to wasm",
            "to native",
            "load",
            "first",
            "dirty"
        )?;
        let made = |row: &Row| row.made.as_ref().map(|m| (row.model.clone(), size_line(m)));
        for (model, line) in self.rows.iter().filter_map(made) {
            writeln!(text, "{model:<28} {line}")?;
        }
        Ok(())
    }

    fn notes(&self, text: &mut String) -> Result<(), Error> {
        let names = std::iter::once("ours").chain(self.engines.iter().copied());
        let names: Vec<&str> = names.collect();
        let mut notes = Vec::new();
        let mut wrong = false;
        for row in &self.rows {
            for (name, side) in names.iter().zip(&row.sides) {
                if let Some(why) = &side.refused {
                    let why: String = why.chars().take(REASON).collect();
                    notes.push(format!("{} by {name}: {why}", row.model));
                }
                if let Some(a) = side.agreement.filter(|a| !a.right) {
                    wrong = true;
                    notes.push(format!(
                        "{} by {name}: largest difference {:.1e}, cosine {:.4}, {} largest element",
                        row.model,
                        a.difference,
                        a.cosine,
                        if a.same_class { "the same" } else { "another" }
                    ));
                }
            }
        }
        if wrong {
            writeln!(text, "\n{WRONG}")?;
        }
        if !notes.is_empty() {
            writeln!(text, "\n{}", notes.join("\n"))?;
        }
        for missing in &self.missing {
            writeln!(text, "\n{missing}")?;
        }
        Ok(())
    }
}

fn time(side: &Side) -> String {
    let wrong = side.agreement.is_some_and(|a| !a.right);
    let mark = if wrong { "*" } else { "" };
    match side.us {
        Some(us) => format!("{us:.1}{mark}"),
        None => "refused".to_owned(),
    }
}

fn size_line(m: &Made) -> String {
    let kib = |bytes: u64| bytes as f64 / 1024.0;
    format!(
        "{:>9.0} {:>9.1} {:>6.1} {:>6.0} {:>9.1} {:>10.1} {:>6.2} {:>7.2} {:>6.0}",
        kib(m.memory_bytes),
        kib(m.weights_bytes),
        kib(m.wasm_bytes),
        kib(m.native_bytes),
        m.compile_ms,
        m.native_ms,
        m.load_ms,
        m.first_ms,
        kib(m.weights_dirty_bytes)
    )
}
