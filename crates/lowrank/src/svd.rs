//! Decompositions: of a matrix that is read by rows, and of a product of factors.

use crate::{
    Matrix, dense,
    kernel::{COLUMNS, Panels},
    passes::{Passes, squares, tile_floats},
    test_matrix,
};
use nalgebra::DMatrix;
use std::fmt;

/// How a matrix is decomposed.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Most singular values that are wanted.
    pub rank: usize,
    /// Columns of the basis beyond that: what the last wanted vectors are told apart by.
    pub oversample: usize,
    /// Steps of orthogonal iteration; each is a pass. More come nearer to the best that the rank can do, where singular
    /// values fall slowly.
    pub iterations: usize,
    /// Of the test matrix.
    pub seed: u64,
    /// Threads that go through one matrix; results do not depend on them.
    pub threads: usize,
}

impl Options {
    /// What is sound for most matrices: the best error of this rank within a per cent. The basis fills panels, whose
    /// columns cost the same whether they are used or not.
    pub fn new(rank: usize) -> Self {
        let width = rank.saturating_add(8.max(rank / 2)).div_ceil(COLUMNS).saturating_mul(COLUMNS);
        Self { rank, oversample: width - rank, iterations: 3, seed: 0, threads: 1 }
    }

    /// Columns of the basis, less where the matrix is smaller.
    fn width(&self, rows: usize, columns: usize) -> usize {
        self.rank.saturating_add(self.oversample).min(rows).min(columns)
    }

    /// Passes over a matrix.
    pub fn passes(&self, rows: usize, columns: usize) -> usize {
        if self.is_exact(rows, columns) { 1 } else { self.iterations.max(1) + 1 }
    }

    /// Whether nothing is left out before the last step.
    fn is_exact(&self, rows: usize, columns: usize) -> bool {
        self.width(rows, columns) == rows.min(columns)
    }
}

/// Why a matrix cannot be decomposed.
#[derive(Debug)]
pub enum Failure<E> {
    /// Its rows cannot be read.
    Source(E),
    /// It holds NaN or infinity.
    NonFinite,
    /// The small decomposition at the end did not converge.
    NoConvergence,
}

impl<E: fmt::Display> fmt::Display for Failure<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Source(e) => e.fmt(f),
            Self::NonFinite => f.write_str("the matrix holds NaN or infinity"),
            Self::NoConvergence => f.write_str("its singular values did not converge"),
        }
    }
}

/// The largest singular values of a matrix and their vectors.
#[derive(Clone, Debug, PartialEq)]
pub struct Svd {
    /// Left singular vectors in columns: `[rows, rank]`, row by row.
    pub u: Vec<f32>,
    /// Singular values in descending order.
    pub s: Vec<f64>,
    /// Right singular vectors in rows: `[rank, columns]`, row by row.
    pub v: Vec<f32>,
    /// The matrix's squared Frobenius norm: the sum of the squares of all its singular values.
    pub energy: f64,
}

impl Svd {
    /// How many singular values there are.
    pub fn rank(&self) -> usize {
        self.s.len()
    }

    /// How many singular values hold this share of the energy; all there are, where they hold less.
    pub fn rank_of_share(&self, share: f64) -> usize {
        let mut held = 0.0;
        for (i, s) in self.s.iter().enumerate() {
            if held >= share * self.energy {
                return i;
            }
            held += s * s;
        }
        self.rank()
    }

    /// Leaves the smallest singular values out.
    pub fn truncate(&mut self, rank: usize) {
        let old = self.rank();
        if rank >= old {
            return;
        }
        let columns = self.v.len() / old;
        self.v.truncate(rank * columns);
        self.s.truncate(rank);
        self.u = self.u.chunks_exact(old).flat_map(|row| &row[..rank]).copied().collect();
    }

    /// Two factors of about the same size: `U sqrt(S)`, `[rows, rank]`, and `sqrt(S) V`, `[rank, columns]`.
    pub fn into_factors(mut self) -> (Vec<f32>, Vec<f32>) {
        let roots: Vec<f32> = self.s.iter().map(|s| s.sqrt() as f32).collect();
        let columns = self.v.len().checked_div(roots.len()).unwrap_or(0);
        for row in self.u.chunks_exact_mut(roots.len().max(1)) {
            for (x, root) in row.iter_mut().zip(&roots) {
                *x *= root;
            }
        }
        for (row, root) in self.v.chunks_exact_mut(columns.max(1)).zip(&roots) {
            for x in row {
                *x *= root;
            }
        }
        (self.u, self.v)
    }
}

/// Most bytes that [`decompose`] holds at one time, its result among them and what `matrix.read` takes not; a
/// [`crate::residual`] of the factors takes no more.
pub fn memory(rows: usize, columns: usize, options: &Options) -> u64 {
    let (m, n) = (rows as u64, columns as u64);
    let width = options.width(rows, columns);
    let (l, lanes) = (width as u64, width.next_multiple_of(COLUMNS) as u64);
    let rank = options.rank.min(width) as u64;
    let threads = options.threads as u64;
    let tiles = threads.saturating_mul(tile_floats(rows, columns, width));
    if options.is_exact(rows, columns) {
        let all = m.saturating_mul(n);
        return 4 * (all * 2 + all.next_multiple_of(COLUMNS as u64) + rank * (m + n) + tiles) + 32 * l * l;
    }
    // The basis, the sums of all threads and the whole's, and tiles.
    let gram = 4 * (n * lanes * (threads + 2) + tiles);
    let orthonormal = 4 * 2 * n * lanes + 8 * 2 * n * l;
    let last = 4 * (n * lanes + 2 * m * l + n * l + 2 * rank * (m + n) + tiles) + 32 * l * l;
    let residual = 4 * (rank * (m + n) + rank * n.next_multiple_of(COLUMNS as u64) + 2 * tiles);
    gram.max(orthonormal).max(last).max(residual)
}

/// Largest singular values of a matrix, and their vectors.
///
/// # Errors
/// [`Failure`]; what reading rows gives comes through.
pub fn decompose<M: Matrix>(matrix: &M, options: &Options) -> Result<Svd, Failure<M::Error>> {
    /// Norms within which no square of an `f32` product overflows or vanishes.
    const SAFE: std::ops::Range<f64> = 1e-12..1e12;
    let mut passes = Passes { matrix, scale: 1.0, threads: options.threads };
    let (rows, columns) = (matrix.rows(), matrix.columns());
    let width = options.width(rows, columns);
    if options.is_exact(rows, columns) {
        let (all, energy) = passes.collect().map_err(Failure::Source)?;
        return finite(energy).and_then(|energy| small(&all, rows, columns, energy, options.rank));
    }
    let test = |i: usize, j: usize| test_matrix::element(options.seed, (i * width + j) as u64);
    let mut basis = Panels::new(columns, width, test);
    for step in 0..options.iterations.max(1) {
        let (mut z, energy) = passes.gram(&basis).map_err(Failure::Source)?;
        let norm = finite(energy)?.sqrt();
        if norm == 0.0 {
            return Ok(Svd { u: Vec::new(), s: Vec::new(), v: Vec::new(), energy: 0.0 });
        }
        if step == 0 && !SAFE.contains(&norm) {
            // `f32` ends at 2^127 and 2^-126; what lies beyond both is zero in it.
            passes.scale = (-norm.log2().round()).clamp(-126.0, 126.0).exp2() as f32;
            z = passes.gram(&basis).map_err(Failure::Source)?.0;
        }
        basis = dense::orthonormal(&z);
    }
    let (y, energy) = passes.project(&basis).map_err(Failure::Source)?;
    let unscaled = 1.0 / f64::from(passes.scale);
    let (mut s, w) = dense::right_vectors(&y, width).ok_or(Failure::NoConvergence)?;
    s.truncate(options.rank);
    let rank = s.len();
    let u = times(&y, width, &Panels::new(width, rank, |i, j| over(w[(i, j)], s[j])));
    drop(y);
    let w = Panels::new(width, rank, |i, j| w[(i, j)] as f32);
    let v = transposed_times(&basis, &w);
    for s in &mut s {
        *s *= unscaled;
    }
    Ok(Svd { u, s, v, energy: energy * unscaled * unscaled })
}

/// The squared norm, where it is one.
fn finite<E>(energy: f64) -> Result<f64, Failure<E>> {
    if energy.is_finite() { Ok(energy) } else { Err(Failure::NonFinite) }
}

/// `x / s`, and nothing where there is nothing.
fn over(x: f64, s: f64) -> f32 {
    if s > 0.0 { (x / s) as f32 } else { 0.0 }
}

/// A matrix that is as small as its approximation.
fn small<E>(all: &[f32], rows: usize, columns: usize, energy: f64, rank: usize) -> Result<Svd, Failure<E>> {
    if energy == 0.0 {
        return Ok(Svd { u: Vec::new(), s: Vec::new(), v: Vec::new(), energy });
    }
    let tall = rows >= columns;
    let turned: Vec<f32>;
    let (y, long, short) = if tall {
        (all, rows, columns)
    } else {
        turned = transpose(all, rows, columns);
        (&turned[..], columns, rows)
    };
    let (mut s, w) = dense::right_vectors(y, short).ok_or(Failure::NoConvergence)?;
    s.truncate(rank);
    let rank = s.len();
    let of_long = times(y, short, &Panels::new(short, rank, |i, j| over(w[(i, j)], s[j])));
    let of_short: Vec<f32> = (0..short * rank).map(|i| w[(i / rank, i % rank)] as f32).collect();
    let (u, v) = if tall {
        (of_long, transpose(&of_short, short, rank))
    } else {
        (of_short, transpose(&of_long, long, rank))
    };
    Ok(Svd { u, s, v, energy })
}

/// Decomposes `left * right` without ever making it: `left` is `[rows, rank]` and `right` `[rank, columns]`, both row by
/// row. Exact to the rounding of `f64`, at the cost of decomposing the factors. `None` where they hold NaN or infinity, or
/// where nothing converges.
pub fn product(left: &[f32], right: &[f32], rank: usize) -> Option<Svd> {
    if rank == 0 || !(squares(left) + squares(right)).is_finite() {
        return None;
    }
    let (rows, columns) = (left.len() / rank, right.len() / rank);
    let left = DMatrix::from_fn(rows, rank, |i, j| f64::from(left[i * rank + j]));
    let right = DMatrix::from_fn(columns, rank, |i, j| f64::from(right[j * columns + i]));
    let (u, s, v) = dense::product(left, right)?;
    Some(Svd {
        u: u.transpose().iter().map(|x| *x as f32).collect(),
        v: v.iter().map(|x| *x as f32).collect(),
        energy: s.iter().map(|s| s * s).sum(),
        s,
    })
}

/// `left * small`, row by row, a few rows at a time.
fn times(left: &[f32], width: usize, small: &Panels) -> Vec<f32> {
    const ROWS: usize = 1024;
    let rank = small.columns();
    let mut out = Vec::with_capacity(left.len() / width.max(1) * rank);
    for left in left.chunks(ROWS * width.max(1)) {
        let rows = left.len() / width;
        let mut y = Panels::zeros(rows, rank);
        small.multiply(left, &mut y);
        for i in 0..rows {
            out.extend((0..rank).map(|j| y.at(i, j)));
        }
    }
    out
}

/// `(basis * small)^T`, row by row.
fn transposed_times(basis: &Panels, small: &Panels) -> Vec<f32> {
    let (n, width) = (basis.rows(), basis.columns());
    let rows: Vec<f32> = (0..n * width).map(|i| basis.at(i / width, i % width)).collect();
    transpose(&times(&rows, width, small), n, small.columns())
}

fn transpose(x: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    let mut out = vec![0f32; x.len()];
    for (i, row) in x.chunks_exact(columns.max(1)).enumerate() {
        for (j, x) in row.iter().enumerate() {
            out[j * rows + i] = *x;
        }
    }
    out
}
