//! Q4_0, Q4_1, Q5_0 and Q5_1 with importance over lanes, and all five formats without it: the reference itself,
//! which the compiler vectorises within each block.

use super::reference;
use crate::lanes::{Batch, Rows, Simd, f16_bits, row_mean_squares, stamp};
use crate::search::Candidates;
use crate::search::lanes::{fit_affine, fit_symmetric, importance_weights};
use crate::superblock_lanes::put_byte;

stamp! {
    encode_q4_0 = encode_q4_0;
    encode_q4_1 = encode_q4_1;
    encode_q5_0 = encode_q5_0;
    encode_q5_1 = encode_q5_1;
}

#[inline(always)]
pub(crate) fn encode_q4_0<V: Simd>(v: V, rows: Rows<'_>, out: &mut [u8]) {
    if rows.importance.is_some() {
        weighted_symmetric::<V, 8, 18>(v, &rows, out);
    } else {
        reference::encode_symmetric::<4>(rows.x, None, out);
    }
}

#[inline(always)]
pub(crate) fn encode_q5_0<V: Simd>(v: V, rows: Rows<'_>, out: &mut [u8]) {
    if rows.importance.is_some() {
        weighted_symmetric::<V, 16, 22>(v, &rows, out);
    } else {
        reference::encode_symmetric::<5>(rows.x, None, out);
    }
}

#[inline(always)]
pub(crate) fn encode_q4_1<V: Simd>(v: V, rows: Rows<'_>, out: &mut [u8]) {
    if rows.importance.is_some() {
        weighted_affine::<V, 15, 20>(v, &rows, out);
    } else {
        reference::encode_affine::<4>(rows.x, None, out);
    }
}

#[inline(always)]
pub(crate) fn encode_q5_1<V: Simd>(v: V, rows: Rows<'_>, out: &mut [u8]) {
    if rows.importance.is_some() {
        weighted_affine::<V, 31, 24>(v, &rows, out);
    } else {
        reference::encode_affine::<5>(rows.x, None, out);
    }
}

/// Groups that go through a search together.
const U: usize = 4;

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
            batches[u].store::<V, BYTES>(v, &words, out);
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
            batches[u].store::<V, BYTES>(v, &words, out);
        }
        first += U * V::N;
    }
}
