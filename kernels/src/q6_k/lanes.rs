//! Q6_K over lanes.

use super::reference::{BYTES, HALF};
use crate::lanes::{
    Batch, MAX_LANES, Rows, Simd, as_i8, f16_bits, f16_value, nearest_int, signed_max, stamp, stamp_decoders,
};
use crate::num::read_f16;
use crate::search::ZERO_BELOW;
use crate::search::lanes::{SymmetricFit, fit_symmetric};
use crate::superblock::{WEIGHTS, two_bit_plane};
use crate::superblock_lanes::{put_byte, symmetric_level};

stamp! {
    search encode = encode;
}

stamp_decoders! {
    decode = decode;
}

#[inline(always)]
pub(crate) fn encode<V: Simd>(v: V, rows: Rows<'_>, out: &mut [u8]) {
    let zero = v.splat(0.0);
    let mut x = [[zero; 16]; 16];
    let mut weights = x;
    let mut levels = [v.splat_i(0); WEIGHTS];
    let mut first = 0;
    while let Some(batch) = Batch::at(v, &rows, WEIGHTS, first) {
        batch.load(v, &rows, x.as_flattened_mut());
        if let Some(importance) = rows.importance {
            batch.load_importance(v, importance, weights.as_flattened_mut());
        } else {
            for (w, &x) in weights.as_flattened_mut().iter_mut().zip(x.as_flattened()) {
                *w = x * x;
            }
        }
        // How many groups are fastest together depends on how many vectors there are to hold their sums.
        let fits = if V::N == MAX_LANES {
            fit_groups::<V, 8>(v, &x, &weights)
        } else {
            fit_groups::<V, 2>(v, &x, &weights)
        };
        let mut scales = [zero; 16];
        for j in 0..16 {
            scales[j] = fits[j].scale;
        }

        let mut words = [v.splat_i(0); 64];
        let (max, amax) = signed_max(v, &scales);
        let nothing = v.lt(amax, v.splat(ZERO_BELOW));
        let inverse = v.splat(-128.0) / max;
        let d = f16_bits(v, v.splat(1.0) / inverse);
        words[52] = d;
        let d = f16_value(v, d);
        for j in 0..16 {
            let byte = v.min_i(nearest_int(v, inverse * scales[j]), v.splat_i(127)) & v.splat_i(255);
            put_byte(v, &mut words, 192 + j, byte);
            // With its sign back.
            let scale = d * v.to_f(as_i8(v, byte));
            let levels = &mut levels[16 * j..][..16];
            for i in 0..16 {
                levels[i] = symmetric_level(v, x[j][i], scale, HALF);
            }
            let vanished = v.eq(scale, zero);
            if v.any(vanished) {
                for i in 0..16 {
                    levels[i] = v.select_i(vanished, fits[j].level(v, x[j][i], HALF), levels[i]);
                }
            }
        }
        pack(v, &levels, &mut words);
        if v.any(nothing) {
            for word in &mut words {
                *word = v.select_i(nothing, v.splat_i(0), *word);
            }
        }
        batch.store::<V, BYTES, _>(v, &words, out);
        first += V::N;
    }
}

/// Fits all groups, `U` of them together.
#[inline(always)]
fn fit_groups<V: Simd, const U: usize>(
    v: V,
    x: &[[V::F; 16]; 16],
    weights: &[[V::F; 16]; 16],
) -> [SymmetricFit<V>; 16] {
    let mut fits = [SymmetricFit::none(v); 16];
    let groups = x.as_chunks::<U>().0.iter().zip(weights.as_chunks::<U>().0);
    for ((x, w), fits) in groups.zip(fits.as_chunks_mut::<U>().0) {
        *fits = fit_symmetric::<V, 16, U, false>(v, x, w, HALF);
    }
    fits
}

/// Packs the nibbles and the planes of two high bits, a word at a time.
#[inline(always)]
fn pack<V: Simd>(v: V, levels: &[V::I; WEIGHTS], words: &mut [V::I; 64]) {
    let low = v.splat_i(15);
    for half in 0..2 {
        let q = &levels[128 * half..][..128];
        for c in 0..8 {
            let (mut first, mut second, mut high) = (v.splat_i(0), v.splat_i(0), v.splat_i(0));
            for byte in 0..4 {
                let (l, at) = (4 * c + byte, 8 * byte as u32);
                let (a, b, c, d) = (q[l], q[l + 32], q[l + 64], q[l + 96]);
                first = first | v.shl((a & low) | v.shl(c & low, 4), at);
                second = second | v.shl((b & low) | v.shl(d & low, 4), at);
                let pairs =
                    (v.shr(a, 4) | v.shl(v.shr(b, 4), 2)) | (v.shl(v.shr(c, 4), 4) | v.shl(v.shr(d, 4), 6));
                high = high | v.shl(pairs, at);
            }
            words[16 * half + c] = first;
            words[16 * half + 8 + c] = second;
            words[32 + 8 * half + c] = high;
        }
    }
}

#[inline(always)]
fn decode<V: Simd>(v: V, blocks: &[u8], out: &mut [f32]) {
    for (block, yb) in blocks.as_chunks::<BYTES>().0.iter().zip(out.as_chunks_mut::<WEIGHTS>().0) {
        let d = read_f16(&block[208..]);
        for (j, yg) in yb.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            let scale = v.splat(d * f32::from(block[192 + j] as i8));
            let low = &block[..128].as_chunks::<16>().0[j / 8 * 4 + j % 4];
            let nibble = (j % 8 / 4 * 4) as u32;
            let (high, shift) = two_bit_plane(&block[128..192], j);
            let mut l = 0;
            while l < 16 {
                let low = v.shr(v.load_bytes(&low[l..]), nibble) & v.splat_i(15);
                let high = v.shr(v.load_bytes(&high[l..]), u32::from(shift)) & v.splat_i(3);
                let level = (low | v.shl(high, 4)) - v.splat_i(32);
                v.store_to(scale * v.to_f(level), &mut yg[l..]);
                l += V::N;
            }
        }
    }
}
