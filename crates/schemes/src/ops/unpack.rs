//! Codes that a file packs, a byte each.

use super::{dims, matrix, plain};
use crate::packing::Packing;
use tensormill_model::{Error, Form, Op, Result, Rows};
use tensormill_tensor::DType;

/// Unpacks rows of codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unpack {
    /// How they stand.
    pub packing: Packing,
    /// Codes in a row.
    pub columns: u64,
}

impl Op for Unpack {
    fn describe(&self) -> String {
        format!("unpack[{:?} {}]", self.packing, self.columns)
    }

    fn form(&self, inputs: &[Form]) -> Result<Form> {
        let [input] = inputs else { return Err(Error::usage("unpacking takes one input")) };
        plain(input, "packed codes")?;
        let (rows, _) = dims(input);
        if input.row_bytes()? < self.packing.bytes(self.columns) {
            return Err(Error::malformed(format!(
                "rows of {} bytes hold less than {} codes of {} bits",
                input.row_bytes()?,
                self.columns,
                self.packing.bits
            )));
        }
        matrix(rows, self.columns, DType::U8)
    }

    fn run(&self, _: Rows, forms: &[Form], inputs: &[&[u8]], out: &mut [u8]) -> Result<()> {
        let in_row = forms[0].row_bytes()? as usize;
        if in_row == 0 || self.columns == 0 {
            return Ok(());
        }
        for (bytes, codes) in inputs[0].chunks_exact(in_row).zip(out.chunks_exact_mut(self.columns as usize))
        {
            self.packing.unpack(bytes, codes);
        }
        Ok(())
    }
}
