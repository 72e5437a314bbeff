//! What operators share that find elements by indices that are known only when the module runs. An
//! index counts from the end if it is negative; one that is still outside is taken as the nearest
//! inside, so that no index leads out of a tensor.

use crate::kernels::{Ex, Scalar, Ty, index};
use crate::lower::{Layout, LowerCx};
use crate::typed::NodeView;
use sandpiper_core::tensor::DType;

pub(super) fn whole(node: &NodeView<'_>, input: usize) -> Result<(), String> {
    match node.ty(input)?.dtype {
        DType::I32 | DType::I64 => Ok(()),
        other => Err(format!("indices of {other}")),
    }
}

pub(super) fn unbatched(node: &NodeView<'_>) -> Result<(), String> {
    let batched = node.inputs.iter().flatten().any(|v| v.ty.has_batch());
    match batched {
        true => Err("it mixes the items of a batch; give the inputs fixed shapes".into()),
        false => Ok(()),
    }
}

pub(super) fn inside(at: i64, size: usize) -> usize {
    let size = size as i64;
    let at = if at < 0 { at + size } else { at };
    at.clamp(0, size - 1) as usize
}

pub(super) fn inside_program(s: &mut Scalar, at: Ex, size: usize) -> Ex {
    let at = s.once(at.to(Ty::Long));
    let turned = at.clone() + Ex::Long(size as i64);
    let at = at.clone().lt(Ex::Long(0)).pick(turned, at);
    s.once(
        at.max(Ex::Long(0))
            .min(Ex::Long(size as i64 - 1))
            .to(Ty::Int),
    )
}

/// Gather with indices that are not constant.
pub(crate) fn gather(cx: &mut LowerCx<'_>, axis: usize) -> Result<(), String> {
    let node = cx.view();
    let (ty, indices) = (node.ty(0)?, node.ty(1)?);
    let (dims, count) = (ty.item(), indices.elements());
    let (outer, inner): (usize, usize) = (
        dims[..axis].iter().product(),
        dims[axis + 1..].iter().product(),
    );
    let [src, at] = [cx.read(0, Layout::Plain)?, cx.read(1, Layout::Plain)?];
    let dst = cx.write(Layout::Plain)?;
    let mut program = Scalar::new("gather");
    program.nest(&[outer, count], &mut |s, place| {
        let which = s.load(at, indices.dtype, place[1].clone());
        let which = inside_program(s, which, dims[axis]);
        let row = [place[0].clone(), which];
        let from = s.once(index(&row, &[dims[axis] * inner, inner]));
        let to = s.once(index(place, &[count * inner, inner]));
        s.each(inner, |s, i| {
            let x = s.load(src, ty.dtype, from.clone() + i.clone());
            s.store(dst, ty.dtype, to.clone() + i, x);
        });
    });
    cx.push(program, 0)
}
