//! One conversion: a request becomes a plan (headers only), a plan becomes files.

use crate::{
    Source,
    hf::{self, HfOptions},
    memory,
    metadata_edits::edit,
    report::{ConvertReport, ErrorReport, FileReport, PlanReport, TensorReport},
};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicBool},
    time::Instant,
};
use tensormill_engine::{self as engine, Output, PlanOptions, Progress, Sink};
use tensormill_model::{
    Checked, Error, Expr, FileLayout, Format, FormatInfo, Layout, Limits, Model, Result, Store, Tensor,
    Transform, WriteOptions,
};
use tensormill_store::{Existing, LocalFile, OutputSet};
use tensormill_tensor::{DType, Encoding, ErrorStats};
use tensormill_transforms::{
    self as transforms, ConvertDtype, Importance, Quantize, QuantizeOptions, Recipe, Search, TensorType,
};

/// What the output's tensors should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// The plain type that loses nothing of the source; a GGUF source stays as it is.
    Lossless,
    /// F32, F16 or BF16.
    Dtype(DType),
    /// A quantization recipe by name.
    Recipe(String),
}

/// Everything a user can say about one conversion.
#[derive(Clone, Debug)]
#[allow(clippy::struct_excessive_bools, reason = "independent switches of the command line")]
pub struct Request {
    /// Folder or file to read.
    pub source: PathBuf,
    /// File to write.
    pub output: PathBuf,
    /// What to make.
    pub target: Target,
    /// Importance matrix.
    pub imatrix: Option<PathBuf>,
    /// How encoders look for scales and levels.
    pub search: Search,
    /// `REGEX=TYPE` rules; the first that matches wins.
    pub tensor_types: Vec<String>,
    /// Type of the output tensor.
    pub output_tensor_type: Option<String>,
    /// Type of the token embedding.
    pub token_embedding_type: Option<String>,
    /// Keep the output tensor as it is.
    pub leave_output_tensor: bool,
    /// The recipe's base type throughout.
    pub pure: bool,
    /// Quantize quantized tensors again.
    pub allow_requantize: bool,
    /// Pre-tokenizer name, instead of the one that is recognised.
    pub pre: Option<String>,
    /// Bound on resident memory in bytes, plus [`memory::OVERHEAD`].
    pub memory: u64,
    /// Worker threads; one per core by default.
    pub threads: Option<usize>,
    /// Split the output at this many bytes of tensor data.
    pub max_shard_bytes: Option<u64>,
    /// `KEY=VALUE` edits.
    pub metadata: Vec<String>,
    /// Replace existing files.
    pub force: bool,
    /// Measure the error of what is written.
    pub measure: bool,
}

impl Request {
    /// A request with the defaults of the command line.
    pub fn new(source: impl Into<PathBuf>, output: impl Into<PathBuf>, target: Target) -> Self {
        Self {
            source: source.into(),
            output: output.into(),
            target,
            imatrix: None,
            search: Search::Ggml,
            tensor_types: Vec::new(),
            output_tensor_type: None,
            token_embedding_type: None,
            leave_output_tensor: false,
            pure: false,
            allow_requantize: false,
            pre: None,
            memory: 1 << 30,
            threads: None,
            max_shard_bytes: None,
            metadata: Vec::new(),
            force: false,
            measure: true,
        }
    }
}

/// A planned conversion: sizes, types and memory are known, nothing of the weights is read, nothing written.
pub struct Conversion {
    source: Source,
    checked: Checked,
    layout: Layout,
    report: PlanReport,
    /// Folder of the output.
    dir: PathBuf,
    tile_memory: u64,
    threads: usize,
    existing: Existing,
    measure: bool,
}

/// Opens the source and plans.
///
/// # Errors
/// Everything that can be known to be wrong before weights are read.
pub fn plan(request: &Request) -> Result<Conversion> {
    let (dir, file_name) = split_output(&request.output)?;
    let format = format_of(&file_name)?;
    let recipe = match &request.target {
        Target::Recipe(name) => Some(find_recipe(name)?),
        _ => None,
    };
    let options = quantize_options(request)?;
    let mut source = Source::open(&request.source, &Limits::default())?;
    let mut notes = Vec::new();

    // The source's model moves through the rewrites; the readers stay.
    let model = source.take_model();
    let dtype = match &request.target {
        Target::Dtype(d) => plain_target(*d)?,
        _ => transforms::Target::lossless(model.tensors.iter().map(|t| &t.spec)),
    };
    let in_gguf_form = source.is_gguf();
    let mut model = if in_gguf_form {
        let model = tensormill_arch::roles_for_gguf(model);
        if let Target::Dtype(_) = request.target {
            ConvertDtype { target: dtype }.rewrite(model)?
        } else {
            model
        }
    } else {
        let hf = HfOptions { file_type: dtype.file_type(), pre: request.pre.as_deref() };
        let model = hf::to_gguf_form(model, &hf, &mut notes)?;
        ConvertDtype { target: dtype }.rewrite(model)?
    };
    if let Some(recipe) = recipe {
        let importance = request.imatrix.as_deref().map(read_importance).transpose()?.map(Arc::new);
        model = Quantize { recipe, options, importance }.rewrite(model)?;
    }
    for text in &request.metadata {
        edit(&mut model.metadata, text)?;
    }

    let checked = model.check(&format.info().capabilities)?;
    let layout =
        format.layout(&checked, &WriteOptions { file_name, max_shard_bytes: request.max_shard_bytes })?;
    let threads =
        request.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let tile_memory = memory::for_tiles(request.memory)?;
    let planned = engine::plan(
        &source.readers,
        &[Output { model: &checked, layout: &layout }],
        &PlanOptions { memory: tile_memory, threads, measure: request.measure },
    )?;
    let model = checked.model();
    let tensors = tensor_reports(model)?;
    let mut types = BTreeMap::new();
    for t in &tensors {
        *types.entry(t.target_type.clone()).or_default() += 1;
    }
    let file = |f: &FileLayout| FileReport { path: dir.join(&f.name).display().to_string(), bytes: f.len };
    let parameters = model.parameters();
    let report = PlanReport {
        source: request.source.display().to_string(),
        source_format: source.format.clone(),
        source_bytes: source.bytes,
        architecture: model.metadata.str("general.architecture").unwrap_or("unknown").to_owned(),
        target: recipe
            .map_or_else(|| target_name(&request.target, dtype, in_gguf_form), |r| r.name.to_owned()),
        search: recipe.map(|_| request.search.name()),
        memory_limit: request.memory,
        memory_planned: planned.memory(),
        threads,
        notes,
        parameters,
        files: layout.files.iter().map(file).collect(),
        output_bytes: layout.files.iter().map(|f| f.len).sum(),
        bits_per_weight: if parameters == 0 { 0.0 } else { model.bytes()? as f64 * 8.0 / parameters as f64 },
        types,
        tensors,
    };
    let existing = if request.force { Existing::Replace } else { Existing::Refuse };
    Ok(Conversion {
        source,
        checked,
        layout,
        report,
        dir,
        tile_memory,
        threads,
        existing,
        measure: request.measure,
    })
}

impl Conversion {
    /// What will be done.
    pub fn report(&self) -> &PlanReport {
        &self.report
    }

    /// The planned model.
    pub fn model(&self) -> &Model {
        self.checked.model()
    }

    /// Reads, converts and writes. Files appear under their final names only when all of them are complete.
    ///
    /// # Errors
    /// I/O errors, values that cannot be quantized, and [`tensormill_model::ErrorKind::Cancelled`].
    pub fn run(mut self, progress: &dyn Progress, cancel: &AtomicBool) -> Result<ConvertReport> {
        let start = Instant::now();
        let files: Vec<(String, u64)> = self.layout.files.iter().map(|f| (f.name.clone(), f.len)).collect();
        let out = OutputSet::create(&self.dir, &files, self.existing)?;
        for (i, f) in self.layout.files.iter_mut().enumerate() {
            out.write_all_at(i, 0, &f.header)?;
            f.header = Vec::new();
        }
        let outputs = [Output { model: &self.checked, layout: &self.layout }];
        let plan_options =
            PlanOptions { memory: self.tile_memory, threads: self.threads, measure: self.measure };
        let plan = engine::plan(&self.source.readers, &outputs, &plan_options)?;
        let sink = Files(&out);
        let run = plan.run(&[&sink], progress, cancel)?;
        out.commit()?;
        let mut report = self.report;
        let mut total: Option<ErrorStats> = None;
        for (row, t) in report.tensors.iter_mut().zip(&run.outputs[0]) {
            if let Some(stats) = &t.error {
                row.error = Some(ErrorReport::from(stats));
                total.get_or_insert_default().merge(stats);
            }
        }
        Ok(ConvertReport {
            plan: report,
            error: total.as_ref().map(ErrorReport::from),
            wall_seconds: start.elapsed().as_secs_f64(),
            read_bytes: run.read,
            peak_rss_bytes: engine::peak_rss(),
            peak_tile_bytes: run.peak_tile_bytes,
        })
    }
}

struct Files<'a>(&'a OutputSet);

impl Sink for Files<'_> {
    fn write_at(&self, file: usize, offset: u64, bytes: &[u8]) -> Result<()> {
        self.0.write_all_at(file, offset, bytes)
    }
}

fn split_output(path: &Path) -> Result<(PathBuf, String)> {
    let name = path.file_name().and_then(|n| n.to_str());
    match name {
        Some(name) if !path.is_dir() => {
            let dir = path.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
            Ok((dir.to_owned(), name.to_owned()))
        }
        _ => Err(Error::usage("the output must be a file name")
            .file(path.display())
            .hint("for example -o model.Q4_K_M.gguf")),
    }
}

/// Whether conversions can end in this format. Other writers exist, but the way there does not yet.
pub(crate) fn is_target(info: &FormatInfo) -> bool {
    info.can_write && info.id == crate::formats::GGUF.info().id
}

fn format_of(file_name: &str) -> Result<&'static dyn Format> {
    let extension = file_name.rsplit_once('.').map_or("", |(_, e)| e).to_ascii_lowercase();
    crate::formats::FORMATS
        .iter()
        .copied()
        .find(|f| is_target(f.info()) && f.info().extensions.contains(&extension.as_str()))
        .ok_or_else(|| {
            Error::unsupported(format!("cannot convert to {file_name:?}: this version writes .gguf files"))
                .hint("end the output's name in .gguf")
        })
}

fn find_recipe(name: &str) -> Result<&'static Recipe> {
    match transforms::recipe(name) {
        Some(r) if r.available() => Ok(r),
        Some(r) => Err(Error::unsupported(format!("{}: this version cannot encode {}", r.name, r.base))),
        None => {
            Err(Error::usage(format!("there is no recipe {name:?}"))
                .hint("`tensormill list recipes` shows them"))
        }
    }
}

fn plain_target(d: DType) -> Result<transforms::Target> {
    match d {
        DType::F32 => Ok(transforms::Target::F32),
        DType::F16 => Ok(transforms::Target::F16),
        DType::BF16 => Ok(transforms::Target::Bf16),
        other => Err(Error::usage(format!("cannot convert to {other}; choose f32, f16 or bf16"))),
    }
}

fn target_name(target: &Target, dtype: transforms::Target, in_gguf_form: bool) -> String {
    if *target == Target::Lossless && in_gguf_form {
        return "types as in the source".to_owned();
    }
    dtype.encoding().name().to_uppercase()
}

fn quantize_options(r: &Request) -> Result<QuantizeOptions> {
    let parse = |t: &Option<String>| t.as_deref().map(transforms::parse_type).transpose();
    Ok(QuantizeOptions {
        pure: r.pure,
        leave_output_tensor: r.leave_output_tensor,
        output_tensor_type: parse(&r.output_tensor_type)?,
        token_embedding_type: parse(&r.token_embedding_type)?,
        tensor_types: r.tensor_types.iter().map(|t| TensorType::parse(t)).collect::<Result<_>>()?,
        allow_requantize: r.allow_requantize,
        search: r.search,
    })
}

/// Largest legacy importance matrix that is read; those of 100 B-parameter models take tens of MB.
const LEGACY_IMATRIX_BYTES: u64 = 1 << 30;

fn read_importance(path: &Path) -> Result<Importance> {
    let store = LocalFile::open(path)?;
    let name = path.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
    let mut head = [0u8; 4];
    if store.len() >= 4 {
        store.read_at(0, &mut head)?;
    }
    let result = if head == *b"GGUF" {
        let reader = crate::formats::GGUF.open(Arc::new(store), &Limits::default())?;
        Importance::from_reader(&*reader, &name)
    } else {
        if store.len() > LEGACY_IMATRIX_BYTES {
            return Err(Error::over_limit("larger than any importance matrix").file(path.display()));
        }
        let mut bytes = vec![0; store.len() as usize];
        store.read_at(0, &mut bytes)?;
        Importance::from_legacy(&bytes, &name)
    };
    result.map_err(|e| e.file(path.display()))
}

/// The planned tensors, not yet measured.
fn tensor_reports(model: &Model) -> Result<Vec<TensorReport>> {
    let row = |t: &Tensor| {
        Ok(TensorReport {
            name: t.name().to_owned(),
            shape: t.spec.shape.dims().to_vec(),
            source_type: source_encoding(&t.expr).map_or("-", Encoding::name).to_owned(),
            target_type: t.spec.encoding.to_string(),
            bytes: t.spec.bytes()?,
            error: None,
        })
    };
    model.tensors.iter().map(row).collect()
}

/// The encoding of the first source tensor that an expression reads.
fn source_encoding(e: &Expr) -> Option<Encoding> {
    match e {
        Expr::Read { form, .. } => Some(form.encoding),
        Expr::Const { .. } => None,
        Expr::Rows { input, .. } | Expr::Reshape { input, .. } => source_encoding(input),
        Expr::Concat { inputs, .. } | Expr::Apply { inputs, .. } => inputs.iter().find_map(source_encoding),
    }
}
