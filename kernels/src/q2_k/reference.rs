//! Scalar reference of Q2_K.

use crate::num::{f16_bits, f16_value, nearest_int, read_f16, sum_of_squares, write_f16};
use crate::search::{Candidates, Penalty, fit_affine, fit_positive, importance_weights, total};
use crate::superblock::{
    WEIGHTS, group, largest, pack_two_bits, requantize_affine, super_blocks, two_bit_plane,
};

pub(super) const BYTES: usize = 84;
pub(super) const PLAIN: Candidates = Candidates { first: -0.5, step: 0.1, last: 15 };

/// Scale of the scales, scale of the offsets, and both of each group, packed.
struct Scales {
    d: f32,
    dmin: f32,
    packed: [u8; 16],
}

fn search_plain(x: &[f32; WEIGHTS], levels: &mut [u8; WEIGHTS]) -> Scales {
    let (mut scales, mut offsets) = ([0f32; 16], [0f32; 16]);
    for (j, group_levels) in levels.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        let xg = group::<16>(x, j);
        (scales[j], offsets[j]) =
            fit_affine(xg, &xg.map(f32::abs), 3, PLAIN, Penalty::Absolute, group_levels);
    }
    let to_levels = |values: [f32; 16], max: f32| {
        if max > 0.0 { values.map(|v| nearest_int(15.0 / max * v) as u8) } else { [0; 16] }
    };
    let (max_scale, max_offset) = (largest(&scales), largest(&offsets));
    let (s, o) = (to_levels(scales, max_scale), to_levels(offsets, max_offset));
    Scales { d: max_scale / 15.0, dmin: max_offset / 15.0, packed: std::array::from_fn(|j| s[j] | o[j] << 4) }
}

fn search_weighted(x: &[f32; WEIGHTS], importance: &[f32; WEIGHTS], levels: &mut [u8; WEIGHTS]) -> Scales {
    let sigma2 = sum_of_squares(x) / WEIGHTS as f32;
    let (mut scales, mut offsets, mut sums) = ([0f32; 16], [0f32; 16], [0f32; 16]);
    for (j, group_levels) in levels.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        let xg = group::<16>(x, j);
        let weights = importance_weights(xg, group(importance, j), sigma2);
        sums[j] = total(&weights);
        let all = Candidates::WITH_IMPORTANCE;
        (scales[j], offsets[j]) = fit_affine(xg, &weights, 3, all, Penalty::Squared, group_levels);
    }
    let (mut s, mut o) = ([0u8; 16], [0u8; 16]);
    let d = fit_positive(&scales, &sums, 15, &mut s);
    let dmin = fit_positive(&offsets, &sums, 15, &mut o);
    Scales { d, dmin, packed: std::array::from_fn(|j| s[j] | o[j] << 4) }
}

pub(super) fn encode(x: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
    for ((xb, w), block) in super_blocks(x, importance).zip(out.as_chunks_mut::<BYTES>().0) {
        let mut levels = [0u8; WEIGHTS];
        let scales = match w {
            Some(w) => search_weighted(xb, w, &mut levels),
            None => search_plain(xb, &mut levels),
        };
        let (d, dmin) = (f16_bits(scales.d), f16_bits(scales.dmin));
        for (j, group_levels) in levels.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            let scale = f16_value(d) * f32::from(scales.packed[j] & 15);
            let offset = f16_value(dmin) * f32::from(scales.packed[j] >> 4);
            requantize_affine(group::<16>(xb, j), scale, offset, 3, group_levels);
        }
        block[..16].copy_from_slice(&scales.packed);
        pack_two_bits(&levels, &mut block[16..80]);
        write_f16(&mut block[80..], d);
        write_f16(&mut block[82..], dmin);
    }
}

#[inline(always)]
pub(super) fn decode(blocks: &[u8], out: &mut [f32]) {
    for (block, yb) in blocks.as_chunks::<BYTES>().0.iter().zip(out.as_chunks_mut::<WEIGHTS>().0) {
        let (d, dmin) = (read_f16(&block[80..]), read_f16(&block[82..]));
        for (j, yg) in yb.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            let (scale, offset) = (d * f32::from(block[j] & 15), dmin * f32::from(block[j] >> 4));
            let (bytes, shift) = two_bit_plane(&block[16..80], j);
            for (y, byte) in yg.iter_mut().zip(bytes) {
                *y = scale * f32::from(byte >> shift & 3) - offset;
            }
        }
    }
}
