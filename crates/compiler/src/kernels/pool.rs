//! Pooling over windows, channels last, four channels at a time.

use super::Kernel;
use crate::emit::{Func, Local, Ref, at, range};
use crate::typed::Clamp;
use sandpiper_core::tensor::DType;
use wasm_encoder::Instruction as I;

/// What is taken of a window.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Pooling {
    /// The greatest value.
    Max,
    /// The mean of floats.
    Mean {
        /// Padding counts as zeros.
        with_padding: bool,
    },
    /// The mean of quantised values, requantised: round(mean(x - x_zero) * scale) + y_zero.
    QuantizedMean {
        /// Padding counts as zeros.
        with_padding: bool,
        /// Zero point of the source.
        x_zero: i32,
        /// Scale of the source over that of the result.
        scale: f32,
        /// Zero point of the result.
        y_zero: i32,
        /// Type of the result.
        dtype: DType,
    },
}

/// Pools [images, rows, columns, channels].
#[derive(Debug, Clone)]
pub(crate) struct Pool {
    /// Source.
    pub(crate) src: Ref,
    /// Result.
    pub(crate) dst: Ref,
    /// What is taken.
    pub(crate) pooling: Pooling,
    /// Type of the source: f32, i8 or u8.
    pub(crate) dtype: DType,
    /// Number of images.
    pub(crate) images: usize,
    /// Channels.
    pub(crate) channels: usize,
    /// Rows and columns of the source.
    pub(crate) input: [usize; 2],
    /// Rows and columns of the result.
    pub(crate) out: [usize; 2],
    /// Size of the window.
    pub(crate) kernel: [usize; 2],
    /// Steps between windows.
    pub(crate) strides: [usize; 2],
    /// Steps within a window.
    pub(crate) dilations: [usize; 2],
    /// Padding before the first row and column.
    pub(crate) begin: [usize; 2],
    /// Whether any window reaches into padding.
    pub(crate) padded: bool,
    /// Limits of a float result.
    pub(crate) clamp: Clamp,
}

struct Locals {
    src: Local,
    dst: Local,
    /// Row and column of the window's first element, in the source.
    first: [Local; 2],
    /// Row and column of the current element.
    now: [Local; 2],
    address: Local,
    sum: Local,
    scratch: Local,
    count: Local,
}

impl Pool {
    fn with_padding(&self) -> bool {
        match self.pooling {
            Pooling::Max => true,
            Pooling::Mean { with_padding } | Pooling::QuantizedMean { with_padding, .. } => {
                with_padding
            }
        }
    }

    /// Whether the elements of each window have to be counted.
    fn counts(&self) -> bool {
        let quantized = matches!(self.pooling, Pooling::QuantizedMean { .. });
        self.padded && (quantized || !self.with_padding())
    }

    fn out_bytes(&self) -> usize {
        match self.pooling {
            Pooling::QuantizedMean { .. } => 1,
            _ => self.dtype.size_bytes(),
        }
    }

    fn start(&self, f: &mut Func<'_>, l: &Locals) {
        match (self.pooling, self.dtype) {
            (Pooling::Max, DType::F32) => f.floats(f32::NEG_INFINITY),
            (Pooling::Max, dtype) => f.ints(range(dtype).0),
            _ => f.ints(0),
        };
        f.set(l.sum);
        if self.counts() {
            f.int(0).set(l.count);
        }
    }

    /// Takes the element at the current row and column.
    fn take(&self, f: &mut Func<'_>, l: &Locals) {
        let pixel = (self.channels * self.dtype.size_bytes()) as i32;
        f.get(l.now[0])
            .int(self.input[1] as i32)
            .op(I::I32Mul)
            .get(l.now[1])
            .op(I::I32Add);
        f.int(pixel)
            .op(I::I32Mul)
            .get(l.src)
            .op(I::I32Add)
            .set(l.address);
        f.get(l.sum);
        if self.dtype == DType::F32 {
            f.load(l.address, 0);
            f.op(if self.pooling == Pooling::Max {
                I::F32x4Max
            } else {
                I::F32x4Add
            });
        } else {
            f.get(l.address).op(I::V128Load32Zero(at(0)));
            match self.dtype {
                DType::U8 => f.op(I::I16x8ExtendLowI8x16U).op(I::I32x4ExtendLowI16x8U),
                _ => f.op(I::I16x8ExtendLowI8x16S).op(I::I32x4ExtendLowI16x8S),
            };
            f.op(if self.pooling == Pooling::Max {
                I::I32x4MaxS
            } else {
                I::I32x4Add
            });
        }
        f.set(l.sum);
        if self.counts() {
            f.get(l.count).int(1).op(I::I32Add).set(l.count);
        }
    }

    /// Visits the window along `axis`, and within it along the next one.
    fn window(&self, f: &mut Func<'_>, l: &Locals, axis: usize) {
        if axis == 2 {
            self.take(f, l);
            return;
        }
        f.get(l.first[axis]).set(l.now[axis]);
        f.repeat(self.kernel[axis], |f| {
            if self.padded {
                // Rows and columns of padding are negative or too large: one unsigned comparison.
                f.get(l.now[axis])
                    .int(self.input[axis] as i32)
                    .op(I::I32LtU);
                f.when(|f| self.window(f, l, axis + 1));
            } else {
                self.window(f, l, axis + 1);
            }
            f.bump(l.now[axis], self.dilations[axis] as i64);
        });
    }

    /// Pushes, four times, the number of elements: those that are there, or also padding.
    fn count(&self, f: &mut Func<'_>, l: &Locals, only_real: bool) {
        if self.padded && only_real {
            f.get(l.count).op(I::F32ConvertI32S).op(I::F32x4Splat);
        } else {
            f.floats((self.kernel[0] * self.kernel[1]) as f32);
        }
    }

    /// Stores `used` channels.
    fn end(&self, f: &mut Func<'_>, l: &Locals, used: usize) {
        match self.pooling {
            Pooling::Max if self.dtype == DType::F32 => {
                f.get(l.sum)
                    .clamp(self.clamp.low, self.clamp.high)
                    .set(l.sum);
            }
            Pooling::Max => {
                f.get(l.sum).narrow(false, self.dtype, l.scratch).set(l.sum);
            }
            Pooling::Mean { .. } => {
                f.get(l.sum);
                self.count(f, l, !self.with_padding());
                f.op(I::F32x4Div)
                    .clamp(self.clamp.low, self.clamp.high)
                    .set(l.sum);
            }
            Pooling::QuantizedMean {
                x_zero,
                scale,
                y_zero,
                dtype,
                with_padding,
            } => {
                // Padding that counts is a true zero: only real elements carry the zero point.
                f.get(l.sum).op(I::F32x4ConvertI32x4S);
                self.count(f, l, true);
                f.floats(x_zero as f32).op(I::F32x4Mul).op(I::F32x4Sub);
                self.count(f, l, !with_padding);
                f.op(I::F32x4Div).floats(scale).op(I::F32x4Mul);
                let (low, high) = range(dtype);
                f.quantize(y_zero, low, high, l.scratch);
                f.narrow(false, dtype, l.scratch).set(l.sum);
            }
        }
        f.store_bytes(l.dst, 0, l.sum, used * self.out_bytes());
    }

    /// One vector of channels for one window.
    fn vector(&self, f: &mut Func<'_>, l: &Locals, used: usize) {
        self.start(f, l);
        self.window(f, l, 0);
        self.end(f, l, used);
        f.bump(l.src, (used * self.dtype.size_bytes()) as i64);
        f.bump(l.dst, (used * self.out_bytes()) as i64);
    }
}

impl Kernel for Pool {
    fn name(&self) -> &'static str {
        match self.pooling {
            Pooling::Max => "pool-max",
            Pooling::Mean { .. } => "pool-mean",
            Pooling::QuantizedMean { .. } => "pool-mean-i8",
        }
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
        let l = Locals {
            src: f.pointer(self.src, 0),
            dst: f.pointer(self.dst, 0),
            first: [f.i32(), f.i32()],
            now: [f.i32(), f.i32()],
            address: f.i32(),
            sum: f.v128(),
            scratch: f.v128(),
            count: f.i32(),
        };
        let pixel = self.channels * self.dtype.size_bytes();
        let image = self.input[0] * self.input[1] * pixel;
        let row_bytes = (self.out[1] * self.channels * self.out_bytes()) as i64;
        f.repeat(self.images, |f| {
            f.int(-(self.begin[0] as i32)).set(l.first[0]);
            let dst = f.copy_of(l.dst);
            let moving = [(l.first[0], self.strides[0] as i64), (l.dst, row_bytes)];
            f.share(self.out[0], &moving, |f| {
                f.int(-(self.begin[1] as i32)).set(l.first[1]);
                f.repeat(self.out[1], |f| {
                    f.repeat(self.channels / 4, |f| self.vector(f, &l, 4));
                    if !self.channels.is_multiple_of(4) {
                        self.vector(f, &l, self.channels % 4);
                    }
                    f.bump(l.src, -(pixel as i64));
                    f.bump(l.first[1], self.strides[1] as i64);
                });
                f.bump(l.first[0], self.strides[0] as i64);
            });
            f.get(dst).set(l.dst);
            f.bump(l.dst, self.out[0] as i64 * row_bytes);
            f.bump(l.src, image as i64);
        });
    }
}
