//! What all computations share: which elements can be computed with, decoding, rounding, and results that cannot be
//! stored.

use std::fmt;
use tensormill_model::{Error, Form, Locality, Op, Result, Rows};
use tensormill_tensor::{DType, Encoding, Shape, decode_plain, encode_plain};

/// Floats that can be computed with.
pub(super) fn float(form: &Form, what: &str) -> Result<DType> {
    match form.encoding {
        Encoding::Plain(d) if matches!(d, DType::F32 | DType::F16 | DType::BF16 | DType::F64) => Ok(d),
        other => Err(Error::unsupported(format!("{what} holds {other}, which nothing can be merged with"))),
    }
}

pub(super) fn decode(form: &Form, bytes: &[u8], what: &str) -> Result<Vec<f32>> {
    let dtype = float(form, what)?;
    let mut out = vec![0f32; bytes.len() / (dtype.bits() / 8) as usize];
    let done = decode_plain(dtype, bytes, &mut out);
    debug_assert!(done, "floats decode");
    Ok(out)
}

/// The largest float that does not become infinite in a type.
fn largest(dtype: DType) -> f32 {
    match dtype {
        // Half a unit beyond the largest finite value, ties go to infinity: the next float below is the last to stay.
        DType::BF16 => f32::from_bits(0x7f7f_7fff),
        DType::F16 => 65520f32.next_down(),
        _ => f32::MAX,
    }
}

/// What is written must be finite in its type.
pub(super) fn check(dtype: DType, values: &[f32], first: u64, n: usize) -> Result<()> {
    let most = largest(dtype);
    // Without an early end, so that lanes can do it.
    if values.iter().fold(true, |all, x| all & (x.abs() <= most)) {
        return Ok(());
    }
    let at = values.iter().position(|x| x.is_nan() || x.abs() > most).unwrap_or(0);
    Err(Error::malformed(format!(
        "the merged value in row {}, column {} is {} and cannot be stored as {dtype}",
        first + (at / n) as u64,
        at % n,
        values[at]
    ))
    .hint("base or adapter hold values that are not finite, or the scale is too large"))
}

/// A function from floats to floats, rows at a time.
pub(crate) trait Compute: fmt::Debug + Clone + Send + Sync {
    /// As [`Op::describe`], without the type of the result.
    fn describe(&self) -> String;
    /// What its inputs are called in messages.
    fn inputs(&self) -> Vec<&'static str>;
    /// The result's shape.
    ///
    /// # Errors
    /// For shapes that do not go together.
    fn shape(&self, inputs: &[&Shape]) -> Result<Shape>;
    /// As [`Op::locality`].
    fn locality(&self, input: usize) -> Locality;
    /// Floats that it takes itself.
    fn scratch(&self, inputs: &[&Shape]) -> u64 {
        let _ = inputs;
        0
    }
    /// Rows `rows` of the result, from the same rows of inputs that are local and all rows of the others.
    fn run(&self, rows: Rows, shapes: &[&Shape], inputs: &[Vec<f32>], out: &mut [f32]);
}

/// A [`Compute`] on stored floats of any type, rounded once to `out`.
#[derive(Clone, Debug)]
pub(crate) struct Floats<C> {
    pub(crate) compute: C,
    pub(crate) out: DType,
}

impl<C: Compute> Op for Floats<C> {
    fn describe(&self) -> String {
        format!("{} {}", self.compute.describe(), self.out)
    }
    fn form(&self, inputs: &[Form]) -> Result<Form> {
        let names = self.compute.inputs();
        if inputs.len() != names.len() {
            return Err(Error::usage(format!("{} inputs for {}", inputs.len(), self.compute.describe())));
        }
        for (form, what) in inputs.iter().zip(&names) {
            float(form, what)?;
        }
        let shapes: Vec<&Shape> = inputs.iter().map(|f| &f.shape).collect();
        Ok(Form::new(self.compute.shape(&shapes)?, Encoding::Plain(self.out)))
    }
    fn locality(&self, input: usize) -> Locality {
        self.compute.locality(input)
    }
    fn scratch(&self, inputs: &[Form], rows: u64) -> u64 {
        let shapes: Vec<&Shape> = inputs.iter().map(|f| &f.shape).collect();
        let decoded = shapes.iter().enumerate().map(|(i, s)| match self.compute.locality(i) {
            Locality::Row => rows.saturating_mul(s.row_len()),
            Locality::Rows(n) => rows.saturating_mul(n).saturating_mul(s.row_len()),
            Locality::Whole => s.elements(),
        });
        let own = self.compute.scratch(&shapes);
        let out = self.compute.shape(&shapes).map_or(0, |s| rows.saturating_mul(s.row_len()));
        decoded.fold(own.saturating_add(out), u64::saturating_add).saturating_mul(4)
    }
    fn run(&self, rows: Rows, forms: &[Form], inputs: &[&[u8]], out: &mut [u8]) -> Result<()> {
        let shapes: Vec<&Shape> = forms.iter().map(|f| &f.shape).collect();
        let n = self.compute.shape(&shapes)?.row_len() as usize;
        let names = self.compute.inputs();
        let named = forms.iter().zip(inputs).zip(names);
        let values = named.map(|((f, bytes), what)| decode(f, bytes, what)).collect::<Result<Vec<_>>>()?;
        let mut result = vec![0f32; (rows.end - rows.start) as usize * n];
        self.compute.run(rows.clone(), &shapes, &values, &mut result);
        let encoded = encode_plain(self.out, &result, out);
        debug_assert!(encoded, "forms were checked when planning");
        check(self.out, &result, rows.start, n.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_beyond_a_type_are_found() {
        for dtype in [DType::F16, DType::BF16, DType::F32] {
            let (most, mut bytes) = (largest(dtype), vec![0; (dtype.bits() / 8) as usize]);
            let mut back = [0f32];
            assert!(encode_plain(dtype, &[most], &mut bytes) && decode_plain(dtype, &bytes, &mut back));
            assert!(back[0].is_finite() && check(dtype, &[0.0, most, -most], 0, 3).is_ok());
            let beyond = most.next_up();
            assert!(encode_plain(dtype, &[beyond], &mut bytes) && decode_plain(dtype, &bytes, &mut back));
            assert!(back[0].is_infinite());
            for bad in [beyond, -beyond, f32::NAN] {
                let e = check(dtype, &[0.0, 0.0, 0.0, bad], 5, 3).unwrap_err();
                assert!(e.message().contains("row 6, column 0"), "{e}");
            }
        }
    }
}
