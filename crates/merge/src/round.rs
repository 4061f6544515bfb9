//! Floats of a type, held as `f32`: reading rows, rounding in between, writing results.

use tensormill_model::{Error, Form, Result};
use tensormill_tensor::{DType, Encoding, decode_plain, encode_plain};

/// Elements worked on together: small enough for the first-level cache, one buffer per model.
pub(crate) const CHUNK: usize = 1024;

/// Types that merges can be computed with.
pub(crate) fn float(form: &Form) -> Result<DType> {
    match form.encoding {
        Encoding::Plain(d) if is_float(d) => Ok(d),
        other => Err(Error::unsupported(format!("{other} elements cannot be merged")).hint(
            "convert the model first: tensormill convert MODEL -o FOLDER --to safetensors --dtype bf16",
        )),
    }
}

pub(crate) fn is_float(d: DType) -> bool {
    matches!(d, DType::F32 | DType::F16 | DType::BF16 | DType::F64)
}

/// Bytes of an element.
pub(crate) fn width(d: DType) -> usize {
    (d.bits() / 8) as usize
}

/// Checks that all inputs are floats of one shape, and gives that form in another type.
pub(crate) fn alike(inputs: &[Form], dtype: DType) -> Result<Form> {
    let first = inputs.first().ok_or_else(|| Error::usage("nothing to merge"))?;
    for form in inputs {
        float(form)?;
        if form.shape != first.shape {
            return Err(Error::mismatch(format!("{} and {} cannot be merged", first.shape, form.shape)));
        }
    }
    Ok(Form::new(first.shape.clone(), Encoding::Plain(dtype)))
}

/// Reads elements `at..at + out.len()` of rows as floats of type `dtype`.
#[inline]
pub(crate) fn load(from: DType, bytes: &[u8], at: usize, dtype: DType, out: &mut [f32]) {
    let width = width(from);
    let decoded = decode_plain(from, &bytes[at * width..][..out.len() * width], out);
    debug_assert!(decoded, "floats decode");
    if from != dtype {
        round(dtype, out);
    }
}

/// Rounds to the values that a type has, to nearest even.
#[inline]
pub(crate) fn round(dtype: DType, values: &mut [f32]) {
    match dtype {
        DType::BF16 => round_bf16(values),
        DType::F16 => {
            let mut bytes = [0u8; 2 * CHUNK];
            for part in values.chunks_mut(CHUNK) {
                let bytes = &mut bytes[..2 * part.len()];
                let done = encode_plain(DType::F16, part, bytes) && decode_plain(DType::F16, bytes, part);
                debug_assert!(done, "floats encode");
            }
        }
        _ => {}
    }
}

/// One number, rounded.
pub(crate) fn rounded(dtype: DType, x: f32) -> f32 {
    let mut one = [x];
    round(dtype, &mut one);
    one[0]
}

#[multiversion::multiversion(targets("x86_64+avx512f+avx512bw", "x86_64+avx2"))]
fn round_bf16(values: &mut [f32]) {
    for x in values {
        *x = bf16(*x);
    }
}

/// What is no number stays none: the sum would carry into the sign.
#[inline]
fn bf16(x: f32) -> f32 {
    let bits = x.to_bits();
    let near = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) & 0xffff_0000;
    f32::from_bits(if bits & 0x7fff_ffff > 0x7f80_0000 { bits } else { near })
}

/// Writes results, which are values of the type already, at element `at`; what is not finite is an error.
pub(crate) fn store(dtype: DType, values: &[f32], at: usize, out: &mut [u8]) -> bool {
    let width = width(dtype);
    let encoded = encode_plain(dtype, values, &mut out[at * width..][..values.len() * width]);
    debug_assert!(encoded, "floats encode");
    // Without an early end, so that lanes can do it.
    values.iter().fold(true, |all, x| all & x.is_finite())
}

/// The error for results of which `values`, from element `at` of the rows from `first` on, are not all finite.
pub(crate) fn not_finite(dtype: DType, values: &[f32], first: u64, at: usize, row_len: usize) -> Error {
    let at = at + values.iter().position(|x| !x.is_finite()).unwrap_or(0);
    let row_len = row_len.max(1);
    Error::malformed(format!(
        "the merged value in row {}, column {} is not finite and cannot be stored as {dtype}",
        first + (at / row_len) as u64,
        at % row_len,
    ))
    .hint("a model holds values that are not finite, or the weights are too large")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_is_encoding_and_decoding() {
        for dtype in [DType::BF16, DType::F16, DType::F32] {
            for i in 0..500_000u32 {
                let x = f32::from_bits(i.wrapping_mul(8590));
                let (mut bytes, mut back) = (vec![0; width(dtype)], [0f32]);
                assert!(encode_plain(dtype, &[x], &mut bytes) && decode_plain(dtype, &bytes, &mut back));
                let got = rounded(dtype, x);
                assert!(
                    got.to_bits() == back[0].to_bits() || (got.is_nan() && back[0].is_nan()),
                    "{dtype} {x}"
                );
            }
        }
    }
}
