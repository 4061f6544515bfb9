//! Orthogonal adapters: rotations from skew-symmetric parameters, and rows that are rotated by them.

use super::{floats::Compute, packed::Packed};
use tensormill_model::{Error, Locality, Result, Rows};
use tensormill_tensor::Shape;

/// What a block's parameters are, and how its rotation comes from them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum CayleyOf {
    /// The elements above the diagonal, row by row (OFT); with the number of terms of the Neumann series, where the
    /// inverse is not computed exactly, and the greatest norm, where it has one (COFT).
    Upper { terms: Option<u32>, most: Option<f32> },
    /// A square matrix, of which half the difference to its transpose counts (BOFT).
    Square,
}

/// Rotations `(I - Q) (I + Q)^-1` of skew-symmetric blocks `Q` (PEFT's `_cayley_batch` and `cayley_batch`). Input:
/// parameters, a row per block; result `[blocks, size, size]`, whose rows are rows of blocks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Cayley {
    pub(crate) of: CayleyOf,
    /// Rows and columns of a block.
    pub(crate) size: u64,
}

/// Largest blocks: a square of them is computed with at a time.
const LARGEST: u64 = 1 << 13;

impl Cayley {
    /// Parameters of a block.
    fn parameters(self) -> u64 {
        match self.of {
            CayleyOf::Upper { .. } => self.size * self.size.saturating_sub(1) / 2,
            CayleyOf::Square => self.size * self.size,
        }
    }

    /// A block's skew-symmetric matrix.
    fn skew(self, parameters: &[f32]) -> Vec<f32> {
        let n = self.size as usize;
        let mut q = vec![0f32; n * n];
        match self.of {
            CayleyOf::Upper { most, .. } => {
                let mut next = parameters.iter();
                for i in 0..n {
                    for j in i + 1..n {
                        let x = next.next().copied().unwrap_or(0.0);
                        (q[i * n + j], q[j * n + i]) = (x, -x);
                    }
                }
                if let Some(most) = most {
                    let norm = q.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>().sqrt() as f32;
                    if norm > most {
                        for x in &mut q {
                            *x = most * (*x / norm);
                        }
                    }
                }
            }
            CayleyOf::Square => {
                for i in 0..n {
                    for j in 0..n {
                        q[i * n + j] = 0.5 * (parameters[i * n + j] - parameters[j * n + i]);
                    }
                }
            }
        }
        q
    }

    fn rotation(self, parameters: &[f32]) -> Vec<f32> {
        let q = self.skew(parameters);
        match self.of {
            CayleyOf::Upper { terms: Some(terms), .. } => neumann(&q, self.size as usize, terms),
            _ => exact(&q, self.size as usize),
        }
    }
}

/// `I + 2 Q + 2 Q^2 + ... + Q^(terms - 1)`: the last power counts once.
fn neumann(q: &[f32], n: usize, terms: u32) -> Vec<f32> {
    let mut out = vec![0f32; n * n];
    out.iter_mut().step_by(n + 1).for_each(|x| *x = 1.0);
    if terms <= 1 {
        return out;
    }
    let add = |out: &mut [f32], x: &[f32], by: f32| out.iter_mut().zip(x).for_each(|(o, x)| *o += by * x);
    add(&mut out, q, 2.0);
    if terms <= 2 {
        return out;
    }
    let mut power = times(q, q, n);
    add(&mut out, &power, 2.0);
    for _ in 3..terms - 1 {
        power = times(&power, q, n);
        add(&mut out, &power, 2.0);
    }
    power = times(&power, q, n);
    add(&mut out, &power, 1.0);
    out
}

fn times(a: &[f32], b: &[f32], n: usize) -> Vec<f32> {
    let mut out = vec![0f32; n * n];
    Packed::new(n, n, |k, j| b[k * n + j]).multiply(a, &mut out);
    out
}

/// `(I - Q) (I + Q)^-1` in `f64`. `I + Q` of a skew-symmetric `Q` is never singular: its symmetric part is `I`.
fn exact(q: &[f32], n: usize) -> Vec<f32> {
    // X (I + Q) = I - Q; transposed, (I - Q) X^T = I + Q, by elimination with the largest pivot of each column.
    let unit = |i: usize, j: usize| f64::from(u8::from(i == j));
    let value = |i: usize, j: usize| f64::from(q[i * n + j]);
    let width = 2 * n;
    let mut m: Vec<f64> = (0..n * width)
        .map(|at| match (at / width, at % width) {
            (i, j) if j < n => unit(i, j) - value(i, j),
            (i, j) => unit(i, j - n) + value(i, j - n),
        })
        .collect();
    for c in 0..n {
        let pivot =
            (c..n).max_by(|a, b| m[a * width + c].abs().total_cmp(&m[b * width + c].abs())).unwrap_or(c);
        if pivot != c {
            for j in 0..width {
                m.swap(c * width + j, pivot * width + j);
            }
        }
        let by = 1.0 / m[c * width + c];
        m[c * width + c..(c + 1) * width].iter_mut().for_each(|x| *x *= by);
        let row: Vec<f64> = m[c * width + c..(c + 1) * width].to_vec();
        for i in (0..n).filter(|i| *i != c) {
            let factor = m[i * width + c];
            if factor != 0.0 {
                let into = &mut m[i * width + c..(i + 1) * width];
                into.iter_mut().zip(&row).for_each(|(x, r)| *x -= factor * r);
            }
        }
    }
    (0..n * n).map(|at| m[(at % n) * width + n + at / n] as f32).collect()
}

impl Compute for Cayley {
    fn describe(&self) -> String {
        format!("cayley[{:?} {}]", self.of, self.size)
    }
    fn inputs(&self) -> Vec<&'static str> {
        vec!["the rotation's parameters"]
    }
    fn shape(&self, inputs: &[&Shape]) -> Result<Shape> {
        let blocks = inputs[0].elements().checked_div(self.parameters().max(1)).unwrap_or(0);
        if self.size < 2 || self.size > LARGEST || blocks * self.parameters() != inputs[0].elements() {
            return Err(Error::mismatch(format!("{} are no blocks of {} rows", inputs[0], self.size))
                .hint("the adapter's file is damaged, or its configuration belongs to another one"));
        }
        Ok(Shape::new(vec![blocks, self.size, self.size])?)
    }
    fn locality(&self, _: usize) -> Locality {
        Locality::Whole
    }
    fn scratch(&self, _: &[&Shape]) -> u64 {
        // In doubles, two of them side by side, besides the block and what becomes of it.
        self.size.saturating_mul(self.size).saturating_mul(8)
    }
    fn run(&self, rows: Rows, _: &[&Shape], inputs: &[Vec<f32>], out: &mut [f32]) {
        let (n, each) = (self.size as usize, self.parameters() as usize);
        let blocks = rows.start / self.size..rows.end.div_ceil(self.size);
        for b in blocks {
            let rotation = self.rotation(&inputs[0][b as usize * each..][..each]);
            let (first, last) = (rows.start.max(b * self.size), rows.end.min((b + 1) * self.size));
            let from = &rotation[(first - b * self.size) as usize * n..(last - b * self.size) as usize * n];
            out[(first - rows.start) as usize * n..][..from.len()].copy_from_slice(from);
        }
    }
}

/// Where the elements of a row go before they are rotated, and back afterwards (`block_butterfly_perm`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Butterfly {
    /// Blocks that the permutation leaves apart.
    pub(crate) blocks: u64,
    /// Elements that stay together.
    pub(crate) together: u64,
}

impl Butterfly {
    /// For each place the element that comes there.
    fn order(self, n: usize) -> Vec<usize> {
        let (size, together) = (n / self.blocks as usize, self.together as usize);
        let step = size / together;
        // Even runs first, then the odd ones.
        let sorted: Vec<usize> = (0..step).step_by(2).chain((1..step).step_by(2)).collect();
        (0..n)
            .map(|at| {
                let (block, inner) = (at / size, at % size);
                block * size + sorted[inner / together] * together + inner % together
            })
            .collect()
    }
}

/// Rows times rotations on their blocks: `y = R x` for each block `x` of a row. Inputs: the weight `[out, in]`, the
/// rotations `[blocks, size, size]`, one for all blocks or one for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rotate {
    /// Elements change places first, and back.
    pub(crate) butterfly: Option<Butterfly>,
    /// By the transposed rotation, the inverse.
    pub(crate) back: bool,
}

impl Compute for Rotate {
    fn describe(&self) -> String {
        format!("rotate[{:?} back={}]", self.butterfly, self.back)
    }
    fn inputs(&self) -> Vec<&'static str> {
        vec!["the weight", "the rotations"]
    }
    fn shape(&self, inputs: &[&Shape]) -> Result<Shape> {
        let (w, [blocks, size, _]) = (inputs[0], inputs[1].dims()) else {
            return Err(Error::usage("rotations have three dimensions"));
        };
        let fits = *size > 0 && w.row_len().is_multiple_of(*size);
        let enough = *blocks == 1 || blocks.checked_mul(*size) == Some(w.row_len());
        let moves = self.butterfly.is_none_or(|b| {
            b.blocks > 0
                && w.row_len().is_multiple_of(b.blocks)
                && b.together > 0
                && (w.row_len() / b.blocks).is_multiple_of(2 * b.together)
        });
        if fits && enough && moves {
            return Ok(w.clone());
        }
        Err(Error::mismatch(format!("{blocks} rotations of {size} rows do not fit rows of {}", w.row_len()))
            .hint("the adapter belongs to another base model"))
    }
    fn locality(&self, input: usize) -> Locality {
        if input == 0 { Locality::Row } else { Locality::Whole }
    }
    fn scratch(&self, inputs: &[&Shape]) -> u64 {
        let (n, size) = (inputs[0].row_len(), inputs[1].row_len());
        // A block's parts of some rows before and after, the rotation in panels, the order.
        (2 * TOGETHER as u64)
            .saturating_mul(size)
            .saturating_add(Packed::floats(size, size))
            .saturating_add(n.saturating_mul(2))
    }
    fn run(&self, _: Rows, shapes: &[&Shape], inputs: &[Vec<f32>], out: &mut [f32]) {
        let (n, size) = (shapes[0].row_len() as usize, shapes[1].row_len() as usize);
        let square = size * size;
        // P^T x: what is at place i goes where i comes from; after the rotation it comes back.
        let mut from: Vec<usize> = (0..n).collect();
        if let Some(butterfly) = self.butterfly {
            for (at, to) in butterfly.order(n).into_iter().enumerate() {
                from[to] = at;
            }
        }
        let (mut before, mut after) = (vec![0f32; TOGETHER * size], vec![0f32; TOGETHER * size]);
        for (b, places) in from.chunks(size).enumerate() {
            let rotation =
                if inputs[1].len() == square { &inputs[1][..] } else { &inputs[1][b * square..][..square] };
            let packed = Packed::new(size, size, |k, j| {
                let (row, column) = if self.back { (k, j) } else { (j, k) };
                rotation[row * size + column]
            });
            for (x, out) in inputs[0].chunks(TOGETHER * n).zip(out.chunks_mut(TOGETHER * n)) {
                let here = x.len() / n * size;
                for (x, before) in x.chunks(n).zip(before.chunks_mut(size)) {
                    before.iter_mut().zip(places).for_each(|(o, at)| *o = x[*at]);
                }
                packed.multiply(&before[..here], &mut after[..here]);
                for (out, after) in out.chunks_mut(n).zip(after.chunks(size)) {
                    after.iter().zip(places).for_each(|(x, at)| out[*at] = *x);
                }
            }
        }
    }
}

/// Rows that are rotated together.
const TOGETHER: usize = 48;

#[cfg(test)]
mod tests {
    use super::*;

    fn is_rotation(r: &[f32], n: usize) {
        for i in 0..n {
            for j in 0..n {
                let dot: f64 = (0..n).map(|k| f64::from(r[i * n + k]) * f64::from(r[j * n + k])).sum();
                assert!((dot - f64::from(u8::from(i == j))).abs() < 1e-6, "{i},{j}: {dot}");
            }
        }
    }

    #[test]
    fn exact_rotations_are_orthogonal() {
        for n in [2, 3, 8, 17] {
            let op = Cayley { of: CayleyOf::Square, size: n };
            let p: Vec<f32> = (0..n * n).map(|i| ((i * 37 % 23) as f32 - 11.0) / 9.0).collect();
            is_rotation(&op.rotation(&p), n as usize);
        }
        // By hand: Q = [[0, 1], [-1, 0]] gives (I - Q)(I + Q)^-1 = [[0, -1], [1, 0]].
        let op = Cayley { of: CayleyOf::Upper { terms: None, most: None }, size: 2 };
        assert_eq!(op.rotation(&[1.0]), [0.0, -1.0, 1.0, 0.0]);
    }

    #[test]
    fn rows_of_blocks_are_the_same_from_everywhere() {
        let op = Cayley { of: CayleyOf::Upper { terms: Some(5), most: Some(0.3) }, size: 4 };
        let p: Vec<f32> = (0..18).map(|i| (i as f32 - 8.0) / 20.0).collect();
        let shape = Shape::new(vec![3, 6]).unwrap();
        assert_eq!(op.shape(&[&shape]).unwrap().dims(), [3, 4, 4]);
        let rows = |rows: Rows| {
            let mut out = vec![0f32; ((rows.end - rows.start) * 4) as usize];
            op.run(rows, &[&shape], std::slice::from_ref(&p), &mut out);
            out
        };
        let all = rows(0..12);
        assert_eq!(rows(3..9), all[12..36]);
        assert_eq!(rows(11..12), all[44..]);
    }

    #[test]
    fn a_butterfly_moves_runs_and_back() {
        // PEFT: block_butterfly_perm(8, 1, 1, 1) and (8, 2, 2, 1).
        let of = |blocks, together| Butterfly { blocks, together }.order(8);
        assert_eq!(of(1, 1), [0, 2, 4, 6, 1, 3, 5, 7]);
        assert_eq!(of(2, 2), [0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(of(1, 2), [0, 1, 4, 5, 2, 3, 6, 7]);
    }
}
