//! Passes over the rows of a matrix: in tiles, by several threads, with sums in a fixed order.
//!
//! A *tile* is what is read at once; a *stripe* is some tiles whose sums are taken by one thread. Both follow from the
//! shape alone. Stripes end in any order, and are added in theirs.

use crate::{
    Matrix,
    kernel::{COLUMNS, Panels},
};
use std::{
    ops::Range,
    sync::{
        Condvar, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

/// Elements of a tile: it stays in the second cache while both products go through it.
const TILE: usize = 1 << 19;

/// Stripes that a matrix has at most: more threads than that are of no use to it.
const STRIPES: usize = 32;

/// How the rows of a matrix are divided.
#[derive(Clone, Copy)]
pub(crate) struct Division {
    rows: usize,
    /// Rows of a tile.
    pub(crate) tile: usize,
    /// Rows of a stripe.
    pub(crate) stripe: usize,
}

impl Division {
    pub(crate) fn of(rows: usize, columns: usize) -> Self {
        let tile = (TILE / columns.max(1)).clamp(1, rows.max(1));
        Self { rows, tile, stripe: rows.div_ceil(STRIPES).max(1).next_multiple_of(tile) }
    }

    pub(crate) fn stripes(&self) -> usize {
        self.rows.div_ceil(self.stripe)
    }

    fn stripe(&self, i: usize) -> Range<usize> {
        i * self.stripe..self.rows.min((i + 1) * self.stripe)
    }

    fn tiles(&self, stripe: usize) -> impl Iterator<Item = Range<usize>> + use<> {
        let (rows, tile) = (self.stripe(stripe), self.tile);
        let end = rows.end;
        rows.step_by(tile).map(move |first| first..end.min(first + tile))
    }
}

/// Rows that are read at once.
pub fn tile_rows(rows: usize, columns: usize) -> usize {
    Division::of(rows, columns).tile
}

/// Floats that a thread holds in a pass, beside its sums.
pub(crate) fn tile_floats(rows: usize, columns: usize, width: usize) -> u64 {
    let tile = Division::of(rows, columns).tile as u64;
    tile * (columns as u64 + 2 * width.next_multiple_of(COLUMNS) as u64)
}

/// Sum of squares, in eight sums of their own.
pub(crate) fn squares(x: &[f32]) -> f64 {
    let (chunks, rest) = x.as_chunks::<8>();
    let mut sums = [0f64; 8];
    for chunk in chunks {
        for (s, x) in sums.iter_mut().zip(chunk) {
            *s += f64::from(*x) * f64::from(*x);
        }
    }
    sums.iter().sum::<f64>() + rest.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>()
}

/// Runs `work` for every number below `count` on some threads; `take` gets what it gives in the numbers' order. The error
/// with the smallest number is the one that comes back.
fn ordered<T, E: Send>(
    count: usize,
    threads: usize,
    work: impl Fn(usize) -> Result<T, E> + Sync,
    take: impl FnMut(usize, T) + Send,
) -> Result<(), E> {
    struct Turn<F, E> {
        next: usize,
        take: F,
        failed: Option<E>,
    }
    let turn = Mutex::new(Turn { next: 0, take, failed: None });
    let (moved, number) = (Condvar::new(), AtomicUsize::new(0));
    let worker = || {
        loop {
            let i = number.fetch_add(1, Ordering::Relaxed);
            if i >= count {
                return;
            }
            let result = work(i);
            let guard = turn.lock().unwrap_or_else(PoisonError::into_inner);
            let mut guard = moved
                .wait_while(guard, |t| t.next != i && t.failed.is_none())
                .unwrap_or_else(PoisonError::into_inner);
            if guard.failed.is_some() {
                return;
            }
            match result {
                Ok(value) => {
                    (guard.take)(i, value);
                    guard.next += 1;
                }
                Err(e) => guard.failed = Some(e),
            }
            moved.notify_all();
        }
    };
    thread::scope(|s| {
        for _ in 1..threads.min(count) {
            // Where the system gives no more threads, this one does the work.
            if thread::Builder::new().spawn_scoped(s, worker).is_err() {
                break;
            }
        }
        worker();
    });
    turn.into_inner().unwrap_or_else(PoisonError::into_inner).failed.map_or(Ok(()), Err)
}

/// A matrix and how passes go over it.
pub(crate) struct Passes<'a, M> {
    pub(crate) matrix: &'a M,
    /// What elements are multiplied by: a power of two.
    pub(crate) scale: f32,
    pub(crate) threads: usize,
}

impl<M: Matrix> Passes<'_, M> {
    fn division(&self) -> Division {
        Division::of(self.matrix.rows(), self.matrix.columns())
    }

    /// Goes through the tiles of a stripe.
    fn each(
        &self,
        division: Division,
        stripe: usize,
        mut see: impl FnMut(Range<usize>, &mut [f32]),
    ) -> Result<(), M::Error> {
        let mut tile = vec![0f32; division.tile * self.matrix.columns()];
        for rows in division.tiles(stripe) {
            let tile = &mut tile[..rows.len() * self.matrix.columns()];
            self.matrix.read(rows.clone(), tile)?;
            if self.scale != 1.0 {
                for x in tile.iter_mut() {
                    *x *= self.scale;
                }
            }
            see(rows, tile);
        }
        Ok(())
    }

    /// `D^T D V`, and the squared norm of `D`.
    pub(crate) fn gram(&self, v: &Panels) -> Result<(Panels, f64), M::Error> {
        let division = self.division();
        let mut sums = Panels::zeros(v.rows(), v.columns());
        let mut energy = 0.0;
        let work = |stripe| {
            let mut z = Panels::zeros(v.rows(), v.columns());
            let mut energy = 0.0;
            self.each(division, stripe, |rows, tile| {
                let part = squares(tile);
                energy += part;
                // Most of a checkpoint may not have changed.
                if part > 0.0 {
                    let mut y = Panels::zeros(rows.len(), v.columns());
                    v.multiply(tile, &mut y);
                    z.add_transposed(tile, &y);
                }
            })?;
            Ok((z, energy))
        };
        ordered(division.stripes(), self.threads, work, |_, (z, part): (Panels, f64)| {
            sums.add(&z);
            energy += part;
        })?;
        Ok((sums, energy))
    }

    /// `D V`, row by row, and the squared norm of `D`.
    pub(crate) fn project(&self, v: &Panels) -> Result<(Vec<f32>, f64), M::Error> {
        let (division, width) = (self.division(), v.columns());
        let mut all = vec![0f32; self.matrix.rows() * width];
        let mut energy = 0.0;
        let work = |stripe| {
            let mut out = Vec::with_capacity(division.stripe(stripe).len() * width);
            let mut energy = 0.0;
            self.each(division, stripe, |rows, tile| {
                energy += squares(tile);
                let mut y = Panels::zeros(rows.len(), width);
                v.multiply(tile, &mut y);
                out.extend(
                    (0..rows.len()).flat_map(|i| (0..width).map(move |j| (i, j))).map(|(i, j)| y.at(i, j)),
                );
            })?;
            Ok((out, energy))
        };
        ordered(division.stripes(), self.threads, work, |stripe, (out, part): (Vec<f32>, f64)| {
            let first = division.stripe(stripe).start * width;
            all[first..first + out.len()].copy_from_slice(&out);
            energy += part;
        })?;
        Ok((all, energy))
    }

    /// All elements, row by row: for matrices as small as their approximation.
    pub(crate) fn collect(&self) -> Result<(Vec<f32>, f64), M::Error> {
        let (division, columns) = (self.division(), self.matrix.columns());
        let mut all = vec![0f32; self.matrix.rows() * columns];
        for stripe in 0..division.stripes() {
            self.each(division, stripe, |rows, tile| {
                all[rows.start * columns..rows.end * columns].copy_from_slice(tile);
            })?;
        }
        let energy = squares(&all);
        Ok((all, energy))
    }
}

/// Squared norm of what `left * right` leaves of a matrix: `left` is `[rows, rank]` and `right` `[rank, columns]`, both row
/// by row. This is one pass more.
///
/// # Errors
/// What reading rows gives.
pub fn residual<M: Matrix>(
    matrix: &M,
    left: &[f32],
    right: &[f32],
    rank: usize,
    threads: usize,
) -> Result<f64, M::Error> {
    let columns = matrix.columns();
    let passes = Passes { matrix, scale: 1.0, threads };
    let division = passes.division();
    // The narrow side stays as it is and the wide one is in panels, a few columns at a time.
    let right = Panels::new(rank, columns, |k, j| right[k * columns + j]);
    let mut energy = 0.0;
    let work = |stripe| {
        let mut energy = 0.0;
        let mut y = Panels::zeros(division.tile, columns);
        passes.each(division, stripe, |rows, tile| {
            if y.rows() != rows.len() {
                y = Panels::zeros(rows.len(), columns);
            }
            right.multiply(&left[rows.start * rank..rows.end * rank], &mut y);
            for (i, row) in tile.chunks_exact_mut(columns.max(1)).enumerate() {
                y.subtract_row(i, row);
            }
            energy += squares(tile);
        })?;
        Ok(energy)
    };
    ordered(division.stripes(), threads, work, |_, part: f64| energy += part)?;
    Ok(energy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stripes_cover_rows_once() {
        for (rows, columns) in [(0, 5), (1, 1), (7, 1 << 20), (5000, 1000), (128_256, 2048), (3, 0)] {
            let d = Division::of(rows, columns);
            let all: Vec<Range<usize>> = (0..d.stripes()).flat_map(|s| d.tiles(s)).collect();
            assert_eq!(all.iter().map(ExactSizeIterator::len).sum::<usize>(), rows, "{rows} {columns}");
            assert!(all.windows(2).all(|w| w[0].end == w[1].start), "{rows} {columns}");
            assert!(d.stripes() <= STRIPES);
        }
    }

    #[test]
    fn results_are_taken_in_order_and_the_first_error_counts() {
        for threads in [1, 3] {
            let mut seen = Vec::new();
            ordered::<_, ()>(20, threads, |i| Ok(i * i), |i, v| seen.push((i, v))).unwrap();
            assert_eq!(seen, (0..20).map(|i| (i, i * i)).collect::<Vec<_>>());
            let error = ordered(20, threads, |i| if i < 5 { Ok(()) } else { Err(i) }, |_, ()| ());
            assert_eq!(error, Err(5));
        }
    }
}
