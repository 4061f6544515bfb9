//! The numbers of the format: magic, versions, value type codes, tensor type codes.

use tensormill_tensor::{DType, Encoding, ggml};

/// First four bytes, in files of either byte order.
pub(crate) const MAGIC: [u8; 4] = *b"GGUF";
/// The version that is written, and the newest that is read.
pub(crate) const VERSION: u32 = 3;
/// `GGML_MAX_DIMS`.
pub(crate) const MAX_RANK: usize = 4;
/// Alignment of tensor data in bytes where `general.alignment` is absent.
pub const DEFAULT_ALIGNMENT: u64 = 32;
/// The key that changes it.
pub(crate) const ALIGNMENT_KEY: &str = "general.alignment";

/// `enum gguf_type`.
pub(crate) mod value_type {
    pub const U8: u32 = 0;
    pub const I8: u32 = 1;
    pub const U16: u32 = 2;
    pub const I16: u32 = 3;
    pub const U32: u32 = 4;
    pub const I32: u32 = 5;
    pub const F32: u32 = 6;
    pub const BOOL: u32 = 7;
    pub const STRING: u32 = 8;
    pub const ARRAY: u32 = 9;
    pub const U64: u32 = 10;
    pub const I64: u32 = 11;
    pub const F64: u32 = 12;
}

/// Codes of plain types in `enum ggml_type`; blocks carry theirs.
const PLAIN: [(u32, DType); 8] = [
    (0, DType::F32),
    (1, DType::F16),
    (24, DType::I8),
    (25, DType::I16),
    (26, DType::I32),
    (27, DType::I64),
    (28, DType::F64),
    (30, DType::BF16),
];

/// Codes that `enum ggml_type` once had and gave up.
const REMOVED: [(u32, &str); 8] = [
    (4, "Q4_2"),
    (5, "Q4_3"),
    (31, "Q4_0_4_4"),
    (32, "Q4_0_4_8"),
    (33, "Q4_0_8_8"),
    (36, "IQ4_NL_4_4"),
    (37, "IQ4_NL_4_8"),
    (38, "IQ4_NL_8_8"),
];

/// The encoding of a tensor type code; `None` for unknown and removed codes.
pub fn encoding_of(code: u32) -> Option<Encoding> {
    PLAIN
        .iter()
        .find(|(c, _)| *c == code)
        .map(|(_, d)| Encoding::Plain(*d))
        .or_else(|| ggml::by_code(code).map(Encoding::Block))
}

/// The tensor type code of an encoding; `None` where GGUF has no such type.
pub fn code_of(encoding: Encoding) -> Option<u32> {
    match encoding {
        Encoding::Plain(d) => PLAIN.iter().find(|(_, p)| *p == d).map(|(c, _)| *c),
        Encoding::Block(b) => Some(b.ggml_code),
    }
}

/// Name of a removed type code.
pub(crate) fn removed(code: u32) -> Option<&'static str> {
    REMOVED.iter().find(|(c, _)| *c == code).map(|(_, n)| *n)
}

/// An encoding in ggml's spelling: `F32`, `BF16`, `Q4_K`.
pub fn ggml_type_name(encoding: Encoding) -> String {
    encoding.name().to_ascii_uppercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_round_trip_and_removed_ones_are_unknown() {
        let known = (0..64).filter(|&c| encoding_of(c).is_some()).collect::<Vec<_>>();
        assert_eq!(known.len(), PLAIN.len() + ggml::ALL.len());
        for c in known {
            assert_eq!(encoding_of(c).and_then(code_of), Some(c));
            assert!(removed(c).is_none());
        }
        assert_eq!(code_of(Encoding::Plain(DType::U8)), None);
        assert_eq!(ggml_type_name(Encoding::BF16), "BF16");
    }
}
