//! Q3_K over lanes.

use super::reference::{BYTES, HALF, unpack_scale};
use crate::lanes::{
    Batch, Rows, Simd, as_i8, f16_bits, f16_value, nearest_int, signed_max, stamp, stamp_decoders,
    sum_of_squares,
};
use crate::num::read_f16;
use crate::search::lanes::{SymmetricFit, fit_by_descent, fit_symmetric, importance_weights, total};
use crate::superblock::{WEIGHTS, two_bit_plane};
use crate::superblock_lanes::{pack_two_bits, put_byte, symmetric_level};

stamp! {
    search encode = encode;
}

stamp_decoders! {
    decode = decode;
}

#[inline(always)]
pub(crate) fn encode<V: Simd>(v: V, rows: Rows<'_>, out: &mut [u8]) {
    if rows.importance.is_some() {
        encode_as::<V, true>(v, rows, out);
    } else {
        encode_as::<V, false>(v, rows, out);
    }
}

/// Scale of the scales, and the biased 6-bit scales, by the largest.
#[inline(always)]
fn scales_of_largest<V: Simd>(v: V, scales: &[V::F; 16]) -> (V::F, [V::I; 16]) {
    let zero = v.splat(0.0);
    let (max, _) = signed_max(v, scales);
    let nothing = v.eq(max, zero);
    let inverse = v.splat(-32.0) / max;
    let mut biased = [v.splat_i(0); 16];
    for j in 0..16 {
        let signed = as_i8(v, nearest_int(v, inverse * scales[j]));
        let level = v.max_i(v.min_i(signed, v.splat_i(31)), v.splat_i(-32)) + v.splat_i(32);
        biased[j] = v.select_i(nothing, v.splat_i(0), level);
    }
    (v.select(nothing, zero, v.splat(1.0) / inverse), biased)
}

#[inline(always)]
fn encode_as<V: Simd, const IMPORTANCE: bool>(v: V, rows: Rows<'_>, out: &mut [u8]) {
    const U: usize = 2;
    let zero = v.splat(0.0);
    let mut x = [[zero; 16]; 16];
    let mut weights = x;
    let mut levels = [[v.splat_i(0); 16]; 16];
    let mut fits = [SymmetricFit::none(v); 16];
    let mut first = 0;
    while let Some(batch) = Batch::at(v, &rows, WEIGHTS, first) {
        batch.load(v, &rows, x.as_flattened_mut());
        let mut scales = [zero; 16];
        let (d, biased);
        if IMPORTANCE {
            batch.load_importance(v, rows.importance.unwrap_or_default(), weights.as_flattened_mut());
            let sigma2 = v.splat(2.0) * sum_of_squares(v, x.as_flattened()) / v.splat(WEIGHTS as f32);
            importance_weights(v, x.as_flattened(), weights.as_flattened_mut(), sigma2);
            let groups = x.as_chunks::<U>().0.iter().zip(weights.as_chunks::<U>().0);
            for ((x, w), fits) in groups.zip(fits.as_chunks_mut::<U>().0) {
                *fits = fit_symmetric::<V, 16, U, false>(v, x, w, HALF);
            }
            let mut sums = [zero; 16];
            for j in 0..16 {
                scales[j] = fits[j].scale;
                sums[j] = total(v, &weights[j]);
            }
            let [fit] = fit_symmetric::<V, 16, 1, true>(v, &[scales], &[sums], 32);
            let mut by_search = [v.splat_i(0); 16];
            for j in 0..16 {
                by_search[j] = fit.level(v, scales[j], 32);
            }
            (d, biased) = (fit.scale, by_search);
        } else {
            let groups = x.as_chunks::<4>().0.iter().zip(levels.as_chunks_mut::<4>().0);
            for ((x, levels), scales) in groups.zip(scales.as_chunks_mut::<4>().0) {
                *scales = fit_by_descent(v, x, HALF, levels);
            }
            (d, biased) = scales_of_largest(v, &scales);
        }

        let mut words = [v.splat_i(0); 32];
        let d = f16_bits(v, d);
        words[27] = d;
        let d = f16_value(v, d);
        for j in 0..16 {
            let (low, high) = (biased[j] & v.splat_i(15), v.shr(biased[j], 4));
            put_byte(v, &mut words, 96 + j % 8, v.shl(low, j as u32 / 8 * 4));
            put_byte(v, &mut words, 104 + j % 4, v.shl(high, j as u32 / 4 * 2));
            let scale = d * v.to_f(biased[j] - v.splat_i(32));
            let vanished = v.eq(scale, zero);
            for i in 0..16 {
                let kept = if IMPORTANCE { fits[j].level(v, x[j][i], HALF) } else { levels[j][i] };
                levels[j][i] = v.select_i(vanished, kept, symmetric_level(v, x[j][i], scale, HALF));
            }
        }
        let mut low = [v.splat_i(0); WEIGHTS];
        for (i, &level) in levels.as_flattened().iter().enumerate() {
            low[i] = level & v.splat_i(3);
            put_byte(v, &mut words, i % 32, v.shl(v.shr(level, 2), i as u32 / 32));
        }
        pack_two_bits(v, &low, &mut words, 32);
        batch.store::<V, BYTES, _>(v, &words, out);
        first += V::N;
    }
}

#[inline(always)]
fn decode<V: Simd>(v: V, blocks: &[u8], out: &mut [f32]) {
    for (block, yb) in blocks.as_chunks::<BYTES>().0.iter().zip(out.as_chunks_mut::<WEIGHTS>().0) {
        let d = read_f16(&block[108..]);
        for (j, yg) in yb.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            let scale = v.splat(d * f32::from(unpack_scale(&block[96..108], j)));
            let (low, shift) = two_bit_plane(&block[32..96], j);
            let high = &block[..32].as_chunks::<16>().0[j % 2];
            let mut l = 0;
            while l < 16 {
                let low = v.shr(v.load_bytes(&low[l..]), u32::from(shift)) & v.splat_i(3);
                let high = v.shr(v.load_bytes(&high[l..]), j as u32 / 2) & v.splat_i(1);
                let level = (low | v.shl(high, 2)) - v.splat_i(HALF);
                v.store_to(scale * v.to_f(level), &mut yg[l..]);
                l += V::N;
            }
        }
    }
}
