//! `slerp`: interpolation along the arc between two tensors, each seen as one long vector.
//!
//! mergekit's `slerp.py`: norms and dot product of the whole tensor, two coefficients from the angle, and `a * x + b * y`
//! in `f32` (two products, one sum, each rounded), rounded once to the type. It sums norms and products in `f32`, by
//! blocks; here they are summed in `f64`, so that coefficients are those of the exact sums, rounded to `f32`.

use crate::round::{CHUNK, alike, float, load, not_finite, round, store, width};
use tensormill_model::{Error, Form, Locality, Op, Reduction, Result, Rows, Tally};
use tensormill_tensor::{DType, Encoding, Shape};

/// The numbers about two tensors: squares of lengths, and the dot product, as `f64`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Angle {
    /// Type of the inputs' values.
    pub dtype: DType,
}

impl Op for Angle {
    fn describe(&self) -> String {
        format!("angle[{}]", self.dtype)
    }
    fn form(&self, inputs: &[Form]) -> Result<Form> {
        if inputs.len() != 2 {
            return Err(Error::usage("an angle is between two tensors"));
        }
        alike(inputs, self.dtype)?;
        Ok(Form::new(Shape::new(vec![3])?, Encoding::Plain(DType::F64)))
    }
    fn run(&self, _: Rows, _: &[Form], _: &[&[u8]], _: &mut [u8]) -> Result<()> {
        Err(Error::usage("a reduction is found by passes"))
    }
    fn reduction(&self) -> Option<&dyn Reduction> {
        Some(self)
    }
}

/// Sums that are independent of each other, for lanes.
const LANES: usize = 8;

impl Reduction for Angle {
    fn passes(&self) -> usize {
        1
    }
    fn add(&self, _: &[Tally], _: Rows, forms: &[Form], inputs: &[&[u8]], tally: &mut Tally) -> Result<()> {
        let types = [float(&forms[0])?, float(&forms[1])?];
        let count = inputs[0].len() / width(types[0]);
        let (mut x, mut y) = ([0f32; CHUNK], [0f32; CHUNK]);
        let mut sums = [[0f64; LANES]; 3];
        for at in (0..count).step_by(CHUNK) {
            let n = CHUNK.min(count - at);
            load(types[0], inputs[0], at, self.dtype, &mut x[..n]);
            load(types[1], inputs[1], at, self.dtype, &mut y[..n]);
            products(&x[..n], &y[..n], &mut sums);
        }
        tally.sums = sums.iter().map(|s| s.iter().sum()).collect();
        Ok(())
    }
    fn value(&self, tallies: &[Tally], _: &[Form], out: &mut [u8]) -> bool {
        let Some(tally) = tallies.first() else { return false };
        // A tensor without elements has no sums.
        for (i, out) in out.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            *out = tally.sums.get(i).copied().unwrap_or(0.0).to_le_bytes();
        }
        true
    }
}

#[multiversion::multiversion(targets("x86_64+avx512f", "x86_64+avx2"))]
fn products(x: &[f32], y: &[f32], sums: &mut [[f64; LANES]; 3]) {
    let [xx, yy, xy] = sums;
    for (x, y) in x.chunks(LANES).zip(y.chunks(LANES)) {
        for (i, (x, y)) in x.iter().zip(y).enumerate() {
            let (x, y) = (f64::from(*x), f64::from(*y));
            xx[i] += x * x;
            yy[i] += y * y;
            xy[i] += x * y;
        }
    }
}

/// Interpolates between two tensors; the third input is their [`Angle`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Slerp {
    /// 0 is the first tensor, 1 the second.
    pub t: f32,
    /// Type of the inputs' values, and of the result.
    pub dtype: DType,
}

/// Where the cosine is beyond this, the arc is as good as straight, or its plane is not defined.
const STRAIGHT: f32 = 0.9995;
/// Lengths at or below this count as one.
const SMALL: f32 = 1e-8;

impl Slerp {
    /// What the two tensors are multiplied by.
    fn coefficients(self, numbers: &[u8]) -> [f32; 2] {
        let at = |i: usize| numbers.as_chunks::<8>().0.get(i).map_or(0.0, |b| f64::from_le_bytes(*b));
        let length = |square: f64| Some(square.sqrt() as f32).filter(|l| *l > SMALL).unwrap_or(1.0);
        let lengths = f64::from(length(at(0))) * f64::from(length(at(1)));
        let cosine = ((at(2) / lengths) as f32).clamp(-1.0, 1.0);
        let (t, rest) = (self.t, 1.0 - self.t);
        if cosine.abs() > STRAIGHT {
            return [rest, t];
        }
        let angle = f64::from(cosine).acos() as f32;
        let sine = |x: f32| f64::from(x).sin() as f32;
        [sine(rest * angle) / sine(angle), sine(t * angle) / sine(angle)]
    }
}

impl Op for Slerp {
    fn describe(&self) -> String {
        format!("slerp[{:?} {}]", self.t, self.dtype)
    }
    fn form(&self, inputs: &[Form]) -> Result<Form> {
        match inputs {
            [_, _, numbers] if numbers.shape.elements() == 3 => alike(&inputs[..2], self.dtype),
            _ => Err(Error::usage("slerp takes two tensors and their angle")),
        }
    }
    fn locality(&self, input: usize) -> Locality {
        if input == 2 { Locality::Whole } else { Locality::Row }
    }
    fn run(&self, rows: Rows, forms: &[Form], inputs: &[&[u8]], out: &mut [u8]) -> Result<()> {
        let types = [float(&forms[0])?, float(&forms[1])?];
        let [a, b] = self.coefficients(inputs[2]);
        let (mut x, mut y) = ([0f32; CHUNK], [0f32; CHUNK]);
        let count = out.len() / width(self.dtype);
        for at in (0..count).step_by(CHUNK) {
            let n = CHUNK.min(count - at);
            let (x, y) = (&mut x[..n], &mut y[..n]);
            load(types[0], inputs[0], at, self.dtype, x);
            load(types[1], inputs[1], at, self.dtype, y);
            for (x, y) in x.iter_mut().zip(y.iter()) {
                *x = a * *x + b * *y;
            }
            round(self.dtype, x);
            if !store(self.dtype, x, at, out) {
                return Err(not_finite(self.dtype, x, rows.start, at, forms[0].shape.row_len() as usize));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coefficients_follow_the_arc() {
        let numbers = |v: [f64; 3]| v.map(f64::to_le_bytes).concat();
        let of = |t: f32, v| Slerp { t, dtype: DType::F32 }.coefficients(&numbers(v));
        // Between perpendicular vectors, half way is at 45 degrees.
        let [a, b] = of(0.5, [4.0, 9.0, 0.0]);
        assert!((a - 0.5f32.sqrt()).abs() < 1e-7 && a == b);
        assert_eq!((of(0.0, [4.0, 9.0, 3.0]), of(1.0, [4.0, 9.0, 3.0])), ([1.0, 0.0], [0.0, 1.0]));
        // Straight, opposite, and nothing at all.
        assert_eq!(of(0.25, [4.0, 9.0, 6.0]), [0.75, 0.25]);
        assert_eq!(of(0.25, [4.0, 9.0, -6.0]), [0.75, 0.25]);
        assert_eq!(of(0.0, [0.0; 3]), [1.0, 0.0]);
    }
}
