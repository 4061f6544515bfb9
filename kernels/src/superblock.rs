//! What the K-quants share: super-blocks of 256 weights, 2-bit planes, and the whole of Q4_K and Q5_K except
//! how they pack levels. Must not know byte offsets of any block.

use crate::num::{f16_bits, f16_value, nearest_int, sum_of_squares};
use crate::search::{Candidates, Penalty, fit_affine, fit_positive, importance_weights, total};

/// Weights in one super-block (`QK_K`).
pub(crate) const WEIGHTS: usize = 256;

/// A row's super-blocks, each with its importance.
pub(crate) fn super_blocks<'a>(
    x: &'a [f32],
    importance: Option<&'a [f32]>,
) -> impl Iterator<Item = (&'a [f32; WEIGHTS], Option<&'a [f32; WEIGHTS]>)> {
    let importance = importance.map(|w| w.as_chunks().0);
    x.as_chunks().0.iter().enumerate().map(move |(i, xb)| (xb, importance.map(|w| &w[i])))
}

/// The `j`-th group of `N` values.
pub(crate) fn group<const N: usize>(x: &[f32; WEIGHTS], j: usize) -> &[f32; N] {
    &x.as_chunks().0[j]
}

/// Packs 2-bit levels: byte l of each half holds weights l, l + 32, l + 64 and l + 96, lowest bits first.
/// Bits above the second of a level spill into its neighbour, as in ggml.
pub(crate) fn pack_two_bits(levels: &[u8; WEIGHTS], out: &mut [u8]) {
    for (half, bytes) in levels.as_chunks::<128>().0.iter().zip(out.as_chunks_mut::<32>().0) {
        for (l, byte) in bytes.iter_mut().enumerate() {
            *byte = half[l] | half[l + 32] << 2 | half[l + 64] << 4 | half[l + 96] << 6;
        }
    }
}

/// Where [`pack_two_bits`] put the levels of the `j`-th sixteen weights: the bytes, and how far to shift them.
#[inline(always)]
pub(crate) fn two_bit_plane(bytes: &[u8], j: usize) -> (&[u8; 16], u8) {
    (&bytes.as_chunks().0[j / 8 * 2 + j % 2], (j % 8 / 2 * 2) as u8)
}

/// Levels again, now that the scale and offset they will be decoded with are known. A group whose scale
/// vanished keeps the levels of its search.
pub(crate) fn requantize_affine(x: &[f32], scale: f32, offset: f32, max_level: i32, levels: &mut [u8]) {
    if scale == 0.0 {
        return;
    }
    for (level, v) in levels.iter_mut().zip(x) {
        *level = nearest_int((v + offset) / scale).min(max_level).max(0) as u8;
    }
}

/// The same for symmetric groups: levels in `0..2 * half`.
pub(crate) fn requantize_symmetric(x: &[f32], scale: f32, half: i32, levels: &mut [u8]) {
    if scale == 0.0 {
        return;
    }
    for (level, v) in levels.iter_mut().zip(x) {
        *level = (nearest_int(v / scale).min(half - 1).max(-half) + half) as u8;
    }
}

/// How Q4_K and Q5_K differ in their search.
pub(crate) struct AffineKind {
    pub(crate) max_level: i32,
    /// Candidates without importance.
    pub(crate) plain: Candidates,
    /// Whether scales found with importance are clamped to 63. Where they are not, a wrapped negative one
    /// spills into other scales' bits.
    pub(crate) clamp: bool,
}

/// A Q4_K or Q5_K super-block before its levels are packed.
pub(crate) struct AffineBlock {
    /// Binary16 scale of the scales.
    pub(crate) d: u16,
    /// Binary16 scale of the offsets.
    pub(crate) dmin: u16,
    /// Eight 6-bit scales and eight 6-bit offsets, packed.
    pub(crate) scales: [u8; 12],
    pub(crate) levels: [u8; WEIGHTS],
}

/// Encodes eight groups of 32 under 6-bit scales and offsets
/// (`quantize_row_q4_K_ref`, `quantize_row_q4_K_impl`, and the same of Q5_K).
pub(crate) fn encode_affine(
    kind: &AffineKind,
    x: &[f32; WEIGHTS],
    importance: Option<&[f32; WEIGHTS]>,
) -> AffineBlock {
    let mut levels = [0u8; WEIGHTS];
    let (mut scales, mut offsets) = ([0f32; 8], [0f32; 8]);
    let (d, dmin, scale_levels, offset_levels);
    if let Some(importance) = importance {
        let sigma2 = 2.0 * sum_of_squares(x) / WEIGHTS as f32;
        let mut sums = [0f32; 8];
        for (j, group_levels) in levels.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            let xg = group::<32>(x, j);
            let weights = importance_weights(xg, group(importance, j), sigma2);
            sums[j] = total(&weights);
            let all = Candidates::WITH_IMPORTANCE;
            (scales[j], offsets[j]) =
                fit_affine(xg, &weights, kind.max_level, all, Penalty::Squared, group_levels);
        }
        let (mut s, mut o) = ([0u8; 8], [0u8; 8]);
        d = fit_positive(&scales, &sums, 63, &mut s);
        dmin = fit_positive(&offsets, &sums, 63, &mut o);
        let limit = if kind.clamp { 63 } else { u8::MAX };
        (scale_levels, offset_levels) = (s.map(|l| l.min(limit)), o.map(|l| l.min(limit)));
    } else {
        for (j, group_levels) in levels.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            let xg = group::<32>(x, j);
            let mean = (sum_of_squares(xg) / 32.0).sqrt();
            let weights = xg.map(|v| mean + v.abs());
            (scales[j], offsets[j]) =
                fit_affine(xg, &weights, kind.max_level, kind.plain, Penalty::Squared, group_levels);
        }
        let (max_scale, max_offset) = (largest(&scales), largest(&offsets));
        let to_levels = |values: [f32; 8], max: f32| {
            let inverse = if max > 0.0 { 63.0 / max } else { 0.0 };
            values.map(|v| (nearest_int(inverse * v) as u8).min(63))
        };
        (scale_levels, offset_levels) = (to_levels(scales, max_scale), to_levels(offsets, max_offset));
        d = max_scale / 63.0;
        dmin = max_offset / 63.0;
    }

    let block = AffineBlock {
        d: f16_bits(d),
        dmin: f16_bits(dmin),
        scales: pack_six_bits(scale_levels, offset_levels),
        levels,
    };
    requantized(kind, x, block)
}

fn requantized(kind: &AffineKind, x: &[f32; WEIGHTS], mut block: AffineBlock) -> AffineBlock {
    for (j, group_levels) in block.levels.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let (scale, offset) = six_bits(&block.scales, j);
        let scale = f16_value(block.d) * f32::from(scale);
        let offset = f16_value(block.dmin) * f32::from(offset);
        requantize_affine(group::<32>(x, j), scale, offset, kind.max_level, group_levels);
    }
    block
}

/// The largest value, zero when none is positive.
pub(crate) fn largest(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |max, &v| if v > max { v } else { max })
}

/// Eight scales and eight offsets of six bits in twelve bytes. The first four of each fill the low six bits of
/// bytes 0..4 and 4..8; of the last four, the low nibbles share bytes 8..12 and the top two bits go above the
/// first eight bytes' six.
fn pack_six_bits(scales: [u8; 8], offsets: [u8; 8]) -> [u8; 12] {
    let mut out = [0u8; 12];
    out[..4].copy_from_slice(&scales[..4]);
    out[4..8].copy_from_slice(&offsets[..4]);
    for j in 4..8 {
        out[j + 4] = scales[j] & 15 | offsets[j] << 4;
        out[j - 4] |= scales[j] >> 4 << 6;
        out[j] |= offsets[j] >> 4 << 6;
    }
    out
}

/// Scale and offset of group `j` (`get_scale_min_k4`).
#[inline(always)]
pub(crate) fn six_bits(packed: &[u8], j: usize) -> (u8, u8) {
    if j < 4 {
        (packed[j] & 63, packed[j + 4] & 63)
    } else {
        let low = packed[j + 4];
        (low & 15 | packed[j - 4] >> 6 << 4, low >> 4 | packed[j] >> 6 << 4)
    }
}
