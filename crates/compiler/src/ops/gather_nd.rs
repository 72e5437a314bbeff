//! GatherND: slices by tuples of indices.

use super::{Call, Operator};
use crate::kernels::{Ex, Scalar, index};
use crate::lower::{Layout, LowerCx};
use crate::reference::places::{places, ravel};
use crate::tensor::Tensor;
use crate::typed::{NodeView, Type, fixed};

use super::lookup::{inside, inside_program, unbatched, whole};
/// GatherND.
pub(crate) struct GatherNd;

/// Dimensions that both share, and those that an index names; the shape of the result.
pub(super) fn nd(
    x: &[usize],
    at: &[usize],
    shared: i64,
) -> Result<(usize, usize, Vec<usize>), String> {
    let shared = usize::try_from(shared).map_err(|_| "batch_dims is negative")?;
    let bad = || format!("indices of {at:?} for {x:?}");
    let (named, rest) = at.split_last().ok_or_else(bad)?;
    let fits = shared <= rest.len() && shared + named <= x.len() && x[..shared] == at[..shared];
    if !fits || *named == 0 {
        return Err(bad());
    }
    Ok((shared, *named, [rest, &x[shared + named..]].concat()))
}

impl Operator for GatherNd {
    fn infer(&self, node: &NodeView<'_>) -> Result<Vec<Type>, String> {
        whole(node, 1)?;
        unbatched(node)?;
        let (x, at) = (node.ty(0)?, node.ty(1)?);
        let (_, _, dims) = nd(&x.item(), &at.item(), node.attrs().int("batch_dims", 0))?;
        Ok(vec![Type::new(x.dtype, fixed(&dims))])
    }

    fn eval(&self, call: &Call<'_>) -> Result<Vec<Tensor>, String> {
        let (x, at) = (call.input(0)?, call.input(1)?);
        let (shared, named, dims) = nd(x.dims(), at.dims(), call.attrs().int("batch_dims", 0))?;
        let indices = at.to_i64()?;
        let rows = at.dims().len() - 1;
        let sources: Vec<usize> = places(&dims)
            .map(|place| {
                let row = ravel(&place[..rows], &at.dims()[..rows]) * named;
                let mut from = place[..shared].to_vec();
                let each = (0..named).map(|i| inside(indices[row + i], x.dims()[shared + i]));
                from.extend(each);
                from.extend(&place[rows..]);
                ravel(&from, x.dims())
            })
            .collect();
        Ok(vec![x.gathered(dims, |i| sources[i])?])
    }

    fn lower(&self, cx: &mut LowerCx<'_>) -> Result<(), String> {
        let node = cx.view();
        let (x, at) = (node.ty(0)?, node.ty(1)?);
        let (dims, rows) = (x.item(), at.item());
        let (shared, named, out) = nd(&dims, &rows, node.attrs().int("batch_dims", 0))?;
        let rest = rows.len() - 1;
        let [src, indices] = [cx.read(0, Layout::Plain)?, cx.read(1, Layout::Plain)?];
        let dst = cx.write(Layout::Plain)?;
        let (strides, dense) = (Layout::Plain.strides(&dims), Layout::Plain.strides(&out));
        let row_strides = Layout::Plain.strides(&rows);
        let mut program = Scalar::new("gather-nd");
        program.nest(&out, &mut |s, place| {
            let row = s.once(index(&place[..rest], &row_strides[..rest]));
            let mut from = place[..shared].to_vec();
            for i in 0..named {
                let which = s.load(indices, at.dtype, row.clone() + Ex::Int(i as i32));
                from.push(inside_program(s, which, dims[shared + i]));
            }
            from.extend_from_slice(&place[rest..]);
            let value = s.load(src, x.dtype, index(&from, &strides));
            s.store(dst, x.dtype, index(place, &dense), value);
        });
        cx.push(program, 0)
    }
}
