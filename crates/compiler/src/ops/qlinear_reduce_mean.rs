//! QLinearReduceMean: x, x_scale, x_zero, y_scale, y_zero. Sums are integers.

use super::reduce::{Parts, parts_of};
use super::{Call, Operator};
use crate::emit::range;
use crate::kernels::{Ex, Scalar, Ty, Un, index};
use crate::lower::scales::{Scale, eight_bit, result_dtype};
use crate::lower::{Layout, LowerCx};
use crate::reference::qlinear;
use crate::tensor::Tensor;
use crate::typed::{NodeView, Type};

/// QLinearReduceMean.
pub(crate) struct QLinearReduceMean;

impl Operator for QLinearReduceMean {
    fn infer(&self, node: &NodeView<'_>) -> Result<Vec<Type>, String> {
        eight_bit(node.ty(0)?.dtype)?;
        Scale::at(node, 1)?;
        Scale::at(node, 3)?;
        let dims = parts_of(node, None)?.dims;
        Ok(vec![Type::new(result_dtype(node, 4)?, dims)])
    }

    fn eval(&self, call: &Call<'_>) -> Result<Vec<Tensor>, String> {
        let attrs = call.attrs();
        let mean = |x: &Tensor| super::reduce::MEAN.of(x, &attrs, None);
        qlinear::applied(call.inputs, 3, &mean)
    }

    fn lower(&self, cx: &mut LowerCx<'_>) -> Result<(), String> {
        let node = cx.view();
        let (x, y) = (Scale::at(&node, 1)?, Scale::at(&node, 3)?);
        let Parts { outer, inner, .. } = parts_of(&node, None)?;
        let (from, to) = (node.ty(0)?.dtype, cx.out()?.dtype);
        let (low, high) = range(to);
        let (src, dst) = (cx.read(0, Layout::Plain)?, cx.write(Layout::Plain)?);
        let count: usize = inner.0.iter().product();
        let dense = Layout::Plain.strides(&outer.0);
        let factor = f64::from(x.scale) / f64::from(y.scale) / count as f64;
        let all_zeros = f64::from(x.zero) * count as f64;
        let mut program = Scalar::new("reduce-mean-i8");
        program.nest(&outer.0, &mut |s, place| {
            let base = s.once(index(place, &outer.1));
            let sum = s.var(Ex::Long(0));
            s.nest(&inner.0, &mut |s, place| {
                let x = s.load(src, from, base.clone() + index(place, &inner.1));
                s.set(sum, Ex::Var(sum) + x.to(Ty::Long));
            });
            let mean = (Ex::Var(sum).to(Ty::Double) - Ex::Double(all_zeros)) * Ex::Double(factor);
            let value = mean.un(Un::Nearest) + Ex::Double(f64::from(y.zero));
            let value = value
                .max(Ex::Double(f64::from(low)))
                .min(Ex::Double(f64::from(high)));
            s.store(dst, to, index(place, &dense), value.to(Ty::Int));
        });
        cx.push_int(program, 0)
    }

    fn folds(&self) -> bool {
        false
    }
}
