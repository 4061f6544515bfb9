//! Q4_K over lanes.

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
        for (pair, levels) in scratch.levels.as_chunks::<2>().0.iter().enumerate() {
            for c in 0..8 {
                let mut word = v.splat_i(0);
                for byte in 0..4 {
                    let l = 4 * c + byte;
                    word = word | v.shl(levels[0][l] | v.shl(levels[1][l], 4), 8 * byte as u32);
                }
                words[4 + 8 * pair + c] = word;
            }
        }
        batch.store::<V, BYTES, _>(v, &words, out);
        first += V::N;
    }
}

#[inline(always)]
fn decode<V: Simd>(v: V, blocks: &[u8], out: &mut [f32]) {
    decode_affine::<V, BYTES, false>(v, blocks, out);
}
