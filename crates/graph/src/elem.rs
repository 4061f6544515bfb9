//! Element types by the numbers of `TensorProto.DataType`.

use std::fmt;
use tensormill_tensor::DType;

/// An element type as ONNX numbers it. Numbers that this version does not know are kept.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, PartialOrd, Ord)]
pub struct Elem(pub i32);

macro_rules! elements {
    ($($(#[$doc:meta])* $name:ident = $n:literal $bits:literal $text:literal $dtype:expr;)*) => {
        impl Elem {
            $($(#[$doc])* pub const $name: Self = Self($n);)*

            /// Bits of one element; `None` for text and for numbers that are not known.
            pub const fn bits(self) -> Option<u64> {
                match self.0 {
                    $($n => if $bits == 0 { None } else { Some($bits) },)*
                    _ => None,
                }
            }
            /// Lower-case name as ONNX's documentation has it.
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($n => Some($text),)*
                    _ => None,
                }
            }
            /// The same type elsewhere in the house, where there is one.
            pub const fn dtype(self) -> Option<DType> {
                match self.0 {
                    $($n => $dtype,)*
                    _ => None,
                }
            }
            /// All that are known.
            pub const ALL: &[Self] = &[$(Self::$name),*];
        }
    };
}

elements! {
    /// IEEE binary32.
    F32 = 1 32 "float" Some(DType::F32);
    /// Unsigned 8-bit integer.
    U8 = 2 8 "uint8" Some(DType::U8);
    /// Signed 8-bit integer.
    I8 = 3 8 "int8" Some(DType::I8);
    /// Unsigned 16-bit integer.
    U16 = 4 16 "uint16" Some(DType::U16);
    /// Signed 16-bit integer.
    I16 = 5 16 "int16" Some(DType::I16);
    /// Signed 32-bit integer.
    I32 = 6 32 "int32" Some(DType::I32);
    /// Signed 64-bit integer.
    I64 = 7 64 "int64" Some(DType::I64);
    /// Text of any length.
    STRING = 8 0 "string" None;
    /// One byte, zero or one.
    BOOL = 9 8 "bool" Some(DType::Bool);
    /// IEEE binary16.
    F16 = 10 16 "float16" Some(DType::F16);
    /// IEEE binary64.
    F64 = 11 64 "double" Some(DType::F64);
    /// Unsigned 32-bit integer.
    U32 = 12 32 "uint32" Some(DType::U32);
    /// Unsigned 64-bit integer.
    U64 = 13 64 "uint64" Some(DType::U64);
    /// Two binary32 values.
    C64 = 14 64 "complex64" Some(DType::C64);
    /// Two binary64 values.
    C128 = 15 128 "complex128" None;
    /// The upper half of a binary32.
    BF16 = 16 16 "bfloat16" Some(DType::BF16);
    /// E4M3 without infinities.
    F8E4M3 = 17 8 "float8e4m3fn" Some(DType::F8E4M3);
    /// E4M3 without infinities and negative zero.
    F8E4M3FNUZ = 18 8 "float8e4m3fnuz" Some(DType::F8E4M3Fnuz);
    /// E5M2.
    F8E5M2 = 19 8 "float8e5m2" Some(DType::F8E5M2);
    /// E5M2 without infinities and negative zero.
    F8E5M2FNUZ = 20 8 "float8e5m2fnuz" Some(DType::F8E5M2Fnuz);
    /// Unsigned 4-bit integer, two to a byte, low half first.
    U4 = 21 4 "uint4" None;
    /// Signed 4-bit integer, two to a byte, low half first.
    I4 = 22 4 "int4" None;
    /// E2M1, two to a byte, low half first.
    F4 = 23 4 "float4e2m1" Some(DType::F4);
    /// Powers of two.
    F8E8M0 = 24 8 "float8e8m0" Some(DType::F8E8M0);
    /// Unsigned 2-bit integer, four to a byte, lowest first.
    U2 = 25 2 "uint2" None;
    /// Signed 2-bit integer, four to a byte, lowest first.
    I2 = 26 2 "int2" None;
    /// E2M3, densely packed.
    F6E2M3 = 27 6 "float6e2m3" Some(DType::F6E2M3);
    /// E3M2, densely packed.
    F6E3M2 = 28 6 "float6e3m2" Some(DType::F6E3M2);
}

impl Elem {
    /// No type.
    pub const UNDEFINED: Self = Self(0);

    /// The number of a type; `None` where ONNX has none.
    pub fn of(dtype: DType) -> Option<Self> {
        Self::ALL.iter().copied().find(|e| e.dtype() == Some(dtype))
    }
    /// Unsigned integers of so many bits, of those in which weights are packed: 2, 4 and 8.
    pub const fn unsigned(bits: u64) -> Option<Self> {
        match bits {
            2 => Some(Self::U2),
            4 => Some(Self::U4),
            8 => Some(Self::U8),
            _ => None,
        }
    }
    /// Whether graphs compute with it as with real numbers of some precision.
    pub const fn is_float(self) -> bool {
        matches!(self, Self::F16 | Self::BF16 | Self::F32 | Self::F64)
    }
    /// Bytes that `n` elements take in `raw_data`: elements below a byte are packed, the last byte is filled up.
    pub fn bytes(self, n: u64) -> Option<u64> {
        Some(n.checked_mul(self.bits()?)?.div_ceil(8))
    }
}

impl fmt::Display for Elem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "element type {}", self.0),
        }
    }
}

impl fmt::Debug for Elem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
