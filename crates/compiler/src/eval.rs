//! Evaluates an imported graph on the host, operator by operator.

use crate::error::{CompileError, Refusal};
use crate::graph::{Graph, Node};
use crate::ops::Call;
use crate::tensor::Tensor;
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
        for (slot, result) in node.outputs.iter().zip(run(graph, node, &values)?) {
            if let Some(slot) = slot {
                values[*slot] = Some(result);
            }
        }
        // What nobody reads any more is dropped, so that deep graphs stay small.
        for value in node
            .inputs
            .iter()
            .flatten()
            .filter(|v| last_use[**v] == Some(index))
        {
            values[*value] = None;
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

fn run(graph: &Graph, node: &Node, values: &[Option<Tensor>]) -> Result<Vec<Tensor>, CompileError> {
    let value = |v: &usize| values[*v].as_ref().or_else(|| graph.constants.get(v));
    let inputs: Vec<_> = node
        .inputs
        .iter()
        .map(|i| i.as_ref().and_then(value))
        .collect();
    let call = Call {
        proto: &node.proto,
        opset: graph.opset,
        inputs: &inputs,
    };
    node.op.eval(&call).map_err(|why| {
        let (node, operator) = (node.name.clone(), node.operator.clone());
        CompileError::Unsupported(vec![Refusal {
            node,
            operator,
            why,
        }])
    })
}

/// The last node that reads each value; outputs are never dropped.
fn last_uses(graph: &Graph) -> Vec<Option<usize>> {
    let mut last = vec![None; graph.values];
    for (index, node) in graph.nodes.iter().enumerate() {
        node.inputs
            .iter()
            .flatten()
            .for_each(|v| last[*v] = Some(index));
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
