//! Two graphs compared by what they compute from the same inputs, or a graph with outputs that are known.
//!
//! Inputs come from a file or are generated; each graph gets them as the types that it wants, so that a graph in `f16`
//! meets the one in `f32` that it was made of. Nothing here bounds memory: a runtime holds a graph's weights as a whole.

mod generate;

use crate::{
    Source,
    compare::ShapeMismatch,
    location::{Access, Location, Opening},
    report::ErrorReport,
};
use serde::Serialize;
use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};
use tensormill_engine::Progress;
use tensormill_model::{Error, Expr, Limits, Result, Tensor};
use tensormill_runtime::{Port, Session, Value};
use tensormill_store::LocalFile;
use tensormill_tensor::{Encoding, ErrorStats};

pub use tensormill_runtime::Backend;

/// Where inputs come from.
#[derive(Clone, Debug)]
pub enum Inputs {
    /// Tensors of a file, named like inputs.
    File(PathBuf),
    /// Made from names, types and dimensions, with this seed.
    Generated(u64),
}

/// Choices of a comparison.
#[derive(Clone, Debug)]
pub struct Options {
    /// What the graphs are given.
    pub inputs: Inputs,
    /// Largest difference that a value may have: `atol + rtol * |reference|`; no limit when neither is given.
    pub rtol: Option<f64>,
    /// See `rtol`.
    pub atol: Option<f64>,
    /// Largest root mean square error that an output may have.
    pub max_rmse: Option<f64>,
    /// What runs the graphs.
    pub backend: Backend,
    /// How the Hub is reached.
    pub access: Access,
}

/// An input as it was given.
#[derive(Debug, Serialize)]
pub struct InputReport {
    /// Name.
    pub name: String,
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
}

/// How often the largest value of a row is at the same place.
#[derive(Debug, Serialize)]
pub struct Argmax {
    /// Rows along the last axis.
    pub rows: u64,
    /// Those whose largest values are at the same place.
    pub equal: u64,
}

/// One common output.
#[derive(Debug, Serialize)]
pub struct OutputReport {
    /// Name.
    pub name: String,
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
    /// Element type of the first.
    pub type_a: String,
    /// Element type of the second.
    pub type_b: String,
    /// How far the second is from the first.
    #[serde(flatten)]
    pub error: ErrorReport,
    /// Agreement on the last axis, where that has more than one element.
    pub argmax: Option<Argmax>,
    /// Values beyond `rtol` and `atol`, when one of them is given.
    pub beyond: Option<u64>,
}

/// Result of a comparison.
#[derive(Debug, Serialize)]
pub struct OutputComparison {
    /// The first path.
    pub a: String,
    /// The second path.
    pub b: String,
    /// What ran the graphs.
    pub runtime: String,
    /// What they were given.
    pub inputs: Vec<InputReport>,
    /// Common outputs, in the first one's order.
    pub outputs: Vec<OutputReport>,
    /// Same name, other shape.
    pub mismatched: Vec<ShapeMismatch>,
    /// Outputs that only the first has.
    pub only_in_a: Vec<String>,
    /// Outputs that only the second has.
    pub only_in_b: Vec<String>,
    /// Why the comparison failed, if it did.
    pub failure: Option<String>,
}

/// What is compared: a graph, or outputs that somebody else computed.
enum Side {
    Graph(Session),
    Known(Vec<(String, Value)>),
}

impl Side {
    fn open(path: &Path, backend: &Backend) -> Result<Self> {
        if path.extension().is_some_and(|e| e.eq_ignore_ascii_case("safetensors")) {
            return values(path).map(Self::Known);
        }
        // Says more than a runtime about what is not there or only a pointer to it.
        LocalFile::open(path)?;
        Session::open(path, backend).map(Self::Graph)
    }

    fn outputs(&mut self, inputs: &[(String, Value)]) -> Result<Vec<(String, Value)>> {
        match self {
            Self::Known(values) => Ok(std::mem::take(values)),
            Self::Graph(session) => {
                let mut given = Vec::new();
                for port in session.inputs() {
                    // What is missing, the session says.
                    let Some((name, value)) = inputs.iter().find(|(n, _)| *n == port.name) else { continue };
                    let value = value.cast(port.dtype).map_err(|e| e.context(format!("input `{name}`")))?;
                    given.push((name.as_str(), value));
                }
                session.run(&given)
            }
        }
    }

    fn ports(&self) -> &[Port] {
        match self {
            Self::Known(_) => &[],
            Self::Graph(session) => session.inputs(),
        }
    }

    fn is_known(&self) -> bool {
        matches!(self, Self::Known(_))
    }
}

/// All tensors of a file.
fn values(path: &Path) -> Result<Vec<(String, Value)>> {
    let source = Source::open(path, &Limits::default())?;
    let value = |t: &Tensor| {
        let (Expr::Read { source: reader, tensor, .. }, Encoding::Plain(dtype)) = (&t.expr, t.spec.encoding)
        else {
            return Err(Error::unsupported(format!("{} values cannot be given to a graph", t.spec.encoding)));
        };
        let mut bytes = vec![0; t.spec.bytes()? as usize];
        source.readers[*reader].read(*tensor, 0..t.spec.shape.rows(), &mut bytes)?;
        Value::new(dtype, t.spec.shape.dims().iter().map(|&n| n as usize).collect(), bytes)
    };
    source
        .model
        .tensors
        .iter()
        .map(|t| Ok((t.name().to_owned(), value(t).map_err(|e| e.tensor(t.name()).file(path.display()))?)))
        .collect()
}

/// Runs both on the same inputs and compares outputs of the same name; `a` is the reference. One of the two may be a
/// safetensors file with known outputs.
///
/// # Errors
/// No runtime, graphs or files that cannot be read or run, inputs that are missing or of types that a graph cannot take.
pub fn compare(
    a: impl Into<Location>,
    b: impl Into<Location>,
    options: &Options,
) -> Result<OutputComparison> {
    compare_by(&a.into(), &b.into(), options, &(), &AtomicBool::new(false))
}

/// The same, while somebody watches what is downloaded and may stop it; a graph that runs is not interrupted.
///
/// # Errors
/// As [`compare`]; `Cancelled`.
pub fn compare_by(
    a: &Location,
    b: &Location,
    options: &Options,
    progress: &dyn Progress,
    cancel: &AtomicBool,
) -> Result<OutputComparison> {
    let access = &options.access;
    let how = Opening { access: access.clone(), ..Opening::default() };
    for at in [a, b].into_iter().filter(|at| at.local().is_none()) {
        // Finds the files with its weights; and what is not there, before anything is fetched.
        Source::open_at(at, &how)?;
    }
    // Runtimes open graphs by path, and what they hold beside them.
    let on_disk = |at: &Location| at.on_disk(access, progress, cancel);
    let (file_a, file_b) = (on_disk(a)?, on_disk(b)?);
    let mut result = compare_files(&file_a, &file_b, options, cancel).map_err(|e| {
        let far = [a, b].into_iter().find(|at| at.local().is_none());
        match far.filter(|_| e.message().contains("outside the model directory")) {
            // Files of the cache are links. A runtime that follows none to weights has its reasons.
            Some(Location::Hub(address)) => e.also_hint(format!(
                "or fetch a folder without links (tensormill pull {} -o DIR) and compare its graph",
                address.repo
            )),
            _ => e,
        }
    })?;
    // Where they were found in the cache is nobody's concern.
    (result.a, result.b) = (a.pinned(access)?.to_string(), b.pinned(access)?.to_string());
    Ok(result)
}

fn compare_files(a: &Path, b: &Path, options: &Options, cancel: &AtomicBool) -> Result<OutputComparison> {
    let go_on = || if cancel.load(Ordering::Relaxed) { Err(Error::cancelled()) } else { Ok(()) };
    let (mut side_a, mut side_b) = (Side::open(a, &options.backend)?, Side::open(b, &options.backend)?);
    let runtime = match (&side_a, &side_b) {
        (Side::Graph(s), _) | (_, Side::Graph(s)) => s.runtime(),
        _ => {
            return Err(Error::usage("neither of the two is a graph")
                .hint("leave out --outputs to compare tensors of files"));
        }
    };
    let (known_a, known_b) = (side_a.is_known(), side_b.is_known());
    let inputs = match &options.inputs {
        Inputs::File(path) => values(path)?,
        Inputs::Generated(_) if known_a || known_b => {
            return Err(Error::usage("known outputs belong to inputs that must be known, too")
                .hint("name them: --input FILE.safetensors"));
        }
        Inputs::Generated(seed) => generate::inputs(*seed, side_a.ports(), side_b.ports())?,
    };
    go_on()?;
    let from_a = side_a.outputs(&inputs)?;
    go_on()?;
    let from_b = side_b.outputs(&inputs)?;
    let mut result = OutputComparison {
        a: a.display().to_string(),
        b: b.display().to_string(),
        runtime,
        inputs: inputs
            .iter()
            .map(|(name, v)| InputReport { name: name.clone(), shape: v.shape().to_vec() })
            .collect(),
        outputs: Vec::new(),
        mismatched: Vec::new(),
        only_in_a: names_missing(&from_a, &from_b),
        only_in_b: names_missing(&from_b, &from_a),
        failure: None,
    };
    for (name, va) in &from_a {
        let Some((_, vb)) = from_b.iter().find(|(n, _)| n == name) else { continue };
        if va.shape() == vb.shape() {
            result.outputs.push(one(name, va, vb, options)?);
        } else {
            let dims = |v: &Value| v.shape().iter().map(|&n| n as u64).collect();
            result.mismatched.push(ShapeMismatch {
                name: name.clone(),
                shape_a: dims(va),
                shape_b: dims(vb),
            });
        }
    }
    result.failure = failure(&result, options, known_a, known_b);
    Ok(result)
}

fn names_missing(of: &[(String, Value)], there: &[(String, Value)]) -> Vec<String> {
    of.iter().map(|(n, _)| n).filter(|n| !there.iter().any(|(t, _)| t == *n)).cloned().collect()
}

fn one(name: &str, a: &Value, b: &Value, options: &Options) -> Result<OutputReport> {
    let numbers = |v: &Value| v.to_f32().map_err(|e| e.tensor(name));
    let (x, y) = (numbers(a)?, numbers(b)?);
    let mut stats = ErrorStats::default();
    stats.add(&x, &y);
    let tolerance = (options.rtol.is_some() || options.atol.is_some())
        .then(|| (options.rtol.unwrap_or(0.0), options.atol.unwrap_or(0.0)));
    let beyond = tolerance.map(|(rtol, atol)| {
        let is_beyond = |(&x, &y): (&f32, &f32)| {
            let (x, y) = (f64::from(x), f64::from(y));
            let same = x == y || x.is_nan() && y.is_nan();
            // Asked this way round, what is not a number is beyond every limit.
            let within = same || x.is_finite() && (x - y).abs() <= atol + rtol * x.abs();
            !within
        };
        x.iter().zip(&y).filter(|&p| is_beyond(p)).count() as u64
    });
    let columns = a.shape().last().copied().unwrap_or(1);
    let argmax = (columns > 1).then(|| {
        let rows = || x.chunks_exact(columns).zip(y.chunks_exact(columns));
        Argmax {
            rows: rows().count() as u64,
            equal: rows().filter(|(x, y)| largest(x) == largest(y)).count() as u64,
        }
    });
    Ok(OutputReport {
        name: name.to_owned(),
        shape: a.shape().to_vec(),
        type_a: a.dtype().to_string(),
        type_b: b.dtype().to_string(),
        error: ErrorReport::from(&stats),
        argmax,
        beyond,
    })
}

/// Place of the first largest value.
fn largest(row: &[f32]) -> usize {
    row.iter().enumerate().fold(0, |best, (i, v)| if *v > row[best] { i } else { best })
}

fn failure(c: &OutputComparison, options: &Options, known_a: bool, known_b: bool) -> Option<String> {
    if options.rtol.is_none() && options.atol.is_none() && options.max_rmse.is_none() {
        return None;
    }
    for o in &c.outputs {
        let (name, error) = (&o.name, &o.error);
        if let Some(n) = o.beyond.filter(|&n| n > 0) {
            let (values, max) = (error.values, error.max_abs);
            return Some(format!(
                "output {name}: {n} of {values} values are beyond the tolerance, the largest difference is {max:.3e}"
            ));
        }
        if let Some(limit) = options.max_rmse.filter(|&l| error.rmse > l || error.non_finite > 0) {
            return Some(format!(
                "output {name}: RMSE {:.3e}, {} non-finite; the limit is {limit}",
                error.rmse, error.non_finite
            ));
        }
    }
    // A file of known outputs need not have all that the graph computes.
    let only_in_a = if known_b { &[] } else { &c.only_in_a[..] };
    let only_in_b = if known_a { &[] } else { &c.only_in_b[..] };
    let mut names = c.mismatched.iter().map(|m| &m.name).chain(only_in_a).chain(only_in_b);
    if let Some(n) = names.next() {
        return Some(format!("output {n} is not on both sides in the same shape"));
    }
    c.outputs.is_empty().then(|| "no output has the same name on both sides".to_owned())
}
