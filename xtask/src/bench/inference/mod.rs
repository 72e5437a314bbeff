//! `cargo xtask bench inference`: our code in the sandbox against other engines.

mod agreement;
mod case;
mod ours;
mod reference;
mod text;

use super::provenance::{Provenance, own_build};
use super::stats::median;
use crate::peer::{self, Peer};
use agreement::{Agreement, Kind};
use anyhow::{Result, ensure};
use case::Case;
use ours::{Made, Ours, Run};
use serde::Serialize;

/// The sides take turns so often: what else the machine does then falls on all.
const ROUNDS: usize = 15;
/// Runs of a side in a turn, at most: the first few find cold caches, most do not.
const RUNS: usize = 20;
/// Time of a turn, at most, if one run fits in it.
const TURN_US: f64 = 100e3;

/// What came of one engine and one model.
#[derive(Debug, Serialize)]
pub(super) struct Side {
    /// Median of a run.
    us: Option<f64>,
    /// `us` as a multiple of ours: above 1, ours is faster.
    ratio: Option<f64>,
    /// How near its output is to the reference, if there is one.
    agreement: Option<Agreement>,
    /// Why there are no figures.
    refused: Option<String>,
}

/// A model.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    model: String,
    /// Ours, then the others in the order of [`Report::engines`].
    sides: Vec<Side>,
    /// Median of a run of ours with two workers.
    two_workers_us: Option<f64>,
    /// None when the compiler refuses the model.
    made: Option<Made>,
}

/// Everything.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    provenance: Provenance,
    /// Short names of the others.
    engines: Vec<&'static str>,
    /// Their names with versions.
    versions: Vec<String>,
    rows: Vec<Row>,
    /// Engines and models that were not measured, and why.
    missing: Vec<String>,
}

/// Measures all models whose name contains `only`.
///
/// # Errors
/// When there is no such model, or data of this repository cannot be read.
pub(super) fn measure(only: &str) -> Result<Report> {
    let scratch = tempfile::tempdir()?;
    let (cases, mut missing) = case::cases(only, scratch.path())?;
    ensure!(
        !cases.is_empty(),
        "there is no model whose name contains `{only}`"
    );
    super::say("starting the other engines, and building them if need be");
    let mut peers = Vec::new();
    match peer::onnxruntime() {
        Ok(engine) => peers.push(engine),
        Err(error) => missing.push(format!("ONNX Runtime was not measured: {error:#}")),
    }
    match peer::rust_engines() {
        Ok(engines) => peers.extend(engines),
        Err(error) => missing.push(format!("tract and rten were not measured: {error:#}")),
    }
    match peer::rten_at_128_bits() {
        Ok(engine) => peers.push(engine),
        Err(error) => missing.push(format!("rten at 128 bits was not measured: {error:#}")),
    }
    match peer::rten_in_wasm() {
        Ok(engine) => peers.push(engine),
        Err(error) => missing.push(format!("rten in wasm was not measured: {error:#}")),
    }
    let versions = peers.iter_mut().map(Peer::version);
    let versions = versions.collect::<Result<Vec<_>>>()?;
    let provenance = Provenance::of(own_build());
    let mut rows = Vec::new();
    for case in &cases {
        super::say(&case.name);
        rows.push(row(case, &mut peers));
    }
    Ok(Report {
        provenance,
        engines: peers.iter().map(|p| p.name).collect(),
        versions,
        rows,
        missing,
    })
}

/// An engine that takes turns on one model.
struct Player<'a> {
    run: Run<'a>,
    /// Runs in a turn.
    runs: usize,
    times: Vec<f64>,
    failure: Option<anyhow::Error>,
}

impl<'a> Player<'a> {
    fn new(run: Run<'a>) -> Self {
        Self {
            run,
            runs: 1,
            times: Vec::new(),
            failure: None,
        }
    }

    /// One turn, unless it has failed before.
    fn play(&mut self) {
        if self.failure.is_some() {
            return;
        }
        match (self.run)(self.runs) {
            Ok(times) => self.times.extend(times),
            Err(error) => self.failure = Some(error),
        }
    }

    /// A turn that only shows how many runs fit into one.
    fn warm_up(&mut self) {
        self.play();
        let fit = TURN_US / median(&self.times);
        // Of no times the median is NaN, which becomes 0.
        self.runs = (fit as usize).clamp(1, RUNS);
        self.times.clear();
    }
}

fn row(case: &Case, peers: &mut [Peer]) -> Row {
    let mut ours = Ours::load(case);
    let own_outputs = match &ours {
        Ok(ours) => ours.outputs(),
        Err(error) => Err(anyhow::anyhow!("{error:#}")),
    };
    let mut outputs = vec![own_outputs];
    // Without a reference nothing is said of the answers; the compiler's refusal is in the row.
    let mut reference = reference::of_integer_operators(case).ok().flatten();
    for peer in peers.iter_mut() {
        let answer = peer.load(&case.onnx, &[&case.input]);
        outputs.push(answer.map(|answer| {
            reference = reference.take().or(answer.plain);
            answer.outputs
        }));
    }
    let kind = if case.quantised() {
        Kind::Integer
    } else {
        Kind::Float
    };
    let (times, two_workers_us) = play(ours.as_mut().ok(), peers, &outputs);
    let ours_us = times[0].as_ref().ok().copied();
    let side = |(outputs, us): (Result<Vec<f64>>, Result<f64>)| match (outputs, us) {
        (Err(error), _) | (_, Err(error)) => Side {
            us: None,
            ratio: None,
            agreement: None,
            refused: Some(format!("{error:#}")),
        },
        (Ok(outputs), Ok(us)) => Side {
            us: Some(us),
            ratio: ours_us.map(|ours| us / ours),
            agreement: reference
                .as_ref()
                .map(|reference| Agreement::of(kind, &outputs, reference)),
            refused: None,
        },
    };
    Row {
        model: case.name.clone(),
        sides: outputs.into_iter().zip(times).map(side).collect(),
        two_workers_us,
        made: ours.ok().map(|o| o.made),
    }
}

/// All that have loaded the model, in turns: the median time of each in microseconds, ours first, and
/// that of our two workers.
fn play(
    ours: Option<&mut Ours>,
    peers: &mut [Peer],
    outputs: &[Result<Vec<f64>>],
) -> (Vec<Result<f64>>, Option<f64>) {
    let (single, mut pair) = match ours.map(Ours::runs) {
        Some([single, pair]) => (Some(Player::new(single)), Some(Player::new(pair))),
        None => (None, None),
    };
    let mut players = vec![single];
    for (peer, outputs) in peers.iter_mut().zip(&outputs[1..]) {
        let run = |runs| peer.run(runs);
        players.push(outputs.is_ok().then(|| Player::new(Box::new(run))));
    }
    let mut all: Vec<&mut Player<'_>> = players.iter_mut().chain([&mut pair]).flatten().collect();
    all.iter_mut().for_each(|p| p.warm_up());
    for _ in 0..ROUNDS {
        all.iter_mut().for_each(|p| p.play());
    }
    let outcome = |player: Option<Player<'_>>| match player {
        None => Err(anyhow::anyhow!("it did not load the model")),
        Some(Player {
            failure: Some(error),
            ..
        }) => Err(error),
        Some(player) => Ok(median(&player.times)),
    };
    let two_workers_us = outcome(pair).ok();
    (players.into_iter().map(outcome).collect(), two_workers_us)
}
