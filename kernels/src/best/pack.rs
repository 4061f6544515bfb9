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

/// Byte l of each half holds weights l, l + 32, l + 64 and l + 96, lowest bits first.
fn two_bits(levels: &[u8], shift: u32, out: &mut [u8]) {
    for (half, bytes) in levels.as_chunks::<128>().0.iter().zip(out.as_chunks_mut::<32>().0) {
        for (l, byte) in bytes.iter_mut().enumerate() {
            *byte = (0..4).map(|k| (half[l + 32 * k] >> shift & 3) << (2 * k)).sum();
        }
    }
}

pub(super) fn q2_k(choice: &Choice<16>, levels: &[u8], out: &mut [u8]) {
    for ((byte, s), m) in out.iter_mut().zip(choice.s).zip(choice.m) {
        *byte = s as u8 | (m as u8) << 4;
    }
    two_bits(levels, 0, &mut out[16..80]);
    write_f16(&mut out[80..], choice.d);
    write_f16(&mut out[82..], choice.dmin);
}

pub(super) fn q3_k(choice: &Choice<16>, levels: &[u8], out: &mut [u8]) {
    let (high, rest) = out.split_at_mut(32);
    for (l, byte) in high.iter_mut().enumerate() {
        *byte = (0..8).map(|b| levels[32 * b + l] >> 2 << b).sum();
    }
    two_bits(levels, 0, &mut rest[..64]);
    rest[64..76].fill(0);
    for (j, s) in choice.s.iter().enumerate() {
        let biased = (s + 32) as u8;
        rest[64 + j % 8] |= (biased & 15) << (j / 8 * 4);
        rest[72 + j % 4] |= biased >> 4 << (2 * (j / 4));
    }
    write_f16(&mut rest[76..], choice.d);
}

pub(super) fn q6_k(choice: &Choice<16>, levels: &[u8], out: &mut [u8]) {
    let (low, rest) = out.split_at_mut(128);
    for (half, bytes) in levels.as_chunks::<128>().0.iter().zip(low.as_chunks_mut::<64>().0) {
        for (l, byte) in bytes.iter_mut().enumerate() {
            *byte = half[l] & 15 | (half[l + 64] & 15) << 4;
        }
    }
    two_bits(levels, 4, &mut rest[..64]);
    for (byte, s) in rest[64..80].iter_mut().zip(choice.s) {
        *byte = s as i8 as u8;
    }
    write_f16(&mut rest[80..], choice.d);
}

/// Low nibbles of a group of 32: weights j and j + 16 to byte j.
fn nibbles(levels: &[u8], out: &mut [u8]) {
    for (j, byte) in out[..16].iter_mut().enumerate() {
        *byte = levels[j] & 15 | (levels[j + 16] & 15) << 4;
    }
}

fn fifth_bits(levels: &[u8], out: &mut [u8]) {
    let bits = levels.iter().enumerate().fold(0, |bits, (i, l)| bits | u32::from(l >> 4 & 1) << i);
    out[..4].copy_from_slice(&bits.to_le_bytes());
}

/// Q4_0 and IQ4_NL.
pub(super) fn scale_and_nibbles(choice: &Choice<1>, levels: &[u8], out: &mut [u8]) {
    write_f16(out, choice.d);
    nibbles(levels, &mut out[2..]);
}

/// The decoder adds the offset, which is the negative of `dmin`.
fn scale_and_offset(choice: &Choice<1>, out: &mut [u8]) {
    write_f16(out, choice.d);
    write_f16(&mut out[2..], choice.dmin ^ 0x8000);
}

pub(super) fn q4_1(choice: &Choice<1>, levels: &[u8], out: &mut [u8]) {
    scale_and_offset(choice, out);
    nibbles(levels, &mut out[4..]);
}

pub(super) fn q5_0(choice: &Choice<1>, levels: &[u8], out: &mut [u8]) {
    write_f16(out, choice.d);
    fifth_bits(levels, &mut out[2..]);
    nibbles(levels, &mut out[6..]);
}

pub(super) fn q5_1(choice: &Choice<1>, levels: &[u8], out: &mut [u8]) {
    scale_and_offset(choice, out);
    fifth_bits(levels, &mut out[4..]);
    nibbles(levels, &mut out[8..]);
}

pub(super) fn q8_0(choice: &Choice<1>, levels: &[u8], out: &mut [u8]) {
    write_f16(out, choice.d);
    out[2..34].copy_from_slice(levels);
}

pub(super) fn iq4_xs(choice: &Choice<8>, levels: &[u8], out: &mut [u8]) {
    write_f16(out, choice.d);
    out[2..8].fill(0);
    for (j, s) in choice.s.iter().enumerate() {
        let biased = (s + 32) as u8;
        out[2 + j / 4] |= biased >> 4 << (2 * (j % 4));
        out[4 + j / 2] |= (biased & 15) << (j % 2 * 4);
        nibbles(&levels[32 * j..][..32], &mut out[8 + 16 * j..]);
    }
}
