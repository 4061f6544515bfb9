//! Rows or columns times numbers of their own.

use super::floats::Compute;
use tensormill_model::{Error, Locality, Result, Rows};
use tensormill_tensor::Shape;

/// Which of a matrix' sides has numbers of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Along {
    /// Every row is multiplied by one number.
    Rows,
    /// Every row is multiplied by the same row of numbers, each as often as it has to be to fill the row (kernels of a
    /// convolution have one number per input channel).
    Columns,
}

/// `x[i][j] * by[i]`, or `x[i][j] * by[j]`. Inputs: the matrix, the numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Scale {
    pub(crate) along: Along,
}

impl Compute for Scale {
    fn describe(&self) -> String {
        format!("scale[{:?}]", self.along)
    }
    fn inputs(&self) -> Vec<&'static str> {
        vec!["the weight", "its factors"]
    }
    fn shape(&self, inputs: &[&Shape]) -> Result<Shape> {
        let (x, n) = (inputs[0], inputs[1].elements());
        let fits = match self.along {
            Along::Rows => x.rows() == n,
            Along::Columns => n > 0 && x.row_len().is_multiple_of(n),
        };
        if fits {
            return Ok(x.clone());
        }
        Err(Error::mismatch(format!("factors {} do not fit a weight {x}", inputs[1]))
            .hint("the adapter belongs to another base model"))
    }
    fn locality(&self, input: usize) -> Locality {
        if input == 0 { Locality::Row } else { Locality::Whole }
    }
    fn run(&self, rows: Rows, shapes: &[&Shape], inputs: &[Vec<f32>], out: &mut [f32]) {
        let (x, by) = (&inputs[0], &inputs[1]);
        let n = shapes[0].row_len().max(1) as usize;
        for ((i, out), x) in (rows.start as usize..).zip(out.chunks_mut(n)).zip(x.chunks(n)) {
            match self.along {
                Along::Rows => out.iter_mut().zip(x).for_each(|(o, x)| *o = x * by[i]),
                Along::Columns => {
                    let each = (n / by.len()).max(1);
                    for ((out, x), by) in out.chunks_mut(each).zip(x.chunks(each)).zip(by) {
                        out.iter_mut().zip(x).for_each(|(o, x)| *o = x * by);
                    }
                }
            }
        }
    }
}
