//! Q1_0 and Q2_0 over lanes.

use crate::codec::all_finite;
use crate::lanes::{
    Batch, MAX_LANES, Reduced, Rows, Scan, Simd, f16_bits, lane_bits, reciprocal_or_zero, round_away, stamp,
    stamp_decoders,
};
use crate::num::read_f16;

stamp! {
    direct encode_q1_0 = encode_q1_0;
    direct encode_q2_0 = encode_q2_0;
}

stamp_decoders! {
    decode_q1_0 = decode_q1_0;
    decode_q2_0 = decode_q2_0;
}

#[inline(always)]
pub(crate) fn encode_q1_0<V: Scan>(v: V, rows: Rows<'_>, out: &mut [u8]) -> bool {
    let zero = v.splat(0.0);
    let mut first = 0;
    while let Some(batch) = Batch::at(v, &rows, 128, first) {
        // The sums have an order, so that their lanes are blocks; bits come along the block.
        let mut x = [zero; 128];
        batch.load(v, &rows, &mut x);
        let mut sum = zero;
        for &x in &x {
            sum = sum + v.abs(x);
        }
        let blocks = &rows.x.as_chunks::<128>().0[first..];
        if !v.all(v.lt(sum, v.splat(f32::INFINITY)))
            && !all_finite(blocks[..blocks.len().min(V::N)].as_flattened())
        {
            return false;
        }
        let scales = v.store_words(f16_bits(v, sum / v.splat(128.0)));
        let out = &mut out.as_chunks_mut::<18>().0[first..];
        for ((x, block), scale) in blocks.iter().zip(out).zip(&scales[..V::N]) {
            block[..2].copy_from_slice(&(*scale as u16).to_le_bytes());
            for (x, word) in x.as_chunks::<32>().0.iter().zip(block[2..].as_chunks_mut::<4>().0) {
                let mut bits = 0;
                let mut i = 0;
                while i < 32 {
                    // Negative zero counts as positive, so the sign bit alone does not tell.
                    bits |= v.lanes(v.le(zero, v.load_from(&x[i..]))) << i;
                    i += V::N;
                }
                *word = bits.to_le_bytes();
            }
        }
        first += V::N;
    }
    true
}

#[inline(always)]
pub(crate) fn encode_q2_0<V: Scan>(v: V, rows: Rows<'_>, out: &mut [u8]) -> bool {
    let mut reduced = Reduced::NONE;
    let blocks = rows.x.as_chunks::<64>().0.chunks(V::N);
    for (blocks, out) in blocks.zip(out.as_chunks_mut::<18>().0.chunks_mut(V::N)) {
        let Some(scale) = reduced.amax(v, blocks) else { return false };
        let inverses = v.store(reciprocal_or_zero(v, scale));
        let scales = v.store_words(f16_bits(v, scale));
        for (l, (x, block)) in blocks.iter().zip(out).enumerate() {
            let l = l % MAX_LANES;
            let inverse = v.splat(inverses[l]);
            block[..2].copy_from_slice(&(scales[l] as u16).to_le_bytes());
            for (x, bytes) in x.as_chunks::<32>().0.iter().zip(block[2..].as_chunks_mut::<8>().0) {
                let mut levels = [v.splat_i(0); 32];
                let mut i = 0;
                while i < 32 {
                    let level = round_away(v, v.load_from(&x[i..]) * inverse) + v.splat_i(1);
                    levels[i / V::N] = v.max_i(v.min_i(level, v.splat_i(3)), v.splat_i(0));
                    i += V::N;
                }
                let levels = v.to_bytes(&levels);
                for (byte, four) in bytes.iter_mut().zip(levels.as_chunks::<4>().0) {
                    let four = u32::from_le_bytes(*four);
                    *byte = (four | four >> 6 | four >> 12 | four >> 18) as u8;
                }
            }
        }
    }
    true
}

#[inline(always)]
fn decode_q1_0<V: Simd>(v: V, blocks: &[u8], out: &mut [f32]) {
    let (lane_bits, none) = (lane_bits(v, 1, 1), v.splat_i(0));
    for (block, yb) in blocks.as_chunks::<18>().0.iter().zip(out.as_chunks_mut::<128>().0) {
        let scale = v.splat(read_f16(block));
        let minus = v.neg(scale);
        for (yw, word) in yb.as_chunks_mut::<32>().0.iter_mut().zip(block[2..].as_chunks::<4>().0) {
            let word = u32::from_le_bytes(*word);
            let mut i = 0;
            while i < 32 {
                let clear = v.eq_i(v.splat_i((word >> i) as i32) & lane_bits, none);
                v.store_to(v.select(clear, minus, scale), &mut yw[i..]);
                i += V::N;
            }
        }
    }
}

#[inline(always)]
fn decode_q2_0<V: Simd>(v: V, blocks: &[u8], out: &mut [f32]) {
    let (low_bits, high_bits, none) = (lane_bits(v, 1, 2), lane_bits(v, 2, 2), v.splat_i(0));
    for (block, yb) in blocks.as_chunks::<18>().0.iter().zip(out.as_chunks_mut::<64>().0) {
        let scale = v.splat(read_f16(block));
        for (yw, word) in yb.as_chunks_mut::<16>().0.iter_mut().zip(block[2..].as_chunks::<4>().0) {
            let word = u32::from_le_bytes(*word);
            let mut i = 0;
            while i < 16 {
                let word = v.splat_i((word >> (2 * i)) as i32);
                let low = v.select_i(v.eq_i(word & low_bits, none), v.splat_i(-1), none);
                let high = v.select_i(v.eq_i(word & high_bits, none), none, v.splat_i(2));
                v.store_to(v.to_f(low + high) * scale, &mut yw[i..]);
                i += V::N;
            }
        }
    }
}
