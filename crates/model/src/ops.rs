//! The operations on plain elements that rewrites of every kind need. Block encodings live in transforms.

use crate::{Error, Form, Op, Result, Rows};
use tensormill_tensor::{DType, Encoding, decode_plain, encode_plain};

/// Converts plain elements to another float type through `f32` (exact for f16, bf16 and f32 inputs).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cast(pub DType);

/// Adds a constant in `f32` and gives `f32` (Gemma stores its norms minus one).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AddScalar(pub f32);

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

#[cfg(test)]
mod tests {
    use super::*;
    use tensormill_tensor::Shape;

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
