//! Rounding to the types that numbers are stored as and that some libraries compute in, scalar and over lanes.

use super::ScaleType;
use crate::lanes::Simd;
use crate::num::{f16_bits, f16_value};

/// A type that libraries compute in. What they compute in 16 bits they compute in `f32` and round after every operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Float {
    F32,
    F16,
    BF16,
}

/// [`Float`] as a parameter of lane-generic functions.
pub(super) const F32: u8 = 0;
pub(super) const F16: u8 = 1;
pub(super) const BF16: u8 = 2;

const F16_MAX: f32 = 65504.0;
const BF16_MAX: f32 = f32::from_bits(0x7f7f_0000);

impl Float {
    /// The type of weights whose scales have this type.
    pub(super) fn of(scale: ScaleType) -> Self {
        match scale {
            ScaleType::F16 => Self::F16,
            ScaleType::BF16 => Self::BF16,
            ScaleType::F32 | ScaleType::E4M3 | ScaleType::E8M0 => Self::F32,
        }
    }

    /// To nearest even; beyond the largest number, infinity.
    #[inline]
    pub(super) fn round(self, x: f32) -> f32 {
        match self {
            Self::F32 => x,
            Self::F16 => f16_value(f16_bits(x)),
            Self::BF16 if x.is_nan() => x,
            Self::BF16 => {
                let bits = x.to_bits();
                f32::from_bits((bits + 0x7fff + (bits >> 16 & 1)) & 0xffff_0000)
            }
        }
    }

    /// The same from `f64`, rounded once.
    pub(super) fn round_f64(self, x: f64) -> f32 {
        let near = x as f32;
        if self == Self::F32 || f64::from(near) == x {
            return self.round(near);
        }
        // Cut towards zero with the last bit set stands on the right side of every tie of a narrower type.
        let cut = if f64::from(near).abs() > x.abs() { near.to_bits() - 1 } else { near.to_bits() };
        self.round(f32::from_bits(cut | 1))
    }

    pub(super) fn largest(self) -> f32 {
        match self {
            Self::F32 => f32::MAX,
            Self::F16 => F16_MAX,
            Self::BF16 => BF16_MAX,
        }
    }

    /// The smallest normal number.
    pub(super) fn tiny(self) -> f32 {
        match self {
            Self::F32 | Self::BF16 => f32::MIN_POSITIVE,
            Self::F16 => 6.103_515_6e-5,
        }
    }

    /// From one to the next number.
    pub(super) fn epsilon(self) -> f32 {
        match self {
            Self::F32 => f32::EPSILON,
            Self::F16 => 9.765_625e-4,
            Self::BF16 => 7.812_5e-3,
        }
    }

    /// Whether numbers are known to be of this type: those of checkpoints in bfloat16 are.
    #[inline(always)]
    pub(super) fn holds(self, x: &[f32]) -> bool {
        match self {
            Self::F32 => true,
            Self::F16 => false,
            // A fold without early exit, because that vectorises.
            Self::BF16 => x.iter().fold(0, |bits, x| bits | x.to_bits()).trailing_zeros() >= 16,
        }
    }

    /// A finite number as a weight of this type: beyond the largest number, that.
    #[inline]
    pub(super) fn weight(self, x: f32) -> f32 {
        self.round(x).clamp(-self.largest(), self.largest())
    }
}

/// A number as it is stored. Where a library would store infinity, the largest number is.
pub(super) fn stored(scale: ScaleType, x: f32) -> f32 {
    match scale {
        ScaleType::F32 | ScaleType::F16 | ScaleType::BF16 => Float::of(scale).weight(x),
        ScaleType::E4M3 => {
            let magnitude = x.abs();
            let rounded = if magnitude < 0.015_625 {
                // Below the normal numbers steps are 2^-9, the last place of 2^14.
                (magnitude + 16384.0) - 16384.0
            } else {
                let bits = magnitude.to_bits();
                f32::from_bits((bits + 0x7_ffff + (bits >> 20 & 1)) & !0xf_ffff)
            };
            rounded.min(448.0).copysign(x)
        }
        // The power of two that is not less, so that nothing of the range is cut off.
        ScaleType::E8M0 => {
            let bits = x.abs().max(f32::from_bits(0x0040_0000)).to_bits();
            f32::from_bits((bits + 0x7f_ffff).min(0x7f00_0000) & 0x7f80_0000)
        }
    }
}

/// [`Float::round`] over lanes. Wants no NaN.
#[inline(always)]
pub(super) fn round<V: Simd, const T: u8>(v: V, x: V::F) -> V::F {
    if T == F32 {
        return x;
    }
    let bits = v.bits(x);
    if T == BF16 {
        let odd = v.shr(bits, 16) & v.splat_i(1);
        return v.float((bits + v.splat_i(0x7fff) + odd) & v.splat_i(0xffff_0000_u32 as i32));
    }
    let magnitude = v.abs(x);
    let odd = v.shr(bits, 13) & v.splat_i(1);
    let normal = (v.bits(magnitude) + v.splat_i(0x0fff) + odd) & v.splat_i(!0x1fff);
    // See `f16_bits`: sums with one half round to the last place of small numbers.
    let small = (magnitude + v.splat(0.5)) - v.splat(0.5);
    let rounded = v.select(v.lt(magnitude, v.splat(6.103_515_6e-5)), small, v.float(normal));
    let rounded = v.select(v.lt(v.splat(F16_MAX), rounded), v.splat(f32::INFINITY), rounded);
    v.float(v.bits(rounded) | (bits & v.splat_i(i32::MIN)))
}

/// [`Float::weight`] over lanes.
#[inline(always)]
pub(super) fn weight<V: Simd, const T: u8>(v: V, x: V::F) -> V::F {
    let largest = v.splat(if T == F16 { F16_MAX } else { BF16_MAX });
    v.max(v.min(round::<V, T>(v, x), largest), v.neg(largest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lanes::Portable;

    #[test]
    fn lanes_round_as_scalars_do() {
        let v = Portable::<4>;
        let mut bits = 1u32;
        for _ in 0..200_000 {
            bits = bits.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            for x in [bits, bits & 0xffff_e000, bits & 0xffff_f000, bits & 0x8fff_8000, bits | 0x4000_0000] {
                let x = f32::from_bits(x);
                if x.is_nan() {
                    continue;
                }
                let got = |f| v.store(f)[0].to_bits();
                let x_ = v.splat(x);
                assert_eq!(got(round::<_, F16>(v, x_)), Float::F16.round(x).to_bits(), "{x:e}");
                assert_eq!(got(round::<_, BF16>(v, x_)), Float::BF16.round(x).to_bits(), "{x:e}");
                assert_eq!(got(weight::<_, F16>(v, x_)), Float::F16.weight(x).to_bits(), "{x:e}");
                assert_eq!(got(weight::<_, BF16>(v, x_)), Float::BF16.weight(x).to_bits(), "{x:e}");
            }
        }
    }

    #[test]
    fn one_rounding_from_f64() {
        // Just above a tie of binary16, by less than binary32 can say.
        let x = 1.0 + 1.0 / 2048.0 + 1e-12;
        assert_eq!(Float::F16.round_f64(x), 1.0 + 1.0 / 1024.0);
        assert_eq!(Float::F16.round(x as f32), 1.0);
        assert_eq!(Float::F32.round_f64(0.1), 0.1);
    }

    #[test]
    fn scales_of_eight_bits() {
        let e4m3 = |x| stored(ScaleType::E4M3, x);
        assert_eq!(
            [1.0, 1.06, 500.0, 0.001, -0.002].map(e4m3),
            [1.0, 1.0, 448.0, 0.001_953_125, -0.001_953_125]
        );
        let e8m0 = |x| stored(ScaleType::E8M0, x);
        assert_eq!([1.0, 1.1, 0.0, f32::MAX].map(e8m0), [1.0, 2.0, f32::MIN_POSITIVE, 2f32.powi(127)]);
    }
}
