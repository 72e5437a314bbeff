//! Building and changing ONNX files: for tests, and to make a variant that is broken on purpose.
//!
//! What is written is what the compiler reads: operators, attributes, constants, inputs and
//! outputs. Documentation strings, type annotations of inner values and the like are not kept.

use super::messages::{DimProto, ShapeProto, TensorTypeProto, TypeProto};
use super::{
    AttributeProto, GraphProto, HALF, ModelProto, NodeProto, OperatorSetId, TensorProto,
    ValueInfoProto, decode, narrowed, tensor_of,
};
use crate::error::CompileError;
use crate::tensor::Tensor;
use prost::Message;
use sandpiper_core::tensor::DType;
use std::collections::BTreeMap;

/// Version of the file format that is written: that of ONNX 1.13, which all readers know.
const IR_VERSION: i64 = 8;

/// A value of an attribute.
#[derive(Debug, Clone, PartialEq)]
pub enum Attribute {
    /// An integer.
    Int(i64),
    /// A float.
    Float(f32),
    /// A text.
    Text(String),
    /// Integers.
    Ints(Vec<i64>),
    /// A tensor.
    Tensor(Tensor),
    /// A graph within the graph: what was built, which may read what is around it.
    Graph(Box<ModelBuilder>),
}

/// A model file under construction.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelBuilder {
    model: ModelProto,
    graph: GraphProto,
}

fn type_number(dtype: DType) -> i32 {
    match dtype {
        DType::F32 => 1,
        DType::U8 => 2,
        DType::I8 => 3,
        DType::I32 => 6,
        DType::I64 => 7,
        DType::Bool => 9,
    }
}

fn tensor_proto(name: &str, tensor: &Tensor) -> TensorProto {
    TensorProto {
        name: name.to_owned(),
        dims: tensor.dims().iter().map(|d| *d as i64).collect(),
        data_type: type_number(tensor.dtype()),
        raw_data: tensor.to_bytes(),
        ..TensorProto::default()
    }
}

fn attribute_proto(name: &str, value: Attribute) -> AttributeProto {
    let mut proto = AttributeProto {
        name: name.to_owned(),
        ..AttributeProto::default()
    };
    proto.r#type = match value {
        Attribute::Float(f) => {
            proto.f = f;
            1
        }
        Attribute::Int(i) => {
            proto.i = i;
            2
        }
        Attribute::Text(text) => {
            proto.s = text.into_bytes();
            3
        }
        Attribute::Tensor(tensor) => {
            proto.t = Some(tensor_proto("", &tensor));
            4
        }
        Attribute::Graph(builder) => {
            proto.g = Some(builder.graph);
            5
        }
        Attribute::Ints(ints) => {
            proto.ints = ints;
            7
        }
    };
    proto
}

impl ModelBuilder {
    /// An empty model for a version of ONNX's own operators; those of `com.microsoft` can be used
    /// as well.
    pub fn new(opset: i64) -> Self {
        let set = |domain: &str, version| OperatorSetId {
            domain: domain.to_owned(),
            version,
        };
        let model = ModelProto {
            ir_version: IR_VERSION,
            opset_import: vec![set("", opset), set("com.microsoft", 1)],
            graph: None,
        };
        Self {
            model,
            graph: GraphProto::default(),
        }
    }

    /// Adds an input; a dimension of `None` is free.
    #[must_use]
    pub fn input(mut self, name: &str, dtype: DType, dims: &[Option<u32>]) -> Self {
        let dim = |(i, size): (usize, &Option<u32>)| DimProto {
            dim_value: size.map_or(0, i64::from),
            dim_param: if size.is_some() {
                String::new()
            } else {
                format!("d{i}")
            },
        };
        let shape = ShapeProto {
            dim: dims.iter().enumerate().map(dim).collect(),
        };
        let tensor = TensorTypeProto {
            elem_type: type_number(dtype),
            shape: Some(shape),
        };
        let r#type = Some(TypeProto {
            tensor_type: Some(tensor),
        });
        self.graph.input.push(ValueInfoProto {
            name: name.to_owned(),
            r#type,
        });
        self
    }

    /// Adds a constant.
    #[must_use]
    pub fn constant(mut self, name: &str, tensor: &Tensor) -> Self {
        self.graph.initializer.push(tensor_proto(name, tensor));
        self
    }

    /// Adds a constant of bytes as integers of 4 bits, of which the low halves are kept.
    #[must_use]
    pub fn nibbles(mut self, name: &str, tensor: &Tensor) -> Self {
        let halves = tensor.to_bytes();
        let pair = |p: &[u8]| p[0] & 15 | p.get(1).map_or(0, |high| high << 4);
        let mut proto = tensor_proto(name, tensor);
        proto.raw_data = halves.chunks(2).map(pair).collect();
        proto.data_type = if tensor.dtype() == DType::U8 { 21 } else { 22 };
        self.graph.initializer.push(proto);
        self
    }

    /// Adds a node; an input of "" is left out. An operator of another domain than ONNX's own is
    /// written `domain:Operator`.
    #[must_use]
    pub fn node<'a>(
        mut self,
        operator: &str,
        inputs: &[&str],
        outputs: &[&str],
        attributes: impl IntoIterator<Item = (&'a str, Attribute)>,
    ) -> Self {
        let (domain, op_type) = operator.split_once(':').unwrap_or(("", operator));
        let names = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
        self.graph.node.push(NodeProto {
            input: names(inputs),
            output: names(outputs),
            name: format!("{op_type}_{}", self.graph.node.len()),
            op_type: op_type.to_owned(),
            attribute: attributes
                .into_iter()
                .map(|(n, v)| attribute_proto(n, v))
                .collect(),
            domain: domain.to_owned(),
        });
        self
    }

    /// Adds an output.
    #[must_use]
    pub fn output(mut self, name: &str) -> Self {
        self.graph.output.push(ValueInfoProto {
            name: name.to_owned(),
            r#type: None,
        });
        self
    }

    /// The file.
    pub fn finish(mut self) -> Vec<u8> {
        self.model.graph = Some(self.graph);
        self.model.encode_to_vec()
    }
}

/// The names of the constants of a file, in order.
///
/// # Errors
/// [`CompileError`] when it is no ONNX file.
pub fn constants(onnx: &[u8]) -> Result<Vec<String>, CompileError> {
    let graph = decode(onnx)?.graph.unwrap_or_default();
    Ok(graph.initializer.into_iter().map(|t| t.name).collect())
}

/// The same file with every float of the constant `name` replaced by `change` of it.
///
/// # Errors
/// [`CompileError`] when it is no ONNX file, or has no such constant of f32.
pub fn change_floats(
    onnx: &[u8],
    name: &str,
    change: impl Fn(f32) -> f32,
) -> Result<Vec<u8>, CompileError> {
    let mut model = decode(onnx)?;
    let missing = || CompileError::NotOnnx(format!("it has no constant `{name}` of f32"));
    let mut constants = model.graph.iter_mut().flat_map(|g| &mut g.initializer);
    let found = constants.find(|t| t.name == name).ok_or_else(missing)?;
    let tensor = tensor_of(found).map_err(CompileError::NotOnnx)?;
    let changed = tensor
        .as_f32()
        .map_err(|_| missing())?
        .iter()
        .map(|v| change(*v))
        .collect();
    let changed = Tensor::f32(tensor.dims(), changed).map_err(CompileError::NotOnnx)?;
    *found = tensor_proto(name, &changed);
    Ok(model.encode_to_vec())
}

/// What a file's graph takes, gives and consists of, as far as it can be said without typing it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outline {
    /// Names of the inputs that are no constants, in order.
    pub inputs: Vec<String>,
    /// Names of the outputs, in order.
    pub outputs: Vec<String>,
    /// Operators of the nodes in order, with their domain unless it is ONNX's own.
    pub operators: Vec<String>,
}

/// The outline of a file.
///
/// # Errors
/// [`CompileError`] when it is no ONNX file.
pub fn outline(onnx: &[u8]) -> Result<Outline, CompileError> {
    let graph = decode(onnx)?.graph.unwrap_or_default();
    let constant = |name: &String| graph.initializer.iter().any(|t| t.name == *name);
    let names = |infos: &[ValueInfoProto]| infos.iter().map(|i| i.name.clone()).collect();
    let inputs: Vec<String> = names(&graph.input);
    let operator = |n: &NodeProto| match n.domain.as_str() {
        "" | "ai.onnx" => n.op_type.clone(),
        domain => format!("{domain}.{}", n.op_type),
    };
    Ok(Outline {
        inputs: inputs.into_iter().filter(|n| !constant(n)).collect(),
        outputs: names(&graph.output),
        operators: graph.node.iter().map(operator).collect(),
    })
}

/// The same file with these inputs fixed: they become constants.
///
/// # Errors
/// [`CompileError`] when it is no ONNX file.
pub fn freeze(onnx: &[u8], values: &BTreeMap<String, Tensor>) -> Result<Vec<u8>, CompileError> {
    let mut model = decode(onnx)?;
    if let Some(graph) = &mut model.graph {
        graph.input.retain(|i| !values.contains_key(&i.name));
        let constants = values.iter().map(|(name, t)| tensor_proto(name, t));
        graph.initializer.extend(constants);
    }
    Ok(model.encode_to_vec())
}

/// The same file with 16-bit floats in place of 32-bit ones: constants (rounded), inputs, and what is
/// cast to.
///
/// # Errors
/// [`CompileError`] when it is no ONNX file, or a constant is damaged.
pub fn halved(onnx: &[u8]) -> Result<Vec<u8>, CompileError> {
    let mut model = decode(onnx)?;
    let float = type_number(DType::F32);
    if let Some(graph) = &mut model.graph {
        for constant in graph
            .initializer
            .iter_mut()
            .filter(|t| t.data_type == float)
        {
            let tensor = tensor_of(constant).map_err(CompileError::NotOnnx)?;
            let values = tensor.as_f32().map_err(CompileError::NotOnnx)?;
            constant.raw_data = values
                .iter()
                .flat_map(|v| narrowed(*v).to_le_bytes())
                .collect();
            constant.float_data.clear();
            constant.data_type = HALF;
        }
        let types = graph.input.iter_mut().flat_map(|i| &mut i.r#type);
        for tensor in types.flat_map(|t| &mut t.tensor_type) {
            if tensor.elem_type == float {
                tensor.elem_type = HALF;
            }
        }
        let attributes = graph.node.iter_mut().flat_map(|n| &mut n.attribute);
        for attribute in attributes.filter(|a| a.name == "to" && a.i == i64::from(float)) {
            attribute.i = i64::from(HALF);
        }
    }
    Ok(model.encode_to_vec())
}

/// The tensor of a file that holds one tensor message, as ONNX's own test data does.
///
/// # Errors
/// [`CompileError::NotOnnx`] when it is none, or of a type that is not supported.
pub fn read_tensor(bytes: &[u8]) -> Result<Tensor, CompileError> {
    let proto = TensorProto::decode(bytes).map_err(|e| CompileError::NotOnnx(e.to_string()))?;
    tensor_of(&proto).map_err(CompileError::NotOnnx)
}
