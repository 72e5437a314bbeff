//! RNN, GRU, LSTM: a step per element of a sequence, in one or both directions. With constant weights
//! by kernels with vectors, else by a program.
//!
//! `layout` 0 has the sequence first and the batch second, so that the batch must be fixed; `layout` 1
//! has the batch first. Activations are the default ones; an RNN may also have Relu or Sigmoid.

mod emission;
mod evaluation;
mod vectors;

use super::{Call, MIXES, Operator};
use crate::emit::Ref;
use crate::kernels::{Activation, Scalar};
use crate::lower::{Layout, LowerCx};
use crate::onnx::Attrs;
use crate::reference::places::ravel;
use crate::tensor::Tensor;
use crate::typed::{NodeView, Type, fixed};
use emission::Emission;
use evaluation::Values;
use sandpiper_core::tensor::DType;
use vectors::{Places, Weights};

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

/// The weights, if all there are are constants.
fn constants<'a>(node: &NodeView<'a>) -> Result<Option<Weights<'a>>, String> {
    let constant = |i: usize| node.optional(i).is_none_or(|v| v.constant.is_some());
    if ![1, 2, 3, 7].into_iter().all(constant) {
        return Ok(None);
    }
    let floats = |i: usize| node.optional_constant(i)?.map(Tensor::as_f32).transpose();
    Ok(Some(Weights {
        w: node.constant(1)?.as_f32()?,
        r: node.constant(2)?.as_f32()?,
        b: floats(3)?,
        p: floats(7)?,
    }))
}

impl Plan {
    /// Adds the kernels for constant weights.
    fn by_vectors(&self, cx: &mut LowerCx<'_>, weights: &Weights<'_>) -> Result<(), String> {
        let mut start = |i: usize| -> Result<Option<Ref>, String> {
            let there = cx.view().optional(i).is_some();
            there.then(|| cx.read(i, Layout::Plain)).transpose()
        };
        let starts = [start(5)?, start(6)?];
        let places = Places {
            x: cx.read(0, Layout::Plain)?,
            starts,
            outputs: [0, 1, 2].map(|i| cx.write_output(i)),
        };
        (0..self.reversed.len()).try_for_each(|d| self.direction(cx, d, weights, &places))
    }

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
        if let Some(weights) = constants(&node)? {
            return plan.by_vectors(cx, &weights);
        }
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
