//! Scalar reference of Q3_K.

use crate::num::{f16_bits, f16_value, nearest_int, read_f16, signed_max, sum_of_squares, write_f16};
use crate::search::{fit_by_descent, fit_symmetric, importance_weights, total};
use crate::superblock::{WEIGHTS, group, pack_two_bits, requantize_symmetric, super_blocks, two_bit_plane};

pub(super) const BYTES: usize = 110;
pub(super) const HALF: i32 = 4;

/// Returns the scale of the scales and the biased 6-bit scales.
fn search_plain(x: &[f32; WEIGHTS], levels: &mut [u8; WEIGHTS]) -> (f32, [u8; 16]) {
    let mut scales = [0f32; 16];
    for (j, group_levels) in levels.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        scales[j] = fit_by_descent(group::<16>(x, j), HALF, group_levels);
    }
    let (max, _) = signed_max(&scales);
    if max == 0.0 {
        // Stored zeros mean scale -32, which the zero `d` makes harmless.
        return (0.0, [0; 16]);
    }
    let inverse = -32.0 / max;
    // ggml cuts to eight bits before it clamps.
    let biased = |s: f32| ((nearest_int(inverse * s) as i8).clamp(-32, 31) + 32) as u8;
    (1.0 / inverse, scales.map(biased))
}

fn search_weighted(
    x: &[f32; WEIGHTS],
    importance: &[f32; WEIGHTS],
    levels: &mut [u8; WEIGHTS],
) -> (f32, [u8; 16]) {
    let sigma2 = 2.0 * sum_of_squares(x) / WEIGHTS as f32;
    let (mut scales, mut sums) = ([0f32; 16], [0f32; 16]);
    for (j, group_levels) in levels.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        let xg = group::<16>(x, j);
        let weights = importance_weights(xg, group(importance, j), sigma2);
        sums[j] = total(&weights);
        scales[j] = fit_symmetric(xg, &weights, HALF, group_levels);
    }
    let mut biased = [0u8; 16];
    let d = fit_symmetric(&scales, &sums, 32, &mut biased);
    (d, biased)
}

fn pack_scales(biased: &[u8; 16]) -> [u8; 12] {
    let mut out = [0u8; 12];
    for (j, &l) in biased.iter().enumerate() {
        out[j % 8] |= (l & 15) << (j / 8 * 4);
        out[8 + j % 4] |= l >> 4 << (2 * (j / 4));
    }
    out
}

#[inline(always)]
pub(super) fn unpack_scale(packed: &[u8], j: usize) -> i8 {
    let low = packed[j % 8] >> (j / 8 * 4) & 15;
    let high = packed[8 + j % 4] >> (2 * (j / 4)) & 3;
    (low | high << 4) as i8 - 32
}

pub(super) fn encode(x: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
    for ((xb, w), block) in super_blocks(x, importance).zip(out.as_chunks_mut::<BYTES>().0) {
        let mut levels = [0u8; WEIGHTS];
        let (d, scales) = match w {
            Some(w) => search_weighted(xb, w, &mut levels),
            None => search_plain(xb, &mut levels),
        };
        let d = f16_bits(d);
        let scales = pack_scales(&scales);
        for (j, group_levels) in levels.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            let scale = f16_value(d) * f32::from(unpack_scale(&scales, j));
            requantize_symmetric(group::<16>(xb, j), scale, HALF, group_levels);
        }
        let (high, rest) = block.split_at_mut(32);
        high.fill(0);
        for (i, level) in levels.iter_mut().enumerate() {
            if *level > 3 {
                high[i % 32] |= 1 << (i / 32);
                *level -= 4;
            }
        }
        pack_two_bits(&levels, &mut rest[..64]);
        rest[64..76].copy_from_slice(&scales);
        write_f16(&mut rest[76..], d);
    }
}

pub(super) fn decode(blocks: &[u8], out: &mut [f32]) {
    for (block, yb) in blocks.as_chunks::<BYTES>().0.iter().zip(out.as_chunks_mut::<WEIGHTS>().0) {
        let d = read_f16(&block[108..]);
        for (j, yg) in yb.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            let scale = d * f32::from(unpack_scale(&block[96..108], j));
            let (bytes, shift) = two_bit_plane(&block[32..96], j);
            let high = &block[..32].as_chunks::<16>().0[j % 2];
            for (l, y) in yg.iter_mut().enumerate() {
                let level = bytes[l] >> shift & 3 | (high[l] >> (j / 2) & 1) << 2;
                *y = scale * f32::from(level as i8 - 4);
            }
        }
    }
}
