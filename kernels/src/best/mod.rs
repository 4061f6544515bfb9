//! A stronger search in the same formats: `--search best`.
//!
//! ggml finds each group's scale and offset alone, then rounds them to what the block can store. Here they are
//! chosen *together*, at the values that will be decoded, so that levels, stored scales and the super-block's
//! binary16 factors fit one another. What is minimised is `sum importance * (x - decoded)^2` (importance one
//! where none is given), not ggml's objective, which adds the magnitude of each weight.
//!
//! Every block is encoded by ggml's rules first; the other one replaces it only if its error, measured with the
//! format's own decoder, is smaller (`compare`). So no block is ever worse, and any runtime reads the result.
//!
//! There is one description of each search, over lanes, and no other reference: every level gives the bytes of the
//! scalar level, which runs the same lanes as plain arrays. In the first two kinds of search a lane is a block, in the
//! third it is a point of the grid.
//!
//! - `problem`: blocks as weighted rounding problems, scaled to near one; `block`: one of a grid format.
//! - `levels`: rounding to evenly spaced levels and to a codebook, and the sums; `fan`: a group on its own.
//! - `joint`: the search of super-blocks. `single`: that of blocks of one group.
//! - `grid`: the search of grid formats; `points`: the nearest point.
//! - `pack`, `pack_grid`: the choices as bytes. `scheme`: what the searches have to know of each format, as data.
//!
//! | formats | where it starts | what is searched |
//! |---|---|---|
//! | Q4_0, Q5_0, IQ4_NL | a fan of scales of both signs, of every fourth the best | scale, levels |
//! | Q8_0 | a fan of scales, likewise | scale, levels |
//! | Q4_1, Q5_1 | a fan of scales, likewise | scale and offset together, levels |
//! | Q2_K, Q4_K, Q5_K | a fan for each group | both factors, each group's two integers, levels |
//! | Q3_K, Q6_K, IQ4_XS | a fan of both signs for each group | factor, each group's integer, levels |
//! | IQ2, IQ3 | ggml's block | factor, each group's integer, points among all, the sign that parity costs |
//! | IQ1 | ggml's block | factor, points among all, shifts; each group's integer stays |
//!
//! ggml's Q8_0 ignores importance; this search does not.
//! Formats that are not listed in `scheme` (ternary, FP4, 1 and 2 bit) are encoded as by ggml.
//! Must not know ggml's searches: their result comes in through the codec.

mod block;
mod compare;
mod fan;
mod grid;
mod joint;
mod levels;
mod pack;
mod pack_grid;
mod points;
mod problem;
mod scheme;
mod single;
mod tables;

#[cfg(test)]
mod tests;

use crate::codec::{BlockCodec, EncodeRows, KernelError, Operand, RowsError};
use crate::dispatch::{Level, codec_at, selected_level};
use crate::lanes::Rows;
use compare::Encodings;
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
    codec_for_at(block, search, selected_level())
}

/// The same at `level`; `None` also when this machine cannot run it.
pub fn codec_for_at(block: &BlockFormat, search: Search, level: Level) -> Option<&'static dyn BlockCodec> {
    let ggml = codec_at(block, level)?;
    let better = match search {
        Search::Ggml => None,
        Search::Best => tables::at(level).iter().find(|c| c.block == block),
    };
    Some(better.map_or(ggml, |c| c as &dyn BlockCodec))
}

/// A format under [`Search::Best`] at one level, which this machine has.
struct Best {
    block: &'static BlockFormat,
    level: Level,
    /// `(rows, blocks)`: replaces ggml's blocks by those that the search finds.
    find: EncodeRows,
    /// [`compare::keep_better`] at this level.
    keep: fn(&mut Encodings<'_>),
}

/// Weights that are decoded and compared together: their encodings, decoded, stay in the first two caches.
const CHUNK: usize = 16 << 10;

impl Best {
    fn ggml(&self) -> Result<&'static dyn BlockCodec, KernelError> {
        codec_at(self.block, self.level).ok_or(KernelError::EncodeUnsupported { format: self.block.name })
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

    /// Replaces the blocks of rows, which hold ggml's choice, where the search finds better ones.
    fn improve(&self, ggml: &dyn BlockCodec, rows: Rows<'_>, out: &mut [u8]) -> Result<(), KernelError> {
        let (weights, bytes) = (self.block.weights as usize, self.block.bytes as usize);
        let mut found = out.to_vec();
        (self.find)(rows, &mut found);
        let chunk = CHUNK.min(rows.x.len());
        let (mut old, mut new) = (vec![0f32; chunk], vec![0f32; chunk]);
        // Never across the end of a row, where importance starts again.
        let mut at = 0;
        while at < rows.x.len() {
            let column = at % rows.len;
            let n = chunk.min(rows.len - column);
            let (from, to) = (at / weights * bytes, (at + n) / weights * bytes);
            ggml.decode_row(&out[from..to], &mut old[..n])?;
            ggml.decode_row(&found[from..to], &mut new[..n])?;
            (self.keep)(&mut Encodings {
                x: &rows.x[at..][..n],
                importance: rows.importance.map(|w| &w[column..][..n]),
                weights,
                bytes,
                old: &old[..n],
                new: &new[..n],
                found: &found[from..to],
                out: &mut out[from..to],
            });
            at += n;
        }
        Ok(())
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
        if x.is_empty() {
            return Ok(());
        }
        self.improve(ggml, Rows { x, len: x.len(), importance }, out)
    }

    fn encode_rows(
        &self,
        x: &[f32],
        row_len: usize,
        importance: Option<&[f32]>,
        out: &mut [u8],
    ) -> Result<(), RowsError> {
        let at = |error| RowsError { row: 0, error };
        let ggml = self.ggml().map_err(at)?;
        self.check_importance(row_len, importance).map_err(at)?;
        ggml.encode_rows(x, row_len, importance, out)?;
        if x.is_empty() {
            return Ok(());
        }
        self.improve(ggml, Rows { x, len: row_len, importance }, out).map_err(at)
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
