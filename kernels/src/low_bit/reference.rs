//! Scalar reference of Q1_0 and Q2_0.

use crate::num::{f16_bits, read_f16, reciprocal_or_zero, round_away, signed_max, write_f16};

pub(super) fn encode_q1_0(x: &[f32], _importance: Option<&[f32]>, out: &mut [u8]) {
    for (xb, block) in x.as_chunks::<128>().0.iter().zip(out.as_chunks_mut::<18>().0) {
        let sum = xb.iter().fold(0.0, |sum, v| sum + v.abs());
        write_f16(block, f16_bits(sum / 128.0));
        for (byte, eight) in block[2..].iter_mut().zip(xb.as_chunks::<8>().0) {
            *byte = eight.iter().enumerate().fold(0, |bits, (i, &v)| bits | u8::from(v >= 0.0) << i);
        }
    }
}

#[inline(always)]
pub(super) fn decode_q1_0(blocks: &[u8], out: &mut [f32]) {
    for (block, yb) in blocks.as_chunks::<18>().0.iter().zip(out.as_chunks_mut::<128>().0) {
        let scale = read_f16(block);
        for (yw, word) in yb.as_chunks_mut::<32>().0.iter_mut().zip(block[2..].as_chunks::<4>().0) {
            let word = u32::from_le_bytes(*word);
            for (i, y) in yw.iter_mut().enumerate() {
                *y = if word >> i & 1 == 1 { scale } else { -scale };
            }
        }
    }
}

pub(super) fn encode_q2_0(x: &[f32], _importance: Option<&[f32]>, out: &mut [u8]) {
    for (xb, block) in x.as_chunks::<64>().0.iter().zip(out.as_chunks_mut::<18>().0) {
        let (_, scale) = signed_max(xb);
        write_f16(block, f16_bits(scale));
        let inverse = reciprocal_or_zero(scale);
        for (byte, four) in block[2..].iter_mut().zip(xb.as_chunks::<4>().0) {
            *byte = four.iter().enumerate().fold(0, |bits, (i, &v)| {
                let level = (round_away(v * inverse) + 1).clamp(0, 3) as u8;
                bits | level << (2 * i)
            });
        }
    }
}

#[inline(always)]
pub(super) fn decode_q2_0(blocks: &[u8], out: &mut [f32]) {
    for (block, yb) in blocks.as_chunks::<18>().0.iter().zip(out.as_chunks_mut::<64>().0) {
        let scale = read_f16(block);
        for (yw, word) in yb.as_chunks_mut::<16>().0.iter_mut().zip(block[2..].as_chunks::<4>().0) {
            let word = u32::from_le_bytes(*word);
            for (i, y) in yw.iter_mut().enumerate() {
                *y = ((word >> (2 * i) & 3) as i32 - 1) as f32 * scale;
            }
        }
    }
}
