//! Expressions: how a tensor's bytes come about, as data.
//!
//! An expression can be printed, compared, hashed and evaluated for any range of its rows. It holds no
//! weights and no closures. Rows are the unit throughout: row maps keep permutation, slicing and stacking
//! streamable, and a row-local [`Op`] sees only the rows it must produce.

use crate::{Encode, Error, Reduction, Result};
use std::{fmt, sync::Arc};
use tensormill_tensor::{Encoding, Shape};

/// Shape and encoding of an expression's value: a spec without a name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Form {
    /// Dimensions, outermost first.
    pub shape: Shape,
    /// How elements are stored.
    pub encoding: Encoding,
}

impl Form {
    /// Makes a form.
    pub fn new(shape: Shape, encoding: Encoding) -> Self {
        Self { shape, encoding }
    }
    /// Bytes of one row.
    ///
    /// # Errors
    /// When rows do not fill whole blocks.
    pub fn row_bytes(&self) -> Result<u64> {
        self.encoding.row_bytes(self.shape.row_len()).ok_or_else(|| {
            Error::malformed(format!(
                "rows of {} elements do not fill whole {} blocks",
                self.shape.row_len(),
                self.encoding
            ))
        })
    }
}

/// A half-open range of rows.
pub type Rows = std::ops::Range<u64>;

/// Which input row each output row is. Closed forms only, so that maps of any size cost nothing.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum RowMap {
    /// Rows `start..start+len`.
    Slice {
        /// First input row.
        start: u64,
        /// Number of rows.
        len: u64,
    },
    /// Rows seen as `[outer][a][b]`, reordered to `[outer][b][a]`: output row `(o, j, i)` is input row
    /// `(o, i, j)`. With `a = 2` and `b = head_dim / 2` this is how q/k rows change between the rotate-half
    /// and the interleaved RoPE layouts.
    SwapInner {
        /// Length of the first inner axis of the input.
        a: u64,
        /// Length of the second inner axis of the input.
        b: u64,
    },
}

impl RowMap {
    /// The input row of output row `i`.
    pub fn source(self, i: u64) -> u64 {
        match self {
            Self::Slice { start, .. } => start + i,
            Self::SwapInner { a, b } => {
                let (o, r) = (i / (a * b), i % (a * b));
                let (j, k) = (r / a, r % a);
                o * a * b + k * b + j
            }
        }
    }
    /// Output rows in aligned groups of this many come from one contiguous run of as many input rows.
    pub fn period(self) -> u64 {
        match self {
            Self::Slice { .. } => 1,
            Self::SwapInner { a, b } => a * b,
        }
    }
    /// Number of output rows for `input_rows` rows.
    ///
    /// # Errors
    /// When the map does not fit the input.
    pub fn rows(self, input_rows: u64) -> Result<u64> {
        match self {
            Self::Slice { start, len } => match start.checked_add(len) {
                Some(end) if end <= input_rows => Ok(len),
                _ => Err(Error::mismatch(format!("rows {start}+{len} of a tensor of {input_rows} rows"))),
            },
            Self::SwapInner { a, b } => match a.checked_mul(b) {
                Some(p) if p != 0 && input_rows.is_multiple_of(p) => Ok(input_rows),
                _ => Err(Error::mismatch(format!("{input_rows} rows cannot be grouped as {a} x {b}"))),
            },
        }
    }
}

/// How an [`Op`]'s output rows depend on the rows of one input.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Locality {
    /// Output rows `a..b` need exactly rows `a..b` of the input.
    Row,
    /// Output row `r` needs so many rows of the input, `r * n..(r + 1) * n`, and the last one what there is of them: numbers
    /// that rows share, and what packs rows into one. Never zero.
    Rows(u64),
    /// Every output row needs all of the input (reductions, factors of a product).
    Whole,
}

impl Locality {
    /// The rows of an input of `all` rows that some output rows need.
    pub fn of(self, rows: &Rows, all: u64) -> Rows {
        match self {
            Self::Row => rows.clone(),
            Self::Rows(n) => all.min(rows.start.saturating_mul(n))..all.min(rows.end.saturating_mul(n)),
            Self::Whole => 0..all,
        }
    }
    /// How many input rows make one output row; `None` where it is all of them.
    pub fn ratio(self) -> Option<u64> {
        match self {
            Self::Row => Some(1),
            Self::Rows(n) => Some(n),
            Self::Whole => None,
        }
    }
}

/// A computation on rows. Implementations are small values whose [`Op::describe`] says all that they depend on.
pub trait Op: fmt::Debug + Send + Sync {
    /// A stable text: two ops with the same text are the same function. Goes into plans and fingerprints.
    fn describe(&self) -> String;
    /// The output's form, for inputs of these forms.
    ///
    /// # Errors
    /// When the op cannot take such inputs.
    fn form(&self, inputs: &[Form]) -> Result<Form>;
    /// How outputs depend on input number `input`.
    fn locality(&self, input: usize) -> Locality {
        let _ = input;
        Locality::Row
    }
    /// Output rows that cannot be computed apart: groups of so many, counted from the first row, of which the last may have
    /// fewer; as many as the tensor has, or more, for all. No call of [`Self::run`] begins or ends within one.
    fn unit(&self) -> u64 {
        1
    }
    /// Output rows below which [`Self::run`] costs more for each of them: what is common to a call is worth so many.
    fn batch(&self) -> u64 {
        1
    }
    /// Whether the output is no tensor of a file but a *bundle*: all that sibling tensors are made of, for as many rows as
    /// the first input has, by other ops. It is then made once for all of them, and its error measured once. Inputs after
    /// the first are [`Locality::Whole`], or it is what its parts have in common and not an encoding of anything.
    fn makes_bundle(&self) -> bool {
        false
    }
    /// Scratch bytes that one call on `rows` rows takes beyond inputs and output, for the memory budget.
    fn scratch(&self, inputs: &[Form], rows: u64) -> u64 {
        let _ = (inputs, rows);
        0
    }
    /// Computes rows `rows` of the output from the rows of the inputs that [`Locality::of`] says. Buffers are exactly as
    /// long as forms and rows say.
    ///
    /// # Errors
    /// What the values make impossible (non-finite input to a quantizer, for example); the caller adds the
    /// tensor's name.
    fn run(&self, rows: Rows, forms: &[Form], inputs: &[&[u8]], out: &mut [u8]) -> Result<()>;
    /// For ops that give numbers about the whole of large inputs: how these are found. [`Self::run`] is then not called,
    /// and inputs are read block by block whatever their locality.
    fn reduction(&self) -> Option<&dyn Reduction> {
        None
    }
    /// What it encodes, where that is all that it does: somebody else may then do it. See [`crate::Accelerator`].
    fn encodes(&self) -> Option<Encode<'_>> {
        None
    }
    /// Whether output elements stand for the same values as the input's, in another encoding. Only then is the
    /// difference between the two an error worth measuring; block outputs say so by [`Op::decode`].
    fn is_encoding(&self) -> bool {
        false
    }
    /// Itself, for rewrites that look for ops of a kind: what stands for weights in codes can be repacked as codes.
    fn any(&self) -> Option<&dyn std::any::Any> {
        None
    }
    /// Decodes what this op produced, rows or any number of whole blocks of a row, back to `f32`, where the
    /// encoding is not plain: for measuring the error of a variant while its source values are in memory. Bundles
    /// ([`Self::makes_bundle`]) are decoded by one whole row at a time. `None` when the op's output stands for itself.
    fn decode(&self, bytes: &[u8], out: &mut [f32]) -> Option<Result<()>> {
        let _ = (bytes, out);
        None
    }
}

/// How a tensor's bytes come about.
#[derive(Clone, Debug)]
pub enum Expr {
    /// A source tensor as it stands.
    Read {
        /// Index of the source (reader) in the plan's list of sources.
        source: usize,
        /// Index of the tensor in that reader's index.
        tensor: usize,
        /// Its form, as the reader's index says.
        form: Form,
    },
    /// Bytes known when planning.
    Const {
        /// Their form.
        form: Form,
        /// The bytes, little-endian.
        bytes: Arc<[u8]>,
    },
    /// Rows of the input, mapped. The output has shape `[rows, row_len]` unless the map keeps the number
    /// of rows, in which case it keeps the input's shape.
    Rows {
        /// Input.
        input: Box<Expr>,
        /// Map.
        map: RowMap,
    },
    /// Rows of the inputs, one after another. All have the same row length and encoding.
    Concat {
        /// Inputs, in order.
        inputs: Vec<Expr>,
        /// Shape of the whole.
        shape: Shape,
    },
    /// The same elements under other dimensions (plain encodings only where the row length changes).
    Reshape {
        /// Input.
        input: Box<Expr>,
        /// New shape, of as many elements.
        shape: Shape,
    },
    /// The last two dimensions exchanged: `[.., m, n]` becomes `[.., n, m]`. Plain elements of 8, 16, 32 or 64 bits.
    Transpose {
        /// Input.
        input: Box<Expr>,
    },
    /// A computation.
    Apply {
        /// What is computed.
        op: Arc<dyn Op>,
        /// From what.
        inputs: Vec<Expr>,
    },
}

impl Expr {
    /// Applies an op to one input.
    #[must_use]
    pub fn apply(self, op: impl Op + 'static) -> Self {
        Self::Apply { op: Arc::new(op), inputs: vec![self] }
    }
    /// Maps rows.
    #[must_use]
    pub fn rows(self, map: RowMap) -> Self {
        Self::Rows { input: Box::new(self), map }
    }
    /// Changes dimensions.
    #[must_use]
    pub fn reshape(self, shape: Shape) -> Self {
        Self::Reshape { input: Box::new(self), shape }
    }
    /// Exchanges the last two dimensions; twice is not at all.
    #[must_use]
    pub fn transpose(self) -> Self {
        match self {
            Self::Transpose { input } => *input,
            other => Self::Transpose { input: Box::new(other) },
        }
    }

    /// The same expression over sources that stand `by` places further on.
    #[must_use]
    pub fn shifted(&self, by: usize) -> Self {
        let many = |inputs: &[Self]| inputs.iter().map(|e| e.shifted(by)).collect();
        match self {
            Self::Read { source, tensor, form } => {
                Self::Read { source: source + by, tensor: *tensor, form: form.clone() }
            }
            Self::Const { .. } => self.clone(),
            Self::Rows { input, map } => input.shifted(by).rows(*map),
            Self::Reshape { input, shape } => input.shifted(by).reshape(shape.clone()),
            Self::Transpose { input } => input.shifted(by).transpose(),
            Self::Concat { inputs, shape } => Self::Concat { inputs: many(inputs), shape: shape.clone() },
            Self::Apply { op, inputs } => Self::Apply { op: Arc::clone(op), inputs: many(inputs) },
        }
    }

    /// Shape and encoding of the value.
    ///
    /// # Errors
    /// When the parts do not fit together.
    pub fn form(&self) -> Result<Form> {
        match self {
            Self::Read { form, .. } | Self::Const { form, .. } => Ok(form.clone()),
            Self::Rows { input, map } => {
                let f = input.form()?;
                let rows = map.rows(f.shape.rows())?;
                if rows == f.shape.rows() {
                    return Ok(f);
                }
                Ok(Form::new(Shape::new(vec![rows, f.shape.row_len()])?, f.encoding))
            }
            Self::Concat { inputs, shape } => {
                let mut rows = 0u64;
                let mut encoding = None;
                for input in inputs {
                    let f = input.form()?;
                    if f.shape.row_len() != shape.row_len()
                        || *encoding.get_or_insert(f.encoding) != f.encoding
                    {
                        return Err(Error::mismatch(format!(
                            "a part of {} {} cannot be stacked into {shape}",
                            f.encoding, f.shape
                        )));
                    }
                    rows += f.shape.rows();
                }
                match encoding {
                    Some(e) if rows == shape.rows() => Ok(Form::new(shape.clone(), e)),
                    _ => Err(Error::mismatch(format!("{rows} rows cannot be stacked into {shape}"))),
                }
            }
            Self::Reshape { input, shape } => {
                let f = input.form()?;
                let fits = f.shape.elements() == shape.elements()
                    && (!f.encoding.is_block() || f.shape.row_len() == shape.row_len());
                if !fits {
                    return Err(Error::mismatch(format!("{} cannot be seen as {shape}", f.shape)));
                }
                Ok(Form::new(shape.clone(), f.encoding))
            }
            Self::Transpose { input } => {
                let f = input.form()?;
                if !matches!(f.encoding, Encoding::Plain(d) if matches!(d.bits(), 8 | 16 | 32 | 64)) {
                    return Err(Error::unsupported(format!("cannot transpose {} elements", f.encoding))
                        .hint("convert them to a plain type of whole bytes first"));
                }
                let mut dims = f.shape.dims().to_vec();
                let [.., m, n] = dims.as_mut_slice() else {
                    return Err(Error::mismatch(format!("{} has no two dimensions to exchange", f.shape)));
                };
                std::mem::swap(m, n);
                Ok(Form::new(Shape::new(dims)?, f.encoding))
            }
            Self::Apply { op, inputs } => {
                let forms = inputs.iter().map(Self::form).collect::<Result<Vec<_>>>()?;
                op.form(&forms)
            }
        }
    }
}

/// A 64-bit hash (FNV-1a) for the texts of expressions and ops: stable across builds, unlike the standard
/// hasher. Tells equal from different; guards against nobody.
pub fn fingerprint(bytes: impl IntoIterator<Item = u8>) -> u64 {
    bytes
        .into_iter()
        .fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// The output function of `SplitMix64` (Steele, Lea, Flood, 2014): every bit of the result depends on every bit of the
/// argument. Makes numbers that look random of counters and of [`fingerprint`]s.
#[inline]
pub fn scramble(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl fmt::Display for Expr {
    /// A stable text: equal texts mean equal values. `Const` prints a hash of its bytes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read { source, tensor, .. } => write!(f, "read({source}:{tensor})"),
            Self::Const { form, bytes } => {
                let h = fingerprint(bytes.iter().copied());
                write!(f, "const({} {} {h:016x})", form.encoding, form.shape)
            }
            Self::Rows { input, map: RowMap::Slice { start, len } } => {
                write!(f, "slice({input}, {start}+{len})")
            }
            Self::Rows { input, map: RowMap::SwapInner { a, b } } => write!(f, "swap({input}, {a}x{b})"),
            Self::Concat { inputs, shape } => {
                write!(f, "concat{shape}(")?;
                list(f, inputs)?;
                f.write_str(")")
            }
            Self::Reshape { input, shape } => write!(f, "reshape{shape}({input})"),
            Self::Transpose { input } => write!(f, "transpose({input})"),
            Self::Apply { op, inputs } => {
                write!(f, "{}(", op.describe())?;
                list(f, inputs)?;
                f.write_str(")")
            }
        }
    }
}

fn list(f: &mut fmt::Formatter<'_>, inputs: &[Expr]) -> fmt::Result {
    for (i, input) in inputs.iter().enumerate() {
        if i > 0 {
            f.write_str(", ")?;
        }
        write!(f, "{input}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tensormill_tensor::{DType, ggml};

    #[test]
    fn swapping_inner_axes_is_numpys_swapaxes() {
        // arange(12).reshape(2, 2, 3).swapaxes(1, 2).reshape(-1)
        let got: Vec<u64> = (0..12).map(|i| RowMap::SwapInner { a: 2, b: 3 }.source(i)).collect();
        assert_eq!(got, [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11]);
    }

    fn read_as(dims: Vec<u64>, encoding: Encoding) -> Expr {
        Expr::Read { source: 0, tensor: 0, form: Form::new(Shape::new(dims).unwrap(), encoding) }
    }

    #[test]
    fn forms_are_checked() {
        let read = |dims: Vec<u64>| read_as(dims, Encoding::F32);
        assert!(read(vec![10, 4]).rows(RowMap::Slice { start: 8, len: 3 }).form().is_err());
        assert!(read(vec![10, 4]).rows(RowMap::SwapInner { a: 2, b: 3 }).form().is_err());
        let stacked = Expr::Concat {
            inputs: vec![read(vec![3, 4]), read(vec![3, 4])],
            shape: Shape::new(vec![2, 3, 4]).unwrap(),
        };
        assert_eq!(stacked.form().unwrap().shape.dims(), [2, 3, 4]);
        assert_eq!(stacked.to_string(), "concat[2, 3, 4](read(0:0), read(0:0))");
    }

    #[test]
    fn the_last_two_dimensions_are_exchanged() {
        let shape = |e: Expr| e.transpose().form().map(|f| f.shape.dims().to_vec());
        for dtype in DType::ALL {
            let form = read_as(vec![2, 8], Encoding::Plain(dtype)).transpose().form();
            match dtype {
                DType::F4 | DType::F6E2M3 | DType::F6E3M2 => assert!(form.is_err(), "{dtype}"),
                _ => assert_eq!(
                    form.unwrap(),
                    Form::new(Shape::new(vec![8, 2]).unwrap(), Encoding::Plain(dtype))
                ),
            }
        }
        assert_eq!(shape(read_as(vec![5, 3, 4], Encoding::F16)).unwrap(), [5, 4, 3]);
        assert_eq!(shape(read_as(vec![2, 5, 0, 4], Encoding::F16)).unwrap(), [2, 5, 4, 0]);
        assert!(shape(read_as(vec![5], Encoding::F16)).is_err());
        assert!(shape(read_as(vec![], Encoding::F16)).is_err());
        let blocks = shape(read_as(vec![32, 32], Encoding::Block(ggml::Q8_0))).unwrap_err();
        assert!(blocks.message().contains("Q8_0") && blocks.hint_text().is_some(), "{blocks}");
    }

    #[test]
    fn transposing_twice_is_nothing() {
        let read = read_as(vec![3, 4], Encoding::F32);
        let once = read.clone().transpose();
        assert_eq!(once.to_string(), "transpose(read(0:0))");
        assert_eq!(once.clone().transpose().to_string(), "read(0:0)");
        let between = once.rows(RowMap::Slice { start: 0, len: 2 }).transpose();
        assert_eq!(between.to_string(), "transpose(slice(transpose(read(0:0)), 0+2))");
        assert_eq!(between.form().unwrap().shape.dims(), [3, 2]);
    }
}
