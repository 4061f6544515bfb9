//! Scalar reference of TQ1_0 and TQ2_0.

use crate::num::{c_max, f16_bits, read_f16, reciprocal_or_zero, round_away, write_f16};
use crate::superblock::{WEIGHTS, pack_two_bits, super_blocks, two_bit_plane};

/// `(first byte, bytes, first weight, trits per byte)` of the three parts of a TQ1_0 block.
pub(super) const PARTS: [(usize, usize, usize, usize); 3] =
    [(0, 32, 0, 5), (32, 16, 160, 5), (48, 4, 240, 4)];

/// Powers of three, which bring one trit after the other above the byte.
pub(super) const POWERS: [u8; 5] = [1, 3, 9, 27, 81];

fn trits(x: &[f32; WEIGHTS]) -> (u16, [u8; WEIGHTS]) {
    let scale = x.iter().fold(0.0, |amax, v| c_max(amax, v.abs()));
    let inverse = reciprocal_or_zero(scale);
    // Values within the scale round to -1, 0 or 1; those which overflow come out as x86-64's INT_MIN, whose
    // low byte is zero.
    (f16_bits(scale), x.map(|v| (round_away(v * inverse) as u8).wrapping_add(1)))
}

pub(super) fn encode_tq1_0(x: &[f32], _importance: Option<&[f32]>, out: &mut [u8]) {
    for ((xb, _), block) in super_blocks(x, None).zip(out.as_chunks_mut::<54>().0) {
        let (scale, trits) = trits(xb);
        for (start, count, first, depth) in PARTS {
            for m in 0..count {
                let mut number =
                    (0..depth).fold(0u8, |q, n| q.wrapping_mul(3).wrapping_add(trits[first + m + n * count]));
                if depth == 4 {
                    number = number.wrapping_mul(3);
                }
                // 243 = 3^5; rounded up.
                block[start + m] = (u16::from(number) * 256).div_ceil(243) as u8;
            }
        }
        write_f16(&mut block[52..], scale);
    }
}

#[inline(always)]
pub(super) fn decode_tq1_0(blocks: &[u8], out: &mut [f32]) {
    for (block, yb) in blocks.as_chunks::<54>().0.iter().zip(out.as_chunks_mut::<WEIGHTS>().0) {
        let scale = read_f16(&block[52..]);
        for (start, count, first, depth) in PARTS {
            for (n, power) in POWERS.into_iter().enumerate().take(depth) {
                for m in 0..count {
                    let q = block[start + m].wrapping_mul(power);
                    let trit = (u16::from(q) * 3) >> 8;
                    yb[first + m + n * count] = f32::from(trit as i8 - 1) * scale;
                }
            }
        }
    }
}

pub(super) fn encode_tq2_0(x: &[f32], _importance: Option<&[f32]>, out: &mut [u8]) {
    for ((xb, _), block) in super_blocks(x, None).zip(out.as_chunks_mut::<66>().0) {
        let (scale, trits) = trits(xb);
        pack_two_bits(&trits.map(|t| t & 3), &mut block[..64]);
        write_f16(&mut block[64..], scale);
    }
}

#[inline(always)]
pub(super) fn decode_tq2_0(blocks: &[u8], out: &mut [f32]) {
    for (block, yb) in blocks.as_chunks::<66>().0.iter().zip(out.as_chunks_mut::<WEIGHTS>().0) {
        let scale = read_f16(&block[64..]);
        for (j, yg) in yb.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            let (bytes, shift) = two_bit_plane(&block[..64], j);
            for (y, byte) in yg.iter_mut().zip(bytes) {
                *y = f32::from((byte >> shift & 3) as i8 - 1) * scale;
            }
        }
    }
}
