//! Q5_K over lanes.

use super::reference::{BYTES, KIND};
use crate::lanes::{Batch, Rows, Simd, stamp, stamp_decoders};
use crate::superblock::WEIGHTS;
use crate::superblock_lanes::{AffineScratch, decode_affine, encode_affine};

stamp! {
    search encode = encode;
}

stamp_decoders! {
    decode = decode;
}

#[inline(always)]
pub(crate) fn encode<V: Simd>(v: V, rows: Rows<'_>, out: &mut [u8]) {
    if rows.importance.is_some() {
        encode_as::<V, true>(v, rows, out);
    } else {
        encode_as::<V, false>(v, rows, out);
    }
}

#[inline(always)]
fn encode_as<V: Simd, const IMPORTANCE: bool>(v: V, rows: Rows<'_>, out: &mut [u8]) {
    let mut scratch = AffineScratch::new(v);
    let mut first = 0;
    while let Some(batch) = Batch::at(v, &rows, WEIGHTS, first) {
        let mut words = [v.splat_i(0); 48];
        encode_affine::<V, IMPORTANCE>(v, &KIND, &rows, &batch, &mut scratch, &mut words);
        let (head, low) = words.split_at_mut(12);
        for (pair, levels) in scratch.levels.as_chunks::<2>().0.iter().enumerate() {
            for l in 0..32 {
                let (a, b) = (levels[0][l], levels[1][l]);
                let at = 8 * (l as u32 % 4);
                let byte = (a & v.splat_i(15)) | v.shl(b & v.splat_i(15), 4);
                let word = &mut low[8 * pair + l / 4];
                *word = *word | v.shl(byte, at);
                let byte = v.shl(v.shr(a, 4), 2 * pair as u32) | v.shl(v.shr(b, 4), 2 * pair as u32 + 1);
                let word = &mut head[4 + l / 4];
                *word = *word | v.shl(byte, at);
            }
        }
        batch.store::<V, BYTES, _>(v, &words, out);
        first += V::N;
    }
}

#[inline(always)]
fn decode<V: Simd>(v: V, blocks: &[u8], out: &mut [f32]) {
    decode_affine::<V, BYTES, true>(v, blocks, out);
}
