//! Recurrent cells in plain scalar arithmetic.

use super::{Activation, Cell, Plan};

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// Weights and states of an evaluation.
pub(super) struct Values<'a> {
    pub(super) w: &'a [f32],
    pub(super) r: &'a [f32],
    pub(super) b: Option<&'a [f32]>,
    pub(super) p: Option<&'a [f32]>,
}

impl Plan {
    /// One step of one direction.
    pub(super) fn step(&self, v: &Values<'_>, d: usize, x: &[f32], h: &mut [f64], c: &mut [f64]) {
        let (n, g) = (self.hidden, self.cell.gates());
        let dot_x = |row: usize| -> f64 {
            let row = &v.w[(d * g * n + row) * self.inputs..][..self.inputs];
            row.iter()
                .zip(x)
                .map(|(w, x)| f64::from(*w) * f64::from(*x))
                .sum()
        };
        let dot_h = |row: usize, h: &[f64]| -> f64 {
            let row = &v.r[(d * g * n + row) * n..][..n];
            row.iter().zip(h).map(|(r, h)| f64::from(*r) * h).sum()
        };
        let bias = |i: usize| v.b.map_or(0.0, |b| f64::from(b[d * 2 * g * n + i]));
        let peep = |i: usize| v.p.map_or(0.0, |p| f64::from(p[d * 3 * n + i]));
        let cut = |x: f64| {
            self.clip
                .map_or(x, |c| x.clamp(-f64::from(c), f64::from(c)))
        };
        let old = h.to_vec();
        let from_x = |gate: usize, i: usize| dot_x(gate * n + i) + bias(gate * n + i);
        let from_h =
            |gate: usize, i: usize, h: &[f64]| dot_h(gate * n + i, h) + bias((g + gate) * n + i);
        let gate = |which: usize, i: usize| from_x(which, i) + from_h(which, i, &old);
        match self.cell {
            Cell::Rnn => (0..n).for_each(|i| {
                let x = cut(gate(0, i));
                h[i] = match self.activations[d] {
                    Activation::Tanh => x.tanh(),
                    Activation::Relu => x.max(0.0),
                    Activation::Sigmoid => sigmoid(x),
                };
            }),
            Cell::Gru => {
                let reset: Vec<f64> = (0..n).map(|i| sigmoid(cut(gate(1, i)))).collect();
                let masked: Vec<f64> = reset.iter().zip(&old).map(|(r, h)| r * h).collect();
                (0..n).for_each(|i| {
                    let z = sigmoid(cut(gate(0, i)));
                    let memory = match self.reset_after {
                        true => reset[i] * from_h(2, i, &old),
                        false => from_h(2, i, &masked),
                    };
                    let new = cut(from_x(2, i) + memory).tanh();
                    h[i] = (1.0 - z) * new + z * old[i];
                });
            }
            Cell::Lstm => (0..n).for_each(|i| {
                let input = sigmoid(cut(gate(0, i) + peep(i) * c[i]));
                let forget = sigmoid(cut(gate(2, i) + peep(2 * n + i) * c[i]));
                c[i] = forget * c[i] + input * cut(gate(3, i)).tanh();
                let output = sigmoid(cut(gate(1, i) + peep(n + i) * c[i]));
                h[i] = output * c[i].tanh();
            }),
        }
    }
}
