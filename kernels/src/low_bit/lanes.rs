//! Q1_0 and Q2_0 over lanes.

use crate::lanes::{
    Batch, Rows, Simd, amax, f16_bits, lane_bits, reciprocal_or_zero, round_away, stamp, stamp_decoders,
};
use crate::num::read_f16;
use crate::superblock_lanes::put_byte;

stamp! {
    encode_q1_0 = encode_q1_0;
    encode_q2_0 = encode_q2_0;
}

stamp_decoders! {
    lanes decode_q1_0 = decode_q1_0;
    lanes decode_q2_0 = decode_q2_0;
}

#[inline(always)]
pub(crate) fn encode_q1_0<V: Simd>(v: V, rows: Rows<'_>, out: &mut [u8]) {
    let zero = v.splat(0.0);
    let mut x = [zero; 128];
    let mut first = 0;
    while let Some(batch) = Batch::at(v, &rows, 128, first) {
        batch.load(v, &rows, &mut x);
        let mut words = [v.splat_i(0); 16];
        let mut sum = zero;
        for (i, &x) in x.iter().enumerate() {
            sum = sum + v.abs(x);
            // Negative zero counts as positive, so the sign bit alone does not tell.
            let bit = v.select_i(v.le(zero, x), v.splat_i(1 << (i % 8)), v.splat_i(0));
            put_byte(v, &mut words, 2 + i / 8, bit);
        }
        words[0] = words[0] | f16_bits(v, sum / v.splat(128.0));
        batch.store::<V, 18, _>(v, &words, out);
        first += V::N;
    }
}

#[inline(always)]
pub(crate) fn encode_q2_0<V: Simd>(v: V, rows: Rows<'_>, out: &mut [u8]) {
    let mut x = [v.splat(0.0); 64];
    let mut first = 0;
    while let Some(batch) = Batch::at(v, &rows, 64, first) {
        batch.load(v, &rows, &mut x);
        let scale = amax(v, &x);
        let inverse = reciprocal_or_zero(v, scale);
        let mut words = [v.splat_i(0); 16];
        words[0] = f16_bits(v, scale);
        for (i, &x) in x.iter().enumerate() {
            let level = round_away(v, x * inverse) + v.splat_i(1);
            let level = v.max_i(v.min_i(level, v.splat_i(3)), v.splat_i(0));
            put_byte(v, &mut words, 2 + i / 4, v.shl(level, 2 * (i as u32 % 4)));
        }
        batch.store::<V, 18, _>(v, &words, out);
        first += V::N;
    }
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
