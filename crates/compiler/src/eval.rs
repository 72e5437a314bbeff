//! Evaluates an imported graph on the host, operator by operator.

use crate::error::{CompileError, Refusal};
use crate::graph::{Graph, Node, Part, Work};
use crate::ops::Call;
use crate::reference::{self, axis_of};
use crate::tensor::{Data, Tensor};
use crate::typed::control::{MAX_TURNS, ScanPlan};
use sandpiper_core::tensor::{Dim, TensorSpec};
use std::collections::BTreeMap;

/// Evaluates a graph. The batch is whatever the inputs agree on.
pub(crate) fn evaluate(
    graph: &Graph,
    inputs: &BTreeMap<String, Tensor>,
) -> Result<BTreeMap<String, Tensor>, CompileError> {
    let mut values: Vec<Option<Tensor>> = vec![None; graph.values];
    let mut batch = None;
    for (spec, value) in &graph.inputs {
        let bad = |why: String| CompileError::Input {
            name: spec.name.clone(),
            why,
        };
        let tensor = inputs
            .get(&spec.name)
            .ok_or_else(|| bad("it is missing".into()))?;
        check(spec, tensor, &mut batch).map_err(bad)?;
        values[*value] = Some(tensor.clone());
    }
    if let Some(name) = inputs
        .keys()
        .find(|n| graph.inputs.iter().all(|(s, _)| s.name != **n))
    {
        let known: Vec<_> = graph.inputs.iter().map(|(s, _)| s.name.as_str()).collect();
        let why = format!("the model has no such input; it has: {}", known.join(", "));
        return Err(CompileError::Input {
            name: name.clone(),
            why,
        });
    }
    let last_use = last_uses(graph);
    for (index, node) in graph.nodes.iter().enumerate() {
        step(graph, node, &mut values)?;
        // What nobody reads any more is dropped, so that deep graphs stay small.
        for value in read(node).filter(|v| last_use[*v] == Some(index)) {
            values[value] = None;
        }
    }
    let mut outputs = BTreeMap::new();
    for (name, value) in &graph.outputs {
        let found = values[*value]
            .clone()
            .or_else(|| graph.constants.get(value).cloned());
        let missing = || CompileError::NotOnnx(format!("output `{name}` was not computed"));
        outputs.insert(name.clone(), found.ok_or_else(missing)?);
    }
    Ok(outputs)
}

/// Values of the graph and of all parts of it.
type Values = [Option<Tensor>];

/// Evaluates a node and puts its results in place.
fn step(graph: &Graph, node: &Node, values: &mut Values) -> Result<(), CompileError> {
    for (slot, result) in node.outputs.iter().zip(run(graph, node, values)?) {
        if let Some(slot) = slot {
            values[*slot] = Some(result);
        }
    }
    Ok(())
}

fn refused(node: &Node, why: String) -> CompileError {
    let (node, operator) = (node.name.clone(), node.operator.clone());
    CompileError::Unsupported(vec![Refusal {
        node,
        operator,
        why,
    }])
}

/// A value that is there.
fn value(graph: &Graph, values: &Values, index: usize) -> Option<Tensor> {
    values[index]
        .clone()
        .or_else(|| graph.constants.get(&index).cloned())
}

fn run(graph: &Graph, node: &Node, values: &mut Values) -> Result<Vec<Tensor>, CompileError> {
    let found = |v: &usize| values[*v].as_ref().or_else(|| graph.constants.get(v));
    let inputs: Vec<_> = node
        .inputs
        .iter()
        .map(|i| i.as_ref().and_then(found))
        .collect();
    if let Work::Operator(op) = node.work {
        let call = Call {
            proto: &node.proto,
            opset: graph.opset,
            inputs: &inputs,
        };
        return op.eval(&call).map_err(|why| refused(node, why));
    }
    let given: Vec<Option<Tensor>> = inputs.into_iter().map(Option::<&Tensor>::cloned).collect();
    match &node.work {
        Work::Operator(_) => Ok(Vec::new()),
        Work::If(then, other) => {
            let condition = truth(given.first()).map_err(|why| refused(node, why))?;
            part(
                graph,
                node,
                if condition { then } else { other },
                Vec::new(),
                values,
            )
        }
        Work::Loop(body) => turns(graph, node, body, &given, values),
        Work::Scan(body, plan) => slices(graph, node, (body, plan), &given, values),
    }
}

fn truth(value: Option<&Option<Tensor>>) -> Result<bool, String> {
    let value = value
        .and_then(Option::as_ref)
        .ok_or("a condition is missing")?;
    let first = value.to_i64()?.first().copied();
    Ok(first.ok_or("a condition is empty")? != 0)
}

/// Runs a part with values for its inputs.
fn part(
    graph: &Graph,
    node: &Node,
    part: &Part,
    bound: Vec<Tensor>,
    values: &mut Values,
) -> Result<Vec<Tensor>, CompileError> {
    for (slot, tensor) in part.inputs.iter().zip(bound) {
        values[*slot] = Some(tensor);
    }
    for inner in &part.nodes {
        step(graph, inner, values)?;
    }
    let missing = || refused(node, "a result was not computed".into());
    let outputs = part
        .outputs
        .iter()
        .map(|v| value(graph, values, *v).ok_or_else(missing));
    outputs.collect()
}

fn turns(
    graph: &Graph,
    node: &Node,
    body: &Part,
    given: &[Option<Tensor>],
    values: &mut Values,
) -> Result<Vec<Tensor>, CompileError> {
    let bad = |why: String| refused(node, why);
    let single = |t: &Tensor| Ok(t.to_i64()?.first().copied().unwrap_or(0));
    let count = given.first().and_then(Option::as_ref).map(single);
    let count = count.transpose().map_err(bad)?.unwrap_or(i64::MAX);
    let mut goes_on = match given.get(1) {
        Some(Some(_)) => truth(given.get(1)).map_err(bad)?,
        _ => true,
    };
    let mut carried: Vec<Tensor> = given.iter().skip(2).flatten().cloned().collect();
    let n = carried.len();
    let mut rows = vec![Vec::new(); body.outputs.len().saturating_sub(n + 1)];
    let mut turn = 0;
    while goes_on && turn < count {
        if turn >= MAX_TURNS as i64 {
            return Err(bad(format!("it turns more than {MAX_TURNS} times")));
        }
        let scalar = |data: Data| Tensor::new(Vec::new(), data).map_err(bad);
        let mut bound = vec![scalar(Data::I64(vec![turn]))?, scalar(Data::Bool(vec![1]))?];
        bound.append(&mut carried);
        let mut outputs = part(graph, node, body, bound, values)?.into_iter();
        goes_on = truth(Some(&outputs.next())).map_err(bad)?;
        carried = outputs.by_ref().take(n).collect();
        rows.iter_mut().zip(outputs).for_each(|(r, v)| r.push(v));
        turn += 1;
    }
    let joined = rows.iter().map(|rows| stacked(rows, 0).map_err(bad));
    let joined: Vec<Tensor> = joined.collect::<Result<_, _>>()?;
    Ok(carried.into_iter().chain(joined).collect())
}

fn slices(
    graph: &Graph,
    node: &Node,
    (body, plan): (&Part, &ScanPlan),
    given: &[Option<Tensor>],
    values: &mut Values,
) -> Result<Vec<Tensor>, CompileError> {
    let bad = |why: String| refused(node, why);
    let given: Vec<Tensor> = given.iter().flatten().cloned().collect();
    let (states, whole) = given.split_at(plan.states.min(given.len()));
    let size = |t: &Tensor, axis: i64| axis_of(axis, t.dims().len()).map(|a| t.dims()[a]);
    let mut steps = 0;
    for (tensor, (axis, _)) in whole.iter().zip(&plan.inputs) {
        steps = size(tensor, *axis).map_err(bad)?;
    }
    let (mut states, mut rows) = (states.to_vec(), vec![Vec::new(); plan.outputs.len()]);
    for turn in 0..steps {
        let mut bound = states;
        for (tensor, (axis, back)) in whole.iter().zip(&plan.inputs) {
            let at = if *back { steps - 1 - turn } else { turn };
            bound.push(slice(tensor, *axis, at).map_err(bad)?);
        }
        let mut outputs = part(graph, node, body, bound, values)?.into_iter();
        states = outputs.by_ref().take(plan.states).collect();
        rows.iter_mut().zip(outputs).for_each(|(r, v)| r.push(v));
    }
    let mut all = states;
    for (mut rows, (axis, back)) in rows.into_iter().zip(&plan.outputs) {
        if *back {
            rows.reverse();
        }
        all.push(stacked(&rows, *axis).map_err(bad)?);
    }
    Ok(all)
}

/// What lies at one place of an axis, which goes.
fn slice(tensor: &Tensor, axis: i64, at: usize) -> Result<Tensor, String> {
    let axis = axis_of(axis, tensor.dims().len())?;
    let (size, inner) = (
        tensor.dims()[axis],
        tensor.dims()[axis + 1..].iter().product(),
    );
    let mut dims = tensor.dims().to_vec();
    dims.remove(axis);
    let inner: usize = inner;
    tensor.gathered(dims, |i| (i / inner * size + at) * inner + i % inner)
}

/// Tensors of the same shape along a new axis.
fn stacked(rows: &[Tensor], axis: i64) -> Result<Tensor, String> {
    let rank = rows.first().ok_or("a result is empty")?.dims().len();
    let axis = axis_of(axis, rank + 1)?;
    let parts: Result<Vec<Tensor>, String> = rows
        .iter()
        .map(|row| {
            let mut dims = row.dims().to_vec();
            dims.insert(axis, 1);
            row.reshaped(dims)
        })
        .collect();
    let parts = parts?;
    let parts: Vec<Option<&Tensor>> = parts.iter().map(Some).collect();
    let joined = reference::concat::along(axis as i64)?(&parts)?;
    joined
        .into_iter()
        .next()
        .ok_or_else(|| "nothing was joined".into())
}

/// What a node and the parts of it read.
fn read(node: &Node) -> impl Iterator<Item = usize> {
    let inputs = node.inputs.iter().flatten();
    inputs.chain(&node.captured).copied()
}

/// The last node that reads each value; outputs are never dropped.
fn last_uses(graph: &Graph) -> Vec<Option<usize>> {
    let mut last = vec![None; graph.values];
    for (index, node) in graph.nodes.iter().enumerate() {
        read(node).for_each(|v| last[v] = Some(index));
    }
    graph.outputs.iter().for_each(|(_, v)| last[*v] = None);
    last
}

fn check(spec: &TensorSpec, tensor: &Tensor, batch: &mut Option<usize>) -> Result<(), String> {
    if tensor.dtype() != spec.dtype {
        return Err(format!(
            "{} is expected, not {}",
            spec.dtype,
            tensor.dtype()
        ));
    }
    let wanted = || {
        let dims = spec.dims.iter().map(|d| match d {
            Dim::Batch => "N".to_owned(),
            Dim::Fixed(n) => n.to_string(),
        });
        dims.collect::<Vec<_>>().join("x")
    };
    let fits = tensor.dims().len() == spec.dims.len()
        && spec
            .dims
            .iter()
            .zip(tensor.dims())
            .all(|(want, have)| match want {
                Dim::Fixed(n) => *n as usize == *have,
                Dim::Batch => *batch.get_or_insert(*have) == *have,
            });
    if fits {
        Ok(())
    } else {
        Err(format!("{} is expected, not {:?}", wanted(), tensor.dims()))
    }
}
