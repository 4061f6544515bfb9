//! A source's codes and numbers as bundles, and as the values that they stand for.

use super::{dims, matrix, plain};
use tensormill_kernels::groups::{Grid, ScaleType};
use tensormill_model::{Error, Form, Locality, Op, Result, Rows};
use tensormill_tensor::{DType, Encoding, Shape, decode_plain, encode_plain};

/// How a source's numbers become those of a bundle. Inputs of [`Join`] and [`Values`] are codes (bytes, a row per row), scales,
/// offsets where the grid stores them, and the outer scale (one element) where there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbers {
    /// What comes out.
    pub grid: Grid,
    /// What is added to offsets as they are stored.
    pub add: i16,
    /// Whether the outer number divides scales rather than multiplying them.
    pub divides: bool,
    /// Rows of weights, of each matrix of a stack, that share a row of scales; then scales come whole. Zero: all rows, 1: none.
    pub rows: u32,
    /// The type in which the source has its scales.
    pub scale: ScaleType,
}

/// Makes bundles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Join(pub Numbers);

/// Decodes to values; with the arithmetic of [`Grid::decode_row`], except that an outer number that divides, divides: in
/// bundles its inverse stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Values {
    /// Of what.
    pub numbers: Numbers,
    /// To which type.
    pub to: DType,
}

impl Numbers {
    /// A grid whose numbers stand as they are used.
    pub fn plain(grid: Grid, scale: ScaleType) -> Self {
        Self { grid, add: 0, divides: false, rows: 1, scale }
    }

    fn locality(&self, input: usize) -> Locality {
        let outer = 2 + usize::from(self.grid.offset.is_stored());
        if input >= outer || (input > 0 && self.rows != 1) { Locality::Whole } else { Locality::Row }
    }

    fn check(&self, inputs: &[Form]) -> Result<(u64, u64)> {
        let wanted = 2 + usize::from(self.grid.offset.is_stored());
        if inputs.len() != wanted && inputs.len() != wanted + 1 {
            return Err(Error::usage(format!("codes with {} inputs", inputs.len())));
        }
        let (rows, columns) = dims(&inputs[0]);
        if plain(&inputs[0], "codes")?.bits() != 8 {
            return Err(Error::malformed(format!("codes of type {}", inputs[0].encoding)));
        }
        let groups = self.grid.groups(columns as usize) as u64;
        let scale_rows = self.scale_row(inputs, rows.max(1) - 1) + u64::from(rows > 0);
        for number in &inputs[1..wanted] {
            plain(number, "scales")?;
            if number.shape.elements() != scale_rows * groups {
                return Err(Error::malformed(format!(
                    "{} numbers for {scale_rows} x {groups} groups",
                    number.shape
                )));
            }
        }
        if let Some(outer) = inputs.get(wanted)
            && outer.shape.elements() != 1
        {
            return Err(Error::malformed(format!("{} outer scales for a matrix", outer.shape)));
        }
        Ok((rows, columns))
    }

    /// The row of scales that is a row's, where rows share them.
    fn scale_row(&self, forms: &[Form], row: u64) -> u64 {
        let n = match self.rows {
            0 => return 0,
            1 => return row,
            n => u64::from(n),
        };
        let dims = forms[0].shape.dims();
        let high = dims.iter().rev().nth(1).copied().unwrap_or(1).max(1);
        row / high * high.div_ceil(n) + row % high / n
    }

    /// Calls `f` with the bundle of each row; where it is `folded`, scales have been multiplied by the outer number, or
    /// divided, and it is 1.
    fn each(
        &self,
        folded: bool,
        rows: Rows,
        forms: &[Form],
        inputs: &[&[u8]],
        mut f: impl FnMut(usize, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let (_, columns) = dims(&forms[0]);
        let columns = columns as usize;
        let groups = self.grid.groups(columns);
        let mut bundle = vec![0; self.grid.bundle_bytes(columns)];
        let mut number = vec![0f32; groups];
        let stored = usize::from(self.grid.offset.is_stored());
        let outer = match inputs.get(2 + stored) {
            None => None,
            Some(bytes) => {
                let mut x = [0f32];
                decode(plain(&forms[2 + stored], "outer scales")?, bytes, &mut x)?;
                Some(x[0])
            }
        };
        for i in 0..(rows.end - rows.start) as usize {
            let parts = self.grid.parts_mut(&mut bundle, columns);
            parts.codes.copy_from_slice(&inputs[0][i * columns..][..columns]);
            let at = match self.rows {
                1 => i,
                _ => self.scale_row(forms, rows.start + i as u64) as usize,
            };
            if stored == 1 {
                take(forms, inputs, 2, at, &mut number)?;
                for (o, x) in parts.offsets.iter_mut().zip(&number) {
                    *o = (x + f32::from(self.add)).to_le_bytes();
                }
            }
            take(forms, inputs, 1, at, &mut number)?;
            for (o, x) in parts.scales.iter_mut().zip(&number) {
                let x = match outer {
                    Some(outer) if self.divides && folded => x / outer,
                    Some(outer) if folded => outer * x,
                    _ => *x,
                };
                *o = x.to_le_bytes();
            }
            if let Some(o) = parts.outer {
                let times = match outer {
                    Some(outer) if self.divides && !folded => 1.0 / outer,
                    Some(outer) if !folded => outer,
                    _ => 1.0,
                };
                *o = times.to_le_bytes();
            }
            f(i, &bundle)?;
        }
        Ok(())
    }
}

/// Row `at` of the numbers of one input.
fn take(forms: &[Form], inputs: &[&[u8]], input: usize, at: usize, out: &mut [f32]) -> Result<()> {
    let dtype = plain(&forms[input], "scales")?;
    let bytes = out.len() * (dtype.bits() / 8) as usize;
    decode(dtype, &inputs[input][at * bytes..][..bytes], out)
}

fn decode(dtype: DType, bytes: &[u8], out: &mut [f32]) -> Result<()> {
    if decode_plain(dtype, bytes, out) {
        return Ok(());
    }
    Err(Error::unsupported(format!("scales of type {dtype}")))
}

impl Op for Join {
    fn describe(&self) -> String {
        format!("join[{:?}]", self.0)
    }
    fn form(&self, inputs: &[Form]) -> Result<Form> {
        let (rows, columns) = self.0.check(inputs)?;
        matrix(rows, self.0.grid.bundle_bytes(columns as usize) as u64, DType::U8)
    }
    fn locality(&self, input: usize) -> Locality {
        self.0.locality(input)
    }
    fn makes_bundle(&self) -> bool {
        true
    }
    fn scratch(&self, inputs: &[Form], _: u64) -> u64 {
        inputs.first().map_or(0, |f| f.shape.row_len().saturating_mul(16))
    }
    fn run(&self, rows: Rows, forms: &[Form], inputs: &[&[u8]], out: &mut [u8]) -> Result<()> {
        let bytes = self.0.grid.bundle_bytes(forms[0].shape.row_len() as usize);
        self.0.each(!self.0.grid.outer, rows, forms, inputs, |i, bundle| {
            out[i * bytes..][..bytes].copy_from_slice(bundle);
            Ok(())
        })
    }
}

impl Op for Values {
    fn describe(&self) -> String {
        format!("values[{:?} {}]", self.numbers, self.to)
    }
    fn any(&self) -> Option<&dyn std::any::Any> {
        Some(self)
    }
    fn form(&self, inputs: &[Form]) -> Result<Form> {
        self.numbers.check(inputs)?;
        // A stack of matrices stays one.
        Ok(Form::new(Shape::new(inputs[0].shape.dims().to_vec())?, Encoding::Plain(self.to)))
    }
    fn locality(&self, input: usize) -> Locality {
        self.numbers.locality(input)
    }
    fn scratch(&self, inputs: &[Form], _: u64) -> u64 {
        inputs.first().map_or(0, |f| f.shape.row_len().saturating_mul(24))
    }
    fn run(&self, rows: Rows, forms: &[Form], inputs: &[&[u8]], out: &mut [u8]) -> Result<()> {
        let columns = forms[0].shape.row_len() as usize;
        let bytes = columns * (self.to.bits() / 8) as usize;
        let mut x = vec![0f32; columns];
        self.numbers.each(true, rows, forms, inputs, |i, bundle| {
            self.numbers.grid.decode_row(bundle, &mut x);
            if encode_plain(self.to, &x, &mut out[i * bytes..][..bytes]) {
                return Ok(());
            }
            Err(Error::unsupported(format!("weights cannot be decoded to {}", self.to)))
        })
    }
}
