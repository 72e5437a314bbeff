//! Softmax over rows of quantised values, by a table of exponentials.

use super::Kernel;
use crate::emit::{Func, Local, Ref, at, range};
use sandpiper_core::tensor::DType;
use wasm_encoder::Instruction as I;

/// Softmax of each of `rows` rows of `len` consecutive bytes.
#[derive(Debug, Clone)]
pub(crate) struct QSoftmax {
    /// Source.
    pub(crate) src: Ref,
    /// Result.
    pub(crate) dst: Ref,
    /// 256 floats: e^(-d * scale of the source), by the distance d from the greatest value.
    pub(crate) table: Ref,
    /// Number of rows.
    pub(crate) rows: usize,
    /// Elements of a row.
    pub(crate) len: usize,
    /// Type of the source.
    pub(crate) dtype: DType,
    /// Scale, zero point and type of the result.
    pub(crate) result: (f32, i32, DType),
}

impl QSoftmax {
    /// Calls `body` for every element of a row, then returns `pointers` to its start.
    fn along(&self, f: &mut Func<'_>, pointers: &[Local], body: impl FnOnce(&mut Func<'_>)) {
        f.repeat(self.len, |f| {
            body(f);
            pointers.iter().for_each(|p| f.bump(*p, 1));
        });
        pointers.iter().for_each(|p| f.bump(*p, -(self.len as i64)));
    }

    fn load(&self, f: &mut Func<'_>, x: Local) {
        f.get(x);
        f.op(if self.dtype == DType::U8 {
            I::I32Load8U(at(0))
        } else {
            I::I32Load8S(at(0))
        });
    }

    /// Pushes the exponential of the element at `x`.
    fn exp(&self, f: &mut Func<'_>, x: Local, most: Local, table: Local) {
        f.get(most);
        self.load(f, x);
        f.op(I::I32Sub)
            .int(2)
            .op(I::I32Shl)
            .get(table)
            .op(I::I32Add)
            .op(I::F32Load(at(0)));
    }
}

impl Kernel for QSoftmax {
    fn name(&self) -> &'static str {
        "softmax-i8"
    }

    fn reads(&self) -> Vec<Ref> {
        vec![self.src, self.table]
    }

    fn writes(&self) -> Vec<Ref> {
        vec![self.dst]
    }

    fn emit(&self, f: &mut Func<'_>) {
        let [x, y, table] = [self.src, self.dst, self.table].map(|r| f.pointer(r, 0));
        let (most, sum) = (f.i32(), f.f32());
        let (scale, zero, dtype) = self.result;
        let (low, high) = range(dtype);
        f.repeat(self.rows, |f| {
            f.int(range(self.dtype).0).set(most);
            self.along(f, &[x], |f| {
                f.get(most);
                self.load(f, x);
                f.get(most);
                self.load(f, x);
                f.op(I::I32GtS).op(I::Select).set(most);
            });
            f.float(0.0).set(sum);
            self.along(f, &[x], |f| {
                f.get(sum);
                self.exp(f, x, most, table);
                f.op(I::F32Add).set(sum);
            });
            self.along(f, &[x, y], |f| {
                f.get(y);
                self.exp(f, x, most, table);
                f.get(sum)
                    .op(I::F32Div)
                    .float(scale)
                    .op(I::F32Div)
                    .op(I::F32Nearest);
                f.float((low - zero) as f32)
                    .op(I::F32Max)
                    .float((high - zero) as f32)
                    .op(I::F32Min);
                f.op(I::I32TruncSatF32S)
                    .int(zero)
                    .op(I::I32Add)
                    .op(I::I32Store8(at(0)));
            });
            f.bump(x, self.len as i64);
            f.bump(y, self.len as i64);
        });
    }
}
