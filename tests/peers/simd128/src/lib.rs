//! The vector instructions of wasm that rten's kernels use, as native instructions of 128 bits: with it
//! in place of `std::arch::wasm32` the same kernels run without a sandbox.
//!
//! Names and meaning are those of `std::arch::wasm32`, but for what is undefined or a NaN in one of them:
//! this is a side of a benchmark, and gets the one instruction that its CPU has. It takes AVX2 and FMA
//! (their encodings, not their width).

#![cfg(all(
    target_arch = "x86_64",
    target_feature = "avx2",
    target_feature = "fma"
))]
#![allow(non_camel_case_types)]

use std::arch::x86_64::*;
use std::mem::transmute;

/// A vector of any lanes.
pub type v128 = __m128i;

/// Wraps instructions: name, arguments, and the expression that is one or a few instructions.
macro_rules! instructions {
    ($($name:ident($($arg:ident: $type:ty),*) -> $out:ty = $body:expr;)*) => {$(
        #[doc = concat!("`", stringify!($name), "` of wasm.")]
        #[inline(always)]
        pub fn $name($($arg: $type),*) -> $out {
            // SAFETY: the crate is empty unless the CPU that it is built for has these instructions.
            unsafe { $body }
        }
    )*};
}

/// The same for instructions on floats: arguments are seen as such, and the result as plain bits.
macro_rules! floats {
    ($($name:ident($($arg:ident),*) = $body:expr;)*) => {$(
        #[doc = concat!("`", stringify!($name), "` of wasm.")]
        #[inline(always)]
        pub fn $name($($arg: v128),*) -> v128 {
            // SAFETY: as in `instructions`.
            unsafe {
                $(let $arg = _mm_castsi128_ps($arg);)*
                _mm_castps_si128($body)
            }
        }
    )*};
}

/// Lane-wise shuffles: the compiler makes one instruction of the constant picks.
macro_rules! shuffles {
    ($($name:ident: $lane:ty, $lanes:literal, [$($pick:ident),*];)*) => {$(
        #[doc = concat!("`", stringify!($name), "` of wasm.")]
        #[inline(always)]
        pub fn $name<$(const $pick: usize),*>(a: v128, b: v128) -> v128 {
            // SAFETY: any bits are a vector and an array of integers of the same size.
            unsafe {
                let both: [$lane; 2 * $lanes] = transmute([a, b]);
                transmute::<[$lane; $lanes], v128>([$(both[$pick]),*])
            }
        }
    )*};
}

/// Shifts by a count that the caller knows; a lane has so many bits.
macro_rules! shifts {
    ($($name:ident: $lane:ty, $lanes:literal, $shift:ident;)*) => {$(
        #[doc = concat!("`", stringify!($name), "` of wasm.")]
        #[inline(always)]
        pub fn $name(a: v128, by: u32) -> v128 {
            // SAFETY: any bits are a vector and an array of integers of the same size.
            unsafe {
                let lanes: [$lane; $lanes] = transmute(a);
                transmute::<[$lane; $lanes], v128>(lanes.map(|lane| lane.$shift(by)))
            }
        }
    )*};
}

const NEGATIVE: f32 = -0.0;

floats! {
    f32x4_abs(a) = _mm_andnot_ps(_mm_set1_ps(NEGATIVE), a);
    f32x4_add(a, b) = _mm_add_ps(a, b);
    f32x4_div(a, b) = _mm_div_ps(a, b);
    f32x4_eq(a, b) = _mm_cmpeq_ps(a, b);
    f32x4_ge(a, b) = _mm_cmpge_ps(a, b);
    f32x4_gt(a, b) = _mm_cmpgt_ps(a, b);
    f32x4_le(a, b) = _mm_cmple_ps(a, b);
    f32x4_lt(a, b) = _mm_cmplt_ps(a, b);
    f32x4_max(a, b) = _mm_max_ps(a, b);
    f32x4_min(a, b) = _mm_min_ps(a, b);
    f32x4_mul(a, b) = _mm_mul_ps(a, b);
    f32x4_nearest(a) = _mm_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a);
    f32x4_neg(a) = _mm_xor_ps(_mm_set1_ps(NEGATIVE), a);
    f32x4_relaxed_madd(a, b, c) = _mm_fmadd_ps(a, b, c);
    f32x4_relaxed_nmadd(a, b, c) = _mm_fnmadd_ps(a, b, c);
    f32x4_sub(a, b) = _mm_sub_ps(a, b);
}

instructions! {
    f32x4(a: f32, b: f32, c: f32, d: f32) -> v128 = _mm_castps_si128(_mm_setr_ps(a, b, c, d));
    f32x4_convert_i32x4(a: v128) -> v128 = _mm_castps_si128(_mm_cvtepi32_ps(a));
    f32x4_splat(a: f32) -> v128 = _mm_castps_si128(_mm_set1_ps(a));
    // Too large gives the smallest integer here; the largest is one bit off. NaN gives 0.
    i32x4_trunc_sat_f32x4(a: v128) -> v128 = {
        let a = _mm_castsi128_ps(a);
        let number = _mm_castps_si128(_mm_cmpord_ps(a, a));
        let large = _mm_castps_si128(_mm_cmpge_ps(a, _mm_set1_ps(2_147_483_648.0)));
        _mm_and_si128(number, _mm_xor_si128(_mm_cvttps_epi32(a), large))
    };

    i8x16_add(a: v128, b: v128) -> v128 = _mm_add_epi8(a, b);
    i8x16_all_true(a: v128) -> bool = _mm_movemask_epi8(_mm_cmpeq_epi8(a, _mm_setzero_si128())) == 0;
    i8x16_eq(a: v128, b: v128) -> v128 = _mm_cmpeq_epi8(a, b);
    i8x16_ge(a: v128, b: v128) -> v128 = _mm_cmpeq_epi8(_mm_max_epi8(a, b), a);
    i8x16_gt(a: v128, b: v128) -> v128 = _mm_cmpgt_epi8(a, b);
    i8x16_neg(a: v128) -> v128 = _mm_sub_epi8(_mm_setzero_si128(), a);
    i8x16_splat(a: i8) -> v128 = _mm_set1_epi8(a);
    i8x16_sub(a: v128, b: v128) -> v128 = _mm_sub_epi8(a, b);
    u8x16_add(a: v128, b: v128) -> v128 = _mm_add_epi8(a, b);
    u8x16_eq(a: v128, b: v128) -> v128 = _mm_cmpeq_epi8(a, b);
    u8x16_ge(a: v128, b: v128) -> v128 = _mm_cmpeq_epi8(_mm_max_epu8(a, b), a);
    u8x16_gt(a: v128, b: v128) -> v128 = v128_not(_mm_cmpeq_epi8(_mm_min_epu8(a, b), a));
    u8x16_narrow_i16x8(a: v128, b: v128) -> v128 = _mm_packus_epi16(a, b);
    u8x16_splat(a: u8) -> v128 = _mm_set1_epi8(a as i8);
    u8x16_sub(a: v128, b: v128) -> v128 = _mm_sub_epi8(a, b);

    i16x8_add(a: v128, b: v128) -> v128 = _mm_add_epi16(a, b);
    i16x8_all_true(a: v128) -> bool = _mm_movemask_epi8(_mm_cmpeq_epi16(a, _mm_setzero_si128())) == 0;
    i16x8_eq(a: v128, b: v128) -> v128 = _mm_cmpeq_epi16(a, b);
    i16x8_extend_high_i8x16(a: v128) -> v128 = _mm_cvtepi8_epi16(_mm_unpackhi_epi64(a, a));
    i16x8_extend_low_i8x16(a: v128) -> v128 = _mm_cvtepi8_epi16(a);
    i16x8_extmul_high_i8x16(a: v128, b: v128) -> v128 =
        _mm_mullo_epi16(i16x8_extend_high_i8x16(a), i16x8_extend_high_i8x16(b));
    i16x8_extmul_low_i8x16(a: v128, b: v128) -> v128 =
        _mm_mullo_epi16(_mm_cvtepi8_epi16(a), _mm_cvtepi8_epi16(b));
    i16x8_ge(a: v128, b: v128) -> v128 = _mm_cmpeq_epi16(_mm_max_epi16(a, b), a);
    i16x8_gt(a: v128, b: v128) -> v128 = _mm_cmpgt_epi16(a, b);
    i16x8_mul(a: v128, b: v128) -> v128 = _mm_mullo_epi16(a, b);
    i16x8_narrow_i32x4(a: v128, b: v128) -> v128 = _mm_packs_epi32(a, b);
    i16x8_neg(a: v128) -> v128 = _mm_sub_epi16(_mm_setzero_si128(), a);
    i16x8_splat(a: i16) -> v128 = _mm_set1_epi16(a);
    i16x8_sub(a: v128, b: v128) -> v128 = _mm_sub_epi16(a, b);
    u16x8_add(a: v128, b: v128) -> v128 = _mm_add_epi16(a, b);
    u16x8_eq(a: v128, b: v128) -> v128 = _mm_cmpeq_epi16(a, b);
    u16x8_extend_high_u8x16(a: v128) -> v128 = _mm_unpackhi_epi8(a, _mm_setzero_si128());
    u16x8_extend_low_u8x16(a: v128) -> v128 = _mm_cvtepu8_epi16(a);
    u16x8_extmul_high_u8x16(a: v128, b: v128) -> v128 =
        _mm_mullo_epi16(u16x8_extend_high_u8x16(a), u16x8_extend_high_u8x16(b));
    u16x8_extmul_low_u8x16(a: v128, b: v128) -> v128 =
        _mm_mullo_epi16(_mm_cvtepu8_epi16(a), _mm_cvtepu8_epi16(b));
    u16x8_ge(a: v128, b: v128) -> v128 = _mm_cmpeq_epi16(_mm_max_epu16(a, b), a);
    u16x8_gt(a: v128, b: v128) -> v128 = v128_not(_mm_cmpeq_epi16(_mm_min_epu16(a, b), a));
    u16x8_mul(a: v128, b: v128) -> v128 = _mm_mullo_epi16(a, b);
    u16x8_splat(a: u16) -> v128 = _mm_set1_epi16(a as i16);
    u16x8_sub(a: v128, b: v128) -> v128 = _mm_sub_epi16(a, b);

    i32x4_add(a: v128, b: v128) -> v128 = _mm_add_epi32(a, b);
    i32x4_all_true(a: v128) -> bool = _mm_movemask_epi8(_mm_cmpeq_epi32(a, _mm_setzero_si128())) == 0;
    i32x4_eq(a: v128, b: v128) -> v128 = _mm_cmpeq_epi32(a, b);
    i32x4_extadd_pairwise_u16x8(a: v128) -> v128 = _mm_add_epi32(
        _mm_srli_epi32::<16>(a),
        _mm_blend_epi16::<0b1010_1010>(a, _mm_setzero_si128()),
    );
    i32x4_extend_high_i16x8(a: v128) -> v128 = _mm_cvtepi16_epi32(_mm_unpackhi_epi64(a, a));
    i32x4_extend_low_i16x8(a: v128) -> v128 = _mm_cvtepi16_epi32(a);
    i32x4_ge(a: v128, b: v128) -> v128 = _mm_cmpeq_epi32(_mm_max_epi32(a, b), a);
    i32x4_gt(a: v128, b: v128) -> v128 = _mm_cmpgt_epi32(a, b);
    i32x4_mul(a: v128, b: v128) -> v128 = _mm_mullo_epi32(a, b);
    i32x4_neg(a: v128) -> v128 = _mm_sub_epi32(_mm_setzero_si128(), a);
    i32x4_splat(a: i32) -> v128 = _mm_set1_epi32(a);
    i32x4_sub(a: v128, b: v128) -> v128 = _mm_sub_epi32(a, b);

    v128_and(a: v128, b: v128) -> v128 = _mm_and_si128(a, b);
    v128_any_true(a: v128) -> bool = _mm_testz_si128(a, a) == 0;
    // The masks are of whole lanes, as comparisons make them.
    v128_bitselect(a: v128, b: v128, mask: v128) -> v128 = _mm_blendv_epi8(b, a, mask);
    v128_not(a: v128) -> v128 = _mm_xor_si128(a, _mm_set1_epi8(-1));
    v128_or(a: v128, b: v128) -> v128 = _mm_or_si128(a, b);
    v128_xor(a: v128, b: v128) -> v128 = _mm_xor_si128(a, b);
}

shuffles! {
    i8x16_shuffle: u8, 16, [A, B, C, D, E, F, G, H, I, J, K, L, M, N, O, P];
    u8x16_shuffle: u8, 16, [A, B, C, D, E, F, G, H, I, J, K, L, M, N, O, P];
    i16x8_shuffle: u16, 8, [A, B, C, D, E, F, G, H];
    i32x4_shuffle: u32, 4, [A, B, C, D];
}

shifts! {
    i8x16_shl: u8, 16, wrapping_shl;
    i8x16_shr: i8, 16, wrapping_shr;
    u8x16_shl: u8, 16, wrapping_shl;
    u8x16_shr: u8, 16, wrapping_shr;
    i16x8_shl: u16, 8, wrapping_shl;
    i16x8_shr: i16, 8, wrapping_shr;
    u16x8_shl: u16, 8, wrapping_shl;
    u16x8_shr: u16, 8, wrapping_shr;
    i32x4_shl: u32, 4, wrapping_shl;
    i32x4_shr: i32, 4, wrapping_shr;
}

/// `f32x4_extract_lane` of wasm.
#[inline(always)]
pub fn f32x4_extract_lane<const LANE: usize>(a: v128) -> f32 {
    // SAFETY: any bits are a vector and an array of floats of the same size.
    unsafe { transmute::<v128, [f32; 4]>(a)[LANE] }
}

/// `u16x8` of wasm.
#[allow(clippy::too_many_arguments)]
#[inline(always)]
pub const fn u16x8(a: u16, b: u16, c: u16, d: u16, e: u16, f: u16, g: u16, h: u16) -> v128 {
    // SAFETY: any bits are a vector and an array of integers of the same size.
    unsafe { transmute([a, b, c, d, e, f, g, h]) }
}

/// `v128_load` of wasm.
///
/// # Safety
/// There are 16 bytes to read at `from`, aligned or not.
#[inline(always)]
pub unsafe fn v128_load(from: *const v128) -> v128 {
    // SAFETY: the caller's promise.
    unsafe { _mm_loadu_si128(from) }
}

/// `v128_store` of wasm.
///
/// # Safety
/// There are 16 bytes to write at `to`, aligned or not.
#[inline(always)]
pub unsafe fn v128_store(to: *mut v128, a: v128) {
    // SAFETY: the caller's promise.
    unsafe { _mm_storeu_si128(to, a) }
}
