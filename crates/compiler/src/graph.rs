//! The graph as it was imported: operators in order, over numbered values.

use crate::error::{CompileError, Refusal};
use crate::onnx::{
    Attrs, GraphProto, ModelProto, NodeProto, ValueInfoProto, constant_of, decode, dtype_of,
};
use crate::ops::{self, Operator};
use crate::tensor::Tensor;
use crate::typed::control::{Kind, ScanPlan, kind};
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
    pub(crate) work: Work,
    /// Operator and attributes.
    pub(crate) proto: NodeProto,
    /// Values it reads; `None` is an optional input left out.
    pub(crate) inputs: Vec<Option<usize>>,
    /// Values it writes; `None` is an output nobody wants.
    pub(crate) outputs: Vec<Option<usize>>,
    /// Values that graphs within it read from around it.
    pub(crate) captured: Vec<usize>,
}

/// What a node does.
pub(crate) enum Work {
    /// An operator.
    Operator(&'static dyn Operator),
    /// The first part if its input is true, else the second.
    If(Part, Part),
    /// A part again and again.
    Loop(Part),
    /// A part for each slice.
    Scan(Part, ScanPlan),
}

/// A graph within the graph; it numbers its values as the whole does.
pub(crate) struct Part {
    /// Nodes in order.
    pub(crate) nodes: Vec<Node>,
    /// Values that are bound before it runs.
    pub(crate) inputs: Vec<usize>,
    /// Its results.
    pub(crate) outputs: Vec<usize>,
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
        let mut constants = BTreeMap::new();
        add_constants(&graph, &mut names, &mut constants)?;
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
        let mut builder = Builder {
            names,
            constants,
            refusals: Vec::new(),
            opset,
        };
        let nodes = builder.nodes(&graph)?;
        if !builder.refusals.is_empty() {
            return Err(CompileError::Unsupported(builder.refusals));
        }
        let (names, constants) = (builder.names, builder.constants);
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

fn add_constants(
    graph: &GraphProto,
    names: &mut Names,
    constants: &mut BTreeMap<usize, Tensor>,
) -> Result<(), CompileError> {
    for proto in &graph.initializer {
        let tensor = constant_of(proto)
            .map_err(|why| CompileError::NotOnnx(format!("initialiser `{}`: {why}", proto.name)))?;
        constants.insert(names.define(&proto.name), tensor);
    }
    Ok(())
}

/// Nodes under construction.
struct Builder {
    names: Names,
    constants: BTreeMap<usize, Tensor>,
    refusals: Vec<Refusal>,
    opset: i64,
}

impl Builder {
    fn find(&self, reader: &str, name: &str) -> Result<usize, CompileError> {
        self.names.values.get(name).copied().ok_or_else(|| {
            CompileError::NotOnnx(format!(
                "node {reader} reads `{name}`, which nothing before it makes"
            ))
        })
    }

    fn nodes(&mut self, graph: &GraphProto) -> Result<Vec<Node>, CompileError> {
        let mut nodes = Vec::new();
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
                    known => Some(self.find(&name, known)?),
                });
            }
            let first = self.names.count;
            let work = self.work(&name, proto)?;
            let captured = captured(&work, first);
            let outputs = proto
                .output
                .iter()
                .map(|o| (!o.is_empty()).then(|| self.names.define(o)))
                .collect();
            match work {
                Ok(work) => nodes.push(Node {
                    name,
                    operator,
                    work,
                    proto: proto.clone(),
                    inputs,
                    outputs,
                    captured,
                }),
                Err(why) => self.refusals.push(Refusal {
                    node: name,
                    operator,
                    why,
                }),
            }
        }
        Ok(nodes)
    }

    fn work(
        &mut self,
        name: &str,
        proto: &NodeProto,
    ) -> Result<Result<Work, String>, CompileError> {
        let graph = |attribute: &str| Attrs::of(proto).graph(attribute);
        let missing = || Ok(Err("a graph within it is missing".to_owned()));
        Ok(match kind(proto) {
            None => ops::find(&proto.domain, &proto.op_type).map(Work::Operator),
            Some(Kind::If) => {
                let (Some(then), Some(other)) = (graph("then_branch"), graph("else_branch")) else {
                    return missing();
                };
                Ok(Work::If(self.part(name, then)?, self.part(name, other)?))
            }
            Some(kind) => {
                let Some(body) = graph("body") else {
                    return missing();
                };
                let part = self.part(name, body)?;
                match kind {
                    Kind::Scan => {
                        ScanPlan::of(proto, body, self.opset).map(|p| Work::Scan(part, p))
                    }
                    _ => Ok(Work::Loop(part)),
                }
            }
        })
    }

    /// A graph within the graph; its names are its own.
    fn part(&mut self, name: &str, graph: &GraphProto) -> Result<Part, CompileError> {
        let outside = self.names.values.clone();
        add_constants(graph, &mut self.names, &mut self.constants)?;
        let inputs = graph.input.iter().map(|i| self.names.define(&i.name));
        let inputs = inputs.collect();
        let nodes = self.nodes(graph)?;
        let outputs: Result<_, _> = graph
            .output
            .iter()
            .map(|o| self.find(name, &o.name))
            .collect();
        self.names.values = outside;
        Ok(Part {
            nodes,
            inputs,
            outputs: outputs?,
        })
    }
}

/// What parts read that was there before them: values below `first`.
fn captured(work: &Result<Work, String>, first: usize) -> Vec<usize> {
    let parts = match work {
        Ok(Work::If(a, b)) => vec![a, b],
        Ok(Work::Loop(part) | Work::Scan(part, _)) => vec![part],
        _ => Vec::new(),
    };
    let mut all = Vec::new();
    for part in parts {
        let read = part.nodes.iter().flat_map(|n| {
            let inputs = n.inputs.iter().flatten();
            inputs.chain(&n.captured)
        });
        all.extend(read.chain(&part.outputs).filter(|v| **v < first));
    }
    all
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
