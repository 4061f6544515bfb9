//! Error feedback: the error that a column's codes make is made up for by the columns after it (GPTQ; Frantar et al., 2022).
//!
//! The arithmetic is that of `GPTQModel`'s `gptq.py`: columns go in blocks of 128; a group's numbers are those of its weights as
//! they stand when the block begins in which the group does; of what a column leaves, `(w - value) / U[i][i]`, every later column
//! loses its part by row `i` of the [`Factor`]. Differences, all in favour of what is stored: the value of a code is that of the
//! bundle, with the scale as rounded for its type; weights are not rounded to that type first; columns that no input reaches
//! do not count in the damping.
//!
//! Where the factor's columns are in the order of their activity, groups stay those of the weights' columns, with the numbers of
//! the weights as they came (`static_groups` there): so that every layout can hold them, and none needs an index of groups.
//!
//! Rows do not know each other, but for those that share their scales. Lanes are rows, so the bits are the same at every level
//! and however rows are divided.

mod factor;

pub use factor::{Damping, Factor, FactorError};

use super::float_codes::Rounding;
use super::float_numbers::{self, Outer};
use super::rounding::Float;
use super::rules::{Coding, Style};
use super::{Code, GroupRows, Quantizer, reference};
use crate::dispatch::{Level, selected_level};
use crate::lanes::{Job, MAX_LANES, Scan, run_at};
use crate::{KernelError, RowsError};

/// Columns of a block.
const BLOCK: usize = 128;
/// Rows of a tile.
const LANES: usize = MAX_LANES;
/// Columns of what is left that are updated together.
const STRIP: usize = 4;

/// Rows that are well encoded together: a factor's rows are read once for all of them.
pub const ROWS: usize = 4 * LANES;

/// A column of a tile.
type Column = [f32; LANES];

/// Scales of a whole matrix, or what they are multiplied by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Whole {
    /// There is none, or it is [`GroupRows::outer`].
    Times,
    /// Scales are divided by it: see [`Quantizer::encode_rows_over`].
    Over(f32),
}

impl Quantizer {
    /// As [`Quantizer::encode_rows`], with error feedback; numbers of groups are those of [`super::Fit::Nearest`], and importance
    /// does not count.
    ///
    /// # Errors
    /// As [`Quantizer::encode_rows`]; a factor of another width than the rows is [`KernelError::ImportanceLength`].
    ///
    /// # Panics
    /// As [`Quantizer::encode_rows`].
    pub fn encode_rows_with_feedback(
        &self,
        rows: GroupRows<'_>,
        whole: Whole,
        factor: &Factor,
        out: &mut [u8],
    ) -> Result<(), RowsError> {
        self.encode_rows_with_feedback_at(selected_level(), rows, whole, factor, out)
    }

    /// The same at a level. The bytes are the same too.
    ///
    /// # Errors
    /// As [`Self::encode_rows_with_feedback`].
    ///
    /// # Panics
    /// As [`Self::encode_rows_with_feedback`].
    pub fn encode_rows_with_feedback_at(
        &self,
        level: Level,
        rows: GroupRows<'_>,
        whole: Whole,
        factor: &Factor,
        out: &mut [u8],
    ) -> Result<(), RowsError> {
        if factor.columns() != rows.len {
            let (len, expected) = (factor.columns(), rows.len);
            let error =
                KernelError::ImportanceLength { format: "a factor for error feedback", len, expected };
            return Err(RowsError { row: 0, error });
        }
        let rows = GroupRows { importance: None, ..rows };
        self.check(&rows, level, out)?;
        if !rows.x.is_empty() {
            run_at(level, Feedback { q: self, rows, whole, factor, out });
        }
        Ok(())
    }

    /// Scratch bytes for so many rows.
    pub fn feedback_scratch(columns: u64, rows: u64) -> u64 {
        let lanes = rows.next_multiple_of(LANES as u64);
        let groups = columns.saturating_mul(rows).saturating_mul(size_of::<Group>() as u64) / 16;
        let panel = columns.saturating_mul(4 * BLOCK as u64);
        columns.saturating_mul(lanes).saturating_mul(4).saturating_add(groups).saturating_add(panel)
            + lanes * 4 * BLOCK as u64
    }
}

/// How weights of a group become codes.
#[derive(Clone, Copy, Debug)]
enum How {
    Integers(Coding),
    /// Divided by this, then rounded.
    Over(f32),
    /// Multiplied with this.
    Times(f32),
}

/// How weights of a group become codes, and what these stand for.
#[derive(Clone, Copy, Debug)]
struct Group {
    how: How,
    zero: f32,
    scale: f32,
    bias: f32,
    /// As the bundle has them.
    stored: [f32; 2],
}

/// What is alike for all groups.
struct Coder {
    style: Style,
    /// Of codes that are floats.
    rounding: Option<Rounding>,
    values: [f32; 256],
    outer: Outer,
}

impl Coder {
    fn new(q: &Quantizer, outer: f32, whole: Whole) -> Self {
        let rounding = match q.grid.code {
            Code::Int(_) => None,
            code => Some(Rounding::new(code, q.rule)),
        };
        Self {
            style: Style { arithmetic: Float::F32, weights: Float::F32, ..q.style() },
            rounding,
            values: rounding.map_or(q.grid.code, Rounding::values).values(),
            outer: match whole {
                Whole::Over(divisor) => Outer::Over(divisor, Float::F32),
                Whole::Times if q.grid.outer => Outer::Times(outer),
                Whole::Times => Outer::None,
            },
        }
    }

    /// The number in front of all scales, as bundles have it.
    fn outer(&self) -> f32 {
        match self.outer {
            Outer::None => 1.0,
            Outer::Times(x) => x,
            Outer::Over(x, _) => 1.0 / x,
        }
    }

    /// The numbers of a group of weights in `low..=high`.
    fn group(&self, q: &Quantizer, (low, high): (f32, f32), short: bool) -> Group {
        if let Some(rounding) = self.rounding {
            let n = float_numbers::Numbers::new(q, rounding, self.outer, high.max(-low), short);
            let how = if n.divide { How::Over(n.step) } else { How::Times(n.step) };
            return Group { how, zero: 0.0, scale: n.unit, bias: 0.0, stored: [n.scale, 0.0] };
        }
        let n = q.numbers(low, high, self.outer());
        let (zero, bias) = q.grid.zero_and_bias(n.offset);
        let scale = if q.grid.outer { self.outer() * n.scale } else { n.scale };
        Group {
            how: How::Integers(n.coding),
            zero,
            scale,
            bias: bias.unwrap_or(0.0),
            stored: [n.scale, n.offset],
        }
    }

    #[inline(always)]
    fn float(&self, x: f32) -> u8 {
        // Zero over a scale of zero is no number.
        self.rounding.map_or(0, |rounding| rounding.code(if x.is_nan() { 0.0 } else { x }))
    }

    /// The code of a weight, and its value.
    #[inline(always)]
    fn code(&self, group: &Group, x: f32) -> (u8, f32) {
        let code = match group.how {
            How::Integers(coding) => {
                let mut code = [0];
                reference::codes(self.style, &coding, &[x], &mut code);
                code[0]
            }
            How::Over(step) => self.float(x / step),
            How::Times(step) => self.float(x * step),
        };
        (code, (self.values[usize::from(code)] - group.zero) * group.scale + group.bias)
    }
}

struct Feedback<'a> {
    q: &'a Quantizer,
    rows: GroupRows<'a>,
    whole: Whole,
    factor: &'a Factor,
    out: &'a mut [u8],
}

impl Job for Feedback<'_> {
    type Out = ();
    #[inline(always)]
    fn run<V: Scan>(self, _: V) {
        let Self { q, rows, whole, factor, out } = self;
        let coder = Coder::new(q, rows.outer, whole);
        let mut state = State::new(q, &rows, factor);
        if !factor.in_order() {
            state.find(q, &coder, 0..state.groups);
        }
        let (n, len) = (rows.len, q.grid.group_len(rows.len).max(1));
        let mut strips = Vec::new();
        for start in (0..n).step_by(BLOCK) {
            let end = n.min(start + BLOCK);
            if factor.in_order() {
                state.find(q, &coder, start.div_ceil(len)..end.div_ceil(len));
            }
            state.encode(q, &coder, factor, start..end, out);
            state.pass_on(factor, start..end, &mut strips);
        }
        state.write_numbers(q, &coder, out);
    }
}

/// Rows on their way.
struct State {
    columns: usize,
    rows: usize,
    groups: usize,
    /// Columns of a group.
    len: usize,
    /// Rows that share their scales.
    band: usize,
    /// Tile by tile, by place.
    w: Vec<Column>,
    /// What the columns of a block leave, tile by tile.
    left: Vec<Column>,
    /// By band, then group.
    numbers: Vec<Option<Group>>,
    /// The place of each column.
    places: Vec<u32>,
}

impl State {
    fn new(q: &Quantizer, rows: &GroupRows<'_>, factor: &Factor) -> Self {
        let (columns, n) = (rows.len, rows.x.len() / rows.len);
        let tiles = n.div_ceil(LANES);
        let band = q.grid.band(n);
        let mut w = vec![[0f32; LANES]; tiles * columns];
        for (r, x) in rows.x.chunks_exact(columns).enumerate() {
            let tile = &mut w[r / LANES * columns..][..columns];
            for (place, to) in tile.iter_mut().enumerate() {
                if !factor.is_dead(place) {
                    to[r % LANES] = x[factor.column(place)];
                }
            }
        }
        let mut places = vec![0; columns];
        for place in 0..columns {
            places[factor.column(place)] = place as u32;
        }
        let groups = q.grid.groups(columns);
        Self {
            columns,
            rows: n,
            groups,
            len: q.grid.group_len(columns).max(1),
            band,
            w,
            left: vec![[0.0; LANES]; tiles * BLOCK],
            numbers: vec![None; n.div_ceil(band) * groups],
            places,
        }
    }

    /// Finds the numbers of groups from the weights as they stand.
    #[inline(always)]
    fn find(&mut self, q: &Quantizer, coder: &Coder, groups: std::ops::Range<usize>) {
        for group in groups {
            let (start, end) = (group * self.len, ((group + 1) * self.len).min(self.columns));
            let mut range = (f32::INFINITY, f32::NEG_INFINITY);
            for (t, tile) in self.w.chunks_exact(self.columns).enumerate() {
                let (mut low, mut high) = ([f32::INFINITY; LANES], [f32::NEG_INFINITY; LANES]);
                for place in &self.places[start..end] {
                    let w = &tile[*place as usize];
                    for l in 0..LANES {
                        low[l] = if w[l] < low[l] { w[l] } else { low[l] };
                        high[l] = if w[l] > high[l] { w[l] } else { high[l] };
                    }
                }
                for l in 0..LANES.min(self.rows - t * LANES) {
                    let row = t * LANES + l;
                    range = (range.0.min(low[l]), range.1.max(high[l]));
                    if (row + 1).is_multiple_of(self.band) || row + 1 == self.rows {
                        let range = std::mem::replace(&mut range, (f32::INFINITY, f32::NEG_INFINITY));
                        let found = coder.group(q, range, end - start < self.len);
                        self.numbers[row / self.band * self.groups + group] = Some(found);
                    }
                }
            }
        }
    }

    /// Makes the codes of a block, and what they leave.
    #[inline(always)]
    fn encode(
        &mut self,
        q: &Quantizer,
        coder: &Coder,
        factor: &Factor,
        block: std::ops::Range<usize>,
        out: &mut [u8],
    ) {
        let bundle = q.grid.bundle_bytes(self.columns);
        for (t, tile) in self.w.chunks_exact_mut(self.columns).enumerate() {
            let here = LANES.min(self.rows - t * LANES);
            let left = &mut self.left[t * BLOCK..][..BLOCK];
            for place in block.clone() {
                let (column, u) = (factor.column(place), factor.row(place));
                let group = column / self.len;
                let w = tile[place];
                let mut error = [0f32; LANES];
                for l in 0..here {
                    let row = t * LANES + l;
                    if let Some(numbers) = &self.numbers[row / self.band * self.groups + group] {
                        let (code, value) = coder.code(numbers, w[l]);
                        out[row * bundle + column] = code;
                        error[l] = (w[l] - value) / u[0];
                    }
                }
                for (w, u) in tile[place + 1..block.end].iter_mut().zip(&u[1..]) {
                    for l in 0..LANES {
                        w[l] -= error[l] * u;
                    }
                }
                left[place - block.start] = error;
            }
        }
    }

    /// Lets the columns after a block make up for what it left.
    #[inline(always)]
    fn pass_on(&mut self, factor: &Factor, block: std::ops::Range<usize>, strips: &mut Vec<[f32; STRIP]>) {
        let (depth, rest) = (block.len(), self.columns - block.end);
        if rest == 0 {
            return;
        }
        strips.clear();
        strips.resize(rest.div_ceil(STRIP) * depth, [0.0; STRIP]);
        for (k, place) in block.clone().enumerate() {
            for (s, u) in factor.row(place)[block.end - place..].chunks(STRIP).enumerate() {
                strips[s * depth + k][..u.len()].copy_from_slice(u);
            }
        }
        for (s, strip) in strips.chunks_exact(depth).enumerate() {
            let at = block.end + s * STRIP;
            for (tile, left) in self.w.chunks_exact_mut(self.columns).zip(self.left.chunks_exact(BLOCK)) {
                let sums = products(strip, &left[..depth]);
                for (w, sum) in tile[at..].iter_mut().zip(&sums) {
                    for l in 0..LANES {
                        w[l] -= sum[l];
                    }
                }
            }
        }
    }

    /// Writes the numbers of all groups to the bundles.
    fn write_numbers(&self, q: &Quantizer, coder: &Coder, out: &mut [u8]) {
        for (row, bundle) in out.chunks_exact_mut(q.grid.bundle_bytes(self.columns)).enumerate() {
            let parts = q.grid.parts_mut(bundle, self.columns);
            let numbers = &self.numbers[row / self.band * self.groups..][..self.groups];
            for (i, group) in numbers.iter().enumerate() {
                let [scale, offset] = group.map_or([0.0; 2], |g| g.stored);
                parts.scales[i] = scale.to_le_bytes();
                if let Some(to) = parts.offsets.get_mut(i) {
                    *to = offset.to_le_bytes();
                }
            }
            if let Some(outer) = parts.outer {
                *outer = coder.outer().to_le_bytes();
            }
        }
    }
}

/// For each column of a strip, the sum of what the block's columns left times their part.
#[inline(always)]
fn products(strip: &[[f32; STRIP]], left: &[Column]) -> [Column; STRIP] {
    let mut sums = [[0f32; LANES]; STRIP];
    for (u, left) in strip.iter().zip(left) {
        for s in 0..STRIP {
            for l in 0..LANES {
                sums[s][l] += left[l] * u[s];
            }
        }
    }
    sums
}
