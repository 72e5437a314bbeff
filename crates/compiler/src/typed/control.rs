//! If, Loop, Scan: graphs within the graph are imported in place of the node.
//!
//! A condition that is known chooses its branch; else both are computed, which has no effect but time,
//! and their results are chosen from. A loop is unrolled. While a loop's condition is known only at run
//! time, turns after it has failed leave everything as it was.

use super::import::Importer;
use super::order::order;
use super::{Type, ValueId, fixed};
use crate::error::CompileError;
use crate::onnx::{AttributeProto, Attrs, GraphProto, NodeProto};
use crate::reference::axis_of;
use crate::tensor::{Data, Tensor};
use sandpiper_core::tensor::{DType, Dim};

/// Most turns of a loop.
pub(crate) const MAX_TURNS: usize = 1024;

/// Operators that hold graphs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Then or else.
    If,
    /// A number of turns, while a condition holds.
    Loop,
    /// A turn for each slice of its inputs.
    Scan,
}

/// The kind of a node that holds graphs.
pub(crate) fn kind(proto: &NodeProto) -> Option<Kind> {
    match (proto.domain.as_str(), proto.op_type.as_str()) {
        ("" | "ai.onnx", "If") => Some(Kind::If),
        ("" | "ai.onnx", "Loop") => Some(Kind::Loop),
        ("" | "ai.onnx", "Scan") => Some(Kind::Scan),
        _ => None,
    }
}

/// Outputs of a node; in words, why it is refused; `None` if something before it was.
type Made = Result<Option<Vec<Option<ValueId>>>, String>;

/// How the inputs and outputs of a Scan are cut and joined.
pub(crate) struct ScanPlan {
    /// Number of states; the other inputs are cut.
    pub(crate) states: usize,
    /// Axis and direction of each input that is cut.
    pub(crate) inputs: Vec<(i64, bool)>,
    /// Axis and direction of each output that is joined.
    pub(crate) outputs: Vec<(i64, bool)>,
}

impl ScanPlan {
    /// Of a node with its body.
    pub(crate) fn of(proto: &NodeProto, body: &GraphProto, opset: i64) -> Result<Self, String> {
        if opset < 9 {
            return Err("Scan before opset 9 is not supported; convert the model".into());
        }
        let attrs = Attrs::of(proto);
        let cut = usize::try_from(attrs.int("num_scan_inputs", 0)).unwrap_or(0);
        let states = proto.input.len().checked_sub(cut).filter(|_| cut > 0);
        let states = states.ok_or("the number of scan inputs is wrong")?;
        let joined = body.output.len().checked_sub(states);
        let joined = joined.ok_or("its body has too few outputs")?;
        if body.input.len() != proto.input.len() {
            return Err("its body has another number of inputs".into());
        }
        let list = |what: &str, count: usize| -> Result<Vec<(i64, bool)>, String> {
            let all = |name: &str| attrs.ints(&format!("scan_{what}_{name}"));
            let axes = all("axes").unwrap_or_else(|| vec![0; count]);
            let back = all("directions").unwrap_or_else(|| vec![0; count]);
            if axes.len() != count || back.len() != count {
                return Err(format!("axes or directions of {count} {what}s are wrong"));
            }
            Ok(axes
                .into_iter()
                .zip(back.into_iter().map(|b| b != 0))
                .collect())
        };
        Ok(Self {
            states,
            inputs: list("input", cut)?,
            outputs: list("output", joined)?,
        })
    }
}

impl<'a> Importer<'a> {
    /// Imports a node that holds graphs.
    pub(super) fn control(
        &mut self,
        kind: Kind,
        name: &str,
        proto: &'a NodeProto,
        inputs: &[Option<ValueId>],
    ) -> Result<Made, CompileError> {
        if inputs.iter().flatten().any(|v| self.unknown.contains(v)) {
            return Ok(Ok(None));
        }
        match kind {
            Kind::If => self.branches(name, proto, inputs),
            Kind::Loop => self.turns(name, proto, inputs),
            Kind::Scan => self.slices(name, proto, inputs),
        }
    }

    /// Imports a graph with values for its inputs; gives its outputs.
    fn inlined(
        &mut self,
        graph: &'a GraphProto,
        place: &str,
        bound: &[ValueId],
    ) -> Result<Vec<ValueId>, CompileError> {
        let names = self.names.clone();
        let prefix = std::mem::replace(&mut self.prefix, format!("{place}/"));
        self.constants(graph)?;
        for (input, value) in graph.input.iter().zip(bound) {
            self.names.insert(&input.name, *value);
        }
        for index in order(graph)? {
            self.node(index, &graph.node[index])?;
        }
        let found = |name: &String| self.names.get(name.as_str()).copied();
        let outputs = graph.output.iter().map(|o| {
            let missing = || CompileError::NotOnnx(format!("no node makes `{}`", o.name));
            found(&o.name).ok_or_else(missing)
        });
        let outputs = outputs.collect();
        (self.names, self.prefix) = (names, prefix);
        outputs
    }

    /// The single truth that a value is, if it is known.
    fn truth(&self, value: ValueId) -> Option<bool> {
        let known = self.graph.values[value].constant.as_ref()?;
        known.to_i64().ok()?.first().map(|v| *v != 0)
    }

    fn known(&mut self, name: &str, dims: &[usize], data: Data) -> Result<ValueId, String> {
        let tensor = Tensor::new(dims.to_vec(), data)?;
        let ty = Type::new(tensor.dtype(), fixed(dims));
        Ok(self.value(name, ty, Some(tensor)))
    }

    /// Adds an operator that the file does not have; `None` if an input is unknown.
    fn added(
        &mut self,
        name: &str,
        op_type: &str,
        attribute: Option<(&str, i64)>,
        inputs: &[ValueId],
    ) -> Result<Option<ValueId>, String> {
        let attribute = attribute.map(|(name, i)| AttributeProto {
            name: name.to_owned(),
            i,
            ..AttributeProto::default()
        });
        let proto = NodeProto {
            op_type: op_type.to_owned(),
            output: vec![format!("{name}/{op_type}")],
            attribute: attribute.into_iter().collect(),
            ..NodeProto::default()
        };
        let inputs = inputs.iter().map(|v| Some(*v)).collect();
        let made = self.apply(name, &proto, inputs)?;
        Ok(made.and_then(|m| m.into_iter().next().flatten()))
    }

    /// A condition as a scalar.
    fn condition(&mut self, name: &str, value: ValueId) -> Result<Option<ValueId>, String> {
        let ty = &self.graph.values[value].ty;
        if ty.dtype != DType::Bool || ty.elements() != 1 || ty.has_batch() {
            return Err(format!(
                "a condition of {} {:?}; one truth is expected, the same for the whole batch",
                ty.dtype, ty.dims
            ));
        }
        if ty.dims.is_empty() {
            return Ok(Some(value));
        }
        let shape = self.known(name, &[0], Data::I64(Vec::new()))?;
        self.added(name, "Reshape", None, &[value, shape])
    }

    /// `a` if the condition holds, else `b`, which must be of one type.
    fn chosen(
        &mut self,
        name: &str,
        condition: ValueId,
        [a, b]: [ValueId; 2],
    ) -> Result<Option<ValueId>, String> {
        if a == b {
            return Ok(Some(a));
        }
        if [a, b].iter().any(|v| self.unknown.contains(v)) {
            return Ok(None);
        }
        let [one, other] = [a, b].map(|v| self.graph.values[v].ty.clone());
        if one != other {
            return Err(format!(
                "its condition is known only at run time, and the two results differ: {} {:?} and {} {:?}",
                one.dtype, one.dims, other.dtype, other.dims
            ));
        }
        self.added(name, "Where", None, &[condition, a, b])
    }

    fn branches(
        &mut self,
        name: &str,
        proto: &'a NodeProto,
        inputs: &[Option<ValueId>],
    ) -> Result<Made, CompileError> {
        let attrs = Attrs::of(proto);
        let both = [attrs.graph("then_branch"), attrs.graph("else_branch")];
        let ([Some(then), Some(other)], Some(Some(condition))) = (both, inputs.first()) else {
            return Ok(Err("it has no condition or no branch".into()));
        };
        if let Some(truth) = self.truth(*condition) {
            let (branch, which) = if truth {
                (then, "then")
            } else {
                (other, "else")
            };
            let outputs = self.inlined(branch, &format!("{name}/{which}"), &[])?;
            return Ok(Ok(Some(outputs.into_iter().map(Some).collect())));
        }
        let a = self.inlined(then, &format!("{name}/then"), &[])?;
        let b = self.inlined(other, &format!("{name}/else"), &[])?;
        Ok(self.either(name, *condition, &a, &b))
    }

    fn either(&mut self, name: &str, condition: ValueId, a: &[ValueId], b: &[ValueId]) -> Made {
        let Some(condition) = self.condition(name, condition)? else {
            return Ok(None);
        };
        let mut outputs = Vec::new();
        for (a, b) in a.iter().zip(b) {
            let Some(value) = self.chosen(name, condition, [*a, *b])? else {
                return Ok(None);
            };
            outputs.push(Some(value));
        }
        Ok(Some(outputs))
    }

    fn turns(
        &mut self,
        name: &str,
        proto: &'a NodeProto,
        inputs: &[Option<ValueId>],
    ) -> Result<Made, CompileError> {
        let Some(body) = Attrs::of(proto).graph("body") else {
            return Ok(Err("it has no body".into()));
        };
        let input = |i: usize| inputs.get(i).copied().flatten();
        let mut carried: Vec<ValueId> = inputs.iter().skip(2).flatten().copied().collect();
        let n = carried.len();
        if inputs.len() < 2 || n + 2 != inputs.len() || body.input.len() != n + 2 {
            return Ok(Err("its body does not fit its inputs".into()));
        }
        let Some(joined) = body.output.len().checked_sub(n + 1) else {
            return Ok(Err("its body has too few outputs".into()));
        };
        let most = match input(0) {
            None => usize::MAX,
            Some(count) => {
                let known = self.graph.values[count].constant.as_ref();
                match known.and_then(|t| t.to_i64().ok()?.first().copied()) {
                    Some(count) => usize::try_from(count).unwrap_or(0),
                    None => {
                        return Ok(Err(
                            "the number of turns must be a constant: give it a constant \
                                       bound, and let the condition end it earlier"
                                .into(),
                        ));
                    }
                }
            }
        };
        let mut rows: Vec<Vec<ValueId>> = vec![Vec::new(); joined];
        // A condition that is known only at run time, once there is one.
        let mut active = None;
        if let Some(condition) = input(1) {
            match self.truth(condition) {
                Some(true) => {}
                Some(false) => return Ok(self.looped(name, carried, rows)),
                None => match self.condition(name, condition) {
                    Ok(Some(scalar)) => active = Some(scalar),
                    Ok(None) => return Ok(Ok(None)),
                    Err(why) => return Ok(Err(why)),
                },
            }
        }
        for turn in 0..most {
            if active.is_some() && (joined > 0 || most == usize::MAX) {
                return Ok(Err(
                    "how often it turns is known only at run time; a constant bound, and \
                               no output by turn, would make it possible"
                        .into(),
                ));
            }
            if turn >= MAX_TURNS {
                return Ok(Err(format!(
                    "it turns more than {MAX_TURNS} times, which is the most that is unrolled; \
                     an operator over whole tensors, or Scan by parts, would do it"
                )));
            }
            let made = self.turn(name, body, turn, (&mut carried, &mut rows, &mut active))?;
            match made {
                Ok(Some(true)) => {}
                Ok(Some(false)) => break,
                Ok(None) => return Ok(Ok(None)),
                Err(why) => return Ok(Err(why)),
            }
        }
        Ok(self.looped(name, carried, rows))
    }

    /// One turn of a Loop; gives whether another may follow.
    #[allow(clippy::type_complexity)]
    fn turn(
        &mut self,
        name: &str,
        body: &'a GraphProto,
        turn: usize,
        (carried, rows, active): (&mut Vec<ValueId>, &mut [Vec<ValueId>], &mut Option<ValueId>),
    ) -> Result<Result<Option<bool>, String>, CompileError> {
        let place = format!("{name}/{turn}");
        let constants = (
            self.known(&place, &[], Data::I64(vec![turn as i64])),
            self.known(&place, &[], Data::Bool(vec![1])),
        );
        let (Ok(number), Ok(yes)) = constants else {
            return Ok(Err("a constant cannot be made".into()));
        };
        let bound = [&[number, yes], &carried[..]].concat();
        let outputs = self.inlined(body, &place, &bound)?;
        if outputs.iter().any(|v| self.unknown.contains(v)) {
            return Ok(Ok(None));
        }
        let (new, scans) = outputs[1..].split_at(carried.len());
        rows.iter_mut().zip(scans).for_each(|(r, v)| r.push(*v));
        Ok(self.goes_on(&place, (outputs[0], new), carried, active))
    }

    fn goes_on(
        &mut self,
        place: &str,
        (condition, new): (ValueId, &[ValueId]),
        carried: &mut Vec<ValueId>,
        active: &mut Option<ValueId>,
    ) -> Result<Option<bool>, String> {
        let known = self.truth(condition);
        let Some(before) = *active else {
            *carried = new.to_vec();
            if known.is_none() {
                *active = self.condition(place, condition)?;
                return Ok(active.map(|_| true));
            }
            return Ok(known);
        };
        for (old, new) in carried.iter_mut().zip(new) {
            match self.chosen(place, before, [*new, *old])? {
                Some(value) => *old = value,
                None => return Ok(None),
            }
        }
        if let Some(known) = known {
            return Ok(Some(known));
        }
        let Some(condition) = self.condition(place, condition)? else {
            return Ok(None);
        };
        *active = self.added(place, "And", None, &[before, condition])?;
        Ok(active.map(|_| true))
    }

    /// The outputs of a loop: what was carried, and the rows of each other output joined.
    fn looped(&mut self, name: &str, carried: Vec<ValueId>, rows: Vec<Vec<ValueId>>) -> Made {
        let mut outputs: Vec<Option<ValueId>> = carried.into_iter().map(Some).collect();
        for rows in rows {
            let Some(value) = self.joined(name, &rows, 0)? else {
                return Ok(None);
            };
            outputs.push(Some(value));
        }
        Ok(Some(outputs))
    }

    /// Values as slices of one along a new axis.
    fn joined(
        &mut self,
        name: &str,
        rows: &[ValueId],
        axis: i64,
    ) -> Result<Option<ValueId>, String> {
        let first = *rows.first().ok_or("its result is empty")?;
        let rank = self.graph.values[first].ty.dims.len();
        let axis = axis_of(axis, rank + 1)?;
        let mut parts = Vec::new();
        for row in rows {
            let ty = &self.graph.values[*row].ty;
            if ty.has_batch() {
                return Err(crate::ops::MIXES.into());
            }
            let mut dims: Vec<i64> = ty.item().iter().map(|d| *d as i64).collect();
            dims.insert(axis, 1);
            let shape = self.known(name, &[dims.len()], Data::I64(dims))?;
            match self.added(name, "Reshape", None, &[*row, shape])? {
                Some(part) => parts.push(part),
                None => return Ok(None),
            }
        }
        self.added(name, "Concat", Some(("axis", axis as i64)), &parts)
    }

    fn slices(
        &mut self,
        name: &str,
        proto: &'a NodeProto,
        inputs: &[Option<ValueId>],
    ) -> Result<Made, CompileError> {
        let Some(body) = Attrs::of(proto).graph("body") else {
            return Ok(Err("it has no body".into()));
        };
        let plan = match ScanPlan::of(proto, body, self.graph.opset) {
            Ok(plan) => plan,
            Err(why) => return Ok(Err(why)),
        };
        let given: Option<Vec<ValueId>> = inputs.iter().copied().collect();
        let Some(given) = given else {
            return Ok(Err("an input is missing".into()));
        };
        let (states, whole) = given.split_at(plan.states);
        let (mut states, mut steps) = (states.to_vec(), None);
        for (value, (axis, _)) in whole.iter().zip(&plan.inputs) {
            let dims = &self.graph.values[*value].ty.dims;
            let size = axis_of(*axis, dims.len()).map(|a| dims[a]);
            match size {
                Ok(Dim::Fixed(n)) if *steps.get_or_insert(n as usize) == n as usize => {}
                Ok(Dim::Batch) => return Ok(Err(crate::ops::MIXES.into())),
                _ => return Ok(Err("its inputs have different numbers of slices".into())),
            }
        }
        let steps = steps.unwrap_or(0);
        if steps > MAX_TURNS {
            return Ok(Err(format!(
                "it has {steps} slices, at most {MAX_TURNS} are unrolled; shorter sequences with the \
                 state carried from one to the next, or the operators LSTM, GRU and RNN, would do it"
            )));
        }
        let mut rows: Vec<Vec<ValueId>> = vec![Vec::new(); plan.outputs.len()];
        for turn in 0..steps {
            let place = format!("{name}/{turn}");
            let mut bound = states.clone();
            for (value, (axis, back)) in whole.iter().zip(&plan.inputs) {
                let at = if *back { steps - 1 - turn } else { turn };
                match self.slice(&place, *value, *axis, at) {
                    Ok(Some(slice)) => bound.push(slice),
                    Ok(None) => return Ok(Ok(None)),
                    Err(why) => return Ok(Err(why)),
                }
            }
            let outputs = self.inlined(body, &place, &bound)?;
            if outputs.iter().any(|v| self.unknown.contains(v)) {
                return Ok(Ok(None));
            }
            let (new, scans) = outputs.split_at(plan.states);
            states = new.to_vec();
            rows.iter_mut().zip(scans).for_each(|(r, v)| r.push(*v));
        }
        Ok(self.scanned(name, states, rows, &plan))
    }

    fn slice(
        &mut self,
        place: &str,
        value: ValueId,
        axis: i64,
        at: usize,
    ) -> Result<Option<ValueId>, String> {
        let at = self.known(place, &[], Data::I64(vec![at as i64]))?;
        self.added(place, "Gather", Some(("axis", axis)), &[value, at])
    }

    fn scanned(
        &mut self,
        name: &str,
        states: Vec<ValueId>,
        rows: Vec<Vec<ValueId>>,
        plan: &ScanPlan,
    ) -> Made {
        let mut outputs: Vec<Option<ValueId>> = states.into_iter().map(Some).collect();
        for (mut rows, (axis, back)) in rows.into_iter().zip(&plan.outputs) {
            if *back {
                rows.reverse();
            }
            let Some(value) = self.joined(name, &rows, *axis)? else {
                return Ok(None);
            };
            outputs.push(Some(value));
        }
        Ok(Some(outputs))
    }
}
