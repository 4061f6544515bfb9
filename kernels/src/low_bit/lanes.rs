//! Q1_0 and Q2_0 over lanes.

use crate::lanes::{
    Batch, Rows, Simd, amax, f16_bits, reciprocal_or_zero, round_away, stamp, stamp_decoders,
};
use crate::superblock_lanes::put_byte;

stamp! {
    encode_q1_0 = encode_q1_0;
    encode_q2_0 = encode_q2_0;
}

stamp_decoders! {
    plain decode_q1_0 = reference::decode_q1_0;
    plain decode_q2_0 = reference::decode_q2_0;
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
