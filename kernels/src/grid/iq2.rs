//! How IQ2_XXS, IQ2_XS and IQ2_S are searched and packed (`quantize_row_iq2_xxs_impl`,
//! `quantize_row_iq2_xs_impl`, `quantize_row_iq2_s_impl`), and their scalar reference encoders.

use super::magnitude::{
    Fit, Format, Group, Refit, Search, scale_levels, scales, split_even_signs, split_signs, weigh,
};
use super::{lattice, neighbours};
use crate::search::{ZERO_BELOW, importance_weights};

const XS_AND_S: Search = Search { candidates: 9, step: 0.1, refit: Refit::OffGrid };

/// IQ2_S groups whose largest magnitude lies below this count as zero (`GROUP_MAX_EPS_IQ2_S`).
const S_ZERO_BELOW: f32 = 1e-8;

pub(super) static XXS: Format<8, 3, 32, 8, 66> = Format {
    lattice: &lattice::IQ2_XXS,
    neighbours: &neighbours::IQ2_XXS,
    search: Search { candidates: 6, step: 0.1, refit: Refit::Always },
    sigma: 1.0,
    from_free_levels: true,
    prepare: prepare_even,
    pack: pack_xxs,
};

pub(super) static XS: Format<8, 3, 16, 16, 74> = Format {
    lattice: &lattice::IQ2_XS,
    neighbours: &neighbours::IQ2_XS,
    search: XS_AND_S,
    sigma: 1.0,
    from_free_levels: false,
    prepare: prepare_even,
    pack: pack_xs,
};

pub(super) static S: Format<8, 3, 16, 16, 82> = Format {
    lattice: &lattice::IQ2_S,
    neighbours: &neighbours::IQ2_S,
    search: XS_AND_S,
    sigma: 2.0,
    from_free_levels: false,
    prepare: prepare_s,
    pack: pack_s,
};

fn prepare_even<const N: usize>(x: &[f32; N], importance: Option<&[f32; N]>, sigma2: f32) -> Group<N> {
    let weights = weigh(x, importance, sigma2);
    Group::new(split_even_signs(x, &weights), weights, ZERO_BELOW, 5.0)
}

fn prepare_s(x: &[f32; 16], importance: Option<&[f32; 16]>, sigma2: f32) -> Group<16> {
    let weights = match importance {
        Some(w) => importance_weights(x, w, sigma2),
        None => x.map(|v| 0.25 * sigma2 + v * v),
    };
    Group::new(split_signs(x), weights, S_ZERO_BELOW, 5.0)
}

fn pack_xxs(fits: &[Option<Fit>; 8], block: &mut [u8; 66]) {
    block.fill(0);
    let Some(levels) = scale_levels(&scales(fits), 1.0, block) else { return };
    for (j, (fit, level)) in fits.iter().zip(levels).enumerate() {
        let mut tail = u32::from(level) << 28;
        if let Some(fit) = fit {
            for (k, sign) in fit.signs.iter().enumerate() {
                block[2 + 8 * j + k] = fit.points[k] as u8;
                tail |= u32::from(sign & 127) << (7 * k);
            }
        }
        block[6 + 8 * j..][..4].copy_from_slice(&tail.to_le_bytes());
    }
}

fn pack_xs(fits: &[Option<Fit>; 16], block: &mut [u8; 74]) {
    block.fill(0);
    let Some(levels) = scale_levels(&scales(fits), 1.0, block) else { return };
    for (j, fit) in fits.iter().enumerate() {
        let Some(fit) = fit else { continue };
        for (k, sign) in fit.signs[..2].iter().enumerate() {
            let code = fit.points[k] | u16::from(sign & 127) << 9;
            block[2 + 4 * j + 2 * k..][..2].copy_from_slice(&code.to_le_bytes());
        }
    }
    write_nibbles(&levels, &mut block[66..]);
}

/// Unlike the two above, a super-block of vanishing scales keeps the indices found.
fn pack_s(fits: &[Option<Fit>; 16], block: &mut [u8; 82]) {
    block.fill(0);
    for (j, fit) in fits.iter().enumerate() {
        let Some(fit) = fit else { continue };
        for (k, sign) in fit.signs[..2].iter().enumerate() {
            let (i, point) = (2 * j + k, fit.points[k]);
            block[2 + i] = point as u8;
            block[34 + i] = *sign;
            block[66 + i / 4] |= ((point >> 8) as u8) << (i % 4 * 2);
        }
    }
    if let Some(levels) = scale_levels(&scales(fits), 0.9875, block) {
        write_nibbles(&levels, &mut block[74..]);
    }
}

/// Two 4-bit levels to a byte, the first in the low nibble.
fn write_nibbles(levels: &[u8; 16], out: &mut [u8]) {
    for (byte, pair) in out.iter_mut().zip(levels.as_chunks::<2>().0) {
        *byte = pair[0] | pair[1] << 4;
    }
}

pub(super) fn encode_xxs(x: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
    XXS.encode(x, importance, out);
}

pub(super) fn encode_xs(x: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
    XS.encode(x, importance, out);
}

pub(super) fn encode_s(x: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
    S.encode(x, importance, out);
}
