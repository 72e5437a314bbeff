//! Softmax over rows of floats.

use super::Kernel;
use super::curves::Exp;
use super::rows::{along, mask, reduce};
use crate::emit::{Func, Local, Ref};
use wasm_encoder::Instruction as I;

/// Greatest elements that are found side by side: with one, each comparison would wait for the one
/// before.
const SIDE: usize = 4;

/// Softmax of each of `rows` rows of `len` consecutive floats.
#[derive(Debug, Clone)]
pub(crate) struct Softmax {
    /// Source.
    pub(crate) src: Ref,
    /// Result.
    pub(crate) dst: Ref,
    /// Number of rows.
    pub(crate) rows: usize,
    /// Elements of a row.
    pub(crate) len: usize,
}

struct Locals {
    x: Local,
    y: Local,
    mosts: [Local; SIDE],
    sum: Local,
    v: Local,
    exp: Exp,
}

impl Softmax {
    fn row(&self, f: &mut Func<'_>, l: &Locals) {
        // NaN is not seen here, but by the exponential.
        l.mosts.iter().for_each(|most| {
            f.floats(f32::NEG_INFINITY).set(*most);
        });
        let most = l.mosts[0];
        let blocks = self.len / (4 * SIDE);
        f.repeat(blocks, |f| {
            for (i, most) in l.mosts.iter().enumerate() {
                f.get(*most).load(l.x, 16 * i as u32);
                f.op(I::F32x4PMax).set(*most);
            }
            f.bump(l.x, 16 * SIDE as i64);
        });
        along(f, self.len % (4 * SIDE), &[l.x], &|f, count| {
            f.get(most).load(l.x, 0);
            if count < 4 {
                f.floats(f32::NEG_INFINITY)
                    .op(mask(count))
                    .op(I::V128Bitselect);
            }
            f.op(I::F32x4PMax).set(most);
        });
        f.bump(l.x, -((blocks * 16 * SIDE) as i64));
        for other in &l.mosts[1..] {
            f.get(most).get(*other).op(I::F32x4PMax).set(most);
        }
        reduce(f, most, &I::F32x4PMax);
        f.floats(0.0).set(l.sum);
        along(f, self.len, &[l.x, l.y], &|f, count| {
            f.load(l.x, 0).get(most).op(I::F32x4Sub);
            l.exp.apply(f);
            f.set(l.v);
            f.store_bytes(l.y, 0, l.v, 4 * count);
            f.get(l.sum).get(l.v);
            if count < 4 {
                f.op(mask(count)).op(I::V128And);
            }
            f.op(I::F32x4Add).set(l.sum);
        });
        reduce(f, l.sum, &I::F32x4Add);
        f.floats(1.0).get(l.sum).op(I::F32x4Div).set(l.sum);
        along(f, self.len, &[l.y], &|f, count| {
            f.load(l.y, 0).get(l.sum).op(I::F32x4Mul).set(l.v);
            f.store_bytes(l.y, 0, l.v, 4 * count);
        });
    }
}

impl Kernel for Softmax {
    fn name(&self) -> &'static str {
        "softmax"
    }

    fn reads(&self) -> Vec<Ref> {
        vec![self.src]
    }

    fn writes(&self) -> Vec<Ref> {
        vec![self.dst]
    }

    fn shares(&self) -> bool {
        true
    }

    fn emit(&self, f: &mut Func<'_>) {
        let (x, y) = (f.pointer(self.src, 0), f.pointer(self.dst, 0));
        let mosts = [(); SIDE].map(|()| f.v128());
        let [sum, v] = [(); 2].map(|()| f.v128());
        let exp = Exp::new(f).fused();
        let l = Locals {
            x,
            y,
            mosts,
            sum,
            v,
            exp,
        };
        let row = 4 * self.len as i64;
        f.share(self.rows, &[(l.x, row), (l.y, row)], |f| {
            self.row(f, &l);
            f.bump(l.x, 4 * self.len as i64);
            f.bump(l.y, 4 * self.len as i64);
        });
    }
}
