//! GatherElements: an element for each index, from its own place along the others.

use super::extreme::item_axis;
use super::{Call, Operator};
use crate::kernels::{Scalar, index};
use crate::lower::{Layout, LowerCx};
use crate::reference::axis_of;
use crate::reference::places::{places, ravel};
use crate::tensor::Tensor;
use crate::typed::{NodeView, Type};

use super::lookup::{inside, inside_program, whole};
/// GatherElements.
pub(crate) struct GatherElements;

impl Operator for GatherElements {
    fn infer(&self, node: &NodeView<'_>) -> Result<Vec<Type>, String> {
        whole(node, 1)?;
        item_axis(node, 0)?;
        let (x, at) = (node.ty(0)?, node.ty(1)?);
        if x.dims.len() != at.dims.len() || x.has_batch() != at.has_batch() {
            return Err(format!("indices of {:?} for {:?}", at.dims, x.dims));
        }
        Ok(vec![Type::new(x.dtype, at.dims.clone())])
    }

    fn eval(&self, call: &Call<'_>) -> Result<Vec<Tensor>, String> {
        let (x, at) = (call.input(0)?, call.input(1)?);
        let axis = axis_of(call.attrs().int("axis", 0), x.dims().len())?;
        let sources: Vec<usize> = places(at.dims())
            .zip(at.to_i64()?)
            .map(|(mut place, i)| {
                place[axis] = inside(i, x.dims()[axis]);
                ravel(&place, x.dims())
            })
            .collect();
        Ok(vec![x.gathered(at.dims().to_vec(), |i| sources[i])?])
    }

    fn lower(&self, cx: &mut LowerCx<'_>) -> Result<(), String> {
        let node = cx.view();
        let axis = item_axis(&node, 0)?;
        let (x, at) = (node.ty(0)?, node.ty(1)?);
        let (dims, out) = (x.item(), at.item());
        let [src, indices] = [cx.read(0, Layout::Plain)?, cx.read(1, Layout::Plain)?];
        let dst = cx.write(Layout::Plain)?;
        let (strides, dense) = (Layout::Plain.strides(&dims), Layout::Plain.strides(&out));
        let mut program = Scalar::new("gather-elements");
        program.nest(&out, &mut |s, place| {
            let to = s.once(index(place, &dense));
            let which = s.load(indices, at.dtype, to.clone());
            let mut from = place.to_vec();
            from[axis] = inside_program(s, which, dims[axis]);
            let value = s.load(src, x.dtype, index(&from, &strides));
            s.store(dst, x.dtype, to, value);
        });
        cx.push(program, 0)
    }
}
