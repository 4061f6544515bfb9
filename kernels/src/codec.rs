//! The contract that every level of every format fulfils, and the checks that all of them share.
//!
//! Must not know which formats or levels exist: that is `dispatch`.

use tensormill_tensor::BlockFormat;

/// Why a row could not be encoded or decoded. Callers add the names of file, tensor and row.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KernelError {
    /// The row does not fill whole blocks.
    #[error("{format}: a row of {len} weights does not fill whole blocks of {block}")]
    RowLength {
        /// Name of the block format.
        format: &'static str,
        /// Weights in the row.
        len: usize,
        /// Weights in one block.
        block: u32,
    },
    /// The byte buffer does not match the row.
    #[error("{format}: {len} bytes of blocks, but the row takes {expected}")]
    BlockBytes {
        /// Name of the block format.
        format: &'static str,
        /// Bytes in the buffer.
        len: usize,
        /// Bytes that the row takes.
        expected: u64,
    },
    /// Importance must have one weight per column.
    #[error("{format}: {len} importance weights for a row of {expected} columns")]
    ImportanceLength {
        /// Name of the block format.
        format: &'static str,
        /// Importance weights given.
        len: usize,
        /// Columns in the row.
        expected: usize,
    },
    /// There is a decoder only.
    #[error("{format} can be decoded but not encoded")]
    EncodeUnsupported {
        /// Name of the block format.
        format: &'static str,
    },
    /// The format cannot be encoded without importance.
    #[error("{format} needs an importance matrix")]
    ImportanceRequired {
        /// Name of the block format.
        format: &'static str,
    },
    /// A value is NaN or infinite.
    #[error("column {column} of the {operand} is NaN or infinite")]
    NonFinite {
        /// Where the value stands.
        operand: Operand,
        /// Index within the row.
        column: usize,
    },
}

/// The two inputs of an encoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operand {
    /// The weights to encode.
    Row,
    /// The importance of each column.
    Importance,
}

impl std::fmt::Display for Operand {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Row => "row",
            Self::Importance => "importance matrix",
        })
    }
}

/// Encoder and decoder of one block format at one level.
///
/// The unit is one row of a tensor, because some ggml encoders weigh a block by the variance of its whole row:
/// cutting a row in two changes bytes.
pub trait BlockCodec: Sync {
    /// The format: name, weights and bytes per block, wire code.
    fn block(&self) -> &'static BlockFormat;

    /// Encodes one row. `x` holds the row's weights, `importance` (when given) one weight per column, `out`
    /// exactly the row's blocks.
    ///
    /// ggml checks nothing here: NaN and infinities fall through comparisons and give deterministic garbage,
    /// which `llama-quantize` finds afterwards only when it reaches a scale field. This function refuses them
    /// instead, before anything is written. Importance is looked at only by formats that use it.
    ///
    /// # Errors
    /// Wrong lengths, [`KernelError::EncodeUnsupported`], [`KernelError::ImportanceRequired`], or
    /// [`KernelError::NonFinite`] with the first such column.
    fn encode_row(&self, x: &[f32], importance: Option<&[f32]>, out: &mut [u8]) -> Result<(), KernelError>;

    /// Decodes one row: `blocks` holds whole blocks, `out` as many weights as they encode. Any bytes decode;
    /// a hostile scale may give NaN or infinity.
    ///
    /// # Errors
    /// Wrong lengths.
    fn decode_row(&self, blocks: &[u8], out: &mut [f32]) -> Result<(), KernelError>;

    /// Whether [`Self::encode_row`] can succeed.
    fn can_encode(&self) -> bool;

    /// Whether encoding without importance is refused.
    fn needs_importance(&self) -> bool;
}

/// `(row, importance, blocks)`; lengths and finiteness are already checked.
pub(crate) type EncodeRow = fn(&[f32], Option<&[f32]>, &mut [u8]);
/// `(blocks, row)`; lengths are already checked.
pub(crate) type DecodeRow = fn(&[u8], &mut [f32]);

/// What an encoder does with importance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Importance {
    /// Never looked at.
    Ignored,
    /// Used when given.
    Optional,
    /// Used, and encoding without it is refused.
    Required,
}

/// A format's functions at one level; the checks around them are written once, here.
pub(crate) struct Codec {
    pub(crate) block: &'static BlockFormat,
    pub(crate) importance: Importance,
    /// `None` when the format can only be decoded.
    pub(crate) encode: Option<EncodeRow>,
    pub(crate) decode: DecodeRow,
}

impl Codec {
    fn check_lengths(&self, weights: usize, bytes: usize) -> Result<(), KernelError> {
        let format = self.block.name;
        let expected = self.block.row_bytes(weights as u64).ok_or(KernelError::RowLength {
            format,
            len: weights,
            block: self.block.weights,
        })?;
        if bytes as u64 != expected {
            return Err(KernelError::BlockBytes { format, len: bytes, expected });
        }
        Ok(())
    }
}

fn check_finite(operand: Operand, values: &[f32]) -> Result<(), KernelError> {
    // A fold without early exit vectorises; the position is looked up only when there is one.
    if values.iter().fold(true, |ok, v| ok & v.is_finite()) {
        return Ok(());
    }
    let column = values.iter().position(|v| !v.is_finite()).unwrap_or(0);
    Err(KernelError::NonFinite { operand, column })
}

impl BlockCodec for Codec {
    fn block(&self) -> &'static BlockFormat {
        self.block
    }

    fn encode_row(&self, x: &[f32], importance: Option<&[f32]>, out: &mut [u8]) -> Result<(), KernelError> {
        let format = self.block.name;
        let Some(encode) = self.encode else {
            return Err(KernelError::EncodeUnsupported { format });
        };
        self.check_lengths(x.len(), out.len())?;
        check_finite(Operand::Row, x)?;
        let importance = match importance {
            Some(w) if w.len() != x.len() => {
                return Err(KernelError::ImportanceLength { format, len: w.len(), expected: x.len() });
            }
            Some(_) if self.importance == Importance::Ignored => None,
            Some(w) => {
                check_finite(Operand::Importance, w)?;
                Some(w)
            }
            None if self.importance == Importance::Required => {
                return Err(KernelError::ImportanceRequired { format });
            }
            None => None,
        };
        encode(x, importance, out);
        Ok(())
    }

    fn decode_row(&self, blocks: &[u8], out: &mut [f32]) -> Result<(), KernelError> {
        self.check_lengths(out.len(), blocks.len())?;
        (self.decode)(blocks, out);
        Ok(())
    }

    fn can_encode(&self) -> bool {
        self.encode.is_some()
    }

    fn needs_importance(&self) -> bool {
        self.importance == Importance::Required
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tensormill_tensor::ggml;

    #[test]
    fn importance_is_refused_passed_on_or_dropped_as_the_format_says() {
        let codec = |importance| Codec {
            block: ggml::Q4_0,
            importance,
            encode: Some(|_, w, out| out.fill(u8::from(w.is_some()))),
            decode: |_, _| {},
        };
        let (x, mut out) = ([1.0f32; 32], [9u8; 18]);
        let mut encode = |importance, w: Option<&[f32]>| {
            codec(importance).encode_row(&x, w, &mut out).map(|()| out[0] == 1)
        };
        assert_eq!(encode(Importance::Ignored, Some(&x)), Ok(false));
        assert_eq!(encode(Importance::Optional, Some(&x)), Ok(true));
        assert_eq!(encode(Importance::Optional, None), Ok(false));
        assert_eq!(encode(Importance::Required, Some(&x)), Ok(true));
        assert_eq!(
            encode(Importance::Required, None),
            Err(KernelError::ImportanceRequired { format: "Q4_0" })
        );
    }
}
