//! Q3_K over lanes.

use super::reference::{BYTES, HALF, unpack_scale};
use crate::lanes::{
    Batch, MAX_LANES, Rows, Scan, Simd, as_i8, f16_bits, f16_value, nearest_int, signed_max, stamp,
    stamp_decoders, sum_of_squares,
};
use crate::num::read_f16;
use crate::search;
use crate::search::lanes::{
    DescentFit, Searches, SymmetricFit, fit_by_descent, fit_symmetric, importance_weights, total,
};
use crate::superblock::{WEIGHTS, two_bit_plane};
use crate::superblock_lanes::{put_byte, symmetric_level};

stamp! {
    search encode = encode;
}

stamp_decoders! {
    decode = decode;
}

#[inline(always)]
pub(crate) fn encode<V: Scan>(v: V, rows: Rows<'_>, out: &mut [u8]) {
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

/// Gives the lanes whose scale vanished the levels of the search, which is run again: it does not happen often.
#[inline(always)]
fn keep_levels<V: Scan>(
    v: V,
    rows: &Rows<'_>,
    batch: &Batch,
    j: usize,
    vanished: V::M,
    fit: DescentFit<V>,
    levels: &mut [V::I; 16],
) {
    let mut kept = [[0.0; MAX_LANES]; 16];
    let mut left = v.lanes(vanished) & !v.lanes(fit.nothing);
    while left != 0 {
        let l = left.trailing_zeros() as usize % MAX_LANES;
        left &= left - 1;
        let mut own = [0; 16];
        let group = &rows.x[batch.start(l)..].as_chunks().0[j];
        search::fit_by_descent(group, HALF, &mut own);
        for i in 0..16 {
            kept[i][l] = f32::from(own[i]);
        }
    }
    for i in 0..16 {
        levels[i] = v.select_i(vanished, v.trunc(v.load(&kept[i])), levels[i]);
    }
}

/// Packs the planes of low and of high bits, a word at a time.
#[inline(always)]
fn pack<V: Simd>(v: V, levels: &[V::I], words: &mut [V::I; 32]) {
    let levels = &levels[..WEIGHTS];
    for c in 0..8 {
        let mut high = v.splat_i(0);
        for half in 0..2 {
            let mut low = v.splat_i(0);
            for plane in 0..4 {
                for b in 0..4 {
                    let level = levels[128 * half + 32 * plane + 4 * c + b];
                    let byte = 8 * b as u32;
                    low = low | v.shl(level & v.splat_i(3), byte + 2 * plane as u32);
                    high = high | v.shl(v.shr(level, 2), byte + 4 * half as u32 + plane as u32);
                }
            }
            words[8 + 8 * half + c] = low;
        }
        words[c] = high;
    }
}

#[inline(always)]
fn encode_as<V: Scan, const IMPORTANCE: bool>(v: V, rows: Rows<'_>, out: &mut [u8]) {
    const U: usize = 8;
    let zero = v.splat(0.0);
    let mut x = [[zero; 16]; 16];
    let mut weights = x;
    let mut levels = [[v.splat_i(0); 16]; 16];
    let mut fits = [SymmetricFit::none(v); 16];
    let mut searches = Searches::NONE;
    let mut descents = [DescentFit { scale: zero, nothing: v.lt(zero, zero) }; 16];
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
            descents = fit_by_descent(v, &rows, &batch, &x, HALF, &mut searches);
            for j in 0..16 {
                scales[j] = descents[j].scale;
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
            for i in 0..16 {
                levels[j][i] = symmetric_level(v, x[j][i], scale, HALF);
            }
            let vanished = v.eq(scale, zero);
            if v.any(vanished) {
                if IMPORTANCE {
                    for i in 0..16 {
                        levels[j][i] = v.select_i(vanished, fits[j].level(v, x[j][i], HALF), levels[j][i]);
                    }
                } else {
                    keep_levels(v, &rows, &batch, j, vanished, descents[j], &mut levels[j]);
                }
            }
        }
        pack(v, levels.as_flattened(), &mut words);
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
