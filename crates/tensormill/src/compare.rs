//! Two models compared tensor by tensor, across formats and encodings, in bounded memory.
//!
//! Both sides become one plan: for every common tensor an expression that puts the two rows side by side as `f32`.
//! The engine runs it as it runs any conversion; the sink measures instead of writing.

use crate::{
    Source, hf,
    location::{Access, Location, Opening},
    memory, quantized,
    report::ErrorReport,
};
use serde::Serialize;
use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError, atomic::AtomicBool},
};
use tensormill_engine::{self as engine, Output, PlanOptions, Progress, Sink};
use tensormill_model::{
    Capabilities, Error, Expr, FileLayout, Form, Layout, Metadata, Model, Op, Place, Result, Rows, Tensor,
};
use tensormill_tensor::{DType, Encoding, ErrorStats, Shape, decode_plain};
use tensormill_transforms::Dequantize;

/// Choices of a comparison.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Largest root mean square error that any tensor may have.
    pub max_rmse: Option<f64>,
    /// Bound on resident memory, plus [`memory::OVERHEAD`].
    pub memory: u64,
}

/// One common tensor.
#[derive(Debug, Serialize)]
pub struct TensorComparison {
    /// Name.
    pub name: String,
    /// Dimensions, outermost first.
    pub shape: Vec<u64>,
    /// Encoding in the first model.
    pub type_a: String,
    /// Encoding in the second model.
    pub type_b: String,
    /// How far the second is from the first.
    #[serde(flatten)]
    pub error: ErrorReport,
}

/// A tensor of the same name but another shape.
#[derive(Debug, Serialize)]
pub struct ShapeMismatch {
    /// Name.
    pub name: String,
    /// Dimensions in the first model.
    pub shape_a: Vec<u64>,
    /// Dimensions in the second model.
    pub shape_b: Vec<u64>,
}

/// Result of a comparison.
#[derive(Debug, Serialize)]
pub struct Comparison {
    /// The first path.
    pub a: String,
    /// The second path.
    pub b: String,
    /// Common tensors, in the first model's order.
    pub tensors: Vec<TensorComparison>,
    /// Same name, other shape.
    pub mismatched: Vec<ShapeMismatch>,
    /// Names that only the first model has.
    pub only_in_a: Vec<String>,
    /// Names that only the second model has.
    pub only_in_b: Vec<String>,
    /// Error over all common tensors.
    pub total: ErrorReport,
    /// Why the comparison failed, if it did.
    pub failure: Option<String>,
}

/// Compares `b` with the reference `a`. When exactly one of them is in GGUF form, the other is seen through its
/// architecture first, so that names and row orders meet. Scales that GGUF files have beside weights are part of these.
///
/// # Errors
/// As opening either of them; encodings that cannot be decoded.
pub fn compare(a: impl Into<Location>, b: impl Into<Location>, options: &Options) -> Result<Comparison> {
    compare_by(&a.into(), &b.into(), options, &Access::default(), &(), &AtomicBool::new(false))
}

/// The same, with the Hub reached so, while somebody watches and may stop it.
///
/// # Errors
/// As [`compare`]; `Cancelled`.
pub fn compare_by(
    a: &Location,
    b: &Location,
    options: &Options,
    access: &Access,
    progress: &dyn Progress,
    cancel: &AtomicBool,
) -> Result<Comparison> {
    let how = Opening { access: access.clone(), ..Opening::default() };
    let (mut sa, mut sb) = (Source::open_at(a, &how)?, Source::open_at(b, &how)?);
    for s in [&mut sa, &mut sb] {
        quantized::open(s).map_err(|e| e.file(&s.location))?;
    }
    // Some name in common means that nothing was renamed between the two: GGUF's names are nobody else's.
    let names_of_a: HashSet<&str> = sa.model.tensors.iter().map(Tensor::name).collect();
    let shared = sb.model.tensors.iter().any(|t| names_of_a.contains(t.name()));
    let mixed = sa.is_gguf() != sb.is_gguf() && !shared;
    let in_form = |s: &mut Source| Side::new(s, mixed).map_err(|e| e.file(&s.location));
    let (mut a, mut b) = (in_form(&mut sa)?, in_form(&mut sb)?);
    // What only one of them knows of activations says nothing of weights.
    let both = &a.scaled() & &b.scaled();
    for side in [&mut a, &mut b] {
        let known = side.activations.drain(..).filter(|t| both.contains(t.name()));
        side.model.tensors.extend(known);
    }
    let (Side { model: ma, types: types_a, .. }, Side { model: mb, types: types_b, .. }) = (a, b);

    let of_b: HashMap<&str, &Tensor> = mb.tensors.iter().map(|t| (t.name(), t)).collect();
    let first_of_b = sa.readers.len();
    let mut readers = sa.readers;
    readers.append(&mut sb.readers);
    let mut result = Comparison {
        a: sa.location.to_string(),
        b: sb.location.to_string(),
        tensors: Vec::new(),
        mismatched: Vec::new(),
        only_in_a: Vec::new(),
        only_in_b: Vec::new(),
        total: ErrorReport::from(&ErrorStats::default()),
        failure: None,
    };
    let mut pairs = Vec::new();
    for ta in &ma.tensors {
        let Some(tb) = of_b.get(ta.name()) else {
            result.only_in_a.push(ta.name().to_owned());
            continue;
        };
        if ta.spec.shape != tb.spec.shape {
            result.mismatched.push(ShapeMismatch {
                name: ta.name().to_owned(),
                shape_a: ta.spec.shape.dims().to_vec(),
                shape_b: tb.spec.shape.dims().to_vec(),
            });
            continue;
        }
        let inputs = vec![readable(&ta.expr)?, readable(&tb.expr.shifted(first_of_b))?];
        pairs.push((ta, *tb, Tensor::new(ta.name(), Expr::Apply { op: Arc::new(SideBySide), inputs })?));
    }
    let of_a: HashSet<&str> = ma.tensors.iter().map(Tensor::name).collect();
    result.only_in_b =
        mb.tensors.iter().map(Tensor::name).filter(|n| !of_a.contains(n)).map(str::to_owned).collect();

    access.fetch(progress, cancel)?;
    let tensors = pairs.iter().map(|p| p.2.clone()).collect();
    let stats = measure(&readers, tensors, &ma, options, progress, cancel)?;
    let mut total = ErrorStats::default();
    for ((ta, tb, _), s) in pairs.iter().zip(&stats) {
        total.merge(s);
        result.tensors.push(TensorComparison {
            name: ta.name().to_owned(),
            shape: ta.spec.shape.dims().to_vec(),
            type_a: types_a.get(ta.name()).unwrap_or(&ta.spec.encoding).to_string(),
            type_b: types_b.get(tb.name()).unwrap_or(&tb.spec.encoding).to_string(),
            error: ErrorReport::from(s),
        });
    }
    result.total = ErrorReport::from(&total);
    result.failure = failure(&result, options.max_rmse);
    Ok(result)
}

fn failure(c: &Comparison, max_rmse: Option<f64>) -> Option<String> {
    let limit = max_rmse?;
    if let Some(t) = c.tensors.iter().find(|t| t.error.rmse > limit || t.error.non_finite > 0) {
        return Some(format!(
            "tensor {}: RMSE {:.3e}, {} non-finite; the limit is {limit}",
            t.name, t.error.rmse, t.error.non_finite
        ));
    }
    let names = c.mismatched.iter().map(|m| &m.name).chain(&c.only_in_a).chain(&c.only_in_b);
    names.into_iter().next().map(|n| format!("tensor {n} is not in both models in the same shape"))
}

/// One of the two models.
struct Side {
    /// Its weights.
    model: Model,
    /// What weights are held as that have scales in tensors of their own.
    types: HashMap<String, Encoding>,
    /// Scales of activations of a GGUF file.
    activations: Vec<Tensor>,
}

impl Side {
    /// Takes the model of a source, in GGUF form where the other one is.
    fn new(source: &mut Source, mixed: bool) -> Result<Self> {
        let mut model = source.take_model();
        if !source.is_gguf() {
            let model = if mixed { hf::tensors_in_gguf_form(model)? } else { model };
            return Ok(Self { model, types: HashMap::new(), activations: Vec::new() });
        }
        let blocks = model.tensors.iter().filter(|t| t.spec.encoding.is_block());
        let types = blocks.map(|t| (t.name().to_owned(), t.spec.encoding)).collect();
        let activations = quantized::scaled(&mut model)?;
        Ok(Self { model, types, activations })
    }

    /// Names of the scales of activations.
    fn scaled(&self) -> HashSet<String> {
        self.activations.iter().map(|t| t.name().to_owned()).collect()
    }
}

/// An expression whose value is a plain encoding.
fn readable(e: &Expr) -> Result<Expr> {
    Ok(if e.form()?.encoding.is_block() { e.clone().apply(Dequantize) } else { e.clone() })
}

/// Rows of two tensors of one shape as `f32`, each row of the first before the same row of the second.
#[derive(Debug)]
struct SideBySide;

impl Op for SideBySide {
    fn describe(&self) -> String {
        "side-by-side".to_owned()
    }
    fn form(&self, inputs: &[Form]) -> Result<Form> {
        for f in inputs {
            match f.encoding {
                Encoding::Plain(DType::C64 | DType::F4 | DType::F6E2M3 | DType::F6E3M2)
                | Encoding::Block(_) => {
                    return Err(Error::unsupported(format!("cannot compare {} values", f.encoding)));
                }
                Encoding::Plain(_) => {}
            }
        }
        let row = inputs[0].shape.row_len();
        let twice = row.checked_mul(2).ok_or_else(|| Error::malformed("rows too long to compare"))?;
        Ok(Form::new(Shape::new(vec![inputs[0].shape.rows(), twice])?, Encoding::F32))
    }
    fn scratch(&self, inputs: &[Form], _: u64) -> u64 {
        inputs[0].shape.row_len().saturating_mul(4)
    }
    fn run(&self, _: Rows, forms: &[Form], inputs: &[&[u8]], out: &mut [u8]) -> Result<()> {
        let row = forms[0].shape.row_len() as usize;
        let mut x = vec![0f32; row];
        for (side, (form, bytes)) in forms.iter().zip(inputs).enumerate() {
            let Encoding::Plain(d) = form.encoding else { unreachable!("form() refuses blocks") };
            let stride = form.row_bytes()? as usize;
            for (i, r) in bytes.chunks_exact(stride).enumerate() {
                let at = (2 * i + side) * row * 4;
                let decoded = decode_plain(d, r, &mut x);
                debug_assert!(decoded, "form() refuses what cannot be decoded");
                for (o, v) in out[at..at + row * 4].as_chunks_mut::<4>().0.iter_mut().zip(&x) {
                    *o = v.to_le_bytes();
                }
            }
        }
        Ok(())
    }
}

/// Measures what would be written.
struct Meter {
    /// First byte, row length and number of every tensor that has elements, in file order.
    tensors: Vec<(u64, usize, usize)>,
    /// Per tensor; they merge in any order.
    totals: Mutex<Vec<ErrorStats>>,
}

impl Sink for Meter {
    fn write_at(&self, _: usize, offset: u64, bytes: &[u8]) -> Result<()> {
        let (_, row, tensor) = self.tensors[self.tensors.partition_point(|t| t.0 <= offset) - 1];
        let mut stats = ErrorStats::default();
        let mut x = vec![0f32; 2 * row];
        for r in bytes.chunks_exact(8 * row) {
            let decoded = decode_plain(DType::F32, r, &mut x);
            debug_assert!(decoded, "f32 is always decoded");
            let (a, b) = x.split_at(row);
            stats.add(a, b);
        }
        self.totals.lock().unwrap_or_else(PoisonError::into_inner)[tensor].merge(&stats);
        Ok(())
    }
    fn read_at(&self, _: usize, _: u64, _: &mut [u8]) -> Result<()> {
        Err(Error::usage("a comparison keeps nothing to be read back"))
    }
}

fn measure(
    readers: &[Arc<dyn tensormill_model::Reader>],
    tensors: Vec<Tensor>,
    assets_of: &Model,
    options: &Options,
    progress: &dyn Progress,
    cancel: &AtomicBool,
) -> Result<Vec<ErrorStats>> {
    const ANYTHING: Capabilities = Capabilities {
        format: "a comparison",
        max_name_bytes: usize::MAX,
        max_rank: usize::MAX,
        encoding: |_| true,
    };
    let model =
        Model { tensors, metadata: Metadata::new(), assets: Arc::clone(&assets_of.assets), program: None };
    let checked = model.check(&ANYTHING)?;
    let (mut offset, mut places, mut rows) = (0u64, Vec::new(), Vec::new());
    for (i, t) in checked.model().tensors.iter().enumerate() {
        places.push(Place { file: 0, offset });
        if t.spec.shape.elements() > 0 {
            rows.push((offset, (t.spec.shape.row_len() / 2) as usize, i));
        }
        offset += t.spec.bytes()?;
    }
    let files = vec![FileLayout { name: "comparison".to_owned(), len: offset, ..FileLayout::default() }];
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let meter = Meter { tensors: rows, totals: Mutex::new(vec![ErrorStats::default(); places.len()]) };
    let layout = Layout { files, places, ..Layout::default() };
    engine::plan(
        readers,
        &[Output::new(&checked, &layout)],
        &PlanOptions { measure: false, ..PlanOptions::new(memory::for_tiles(options.memory)?, threads) },
    )?
    .run(&[&meter], progress, cancel)?;

    Ok(meter.totals.into_inner().unwrap_or_else(PoisonError::into_inner))
}
