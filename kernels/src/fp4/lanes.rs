//! MXFP4 and NVFP4 over lanes.

use super::reference::{self, floor_log2, half_e8m0, half_ue4m3};
use crate::codec::all_finite;
use crate::lanes::{MAX_LANES, Reduced, Rows, Scan, Simd, nibbles, stamp, stamp_decoders};

stamp! {
    direct encode_mxfp4 = encode_mxfp4;
    direct encode_nvfp4 = encode_nvfp4;
}

stamp_decoders! {
    decode_mxfp4 = decode_mxfp4;
    decode_nvfp4 = decode_nvfp4;
}

/// Middles between twice the E2M1 values that are not negative: what exceeds the k-th gets level k + 1 or above.
/// Where two values are equally near, the first counts; no negative value is ever nearer than its mirror image.
///
/// Products of these and a scale are exact, and so are the reference's differences close to them, so that comparing
/// with them finds what the reference's scan of errors finds, as long as errors differ at all: magnitudes far beyond
/// the largest value make them equal.
const MIDDLES: [f32; 7] = [0.5, 1.5, 2.5, 3.5, 5.0, 7.0, 10.0];

/// The upper halves of the middles' bit patterns, for as many groups as there are lanes. The lower halves are zero:
/// a middle has three binary digits and a scale at most four.
struct Middles([[u32; MAX_LANES]; 7]);

impl Middles {
    /// Of groups under these scales. Under a scale of zero all values are equally near.
    #[inline(always)]
    fn new<V: Scan>(v: V, scales: V::F) -> Self {
        let nothing = v.eq(scales, v.splat(0.0));
        let mut middles = [[0; MAX_LANES]; 7];
        for k in 0..7 {
            let middle = v.select(nothing, v.splat(f32::INFINITY), v.splat(MIDDLES[k]) * scales);
            middles[k] = v.store_words(v.shr(v.bits(middle), 16));
        }
        Self(middles)
    }

    /// Those of group `l`.
    #[inline(always)]
    fn of(&self, l: usize) -> [i16; 7] {
        let mut middles = [0; 7];
        for k in 0..7 {
            middles[k] = self.0[k][l] as i16;
        }
        middles
    }
}

/// The levels of weights among these middles: how many of them the magnitude exceeds. Plain loops, which the compiler
/// gives twice as many lanes as there would be of `f32`.
#[inline(always)]
fn levels<const W: usize>(x: &[f32; W], middles: [i16; 7]) -> [u8; W] {
    // Exceeding a middle is reaching it less one in the last place, which the upper half tells.
    let (mut magnitudes, mut signs) = ([0i16; W], [0i16; W]);
    for i in 0..W {
        let bits = x[i].to_bits().cast_signed();
        magnitudes[i] = (((bits & i32::MAX) - 1) >> 16) as i16;
        signs[i] = (bits >> 16) as i16;
    }
    let mut levels = [0; W];
    for i in 0..W {
        let mut level = 0i16;
        for middle in middles {
            level += i16::from(magnitudes[i] >= middle);
        }
        // There is no negative zero.
        let sign = if level == 0 { 0 } else { signs[i] >> 12 & 8 };
        levels[i] = (level | sign) as u8;
    }
    levels
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
pub(crate) fn encode_mxfp4<V: Scan>(v: V, rows: Rows<'_>, out: &mut [u8]) -> bool {
    let mut reduced = Reduced::NONE;
    let blocks = rows.x.as_chunks::<32>().0.chunks(V::N);
    for (blocks, out) in blocks.zip(out.as_chunks_mut::<17>().0.chunks_mut(V::N)) {
        let Some(amax) = reduced.amax(v, blocks) else { return false };
        let e = exponents(v, amax);
        // Half the exponent's value: subnormal for 0 and 1.
        let tiny = v.select_i(v.eq_i(e, v.splat_i(0)), v.splat_i(0x0020_0000), v.splat_i(0x0040_0000));
        let half = v.select_i(v.lt_i(e, v.splat_i(2)), tiny, v.shl(e - v.splat_i(1), 23));
        let middles = Middles::new(v, v.float(half));
        let codes = v.store_words(e);
        for (l, (x, block)) in blocks.iter().zip(out).enumerate() {
            let l = l % MAX_LANES;
            let levels = levels(x, middles.of(l));
            block[0] = codes[l] as u8;
            let (halves, _) = levels.as_chunks::<16>();
            block[1..].copy_from_slice(&nibbles(&[halves[0], halves[1]]));
        }
    }
    true
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
pub(crate) fn encode_nvfp4<V: Scan>(v: V, rows: Rows<'_>, out: &mut [u8]) -> bool {
    if V::N < 4 {
        // A block has four groups.
        reference::encode_nvfp4(rows.x, None, out);
        return all_finite(rows.x);
    }
    let mut reduced = Reduced::NONE;
    let blocks = rows.x.as_chunks::<64>().0.chunks(V::N / 4);
    for (blocks, out) in blocks.zip(out.as_chunks_mut::<36>().0.chunks_mut(V::N / 4)) {
        // Groups go side by side.
        let groups = blocks.as_flattened().as_chunks::<16>().0;
        let Some(amax) = reduced.amax(v, groups) else { return false };
        let (code, half) = ue4m3(v, amax / v.splat(6.0));
        let middles = Middles::new(v, half);
        let codes = v.store_words(code);
        // A scale that is not zero but could not grow with the magnitudes.
        let far = v.lanes(v.lt(v.splat(1e6) * half, amax) & v.lt(v.splat(0.0), half));
        for (b, (x, block)) in blocks.iter().zip(out).enumerate() {
            let first = b * 4 % MAX_LANES;
            for g in 0..4 {
                block[g] = codes[first + g] as u8;
            }
            for (g, (x, bytes)) in
                x.as_chunks::<16>().0.iter().zip(block[4..].as_chunks_mut::<8>().0).enumerate()
            {
                let levels = levels(x, middles.of(first + g));
                let (halves, _) = levels.as_chunks::<8>();
                *bytes = nibbles(&[halves[0], halves[1]]);
            }
            if far >> first & 15 != 0 {
                reference::encode_nvfp4(x, None, block);
            }
        }
    }
    true
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
