//! The hand-written module of `examples/brought`, slower or with a flaw as a test wants it.

use crate::oip::Client;
use crate::root;
use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};

/// Its name in the fleets of the tests.
pub const MODEL: &str = "vibration";
const INPUT: &str = "samples";
const SAMPLES: usize = 256;
/// Of so many requests one begins with [`SHOCK`].
const SHOCK_EVERY: usize = 100;
/// A first sample that a [frail](Flaw::Dies) module dies of.
const SHOCK: f32 = 1000.0;

/// What a module does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// Nothing.
    None,
    /// It dies of an input that begins with a shock.
    Dies,
    /// Its answer is NaN to a quarter of the inputs: those that begin with 12 or more.
    Nan,
}

/// What a module is like.
#[derive(Debug, Clone, Copy)]
pub struct Build {
    /// How many times it computes its answers: its latency is a multiple of this.
    pub rounds: u32,
    /// What it does wrong.
    pub flaw: Flaw,
}

impl Build {
    /// Assembles the module into a file of `dir`.
    ///
    /// # Errors
    /// When the example is not what this was written for, or the file cannot be written.
    pub fn write(self, dir: &Path, name: &str) -> Result<PathBuf> {
        let text = std::fs::read_to_string(root().join("examples/brought/vibration.wat"))?;
        let call = "(call $vibration (local.get $in) (local.get $out))";
        ensure!(text.matches(call).count() == 1, "the example has changed");
        let begins_with = |sample: &str, then: &str| {
            format!("(if (f32.ge (f32.load (local.get $in)) (f32.const {sample})) (then {then}))")
        };
        let flaw = match self.flaw {
            Flaw::None => String::new(),
            Flaw::Dies => begins_with("1000", "unreachable"),
            Flaw::Nan => begins_with("12", "(f32.store (local.get $out) (f32.const nan))"),
        };
        let work = format!(
            "(local.set $round (i32.const {}))
             (loop $again {call}
               (br_if $again (local.tee $round (i32.sub (local.get $round) (i32.const 1)))))
             {}",
            self.rounds, flaw,
        );
        let text = text.replacen(call, &work, 1);
        let text = text.replacen("(local $end i32)", "(local $end i32) (local $round i32)", 1);
        let file = dir.join(format!("{name}.wasm"));
        std::fs::write(
            &file,
            wat::parse_str(&text).context("no module came of it")?,
        )?;
        Ok(file)
    }
}

/// Asks once and says which version answered; the features must be right.
///
/// # Errors
/// When there is no answer, or a wrong one.
pub fn ask(client: &Client, index: usize) -> Result<String> {
    let mut x: Vec<f32> = (0..SAMPLES).map(|i| ((i + index) % 16) as f32).collect();
    if index % SHOCK_EVERY == SHOCK_EVERY - 1 {
        x[0] = SHOCK;
    }
    let answer = client.infer(MODEL, INPUT, &[1, SAMPLES], &x)?;
    let mean = x.iter().sum::<f32>() / SAMPLES as f32;
    let found = answer.values.first().copied().unwrap_or(f32::NAN);
    ensure!((found - mean).abs() < 1e-3, "{found} instead of {mean}");
    Ok(answer.version)
}
