//! GlobalMaxPool, LpPool, GlobalLpPool.

use super::{Call, Operator};
use crate::kernels::{Bin, Ex, Pooling, Scalar, Ty, Un, functions, index};
use crate::lower::window::Geometry;
use crate::lower::{Layout, LowerCx, pooling};
use crate::reference::pool;
use crate::tensor::Tensor;
use crate::typed::{NodeView, Type};
use sandpiper_core::tensor::DType;

/// GlobalMaxPool.
pub(crate) struct GlobalMaxPool;

impl Operator for GlobalMaxPool {
    fn infer(&self, node: &NodeView<'_>) -> Result<Vec<Type>, String> {
        node.float(0)?;
        pooling::infer(node, true, DType::F32)
    }

    fn eval(&self, call: &Call<'_>) -> Result<Vec<Tensor>, String> {
        call.run(pool::global_max())
    }

    fn lower(&self, cx: &mut LowerCx<'_>) -> Result<(), String> {
        pooling::lower(cx, true, Pooling::Max)
    }

    fn folds(&self) -> bool {
        false
    }
}

/// LpPool or GlobalLpPool.
pub(crate) struct LpPool {
    global: bool,
}

/// LpPool.
pub(crate) static LP_POOL: LpPool = LpPool { global: false };
/// GlobalLpPool.
pub(crate) static GLOBAL_LP_POOL: LpPool = LpPool { global: true };

impl Operator for LpPool {
    fn infer(&self, node: &NodeView<'_>) -> Result<Vec<Type>, String> {
        node.float(0)?;
        if node.attrs().int("p", 2) < 1 {
            return Err("p must be positive".into());
        }
        pooling::infer(node, self.global, DType::F32)
    }

    fn eval(&self, call: &Call<'_>) -> Result<Vec<Tensor>, String> {
        call.run(pool::norms(&call.attrs(), self.global))
    }

    fn lower(&self, cx: &mut LowerCx<'_>) -> Result<(), String> {
        let node = cx.view();
        let g: Geometry = pooling::geometry(&node, self.global)?;
        let p = node.attrs().int("p", 2);
        let (src, dst) = (cx.read(0, Layout::Plain)?, cx.write(Layout::Plain)?);
        let [h, w] = g.input;
        let out = [g.images * g.channels, g.out[0], g.out[1]];
        let dense = Layout::Plain.strides(&out);
        let mut program = Scalar::new("pool-norm");
        program.nest(&out, &mut |s, place| {
            let sum = s.var(Ex::Double(0.0));
            s.nest(&g.kernel, &mut |s, tap| {
                let (mut inside, mut from) = (Ex::Int(1), vec![place[0].clone()]);
                for i in 0..2 {
                    let (cut, there) = g.span(i).source(s, &place[i + 1], &tap[i]);
                    inside = inside.bin(Bin::And, there);
                    from.push(cut);
                }
                let x = s.load(src, DType::F32, index(&from, &[h * w, w, 1]));
                let size = s.once(x.to(Ty::Double).un(Un::Abs));
                let power = match p {
                    1 => size,
                    2 => size.clone() * size,
                    p => functions::pow(s, size, Ex::Double(p as f64)),
                };
                s.set(sum, Ex::Var(sum) + inside.pick(power, Ex::Double(0.0)));
            });
            let norm = match p {
                1 => Ex::Var(sum),
                2 => Ex::Var(sum).un(Un::Sqrt),
                p => functions::pow(s, Ex::Var(sum), Ex::Double(1.0 / p as f64)),
            };
            s.store(dst, DType::F32, index(place, &dense), norm.to(Ty::Real));
        });
        cx.push(program, 0)
    }

    fn folds(&self) -> bool {
        false
    }
}
