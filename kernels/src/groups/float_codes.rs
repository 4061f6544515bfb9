//! Scalar reference of codes that are floats: which code a quotient gets.

use super::code::{E2M1, FP4, NF4};
use super::{Code, Rule};
use tensormill_tensor::{DType, encode_saturating};

/// Which code a number gets that was divided by its scale. What lies beyond the largest value gets that value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rounding {
    /// To nearest even.
    E4M3,
    /// To nearest even.
    E5M2,
    /// To nearest even. Zero has no sign; what is rounded to zero keeps its own (`cast_to_fp4` of compressed-tensors).
    E2M1Even,
    /// To nearest, halves towards zero, which is never negative (the first least difference, as MLX finds on CPU; its Metal
    /// kernels round to even instead).
    E2M1Down,
    /// To nearest, halves to the lower value.
    Nf4,
    /// To nearest, halves to the lower value. Of the two zeros, code 0 takes what is not positive, 8 what is.
    Fp4,
}

/// The bounds between values that bitsandbytes compares with, and the codes of what lies between them, upwards.
pub(super) struct Bounds {
    pub(super) bounds: [f32; 15],
    pub(super) codes: [u8; 16],
}

impl Bounds {
    const fn new(values: &[f32; 16], codes: [u8; 16]) -> Self {
        let (mut bounds, mut i) = ([0.0; 15], 0);
        while i < 15 {
            bounds[i] = f32::midpoint(values[codes[i] as usize], values[codes[i + 1] as usize]);
            i += 1;
        }
        Self { bounds, codes }
    }

    fn code(&self, x: f32) -> u8 {
        self.codes[self.bounds.iter().filter(|b| **b < x).count()]
    }
}

pub(super) const NF4_BOUNDS: Bounds =
    Bounds::new(&NF4, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);
pub(super) const FP4_BOUNDS: Bounds =
    Bounds::new(&FP4, [11, 10, 13, 12, 15, 14, 9, 0, 8, 1, 6, 7, 4, 5, 2, 3]);

/// Middles between the magnitudes of E2M1.
pub(super) const MIDDLES: [f32; 7] = [0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0];

fn eight_bits(dtype: DType, x: f32) -> u8 {
    let mut code = [0];
    let encoded = encode_saturating(dtype, &[x], &mut code);
    debug_assert!(encoded, "8-bit floats encode");
    code[0]
}

impl Rounding {
    /// What the library of a rule does.
    ///
    /// # Panics
    /// For integers, which are not encoded here.
    pub(super) fn new(code: Code, rule: Rule) -> Self {
        match code {
            Code::E4M3 => Self::E4M3,
            Code::E5M2 => Self::E5M2,
            Code::E2M1 if rule == Rule::Mlx => Self::E2M1Down,
            Code::E2M1 => Self::E2M1Even,
            Code::Nf4 => Self::Nf4,
            Code::Fp4 => Self::Fp4,
            Code::Int(_) => unreachable!("integers have their own encoders"),
        }
    }

    /// The code of a number that is not NaN.
    pub(super) fn code(self, x: f32) -> u8 {
        let sign = u8::from(x < 0.0) << 3;
        match self {
            Self::E4M3 => eight_bits(DType::F8E4M3, x),
            Self::E5M2 => eight_bits(DType::F8E5M2, x),
            Self::E2M1Even => {
                // A middle belongs to the even one of its neighbours.
                let above = |(i, m): (usize, &f32)| if i % 2 == 0 { x.abs() > *m } else { x.abs() >= *m };
                MIDDLES.iter().enumerate().filter(|m| above(*m)).count() as u8 | sign
            }
            Self::E2M1Down => match MIDDLES.iter().filter(|m| x.abs() > **m).count() as u8 {
                0 => 0,
                level => level | sign,
            },
            Self::Nf4 => NF4_BOUNDS.code(x),
            Self::Fp4 => FP4_BOUNDS.code(x),
        }
    }

    /// The largest value.
    pub(super) fn largest(self) -> f32 {
        match self {
            Self::E4M3 => 448.0,
            Self::E5M2 => 57344.0,
            Self::E2M1Even | Self::E2M1Down => E2M1[7],
            Self::Nf4 | Self::Fp4 => 1.0,
        }
    }

    /// The code that it stands for.
    pub(super) fn values(self) -> Code {
        match self {
            Self::E4M3 => Code::E4M3,
            Self::E5M2 => Code::E5M2,
            Self::E2M1Even | Self::E2M1Down => Code::E2M1,
            Self::Nf4 => Code::Nf4,
            Self::Fp4 => Code::Fp4,
        }
    }
}
