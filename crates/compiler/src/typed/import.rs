//! From a file's messages to the typed graph.

use super::control;
use super::input::input_type;
use super::order::order;
use super::{BATCH_MARK, Clamp, Graph, Node, NodeView, Type, Value, ValueId, fixed};
use crate::error::{CompileError, Refusal};
use crate::onnx::{GraphProto, ModelProto, NodeProto, constant_of};
use crate::ops::{self, Call, Operator};
use crate::options::Options;
use crate::tensor::{MAX_ELEMENTS, Tensor};
use sandpiper_core::tensor::{DType, Dim};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// Most nodes of a graph.
const MAX_NODES: usize = 20_000;
/// Most dimensions of a value.
pub(crate) const MAX_RANK: usize = 8;
/// Most elements that folding one node may make: shapes and small tables, not activations.
const MAX_FOLDED: usize = 1 << 24;

/// Most nodes that are looked at, those of loops once for every turn.
const MAX_VISITS: usize = 200_000;

pub(super) struct Importer<'a> {
    pub(super) graph: Graph,
    pub(super) names: BTreeMap<&'a str, ValueId>,
    refusals: Vec<Refusal>,
    /// Values whose node was refused: what reads them is not looked at.
    pub(super) unknown: BTreeSet<ValueId>,
    /// Before the names of nodes: in which graph, and in which turn of a loop.
    pub(super) prefix: String,
    visits: usize,
}

impl Graph {
    /// Imports a decoded model: names resolved, nodes in order, every value typed, constants
    /// folded. All nodes that are not supported are listed, not only the first.
    pub(crate) fn import(model: &ModelProto, options: &Options) -> Result<Self, CompileError> {
        let proto = model
            .graph
            .as_ref()
            .ok_or_else(|| CompileError::NotOnnx("it has no graph".into()))?;
        if proto.node.len() > MAX_NODES {
            return Err(CompileError::TooLarge {
                what: "the number of nodes".into(),
                size: proto.node.len() as u64,
                limit: MAX_NODES as u64,
            });
        }
        let main = |d: &str| matches!(d, "" | "ai.onnx");
        let opset = model.opset_import.iter().find(|o| main(&o.domain));
        let mut importer = Importer {
            graph: Graph {
                values: Vec::new(),
                nodes: Vec::new(),
                inputs: Vec::new(),
                outputs: Vec::new(),
                opset: opset.map_or(0, |o| o.version),
                params: 0,
            },
            names: BTreeMap::new(),
            refusals: Vec::new(),
            unknown: BTreeSet::new(),
            prefix: String::new(),
            visits: 0,
        };
        importer.constants(proto)?;
        importer.inputs(proto, options)?;
        for index in order(proto)? {
            importer.node(index, &proto.node[index])?;
        }
        importer.finish(proto)
    }
}

impl<'a> Importer<'a> {
    /// A new value.
    pub(super) fn value(&mut self, name: &str, ty: Type, constant: Option<Tensor>) -> ValueId {
        let frozen = constant.is_some();
        let constant = constant.map(Rc::new);
        self.graph.values.push(Value {
            name: name.to_owned(),
            ty,
            constant,
            frozen,
        });
        self.graph.values.len() - 1
    }

    fn define(&mut self, name: &'a str, ty: Type, constant: Option<Tensor>) -> ValueId {
        let id = self.value(name, ty, constant);
        self.names.insert(name, id);
        id
    }

    pub(super) fn constants(&mut self, proto: &'a GraphProto) -> Result<(), CompileError> {
        for init in &proto.initializer {
            let tensor = constant_of(init).map_err(|why| {
                CompileError::NotOnnx(format!("initialiser `{}`: {why}", init.name))
            })?;
            self.graph.params += tensor.len() as u64;
            let ty = Type::new(tensor.dtype(), fixed(tensor.dims()));
            self.define(&init.name, ty, Some(tensor));
        }
        Ok(())
    }

    fn inputs(&mut self, proto: &'a GraphProto, options: &Options) -> Result<(), CompileError> {
        if let Some(name) = options
            .shapes
            .keys()
            .find(|n| proto.input.iter().all(|i| i.name != **n))
        {
            let known: Vec<_> = proto.input.iter().map(|i| i.name.as_str()).collect();
            let why = format!("the model has no such input; it has: {}", known.join(", "));
            return Err(CompileError::Input {
                name: name.clone(),
                why,
            });
        }
        let mut batch_name: Option<&str> = None;
        for info in &proto.input {
            // Old files list their initialisers among the inputs as well.
            if self.names.contains_key(info.name.as_str()) {
                continue;
            }
            let bad = |why: String| CompileError::Input {
                name: info.name.clone(),
                why,
            };
            let (ty, free) = input_type(info, options.shapes.get(&info.name)).map_err(bad)?;
            if let Some(free) = free {
                match batch_name {
                    Some(first) if first != free && !first.is_empty() && !free.is_empty() => {
                        return Err(bad(format!(
                            "its first dimension is `{free}`, another input's is `{first}`: only one \
                             batch is possible; give the shape of one of them"
                        )));
                    }
                    _ => batch_name = Some(free),
                }
            }
            let id = self.define(&info.name, ty, None);
            self.graph.inputs.push(id);
        }
        Ok(())
    }

    pub(super) fn node(&mut self, index: usize, proto: &'a NodeProto) -> Result<(), CompileError> {
        self.visits += 1;
        for (what, size, limit) in [
            (
                "the number of nodes, loops unrolled",
                self.visits,
                MAX_VISITS,
            ),
            ("the number of nodes", self.graph.nodes.len(), MAX_NODES),
        ] {
            if size > limit {
                let (what, size, limit) = (what.to_owned(), size as u64, limit as u64);
                return Err(CompileError::TooLarge { what, size, limit });
            }
        }
        let name = match proto.name.as_str() {
            "" => format!("{}#{index}", self.prefix),
            name => format!("{}{name}", self.prefix),
        };
        let mut inputs = Vec::with_capacity(proto.input.len());
        for input in &proto.input {
            inputs.push(match input.as_str() {
                "" => None,
                known => Some(self.names.get(known).copied().ok_or_else(|| {
                    CompileError::NotOnnx(format!(
                        "node {name} reads `{known}`, which nothing makes"
                    ))
                })?),
            });
        }
        let made = match control::kind(proto) {
            Some(kind) => self.control(kind, &name, proto, &inputs)?,
            None => self.apply(&name, proto, inputs),
        };
        match made {
            Ok(Some(made)) => {
                let named = proto.output.iter().zip(made);
                for (name, id) in named.filter(|(name, _)| !name.is_empty()) {
                    id.into_iter().for_each(|id| {
                        self.names.insert(name, id);
                    });
                }
            }
            Ok(None) => self.poison(proto),
            Err(why) => {
                let operator = operator_of(proto);
                self.refusals.push(Refusal {
                    node: name,
                    operator,
                    why,
                });
                self.poison(proto);
            }
        }
        Ok(())
    }

    /// Types an operator of these inputs, and adds it unless its results are known: gives its outputs.
    /// `None` if one of its inputs is unknown.
    pub(super) fn apply(
        &mut self,
        name: &str,
        proto: &NodeProto,
        inputs: Vec<Option<ValueId>>,
    ) -> Result<Option<Vec<Option<ValueId>>>, String> {
        let Some((op, results)) = self.typed(proto, &inputs)? else {
            return Ok(None);
        };
        // Only the dequantising of constants is put off.
        let known = |i: &ValueId| self.graph.values[*i].constant.is_some();
        let frozen = proto.op_type == "DequantizeLinear" && inputs.iter().flatten().all(known);
        let mut outputs = Vec::new();
        for (name, (ty, constant)) in proto.output.iter().zip(results) {
            let id = (!name.is_empty()).then(|| self.value(name, ty, constant));
            id.into_iter()
                .for_each(|id| self.graph.values[id].frozen |= frozen);
            outputs.push(id);
        }
        let known = |o: &Option<ValueId>| o.is_none_or(|v| self.graph.values[v].constant.is_some());
        if !outputs.iter().all(known) {
            self.graph.nodes.push(Node {
                name: name.to_owned(),
                operator: operator_of(proto),
                proto: Rc::new(proto.clone()),
                op,
                inputs,
                outputs: outputs.clone(),
                clamp: Clamp::NONE,
                fused: Vec::new(),
            });
        }
        Ok(Some(outputs))
    }

    /// Marks everything a node would make as unknown.
    fn poison(&mut self, proto: &'a NodeProto) {
        for name in proto.output.iter().filter(|n| !n.is_empty()) {
            let id = self.define(name, Type::new(DType::F32, Vec::new()), None);
            self.unknown.insert(id);
        }
    }

    /// Types a node and folds it if all of its inputs are known. `None`: something before it was
    /// refused, so that nothing can be said.
    #[allow(clippy::type_complexity)]
    fn typed(
        &self,
        proto: &NodeProto,
        inputs: &[Option<ValueId>],
    ) -> Result<Option<(&'static dyn Operator, Vec<(Type, Option<Tensor>)>)>, String> {
        // An operator that is not known is listed even where its inputs are not.
        let op = ops::find(&proto.domain, &proto.op_type)?;
        if inputs.iter().flatten().any(|v| self.unknown.contains(v)) {
            return Ok(None);
        }
        let values = &self.graph.values;
        let view = NodeView {
            proto,
            inputs: inputs.iter().map(|i| i.map(|v| &values[v])).collect(),
            opset: self.graph.opset,
        };
        let types = op.infer(&view)?;
        let wanted = proto
            .output
            .iter()
            .rposition(|o| !o.is_empty())
            .map_or(0, |p| p + 1);
        if wanted > types.len() {
            return Err(format!("its output {} is not supported", wanted - 1));
        }
        // Shape arithmetic may have no elements on its way; what flows through kernels has some.
        let folded = op.folds() && view.inputs.iter().flatten().all(|v| v.constant.is_some());
        for ty in types.iter().filter(|_| !folded) {
            check_type(ty)?;
        }
        if let Some(constants) = op.known(&view)? {
            return Ok(Some((
                op,
                types
                    .into_iter()
                    .zip(constants.into_iter().map(Some))
                    .collect(),
            )));
        }
        if let Some(folded) = fold(op, &view, &types)? {
            let typed = folded
                .into_iter()
                .map(|t| (Type::new(t.dtype(), fixed(t.dims())), Some(t)));
            return Ok(Some((op, typed.collect())));
        }
        let batched = view.inputs.iter().flatten().any(|v| v.ty.has_batch());
        if batched && types.iter().any(|t| !t.has_batch()) {
            return Err("it mixes the items of a batch; give the input a fixed shape".into());
        }
        Ok(Some((op, types.into_iter().map(|t| (t, None)).collect())))
    }

    /// A graph whose outputs are all known gets a node that copies the first of them, since a
    /// module has at least one step.
    fn repeat_constant(&mut self) -> Result<(), CompileError> {
        if let Some(first) = self.graph.outputs.first().copied()
            && self.graph.values[first].constant.is_some()
        {
            let name = self.graph.values[first].name.clone();
            self.graph.outputs[0] = self.copied(first, &name)?;
        }
        Ok(())
    }

    /// A node that copies a value to another of this name.
    fn copied(&mut self, value: ValueId, name: &str) -> Result<ValueId, CompileError> {
        let op = ops::find("", "Identity").map_err(CompileError::NotOnnx)?;
        let mut copy = self.graph.values[value].clone();
        (copy.constant, copy.frozen, copy.name) = (None, false, name.to_owned());
        self.graph.values.push(copy);
        let copy = self.graph.values.len() - 1;
        self.graph.nodes.push(Node {
            name: name.to_owned(),
            operator: "Identity".into(),
            proto: Rc::new(NodeProto {
                op_type: "Identity".into(),
                ..NodeProto::default()
            }),
            op,
            inputs: vec![Some(value)],
            outputs: vec![Some(copy)],
            clamp: Clamp::NONE,
            fused: Vec::new(),
        });
        Ok(copy)
    }

    /// The value of an output under the name of the output: graphs within the graph have names of
    /// their own, and may give what is an input or another output too.
    fn named(&mut self, id: ValueId, name: &str) -> Result<ValueId, CompileError> {
        if self.graph.values[id].name == name {
            return Ok(id);
        }
        if self.graph.inputs.contains(&id) || self.graph.outputs.contains(&id) {
            return self.copied(id, name);
        }
        self.graph.values[id].name = name.to_owned();
        Ok(id)
    }

    /// Results whose rows are filled only as far as data goes are for the caller, who can see it.
    fn check_rows(&mut self) {
        let nodes = &self.graph.nodes;
        for node in nodes.iter().filter(|n| n.is("NonMaxSuppression")) {
            let mut read = nodes.iter().flat_map(|n| n.inputs.iter().flatten());
            if read.any(|v| node.outputs.contains(&Some(*v))) {
                self.refusals.push(Refusal {
                    node: node.name.clone(),
                    operator: node.operator.clone(),
                    why:
                        "how many rows it gives depends on data; let it, and the boxes, be outputs \
                          of the model"
                            .into(),
                });
            }
        }
    }

    fn finish(mut self, proto: &'a GraphProto) -> Result<Graph, CompileError> {
        self.check_rows();
        if !self.refusals.is_empty() {
            return Err(CompileError::Unsupported(self.refusals));
        }
        for info in &proto.output {
            let id = self.names.get(info.name.as_str()).copied().ok_or_else(|| {
                CompileError::NotOnnx(format!("no node makes the output `{}`", info.name))
            })?;
            let id = self.named(id, &info.name)?;
            if self.graph.outputs.contains(&id) {
                return Err(CompileError::NotOnnx(format!(
                    "`{}` is an output twice",
                    info.name
                )));
            }
            self.graph.outputs.push(id);
        }
        if self.graph.nodes.is_empty() {
            self.repeat_constant()?;
        }
        if self.graph.inputs.is_empty() {
            return Err(CompileError::NotOnnx(
                "it has no input, only constants".into(),
            ));
        }
        Ok(self.graph)
    }
}

/// The operator with its domain unless it is ONNX's own.
fn operator_of(proto: &NodeProto) -> String {
    match proto.domain.as_str() {
        "" | "ai.onnx" => proto.op_type.clone(),
        domain => format!("{domain}.{}", proto.op_type),
    }
}

/// Evaluates a node whose inputs are all known.
fn fold(
    op: &dyn Operator,
    view: &NodeView<'_>,
    types: &[Type],
) -> Result<Option<Vec<Tensor>>, String> {
    let known = view.inputs.iter().flatten().all(|v| v.constant.is_some());
    let small = types.iter().all(|t| t.elements() <= MAX_FOLDED);
    if !known || !op.folds() || !small {
        return Ok(None);
    }
    let inputs: Vec<_> = view
        .inputs
        .iter()
        .map(|v| v.and_then(|v| v.constant.as_deref()))
        .collect();
    let marked = |t: &&Tensor| match t.data() {
        crate::tensor::Data::I64(v) => v.contains(&BATCH_MARK),
        _ => false,
    };
    if inputs.iter().flatten().any(marked) && !op.moves() {
        return Err("it computes with the batch size; give the input a fixed shape".into());
    }
    let call = Call {
        proto: view.proto,
        opset: view.opset,
        inputs: &inputs,
    };
    op.eval(&call).map(Some)
}

pub(super) fn check_type(ty: &Type) -> Result<(), String> {
    if ty.dims.len() > MAX_RANK {
        return Err(format!("its result has more than {MAX_RANK} dimensions"));
    }
    if ty.dims.iter().skip(1).any(|d| *d == Dim::Batch) {
        return Err("it moves the batch from the first place; give the input a fixed shape".into());
    }
    if ty.dims.contains(&Dim::Fixed(0)) {
        return Err("its result is empty".into());
    }
    match crate::tensor::elements(&ty.item()) {
        Some(_) => Ok(()),
        None => Err(format!("its result has more than {MAX_ELEMENTS} elements")),
    }
}
