//! The contract that every level of every format fulfils, and the checks that all of them share.
//!
//! Must not know which formats or levels exist: that is `dispatch`.

use crate::lanes::{MAX_LANES, Rows};
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

/// What went wrong in which of several rows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("row {row}: {error}")]
pub struct RowsError {
    /// Index of the row, from the first of the call.
    pub row: usize,
    /// What is wrong with it.
    #[source]
    pub error: KernelError,
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

    /// Encodes rows of `row_len` weights that lie one after the other in `x`; `importance` is shared by them.
    /// The same bytes as row by row, but faster where a level works on blocks of several rows side by side: give
    /// it a few hundred kilobytes at a time.
    ///
    /// # Errors
    /// As [`Self::encode_row`], in a [`RowsError`] that says in which row. What was written then means nothing.
    fn encode_rows(
        &self,
        x: &[f32],
        row_len: usize,
        importance: Option<&[f32]>,
        out: &mut [u8],
    ) -> Result<(), RowsError> {
        let rows = check_rows(self.block(), x.len(), row_len, out.len())?;
        for row in 0..rows {
            let out_len = out.len() / rows;
            let (x, out) = (&x[row * row_len..][..row_len], &mut out[row * out_len..][..out_len]);
            self.encode_row(x, importance, out).map_err(|error| RowsError { row, error })?;
        }
        Ok(())
    }

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

/// A fold without early exit, because that vectorises.
#[inline(always)]
pub(crate) fn all_finite(values: &[f32]) -> bool {
    const EXPONENT: u32 = 0x7f80_0000;
    values.iter().fold(0, |bad, v| bad | u32::from(v.to_bits() & EXPONENT == EXPONENT)) == 0
}

fn check_finite(operand: Operand, values: &[f32]) -> Result<(), KernelError> {
    if all_finite(values) {
        return Ok(());
    }
    let column = values.iter().position(|v| !v.is_finite()).unwrap_or(0);
    Err(KernelError::NonFinite { operand, column })
}

/// How many rows there are. A length that is no whole number of rows is a wrong length of the last.
fn check_rows(
    block: &'static BlockFormat,
    weights: usize,
    row_len: usize,
    bytes: usize,
) -> Result<usize, RowsError> {
    let format = block.name;
    let rows = weights.checked_div(row_len).unwrap_or(0);
    let row_bytes = if rows * row_len == weights { block.row_bytes(row_len as u64) } else { None };
    let Some(row_bytes) = row_bytes else {
        let len = if rows == 0 { weights } else { weights % row_len };
        let len = if len == 0 { row_len } else { len };
        return Err(RowsError {
            row: rows,
            error: KernelError::RowLength { format, len, block: block.weights },
        });
    };
    let expected = row_bytes * rows as u64;
    if bytes as u64 != expected {
        return Err(RowsError { row: 0, error: KernelError::BlockBytes { format, len: bytes, expected } });
    }
    Ok(rows)
}

impl Codec {
    /// The importance that this format's encoder is to see.
    fn check_importance<'a>(
        &self,
        row_len: usize,
        importance: Option<&'a [f32]>,
    ) -> Result<Option<&'a [f32]>, KernelError> {
        let format = self.block.name;
        match importance {
            Some(w) if w.len() != row_len => {
                Err(KernelError::ImportanceLength { format, len: w.len(), expected: row_len })
            }
            Some(_) if self.importance == Importance::Ignored => Ok(None),
            Some(w) => {
                check_finite(Operand::Importance, w)?;
                Ok(Some(w))
            }
            None if self.importance == Importance::Required => {
                Err(KernelError::ImportanceRequired { format })
            }
            None => Ok(None),
        }
    }
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
        let importance = self.check_importance(x.len(), importance)?;
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

/// `(rows, blocks)`; lengths are already checked. Returns whether all weights are finite; where not, what was written
/// means nothing.
pub(crate) type EncodeRows = fn(Rows<'_>, &mut [u8]) -> bool;

/// A format at a level above the reference: whatever this level does not do itself, the reference does.
pub(crate) struct LaneCodec {
    pub(crate) reference: &'static Codec,
    pub(crate) encode: Option<EncodeRows>,
    pub(crate) decode: Option<DecodeRow>,
}

/// Bytes of input that are checked and encoded together: they stay in the second-level cache between the two.
const CHUNK_BYTES: usize = 256 << 10;

/// Rows of one chunk: a number that fills whole batches of blocks, where that is not too much.
fn chunk_rows(block: &BlockFormat, row_len: usize) -> usize {
    let blocks = row_len / block.weights as usize;
    // The lowest bit of the block count says how often it divides into the lanes.
    let unit = (MAX_LANES >> blocks.trailing_zeros().min(MAX_LANES.ilog2())).max(1);
    unit * (CHUNK_BYTES / (unit * row_len * size_of::<f32>())).max(1)
}

impl BlockCodec for LaneCodec {
    fn block(&self) -> &'static BlockFormat {
        self.reference.block
    }

    fn encode_row(&self, x: &[f32], importance: Option<&[f32]>, out: &mut [u8]) -> Result<(), KernelError> {
        let Some(encode) = self.encode else {
            return self.reference.encode_row(x, importance, out);
        };
        self.reference.check_lengths(x.len(), out.len())?;
        check_finite(Operand::Row, x)?;
        let importance = self.reference.check_importance(x.len(), importance)?;
        if !x.is_empty() {
            encode(Rows { x, len: x.len(), importance }, out);
        }
        Ok(())
    }

    fn encode_rows(
        &self,
        x: &[f32],
        row_len: usize,
        importance: Option<&[f32]>,
        out: &mut [u8],
    ) -> Result<(), RowsError> {
        let at = |row, error| RowsError { row, error };
        let rows = check_rows(self.block(), x.len(), row_len, out.len())?;
        let importance =
            self.reference.check_importance(row_len, importance).map_err(|error| at(0, error))?;
        if rows == 0 {
            return Ok(());
        }
        let chunk = chunk_rows(self.block(), row_len);
        let row_bytes = out.len() / rows;
        let outs = out.chunks_mut(chunk * row_bytes);
        for (i, (x, out)) in x.chunks(chunk * row_len).zip(outs).enumerate() {
            let Some(encode) = self.encode else {
                for (r, (x, out)) in x.chunks(row_len).zip(out.chunks_mut(row_bytes)).enumerate() {
                    self.reference
                        .encode_row(x, importance, out)
                        .map_err(|error| at(i * chunk + r, error))?;
                }
                continue;
            };
            if !encode(Rows { x, len: row_len, importance }, out) {
                for (r, x) in x.chunks(row_len).enumerate() {
                    check_finite(Operand::Row, x).map_err(|error| at(i * chunk + r, error))?;
                }
            }
        }
        Ok(())
    }

    fn decode_row(&self, blocks: &[u8], out: &mut [f32]) -> Result<(), KernelError> {
        let Some(decode) = self.decode else {
            return self.reference.decode_row(blocks, out);
        };
        self.reference.check_lengths(out.len(), blocks.len())?;
        decode(blocks, out);
        Ok(())
    }

    fn can_encode(&self) -> bool {
        self.reference.can_encode()
    }

    fn needs_importance(&self) -> bool {
        self.reference.needs_importance()
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
