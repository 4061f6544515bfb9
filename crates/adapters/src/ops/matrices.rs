//! Matrices from factors: products, Kronecker products, element by element; and some of a matrix' columns.

use super::{floats::Compute, packed::Packed};
use tensormill_model::{Error, Locality, Result, Rows};
use tensormill_tensor::Shape;

fn other_base(what: String) -> Error {
    Error::mismatch(what).hint("the adapter's file is damaged, or belongs to another kind of adapter")
}

/// `B A`. Inputs: `B` `[out, rank]`, `A` `[rank, in]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Product;

impl Compute for Product {
    fn describe(&self) -> String {
        "product".into()
    }
    fn inputs(&self) -> Vec<&'static str> {
        vec!["the left factor", "the right factor"]
    }
    fn shape(&self, inputs: &[&Shape]) -> Result<Shape> {
        let (b, a) = (inputs[0], inputs[1]);
        if b.row_len() != a.rows() {
            return Err(other_base(format!("factors {b} and {a} have no product")));
        }
        Ok(Shape::new(vec![b.rows(), a.row_len()])?)
    }
    fn locality(&self, input: usize) -> Locality {
        if input == 0 { Locality::Row } else { Locality::Whole }
    }
    fn scratch(&self, inputs: &[&Shape]) -> u64 {
        Packed::floats(inputs[1].rows(), inputs[1].row_len())
    }
    fn run(&self, _: Rows, shapes: &[&Shape], inputs: &[Vec<f32>], out: &mut [f32]) {
        let (rank, n) = (shapes[1].rows() as usize, shapes[1].row_len() as usize);
        Packed::new(rank, n, |k, j| inputs[1][k * n + j]).multiply(&inputs[0], out);
    }
}

/// Products of two matrices' elements. Inputs: both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Multiply;

impl Compute for Multiply {
    fn describe(&self) -> String {
        "multiply".into()
    }
    fn inputs(&self) -> Vec<&'static str> {
        vec!["the first factor", "the second factor"]
    }
    fn shape(&self, inputs: &[&Shape]) -> Result<Shape> {
        if inputs[0] == inputs[1] {
            return Ok(inputs[0].clone());
        }
        Err(other_base(format!("{} and {} have no product of elements", inputs[0], inputs[1])))
    }
    fn locality(&self, _: usize) -> Locality {
        Locality::Row
    }
    fn run(&self, _: Rows, _: &[&Shape], inputs: &[Vec<f32>], out: &mut [f32]) {
        for ((o, x), y) in out.iter_mut().zip(&inputs[0]).zip(&inputs[1]) {
            *o = x * y;
        }
    }
}

/// The Kronecker product of two tensors as torch takes it: dimensions are aligned from the right, missing ones are one.
/// The result has the product's elements in order, as a matrix whose rows are its first dimension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kronecker;

impl Kronecker {
    /// Dimensions of both, of one length.
    fn aligned(inputs: &[&Shape]) -> (Vec<u64>, Vec<u64>) {
        let rank = inputs[0].rank().max(inputs[1].rank()).max(1);
        let of = |s: &Shape| [vec![1; rank - s.rank()], s.dims().to_vec()].concat();
        (of(inputs[0]), of(inputs[1]))
    }
}

impl Compute for Kronecker {
    fn describe(&self) -> String {
        "kronecker".into()
    }
    fn inputs(&self) -> Vec<&'static str> {
        vec!["the first factor", "the second factor"]
    }
    fn shape(&self, inputs: &[&Shape]) -> Result<Shape> {
        let (a, b) = Self::aligned(inputs);
        let dims = a.iter().zip(&b).map(|(a, b)| a.checked_mul(*b)).collect::<Option<Vec<_>>>();
        let whole = Shape::new(dims.ok_or_else(|| other_base("a product of 2^64 rows".into()))?)?;
        let first = whole.dims().first().copied().unwrap_or(1);
        Ok(Shape::new(vec![first, whole.elements().checked_div(first).unwrap_or(0)])?)
    }
    fn locality(&self, _: usize) -> Locality {
        Locality::Whole
    }
    fn run(&self, rows: Rows, shapes: &[&Shape], inputs: &[Vec<f32>], out: &mut [f32]) {
        let (a, b) = Self::aligned(shapes);
        let n = out.len() / ((rows.end - rows.start) as usize).max(1);
        for (row, out) in rows.zip(out.chunks_mut(n.max(1))) {
            let (mut at_a, mut at_b) = ((row / b[0]) as usize, (row % b[0]) as usize);
            // One dimension at a time: where the row's values begin in both.
            let (rest_a, rest_b) = (&a[1..], &b[1..]);
            at_a *= rest_a.iter().product::<u64>() as usize;
            at_b *= rest_b.iter().product::<u64>() as usize;
            fill(rest_a, rest_b, &inputs[0][at_a..], &inputs[1][at_b..], out);
        }
    }
}

/// The Kronecker product of what is left of two tensors' dimensions.
fn fill(a: &[u64], b: &[u64], x: &[f32], y: &[f32], out: &mut [f32]) {
    let ([a0, a @ ..], [b0, b @ ..]) = (a, b) else {
        if let Some(out) = out.first_mut() {
            *out = x[0] * y[0];
        }
        return;
    };
    if a.is_empty() {
        for (out, x) in out.chunks_mut((*b0).max(1) as usize).zip(x) {
            out.iter_mut().zip(y).for_each(|(o, y)| *o = x * y);
        }
        return;
    }
    let (len_a, len_b) = (a.iter().product::<u64>() as usize, b.iter().product::<u64>() as usize);
    let mut parts = out.chunks_mut((len_a * len_b).max(1));
    for i in 0..*a0 as usize {
        for (j, part) in (0..*b0 as usize).zip(&mut parts) {
            fill(a, b, &x[i * len_a..], &y[j * len_b..], part);
        }
    }
}

/// A tensor from a core and two factors, the first as columns: `sum over i, j of t[i, j, ..] * a[i, p] * b[j, r]`, as
/// rows `p` of `[r, ..]` (LyCORIS calls it CP). Inputs: core `[rank, rank, ..]`, `a` `[rank, out]`, `b` `[rank, in]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tucker;

impl Compute for Tucker {
    fn describe(&self) -> String {
        "tucker".into()
    }
    fn inputs(&self) -> Vec<&'static str> {
        vec!["the core", "the first factor", "the second factor"]
    }
    fn shape(&self, inputs: &[&Shape]) -> Result<Shape> {
        let ([t, a, b], [i, j, rest @ ..]) = (inputs, inputs[0].dims()) else {
            return Err(other_base(format!("a core {} has no two ranks", inputs[0])));
        };
        if (a.rows(), b.rows()) != (*i, *j) || a.rank() != 2 || b.rank() != 2 {
            return Err(other_base(format!("a core {t} does not fit factors {a} and {b}")));
        }
        let row = rest.iter().try_fold(b.row_len(), |n, d| n.checked_mul(*d));
        Ok(Shape::new(vec![a.row_len(), row.ok_or_else(|| other_base("a row of 2^64 elements".into()))?])?)
    }
    fn locality(&self, _: usize) -> Locality {
        Locality::Whole
    }
    fn scratch(&self, inputs: &[&Shape]) -> u64 {
        let row = self.shape(inputs).map_or(0, |s| s.row_len());
        // The core with its second rank gone, and packed.
        inputs[1].rows().saturating_mul(row).saturating_mul(3).saturating_add(inputs[1].elements())
    }
    fn run(&self, rows: Rows, shapes: &[&Shape], inputs: &[Vec<f32>], out: &mut [f32]) {
        let dims: Vec<usize> = shapes[0].dims().iter().map(|d| *d as usize).collect();
        let (ranks, rest) = ((dims[0], dims[1]), dims[2..].iter().product::<usize>());
        let (columns, n) = (shapes[1].row_len() as usize, shapes[2].row_len() as usize);
        let (core, a, b) = (&inputs[0], &inputs[1], &inputs[2]);
        let mut middle = vec![0f32; ranks.0 * n * rest];
        for i in 0..ranks.0 {
            for j in 0..ranks.1 {
                let t = &core[(i * ranks.1 + j) * rest..][..rest];
                for (r, factor) in b[j * n..][..n].iter().enumerate() {
                    let into = &mut middle[(i * n + r) * rest..][..rest];
                    into.iter_mut().zip(t).for_each(|(o, t)| *o += t * factor);
                }
            }
        }
        let chosen = rows.start as usize..rows.end as usize;
        let left: Vec<f32> =
            chosen.flat_map(|p| (0..ranks.0).map(move |i| (i, p))).map(|(i, p)| a[i * columns + p]).collect();
        let width = n * rest;
        Packed::new(ranks.0, width, |k, j| middle[k * width + j]).multiply(&left, out);
    }
}

/// Columns `start`, `start + step`, ... of a matrix, `len` of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Columns {
    pub(crate) start: u64,
    pub(crate) step: u64,
    pub(crate) len: u64,
}

impl Compute for Columns {
    fn describe(&self) -> String {
        format!("columns[{}+{}x{}]", self.start, self.step, self.len)
    }
    fn inputs(&self) -> Vec<&'static str> {
        vec!["the factor"]
    }
    fn shape(&self, inputs: &[&Shape]) -> Result<Shape> {
        let last = self.len.checked_sub(1).and_then(|n| n.checked_mul(self.step)?.checked_add(self.start));
        match last {
            Some(last) if last < inputs[0].row_len() => Ok(Shape::new(vec![inputs[0].rows(), self.len])?),
            _ => Err(other_base(format!("{} has fewer columns than {}", inputs[0], self.describe()))),
        }
    }
    fn locality(&self, _: usize) -> Locality {
        Locality::Row
    }
    fn run(&self, _: Rows, shapes: &[&Shape], inputs: &[Vec<f32>], out: &mut [f32]) {
        let n = shapes[0].row_len() as usize;
        for (out, row) in out.chunks_mut(self.len as usize).zip(inputs[0].chunks(n)) {
            let chosen = row[self.start as usize..].iter().step_by(self.step as usize);
            out.iter_mut().zip(chosen).for_each(|(o, x)| *o = *x);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(op: &impl Compute, dims: &[&[u64]], inputs: &[&[f32]], rows: Rows) -> (Vec<u64>, Vec<f32>) {
        let shapes: Vec<Shape> = dims.iter().map(|d| Shape::new(d.to_vec()).unwrap()).collect();
        let shapes: Vec<&Shape> = shapes.iter().collect();
        let shape = op.shape(&shapes).unwrap();
        let mut out = vec![0f32; ((rows.end - rows.start) * shape.row_len()) as usize];
        let inputs: Vec<Vec<f32>> = inputs.iter().map(|x| x.to_vec()).collect();
        op.run(rows, &shapes, &inputs, &mut out);
        (shape.dims().to_vec(), out)
    }

    #[test]
    fn kronecker_products_are_numpys() {
        // np.kron([[1, 2], [3, 4]], [[1, 10, 100]])
        let (shape, all) = run(&Kronecker, &[&[2, 2], &[1, 3]], &[&[1., 2., 3., 4.], &[1., 10., 100.]], 0..2);
        assert_eq!(shape, [2, 6]);
        assert_eq!(all, [1., 10., 100., 2., 20., 200., 3., 30., 300., 4., 40., 400.]);
        // np.kron([[1, 2]], [[[1, 10]], [[5, 50]]]): dimensions are aligned from the right.
        let (shape, last) = run(&Kronecker, &[&[1, 2], &[2, 1, 2]], &[&[1., 2.], &[1., 10., 5., 50.]], 1..2);
        assert_eq!((shape, last), (vec![2, 4], vec![5., 50., 10., 100.]));
        // np.kron([[[[1]], [[2]]]], [[[[1, 10]], [[3, 30]]]]).reshape(1, -1)
        let four: (&[u64], &[u64]) = (&[1, 2, 1, 1], &[1, 2, 1, 2]);
        let (_, all) = run(&Kronecker, &[four.0, four.1], &[&[1., 2.], &[1., 10., 3., 30.]], 0..1);
        assert_eq!(all, [1., 10., 3., 30., 2., 20., 6., 60.]);
    }

    #[test]
    fn a_tucker_form_is_its_sum() {
        // out[p, r, k] = sum of t[i, j, k] a[i, p] b[j, r]; ranks 2 and 1.
        let t = [1., 2., 3., 4.];
        let (a, b) = ([1., 10., 100., 1., 5., 50.], [2., 3.]);
        let (shape, row) = run(&Tucker, &[&[2, 1, 2], &[2, 3], &[1, 2]], &[&t, &a, &b], 1..2);
        assert_eq!(shape, [3, 4]);
        let want: Vec<f32> =
            [2., 3.].iter().flat_map(|b| (0..2).map(move |k| (t[k] * 10. + t[2 + k] * 5.) * b)).collect();
        assert_eq!(row, want);
        let odd = [
            &Shape::new(vec![2, 1, 2]).unwrap(),
            &Shape::new(vec![3, 3]).unwrap(),
            &Shape::new(vec![1, 2]).unwrap(),
        ];
        assert!(Tucker.shape(&odd).is_err());
    }

    #[test]
    fn columns_are_picked() {
        let op = Columns { start: 1, step: 2, len: 2 };
        let (shape, all) = run(&op, &[&[2, 4]], &[&[0., 1., 2., 3., 4., 5., 6., 7.]], 0..2);
        assert_eq!((shape, all), (vec![2, 2], vec![1., 3., 5., 7.]));
        let short = Shape::new(vec![2, 3]).unwrap();
        assert!(op.shape(&[&short]).is_err());
    }
}
