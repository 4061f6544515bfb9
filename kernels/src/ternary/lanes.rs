//! TQ1_0 and TQ2_0 over lanes.

use super::reference::{PARTS, POWERS};
use crate::lanes::{
    Batch, Rows, Simd, amax, f16_bits, reciprocal_or_zero, round_away, stamp, stamp_decoders,
};
use crate::num::read_f16;
use crate::superblock::{WEIGHTS, two_bit_plane};
use crate::superblock_lanes::{pack_two_bits, put_byte};

stamp! {
    encode_tq1_0 = encode_tq1_0;
    encode_tq2_0 = encode_tq2_0;
}

stamp_decoders! {
    lanes decode_tq1_0 = decode_tq1_0;
    lanes decode_tq2_0 = decode_tq2_0;
}

/// Scale, and levels as bytes.
#[inline(always)]
fn trits<V: Simd>(v: V, x: &[V::F; WEIGHTS], trits: &mut [V::I; WEIGHTS]) -> V::I {
    let scale = amax(v, x);
    let inverse = reciprocal_or_zero(v, scale);
    for i in 0..WEIGHTS {
        trits[i] = (round_away(v, x[i] * inverse) + v.splat_i(1)) & v.splat_i(255);
    }
    f16_bits(v, scale)
}

#[inline(always)]
pub(crate) fn encode_tq1_0<V: Simd>(v: V, rows: Rows<'_>, out: &mut [u8]) {
    let mut x = [v.splat(0.0); WEIGHTS];
    let mut levels = [v.splat_i(0); WEIGHTS];
    let mut first = 0;
    while let Some(batch) = Batch::at(v, &rows, WEIGHTS, first) {
        batch.load(v, &rows, &mut x);
        let mut words = [v.splat_i(0); 16];
        words[13] = trits(v, &x, &mut levels);
        for (start, count, first, depth) in PARTS {
            for m in 0..count {
                let mut number = v.splat_i(0);
                for n in 0..5 {
                    number = number + number + number;
                    if n < depth {
                        number = number + levels[first + m + n * count];
                    }
                }
                // Rounded up. The quotient is exact enough: it is a whole number or well away from one.
                let number = v.shl(number & v.splat_i(255), 8) + v.splat_i(242);
                put_byte(v, &mut words, start + m, v.trunc(v.to_f(number) / v.splat(243.0)) & v.splat_i(255));
            }
        }
        batch.store::<V, 54, _>(v, &words, out);
        first += V::N;
    }
}

#[inline(always)]
pub(crate) fn encode_tq2_0<V: Simd>(v: V, rows: Rows<'_>, out: &mut [u8]) {
    let mut x = [v.splat(0.0); WEIGHTS];
    let mut levels = [v.splat_i(0); WEIGHTS];
    let mut first = 0;
    while let Some(batch) = Batch::at(v, &rows, WEIGHTS, first) {
        batch.load(v, &rows, &mut x);
        let mut words = [v.splat_i(0); 32];
        words[16] = trits(v, &x, &mut levels);
        for level in &mut levels {
            *level = *level & v.splat_i(3);
        }
        pack_two_bits(v, &levels, &mut words, 0);
        batch.store::<V, 66, _>(v, &words, out);
        first += V::N;
    }
}

#[inline(always)]
fn decode_tq1_0<V: Simd>(v: V, blocks: &[u8], out: &mut [f32]) {
    for (block, yb) in blocks.as_chunks::<54>().0.iter().zip(out.as_chunks_mut::<WEIGHTS>().0) {
        let scale = v.splat(read_f16(&block[52..]));
        // Bytes first, so that the products below fill whole vectors whatever the part's width.
        let mut numbers = [0u8; WEIGHTS];
        for n in 0..5 {
            for m in 0..32 {
                numbers[32 * n + m] = block[m].wrapping_mul(POWERS[n]);
            }
            for m in 0..16 {
                numbers[160 + 16 * n + m] = block[32 + m].wrapping_mul(POWERS[n]);
            }
            if n < 4 {
                for m in 0..4 {
                    numbers[240 + 4 * n + m] = block[48 + m].wrapping_mul(POWERS[n]);
                }
            }
        }
        let mut i = 0;
        while i < WEIGHTS {
            let number = v.load_bytes(&numbers[i..]);
            let trit = v.shr(number + number + number, 8);
            v.store_to(v.to_f(trit - v.splat_i(1)) * scale, &mut yb[i..]);
            i += V::N;
        }
    }
}

#[inline(always)]
fn decode_tq2_0<V: Simd>(v: V, blocks: &[u8], out: &mut [f32]) {
    for (block, yb) in blocks.as_chunks::<66>().0.iter().zip(out.as_chunks_mut::<WEIGHTS>().0) {
        let scale = v.splat(read_f16(&block[64..]));
        for (j, yg) in yb.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            let (bytes, shift) = two_bit_plane(&block[..64], j);
            let mut l = 0;
            while l < 16 {
                let level = v.shr(v.load_bytes(&bytes[l..]), u32::from(shift)) & v.splat_i(3);
                v.store_to(v.to_f(level - v.splat_i(1)) * scale, &mut yg[l..]);
                l += V::N;
            }
        }
    }
}
