//! What is small: orthonormal bases, and decompositions of symmetric and of square matrices, in `f64` by nalgebra.

use crate::kernel::Panels;
use nalgebra::{DMatrix, SVD, SymmetricEigen};

/// Iterations after which a decomposition has failed: LAPACK allows 30 for each value.
const ITERATIONS: usize = 100;

/// An orthonormal basis of the columns' span, as long as there are rows for it.
pub(crate) fn orthonormal(z: &Panels) -> Panels {
    let q = DMatrix::from_fn(z.rows(), z.columns(), |i, j| f64::from(z.at(i, j))).qr().q();
    Panels::new(z.rows(), q.ncols(), |i, j| q[(i, j)] as f32)
}

/// Singular values of a tall matrix (row by row) in descending order, and its right singular vectors in columns. Through
/// the eigenvalues of the Gram matrix: of `f32` elements the squares are exact in `f64`, and no copy of the matrix is made.
pub(crate) fn right_vectors(y: &[f32], width: usize) -> Option<(Vec<f64>, DMatrix<f64>)> {
    let mut gram = vec![0f64; width * width];
    let mut row = vec![0f64; width];
    for y in y.chunks_exact(width.max(1)) {
        for (wide, y) in row.iter_mut().zip(y) {
            *wide = f64::from(*y);
        }
        for (i, sums) in gram.chunks_exact_mut(width).enumerate() {
            let factor = row[i];
            for (s, x) in sums[i..].iter_mut().zip(&row[i..]) {
                *s += factor * x;
            }
        }
    }
    let symmetric = DMatrix::from_fn(width, width, |i, j| gram[i.min(j) * width + i.max(j)]);
    let eigen = SymmetricEigen::try_new(symmetric, f64::EPSILON, ITERATIONS * width.max(1))?;
    let mut order: Vec<usize> = (0..width).collect();
    order.sort_by(|a, b| eigen.eigenvalues[*b].total_cmp(&eigen.eigenvalues[*a]));
    let values = order.iter().map(|i| eigen.eigenvalues[*i].max(0.0).sqrt()).collect();
    Some((values, DMatrix::from_fn(width, width, |i, j| eigen.eigenvectors[(i, order[j])])))
}

/// `U`, the singular values in descending order, and `V` of `left * right^T`; the factors have as many columns.
pub(crate) fn product(
    left: DMatrix<f64>,
    right: DMatrix<f64>,
) -> Option<(DMatrix<f64>, Vec<f64>, DMatrix<f64>)> {
    let (left, right) = (left.qr(), right.qr());
    let middle = left.r() * right.r().transpose();
    let iterations = ITERATIONS * middle.nrows().max(middle.ncols()).max(1);
    let svd = SVD::try_new(middle, true, true, f64::EPSILON, iterations)?;
    let (u, v_t) = (svd.u?, svd.v_t?);
    Some((left.q() * u, svd.singular_values.iter().copied().collect(), right.q() * v_t.transpose()))
}
