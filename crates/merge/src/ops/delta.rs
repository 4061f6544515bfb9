//! `task_arithmetic`, `ties`, `dare_linear`, `dare_ties`: a base plus weighted changes from it.
//!
//! mergekit's `generalized_task_arithmetic.py`. Every tensor in it has the type of the inputs, so each step here is
//! rounded to that type, too: a change `x - base`; the change rescaled; the change weighted (weights are of the type as
//! well); the sum of changes, of elected weights; the quotient of the two; the product with `lambda`; the sum with the base.
//! Sums over models are in `f32` in their order, rounded once, which is what torch gives for up to four models (beyond
//! that, torch adds some columns of `f32` in another order).

use crate::{
    random,
    round::{CHUNK, alike, float, load, not_finite, round, rounded, store, width},
};
use tensormill_model::{Error, Form, Locality, Op, Result, Rows};
use tensormill_tensor::DType;

/// Which elements of a model's change stay.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sparsify {
    /// All.
    All,
    /// None.
    Nothing,
    /// This share of them, the largest.
    Largest(f64),
    /// Each with this probability, by numbers for this key.
    Random(f64, u64),
}

impl Sparsify {
    /// Whether it needs to be looked at.
    pub(crate) fn acts(self) -> bool {
        matches!(self, Self::Largest(_) | Self::Random(..))
    }
}

/// What [`crate::Prune`] finds about one model's change.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Found {
    /// Bits of the least magnitude that stays, as `f32`.
    pub bits: u64,
    /// The row in which elements of exactly that magnitude stop to stay, and how many stay in it. In rows before it all
    /// do, in rows behind it none.
    pub row: u64,
    pub in_row: u64,
    /// What is left is multiplied by this.
    pub scale: f32,
}

impl Found {
    /// Numbers in a tensor.
    pub(crate) const NUMBERS: u64 = 4;

    pub(crate) fn to_numbers(self) -> [u64; 4] {
        [self.bits, self.row, self.in_row, u64::from(self.scale.to_bits())]
    }

    fn read(numbers: &[u8], model: usize) -> Self {
        let at =
            |i: usize| numbers.as_chunks::<8>().0.get(4 * model + i).map_or(0, |b| u64::from_le_bytes(*b));
        Self { bits: at(0), row: at(1), in_row: at(2), scale: f32::from_bits(at(3) as u32) }
    }
}

/// `base + lambda * (sum of weight[i] * change[i]) / divisor`. Inputs: the base, the models, and where
/// [`Self::surveyed`], what [`crate::Prune`] finds about their changes.
#[derive(Clone, Debug, PartialEq)]
pub struct Delta {
    /// One for each model beside the base.
    pub weights: Vec<f64>,
    /// What stays of its change.
    pub sparsify: Vec<Sparsify>,
    /// Sum only changes whose sign is that of the sum of all.
    pub elect: bool,
    /// Divide by the sum of weights (of those elected).
    pub normalize: bool,
    /// What the sum is multiplied by.
    pub lambda: f64,
    /// Whether the last input holds numbers.
    pub surveyed: bool,
    /// Type of the inputs' values, of every step, and of the result.
    pub dtype: DType,
}

/// Beyond these, a divisor counts as one; and a norm as nothing.
const NO_DIVISOR: f32 = 1e-8;

impl Op for Delta {
    fn describe(&self) -> String {
        let Self { weights, sparsify, elect, normalize, lambda, dtype, .. } = self;
        format!("delta[{weights:?} {sparsify:?} elect={elect} normalize={normalize} {lambda:?} {dtype}]")
    }
    fn form(&self, inputs: &[Form]) -> Result<Form> {
        let models = self.weights.len() + 1;
        if self.sparsify.len() + 1 != models || inputs.len() != models + usize::from(self.surveyed) {
            return Err(Error::usage("a sum of changes takes a base, and a weight for each other model"));
        }
        let numbers = Found::NUMBERS * self.weights.len() as u64;
        if inputs.get(models).is_some_and(|f| f.shape.elements() != numbers) {
            return Err(Error::usage("numbers for another number of models"));
        }
        alike(&inputs[..models], self.dtype)
    }
    fn locality(&self, input: usize) -> Locality {
        if input > self.weights.len() { Locality::Whole } else { Locality::Row }
    }
    fn scratch(&self, _: &[Form], _: u64) -> u64 {
        ((self.weights.len() + 4) * CHUNK * 4) as u64
    }
    fn run(&self, rows: Rows, forms: &[Form], inputs: &[&[u8]], out: &mut [u8]) -> Result<()> {
        let models = self.weights.len();
        let types = forms[..=models].iter().map(float).collect::<Result<Vec<_>>>()?;
        let row_len = forms[0].shape.row_len() as usize;
        let weights: Vec<f32> = self.weights.iter().map(|w| rounded(self.dtype, *w as f32)).collect();
        let numbers = inputs.get(models + 1).copied().unwrap_or_default();
        let found: Vec<Found> = (0..models).map(|i| Found::read(numbers, i)).collect();
        let mut mixer = Mixer::new(self, &weights);
        let mut base = [0f32; CHUNK];
        let mut ties = vec![0u64; models];
        for row in rows.clone() {
            let first = (row - rows.start) as usize * row_len;
            ties.fill(0);
            for column in (0..row_len).step_by(CHUNK) {
                let (n, at) = (CHUNK.min(row_len - column), first + column);
                let base = &mut base[..n];
                load(types[0], inputs[0], at, self.dtype, base);
                for (i, change) in mixer.changes.chunks_mut(CHUNK).enumerate() {
                    let change = &mut change[..n];
                    load(types[i + 1], inputs[i + 1], at, self.dtype, change);
                    subtract(change, base);
                    round(self.dtype, change);
                    match self.sparsify[i] {
                        Sparsify::All => {}
                        Sparsify::Nothing => change.iter_mut().for_each(|x| *x *= 0.0),
                        Sparsify::Largest(_) => largest(change, &found[i], row, &mut ties[i]),
                        Sparsify::Random(density, key) => {
                            let index = row.wrapping_mul(row_len as u64).wrapping_add(column as u64);
                            some(change, key, index, random::threshold(density));
                        }
                    }
                    if self.surveyed && self.sparsify[i].acts() && found[i].scale != 1.0 {
                        scale(self.dtype, change, found[i].scale);
                    }
                    scale(self.dtype, change, weights[i]);
                }
                let mixed = mixer.mix(n);
                for (m, b) in mixed.iter_mut().zip(base.iter()) {
                    *m += b;
                }
                round(self.dtype, mixed);
                if !store(self.dtype, mixed, at, out) {
                    return Err(not_finite(self.dtype, mixed, rows.start, at, row_len));
                }
            }
        }
        debug_assert_eq!(out.len() % width(self.dtype), 0);
        Ok(())
    }
}

/// Buffers of a chunk of columns.
struct Mixer<'a> {
    op: &'a Delta,
    weights: &'a [f32],
    /// One change after the other.
    changes: Vec<f32>,
    sum: Vec<f32>,
    /// Those of the sums of all changes.
    signs: Vec<f32>,
    divisor: Vec<f32>,
    /// The sum of all weights.
    whole: f32,
    lambda: f32,
}

impl<'a> Mixer<'a> {
    fn new(op: &'a Delta, weights: &'a [f32]) -> Self {
        let whole = rounded(op.dtype, weights.iter().sum());
        Self {
            op,
            weights,
            changes: vec![0.0; weights.len() * CHUNK],
            sum: vec![0.0; CHUNK],
            signs: vec![0.0; CHUNK],
            divisor: vec![0.0; CHUNK],
            whole: if whole.abs() < NO_DIVISOR { 1.0 } else { whole },
            lambda: op.lambda as f32,
        }
    }

    /// What is added to the first `n` elements of the base.
    fn mix(&mut self, n: usize) -> &mut [f32] {
        let dtype = self.op.dtype;
        let (sum, divisor) = (&mut self.sum[..n], &mut self.divisor[..n]);
        let changes = || self.changes.chunks(CHUNK).map(|c| &c[..n]);
        sum.fill(0.0);
        for change in changes() {
            for (s, x) in sum.iter_mut().zip(change) {
                *s += x;
            }
        }
        round(dtype, sum);
        if self.op.elect {
            let signs = &mut self.signs[..n];
            for (sign, s) in signs.iter_mut().zip(sum.iter()) {
                *sign = if *s >= 0.0 { 1.0 } else { -1.0 };
            }
            sum.fill(0.0);
            divisor.fill(0.0);
            for (change, weight) in changes().zip(self.weights) {
                add_elected(change, *weight, signs, sum, divisor);
            }
            round(dtype, sum);
            round(dtype, divisor);
            for d in divisor.iter_mut().filter(|d| **d == 0.0) {
                *d = 1.0;
            }
        } else {
            divisor.fill(self.whole);
        }
        if self.op.normalize {
            for (s, d) in sum.iter_mut().zip(divisor.iter()) {
                *s /= d;
            }
            round(dtype, sum);
        }
        if self.op.lambda != 1.0 {
            scale(dtype, sum, self.lambda);
        }
        sum
    }
}

#[multiversion::multiversion(targets("x86_64+avx512f", "x86_64+avx2"))]
pub(super) fn subtract(change: &mut [f32], base: &[f32]) {
    for (x, b) in change.iter_mut().zip(base) {
        *x -= b;
    }
}

/// Adds those elements of a change that have these signs, and counts its weight for them.
#[multiversion::multiversion(targets("x86_64+avx512f", "x86_64+avx2"))]
fn add_elected(change: &[f32], weight: f32, signs: &[f32], sum: &mut [f32], divisor: &mut [f32]) {
    for (((x, sign), s), d) in change.iter().zip(signs).zip(sum).zip(divisor) {
        let mask = if x * sign > 0.0 { 1.0 } else { 0.0 };
        *s += x * mask;
        *d += weight * mask;
    }
}

/// Multiplies what is smaller than a magnitude by zero.
#[multiversion::multiversion(targets("x86_64+avx512f", "x86_64+avx2"))]
fn keep(change: &mut [f32], least: u32) {
    for x in change {
        let mask = if x.to_bits() & 0x7fff_ffff >= least { 1.0 } else { 0.0 };
        *x *= mask;
    }
}

fn scale(dtype: DType, values: &mut [f32], by: f32) {
    for x in values.iter_mut() {
        *x *= by;
    }
    round(dtype, values);
}

/// Multiplies what does not stay by zero. `ties` counts elements of the threshold's magnitude in the row so far.
fn largest(change: &mut [f32], found: &Found, row: u64, ties: &mut u64) {
    let bits = found.bits as u32;
    let in_row = match row.cmp(&found.row) {
        std::cmp::Ordering::Less => return keep(change, bits),
        std::cmp::Ordering::Equal => found.in_row,
        std::cmp::Ordering::Greater => return keep(change, bits.saturating_add(1)),
    };
    for x in change {
        let magnitude = x.to_bits() & 0x7fff_ffff;
        let mut stays = magnitude > bits;
        if magnitude == bits {
            stays = *ties < in_row;
            *ties += 1;
        }
        *x *= f32::from(u8::from(stays));
    }
}

/// The same, at random; the first element is number `index`.
fn some(change: &mut [f32], key: u64, index: u64, threshold: u64) {
    for (i, x) in change.iter_mut().enumerate() {
        *x *= f32::from(u8::from(random::stays(key, index.wrapping_add(i as u64), threshold)));
    }
}
