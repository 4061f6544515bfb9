//! Element types of plain (unblocked) tensors.

use std::fmt;

/// One element type. Covers everything safetensors can name plus GGUF's plain types.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
#[non_exhaustive]
pub enum DType {
    /// One byte, zero or one.
    Bool,
    /// Unsigned 8-bit integer.
    U8,
    /// Signed 8-bit integer.
    I8,
    /// Unsigned 16-bit integer.
    U16,
    /// Signed 16-bit integer.
    I16,
    /// Unsigned 32-bit integer.
    U32,
    /// Signed 32-bit integer.
    I32,
    /// Unsigned 64-bit integer.
    U64,
    /// Signed 64-bit integer.
    I64,
    /// IEEE binary16.
    F16,
    /// The upper half of an IEEE binary32.
    BF16,
    /// IEEE binary32.
    F32,
    /// IEEE binary64.
    F64,
    /// Two binary32 values, real then imaginary.
    C64,
    /// 8-bit float, 4 exponent and 3 mantissa bits, no infinities (OCP).
    F8E4M3,
    /// 8-bit float, 5 exponent and 2 mantissa bits, IEEE-like (OCP).
    F8E5M2,
    /// 8-bit float E4M3 without negative zero, bias 8.
    F8E4M3Fnuz,
    /// 8-bit float E5M2 without negative zero, bias 16.
    F8E5M2Fnuz,
    /// 8-bit power of two with bias 127 (OCP MX scale).
    F8E8M0,
    /// 4-bit float E2M1, two to a byte, low nibble first (OCP MX).
    F4,
    /// 6-bit float E2M3 (OCP MX), densely packed.
    F6E2M3,
    /// 6-bit float E3M2 (OCP MX), densely packed.
    F6E3M2,
}

impl DType {
    /// Every element type, in a fixed order.
    pub const ALL: [DType; 22] = [
        Self::Bool,
        Self::U8,
        Self::I8,
        Self::U16,
        Self::I16,
        Self::U32,
        Self::I32,
        Self::U64,
        Self::I64,
        Self::F16,
        Self::BF16,
        Self::F32,
        Self::F64,
        Self::C64,
        Self::F8E4M3,
        Self::F8E5M2,
        Self::F8E4M3Fnuz,
        Self::F8E5M2Fnuz,
        Self::F8E8M0,
        Self::F4,
        Self::F6E2M3,
        Self::F6E3M2,
    ];

    /// Width of one element in bits.
    pub const fn bits(self) -> u64 {
        match self {
            Self::F4 => 4,
            Self::F6E2M3 | Self::F6E3M2 => 6,
            Self::Bool
            | Self::U8
            | Self::I8
            | Self::F8E4M3
            | Self::F8E5M2
            | Self::F8E4M3Fnuz
            | Self::F8E5M2Fnuz
            | Self::F8E8M0 => 8,
            Self::U16 | Self::I16 | Self::F16 | Self::BF16 => 16,
            Self::U32 | Self::I32 | Self::F32 => 32,
            Self::U64 | Self::I64 | Self::F64 | Self::C64 => 64,
        }
    }

    /// Bytes of `n` elements, or `None` when they do not end on a byte or overflow.
    pub fn bytes(self, n: u64) -> Option<u64> {
        let bits = n.checked_mul(self.bits())?;
        bits.is_multiple_of(8).then_some(bits / 8)
    }

    /// Whether values are floating point (complex included).
    pub const fn is_float(self) -> bool {
        !matches!(
            self,
            Self::Bool
                | Self::U8
                | Self::I8
                | Self::U16
                | Self::I16
                | Self::U32
                | Self::I32
                | Self::U64
                | Self::I64
        )
    }

    /// Lower-case name as printed and as accepted on the command line (`bf16`, `f8_e4m3`).
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bool => "bool",
            Self::U8 => "u8",
            Self::I8 => "i8",
            Self::U16 => "u16",
            Self::I16 => "i16",
            Self::U32 => "u32",
            Self::I32 => "i32",
            Self::U64 => "u64",
            Self::I64 => "i64",
            Self::F16 => "f16",
            Self::BF16 => "bf16",
            Self::F32 => "f32",
            Self::F64 => "f64",
            Self::C64 => "c64",
            Self::F8E4M3 => "f8_e4m3",
            Self::F8E5M2 => "f8_e5m2",
            Self::F8E4M3Fnuz => "f8_e4m3fnuz",
            Self::F8E5M2Fnuz => "f8_e5m2fnuz",
            Self::F8E8M0 => "f8_e8m0",
            Self::F4 => "f4",
            Self::F6E2M3 => "f6_e2m3",
            Self::F6E3M2 => "f6_e3m2",
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
