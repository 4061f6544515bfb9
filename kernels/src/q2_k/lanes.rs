//! Q2_K over lanes.

use super::reference::{BYTES, PLAIN};
use crate::lanes::{Batch, Rows, Simd, f16_bits, f16_value, stamp, stamp_decoders, sum_of_squares};
use crate::num::read_f16;
use crate::search::Candidates;
use crate::search::lanes::{AffineFit, fit_affine, fit_positive, importance_weights, total};
use crate::superblock::{WEIGHTS, two_bit_plane};
use crate::superblock_lanes::{largest, levels_of_largest, pack_two_bits, put_byte, requantize_affine};

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

#[inline(always)]
fn encode_as<V: Simd, const IMPORTANCE: bool>(v: V, rows: Rows<'_>, out: &mut [u8]) {
    const U: usize = 4;
    let zero = v.splat(0.0);
    let mut x = [[zero; 16]; 16];
    let mut weights = x;
    let mut levels = [v.splat_i(0); WEIGHTS];
    let mut first = 0;
    while let Some(batch) = Batch::at(v, &rows, WEIGHTS, first) {
        batch.load(v, &rows, x.as_flattened_mut());
        let mut sums = [zero; 16];
        if IMPORTANCE {
            batch.load_importance(v, rows.importance.unwrap_or_default(), weights.as_flattened_mut());
            let sigma2 = sum_of_squares(v, x.as_flattened()) / v.splat(WEIGHTS as f32);
            importance_weights(v, x.as_flattened(), weights.as_flattened_mut(), sigma2);
            for j in 0..16 {
                sums[j] = total(v, &weights[j]);
            }
        } else {
            for (w, &x) in weights.as_flattened_mut().iter_mut().zip(x.as_flattened()) {
                *w = v.abs(x);
            }
        }
        let mut fits = [AffineFit::<V> { scale: zero, offset: zero, inverse: zero, base: zero }; 16];
        let groups = x.as_chunks::<U>().0.iter().zip(weights.as_chunks::<U>().0);
        for ((x, w), fits) in groups.zip(fits.as_chunks_mut::<U>().0) {
            *fits = if IMPORTANCE {
                fit_affine::<V, 16, U, false>(v, x, w, 3, Candidates::WITH_IMPORTANCE)
            } else {
                fit_affine::<V, 16, U, true>(v, x, w, 3, PLAIN)
            };
        }
        let (mut scales, mut offsets) = ([zero; 16], [zero; 16]);
        for j in 0..16 {
            scales[j] = fits[j].scale;
            offsets[j] = fits[j].offset;
        }

        let (d, dmin, s, o);
        if IMPORTANCE {
            let (mut by_scale, mut by_offset) = ([v.splat_i(0); 16], [v.splat_i(0); 16]);
            d = fit_positive(v, &scales, &sums, 15, &mut by_scale);
            dmin = fit_positive(v, &offsets, &sums, 15, &mut by_offset);
            (s, o) = (by_scale, by_offset);
        } else {
            let (max_scale, max_offset) = (largest(v, &scales), largest(v, &offsets));
            s = levels_of_largest(v, &scales, max_scale, 15.0);
            o = levels_of_largest(v, &offsets, max_offset, 15.0);
            d = max_scale / v.splat(15.0);
            dmin = max_offset / v.splat(15.0);
        }
        let (d, dmin) = (f16_bits(v, d), f16_bits(v, dmin));
        let mut words = [v.splat_i(0); 32];
        words[20] = d | v.shl(dmin, 16);
        let (d, dmin) = (f16_value(v, d), f16_value(v, dmin));
        for (j, levels) in levels.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            let packed = (s[j] | v.shl(o[j], 4)) & v.splat_i(255);
            put_byte(v, &mut words, j, packed);
            let scale = d * v.to_f(packed & v.splat_i(15));
            let offset = dmin * v.to_f(v.shr(packed, 4));
            requantize_affine(v, &x[j], fits[j], scale, offset, 3, levels);
        }
        pack_two_bits(v, &levels, &mut words, 16);
        batch.store::<V, BYTES, _>(v, &words, out);
        first += V::N;
    }
}

#[inline(always)]
fn decode<V: Simd>(v: V, blocks: &[u8], out: &mut [f32]) {
    for (block, yb) in blocks.as_chunks::<BYTES>().0.iter().zip(out.as_chunks_mut::<WEIGHTS>().0) {
        let (d, dmin) = (read_f16(&block[80..]), read_f16(&block[82..]));
        for (j, yg) in yb.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            let (scale, offset) = (d * f32::from(block[j] & 15), dmin * f32::from(block[j] >> 4));
            let (scale, offset) = (v.splat(scale), v.splat(offset));
            let (bytes, shift) = two_bit_plane(&block[16..80], j);
            let mut l = 0;
            while l < 16 {
                let level = v.shr(v.load_bytes(&bytes[l..]), u32::from(shift)) & v.splat_i(3);
                v.store_to(scale * v.to_f(level) - offset, &mut yg[l..]);
                l += V::N;
            }
        }
    }
}
