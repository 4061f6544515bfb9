//! Vectors whose lanes are blocks: the operations that lane-generic encoders are written in, and one
//! implementation per instruction set.
//!
//! An encoder written over [`Simd`] transposes as many blocks as there are lanes, and every lane then runs the
//! scalar reference's operation sequence for its own block: same operations, same order, same operand order of
//! minima and maxima, no fused multiply-add. So each lane computes the reference's bytes, and one description of
//! an algorithm serves every instruction set.
//!
//! Formats without a search, whose levels follow from the range of their block, go the other way where they can: `along`
//! has vectors run along a block, and makes lanes blocks only for what exists once per block.
//!
//! Two rules keep it fast, for the compiler breaks neither loudly. Everything generic over [`Simd`] is
//! `#[inline(always)]`, down from the one function per instruction set that `stamp` gives its target features;
//! and there are no closures in generic code. A function or closure that stays outside compiles each intrinsic
//! to a call, and everything to a fiftieth of its speed.
//!
//! Must not know any format.

mod along;
mod arith;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod batch;
mod codebook;
#[cfg(test)]
mod contract;
mod job;
#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;
mod scan;
pub(crate) mod stamp;

pub(crate) use along::{Reduced, nibbles, range};
pub(crate) use arith::{
    as_i8, clamped_level, exact_level, f16_bits, f16_value, lane_bits, nearest_int, reciprocal_or_zero,
    round_away, signed_max, sum_of_squares,
};
pub(crate) use batch::{Batch, Rows, row_mean_squares};
pub(crate) use codebook::Codebook;
pub(crate) use job::{Job, run_at, try_at};
#[cfg(target_arch = "aarch64")]
pub(crate) use neon::Neon;
pub(crate) use portable::Portable;
pub(crate) use scan::Scan;
pub(crate) use stamp::{stamp, stamp_decoders};
#[cfg(target_arch = "x86_64")]
pub(crate) use {avx2::Avx2, avx512::Avx512};

use std::ops::{Add, BitAnd, BitOr, Div, Mul, Sub};

/// The most lanes that any implementation has.
pub(crate) const MAX_LANES: usize = 16;

/// One instruction set. A value is the proof that this machine has it: only detection makes one, so its methods
/// and the operators of its vectors are safe.
pub(crate) trait Simd: Copy {
    /// Lanes.
    const N: usize;
    /// One `f32` per lane.
    type F: Copy
        + Add<Output = Self::F>
        + Sub<Output = Self::F>
        + Mul<Output = Self::F>
        + Div<Output = Self::F>;
    /// One `i32` per lane; sums and differences wrap.
    type I: Copy
        + Add<Output = Self::I>
        + Sub<Output = Self::I>
        + BitAnd<Output = Self::I>
        + BitOr<Output = Self::I>;
    /// One truth value per lane.
    type M: Copy + BitAnd<Output = Self::M> + BitOr<Output = Self::M>;

    /// The same number in every lane.
    fn splat(self, x: f32) -> Self::F;
    /// The same integer in every lane.
    fn splat_i(self, x: i32) -> Self::I;

    /// The first `N` of the numbers.
    fn load(self, x: &[f32; MAX_LANES]) -> Self::F;
    /// The first `N` of any numbers.
    #[inline(always)]
    fn load_from(self, x: &[f32]) -> Self::F {
        let mut first = [0.0; MAX_LANES];
        first[..Self::N].copy_from_slice(&x[..Self::N]);
        self.load(&first)
    }
    /// The lanes' numbers, first of all.
    fn store(self, x: Self::F) -> [f32; MAX_LANES];
    /// Reads `N` columns of as many rows: `out[c]` has `x[at[l] + c]` in lane `l`. `out` has `N` vectors.
    fn load_columns(self, x: &[f32], at: &[usize; MAX_LANES], out: &mut [Self::F]);
    /// Writes `N` columns, `words[c]` holding one word of each row, to `out[l * stride + c]`.
    fn store_columns(self, words: &[Self::I], out: &mut [u32], stride: usize);

    /// `a < b ? a : b`: the second operand when they are equal.
    fn min(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a > b ? a : b`: the second operand when they are equal.
    fn max(self, a: Self::F, b: Self::F) -> Self::F;
    /// Clears the sign.
    fn abs(self, a: Self::F) -> Self::F;
    /// Flips the sign.
    fn neg(self, a: Self::F) -> Self::F;
    /// Square root, correctly rounded.
    fn sqrt(self, a: Self::F) -> Self::F;
    /// To an integral value, ties to even.
    fn round(self, a: Self::F) -> Self::F;
    /// `a < b`, false for NaN.
    fn lt(self, a: Self::F, b: Self::F) -> Self::M;
    /// `a <= b`, false for NaN.
    fn le(self, a: Self::F, b: Self::F) -> Self::M;
    /// `a == b`, false for NaN.
    fn eq(self, a: Self::F, b: Self::F) -> Self::M;
    /// `m ? a : b`.
    fn select(self, m: Self::M, a: Self::F, b: Self::F) -> Self::F;
    /// `m ? a : b`.
    fn select_i(self, m: Self::M, a: Self::I, b: Self::I) -> Self::I;
    /// Whether any lane is true.
    fn any(self, m: Self::M) -> bool;
    /// Whether all lanes are true.
    fn all(self, m: Self::M) -> bool;

    /// The bit patterns.
    fn bits(self, a: Self::F) -> Self::I;
    /// From bit patterns.
    fn float(self, a: Self::I) -> Self::F;
    /// Towards zero; `i32::MIN` for NaN and whatever does not fit.
    fn trunc(self, a: Self::F) -> Self::I;
    /// To the nearest `f32`.
    fn to_f(self, a: Self::I) -> Self::F;
    /// `a << by`.
    fn shl(self, a: Self::I, by: u32) -> Self::I;
    /// `a >> by`, zeros coming in.
    fn shr(self, a: Self::I, by: u32) -> Self::I;
    /// Signed minimum.
    fn min_i(self, a: Self::I, b: Self::I) -> Self::I;
    /// Signed maximum.
    fn max_i(self, a: Self::I, b: Self::I) -> Self::I;
    /// Signed `a < b`.
    fn lt_i(self, a: Self::I, b: Self::I) -> Self::M;
    /// `a == b`.
    fn eq_i(self, a: Self::I, b: Self::I) -> Self::M;
    /// `N` bytes.
    fn load_bytes(self, bytes: &[u8]) -> Self::I;
    /// `N` bytes, with their signs.
    #[inline(always)]
    fn load_signed_bytes(self, bytes: &[u8]) -> Self::I {
        arith::as_i8(self, self.load_bytes(bytes))
    }
    /// The lowest bytes of all lanes of the first `32 / N` vectors.
    #[inline(always)]
    fn to_bytes(self, x: &[Self::I]) -> [u8; 32] {
        let mut bytes = [0; 32];
        for (part, &x) in bytes.chunks_exact_mut(Self::N).zip(x) {
            for (byte, x) in part.iter_mut().zip(self.store(self.float(x))) {
                *byte = x.to_bits() as u8;
            }
        }
        bytes
    }
    /// Writes `N` numbers.
    fn store_to(self, x: Self::F, out: &mut [f32]);
    /// The table's entries at indices 0..16, of which only the low four bits count.
    fn look_up(self, table: &[f32; 16], index: Self::I) -> Self::F;
    /// What stands in `book` for the entry nearest to x, where |x| is at most the reach of its bins.
    fn nearest(self, book: &Codebook, x: Self::F) -> Self::F;
}
