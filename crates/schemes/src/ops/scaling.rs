//! Scaling of columns before they are quantized (AWQ): which scales lose least, and the weights times them.
//!
//! `x W = (x / s) (s W)`: columns whose inputs are large are stored with finer steps. For each exponent of twenty,
//! `s = mean |x|^a`, divided by the geometric mean of its extremes; that one is taken for which all matrices that see the input
//! lose least, `sum of E[x_j^2] (w - Q(w s) / s)^2`.

use super::{dims, floats, not_finite, rounded, store_floats};
use std::sync::Arc;
use tensormill_kernels::groups::{Code, GroupRows, Quantizer, global_scale};
use tensormill_model::{Error, Form, Locality, Op, Reduction, Result, Rows, Tally, fingerprint};
use tensormill_tensor::{DType, Encoding, Shape};
use tensormill_transforms::{check_readable, widen};

/// Exponents that are tried: as many twentieths.
pub const STEPS: usize = 20;
/// No scale is below.
const LEAST: f64 = 1e-4;
/// Rows whose loss is found at a time.
const BATCH: usize = 16;

/// What is known of an input's columns.
#[derive(Clone)]
pub struct Activity {
    /// `E[x_j^2]`.
    pub mean_square: Arc<[f32]>,
    /// `E[|x_j|]`.
    pub mean_abs: Arc<[f32]>,
    fingerprint: u64,
}

impl std::fmt::Debug for Activity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} columns {:016x}", self.mean_abs.len(), self.fingerprint)
    }
}

impl Activity {
    /// Of as many means of squares as of magnitudes.
    pub fn new(mean_square: Arc<[f32]>, mean_abs: Arc<[f32]>) -> Self {
        let numbers = mean_square.iter().chain(mean_abs.iter());
        let fingerprint = fingerprint(numbers.flat_map(|x| x.to_le_bytes()));
        Self { mean_square, mean_abs, fingerprint }
    }

    /// The scales of an exponent.
    fn scales(&self, step: usize) -> Vec<f32> {
        let mut scales: Vec<f64> =
            self.mean_abs.iter().map(|x| power(f64::from(*x), step).max(LEAST)).collect();
        let (low, high) = scales.iter().fold((f64::INFINITY, 0f64), |(l, h), s| (l.min(*s), h.max(*s)));
        let middle = (low * high).sqrt();
        for s in &mut scales {
            *s /= middle;
        }
        scales.iter().map(|s| if s.is_finite() && *s > 0.0 { *s as f32 } else { 1.0 }).collect()
    }
}

/// `x^(step / STEPS)` by operations that every machine rounds alike, which powers of libraries are not.
fn power(x: f64, step: usize) -> f64 {
    if step == 0 {
        return 1.0;
    }
    if x <= 0.0 {
        return 0.0;
    }
    let fourth = x.sqrt().sqrt();
    // The fifth root by Newton's method, from above.
    let mut root = fourth.max(1.0);
    for _ in 0..400 {
        let next = (4.0 * root + fourth / (root * root * root * root)) / 5.0;
        if next >= root {
            break;
        }
        root = next;
    }
    (0..step).fold(1.0, |product, _| product * root)
}

/// The loss of a matrix for every exponent of the search: as many numbers of `f64`.
#[derive(Clone, Debug)]
pub struct ScaleLoss {
    /// How the matrix is quantized. Scales for the whole matrix are here those of each row.
    pub quantizer: Quantizer,
    /// Of its input.
    pub activity: Activity,
}

/// Scales of columns from the losses of all matrices that see them: `f32`, one per column. Where a norm comes before them, it
/// is the last input: scales are then such that the norm divided by them is what its type can hold.
#[derive(Clone, Debug)]
pub struct PickScales {
    /// Of the input.
    pub activity: Activity,
    /// The norm, where there is one.
    pub norm: Option<Norm>,
}

/// Weights of a norm.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Norm {
    /// What is added to them when they are used: one in Gemma.
    pub plus: f32,
    /// How they are stored.
    pub dtype: DType,
}

/// A matrix times scales of its columns, over scales of its rows: `f32`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScaleWeights {
    /// Whether the second input are scales of columns.
    pub columns: bool,
    /// Whether the last input are scales of rows.
    pub rows: bool,
}

/// A vector over scales, which are the second input: `f32`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Unscale {
    /// What the vector is used with: see [`Norm::plus`].
    pub plus: f32,
}

fn numbers(form: &Form, bytes: &[u8], out: &mut Vec<f32>) -> Result<()> {
    out.resize(form.shape.elements() as usize, 0.0);
    widen(form.encoding, bytes, out)
}

impl Op for ScaleLoss {
    fn describe(&self) -> String {
        format!("scale-loss[{:?} {:?}]", self.quantizer, self.activity)
    }
    fn form(&self, inputs: &[Form]) -> Result<Form> {
        let [input] = inputs else { return Err(Error::usage("a loss is one matrix's")) };
        check_readable(input.encoding, "quantize")?;
        let known = self.activity.mean_abs.len() as u64;
        if input.shape.row_len() != known {
            let columns = input.shape.row_len();
            return Err(Error::mismatch(format!("statistics of {known} columns for a matrix of {columns}"))
                .hint("calibrate this very model"));
        }
        Ok(Form::new(Shape::new(vec![STEPS as u64])?, Encoding::Plain(DType::F64)))
    }
    fn locality(&self, _: usize) -> Locality {
        Locality::Whole
    }
    fn scratch(&self, inputs: &[Form], _: u64) -> u64 {
        let columns = inputs.first().map_or(0, |f| f.shape.row_len());
        let high = u64::from(self.quantizer.grid.rows).max(BATCH as u64);
        columns.saturating_mul(high * 17 + 4 * STEPS as u64 + 8)
    }
    fn run(&self, _: Rows, _: &[Form], _: &[&[u8]], _: &mut [u8]) -> Result<()> {
        Err(Error::mismatch("a reduction is not run on rows"))
    }
    fn reduction(&self) -> Option<&dyn Reduction> {
        Some(self)
    }
}

impl Reduction for ScaleLoss {
    fn passes(&self) -> usize {
        1
    }
    fn add(
        &self,
        _: &[Tally],
        rows: Rows,
        forms: &[Form],
        inputs: &[&[u8]],
        tally: &mut Tally,
    ) -> Result<()> {
        let (form, n) = (&forms[0], self.activity.mean_abs.len());
        let high = (self.quantizer.grid.rows.max(1) as usize).max(BATCH);
        let high = high.min((rows.end - rows.start) as usize).max(1);
        let scales: Vec<Vec<f32>> = (0..STEPS).map(|step| self.activity.scales(step)).collect();
        let bundle = self.quantizer.grid.bundle_bytes(n);
        let (mut x, mut scaled) = (vec![0f32; high * n], vec![0f32; high * n]);
        let (mut bundles, mut value) = (vec![0u8; high * bundle], vec![0f32; n]);
        tally.sums.resize(STEPS, 0.0);
        let row_bytes = form.row_bytes()?.max(1) as usize;
        for (batch, bytes) in inputs[0].chunks(high * row_bytes).enumerate() {
            let here = bytes.len() / row_bytes;
            for (i, (x, bytes)) in x.chunks_exact_mut(n).zip(bytes.chunks_exact(row_bytes)).enumerate() {
                widen(form.encoding, bytes, x)?;
                if let Some(column) = x.iter().position(|x| !x.is_finite()) {
                    return Err(not_finite(rows.start + (batch * high + i) as u64, column));
                }
            }
            let x = &x[..here * n];
            for (step, scales) in scales.iter().enumerate() {
                for (scaled, x) in scaled.chunks_exact_mut(n).zip(x.chunks_exact(n)) {
                    for ((to, x), s) in scaled.iter_mut().zip(x).zip(scales) {
                        *to = (x * s).clamp(-f32::MAX, f32::MAX);
                    }
                }
                self.encode(&scaled[..here * n], n, &mut bundles[..here * bundle])?;
                let mut sum = 0f64;
                for (x, bundle) in x.chunks_exact(n).zip(bundles.chunks_exact(bundle)) {
                    self.quantizer.grid.decode_row(bundle, &mut value);
                    for (((x, v), s), w) in x.iter().zip(&value).zip(scales).zip(&*self.activity.mean_square)
                    {
                        let far = f64::from(*x) - f64::from(*v) / f64::from(*s);
                        sum += f64::from(*w) * far * far;
                    }
                }
                tally.sums[step] += sum;
            }
        }
        Ok(())
    }
    fn value(&self, tallies: &[Tally], _: &[Form], out: &mut [u8]) -> bool {
        let Some(tally) = tallies.first() else { return false };
        for (i, to) in out.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            *to = tally.sums.get(i).copied().unwrap_or(0.0).to_le_bytes();
        }
        true
    }
}

impl ScaleLoss {
    fn encode(&self, x: &[f32], len: usize, out: &mut [u8]) -> Result<()> {
        let (q, fail) = (&self.quantizer, |e: tensormill_kernels::RowsError| Error::mismatch(e.to_string()));
        let rows = |x, outer| GroupRows { x, len, importance: None, outer };
        if !q.grid.outer {
            return q.encode_rows(rows(x, 1.0), out).map_err(fail);
        }
        for (x, out) in x.chunks_exact(len).zip(out.chunks_exact_mut(q.grid.bundle_bytes(len))) {
            let amax = x.iter().fold(0f32, |a, x| a.max(x.abs()));
            let done = match q.grid.code {
                // bitsandbytes' largest magnitudes.
                Code::Int(bits) => {
                    q.encode_rows(rows(x, 1.0 / f32::from((1u16 << (bits - 1)) - 1).max(1.0)), out)
                }
                _ if q.grid.group == 0 => q.encode_rows(rows(x, q.matrix_scale(amax)), out),
                _ => q.encode_rows_over(rows(x, 1.0), global_scale(amax), out),
            };
            done.map_err(fail)?;
        }
        Ok(())
    }
}

impl Op for PickScales {
    fn describe(&self) -> String {
        format!("pick-scales[{:?} {:?}]", self.activity, self.norm)
    }
    fn form(&self, inputs: &[Form]) -> Result<Form> {
        let (losses, norm) =
            inputs.split_at(inputs.len() - usize::from(self.norm.is_some()).min(inputs.len()));
        let columns = self.activity.mean_abs.len() as u64;
        let loss = |f: &Form| f.encoding == Encoding::Plain(DType::F64) && f.shape.elements() == STEPS as u64;
        if losses.is_empty() || !losses.iter().all(loss) || norm.iter().any(|f| f.shape.elements() != columns)
        {
            return Err(Error::mismatch("scales are picked by losses, and by the norm before them"));
        }
        Ok(Form::new(Shape::new(vec![columns])?, Encoding::F32))
    }
    fn locality(&self, _: usize) -> Locality {
        Locality::Whole
    }
    fn scratch(&self, _: &[Form], _: u64) -> u64 {
        24 * self.activity.mean_abs.len() as u64
    }
    fn run(&self, _: Rows, forms: &[Form], inputs: &[&[u8]], out: &mut [u8]) -> Result<()> {
        let losses = inputs.len() - usize::from(self.norm.is_some());
        let mut total = [0f64; STEPS];
        for input in &inputs[..losses] {
            for (t, b) in total.iter_mut().zip(input.as_chunks::<8>().0) {
                *t += f64::from_le_bytes(*b);
            }
        }
        let best = (0..STEPS).fold(0, |best, i| if total[i] < total[best] { i } else { best });
        let mut scales = self.activity.scales(best);
        if let (Some(norm), Some(form), Some(bytes)) = (self.norm, forms.last(), inputs.last()) {
            let mut weights = Vec::new();
            numbers(form, bytes, &mut weights)?;
            for (s, w) in scales.iter_mut().zip(weights) {
                *s = norm.exactly(w, *s);
            }
        }
        store_floats(scales, out);
        Ok(())
    }
}

impl Norm {
    /// The scale next to `s` by which a weight can be divided.
    fn exactly(self, weight: f32, s: f32) -> f32 {
        let whole = weight + self.plus;
        let exact = whole / (rounded(self.dtype, whole / s - self.plus) + self.plus);
        if exact.is_normal() && exact > 0.0 { exact } else { 1.0 }
    }
}

impl Op for ScaleWeights {
    fn describe(&self) -> String {
        format!("scale-weights[{}{}]", u8::from(self.columns), u8::from(self.rows))
    }
    fn form(&self, inputs: &[Form]) -> Result<Form> {
        let wanted = 1 + usize::from(self.columns) + usize::from(self.rows);
        let Some(input) = inputs.first().filter(|_| inputs.len() == wanted) else {
            return Err(Error::usage("a matrix is scaled by what is said"));
        };
        check_readable(input.encoding, "scale")?;
        let (rows, columns) = dims(input);
        let lengths = [self.columns.then_some(columns), self.rows.then_some(rows)];
        for (form, n) in inputs[1..].iter().zip(lengths.into_iter().flatten()) {
            if form.encoding != Encoding::F32 || form.shape.elements() != n {
                return Err(Error::mismatch(format!("{} scales for {n}", form.shape.elements())));
            }
        }
        Ok(Form::new(input.shape.clone(), Encoding::F32))
    }
    fn locality(&self, input: usize) -> Locality {
        if input == 0 { Locality::Row } else { Locality::Whole }
    }
    fn scratch(&self, inputs: &[Form], _: u64) -> u64 {
        inputs.first().map_or(0, |f| f.shape.row_len().saturating_mul(4))
    }
    fn run(&self, rows: Rows, forms: &[Form], inputs: &[&[u8]], out: &mut [u8]) -> Result<()> {
        let n = forms[0].shape.row_len() as usize;
        let in_row = forms[0].row_bytes()?.max(1) as usize;
        let of_columns = inputs.get(1).filter(|_| self.columns);
        let of_rows = inputs.last().filter(|_| self.rows);
        let mut x = vec![0f32; n];
        for ((row, input), out) in
            rows.zip(inputs[0].chunks_exact(in_row)).zip(out.chunks_exact_mut(n.max(1) * 4))
        {
            widen(forms[0].encoding, input, &mut x)?;
            if let Some(scales) = of_columns {
                x.iter_mut().zip(floats(scales)).for_each(|(x, s)| *x *= s);
            }
            let by = of_rows.and_then(|scales| floats(scales).nth(row as usize)).unwrap_or(1.0);
            store_floats(x.iter().map(|x| x / by), out);
        }
        Ok(())
    }
}

impl Op for Unscale {
    fn describe(&self) -> String {
        format!("unscale[{}]", self.plus)
    }
    fn form(&self, inputs: &[Form]) -> Result<Form> {
        let [vector, scales] = inputs else { return Err(Error::usage("a vector is divided by scales")) };
        check_readable(vector.encoding, "scale")?;
        if vector.shape.rank() != 1 || vector.shape.elements() != scales.shape.elements() {
            return Err(Error::mismatch(format!("{} over {} scales", vector.shape, scales.shape.elements())));
        }
        Ok(Form::new(vector.shape.clone(), Encoding::F32))
    }
    fn locality(&self, input: usize) -> Locality {
        if input == 0 { Locality::Row } else { Locality::Whole }
    }
    fn scratch(&self, inputs: &[Form], _: u64) -> u64 {
        inputs.first().map_or(0, |f| f.shape.row_len().saturating_mul(4))
    }
    fn run(&self, _: Rows, forms: &[Form], inputs: &[&[u8]], out: &mut [u8]) -> Result<()> {
        let mut x = Vec::new();
        numbers(&forms[0], inputs[0], &mut x)?;
        let unscaled = x.iter().zip(floats(inputs[1])).map(|(x, s)| (x + self.plus) / s - self.plus);
        store_floats(unscaled, out);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tensormill_tensor::{decode_plain, encode_plain};

    #[test]
    fn powers_are_powers() {
        for x in [1e-12, 3e-4, 0.5, 1.0, 7.25, 1e9] {
            for step in 0..STEPS {
                let (got, wanted) = (power(x, step), x.powf(step as f64 / STEPS as f64));
                assert!((got / wanted - 1.0).abs() < 1e-12, "{x}^({step}/{STEPS}): {got}, not {wanted}");
            }
        }
        assert_eq!((power(0.0, 0), power(0.0, 3)), (1.0, 0.0));
    }

    #[test]
    fn norms_can_be_divided_by_their_scales() {
        for plus in [0.0, 1.0] {
            let norm = Norm { plus, dtype: DType::BF16 };
            for (w, s) in [(0.75f32, 1.3f32), (-0.02, 0.4), (3.0, 11.0)] {
                let exact = norm.exactly(w, s);
                assert!((exact / s - 1.0).abs() < 0.05, "{exact} is not near {s}");
                let stored = (w + plus) / exact - plus;
                let (mut bytes, mut back) = ([0; 2], [0f32]);
                assert!(encode_plain(DType::BF16, &[stored], &mut bytes));
                assert!(decode_plain(DType::BF16, &bytes, &mut back));
                let product = (back[0] + plus) * exact;
                assert!((product / (w + plus) - 1.0).abs() < 1e-6, "{product} is not {}", w + plus);
            }
            assert_eq!(norm.exactly(-plus, 2.0), 1.0, "what is zero is not divided");
        }
    }
}
