//! Editing a graph while it is rewritten.

use super::{Clamp, Graph, Node, NodeView, Type, Value, ValueId, fixed};
use crate::onnx::{AttributeProto, NodeProto};
use crate::ops;
use crate::tensor::Tensor;
use std::rc::Rc;

/// Who makes and who reads each value.
pub(crate) struct Uses {
    /// The node that makes a value.
    pub(crate) maker: Vec<Option<usize>>,
    /// How many nodes and graph outputs read a value.
    pub(crate) readers: Vec<usize>,
}

impl Graph {
    /// Who makes and who reads each value now.
    pub(crate) fn uses(&self) -> Uses {
        let mut uses = Uses {
            maker: vec![None; self.values.len()],
            readers: vec![0; self.values.len()],
        };
        for (index, node) in self.nodes.iter().enumerate() {
            node.outputs
                .iter()
                .flatten()
                .for_each(|v| uses.maker[*v] = Some(index));
            node.inputs
                .iter()
                .flatten()
                .for_each(|v| uses.readers[*v] += 1);
        }
        self.outputs.iter().for_each(|v| uses.readers[*v] += 1);
        uses
    }

    /// A node as its operator sees it.
    pub(crate) fn view<'a>(&'a self, node: &'a Node) -> NodeView<'a> {
        let value = |v: &Option<ValueId>| v.map(|v| &self.values[v]);
        NodeView {
            proto: &node.proto,
            inputs: node.inputs.iter().map(value).collect(),
            opset: self.opset,
        }
    }

    /// Adds a constant.
    pub(crate) fn constant(&mut self, name: &str, tensor: Tensor) -> ValueId {
        let ty = Type::new(tensor.dtype(), fixed(tensor.dims()));
        self.values.push(Value {
            name: name.to_owned(),
            ty,
            constant: Some(Rc::new(tensor)),
            frozen: true,
        });
        self.values.len() - 1
    }

    /// The constant that a value is.
    pub(crate) fn known(&self, value: Option<ValueId>) -> Option<&Rc<Tensor>> {
        value.and_then(|v| self.values[v].constant.as_ref())
    }

    /// Drops nodes whose results nobody reads.
    pub(crate) fn drop_unread(&mut self) {
        let mut wanted = vec![false; self.values.len()];
        self.outputs.iter().for_each(|v| wanted[*v] = true);
        let mut kept = Vec::with_capacity(self.nodes.len());
        for node in self.nodes.drain(..).rev() {
            if node.outputs.iter().flatten().any(|v| wanted[*v]) {
                node.inputs.iter().flatten().for_each(|v| wanted[*v] = true);
                kept.push(node);
            }
        }
        kept.reverse();
        self.nodes = kept;
    }
}

/// A node that a rewrite makes in place of `old` (which gives the name) and those it absorbs.
/// `None` if the operator is not in the registry.
pub(crate) fn replacement(
    old: &Node,
    (domain, op_type): (&str, &str),
    attribute: Vec<AttributeProto>,
    inputs: Vec<Option<ValueId>>,
    outputs: Vec<Option<ValueId>>,
) -> Option<Node> {
    let operator = if domain.is_empty() {
        op_type.to_owned()
    } else {
        format!("{domain}.{op_type}")
    };
    let proto = NodeProto {
        name: old.name.clone(),
        op_type: op_type.to_owned(),
        domain: domain.to_owned(),
        attribute,
        ..NodeProto::default()
    };
    Some(Node {
        name: old.name.clone(),
        operator,
        proto: Rc::new(proto),
        op: ops::find(domain, op_type).ok()?,
        inputs,
        outputs,
        clamp: Clamp::NONE,
        fused: old.fused.clone(),
    })
}
