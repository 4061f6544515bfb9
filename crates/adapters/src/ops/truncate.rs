//! A product of two factors as one of lower rank, the nearest there is.

use super::floats::Compute;
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};
use tensormill_lowrank::{Svd, product};
use tensormill_model::{Error, Locality, Result, Rows, fingerprint};
use tensormill_tensor::Shape;

/// Which of the two new factors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// `U S`, `[out, rank]`.
    Left,
    /// `V`, `[rank, in]`.
    Right,
}

/// The decompositions that were made last: both factors of a product, and all tiles of each, ask for the same one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Recent(Arc<Mutex<Kept>>);

/// Decompositions by what they are of, the oldest first.
type Kept = VecDeque<(u64, Arc<Svd>)>;

impl Recent {
    /// More than workers are at one time on different products.
    const KEPT: usize = 4;

    fn get(&self, left: &[f32], right: &[f32], inner: usize, rank: usize) -> Option<Arc<Svd>> {
        let bits = |x: &[f32]| fingerprint(x.iter().flat_map(|x| x.to_bits().to_le_bytes()));
        let key = bits(left) ^ bits(right).rotate_left(1) ^ (rank as u64).rotate_left(32);
        let lock = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, known)) = lock().iter().find(|(k, _)| *k == key) {
            return Some(Arc::clone(known));
        }
        let mut svd = product(left, right, inner)?;
        svd.truncate(rank);
        let svd = Arc::new(svd);
        let mut kept = lock();
        kept.push_back((key, Arc::clone(&svd)));
        if kept.len() > Self::KEPT {
            kept.pop_front();
        }
        Some(svd)
    }
}

/// One factor of the largest `rank` singular values of a product. Inputs: `B` `[out, inner]`, `A` `[inner, in]`.
#[derive(Clone, Debug)]
pub(crate) struct Truncate {
    pub(crate) side: Side,
    pub(crate) rank: u64,
    pub(crate) recent: Recent,
}

impl Compute for Truncate {
    fn describe(&self) -> String {
        format!("truncate[{:?} {}]", self.side, self.rank)
    }
    fn inputs(&self) -> Vec<&'static str> {
        vec!["the left factor", "the right factor"]
    }
    fn shape(&self, inputs: &[&Shape]) -> Result<Shape> {
        let (b, a) = (inputs[0], inputs[1]);
        if b.row_len() != a.rows() || b.row_len() == 0 {
            return Err(Error::mismatch(format!("factors {b} and {a} have no product")));
        }
        Ok(Shape::new(match self.side {
            Side::Left => vec![b.rows(), self.rank],
            Side::Right => vec![self.rank, a.row_len()],
        })?)
    }
    fn locality(&self, _: usize) -> Locality {
        Locality::Whole
    }
    fn scratch(&self, inputs: &[&Shape]) -> u64 {
        // In doubles: both factors, their orthonormal forms, and vectors; the decompositions that are kept.
        let all = inputs.iter().map(|s| s.elements()).fold(0, u64::saturating_add);
        all.saturating_mul(8 + Recent::KEPT as u64)
    }
    fn run(&self, rows: Rows, shapes: &[&Shape], inputs: &[Vec<f32>], out: &mut [f32]) {
        let (rank, inner) = (self.rank as usize, shapes[0].row_len() as usize);
        let Some(svd) = self.recent.get(&inputs[0], &inputs[1], inner, rank) else {
            // Said where values that cannot be stored are looked for.
            out.fill(f32::NAN);
            return;
        };
        let (found, first) = (svd.rank(), rows.start as usize);
        out.fill(0.0);
        match self.side {
            Side::Left => {
                for (out, u) in out.chunks_mut(rank).zip(svd.u[first * found..].chunks(found.max(1))) {
                    for ((o, u), s) in out.iter_mut().zip(u).zip(&svd.s) {
                        *o = (f64::from(*u) * s) as f32;
                    }
                }
            }
            Side::Right => {
                let n = shapes[1].row_len() as usize;
                let from = svd.v.get(first * n..).unwrap_or(&[]);
                out.iter_mut().zip(from).for_each(|(o, v)| *o = *v);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_part_is_kept() {
        // Two orthogonal directions, one ten times the other; the inner dimension is larger than the rank.
        let (b, a) = (vec![10.0, 0.0, 0.0, 0.0, 1.0, 0.0], vec![1.0, 0.0, 0.0, 1.0, 0.0, 0.0]);
        let shapes = [&Shape::new(vec![2, 3]).unwrap(), &Shape::new(vec![3, 2]).unwrap()];
        let of = |side, rank, rows: Rows| {
            let op = Truncate { side, rank, recent: Recent::default() };
            let n = op.shape(&shapes).unwrap().row_len();
            let mut out = vec![f32::NAN; ((rows.end - rows.start) * n) as usize];
            op.run(rows, &shapes, &[b.clone(), a.clone()], &mut out);
            out
        };
        let (left, right) = (of(Side::Left, 1, 0..2), of(Side::Right, 1, 0..1));
        let product: Vec<f32> = left.iter().flat_map(|l| right.iter().map(move |r| l * r)).collect();
        for (got, want) in product.iter().zip([10.0, 0.0, 0.0, 0.0]) {
            assert!((got - want).abs() < 1e-6, "{product:?}");
        }
        assert_eq!(of(Side::Left, 1, 1..2), left[1..]);
        // More than there are: zeros.
        assert_eq!(of(Side::Right, 3, 2..3), [0.0, 0.0]);
    }
}
