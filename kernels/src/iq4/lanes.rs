//! IQ4_NL and IQ4_XS over lanes.

use super::reference::{VALUES, xs_scale};
use crate::lanes::{
    Batch, Codebook, Rows, Simd, exact_level, f16_bits, reciprocal_or_zero, signed_max, stamp,
    stamp_decoders, sum_of_squares,
};
use crate::num::read_f16;
use crate::search::lanes::{fit_codebook, importance_weights};
use crate::superblock::WEIGHTS;
use crate::superblock_lanes::put_byte;

/// The codebook, and the indices of its entries.
pub(crate) static BY_VALUE: Codebook = Codebook::new(&VALUES, entries(true));
pub(crate) static BY_INDEX: Codebook = Codebook::new(&VALUES, entries(false));

const fn entries(values: bool) -> [f32; 16] {
    let mut entries = [0.0; 16];
    let mut i = 0;
    while i < 16 {
        entries[i] = if values { VALUES[i] as f32 } else { i as f32 };
        i += 1;
    }
    entries
}

stamp! {
    search encode_nl = encode_nl;
    search encode_xs = encode_xs;
}

stamp_decoders! {
    decode_nl = decode_nl;
    decode_xs = decode_xs;
}

/// Puts the nearest indices of a group of 32 to byte `at`.
#[inline(always)]
fn pack<V: Simd>(v: V, x: &[V::F; 32], inverse: V::F, words: &mut [V::I], at: usize) {
    let reach = v.splat(128.0);
    let mut levels = [v.splat_i(0); 32];
    for i in 0..32 {
        // Beyond the last entry nothing changes; NaN counts as the last, too.
        let scaled = v.max(v.min(inverse * x[i], reach), v.neg(reach));
        levels[i] = v.trunc(v.nearest(&BY_INDEX, scaled));
    }
    for j in 0..16 {
        put_byte(v, words, at + j, levels[j] | v.shl(levels[j + 16], 4));
    }
}

#[inline(always)]
pub(crate) fn encode_nl<V: Simd>(v: V, rows: Rows<'_>, out: &mut [u8]) {
    const U: usize = 4;
    let mut x = [[v.splat(0.0); 32]; U];
    let mut weights = x;
    let mut first = 0;
    while let Some(batches) = Batch::several::<V, U>(v, &rows, 32, first) {
        for u in 0..U {
            batches[u].load(v, &rows, &mut x[u]);
            weigh(v, &rows, &batches[u], &x[u], &mut weights[u]);
        }
        let scales = fit_codebook(v, &x, &weights, &BY_VALUE);
        for u in 0..U {
            let mut words = [v.splat_i(0); 16];
            words[0] = f16_bits(v, scales[u]);
            pack(v, &x[u], reciprocal_or_zero(v, scales[u]), &mut words, 2);
            batches[u].store::<V, 18, _>(v, &words, out);
        }
        first += U * V::N;
    }
}

/// The weights of a block's errors.
#[inline(always)]
fn weigh<V: Simd>(v: V, rows: &Rows<'_>, batch: &Batch, x: &[V::F], weights: &mut [V::F]) {
    if let Some(importance) = rows.importance {
        batch.load_importance(v, importance, weights);
        let sigma2 = sum_of_squares(v, x) * v.splat(2.0 / x.len() as f32);
        importance_weights(v, x, weights, sigma2);
    } else {
        for (w, &x) in weights.iter_mut().zip(x) {
            *w = x * x;
        }
    }
}

#[inline(always)]
pub(crate) fn encode_xs<V: Simd>(v: V, rows: Rows<'_>, out: &mut [u8]) {
    const U: usize = 4;
    let mut x = [[v.splat(0.0); 32]; 8];
    let mut weights = x;
    let mut first = 0;
    while let Some(batch) = Batch::at(v, &rows, WEIGHTS, first) {
        batch.load(v, &rows, x.as_flattened_mut());
        weigh(v, &rows, &batch, x.as_flattened(), weights.as_flattened_mut());
        let mut scales = [v.splat(0.0); 8];
        let groups = x.as_chunks::<U>().0.iter().zip(weights.as_chunks::<U>().0);
        for ((x, w), scales) in groups.zip(scales.as_chunks_mut::<U>().0) {
            *scales = fit_codebook(v, x, w, &BY_VALUE);
        }
        let mut words = [v.splat_i(0); 48];
        let d = v.neg(signed_max(v, &scales).0) / v.splat(32.0);
        words[0] = f16_bits(v, d);
        let inverse = reciprocal_or_zero(v, d);
        for j in 0..8 {
            let level = exact_level(v, inverse * scales[j], -32, 31);
            pack(v, &x[j], reciprocal_or_zero(v, d * v.to_f(level)), &mut words, 8 + 16 * j);
            let biased = level + v.splat_i(32);
            let (low, high) = (biased & v.splat_i(15), v.shr(biased, 4));
            words[0] = words[0] | v.shl(high, 16 + 2 * j as u32);
            words[1] = words[1] | v.shl(low, 4 * j as u32);
        }
        batch.store::<V, 136, _>(v, &words, out);
        first += V::N;
    }
}

/// The weights of the group whose levels are the bytes: the low nibbles', then the high ones'.
#[inline(always)]
pub(crate) fn unpack<V: Simd>(v: V, table: &[f32; 16], bytes: &[u8], scale: f32, out: &mut [f32]) {
    let scale = v.splat(scale);
    let (low, high) = out.split_at_mut(bytes.len());
    let mut j = 0;
    while j < bytes.len() {
        let levels = v.load_bytes(&bytes[j..]);
        v.store_to(scale * v.look_up(table, levels), &mut low[j..]);
        v.store_to(scale * v.look_up(table, v.shr(levels, 4)), &mut high[j..]);
        j += V::N;
    }
}

#[inline(always)]
fn decode_nl<V: Simd>(v: V, blocks: &[u8], out: &mut [f32]) {
    for (block, yb) in blocks.as_chunks::<18>().0.iter().zip(out.as_chunks_mut::<32>().0) {
        unpack(v, &BY_VALUE.entries, &block[2..18], read_f16(block), yb);
    }
}

#[inline(always)]
fn decode_xs<V: Simd>(v: V, blocks: &[u8], out: &mut [f32]) {
    for (block, yb) in blocks.as_chunks::<136>().0.iter().zip(out.as_chunks_mut::<WEIGHTS>().0) {
        let d = read_f16(block);
        for (j, yg) in yb.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            unpack(v, &BY_VALUE.entries, &block[8 + 16 * j..][..16], d * xs_scale(block, j), yg);
        }
    }
}
