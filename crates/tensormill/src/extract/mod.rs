//! The change from one checkpoint to another as a LoRA adapter that PEFT loads.
//!
//! Weights of linear layers, convolutions and, when asked for, embeddings become two factors (`lowrank`); what has no low
//! rank is kept whole, as PEFT's `modules_to_save` and biases. The factors are measured as they are stored, against
//! the change itself. Formulas and names: PEFT 0.21, `tuners/lora`. Peers: mergekit-extract-lora, LoRD.
//!
//! - `pairs`: which tensors belong together, and as what a change is held.
//! - `change`: the difference of two tensors, row by row.
//! - `run`: decomposing, inside the budget.
//! - `adapter`: `adapter_config.json`, and what the tensors are called.
//! - `write`: the files.

mod adapter;
mod change;
mod pairs;
mod run;
mod write;

use crate::{
    Source,
    location::{Access, Location, Opening},
    memory,
};
use change::Context;
use pairs::{How, Pair, Pairs, abridged};
use run::{Job, Outcome};
use serde::Serialize;
use std::{
    collections::BTreeSet,
    path::Path,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Instant,
};
use tensormill_engine::{Event, Progress, peak_rss};
use tensormill_model::{Error, Result};
use tensormill_store::{Existing, OutputSet, Parts, ensure_folder, refuse_existing};
use tensormill_tensor::{DType, Encoding};

/// What to extract, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// Most columns of the factors.
    pub rank: usize,
    /// Share of a change's energy after which further columns are left out.
    pub energy: Option<f64>,
    /// Modules to look at, as a regular expression; all where there is none.
    pub modules: Option<String>,
    /// Modules not to look at.
    pub exclude: Option<String>,
    /// Modules to keep whole.
    pub save_modules: Option<String>,
    /// Factors for embeddings, too, instead of keeping them whole.
    pub embed_lora: bool,
    /// Go on where an adapter cannot hold everything that changed.
    pub allow_loss: bool,
    /// Type of the factors; where there is none, the tuned tensor's.
    pub dtype: Option<DType>,
    /// What `base_model_name_or_path` says instead of the base's path.
    pub base_name: Option<String>,
    /// Steps of orthogonal iteration.
    pub iterations: usize,
    /// Of the random test matrix.
    pub seed: u64,
    /// Threads.
    pub threads: usize,
    /// Bound on resident memory, plus [`memory::OVERHEAD`].
    pub memory: u64,
    /// Replace files that are there.
    pub force: bool,
    /// How the Hub is reached.
    pub access: Access,
}

impl Options {
    /// The defaults, for this rank.
    pub fn new(rank: usize) -> Self {
        let numerics = tensormill_lowrank::Options::new(rank);
        Self {
            rank,
            energy: None,
            modules: None,
            exclude: None,
            save_modules: None,
            embed_lora: false,
            allow_loss: false,
            dtype: None,
            base_name: None,
            iterations: numerics.iterations,
            seed: numerics.seed,
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            memory: 1 << 30,
            force: false,
            access: Access::default(),
        }
    }

    fn check(&self) -> Result<()> {
        if self.rank == 0 || self.threads == 0 {
            return Err(Error::usage("rank and threads are at least 1"));
        }
        if self.energy.is_some_and(|e| !(e > 0.0 && e <= 1.0)) {
            return Err(Error::usage("the share of energy to keep is above 0 and at most 1"));
        }
        if !matches!(self.dtype, None | Some(DType::F32 | DType::F16 | DType::BF16)) {
            return Err(Error::usage("adapters are f32, f16 or bf16"));
        }
        Ok(())
    }
}

/// One tensor that changed.
#[derive(Clone, Debug, Serialize)]
pub struct TensorChange {
    /// Name, as the model's class has it.
    pub name: String,
    /// Dimensions, outermost first.
    pub shape: Vec<u64>,
    /// As what it is held: `lora`, `embedding`, `convolution`, `bias`, `whole`, or `left out`.
    pub held: &'static str,
    /// Type in the adapter.
    pub dtype: String,
    /// Columns of its factors.
    pub rank: Option<usize>,
    /// Frobenius norm of the change; unknown where the shape changed.
    pub change: Option<f64>,
    /// Frobenius norm of what the adapter leaves of the change, relative to it.
    pub relative_error: f64,
    /// Share of the change's squared norm that the adapter holds.
    pub energy_kept: f64,
    /// Numbers in the adapter.
    pub parameters: u64,
    /// The singular values of the change that were kept.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub singular_values: Vec<f64>,
}

/// What was extracted.
#[derive(Clone, Debug, Serialize)]
pub struct Extraction {
    /// The base's path.
    pub base: String,
    /// The tuned model's path.
    pub tuned: String,
    /// The adapter's files.
    pub files: Vec<String>,
    /// Most columns that factors have.
    pub rank: usize,
    /// Tensors that changed, in the tuned model's order.
    pub tensors: Vec<TensorChange>,
    /// Tensors that did not change.
    pub unchanged: usize,
    /// Frobenius norm of all changes that are known.
    pub change: f64,
    /// Frobenius norm of what the adapter leaves of them, relative to it.
    pub relative_error: f64,
    /// Share of their squared norm that the adapter holds.
    pub energy_kept: f64,
    /// Numbers in the adapter.
    pub parameters: u64,
    /// Bytes of the adapter's weights.
    pub bytes: u64,
    /// What a user may want to know.
    pub notes: Vec<String>,
    /// How long it took.
    pub wall_seconds: f64,
    /// Bytes that were read of both checkpoints.
    pub read_bytes: u64,
    /// The most memory that was resident.
    pub peak_rss_bytes: Option<u64>,
}

/// Extracts the change from `base` to `tuned` into the folder `output`, which appears with its files only when all is
/// known.
///
/// # Errors
/// As opening either of the two; names or shapes that differ, changes that an adapter cannot hold, files that are in
/// the way, too little memory.
pub fn extract(
    base: impl Into<Location>,
    tuned: impl Into<Location>,
    output: &Path,
    options: &Options,
    progress: &dyn Progress,
    cancel: &AtomicBool,
) -> Result<Extraction> {
    let start = Instant::now();
    options.check()?;
    let existing = if options.force { Existing::Replace } else { Existing::Refuse };
    for name in write::FILES {
        refuse_existing(&output.join(name), existing)?;
    }
    let how = Opening { access: options.access.clone(), ..Opening::default() };
    let (sb, st) = (Source::open_at(&base.into(), &how)?, Source::open_at(&tuned.into(), &how)?);
    for source in [&sb, &st] {
        if source.is_gguf() {
            return Err(Error::unsupported("adapters are extracted from checkpoints, not from GGUF files")
                .file(&source.location)
                .hint("restore one first: tensormill convert MODEL.gguf -o FOLDER --to safetensors"));
        }
    }
    for source in [&sb, &st] {
        if let Some(kind) = crate::quantized::kind(source)? {
            return Err(Error::unsupported(format!("the weights are quantized ({kind})"))
                .file(&source.location)
                .hint(
                    "decode them first: tensormill convert MODEL -o FOLDER --to safetensors --dtype bf16",
                ));
        }
    }
    let found = pairs::pair(&sb, &st, options)?;
    options.access.fetch(progress, cancel)?;
    let read = AtomicU64::new(0);
    let context = Context { base: &*sb.readers[0], tuned: &*st.readers[0], progress, cancel, read: &read };
    let budget = memory::for_tiles(options.memory)?;

    let mut at = 0;
    let jobs: Vec<Job<'_>> = found
        .list
        .iter()
        .map(|pair| {
            let dtype = options.dtype.unwrap_or(own_type(&st, pair));
            let job = Job { pair, at, dtype };
            at += if pair.how.is_low_rank() {
                most_factors(&st, pair, options.rank) * dtype.bits() / 8
            } else {
                0
            };
            job
        })
        .collect();
    progress.event(Event::Started {
        source_bytes: found
            .list
            .iter()
            .map(|p| run::bytes_of(p, context, options))
            .fold(0, u64::saturating_add),
        output_bytes: at,
        tensors: jobs.iter().filter(|j| j.pair.base.is_some()).count(),
    });
    ensure_folder(output, true)?;
    let spool = OutputSet::open(
        output,
        &[("adapter_model.factors".to_owned(), at)],
        Existing::Replace,
        Parts::Fresh,
    )?;
    // What cannot be held is looked at first: hours of work come after.
    let (refused, others): (Vec<usize>, Vec<usize>) =
        (0..jobs.len()).partition(|i| matches!(jobs[*i].pair.how, How::Refused(_)));
    let mut outcomes = vec![Outcome::default(); jobs.len()];
    for numbers in [refused, others] {
        let some: Vec<Job<'_>> = numbers.iter().map(|i| jobs[*i]).collect();
        let done = run::run(&some, context, options, budget, &spool)?;
        for (i, outcome) in numbers.into_iter().zip(done) {
            outcomes[i] = outcome;
        }
        refuse(&jobs, &outcomes, options)?;
    }

    let saved = adapter::saved_modules(&found, &outcomes);
    let held: Vec<bool> = found.list.iter().zip(&outcomes).map(|(p, o)| is_held(p, o, &saved)).collect();
    if !held.contains(&true) {
        return Err(Error::mismatch("nothing changed from the base to the tuned model: there is no adapter")
            .file(&st.location));
    }
    if outcomes.iter().all(|o| o.rank == 0) {
        return Err(Error::unsupported(
            "only what is kept whole changed, and PEFT loads no adapter without factors",
        )
        .file(&st.location)
        .hint("publish the changed tensors as they are, or look at more modules"));
    }
    let mut report = describe(&found, &jobs, &outcomes, &held, &st);
    (report.base, report.tuned) = (sb.location.to_string(), st.location.to_string());
    let base_name = options.base_name.clone().unwrap_or_else(|| sb.location.known_as());
    let config = adapter::config(&found, &outcomes, &saved, &base_name, options);
    progress.event(Event::Phase { name: "writing", bytes: 0 });
    let input = write::Input { jobs: &jobs, outcomes: &outcomes, held: &held, tuned: &st, spool: &spool };
    let card = adapter::card(&base_name, &report);
    (report.files, report.bytes) = write::write(output, &input, &config, &card, existing, cancel)?;
    report.wall_seconds = start.elapsed().as_secs_f64();
    report.read_bytes = read.load(Ordering::Relaxed);
    report.peak_rss_bytes = peak_rss();
    Ok(report)
}

/// The type that a change's factors get when nobody says: the tuned weight's. Its own rounding errors are relative to
/// the weight and so larger than those of factors, which are relative to the change.
fn own_type(tuned: &Source, pair: &Pair) -> DType {
    match tuned.readers[0].index().tensors[pair.tuned].encoding {
        Encoding::Plain(d @ (DType::F16 | DType::BF16)) => d,
        _ => DType::F32,
    }
}

/// Numbers in the factors of a pair, at most.
fn most_factors(tuned: &Source, pair: &Pair, rank: usize) -> u64 {
    let shape = &tuned.readers[0].index().tensors[pair.tuned].shape;
    let rows = shape.dims().first().copied().unwrap_or(1);
    let columns = shape.elements().checked_div(rows).unwrap_or(0);
    (rank as u64).min(rows).min(columns).saturating_mul(rows.saturating_add(columns))
}

/// Refuses changes that an adapter has no place for, by name.
fn refuse(jobs: &[Job<'_>], outcomes: &[Outcome], options: &Options) -> Result<()> {
    let mut names = Vec::new();
    for (Job { pair, .. }, outcome) in jobs.iter().zip(outcomes) {
        if let How::Refused(why) = pair.how
            && (outcome.energy > 0.0 || pair.base.is_none())
        {
            names.push(format!("{} ({why})", pair.name));
        }
    }
    if names.is_empty() || options.allow_loss {
        return Ok(());
    }
    Err(Error::unsupported(format!(
        "an adapter cannot hold the change of {} tensors: {}",
        names.len(),
        abridged(&names)
    ))
    .hint("choose other modules with --modules or --exclude, or leave these changes out with --allow-loss"))
}

/// Whether something of a pair is in the adapter.
fn is_held(pair: &Pair, outcome: &Outcome, saved: &BTreeSet<String>) -> bool {
    match pair.how {
        How::Whole => saved.contains(&pair.module),
        How::Bias => outcome.energy > 0.0,
        How::Refused(_) => false,
        _ => outcome.rank > 0,
    }
}

fn describe(
    found: &Pairs,
    jobs: &[Job<'_>],
    outcomes: &[Outcome],
    held: &[bool],
    tuned: &Source,
) -> Extraction {
    let (mut energy, mut lost, mut parameters) = (0.0, 0.0, 0u64);
    let mut tensors = Vec::new();
    let mut notes = found.notes.clone();
    for ((job, outcome), held) in jobs.iter().zip(outcomes).zip(held) {
        let pair = job.pair;
        if !held && outcome.energy == 0.0 {
            continue;
        }
        let spec = &tuned.readers[0].index().tensors[pair.tuned];
        let dims = spec.shape.dims();
        let rank = pair.how.is_low_rank().then_some(outcome.rank);
        let gone = if *held { outcome.lost } else { outcome.energy };
        energy += outcome.energy;
        lost += gone;
        let share = if outcome.energy > 0.0 { gone / outcome.energy } else { 0.0 };
        let count = match (held, rank) {
            (false, _) => 0,
            (true, None) => spec.shape.elements(),
            (true, Some(rank)) => rank as u64 * (dims[0] + spec.shape.elements() / dims[0].max(1)),
        };
        // A tied output is there under its own name as well.
        let count = count * (1 + u64::from(pair.is_output));
        parameters += count;
        tensors.push(TensorChange {
            name: pair.name.clone(),
            shape: dims.to_vec(),
            held: match pair.how {
                _ if !held => "left out",
                How::Linear(_) => "lora",
                How::Convolution => "convolution",
                How::Embedding => "embedding",
                How::Bias => "bias",
                How::Whole | How::Refused(_) => "whole",
            },
            dtype: if rank.is_some() { job.dtype.to_string() } else { spec.encoding.to_string() },
            rank,
            change: pair.base.map(|_| outcome.energy.sqrt()),
            relative_error: share.sqrt(),
            energy_kept: 1.0 - share,
            parameters: count,
            singular_values: outcome.singular.clone(),
        });
    }
    let left_out: Vec<String> =
        tensors.iter().filter(|t| t.held == "left out").map(|t| t.name.clone()).collect();
    if !left_out.is_empty() {
        notes.push(format!("{} changes are left out: {}", left_out.len(), abridged(&left_out)));
    }
    let share = if energy > 0.0 { lost / energy } else { 0.0 };
    Extraction {
        base: String::new(),
        tuned: String::new(),
        files: Vec::new(),
        rank: outcomes.iter().map(|o| o.rank).max().unwrap_or(0),
        unchanged: jobs.len() - tensors.len(),
        tensors,
        change: f64::sqrt(energy),
        relative_error: share.sqrt(),
        energy_kept: 1.0 - share,
        parameters,
        bytes: 0,
        notes,
        wall_seconds: 0.0,
        read_bytes: 0,
        peak_rss_bytes: None,
    }
}
