//! AffineGrid: theta of [N, 2, 3] or [N, 3, 4], and the size of the image as a constant.

use super::{Call, Operator};
use crate::kernels::{Ex, Scalar, Ty, index};
use crate::lower::{Layout, LowerCx};
use crate::reference::places::places;
use crate::tensor::Tensor;
use crate::typed::{BATCH_MARK, NodeView, Type};
use sandpiper_core::tensor::DType;

/// AffineGrid.
pub(crate) struct AffineGrid;

/// Images, and the spatial dimensions of each.
struct Plan {
    images: usize,
    spatial: Vec<usize>,
    corners: bool,
}

impl Plan {
    fn of(theta: &[usize], size: &Tensor, corners: bool) -> Result<Self, String> {
        let size = size.to_i64()?;
        let rank = size.len().saturating_sub(2);
        let fits = matches!(rank, 2 | 3) && theta.len() == 3 && theta[1..] == [rank, rank + 1];
        if !fits || (size[0] != BATCH_MARK && size[0] != theta[0] as i64) {
            return Err(format!("theta of {theta:?} for an image of {size:?}"));
        }
        let spatial = size[2..].iter().map(|n| usize::try_from(*n).ok());
        let spatial: Option<Vec<usize>> = spatial.collect();
        let spatial = spatial.filter(|s| s.iter().all(|n| *n > 0));
        let spatial = spatial.ok_or_else(|| format!("an image of {size:?}"))?;
        if corners && spatial.contains(&1) {
            return Err("align_corners of an image with a dimension of 1".into());
        }
        Ok(Self {
            images: theta[0],
            spatial,
            corners,
        })
    }

    fn of_node(node: &NodeView<'_>) -> Result<Self, String> {
        let corners = node.attrs().int("align_corners", 0) != 0;
        Self::of(&node.float(0)?.item(), node.constant(1)?, corners)
    }

    /// Where the first place of an axis lies in -1..1, and how far apart places are.
    fn line(&self, n: usize) -> (f64, f64) {
        match self.corners {
            true => (-1.0, 2.0 / (n as f64 - 1.0)),
            false => (1.0 / n as f64 - 1.0, 2.0 / n as f64),
        }
    }

    fn dims(&self) -> Vec<usize> {
        [&[self.images][..], &self.spatial, &[self.spatial.len()]].concat()
    }
}

impl Operator for AffineGrid {
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
        let theta = call.input(0)?;
        let corners = call.attrs().int("align_corners", 0) != 0;
        let plan = Plan::of(theta.dims(), call.input(1)?, corners)?;
        let (values, rank) = (theta.as_f32()?, plan.spatial.len());
        let one = |place: Vec<usize>| {
            let row = (place[0] * rank + place[rank + 1]) * (rank + 1);
            // The last axis comes first in a row.
            let along = (0..rank).map(|k| {
                let (first, step) = plan.line(plan.spatial[rank - 1 - k]);
                let at = first + step * place[rank - k] as f64;
                f64::from(values[row + k]) * at
            });
            (along.sum::<f64>() + f64::from(values[row + rank])) as f32
        };
        let all = places(&plan.dims()).map(one).collect();
        Ok(vec![Tensor::f32(&plan.dims(), all)?])
    }

    fn lower(&self, cx: &mut LowerCx<'_>) -> Result<(), String> {
        let plan = Plan::of_node(&cx.view())?;
        let (src, dst) = (cx.read(0, Layout::Plain)?, cx.write(Layout::Plain)?);
        let (dims, rank) = (plan.dims(), plan.spatial.len());
        let dense = Layout::Plain.strides(&dims);
        let mut program = Scalar::new("affine-grid");
        program.nest(&dims, &mut |s, place| {
            let which = [place[0].clone(), place[rank + 1].clone()];
            let row = s.once(index(&which, &[rank * (rank + 1), rank + 1]));
            let entry = |s: &mut Scalar, k: usize| {
                let value = s.load(src, DType::F32, row.clone() + Ex::Int(k as i32));
                value.to(Ty::Double)
            };
            let mut sum = entry(s, rank);
            for k in 0..rank {
                let (first, step) = plan.line(plan.spatial[rank - 1 - k]);
                let at = place[rank - k].clone().to(Ty::Double) * Ex::Double(step);
                sum = sum + entry(s, k) * (at + Ex::Double(first));
            }
            s.store(dst, DType::F32, index(place, &dense), sum.to(Ty::Real));
        });
        cx.push(program, 0)
    }
}
