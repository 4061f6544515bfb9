//! Scalar reference of Q6_K.

use crate::num::{f16_bits, f16_value, nearest_int, read_f16, signed_max, write_f16};
use crate::search::{ZERO_BELOW, fit_symmetric, square_weights};
use crate::superblock::{WEIGHTS, group, requantize_symmetric, super_blocks, two_bit_plane};

pub(super) const BYTES: usize = 210;
pub(super) const HALF: i32 = 32;

pub(super) fn encode(x: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
    for ((xb, w), block) in super_blocks(x, importance).zip(out.as_chunks_mut::<BYTES>().0) {
        let mut levels = [0u8; WEIGHTS];
        let mut scales = [0f32; 16];
        for (j, group_levels) in levels.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            let xg = group::<16>(xb, j);
            let weights = w.map_or_else(|| square_weights(xg), |w| *group(w, j));
            scales[j] = fit_symmetric(xg, &weights, HALF, group_levels);
        }
        let (max, amax) = signed_max(&scales);
        if amax < ZERO_BELOW {
            block.fill(0);
            continue;
        }
        let inverse = -128.0 / max;
        let d = f16_bits(1.0 / inverse);
        let scales = scales.map(|s| nearest_int(inverse * s).min(127) as i8);
        for (j, group_levels) in levels.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            let scale = f16_value(d) * f32::from(scales[j]);
            requantize_symmetric(group::<16>(xb, j), scale, HALF, group_levels);
        }
        pack(&levels, block);
        for (byte, scale) in block[192..208].iter_mut().zip(scales) {
            *byte = scale as u8;
        }
        write_f16(&mut block[208..], d);
    }
}

fn pack(levels: &[u8; WEIGHTS], block: &mut [u8; BYTES]) {
    let (low, rest) = block.split_at_mut(128);
    let halves = low.as_chunks_mut::<64>().0.iter_mut().zip(rest.as_chunks_mut::<32>().0);
    for (q, (low, high)) in levels.as_chunks::<128>().0.iter().zip(halves) {
        for l in 0..32 {
            low[l] = q[l] & 15 | q[l + 64] << 4;
            low[l + 32] = q[l + 32] & 15 | q[l + 96] << 4;
            high[l] = q[l] >> 4 | q[l + 32] >> 4 << 2 | q[l + 64] >> 4 << 4 | q[l + 96] >> 4 << 6;
        }
    }
}

#[inline(always)]
pub(super) fn decode(blocks: &[u8], out: &mut [f32]) {
    for (block, yb) in blocks.as_chunks::<BYTES>().0.iter().zip(out.as_chunks_mut::<WEIGHTS>().0) {
        let d = read_f16(&block[208..]);
        for (j, yg) in yb.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            let scale = d * f32::from(block[192 + j] as i8);
            // Sixteens 0..4 of each half are the low nibbles, 4..8 the high ones.
            let low = &block[..128].as_chunks::<16>().0[j / 8 * 4 + j % 4];
            let nibble = j % 8 / 4 * 4;
            let (high, shift) = two_bit_plane(&block[128..192], j);
            for (l, y) in yg.iter_mut().enumerate() {
                let level = low[l] >> nibble & 15 | (high[l] >> shift & 3) << 4;
                *y = scale * f32::from(level as i8 - 32);
            }
        }
    }
}
