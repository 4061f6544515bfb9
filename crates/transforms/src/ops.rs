//! The operations that cross between plain elements and blocks.
//!
//! Each sees whole rows. The searches themselves are the kernels'.

use std::{fmt, sync::Arc};
use tensormill_kernels::{BlockCodec, KernelError, Operand, Search, codec, codec_for};
use tensormill_model::{Encode, Error, Form, Op, Result, Rows, fingerprint};
use tensormill_tensor::{BlockFormat, DType, Encoding, decode_plain, encode_plain};

/// Importance of one tensor's columns: one vector as long as a row for each matrix that the tensor stacks.
#[derive(Clone)]
pub struct TensorImportance {
    values: Arc<[f32]>,
    fingerprint: u64,
}

impl TensorImportance {
    /// Takes `row_len * matrices` values, matrix after matrix.
    pub fn new(values: Arc<[f32]>) -> Self {
        let fingerprint = fingerprint(values.iter().flat_map(|v| v.to_bits().to_le_bytes()));
        Self { values, fingerprint }
    }
    /// The values.
    pub fn values(&self) -> &[f32] {
        &self.values
    }
}

impl fmt::Debug for TensorImportance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} values {:016x}", self.values.len(), self.fingerprint)
    }
}

fn need_codec(block: &'static BlockFormat) -> Result<&'static dyn BlockCodec> {
    codec(block).ok_or_else(|| Error::unsupported(format!("{block} blocks cannot be read or written yet")))
}

fn one<'a>(forms: &'a [Form], what: &str) -> Result<&'a Form> {
    match forms {
        [f] => Ok(f),
        _ => Err(Error::usage(format!("{what} takes one input"))),
    }
}

/// Checks that rows can be widened to `f32`.
///
/// # Errors
/// `Unsupported`, saying `what` cannot be done.
pub fn check_readable(encoding: Encoding, what: &str) -> Result<()> {
    let readable = match encoding {
        Encoding::Plain(d) => {
            d.is_float() && !matches!(d, DType::C64 | DType::F4 | DType::F6E2M3 | DType::F6E3M2)
        }
        Encoding::Block(b) => codec(b).is_some(),
    };
    if readable { Ok(()) } else { Err(Error::unsupported(format!("cannot {what} {encoding} weights"))) }
}

/// Widens one row to `f32`.
///
/// # Errors
/// When the row is not as long as `out` demands.
pub fn widen(encoding: Encoding, row: &[u8], out: &mut [f32]) -> Result<()> {
    match encoding {
        Encoding::Plain(d) => {
            let decoded = decode_plain(d, row, out);
            debug_assert!(decoded, "forms were checked when planning");
            Ok(())
        }
        Encoding::Block(b) => need_codec(b)?.decode_row(row, out).map_err(|e| kernel_error(&e, None)),
    }
}

fn kernel_error(e: &KernelError, row: Option<u64>) -> Error {
    match (e, row) {
        (KernelError::NonFinite { operand: Operand::Row, column }, Some(row)) => non_finite(row, *column),
        (KernelError::NonFinite { .. }, _) => Error::malformed(e.to_string()),
        (KernelError::EncodeUnsupported { .. }, _) => Error::unsupported(e.to_string()),
        _ => Error::mismatch(e.to_string()),
    }
}

fn non_finite(row: u64, column: usize) -> Error {
    Error::malformed(format!("the weight in row {row}, column {column} is NaN or infinite"))
        .hint("the source is damaged: `tensormill inspect` and `compare` can tell how far")
}

/// Weights widened at a time: enough rows to fill the lanes of any encoder, few enough for the second-level cache.
const BATCH: u64 = 1 << 16;

/// Rows of `len` weights in one batch.
fn batch_rows(len: u64) -> u64 {
    (BATCH / len.max(1)).max(1)
}

/// Scratch of [`each_batch`] in bytes, for the memory budget.
fn batch_bytes(form: &Form, rows: u64) -> u64 {
    let len = form.shape.row_len();
    batch_rows(len).min(rows).saturating_mul(len).saturating_mul(4)
}

/// Calls `f` for batches of rows, widened to `f32`, with the number of their first row and the place of their output.
/// No batch crosses a multiple of `group` rows.
fn each_batch(
    rows: Rows,
    form: &Form,
    group: u64,
    mut input: &[u8],
    mut out: &mut [u8],
    out_row: u64,
    mut f: impl FnMut(u64, &[f32], &mut [u8]) -> Result<()>,
) -> Result<()> {
    let (in_row, len) = (form.row_bytes()? as usize, form.shape.row_len());
    if in_row == 0 || out_row == 0 || group == 0 {
        return Ok(());
    }
    let mut buf = vec![0f32; (batch_bytes(form, rows.end - rows.start) / 4) as usize];
    let mut row = rows.start;
    while row < rows.end {
        let n = batch_rows(len).min(rows.end - row).min(group - row % group);
        let x = &mut buf[..(n * len) as usize];
        let (i, rest) = input.split_at(n as usize * in_row);
        for (i, x) in i.chunks_exact(in_row).zip(x.chunks_exact_mut(len as usize)) {
            widen(form.encoding, i, x)?;
        }
        let (o, out_rest) = std::mem::take(&mut out).split_at_mut((n * out_row) as usize);
        f(row, x, o)?;
        (row, input, out) = (row + n, rest, out_rest);
    }
    Ok(())
}

/// Encodes float rows, plain or already in blocks, as blocks of one format.
#[derive(Clone, Debug)]
pub struct QuantizeOp {
    block: &'static BlockFormat,
    importance: Option<TensorImportance>,
    search: Search,
}

impl QuantizeOp {
    /// An op that encodes as `block`, by ggml's search.
    ///
    /// # Errors
    /// `Unsupported` when this build has no encoder for it.
    pub fn new(block: &'static BlockFormat, importance: Option<TensorImportance>) -> Result<Self> {
        let encoder = codec(block).filter(|c| c.can_encode()).ok_or_else(|| {
            Error::unsupported(format!("{block} blocks cannot be encoded yet"))
                .hint("`tensormill list types` shows which can")
        })?;
        if encoder.needs_importance() && importance.is_none() {
            return Err(needs_importance(block));
        }
        Ok(Self { block, importance, search: Search::Ggml })
    }

    /// The same with another search.
    #[must_use]
    pub fn with_search(self, search: Search) -> Self {
        Self { search, ..self }
    }
}

/// The error for a type that is garbage without importance.
pub(crate) fn needs_importance(block: &BlockFormat) -> Error {
    Error::usage(format!("{block} needs an importance matrix with an entry for this tensor"))
        .hint("give one with --imatrix, or choose another type with --tensor-type")
}

impl Op for QuantizeOp {
    fn describe(&self) -> String {
        // ggml's search is what "quantize" means without a word.
        let search = match self.search {
            Search::Ggml => String::new(),
            Search::Best => format!(" search {}", self.search),
        };
        match &self.importance {
            None => format!("quantize[{}{search}]", self.block),
            Some(i) => format!("quantize[{}{search} importance {i:?}]", self.block),
        }
    }

    fn any(&self) -> Option<&dyn std::any::Any> {
        Some(self)
    }

    fn form(&self, inputs: &[Form]) -> Result<Form> {
        let input = one(inputs, "quantize")?;
        check_readable(input.encoding, "quantize")?;
        if let Some(i) = &self.importance {
            let dims = input.shape.dims();
            let matrices: u64 = dims[..dims.len().saturating_sub(2)].iter().product();
            if matrices.checked_mul(input.shape.row_len()) != Some(i.values.len() as u64) {
                return Err(Error::mismatch(format!(
                    "{} importance values for {matrices} matrices of {} columns",
                    i.values.len(),
                    input.shape.row_len()
                )));
            }
        }
        let form = Form::new(input.shape.clone(), Encoding::Block(self.block));
        form.row_bytes()?;
        Ok(form)
    }

    fn scratch(&self, inputs: &[Form], rows: u64) -> u64 {
        // The batch, and as much as a row again for what searches keep.
        inputs.first().map_or(0, |f| batch_bytes(f, rows).saturating_add(f.shape.row_len().saturating_mul(4)))
    }

    fn run(&self, rows: Rows, forms: &[Form], inputs: &[&[u8]], out: &mut [u8]) -> Result<()> {
        let form = &forms[0];
        let encoder = codec_for(self.block, self.search).map_or_else(|| need_codec(self.block), Ok)?;
        let len = form.shape.row_len() as usize;
        let rows_per_matrix = match form.shape.dims() {
            [.., rows, _] => *rows,
            _ => 1,
        };
        let out_row = self.form(forms)?.row_bytes()?;
        each_batch(rows, form, rows_per_matrix, inputs[0], out, out_row, |row, x, o| {
            let importance = self.importance.as_ref().and_then(|i| {
                let start = (row / rows_per_matrix) as usize * len;
                i.values.get(start..start + len)
            });
            encoder
                .encode_rows(x, len, importance, o)
                .map_err(|e| kernel_error(&e.error, Some(row + e.row as u64)))
        })
    }

    fn encodes(&self) -> Option<Encode<'_>> {
        (self.search == Search::Ggml).then(|| Encode {
            block: self.block,
            importance: self.importance.as_ref().map(TensorImportance::values),
        })
    }

    fn decode(&self, bytes: &[u8], out: &mut [f32]) -> Option<Result<()>> {
        Some(
            need_codec(self.block).and_then(|c| c.decode_row(bytes, out).map_err(|e| kernel_error(&e, None))),
        )
    }
}

/// Decodes blocks to plain `f32`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dequantize;

impl Op for Dequantize {
    fn describe(&self) -> String {
        "dequantize".into()
    }
    fn any(&self) -> Option<&dyn std::any::Any> {
        Some(self)
    }
    fn form(&self, inputs: &[Form]) -> Result<Form> {
        let input = one(inputs, "dequantize")?;
        let Encoding::Block(b) = input.encoding else {
            return Err(Error::usage(format!("{} weights are not in blocks", input.encoding)));
        };
        need_codec(b)?;
        Ok(Form::new(input.shape.clone(), Encoding::F32))
    }
    fn scratch(&self, inputs: &[Form], rows: u64) -> u64 {
        inputs.first().map_or(0, |f| batch_bytes(f, rows))
    }
    fn run(&self, rows: Rows, forms: &[Form], inputs: &[&[u8]], out: &mut [u8]) -> Result<()> {
        let out_row = self.form(forms)?.row_bytes()?;
        each_batch(rows, &forms[0], u64::MAX, inputs[0], out, out_row, |_, x, o| {
            let encoded = encode_plain(DType::F32, x, o);
            debug_assert!(encoded, "f32 is always encodable");
            Ok(())
        })
    }
}

/// Converts float rows, plain or in blocks, to a plain type, refusing values that the target cannot hold.
///
/// This is how llama-quantize makes its F16, BF16 and F32 tensors: it validates what it wrote. The converter's
/// cast, which lets infinities through, is `tensormill_model::Cast`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckedCast(pub DType);

impl Op for CheckedCast {
    fn describe(&self) -> String {
        format!("checked-cast[{}]", self.0)
    }
    fn form(&self, inputs: &[Form]) -> Result<Form> {
        let input = one(inputs, "cast")?;
        check_readable(input.encoding, "cast")?;
        if !matches!(self.0, DType::F32 | DType::F16 | DType::BF16) {
            return Err(Error::unsupported(format!("cannot quantize to {}", self.0)));
        }
        Ok(Form::new(input.shape.clone(), Encoding::Plain(self.0)))
    }
    fn scratch(&self, inputs: &[Form], rows: u64) -> u64 {
        inputs.first().map_or(0, |f| batch_bytes(f, rows))
    }
    fn run(&self, rows: Rows, forms: &[Form], inputs: &[&[u8]], out: &mut [u8]) -> Result<()> {
        let out_row = self.form(forms)?.row_bytes()?;
        let len = forms[0].shape.row_len();
        each_batch(rows, &forms[0], u64::MAX, inputs[0], out, out_row, |row, x, o| {
            let encoded = encode_plain(self.0, x, o);
            debug_assert!(encoded, "form() allows only encodable types");
            let finite = |b: u16, exponent: u16| b & exponent != exponent;
            let bad = match self.0 {
                DType::F16 => {
                    o.as_chunks::<2>().0.iter().position(|b| !finite(u16::from_le_bytes(*b), 0x7c00))
                }
                DType::BF16 => {
                    o.as_chunks::<2>().0.iter().position(|b| !finite(u16::from_le_bytes(*b), 0x7f80))
                }
                _ => x.iter().position(|v| !v.is_finite()),
            };
            let Some(bad) = bad else { return Ok(()) };
            let (row, column) = (row + bad as u64 / len, bad % len as usize);
            if !x[bad].is_finite() {
                return Err(non_finite(row, column));
            }
            Err(Error::malformed(format!(
                "the weight {} in row {row}, column {column} is too large for {}",
                x[bad], self.0
            ))
            .hint("choose bf16 or f32 for this model"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tensormill_tensor::{Shape, ggml};

    fn form(dims: &[u64], encoding: Encoding) -> [Form; 1] {
        [Form::new(Shape::new(dims.to_vec()).unwrap(), encoding)]
    }
    fn bytes(x: &[f32]) -> Vec<u8> {
        x.iter().flat_map(|v| v.to_le_bytes()).collect()
    }
    fn wave(n: usize) -> Vec<f32> {
        (0..n).map(|i| (i as f32 * 0.7).sin() * (1.0 + (i % 5) as f32)).collect()
    }

    #[test]
    fn the_search_is_part_of_what_an_op_is_and_lowers_the_error() {
        let x: Vec<f32> = (0..512).map(|i| ((i * i) as f32 * 0.37).sin()).collect();
        let f = form(&[2, 256], Encoding::F32);
        let ops =
            [Search::Ggml, Search::Best].map(|s| QuantizeOp::new(ggml::Q4_K, None).unwrap().with_search(s));
        assert_eq!(ops.each_ref().map(Op::describe), ["quantize[Q4_K]", "quantize[Q4_K search best]"]);
        assert_eq!(
            ops.each_ref().map(|op| op.encodes().is_some()),
            [true, false],
            "others know ggml's alone"
        );
        let [ggml, best] = ops.map(|op| {
            let mut out = vec![0; 288];
            op.run(0..2, &f, &[&bytes(&x)], &mut out).unwrap();
            let mut back = vec![0f32; 512];
            op.decode(&out, &mut back).unwrap().unwrap();
            x.iter().zip(&back).map(|(x, y)| (x - y).powi(2)).sum::<f32>()
        });
        assert!(best < ggml, "{best} after {ggml}");
    }

    #[test]
    fn each_matrix_of_a_stack_uses_its_own_importance() {
        let x = wave(32 * 4);
        let f = form(&[2, 2, 32], Encoding::F32);
        let importance: Vec<f32> = (0..64).map(|i| 0.01 + ((i * i) % 17) as f32).collect();
        let op = QuantizeOp::new(ggml::Q4_0, Some(TensorImportance::new(importance.clone().into()))).unwrap();
        let mut got = vec![0u8; 4 * 18];
        op.run(0..4, &f, &[&bytes(&x)], &mut got).unwrap();
        let q4_0 = codec(ggml::Q4_0).unwrap();
        let mut want = vec![0u8; 4 * 18];
        for (r, o) in want.chunks_mut(18).enumerate() {
            q4_0.encode_row(&x[r * 32..][..32], Some(&importance[r / 2 * 32..][..32]), o).unwrap();
        }
        assert_eq!(got, want);
        // Any range of rows gives the same bytes.
        let mut part = vec![0u8; 2 * 18];
        op.run(1..3, &f, &[&bytes(&x[32..96])], &mut part).unwrap();
        assert_eq!(part, want[18..54]);
        let mut plain = vec![0u8; 4 * 18];
        QuantizeOp::new(ggml::Q4_0, None).unwrap().run(0..4, &f, &[&bytes(&x)], &mut plain).unwrap();
        assert_ne!(plain, want, "importance changes bytes");
    }

    #[test]
    fn descriptions_tell_importance_apart() {
        let op = |v: f32| {
            QuantizeOp::new(ggml::Q8_0, Some(TensorImportance::new(vec![v; 32].into()))).unwrap().describe()
        };
        assert_eq!(op(1.0), op(1.0));
        assert_ne!(op(1.0), op(2.0));
    }

    #[test]
    fn bad_values_are_placed() {
        let mut x = wave(64);
        x[40] = f32::NAN;
        let f = form(&[2, 32], Encoding::F32);
        let mut out = vec![0u8; 68];
        let op = QuantizeOp::new(ggml::Q8_0, None).unwrap();
        let e = op.run(6..8, &f, &[&bytes(&x)], &mut out).unwrap_err();
        assert!(e.message().contains("row 7, column 8"), "{e}");
        x[40] = 1e6;
        let mut half = vec![0u8; 128];
        let e = CheckedCast(DType::F16).run(0..2, &f, &[&bytes(&x)], &mut half).unwrap_err();
        assert!(e.message().contains("row 1, column 8") && e.message().contains("too large"), "{e}");
        CheckedCast(DType::BF16).run(0..2, &f, &[&bytes(&x)], &mut half).unwrap();
    }

    #[test]
    fn blocks_are_decoded_on_the_way_in() {
        let x = wave(64);
        let f = form(&[2, 32], Encoding::F32);
        let mut q8 = vec![0u8; 68];
        let op = QuantizeOp::new(ggml::Q8_0, None).unwrap();
        op.run(0..2, &f, &[&bytes(&x)], &mut q8).unwrap();
        let blocks = form(&[2, 32], Encoding::Block(ggml::Q8_0));
        let mut plain = vec![0u8; 256];
        Dequantize.run(0..2, &blocks, &[&q8], &mut plain).unwrap();
        let mut decoded = vec![0f32; 64];
        op.decode(&q8, &mut decoded).unwrap().unwrap();
        assert_eq!(bytes(&decoded), plain);
        let (mut a, mut b) = (vec![0u8; 36], vec![0u8; 36]);
        let q4 = QuantizeOp::new(ggml::Q4_0, None).unwrap();
        q4.run(0..2, &blocks, &[&q8], &mut a).unwrap();
        q4.run(0..2, &f, &[&plain], &mut b).unwrap();
        assert_eq!(a, b);
    }

    #[test]
    fn forms_refuse_what_cannot_be() {
        let op = QuantizeOp::new(ggml::Q4_K, None).unwrap();
        assert!(op.form(&form(&[2, 300], Encoding::F32)).is_err());
        assert!(op.form(&form(&[2, 256], Encoding::Plain(DType::I32))).is_err());
        assert!(op.form(&form(&[2, 256], Encoding::BF16)).is_ok());
        let short = QuantizeOp::new(ggml::Q4_K, Some(TensorImportance::new(vec![1.0; 256].into()))).unwrap();
        assert!(short.form(&form(&[3, 2, 256], Encoding::F32)).is_err());
        assert!(short.form(&form(&[2, 256], Encoding::F32)).is_ok());
        assert!(QuantizeOp::new(ggml::Q8_1, None).is_err());
        assert!(Dequantize.form(&form(&[2, 256], Encoding::F32)).is_err());
    }
}
