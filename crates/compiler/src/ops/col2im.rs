//! Col2Im: columns of windows added up to an image, over any number of dimensions. The sizes of image and
//! window are constants.

use super::{Call, Operator};
use crate::kernels::{Bin, Ex, Scalar, index};
use crate::lower::{Layout, LowerCx};
use crate::onnx::Attrs;
use crate::reference::places::{places, ravel};
use crate::tensor::{Tensor, elements};
use crate::typed::{NodeView, Type};
use sandpiper_core::tensor::DType;

/// Col2Im.
pub(crate) struct Col2Im;

/// Everything by spatial dimension, after the number of images and channels.
struct Plan {
    images: usize,
    channels: usize,
    image: Vec<usize>,
    block: Vec<usize>,
    windows: Vec<usize>,
    strides: Vec<usize>,
    dilations: Vec<usize>,
    begin: Vec<usize>,
}

fn sizes(tensor: &Tensor) -> Result<Vec<usize>, String> {
    let all = tensor.to_i64()?;
    let sizes: Option<Vec<usize>> = all.iter().map(|n| usize::try_from(*n).ok()).collect();
    let sizes = sizes.filter(|s| !s.is_empty() && s.iter().all(|n| (1..=1 << 20).contains(n)));
    sizes.ok_or_else(|| format!("sizes of {all:?}"))
}

impl Plan {
    fn of(
        attrs: &Attrs<'_>,
        columns: &[usize],
        image: &Tensor,
        block: &Tensor,
    ) -> Result<Self, String> {
        let (image, block) = (sizes(image)?, sizes(block)?);
        let rank = image.len();
        let list = |name: &str, n: usize, default: usize| -> Result<Vec<usize>, String> {
            let list = attrs.sizes(name)?.unwrap_or_else(|| vec![default; n]);
            match list.len() == n && (default == 0 || !list.contains(&0)) {
                true => Ok(list),
                false => Err(format!("{name} of {list:?}")),
            }
        };
        let (strides, dilations) = (list("strides", rank, 1)?, list("dilations", rank, 1)?);
        let pads = list("pads", 2 * rank, 0)?;
        let bad = || format!("columns of {columns:?} for an image of {image:?}");
        let &[images, rows, count] = columns else {
            return Err(bad());
        };
        if block.len() != rank {
            return Err(bad());
        }
        let mut windows = Vec::new();
        for i in 0..rank {
            let room = image[i] + pads[i] + pads[i + rank];
            let left = room.checked_sub((block[i] - 1) * dilations[i] + 1);
            windows.push(left.ok_or_else(bad)? / strides[i] + 1);
        }
        let each = elements(&block).ok_or_else(bad)?;
        if elements(&windows) != Some(count) || !rows.is_multiple_of(each) {
            return Err(bad());
        }
        Ok(Self {
            images,
            channels: rows / each,
            windows,
            block,
            strides,
            dilations,
            begin: pads[..rank].to_vec(),
            image,
        })
    }

    fn of_node(node: &NodeView<'_>) -> Result<Self, String> {
        let columns = node.float(0)?.item();
        Self::of(
            &node.attrs(),
            &columns,
            node.constant(1)?,
            node.constant(2)?,
        )
    }

    fn dims(&self) -> Vec<usize> {
        [&[self.images, self.channels], &self.image[..]].concat()
    }
}

impl Operator for Col2Im {
    fn infer(&self, node: &NodeView<'_>) -> Result<Vec<Type>, String> {
        let plan = Plan::of_node(node)?;
        let rest = &plan.dims()[1..];
        Ok(vec![crate::lower::window::result(
            node.ty(0)?,
            DType::F32,
            rest,
        )])
    }

    fn eval(&self, call: &Call<'_>) -> Result<Vec<Tensor>, String> {
        let columns = call.input(0)?;
        let p = Plan::of(
            &call.attrs(),
            columns.dims(),
            call.input(1)?,
            call.input(2)?,
        )?;
        let dims = p.dims();
        let mut image = vec![0f64; dims.iter().product()];
        let all = [&[p.images, p.channels], &p.block[..], &p.windows].concat();
        let rank = p.image.len();
        for (place, v) in places(&all).zip(columns.as_f32()?) {
            let mut to = place[..2].to_vec();
            for i in 0..rank {
                let padded = place[2 + rank + i] * p.strides[i] + place[2 + i] * p.dilations[i];
                let inside = padded.checked_sub(p.begin[i]).filter(|at| *at < p.image[i]);
                to.extend(inside);
            }
            if to.len() == dims.len() {
                image[ravel(&to, &dims)] += f64::from(*v);
            }
        }
        let image = image.into_iter().map(|v| v as f32).collect();
        Ok(vec![Tensor::f32(&dims, image)?])
    }

    fn lower(&self, cx: &mut LowerCx<'_>) -> Result<(), String> {
        let p = Plan::of_node(&cx.view())?;
        let (src, dst) = (cx.read(0, Layout::Plain)?, cx.write(Layout::Plain)?);
        let (dims, rank) = (p.dims(), p.image.len());
        let to_strides = Layout::Plain.strides(&dims);
        let all = [&[p.images, p.channels], &p.block[..], &p.windows].concat();
        let from_strides = Layout::Plain.strides(&all);
        let mut program = Scalar::new("col2im");
        program.each(dims.iter().product(), |s, i| {
            s.store(dst, DType::F32, i, Ex::Real(0.0));
        });
        program.nest(&all, &mut |s, place| {
            let (mut to, mut inside) = (place[..2].to_vec(), Ex::Int(1));
            for i in 0..rank {
                let window = place[2 + rank + i].clone() * Ex::Int(p.strides[i] as i32);
                let tap = place[2 + i].clone() * Ex::Int(p.dilations[i] as i32);
                let at = s.once(window + tap - Ex::Int(p.begin[i] as i32));
                let last = Ex::Int(p.image[i] as i32 - 1);
                let cut = s.once(at.clone().max(Ex::Int(0)).min(last));
                inside = inside.bin(Bin::And, cut.clone().eq(at));
                to.push(cut);
            }
            let to = s.once(index(&to, &to_strides));
            let x = s.load(src, DType::F32, index(place, &from_strides));
            let sum = s.load(dst, DType::F32, to.clone());
            let sum = sum + inside.pick(x, Ex::Real(0.0));
            s.store(dst, DType::F32, to, sum);
        });
        cx.push(program, 0)
    }
}
