//! TQ1_0 and TQ2_0 over lanes.

use super::reference::POWERS;
use crate::lanes::{
    MAX_LANES, Reduced, Rows, Scan, Simd, f16_bits, reciprocal_or_zero, round_away, stamp, stamp_decoders,
};
use crate::num::read_f16;
use crate::superblock::{WEIGHTS, two_bit_plane};

stamp! {
    direct encode_tq1_0 = encode_tq1_0;
    direct encode_tq2_0 = encode_tq2_0;
}

stamp_decoders! {
    decode_tq1_0 = decode_tq1_0;
    decode_tq2_0 = decode_tq2_0;
}

/// Hands the scale and the trits, as bytes, of each block to one of the functions below.
#[inline(always)]
fn encode<V: Scan, P: Pack<BYTES>, const BYTES: usize>(v: V, rows: &Rows<'_>, out: &mut [u8]) -> bool {
    let mut reduced = Reduced::NONE;
    let blocks = rows.x.as_chunks::<WEIGHTS>().0.chunks(V::N);
    for (blocks, out) in blocks.zip(out.as_chunks_mut::<BYTES>().0.chunks_mut(V::N)) {
        let Some(scale) = reduced.amax(v, blocks) else { return false };
        let inverses = v.store(reciprocal_or_zero(v, scale));
        let scales = v.store_words(f16_bits(v, scale));
        for (l, (x, block)) in blocks.iter().zip(out).enumerate() {
            let l = l % MAX_LANES;
            let inverse = v.splat(inverses[l]);
            let mut trits = [0; WEIGHTS];
            for (x, trits) in x.as_chunks::<32>().0.iter().zip(trits.as_chunks_mut::<32>().0) {
                let mut levels = [v.splat_i(0); 32];
                let mut i = 0;
                while i < 32 {
                    levels[i / V::N] = round_away(v, v.load_from(&x[i..]) * inverse) + v.splat_i(1);
                    i += V::N;
                }
                *trits = v.to_bytes(&levels);
            }
            P::pack(&trits, block);
            block[BYTES - 2..].copy_from_slice(&(scales[l] as u16).to_le_bytes());
        }
    }
    true
}

/// How a format packs trits; plain loops over bytes, which the compiler vectorises.
trait Pack<const BYTES: usize> {
    fn pack(trits: &[u8; WEIGHTS], block: &mut [u8; BYTES]);
}

/// Five trits to a byte.
struct Fives;

/// The byte of up to five trits: their fraction, rounded up.
#[inline(always)]
fn fraction(number: u8) -> u8 {
    (u16::from(number) * 256).div_ceil(243) as u8
}

impl Pack<54> for Fives {
    #[inline(always)]
    fn pack(trits: &[u8; WEIGHTS], block: &mut [u8; 54]) {
        let (wide, rest) = trits.split_at(160);
        let (narrow, last) = rest.split_at(80);
        for m in 0..32 {
            let mut number = 0u8;
            for n in 0..5 {
                number = number.wrapping_mul(3).wrapping_add(wide[m + 32 * n]);
            }
            block[m] = fraction(number);
        }
        for m in 0..16 {
            let mut number = 0u8;
            for n in 0..5 {
                number = number.wrapping_mul(3).wrapping_add(narrow[m + 16 * n]);
            }
            block[32 + m] = fraction(number);
        }
        for m in 0..4 {
            let mut number = 0u8;
            for n in 0..4 {
                number = number.wrapping_mul(3).wrapping_add(last[m + 4 * n]);
            }
            block[48 + m] = fraction(number.wrapping_mul(3));
        }
    }
}

/// Two bits each.
struct Pairs;

impl Pack<66> for Pairs {
    #[inline(always)]
    fn pack(trits: &[u8; WEIGHTS], block: &mut [u8; 66]) {
        let halves = trits.as_chunks::<128>().0.iter().zip(block.as_chunks_mut::<32>().0);
        for (half, bytes) in halves {
            for l in 0..32 {
                let (low, high) =
                    (half[l] & 3 | (half[l + 32] & 3) << 2, half[l + 64] & 3 | half[l + 96] << 2);
                bytes[l] = low | high << 4;
            }
        }
    }
}

#[inline(always)]
pub(crate) fn encode_tq1_0<V: Scan>(v: V, rows: Rows<'_>, out: &mut [u8]) -> bool {
    encode::<V, Fives, 54>(v, &rows, out)
}

#[inline(always)]
pub(crate) fn encode_tq2_0<V: Scan>(v: V, rows: Rows<'_>, out: &mut [u8]) -> bool {
    encode::<V, Pairs, 66>(v, &rows, out)
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
