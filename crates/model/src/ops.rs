//! The operations on plain elements that rewrites of every kind need. Block encodings live in transforms.

use crate::{Error, Form, Locality, Op, Result, Rows};
use tensormill_tensor::{DType, Encoding, Shape, decode_plain, encode_plain};

/// Converts plain elements to another float type through `f32` (exact for f16, bf16 and f32 inputs).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cast(pub DType);

/// Adds a constant in `f32` and gives `f32` (Gemma stores its norms minus one).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AddScalar(pub f32);

/// Of every so many rows of a matrix, or elements of a row, the one of this number: what was woven together, apart again.
///
/// Where several tensors pick from the same rows, these are read once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EveryNth {
    /// Of how many; at least one.
    pub of: u64,
    /// Which one, from zero.
    pub at: u64,
    /// Elements of rows, not rows of matrices.
    pub elements: bool,
}

fn plain_input(inputs: &[Form], what: &str) -> Result<DType> {
    match inputs {
        [Form { encoding: Encoding::Plain(d), .. }]
            if !matches!(d, DType::C64 | DType::F4 | DType::F6E2M3 | DType::F6E3M2) =>
        {
            Ok(*d)
        }
        [f] => Err(Error::unsupported(format!("cannot {what} {} elements", f.encoding))),
        _ => Err(Error::usage(format!("{what} takes one input"))),
    }
}

/// Elements converted at a time: small enough for the first-level cache and the stack.
const CHUNK: usize = 1024;

fn map_f32(from: DType, to: DType, input: &[u8], out: &mut [u8], f: impl Fn(f32) -> f32) {
    let (fb, tb) = ((from.bits() / 8) as usize, (to.bits() / 8) as usize);
    let mut buf = [0f32; CHUNK];
    for (i, o) in input.chunks(CHUNK * fb).zip(out.chunks_mut(CHUNK * tb)) {
        let x = &mut buf[..i.len() / fb];
        let decoded = decode_plain(from, i, x);
        for v in x.iter_mut() {
            *v = f(*v);
        }
        let encoded = encode_plain(to, x, o);
        debug_assert!(decoded && encoded, "forms were checked when planning");
    }
}

impl Op for Cast {
    fn describe(&self) -> String {
        format!("cast[{}]", self.0)
    }
    fn any(&self) -> Option<&dyn std::any::Any> {
        Some(self)
    }
    fn form(&self, inputs: &[Form]) -> Result<Form> {
        plain_input(inputs, "cast")?;
        if !matches!(self.0, DType::F32 | DType::F16 | DType::BF16 | DType::F64) {
            return Err(Error::unsupported(format!("cannot cast to {}", self.0)));
        }
        Ok(Form::new(inputs[0].shape.clone(), Encoding::Plain(self.0)))
    }
    fn is_encoding(&self) -> bool {
        true
    }
    fn run(&self, _: Rows, forms: &[Form], inputs: &[&[u8]], out: &mut [u8]) -> Result<()> {
        let from = plain_input(forms, "cast")?;
        if from == self.0 {
            out.copy_from_slice(inputs[0]);
        } else {
            map_f32(from, self.0, inputs[0], out, |x| x);
        }
        Ok(())
    }
}

impl Op for AddScalar {
    fn describe(&self) -> String {
        format!("add[{}]", self.0)
    }
    fn form(&self, inputs: &[Form]) -> Result<Form> {
        plain_input(inputs, "add to")?;
        Ok(Form::new(inputs[0].shape.clone(), Encoding::F32))
    }
    fn run(&self, _: Rows, forms: &[Form], inputs: &[&[u8]], out: &mut [u8]) -> Result<()> {
        let c = self.0;
        map_f32(plain_input(forms, "add to")?, DType::F32, inputs[0], out, |x| x + c);
        Ok(())
    }
}

impl Op for EveryNth {
    fn describe(&self) -> String {
        let of = if self.elements { "elements" } else { "rows" };
        format!("every[{} of {} {of}]", self.at, self.of)
    }
    fn any(&self) -> Option<&dyn std::any::Any> {
        Some(self)
    }
    fn form(&self, inputs: &[Form]) -> Result<Form> {
        let [input] = inputs else { return Err(Error::usage("rows are picked of one input")) };
        let mut dims = input.shape.dims().to_vec();
        let bytes = matches!(input.encoding, Encoding::Plain(d) if d.bits() % 8 == 0);
        let picked = match dims.as_mut_slice() {
            [.., n] if self.elements => Some(n).filter(|_| bytes),
            [.., rows, _] if !self.elements => Some(rows),
            _ => None,
        };
        match picked {
            Some(n) if self.at < self.of && n.is_multiple_of(self.of) => *n /= self.of,
            _ => {
                let what = format!("{} {} has not {} in every", input.encoding, input.shape, self.of);
                return Err(Error::mismatch(format!(
                    "{what} {}",
                    if self.elements { "row" } else { "matrix" }
                )));
            }
        }
        Ok(Form::new(Shape::new(dims)?, input.encoding))
    }
    fn locality(&self, _: usize) -> Locality {
        if self.elements { Locality::Row } else { Locality::Rows(self.of) }
    }
    fn run(&self, _: Rows, forms: &[Form], inputs: &[&[u8]], out: &mut [u8]) -> Result<()> {
        let row = forms[0].row_bytes()? as usize;
        let width = if self.elements { row / (forms[0].shape.row_len().max(1) as usize) } else { row };
        if width == 0 {
            return Ok(());
        }
        let all = inputs[0].chunks_exact(width * self.of as usize);
        for (all, out) in all.zip(out.chunks_exact_mut(width)) {
            out.copy_from_slice(&all[self.at as usize * width..][..width]);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_nth_row_or_element() {
        let form = |dims: &[u64]| [Form::new(Shape::new(dims.to_vec()).unwrap(), Encoding::F16)];
        let input: Vec<u8> = (0..32).collect();
        let rows = EveryNth { of: 2, at: 1, elements: false };
        let f = form(&[2, 4, 2]);
        assert_eq!(rows.form(&f).unwrap().shape.dims(), [2, 2, 2]);
        let mut out = [0u8; 16];
        rows.run(0..4, &f, &[&input], &mut out).unwrap();
        assert_eq!(out, [4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31]);
        let elements = EveryNth { of: 2, at: 0, elements: true };
        let f = form(&[4, 4]);
        assert_eq!(elements.form(&f).unwrap().shape.dims(), [4, 2]);
        elements.run(0..4, &f, &[&input], &mut out).unwrap();
        assert_eq!(out, [0, 1, 4, 5, 8, 9, 12, 13, 16, 17, 20, 21, 24, 25, 28, 29]);
        for (op, dims) in [(rows, &[3, 2][..]), (elements, &[2, 3]), (rows, &[4]), (elements, &[])] {
            assert!(op.form(&form(dims)).is_err(), "{dims:?}");
        }
    }

    #[test]
    fn casts_and_adds() {
        let f = [Form::new(Shape::new(vec![1, 2]).unwrap(), Encoding::BF16)];
        let input = [0x80, 0x3f, 0x00, 0xc0]; // 1.0, -2.0
        let mut out = [0u8; 8];
        AddScalar(1.0).run(0..1, &f, &[&input], &mut out).unwrap();
        assert_eq!(out, [2f32.to_le_bytes(), (-1f32).to_le_bytes()].concat()[..]);
        assert!(Cast(DType::U8).form(&f).is_err());
        assert_eq!(Cast(DType::F16).form(&f).unwrap().encoding, Encoding::F16);
    }
}
