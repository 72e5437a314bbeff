//! Constants that are stored quantised but computed with in floats.

use crate::error::{CompileError, Refusal};
use crate::ops::Call;
use crate::typed::{Graph, Node};
use std::rc::Rc;

/// Dequantises constants that still are wanted in floats.
pub(crate) fn dequantized(graph: &mut Graph) -> Result<(), CompileError> {
    let nodes = std::mem::take(&mut graph.nodes);
    for node in nodes {
        let known = node
            .inputs
            .iter()
            .flatten()
            .all(|v| graph.values[*v].constant.is_some());
        if !node.is("DequantizeLinear") || !known {
            graph.nodes.push(node);
            continue;
        }
        let result = evaluate(graph, &node).map_err(|why| {
            let (node, operator) = (node.name.clone(), node.operator.clone());
            CompileError::Unsupported(vec![Refusal {
                node,
                operator,
                why,
            }])
        })?;
        for (value, tensor) in node.outputs.iter().flatten().zip(result) {
            graph.values[*value].constant = Some(Rc::new(tensor));
        }
    }
    Ok(())
}

fn evaluate(graph: &Graph, node: &Node) -> Result<Vec<crate::tensor::Tensor>, String> {
    let inputs: Vec<_> = node
        .inputs
        .iter()
        .map(|i| graph.known(*i).map(Rc::as_ref))
        .collect();
    node.op.eval(&Call {
        proto: &node.proto,
        opset: graph.opset,
        inputs: &inputs,
    })
}
