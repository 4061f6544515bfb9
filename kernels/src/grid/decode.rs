//! Scalar reference decoders of the grid formats.

use super::tables::{IQ1, IQ2_S, IQ2_XS, IQ2_XXS, IQ3_S, IQ3_XXS, point};
use crate::num::{f16_value, read_f16};
use crate::superblock::WEIGHTS;

#[inline(always)]
pub(super) fn word(bytes: &[u8], i: usize) -> u16 {
    u16::from_le_bytes(bytes.as_chunks().0[i])
}

#[inline(always)]
pub(super) fn double_word(bytes: &[u8], i: usize) -> u32 {
    u32::from_le_bytes(bytes.as_chunks().0[i])
}

/// Scale of a group from its 4-bit level, in the sequence that ggml multiplies.
#[inline(always)]
pub(super) fn half_step(d: f32, level: u8, unit: f32) -> f32 {
    d * (0.5 + f32::from(level)) * unit
}

/// The seven stored signs of group `l` in a tail, with the eighth that makes them even.
fn even_signs(seven: u32) -> u8 {
    let seven = (seven & 127) as u8;
    seven | ((seven.count_ones() & 1) << 7) as u8
}

/// `scale` times each coordinate, negated where `signs` has a bit.
fn signed_points(scale: f32, coordinates: &[u8], signs: u8, out: &mut [f32]) {
    for (j, (y, &c)) in out.iter_mut().zip(coordinates).enumerate() {
        let v = scale * f32::from(c);
        *y = if signs >> j & 1 == 1 { -v } else { v };
    }
}

/// Calls `eight(block, i, out)` for each eight weights of each super-block; i counts 0..32 within the block.
fn each_eight<const BYTES: usize>(
    blocks: &[u8],
    out: &mut [f32],
    eight: impl Fn(&[u8], usize, &mut [f32; 8]),
) {
    for (block, yb) in blocks.as_chunks::<BYTES>().0.iter().zip(out.as_chunks_mut::<WEIGHTS>().0) {
        for (i, y) in yb.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            eight(block, i, y);
        }
    }
}

pub(super) fn decode_iq2_xxs(blocks: &[u8], out: &mut [f32]) {
    each_eight::<66>(blocks, out, |block, i, y| {
        let (group, l) = (&block[2 + i / 4 * 8..][..8], i % 4);
        let tail = double_word(group, 1);
        let scale = half_step(read_f16(block), (tail >> 28) as u8, 0.25);
        let coordinates = point::<8>(IQ2_XXS, usize::from(group[l]));
        signed_points(scale, coordinates, even_signs(tail >> (7 * l)), y);
    });
}

pub(super) fn decode_iq2_xs(blocks: &[u8], out: &mut [f32]) {
    each_eight::<74>(blocks, out, |block, i, y| {
        let code = word(&block[2..66], i);
        let level = block[66 + i / 4] >> (i % 4 / 2 * 4) & 15;
        let coordinates = point::<8>(IQ2_XS, usize::from(code & 511));
        signed_points(
            half_step(read_f16(block), level, 0.25),
            coordinates,
            even_signs(u32::from(code >> 9)),
            y,
        );
    });
}

pub(super) fn decode_iq2_s(blocks: &[u8], out: &mut [f32]) {
    each_eight::<82>(blocks, out, |block, i, y| {
        let high = block[66 + i / 4] >> (i % 4 * 2) & 3;
        let level = block[74 + i / 4] >> (i % 4 / 2 * 4) & 15;
        let coordinates = point::<8>(IQ2_S, usize::from(block[2 + i]) | usize::from(high) << 8);
        signed_points(half_step(read_f16(block), level, 0.25), coordinates, block[34 + i], y);
    });
}

pub(super) fn decode_iq3_xxs(blocks: &[u8], out: &mut [f32]) {
    each_eight::<98>(blocks, out, |block, i, y| {
        let tail = double_word(&block[66..], i / 4);
        let scale = half_step(read_f16(block), (tail >> 28) as u8, 0.5);
        let signs = even_signs(tail >> (7 * (i % 4)));
        for (k, half) in y.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            let coordinates = point::<4>(IQ3_XXS, usize::from(block[2 + 2 * i + k]));
            signed_points(scale, coordinates, signs >> (4 * k), half);
        }
    });
}

pub(super) fn decode_iq3_s(blocks: &[u8], out: &mut [f32]) {
    each_eight::<110>(blocks, out, |block, i, y| {
        let level = block[106 + i / 8] >> (i / 4 % 2 * 4) & 15;
        let scale = read_f16(block) * f32::from(1 + 2 * level);
        for (k, half) in y.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            let high = block[66 + i / 4] >> (i % 4 * 2 + k) & 1;
            let index = usize::from(block[2 + 2 * i + k]) | usize::from(high) << 8;
            signed_points(scale, point::<4>(IQ3_S, index), block[74 + i] >> (4 * k), half);
        }
    });
}

/// `scale` times each coordinate moved by an eighth, down where `down` is set.
fn shifted_point(scale: f32, index: usize, down: bool, out: &mut [f32; 8]) {
    let shift = if down { -0.125 } else { 0.125 };
    for (y, &c) in out.iter_mut().zip(point::<8>(IQ1, index)) {
        *y = scale * (f32::from(c as i8) + shift);
    }
}

pub(super) fn decode_iq1_s(blocks: &[u8], out: &mut [f32]) {
    each_eight::<50>(blocks, out, |block, i, y| {
        let high = word(&block[34..], i / 4);
        let scale = read_f16(block) * f32::from(2 * (high >> 12 & 7) + 1);
        let index = usize::from(block[2 + i]) | usize::from(high >> (3 * (i % 4)) & 7) << 8;
        shifted_point(scale, index, high & 0x8000 != 0, y);
    });
}

pub(super) fn decode_iq1_m(blocks: &[u8], out: &mut [f32]) {
    each_eight::<56>(blocks, out, |block, i, y| {
        // The super-block's binary16 scale is spread over the top nibbles of the four scale words.
        let words = &block[48..];
        let d = (0..4).fold(0, |d, k| d | word(words, k) >> 12 << (4 * k));
        let level = word(words, i / 8) >> (i / 4 % 2 * 6 + i % 4 / 2 * 3) & 7;
        let high = block[32 + i / 2] >> (i % 2 * 4);
        let index = usize::from(block[i]) | usize::from(high & 7) << 8;
        shifted_point(f16_value(d) * f32::from(2 * level + 1), index, high & 8 != 0, y);
    });
}
