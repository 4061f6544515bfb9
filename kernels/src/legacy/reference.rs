//! Scalar reference of Q4_0, Q4_1, Q5_0, Q5_1 and Q8_0. `BITS` is 4 or 5.

use crate::num::{
    c_max, f16_bits, read_f16, reciprocal_or_zero, round_away, signed_max, sum_of_squares, truncate,
    write_f16,
};
use crate::search::{Candidates, Penalty, fit_affine, fit_symmetric, importance_weights};

/// Bytes of the levels of one block.
const fn level_bytes(bits: u32) -> usize {
    if bits == 5 { 4 + 16 } else { 16 }
}

fn pack<const BITS: u32>(levels: &[u8; 32], out: &mut [u8]) {
    let nibbles = if BITS == 5 {
        let high = levels.iter().enumerate().fold(0, |h, (i, &l)| h | (u32::from(l >> 4 & 1) << i));
        let (head, rest) = out.split_at_mut(4);
        head.copy_from_slice(&high.to_le_bytes());
        rest
    } else {
        out
    };
    for (j, byte) in nibbles.iter_mut().enumerate() {
        *byte = levels[j] & 15 | levels[j + 16] << 4;
    }
}

#[inline(always)]
fn unpack<const BITS: u32>(bytes: &[u8]) -> [i32; 32] {
    let (high, nibbles) = if BITS == 5 {
        (u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]), &bytes[4..20])
    } else {
        (0, &bytes[..16])
    };
    let mut levels = [0; 32];
    for i in 0..16 {
        levels[i] = i32::from(nibbles[i] & 15);
        levels[i + 16] = i32::from(nibbles[i] >> 4);
    }
    if BITS == 5 {
        for (i, level) in levels.iter_mut().enumerate() {
            *level |= ((high >> i & 1) << 4) as i32;
        }
    }
    levels
}

/// Mean square of the row, needed only with importance.
fn row_mean_square(x: &[f32], importance: Option<&[f32]>) -> f32 {
    if importance.is_some() { sum_of_squares(x) / x.len() as f32 } else { 0.0 }
}

fn block_importance(importance: Option<&[f32]>, i: usize) -> Option<&[f32; 32]> {
    importance.map(|w| &w.as_chunks::<32>().0[i])
}

pub(super) fn encode_symmetric<const BITS: u32>(x: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
    let half = 1i32 << (BITS - 1);
    let sigma2 = row_mean_square(x, importance);
    let blocks = out.chunks_exact_mut(2 + level_bytes(BITS));
    for (i, (xb, block)) in x.as_chunks::<32>().0.iter().zip(blocks).enumerate() {
        let mut levels = [0u8; 32];
        let scale = if let Some(w) = block_importance(importance, i) {
            fit_symmetric(xb, &importance_weights(xb, w, sigma2), half, &mut levels)
        } else {
            let scale = signed_max(xb).0 / -half as f32;
            let inverse = reciprocal_or_zero(scale);
            for (level, v) in levels.iter_mut().zip(xb) {
                let cut = truncate(v * inverse + (half as f32 + 0.5)) as i8;
                *level = cut.min((2 * half - 1) as i8) as u8;
            }
            scale
        };
        write_f16(block, f16_bits(scale));
        pack::<BITS>(&levels, &mut block[2..]);
    }
}

#[inline(always)]
pub(super) fn decode_symmetric<const BITS: u32>(blocks: &[u8], out: &mut [f32]) {
    let half = 1i32 << (BITS - 1);
    for (block, yb) in blocks.chunks_exact(2 + level_bytes(BITS)).zip(out.as_chunks_mut::<32>().0) {
        let scale = read_f16(block);
        let levels = unpack::<BITS>(&block[2..]);
        for (y, level) in yb.iter_mut().zip(levels) {
            *y = (level - half) as f32 * scale;
        }
    }
}

pub(super) fn encode_affine<const BITS: u32>(x: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
    let top = (1i32 << BITS) - 1;
    let sigma2 = row_mean_square(x, importance);
    let blocks = out.chunks_exact_mut(4 + level_bytes(BITS));
    for (i, (xb, block)) in x.as_chunks::<32>().0.iter().zip(blocks).enumerate() {
        let mut levels = [0u8; 32];
        let (scale, min) = if let Some(w) = block_importance(importance, i) {
            let weights = importance_weights(xb, w, sigma2);
            let all = Candidates::WITH_IMPORTANCE;
            let (scale, offset) = fit_affine(xb, &weights, top, all, Penalty::Squared, &mut levels);
            (scale, -offset)
        } else {
            let min = xb.iter().fold(f32::MAX, |min, &v| if v < min { v } else { min });
            let max = xb.iter().fold(f32::MIN, |max, &v| if v > max { v } else { max });
            let scale = (max - min) / top as f32;
            let inverse = reciprocal_or_zero(scale);
            for (level, v) in levels.iter_mut().zip(xb) {
                let cut = truncate((v - min) * inverse + 0.5);
                // Five bits are only masked, when packed; four are clamped as a signed byte.
                *level = if BITS == 5 { cut as u8 } else { (cut as i8).min(15) as u8 };
            }
            (scale, min)
        };
        write_f16(block, f16_bits(scale));
        write_f16(&mut block[2..], f16_bits(min));
        pack::<BITS>(&levels, &mut block[4..]);
    }
}

#[inline(always)]
pub(super) fn decode_affine<const BITS: u32>(blocks: &[u8], out: &mut [f32]) {
    for (block, yb) in blocks.chunks_exact(4 + level_bytes(BITS)).zip(out.as_chunks_mut::<32>().0) {
        let (scale, min) = (read_f16(block), read_f16(&block[2..]));
        let levels = unpack::<BITS>(&block[4..]);
        for (y, level) in yb.iter_mut().zip(levels) {
            *y = level as f32 * scale + min;
        }
    }
}

pub(super) fn encode_q8_0(x: &[f32], _importance: Option<&[f32]>, out: &mut [u8]) {
    for (xb, block) in x.as_chunks::<32>().0.iter().zip(out.chunks_exact_mut(34)) {
        let scale = xb.iter().fold(0.0, |amax, v| c_max(amax, v.abs())) / 127.0;
        let inverse = reciprocal_or_zero(scale);
        write_f16(block, f16_bits(scale));
        for (level, v) in block[2..].iter_mut().zip(xb) {
            *level = round_away(v * inverse) as u8;
        }
    }
}

#[inline(always)]
pub(super) fn decode_q8_0(blocks: &[u8], out: &mut [f32]) {
    for (block, yb) in blocks.chunks_exact(34).zip(out.as_chunks_mut::<32>().0) {
        let scale = read_f16(block);
        for (y, &level) in yb.iter_mut().zip(&block[2..]) {
            *y = f32::from(level as i8) * scale;
        }
    }
}
