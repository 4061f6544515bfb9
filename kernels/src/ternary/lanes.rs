//! TQ1_0 and TQ2_0 over lanes.

use super::reference::PARTS;
use crate::lanes::{
    Batch, Rows, Simd, amax, f16_bits, reciprocal_or_zero, round_away, stamp, stamp_decoders,
};
use crate::superblock::WEIGHTS;
use crate::superblock_lanes::{pack_two_bits, put_byte};

stamp! {
    encode_tq1_0 = encode_tq1_0;
    encode_tq2_0 = encode_tq2_0;
}

stamp_decoders! {
    plain decode_tq1_0 = reference::decode_tq1_0;
    plain decode_tq2_0 = reference::decode_tq2_0;
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
