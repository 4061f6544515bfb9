//! Scalar reference of Q4_K.

use crate::num::{read_f16, write_f16};
use crate::search::Candidates;
use crate::superblock::{AffineKind, WEIGHTS, encode_affine, six_bits, super_blocks};

pub(super) const BYTES: usize = 144;
pub(super) const KIND: AffineKind =
    AffineKind { max_level: 15, plain: Candidates { first: -1.0, step: 0.1, last: 20 }, clamp: false };

pub(super) fn encode(x: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
    for ((xb, w), block) in super_blocks(x, importance).zip(out.as_chunks_mut::<BYTES>().0) {
        let encoded = encode_affine(&KIND, xb, w);
        write_f16(block, encoded.d);
        write_f16(&mut block[2..], encoded.dmin);
        block[4..16].copy_from_slice(&encoded.scales);
        let pairs = encoded.levels.as_chunks::<64>().0;
        for (levels, bytes) in pairs.iter().zip(block[16..].as_chunks_mut::<32>().0) {
            for (l, byte) in bytes.iter_mut().enumerate() {
                *byte = levels[l] | levels[l + 32] << 4;
            }
        }
    }
}

#[inline(always)]
pub(super) fn decode(blocks: &[u8], out: &mut [f32]) {
    for (block, yb) in blocks.as_chunks::<BYTES>().0.iter().zip(out.as_chunks_mut::<WEIGHTS>().0) {
        let (d, dmin) = (read_f16(block), read_f16(&block[2..]));
        for (j, yg) in yb.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            let (scale, offset) = six_bits(&block[4..16], j);
            let (scale, offset) = (d * f32::from(scale), dmin * f32::from(offset));
            let bytes = &block[16 + j / 2 * 32..][..32];
            for (y, byte) in yg.iter_mut().zip(bytes) {
                *y = scale * f32::from(byte >> (j % 2 * 4) & 15) - offset;
            }
        }
    }
}
