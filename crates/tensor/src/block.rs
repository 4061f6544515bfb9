//! Block encodings: a fixed number of weights packed into a fixed number of bytes.
//!
//! A [`BlockFormat`] says only how large a block is and what it is called; encoding and decoding live in
//! `tensormill-kernels`. New formats are new statics, never new enum arms.

use std::{fmt, hash};

/// Description of one block encoding. Compared by name; there is one static per format.
#[derive(Debug)]
pub struct BlockFormat {
    /// Name as the format's home world prints it, e.g. `Q4_K`.
    pub name: &'static str,
    /// Weights in one block.
    pub weights: u32,
    /// Bytes of one block.
    pub bytes: u32,
    /// Type code in GGUF files (`enum ggml_type`).
    pub ggml_code: u32,
}

impl BlockFormat {
    /// Bits per weight, scales included.
    pub fn bits_per_weight(&self) -> f64 {
        f64::from(self.bytes) * 8.0 / f64::from(self.weights)
    }

    /// Bytes of a row of `n` weights; `None` when `n` is not a whole number of blocks.
    pub fn row_bytes(&self, n: u64) -> Option<u64> {
        if !n.is_multiple_of(u64::from(self.weights)) {
            return None;
        }
        (n / u64::from(self.weights)).checked_mul(u64::from(self.bytes))
    }
}

impl PartialEq for BlockFormat {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}
impl Eq for BlockFormat {}
impl hash::Hash for BlockFormat {
    fn hash<H: hash::Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}
impl fmt::Display for BlockFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// The block formats of ggml (sizes: `GGML_QUANT_SIZES` in gguf-py's `constants.py`; codes: `enum ggml_type`
/// in `ggml.h`).
pub mod ggml {
    use super::BlockFormat;

    macro_rules! formats {
        ($($name:ident $text:literal $weights:literal $bytes:literal $code:literal;)*) => {
            $(
                #[doc = concat!("ggml `", $text, "`: ", $weights, " weights in ", $bytes, " bytes.")]
                pub static $name: &BlockFormat =
                    &BlockFormat { name: $text, weights: $weights, bytes: $bytes, ggml_code: $code };
            )*
            /// Every ggml block format, by type code.
            pub static ALL: &[&BlockFormat] = &[$($name),*];
        };
    }

    formats! {
        Q4_0 "Q4_0" 32 18 2;
        Q4_1 "Q4_1" 32 20 3;
        Q5_0 "Q5_0" 32 22 6;
        Q5_1 "Q5_1" 32 24 7;
        Q8_0 "Q8_0" 32 34 8;
        Q8_1 "Q8_1" 32 36 9;
        Q2_K "Q2_K" 256 84 10;
        Q3_K "Q3_K" 256 110 11;
        Q4_K "Q4_K" 256 144 12;
        Q5_K "Q5_K" 256 176 13;
        Q6_K "Q6_K" 256 210 14;
        Q8_K "Q8_K" 256 292 15;
        IQ2_XXS "IQ2_XXS" 256 66 16;
        IQ2_XS "IQ2_XS" 256 74 17;
        IQ3_XXS "IQ3_XXS" 256 98 18;
        IQ1_S "IQ1_S" 256 50 19;
        IQ4_NL "IQ4_NL" 32 18 20;
        IQ3_S "IQ3_S" 256 110 21;
        IQ2_S "IQ2_S" 256 82 22;
        IQ4_XS "IQ4_XS" 256 136 23;
        IQ1_M "IQ1_M" 256 56 29;
        TQ1_0 "TQ1_0" 256 54 34;
        TQ2_0 "TQ2_0" 256 66 35;
        MXFP4 "MXFP4" 32 17 39;
        NVFP4 "NVFP4" 64 36 40;
        Q1_0 "Q1_0" 128 18 41;
        Q2_0 "Q2_0" 64 18 42;
    }

    /// The format with this GGUF type code.
    pub fn by_code(code: u32) -> Option<&'static BlockFormat> {
        ALL.iter().copied().find(|f| f.ggml_code == code)
    }

    /// The format with this name, in any case.
    pub fn by_name(name: &str) -> Option<&'static BlockFormat> {
        ALL.iter().copied().find(|f| f.name.eq_ignore_ascii_case(name))
    }
}
