//! What `ties` and `dare` need to know of whole changes: the least magnitude that stays, and the factor that gives what
//! stays the length that the whole had.
//!
//! mergekit's `sparsify.py` sorts magnitudes and keeps the first `k = max(1, int(density * n))`. Here the k-th largest is
//! found by counting: the upper halves of the magnitudes' bits, then the lower halves of those that share the k-th
//! one's upper half (values of bf16 have no lower half), then, where several elements have exactly that magnitude and not
//! all of them stay, how many of them each row has: the first ones in the tensor do. Where the rest is rescaled, `l1`
//! norms before and after are summed on that last pass, in `f64`; mergekit sums in `f32`. Both are rounded to the type
//! before they are divided, and the quotient is again, as there; DARE on f16 is in `f32` up to here, and
//! norms that f16 cannot hold are, too.

use super::delta::{Found, Sparsify, subtract};
use crate::{
    random,
    round::{CHUNK, alike, float, load, round, rounded},
};
use tensormill_model::{Error, Form, Op, Reduction, Result, Rows, Tally};
use tensormill_tensor::{DType, Encoding, Shape};

/// Numbers about the changes from a base. Inputs: the base, and the models.
#[derive(Clone, Debug, PartialEq)]
pub struct Prune {
    /// What stays of each change.
    pub sparsify: Vec<Sparsify>,
    /// Whether what stays is rescaled.
    pub rescale: bool,
    /// Type of the inputs' values and of changes.
    pub dtype: DType,
}

/// Different upper halves of magnitudes; lower halves are twice as many.
const UPPER: usize = 1 << 15;
const LOWER: usize = 1 << 16;
/// Norms below this are not divided by.
const SMALL: f32 = 1e-7;

/// Where the k-th largest magnitude is.
#[derive(Clone, Copy)]
struct Cut {
    bits: u32,
    /// How many elements of exactly this magnitude there are, and how many of them stay.
    ties: u64,
    stay: u64,
}

/// The bin of the k-th largest of what was counted, and what is left of `k` when it is reached.
fn kth(counts: &[u64], mut k: u64) -> (usize, u64, u64) {
    for (bin, n) in counts.iter().enumerate().rev() {
        if *n >= k {
            return (bin, *n, k);
        }
        k -= n;
    }
    (0, 0, 0)
}

impl Prune {
    /// Number of passes that look for magnitudes.
    fn searches(&self) -> usize {
        match self.dtype {
            _ if !self.sparsify.iter().any(|s| matches!(s, Sparsify::Largest(_))) => 0,
            DType::BF16 => 1,
            _ => 2,
        }
    }

    /// How many elements stay of `n`.
    fn staying(density: f64, n: u64) -> u64 {
        ((density * n as f64) as u64).clamp(1, n.max(1))
    }

    fn part(tally: &Tally, model: usize, len: usize) -> &[u64] {
        let start = (model * len).min(tally.counts.len());
        &tally.counts[start..(start + len).min(tally.counts.len())]
    }

    /// The upper half of a model's k-th largest magnitude, how many share it, and which of these is the k-th.
    fn upper(&self, tallies: &[Tally], model: usize, forms: &[Form]) -> Option<(usize, u64, u64)> {
        let Sparsify::Largest(density) = self.sparsify[model] else { return None };
        let k = Self::staying(density, forms[0].shape.elements());
        Some(kth(Self::part(tallies.first()?, model, UPPER), k))
    }

    /// The cut of a model's change, when the searches are made.
    fn cut(&self, tallies: &[Tally], model: usize, forms: &[Form]) -> Option<Cut> {
        let (upper, ties, stay) = self.upper(tallies, model, forms)?;
        if self.searches() == 1 {
            return Some(Cut { bits: (upper << 16) as u32, ties, stay });
        }
        let (lower, ties, stay) = kth(Self::part(tallies.get(1)?, model, LOWER), stay);
        Some(Cut { bits: (upper << 16 | lower) as u32, ties, stay })
    }

    /// Whether rows must be counted for the cut: zeros are the same whether they stay or not.
    fn divides_ties(cut: Cut) -> bool {
        cut.stay < cut.ties && cut.bits != 0
    }

    /// The factor for what stays.
    fn scale(&self, model: usize, before: f64, after: f64) -> f32 {
        // Norms of real tensors are beyond f16, where mergekit's TIES would divide infinities.
        let beyond = !rounded(self.dtype, before as f32).is_finite();
        let work = match (self.sparsify[model], self.dtype) {
            (Sparsify::Random(..), DType::F16) => DType::F32,
            _ if beyond => DType::F32,
            (_, dtype) => dtype,
        };
        let (before, after) = (rounded(work, before as f32), rounded(work, after as f32));
        if !self.rescale || before < SMALL || after < SMALL {
            return 1.0;
        }
        rounded(work, before / after)
    }
}

impl Op for Prune {
    fn describe(&self) -> String {
        format!("prune[{:?} rescale={} {}]", self.sparsify, self.rescale, self.dtype)
    }
    fn form(&self, inputs: &[Form]) -> Result<Form> {
        let models = self.sparsify.len();
        if inputs.len() != models + 1 {
            return Err(Error::usage(
                "changes are pruned of a base and as many models as there are densities",
            ));
        }
        alike(inputs, self.dtype)?;
        // Bit patterns, in whatever holds eight bytes.
        Ok(Form::new(Shape::new(vec![models as u64 * Found::NUMBERS])?, Encoding::Plain(DType::I64)))
    }
    fn scratch(&self, inputs: &[Form], _: u64) -> u64 {
        // Counts of a worker, of a pass, and of those before it.
        let rows = inputs.first().map_or(0, |f| f.shape.rows());
        let counts = (UPPER + 2 * LOWER) as u64 + 2 * rows;
        (self.sparsify.len() as u64).saturating_mul(counts.saturating_mul(8))
    }
    fn run(&self, _: Rows, _: &[Form], _: &[&[u8]], _: &mut [u8]) -> Result<()> {
        Err(Error::usage("a reduction is found by passes"))
    }
    fn reduction(&self) -> Option<&dyn Reduction> {
        Some(self)
    }
}

impl Reduction for Prune {
    fn passes(&self) -> usize {
        self.searches() + 1
    }

    fn add(
        &self,
        earlier: &[Tally],
        rows: Rows,
        forms: &[Form],
        inputs: &[&[u8]],
        tally: &mut Tally,
    ) -> Result<()> {
        let types = forms.iter().map(float).collect::<Result<Vec<_>>>()?;
        let row_len = forms[0].shape.row_len() as usize;
        let models = self.sparsify.len();
        let len = match (earlier.len(), self.searches()) {
            (0, 1 | 2) => UPPER,
            (1, 2) => LOWER,
            (_, 0) => 0,
            _ => forms[0].shape.rows() as usize,
        };
        if tally.counts.len() < models * len {
            tally.counts.resize(models * len, 0);
        }
        let looks: Vec<Look> = (0..models)
            .map(|i| match (earlier.len(), self.searches(), self.sparsify[i]) {
                (0, 1 | 2, Sparsify::Largest(_)) => Look::Upper,
                (1, 2, Sparsify::Largest(_)) => {
                    self.upper(earlier, i, forms).map_or(Look::Not, |(bin, _, _)| Look::Lower(bin as u32))
                }
                (made, searches, Sparsify::Largest(_)) if made == searches => {
                    self.cut(earlier, i, forms).map_or(Look::Not, |cut| Look::Ties(cut.bits, self.rescale))
                }
                (made, searches, Sparsify::Random(density, key)) if made == searches => {
                    Look::Random(random::threshold(density), key)
                }
                _ => Look::Not,
            })
            .collect();
        let (mut base, mut change) = ([0f32; CHUNK], [0f32; CHUNK]);
        // Before and after, for each model.
        let mut sums = vec![0f64; 2 * models];
        for row in rows.clone() {
            let first = (row - rows.start) as usize * row_len;
            for column in (0..row_len).step_by(CHUNK) {
                let (n, at) = (CHUNK.min(row_len - column), first + column);
                let (base, change) = (&mut base[..n], &mut change[..n]);
                load(types[0], inputs[0], at, self.dtype, base);
                for (i, look) in looks.iter().enumerate() {
                    if matches!(look, Look::Not) {
                        continue;
                    }
                    load(types[i + 1], inputs[i + 1], at, self.dtype, change);
                    subtract(change, base);
                    round(self.dtype, change);
                    let counts = &mut tally.counts[i * len..][..len];
                    let index = row.wrapping_mul(row_len as u64).wrapping_add(column as u64);
                    look.at(change, row, index, counts, &mut sums[2 * i..2 * i + 2]);
                }
            }
        }
        tally.sums = sums;
        Ok(())
    }

    fn value(&self, tallies: &[Tally], forms: &[Form], out: &mut [u8]) -> bool {
        let searches = self.searches();
        if tallies.len() < searches {
            return false;
        }
        let models = self.sparsify.len();
        let cuts: Vec<Option<Cut>> = (0..models).map(|i| self.cut(tallies, i, forms)).collect();
        let acting = self.sparsify.iter().any(|s| s.acts());
        let wanted = (self.rescale && acting) || cuts.iter().flatten().any(|c| Self::divides_ties(*c));
        let last = tallies.get(searches);
        if wanted && last.is_none() {
            return false;
        }
        let rows = forms[0].shape.rows() as usize;
        let numbers = (0..models).flat_map(|i| {
            let sum = |n: usize| last.and_then(|t| t.sums.get(2 * i + n)).copied().unwrap_or(0.0);
            let (before, mut after) = (sum(0), sum(1));
            let mut found = Found { bits: 0, row: u64::MAX, in_row: 0, scale: 1.0 };
            if let Some(cut) = cuts[i] {
                found.bits = u64::from(cut.bits);
                // All ties have one magnitude: which of them stay makes no difference to their sum.
                after += cut.stay as f64 * f64::from(f32::from_bits(cut.bits));
                if let (true, Some(last)) = (Self::divides_ties(cut), last) {
                    (found.row, found.in_row) = place(Self::part(last, i, rows), cut.stay);
                }
            }
            if self.sparsify[i].acts() {
                found.scale = self.scale(i, before, after);
            }
            found.to_numbers()
        });
        for (out, n) in out.as_chunks_mut::<8>().0.iter_mut().zip(numbers) {
            *out = n.to_le_bytes();
        }
        true
    }
}

/// The row in which the last of `stay` ties is, and how many of them are in it.
fn place(ties: &[u64], mut stay: u64) -> (u64, u64) {
    for (row, n) in ties.iter().enumerate() {
        if *n >= stay {
            return (row as u64, stay);
        }
        stay -= n;
    }
    (u64::MAX, 0)
}

/// What a pass looks at in a change.
enum Look {
    Not,
    /// Upper halves of magnitudes.
    Upper,
    /// Lower halves of those with this upper half.
    Lower(u32),
    /// Elements of this magnitude, by row; and perhaps norms.
    Ties(u32, bool),
    /// Norms.
    Random(u64, u64),
}

impl Look {
    fn at(&self, change: &[f32], row: u64, index: u64, counts: &mut [u64], sums: &mut [f64]) {
        let magnitude = |x: &f32| x.to_bits() & 0x7fff_ffff;
        match *self {
            Self::Not => {}
            Self::Upper => change.iter().for_each(|x| counts[(magnitude(x) >> 16) as usize] += 1),
            Self::Lower(upper) => {
                for m in change.iter().map(magnitude).filter(|m| m >> 16 == upper) {
                    counts[(m & 0xffff) as usize] += 1;
                }
            }
            Self::Ties(bits, norms) => {
                counts[row as usize] += count(change, bits);
                if norms {
                    let [before, after] = lengths(change, bits);
                    sums[0] += before;
                    sums[1] += after;
                }
            }
            Self::Random(threshold, key) => {
                for (i, x) in change.iter().enumerate() {
                    let size = f64::from(x.abs());
                    sums[0] += size;
                    sums[1] +=
                        if random::stays(key, index.wrapping_add(i as u64), threshold) { size } else { 0.0 };
                }
            }
        }
    }
}

/// Elements of a magnitude.
#[multiversion::multiversion(targets("x86_64+avx512f", "x86_64+avx2"))]
fn count(change: &[f32], bits: u32) -> u64 {
    // A chunk has fewer elements than 32 bits can count.
    u64::from(change.iter().map(|x| u32::from(x.to_bits() & 0x7fff_ffff == bits)).sum::<u32>())
}

/// Sums that are independent of each other, for lanes.
const LANES: usize = 8;

/// The sum of all magnitudes, and of those beyond one.
#[multiversion::multiversion(targets("x86_64+avx512f", "x86_64+avx2"))]
fn lengths(change: &[f32], bits: u32) -> [f64; 2] {
    let mut sums = [[0f64; LANES]; 2];
    let [before, after] = &mut sums;
    for part in change.chunks(LANES) {
        for ((x, before), after) in part.iter().zip(before.iter_mut()).zip(after.iter_mut()) {
            let size = f64::from(x.abs());
            *before += size;
            *after += if x.to_bits() & 0x7fff_ffff > bits { size } else { 0.0 };
        }
    }
    sums.map(|s| s.iter().sum())
}
