//! Scalar reference encoders of IQ3_XXS and IQ3_S (`quantize_row_iq3_xxs_impl` with the grid of 256,
//! `quantize_row_iq3_s_impl`).

use super::lattice::{IQ3_S, IQ3_XXS};
use super::magnitude::{Refit, Search, largest, scale_levels, split_even_signs, split_signs};
use crate::num::sum_of_squares;
use crate::search::{importance_weights, square_weights};
use crate::superblock::{WEIGHTS, group, super_blocks};

const XXS: Search = Search { candidates: 15, step: 0.2, refit: Refit::OffGrid };
const S: Search = Search { candidates: 9, step: 0.2, refit: Refit::AllIfAnyOffGrid };

/// IQ3_XXS groups whose largest magnitude lies below this count as zero (`GROUP_MAX_EPS_IQ3_XXS`).
const XXS_ZERO_BELOW: f32 = 1e-8;

fn weights(x: &[f32; 32], importance: Option<&[f32; 32]>, sigma2: f32) -> [f32; 32] {
    importance.map_or_else(|| square_weights(x), |w| importance_weights(x, w, sigma2))
}

pub(super) fn encode_xxs(x: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
    for ((xb, w), block) in super_blocks(x, importance).zip(out.as_chunks_mut::<98>().0) {
        block.fill(0);
        let sigma2 = 2.0 * sum_of_squares(xb) / WEIGHTS as f32;
        let mut scales = [0f32; 8];
        let mut tails = [0u32; 8];
        for j in 0..8 {
            let xg = group::<32>(xb, j);
            let weights = weights(xg, w.map(|w| group(w, j)), sigma2);
            let (magnitudes, signs) = split_even_signs(xg, &weights);
            let max = largest(&magnitudes);
            if max < XXS_ZERO_BELOW {
                continue;
            }
            let fit = XXS.fit(&IQ3_XXS, &magnitudes, &weights, max, max / 15.0);
            for (k, point) in fit.points.iter().enumerate() {
                block[2 + 8 * j + k] = *point as u8;
            }
            for (k, &sign) in signs.iter().enumerate() {
                let sign = if fit.turned { !sign & 127 } else { sign };
                tails[j] |= u32::from(sign) << (7 * k);
            }
            scales[j] = fit.scale;
        }
        let Some(levels) = scale_levels(&scales, 1.0125, block) else {
            block.fill(0);
            continue;
        };
        for (j, (tail, level)) in tails.iter().zip(levels).enumerate() {
            let tail = tail | u32::from(level) << 28;
            block[66 + 4 * j..][..4].copy_from_slice(&tail.to_le_bytes());
        }
    }
}

/// A group of zeros in a super-block that has others is encoded wrong, as ggml does it: it takes no slot among
/// the low index bytes and the signs, so those of the groups after it land one group too early, while their
/// scales and high index bits stay in place. The last slots hold index 0.
pub(super) fn encode_s(x: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
    for ((xb, w), block) in super_blocks(x, importance).zip(out.as_chunks_mut::<110>().0) {
        block.fill(0);
        let sigma2 = 2.0 * sum_of_squares(xb) / WEIGHTS as f32;
        let mut scales = [0f32; 8];
        let mut slot = 0;
        for (j, scale) in scales.iter_mut().enumerate() {
            let xg = group::<32>(xb, j);
            let weights = weights(xg, w.map(|w| group(w, j)), sigma2);
            let (magnitudes, signs) = split_signs(xg);
            let max = largest(&magnitudes);
            if max == 0.0 {
                continue;
            }
            let fit = S.fit(&IQ3_S, &magnitudes, &weights, max, max / 15.0);
            for (k, point) in fit.points.iter().enumerate() {
                block[2 + 8 * slot + k] = *point as u8;
                block[66 + j] |= ((point >> 8) as u8) << k;
            }
            for (k, &sign) in signs.iter().enumerate() {
                block[74 + 4 * slot + k] = if fit.turned { !sign } else { sign };
            }
            slot += 1;
            *scale = fit.scale;
        }
        // Unlike IQ3_XXS, a super-block of vanishing scales keeps the indices found.
        if let Some(levels) = scale_levels(&scales, 1.033, block) {
            for (byte, pair) in block[106..].iter_mut().zip(levels.as_chunks::<2>().0) {
                *byte = pair[0] | pair[1] << 4;
            }
        }
    }
}
