//! ScatterElements (and the older Scatter) and ScatterND: values into a copy of a tensor.

use super::extreme::item_axis;
use super::{Call, Operator};
use crate::emit::Ref;
use crate::kernels::{Ex, Scalar, index};
use crate::lower::{Layout, LowerCx};
use crate::onnx::Attrs;
use crate::reference::axis_of;
use crate::reference::numbers::{Number, numbers, tensor};
use crate::reference::places::{places, ravel};
use crate::tensor::Tensor;
use crate::typed::{NodeView, Type};

use super::gather_nd::nd;
use super::lookup::{inside, inside_program, unbatched, whole};
/// What a scattered value does to the one that is there.
fn joined(reduction: &str, old: Number, new: Number) -> Number {
    match (reduction, old, new) {
        ("add", Number::Int(a), Number::Int(b)) => Number::Int(a.wrapping_add(b)),
        ("mul", Number::Int(a), Number::Int(b)) => Number::Int(a.wrapping_mul(b)),
        ("add", a, b) => Number::Float(f64::from((a.float() + b.float()) as f32)),
        ("mul", a, b) => Number::Float(f64::from((a.float() * b.float()) as f32)),
        ("min", a, b) if b.float() < a.float() => b,
        ("max", a, b) if b.float() > a.float() => b,
        ("min" | "max", a, _) => a,
        (_, _, b) => b,
    }
}

fn joined_program(reduction: &str, old: Ex, new: Ex) -> Ex {
    match reduction {
        "add" => old + new,
        "mul" => old * new,
        "min" => old.min(new),
        "max" => old.max(new),
        _ => new,
    }
}

fn reduction(attrs: &Attrs<'_>) -> Result<String, String> {
    let name = attrs.text("reduction", "none");
    match name.as_str() {
        "none" | "add" | "mul" | "min" | "max" => Ok(name),
        other => Err(format!("the reduction `{other}` is not known")),
    }
}

/// ScatterElements, and the older Scatter.
pub(crate) struct ScatterElements;

/// ScatterND.
pub(crate) struct ScatterNd;

fn scatter_type(node: &NodeView<'_>) -> Result<Vec<Type>, String> {
    whole(node, 1)?;
    unbatched(node)?;
    reduction(&node.attrs())?;
    let (x, updates) = (node.ty(0)?, node.ty(2)?);
    match x.dtype == updates.dtype {
        true => Ok(vec![x.clone()]),
        false => Err(format!("updates of {} for {}", updates.dtype, x.dtype)),
    }
}

/// Copies the first input to the output and gives (output, indices, updates).
fn begin(cx: &mut LowerCx<'_>, s: &mut Scalar) -> Result<(Ref, Ref, Ref), String> {
    let (count, dtype) = (cx.ty(0)?.elements(), cx.ty(0)?.dtype);
    let [src, at, updates] = [
        cx.read(0, Layout::Plain)?,
        cx.read(1, Layout::Plain)?,
        cx.read(2, Layout::Plain)?,
    ];
    let dst = cx.write(Layout::Plain)?;
    s.each(count, |s, i| {
        let x = s.load(src, dtype, i.clone());
        s.store(dst, dtype, i, x);
    });
    Ok((dst, at, updates))
}

impl Operator for ScatterElements {
    fn infer(&self, node: &NodeView<'_>) -> Result<Vec<Type>, String> {
        item_axis(node, 0)?;
        let (at, updates) = (node.ty(1)?, node.ty(2)?);
        if at.dims != updates.dims || at.dims.len() != node.ty(0)?.dims.len() {
            return Err(format!(
                "indices of {:?} for updates of {:?}",
                at.dims, updates.dims
            ));
        }
        scatter_type(node)
    }

    fn eval(&self, call: &Call<'_>) -> Result<Vec<Tensor>, String> {
        let (x, at, updates) = (call.input(0)?, call.input(1)?, call.input(2)?);
        let axis = axis_of(call.attrs().int("axis", 0), x.dims().len())?;
        let reduction = reduction(&call.attrs())?;
        let mut values = numbers(x);
        for ((mut place, i), new) in places(at.dims()).zip(at.to_i64()?).zip(numbers(updates)) {
            place[axis] = inside(i, x.dims()[axis]);
            let slot = &mut values[ravel(&place, x.dims())];
            *slot = joined(&reduction, *slot, new);
        }
        Ok(vec![tensor(x.dtype(), x.dims().to_vec(), &values)?])
    }

    fn lower(&self, cx: &mut LowerCx<'_>) -> Result<(), String> {
        let node = cx.view();
        let (axis, reduction) = (item_axis(&node, 0)?, reduction(&node.attrs())?);
        let (x, at) = (node.ty(0)?, node.ty(1)?);
        let (dims, out) = (x.item(), at.item());
        let (strides, dense) = (Layout::Plain.strides(&dims), Layout::Plain.strides(&out));
        let mut program = Scalar::new("scatter-elements");
        let (dst, indices, updates) = begin(cx, &mut program)?;
        program.nest(&out, &mut |s, place| {
            let from = s.once(index(place, &dense));
            let which = s.load(indices, at.dtype, from.clone());
            let mut to = place.to_vec();
            to[axis] = inside_program(s, which, dims[axis]);
            let to = s.once(index(&to, &strides));
            let (old, new) = (
                s.load(dst, x.dtype, to.clone()),
                s.load(updates, x.dtype, from),
            );
            s.store(dst, x.dtype, to, joined_program(&reduction, old, new));
        });
        cx.push(program, 0)
    }
}

impl Operator for ScatterNd {
    fn infer(&self, node: &NodeView<'_>) -> Result<Vec<Type>, String> {
        let (_, _, dims) = nd(&node.ty(0)?.item(), &node.ty(1)?.item(), 0)?;
        if node.ty(2)?.item() != dims {
            return Err(format!("updates of {:?}, not {dims:?}", node.ty(2)?.item()));
        }
        scatter_type(node)
    }

    fn eval(&self, call: &Call<'_>) -> Result<Vec<Tensor>, String> {
        let (x, at, updates) = (call.input(0)?, call.input(1)?, call.input(2)?);
        let (_, named, dims) = nd(x.dims(), at.dims(), 0)?;
        let (reduction, indices) = (reduction(&call.attrs())?, at.to_i64()?);
        let rows = at.dims().len() - 1;
        let mut values = numbers(x);
        for (place, new) in places(&dims).zip(numbers(updates)) {
            let row = ravel(&place[..rows], &at.dims()[..rows]) * named;
            let mut to: Vec<usize> = (0..named)
                .map(|i| inside(indices[row + i], x.dims()[i]))
                .collect();
            to.extend(&place[rows..]);
            let slot = &mut values[ravel(&to, x.dims())];
            *slot = joined(&reduction, *slot, new);
        }
        Ok(vec![tensor(x.dtype(), x.dims().to_vec(), &values)?])
    }

    fn lower(&self, cx: &mut LowerCx<'_>) -> Result<(), String> {
        let node = cx.view();
        let reduction = reduction(&node.attrs())?;
        let (x, at) = (node.ty(0)?, node.ty(1)?);
        let (dims, rows) = (x.item(), at.item());
        let (_, named, out) = nd(&dims, &rows, 0)?;
        let rest = rows.len() - 1;
        let (strides, dense) = (Layout::Plain.strides(&dims), Layout::Plain.strides(&out));
        let row_strides = Layout::Plain.strides(&rows);
        let mut program = Scalar::new("scatter-nd");
        let (dst, indices, updates) = begin(cx, &mut program)?;
        program.nest(&out, &mut |s, place| {
            let row = s.once(index(&place[..rest], &row_strides[..rest]));
            let mut to = Vec::new();
            for (i, size) in dims[..named].iter().enumerate() {
                let which = s.load(indices, at.dtype, row.clone() + Ex::Int(i as i32));
                to.push(inside_program(s, which, *size));
            }
            to.extend_from_slice(&place[rest..]);
            let to = s.once(index(&to, &strides));
            let old = s.load(dst, x.dtype, to.clone());
            let new = s.load(updates, x.dtype, index(place, &dense));
            s.store(dst, x.dtype, to, joined_program(&reduction, old, new));
        });
        cx.push(program, 0)
    }
}
