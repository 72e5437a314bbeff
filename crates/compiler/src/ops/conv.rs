//! Conv with constant weights, over one or two spatial dimensions.

use super::{Call, Operator};
use crate::kernels::{Element, Fill};
use crate::lower::LowerCx;
use crate::lower::dense::{Bias, Ending, Terms, convolution};
use crate::lower::window::{Geometry, image, result};
use crate::reference;
use crate::reference::Window;
use crate::tensor::Tensor;
use crate::typed::{NodeView, Type};
use sandpiper_core::tensor::DType;

/// Conv.
pub(crate) struct Conv;

/// The geometry of a convolution with constant weights at input `w`, its output channels, and its
/// number of groups.
pub(crate) fn geometry(node: &NodeView<'_>, w: usize) -> Result<(Geometry, usize, usize), String> {
    let dims = image(node.ty(0)?)?;
    let weights = node.frozen(w)?;
    let groups = usize::try_from(node.attrs().int("group", 1)).unwrap_or(0);
    if weights.len() != dims.len() || weights.contains(&0) {
        return Err(format!(
            "an input of {dims:?} and weights of {weights:?} do not go together"
        ));
    }
    if groups == 0 || Some(dims[1]) != weights[1].checked_mul(groups) || weights[0] % groups != 0 {
        return Err(format!(
            "{groups} groups do not divide input {dims:?}, weights {weights:?}"
        ));
    }
    let fitted = Window::of(&node.attrs())?.fit(&dims[2..], Some(&weights[2..]))?;
    if fitted.kernel != weights[2..] {
        return Err(format!(
            "kernel_shape {:?} is not that of the weights",
            fitted.kernel
        ));
    }
    Ok((Geometry::of(&dims, &fitted), weights[0], groups))
}

/// The type of a convolution's result.
pub(crate) fn convolved(node: &NodeView<'_>, w: usize, dtype: DType) -> Result<Type, String> {
    let (g, outputs, _) = geometry(node, w)?;
    let spatial = &g.out[4 - node.ty(0)?.dims.len()..];
    Ok(result(node.ty(0)?, dtype, &[&[outputs], spatial].concat()))
}

impl Operator for Conv {
    fn infer(&self, node: &NodeView<'_>) -> Result<Vec<Type>, String> {
        node.float(0)?;
        let ty = convolved(node, 1, DType::F32)?;
        if let Some(bias) = node.optional(2) {
            // A quantised bias is known only once it has been dequantised.
            node.float(2)?;
            if bias.ty.elements() != ty.item()[1] {
                return Err("the bias does not have an entry per output channel".into());
            }
        }
        Ok(vec![ty])
    }

    fn eval(&self, call: &Call<'_>) -> Result<Vec<Tensor>, String> {
        call.run(reference::conv::build(&call.attrs()))
    }

    fn lower(&self, cx: &mut LowerCx<'_>) -> Result<(), String> {
        let node = cx.view();
        let (g, outputs, groups) = geometry(&node, 1)?;
        let weights = node.constant(1)?;
        let (values, bias) = (weights.as_f32()?, node.optional_constant(2)?);
        let (per_group, taps) = (weights.dims()[1], g.kernel[0] * g.kernel[1]);
        let weight = |m: usize, c: usize, tap: usize| values[(m * per_group + c) * taps + tap];
        let bias = bias.map(Tensor::as_f32).transpose()?;
        let terms = Terms {
            element: Element::F32,
            weight: &weight,
            bias: Bias::Known(
                (0..outputs)
                    .map(|m| bias.map_or(0, |b| b[m].to_bits()))
                    .collect(),
            ),
            finish: Ending::Float(cx.node.clamp),
            fill: Fill::Byte(0),
        };
        convolution(cx, &g, (outputs, groups), &terms)
    }

    fn folds(&self) -> bool {
        false
    }

    fn clamps(&self) -> bool {
        true
    }
}
