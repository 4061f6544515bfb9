//! Choices and levels as the words of legacy blocks, K-quants and IQ4. The layouts are drawn on the pages of the
//! formats (`legacy`, `q2_k`, ... `iq4`).

use super::{joint, single};
use crate::lanes::Simd;
use crate::superblock_lanes::{pack_two_bits, put_byte};

/// How a format lays out super-blocks of `G` groups of `N` levels.
pub(super) trait PackJoint<V: Simd, const N: usize, const G: usize> {
    /// Fills words that are zero. Levels may be changed.
    fn pack(self, v: V, choice: &joint::Choice<V, G>, levels: &mut [[V::I; N]; G], words: &mut [V::I]);
}

/// How a format lays out blocks of one group.
pub(super) trait PackSingle<V: Simd> {
    /// Fills words that are zero.
    fn pack(self, v: V, choice: &single::Choice<V>, levels: &[V::I; 32], words: &mut [V::I]);
}

/// Both factors and the 6-bit scales and offsets of Q4_K and Q5_K: four words.
#[inline(always)]
fn affine_head<V: Simd>(v: V, choice: &joint::Choice<V, 8>, words: &mut [V::I]) {
    words[0] = choice.d | v.shl(choice.dmin, 16);
    let low = v.splat_i(15);
    for j in 0..4 {
        let (s, m) = (v.trunc(choice.s[j]), v.trunc(choice.m[j]));
        let (s4, m4) = (v.trunc(choice.s[j + 4]), v.trunc(choice.m[j + 4]));
        put_byte(v, words, 4 + j, s | v.shl(v.shr(s4, 4), 6));
        put_byte(v, words, 8 + j, m | v.shl(v.shr(m4, 4), 6));
        put_byte(v, words, 12 + j, (s4 & low) | v.shl(m4 & low, 4));
    }
}

/// Low nibbles of two groups of 32 to each 32 bytes, from byte `at` on.
#[inline(always)]
fn nibbles_of_pairs<V: Simd>(v: V, levels: &[[V::I; 32]; 8], words: &mut [V::I], at: usize) {
    let low = v.splat_i(15);
    for pair in 0..4 {
        for l in 0..32 {
            let (a, b) = (levels[2 * pair][l] & low, levels[2 * pair + 1][l] & low);
            put_byte(v, words, at + 32 * pair + l, a | v.shl(b, 4));
        }
    }
}

#[derive(Clone, Copy)]
pub(super) struct Q4K;

impl<V: Simd> PackJoint<V, 32, 8> for Q4K {
    #[inline(always)]
    fn pack(self, v: V, choice: &joint::Choice<V, 8>, levels: &mut [[V::I; 32]; 8], words: &mut [V::I]) {
        affine_head(v, choice, words);
        nibbles_of_pairs(v, levels, words, 16);
    }
}

#[derive(Clone, Copy)]
pub(super) struct Q5K;

impl<V: Simd> PackJoint<V, 32, 8> for Q5K {
    #[inline(always)]
    fn pack(self, v: V, choice: &joint::Choice<V, 8>, levels: &mut [[V::I; 32]; 8], words: &mut [V::I]) {
        affine_head(v, choice, words);
        for l in 0..32 {
            let mut byte = v.splat_i(0);
            for j in 0..8 {
                byte = byte | v.shl(v.shr(levels[j][l], 4), j as u32);
            }
            put_byte(v, words, 16 + l, byte);
        }
        nibbles_of_pairs(v, levels, words, 48);
    }
}

/// Sixteen groups of 16 as 256 levels.
#[inline(always)]
fn flat<I>(levels: &mut [[I; 16]; 16]) -> &mut [I; 256] {
    levels.as_flattened_mut().first_chunk_mut().expect("sixteen times sixteen")
}

#[derive(Clone, Copy)]
pub(super) struct Q2K;

impl<V: Simd> PackJoint<V, 16, 16> for Q2K {
    #[inline(always)]
    fn pack(self, v: V, choice: &joint::Choice<V, 16>, levels: &mut [[V::I; 16]; 16], words: &mut [V::I]) {
        for j in 0..16 {
            put_byte(v, words, j, v.trunc(choice.s[j]) | v.shl(v.trunc(choice.m[j]), 4));
        }
        pack_two_bits(v, flat(levels), words, 16);
        words[20] = choice.d | v.shl(choice.dmin, 16);
    }
}

#[derive(Clone, Copy)]
pub(super) struct Q3K;

impl<V: Simd> PackJoint<V, 16, 16> for Q3K {
    #[inline(always)]
    fn pack(self, v: V, choice: &joint::Choice<V, 16>, levels: &mut [[V::I; 16]; 16], words: &mut [V::I]) {
        let levels = flat(levels);
        for (i, level) in levels.iter_mut().enumerate() {
            let biased = *level + v.splat_i(4);
            put_byte(v, words, i % 32, v.shl(v.shr(biased, 2), i as u32 / 32));
            *level = biased & v.splat_i(3);
        }
        pack_two_bits(v, levels, words, 32);
        for j in 0..16 {
            let biased = v.trunc(choice.s[j]) + v.splat_i(32);
            let (low, high) = (biased & v.splat_i(15), v.shr(biased, 4));
            put_byte(v, words, 96 + j % 8, v.shl(low, j as u32 / 8 * 4));
            put_byte(v, words, 104 + j % 4, v.shl(high, j as u32 / 4 * 2));
        }
        words[27] = choice.d;
    }
}

#[derive(Clone, Copy)]
pub(super) struct Q6K;

impl<V: Simd> PackJoint<V, 16, 16> for Q6K {
    #[inline(always)]
    fn pack(self, v: V, choice: &joint::Choice<V, 16>, levels: &mut [[V::I; 16]; 16], words: &mut [V::I]) {
        let (levels, low) = (flat(levels), v.splat_i(15));
        for half in levels.as_chunks_mut::<128>().0 {
            for level in half {
                *level = *level + v.splat_i(32);
            }
        }
        for half in 0..2 {
            for l in 0..64 {
                let (a, b) = (levels[128 * half + l] & low, levels[128 * half + l + 64] & low);
                put_byte(v, words, 64 * half + l, a | v.shl(b, 4));
            }
        }
        for level in levels.iter_mut() {
            *level = v.shr(*level, 4);
        }
        pack_two_bits(v, levels, words, 128);
        for j in 0..16 {
            put_byte(v, words, 192 + j, v.trunc(choice.s[j]) & v.splat_i(255));
        }
        words[52] = choice.d;
    }
}

#[derive(Clone, Copy)]
pub(super) struct Iq4Xs;

impl<V: Simd> PackJoint<V, 32, 8> for Iq4Xs {
    #[inline(always)]
    fn pack(self, v: V, choice: &joint::Choice<V, 8>, levels: &mut [[V::I; 32]; 8], words: &mut [V::I]) {
        words[0] = choice.d;
        for j in 0..8 {
            let biased = v.trunc(choice.s[j]) + v.splat_i(32);
            words[0] = words[0] | v.shl(v.shr(biased, 4), 16 + 2 * j as u32);
            words[1] = words[1] | v.shl(biased & v.splat_i(15), 4 * j as u32);
            nibbles(v, &levels[j], words, 8 + 16 * j);
        }
    }
}

/// Low nibbles of a group of 32: weights j and j + 16 to byte j.
#[inline(always)]
fn nibbles<V: Simd>(v: V, levels: &[V::I; 32], words: &mut [V::I], at: usize) {
    let low = v.splat_i(15);
    for j in 0..16 {
        put_byte(v, words, at + j, (levels[j] & low) | v.shl(levels[j + 16] & low, 4));
    }
}

/// Bit i of a word is the fifth bit of level i.
#[inline(always)]
fn fifth_bits<V: Simd>(v: V, levels: &[V::I; 32], words: &mut [V::I], at: usize) {
    for i in 0..32 {
        put_byte(v, words, at + i / 8, v.shl(v.shr(levels[i], 4) & v.splat_i(1), i as u32 % 8));
    }
}

/// Q4_0, Q5_0 and IQ4_NL: levels from `-bias` up.
#[derive(Clone, Copy)]
pub(super) struct ScaleAndNibbles {
    pub(super) bias: i32,
    pub(super) five: bool,
}

impl<V: Simd> PackSingle<V> for ScaleAndNibbles {
    #[inline(always)]
    fn pack(self, v: V, choice: &single::Choice<V>, levels: &[V::I; 32], words: &mut [V::I]) {
        let mut levels = *levels;
        for level in &mut levels {
            *level = *level + v.splat_i(self.bias);
        }
        words[0] = choice.d;
        if self.five {
            fifth_bits(v, &levels, words, 2);
        }
        nibbles(v, &levels, words, if self.five { 6 } else { 2 });
    }
}

/// Q4_1 and Q5_1.
#[derive(Clone, Copy)]
pub(super) struct ScaleAndOffset {
    pub(super) five: bool,
}

impl<V: Simd> PackSingle<V> for ScaleAndOffset {
    #[inline(always)]
    fn pack(self, v: V, choice: &single::Choice<V>, levels: &[V::I; 32], words: &mut [V::I]) {
        words[0] = choice.d | v.shl(choice.offset, 16);
        if self.five {
            fifth_bits(v, levels, words, 4);
        }
        nibbles(v, levels, words, if self.five { 8 } else { 4 });
    }
}

#[derive(Clone, Copy)]
pub(super) struct Q80;

impl<V: Simd> PackSingle<V> for Q80 {
    #[inline(always)]
    fn pack(self, v: V, choice: &single::Choice<V>, levels: &[V::I; 32], words: &mut [V::I]) {
        words[0] = choice.d;
        for i in 0..32 {
            put_byte(v, words, 2 + i, levels[i] & v.splat_i(255));
        }
    }
}
