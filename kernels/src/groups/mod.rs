//! Grouped codes: every weight a code of at most eight bits, every group of columns a scale, perhaps an offset.
//!
//! This is what the worlds of safetensors and ONNX store, each with its own packing: compressed-tensors, GPTQ, AWQ,
//! bitsandbytes, MLX, `MatMulNBits`, FP8 and FP4. Here they have one plain form in memory, the [bundle](Grid): one byte per
//! code and every number as `f32`. Encoders make bundles of rows, packers (elsewhere) make files' bytes of bundles, and a
//! source that holds the same codes as its target is repacked without any arithmetic.
//!
//! Block formats, whose scales stand between the codes, are the other modules'. Must not know files, names or layouts.

mod code;
mod decode;
mod feedback;
mod float_codes;
mod float_lanes;
mod float_numbers;
mod floats;
mod hqq;
mod ints;
mod lanes;
pub mod nested;
mod quantizer;
mod reference;
mod rounding;
mod rules;
mod search;

use crate::{Level, selected_level};

pub use code::Code;
pub use feedback::{Damping, Factor, FactorError, ROWS as FEEDBACK_ROWS, Whole};
pub use float_numbers::global_scale;
pub use quantizer::{Fit, GroupRows, Quantizer, Rule, ScaleType};

/// What a group's second number is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Offset {
    /// There is none: `value = code * scale`.
    None,
    /// Codes are `bits` wide integers and zero is the middle one: `value = (code - 2^(bits-1)) * scale`.
    Middle,
    /// A zero point, in codes, whole or not: `value = (code - point) * scale`.
    Point,
    /// A value that is added: `value = code * scale + bias`.
    Bias,
}

/// What codes and numbers a matrix has: the shape of its bundles.
///
/// A bundle is one row of a matrix: `columns` codes, a byte each; then the scales of its groups, the offsets of its groups
/// where [`Offset::is_stored`], and the outer scale where there is one, all as little-endian `f32`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Grid {
    /// What a code stands for.
    pub code: Code,
    /// Columns of a group; the last may have fewer. Zero: the whole row is one group.
    pub group: u32,
    /// Rows that share their scales, which each of them then repeats. The last group of rows may have fewer. Zero: all.
    pub rows: u32,
    /// What goes with the scale.
    pub offset: Offset,
    /// Whether scales are themselves multiplied by one number for the whole matrix (NVFP4).
    pub outer: bool,
}

impl Offset {
    /// Whether bundles hold a number per group for it.
    pub fn is_stored(self) -> bool {
        matches!(self, Self::Point | Self::Bias)
    }
}

impl Grid {
    /// Groups of a row.
    pub fn groups(&self, columns: usize) -> usize {
        match self.group {
            0 => 1,
            g => columns.div_ceil(g as usize),
        }
    }

    /// Columns of a group.
    pub fn group_len(&self, columns: usize) -> usize {
        if self.group == 0 { columns } else { self.group as usize }
    }

    /// How many of so many rows share their scales.
    fn band(&self, rows: usize) -> usize {
        if self.rows == 0 { rows } else { self.rows as usize }
    }

    /// What is taken from a group's codes, and what is added to its values, by the group's second number.
    fn zero_and_bias(&self, offset: f32) -> (f32, Option<f32>) {
        match self.offset {
            Offset::None => (0.0, None),
            Offset::Middle => (self.code.middle(), None),
            Offset::Point => (offset, None),
            Offset::Bias => (0.0, Some(offset)),
        }
    }

    /// Bytes of the bundle of a row.
    pub fn bundle_bytes(&self, columns: usize) -> usize {
        let numbers = 1 + usize::from(self.offset.is_stored());
        columns + 4 * (self.groups(columns) * numbers + usize::from(self.outer))
    }

    /// The parts of a bundle.
    ///
    /// # Panics
    /// When it is not as long as [`Self::bundle_bytes`] says.
    pub fn parts<'a>(&self, bundle: &'a [u8], columns: usize) -> Parts<'a> {
        assert_eq!(bundle.len(), self.bundle_bytes(columns), "length of a bundle");
        let groups = 4 * self.groups(columns);
        let (codes, rest) = bundle.split_at(columns);
        let (scales, rest) = rest.split_at(groups);
        let (offsets, outer) = rest.split_at(if self.offset.is_stored() { groups } else { 0 });
        let [scales, offsets, outer] = [scales, offsets, outer].map(|b| b.as_chunks::<4>().0);
        Parts { codes, scales, offsets, outer: outer.first() }
    }

    /// The parts of a bundle that is to be filled.
    ///
    /// # Panics
    /// When it is not as long as [`Self::bundle_bytes`] says.
    pub fn parts_mut<'a>(&self, bundle: &'a mut [u8], columns: usize) -> PartsMut<'a> {
        assert_eq!(bundle.len(), self.bundle_bytes(columns), "length of a bundle");
        let groups = 4 * self.groups(columns);
        let (codes, rest) = bundle.split_at_mut(columns);
        let (scales, rest) = rest.split_at_mut(groups);
        let (offsets, outer) = rest.split_at_mut(if self.offset.is_stored() { groups } else { 0 });
        let [scales, offsets, outer] = [scales, offsets, outer].map(|b| b.as_chunks_mut::<4>().0);
        PartsMut { codes, scales, offsets, outer: outer.first_mut() }
    }

    /// Values of the row that a bundle holds. With `f32` arithmetic, one rounding per operation: the outer scale times the
    /// scale first, then `(code - zero) * scale` or `code * scale + bias`.
    ///
    /// # Panics
    /// When the bundle is not as long as [`Self::bundle_bytes`] says for as many columns.
    pub fn decode_row(&self, bundle: &[u8], out: &mut [f32]) {
        self.decode_row_at(selected_level(), bundle, out);
    }

    /// The same at a level, or at a lower one where this machine lacks it. The values are the same too.
    ///
    /// # Panics
    /// As [`Self::decode_row`].
    pub fn decode_row_at(&self, level: Level, bundle: &[u8], out: &mut [f32]) {
        decode::decode(self, level, bundle, out);
    }
}

/// The parts of a bundle; numbers are little-endian `f32`.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'a> {
    /// A byte per column.
    pub codes: &'a [u8],
    /// One per group.
    pub scales: &'a [[u8; 4]],
    /// One per group, or none.
    pub offsets: &'a [[u8; 4]],
    /// What scales are multiplied by.
    pub outer: Option<&'a [u8; 4]>,
}

/// The parts of a bundle, to be filled.
#[derive(Debug)]
pub struct PartsMut<'a> {
    /// A byte per column.
    pub codes: &'a mut [u8],
    /// One per group.
    pub scales: &'a mut [[u8; 4]],
    /// One per group, or none.
    pub offsets: &'a mut [[u8; 4]],
    /// What scales are multiplied by.
    pub outer: Option<&'a mut [u8; 4]>,
}
