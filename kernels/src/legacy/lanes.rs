//! Q4_0, Q4_1, Q5_0, Q5_1 and Q8_0 over lanes.

use crate::codec::all_finite;
use crate::lanes::{
    Batch, MAX_LANES, Reduced, Rows, Scan, Simd, f16_bits, lane_bits, nibbles, range, reciprocal_or_zero,
    round_away, row_mean_squares, stamp, stamp_decoders,
};
use crate::num::read_f16;
use crate::search::Candidates;
use crate::search::lanes::{fit_affine, fit_symmetric, importance_weights};

stamp! {
    direct encode_q4_0 = encode_q4_0;
    direct encode_q4_1 = encode_q4_1;
    direct encode_q5_0 = encode_q5_0;
    direct encode_q5_1 = encode_q5_1;
    direct encode_q8_0 = encode_q8_0;
}

stamp_decoders! {
    decode_q8_0 = decode_q8_0;
    decode_q4_0 = decode_q4_0;
    decode_q4_1 = decode_q4_1;
    decode_q5_0 = decode_q5_0;
    decode_q5_1 = decode_q5_1;
}

#[inline(always)]
pub(crate) fn encode_q4_0<V: Scan>(v: V, rows: Rows<'_>, out: &mut [u8]) -> bool {
    if rows.importance.is_none() {
        return plain_symmetric::<V, 8, 18>(v, &rows, out);
    }
    let finite = all_finite(rows.x);
    if finite {
        weighted_symmetric::<V, 8, 18>(v, &rows, out);
    }
    finite
}

#[inline(always)]
pub(crate) fn encode_q5_0<V: Scan>(v: V, rows: Rows<'_>, out: &mut [u8]) -> bool {
    if rows.importance.is_none() {
        return plain_symmetric::<V, 16, 22>(v, &rows, out);
    }
    let finite = all_finite(rows.x);
    if finite {
        weighted_symmetric::<V, 16, 22>(v, &rows, out);
    }
    finite
}

#[inline(always)]
pub(crate) fn encode_q4_1<V: Scan>(v: V, rows: Rows<'_>, out: &mut [u8]) -> bool {
    if rows.importance.is_none() {
        return plain_affine::<V, 15, 20>(v, &rows, out);
    }
    let finite = all_finite(rows.x);
    if finite {
        weighted_affine::<V, 15, 20>(v, &rows, out);
    }
    finite
}

#[inline(always)]
pub(crate) fn encode_q5_1<V: Scan>(v: V, rows: Rows<'_>, out: &mut [u8]) -> bool {
    if rows.importance.is_none() {
        return plain_affine::<V, 31, 24>(v, &rows, out);
    }
    let finite = all_finite(rows.x);
    if finite {
        weighted_affine::<V, 31, 24>(v, &rows, out);
    }
    finite
}

/// Groups that go through a search together.
const U: usize = 2;

/// Puts levels of four or five bits from byte `at` (even) on, the fifth bits first.
#[inline(always)]
fn pack<V: Simd>(v: V, levels: &[V::I; 32], five: bool, words: &mut [V::I], at: usize) {
    let mut packed = [v.splat_i(0); 5];
    if five {
        for i in 0..32 {
            packed[0] = packed[0] | v.shl(v.shr(levels[i], 4) & v.splat_i(1), i as u32);
        }
    }
    for c in 0..4 {
        for byte in 0..4 {
            let (low, high) =
                (levels[4 * c + byte] & v.splat_i(15), levels[4 * c + byte + 16] & v.splat_i(15));
            packed[1 + c] = packed[1 + c] | v.shl(low | v.shl(high, 4), 8 * byte as u32);
        }
    }
    let first = usize::from(!five);
    for (i, &packed) in packed[first..].iter().enumerate() {
        let word = at / 4 + i;
        if at.is_multiple_of(4) {
            words[word] = packed;
        } else {
            words[word] = words[word] | v.shl(packed, 16);
            words[word + 1] = v.shr(packed, 16);
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
    const U: usize = 4;
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

/// Puts the levels of one block, which may have more than their four or five bits, at the end of its bytes.
#[inline(always)]
fn put_levels<V: Scan>(v: V, levels: &[V::I; 32], five: bool, block: &mut [u8]) {
    let at = block.len() - 16;
    if five {
        let mut fifth = 0;
        let mut i = 0;
        while i < 32 {
            fifth |= v.lanes(v.lt_i(v.splat_i(0), levels[i / V::N] & v.splat_i(16))) << i;
            i += V::N;
        }
        block[at - 4..at].copy_from_slice(&fifth.to_le_bytes());
    }
    let mut bytes = v.to_bytes(levels);
    if !five {
        // Cut to a signed byte, then clamped.
        for byte in &mut bytes {
            *byte = byte.cast_signed().min(15).cast_unsigned();
        }
    }
    let (halves, _) = bytes.as_chunks::<16>();
    block[at..].copy_from_slice(&nibbles(&[halves[0], halves[1]]));
}

#[inline(always)]
fn plain_symmetric<V: Scan, const HALF: i32, const BYTES: usize>(
    v: V,
    rows: &Rows<'_>,
    out: &mut [u8],
) -> bool {
    let mut reduced = Reduced::NONE;
    let blocks = rows.x.as_chunks::<32>().0.chunks(V::N);
    for (blocks, out) in blocks.zip(out.as_chunks_mut::<BYTES>().0.chunks_mut(V::N)) {
        let Some(max) = reduced.signed_max(v, blocks) else { return false };
        let scale = max / v.splat(-HALF as f32);
        let inverses = v.store(reciprocal_or_zero(v, scale));
        let scales = v.store_words(f16_bits(v, scale));
        for (l, (x, block)) in blocks.iter().zip(out).enumerate() {
            let l = l % MAX_LANES;
            let inverse = v.splat(inverses[l]);
            let mut levels = [v.splat_i(0); 32];
            let mut i = 0;
            while i < 32 {
                let x = v.load_from(&x[i..]);
                let cut = v.trunc(x * inverse + v.splat(HALF as f32 + 0.5));
                // Nothing but the `i32::MIN` of what is no number exceeds a byte.
                levels[i / V::N] =
                    if HALF == 16 { v.min_i(cut & v.splat_i(255), v.splat_i(31)) } else { cut };
                i += V::N;
            }
            block[..2].copy_from_slice(&(scales[l] as u16).to_le_bytes());
            put_levels(v, &levels, HALF == 16, block);
        }
    }
    true
}

#[inline(always)]
fn plain_affine<V: Scan, const TOP: i32, const BYTES: usize>(v: V, rows: &Rows<'_>, out: &mut [u8]) -> bool {
    let mut reduced = [Reduced::NONE; 2];
    let blocks = rows.x.as_chunks::<32>().0.chunks(V::N);
    for (blocks, out) in blocks.zip(out.as_chunks_mut::<BYTES>().0.chunks_mut(V::N)) {
        let Some((min, max)) = range(v, &mut reduced, blocks) else { return false };
        let scale = (max - min) / v.splat(TOP as f32);
        let inverses = v.store(reciprocal_or_zero(v, scale));
        let mins = v.store(min);
        let heads = v.store_words(f16_bits(v, scale) | v.shl(f16_bits(v, min), 16));
        for (l, (x, block)) in blocks.iter().zip(out).enumerate() {
            let l = l % MAX_LANES;
            let (inverse, min) = (v.splat(inverses[l]), v.splat(mins[l]));
            let mut levels = [v.splat_i(0); 32];
            let mut i = 0;
            while i < 32 {
                let x = v.load_from(&x[i..]);
                levels[i / V::N] = v.trunc((x - min) * inverse + v.splat(0.5));
                i += V::N;
            }
            block[..4].copy_from_slice(&heads[l].to_le_bytes());
            put_levels(v, &levels, TOP == 31, block);
        }
    }
    true
}

#[inline(always)]
pub(crate) fn encode_q8_0<V: Scan>(v: V, rows: Rows<'_>, out: &mut [u8]) -> bool {
    let mut reduced = Reduced::NONE;
    let blocks = rows.x.as_chunks::<32>().0.chunks(V::N);
    for (blocks, out) in blocks.zip(out.as_chunks_mut::<34>().0.chunks_mut(V::N)) {
        let Some(amax) = reduced.amax(v, blocks) else { return false };
        let scale = amax / v.splat(127.0);
        let inverses = v.store(reciprocal_or_zero(v, scale));
        let scales = v.store_words(f16_bits(v, scale));
        for (l, (x, block)) in blocks.iter().zip(out).enumerate() {
            let l = l % MAX_LANES;
            let inverse = v.splat(inverses[l]);
            let mut levels = [v.splat_i(0); 32];
            let mut i = 0;
            while i < 32 {
                levels[i / V::N] = round_away(v, v.load_from(&x[i..]) * inverse);
                i += V::N;
            }
            block[..2].copy_from_slice(&(scales[l] as u16).to_le_bytes());
            block[2..].copy_from_slice(&v.to_bytes(&levels));
        }
    }
    true
}

#[inline(always)]
fn decode_q8_0<V: Simd>(v: V, blocks: &[u8], out: &mut [f32]) {
    for (block, yb) in blocks.as_chunks::<34>().0.iter().zip(out.as_chunks_mut::<32>().0) {
        let scale = v.splat(read_f16(block));
        let mut i = 0;
        while i < 32 {
            v.store_to(v.to_f(v.load_signed_bytes(&block[2 + i..])) * scale, &mut yb[i..]);
            i += V::N;
        }
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
