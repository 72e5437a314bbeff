//! Rewriting: what can be known is computed, what belongs together becomes one node.

mod activation;
mod affine;
mod fold;
mod integers;

use crate::error::CompileError;
use crate::typed::Graph;

/// Rewrites a graph as it was imported into what is lowered.
pub(crate) fn rewrite(graph: &mut Graph) -> Result<(), CompileError> {
    // Integers first: they need the pairs of quantise and dequantise as they are in the file.
    integers::rewrite(graph);
    graph.drop_unread();
    fold::dequantized(graph)?;
    affine::rewrite(graph);
    activation::rewrite(graph);
    graph.drop_unread();
    Ok(())
}
