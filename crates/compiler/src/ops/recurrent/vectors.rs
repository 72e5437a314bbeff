//! Recurrent cells whose weights are constants: a product for all steps, then the recurrence.

use super::{Cell, Plan};
use crate::emit::Ref;
use crate::kernels::{Element, Fill, Recurrence, RecurrentCell, Rows, UNITS};
use crate::lower::LowerCx;
use crate::lower::dense::{Bias, Ending, Terms, product_into};
use crate::typed::Clamp;

/// The constants of a node.
pub(super) struct Weights<'a> {
    pub(super) w: &'a [f32],
    pub(super) r: &'a [f32],
    pub(super) b: Option<&'a [f32]>,
    pub(super) p: Option<&'a [f32]>,
}

/// Where what is not constant lies.
pub(super) struct Places {
    pub(super) x: Ref,
    pub(super) starts: [Option<Ref>; 2],
    pub(super) outputs: [Option<Ref>; 3],
}

fn bytes(values: impl Iterator<Item = f32>) -> Vec<u8> {
    values.flat_map(f32::to_le_bytes).collect()
}

impl Plan {
    fn recurrent_cell(&self, d: usize) -> RecurrentCell {
        match (self.cell, self.reset_after, self.activations[d]) {
            (Cell::Lstm, ..) => RecurrentCell::Lstm,
            (Cell::Gru, true, _) => RecurrentCell::GruAfter,
            (Cell::Gru, false, _) => RecurrentCell::GruBefore,
            (Cell::Rnn, _, activation) => RecurrentCell::Rnn(activation),
        }
    }

    /// Rows of `width` floats, one for each step and item, in the order of the input.
    fn rows(&self, first: usize, width: usize) -> Rows {
        let [step, item] = match self.batch_first {
            true => [1, self.steps],
            false => [self.batch, 1],
        };
        Rows {
            first: 4 * first,
            step: 4 * step * width,
            item: 4 * item * width,
        }
    }

    /// Where the states of direction `d` lie in the output Y: directions are between steps and items,
    /// or innermost.
    fn y_rows(&self, d: usize) -> Rows {
        let (n, directions) = (self.hidden, self.reversed.len());
        let [first, step, item] = match self.batch_first {
            true => [d, directions, self.steps * directions],
            false => [d * self.batch, directions * self.batch, 1],
        };
        Rows {
            first: 4 * first * n,
            step: 4 * step * n,
            item: 4 * item * n,
        }
    }

    /// Where the state of direction `d` lies in a tensor of states.
    fn state_rows(&self, d: usize) -> Rows {
        let [first, item] = match self.batch_first {
            true => [d, self.reversed.len()],
            false => [d * self.batch, 1],
        };
        Rows {
            first: 4 * first * self.hidden,
            step: 0,
            item: 4 * item * self.hidden,
        }
    }

    /// Adds the kernels of direction `d`.
    pub(super) fn direction(
        &self,
        cx: &mut LowerCx<'_>,
        d: usize,
        v: &Weights<'_>,
        places: &Places,
    ) -> Result<(), String> {
        let (n, g, cell) = (self.hidden, self.cell.gates(), self.recurrent_cell(d));
        let vectors = n.div_ceil(UNITS);
        let columns = vectors * g * UNITS;
        // Gate and unit of a column; columns of units that do not exist hold 0.
        let place = |column: usize| {
            let unit = column / (g * UNITS) * UNITS + column % UNITS;
            (column / UNITS % g, unit)
        };
        let weight = |column: usize, k: usize, _: usize| match place(column) {
            (gate, unit) if unit < n => v.w[(d * g * n + gate * n + unit) * self.inputs + k],
            _ => 0.0,
        };
        let apart = |gate: usize| cell == RecurrentCell::GruAfter && gate == 2;
        let bias = |half: usize, gate: usize, unit: usize| match v.b {
            Some(b) if unit < n => b[d * 2 * g * n + (half * g + gate) * n + unit],
            _ => 0.0,
        };
        let both = |column: usize| {
            let (gate, unit) = place(column);
            let memory = if apart(gate) {
                0.0
            } else {
                bias(1, gate, unit)
            };
            bias(0, gate, unit) + memory
        };
        let terms = Terms {
            element: Element::F32,
            weight: &weight,
            bias: Bias::Known((0..columns).map(|c| both(c).to_bits()).collect()),
            finish: Ending::Float(Clamp::NONE),
            fill: Fill::Byte(0),
        };
        let rows = self.steps * self.batch;
        let inputs = cx.temporary(4 * rows * columns);
        product_into(cx, (places.x, inputs), [rows, columns, self.inputs], &terms)?;
        let units = |u: usize| u * UNITS..(u + 1) * UNITS;
        let mut packed = Vec::new();
        for (gates, u) in cell
            .groups()
            .iter()
            .flat_map(|g| (0..vectors).map(move |u| (g, u)))
        {
            for (k, gate) in (0..n).flat_map(|k| gates.iter().map(move |gate| (k, gate))) {
                packed.extend(bytes(units(u).map(|unit| match unit < n {
                    true => v.r[(d * g * n + gate * n + unit) * n + k],
                    false => 0.0,
                })));
            }
        }
        let weights = cx.weights(&packed)?;
        let bias = match v.b.filter(|_| apart(2)) {
            Some(_) => {
                let all = (0..vectors * UNITS).map(|unit| bias(1, 2, unit));
                Some(cx.weights(&bytes(all))?)
            }
            None => None,
        };
        let peepholes = match v.p {
            Some(p) => {
                let gates = (0..vectors).flat_map(|u| (0..3).map(move |which| (u, which)));
                let all = gates.flat_map(|(u, which)| {
                    units(u).map(move |unit| match unit < n {
                        true => p[(d * 3 + which) * n + unit],
                        false => 0.0,
                    })
                });
                Some(cx.weights(&bytes(all))?)
            }
            None => None,
        };
        let kernel = Recurrence {
            cell,
            inputs: (inputs, self.rows(0, columns)),
            weights,
            bias,
            peepholes,
            state: [(); 4].map(|()| cx.temporary(4 * vectors * UNITS)),
            starts: places.starts,
            y: places.outputs[0].map(|y| (y, self.y_rows(d))),
            ends: [places.outputs[1], places.outputs[2]],
            places: self.state_rows(d),
            sizes: [self.steps, self.batch, n],
            reversed: self.reversed[d],
            clip: self.clip,
        };
        cx.push(kernel, (self.steps * self.batch * g * n) as u64 * n as u64)
    }
}
