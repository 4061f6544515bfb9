//! Codes that are floats: FP8, FP4 and the code books of bitsandbytes.
//!
//! A group's numbers follow from its largest magnitude; with [`Fit::Mse`], or where importance is given, from the one of some
//! shrunken magnitudes that leaves the smallest squared error. There is no zero point that [`Fit::Hqq`] could find: it does
//! what [`Fit::Mse`] does.

use super::float_codes::Rounding;
use super::float_lanes::Encode;
use super::float_numbers::{Numbers, Outer};
use super::rounding::Float;
use super::{Code, Fit, Grid, GroupRows, Quantizer, Rule, ScaleType};
use crate::RowsError;
use crate::dispatch::{Level, selected_level};
use crate::lanes::try_at;

/// Sums of squared errors, kept apart so that levels of any width add in one order.
pub(super) const SUMS: usize = 16;

/// Magnitudes that are tried go down to this part of the largest, in as many steps.
const LEAST: f32 = 0.5;
const TRIED: u16 = 40;

/// Rows to encode, and how.
#[derive(Clone, Copy)]
pub(super) struct Task<'a> {
    q: &'a Quantizer,
    rows: GroupRows<'a>,
    rounding: Rounding,
    outer: Outer,
    searches: bool,
}

/// What a level does with stretches of a row.
pub(super) trait Coder: Copy {
    /// The largest magnitude.
    fn amax(self, x: &[f32]) -> f32;
    /// Codes of quotients. Sixteens of weights use both steps by turns.
    fn codes(self, x: &[f32], steps: [f32; 2], divide: bool, out: &mut [u8]);
    /// Adds squared errors, those of weight i to sum i modulo [`SUMS`].
    fn errors(self, x: &[f32], importance: Option<&[f32]>, numbers: &Numbers, sums: &mut [f32; SUMS]);
}

/// The scalar reference.
#[derive(Clone, Copy)]
struct Reference<'a> {
    rounding: Rounding,
    quotients: Float,
    values: &'a [f32; 256],
}

impl Coder for Reference<'_> {
    fn amax(self, x: &[f32]) -> f32 {
        x.iter().fold(0.0, |a, v| a.max(v.abs()))
    }

    fn codes(self, x: &[f32], steps: [f32; 2], divide: bool, out: &mut [u8]) {
        for (i, (x, o)) in x.iter().zip(out).enumerate() {
            let step = steps[i / 16 % 2];
            *o = self.rounding.code(self.quotients.round(if divide { x / step } else { x * step }));
        }
    }

    fn errors(self, x: &[f32], importance: Option<&[f32]>, numbers: &Numbers, sums: &mut [f32; SUMS]) {
        for (i, x) in x.iter().enumerate() {
            let quotient = if numbers.divide { x / numbers.step } else { x * numbers.step };
            let code = self.rounding.code(self.quotients.round(quotient));
            let value = self.values[usize::from(code)] * numbers.unit;
            let error = (value - x) * (value - x);
            sums[i % SUMS] += importance.map_or(error, |w| w[i] * error);
        }
    }
}

/// Fills the bundles of finite rows.
pub(super) fn encode(q: &Quantizer, rows: GroupRows<'_>, level: Level, out: &mut [u8]) {
    let outer = if q.grid.outer { Outer::Times(rows.outer) } else { Outer::None };
    encode_at(level, q, rows, outer, out);
}

fn encode_at(level: Level, q: &Quantizer, rows: GroupRows<'_>, outer: Outer, out: &mut [u8]) {
    let alone = matches!(q.rule, Rule::BitsAndBytes | Rule::DeepSeek);
    assert!(outer == Outer::None || q.grid.is_whole() || !alone, "{:?} has no scale over scales", q.rule);
    let rounding = Rounding::new(q.grid.code, q.rule);
    let searches = q.fit != Fit::Nearest || rows.importance.is_some();
    // The scale of a whole matrix is found before.
    let searches = searches && !(q.grid.is_whole() && outer != Outer::None);
    let task = Task { q, rows, rounding, outer, searches };
    if let Err(Encode { task, out }) = try_at(level, Encode { task: &task, out }) {
        let values = rounding.values().values();
        encode_with(Reference { rounding, quotients: task.quotients(), values: &values }, task, out);
    }
}

impl Grid {
    /// Whether one scale serves the whole matrix.
    pub(super) fn is_whole(&self) -> bool {
        self.group == 0 && self.rows == 0
    }
}

impl Quantizer {
    /// The scale of a matrix with one scale for all of it, by its largest magnitude: the outer scale with which tiles of it
    /// are encoded when the grid has one group and an outer scale. Such bundles' own scales are 1.
    pub fn matrix_scale(&self, amax: f32) -> f32 {
        if let Code::Int(_) = self.grid.code {
            return self.integer_matrix_scale(amax);
        }
        Numbers::new(self, Rounding::new(self.grid.code, self.rule), Outer::None, amax, false).scale
    }

    /// As [`Self::encode_rows`], for libraries that store what scales are *divided* by: compressed-tensors' global scale.
    /// Codes and scales are the library's to the bit, which they cannot be by the inverse; that one, rounded, is the bundles'
    /// outer scale.
    ///
    /// # Errors
    /// As [`Self::encode_rows`].
    ///
    /// # Panics
    /// As [`Self::encode_rows`], and when the grid has no outer scale or its codes are integers.
    pub fn encode_rows_over(
        &self,
        rows: GroupRows<'_>,
        divisor: f32,
        out: &mut [u8],
    ) -> Result<(), RowsError> {
        self.encode_rows_over_of(ScaleType::F32, rows, divisor, out)
    }

    /// The same for weights that are of a type: the library makes scales in it before it divides.
    ///
    /// # Errors
    /// As [`Self::encode_rows_over`].
    ///
    /// # Panics
    /// As [`Self::encode_rows_over`].
    pub fn encode_rows_over_of(
        &self,
        weights: ScaleType,
        rows: GroupRows<'_>,
        divisor: f32,
        out: &mut [u8],
    ) -> Result<(), RowsError> {
        assert!(self.grid.outer && !matches!(self.grid.code, Code::Int(_)), "a divisor of scales");
        let rows = GroupRows { outer: 1.0 / divisor, ..rows };
        self.check(&rows, selected_level(), out)?;
        encode_at(selected_level(), self, rows, Outer::Over(divisor, Float::of(weights)), out);
        Ok(())
    }
}

impl Task<'_> {
    pub(super) fn rounding(&self) -> Rounding {
        self.rounding
    }

    /// The type of quotients: compressed-tensors divides weights by scales of their own type in it.
    pub(super) fn quotients(&self) -> Float {
        let eight_bits = matches!(self.rounding, Rounding::E4M3 | Rounding::E5M2);
        if eight_bits && self.q.rule == Rule::CompressedTensors {
            Float::of(self.q.scale)
        } else {
            Float::F32
        }
    }

    #[inline(always)]
    fn numbers(&self, amax: f32, short: bool) -> Numbers {
        Numbers::new(self.q, self.rounding, self.outer, amax, short)
    }
}

#[inline(always)]
pub(super) fn encode_with<C: Coder>(c: C, task: &Task<'_>, out: &mut [u8]) {
    let (len, grid) = (task.rows.len, &task.q.grid);
    if len == 0 || out.is_empty() {
        return;
    }
    let bundle = grid.bundle_bytes(len);
    let band = grid.band(out.len() / bundle);
    for (x, out) in task.rows.x.chunks(band * len).zip(out.chunks_mut(band * bundle)) {
        if grid.outer {
            for out in out.chunks_exact_mut(bundle) {
                let at = bundle - 4;
                out[at..].copy_from_slice(&task.rows.outer.to_le_bytes());
            }
        }
        if band == 1 && grid.group == 16 && !task.searches {
            encode_sixteens(c, task, x, out);
        } else {
            encode_band(c, task, x, out);
        }
    }
}

/// A row in groups of sixteen, two at a time.
#[inline(always)]
fn encode_sixteens<C: Coder>(c: C, task: &Task<'_>, x: &[f32], out: &mut [u8]) {
    let (codes, numbers) = out.split_at_mut(x.len());
    let scales = numbers.as_chunks_mut::<4>().0.chunks_mut(2);
    for ((x, codes), scales) in x.chunks(32).zip(codes.chunks_mut(32)).zip(scales) {
        let (first, second) = x.split_at(x.len().min(16));
        let a = task.numbers(c.amax(first), first.len() < 16);
        scales[0] = a.scale.to_le_bytes();
        let b = if second.is_empty() { a } else { task.numbers(c.amax(second), second.len() < 16) };
        if let (Some(scale), false) = (scales.get_mut(1), second.is_empty()) {
            *scale = b.scale.to_le_bytes();
        }
        // At once, but where only one of both divides. In a loop, since all that `codes` does is inlined here.
        let mut end = if a.divide == b.divide { x.len() } else { first.len() };
        let (mut start, mut pair) = (0, [a, b]);
        while start < x.len() {
            let steps = [pair[0].step, pair[1].step];
            c.codes(&x[start..end], steps, pair[0].divide, &mut codes[start..end]);
            (start, end, pair) = (end, x.len(), [b; 2]);
        }
    }
}

/// Rows that share their scales.
#[inline(always)]
fn encode_band<C: Coder>(c: C, task: &Task<'_>, x: &[f32], out: &mut [u8]) {
    let (len, grid) = (task.rows.len, &task.q.grid);
    let (width, bundle) = (grid.group_len(len), grid.bundle_bytes(len));
    let mut at = 0;
    let mut group = 0;
    while at < len {
        let end = len.min(at + width);
        let mut amax = 0f32;
        for x in x.chunks_exact(len) {
            amax = amax.max(c.amax(&x[at..end]));
        }
        let mut numbers = task.numbers(amax, end - at < width);
        if task.searches {
            numbers = search(c, task, x, (at, end), amax, numbers);
        }
        for (x, out) in x.chunks_exact(len).zip(out.chunks_exact_mut(bundle)) {
            c.codes(&x[at..end], [numbers.step; 2], numbers.divide, &mut out[at..end]);
            out[len + 4 * group..][..4].copy_from_slice(&numbers.scale.to_le_bytes());
        }
        (at, group) = (end, group + 1);
    }
}

/// The numbers with the smallest error among those of shrunken magnitudes; the largest magnitude of equals.
#[inline(always)]
fn search<C: Coder>(
    c: C,
    task: &Task<'_>,
    x: &[f32],
    (at, end): (usize, usize),
    amax: f32,
    first: Numbers,
) -> Numbers {
    let len = task.rows.len;
    let short = end - at < task.q.grid.group_len(len);
    let (mut best, mut least, mut last) = (first, f64::INFINITY, first);
    for step in 0..=TRIED {
        let part = 1.0 - (1.0 - LEAST) * (f32::from(step) / f32::from(TRIED));
        let numbers = task.numbers(amax * part, short);
        if step > 0 && numbers.scale == last.scale {
            continue;
        }
        last = numbers;
        let mut sums = [0.0; SUMS];
        for x in x.chunks_exact(len) {
            let importance = task.rows.importance.map(|w| &w[at..end]);
            c.errors(&x[at..end], importance, &numbers, &mut sums);
        }
        let mut error = 0.0;
        for sum in sums {
            error += f64::from(sum);
        }
        if error < least {
            (best, least) = (numbers, error);
        }
    }
    best
}

#[cfg(test)]
#[path = "float_tests.rs"]
mod tests;
