//! How IQ3_XXS and IQ3_S are searched and packed (`quantize_row_iq3_xxs_impl` with the grid of 256,
//! `quantize_row_iq3_s_impl`), and their scalar reference encoders.

use super::magnitude::{
    Fit, Format, Group, Refit, Search, scale_levels, scales, split_even_signs, split_signs, weigh,
};
use super::{lattice, neighbours};

/// IQ3_XXS groups whose largest magnitude lies below this count as zero (`GROUP_MAX_EPS_IQ3_XXS`).
const XXS_ZERO_BELOW: f32 = 1e-8;

pub(super) static XXS: Format<4, 8, 32, 8, 98> = Format {
    lattice: &lattice::IQ3_XXS,
    neighbours: &neighbours::IQ3_XXS,
    search: Search { candidates: 15, step: 0.2, refit: Refit::OffGrid },
    sigma: 2.0,
    from_free_levels: false,
    prepare: prepare_xxs,
    pack: pack_xxs,
};

pub(super) static S: Format<4, 8, 32, 8, 110> = Format {
    lattice: &lattice::IQ3_S,
    neighbours: &neighbours::IQ3_S,
    search: Search { candidates: 9, step: 0.2, refit: Refit::AllIfAnyOffGrid },
    sigma: 2.0,
    from_free_levels: false,
    prepare: prepare_s,
    pack: pack_s,
};

fn prepare_xxs(x: &[f32; 32], importance: Option<&[f32; 32]>, sigma2: f32) -> Group<32> {
    let weights = weigh(x, importance, sigma2);
    Group::new(split_even_signs(x, &weights), weights, XXS_ZERO_BELOW, 15.0)
}

/// Only a group of nothing but zeros counts as zero.
fn prepare_s(x: &[f32; 32], importance: Option<&[f32; 32]>, sigma2: f32) -> Group<32> {
    Group::new(split_signs(x), weigh(x, importance, sigma2), f32::from_bits(1), 15.0)
}

fn pack_xxs(fits: &[Option<Fit>; 8], block: &mut [u8; 98]) {
    block.fill(0);
    let Some(levels) = scale_levels(&scales(fits), 1.0125, block) else { return };
    for (j, (fit, level)) in fits.iter().zip(levels).enumerate() {
        let mut tail = u32::from(level) << 28;
        if let Some(fit) = fit {
            for (k, point) in fit.points.iter().enumerate() {
                block[2 + 8 * j + k] = *point as u8;
            }
            for (k, &sign) in fit.signs.iter().enumerate() {
                tail |= u32::from(sign & 127) << (7 * k);
            }
        }
        block[66 + 4 * j..][..4].copy_from_slice(&tail.to_le_bytes());
    }
}

/// A group of zeros in a super-block that has others is encoded wrong, as ggml does it: it takes no slot among
/// the low index bytes and the signs, so those of the groups after it land one group too early, while their
/// scales and high index bits stay in place. The last slots hold index 0.
///
/// Unlike IQ3_XXS, a super-block of vanishing scales keeps the indices found.
fn pack_s(fits: &[Option<Fit>; 8], block: &mut [u8; 110]) {
    block.fill(0);
    let mut slot = 0;
    for (j, fit) in fits.iter().enumerate() {
        let Some(fit) = fit else { continue };
        for (k, point) in fit.points.iter().enumerate() {
            block[2 + 8 * slot + k] = *point as u8;
            block[66 + j] |= ((point >> 8) as u8) << k;
        }
        block[74 + 4 * slot..][..4].copy_from_slice(&fit.signs);
        slot += 1;
    }
    if let Some(levels) = scale_levels(&scales(fits), 1.033, block) {
        for (byte, pair) in block[106..].iter_mut().zip(levels.as_chunks::<2>().0) {
            *byte = pair[0] | pair[1] << 4;
        }
    }
}

pub(super) fn encode_xxs(x: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
    XXS.encode(x, importance, out);
}

pub(super) fn encode_s(x: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
    S.encode(x, importance, out);
}
