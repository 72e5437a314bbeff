//! The order of nodes.

use crate::error::CompileError;
use crate::onnx::GraphProto;
use std::collections::{BTreeMap, BTreeSet};

/// An order in which every node comes after those that it reads from. Files have to keep one, but
/// not all do.
pub(super) fn order(proto: &GraphProto) -> Result<Vec<usize>, CompileError> {
    let mut makers: BTreeMap<&str, usize> = BTreeMap::new();
    let mut taken: BTreeSet<&str> = proto.initializer.iter().map(|t| t.name.as_str()).collect();
    if taken.len() != proto.initializer.len() {
        return Err(CompileError::NotOnnx(
            "two initialisers have one name".into(),
        ));
    }
    taken.extend(proto.input.iter().map(|i| i.name.as_str()));
    for (index, node) in proto.node.iter().enumerate() {
        for output in node.output.iter().filter(|o| !o.is_empty()) {
            if taken.contains(output.as_str()) || makers.insert(output, index).is_some() {
                return Err(CompileError::NotOnnx(format!("`{output}` is made twice")));
            }
        }
    }
    let mut waiting: Vec<usize> = Vec::with_capacity(proto.node.len());
    let mut readers: Vec<Vec<usize>> = vec![Vec::new(); proto.node.len()];
    for (index, node) in proto.node.iter().enumerate() {
        let from: BTreeSet<usize> = node
            .input
            .iter()
            .filter_map(|i| makers.get(i.as_str()).copied())
            .collect();
        waiting.push(from.len());
        from.into_iter()
            .for_each(|maker| readers[maker].push(index));
    }
    let mut ready: BTreeSet<usize> = (0..waiting.len()).filter(|i| waiting[*i] == 0).collect();
    let mut order = Vec::with_capacity(waiting.len());
    while let Some(index) = ready.pop_first() {
        order.push(index);
        for reader in &readers[index] {
            waiting[*reader] -= 1;
            if waiting[*reader] == 0 {
                ready.insert(*reader);
            }
        }
    }
    if order.len() == waiting.len() {
        Ok(order)
    } else {
        Err(CompileError::NotOnnx("its nodes form a cycle".into()))
    }
}
