//! [`crate::superblock`] over lanes: each lane holds one super-block.

use crate::lanes::{Batch, Rows, Simd, exact_level, f16_bits, f16_value, nearest_int, sum_of_squares};
use crate::num::read_f16;
use crate::search::Candidates;
use crate::search::lanes::{AffineFit, fit_affine, fit_positive, importance_weights, total};
use crate::superblock::{self, AffineKind, WEIGHTS};

/// [`crate::superblock::requantize_affine`] of one group: levels with the scale and offset that decoding will
/// use, or the search's own where that scale vanished.
#[inline(always)]
pub(crate) fn requantize_affine<V: Simd, const N: usize>(
    v: V,
    x: &[V::F; N],
    fit: AffineFit<V>,
    scale: V::F,
    offset: V::F,
    max_level: i32,
    levels: &mut [V::I; N],
) {
    let vanished = v.eq(scale, v.splat(0.0));
    if v.any(vanished) {
        for i in 0..N {
            let kept = fit.level(v, x[i], max_level);
            let again = exact_level(v, (x[i] + offset) / scale, 0, max_level);
            levels[i] = v.select_i(vanished, kept, again);
        }
    } else {
        for i in 0..N {
            levels[i] = exact_level(v, (x[i] + offset) / scale, 0, max_level);
        }
    }
}

/// Level of [`crate::superblock::requantize_symmetric`], in `0..2 * half`. Wants a scale that is not zero.
#[inline(always)]
pub(crate) fn symmetric_level<V: Simd>(v: V, x: V::F, scale: V::F, half: i32) -> V::I {
    exact_level(v, x / scale, -half, half - 1) + v.splat_i(half)
}

/// Adds a byte per lane to the words of a block, at byte `at`.
#[inline(always)]
pub(crate) fn put_byte<V: Simd>(v: V, words: &mut [V::I], at: usize, byte: V::I) {
    words[at / 4] = words[at / 4] | v.shl(byte, 8 * (at as u32 % 4));
}

/// [`crate::superblock::pack_two_bits`], from byte `at` on. Levels have two bits.
#[inline(always)]
pub(crate) fn pack_two_bits<V: Simd>(v: V, levels: &[V::I; WEIGHTS], words: &mut [V::I], at: usize) {
    for half in 0..2 {
        let levels = &levels[128 * half..][..128];
        for l in 0..32 {
            let (a, b) =
                (levels[l] | v.shl(levels[l + 32], 2), v.shl(levels[l + 64], 4) | v.shl(levels[l + 96], 6));
            put_byte(v, words, at + 32 * half + l, a | b);
        }
    }
}

/// The largest value, zero when none is positive ([`crate::superblock::largest`]).
#[inline(always)]
pub(crate) fn largest<V: Simd>(v: V, values: &[V::F]) -> V::F {
    let mut max = v.splat(0.0);
    for &value in values {
        max = v.max(value, max);
    }
    max
}

/// Rounds to levels of which the largest value gets `top`, cut to bytes, not yet clamped.
#[inline(always)]
pub(crate) fn levels_of_largest<V: Simd, const K: usize>(
    v: V,
    values: &[V::F; K],
    max: V::F,
    top: f32,
) -> [V::I; K] {
    let positive = v.lt(v.splat(0.0), max);
    let inverse = v.select(positive, v.splat(top) / max, v.splat(0.0));
    let mut levels = [v.splat_i(0); K];
    for i in 0..K {
        levels[i] = nearest_int(v, inverse * values[i]) & v.splat_i(255);
    }
    levels
}

/// The words of `d` and `dmin`, and of the packed scales ([`crate::superblock`]'s `pack_six_bits`).
#[inline(always)]
fn pack_head<V: Simd>(v: V, d: V::I, dmin: V::I, s: &[V::I; 8], o: &[V::I; 8], words: &mut [V::I]) {
    // Bytes that spill beyond their own eight bits are cut, as a byte's shift cuts them.
    let byte = v.splat_i(255);
    words[0] = d | v.shl(dmin, 16);
    for w in 1..4 {
        words[w] = v.splat_i(0);
    }
    for j in 0..4 {
        let at = 8 * j as u32;
        let scale = s[j] | (v.shl(v.shr(s[j + 4], 4), 6) & byte);
        let offset = o[j] | (v.shl(v.shr(o[j + 4], 4), 6) & byte);
        let low = (s[j + 4] & v.splat_i(15)) | (v.shl(o[j + 4], 4) & byte);
        words[1] = words[1] | v.shl(scale, at);
        words[2] = words[2] | v.shl(offset, at);
        words[3] = words[3] | v.shl(low, at);
    }
}

/// Scale and offset of group `j` out of the packed words ([`crate::superblock::six_bits`]).
#[inline(always)]
fn six_bits<V: Simd>(v: V, words: &[V::I], j: usize) -> (V::I, V::I) {
    let at = 8 * (j % 4) as u32;
    let (first, second) = (v.shr(words[1], at), v.shr(words[2], at));
    if j < 4 {
        return (first & v.splat_i(63), second & v.splat_i(63));
    }
    let low = v.shr(words[3], at);
    let high = v.splat_i(3 << 4);
    (
        (low & v.splat_i(15)) | (v.shr(first, 2) & high),
        (v.shr(low, 4) & v.splat_i(15)) | (v.shr(second, 2) & high),
    )
}

/// Encodes rows of Q4_K or Q5_K up to the levels; `pack` is left to the caller, a batch at a time.
pub(crate) struct AffineScratch<V: Simd> {
    pub(crate) x: [[V::F; 32]; 8],
    pub(crate) weights: [[V::F; 32]; 8],
    pub(crate) levels: [[V::I; 32]; 8],
}

impl<V: Simd> AffineScratch<V> {
    #[inline(always)]
    pub(crate) fn new(v: V) -> Self {
        let zero = [[v.splat(0.0); 32]; 8];
        Self { x: zero, weights: zero, levels: [[v.splat_i(0); 32]; 8] }
    }
}

/// One batch of [`crate::superblock::encode_affine`]: fills `scratch.levels` and the first four words.
#[inline(always)]
pub(crate) fn encode_affine<V: Simd, const IMPORTANCE: bool>(
    v: V,
    kind: &AffineKind,
    rows: &Rows<'_>,
    batch: &Batch,
    scratch: &mut AffineScratch<V>,
    words: &mut [V::I],
) {
    const U: usize = 4;
    let AffineScratch { x, weights, levels } = scratch;
    batch.load(v, rows, x.as_flattened_mut());
    let zero = v.splat(0.0);
    let mut sums = [zero; 8];
    if IMPORTANCE {
        batch.load_importance(v, rows.importance.unwrap_or_default(), weights.as_flattened_mut());
        let sigma2 = v.splat(2.0) * sum_of_squares(v, x.as_flattened()) / v.splat(WEIGHTS as f32);
        importance_weights(v, x.as_flattened(), weights.as_flattened_mut(), sigma2);
        for j in 0..8 {
            sums[j] = total(v, &weights[j]);
        }
    } else {
        for j in 0..8 {
            let mean = v.sqrt(sum_of_squares(v, &x[j]) / v.splat(32.0));
            for i in 0..32 {
                weights[j][i] = mean + v.abs(x[j][i]);
            }
        }
    }

    let candidates = if IMPORTANCE { Candidates::WITH_IMPORTANCE } else { kind.plain };
    let mut fits = [AffineFit::<V> { scale: zero, offset: zero, inverse: zero, base: zero }; 8];
    let groups = x.as_chunks::<U>().0.iter().zip(weights.as_chunks::<U>().0);
    for ((x, w), fits) in groups.zip(fits.as_chunks_mut::<U>().0) {
        *fits = fit_affine::<V, 32, U, false>(v, x, w, kind.max_level, candidates);
    }
    let (mut scales, mut offsets) = ([zero; 8], [zero; 8]);
    for j in 0..8 {
        scales[j] = fits[j].scale;
        offsets[j] = fits[j].offset;
    }

    let (d, dmin, mut s, mut o);
    if IMPORTANCE {
        (s, o) = ([v.splat_i(0); 8], [v.splat_i(0); 8]);
        d = fit_positive(v, &scales, &sums, 63, &mut s);
        dmin = fit_positive(v, &offsets, &sums, 63, &mut o);
    } else {
        let (max_scale, max_offset) = (largest(v, &scales), largest(v, &offsets));
        s = levels_of_largest(v, &scales, max_scale, 63.0);
        o = levels_of_largest(v, &offsets, max_offset, 63.0);
        d = max_scale / v.splat(63.0);
        dmin = max_offset / v.splat(63.0);
    }
    if kind.clamp || !IMPORTANCE {
        for j in 0..8 {
            s[j] = v.min_i(s[j], v.splat_i(63));
            o[j] = v.min_i(o[j], v.splat_i(63));
        }
    }
    let (d, dmin) = (f16_bits(v, d), f16_bits(v, dmin));
    pack_head(v, d, dmin, &s, &o, words);
    let (d, dmin) = (f16_value(v, d), f16_value(v, dmin));
    for j in 0..8 {
        let (scale, offset) = six_bits(v, words, j);
        let (scale, offset) = (d * v.to_f(scale), dmin * v.to_f(offset));
        requantize_affine(v, &x[j], fits[j], scale, offset, kind.max_level, &mut levels[j]);
    }
}

/// Decodes Q4_K, and with `FIFTH` Q5_K, whose levels' highest bits stand before the nibbles.
#[inline(always)]
pub(crate) fn decode_affine<V: Simd, const BYTES: usize, const FIFTH: bool>(
    v: V,
    blocks: &[u8],
    out: &mut [f32],
) {
    const HIGH: usize = 16;
    let nibbles = if FIFTH { HIGH + 32 } else { HIGH };
    for (block, yb) in blocks.as_chunks::<BYTES>().0.iter().zip(out.as_chunks_mut::<WEIGHTS>().0) {
        let (d, dmin) = (read_f16(block), read_f16(&block[2..]));
        for (j, yg) in yb.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            let (scale, offset) = superblock::six_bits(&block[4..16], j);
            let scale = v.splat(d * f32::from(scale));
            let offset = v.splat(dmin * f32::from(offset));
            let bytes = &block[nibbles + j / 2 * 32..][..32];
            let mut l = 0;
            while l < 32 {
                let mut level = v.shr(v.load_bytes(&bytes[l..]), j as u32 % 2 * 4) & v.splat_i(15);
                if FIFTH {
                    let high = v.shr(v.load_bytes(&block[HIGH + l..]), j as u32) & v.splat_i(1);
                    level = level | v.shl(high, 4);
                }
                v.store_to(scale * v.to_f(level) - offset, &mut yg[l..]);
                l += V::N;
            }
        }
    }
}
