//! Columns by an index: what act-order checkpoints say of the group of each column.

use super::{dims, matrix, plain};
use tensormill_model::{Error, Form, Locality, Op, Result, Rows};
use tensormill_tensor::{DType, Encoding, Shape};

/// Column `index[j]` of each row as its column `j`. The second input is the index, `i32`, a number per column of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gather;

impl Op for Gather {
    fn describe(&self) -> String {
        "gather".to_owned()
    }

    fn form(&self, inputs: &[Form]) -> Result<Form> {
        let [input, index] = inputs else { return Err(Error::usage("a gather takes values and an index")) };
        let dtype = plain(input, "numbers")?;
        if !matches!(dtype.bits(), 8 | 16 | 32) || plain(index, "an index")? != DType::I32 {
            return Err(Error::malformed(format!("an index of {} into {}", index.encoding, input.encoding)));
        }
        matrix(dims(input).0, index.shape.elements(), dtype)
    }

    fn locality(&self, input: usize) -> Locality {
        if input == 0 { Locality::Row } else { Locality::Whole }
    }

    fn run(&self, _: Rows, forms: &[Form], inputs: &[&[u8]], out: &mut [u8]) -> Result<()> {
        let (columns, size) = (forms[0].shape.row_len() as usize, forms[0].row_bytes()? as usize);
        let index = inputs[1].as_chunks::<4>().0;
        if size == 0 || index.is_empty() {
            return Ok(());
        }
        let element = size / columns;
        for (row, out) in inputs[0].chunks_exact(size).zip(out.chunks_exact_mut(index.len() * element)) {
            for (i, out) in index.iter().zip(out.chunks_exact_mut(element)) {
                let i = i32::from_le_bytes(*i);
                let at = usize::try_from(i).ok().filter(|i| *i < columns).ok_or_else(|| {
                    Error::malformed(format!("a column is of group {i}; there are {columns}"))
                })?;
                out.copy_from_slice(&row[at * element..][..element]);
            }
        }
        Ok(())
    }
}

/// The group of each column where groups stand one after another: `i32`, one row. An op, since a constant would be held in
/// memory for every one of a model's matrices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupIndex {
    /// Columns.
    pub columns: u64,
    /// Columns of a group.
    pub group: u64,
}

impl Op for GroupIndex {
    fn describe(&self) -> String {
        format!("groups[{} of {}]", self.columns, self.group)
    }

    fn form(&self, inputs: &[Form]) -> Result<Form> {
        if !inputs.is_empty() || self.group == 0 || self.columns.div_ceil(self.group) > 1 << 31 {
            return Err(Error::usage("the groups of columns take no input"));
        }
        Ok(Form::new(Shape::new(vec![self.columns])?, Encoding::Plain(DType::I32)))
    }

    fn run(&self, _: Rows, _: &[Form], _: &[&[u8]], out: &mut [u8]) -> Result<()> {
        for (i, out) in out.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            *out = ((i as u64 / self.group) as u32).to_le_bytes();
        }
        Ok(())
    }
}
