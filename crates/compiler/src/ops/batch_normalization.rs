//! BatchNormalization that could not be folded into a convolution: a product and a sum by channel.

use super::{Call, Operator};
use crate::kernels::{Expr, Store};
use crate::lower::LowerCx;
use crate::lower::elementwise::{Term, lower};
use crate::reference;
use crate::tensor::Tensor;
use crate::typed::{NodeView, Type};

/// BatchNormalization.
pub(crate) struct BatchNormalization;

/// Factor and summand of each channel.
pub(crate) fn affine(node: &NodeView<'_>) -> Result<(Vec<f32>, Vec<f32>), String> {
    let epsilon = f64::from(node.attrs().float("epsilon").unwrap_or(1e-5));
    let mut parts = Vec::new();
    for index in 1..=4 {
        parts.push(node.constant(index)?.as_f32()?);
    }
    let channels = parts[0].len();
    if parts.iter().any(|p| p.len() != channels) {
        return Err("scale, bias, mean and variance differ in length".into());
    }
    let one = |c: usize| {
        let [scale, bias, mean, var] = [0, 1, 2, 3].map(|p| f64::from(parts[p][c]));
        let factor = scale / (var + epsilon).sqrt();
        (factor as f32, (bias - mean * factor) as f32)
    };
    Ok((0..channels).map(one).unzip())
}

impl Operator for BatchNormalization {
    fn infer(&self, node: &NodeView<'_>) -> Result<Vec<Type>, String> {
        let ty = node.float(0)?;
        let (factors, _) = affine(node)?;
        if ty.item().get(1) != Some(&factors.len()) {
            return Err(format!(
                "{} channels are expected at [N, C, ..]",
                factors.len()
            ));
        }
        Ok(vec![ty.clone()])
    }

    fn eval(&self, call: &Call<'_>) -> Result<Vec<Tensor>, String> {
        call.run(reference::norm::batch(&call.attrs()))
    }

    fn lower(&self, cx: &mut LowerCx<'_>) -> Result<(), String> {
        let (factors, summands) = affine(&cx.view())?;
        let mut dims = vec![1; cx.out()?.dims.len()];
        dims[1] = factors.len();
        let [factor, summand] = [Tensor::f32(&dims, factors)?, Tensor::f32(&dims, summands)?];
        let terms = [
            Term::Input(0),
            Term::Constant(&factor),
            Term::Constant(&summand),
        ];
        let result = Expr::In(0).times(Expr::In(1)).plus(Expr::In(2));
        let expr = Expr::Cut(Box::new(result), cx.node.clamp);
        lower(cx, "batch-norm", &terms, expr, Store::Float)
    }

    fn clamps(&self) -> bool {
        true
    }
}
