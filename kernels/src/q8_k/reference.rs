//! Scalar reference of Q8_K.

use crate::num::{nearest_int, signed_max};
use crate::superblock::WEIGHTS;

pub(super) fn encode(x: &[f32], _importance: Option<&[f32]>, out: &mut [u8]) {
    for (xb, block) in x.as_chunks::<WEIGHTS>().0.iter().zip(out.as_chunks_mut::<292>().0) {
        let (max, amax) = signed_max(xb);
        if amax == 0.0 {
            block.fill(0);
            continue;
        }
        let inverse = -127.0 / max;
        let levels = xb.map(|v| nearest_int(inverse * v).min(127) as i8);
        block[..4].copy_from_slice(&(1.0 / inverse).to_le_bytes());
        for (byte, level) in block[4..].iter_mut().zip(levels) {
            *byte = level.cast_unsigned();
        }
        for (bytes, sixteen) in block[260..].as_chunks_mut::<2>().0.iter_mut().zip(levels.as_chunks::<16>().0)
        {
            *bytes = sixteen.iter().map(|&l| i16::from(l)).sum::<i16>().to_le_bytes();
        }
    }
}

pub(super) fn decode(blocks: &[u8], out: &mut [f32]) {
    for (block, yb) in blocks.as_chunks::<292>().0.iter().zip(out.as_chunks_mut::<WEIGHTS>().0) {
        let d = f32::from_le_bytes([block[0], block[1], block[2], block[3]]);
        for (y, &q) in yb.iter_mut().zip(&block[4..260]) {
            *y = d * f32::from(q.cast_signed());
        }
    }
}
