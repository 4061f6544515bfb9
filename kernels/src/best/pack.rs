//! Choices and levels as the bytes of legacy blocks, K-quants and IQ4. The layouts are drawn on the pages of the
//! formats (`legacy`, `q2_k`, ... `iq4`). Levels come biased, from zero up.

use super::joint::Choice;
use crate::num::write_f16;

/// The 6-bit scales and offsets of Q4_K and Q5_K.
fn pack_six_bits(choice: &Choice<8>) -> [u8; 12] {
    let (s, m) = (choice.s.map(|s| s as u8), choice.m.map(|m| m as u8));
    std::array::from_fn(|i| match i {
        0..4 => s[i] | s[i + 4] >> 4 << 6,
        4..8 => m[i - 4] | m[i] >> 4 << 6,
        _ => s[i - 4] & 15 | m[i - 4] << 4,
    })
}

/// Both factors, then Q4_K's and Q5_K's integers.
fn affine_head(choice: &Choice<8>, out: &mut [u8]) {
    write_f16(out, choice.d);
    write_f16(&mut out[2..], choice.dmin);
    out[4..16].copy_from_slice(&pack_six_bits(choice));
}

/// Low nibbles of two groups of 32 to each 32 bytes.
fn nibbles_of_pairs(levels: &[u8], out: &mut [u8]) {
    for (pair, bytes) in levels.as_chunks::<64>().0.iter().zip(out.as_chunks_mut::<32>().0) {
        for (l, byte) in bytes.iter_mut().enumerate() {
            *byte = pair[l] & 15 | (pair[l + 32] & 15) << 4;
        }
    }
}

pub(super) fn q4_k(choice: &Choice<8>, levels: &[u8], out: &mut [u8]) {
    affine_head(choice, out);
    nibbles_of_pairs(levels, &mut out[16..]);
}

pub(super) fn q5_k(choice: &Choice<8>, levels: &[u8], out: &mut [u8]) {
    affine_head(choice, out);
    for (l, byte) in out[16..48].iter_mut().enumerate() {
        *byte = (0..8).map(|j| levels[32 * j + l] >> 4 << j).sum();
    }
    nibbles_of_pairs(levels, &mut out[48..]);
}
