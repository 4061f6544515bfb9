//! Working along blocks: a vector is a stretch of one block's weights.
//!
//! For formats whose levels follow from the range of their block alone. A block's range is found by vectors that run
//! along it, whose lanes are then reduced for as many blocks at once as there are lanes, so that everything that
//! exists once per block (scale, inverse, binary16) is computed with lanes as blocks, as elsewhere. The levels
//! come out along the block again, in the order in which bytes want them: nothing is transposed but one vector
//! per block.
//!
//! The order of comparisons is not the reference's. It matters only where equal numbers differ in sign, and
//! there the block is asked again in the reference's order.

use super::{MAX_LANES, Scan, Simd};
use crate::num;

/// Bit patterns from here on are infinite or NaN.
const INFINITY: i32 = 0x7f80_0000;

/// What is left of each block after its vectors were reduced to one: a row per block.
pub(crate) struct Reduced([[f32; MAX_LANES]; MAX_LANES]);

impl Reduced {
    /// Zeros.
    pub(crate) const NONE: Self = Self([[0.0; MAX_LANES]; MAX_LANES]);

    /// The rows side by side: lane l of all columns is what is left of block l.
    #[inline(always)]
    fn columns<V: Simd>(&self, v: V) -> [V::F; MAX_LANES] {
        let mut at = [0; MAX_LANES];
        for l in 0..V::N {
            at[l] = l * MAX_LANES;
        }
        let mut columns = [v.splat(0.0); MAX_LANES];
        v.load_columns(self.0.as_flattened(), &at, &mut columns[..V::N]);
        columns
    }

    /// Each block's largest magnitude; `None` when a weight is NaN or infinite. `blocks` has at most as many as
    /// there are lanes.
    #[inline(always)]
    pub(crate) fn amax<V: Simd, const W: usize>(&mut self, v: V, blocks: &[[f32; W]]) -> Option<V::F> {
        // As integers, magnitudes compare as they do as numbers, and NaN is the largest.
        let magnitude = v.splat_i(i32::MAX);
        for (block, row) in blocks.iter().zip(&mut self.0) {
            let mut most = v.splat_i(0);
            let mut i = 0;
            while i < W {
                most = v.max_i(v.bits(v.load_from(&block[i..])) & magnitude, most);
                i += V::N;
            }
            v.store_to(v.float(most), row);
        }
        let columns = self.columns(v);
        let mut most = v.splat_i(0);
        for &column in &columns[..V::N] {
            most = v.max_i(v.bits(column), most);
        }
        v.all(v.lt_i(most, v.splat_i(INFINITY))).then_some(v.float(most))
    }

    /// Each block's value of largest magnitude, with its sign ([`num::signed_max`]); `None` as above.
    #[inline(always)]
    pub(crate) fn signed_max<V: Scan, const W: usize>(&mut self, v: V, blocks: &[[f32; W]]) -> Option<V::F> {
        let (zero, magnitude) = (v.splat(0.0), v.splat_i(i32::MAX));
        for (block, row) in blocks.iter().zip(&mut self.0) {
            let mut of_most = v.load_from(block);
            let mut most = v.bits(of_most) & magnitude;
            let mut i = V::N;
            while i < W {
                let x = v.load_from(&block[i..]);
                let other = v.bits(x) & magnitude;
                of_most = v.select(v.lt_i(most, other), x, of_most);
                most = v.max_i(other, most);
                i += V::N;
            }
            v.store_to(of_most, row);
        }
        let columns = self.columns(v);
        let (mut most, mut low, mut high) = (v.splat_i(0), zero, zero);
        for &x in &columns[..V::N] {
            most = v.max_i(v.bits(x) & magnitude, most);
            low = v.min(x, low);
            high = v.max(x, high);
        }
        if !v.all(v.lt_i(most, v.splat_i(INFINITY))) {
            return None;
        }
        let below = v.neg(low);
        let max = v.select(v.lt(below, high), high, v.select(v.lt(high, below), low, zero));
        let mut both = v.lanes(v.eq(below, high) & v.lt(zero, high));
        if both == 0 {
            return Some(max);
        }
        let mut maxima = v.store(max);
        while both != 0 {
            let l = both.trailing_zeros() as usize;
            both &= both - 1;
            if let Some(block) = blocks.get(l) {
                maxima[l] = num::signed_max(block).0;
            }
        }
        Some(v.load(&maxima))
    }
}

/// Each block's least and largest value, the first of equal ones; `None` when a weight is NaN or infinite.
#[inline(always)]
pub(crate) fn range<V: Scan, const W: usize>(
    v: V,
    reduced: &mut [Reduced; 2],
    blocks: &[[f32; W]],
) -> Option<(V::F, V::F)> {
    let zero = v.splat(0.0);
    // What a number times zero gives has no bits but the sign, unless that is NaN.
    let mut bad = v.splat_i(0);
    let [lows, highs] = reduced;
    for ((block, low_row), high_row) in blocks.iter().zip(&mut lows.0).zip(&mut highs.0) {
        let mut low = v.load_from(block);
        let mut high = low;
        bad = bad | v.bits(low * zero);
        let mut i = V::N;
        while i < W {
            let x = v.load_from(&block[i..]);
            bad = bad | v.bits(x * zero);
            low = v.min(x, low);
            high = v.max(x, high);
            i += V::N;
        }
        v.store_to(low, low_row);
        v.store_to(high, high_row);
    }
    if !v.all(v.eq_i(bad & v.splat_i(i32::MAX), v.splat_i(0))) {
        return None;
    }
    let (lows, highs) = (lows.columns(v), highs.columns(v));
    let (mut low, mut high) = (lows[0], highs[0]);
    for c in 1..V::N {
        low = v.min(lows[c], low);
        high = v.max(highs[c], high);
    }
    let mut none_below = v.lanes(v.eq(low, zero));
    if none_below != 0 {
        // Zeros of either sign: the first one counts.
        let mut lows = v.store(low);
        while none_below != 0 {
            let l = none_below.trailing_zeros() as usize;
            none_below &= none_below - 1;
            if let Some(block) = blocks.get(l) {
                lows[l] = block.iter().copied().find(|&x| x == 0.0).unwrap_or(0.0);
            }
        }
        low = v.load(&lows);
    }
    Some((low, v.select(v.eq(low, high), low, high)))
}

/// Packs the low four bits of each half's bytes: byte j has them of bytes j and j + `N`.
#[inline(always)]
pub(crate) fn nibbles<const N: usize>(levels: &[[u8; N]; 2]) -> [u8; N] {
    const LOW: u64 = 0x0f0f_0f0f_0f0f_0f0f;
    let [low, high] = levels;
    let mut packed = [0; N];
    let halves = low.as_chunks::<8>().0.iter().zip(high.as_chunks::<8>().0);
    for (packed, (low, high)) in packed.as_chunks_mut::<8>().0.iter_mut().zip(halves) {
        let (low, high) = (u64::from_le_bytes(*low) & LOW, u64::from_le_bytes(*high) & LOW);
        *packed = (low | high << 4).to_le_bytes();
    }
    packed
}
