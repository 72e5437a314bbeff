//! RNN, GRU, LSTM: a step per element of a sequence, in one or both directions.
//!
//! `layout` 0 has the sequence first and the batch second, so that the batch must be fixed; `layout` 1
//! has the batch first. Activations are the default ones; an RNN may also have Relu or Sigmoid.

use super::{Call, MIXES, Operator};
use crate::emit::Ref;
use crate::kernels::{Ex, Scalar, Ty, functions, index};
use crate::lower::{Layout, LowerCx};
use crate::onnx::Attrs;
use crate::reference::places::ravel;
use crate::tensor::Tensor;
use crate::typed::{NodeView, Type, fixed};
use sandpiper_core::tensor::DType;

/// Which cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cell {
    Rnn,
    Gru,
    Lstm,
}

/// A recurrent operator.
pub(crate) struct Recurrent(Cell);

/// RNN.
pub(crate) static RNN: Recurrent = Recurrent(Cell::Rnn);
/// GRU.
pub(crate) static GRU: Recurrent = Recurrent(Cell::Gru);
/// LSTM.
pub(crate) static LSTM: Recurrent = Recurrent(Cell::Lstm);

/// What an RNN applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Activation {
    Tanh,
    Relu,
    Sigmoid,
}

struct Plan {
    cell: Cell,
    steps: usize,
    batch: usize,
    inputs: usize,
    hidden: usize,
    /// Whether each direction runs backwards.
    reversed: Vec<bool>,
    batch_first: bool,
    activations: Vec<Activation>,
    clip: Option<f32>,
    reset_after: bool,
}

impl Cell {
    fn gates(self) -> usize {
        match self {
            Self::Rnn => 1,
            Self::Gru => 3,
            Self::Lstm => 4,
        }
    }
}

fn activations(
    cell: Cell,
    attrs: &Attrs<'_>,
    directions: usize,
) -> Result<Vec<Activation>, String> {
    let names = attrs.texts("activations").unwrap_or_default();
    let lower: Vec<String> = names.iter().map(|n| n.to_lowercase()).collect();
    let each: &[&str] = match cell {
        Cell::Rnn => &["tanh"],
        Cell::Gru => &["sigmoid", "tanh"],
        Cell::Lstm => &["sigmoid", "tanh", "tanh"],
    };
    if cell != Cell::Rnn || lower.is_empty() {
        let default = each.iter().cycle().take(lower.len()).eq(lower.iter());
        return match default {
            true => Ok(vec![Activation::Tanh; directions]),
            false => Err(format!("the activations {names:?} are not supported")),
        };
    }
    let one = |name: &String| match name.as_str() {
        "tanh" => Ok(Activation::Tanh),
        "relu" => Ok(Activation::Relu),
        "sigmoid" => Ok(Activation::Sigmoid),
        other => Err(format!("the activation {other} is not supported")),
    };
    let all: Vec<_> = lower.iter().map(one).collect::<Result<_, _>>()?;
    match all.len() == directions {
        true => Ok(all),
        false => Err(format!(
            "{} activations for {directions} directions",
            all.len()
        )),
    }
}

impl Recurrent {
    fn plan(
        &self,
        attrs: &Attrs<'_>,
        x: &[usize],
        w: &[usize],
        r: &[usize],
    ) -> Result<Plan, String> {
        let reversed = match attrs.text("direction", "forward").as_str() {
            "forward" => vec![false],
            "reverse" => vec![true],
            "bidirectional" => vec![false, true],
            other => return Err(format!("the direction `{other}` is not known")),
        };
        let batch_first = attrs.int("layout", 0) != 0;
        let (&[a, b, inputs], &[directions, rows, _], &[_, _, hidden]) = (x, w, r) else {
            return Err(format!("an input of {x:?}, weights of {w:?} and {r:?}"));
        };
        let gates = self.0.gates();
        let fits = w == [directions, gates * hidden, inputs]
            && r == [directions, gates * hidden, hidden]
            && rows == gates * hidden
            && directions == reversed.len();
        if !fits {
            return Err(format!("an input of {x:?}, weights of {w:?} and {r:?}"));
        }
        if attrs.int("input_forget", 0) != 0 {
            return Err("input_forget is not supported".into());
        }
        let (steps, batch) = if batch_first { (b, a) } else { (a, b) };
        Ok(Plan {
            cell: self.0,
            steps,
            batch,
            inputs,
            hidden,
            activations: activations(self.0, attrs, directions)?,
            reversed,
            batch_first,
            clip: attrs.float("clip"),
            reset_after: attrs.int("linear_before_reset", 0) != 0,
        })
    }

    fn of_node(&self, node: &NodeView<'_>) -> Result<Plan, String> {
        let x = node.float(0)?;
        let plan = self.plan(
            &node.attrs(),
            &x.item(),
            &node.float(1)?.item(),
            &node.float(2)?.item(),
        )?;
        if x.has_batch() && !plan.batch_first {
            return Err(MIXES.into());
        }
        if node.optional(4).is_some() {
            let lengths = node.constant(4)?.to_i64()?;
            if lengths.iter().any(|n| *n != plan.steps as i64) {
                return Err("sequences of different lengths are not supported".into());
            }
        }
        let state = plan.state_dims();
        let d = plan.reversed.len();
        let (g, h) = (self.0.gates(), plan.hidden);
        let shapes = [
            (3, vec![d, 2 * g * h]),
            (5, state.clone()),
            (6, state),
            (7, vec![d, 3 * h]),
        ];
        for (input, dims) in shapes {
            if let Some(value) = node.optional(input)
                && (value.ty.item() != dims || value.ty.dtype != DType::F32)
            {
                return Err(format!(
                    "input {input} of {:?}, not {dims:?}",
                    value.ty.dims
                ));
            }
        }
        Ok(plan)
    }
}

impl Plan {
    fn output_dims(&self) -> Vec<usize> {
        let d = self.reversed.len();
        match self.batch_first {
            true => vec![self.batch, self.steps, d, self.hidden],
            false => vec![self.steps, d, self.batch, self.hidden],
        }
    }

    fn state_dims(&self) -> Vec<usize> {
        let d = self.reversed.len();
        match self.batch_first {
            true => vec![self.batch, d, self.hidden],
            false => vec![d, self.batch, self.hidden],
        }
    }

    /// A place by step and item, or by direction and item.
    fn order<T>(&self, first: T, item: T) -> [T; 2] {
        if self.batch_first {
            [item, first]
        } else {
            [first, item]
        }
    }
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// Weights and states of an evaluation.
struct Values<'a> {
    w: &'a [f32],
    r: &'a [f32],
    b: Option<&'a [f32]>,
    p: Option<&'a [f32]>,
}

impl Plan {
    /// One step of one direction.
    fn step(&self, v: &Values<'_>, d: usize, x: &[f32], h: &mut [f64], c: &mut [f64]) {
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

impl Operator for Recurrent {
    fn infer(&self, node: &NodeView<'_>) -> Result<Vec<Type>, String> {
        let plan = self.of_node(node)?;
        let first = node.ty(0)?.dims[0];
        let batched = node.ty(0)?.has_batch();
        let ty = |dims: Vec<usize>| {
            let mut dims = fixed(&dims);
            if batched {
                dims[0] = first;
            }
            Type::new(DType::F32, dims)
        };
        let state = ty(plan.state_dims());
        let mut all = vec![ty(plan.output_dims()), state.clone()];
        all.extend((self.0 == Cell::Lstm).then_some(state));
        Ok(all)
    }

    fn eval(&self, call: &Call<'_>) -> Result<Vec<Tensor>, String> {
        let (x, w, r) = (call.input(0)?, call.input(1)?, call.input(2)?);
        let plan = self.plan(&call.attrs(), x.dims(), w.dims(), r.dims())?;
        let floats = |i: usize| call.optional(i).map(Tensor::as_f32).transpose();
        let (xs, h0, c0) = (x.as_f32()?, floats(5)?, floats(6)?);
        let values = Values {
            w: w.as_f32()?,
            r: r.as_f32()?,
            b: floats(3)?,
            p: floats(7)?,
        };
        let (y_dims, s_dims, n) = (plan.output_dims(), plan.state_dims(), plan.hidden);
        let mut y = vec![0.0; y_dims.iter().product()];
        let (mut y_h, mut y_c) = (
            vec![0.0; s_dims.iter().product()],
            vec![0.0; s_dims.iter().product()],
        );
        for (d, reversed) in plan.reversed.iter().enumerate() {
            for item in 0..plan.batch {
                let state = ravel(&[&plan.order(d, item)[..], &[0]].concat(), &s_dims);
                let start = |given: Option<&[f32]>| -> Vec<f64> {
                    (0..n)
                        .map(|i| given.map_or(0.0, |g| f64::from(g[state + i])))
                        .collect()
                };
                let (mut h, mut c) = (start(h0), start(c0));
                for step in 0..plan.steps {
                    let t = if *reversed {
                        plan.steps - 1 - step
                    } else {
                        step
                    };
                    let at = ravel(&[&plan.order(t, item)[..], &[0]].concat(), x.dims());
                    plan.step(&values, d, &xs[at..at + plan.inputs], &mut h, &mut c);
                    let to = match plan.batch_first {
                        true => [item, t, d, 0],
                        false => [t, d, item, 0],
                    };
                    let to = ravel(&to, &y_dims);
                    (0..n).for_each(|i| y[to + i] = h[i] as f32);
                }
                (0..n).for_each(|i| (y_h[state + i], y_c[state + i]) = (h[i] as f32, c[i] as f32));
            }
        }
        let mut all = vec![Tensor::f32(&y_dims, y)?, Tensor::f32(&s_dims, y_h)?];
        if self.0 == Cell::Lstm {
            all.push(Tensor::f32(&s_dims, y_c)?);
        }
        Ok(all)
    }

    fn lower(&self, cx: &mut LowerCx<'_>) -> Result<(), String> {
        let node = cx.view();
        let plan = self.of_node(&node)?;
        let mut read = |i: usize| -> Result<Option<Ref>, String> {
            let there = node.optional(i).is_some();
            there.then(|| cx.read(i, Layout::Plain)).transpose()
        };
        let missing = "an input is missing";
        let (x, w, r) = (
            read(0)?.ok_or(missing)?,
            read(1)?.ok_or(missing)?,
            read(2)?.ok_or(missing)?,
        );
        let [b, h0, c0, p] = [read(3)?, read(5)?, read(6)?, read(7)?];
        let (n, g) = (plan.hidden, self.0.gates());
        let state = [cx.temporary(4 * n), cx.temporary(4 * n)];
        let sums = cx.temporary(4 * 2 * g * n);
        let outputs = [0, 1, 2].map(|i| cx.write_output(i));
        let mut program = Scalar::new("recurrent");
        for (d, reversed) in plan.reversed.iter().enumerate() {
            let emitter = Emission {
                plan: &plan,
                d,
                x,
                w,
                r,
                b,
                p,
                state,
                sums,
            };
            program.each(plan.batch, |s, item| {
                emitter.sequence(s, &item, *reversed, [h0, c0], outputs);
            });
        }
        let macs = plan.steps * plan.batch * plan.reversed.len() * g * n * (plan.inputs + n);
        cx.push(program, macs as u64)
    }

    fn folds(&self) -> bool {
        false
    }
}

/// One direction of a lowering.
struct Emission<'a> {
    plan: &'a Plan,
    d: usize,
    x: Ref,
    w: Ref,
    r: Ref,
    b: Option<Ref>,
    p: Option<Ref>,
    /// Hidden state and cell state of the item.
    state: [Ref; 2],
    /// What the gates get from the input, then what they get from the state, by row.
    sums: Ref,
}

const F: DType = DType::F32;

impl Emission<'_> {
    fn sequence(
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
