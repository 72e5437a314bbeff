//! What a recurrent cell does step by step, four units at a time: its gates' products with the state,
//! and the new state. What the gates get from the input is a product of matrices made before.

use super::Kernel;
use super::curves::Curve;
use super::rows::along;
use crate::emit::{Func, Local, Ref};
use wasm_encoder::Instruction as I;

/// Units that are computed together; buffers have room for whole vectors of them.
pub(crate) const UNITS: usize = 4;

/// What an RNN applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Activation {
    /// The hyperbolic tangent.
    Tanh,
    /// 0 below 0.
    Relu,
    /// 1 / (1 + e^-x).
    Sigmoid,
}

/// Which cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RecurrentCell {
    /// h' = a(x).
    Rnn(Activation),
    /// Gates z, r, n; r applies to the state.
    GruBefore,
    /// Gates z, r, n; r applies to the state's product, whose bias is apart.
    GruAfter,
    /// Gates i, o, f, c.
    Lstm,
}

impl RecurrentCell {
    /// Gates of a unit.
    pub(crate) fn gates(self) -> usize {
        match self {
            Self::Rnn(_) => 1,
            Self::GruBefore | Self::GruAfter => 3,
            Self::Lstm => 4,
        }
    }

    /// How the gates are grouped in the packed weights: a group is computed for all units before
    /// the next one begins.
    pub(crate) fn groups(self) -> &'static [&'static [usize]] {
        match self {
            Self::Rnn(_) => &[&[0]],
            Self::GruBefore => &[&[0, 1], &[2]],
            Self::GruAfter => &[&[0, 1, 2]],
            Self::Lstm => &[&[0, 1, 2, 3]],
        }
    }
}

/// Where the rows of a tensor lie, in bytes: of the first step and item, and from one step and item to
/// the next.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rows {
    /// Of the first one.
    pub(crate) first: usize,
    /// From one step to the next.
    pub(crate) step: usize,
    /// From one item to the next.
    pub(crate) item: usize,
}

/// One direction of a recurrent operator.
#[derive(Debug, Clone)]
pub(crate) struct Recurrence {
    /// The cell.
    pub(crate) cell: RecurrentCell,
    /// What gates get from the input, with all bias that is added to it: rows of
    /// `[vector of units][gate][unit]`.
    pub(crate) inputs: (Ref, Rows),
    /// By group of gates: `[vector of units][unit of the state][gate][unit]`.
    pub(crate) weights: Ref,
    /// For [`RecurrentCell::GruAfter`], the bias of n's product with the state.
    pub(crate) bias: Option<Ref>,
    /// For an LSTM, `[vector of units][i, o, f][unit]`.
    pub(crate) peepholes: Option<Ref>,
    /// Hidden state, cell state (or a GRU's gated state), next hidden state, a GRU's z: whole vectors.
    pub(crate) state: [Ref; 4],
    /// Where hidden and cell state begin; else at 0.
    pub(crate) starts: [Option<Ref>; 2],
    /// All hidden states.
    pub(crate) y: Option<(Ref, Rows)>,
    /// The last hidden and cell state.
    pub(crate) ends: [Option<Ref>; 2],
    /// Where a state lies in `starts` and `ends`; there are no steps.
    pub(crate) places: Rows,
    /// Steps of the sequence, items of the batch, units.
    pub(crate) sizes: [usize; 3],
    /// Whether the last step comes first.
    pub(crate) reversed: bool,
    /// What gates are cut to.
    pub(crate) clip: Option<f32>,
}

/// Pointers within a step.
#[derive(Clone, Copy)]
struct At {
    x: Local,
    weights: Local,
    peepholes: Option<Local>,
    bias: Option<Local>,
    hidden: Local,
    cell: Local,
    next: Local,
    z: Local,
}

impl Recurrence {
    fn vectors(&self) -> usize {
        self.sizes[2].div_ceil(UNITS)
    }

    /// Sums of these gates for the vector of units at `at`: what `start` pushes, and the product with
    /// `state`. Moves behind the weights.
    fn sums(
        &self,
        f: &mut Func<'_>,
        (weights, state): (Local, Local),
        gates: usize,
        start: &dyn Fn(&mut Func<'_>, usize),
    ) -> Vec<Local> {
        // Two sums for each gate: with one, an addition would wait for the one before.
        let [even, odd] = [(); 2].map(|()| (0..gates).map(|_| f.v128()).collect::<Vec<_>>());
        let spread = f.v128();
        for gate in 0..gates {
            start(f, gate);
            f.set(even[gate]).floats(0.0).set(odd[gate]);
        }
        let from = f.copy_of(state);
        let one = |f: &mut Func<'_>, sums: &[Local], i: usize| {
            f.load_splat(from, 4 * i as u32).set(spread);
            for (gate, sum) in sums.iter().enumerate() {
                f.get(*sum).get(spread);
                f.load(weights, (16 * (i * gates + gate)) as u32);
                f.op(I::F32x4Mul).op(I::F32x4Add).set(*sum);
            }
        };
        let units = self.sizes[2];
        f.repeat(units / 4, |f| {
            for i in 0..4 {
                one(f, if i % 2 == 0 { &even } else { &odd }, i);
            }
            f.bump(from, 16);
            f.bump(weights, (4 * 16 * gates) as i64);
        });
        for i in 0..units % 4 {
            one(f, if i % 2 == 0 { &even } else { &odd }, i);
        }
        f.bump(weights, (units % 4 * 16 * gates) as i64);
        for (a, b) in even.iter().zip(&odd) {
            f.get(*a).get(*b).op(I::F32x4Add).set(*a);
        }
        even
    }

    /// Pops a vector and pushes a gate: cut, and a function of it.
    fn gate(&self, f: &mut Func<'_>, curve: Curve) {
        self.cut(f);
        curve.apply(f);
    }

    fn cut(&self, f: &mut Func<'_>) {
        if let Some(clip) = self.clip {
            f.clamp(-clip, clip);
        }
    }

    fn store(f: &mut Func<'_>, pointer: Local, vector: Local) {
        f.store_bytes(pointer, 0, vector, 16);
    }

    fn rnn(&self, f: &mut Func<'_>, a: &At, activation: Activation) {
        let sums = self.sums(f, (a.weights, a.hidden), 1, &|f, _| {
            f.load(a.x, 0);
        });
        f.get(sums[0]);
        match activation {
            Activation::Tanh => self.gate(f, Curve::Tanh),
            Activation::Sigmoid => self.gate(f, Curve::Sigmoid),
            Activation::Relu => {
                self.cut(f);
                f.clamp(0.0, f32::INFINITY);
            }
        }
        f.set(sums[0]);
        Self::store(f, a.next, sums[0]);
    }

    /// Adds what the gate `which` of an LSTM sees of the cell state in `c` to what was pushed.
    fn peep(f: &mut Func<'_>, a: &At, which: u32, c: Local) {
        if let Some(peepholes) = a.peepholes {
            f.load(peepholes, 16 * which).get(c);
            f.op(I::F32x4Mul).op(I::F32x4Add);
        }
    }

    fn lstm(&self, f: &mut Func<'_>, a: &At) {
        let sums = self.sums(f, (a.weights, a.hidden), 4, &|f, gate| {
            f.load(a.x, 16 * gate as u32);
        });
        let [input, output, forget, new] = [sums[0], sums[1], sums[2], sums[3]];
        let c = f.v128();
        f.load(a.cell, 0).set(c);
        for (gate, which) in [(input, 0), (forget, 2)] {
            f.get(gate);
            Self::peep(f, a, which, c);
            self.gate(f, Curve::Sigmoid);
            f.set(gate);
        }
        f.get(new);
        self.gate(f, Curve::Tanh);
        f.get(input).op(I::F32x4Mul);
        f.get(forget).get(c).op(I::F32x4Mul);
        f.op(I::F32x4Add).set(c);
        Self::store(f, a.cell, c);
        f.get(output);
        Self::peep(f, a, 1, c);
        self.gate(f, Curve::Sigmoid);
        f.get(c);
        Curve::Tanh.apply(f);
        f.op(I::F32x4Mul).set(output);
        Self::store(f, a.next, output);
    }

    /// Pushes (1 - z) n + z h.
    fn mixed(f: &mut Func<'_>, [z, n, h]: [Local; 3]) {
        f.floats(1.0).get(z).op(I::F32x4Sub).get(n);
        f.op(I::F32x4Mul).get(z).get(h).op(I::F32x4Mul);
        f.op(I::F32x4Add);
    }

    fn gru_after(&self, f: &mut Func<'_>, a: &At, h: Local) {
        let sums = self.sums(f, (a.weights, a.hidden), 3, &|f, gate| {
            match (gate, a.bias) {
                (2, Some(bias)) => f.load(bias, 0),
                (2, None) => f.floats(0.0),
                _ => f.load(a.x, 16 * gate as u32),
            };
        });
        for gate in &sums[..2] {
            f.get(*gate);
            self.gate(f, Curve::Sigmoid);
            f.set(*gate);
        }
        f.load(a.x, 32).get(sums[1]).get(sums[2]);
        f.op(I::F32x4Mul).op(I::F32x4Add);
        self.gate(f, Curve::Tanh);
        f.set(sums[2]);
        f.load(h, 0).set(sums[1]);
        Self::mixed(f, [sums[0], sums[2], sums[1]]);
        f.set(sums[0]);
        Self::store(f, a.next, sums[0]);
    }

    /// The gates z and r, and the state that r lets through.
    fn gru_gates(&self, f: &mut Func<'_>, a: &At, h: Local) {
        let sums = self.sums(f, (a.weights, a.hidden), 2, &|f, gate| {
            f.load(a.x, 16 * gate as u32);
        });
        for gate in &sums {
            f.get(*gate);
            self.gate(f, Curve::Sigmoid);
            f.set(*gate);
        }
        f.load(h, 0).get(sums[1]).op(I::F32x4Mul).set(sums[1]);
        Self::store(f, a.cell, sums[1]);
        Self::store(f, a.z, sums[0]);
    }

    fn gru_before(&self, f: &mut Func<'_>, a: &At, gated: Local, h: Local) {
        let sums = self.sums(f, (a.weights, gated), 1, &|f, _| {
            f.load(a.x, 32);
        });
        let [z, old] = [(); 2].map(|()| f.v128());
        f.get(sums[0]);
        self.gate(f, Curve::Tanh);
        f.set(sums[0]);
        f.load(a.z, 0).set(z);
        f.load(h, 0).set(old);
        Self::mixed(f, [z, sums[0], old]);
        f.set(z);
        Self::store(f, a.next, z);
    }

    /// All units once for each group of gates.
    fn step(&self, f: &mut Func<'_>, at: &At) {
        let weights = f.copy_of(at.weights);
        for (pass, _) in self.cell.groups().iter().enumerate() {
            let h = f.copy_of(at.hidden);
            let moving = At {
                x: f.copy_of(at.x),
                weights,
                peepholes: at.peepholes.map(|p| f.copy_of(p)),
                bias: at.bias.map(|b| f.copy_of(b)),
                hidden: at.hidden,
                cell: f.copy_of(at.cell),
                next: f.copy_of(at.next),
                z: f.copy_of(at.z),
            };
            f.repeat(self.vectors(), |f| {
                match (self.cell, pass) {
                    (RecurrentCell::Rnn(activation), _) => self.rnn(f, &moving, activation),
                    (RecurrentCell::Lstm, _) => self.lstm(f, &moving),
                    (RecurrentCell::GruAfter, _) => self.gru_after(f, &moving, h),
                    (RecurrentCell::GruBefore, 0) => self.gru_gates(f, &moving, h),
                    (RecurrentCell::GruBefore, _) => self.gru_before(f, &moving, at.cell, h),
                }
                f.bump(moving.x, (16 * self.cell.gates()) as i64);
                for pointer in [h, moving.cell, moving.next, moving.z] {
                    f.bump(pointer, 16);
                }
                moving.peepholes.iter().for_each(|p| f.bump(*p, 48));
                moving.bias.iter().for_each(|b| f.bump(*b, 16));
            });
        }
    }

    /// Copies the units of a state; what is not there counts as 0.
    fn copied(&self, f: &mut Func<'_>, from: Option<Local>, to: &[Local], exact: bool) {
        let v = f.v128();
        let pointers: Vec<Local> = from.iter().chain(to).copied().collect();
        along(f, self.sizes[2], &pointers, &|f, count| {
            match from {
                Some(from) => f.load(from, 0),
                None => f.floats(0.0),
            };
            f.set(v);
            for to in to {
                f.store_bytes(*to, 0, v, if exact { 4 * count } else { 16 });
            }
        });
    }
}

impl Kernel for Recurrence {
    fn name(&self) -> &'static str {
        "recurrent"
    }

    fn reads(&self) -> Vec<Ref> {
        let some = [self.bias, self.peepholes, self.starts[0], self.starts[1]];
        let all = some.into_iter().flatten();
        all.chain([self.inputs.0, self.weights]).collect()
    }

    fn writes(&self) -> Vec<Ref> {
        let outputs = self.ends.into_iter().chain([self.y.map(|y| y.0)]);
        self.state.into_iter().chain(outputs.flatten()).collect()
    }

    fn emit(&self, f: &mut Func<'_>) {
        let [steps, items, _] = self.sizes;
        let [hidden, cell, next, z] = self.state.map(|r| f.pointer(r, 0));
        let last = if self.reversed { steps - 1 } else { 0 };
        let begin = |rows: Rows| (rows.first + last * rows.step) as u32;
        let x = f.pointer(self.inputs.0, begin(self.inputs.1));
        let y = self.y.map(|(y, rows)| (f.pointer(y, begin(rows)), rows));
        let first = self.places.first as u32;
        let starts = self.starts.map(|r| r.map(|r| f.pointer(r, first)));
        let ends = self.ends.map(|r| r.map(|r| f.pointer(r, first)));
        let at = At {
            x,
            weights: f.pointer(self.weights, 0),
            peepholes: self.peepholes.map(|p| f.pointer(p, 0)),
            bias: self.bias.map(|b| f.pointer(b, 0)),
            hidden,
            cell,
            next,
            z,
        };
        let sign = if self.reversed { -1 } else { 1 };
        let lstm = self.cell == RecurrentCell::Lstm;
        f.repeat(items, |f| {
            self.copied(f, starts[0], &[hidden], false);
            if lstm {
                self.copied(f, starts[1], &[cell], false);
            }
            f.repeat(steps, |f| {
                self.step(f, &at);
                self.copied(f, Some(next), &[hidden], false);
                f.bump(x, sign * self.inputs.1.step as i64);
                if let Some((y, rows)) = y {
                    self.copied(f, Some(next), &[y], true);
                    f.bump(y, sign * rows.step as i64);
                }
            });
            for (end, state) in ends.iter().zip([hidden, cell]) {
                if let Some(end) = end {
                    self.copied(f, Some(state), &[*end], true);
                }
            }
            let back = |rows: Rows| rows.item as i64 - sign * (steps * rows.step) as i64;
            f.bump(x, back(self.inputs.1));
            if let Some((y, rows)) = y {
                f.bump(y, back(rows));
            }
            for pointer in starts.iter().chain(&ends).flatten() {
                f.bump(*pointer, self.places.item as i64);
            }
        });
    }
}
