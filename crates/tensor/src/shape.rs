//! Shapes, encodings and the byte arithmetic that layouts are computed from.
//!
//! All sizes are `u64` and every product is checked: shapes come from files.

use crate::{BlockFormat, DType};
use std::fmt;

/// A size that cannot be represented, or a row that does not fill whole blocks or bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SizeError {
    /// The product of the dimensions does not fit in 64 bits.
    #[error("shape {0} has more elements than 64 bits can count")]
    Overflow(String),
    /// Rows of this length cannot be stored in this encoding.
    #[error("rows of {row} elements do not fill whole {encoding} blocks")]
    Row {
        /// Elements in one row.
        row: u64,
        /// Name of the encoding.
        encoding: String,
    },
}

/// Dimensions, outermost first (the order of PyTorch and safetensors; GGUF stores them reversed).
///
/// The last dimension is the *row*: the unit of reading, quantizing and writing. A scalar (no dimensions)
/// is one row of one element.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Shape {
    dims: Vec<u64>,
    elements: u64,
}

impl Shape {
    /// Makes a shape.
    ///
    /// # Errors
    /// [`SizeError::Overflow`] when the number of elements does not fit in 64 bits.
    pub fn new(dims: Vec<u64>) -> Result<Self, SizeError> {
        // A zero dimension must not hide an overflow of the others, or row arithmetic could wrap later.
        let product = dims.iter().filter(|&&d| d != 0).try_fold(1u64, |a, &d| a.checked_mul(d));
        match product {
            Some(p) => {
                let elements = if dims.contains(&0) { 0 } else { p };
                Ok(Self { dims, elements })
            }
            None => Err(SizeError::Overflow(display_dims(&dims))),
        }
    }

    /// The dimensions, outermost first.
    pub fn dims(&self) -> &[u64] {
        &self.dims
    }
    /// Number of dimensions.
    pub fn rank(&self) -> usize {
        self.dims.len()
    }
    /// Number of elements.
    pub fn elements(&self) -> u64 {
        self.elements
    }
    /// Elements in one row: the last dimension, one for a scalar.
    pub fn row_len(&self) -> u64 {
        self.dims.last().copied().unwrap_or(1)
    }
    /// Number of rows: the product of all dimensions but the last.
    pub fn rows(&self) -> u64 {
        if self.elements == 0 { 0 } else { self.elements / self.row_len() }
    }
}

fn display_dims(dims: &[u64]) -> String {
    let parts: Vec<String> = dims.iter().map(u64::to_string).collect();
    format!("[{}]", parts.join(", "))
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&display_dims(&self.dims))
    }
}

/// How the elements of a tensor are stored.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Encoding {
    /// One element after another.
    Plain(DType),
    /// Blocks along the row.
    Block(&'static BlockFormat),
}

impl Encoding {
    /// Shorthand for plain binary32.
    pub const F32: Self = Self::Plain(DType::F32);
    /// Shorthand for plain binary16.
    pub const F16: Self = Self::Plain(DType::F16);
    /// Shorthand for plain bfloat16.
    pub const BF16: Self = Self::Plain(DType::BF16);

    /// Bytes of a row of `n` elements; `None` when the row does not fill whole blocks or bytes.
    pub fn row_bytes(self, n: u64) -> Option<u64> {
        match self {
            Self::Plain(d) => d.bytes(n),
            Self::Block(b) => b.row_bytes(n),
        }
    }
    /// Name as printed: `f32`, `Q4_K`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain(d) => d.name(),
            Self::Block(b) => b.name,
        }
    }
    /// Parses what the command line accepts: an element type or a ggml block type, in any case.
    pub fn parse(s: &str) -> Option<Self> {
        let lower = s.to_ascii_lowercase();
        DType::ALL
            .into_iter()
            .find(|d| d.name() == lower)
            .map(Self::Plain)
            .or_else(|| crate::ggml::by_name(s).map(Self::Block))
    }
    /// Whether this is a block encoding.
    pub fn is_block(self) -> bool {
        matches!(self, Self::Block(_))
    }
    /// Bits per weight.
    pub fn bits_per_weight(self) -> f64 {
        match self {
            Self::Plain(d) => d.bits() as f64,
            Self::Block(b) => b.bits_per_weight(),
        }
    }
}

impl fmt::Display for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Name, shape and encoding of one tensor: everything its size depends on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TensorSpec {
    /// Name in the world of the model at hand.
    pub name: String,
    /// Dimensions, outermost first.
    pub shape: Shape,
    /// How elements are stored.
    pub encoding: Encoding,
}

impl TensorSpec {
    /// Makes a spec.
    pub fn new(name: impl Into<String>, shape: Shape, encoding: Encoding) -> Self {
        Self { name: name.into(), shape, encoding }
    }

    /// Bytes of one row.
    ///
    /// # Errors
    /// [`SizeError::Row`] when a row does not fill whole blocks or bytes.
    pub fn row_bytes(&self) -> Result<u64, SizeError> {
        self.encoding
            .row_bytes(self.shape.row_len())
            .ok_or_else(|| SizeError::Row { row: self.shape.row_len(), encoding: self.encoding.to_string() })
    }

    /// Bytes of the whole tensor.
    ///
    /// # Errors
    /// As [`Self::row_bytes`], or [`SizeError::Overflow`].
    pub fn bytes(&self) -> Result<u64, SizeError> {
        // Sub-byte rows may end inside a byte as long as the whole tensor does not (safetensors allows it).
        if let Encoding::Plain(d) = self.encoding {
            return d.bytes(self.shape.elements()).ok_or_else(|| SizeError::Overflow(self.shape.to_string()));
        }
        self.row_bytes()?
            .checked_mul(self.shape.rows())
            .ok_or_else(|| SizeError::Overflow(self.shape.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_are_checked_even_behind_a_zero() {
        assert!(Shape::new(vec![u64::MAX, 2]).is_err());
        assert!(Shape::new(vec![0, u64::MAX, 2]).is_err());
        assert_eq!(Shape::new(vec![0, 3]).unwrap().elements(), 0);
        assert_eq!(Shape::new(vec![]).unwrap().elements(), 1);
    }

    #[test]
    fn rows_must_fill_blocks() {
        let s =
            |row| TensorSpec::new("t", Shape::new(vec![2, row]).unwrap(), Encoding::Block(crate::ggml::Q4_K));
        assert_eq!(s(512).bytes().unwrap(), 2 * 2 * 144);
        assert!(s(300).bytes().is_err());
    }

    #[test]
    fn encodings_parse_in_any_case() {
        assert_eq!(Encoding::parse("q4_k"), Some(Encoding::Block(crate::ggml::Q4_K)));
        assert_eq!(Encoding::parse("BF16"), Some(Encoding::BF16));
        assert_eq!(Encoding::parse("nope"), None);
    }
}
