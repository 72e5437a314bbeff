//! Relu and Clip become limits of what comes before them.

use crate::ops::{RELU_LIMITS, clip_limits};
use crate::typed::{Clamp, Graph, Node};

/// The limits that a node stands for, if it is nothing else.
pub(crate) fn limits(graph: &Graph, node: &Node) -> Option<Clamp> {
    if node.is("Relu") {
        return Some(RELU_LIMITS.then(node.clamp));
    }
    let found = node
        .is("Clip")
        .then(|| clip_limits(&graph.view(node)).ok())
        .flatten();
    found.map(|c| c.then(node.clamp))
}

/// Fuses limits into nodes that apply them and that nobody else reads.
pub(crate) fn rewrite(graph: &mut Graph) {
    let uses = graph.uses();
    for index in 0..graph.nodes.len() {
        let node = &graph.nodes[index];
        let Some(clamp) = limits(graph, node) else {
            continue;
        };
        let Some(source) = node.inputs.first().copied().flatten() else {
            continue;
        };
        let Some(maker) = uses.maker[source] else {
            continue;
        };
        let before = &graph.nodes[maker];
        if uses.readers[source] != 1 || !before.op.clamps() {
            continue;
        }
        let mut fused = before.clone();
        fused.outputs = node.outputs.clone();
        fused.clamp = before.clamp.then(clamp);
        fused.fused.push(node.name.clone());
        graph.nodes[index] = fused;
    }
}
