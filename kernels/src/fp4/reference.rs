//! Scalar reference of MXFP4 and NVFP4.

use crate::num::{signed_max, truncate};

/// Twice the E2M1 values (`kvalues_fp4`).
const VALUES: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// Index of the nearest value times `scale`; the first one on a tie, so never negative zero.
fn nearest_value(x: f32, scale: f32) -> u8 {
    let error = |v: i8| (f32::from(v) * scale - x).abs();
    let mut best = (0u8, error(VALUES[0]));
    for (i, &v) in (0u8..).zip(&VALUES).skip(1) {
        let e = error(v);
        if e < best.1 {
            best = (i, e);
        }
    }
    best.0
}

fn pack(x: &[f32], scale: f32, out: &mut [u8]) {
    let half = out.len();
    for (j, byte) in out.iter_mut().enumerate() {
        *byte = nearest_value(x[j], scale) | nearest_value(x[j + half], scale) << 4;
    }
}

fn unpack(bytes: &[u8], scale: f32, out: &mut [f32]) {
    let half = bytes.len();
    for (i, y) in out.iter_mut().enumerate() {
        *y = f32::from(VALUES[usize::from(bytes[i % half] >> (i / half * 4) & 15)]) * scale;
    }
}

/// Half the value of an E8M0 exponent (`ggml_e8m0_to_fp32_half`): 2^(e-128), subnormal for e < 2.
#[inline(always)]
pub(super) fn half_e8m0(e: u8) -> f32 {
    f32::from_bits(if e < 2 { 0x0020_0000 << e } else { u32::from(e - 1) << 23 })
}

/// `floorf(log2f(x))` of a positive finite number, with `log2f` correctly rounded: a number so close below a
/// power of two that its logarithm rounds to that power's exponent counts as that power.
pub(super) fn floor_log2(x: f32) -> i32 {
    let wide = f64::from(x).to_bits(); // normal in binary64 even where x is subnormal
    let exponent = ((wide >> 52) & 0x7ff) as i32 - 1023;
    let fraction = f64::from_bits((wide & ((1 << 52) - 1)) | (1023 << 52));
    let next = exponent + 1;
    if next == 0 {
        return exponent; // logarithms just below zero are as fine as the numbers themselves
    }
    // Distance of the logarithm below `next`, to second order; exact enough by many orders of magnitude.
    let gap = (2.0 - fraction) / 2.0;
    let below = (gap + gap * gap / 2.0) / std::f64::consts::LN_2;
    // Half the spacing of binary32 below `next`, where the logarithm lies.
    let half_ulp = f64::from(next as f32 - (next as f32).next_down()) / 2.0;
    if below <= half_ulp { next } else { exponent }
}

pub(super) fn encode_mxfp4(x: &[f32], _importance: Option<&[f32]>, out: &mut [u8]) {
    for (xb, block) in x.as_chunks::<32>().0.iter().zip(out.as_chunks_mut::<17>().0) {
        let (_, amax) = signed_max(xb);
        // Below 2^-125 the exponent wraps around, as ggml's cast does.
        let e = if amax > 0.0 { truncate((floor_log2(amax) - 2 + 127) as f32) as u8 } else { 0 };
        block[0] = e;
        pack(xb, half_e8m0(e), &mut block[1..]);
    }
}

pub(super) fn decode_mxfp4(blocks: &[u8], out: &mut [f32]) {
    for (block, yb) in blocks.as_chunks::<17>().0.iter().zip(out.as_chunks_mut::<32>().0) {
        unpack(&block[1..], half_e8m0(block[0]), yb);
    }
}

/// Nearest unsigned E4M3 code, halves up (`ggml_fp32_to_ue4m3`). What reaches 256, rounding included, becomes
/// 448: ggml never uses the codes 0x78 to 0x7d.
fn ue4m3_code(x: f32) -> u8 {
    if x <= 0.0 {
        return 0;
    }
    let bits = x.min(448.0).to_bits();
    let exponent = (bits >> 23) as i32 - 127 + 7;
    if exponent <= 0 {
        return ((x * 512.0 + 0.5) as i32).min(7) as u8;
    }
    // Mantissa and exponent as one number: the round bit may carry.
    let code = (exponent << 3 | (bits >> 20 & 7) as i32) + (bits >> 19 & 1) as i32;
    if code >= 15 << 3 { 0x7e } else { code as u8 }
}

/// Half the value of an unsigned E4M3 code; zero for the NaN code (`ggml_ue4m3_to_fp32`).
#[inline(always)]
pub(super) fn half_ue4m3(code: u8) -> f32 {
    if code == 0x7f {
        return 0.0;
    }
    let (exponent, mantissa) = (u32::from(code >> 3 & 15), f32::from(code & 7));
    let power = |e: u32| f32::from_bits(e << 23);
    if exponent == 0 {
        mantissa * power(127 - 10)
    } else {
        (1.0 + mantissa / 8.0) * power(127 + exponent - 8)
    }
}

pub(super) fn encode_nvfp4(x: &[f32], _importance: Option<&[f32]>, out: &mut [u8]) {
    for (xb, block) in x.as_chunks::<64>().0.iter().zip(out.as_chunks_mut::<36>().0) {
        let (codes, levels) = block.split_at_mut(4);
        for (g, xg) in xb.as_chunks::<16>().0.iter().enumerate() {
            let (_, amax) = signed_max(xg);
            codes[g] = ue4m3_code(amax / 6.0);
            pack(xg, half_ue4m3(codes[g]), &mut levels[8 * g..][..8]);
        }
    }
}

pub(super) fn decode_nvfp4(blocks: &[u8], out: &mut [f32]) {
    for (block, yb) in blocks.as_chunks::<36>().0.iter().zip(out.as_chunks_mut::<64>().0) {
        for (g, yg) in yb.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            unpack(&block[4 + 8 * g..][..8], half_ue4m3(block[g]), yg);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logarithms_round_up_just_below_powers_of_two() {
        assert_eq!([1.0, 1.5, 2.0, 0.75, 1e-45].map(floor_log2), [0, 0, 1, -1, -149]);
        assert_eq!(floor_log2(2.0f32.powi(100).next_down()), 100);
        assert_eq!(floor_log2(2.0f32.powi(100) * 0.999_99), 99);
        assert_eq!(floor_log2(1.0f32.next_down()), -1);
        // How many numbers below 2^e glibc's log2f rounds up to e.
        for (e, count) in [(-126, 22), (-65, 44), (-64, 44), (-63, 22), (-2, 1), (2, 0), (64, 22), (65, 44)] {
            let below = |steps: u32| f32::from_bits((((e + 127) as u32) << 23) - steps);
            assert_eq!(floor_log2(below(count + 1)), e - 1);
            assert!((1..=count).all(|steps| floor_log2(below(steps)) == e));
        }
    }

    #[test]
    fn scale_codes_round_trip() {
        for code in 0..0x78 {
            assert_eq!(ue4m3_code(half_ue4m3(code) * 2.0), code);
        }
        assert_eq!([247.0, 248.0, 256.0, 300.0, 1e9].map(ue4m3_code), [0x77, 0x7e, 0x7e, 0x7e, 0x7e]);
        assert_eq!(half_ue4m3(0x7f), 0.0);
    }
}
