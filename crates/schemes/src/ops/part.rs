//! One tensor of a file, from bundles.

use super::{matrix, plain};
use crate::packing::Packing;
use tensormill_kernels::groups::{Grid, Offset};
use tensormill_model::{Error, Form, Op, Result, Rows};
use tensormill_tensor::{DType, encode_plain};

/// What is taken out of a bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// The codes, as elements of this type; rows are filled up with zeros to whole elements. Codes are repeated as they
    /// stand beyond the last column up to `columns`, as zero codes.
    Codes(Packing, DType),
    /// The scales of the groups.
    Scales(DType),
    /// The offsets of the groups: zero points as integers or floats, or biases; of grids whose zero is the middle code, that.
    /// What is added to them before they are stored.
    Offsets(DType, i16),
}

/// Takes a part of a bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// What bundles hold.
    pub grid: Grid,
    /// Columns of the weights.
    pub columns: u64,
    /// What is wanted.
    pub what: What,
}

impl Part {
    fn out_form(&self, rows: u64) -> Result<Form> {
        let groups = self.grid.groups(self.columns as usize) as u64;
        match self.what {
            What::Codes(packing, dtype) => {
                let element = dtype.bits() / 8;
                matrix(rows, packing.bytes(self.columns).div_ceil(element.max(1)), dtype)
            }
            What::Scales(dtype) | What::Offsets(dtype, _) => matrix(rows, groups, dtype),
        }
    }
}

impl Op for Part {
    fn describe(&self) -> String {
        format!("part[{:?} of {:?} {}]", self.what, self.grid, self.columns)
    }

    fn form(&self, inputs: &[Form]) -> Result<Form> {
        let [bundle] = inputs else { return Err(Error::usage("a part is one of one bundle")) };
        if plain(bundle, "bundles")? != DType::U8
            || bundle.shape.row_len() != self.grid.bundle_bytes(self.columns as usize) as u64
        {
            return Err(Error::mismatch(format!(
                "{} are no bundles of {} columns",
                bundle.shape, self.columns
            )));
        }
        self.out_form(bundle.shape.rows())
    }

    fn run(&self, rows: Rows, forms: &[Form], inputs: &[&[u8]], out: &mut [u8]) -> Result<()> {
        let columns = self.columns as usize;
        let in_row = self.grid.bundle_bytes(columns);
        let out_row = self.out_form(forms[0].shape.rows())?.row_bytes()? as usize;
        if rows.is_empty() || out_row == 0 {
            return Ok(());
        }
        let mut numbers = Vec::new();
        for (bundle, out) in inputs[0].chunks_exact(in_row).zip(out.chunks_exact_mut(out_row)) {
            let parts = self.grid.parts(bundle, columns);
            match self.what {
                What::Codes(packing, _) => packing.pack(parts.codes, out),
                What::Scales(dtype) => {
                    numbers.clear();
                    numbers.extend(parts.scales.iter().map(|b| f32::from_le_bytes(*b)));
                    store(dtype, &numbers, out)?;
                }
                What::Offsets(dtype, add) => {
                    numbers.clear();
                    if self.grid.offset == Offset::Middle {
                        let middle = self.grid.code.middle() + f32::from(add);
                        numbers.resize(parts.scales.len(), middle);
                    } else {
                        numbers.extend(parts.offsets.iter().map(|b| f32::from_le_bytes(*b) + f32::from(add)));
                    }
                    store(dtype, &numbers, out)?;
                }
            }
        }
        Ok(())
    }
}

/// Stores numbers that are exact in the type.
fn store(dtype: DType, numbers: &[f32], out: &mut [u8]) -> Result<()> {
    match dtype {
        DType::U8 => out.iter_mut().zip(numbers).for_each(|(o, x)| *o = *x as u8),
        DType::I8 => out.iter_mut().zip(numbers).for_each(|(o, x)| *o = *x as i8 as u8),
        // The number is a power of two: its exponent.
        DType::F8E8M0 => out.iter_mut().zip(numbers).for_each(|(o, x)| *o = (x.to_bits() >> 23) as u8),
        _ => {
            if !encode_plain(dtype, numbers, out) {
                return Err(Error::unsupported(format!("scales cannot be stored as {dtype}")));
            }
        }
    }
    Ok(())
}
