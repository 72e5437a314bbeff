//! The graph as it was imported: operators in order, over numbered values.

use crate::error::{CompileError, Refusal};
use crate::onnx::{
    GraphProto, ModelProto, NodeProto, ValueInfoProto, constant_of, decode, dtype_of,
};
use crate::ops::{self, Operator};
use crate::tensor::Tensor;
use sandpiper_core::tensor::{Dim, TensorSpec};
use std::collections::BTreeMap;

/// Most nodes of a graph.
const MAX_NODES: usize = 20_000;
/// Most dimensions of an input or output.
const MAX_RANK: usize = 8;

/// A node: an operator over values.
pub(crate) struct Node {
    /// Name, or its place if it has none.
    pub(crate) name: String,
    /// Operator, for messages.
    pub(crate) operator: String,
    /// What it does.
    pub(crate) op: &'static dyn Operator,
    /// Operator and attributes.
    pub(crate) proto: NodeProto,
    /// Values it reads; `None` is an optional input left out.
    pub(crate) inputs: Vec<Option<usize>>,
    /// Values it writes; `None` is an output nobody wants.
    pub(crate) outputs: Vec<Option<usize>>,
}

/// A graph whose every node reads only values that come before it.
pub(crate) struct Graph {
    /// Constants by value.
    pub(crate) constants: BTreeMap<usize, Tensor>,
    /// Nodes in order.
    pub(crate) nodes: Vec<Node>,
    /// Inputs with their values.
    pub(crate) inputs: Vec<(TensorSpec, usize)>,
    /// Names of the outputs with their values.
    pub(crate) outputs: Vec<(String, usize)>,
    /// Number of values.
    pub(crate) values: usize,
    /// Version of ONNX's own operators.
    pub(crate) opset: i64,
}

/// Names to values while a graph is imported.
#[derive(Default)]
struct Names {
    values: BTreeMap<String, usize>,
    count: usize,
}

impl Names {
    fn define(&mut self, name: &str) -> usize {
        let value = self.count;
        self.values.insert(name.to_owned(), value);
        self.count += 1;
        value
    }
}

impl Graph {
    /// Imports a model. Every node that is not supported is listed, not only the first.
    pub(crate) fn import(bytes: &[u8]) -> Result<Self, CompileError> {
        Self::of(decode(bytes)?)
    }

    /// Imports a decoded model.
    pub(crate) fn of(model: ModelProto) -> Result<Self, CompileError> {
        let opset = model
            .opset_import
            .iter()
            .find(|o| matches!(o.domain.as_str(), "" | "ai.onnx"));
        let opset = opset.map_or(0, |o| o.version);
        let graph = model.graph.unwrap_or_default();
        if graph.node.len() > MAX_NODES {
            return Err(CompileError::TooLarge {
                what: "the number of nodes".into(),
                size: graph.node.len() as u64,
                limit: MAX_NODES as u64,
            });
        }
        let mut names = Names::default();
        let constants = constants(&graph, &mut names)?;
        let mut inputs = Vec::new();
        // Old files list their initialisers among the inputs as well.
        for info in graph
            .input
            .iter()
            .filter(|i| !names.values.contains_key(&i.name))
            .collect::<Vec<_>>()
        {
            inputs.push((spec_of(info)?, names.define(&info.name)));
        }
        let nodes = nodes(&graph, &mut names)?;
        let mut outputs = Vec::new();
        for info in &graph.output {
            let value = names.values.get(&info.name).copied().ok_or_else(|| {
                CompileError::NotOnnx(format!("no node makes the output `{}`", info.name))
            })?;
            outputs.push((info.name.clone(), value));
        }
        Ok(Self {
            constants,
            nodes,
            inputs,
            outputs,
            values: names.count,
            opset,
        })
    }
}

fn constants(
    graph: &GraphProto,
    names: &mut Names,
) -> Result<BTreeMap<usize, Tensor>, CompileError> {
    let mut constants = BTreeMap::new();
    for proto in &graph.initializer {
        let tensor = constant_of(proto)
            .map_err(|why| CompileError::NotOnnx(format!("initialiser `{}`: {why}", proto.name)))?;
        constants.insert(names.define(&proto.name), tensor);
    }
    Ok(constants)
}

fn nodes(graph: &GraphProto, names: &mut Names) -> Result<Vec<Node>, CompileError> {
    let (mut nodes, mut refusals) = (Vec::new(), Vec::new());
    for (index, proto) in graph.node.iter().enumerate() {
        let name = if proto.name.is_empty() {
            format!("#{index}")
        } else {
            proto.name.clone()
        };
        let operator = match proto.domain.as_str() {
            "" | "ai.onnx" => proto.op_type.clone(),
            domain => format!("{domain}.{}", proto.op_type),
        };
        let mut inputs = Vec::new();
        for input in &proto.input {
            inputs.push(match input.as_str() {
                "" => None,
                known => Some(names.values.get(known).copied().ok_or_else(|| {
                    CompileError::NotOnnx(format!(
                        "node {name} reads `{known}`, which nothing before it makes"
                    ))
                })?),
            });
        }
        let outputs = proto
            .output
            .iter()
            .map(|o| (!o.is_empty()).then(|| names.define(o)))
            .collect();
        match ops::find(&proto.domain, &proto.op_type) {
            Ok(op) => nodes.push(Node {
                name,
                operator,
                op,
                proto: proto.clone(),
                inputs,
                outputs,
            }),
            Err(why) => refusals.push(Refusal {
                node: name,
                operator,
                why,
            }),
        }
    }
    if refusals.is_empty() {
        Ok(nodes)
    } else {
        Err(CompileError::Unsupported(refusals))
    }
}

fn spec_of(info: &ValueInfoProto) -> Result<TensorSpec, CompileError> {
    let bad = |why: &str| CompileError::Input {
        name: info.name.clone(),
        why: why.to_owned(),
    };
    let tensor = info.r#type.as_ref().and_then(|t| t.tensor_type.as_ref());
    let tensor = tensor.ok_or_else(|| bad("it is not a tensor"))?;
    let dtype = dtype_of(tensor.elem_type).map_err(|why| bad(&why))?;
    let shape = tensor
        .shape
        .as_ref()
        .ok_or_else(|| bad("its shape is not given"))?;
    if shape.dim.len() > MAX_RANK {
        return Err(bad("it has more than 8 dimensions"));
    }
    let mut dims = Vec::new();
    for (i, dim) in shape.dim.iter().enumerate() {
        dims.push(match u32::try_from(dim.dim_value) {
            Ok(0) if i == 0 => Dim::Batch,
            Ok(n) if n > 0 => Dim::Fixed(n),
            _ => return Err(bad("only its first dimension may be free")),
        });
    }
    Ok(TensorSpec {
        name: info.name.clone(),
        dtype,
        dims,
    })
}
