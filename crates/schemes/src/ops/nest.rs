//! Double quantization: scales of a whole matrix that become codes themselves.

use super::{check_bundles, floats, plain, store_floats};
use tensormill_kernels::groups::{Grid, nested};
use tensormill_model::{Error, Form, Locality, Op, Reduction, Result, Rows, Tally};
use tensormill_tensor::{DType, Encoding, Shape};

fn vector(n: u64, dtype: DType) -> Result<Form> {
    Ok(Form::new(Shape::new(vec![n])?, Encoding::Plain(dtype)))
}

/// All scales of a matrix in one row, from its bundles, which pass by: `f32`. They must not be negative.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AllScales {
    /// What bundles hold.
    pub grid: Grid,
    /// Columns of the weights.
    pub columns: u64,
}

impl Op for AllScales {
    fn describe(&self) -> String {
        format!("all-scales[{:?} {}]", self.grid, self.columns)
    }
    fn form(&self, inputs: &[Form]) -> Result<Form> {
        let [bundle] = inputs else { return Err(Error::usage("scales are those of one bundle")) };
        check_bundles(bundle, &self.grid, self.columns)?;
        let groups = self.grid.groups(self.columns as usize) as u64;
        vector(bundle.shape.rows() * groups, DType::F32)
    }
    fn locality(&self, _: usize) -> Locality {
        Locality::Whole
    }
    fn run(&self, _: Rows, _: &[Form], _: &[&[u8]], _: &mut [u8]) -> Result<()> {
        Err(Error::mismatch("a reduction is not run on rows"))
    }
    fn reduction(&self) -> Option<&dyn Reduction> {
        Some(self)
    }
}

impl Reduction for AllScales {
    fn passes(&self) -> usize {
        1
    }
    fn add(&self, _: &[Tally], rows: Rows, _: &[Form], inputs: &[&[u8]], tally: &mut Tally) -> Result<()> {
        let columns = self.columns as usize;
        let (groups, bytes) = (self.grid.groups(columns), self.grid.bundle_bytes(columns));
        // Blocks may come in any order: it only grows.
        let known = tally.maxima.len().max(rows.end as usize * groups);
        tally.maxima.resize(known, f64::NEG_INFINITY);
        let scales = &mut tally.maxima[rows.start as usize * groups..];
        for (out, bundle) in scales.chunks_exact_mut(groups).zip(inputs[0].chunks_exact(bytes)) {
            for (out, scale) in out.iter_mut().zip(self.grid.parts(bundle, columns).scales) {
                *out = f64::from(f32::from_le_bytes(*scale));
            }
        }
        Ok(())
    }
    fn value(&self, tallies: &[Tally], _: &[Form], out: &mut [u8]) -> bool {
        let Some(tally) = tallies.first() else { return false };
        store_floats(tally.maxima.iter().map(|scale| *scale as f32), out);
        true
    }
}

/// What is made of all scales of a matrix, by bitsandbytes' double quantization.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Nest {
    /// A byte for each.
    Codes,
    /// The scales of the scales.
    Scales,
    /// A text that ends with their offset, as Python prints it, and a brace; filled up with spaces, since what a file holds must
    /// have its length before anything is computed.
    State(String),
}

/// Characters of the longest number that Python prints.
const NUMBER: usize = 24;

impl Op for Nest {
    fn describe(&self) -> String {
        format!("nest[{self:?}]")
    }
    fn form(&self, inputs: &[Form]) -> Result<Form> {
        let [scales] = inputs else { return Err(Error::usage("scales are one input")) };
        if plain(scales, "scales")? != DType::F32 || scales.shape.rank() != 1 {
            return Err(Error::mismatch(format!("{} {} to be nested", scales.encoding, scales.shape)));
        }
        let n = scales.shape.elements();
        match self {
            Self::Codes => vector(n, DType::U8),
            Self::Scales => vector(n.div_ceil(nested::BLOCK as u64), DType::F32),
            Self::State(text) => vector((text.len() + NUMBER + 1) as u64, DType::U8),
        }
    }
    fn locality(&self, _: usize) -> Locality {
        Locality::Whole
    }
    fn scratch(&self, inputs: &[Form], _: u64) -> u64 {
        inputs.first().map_or(0, |f| f.shape.elements().saturating_mul(6))
    }
    fn run(&self, _: Rows, _: &[Form], inputs: &[&[u8]], out: &mut [u8]) -> Result<()> {
        let scales: Vec<f32> = floats(inputs[0]).collect();
        let offset = nested::offset(&scales);
        if let Self::State(text) = self {
            let text = format!("{text}{}}}", python(f64::from(offset)));
            out.fill(b' ');
            let room = out.len();
            out.get_mut(..text.len())
                .ok_or_else(|| Error::mismatch(format!("{} characters for {room}", text.len())))?
                .copy_from_slice(text.as_bytes());
            return Ok(());
        }
        let mut codes = vec![0; scales.len()];
        let mut outer = vec![0f32; scales.len().div_ceil(nested::BLOCK)];
        nested::encode(&scales, offset, &mut codes, &mut outer);
        if *self == Self::Codes {
            out.copy_from_slice(&codes);
        } else {
            store_floats(outer, out);
        }
        Ok(())
    }
}

/// A number as Python's `repr` prints it.
fn python(x: f64) -> String {
    if x != 0.0 && !(1e-4..1e16).contains(&x.abs()) {
        let text = format!("{x:e}");
        let Some((digits, exponent)) = text.split_once('e') else { return text };
        let (sign, exponent) = match exponent.strip_prefix('-') {
            Some(e) => ('-', e),
            None => ('+', exponent),
        };
        return format!("{digits}e{sign}{exponent:0>2}");
    }
    format!("{x:?}")
}

/// Scales of double quantization decoded: `map[code] * scale + offset`. Inputs are codes, the scales of blocks of codes
/// (whole), and the map (whole, 256 of `f32`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Unnest {
    /// Codes of a block.
    pub block: u64,
    /// What is added.
    pub offset: f32,
}

impl Op for Unnest {
    fn describe(&self) -> String {
        format!("unnest[{} {:08x}]", self.block, self.offset.to_bits())
    }
    fn form(&self, inputs: &[Form]) -> Result<Form> {
        let [codes, scales, map] = inputs else { return Err(Error::usage("nested scales are three inputs")) };
        let types = [codes, scales, map].map(|f| f.encoding);
        if types != [DType::U8, DType::F32, DType::F32].map(Encoding::Plain) {
            return Err(Error::malformed(format!(
                "nested scales of {}, {} and {}",
                types[0], types[1], types[2]
            )));
        }
        let blocks = codes.shape.elements().div_ceil(self.block.max(1));
        if scales.shape.elements() != blocks || map.shape.elements() != 256 {
            return Err(Error::malformed(format!(
                "{} nested scales with a map of {} values for {blocks} blocks",
                scales.shape, map.shape
            )));
        }
        Ok(Form::new(codes.shape.clone(), Encoding::Plain(DType::F32)))
    }
    fn locality(&self, input: usize) -> Locality {
        if input == 0 { Locality::Row } else { Locality::Whole }
    }
    fn run(&self, rows: Rows, forms: &[Form], inputs: &[&[u8]], out: &mut [u8]) -> Result<()> {
        let first = rows.start * forms[0].shape.row_len();
        let (scales, map) = (inputs[1].as_chunks::<4>().0, inputs[2].as_chunks::<4>().0);
        for (i, (code, out)) in inputs[0].iter().zip(out.as_chunks_mut::<4>().0).enumerate() {
            let scale = f32::from_le_bytes(scales[((first + i as u64) / self.block.max(1)) as usize]);
            *out = (f32::from_le_bytes(map[usize::from(*code)]) * scale + self.offset).to_le_bytes();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_printed_as_python_prints_them() {
        for (x, text) in [
            (0.062_316_894_531_25, "0.06231689453125"),
            (0.0, "0.0"),
            (1.0, "1.0"),
            (1e-4, "0.0001"),
            (0.000_030_517_578_125, "3.0517578125e-05"),
            (f64::from(f32::MIN_POSITIVE), "1.1754943508222875e-38"),
            (1.5e20, "1.5e+20"),
            (f64::from(f32::MAX), "3.4028234663852886e+38"),
        ] {
            assert_eq!(python(x), text);
            assert!(text.len() <= NUMBER);
        }
        assert!(python(-2.234_567_890_123_456_7e-38).len() <= NUMBER);
    }
}
