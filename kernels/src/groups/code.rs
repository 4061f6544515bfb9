//! What the codes of a group stand for, before scale and offset.

/// A set of at most 256 values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    /// The integers `0..2^bits`, for `bits` of 1 to 8.
    Int(u8),
    /// 4-bit floats E2M1 (OCP MX): sign in bit 3.
    E2M1,
    /// The normal-float code book of bitsandbytes (QLoRA), 16 values in -1..=1.
    Nf4,
    /// The 4-bit floats of bitsandbytes, 16 values in -1..=1.
    Fp4,
    /// 8-bit floats E4M3 without infinities (OCP).
    E4M3,
    /// 8-bit floats E5M2 (OCP).
    E5M2,
}

/// `bitsandbytes.functional.get_4bit_type("nf4")`.
#[rustfmt::skip]
pub(super) const NF4: [f32; 16] = [
    -1.0, -0.696_192_8, -0.525_073_05, -0.394_917_5, -0.284_441_38, -0.184_773_43, -0.091_050_036, 0.0,
    0.079_580_3, 0.160_930_2, 0.246_112_3, 0.337_915_24, 0.440_709_83, 0.562_617, 0.722_956_84, 1.0,
];

/// `get_4bit_type("fp4")`, by code: magnitudes 0, 0.0625, 8, 12, 4, 6, 2, 3 over 12; sign in bit 3, but no negative zero.
#[rustfmt::skip]
pub(super) const FP4: [f32; 16] = [
    0.0, 0.005_208_333_5, 0.666_666_7, 1.0, 0.333_333_34, 0.5, 0.166_666_67, 0.25,
    0.0, -0.005_208_333_5, -0.666_666_7, -1.0, -0.333_333_34, -0.5, -0.166_666_67, -0.25,
];

/// E2M1 by code.
pub(super) const E2M1: [f32; 16] =
    [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0];

impl Code {
    /// Width of a code in bits.
    pub const fn bits(self) -> u32 {
        match self {
            Self::Int(bits) => bits as u32,
            Self::E2M1 | Self::Nf4 | Self::Fp4 => 4,
            Self::E4M3 | Self::E5M2 => 8,
        }
    }

    /// The integer in the middle, `2^(bits-1)`; zero for codes that are no integers.
    pub fn middle(self) -> f32 {
        match self {
            Self::Int(bits) => f32::from(1u16 << (bits - 1)),
            _ => 0.0,
        }
    }

    /// The value of every code; codes that are too wide have those of their low bits.
    pub fn values(self) -> [f32; 256] {
        let mask = ((1u32 << self.bits()) - 1) as u8;
        std::array::from_fn(|i| {
            let code = i as u8 & mask;
            match self {
                Self::Int(_) => f32::from(code),
                Self::E2M1 => E2M1[usize::from(code)],
                Self::Nf4 => NF4[usize::from(code)],
                Self::Fp4 => FP4[usize::from(code)],
                Self::E4M3 | Self::E5M2 => {
                    let dtype = match self {
                        Self::E4M3 => tensormill_tensor::DType::F8E4M3,
                        _ => tensormill_tensor::DType::F8E5M2,
                    };
                    let mut x = [0f32];
                    let decoded = tensormill_tensor::decode_plain(dtype, &[code], &mut x);
                    debug_assert!(decoded, "8-bit floats decode");
                    x[0]
                }
            }
        })
    }
}
