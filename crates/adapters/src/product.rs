//! Products of two small factors, in `f32`, each sum in order of rank with fused multiply-adds: that is one rounding per
//! term on every machine, and what the matrix products of torch on a CPU give for the ranks that adapters have.

/// Rows that go over the columns together.
const ROWS: usize = 4;
/// Columns whose sums stay in the nearest cache.
const COLUMNS: usize = 512;

/// `out[i][j] = sum over k of left[i][k] * right[k][j]`; `rank` is the length of `left`'s rows, `out`'s rows have `n`.
pub(crate) fn multiply(left: &[f32], right: &[f32], rank: usize, n: usize, out: &mut [f32]) {
    if rank == 0 || n == 0 {
        out.fill(0.0);
        return;
    }
    for (left, out) in left.chunks(ROWS * rank).zip(out.chunks_mut(ROWS * n)) {
        if left.len() == ROWS * rank {
            four(left, right, rank, n, out);
        } else {
            for (left, out) in left.chunks(rank).zip(out.chunks_mut(n)) {
                one(left, right, n, out);
            }
        }
    }
}

#[multiversion::multiversion(targets("x86_64+avx512f+fma", "x86_64+avx2+fma"))]
fn four(left: &[f32], right: &[f32], rank: usize, n: usize, out: &mut [f32]) {
    let (a, rest) = out.split_at_mut(n);
    let (b, rest) = rest.split_at_mut(n);
    let (c, d) = rest.split_at_mut(n);
    for start in (0..n).step_by(COLUMNS) {
        let end = n.min(start + COLUMNS);
        let (a, b, c, d) = (&mut a[start..end], &mut b[start..end], &mut c[start..end], &mut d[start..end]);
        for x in [&mut *a, &mut *b, &mut *c, &mut *d] {
            x.fill(0.0);
        }
        for k in 0..rank {
            let row = &right[k * n + start..k * n + end];
            let (p, q, r, s) = (left[k], left[rank + k], left[2 * rank + k], left[3 * rank + k]);
            for ((((x, a), b), c), d) in row.iter().zip(&mut *a).zip(&mut *b).zip(&mut *c).zip(&mut *d) {
                *a = p.mul_add(*x, *a);
                *b = q.mul_add(*x, *b);
                *c = r.mul_add(*x, *c);
                *d = s.mul_add(*x, *d);
            }
        }
    }
}

#[multiversion::multiversion(targets("x86_64+avx512f+fma", "x86_64+avx2+fma"))]
fn one(left: &[f32], right: &[f32], n: usize, out: &mut [f32]) {
    out.fill(0.0);
    for (p, row) in left.iter().zip(right.chunks(n)) {
        for (x, out) in row.iter().zip(&mut *out) {
            *out = p.mul_add(*x, *out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shape_is_the_plain_sum() {
        let value = |i: usize| ((i * 7919 % 1009) as f32 - 500.0) / 37.0;
        for (rows, rank, n) in [(1, 1, 1), (4, 3, 513), (5, 16, 7), (9, 2, 1030), (3, 0, 2)] {
            let left: Vec<f32> = (0..rows * rank).map(value).collect();
            let right: Vec<f32> = (0..rank * n).map(|i| value(i + 5)).collect();
            let mut out = vec![f32::NAN; rows * n];
            multiply(&left, &right, rank, n, &mut out);
            for i in 0..rows {
                for j in 0..n {
                    let want = (0..rank).fold(0f32, |s, k| left[i * rank + k].mul_add(right[k * n + j], s));
                    assert_eq!(out[i * n + j].to_bits(), want.to_bits(), "{rows}x{rank}x{n} at {i},{j}");
                }
            }
        }
    }
}
