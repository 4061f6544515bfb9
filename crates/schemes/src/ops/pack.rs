//! Codes that a file packs along rows that bundles do not have: of a transposed matrix.

use super::{dims, matrix, plain};
use crate::packing::Packing;
use tensormill_model::{Error, Form, Op, Result, Rows};
use tensormill_tensor::DType;

/// Packs rows of codes, a byte each; rows are filled up with zeros to whole elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pack {
    /// How they stand.
    pub packing: Packing,
    /// The elements that files have.
    pub to: DType,
}

impl Op for Pack {
    fn describe(&self) -> String {
        format!("pack[{:?} {}]", self.packing, self.to)
    }

    fn form(&self, inputs: &[Form]) -> Result<Form> {
        let [input] = inputs else { return Err(Error::usage("packing takes one input")) };
        if plain(input, "codes")?.bits() != 8 {
            return Err(Error::mismatch(format!("codes of type {}", input.encoding)));
        }
        let (rows, columns) = dims(input);
        matrix(rows, self.packing.bytes(columns).div_ceil((self.to.bits() / 8).max(1)), self.to)
    }

    fn run(&self, _: Rows, forms: &[Form], inputs: &[&[u8]], out: &mut [u8]) -> Result<()> {
        let columns = forms[0].shape.row_len() as usize;
        let out_row = self.form(forms)?.row_bytes()? as usize;
        if columns == 0 || out_row == 0 {
            return Ok(());
        }
        for (codes, out) in inputs[0].chunks_exact(columns).zip(out.chunks_exact_mut(out_row)) {
            self.packing.pack(codes, out);
        }
        Ok(())
    }
}
