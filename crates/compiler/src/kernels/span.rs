//! The least and the greatest of some floats, in one go.

use super::Kernel;
use super::rows::{along, mask, reduce};
use crate::emit::{Func, Local, Ref, at};
use wasm_encoder::Instruction as I;

/// Vectors that are compared side by side: with one, each comparison would wait for the one before.
const SIDE: usize = 4;

/// The least and the greatest of consecutive floats and 0. NaN is passed over.
#[derive(Debug, Clone)]
pub(crate) struct Span {
    /// Source.
    pub(crate) src: Ref,
    /// Two floats: the least, the greatest.
    pub(crate) dst: Ref,
    /// Number of floats.
    pub(crate) count: usize,
}

impl Span {
    /// Compares one vector, of which `count` elements are there.
    fn compare(f: &mut Func<'_>, (x, offset): (Local, u32), [low, high]: [Local; 2], count: usize) {
        for (most, op) in [(low, I::F32x4PMin), (high, I::F32x4PMax)] {
            f.get(most).load(x, offset);
            if count < 4 {
                f.op(mask(count)).op(I::V128And);
            }
            // The operand that is taken unless the other is less, or greater, is the first.
            f.op(op).set(most);
        }
    }
}

impl Kernel for Span {
    fn name(&self) -> &'static str {
        "range"
    }

    fn reads(&self) -> Vec<Ref> {
        vec![self.src]
    }

    fn writes(&self) -> Vec<Ref> {
        vec![self.dst]
    }

    fn emit(&self, f: &mut Func<'_>) {
        let (x, y) = (f.pointer(self.src, 0), f.pointer(self.dst, 0));
        let mosts = [(); SIDE].map(|()| [f.v128(), f.v128()]);
        mosts.iter().flatten().for_each(|most| {
            f.floats(0.0).set(*most);
        });
        f.repeat(self.count / (4 * SIDE), |f| {
            for (i, most) in mosts.iter().enumerate() {
                Self::compare(f, (x, 16 * i as u32), *most, 4);
            }
            f.bump(x, 16 * SIDE as i64);
        });
        let [first, others @ ..] = mosts;
        along(f, self.count % (4 * SIDE), &[x], &|f, count| {
            Self::compare(f, (x, 0), first, count);
        });
        for (i, op) in [I::F32x4PMin, I::F32x4PMax].iter().enumerate() {
            let most = first[i];
            for other in others {
                f.get(most).get(other[i]).op(op.clone()).set(most);
            }
            reduce(f, most, op);
            f.get(y).get(most).op(I::F32x4ExtractLane(0));
            f.op(I::F32Store(at(4 * i as u32)));
        }
    }
}
