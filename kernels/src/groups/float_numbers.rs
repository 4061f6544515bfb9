//! The scale of a group of float codes, by each library's arithmetic.
//!
//! All of it is done in binary32, which is what the libraries do with weights of that type. Given weights of 16 bits, some of
//! them round in between: compressed-tensors' arithmetic is followed there too, where scales have the type of weights, and
//! for NVFP4.

use super::float_codes::Rounding;
use super::rounding::{Float, stored};
use super::{Quantizer, Rule, ScaleType};

/// What a group gets.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Numbers {
    /// As stored.
    pub(super) scale: f32,
    /// What a code's value is multiplied by.
    pub(super) unit: f32,
    /// What weights are divided by, or multiplied with, before they are rounded.
    pub(super) step: f32,
    /// Which of both.
    pub(super) divide: bool,
}

/// compressed-tensors' global scale of an NVFP4 matrix by its largest magnitude (`generate_gparam`): what
/// [`Quantizer::encode_rows_over`] divides scales by.
pub fn global_scale(amax: f32) -> f32 {
    // torch divides a number by a tensor through the tensor's inverse.
    let scale = 1.0 / amax.max(f32::MIN_POSITIVE) * (448.0 * 6.0);
    if scale.is_finite() { scale } else { 1.0 }
}

/// `2^e` of a biased exponent; that of 0 is subnormal.
fn power(e: u32) -> f32 {
    f32::from_bits(if e == 0 { 0x0040_0000 } else { e << 23 })
}

/// What compressed-tensors puts in the place of a scale of zero (`_get_dtype_eps`).
fn instead_of_zero(as_type: ScaleType) -> f32 {
    match as_type {
        ScaleType::E4M3 => 0.125,
        ScaleType::E8M0 => 1.0,
        ScaleType::F32 | ScaleType::F16 | ScaleType::BF16 => Float::of(as_type).epsilon(),
    }
}

/// compressed-tensors' scale of microscaling formats: the largest magnitude's power of two, counting from 1.75 on as the next,
/// over the power of two in the largest value (`generate_mx_scales`). Saturates at both ends.
fn mx_scale(amax: f32, largest: f32) -> f32 {
    let exponent = amax.to_bits().wrapping_add(1 << 21) >> 23;
    let offset = (largest.to_bits() >> 23) - 127;
    power(exponent.saturating_sub(offset).min(254))
}

/// What scales are multiplied by, for a whole matrix.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Outer {
    /// Nothing.
    None,
    /// This.
    Times(f32),
    /// The inverse of this, for weights of a type.
    Over(f32, Float),
}

impl Numbers {
    /// Of a group by its largest magnitude, finite; `short` is a group with fewer columns than the others.
    #[inline]
    pub(super) fn new(q: &Quantizer, rounding: Rounding, outer: Outer, amax: f32, short: bool) -> Self {
        let largest = rounding.largest();
        let (times, over) = match outer {
            Outer::None => (1.0, 1.0),
            Outer::Times(o) => (o, 1.0 / o),
            Outer::Over(g, _) => (1.0 / g, g),
        };
        let weights = if let Outer::Over(_, weights) = outer { weights } else { Float::F32 };
        if q.grid.is_whole() && outer != Outer::None {
            // The matrix's own scale, found before.
            return Self { scale: 1.0, unit: times, step: times, divide: true };
        }
        if q.rule == Rule::BitsAndBytes {
            let scale = if short { amax.max(1e-38) } else { amax };
            let (step, divide) = if short { (scale, true) } else { (1.0 / amax.max(1e-38), false) };
            let scale = stored(q.scale, scale);
            return Self { scale, unit: scale, step, divide };
        }
        if q.rule == Rule::DeepSeek {
            return Self::fine_grained(q.scale, largest, amax);
        }
        let scale = match (q.rule, q.scale) {
            (Rule::Mlx, ScaleType::E8M0) => match amax / largest {
                0.0 => 1.0,
                scale => stored(q.scale, scale),
            },
            (_, ScaleType::E8M0) => mx_scale(amax, largest),
            _ => stored(q.scale, weights.round(amax / largest) * over),
        };
        let scale = if scale == 0.0 && q.rule != Rule::Mlx { instead_of_zero(q.scale) } else { scale };
        let divisor = scale / over;
        if divisor == 0.0 {
            return Self { scale, unit: scale * times, step: 0.0, divide: false };
        }
        if q.scale == ScaleType::E8M0 && over == 1.0 {
            // The inverse of a power of two is exact, and so is as good.
            return Self { scale, unit: scale, step: 1.0 / divisor, divide: false };
        }
        Self { scale, unit: scale * times, step: divisor, divide: true }
    }

    /// transformers' `Fp8Quantize`, which writes DeepSeek's `weight_scale_inv`. There a group whose magnitudes stay below
    /// 2^-119 overflows; here its factor stays finite.
    fn fine_grained(as_type: ScaleType, largest: f32, amax: f32) -> Self {
        // By the inverse, as torch divides a number.
        let forward = if amax > 0.0 { (1.0 / amax * largest).min(f32::MAX) } else { 1.0 };
        let inverse = 1.0 / forward;
        if as_type == ScaleType::E8M0 {
            let scale = stored(as_type, inverse);
            return Self { scale, unit: scale, step: 1.0 / scale, divide: false };
        }
        let scale = stored(as_type, inverse);
        let step = match as_type {
            ScaleType::F32 => forward,
            _ if scale == 0.0 => 0.0,
            _ => (1.0 / scale).min(f32::MAX),
        };
        Self { scale, unit: scale, step, divide: false }
    }
}
