//! Vector idioms that kernels share.

use super::func::{Func, Local, at};
use sandpiper_core::tensor::DType;
use wasm_encoder::Instruction as I;

/// Adding this to a float of magnitude below 2^22 rounds it half to even; the integer is then in
/// the low bits: the cheapest exact rounding that every host has.
const ROUNDER: f32 = 12_582_912.0;

/// Least and greatest value of an 8-bit type.
pub(crate) fn range(dtype: DType) -> (i32, i32) {
    if dtype == DType::U8 {
        (0, 255)
    } else {
        (-128, 127)
    }
}

impl Func<'_> {
    /// Pushes whether the host takes bytes as signed where it multiplies them: 1, or 0. The last operand of
    /// `i32x4.relaxed_dot_i8x16_i7x16_add_s` is that of 7 bits; where one has 8, hosts may take it
    /// as signed or as unsigned, but all of them always in the same way. And they may cut the sum of two
    /// products to 16 bits, which must not come to pass.
    pub(crate) fn signed_bytes(&mut self) -> &mut Self {
        self.op(I::V128Const(i128::from_le_bytes([1; 16])));
        self.op(I::V128Const(i128::from_le_bytes([0x80; 16])));
        self.ints(0).op(I::I32x4RelaxedDotI8x16I7x16AddS);
        self.op(I::I32x4ExtractLane(0));
        self.int(31).op(I::I32ShrU)
    }

    /// Pushes 16 bytes from an address.
    pub(crate) fn load(&mut self, pointer: Local, offset: u32) -> &mut Self {
        self.get(pointer).op(I::V128Load(at(offset)))
    }

    /// Pushes the 32 bits at an address in every lane.
    pub(crate) fn load_splat(&mut self, pointer: Local, offset: u32) -> &mut Self {
        self.get(pointer).op(I::V128Load32Splat(at(offset)))
    }

    /// Pushes eight bytes widened to 16 bits each.
    pub(crate) fn load_8_wide(&mut self, pointer: Local, offset: u32, dtype: DType) -> &mut Self {
        self.get(pointer);
        self.op(match dtype {
            DType::U8 => I::V128Load8x8U(at(offset)),
            _ => I::V128Load8x8S(at(offset)),
        })
    }

    /// Pops a vector of floats and pushes it cut to limits; NaN passes.
    pub(crate) fn clamp(&mut self, low: f32, high: f32) -> &mut Self {
        // pmax(a, b) is `a < b ? b : a`, so that NaN as the first operand stays.
        if low > f32::NEG_INFINITY {
            self.floats(low).op(I::F32x4PMax);
        }
        if high < f32::INFINITY {
            self.floats(high).op(I::F32x4PMin);
        }
        self
    }

    /// Pops floats x and pushes the integers round(x) + zero, half to even, cut to `low..=high`.
    /// NaN becomes `low`. `scratch` is overwritten.
    pub(crate) fn quantize(&mut self, zero: i32, low: i32, high: i32, scratch: Local) -> &mut Self {
        // pmax(low, x) is `low < x ? x : low`: NaN becomes low, on every host.
        self.set(scratch)
            .floats((low - zero) as f32)
            .get(scratch)
            .op(I::F32x4PMax);
        self.floats((high - zero) as f32).op(I::F32x4PMin);
        self.floats(ROUNDER).op(I::F32x4Add);
        self.ints(ROUNDER.to_bits() as i32 - zero).op(I::I32x4Sub)
    }

    /// Pops one (or, `two`, two) vectors of four integers within range of `dtype` and pushes them
    /// as bytes, in the low 4 (8) lanes.
    pub(crate) fn narrow(&mut self, two: bool, dtype: DType, scratch: Local) -> &mut Self {
        if !two {
            self.op(I::LocalTee(scratch)).get(scratch);
        }
        self.op(I::I16x8NarrowI32x4S)
            .op(I::LocalTee(scratch))
            .get(scratch);
        self.op(if dtype == DType::U8 {
            I::I8x16NarrowI16x8U
        } else {
            I::I8x16NarrowI16x8S
        })
    }

    /// Stores the first `count` bytes (at most 16) of a variable, and not one more.
    pub(crate) fn store_bytes(&mut self, pointer: Local, offset: u32, vector: Local, count: usize) {
        if count == 16 {
            self.get(pointer).get(vector).op(I::V128Store(at(offset)));
            return;
        }
        let mut done = 0;
        for size in [8, 4, 2, 1] {
            if count - done < size {
                continue;
            }
            let (memarg, lane) = (at(offset + done as u32), (done / size) as u8);
            self.get(pointer).get(vector);
            self.op(match size {
                8 => I::V128Store64Lane { memarg, lane },
                4 => I::V128Store32Lane { memarg, lane },
                2 => I::V128Store16Lane { memarg, lane },
                _ => I::V128Store8Lane { memarg, lane },
            });
            done += size;
        }
    }
}
