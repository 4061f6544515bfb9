//! What feedback takes from a Hessian: the upper Cholesky factor `U` of its damped inverse, `H^-1 = U^T U`.
//!
//! The inverse itself is never made. With `P` turning the order of columns round, `P H P = V^T V` and `U = P V^-T P`: a
//! decomposition and the inverse of a triangle, both in `f64`, in blocks of rows, in place. Every element's sum is added in one
//! order, elements side by side, so instruction sets change no bit.

use crate::dispatch::{Level, selected_level};
use crate::lanes::{Job, Scan, run_at};

/// Rows that are finished together.
const BLOCK: usize = 64;
/// Columns of a strip of a panel.
const STRIP: usize = 8;
/// Rows updated at once.
const HIGH: usize = 4;
/// Strips that stay in a near cache while all rows pass.
const NEAR: usize = 16;
/// How far `h[i][j]` and `h[j][i]` may be apart, relative to `sqrt(h[i][i] h[j][j])`: what sums in half precision differ by.
const ASYMMETRY: f64 = 1e-2;

/// How a factor is made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Damping {
    /// This part of the mean of the diagonal is added to it.
    pub part: f64,
    /// Whether columns are taken in the order of the diagonal, largest first, rather than as they stand.
    pub by_activity: bool,
}

/// Why there is no factor.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum FactorError<E> {
    /// The rows could not be had.
    #[error("its rows cannot be read")]
    Read(E),
    /// A number is NaN or infinite.
    #[error("the number in row {row}, column {column} is NaN or infinite")]
    NonFinite {
        /// Where.
        row: usize,
        /// Where.
        column: usize,
    },
    /// A mean of squares is below zero.
    #[error("the number {column} of the diagonal is negative")]
    Negative {
        /// Which.
        column: usize,
    },
    /// Not a mean of `x x^T`.
    #[error("row {row}, column {column} and its mirror image differ")]
    Asymmetric {
        /// Where.
        row: usize,
        /// Where.
        column: usize,
    },
    /// Too little damping.
    #[error("it is not positive definite")]
    NotPositive,
}

/// The factor of a Hessian. Its columns may stand in another order than the weights'.
#[derive(Debug)]
pub struct Factor {
    columns: usize,
    /// The rows of the triangle, each from its diagonal on.
    packed: Vec<f32>,
    /// The column that stands at each place, where they are reordered.
    order: Option<Vec<u32>>,
    /// Columns whose inputs are always zero, by place.
    dead: Vec<bool>,
}

impl Factor {
    /// Bytes that making one takes, with the factor itself.
    pub fn work_bytes(columns: u64) -> u64 {
        let square = columns.saturating_mul(columns).saturating_mul(8);
        square.saturating_add(Self::bytes(columns)).saturating_add(columns.saturating_mul(8 * BLOCK as u64))
    }

    /// Bytes of a factor.
    pub fn bytes(columns: u64) -> u64 {
        columns.saturating_add(1).saturating_mul(columns).saturating_mul(2).saturating_add(columns * 8)
    }

    /// Makes the factor of a Hessian of so many columns, whose rows `read` gives, each of them at most twice.
    ///
    /// # Errors
    /// What is wrong with the Hessian; whatever `read` reports.
    pub fn new<E>(
        columns: usize,
        damping: Damping,
        read: impl FnMut(usize, &mut [f32]) -> Result<(), E>,
    ) -> Result<Self, FactorError<E>> {
        Self::new_at(selected_level(), columns, damping, read)
    }

    /// The same at a level. The bits are the same too.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn new_at<E>(
        level: Level,
        n: usize,
        damping: Damping,
        mut read: impl FnMut(usize, &mut [f32]) -> Result<(), E>,
    ) -> Result<Self, FactorError<E>> {
        let mut row = vec![0f32; n];
        let mut diagonal = vec![0f64; n];
        for (i, d) in diagonal.iter_mut().enumerate() {
            read(i, &mut row).map_err(FactorError::Read)?;
            if let Some(column) = row.iter().position(|x| !x.is_finite()) {
                return Err(FactorError::NonFinite { row: i, column });
            }
            if row[i] < 0.0 {
                return Err(FactorError::Negative { column: i });
            }
            *d = f64::from(row[i]);
        }
        let mut order: Vec<u32> = (0..n as u32).collect();
        if damping.by_activity {
            order.sort_by(|a, b| diagonal[*b as usize].total_cmp(&diagonal[*a as usize]));
        }
        // The place, from the end, of each column.
        let mut place = vec![0usize; n];
        for (i, c) in order.iter().enumerate() {
            place[*c as usize] = n - 1 - i;
        }
        let mut a = vec![0f64; n * n];
        for (i, at) in place.iter().enumerate() {
            read(i, &mut row).map_err(FactorError::Read)?;
            let out = &mut a[at * n..][..n];
            for (x, to) in row.iter().zip(&place) {
                out[*to] = f64::from(*x);
            }
        }
        symmetric(&a, &diagonal, &order)?;
        let live = diagonal.iter().filter(|d| **d > 0.0).count();
        let mean = if live == 0 { 1.0 } else { diagonal.iter().sum::<f64>() / live as f64 };
        for (c, at) in place.iter().enumerate() {
            let d = if diagonal[c] > 0.0 { diagonal[c] } else { mean };
            a[at * n + at] = d + damping.part * mean;
        }
        let mut packed = vec![0f32; n * (n + 1) / 2];
        if !run_at(level, Make { a: &mut a, n, out: &mut packed }) {
            return Err(FactorError::NotPositive);
        }
        let dead = order.iter().map(|c| diagonal[*c as usize] <= 0.0).collect();
        Ok(Self { columns: n, packed, order: damping.by_activity.then_some(order), dead })
    }

    /// Columns.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Row `i` of the triangle, from its diagonal on.
    #[inline(always)]
    pub(super) fn row(&self, i: usize) -> &[f32] {
        let len = self.columns - i;
        let start = i * self.columns - i * i.saturating_sub(1) / 2;
        &self.packed[start..start + len]
    }

    /// The column at a place.
    #[inline(always)]
    pub(super) fn column(&self, place: usize) -> usize {
        self.order.as_ref().map_or(place, |o| o[place] as usize)
    }

    /// Whether columns stand as the weights' do.
    pub(super) fn in_order(&self) -> bool {
        self.order.is_none()
    }

    /// Whether what stands at a place is multiplied by zero alone.
    pub(super) fn is_dead(&self, place: usize) -> bool {
        self.dead[place]
    }
}

/// That a matrix, whose places are turned round, is its own mirror image.
fn symmetric<E>(a: &[f64], diagonal: &[f64], order: &[u32]) -> Result<(), FactorError<E>> {
    let n = diagonal.len();
    let column = |place: usize| order[n - 1 - place] as usize;
    for i0 in (0..n).step_by(BLOCK) {
        for j0 in (0..=i0).step_by(BLOCK) {
            for i in i0..n.min(i0 + BLOCK) {
                for j in j0..i.min(j0 + BLOCK) {
                    let far = (a[i * n + j] - a[j * n + i]).abs();
                    if far > 0.0 {
                        let (row, column) = (column(i), column(j));
                        if far > ASYMMETRY * (diagonal[row] * diagonal[column]).sqrt() {
                            return Err(FactorError::Asymmetric { row, column });
                        }
                    }
                }
            }
        }
    }
    Ok(())
}

struct Make<'a> {
    a: &'a mut [f64],
    n: usize,
    out: &'a mut [f32],
}

impl Job for Make<'_> {
    type Out = bool;
    #[inline(always)]
    fn run<V: Scan>(self, _: V) -> bool {
        let Self { a, n, out } = self;
        let mut panel = Panel::default();
        if !decompose(a, n, &mut panel) {
            return false;
        }
        invert(a, n, &mut panel);
        // U[i][j] = V^-1[n-1-j][n-1-i].
        let start = |i: usize| i * n - i * i.saturating_sub(1) / 2;
        let mut finite = true;
        for i0 in (0..n).step_by(BLOCK) {
            for j0 in (i0..n).step_by(BLOCK) {
                for j in j0..n.min(j0 + BLOCK) {
                    let from = &a[(n - 1 - j) * n..][..n];
                    for i in i0..n.min(i0 + BLOCK).min(j + 1) {
                        let x = from[n - 1 - i] as f32;
                        finite &= x.is_finite();
                        out[start(i) + j - i] = x;
                    }
                }
            }
        }
        finite
    }
}

/// Some rows, repeated in strips that lie in the order in which they are read.
#[derive(Default)]
struct Panel {
    first: usize,
    depth: usize,
    strips: Vec<[f64; STRIP]>,
}

impl Panel {
    /// Takes rows `rows` from column `first` on.
    #[inline(always)]
    fn take(&mut self, a: &[f64], n: usize, rows: std::ops::Range<usize>, first: usize) {
        let count = (n - first).div_ceil(STRIP);
        (self.first, self.depth) = (first, rows.len());
        self.strips.clear();
        self.strips.resize(count * self.depth, [0.0; STRIP]);
        for (k, row) in rows.enumerate() {
            for (s, x) in a[row * n + first..(row + 1) * n].chunks(STRIP).enumerate() {
                self.strips[s * self.depth + k][..x.len()].copy_from_slice(x);
            }
        }
    }

    /// `a[i][j] -= sum over k of coefficients[k][i] * panel[k][j]` for rows `i` and the panel's columns, of which those that end
    /// before `least(i)` are left out.
    #[inline(always)]
    fn subtract(
        &self,
        a: &mut [f64],
        n: usize,
        rows: std::ops::Range<usize>,
        coefficients: &[[f64; HIGH]],
        from_row: bool,
    ) {
        let count = self.strips.len() / self.depth.max(1);
        for near in (0..count).step_by(NEAR) {
            for (g, i) in rows.clone().step_by(HIGH).enumerate() {
                let high = HIGH.min(rows.end - i);
                let c = &coefficients[g * self.depth..][..self.depth];
                for s in near..count.min(near + NEAR) {
                    let j = self.first + s * STRIP;
                    if from_row && j + STRIP <= i {
                        continue;
                    }
                    let strip = &self.strips[s * self.depth..][..self.depth];
                    let wide = STRIP.min(n - j);
                    let mut sums = [[0f64; STRIP]; HIGH];
                    if high == HIGH && wide == STRIP {
                        for r in 0..HIGH {
                            sums[r].copy_from_slice(&a[(i + r) * n + j..][..STRIP]);
                        }
                        accumulate(&mut sums, c, strip);
                        for r in 0..HIGH {
                            a[(i + r) * n + j..][..STRIP].copy_from_slice(&sums[r]);
                        }
                    } else {
                        for r in 0..high {
                            sums[r][..wide].copy_from_slice(&a[(i + r) * n + j..][..wide]);
                        }
                        accumulate(&mut sums, c, strip);
                        for r in 0..high {
                            a[(i + r) * n + j..][..wide].copy_from_slice(&sums[r][..wide]);
                        }
                    }
                }
            }
        }
    }
}

#[inline(always)]
fn accumulate(sums: &mut [[f64; STRIP]; HIGH], c: &[[f64; HIGH]], strip: &[[f64; STRIP]]) {
    let mut held = *sums;
    for (c, b) in c.iter().zip(strip) {
        for r in 0..HIGH {
            for l in 0..STRIP {
                held[r][l] -= c[r] * b[l];
            }
        }
    }
    *sums = held;
}

/// `to -= c * from`.
#[inline(always)]
fn subtract_row(to: &mut [f64], c: f64, from: &[f64]) {
    for (t, f) in to.iter_mut().zip(from) {
        *t -= c * f;
    }
}

/// Replaces the upper triangle of a matrix by `V`, `V^T V` being the matrix; `false` when it is not positive definite. What is
/// below the diagonal is lost.
#[inline(always)]
fn decompose(a: &mut [f64], n: usize, panel: &mut Panel) -> bool {
    let mut coefficients = Vec::new();
    for b in (0..n).step_by(BLOCK) {
        let e = n.min(b + BLOCK);
        for k in b..e {
            let (above, below) = a.split_at_mut((k + 1) * n);
            let row = &mut above[k * n + k..];
            let pivot = row[0];
            if !(pivot > 0.0 && pivot.is_finite()) {
                return false;
            }
            let root = pivot.sqrt();
            for x in row.iter_mut() {
                *x /= root;
            }
            for i in k + 1..e {
                let to = &mut below[(i - k - 1) * n..][i..n];
                subtract_row(to, row[i - k], &row[i - k..]);
            }
        }
        if e == n {
            break;
        }
        panel.take(a, n, b..e, e);
        coefficients.clear();
        for i in (e..n).step_by(HIGH) {
            for k in b..e {
                coefficients.push(std::array::from_fn(|r| if i + r < n { a[k * n + i + r] } else { 0.0 }));
            }
        }
        panel.subtract(a, n, e..n, &coefficients, true);
    }
    true
}

/// Replaces an upper triangle by its inverse.
#[inline(always)]
fn invert(a: &mut [f64], n: usize, panel: &mut Panel) {
    let mut coefficients: Vec<[f64; HIGH]> = Vec::new();
    for b in (0..n).step_by(BLOCK).rev() {
        let e = n.min(b + BLOCK);
        // Left of the block's end there is the triangle, right of it what is known of the inverse so far.
        for i in (b..e).rev() {
            let (above, below) = a.split_at_mut((i + 1) * n);
            let row = &mut above[i * n..];
            let own: [f64; BLOCK] = std::array::from_fn(|m| if i + m < e { row[i + m] } else { 0.0 });
            row[i] = 1.0;
            row[i + 1..e].fill(0.0);
            for m in i + 1..e {
                let from = &below[(m - i - 1) * n..][m..n];
                subtract_row(&mut row[m..n], own[m - i], from);
            }
            for x in &mut row[i..n] {
                *x /= own[0];
            }
        }
        if b == 0 {
            break;
        }
        // The lower triangle of the block may hold anything.
        for i in b + 1..e {
            a[i * n + b..i * n + i].fill(0.0);
        }
        panel.take(a, n, b..e, b);
        coefficients.clear();
        for i in (0..b).step_by(HIGH) {
            for k in b..e {
                coefficients.push(std::array::from_fn(|r| if i + r < b { a[(i + r) * n + k] } else { 0.0 }));
            }
            for r in i..b.min(i + HIGH) {
                a[r * n + b..r * n + e].fill(0.0);
            }
        }
        panel.subtract(a, n, 0..b, &coefficients, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `x^T x / samples` of numbers that look random.
    fn hessian(n: usize, samples: usize) -> Vec<f32> {
        let mut state = 7u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 40) as f64 / f64::from(1u32 << 24) - 0.5
        };
        let mut h = vec![0f64; n * n];
        for _ in 0..samples {
            let shared = next();
            let x: Vec<f64> = (0..n).map(|j| (next() + shared) * (1.0 + (j % 5) as f64)).collect();
            for i in 0..n {
                for j in 0..n {
                    h[i * n + j] += x[i] * x[j] / samples as f64;
                }
            }
        }
        h.iter().map(|x| *x as f32).collect()
    }

    fn make(h: &[f32], n: usize, level: Level, by_activity: bool) -> Result<Factor, FactorError<()>> {
        let damping = Damping { part: 0.05, by_activity };
        Factor::new_at(level, n, damping, |i, out| {
            out.copy_from_slice(&h[i * n..][..n]);
            Ok(())
        })
    }

    #[test]
    fn the_factors_product_is_the_damped_inverse() {
        for n in [1, 3, 8, 63, 64, 65, 130, 203] {
            for by_activity in [false, true] {
                let h = hessian(n, 2 * n + 3);
                let f = make(&h, n, Level::Scalar, by_activity).unwrap();
                let mean = (0..n).map(|i| f64::from(h[i * n + i])).sum::<f64>() / n as f64;
                let at = |i: usize, j: usize| {
                    let (p, q) = (f.column(i), f.column(j));
                    f64::from(h[p * n + q]) + if i == j { 0.05 * mean } else { 0.0 }
                };
                let u = |i: usize, j: usize| if j < i { 0.0 } else { f64::from(f.row(i)[j - i]) };
                // H U^T U must be the identity.
                let inverse: Vec<f64> =
                    (0..n * n).map(|x| (0..n).map(|k| u(k, x / n) * u(k, x % n)).sum()).collect();
                for i in 0..n {
                    for j in 0..n {
                        let got: f64 = (0..n).map(|k| at(i, k) * inverse[k * n + j]).sum();
                        let far = (got - f64::from(u8::from(i == j))).abs();
                        assert!(far < 2e-4, "{n} columns, row {i}, column {j}: {far}");
                    }
                }
            }
        }
    }

    #[test]
    fn levels_make_the_same_bits() {
        let (n, h) = (150, hessian(150, 400));
        let scalar = make(&h, n, Level::Scalar, true).unwrap();
        for level in [Level::Avx2, Level::Avx512, Level::Neon] {
            let other = make(&h, n, level, true).unwrap();
            assert!(scalar.packed.iter().zip(&other.packed).all(|(a, b)| a.to_bits() == b.to_bits()));
        }
    }

    #[test]
    fn what_is_no_hessian_is_told() {
        let good = hessian(9, 30);
        let with = |at: usize, x: f32| {
            let mut h = good.clone();
            h[at] = x;
            make(&h, 9, Level::Scalar, false).unwrap_err()
        };
        assert_eq!(with(11, f32::NAN), FactorError::NonFinite { row: 1, column: 2 });
        assert_eq!(with(20, -1.0), FactorError::Negative { column: 2 });
        assert_eq!(with(11, 90.0), FactorError::Asymmetric { row: 1, column: 2 });
        let mut h = vec![1f32; 16];
        (h[1], h[4]) = (5.0, 5.0);
        assert_eq!(make(&h, 4, Level::Scalar, false).unwrap_err(), FactorError::NotPositive);
    }

    #[test]
    fn columns_that_are_always_zero_do_not_count() {
        let n = 12;
        let mut h = hessian(n, 40);
        for k in 0..n {
            (h[5 * n + k], h[k * n + 5]) = (0.0, 0.0);
        }
        let f = make(&h, n, Level::Scalar, false).unwrap();
        assert!((0..n).all(|i| f.is_dead(i) == (i == 5)));
        assert!(f.row(5)[1..].iter().all(|x| *x == 0.0), "nothing is fed back");
    }
}
