//! Choices, codes of points and signs as the bytes of grid formats, and back to the choice, which is where the
//! search of these formats starts. The layouts are drawn on the page of `grid`.

use super::grid::{Choice, DOWN, Found};
use crate::num::write_f16;

fn word(bytes: &[u8], i: usize) -> u16 {
    u16::from_le_bytes([bytes[2 * i], bytes[2 * i + 1]])
}

fn put_word(bytes: &mut [u8], i: usize, word: u16) {
    bytes[2 * i..2 * i + 2].copy_from_slice(&word.to_le_bytes());
}

/// The level that stands for `2 level + 1` times the step.
fn level(s: i32) -> u8 {
    (s / 2) as u8
}

fn choice<const G: usize>(d: u16, level: impl Fn(usize) -> u8) -> Choice<G> {
    Choice { d, s: std::array::from_fn(|j| 2 * i32::from(level(j)) + 1) }
}

/// Sevens of signs and a 4-bit level.
fn tail(choice: &Choice<8>, signs: &[u8; 32], j: usize) -> [u8; 4] {
    let sevens = (0..4).fold(0, |t, k| t | u32::from(signs[4 * j + k] & 127) << (7 * k));
    (sevens | u32::from(level(choice.s[j])) << 28).to_le_bytes()
}

pub(super) fn iq2_xxs(choice: &Choice<8>, found: &Found<8>, out: &mut [u8]) {
    write_f16(out, choice.d);
    for (j, bytes) in out[2..].as_chunks_mut::<8>().0.iter_mut().enumerate() {
        for (byte, code) in bytes.iter_mut().zip(&found.codes[j][..4]) {
            *byte = *code as u8;
        }
        bytes[4..].copy_from_slice(&tail(choice, &found.signs, j));
    }
}

pub(super) fn start_iq2_xxs(block: &[u8]) -> Choice<8> {
    choice(word(block, 0), |j| block[9 + 8 * j] >> 4)
}

fn nibbles(choice: &Choice<16>, out: &mut [u8]) {
    for (j, byte) in out[..8].iter_mut().enumerate() {
        *byte = level(choice.s[2 * j]) | level(choice.s[2 * j + 1]) << 4;
    }
}

fn start_nibbles<const G: usize>(block: &[u8], at: usize) -> Choice<G> {
    choice(word(block, 0), |j| block[at + j / 2] >> (j % 2 * 4) & 15)
}

pub(super) fn iq2_xs(choice: &Choice<16>, found: &Found<16>, out: &mut [u8]) {
    write_f16(out, choice.d);
    for i in 0..32 {
        let code = found.codes[i / 2][i % 2] | u16::from(found.signs[i] & 127) << 9;
        put_word(&mut out[2..], i, code);
    }
    nibbles(choice, &mut out[66..]);
}

pub(super) fn start_iq2_xs(block: &[u8]) -> Choice<16> {
    start_nibbles(block, 66)
}

pub(super) fn iq2_s(choice: &Choice<16>, found: &Found<16>, out: &mut [u8]) {
    write_f16(out, choice.d);
    out[34..66].copy_from_slice(&found.signs);
    for i in 0..32 {
        let code = found.codes[i / 2][i % 2];
        out[2 + i] = code as u8;
        out[66 + i / 4] |= ((code >> 8) as u8) << (i % 4 * 2);
    }
    nibbles(choice, &mut out[74..]);
}

pub(super) fn start_iq2_s(block: &[u8]) -> Choice<16> {
    start_nibbles(block, 74)
}

pub(super) fn iq3_xxs(choice: &Choice<8>, found: &Found<8>, out: &mut [u8]) {
    write_f16(out, choice.d);
    for (byte, code) in out[2..66].iter_mut().zip(found.codes.as_flattened()) {
        *byte = *code as u8;
    }
    for (j, bytes) in out[66..].as_chunks_mut::<4>().0.iter_mut().enumerate() {
        *bytes = tail(choice, &found.signs, j);
    }
}

pub(super) fn start_iq3_xxs(block: &[u8]) -> Choice<8> {
    choice(word(block, 0), |j| block[69 + 4 * j] >> 4)
}

pub(super) fn iq3_s(choice: &Choice<8>, found: &Found<8>, out: &mut [u8]) {
    write_f16(out, choice.d);
    for (i, code) in found.codes.as_flattened().iter().enumerate() {
        out[2 + i] = *code as u8;
        out[66 + i / 8] |= ((code >> 8) as u8) << (i % 8);
    }
    out[74..106].copy_from_slice(&found.signs);
    for (j, byte) in out[106..110].iter_mut().enumerate() {
        *byte = level(choice.s[2 * j]) | level(choice.s[2 * j + 1]) << 4;
    }
}

pub(super) fn start_iq3_s(block: &[u8]) -> Choice<8> {
    start_nibbles(block, 106)
}

pub(super) fn iq1_s(choice: &Choice<8>, found: &Found<8>, out: &mut [u8]) {
    write_f16(out, choice.d);
    for (j, codes) in found.codes.iter().enumerate() {
        let mut high = u16::from(level(choice.s[j])) << 12 | codes[0] & DOWN;
        for (k, code) in codes[..4].iter().enumerate() {
            out[2 + 4 * j + k] = *code as u8;
            high |= (code >> 8 & 7) << (3 * k);
        }
        put_word(&mut out[34..], j, high);
    }
}

pub(super) fn start_iq1_s(block: &[u8]) -> Choice<8> {
    choice(word(block, 0), |j| (word(&block[34..], j) >> 12 & 7) as u8)
}

pub(super) fn iq1_m(choice: &Choice<16>, found: &Found<16>, out: &mut [u8]) {
    for (j, codes) in found.codes.iter().enumerate() {
        for (k, code) in codes[..2].iter().enumerate() {
            out[2 * j + k] = *code as u8;
            let high = (code >> 8 & 7) as u8 | if code & DOWN == 0 { 0 } else { 8 };
            out[32 + j] |= high << (4 * k);
        }
    }
    // The binary16 scale is spread over the top nibbles of the four words.
    for k in 0..4 {
        let levels = (0..4).fold(0, |w, i| w | u16::from(level(choice.s[4 * k + i])) << (3 * i));
        put_word(&mut out[48..], k, levels | choice.d >> (4 * k) << 12);
    }
}

pub(super) fn start_iq1_m(block: &[u8]) -> Choice<16> {
    let words = &block[48..];
    let d = (0..4).fold(0, |d, k| d | word(words, k) >> 12 << (4 * k));
    choice(d, |j| (word(words, j / 4) >> (j % 4 * 3) & 7) as u8)
}
