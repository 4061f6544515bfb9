//! Expressions prepared for execution: forms, row sizes and offsets computed once, sources checked.
//!
//! A [`Node`] answers what the planner asks before any byte is read: how much scratch a range of rows needs,
//! at which heights tiles waste no reads, how many bytes a range reads. Must not know groups or threads.

use crate::{reduce::Reduced, transpose::Transpose};
use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};
use tensormill_model::{Error, Expr, Form, Locality, Op, Place, Reader, Result, RowMap, Rows};

/// One prepared expression. `rows * row_bytes` fits in 64 bits.
pub(crate) struct Node {
    pub form: Form,
    pub rows: u64,
    pub row_bytes: u64,
    pub kind: Kind,
}

pub(crate) enum Kind {
    Read {
        source: usize,
        tensor: usize,
    },
    Const(Arc<[u8]>),
    Slice {
        input: Box<Node>,
        start: u64,
    },
    Swap {
        input: Box<Node>,
        a: u64,
        b: u64,
    },
    /// `starts[i]` is the first output row of input `i`.
    Concat {
        inputs: Vec<Node>,
        starts: Vec<u64>,
    },
    Reshape(Box<Node>),
    Transpose(Transpose),
    Apply {
        op: Arc<dyn Op>,
        forms: Vec<Form>,
        inputs: Vec<Node>,
    },
    /// An op with a reduction; its value is found once.
    Reduce {
        op: Arc<dyn Op>,
        forms: Vec<Form>,
        inputs: Vec<Node>,
        found: Arc<Reduced>,
        /// Whether the numbers are counted as another expression's.
        again: bool,
    },
}

/// Memory that evaluating some rows takes beyond the output.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct Need {
    /// Bytes of scratch handed down.
    pub arena: u64,
    /// Bytes that ops allocate themselves.
    pub outside: u64,
}

impl Need {
    pub(crate) fn max(self, other: Self) -> Self {
        Self { arena: self.arena.max(other.arena), outside: self.outside.max(other.outside) }
    }
    fn plus(self, arena: u64) -> Self {
        Self { arena: self.arena.saturating_add(arena), ..self }
    }
}

/// Reductions by their text: expressions that ask for the same numbers share them, whatever groups they are in.
pub(crate) type Reductions = HashMap<String, Arc<Reduced>>;

impl Node {
    /// Prepares an expression.
    ///
    /// # Errors
    /// When its parts do not fit together or ask for what the sources do not have.
    pub(crate) fn new(expr: &Expr, sources: &[Arc<dyn Reader>], reductions: &mut Reductions) -> Result<Self> {
        let form = expr.form()?;
        let (rows, row_bytes) = (form.shape.rows(), form.row_bytes()?);
        if rows.checked_mul(row_bytes).is_none() {
            return Err(Error::malformed(format!(
                "{} {} is too large to address",
                form.encoding, form.shape
            )));
        }
        let mut sub = |e: &Expr| Self::new(e, sources, reductions).map(Box::new);
        let kind = match expr {
            Expr::Read { source, tensor, form } => {
                let spec = sources.get(*source).and_then(|r| r.index().tensors.get(*tensor));
                let Some(spec) = spec else {
                    return Err(Error::mismatch(format!("source {source} has no tensor number {tensor}")));
                };
                if spec.shape != form.shape || spec.encoding != form.encoding {
                    return Err(Error::mismatch(format!(
                        "planned to read {} {} but the source holds {} {}",
                        form.encoding, form.shape, spec.encoding, spec.shape
                    )));
                }
                Kind::Read { source: *source, tensor: *tensor }
            }
            Expr::Const { bytes, .. } => {
                if bytes.len() as u64 != rows * row_bytes {
                    return Err(Error::mismatch(format!(
                        "{} constant bytes for {} {}",
                        bytes.len(),
                        form.encoding,
                        form.shape
                    )));
                }
                Kind::Const(Arc::clone(bytes))
            }
            Expr::Rows { input, map: RowMap::Slice { start, .. } } => {
                Kind::Slice { input: sub(input)?, start: *start }
            }
            Expr::Rows { input, map: RowMap::SwapInner { a, b } } => {
                Kind::Swap { input: sub(input)?, a: *a, b: *b }
            }
            Expr::Concat { inputs, .. } => {
                let inputs = all(inputs, sources, reductions)?;
                let starts = inputs
                    .iter()
                    .scan(0, |at, n| {
                        let start = *at;
                        *at += n.rows;
                        Some(start)
                    })
                    .collect();
                Kind::Concat { inputs, starts }
            }
            Expr::Reshape { input, .. } => Kind::Reshape(sub(input)?),
            Expr::Transpose { input } => Kind::Transpose(Transpose::new(*sub(input)?)),
            Expr::Apply { op, inputs } => {
                let inputs = all(inputs, sources, reductions)?;
                let forms: Vec<Form> = inputs.iter().map(|i| i.form.clone()).collect();
                if op.reduction().is_some() {
                    let (found, again) = match reductions.entry(expr.to_string()) {
                        Entry::Occupied(e) => (Arc::clone(e.get()), true),
                        Entry::Vacant(e) => {
                            let found = Reduced::new(&inputs).ok_or_else(|| {
                                Error::mismatch(format!("{} reduces unlike inputs", op.describe()))
                            })?;
                            (Arc::clone(e.insert(Arc::new(found))), false)
                        }
                    };
                    let kind = Kind::Reduce { op: Arc::clone(op), forms, inputs, found, again };
                    return Ok(Self { form, rows, row_bytes, kind });
                }
                let makes = |(i, input): &(usize, &Self)| match op.locality(*i).ratio() {
                    Some(0) => false,
                    Some(n) => input.rows.div_ceil(n) == rows,
                    None => true,
                };
                if let Some((_, i)) = inputs.iter().enumerate().find(|i| !makes(i)) {
                    return Err(Error::mismatch(format!(
                        "{} makes {rows} rows from {}",
                        op.describe(),
                        i.rows
                    )));
                }
                Kind::Apply { op: Arc::clone(op), forms, inputs }
            }
        };
        Ok(Self { form, rows, row_bytes, kind })
    }

    /// Whether bytes are only moved, never computed.
    pub(crate) fn only_moves(&self) -> bool {
        match &self.kind {
            Kind::Read { .. } | Kind::Const(_) => true,
            Kind::Slice { input, .. } | Kind::Swap { input, .. } | Kind::Reshape(input) => input.only_moves(),
            Kind::Transpose(t) => t.input.only_moves(),
            Kind::Concat { inputs, .. } => inputs.iter().all(Self::only_moves),
            Kind::Apply { .. } | Kind::Reduce { .. } => false,
        }
    }

    /// Whether rows are read as they stand.
    pub(crate) fn reads_in_place(&self) -> bool {
        match &self.kind {
            Kind::Read { .. } => true,
            Kind::Slice { input, .. } => input.reads_in_place(),
            _ => false,
        }
    }

    /// Offset in its source file of row `row`, where rows are read as they stand.
    pub(crate) fn offset(&self, sources: &[Arc<dyn Reader>], row: u64) -> Option<u64> {
        match &self.kind {
            Kind::Read { source, tensor } => {
                Some(sources[*source].place(*tensor).offset + row * self.row_bytes)
            }
            Kind::Slice { input, start } => input.offset(sources, start + row),
            _ => None,
        }
    }

    /// Source number and place of the tensor that is read first; `None` when nothing is read.
    pub(crate) fn first_place(&self, sources: &[Arc<dyn Reader>]) -> Option<(usize, Place)> {
        match &self.kind {
            Kind::Read { source, tensor } => Some((*source, sources[*source].place(*tensor))),
            Kind::Const(_) => None,
            Kind::Slice { input, .. } | Kind::Swap { input, .. } | Kind::Reshape(input) => {
                input.first_place(sources)
            }
            Kind::Transpose(t) => t.input.first_place(sources),
            Kind::Concat { inputs, .. } | Kind::Apply { inputs, .. } | Kind::Reduce { inputs, .. } => {
                inputs.iter().filter_map(|i| i.first_place(sources)).min()
            }
        }
    }

    /// What evaluating any `n` rows takes, for ranges that start at multiples of `step` and end at one or at
    /// the last row.
    pub(crate) fn need(&self, n: u64, step: u64) -> Need {
        let n = n.min(self.rows);
        if n == 0 {
            return Need::default();
        }
        match &self.kind {
            Kind::Read { .. } | Kind::Const(_) => Need::default(),
            Kind::Slice { input, start } => {
                let end = start + self.rows;
                let cut = if end == input.rows { 0 } else { end };
                input.need(n, gcd(gcd(step, *start), cut))
            }
            Kind::Swap { input, a, b } => {
                let step = if step.is_multiple_of(a * b) { step } else { 1 };
                input.need(n, step).plus(n * self.row_bytes)
            }
            Kind::Concat { inputs, starts } => inputs
                .iter()
                .zip(starts)
                .map(|(i, start)| i.need(n, gcd(step, *start)))
                .fold(Need::default(), Need::max),
            Kind::Reshape(input) => {
                let (bytes, unit) = (n * self.row_bytes, input.row_bytes);
                let step = step.saturating_mul(self.row_bytes);
                if step.is_multiple_of(unit) {
                    return input.need(bytes / unit, step / unit);
                }
                // Rows of the input that are cut at either end pass through scratch one at a time.
                input.need(1, 1).plus(unit).max(input.need(bytes / unit, 1))
            }
            Kind::Transpose(t) => {
                // Blocks begin and end where rows of the output ask for it, not where the step does.
                let block = t.block(n.saturating_mul(self.row_bytes));
                t.input.need(block, 1).plus(t.room(block))
            }
            Kind::Apply { op, forms, inputs } => {
                // Units that are cut are computed as a whole, in scratch.
                let unit = op.unit().clamp(1, self.rows);
                let whole = step.is_multiple_of(unit) || unit == 1;
                let (n, step, own) = if whole {
                    (n, step, 0)
                } else {
                    let n = self.rows.min(n.saturating_add(unit - 1).div_ceil(unit).saturating_mul(unit));
                    (n, unit, n * self.row_bytes)
                };
                let mut need = Need { arena: 0, outside: op.scratch(forms, n) };
                let mut held = own;
                for (i, input) in inputs.iter().enumerate() {
                    let (n, step) = match op.locality(i).ratio() {
                        Some(ratio) => (input.rows.min(n.saturating_mul(ratio)), step.saturating_mul(ratio)),
                        None => (input.rows, input.rows),
                    };
                    held = held.saturating_add(n * input.row_bytes);
                    need = need.max(input.need(n, step).plus(held));
                }
                need
            }
            Kind::Reduce { op, forms, inputs, found, .. } => {
                // A block of every input, whatever rows of the value are asked for.
                let block = found.block_rows;
                let mut need = Need { arena: 0, outside: op.scratch(forms, block) };
                let mut held = 0u64;
                for input in inputs {
                    held = held.saturating_add(block.saturating_mul(input.row_bytes));
                    need = need.max(input.need(block, block).plus(held));
                }
                need
            }
        }
    }

    /// Tiles of a multiple of this many rows read no byte twice. At most [`Self::rows`].
    pub(crate) fn align(&self) -> u64 {
        let rows = self.rows.max(1);
        let align = match &self.kind {
            Kind::Read { .. } | Kind::Const(_) => 1,
            Kind::Slice { input, start } => {
                let inner = input.align();
                if start.is_multiple_of(inner) { inner } else { self.unaligned() }
            }
            Kind::Swap { input, a, b } => lcm(a * b, input.align()),
            Kind::Concat { inputs, starts } => {
                let inner = inputs.iter().map(Self::align).fold(1, lcm);
                if starts.iter().all(|s| s.is_multiple_of(inner)) { inner } else { self.unaligned() }
            }
            Kind::Reshape(input) if self.rows == 0 || input.row_bytes == self.row_bytes => input.align(),
            Kind::Reshape(input) => {
                let unit = input.row_bytes.saturating_mul(input.align());
                lcm(self.row_bytes, unit) / self.row_bytes
            }
            Kind::Transpose(t) => t.align(),
            // An input that is needed as a whole is read again for every tile: tiles as high as they come are best,
            // but where other inputs are read row by row, it is small beside them.
            Kind::Apply { op, inputs, .. } => {
                let aligns = inputs.iter().enumerate().filter_map(|(i, input)| {
                    let ratio = op.locality(i).ratio()?;
                    Some(lcm(ratio, input.align()) / ratio)
                });
                lcm(aligns.reduce(lcm).unwrap_or(rows), op.unit().clamp(1, rows))
            }
            Kind::Reduce { .. } => rows,
        };
        align.min(rows)
    }

    /// As [`Self::align`] where no height suits all inputs: a few bytes read twice, or everything for every tile.
    fn unaligned(&self) -> u64 {
        if self.rereads() { self.rows.max(1) } else { 1 }
    }

    /// Whether tiles that are not aligned read far more than their part, whatever their height: then they had better
    /// be few.
    pub(crate) fn rereads(&self) -> bool {
        match &self.kind {
            Kind::Read { .. } | Kind::Const(_) | Kind::Reduce { .. } => false,
            Kind::Slice { input, .. } | Kind::Swap { input, .. } | Kind::Reshape(input) => input.rereads(),
            Kind::Concat { inputs, .. } => inputs.iter().any(Self::rereads),
            Kind::Transpose(_) => true,
            Kind::Apply { op, inputs, .. } => {
                let local = || inputs.iter().enumerate().filter(|(i, _)| op.locality(*i) != Locality::Whole);
                local().next().is_none() || local().any(|(_, input)| input.rereads())
            }
        }
    }

    /// Whether any rows and the rows that follow them read as much one after the other as together.
    pub(crate) fn adds_up(&self) -> bool {
        match &self.kind {
            Kind::Read { .. } | Kind::Const(_) | Kind::Reduce { .. } => true,
            Kind::Slice { input, .. } | Kind::Swap { input, .. } => input.adds_up(),
            Kind::Reshape(input) => input.row_bytes == self.row_bytes && input.adds_up(),
            Kind::Concat { inputs, .. } => inputs.iter().all(Self::adds_up),
            Kind::Transpose(_) => false,
            Kind::Apply { op, inputs, .. } => {
                op.unit() <= 1
                    && inputs
                        .iter()
                        .enumerate()
                        .all(|(i, input)| op.locality(i) != Locality::Whole && input.adds_up())
            }
        }
    }

    /// Bytes that one evaluation of these rows reads from the sources, without what is read [once](Self::once).
    pub(crate) fn reads(&self, rows: Rows) -> u64 {
        if rows.is_empty() {
            return 0;
        }
        match &self.kind {
            Kind::Read { .. } => (rows.end - rows.start) * self.row_bytes,
            Kind::Const(_) | Kind::Reduce { .. } => 0,
            Kind::Slice { input, start } => input.reads(start + rows.start..start + rows.end),
            Kind::Swap { input, .. } if input.adds_up() => input.reads(rows),
            Kind::Swap { input, a, b } => {
                swapped(*a, *b, rows).map(|r| input.reads(r)).fold(0, u64::saturating_add)
            }
            Kind::Concat { inputs, starts } => {
                parts(inputs, starts, &rows).map(|(i, r)| i.reads(r)).fold(0, u64::saturating_add)
            }
            Kind::Reshape(input) => {
                let bytes = rows.start * self.row_bytes..rows.end * self.row_bytes;
                let unit = input.row_bytes;
                // A row that is cut is read by itself.
                let (first, last) = (bytes.start.div_ceil(unit), bytes.end / unit);
                let whole = if first < last { input.reads(first..last) } else { 0 };
                let start = bytes.start / unit;
                let cut = [start..first, last.max(first)..bytes.end.div_ceil(unit)];
                cut.into_iter().map(|row| input.reads(row)).fold(whole, u64::saturating_add)
            }
            Kind::Transpose(t) => t.reads(rows, self.row_bytes),
            Kind::Apply { op, inputs, .. } => {
                let rows = units(op.unit(), &rows, self.rows);
                let of = |(n, i): (usize, &Self)| i.reads(op.locality(n).of(&rows, i.rows));
                inputs.iter().enumerate().map(of).fold(0, u64::saturating_add)
            }
        }
    }

    /// Bytes that evaluations of all these rows read, `step` rows at a time.
    pub(crate) fn reads_by(&self, rows: Rows, step: u64) -> u64 {
        if self.adds_up() {
            return self.reads(rows);
        }
        let end = rows.end;
        let starts = rows.step_by(usize::try_from(step.max(1)).unwrap_or(usize::MAX));
        starts.map(|at| self.reads(at..end.min(at.saturating_add(step)))).fold(0, u64::saturating_add)
    }

    /// Bytes that reductions read, once in a run, however many rows are evaluated how often.
    pub(crate) fn once(&self) -> u64 {
        match &self.kind {
            Kind::Read { .. } | Kind::Const(_) | Kind::Reduce { again: true, .. } => 0,
            Kind::Slice { input, .. } | Kind::Swap { input, .. } | Kind::Reshape(input) => input.once(),
            Kind::Transpose(t) => t.input.once(),
            Kind::Concat { inputs, .. } | Kind::Apply { inputs, .. } => {
                inputs.iter().map(Self::once).fold(0, u64::saturating_add)
            }
            Kind::Reduce { op, inputs, found, .. } => {
                let passes = op.reduction().map_or(0, |r| r.passes() as u64);
                let of = |i: &Self| {
                    i.reads_by(0..i.rows, found.block_rows).saturating_mul(passes).saturating_add(i.once())
                };
                inputs.iter().map(of).fold(0, u64::saturating_add)
            }
        }
    }
}

fn all(inputs: &[Expr], sources: &[Arc<dyn Reader>], reductions: &mut Reductions) -> Result<Vec<Node>> {
    inputs.iter().map(|e| Node::new(e, sources, reductions)).collect()
}

/// Some rows with those that cannot be computed apart from them, of so many in all.
pub(crate) fn units(unit: u64, rows: &Rows, all: u64) -> Rows {
    let unit = unit.clamp(1, all.max(1));
    rows.start / unit * unit..all.min(rows.end.div_ceil(unit).saturating_mul(unit))
}

/// Rows of the input that make up `rows` of a swap, in the order in which they are read: whole periods at once, of a
/// period that is cut each of the `a` runs.
fn swapped(a: u64, b: u64, rows: Rows) -> impl Iterator<Item = Rows> {
    let period = a * b;
    let first = rows.end.min(rows.start.div_ceil(period) * period);
    let last = first.max(rows.end / period * period);
    let cut = move |part: Rows| {
        let base = part.start / period * period;
        let runs = if part.is_empty() { 0..0 } else { 0..a };
        runs.map(move |i| swap_run((a, b), base, i, &part))
    };
    cut(rows.start..first)
        .chain(std::iter::once(first..last))
        .chain(cut(last..rows.end))
        .filter(|r| !r.is_empty())
}

/// Rows of run `i` of the period at `base` that rows `part` of a swap come from, as rows of the input.
pub(crate) fn swap_run((a, b): (u64, u64), base: u64, i: u64, part: &Rows) -> Rows {
    // Output rows j*a + i within the part are input rows i*b + j.
    let at = |row: u64| base + i * b + (row - base).saturating_sub(i).div_ceil(a);
    at(part.start)..at(part.end)
}

/// The inputs that make up `rows` of a concatenation, each with its own row numbers.
pub(crate) fn parts<'a>(
    inputs: &'a [Node],
    starts: &'a [u64],
    rows: &Rows,
) -> impl Iterator<Item = (&'a Node, Rows)> {
    let rows = rows.clone();
    // The last input that starts at or before the first row; empty inputs before it hold no row of the range.
    let first = starts.partition_point(|&s| s <= rows.start).saturating_sub(1);
    let end = rows.end;
    inputs[first..].iter().zip(&starts[first..]).take_while(move |(_, s)| **s < end).filter_map(
        move |(input, &start)| {
            let part = rows.start.max(start) - start..rows.end.min(start + input.rows).saturating_sub(start);
            (!part.is_empty()).then_some((input, part))
        },
    )
}

/// Greatest common divisor; `gcd(a, 0) = a`.
pub(crate) fn gcd(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// Least common multiple of positive numbers, saturating.
pub(crate) fn lcm(a: u64, b: u64) -> u64 {
    (a / gcd(a, b)).saturating_mul(b)
}
