//! Eight lanes of NEON, as pairs of vectors of four.
//!
//! Pairs, because the encoders of grid formats want eight lanes, and because two chains of dependent operations
//! hide more of their latency than one. The fused multiply-adds of NEON round once where the reference rounds
//! twice, so none is used.
//!
//! Every `unsafe` block here calls intrinsics of NEON. That is sound because a [`Neon`] exists only where
//! detection found it, and the vector types are made only by its methods. The loads and stores among them go
//! through pointers of slices whose length was checked in the same expression.
#![allow(unsafe_code)]

mod scan;

use super::{Codebook, MAX_LANES, Simd};
use std::arch::aarch64::{
    float32x4_t, int32x4_t, uint8x16x2_t, uint8x16x4_t, uint32x4_t, vabsq_f32, vaddq_f32, vaddq_s32,
    vandq_s32, vandq_u32, vbslq_f32, vbslq_s32, vceqq_f32, vceqq_s32, vcgeq_f32, vcleq_f32, vcltq_f32,
    vcltq_s32, vcvtq_f32_s32, vcvtq_s32_f32, vdivq_f32, vdupq_n_f32, vdupq_n_s32, vdupq_n_u32, vget_low_s16,
    vget_low_u16, vld1_s8, vld1_u8, vld1q_f32, vld1q_u8, vmaxq_s32, vmaxvq_u32, vminq_s32, vminvq_u32,
    vmlaq_u32, vmovl_high_s16, vmovl_high_u16, vmovl_s8, vmovl_s16, vmovl_u8, vmovl_u16, vmulq_f32,
    vnegq_f32, vorrq_s32, vorrq_u32, vqtbl2q_u8, vqtbl4q_u8, vreinterpretq_f32_f64, vreinterpretq_f32_s32,
    vreinterpretq_f32_u8, vreinterpretq_f64_f32, vreinterpretq_s32_f32, vreinterpretq_s32_u32,
    vreinterpretq_u8_u16, vreinterpretq_u8_u32, vreinterpretq_u16_s32, vreinterpretq_u32_s32, vrndnq_f32,
    vshlq_s32, vshlq_u32, vsqrtq_f32, vst1q_f32, vst1q_u8, vst1q_u32, vsubq_f32, vsubq_s32, vtrn1q_f32,
    vtrn1q_f64, vtrn2q_f32, vtrn2q_f64, vuzp1q_u8, vuzp1q_u16,
};
use std::ops::{Add, BitAnd, BitOr, Div, Mul, Sub};

/// Proof that this machine has NEON.
#[derive(Clone, Copy)]
pub(crate) struct Neon(());

impl Neon {
    /// Looks (the answer is cached) whether this machine has it.
    #[inline]
    pub(crate) fn detect() -> Option<Self> {
        std::arch::is_aarch64_feature_detected!("neon").then_some(Self(()))
    }
}

/// Eight `f32`, the first four first.
#[derive(Clone, Copy)]
pub(crate) struct F([float32x4_t; 2]);
/// Eight `i32`.
#[derive(Clone, Copy)]
pub(crate) struct I([int32x4_t; 2]);
/// Eight truth values: all bits of a lane, or none.
#[derive(Clone, Copy)]
pub(crate) struct M([uint32x4_t; 2]);

macro_rules! operators {
    ($($trait:ident $name:ident $type:ident $intrinsic:ident;)*) => {
        $(impl $trait for $type {
            type Output = Self;
            #[inline(always)]
            fn $name(self, other: Self) -> Self {
                // SAFETY: see the module's page.
                Self(unsafe { [$intrinsic(self.0[0], other.0[0]), $intrinsic(self.0[1], other.0[1])] })
            }
        })*
    };
}

operators! {
    Add add F vaddq_f32;
    Sub sub F vsubq_f32;
    Mul mul F vmulq_f32;
    Div div F vdivq_f32;
    Add add I vaddq_s32;
    Sub sub I vsubq_s32;
    BitAnd bitand I vandq_s32;
    BitOr bitor I vorrq_s32;
    BitAnd bitand M vandq_u32;
    BitOr bitor M vorrq_u32;
}

/// Rows to columns.
#[inline(always)]
fn transpose(r: [float32x4_t; 4]) -> [float32x4_t; 4] {
    // SAFETY: see the module's page; reached only from methods of `Neon`.
    unsafe {
        let (a, b) = (vtrn1q_f32(r[0], r[1]), vtrn2q_f32(r[0], r[1]));
        let (c, d) = (vtrn1q_f32(r[2], r[3]), vtrn2q_f32(r[2], r[3]));
        let (a, b) = (vreinterpretq_f64_f32(a), vreinterpretq_f64_f32(b));
        let (c, d) = (vreinterpretq_f64_f32(c), vreinterpretq_f64_f32(d));
        [
            vreinterpretq_f32_f64(vtrn1q_f64(a, c)),
            vreinterpretq_f32_f64(vtrn1q_f64(b, d)),
            vreinterpretq_f32_f64(vtrn2q_f64(a, c)),
            vreinterpretq_f32_f64(vtrn2q_f64(b, d)),
        ]
    }
}

/// Eight rows of eight to columns; the parts of a row are its halves.
#[inline(always)]
fn transpose_pairs(r: [[float32x4_t; 2]; 8]) -> [[float32x4_t; 2]; 8] {
    let mut out = r;
    for half in 0..2 {
        let upper = transpose([r[0][half], r[1][half], r[2][half], r[3][half]]);
        let lower = transpose([r[4][half], r[5][half], r[6][half], r[7][half]]);
        for c in 0..4 {
            out[4 * half + c] = [upper[c], lower[c]];
        }
    }
    out
}

/// Where in a table of words the bytes of the entries are that `index` counts.
#[inline(always)]
fn bytes_of(index: int32x4_t) -> std::arch::aarch64::uint8x16_t {
    // SAFETY: see the module's page; reached only from methods of `Neon`.
    unsafe {
        let index = vreinterpretq_u32_s32(index);
        vreinterpretq_u8_u32(vmlaq_u32(vdupq_n_u32(0x0302_0100), index, vdupq_n_u32(0x0404_0404)))
    }
}

/// The entries at indices that are all below eight.
#[inline(always)]
fn of_eight(table: &[f32; 8], index: int32x4_t) -> float32x4_t {
    let at = table.as_ptr();
    // SAFETY: see the module's page; the table has twice four entries.
    unsafe {
        let table = uint8x16x2_t(vld1q_u8(at.cast()), vld1q_u8(at.add(4).cast()));
        vreinterpretq_f32_u8(vqtbl2q_u8(table, bytes_of(index)))
    }
}

/// The entries at indices that are all below sixteen.
#[inline(always)]
fn of_sixteen(table: &[f32; 16], index: int32x4_t) -> float32x4_t {
    let at = table.as_ptr();
    // SAFETY: see the module's page; the table has four times four entries.
    unsafe {
        let table = uint8x16x4_t(
            vld1q_u8(at.cast()),
            vld1q_u8(at.add(4).cast()),
            vld1q_u8(at.add(8).cast()),
            vld1q_u8(at.add(12).cast()),
        );
        vreinterpretq_f32_u8(vqtbl4q_u8(table, bytes_of(index)))
    }
}

/// `x >= threshold` as -1 or 0.
#[inline(always)]
fn minus_one_from(x: float32x4_t, threshold: float32x4_t) -> int32x4_t {
    // SAFETY: see the module's page; reached only from methods of `Neon`.
    unsafe { vreinterpretq_s32_u32(vcgeq_f32(x, threshold)) }
}

/// For each method, what it does with one half of its operands.
macro_rules! methods {
    ($($name:ident($($arg:ident: $type:ident),*) -> $out:ident = $result:expr;)*) => {
        $(#[inline(always)]
        fn $name(self, $($arg: $type),*) -> $out {
            $(let $arg = $arg.0;)*
            // SAFETY: see the module's page.
            $out(unsafe { [{ $(let $arg = $arg[0];)* $result }, { $(let $arg = $arg[1];)* $result }] })
        })*
    };
}

impl Simd for Neon {
    const N: usize = 8;
    type F = F;
    type I = I;
    type M = M;

    methods! {
        // Not vminq and vmaxq: those order zeros by their sign and prefer NaN.
        min(a: F, b: F) -> F = vbslq_f32(vcltq_f32(a, b), a, b);
        max(a: F, b: F) -> F = vbslq_f32(vcltq_f32(b, a), a, b);
        abs(a: F) -> F = vabsq_f32(a);
        neg(a: F) -> F = vnegq_f32(a);
        sqrt(a: F) -> F = vsqrtq_f32(a);
        round(a: F) -> F = vrndnq_f32(a);
        lt(a: F, b: F) -> M = vcltq_f32(a, b);
        le(a: F, b: F) -> M = vcleq_f32(a, b);
        eq(a: F, b: F) -> M = vceqq_f32(a, b);
        select(m: M, a: F, b: F) -> F = vbslq_f32(m, a, b);
        select_i(m: M, a: I, b: I) -> I = vbslq_s32(m, a, b);
        bits(a: F) -> I = vreinterpretq_s32_f32(a);
        float(a: I) -> F = vreinterpretq_f32_s32(a);
        // The conversion makes zero of NaN, and the largest integer of what is larger: neither is below 2^31.
        trunc(a: F) -> I = vbslq_s32(
            vcltq_f32(a, vdupq_n_f32(2_147_483_648.0)), vcvtq_s32_f32(a), vdupq_n_s32(i32::MIN));
        to_f(a: I) -> F = vcvtq_f32_s32(a);
        min_i(a: I, b: I) -> I = vminq_s32(a, b);
        max_i(a: I, b: I) -> I = vmaxq_s32(a, b);
        lt_i(a: I, b: I) -> M = vcltq_s32(a, b);
        eq_i(a: I, b: I) -> M = vceqq_s32(a, b);
    }

    #[inline(always)]
    fn splat(self, x: f32) -> F {
        // SAFETY: see the module's page.
        F(unsafe { [vdupq_n_f32(x); 2] })
    }

    #[inline(always)]
    fn splat_i(self, x: i32) -> I {
        // SAFETY: see the module's page.
        I(unsafe { [vdupq_n_s32(x); 2] })
    }

    #[inline(always)]
    fn shl(self, a: I, by: u32) -> I {
        // SAFETY: see the module's page.
        I(unsafe {
            let by = vdupq_n_s32(by as i32);
            [vshlq_s32(a.0[0], by), vshlq_s32(a.0[1], by)]
        })
    }

    /// NEON shifts right by shifting left by less than nothing.
    #[inline(always)]
    fn shr(self, a: I, by: u32) -> I {
        // SAFETY: see the module's page.
        I(unsafe {
            let by = vdupq_n_s32(-(by as i32));
            let [low, high] = [vreinterpretq_u32_s32(a.0[0]), vreinterpretq_u32_s32(a.0[1])];
            [vreinterpretq_s32_u32(vshlq_u32(low, by)), vreinterpretq_s32_u32(vshlq_u32(high, by))]
        })
    }

    #[inline(always)]
    fn any(self, m: M) -> bool {
        // SAFETY: see the module's page.
        unsafe { vmaxvq_u32(vorrq_u32(m.0[0], m.0[1])) != 0 }
    }

    #[inline(always)]
    fn all(self, m: M) -> bool {
        // SAFETY: see the module's page.
        unsafe { vminvq_u32(vandq_u32(m.0[0], m.0[1])) != 0 }
    }

    #[inline(always)]
    fn load(self, x: &[f32; MAX_LANES]) -> F {
        // SAFETY: see the module's page; there are sixteen numbers.
        F(unsafe { [vld1q_f32(x.as_ptr()), vld1q_f32(x[4..].as_ptr())] })
    }

    #[inline(always)]
    fn load_from(self, x: &[f32]) -> F {
        let (low, high) = x[..8].split_at(4);
        // SAFETY: see the module's page; both halves have four numbers.
        F(unsafe { [vld1q_f32(low.as_ptr()), vld1q_f32(high.as_ptr())] })
    }

    #[inline(always)]
    fn store(self, x: F) -> [f32; MAX_LANES] {
        let mut out = [0.0; MAX_LANES];
        self.store_to(x, &mut out);
        out
    }

    #[inline(always)]
    fn load_bytes(self, bytes: &[u8]) -> I {
        // SAFETY: see the module's page.
        I(unsafe {
            let words = vmovl_u8(vld1_u8(bytes[..8].as_ptr()));
            let [low, high] = [vmovl_u16(vget_low_u16(words)), vmovl_high_u16(words)];
            [vreinterpretq_s32_u32(low), vreinterpretq_s32_u32(high)]
        })
    }

    #[inline(always)]
    fn load_signed_bytes(self, bytes: &[u8]) -> I {
        // SAFETY: see the module's page.
        I(unsafe {
            let words = vmovl_s8(vld1_s8(bytes[..8].as_ptr().cast()));
            [vmovl_s16(vget_low_s16(words)), vmovl_high_s16(words)]
        })
    }

    /// Every even half word, and of those every even byte: little-endian order makes them the lowest.
    #[inline(always)]
    fn to_bytes(self, x: &[I]) -> [u8; 32] {
        let mut bytes = [0; 32];
        let pairs = x[..4].as_chunks::<2>().0.iter();
        for (bytes, [a, b]) in bytes.as_chunks_mut::<16>().0.iter_mut().zip(pairs) {
            // SAFETY: see the module's page; there are sixteen bytes.
            unsafe {
                let a = vuzp1q_u16(vreinterpretq_u16_s32(a.0[0]), vreinterpretq_u16_s32(a.0[1]));
                let b = vuzp1q_u16(vreinterpretq_u16_s32(b.0[0]), vreinterpretq_u16_s32(b.0[1]));
                let lowest = vuzp1q_u8(vreinterpretq_u8_u16(a), vreinterpretq_u8_u16(b));
                vst1q_u8(bytes.as_mut_ptr(), lowest);
            }
        }
        bytes
    }

    #[inline(always)]
    fn store_to(self, x: F, out: &mut [f32]) {
        let (low, high) = out[..8].split_at_mut(4);
        // SAFETY: see the module's page; both halves have four numbers.
        unsafe {
            vst1q_f32(low.as_mut_ptr(), x.0[0]);
            vst1q_f32(high.as_mut_ptr(), x.0[1]);
        }
    }

    #[inline(always)]
    fn look_up(self, table: &[f32; 16], index: I) -> F {
        let index = index & self.splat_i(15);
        F([of_sixteen(table, index.0[0]), of_sixteen(table, index.0[1])])
    }

    /// Binary search: the comparisons' masks, which are -1, make the index bit by bit.
    #[inline(always)]
    fn nearest(self, book: &Codebook, x: F) -> F {
        let t = &book.thresholds;
        let mut out = x.0;
        for half in 0..2 {
            let x = x.0[half];
            // SAFETY: see the module's page.
            out[half] = unsafe {
                let first = vcgeq_f32(x, vdupq_n_f32(t[7]));
                let second = vbslq_f32(first, vdupq_n_f32(t[11]), vdupq_n_f32(t[3]));
                let (first, second) = (vreinterpretq_s32_u32(first), minus_one_from(x, second));
                let minus = vaddq_s32(vaddq_s32(first, first), second);
                let index = vsubq_s32(vdupq_n_s32(0), minus);
                let third = minus_one_from(x, of_eight(&book.third, index));
                let index = vsubq_s32(vaddq_s32(index, index), third);
                let fourth = minus_one_from(x, of_eight(&book.fourth, index));
                of_sixteen(&book.entries, vsubq_s32(vaddq_s32(index, index), fourth))
            };
        }
        F(out)
    }

    #[inline(always)]
    fn load_columns(self, x: &[f32], at: &[usize; MAX_LANES], out: &mut [F]) {
        let mut rows = [self.splat(0.0).0; 8];
        for l in 0..8 {
            rows[l] = self.load_from(&x[at[l]..]).0;
        }
        let columns = transpose_pairs(rows);
        let out = &mut out[..8];
        for c in 0..8 {
            out[c] = F(columns[c]);
        }
    }

    #[inline(always)]
    fn store_columns(self, words: &[I], out: &mut [u32], stride: usize) {
        let words = &words[..8];
        let mut columns = [self.splat(0.0).0; 8];
        for c in 0..8 {
            columns[c] = self.float(words[c]).0;
        }
        let rows = transpose_pairs(columns);
        for l in 0..8 {
            let (low, high) = out[l * stride..][..8].split_at_mut(4);
            let [first, second] = self.bits(F(rows[l])).0;
            // SAFETY: see the module's page; both halves have four words.
            unsafe {
                vst1q_u32(low.as_mut_ptr(), vreinterpretq_u32_s32(first));
                vst1q_u32(high.as_mut_ptr(), vreinterpretq_u32_s32(second));
            }
        }
    }
}
