//! Products of two small factors, in `f32`, each sum in order of rank with fused multiply-adds: that is one rounding per
//! term on every machine, and what the matrix products of torch on a CPU give for the sizes that layers have.

/// Rows whose sums are in registers together.
const ROWS: usize = 6;
/// Columns whose sums are in registers together: two vectors of AVX2, one of AVX-512.
const COLUMNS: usize = 16;

/// The right factor, `[rank, n]`, in panels of a few columns: what is read together lies together. Rows of a matrix are
/// often a power of two apart, which caches do not like.
pub(crate) struct Packed {
    panels: Vec<[f32; COLUMNS]>,
    rank: usize,
    n: usize,
}

impl Packed {
    /// Packs; `at(k, j)` is the element in row `k`, column `j`.
    pub(crate) fn new(rank: usize, n: usize, at: impl Fn(usize, usize) -> f32) -> Self {
        let mut panels = vec![[0f32; COLUMNS]; n.div_ceil(COLUMNS) * rank];
        for (i, panel) in panels.iter_mut().enumerate() {
            let (first, k) = (i / rank * COLUMNS, i % rank);
            for (j, x) in panel.iter_mut().enumerate().take(n - first) {
                *x = at(k, first + j);
            }
        }
        Self { panels, rank, n }
    }

    /// Floats that it takes.
    pub(crate) fn floats(rank: u64, n: u64) -> u64 {
        n.div_ceil(COLUMNS as u64).saturating_mul(COLUMNS as u64).saturating_mul(rank)
    }

    /// `out[i][j] = sum over k of left[i][k] * self[k][j]`.
    pub(crate) fn multiply(&self, left: &[f32], out: &mut [f32]) {
        self.each(left, out, None);
    }

    /// `out[i][j] += scale * sum over k of left[i][k] * self[k][j]`: the sum is scaled, then added, each rounded.
    pub(crate) fn add_to(&self, left: &[f32], scale: f32, out: &mut [f32]) {
        self.each(left, out, Some(scale));
    }

    fn each(&self, left: &[f32], out: &mut [f32], add: Option<f32>) {
        if self.rank == 0 || self.n == 0 {
            if add.is_none() {
                out.fill(0.0);
            }
            return;
        }
        for (left, out) in left.chunks(ROWS * self.rank).zip(out.chunks_mut(ROWS * self.n)) {
            if left.len() == ROWS * self.rank {
                rows::<ROWS>(&self.panels, left, (self.rank, self.n), add, out);
            } else {
                for (left, out) in left.chunks(self.rank).zip(out.chunks_mut(self.n)) {
                    rows::<1>(&self.panels, left, (self.rank, self.n), add, out);
                }
            }
        }
    }
}

#[multiversion::multiversion(targets("x86_64+avx512f+fma", "x86_64+avx2+fma"))]
fn rows<const R: usize>(
    panels: &[[f32; COLUMNS]],
    left: &[f32],
    (rank, n): (usize, usize),
    add: Option<f32>,
    out: &mut [f32],
) {
    for (p, panel) in panels.chunks_exact(rank).enumerate() {
        let mut sums = [[0f32; COLUMNS]; R];
        for (k, x) in panel.iter().enumerate() {
            for (r, sums) in sums.iter_mut().enumerate() {
                let factor = left[r * rank + k];
                for (sum, x) in sums.iter_mut().zip(x) {
                    *sum = factor.mul_add(*x, *sum);
                }
            }
        }
        let (start, end) = (p * COLUMNS, n.min((p + 1) * COLUMNS));
        for (r, sums) in sums.iter().enumerate() {
            let out = &mut out[r * n + start..r * n + end];
            match add {
                None => out.copy_from_slice(&sums[..end - start]),
                // While sums are in registers: another pass over them would cost as much as the sums.
                Some(scale) => {
                    for (o, sum) in out.iter_mut().zip(sums) {
                        *o += sum * scale;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shape_is_the_plain_sum() {
        let value = |i: usize| ((i * 7919 % 1009) as f32 - 500.0) / 37.0;
        for (rows, rank, n) in [(1, 1, 1), (6, 3, 513), (5, 16, 7), (13, 2, 1030), (3, 0, 2), (7, 5, 16)] {
            let left: Vec<f32> = (0..rows * rank).map(value).collect();
            let right: Vec<f32> = (0..rank * n).map(|i| value(i + 5)).collect();
            let mut out = vec![f32::NAN; rows * n];
            let packed = Packed::new(rank, n, |k, j| right[k * n + j]);
            packed.multiply(&left, &mut out);
            let mut added: Vec<f32> = (0..rows * n).map(|i| value(i + 9)).collect();
            packed.add_to(&left, 0.3, &mut added);
            for (i, x) in added.iter().enumerate() {
                assert_eq!(x.to_bits(), (value(i + 9) + out[i] * 0.3).to_bits(), "{rows}x{rank}x{n} at {i}");
            }
            for i in 0..rows {
                for j in 0..n {
                    let want = (0..rank).fold(0f32, |s, k| left[i * rank + k].mul_add(right[k * n + j], s));
                    assert_eq!(out[i * n + j].to_bits(), want.to_bits(), "{rows}x{rank}x{n} at {i},{j}");
                }
            }
        }
    }
}
