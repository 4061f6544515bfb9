//! Q4_0, Q4_1, Q5_0, Q5_1 and Q8_0 over lanes.

use crate::lanes::{
    Batch, Rows, Simd, amax, as_i8, f16_bits, lane_bits, reciprocal_or_zero, round_away, row_mean_squares,
    signed_max, stamp, stamp_decoders,
};
use crate::num::read_f16;
use crate::search::Candidates;
use crate::search::lanes::{fit_affine, fit_symmetric, importance_weights};
use crate::superblock_lanes::put_byte;

stamp! {
    encode_q4_0 = encode_q4_0;
    encode_q4_1 = encode_q4_1;
    encode_q5_0 = encode_q5_0;
    encode_q5_1 = encode_q5_1;
    encode_q8_0 = encode_q8_0;
}

stamp_decoders! {
    plain decode_q8_0 = reference::decode_q8_0;
    lanes decode_q4_0 = decode_q4_0;
    lanes decode_q4_1 = decode_q4_1;
    lanes decode_q5_0 = decode_q5_0;
    lanes decode_q5_1 = decode_q5_1;
}

#[inline(always)]
pub(crate) fn encode_q4_0<V: Simd>(v: V, rows: Rows<'_>, out: &mut [u8]) {
    if rows.importance.is_some() {
        weighted_symmetric::<V, 8, 18>(v, &rows, out);
    } else {
        plain_symmetric::<V, 8, 18>(v, &rows, out);
    }
}

#[inline(always)]
pub(crate) fn encode_q5_0<V: Simd>(v: V, rows: Rows<'_>, out: &mut [u8]) {
    if rows.importance.is_some() {
        weighted_symmetric::<V, 16, 22>(v, &rows, out);
    } else {
        plain_symmetric::<V, 16, 22>(v, &rows, out);
    }
}

#[inline(always)]
pub(crate) fn encode_q4_1<V: Simd>(v: V, rows: Rows<'_>, out: &mut [u8]) {
    if rows.importance.is_some() {
        weighted_affine::<V, 15, 20>(v, &rows, out);
    } else {
        plain_affine::<V, 15, 20>(v, &rows, out);
    }
}

#[inline(always)]
pub(crate) fn encode_q5_1<V: Simd>(v: V, rows: Rows<'_>, out: &mut [u8]) {
    if rows.importance.is_some() {
        weighted_affine::<V, 31, 24>(v, &rows, out);
    } else {
        plain_affine::<V, 31, 24>(v, &rows, out);
    }
}

/// Groups that go through a search together.
const U: usize = 2;

/// Puts levels of four or five bits from byte `at` on, the fifth bits first.
#[inline(always)]
fn pack<V: Simd>(v: V, levels: &[V::I; 32], five: bool, words: &mut [V::I], at: usize) {
    let nibbles = if five { at + 4 } else { at };
    for j in 0..16 {
        let (low, high) = (levels[j] & v.splat_i(15), levels[j + 16] & v.splat_i(15));
        put_byte(v, words, nibbles + j, low | v.shl(high, 4));
    }
    if five {
        for i in 0..32 {
            put_byte(v, words, at + i / 8, v.shl(v.shr(levels[i], 4) & v.splat_i(1), i as u32 % 8));
        }
    }
}

/// The weights and the weights of their errors.
#[inline(always)]
fn load<V: Simd>(
    v: V,
    rows: &Rows<'_>,
    batch: &Batch,
    mean_squares: &[f32],
    x: &mut [V::F; 32],
    weights: &mut [V::F; 32],
) {
    batch.load(v, rows, x);
    batch.load_importance(v, rows.importance.unwrap_or_default(), weights);
    importance_weights(v, x, weights, batch.of_row(v, rows, mean_squares));
}

#[inline(always)]
fn weighted_symmetric<V: Simd, const HALF: i32, const BYTES: usize>(v: V, rows: &Rows<'_>, out: &mut [u8]) {
    let mean_squares = row_mean_squares(v, rows);
    let mut x = [[v.splat(0.0); 32]; U];
    let mut weights = x;
    let mut first = 0;
    while let Some(batches) = Batch::several::<V, U>(v, rows, 32, first) {
        for u in 0..U {
            load(v, rows, &batches[u], &mean_squares, &mut x[u], &mut weights[u]);
        }
        let fits = fit_symmetric::<V, 32, U, false>(v, &x, &weights, HALF);
        for u in 0..U {
            let mut words = [v.splat_i(0); 16];
            let mut levels = [v.splat_i(0); 32];
            words[0] = f16_bits(v, fits[u].scale);
            for i in 0..32 {
                levels[i] = fits[u].level(v, x[u][i], HALF);
            }
            pack(v, &levels, HALF == 16, &mut words, 2);
            batches[u].store::<V, BYTES, _>(v, &words, out);
        }
        first += U * V::N;
    }
}

#[inline(always)]
fn weighted_affine<V: Simd, const TOP: i32, const BYTES: usize>(v: V, rows: &Rows<'_>, out: &mut [u8]) {
    let mean_squares = row_mean_squares(v, rows);
    let mut x = [[v.splat(0.0); 32]; U];
    let mut weights = x;
    let mut first = 0;
    while let Some(batches) = Batch::several::<V, U>(v, rows, 32, first) {
        for u in 0..U {
            load(v, rows, &batches[u], &mean_squares, &mut x[u], &mut weights[u]);
        }
        let fits = fit_affine::<V, 32, U, false>(v, &x, &weights, TOP, Candidates::WITH_IMPORTANCE);
        for u in 0..U {
            let mut words = [v.splat_i(0); 16];
            let mut levels = [v.splat_i(0); 32];
            words[0] = f16_bits(v, fits[u].scale) | v.shl(f16_bits(v, v.neg(fits[u].offset)), 16);
            for i in 0..32 {
                levels[i] = fits[u].level(v, x[u][i], TOP);
            }
            pack(v, &levels, TOP == 31, &mut words, 4);
            batches[u].store::<V, BYTES, _>(v, &words, out);
        }
        first += U * V::N;
    }
}

#[inline(always)]
fn plain_symmetric<V: Simd, const HALF: i32, const BYTES: usize>(v: V, rows: &Rows<'_>, out: &mut [u8]) {
    let mut x = [v.splat(0.0); 32];
    let mut first = 0;
    while let Some(batch) = Batch::at(v, rows, 32, first) {
        batch.load(v, rows, &mut x);
        let scale = signed_max(v, &x).0 / v.splat(-HALF as f32);
        let inverse = reciprocal_or_zero(v, scale);
        let mut words = [v.splat_i(0); 16];
        let mut levels = [v.splat_i(0); 32];
        words[0] = f16_bits(v, scale);
        for i in 0..32 {
            let cut = as_i8(v, v.trunc(x[i] * inverse + v.splat(HALF as f32 + 0.5)));
            levels[i] = v.min_i(cut, v.splat_i(2 * HALF - 1));
        }
        pack(v, &levels, HALF == 16, &mut words, 2);
        batch.store::<V, BYTES, _>(v, &words, out);
        first += V::N;
    }
}

#[inline(always)]
fn plain_affine<V: Simd, const TOP: i32, const BYTES: usize>(v: V, rows: &Rows<'_>, out: &mut [u8]) {
    let mut x = [v.splat(0.0); 32];
    let mut first = 0;
    while let Some(batch) = Batch::at(v, rows, 32, first) {
        batch.load(v, rows, &mut x);
        let (mut min, mut max) = (v.splat(f32::MAX), v.splat(f32::MIN));
        for &x in &x {
            min = v.min(x, min);
            max = v.max(x, max);
        }
        let scale = (max - min) / v.splat(TOP as f32);
        let inverse = reciprocal_or_zero(v, scale);
        let mut words = [v.splat_i(0); 16];
        let mut levels = [v.splat_i(0); 32];
        words[0] = f16_bits(v, scale) | v.shl(f16_bits(v, min), 16);
        for i in 0..32 {
            let cut = v.trunc((x[i] - min) * inverse + v.splat(0.5));
            // Five bits are only masked, when packed; four are clamped as a signed byte.
            levels[i] = if TOP == 31 { cut } else { v.min_i(as_i8(v, cut), v.splat_i(TOP)) };
        }
        pack(v, &levels, TOP == 31, &mut words, 4);
        batch.store::<V, BYTES, _>(v, &words, out);
        first += V::N;
    }
}

#[inline(always)]
pub(crate) fn encode_q8_0<V: Simd>(v: V, rows: Rows<'_>, out: &mut [u8]) {
    let mut x = [v.splat(0.0); 32];
    let mut first = 0;
    while let Some(batch) = Batch::at(v, &rows, 32, first) {
        batch.load(v, &rows, &mut x);
        let scale = amax(v, &x) / v.splat(127.0);
        let inverse = reciprocal_or_zero(v, scale);
        let mut words = [v.splat_i(0); 16];
        words[0] = f16_bits(v, scale);
        for i in 0..32 {
            put_byte(v, &mut words, 2 + i, round_away(v, x[i] * inverse) & v.splat_i(255));
        }
        batch.store::<V, 34, _>(v, &words, out);
        first += V::N;
    }
}

/// Decodes `level * scale + min` with levels moved down by `half`; blocks have `d`, `m` if `AFFINE`, the fifth
/// bits if `FIVE`, and nibbles.
#[inline(always)]
fn unpack<V: Simd, const BYTES: usize, const FIVE: bool, const AFFINE: bool>(
    v: V,
    blocks: &[u8],
    out: &mut [f32],
) {
    let half = if AFFINE { 0 } else { 8 << u32::from(FIVE) };
    let lane_bits = lane_bits(v, 1, 1);
    for (block, yb) in blocks.as_chunks::<BYTES>().0.iter().zip(out.as_chunks_mut::<32>().0) {
        let scale = v.splat(read_f16(block));
        let min = v.splat(if AFFINE { read_f16(&block[2..]) } else { 0.0 });
        let at = BYTES - 16;
        let high = if FIVE {
            u32::from_le_bytes([block[at - 4], block[at - 3], block[at - 2], block[at - 1]])
        } else {
            0
        };
        for half_block in 0..2 {
            let mut j = 0;
            while j < 16 {
                let bytes = v.load_bytes(&block[at + j..]);
                let mut level = v.shr(bytes, 4 * half_block) & v.splat_i(15);
                if FIVE {
                    let bits = v.splat_i((high >> (16 * half_block + j as u32)) as i32) & lane_bits;
                    let fifth = v.select_i(v.eq_i(bits, v.splat_i(0)), v.splat_i(0), v.splat_i(16));
                    level = level | fifth;
                }
                let y = v.to_f(level - v.splat_i(half)) * scale;
                v.store_to(if AFFINE { y + min } else { y }, &mut yb[16 * half_block as usize + j..]);
                j += V::N;
            }
        }
    }
}

#[inline(always)]
fn decode_q4_0<V: Simd>(v: V, blocks: &[u8], out: &mut [f32]) {
    unpack::<V, 18, false, false>(v, blocks, out);
}

#[inline(always)]
fn decode_q4_1<V: Simd>(v: V, blocks: &[u8], out: &mut [f32]) {
    unpack::<V, 20, false, true>(v, blocks, out);
}

#[inline(always)]
fn decode_q5_0<V: Simd>(v: V, blocks: &[u8], out: &mut [f32]) {
    unpack::<V, 22, true, false>(v, blocks, out);
}

#[inline(always)]
fn decode_q5_1<V: Simd>(v: V, blocks: &[u8], out: &mut [f32]) {
    unpack::<V, 24, true, true>(v, blocks, out);
}
