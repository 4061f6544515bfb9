//! A stronger search in the same formats: `--search best`.
//!
//! ggml finds each group's scale and offset alone, then rounds them to what the block can store. Here they are
//! chosen *together*, at the values that will be decoded, so that levels, stored scales and the super-block's
//! binary16 factors fit one another. What is minimised is `sum importance * (x - decoded)^2` (importance one
//! where none is given), not ggml's objective, which adds the magnitude of each weight.
//!
//! Every block is encoded by ggml's rules first; the other one replaces it only if its error, measured with the
//! format's own decoder, is smaller. So no block is ever worse, and any runtime reads the result.
//!
//! - `problem`: one block as a weighted rounding problem, scaled to near one.
//! - `levels`: rounding to evenly spaced levels and to a codebook; `points`: to grid points with signs.
//! - `joint`: the search, generic over all of them. `scheme`: what it has to know of each format, as data.
//! - `pack`, `pack_grid`: the choices as bytes.
//!
//! | formats | where it starts | what is searched |
//! |---|---|---|
//! | Q4_0, Q5_0, Q8_0, IQ4_NL | a fan of scales of both signs, the best four of them | scale, levels |
//! | Q4_1, Q5_1 | a fan of scales, the best four | scale and offset together, levels |
//! | Q2_K, Q4_K, Q5_K | a fan for each group | both factors, each group's two integers, levels |
//! | Q3_K, Q6_K, IQ4_XS | a fan of both signs for each group | factor, each group's integer, levels |
//! | IQ2, IQ3 | ggml's block | factor, each group's integer, points among all, the sign that parity costs |
//! | IQ1 | ggml's block | factor, points among all, shifts; each group's integer stays |
//!
//! ggml's Q8_0 ignores importance; this search does not.
//! Formats that are not listed in `scheme` (ternary, FP4, 1 and 2 bit) are encoded as by ggml.
//! Must not know ggml's searches: their result comes in through the codec.

mod joint;
mod levels;
mod pack;
mod pack_grid;
mod points;
mod problem;
mod scheme;

#[cfg(test)]
mod tests;

use crate::codec::{BlockCodec, KernelError, Operand, RowsError};
use crate::dispatch::codec;
use tensormill_tensor::BlockFormat;

/// How encoders look for scales and levels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Search {
    /// ggml's searches: the same bytes.
    #[default]
    Ggml,
    /// Least weighted squared error in the same formats; never worse than ggml's choice on any block.
    Best,
}

impl Search {
    /// Every search.
    pub const ALL: &'static [Self] = &[Self::Ggml, Self::Best];

    /// Its name: `ggml` or `best`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ggml => "ggml",
            Self::Best => "best",
        }
    }
}

impl std::fmt::Display for Search {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// The codec of a format under a search; `None` when the format is unsupported. Formats that have no other
/// search are encoded by ggml's.
pub fn codec_for(block: &BlockFormat, search: Search) -> Option<&'static dyn BlockCodec> {
    let better = match search {
        Search::Ggml => None,
        Search::Best => scheme::BEST.iter().find(|c| c.block == block),
    };
    better.map_or_else(|| codec(block), |c| Some(c as &dyn BlockCodec))
}

/// `(block of weights, its importance, ggml's bytes, zero bytes)`: writes the found block to the last, or returns
/// false when there is nothing to search.
type Find = fn(&[f32], Option<&[f32]>, &[u8], &mut [u8]) -> bool;

/// A format under [`Search::Best`].
struct Best {
    block: &'static BlockFormat,
    find: Find,
}

/// Longest block in weights and in bytes.
const MAX_WEIGHTS: usize = 256;
const MAX_BYTES: usize = 256;

impl Best {
    fn ggml(&self) -> Result<&'static dyn BlockCodec, KernelError> {
        codec(self.block).ok_or(KernelError::EncodeUnsupported { format: self.block.name })
    }

    /// Formats whose ggml encoder ignores importance do not check it either.
    fn check_importance(&self, row_len: usize, importance: Option<&[f32]>) -> Result<(), KernelError> {
        let Some(w) = importance else { return Ok(()) };
        if w.len() != row_len {
            let format = self.block.name;
            return Err(KernelError::ImportanceLength { format, len: w.len(), expected: row_len });
        }
        match w.iter().position(|v| !v.is_finite()) {
            Some(column) => Err(KernelError::NonFinite { operand: Operand::Importance, column }),
            None => Ok(()),
        }
    }

    /// Replaces the blocks of one row, which hold ggml's choice, where the search finds better ones.
    fn improve(
        &self,
        ggml: &dyn BlockCodec,
        x: &[f32],
        importance: Option<&[f32]>,
        out: &mut [u8],
    ) -> Result<(), KernelError> {
        let (n, size) = (self.block.weights as usize, self.block.bytes as usize);
        let mut found = [0u8; MAX_BYTES];
        let found = &mut found[..size];
        let mut decoded = [0f32; MAX_WEIGHTS];
        let decoded = &mut decoded[..n];
        for (i, (x, block)) in x.chunks_exact(n).zip(out.chunks_exact_mut(size)).enumerate() {
            let w = importance.map(|w| &w[i * n..][..n]);
            found.fill(0);
            if !(self.find)(x, w, block, found) {
                continue;
            }
            ggml.decode_row(block, decoded)?;
            let before = weighted_error(x, w, decoded);
            ggml.decode_row(found, decoded)?;
            let after = weighted_error(x, w, decoded);
            // Overflowing scales decode to infinities and NaN; anything finite is better.
            if after < before || before.is_nan() && after.is_finite() {
                block.copy_from_slice(found);
            }
        }
        Ok(())
    }
}

/// `sum importance * (x - y)^2`.
pub(crate) fn weighted_error(x: &[f32], importance: Option<&[f32]>, y: &[f32]) -> f64 {
    let errors = x.iter().zip(y).map(|(&x, &y)| (f64::from(x) - f64::from(y)).powi(2));
    match importance {
        None => errors.sum(),
        Some(w) => errors.zip(w).map(|(e, &w)| e * f64::from(w)).sum(),
    }
}

impl BlockCodec for Best {
    fn block(&self) -> &'static BlockFormat {
        self.block
    }

    fn encode_row(&self, x: &[f32], importance: Option<&[f32]>, out: &mut [u8]) -> Result<(), KernelError> {
        let ggml = self.ggml()?;
        self.check_importance(x.len(), importance)?;
        ggml.encode_row(x, importance, out)?;
        self.improve(ggml, x, importance, out)
    }

    fn encode_rows(
        &self,
        x: &[f32],
        row_len: usize,
        importance: Option<&[f32]>,
        out: &mut [u8],
    ) -> Result<(), RowsError> {
        let at = |row, error| RowsError { row, error };
        let ggml = self.ggml().map_err(|e| at(0, e))?;
        self.check_importance(row_len, importance).map_err(|e| at(0, e))?;
        ggml.encode_rows(x, row_len, importance, out)?;
        let rows = x.len().checked_div(row_len).unwrap_or(0);
        let row_bytes = out.len().checked_div(rows).unwrap_or(0);
        for row in 0..rows {
            let (x, out) = (&x[row * row_len..][..row_len], &mut out[row * row_bytes..][..row_bytes]);
            self.improve(ggml, x, importance, out).map_err(|e| at(row, e))?;
        }
        Ok(())
    }

    fn decode_row(&self, blocks: &[u8], out: &mut [f32]) -> Result<(), KernelError> {
        self.ggml()?.decode_row(blocks, out)
    }

    fn can_encode(&self) -> bool {
        true
    }

    fn needs_importance(&self) -> bool {
        self.ggml().is_ok_and(BlockCodec::needs_importance)
    }
}
