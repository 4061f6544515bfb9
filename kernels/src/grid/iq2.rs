//! Scalar reference encoders of IQ2_XXS, IQ2_XS and IQ2_S (`quantize_row_iq2_xxs_impl`,
//! `quantize_row_iq2_xs_impl`, `quantize_row_iq2_s_impl`).

use super::lattice::{IQ2_S, IQ2_XS, IQ2_XXS};
use super::magnitude::{Fit, Refit, Search, largest, scale_levels, split_even_signs, split_signs};
use crate::num::sum_of_squares;
use crate::search::{ZERO_BELOW, fit_positive, importance_weights, square_weights};
use crate::superblock::{WEIGHTS, group, super_blocks};

const XXS: Search = Search { candidates: 6, step: 0.1, refit: Refit::Always };
const XS_AND_S: Search = Search { candidates: 9, step: 0.1, refit: Refit::OffGrid };

/// IQ2_S groups whose largest magnitude lies below this count as zero (`GROUP_MAX_EPS_IQ2_S`).
const S_ZERO_BELOW: f32 = 1e-8;

/// IQ2_XXS starts from the best scale for free levels of 0 to 4; the candidates spread around that.
fn fit_xxs(x: &[f32; 32], weights: &[f32; 32]) -> Option<Fit> {
    if largest(x) < ZERO_BELOW {
        return None;
    }
    let scale = fit_positive(x, weights, 4, &mut [0; 32]);
    let range = scale * 3.0;
    // Not `range > 0.0`: a NaN goes on.
    if range <= 0.0 {
        return None;
    }
    Some(XXS.fit(&IQ2_XXS, x, weights, range, scale))
}

pub(super) fn encode_xxs(x: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
    for ((xb, w), block) in super_blocks(x, importance).zip(out.as_chunks_mut::<66>().0) {
        block.fill(0);
        let sigma2 = sum_of_squares(xb) / WEIGHTS as f32;
        let mut scales = [0f32; 8];
        let mut tails = [0u32; 8];
        for j in 0..8 {
            let xg = group::<32>(xb, j);
            let weights = weights(xg, w.map(|w| group(w, j)), sigma2);
            let (magnitudes, signs) = split_even_signs(xg, &weights);
            let Some(fit) = fit_xxs(&magnitudes, &weights) else { continue };
            for (k, sign) in signs.iter().enumerate() {
                block[2 + 8 * j + k] = fit.points[k] as u8;
                tails[j] |= u32::from(turn(*sign, &fit) & 127) << (7 * k);
            }
            scales[j] = fit.scale;
        }
        let Some(levels) = scale_levels(&scales, 1.0, block) else {
            block.fill(0);
            continue;
        };
        for (j, (tail, level)) in tails.iter().zip(levels).enumerate() {
            let tail = tail | u32::from(level) << 28;
            block[6 + 8 * j..][..4].copy_from_slice(&tail.to_le_bytes());
        }
    }
}

pub(super) fn encode_xs(x: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
    for ((xb, w), block) in super_blocks(x, importance).zip(out.as_chunks_mut::<74>().0) {
        block.fill(0);
        let sigma2 = sum_of_squares(xb) / WEIGHTS as f32;
        let mut scales = [0f32; 16];
        for (j, scale) in scales.iter_mut().enumerate() {
            let xg = group::<16>(xb, j);
            let weights = weights(xg, w.map(|w| group(w, j)), sigma2);
            let (magnitudes, signs) = split_even_signs(xg, &weights);
            let max = largest(&magnitudes);
            if max < ZERO_BELOW {
                continue;
            }
            let fit = XS_AND_S.fit(&IQ2_XS, &magnitudes, &weights, max, max / 5.0);
            for (k, sign) in signs[..2].iter().enumerate() {
                let code = fit.points[k] | u16::from(turn(*sign, &fit) & 127) << 9;
                block[2 + 4 * j + 2 * k..][..2].copy_from_slice(&code.to_le_bytes());
            }
            *scale = fit.scale;
        }
        match scale_levels(&scales, 1.0, block) {
            Some(levels) => write_nibbles(&levels, &mut block[66..]),
            None => block.fill(0),
        }
    }
}

pub(super) fn encode_s(x: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
    for ((xb, w), block) in super_blocks(x, importance).zip(out.as_chunks_mut::<82>().0) {
        block.fill(0);
        let sigma2 = 2.0 * sum_of_squares(xb) / WEIGHTS as f32;
        let mut scales = [0f32; 16];
        for (j, scale) in scales.iter_mut().enumerate() {
            let xg = group::<16>(xb, j);
            let weights = match w {
                Some(w) => importance_weights(xg, group(w, j), sigma2),
                None => xg.map(|v| 0.25 * sigma2 + v * v),
            };
            let (magnitudes, signs) = split_signs(xg);
            let max = largest(&magnitudes);
            if max < S_ZERO_BELOW {
                continue;
            }
            let fit = XS_AND_S.fit(&IQ2_S, &magnitudes, &weights, max, max / 5.0);
            for (k, sign) in signs[..2].iter().enumerate() {
                let (i, point) = (2 * j + k, fit.points[k]);
                block[2 + i] = point as u8;
                block[34 + i] = turn(*sign, &fit);
                block[66 + i / 4] |= ((point >> 8) as u8) << (i % 4 * 2);
            }
            *scale = fit.scale;
        }
        // Unlike the two above, a super-block of vanishing scales keeps the indices found.
        if let Some(levels) = scale_levels(&scales, 0.9875, block) {
            write_nibbles(&levels, &mut block[74..]);
        }
    }
}

/// Weights of IQ2_XXS and IQ2_XS. These formats are never encoded without importance: their [`Codec`] refuses.
///
/// [`Codec`]: crate::codec::Codec
fn weights<const N: usize>(x: &[f32; N], importance: Option<&[f32; N]>, sigma2: f32) -> [f32; N] {
    importance.map_or_else(|| square_weights(x), |w| importance_weights(x, w, sigma2))
}

fn turn(signs: u8, fit: &Fit) -> u8 {
    if fit.turned { !signs } else { signs }
}

/// Two 4-bit levels to a byte, the first in the low nibble.
fn write_nibbles(levels: &[u8; 16], out: &mut [u8]) {
    for (byte, pair) in out.iter_mut().zip(levels.as_chunks::<2>().0) {
        *byte = pair[0] | pair[1] << 4;
    }
}
