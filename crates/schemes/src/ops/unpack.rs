//! Codes that a file packs, a byte each.

use super::{dims, matrix, plain};
use crate::packing::{Order, Packing};
use tensormill_model::{Error, Form, Locality, Op, Result, Rows};
use tensormill_tensor::{DType, Encoding, Shape};

/// Unpacks rows of codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unpack {
    /// How they stand.
    pub packing: Packing,
    /// Codes in a row.
    pub columns: u64,
}

/// Unpacks codes that stand one below the other: each column of 32-bit words is a stream of the codes of its column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnpackDown {
    /// How they stand in a column: dense, or whole codes in words.
    pub packing: Packing,
    /// Rows that come out.
    pub rows: u64,
}

impl Op for Unpack {
    fn describe(&self) -> String {
        format!("unpack[{:?} {}]", self.packing, self.columns)
    }

    fn form(&self, inputs: &[Form]) -> Result<Form> {
        let [input] = inputs else { return Err(Error::usage("unpacking takes one input")) };
        plain(input, "packed codes")?;
        if input.row_bytes()? < self.packing.bytes(self.columns) {
            return Err(Error::malformed(format!(
                "rows of {} bytes hold less than {} codes of {} bits",
                input.row_bytes()?,
                self.columns,
                self.packing.bits
            )));
        }
        // A stack of matrices stays one.
        let mut dims = input.shape.dims().to_vec();
        match dims.last_mut() {
            Some(last) => *last = self.columns,
            None => return Err(Error::malformed("packed codes without dimensions")),
        }
        Ok(Form::new(Shape::new(dims)?, Encoding::Plain(DType::U8)))
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

impl UnpackDown {
    /// Words of a column.
    fn words(&self) -> u64 {
        self.packing.bytes(self.rows).div_ceil(4)
    }

    /// The code in one row of a column whose words `word` gives.
    fn code(&self, row: u64, word: impl Fn(u64) -> u32) -> u8 {
        let bits = u64::from(self.packing.bits);
        let (at, shift) = match self.packing.order {
            Order::Words => (row / (32 / bits), row % (32 / bits) * bits),
            _ => (row * bits / 32, row * bits % 32),
        };
        let mut held = u64::from(word(at)) >> shift;
        if shift + bits > 32 {
            held |= u64::from(word(at + 1)) << (32 - shift);
        }
        (held & ((1 << bits) - 1)) as u8 ^ self.packing.flip
    }
}

impl Op for UnpackDown {
    fn describe(&self) -> String {
        format!("unpack-down[{:?} {}]", self.packing, self.rows)
    }

    fn form(&self, inputs: &[Form]) -> Result<Form> {
        let [input] = inputs else { return Err(Error::usage("unpacking takes one input")) };
        let (rows, columns) = dims(input);
        if plain(input, "packed codes")?.bits() != 32 || rows != self.words() {
            return Err(Error::malformed(format!(
                "{} {} do not hold {} rows of {}-bit codes",
                input.encoding, input.shape, self.rows, self.packing.bits
            )));
        }
        matrix(self.rows, columns, DType::U8)
    }

    fn locality(&self, _: usize) -> Locality {
        Locality::Whole
    }

    fn run(&self, rows: Rows, forms: &[Form], inputs: &[&[u8]], out: &mut [u8]) -> Result<()> {
        let columns = forms[0].shape.row_len() as usize;
        let words = inputs[0].as_chunks::<4>().0;
        for (row, out) in rows.zip(out.chunks_exact_mut(columns.max(1))) {
            for (column, code) in out.iter_mut().enumerate() {
                *code = self.code(row, |at| u32::from_le_bytes(words[at as usize * columns + column]));
            }
        }
        Ok(())
    }
}
