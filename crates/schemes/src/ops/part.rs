//! One tensor of a file, from bundles.

use super::{check_bundles, matrix};
use crate::packing::Packing;
use tensormill_kernels::groups::{Grid, Offset};
use tensormill_model::{Error, Form, Locality, Op, Result, Rows};
use tensormill_tensor::{DType, encode_plain};

/// What is taken out of a bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// The codes, as elements of this type; rows are filled up with zeros to whole elements.
    Codes(Packing, DType),
    /// The codes, in rows of so many bytes, filled up with zeros.
    Filled(Packing, u64),
    /// The scales of the groups; where rows share them, a row for each that do.
    Scales(DType),
    /// Offsets that are codes, packed one below the other into 32-bit words, column by column: as many rows as make whole
    /// words ([`down`]) give one row, of a word per group, or of several words per group one after the other.
    OffsetsDown,
    /// The offsets of the groups in this type, with this number added: zero points as integers or floats, or biases; of grids
    /// whose zero is the middle code, that.
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

/// Rows whose codes of this width fill whole words, and these words.
pub fn down(bits: u32) -> (u64, u64) {
    if 32 % bits.max(1) == 0 { (u64::from(32 / bits.max(1)), 1) } else { (32, u64::from(bits)) }
}

impl Part {
    /// Rows of the bundle that make one of its own.
    fn ratio(&self) -> u64 {
        match self.what {
            What::Scales(_) => u64::from(self.grid.rows.max(1)),
            What::OffsetsDown => down(self.grid.code.bits()).0,
            What::Codes(..) | What::Filled(..) | What::Offsets(..) => 1,
        }
    }

    fn out_form(&self, rows: u64) -> Result<Form> {
        let rows = rows.div_ceil(self.ratio());
        let groups = self.grid.groups(self.columns as usize) as u64;
        match self.what {
            What::Codes(packing, dtype) => {
                let element = dtype.bits() / 8;
                matrix(rows, packing.bytes(self.columns).div_ceil(element.max(1)), dtype)
            }
            What::Filled(packing, bytes) if bytes < packing.bytes(self.columns) => {
                Err(Error::mismatch(format!("{bytes} bytes for {} codes", self.columns)))
            }
            What::Filled(_, bytes) => matrix(rows, bytes, DType::U8),
            What::Scales(dtype) | What::Offsets(dtype, _) => matrix(rows, groups, dtype),
            What::OffsetsDown => matrix(rows, groups * down(self.grid.code.bits()).1, DType::I32),
        }
    }
}

impl Op for Part {
    fn describe(&self) -> String {
        format!("part[{:?} of {:?} {}]", self.what, self.grid, self.columns)
    }

    fn form(&self, inputs: &[Form]) -> Result<Form> {
        let [bundle] = inputs else { return Err(Error::usage("a part is one of one bundle")) };
        check_bundles(bundle, &self.grid, self.columns)?;
        self.out_form(bundle.shape.rows())
    }

    fn locality(&self, _: usize) -> Locality {
        match self.ratio() {
            1 => Locality::Row,
            n => Locality::Rows(n),
        }
    }

    fn run(&self, rows: Rows, forms: &[Form], inputs: &[&[u8]], out: &mut [u8]) -> Result<()> {
        let columns = self.columns as usize;
        let in_row = self.grid.bundle_bytes(columns);
        let out_row = self.out_form(forms[0].shape.rows())?.row_bytes()? as usize;
        if rows.is_empty() || out_row == 0 {
            return Ok(());
        }
        let mut numbers = Vec::new();
        let together = in_row * self.ratio() as usize;
        for (bundles, out) in inputs[0].chunks(together).zip(out.chunks_exact_mut(out_row)) {
            let parts = self.grid.parts(&bundles[..in_row], columns);
            match self.what {
                What::Codes(packing, _) | What::Filled(packing, _) => packing.pack(parts.codes, out),
                What::Scales(dtype) => {
                    numbers.clear();
                    numbers.extend(parts.scales.iter().map(|b| f32::from_le_bytes(*b)));
                    store(dtype, &numbers, out)?;
                }
                What::OffsetsDown => self.pack_down(bundles, out),
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

impl Part {
    /// Offsets of some rows, as words.
    fn pack_down(&self, bundles: &[u8], out: &mut [u8]) {
        let columns = self.columns as usize;
        let (bits, groups) = (self.grid.code.bits() as usize, self.grid.groups(columns));
        out.fill(0);
        for (row, bundle) in bundles.chunks_exact(self.grid.bundle_bytes(columns)).enumerate() {
            for (g, offset) in self.grid.parts(bundle, columns).offsets.iter().enumerate() {
                let code = u64::from(f32::from_le_bytes(*offset) as u8) << (row * bits % 32);
                let word = row * bits / 32;
                for (i, half) in [code as u32, (code >> 32) as u32].into_iter().enumerate() {
                    if half != 0 {
                        let at = 4 * ((word + i) * groups + g);
                        let bytes = &mut out[at..at + 4];
                        let held = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
                        bytes.copy_from_slice(&(held | half).to_le_bytes());
                    }
                }
            }
        }
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
