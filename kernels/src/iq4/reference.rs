//! Scalar reference of IQ4_NL and IQ4_XS.

use crate::num::{
    f16_bits, nearest_int, read_f16, reciprocal_or_zero, signed_max, sum_of_squares, write_f16,
};
use crate::search::{fit_codebook, importance_weights, nearest_entry, square_weights};
use crate::superblock::{WEIGHTS, group, super_blocks};

/// The codebook (`kvalues_iq4nl`).
pub(super) const VALUES: [i8; 16] =
    [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

fn fit(x: &[f32; 32], importance: Option<&[f32; 32]>, sigma2: f32) -> f32 {
    let weights = importance.map_or_else(|| square_weights(x), |w| importance_weights(x, w, sigma2));
    fit_codebook(x, &weights, &VALUES)
}

fn pack(x: &[f32; 32], inverse: f32, out: &mut [u8]) {
    for (j, byte) in out.iter_mut().enumerate() {
        let level = |i: usize| nearest_entry(&VALUES, inverse * x[i]);
        *byte = level(j) | level(j + 16) << 4;
    }
}

fn unpack(bytes: &[u8], scale: f32, out: &mut [f32; 32]) {
    for (i, y) in out.iter_mut().enumerate() {
        *y = scale * f32::from(VALUES[usize::from(bytes[i % 16] >> (i / 16 * 4) & 15)]);
    }
}

pub(super) fn encode_nl(x: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
    let importance = importance.map(|w| w.as_chunks::<32>().0);
    let blocks = x.as_chunks::<32>().0.iter().zip(out.as_chunks_mut::<18>().0);
    for (i, (xb, block)) in blocks.enumerate() {
        let sigma2 = sum_of_squares(xb) * (2.0 / 32.0);
        let scale = fit(xb, importance.map(|w| &w[i]), sigma2);
        write_f16(block, f16_bits(scale));
        pack(xb, reciprocal_or_zero(scale), &mut block[2..]);
    }
}

pub(super) fn decode_nl(blocks: &[u8], out: &mut [f32]) {
    for (block, yb) in blocks.as_chunks::<18>().0.iter().zip(out.as_chunks_mut::<32>().0) {
        unpack(&block[2..], read_f16(block), yb);
    }
}

pub(super) fn encode_xs(x: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
    for ((xb, w), block) in super_blocks(x, importance).zip(out.as_chunks_mut::<136>().0) {
        let sigma2 = sum_of_squares(xb) * (2.0 / WEIGHTS as f32);
        let scales: [f32; 8] = std::array::from_fn(|j| fit(group(xb, j), w.map(|w| group(w, j)), sigma2));
        let d = -signed_max(&scales).0 / 32.0;
        write_f16(block, f16_bits(d));
        let inverse = reciprocal_or_zero(d);
        let (mut high, mut low) = (0u16, [0u8; 4]);
        for (j, bytes) in block[8..].as_chunks_mut::<16>().0.iter_mut().enumerate() {
            let level = nearest_int(inverse * scales[j]).clamp(-32, 31);
            pack(group(xb, j), reciprocal_or_zero(d * level as f32), bytes);
            let biased = (level + 32) as u8;
            low[j / 2] |= (biased & 15) << (j % 2 * 4);
            high |= u16::from(biased >> 4) << (2 * j);
        }
        block[2..4].copy_from_slice(&high.to_le_bytes());
        block[4..8].copy_from_slice(&low);
    }
}

pub(super) fn decode_xs(blocks: &[u8], out: &mut [f32]) {
    for (block, yb) in blocks.as_chunks::<136>().0.iter().zip(out.as_chunks_mut::<WEIGHTS>().0) {
        let d = read_f16(block);
        for (j, yg) in yb.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            unpack(&block[8 + 16 * j..][..16], d * xs_scale(block, j), yg);
        }
    }
}

/// The scale of group `j` of an IQ4_XS block, as a multiple of `d`.
#[inline(always)]
pub(super) fn xs_scale(block: &[u8; 136], j: usize) -> f32 {
    let high = u16::from_le_bytes([block[2], block[3]]);
    let low = block[4 + j / 2] >> (j % 2 * 4) & 15;
    f32::from((i16::from(low) | (high >> (2 * j) & 3).cast_signed() << 4) - 32)
}
