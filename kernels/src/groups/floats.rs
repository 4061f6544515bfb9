//! Codes that are floats: FP8, FP4 and the code books of bitsandbytes.
//!
//! A group's numbers follow from its largest magnitude; with [`Fit::Mse`], or where importance is given, from the one of some
//! shrunken magnitudes that leaves the smallest squared error. There is no zero point that [`Fit::Hqq`] could find: it does
//! what [`Fit::Mse`] does.

use super::float_codes::Rounding;
use super::float_lanes;
use super::float_numbers::{Numbers, Outer};
use super::rounding::Float;
use super::{Code, Fit, Grid, GroupRows, Parts, Quantizer, Rule, ScaleType};
use crate::dispatch::{Level, selected_level};
use crate::{RowsError, codec};

/// Sums of squared errors, kept apart so that levels of any width add in one order.
pub(super) const SUMS: usize = 16;

/// Magnitudes that are tried go down to this part of the largest, in as many steps.
const LEAST: f32 = 0.5;
const TRIED: u16 = 40;

/// Rows to encode, and how.
#[derive(Clone, Copy)]
pub(crate) struct Job<'a> {
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
pub(super) fn encode(q: &Quantizer, rows: GroupRows<'_>, out: &mut [u8]) {
    let outer = if q.grid.outer { Outer::Times(rows.outer) } else { Outer::None };
    encode_at(selected_level(), q, rows, outer, out);
}

fn encode_at(level: Level, q: &Quantizer, rows: GroupRows<'_>, outer: Outer, out: &mut [u8]) {
    let alone = matches!(q.rule, Rule::BitsAndBytes | Rule::DeepSeek);
    assert!(outer == Outer::None || q.grid.is_whole() || !alone, "{:?} has no scale over scales", q.rule);
    let rounding = Rounding::new(q.grid.code, q.rule);
    let searches = q.fit != Fit::Nearest || rows.importance.is_some();
    // The scale of a whole matrix is found before.
    let searches = searches && !(q.grid.is_whole() && outer != Outer::None);
    let job = Job { q, rows, rounding, outer, searches };
    match level {
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => float_lanes::avx2::encode(&job, out),
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => float_lanes::avx512::encode(&job, out),
        #[cfg(target_arch = "aarch64")]
        Level::Neon => float_lanes::neon::encode(&job, out),
        _ => {
            let values = rounding.values().values();
            encode_with(Reference { rounding, quotients: job.quotients(), values: &values }, &job, out);
        }
    }
}

/// Decodes a row whose codes are floats over lanes; `false` where it is not one of those, or the level is the reference.
pub(super) fn decode_at(level: Level, grid: &Grid, parts: &Parts<'_>, out: &mut [f32]) -> bool {
    if matches!(grid.code, Code::Int(_)) || grid.offset.is_stored() {
        return false;
    }
    match level {
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => float_lanes::avx2::decode(grid, parts, out),
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => float_lanes::avx512::decode(grid, parts, out),
        #[cfg(target_arch = "aarch64")]
        Level::Neon => float_lanes::neon::decode(grid, parts, out),
        _ => return false,
    }
    true
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
        if !codec::all_finite(rows.x) {
            // Which says where.
            return self.encode_rows(rows, out);
        }
        let bundles = out.chunks_exact(self.grid.bundle_bytes(rows.len));
        assert_eq!((rows.x.len() / rows.len.max(1), 0), (bundles.len(), bundles.remainder().len()));
        encode_at(selected_level(), self, rows, Outer::Over(divisor, Float::of(weights)), out);
        Ok(())
    }
}

impl Job<'_> {
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
pub(super) fn encode_with<C: Coder>(c: C, job: &Job<'_>, out: &mut [u8]) {
    let (len, grid) = (job.rows.len, &job.q.grid);
    if len == 0 || out.is_empty() {
        return;
    }
    let bundle = grid.bundle_bytes(len);
    let band = if grid.rows == 0 { out.len() / bundle } else { grid.rows as usize };
    for (x, out) in job.rows.x.chunks(band * len).zip(out.chunks_mut(band * bundle)) {
        if grid.outer {
            for out in out.chunks_exact_mut(bundle) {
                let at = bundle - 4;
                out[at..].copy_from_slice(&job.rows.outer.to_le_bytes());
            }
        }
        if band == 1 && grid.group == 16 && !job.searches {
            encode_sixteens(c, job, x, out);
        } else {
            encode_band(c, job, x, out);
        }
    }
}

/// A row in groups of sixteen, two at a time.
#[inline(always)]
fn encode_sixteens<C: Coder>(c: C, job: &Job<'_>, x: &[f32], out: &mut [u8]) {
    let (codes, numbers) = out.split_at_mut(x.len());
    let scales = numbers.as_chunks_mut::<4>().0.chunks_mut(2);
    for ((x, codes), scales) in x.chunks(32).zip(codes.chunks_mut(32)).zip(scales) {
        let (first, second) = x.split_at(x.len().min(16));
        let a = job.numbers(c.amax(first), first.len() < 16);
        scales[0] = a.scale.to_le_bytes();
        let b = if second.is_empty() { a } else { job.numbers(c.amax(second), second.len() < 16) };
        if let (Some(scale), false) = (scales.get_mut(1), second.is_empty()) {
            *scale = b.scale.to_le_bytes();
        }
        if a.divide == b.divide {
            c.codes(x, [a.step, b.step], a.divide, codes);
        } else {
            let (one, other) = codes.split_at_mut(first.len());
            c.codes(first, [a.step; 2], a.divide, one);
            c.codes(second, [b.step; 2], b.divide, other);
        }
    }
}

/// Rows that share their scales.
#[inline(always)]
fn encode_band<C: Coder>(c: C, job: &Job<'_>, x: &[f32], out: &mut [u8]) {
    let (len, grid) = (job.rows.len, &job.q.grid);
    let (width, bundle) = (grid.group_len(len), grid.bundle_bytes(len));
    let mut at = 0;
    let mut group = 0;
    while at < len {
        let end = len.min(at + width);
        let mut amax = 0f32;
        for x in x.chunks_exact(len) {
            amax = amax.max(c.amax(&x[at..end]));
        }
        let mut numbers = job.numbers(amax, end - at < width);
        if job.searches {
            numbers = search(c, job, x, (at, end), amax, numbers);
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
#[allow(clippy::manual_map)] // There are no closures in generic code: see `lanes`.
fn search<C: Coder>(
    c: C,
    job: &Job<'_>,
    x: &[f32],
    (at, end): (usize, usize),
    amax: f32,
    first: Numbers,
) -> Numbers {
    let len = job.rows.len;
    let short = end - at < job.q.grid.group_len(len);
    let (mut best, mut least, mut last) = (first, f64::INFINITY, first);
    for step in 0..=TRIED {
        let part = 1.0 - (1.0 - LEAST) * (f32::from(step) / f32::from(TRIED));
        let numbers = job.numbers(amax * part, short);
        if step > 0 && numbers.scale == last.scale {
            continue;
        }
        last = numbers;
        let mut sums = [0.0; SUMS];
        for x in x.chunks_exact(len) {
            let importance = job.rows.importance.map(|w| &w[at..end]);
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
