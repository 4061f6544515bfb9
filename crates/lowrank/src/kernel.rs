//! The two products of a tile of rows: with a tall narrow matrix, and its transpose with what came out. Both sum in an
//! order that depends on nothing but the sizes, by fused multiply-adds.

/// Columns of a panel: two vectors of AVX2, one of AVX-512.
pub(crate) const COLUMNS: usize = 16;

/// Terms that are summed on their own before they join the others: what is read together stays in the first cache, and
/// rounding errors grow with the number of blocks in place of the number of terms.
const BLOCK: usize = 256;

/// A row of a panel.
type Lane = [f32; COLUMNS];

/// A matrix of `rows` by `columns` in panels of a few columns: what is read together lies together.
#[derive(Clone)]
pub(crate) struct Panels {
    lanes: Vec<Lane>,
    rows: usize,
    columns: usize,
}

impl Panels {
    pub(crate) fn zeros(rows: usize, columns: usize) -> Self {
        Self { lanes: vec![[0.0; COLUMNS]; columns.div_ceil(COLUMNS) * rows], rows, columns }
    }

    /// `at(i, j)` is the element in row `i`, column `j`.
    pub(crate) fn new(rows: usize, columns: usize, at: impl Fn(usize, usize) -> f32) -> Self {
        let mut this = Self::zeros(rows, columns);
        for (p, panel) in this.lanes.chunks_mut(rows.max(1)).enumerate() {
            let first = p * COLUMNS;
            for (i, lane) in panel.iter_mut().enumerate() {
                for (j, x) in lane.iter_mut().enumerate().take(columns - first) {
                    *x = at(i, first + j);
                }
            }
        }
        this
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }
    pub(crate) fn columns(&self) -> usize {
        self.columns
    }
    pub(crate) fn at(&self, i: usize, j: usize) -> f32 {
        self.lanes[j / COLUMNS * self.rows + i][j % COLUMNS]
    }
    /// Takes row `i` from `row`.
    pub(crate) fn subtract_row(&self, i: usize, row: &mut [f32]) {
        for (lane, x) in self.lanes.iter().skip(i).step_by(self.rows).zip(row.chunks_mut(COLUMNS)) {
            for (x, y) in x.iter_mut().zip(lane) {
                *x -= y;
            }
        }
    }
    pub(crate) fn add(&mut self, other: &Self) {
        for (a, b) in self.lanes.iter_mut().flatten().zip(other.lanes.iter().flatten()) {
            *a += b;
        }
    }
    pub(crate) fn clear(&mut self) {
        self.lanes.fill([0.0; COLUMNS]);
    }

    /// `out = left * self`, where `left` has rows as long as `self` has.
    pub(crate) fn multiply(&self, left: &[f32], out: &mut Self) {
        debug_assert_eq!((left.len(), self.columns), (out.rows * self.rows, out.columns));
        out.clear();
        if self.rows > 0 && out.rows > 0 {
            for (right, out) in self.lanes.chunks(self.rows).zip(out.lanes.chunks_mut(out.rows)) {
                times(left, right, out);
            }
        }
    }

    /// `self += left^T * right`, where `left` has rows as long as `self` has.
    pub(crate) fn add_transposed(&mut self, left: &[f32], right: &Self) {
        debug_assert_eq!((left.len(), self.columns), (right.rows * self.rows, right.columns));
        if self.rows > 0 && right.rows > 0 {
            let (n, k) = (self.rows, right.rows);
            for (out, right) in self.lanes.chunks_mut(n).zip(right.lanes.chunks(k)) {
                transposed_times(left, right, out);
            }
        }
    }
}

/// Rows of the left factor whose sums are in registers together: results do not depend on it.
const ROWS: usize = 8;

/// One panel of `left * right`.
fn times(left: &[f32], right: &[Lane], out: &mut [Lane]) {
    let n = right.len();
    for (b, block) in right.chunks(BLOCK).enumerate() {
        let first = b * BLOCK;
        for (left, out) in left.chunks(ROWS * n).zip(out.chunks_mut(ROWS)) {
            if out.len() == ROWS {
                rows::<ROWS>(&left[first..], n, block, out);
            } else {
                for (left, out) in left.chunks(n).zip(out.chunks_mut(1)) {
                    rows::<1>(&left[first..], n, block, out);
                }
            }
        }
    }
}

/// A few rows by a block of a panel; rows begin `n` apart.
#[allow(
    clippy::needless_range_loop,
    reason = "plain indices unroll: with iterators, sums leave their registers"
)]
#[multiversion::multiversion(targets("x86_64+avx512f+fma", "x86_64+avx2+fma"))]
fn rows<const R: usize>(left: &[f32], n: usize, block: &[Lane], out: &mut [Lane]) {
    let mut sums = [[0f32; COLUMNS]; R];
    for (k, lane) in block.iter().enumerate() {
        for r in 0..R {
            let factor = left[r * n + k];
            for c in 0..COLUMNS {
                sums[r][c] = factor.mul_add(lane[c], sums[r][c]);
            }
        }
    }
    for (out, sums) in out.iter_mut().zip(&sums) {
        for (o, s) in out.iter_mut().zip(sums) {
            *o += s;
        }
    }
}

/// Terms that are added to a row of the result while it is in a register: results do not depend on it.
const TERMS: usize = 8;

/// One panel of `out += left^T * right`: rows of the left factor are read along, and what is summed stays in the first cache.
fn transposed_times(left: &[f32], right: &[Lane], out: &mut [Lane]) {
    let n = out.len();
    for (b, out) in out.chunks_mut(BLOCK).enumerate() {
        let first = b * BLOCK;
        for (left, right) in left.chunks(TERMS * n).zip(right.chunks(TERMS)) {
            if right.len() == TERMS {
                terms::<TERMS>(&left[first..], n, right, out);
            } else {
                for (left, right) in left.chunks(n).zip(right.chunks(1)) {
                    terms::<1>(&left[first..], n, right, out);
                }
            }
        }
    }
}

/// A few terms of a block of a panel; rows begin `n` apart.
#[allow(
    clippy::needless_range_loop,
    reason = "plain indices unroll: with iterators, sums leave their registers"
)]
#[multiversion::multiversion(targets("x86_64+avx512f+fma", "x86_64+avx2+fma"))]
fn terms<const T: usize>(left: &[f32], n: usize, right: &[Lane], out: &mut [Lane]) {
    let mut lanes = [[0f32; COLUMNS]; T];
    lanes.copy_from_slice(right);
    for (j, out) in out.iter_mut().enumerate() {
        let mut sum = *out;
        for t in 0..T {
            let factor = left[t * n + j];
            for c in 0..COLUMNS {
                sum[c] = factor.mul_add(lanes[t][c], sum[c]);
            }
        }
        *out = sum;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(i: usize) -> f32 {
        ((i * 7919 % 1009) as f32 - 500.0) / 37.0
    }

    #[test]
    fn products_are_the_plain_sums() {
        for (m, n, l) in [(1, 1, 1), (8, 300, 17), (13, 5, 33), (21, 700, 16), (9, 256, 3)] {
            let left: Vec<f32> = (0..m * n).map(value).collect();
            let right = Panels::new(n, l, |i, j| value(i * l + j + 5));
            let mut y = Panels::new(m, l, |_, _| f32::NAN);
            right.multiply(&left, &mut y);
            let mut z = Panels::new(n, l, |i, j| value(i + j));
            z.add_transposed(&left, &y);
            for j in 0..l {
                for i in 0..m {
                    let terms = |k: usize| f64::from(left[i * n + k]) * f64::from(right.at(k, j));
                    let (want, size) =
                        (0..n).map(terms).fold((0.0, 0.0), |(s, a), t| (s + t, a + f64::abs(t)));
                    assert!((f64::from(y.at(i, j)) - want).abs() <= 1e-6 * size, "{m}x{n}x{l} at {i},{j}");
                }
                for i in 0..n {
                    let terms = |k: usize| f64::from(left[k * n + i]) * f64::from(y.at(k, j));
                    let first = f64::from(value(i + j));
                    let (want, size) =
                        (0..m).map(terms).fold((first, first.abs()), |(s, a), t| (s + t, a + f64::abs(t)));
                    assert!((f64::from(z.at(i, j)) - want).abs() <= 1e-6 * size, "{m}x{n}x{l} at {i},{j}");
                }
            }
        }
    }
}
