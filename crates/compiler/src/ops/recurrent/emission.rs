//! Recurrent cells as programs.

use super::{Activation, Cell, Plan};
use crate::emit::Ref;
use crate::kernels::{Ex, Scalar, Ty, functions, index};
use crate::lower::Layout;
use sandpiper_core::tensor::DType;

/// One direction of a lowering.
pub(super) struct Emission<'a> {
    pub(super) plan: &'a Plan,
    pub(super) d: usize,
    pub(super) x: Ref,
    pub(super) w: Ref,
    pub(super) r: Ref,
    pub(super) b: Option<Ref>,
    pub(super) p: Option<Ref>,
    /// Hidden state and cell state of the item.
    pub(super) state: [Ref; 2],
    /// What the gates get from the input, then what they get from the state, by row.
    pub(super) sums: Ref,
}

const F: DType = DType::F32;

impl Emission<'_> {
    pub(super) fn sequence(
        &self,
        s: &mut Scalar,
        item: &Ex,
        reversed: bool,
        starts: [Option<Ref>; 2],
        outputs: [Option<Ref>; 3],
    ) {
        let (plan, n) = (self.plan, self.plan.hidden);
        let d = Ex::Int(self.d as i32);
        let state_strides = Layout::Plain.strides(&plan.state_dims());
        let at = s.once(index(
            &plan.order(d.clone(), item.clone()),
            &state_strides[..2],
        ));
        s.each(n, |s, i| {
            for (state, start) in self.state.iter().zip(starts) {
                let value = match start {
                    Some(start) => s.load(start, F, at.clone() + i.clone()),
                    None => Ex::Real(0.0),
                };
                s.store(*state, F, i.clone(), value);
            }
        });
        let y_strides = Layout::Plain.strides(&plan.output_dims());
        let x_strides = match plan.batch_first {
            true => [plan.steps * plan.inputs, plan.inputs],
            false => [plan.batch * plan.inputs, plan.inputs],
        };
        s.each(plan.steps, |s, step| {
            let t = match reversed {
                true => Ex::Int(plan.steps as i32 - 1) - step,
                false => step,
            };
            let from = s.once(index(&plan.order(t.clone(), item.clone()), &x_strides));
            self.rows(s, &from);
            self.cell(s);
            if let Some(y) = outputs[0] {
                let place = match plan.batch_first {
                    true => [item.clone(), t, d.clone()],
                    false => [t, d.clone(), item.clone()],
                };
                let to = s.once(index(&place, &y_strides[..3]));
                s.each(n, |s, i| {
                    let h = s.load(self.state[0], F, i.clone());
                    s.store(y, F, to.clone() + i, h);
                });
            }
        });
        s.each(n, |s, i| {
            for (state, output) in self.state.iter().zip(&outputs[1..]) {
                if let Some(output) = output {
                    let value = s.load(*state, F, i.clone());
                    s.store(*output, F, at.clone() + i.clone(), value);
                }
            }
        });
    }

    /// All rows of both products, with their bias.
    fn rows(&self, s: &mut Scalar, from: &Ex) {
        let (n, g, inputs) = (self.plan.hidden, self.plan.cell.gates(), self.plan.inputs);
        let rows = g * n;
        let halves = [
            (self.w, inputs, self.x, from.clone()),
            (self.r, n, self.state[0], Ex::Int(0)),
        ];
        for (half, (weights, len, vector, first)) in halves.into_iter().enumerate() {
            s.each(rows, |s, row| {
                let to = s.once(row.clone() + Ex::Int((half * rows) as i32));
                let start = match self.b {
                    Some(b) => s.load(b, F, to.clone() + Ex::Int((self.d * 2 * rows) as i32)),
                    None => Ex::Real(0.0),
                };
                let sum = s.var(start);
                let line = s.once((row + Ex::Int((self.d * rows) as i32)) * Ex::Int(len as i32));
                s.each(len, |s, k| {
                    let a = s.load(weights, F, line.clone() + k.clone());
                    let b = s.load(vector, F, first.clone() + k);
                    s.set(sum, Ex::Var(sum) + a * b);
                });
                s.store(self.sums, F, to, Ex::Var(sum));
            });
        }
    }

    fn part(&self, s: &mut Scalar, half: usize, gate: usize, i: &Ex) -> Ex {
        let (n, g) = (self.plan.hidden, self.plan.cell.gates());
        s.load(
            self.sums,
            F,
            i.clone() + Ex::Int(((half * g + gate) * n) as i32),
        )
    }

    fn both(&self, s: &mut Scalar, gate: usize, i: &Ex) -> Ex {
        self.part(s, 0, gate, i) + self.part(s, 1, gate, i)
    }

    fn cut(&self, x: Ex) -> Ex {
        match self.plan.clip {
            Some(c) => x.max(Ex::Real(-c)).min(Ex::Real(c)),
            None => x,
        }
    }

    fn apply(&self, s: &mut Scalar, x: Ex, function: fn(&mut Scalar, Ex) -> Ex) -> Ex {
        let x = self.cut(x).to(Ty::Double);
        let y = function(s, x).to(Ty::Real);
        s.once(y)
    }

    fn cell(&self, s: &mut Scalar) {
        let n = self.plan.hidden;
        let [hidden, cell] = self.state;
        match self.plan.cell {
            Cell::Rnn => s.each(n, |s, i| {
                let x = self.both(s, 0, &i);
                let h = match self.plan.activations[self.d] {
                    Activation::Tanh => self.apply(s, x, functions::tanh),
                    Activation::Sigmoid => self.apply(s, x, functions::sigmoid),
                    Activation::Relu => self.cut(x).max(Ex::Real(0.0)),
                };
                s.store(hidden, F, i, h);
            }),
            Cell::Gru => self.gru(s),
            Cell::Lstm => s.each(n, |s, i| {
                let old = s.load(cell, F, i.clone());
                let old = s.once(old);
                let input = self.both(s, 0, &i) + self.peep(s, 0, &i, &old);
                let input = self.apply(s, input, functions::sigmoid);
                let forget = self.both(s, 2, &i) + self.peep(s, 2, &i, &old);
                let forget = self.apply(s, forget, functions::sigmoid);
                let new = self.both(s, 3, &i);
                let new = self.apply(s, new, functions::tanh);
                let c = s.once(forget * old + input * new);
                let output = self.both(s, 1, &i) + self.peep(s, 1, &i, &c);
                let output = self.apply(s, output, functions::sigmoid);
                let shown = functions::tanh(s, c.clone().to(Ty::Double)).to(Ty::Real);
                s.store(cell, F, i.clone(), c);
                s.store(hidden, F, i, output * shown);
            }),
        }
    }

    /// What a gate of an LSTM sees of the cell state.
    fn peep(&self, s: &mut Scalar, which: usize, i: &Ex, c: &Ex) -> Ex {
        let n = self.plan.hidden;
        match self.p {
            Some(p) => {
                let first = Ex::Int(((self.d * 3 + which) * n) as i32);
                s.load(p, F, i.clone() + first) * c.clone()
            }
            None => Ex::Real(0.0),
        }
    }

    fn gru(&self, s: &mut Scalar) {
        let (n, hidden) = (self.plan.hidden, self.state[0]);
        // The second half of the cell state's place holds nothing for this cell: the gated state.
        let gated = self.state[1];
        let reset_to = |i: &Ex| i.clone() + Ex::Int(n as i32);
        s.each(n, |s, i| {
            let r = self.both(s, 1, &i);
            let r = self.apply(s, r, functions::sigmoid);
            let h = s.load(hidden, F, i.clone());
            s.store(gated, F, i.clone(), r.clone() * h);
            // The reset gate takes the place of what it got from the input.
            s.store(self.sums, F, reset_to(&i), r);
        });
        s.each(n, |s, i| {
            let memory = if self.plan.reset_after {
                s.load(self.sums, F, reset_to(&i)) * self.part(s, 1, 2, &i)
            } else {
                let rows = 3 * n;
                let start = match self.b {
                    Some(b) => s.load(
                        b,
                        F,
                        i.clone() + Ex::Int((self.d * 2 * rows + rows + 2 * n) as i32),
                    ),
                    None => Ex::Real(0.0),
                };
                let sum = s.var(start);
                let line = s.once(
                    (i.clone() + Ex::Int((self.d * rows + 2 * n) as i32)) * Ex::Int(n as i32),
                );
                s.each(n, |s, k| {
                    let a = s.load(self.r, F, line.clone() + k.clone());
                    let b = s.load(gated, F, k);
                    s.set(sum, Ex::Var(sum) + a * b);
                });
                Ex::Var(sum)
            };
            let new = self.part(s, 0, 2, &i) + memory;
            let new = self.apply(s, new, functions::tanh);
            let z = self.both(s, 0, &i);
            let z = self.apply(s, z, functions::sigmoid);
            let h = s.load(hidden, F, i.clone());
            s.store(hidden, F, i, (Ex::Real(1.0) - z.clone()) * new + z * h);
        });
    }
}
