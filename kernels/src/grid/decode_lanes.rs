//! Decoders of the grid formats over lanes: sixteen weights of a super-block after the other, which always have one
//! scale.

use super::decode::{double_word, half_step, word};
use super::tables::{IQ1, IQ2_S, IQ2_XS, IQ2_XXS, IQ3_S, IQ3_XXS, point};
use crate::lanes::{Scan, stamp_decoders};
use crate::num::{f16_value, read_f16};
use crate::superblock::WEIGHTS;

stamp_decoders! {
    decode_iq2_xxs = decode_iq2_xxs;
    decode_iq2_xs = decode_iq2_xs;
    decode_iq2_s = decode_iq2_s;
    decode_iq3_xxs = decode_iq3_xxs;
    decode_iq3_s = decode_iq3_s;
    decode_iq1_s = decode_iq1_s;
    decode_iq1_m = decode_iq1_m;
}

/// Seven signs with the eighth that makes them even.
static EVEN: [u8; 128] = {
    let mut even = [0; 128];
    let mut seven = 0u8;
    while seven < 128 {
        even[seven as usize] = seven | ((seven.count_ones() & 1) << 7) as u8;
        seven += 1;
    }
    even
};

/// Sixteen signs from the lowest fourteen bits.
#[inline(always)]
fn even_signs(bits: u32) -> u32 {
    let eight = |bits: u32| u32::from(EVEN[bits as usize & 127]);
    eight(bits) | eight(bits >> 7) << 8
}

/// The coordinates of two points.
#[inline(always)]
fn pair(table: &[u8], first: usize, second: usize) -> [u8; 16] {
    let mut both = [0; 16];
    both[..8].copy_from_slice(point::<8>(table, first));
    both[8..].copy_from_slice(point::<8>(table, second));
    both
}

/// The coordinates of four points.
#[inline(always)]
fn four(table: &[u8], indices: [usize; 4]) -> [u8; 16] {
    let mut all = [0; 16];
    for (coordinates, index) in all.as_chunks_mut::<4>().0.iter_mut().zip(indices) {
        *coordinates = *point::<4>(table, index);
    }
    all
}

/// `scale` times each coordinate, negated where `signs` has a bit.
#[inline(always)]
fn signed<V: Scan>(v: V, scale: f32, coordinates: &[u8; 16], signs: u32, out: &mut [f32; 16]) {
    let scale = v.splat(scale);
    let mut i = 0;
    while i < 16 {
        let y = scale * v.to_f(v.load_bytes(&coordinates[i..]));
        v.store_to(v.select(v.mask(signs >> i), v.neg(y), y), &mut out[i..]);
        i += V::N;
    }
}

/// `scale` times each coordinate moved by an eighth, down where `down` has a bit.
#[inline(always)]
fn shifted<V: Scan>(v: V, scale: f32, coordinates: &[u8; 16], down: u32, out: &mut [f32; 16]) {
    let scale = v.splat(scale);
    let mut i = 0;
    while i < 16 {
        let shift = v.select(v.mask(down >> i), v.splat(-0.125), v.splat(0.125));
        v.store_to(scale * (v.to_f(v.load_signed_bytes(&coordinates[i..])) + shift), &mut out[i..]);
        i += V::N;
    }
}

/// The blocks, and the sixteens of weights of each.
#[inline(always)]
fn each<'a, const BYTES: usize>(
    blocks: &'a [u8],
    out: &'a mut [f32],
) -> impl Iterator<Item = (&'a [u8; BYTES], &'a mut [[f32; 16]])> {
    let weights = out.as_chunks_mut::<WEIGHTS>().0.iter_mut().map(|y| y.as_chunks_mut::<16>().0);
    blocks.as_chunks::<BYTES>().0.iter().zip(weights)
}

#[inline(always)]
fn decode_iq2_xxs<V: Scan>(v: V, blocks: &[u8], out: &mut [f32]) {
    for (block, sixteens) in each::<66>(blocks, out) {
        let d = read_f16(block);
        for (k, y) in sixteens.iter_mut().enumerate() {
            let (group, half) = (&block[2 + k / 2 * 8..][..8], k % 2);
            let tail = double_word(group, 1);
            let points = pair(IQ2_XXS, usize::from(group[2 * half]), usize::from(group[2 * half + 1]));
            signed(v, half_step(d, (tail >> 28) as u8, 0.25), &points, even_signs(tail >> (14 * half)), y);
        }
    }
}

#[inline(always)]
fn decode_iq2_xs<V: Scan>(v: V, blocks: &[u8], out: &mut [f32]) {
    for (block, sixteens) in each::<74>(blocks, out) {
        let d = read_f16(block);
        for (k, y) in sixteens.iter_mut().enumerate() {
            let codes = double_word(&block[2..66], k);
            let points = pair(IQ2_XS, (codes & 511) as usize, (codes >> 16 & 511) as usize);
            let signs = even_signs(codes >> 9 & 127 | codes >> 25 << 7);
            signed(v, half_step(d, block[66 + k / 2] >> (k % 2 * 4) & 15, 0.25), &points, signs, y);
        }
    }
}

#[inline(always)]
fn decode_iq2_s<V: Scan>(v: V, blocks: &[u8], out: &mut [f32]) {
    for (block, sixteens) in each::<82>(blocks, out) {
        let d = read_f16(block);
        for (k, y) in sixteens.iter_mut().enumerate() {
            let high = usize::from(block[66 + k / 2] >> (k % 2 * 4));
            let first = usize::from(block[2 + 2 * k]) | (high & 3) << 8;
            let second = usize::from(block[3 + 2 * k]) | (high >> 2 & 3) << 8;
            let scale = half_step(d, block[74 + k / 2] >> (k % 2 * 4) & 15, 0.25);
            signed(v, scale, &pair(IQ2_S, first, second), u32::from(word(&block[34..66], k)), y);
        }
    }
}

#[inline(always)]
fn decode_iq3_xxs<V: Scan>(v: V, blocks: &[u8], out: &mut [f32]) {
    for (block, sixteens) in each::<98>(blocks, out) {
        let d = read_f16(block);
        for (k, y) in sixteens.iter_mut().enumerate() {
            let tail = double_word(&block[66..], k / 2);
            let points = four(IQ3_XXS, block[2..66].as_chunks::<4>().0[k].map(usize::from));
            let scale = half_step(d, (tail >> 28) as u8, 0.5);
            signed(v, scale, &points, even_signs(tail >> (k % 2 * 14)), y);
        }
    }
}

#[inline(always)]
fn decode_iq3_s<V: Scan>(v: V, blocks: &[u8], out: &mut [f32]) {
    for (block, sixteens) in each::<110>(blocks, out) {
        let d = read_f16(block);
        for (k, y) in sixteens.iter_mut().enumerate() {
            let high = usize::from(block[66 + k / 2] >> (k % 2 * 4));
            let mut indices = block[2..66].as_chunks::<4>().0[k].map(usize::from);
            for (j, index) in indices.iter_mut().enumerate() {
                *index |= (high >> j & 1) << 8;
            }
            let level = block[106 + k / 4] >> (k / 2 % 2 * 4) & 15;
            let scale = d * f32::from(1 + 2 * level);
            signed(v, scale, &four(IQ3_S, indices), u32::from(word(&block[74..106], k)), y);
        }
    }
}

#[inline(always)]
fn decode_iq1_s<V: Scan>(v: V, blocks: &[u8], out: &mut [f32]) {
    for (block, sixteens) in each::<50>(blocks, out) {
        let d = read_f16(block);
        for (k, y) in sixteens.iter_mut().enumerate() {
            let word = usize::from(word(&block[34..], k / 2));
            let high = word >> (k % 2 * 6);
            let first = usize::from(block[2 + 2 * k]) | (high & 7) << 8;
            let second = usize::from(block[3 + 2 * k]) | (high >> 3 & 7) << 8;
            let scale = d * (2 * (word >> 12 & 7) + 1) as f32;
            let down = if word & 0x8000 == 0 { 0 } else { u32::MAX };
            shifted(v, scale, &pair(IQ1, first, second), down, y);
        }
    }
}

#[inline(always)]
fn decode_iq1_m<V: Scan>(v: V, blocks: &[u8], out: &mut [f32]) {
    for (block, sixteens) in each::<56>(blocks, out) {
        // The super-block's binary16 scale is spread over the top nibbles of the four scale words.
        let words = &block[48..];
        let mut d = 0;
        for k in 0..4 {
            d |= word(words, k) >> 12 << (4 * k);
        }
        let d = f16_value(d);
        for (k, y) in sixteens.iter_mut().enumerate() {
            let level = word(words, k / 4) >> (k / 2 % 2 * 6 + k % 2 * 3) & 7;
            let high = usize::from(block[32 + k]);
            let first = usize::from(block[2 * k]) | (high & 7) << 8;
            let second = usize::from(block[2 * k + 1]) | (high >> 4 & 7) << 8;
            let down = ((high as u32 >> 3 & 1) * 0xff) | ((high as u32 >> 7 & 1) * 0xff00);
            shifted(v, d * f32::from(2 * level + 1), &pair(IQ1, first, second), down, y);
        }
    }
}
