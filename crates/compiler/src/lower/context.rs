//! Lowering a graph node by node.

use super::layout::coincide;
use super::{Buffer, Home, Layout, Program, Step};
use crate::emit::Ref;
use crate::error::{CompileError, Refusal};
use crate::kernels::{Copy, Kernel};
use crate::tensor::Tensor;
use crate::typed::{Graph, Node, NodeView, Type, ValueId};
use sandpiper_core::tensor::DType;
use std::collections::BTreeMap;

/// Most steps of a program: some for every node that may be in a file.
const MAX_STEPS: usize = 40_000;

/// The graph, the node that is being lowered, and what was made so far.
pub(crate) struct LowerCx<'a> {
    graph: &'a Graph,
    /// The node that is being lowered.
    pub(crate) node: &'a Node,
    homes: BTreeMap<(ValueId, Layout), Ref>,
    program: Program,
}

/// Where elements come from: the offset of the first one, and from one to the next by dimension
/// of the result, in elements.
pub(crate) type Source = (usize, Vec<i64>);

impl Program {
    /// Lowers a graph.
    pub(crate) fn of(graph: &Graph) -> Result<Self, CompileError> {
        let Some(first) = graph.nodes.first() else {
            return Err(CompileError::NotOnnx("it computes nothing".into()));
        };
        let program = Program::default();
        let mut cx = LowerCx {
            graph,
            node: first,
            homes: BTreeMap::new(),
            program,
        };
        for (index, value) in graph.inputs.iter().enumerate() {
            let bytes = graph.values[*value].ty.bytes();
            let buffer = cx.buffer(bytes, Home::Input(index));
            cx.homes.insert((*value, Layout::Plain), buffer);
        }
        let refusal = |node: &Node, why: String| {
            let (node, operator) = (node.name.clone(), node.operator.clone());
            CompileError::Unsupported(vec![Refusal {
                node,
                operator,
                why,
            }])
        };
        for node in &graph.nodes {
            cx.node = node;
            node.op.lower(&mut cx).map_err(|why| refusal(node, why))?;
            if cx.program.steps.len() > MAX_STEPS {
                return Err(CompileError::TooLarge {
                    what: "the number of steps".into(),
                    size: cx.program.steps.len() as u64,
                    limit: MAX_STEPS as u64,
                });
            }
        }
        for (index, value) in graph.outputs.iter().enumerate() {
            cx.output(index, *value)
                .map_err(|why| refusal(cx.node, why))?;
        }
        super::chains::join(&mut cx.program);
        Ok(cx.program)
    }
}

/// Bytes of a tensor, little-endian, its elements in this order.
fn bytes_of(tensor: &Tensor, layout: Layout) -> Result<Vec<u8>, String> {
    let dims = tensor.dims();
    let ordered;
    let tensor = if layout == Layout::Plain || coincide(dims) {
        tensor
    } else {
        let order = layout.order(dims.len());
        let strides = Layout::Plain.strides(dims);
        let turned: Vec<usize> = order.iter().map(|a| dims[*a]).collect();
        let source = |mut index: usize| {
            let mut at = 0;
            for axis in order.iter().rev() {
                at += index % dims[*axis] * strides[*axis];
                index /= dims[*axis];
            }
            at
        };
        ordered = tensor.gathered(turned, source)?;
        &ordered
    };
    Ok(tensor.to_bytes())
}

impl<'a> LowerCx<'a> {
    /// The node as typing sees it.
    pub(crate) fn view(&self) -> NodeView<'a> {
        let values = &self.graph.values;
        NodeView {
            proto: &self.node.proto,
            inputs: self
                .node
                .inputs
                .iter()
                .map(|i| i.map(|v| &values[v]))
                .collect(),
            opset: self.graph.opset,
        }
    }

    fn input(&self, index: usize) -> Result<ValueId, String> {
        let value = self.node.inputs.get(index).copied().flatten();
        value.ok_or_else(|| format!("input {index} is missing"))
    }

    /// Type of an input.
    pub(crate) fn ty(&self, index: usize) -> Result<&'a Type, String> {
        Ok(&self.graph.values[self.input(index)?].ty)
    }

    /// Whether an input is a constant.
    pub(crate) fn is_constant(&self, index: usize) -> bool {
        self.input(index)
            .is_ok_and(|v| self.graph.values[v].constant.is_some())
    }

    /// Type of the first output.
    pub(crate) fn out(&self) -> Result<&'a Type, String> {
        let value = self.node.outputs.first().copied().flatten();
        value
            .map(|v| &self.graph.values[v].ty)
            .ok_or_else(|| "it has no output".into())
    }

    fn buffer(&mut self, bytes: usize, home: Home) -> Ref {
        self.program.buffers.push(Buffer { bytes, home });
        Ref::Buffer(self.program.buffers.len() - 1)
    }

    /// Memory that only the kernels of this node use.
    pub(crate) fn temporary(&mut self, bytes: usize) -> Ref {
        self.buffer(bytes, Home::Arena)
    }

    /// Bytes that are part of the weights.
    pub(crate) fn weights(&mut self, bytes: &[u8]) -> Result<Ref, String> {
        self.program.weights.add(bytes)
    }

    /// A constant's elements, in this order, as part of the weights.
    pub(crate) fn tensor(&mut self, tensor: &Tensor, layout: Layout) -> Result<Ref, String> {
        self.program.weights.add(&bytes_of(tensor, layout)?)
    }

    /// The order in which an input is at hand.
    pub(crate) fn layout(&self, index: usize) -> Layout {
        match self.input(index) {
            Ok(v) if self.homes.contains_key(&(v, Layout::Last)) => Layout::Last,
            _ => Layout::Plain,
        }
    }

    /// Where an input lies, in this order; it is brought into it if need be.
    pub(crate) fn read(&mut self, index: usize, layout: Layout) -> Result<Ref, String> {
        let value = self.input(index)?;
        self.read_value(value, layout)
    }

    fn read_value(&mut self, value: ValueId, layout: Layout) -> Result<Ref, String> {
        if let Some(found) = self.homes.get(&(value, layout)) {
            return Ok(*found);
        }
        let known = &self.graph.values[value];
        let dims = known.ty.item();
        let other = if layout == Layout::Plain {
            Layout::Last
        } else {
            Layout::Plain
        };
        let found = match (self.homes.get(&(value, other)).copied(), &known.constant) {
            (Some(found), _) if coincide(&dims) => found,
            (Some(found), _) => {
                let to = self.temporary(known.ty.bytes());
                let strides = other.strides(&dims).into_iter().map(|s| s as i64).collect();
                let copy = moved(
                    "layout",
                    (found, to),
                    known.ty.dtype,
                    &dims,
                    (0, strides),
                    layout,
                );
                self.add(Box::new(copy.simplified()), &known.ty, 0);
                to
            }
            (None, Some(constant)) => self.tensor(constant, layout)?,
            (None, None) => return Err(format!("`{}` is not there", known.name)),
        };
        self.homes.insert((value, layout), found);
        Ok(found)
    }

    /// Memory for the first output, in this order.
    pub(crate) fn write(&mut self, layout: Layout) -> Result<Ref, String> {
        let bytes = self.out()?.bytes();
        let buffer = self.buffer(bytes, Home::Arena);
        self.place(layout, buffer);
        Ok(buffer)
    }

    /// Memory for an output in row-major order; `None` if nobody wants it.
    pub(crate) fn write_output(&mut self, index: usize) -> Option<Ref> {
        let value = self.node.outputs.get(index).copied().flatten()?;
        let buffer = self.buffer(self.graph.values[value].ty.bytes(), Home::Arena);
        self.homes.insert((value, Layout::Plain), buffer);
        Some(buffer)
    }

    /// Says that the first output is what lies there already, in this order.
    pub(crate) fn place(&mut self, layout: Layout, at: Ref) {
        if let Some(value) = self.node.outputs.first().copied().flatten() {
            let both = coincide(&self.graph.values[value].ty.item());
            self.homes
                .insert((value, if both { Layout::Plain } else { layout }), at);
        }
    }

    /// Makes the first output of elements of an input that lies in `from` order: element by
    /// element, from `source`. If nothing moves in memory, nothing is done.
    pub(crate) fn rearrange(
        &mut self,
        name: &'static str,
        (index, from): (usize, Layout),
        source: Source,
        to: Layout,
    ) -> Result<(), String> {
        let (input, output) = (self.ty(index)?, self.out()?);
        let at = self.read(index, from)?;
        let copy = moved(name, (at, at), output.dtype, &output.item(), source, to).simplified();
        let same = copy.from == copy.to && copy.dims.len() <= 1;
        if same && input.bytes() == output.bytes() {
            self.place(to, at);
            return Ok(());
        }
        let dst = self.write(to)?;
        self.push(Copy { dst, ..copy }, 0)
    }

    /// Adds a copy of floats of these extents, between elements so many apart in source and
    /// destination, by dimension.
    pub(crate) fn reorder(
        &mut self,
        name: &'static str,
        (src, dst): (Ref, Ref),
        dims: &[usize],
        [from, to]: [&[usize]; 2],
    ) -> Result<(), String> {
        let bytes = |strides: &[usize]| strides.iter().map(|s| 4 * *s as i64).collect();
        let copy = Copy {
            name,
            src,
            dst,
            size: 4,
            dims: dims.to_vec(),
            from: (0, bytes(from)),
            to: (0, bytes(to)),
            fill: None,
        };
        self.push(copy.simplified(), 0)
    }

    /// Adds a kernel that makes the node's output, with its multiply-accumulates for one item.
    pub(crate) fn push(&mut self, kernel: impl Kernel + 'static, macs: u64) -> Result<(), String> {
        let wanted = self.node.outputs.iter().flatten().next();
        let ty = wanted.map(|v| &self.graph.values[*v].ty);
        self.add(Box::new(kernel), ty.ok_or("it has no output")?, macs);
        Ok(())
    }

    /// Adds a kernel of integer arithmetic.
    pub(crate) fn push_int(
        &mut self,
        kernel: impl Kernel + 'static,
        macs: u64,
    ) -> Result<(), String> {
        self.push(kernel, macs)?;
        self.program
            .steps
            .iter_mut()
            .last()
            .into_iter()
            .for_each(|s| s.dtype = DType::I8);
        Ok(())
    }

    fn add(&mut self, kernel: Box<dyn Kernel>, ty: &Type, macs: u64) {
        let nodes = std::iter::once(&self.node.name)
            .chain(&self.node.fused)
            .cloned()
            .collect();
        let (shape, dtype) = (ty.dims.clone(), DType::F32);
        self.program.steps.push(Step {
            kernel,
            nodes,
            shape,
            macs,
            dtype,
        });
    }

    /// Sees to it that a value is where the host reads it.
    fn output(&mut self, index: usize, value: ValueId) -> Result<(), String> {
        let at = self.read_value(value, Layout::Plain)?;
        let ty = &self.graph.values[value].ty;
        let bytes = ty.bytes();
        if let Ref::Buffer(buffer) = at
            && let Buffer {
                home: home @ Home::Arena,
                bytes: have,
            } = &mut self.program.buffers[buffer]
            && *have == bytes
        {
            *home = Home::Output(index);
            return Ok(());
        }
        let to = self.buffer(bytes, Home::Output(index));
        let whole = (0, vec![1]);
        let (dims, from) = (vec![bytes], whole.clone());
        let copy = Copy {
            name: "copy",
            src: at,
            dst: to,
            size: 1,
            dims,
            from,
            to: whole,
            fill: None,
        };
        self.add(Box::new(copy), ty, 0);
        Ok(())
    }
}

/// A copy whose destination is dense in `to` order.
fn moved(
    name: &'static str,
    (src, dst): (Ref, Ref),
    dtype: DType,
    dims: &[usize],
    (first, strides): Source,
    to: Layout,
) -> Copy {
    let size = dtype.size_bytes();
    let order = to.order(dims.len());
    let dense = to.strides(dims);
    Copy {
        name,
        src,
        dst,
        size,
        dims: order.iter().map(|a| dims[*a]).collect(),
        from: (
            (first * size) as u32,
            order.iter().map(|a| strides[*a] * size as i64).collect(),
        ),
        to: (0, order.iter().map(|a| (dense[*a] * size) as i64).collect()),
        fill: None,
    }
}
