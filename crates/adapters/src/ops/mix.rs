//! Several adapters' factors as one (`peft/utils/merge_utils.py`).

use super::floats::Compute;
use tensormill_model::{Error, Locality, Result, Rows, fingerprint, scramble};
use tensormill_tensor::Shape;

/// Which values of a factor are left out before factors are mixed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Prune {
    /// None.
    Nothing,
    /// All but this share, the largest; of equal ones the first.
    Magnitude(f64),
    /// All but about this share, by chance, and the others made larger by as much. The chance of a value depends on the
    /// seed and its place alone.
    Random { density: f64, seed: u64 },
}

/// A weighted sum of factors of one shape.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Mix {
    pub(crate) prune: Prune,
    /// Values count where their sign is the one that most have, and are then averaged (TIES); by how many or by how much
    /// most is told.
    pub(crate) elect: Option<Election>,
    pub(crate) weights: Vec<f32>,
}

/// What a majority of signs is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Election {
    /// The sign of the sum.
    Total,
    /// The sign that more values have.
    Frequency,
}

impl Mix {
    /// A factor with the values that are left of it; `first` is the place of the first value, `input` its number.
    fn pruned(&self, values: &mut [f32], first: u64, input: usize) {
        match self.prune {
            Prune::Nothing => {}
            Prune::Magnitude(density) => {
                let k = (density * values.len() as f64) as usize;
                if density >= 1.0 || k >= values.len() {
                    return;
                }
                let mut order: Vec<u32> = (0..values.len() as u32).collect();
                let size = |i: &u32| values[*i as usize].abs();
                if k > 0 {
                    // Greater first, then earlier; a total order, so that what is left is no accident.
                    let by = |a: &u32, b: &u32| size(b).total_cmp(&size(a)).then(a.cmp(b));
                    order.select_nth_unstable_by(k - 1, by);
                }
                for i in &order[k..] {
                    values[*i as usize] = 0.0;
                }
            }
            Prune::Random { density, .. } if density >= 1.0 => {}
            Prune::Random { density, seed } => {
                let of = |at: u64| {
                    let words = [seed, input as u64, at];
                    fingerprint(words.iter().flat_map(|w| w.to_le_bytes()))
                };
                for (at, x) in (first..).zip(values.iter_mut()) {
                    // The upper bits of a hash, stirred once more, as a number below one.
                    let chance = (scramble(of(at)) >> 11) as f64 / (1u64 << 53) as f64;
                    *x = if chance < density { *x / density as f32 } else { 0.0 };
                }
            }
        }
    }
}

impl Compute for Mix {
    fn describe(&self) -> String {
        format!("mix[{:?} {:?} {:?}]", self.prune, self.elect, self.weights)
    }
    fn inputs(&self) -> Vec<&'static str> {
        vec!["a factor"; self.weights.len()]
    }
    fn shape(&self, inputs: &[&Shape]) -> Result<Shape> {
        let first = inputs.first().ok_or_else(|| Error::usage("nothing to mix"))?;
        match inputs.iter().find(|s| *s != first) {
            None => Ok((*first).clone()),
            Some(other) => Err(Error::mismatch(format!("factors {first} and {other} cannot be mixed"))
                .hint("adapters of different ranks combine by `cat` and `svd`")),
        }
    }
    fn locality(&self, _: usize) -> Locality {
        match self.prune {
            Prune::Magnitude(_) => Locality::Whole,
            _ => Locality::Row,
        }
    }
    fn scratch(&self, inputs: &[&Shape]) -> u64 {
        match self.prune {
            // Copies of the factors, and an order of one of them.
            Prune::Magnitude(_) => {
                inputs.iter().map(|s| s.elements()).fold(0, |a, b| a.saturating_add(2 * b))
            }
            _ => 0,
        }
    }
    fn run(&self, rows: Rows, shapes: &[&Shape], inputs: &[Vec<f32>], out: &mut [f32]) {
        let n = shapes[0].row_len();
        let whole = self.locality(0) == Locality::Whole;
        let first = if whole { 0 } else { rows.start * n };
        let from = if whole { (rows.start * n) as usize } else { 0 };
        let mut pruned = inputs.to_vec();
        for (i, values) in pruned.iter_mut().enumerate() {
            self.pruned(values, first, i);
        }
        for (at, out) in out.iter_mut().enumerate() {
            let values = pruned.iter().map(|x| x[from + at]).zip(&self.weights);
            *out = match self.elect {
                None => values.fold(0.0, |sum, (x, w)| sum + x * w),
                Some(how) => {
                    let sign = |x: f32| if x == 0.0 { 0.0 } else { x.signum() };
                    let vote = |x: f32| if how == Election::Total { x } else { sign(x) };
                    let most = values.clone().fold(0.0, |sum, (x, _)| sum + vote(x));
                    let elected = if most >= 0.0 { 1.0 } else { -1.0 };
                    let agree = values.filter(|(x, _)| sign(*x) == elected);
                    let count = agree.clone().count().max(1) as f32;
                    agree.fold(0.0, |sum, (x, w)| sum + x * w) / count
                }
            };
        }
    }
}

/// Matrices beside each other. Inputs: so many, of as many rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Beside(pub(crate) usize);

impl Compute for Beside {
    fn describe(&self) -> String {
        format!("beside[{}]", self.0)
    }
    fn inputs(&self) -> Vec<&'static str> {
        vec!["a factor"; self.0]
    }
    fn shape(&self, inputs: &[&Shape]) -> Result<Shape> {
        let rows = inputs.first().map_or(0, |s| s.rows());
        if let Some(other) = inputs.iter().find(|s| s.rows() != rows) {
            return Err(Error::mismatch(format!("factors {} and {other} have other rows", inputs[0])));
        }
        let width = inputs.iter().try_fold(0u64, |n, s| n.checked_add(s.row_len()));
        Ok(Shape::new(vec![rows, width.ok_or_else(|| Error::mismatch("rows of 2^64 elements"))?])?)
    }
    fn locality(&self, _: usize) -> Locality {
        Locality::Row
    }
    fn run(&self, _: Rows, shapes: &[&Shape], inputs: &[Vec<f32>], out: &mut [f32]) {
        let width: usize = shapes.iter().map(|s| s.row_len() as usize).sum();
        let mut start = 0;
        for (shape, input) in shapes.iter().zip(inputs) {
            let n = shape.row_len() as usize;
            for (out, row) in out.chunks_mut(width.max(1)).zip(input.chunks(n.max(1))) {
                out[start..start + n].copy_from_slice(row);
            }
            start += n;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(op: &Mix, inputs: &[&[f32]], columns: u64, rows: Rows) -> Vec<f32> {
        let shape = Shape::new(vec![inputs[0].len() as u64 / columns, columns]).unwrap();
        let shapes = vec![&shape; inputs.len()];
        assert_eq!(op.shape(&shapes).unwrap(), shape);
        let part = |x: &&[f32]| match op.locality(0) {
            Locality::Whole => x.to_vec(),
            _ => x[(rows.start * columns) as usize..(rows.end * columns) as usize].to_vec(),
        };
        let inputs: Vec<Vec<f32>> = inputs.iter().map(part).collect();
        let mut out = vec![0f32; ((rows.end - rows.start) * columns) as usize];
        op.run(rows, &shapes, &inputs, &mut out);
        out
    }

    #[test]
    fn signs_are_elected() {
        let (a, b, c) = ([1.0, -3.0, 2.0, 0.0], [1.0, 1.0, -1.0, 0.0], [-5.0, 1.0, -0.5, 4.0]);
        let mut op =
            Mix { prune: Prune::Nothing, elect: Some(Election::Total), weights: vec![1.0, 2.0, 4.0] };
        // Sums -3, -1, 0.5, 4: those with that sign, weighed, over their number.
        assert_eq!(run(&op, &[&a, &b, &c], 2, 0..2), [-20.0, -3.0, 2.0, 16.0]);
        op.elect = Some(Election::Frequency);
        assert_eq!(run(&op, &[&a, &b, &c], 2, 0..2), [1.5, 3.0, -2.0, 16.0]);
        op.elect = None;
        assert_eq!(run(&op, &[&a, &b, &c], 2, 1..2), [-2.0, 16.0]);
    }

    #[test]
    fn the_largest_values_are_left() {
        let op = Mix { prune: Prune::Magnitude(0.5), elect: None, weights: vec![1.0] };
        assert_eq!(run(&op, &[&[1.0, -3.0, 2.0, -2.0]], 2, 0..2), [0.0, -3.0, 2.0, 0.0]);
        assert_eq!(run(&op, &[&[1.0, -3.0, 2.0, -2.0]], 2, 1..2), [2.0, 0.0]);
        let none = Mix { prune: Prune::Magnitude(0.2), ..op };
        assert_eq!(run(&none, &[&[1.0, 2.0, 3.0, 4.0]], 2, 0..2), [0.0; 4]);
    }

    #[test]
    fn chance_depends_on_places_alone() {
        let ones = vec![1.0f32; 40_000];
        let op = |seed| Mix { prune: Prune::Random { density: 0.25, seed }, elect: None, weights: vec![1.0] };
        let all = run(&op(7), &[&ones], 200, 0..200);
        let left = all.iter().filter(|x| **x != 0.0).count() as f64 / 40_000.0;
        assert!((left - 0.25).abs() < 0.01, "{left}");
        assert!(all.iter().all(|x| *x == 0.0 || *x == 4.0));
        assert_eq!(run(&op(7), &[&ones], 200, 50..60), all[10_000..12_000]);
        assert_ne!(run(&op(8), &[&ones], 200, 0..200), all);
    }
}
