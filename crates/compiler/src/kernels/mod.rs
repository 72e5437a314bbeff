//! The kernels: what generated code consists of.
//!
//! A kernel is a step with all sizes known; it writes its own wasm. Tensors are dense, either
//! row-major as ONNX has them or with the channels last. Vector loads may read up to
//! [`SLACK_BYTES`] behind a tensor (what they find there never reaches a result); stores are exact.

mod copy;
mod curves;
mod dense;
mod depthwise;
mod elementwise;
mod finish;
mod frame;
pub(crate) mod functions;
mod normalize;
mod pack;
mod pool;
mod product;
mod qsoftmax;
mod recurrence;
mod reduce;
mod rows;
mod scalar;
mod sense;
mod softmax;
mod span;
mod tile;

pub(crate) use copy::{Copy, Fill};
pub(crate) use curves::Curve;
pub(crate) use dense::{Dense, Start};
pub(crate) use depthwise::{Depthwise, MAX_DEPTHWISE_TAPS};
pub(crate) use elementwise::{Elementwise, Expr, Operand, Store};
pub(crate) use finish::{Element, Finish};
pub(crate) use frame::{Form, Frame};
pub(crate) use normalize::{Affine, Normalize};
pub(crate) use pack::{
    WeightsOf, pack_dense, pack_depthwise, packed_dense_bytes, panel_widths, sums_of_bytes,
    without_excess,
};
pub(crate) use pool::{Pool, Pooling};
pub(crate) use product::Product;
pub(crate) use qsoftmax::QSoftmax;
pub(crate) use recurrence::{Activation, Recurrence, RecurrentCell, Rows, UNITS};
pub(crate) use reduce::{Reduce, Reduction};
pub(crate) use scalar::{Bin, Ex, Scalar, Ty, Un, index};
pub(crate) use sense::BySense;
pub(crate) use softmax::Softmax;
pub(crate) use span::Span;
pub(crate) use tile::Mode;

use crate::emit::{Func, Ref};

/// How far behind a tensor kernels may read.
pub(crate) const SLACK_BYTES: u32 = 64;

/// A step of generated code.
pub(crate) trait Kernel {
    /// Short name, for reports.
    fn name(&self) -> &'static str;
    /// What it reads.
    fn reads(&self) -> Vec<Ref>;
    /// What it writes (it may read this too, after writing).
    fn writes(&self) -> Vec<Ref>;
    /// Whether parts of it can run at the same time. If not, the first part does everything.
    fn shares(&self) -> bool {
        false
    }
    /// Itself, if it is an expression over elements.
    fn elementwise(&self) -> Option<&Elementwise> {
        None
    }
    /// Writes its code. Where [`Kernel::shares`], parts write disjoint places, and each place gets
    /// the same value whatever the number of parts.
    fn emit(&self, f: &mut Func<'_>);
}

/// Output pixels and where each one's window begins in the source.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pixels {
    /// Number of images.
    pub(crate) images: usize,
    /// Rows and columns of the output.
    pub(crate) out: [usize; 2],
    /// Bytes in the source from one image, row, column to the next.
    pub(crate) steps: [usize; 3],
}

impl Pixels {
    /// Rows that follow each other without a gap become one, which leaves fewer rests.
    pub(crate) fn merged(self) -> Self {
        let [rows, columns] = self.out;
        if rows > 1 && self.steps[1] == columns * self.steps[2] {
            return Self {
                out: [1, rows * columns],
                ..self
            };
        }
        self
    }
}
