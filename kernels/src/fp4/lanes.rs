//! MXFP4 and NVFP4 over lanes.

use super::reference::{floor_log2, half_e8m0, half_ue4m3};
use crate::lanes::{Batch, MAX_LANES, Rows, Simd, amax, stamp, stamp_decoders};
use crate::superblock_lanes::put_byte;

stamp! {
    encode_mxfp4 = encode_mxfp4;
    encode_nvfp4 = encode_nvfp4;
}

stamp_decoders! {
    lanes decode_mxfp4 = decode_mxfp4;
    lanes decode_nvfp4 = decode_nvfp4;
}

/// Twice the E2M1 values that are not negative. The negative ones mirror them: for a weight below zero, no
/// positive value is nearer than zero itself, and of equally near ones the first, zero, counts.
const VALUES: [f32; 8] = [0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0];

/// Packs the nearest values times `scale` of a group: byte j holds weight j and the one half a group later.
#[inline(always)]
fn pack<V: Simd, const N: usize>(v: V, x: &[V::F; N], scale: V::F, words: &mut [V::I], at: usize) {
    let mut scaled = [scale; 8];
    for k in 0..8 {
        scaled[k] = v.splat(VALUES[k]) * scale;
    }
    let mut levels = [v.splat_i(0); N];
    for i in 0..N {
        let magnitude = v.abs(x[i]);
        let mut best = v.abs(scaled[0] - magnitude);
        let mut level = v.splat_i(0);
        for k in 1..8 {
            let error = v.abs(scaled[k] - magnitude);
            level = v.select_i(v.lt(error, best), v.splat_i(k as i32), level);
            best = v.min(error, best);
        }
        let negative = v.lt(x[i], v.splat(0.0)) & v.lt_i(v.splat_i(0), level);
        levels[i] = v.select_i(negative, level + v.splat_i(8), level);
    }
    for j in 0..N / 2 {
        put_byte(v, words, at + j, levels[j] | v.shl(levels[j + N / 2], 4));
    }
}

/// The E8M0 exponents of blocks by their largest magnitude.
#[inline(always)]
fn exponents<V: Simd>(v: V, amax: V::F) -> V::I {
    let bits = v.bits(amax);
    let exponent = v.shr(bits, 23);
    // Subnormals aside, the logarithm is the exponent, unless it is rounded up to the next: that happens in the
    // last 44 steps below a power of two.
    let near = v.lt_i(v.splat_i(0x007f_ff00), bits & v.splat_i(0x007f_ffff));
    let plain = exponent - v.splat_i(2);
    if !v.any(near | v.lt_i(exponent, v.splat_i(1))) {
        return plain & v.splat_i(255);
    }
    let amax = v.store(amax);
    let mut biased = [0.0; MAX_LANES];
    for l in 0..V::N {
        biased[l] = if amax[l] > 0.0 { (floor_log2(amax[l]) - 2 + 127) as f32 } else { 0.0 };
    }
    v.trunc(v.load(&biased)) & v.splat_i(255)
}

#[inline(always)]
pub(crate) fn encode_mxfp4<V: Simd>(v: V, rows: Rows<'_>, out: &mut [u8]) {
    let mut x = [v.splat(0.0); 32];
    let mut first = 0;
    while let Some(batch) = Batch::at(v, &rows, 32, first) {
        batch.load(v, &rows, &mut x);
        let e = exponents(v, amax(v, &x));
        let mut words = [v.splat_i(0); 16];
        words[0] = e;
        // Half the exponent's value: subnormal for 0 and 1.
        let tiny = v.select_i(v.eq_i(e, v.splat_i(0)), v.splat_i(0x0020_0000), v.splat_i(0x0040_0000));
        let half = v.select_i(v.lt_i(e, v.splat_i(2)), tiny, v.shl(e - v.splat_i(1), 23));
        pack(v, &x, v.float(half), &mut words, 1);
        batch.store::<V, 17, _>(v, &words, out);
        first += V::N;
    }
}

/// Unsigned E4M3 codes, as the reference rounds, and half their values.
#[inline(always)]
fn ue4m3<V: Simd>(v: V, x: V::F) -> (V::I, V::F) {
    let bits = v.bits(v.min(x, v.splat(448.0)));
    let exponent = v.shr(bits, 23) - v.splat_i(127 - 7);
    let small = v.min_i(v.trunc(x * v.splat(512.0) + v.splat(0.5)), v.splat_i(7));
    let code = (v.shl(exponent, 3) | (v.shr(bits, 20) & v.splat_i(7))) + (v.shr(bits, 19) & v.splat_i(1));
    let code = v.select_i(v.lt_i(code, v.splat_i(15 << 3)), code, v.splat_i(0x7e));
    let code = v.select_i(v.lt_i(exponent, v.splat_i(1)), small, code);
    let code = v.select_i(v.le(x, v.splat(0.0)), v.splat_i(0), code);
    let mantissa = code & v.splat_i(7);
    let normal = v.float(v.shl(v.shr(code, 3) + v.splat_i(127 - 8), 23) | v.shl(mantissa, 20));
    let subnormal = v.to_f(mantissa) * v.splat(1.0 / 1024.0);
    (code, v.select(v.lt_i(code, v.splat_i(8)), subnormal, normal))
}

#[inline(always)]
pub(crate) fn encode_nvfp4<V: Simd>(v: V, rows: Rows<'_>, out: &mut [u8]) {
    let mut x = [[v.splat(0.0); 16]; 4];
    let mut first = 0;
    while let Some(batch) = Batch::at(v, &rows, 64, first) {
        batch.load(v, &rows, x.as_flattened_mut());
        let mut words = [v.splat_i(0); 16];
        for g in 0..4 {
            let (code, half) = ue4m3(v, amax(v, &x[g]) / v.splat(6.0));
            put_byte(v, &mut words, g, code);
            pack(v, &x[g], half, &mut words, 4 + 8 * g);
        }
        batch.store::<V, 36, _>(v, &words, out);
        first += V::N;
    }
}

/// Twice the E2M1 values.
const SIGNED: [f32; 16] =
    [0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 0.0, -1.0, -2.0, -3.0, -4.0, -6.0, -8.0, -12.0];

#[inline(always)]
fn decode_mxfp4<V: Simd>(v: V, blocks: &[u8], out: &mut [f32]) {
    for (block, yb) in blocks.as_chunks::<17>().0.iter().zip(out.as_chunks_mut::<32>().0) {
        let scale = v.splat(half_e8m0(block[0]));
        let mut j = 0;
        while j < 16 {
            let levels = v.load_bytes(&block[1 + j..]);
            v.store_to(v.look_up(&SIGNED, levels) * scale, &mut yb[j..]);
            v.store_to(v.look_up(&SIGNED, v.shr(levels, 4)) * scale, &mut yb[16 + j..]);
            j += V::N;
        }
    }
}

#[inline(always)]
fn decode_nvfp4<V: Simd>(v: V, blocks: &[u8], out: &mut [f32]) {
    for (block, yb) in blocks.as_chunks::<36>().0.iter().zip(out.as_chunks_mut::<64>().0) {
        let mut levels = [0u8; 64];
        for (bytes, levels) in block[4..].as_chunks::<8>().0.iter().zip(levels.as_chunks_mut::<16>().0) {
            for (j, byte) in bytes.iter().enumerate() {
                levels[j] = byte & 15;
                levels[j + 8] = byte >> 4;
            }
        }
        let mut i = 0;
        while i < 64 {
            let scale = v.splat(half_ue4m3(block[i / 16]));
            v.store_to(v.look_up(&SIGNED, v.load_bytes(&levels[i..])) * scale, &mut yb[i..]);
            i += V::N;
        }
    }
}
