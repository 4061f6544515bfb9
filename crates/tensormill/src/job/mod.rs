//! One source, any number of variants, one read: what `convert` and `release` both are.
//!
//! [`plan`] opens the source and fixes everything that can be known without weights; [`Planned::run`] makes the files,
//! [`Planned::finish`] publishes what several machines made. Neither knows release files or command lines.

mod arguments;
mod checkpoint;
mod checks;
mod checksums;
mod form;
mod journal;
mod kept;
mod manifest;
mod onnx;
pub(crate) mod place;
mod publish;
mod run;
mod scheme;
mod sink;

pub use manifest::{MANIFEST_SUFFIX, SUMS};

use crate::{
    Gate, Search, Source,
    adapters::{self, Options as MergeOptions, Wanted},
    convert::Target,
    device::{self, Selection, Wishes},
    location::{Access, Location, Opening},
    memory, merge, modules, onnx as onnx_files,
    onnx::GraphOptions,
    quantized,
    report::{FileReport, JobReport, PlanReport, TensorReport, VariantReport},
};
use checkpoint::{Remarks, SideFile};
use form::{Formed, Forms};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, path::PathBuf};
use tensormill_engine::{self as engine, Output, PlanOptions};
use tensormill_model::{
    Checked, Error, Expr, FileLayout, Format, Layout, Limits, Model, Result, ShardLimits, Tensor,
    WriteOptions,
};
use tensormill_pickle::PickleOptions;
pub use tensormill_schemes::Damping;
use tensormill_store::{Existing, free_bytes};
use tensormill_tensor::Encoding;
use xxhash_rust::xxh3::Xxh3;

/// How error feedback reads Hessians where nothing is said.
pub const USUAL_DAMPING: Damping = Damping { part: 0.05, by_activity: false };

/// One variant to make.
#[derive(Clone, Debug)]
#[allow(clippy::struct_excessive_bools, reason = "independent switches of the command line")]
pub struct Variant {
    /// What people call it: `Q4_K_M`.
    pub name: String,
    /// File to write, relative to the job's folder; its suffix chooses the format.
    pub file: String,
    /// What to make.
    pub target: Target,
    /// Importance matrix.
    pub imatrix: Option<PathBuf>,
    /// Calibration file.
    pub calibration: Option<PathBuf>,
    /// How error feedback reads it.
    pub damping: Damping,
    /// How encoders look for scales and levels.
    pub search: Search,
    /// `REGEX=TYPE` rules; the first that matches wins.
    pub tensor_types: Vec<String>,
    /// `(role, type)` rules, after those.
    pub role_types: Vec<(String, String)>,
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
    /// When to go on in another file.
    pub shards: ShardLimits,
    /// Metadata keys to leave out.
    pub remove_metadata: Vec<String>,
    /// `KEY=VALUE` edits, after that.
    pub metadata: Vec<String>,
    /// Write the files beside the weights, too: configuration, tokenizer. Only for formats that need them.
    pub side_files: bool,
    /// Graph of an ONNX file.
    pub onnx: GraphOptions,
    /// Bounds on its error.
    pub gate: Gate,
}

impl Variant {
    /// A variant with the defaults of the command line.
    pub fn new(name: impl Into<String>, file: impl Into<String>, target: Target) -> Self {
        Self {
            name: name.into(),
            file: file.into(),
            target,
            imatrix: None,
            calibration: None,
            damping: USUAL_DAMPING,
            search: Search::Usual,
            tensor_types: Vec::new(),
            role_types: Vec::new(),
            output_tensor_type: None,
            token_embedding_type: None,
            leave_output_tensor: false,
            pure: false,
            allow_requantize: false,
            shards: ShardLimits::default(),
            remove_metadata: Vec::new(),
            metadata: Vec::new(),
            side_files: false,
            onnx: GraphOptions::default(),
            gate: Gate::default(),
        }
    }
}

/// One of several parts of the work, counted from zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Which.
    pub index: u64,
    /// Of how many.
    pub count: u64,
    /// Whether a part is some of the output files, rather than some of every file: for machines that share no file
    /// system. The source is then read by every machine.
    #[serde(default)]
    pub whole_files: bool,
}

/// What to do about what an unfinished run left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Leftovers {
    /// Report it, and do nothing.
    #[default]
    Refuse,
    /// Continue it.
    Resume,
    /// Remove it, and begin again.
    Restart,
}

/// Everything a run is asked for.
#[derive(Clone, Debug)]
#[allow(clippy::struct_excessive_bools, reason = "independent switches of the command line")]
pub struct Job {
    /// What to read.
    pub source: Location,
    /// How the Hub is reached, where something of it is read.
    pub access: Access,
    /// Revision of the source, to be recorded where the source itself does not tell it.
    pub revision: Option<String>,
    /// Which part of a PyTorch checkpoint to read.
    pub part: PickleOptions,
    /// Name of the run: of its journal, manifest and report.
    pub name: String,
    /// Folder to write into.
    pub folder: PathBuf,
    /// Whether to create it.
    pub create_folder: bool,
    /// Whether outputs that are this very job's count as made: what comes after them may have failed.
    pub again: bool,
    /// What to make.
    pub variants: Vec<Variant>,
    /// Adapters to merge, in their order.
    pub adapters: Vec<Wanted>,
    /// How that is rounded, and what is let pass.
    pub merge: MergeOptions,
    /// Seed of a merge recipe's random numbers, instead of the recipe's own.
    pub seed: Option<u64>,
    /// Leave tensors under the names and in the shapes that the source gives them: no way is looked for between what
    /// GGUF files and training code call things.
    pub keep_names: bool,
    /// Pre-tokenizer name, instead of the one that is recognised.
    pub pre: Option<String>,
    /// Bound on resident memory in bytes, plus [`memory::OVERHEAD`].
    pub memory: u64,
    /// Threads that compute; one per core by default.
    pub threads: Option<usize>,
    /// Where to encode.
    pub device: device::Choice,
    /// Bound on the device's memory in bytes; what is of use, within four fifths of what is free, by default.
    pub device_memory: Option<u64>,
    /// Replace existing files.
    pub force: bool,
    /// Measure the error of what is written.
    pub measure: bool,
    /// Read outputs back and compare bytes and values before they get their names.
    pub verify: bool,
    /// Write SHA-256 sums, a manifest and a report beside the outputs.
    pub manifest: bool,
    /// Write a model card beside the manifest.
    pub card: Option<crate::card::Options>,
    /// Go on where the output cannot hold everything that the source has.
    pub allow_loss: bool,
    /// What to do about what an unfinished run left.
    pub leftovers: Leftovers,
}

impl Job {
    /// A job with the defaults of the command line.
    pub fn new(source: impl Into<Location>, folder: impl Into<PathBuf>, name: impl Into<String>) -> Self {
        Self {
            source: source.into(),
            access: Access::default(),
            revision: None,
            part: PickleOptions::default(),
            name: name.into(),
            folder: folder.into(),
            create_folder: false,
            again: false,
            variants: Vec::new(),
            adapters: Vec::new(),
            merge: MergeOptions::default(),
            seed: None,
            keep_names: false,
            pre: None,
            memory: 1 << 30,
            threads: None,
            device: device::Choice::Auto,
            device_memory: None,
            force: false,
            measure: true,
            verify: false,
            manifest: false,
            card: None,
            allow_loss: false,
            leftovers: Leftovers::Refuse,
        }
    }

    /// How its sources are opened.
    pub(crate) fn opening(&self) -> Opening {
        Opening { limits: Limits::default(), part: self.part.clone(), access: self.access.clone() }
    }
}

/// A variant whose files are fixed to the byte.
struct PlannedVariant {
    format: &'static dyn Format,
    checked: Checked,
    /// Places of tensors; the headers' bytes come again when they are written: many copies of one vocabulary would not
    /// fit a small budget.
    layout: Layout,
    write: WriteOptions,
    /// Files beside the weights, and what those from the source are read from.
    side: Vec<SideFile>,
    /// Folder of the weights' files, with a slash, or nothing.
    folder: String,
    /// Folder of the files beside them.
    side_folder: String,
    /// Of the headers' bytes.
    headers: u64,
}

impl PlannedVariant {
    /// Fixes the files of a model; `v` says where they go and how they are divided.
    fn new(format: &'static dyn Format, model: Model, side: Vec<SideFile>, v: &Variant) -> Result<Self> {
        let checked = model.check(&format.info().capabilities)?;
        let (folder, file_name) = v.file.rsplit_once('/').unwrap_or(("", &v.file));
        let write =
            WriteOptions { file_name: file_name.to_owned(), shards: v.shards, external: v.onnx.external };
        let folder = if folder.is_empty() { String::new() } else { format!("{folder}/") };
        // Where weights lie in a folder of their own, what is beside them does not.
        let inner = format.info().folder_name.and_then(|n| Some(n.rsplit_once('/')?.0));
        let outer = inner.and_then(|n| folder.strip_suffix('/')?.strip_suffix(n));
        let side_folder = outer.filter(|_| v.side_files).unwrap_or(&folder).to_owned();
        let side = if v.side_files { side } else { Vec::new() };
        let layout = Layout::default();
        let mut planned = Self { format, checked, layout, write, side, folder, side_folder, headers: 0 };
        let mut layout = planned.whole_layout()?;
        let mut headers = Xxh3::new();
        for f in &mut layout.files {
            headers.update(&std::mem::take(&mut f.header));
            for piece in std::mem::take(&mut f.pieces) {
                headers.update(&piece.bytes);
            }
        }
        (planned.layout, planned.headers) = (layout, headers.digest());
        Ok(planned)
    }

    /// The layout with its headers; files beside the weights are nothing but header.
    fn whole_layout(&self) -> Result<Layout> {
        let mut layout = self.format.layout(&self.checked, &self.write)?;
        for f in &mut layout.files {
            f.name.insert_str(0, &self.folder);
        }
        for side in &self.side {
            let header = side.bytes(&*self.checked.model().assets)?;
            layout.files.push(FileLayout {
                name: format!("{}{}", self.side_folder, side.name()),
                len: header.len() as u64,
                header,
                ..FileLayout::default()
            });
        }
        Ok(layout)
    }

    fn output(&self) -> Output<'_> {
        Output::new(&self.checked, &self.layout)
    }
}

/// A planned job: sizes, types and memory are known, nothing of the weights is read, nothing written.
pub struct Planned {
    job: Job,
    source: Source,
    variants: Vec<PlannedVariant>,
    report: PlanReport,
    options: PlanOptions,
    device: Selection,
}

/// Opens the source and plans.
///
/// # Errors
/// Everything that can be known to be wrong before weights are read.
pub fn plan(job: Job) -> Result<Planned> {
    // Names of outputs are looked at before anything is opened.
    formats_of(&job)?;
    let source = merge::open_source(&job.source, &job.opening(), job.seed)?;
    plan_source(job, source)
}

fn formats_of(job: &Job) -> Result<Vec<&'static dyn Format>> {
    if job.variants.is_empty() {
        return Err(Error::usage("nothing to make: no variant is asked for"));
    }
    job.variants.iter().map(|v| place::format_of(&v.file)).collect()
}

/// Plans for a source that is open.
///
/// # Errors
/// As [`plan`].
pub(crate) fn plan_source(job: Job, mut source: Source) -> Result<Planned> {
    let formats = formats_of(&job)?;
    tracing::info!(source = %source.location, format = source.format, bytes = source.bytes, "source opened");
    quantized::open(&mut source)?;
    let mut source_notes = std::mem::take(&mut source.notes);
    if formats.iter().any(|f| f.info().id == crate::formats::ONNX.info().id) {
        modules::open(&mut source, &Limits::default())?;
        for at in job.variants.iter().filter_map(|v| v.onnx.template.as_ref()) {
            if !source.templates.contains_key(at) {
                // A graph has no parts to choose from.
                let how = Opening { part: PickleOptions::default(), ..job.opening() };
                let template = onnx_files::open_template(&mut source, at, &how)?;
                source.templates.insert(at.clone(), template);
            }
        }
    }
    let adapters = adapters::apply(&mut source, &job.adapters, job.merge, &job.access, &mut source_notes)?;
    let mut forms = Forms::new(&source, &job);
    forms.remarks.notes = job.access.notes();
    forms.remarks.notes.append(&mut source_notes);
    let mut variants = Vec::with_capacity(job.variants.len());
    let mut reports = Vec::with_capacity(job.variants.len());
    let mut architecture = String::new();
    for (v, format) in job.variants.iter().zip(formats) {
        let named =
            |e: Error| if job.variants.len() > 1 { e.context(format!("variant {}", v.name)) } else { e };
        let Formed { model, side, target, parameters } = forms.variant(v, format).map_err(named)?;
        let planned = PlannedVariant::new(format, model, side, v).map_err(named)?;
        let model = planned.checked.model();
        model.metadata.str("general.architecture").unwrap_or("unknown").clone_into(&mut architecture);
        reports.push(variant_report(&job, v, (target, parameters), &planned)?);
        variants.push(planned);
    }
    refuse_clashes(&reports)?;
    let checks = forms.gguf().map_or_else(Vec::new, checks::of);
    forms.remarks.notes.extend(left_out(&source));
    let Forms { unmapped, remarks: Remarks { lost, mut notes }, .. } = forms;
    // The source's own model has gone into the variants.
    drop(source.take_model());
    let threads = job.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let tiles = memory::for_tiles(job.memory)?;
    let wishes = Wishes {
        choice: job.device,
        memory: job.device_memory,
        staging: memory::for_staging(tiles),
        workers: threads.saturating_add(engine::AHEAD),
    };
    let device = Selection::new(&wishes, variants.iter().map(|v| v.checked.model()), &mut notes)?;
    let mut options = PlanOptions {
        measure: job.measure,
        offload: device.report().is_some(),
        ..PlanOptions::new(tiles - device.staging(), threads)
    };
    if job.manifest {
        options.follow = follow(&source, &variants, &options)?;
    }
    let outputs: Vec<Output<'_>> = variants.iter().map(PlannedVariant::output).collect();
    let planned = engine::plan(&source.readers, &outputs, &options)?;
    let output_bytes = reports.iter().map(|r| r.output_bytes).sum();
    let report = PlanReport {
        job: JobReport {
            source: source.location.to_string(),
            revision: source.location.commit().map(str::to_owned).or_else(|| job.revision.clone()),
            repositories: job.access.reports(),
            source_format: source.format.clone(),
            source_bytes: source.bytes,
            adapters,
            architecture,
            memory_limit: job.memory,
            memory_planned: planned.memory(),
            threads,
            device: device.report(),
            read_bytes_planned: planned.source_bytes(),
            written_bytes_planned: output_bytes,
            disk_free: free_bytes(&job.folder),
            checks,
            unmapped,
            lost,
            notes,
        },
        variants: reports,
    };
    let (tiles, tile_memory) = (planned.tiles(), planned.memory());
    drop(planned);
    tracing::info!(variants = variants.len(), tiles, tile_memory, threads, "planned");
    Ok(Planned { job, source, variants, report, options, device })
}

/// What the source's files hold and their readers leave aside.
fn left_out(source: &Source) -> Option<String> {
    const SHOWN: usize = 5;
    let all: Vec<String> = source
        .readers
        .iter()
        .flat_map(|r| &r.index().left_out)
        .map(|l| format!("{} ({})", l.name, l.what))
        .collect();
    let shown = all.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    match all.len() {
        0 => None,
        n if n > SHOWN => Some(format!("left aside: {shown} and {} more", n - SHOWN)),
        _ => Some(format!("left aside: {shown}")),
    }
}

/// The output whose file order lets most bytes be hashed while they are written; `None`: the sources' order does.
fn follow(source: &Source, variants: &[PlannedVariant], options: &PlanOptions) -> Result<Option<usize>> {
    let outputs: Vec<Output<'_>> = variants.iter().map(PlannedVariant::output).collect();
    let bytes = |i: usize| variants[i].layout.files.iter().map(|f| f.len).sum::<u64>();
    let mut best = (0, None);
    let mut seen: Vec<usize> = Vec::new();
    for candidate in std::iter::once(None).chain((0..variants.len()).map(Some)) {
        // One that is in order with an earlier candidate gives the same order again.
        if candidate.is_some_and(|i| seen.contains(&i)) {
            continue;
        }
        // Any budget will do: only the order is asked for.
        let options = PlanOptions { follow: candidate, memory: u64::MAX / 2, ..*options };
        let plan = engine::plan(&source.readers, &outputs, &options)?;
        let in_order: Vec<usize> = (0..variants.len()).filter(|i| plan.in_file_order(*i)).collect();
        let total: u64 = in_order.iter().map(|i| bytes(*i)).sum();
        if total > best.0 {
            best = (total, candidate);
        }
        seen.extend(in_order);
    }
    Ok(best.1)
}

impl Planned {
    /// What will be done.
    pub fn report(&self) -> &PlanReport {
        &self.report
    }

    /// The job it was planned for.
    pub fn job(&self) -> &Job {
        &self.job
    }
}

fn refuse_clashes(reports: &[VariantReport]) -> Result<()> {
    let mut owners: BTreeMap<&str, &str> = BTreeMap::new();
    for r in reports {
        for f in &r.files {
            if let Some(other) = owners.insert(&f.path, &r.name) {
                return Err(Error::usage(format!(
                    "variants {other} and {} would write the same file",
                    r.name
                ))
                .file(&f.path)
                .hint("give one of them another file name"));
            }
        }
    }
    Ok(())
}

fn variant_report(
    job: &Job,
    v: &Variant,
    (target, parameters): (String, u64),
    planned: &PlannedVariant,
) -> Result<VariantReport> {
    let model = planned.checked.model();
    let tensors = tensor_reports(model)?;
    let mut types = BTreeMap::new();
    for t in &tensors {
        *types.entry(t.target_type.clone()).or_default() += 1;
    }
    let path = |name: &str| job.folder.join(name).display().to_string();
    Ok(VariantReport {
        name: v.name.clone(),
        search: match &v.target {
            Target::Recipe(name) => Some(v.search.name_for(name)),
            _ => None,
        },
        target,
        parameters,
        files: planned
            .layout
            .files
            .iter()
            .map(|f| FileReport { path: path(&f.name), bytes: f.len, sha256: None })
            .collect(),
        output_bytes: planned.layout.files.iter().map(|f| f.len).sum(),
        bits_per_weight: if parameters == 0 { 0.0 } else { model.bytes()? as f64 * 8.0 / parameters as f64 },
        types,
        tensors,
        error: None,
        broken: Vec::new(),
    })
}

/// The planned tensors, not yet measured.
fn tensor_reports(model: &Model) -> Result<Vec<TensorReport>> {
    let row = |t: &Tensor| {
        let role = t.role.clone().or_else(|| tensormill_model::Role::from_gguf_name(t.name()));
        Ok(TensorReport {
            name: t.name().to_owned(),
            role: role.as_ref().map_or_else(String::new, |r| r.kind.label()),
            layer: role.and_then(|r| r.layer),
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
        Expr::Rows { input, .. } | Expr::Reshape { input, .. } | Expr::Transpose { input } => {
            source_encoding(input)
        }
        Expr::Concat { inputs, .. } | Expr::Apply { inputs, .. } => inputs.iter().find_map(source_encoding),
    }
}

/// Existing files, as the job says.
fn existing(job: &Job) -> Existing {
    if job.force { Existing::Replace } else { Existing::Refuse }
}
