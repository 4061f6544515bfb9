//! `tensormill extract`: the change from one checkpoint to another as a LoRA adapter.

use crate::{
    args::{Dtype, Progress, location},
    dims,
    hub::{self, HubArgs},
    print_json, print_line, print_table,
    progress::Display,
    run::cancel_flag,
    table,
};
use clap::Args;
use std::{path::PathBuf, process::ExitCode};
use tensormill_core::{
    DType, Event, Location, Progress as _, Result,
    extract::{Extraction, Options, extract},
    size::{self, human},
};

/// At the end of the help.
pub const EXAMPLES: &str = "\
Examples:
  tensormill extract ./Llama-3.2-1B ./my-tuned-1B -o ./adapter --rank 32
  tensormill extract ./base ./tuned -o ./adapter --rank 128 --energy 0.95
  tensormill extract ./base ./tuned -o ./adapter --modules 'self_attn|mlp' --memory 512MiB
  tensormill extract ./base ./tuned -o ./adapter --embed-lora --dtype f32 --json > report.json

Linear layers and convolutions become two factors, of rank --rank or less. Embeddings, norms and what else changed is
kept whole (modules_to_save). The error of every tensor is measured on the factors as they are stored.";

/// `extract`
#[derive(Args, Debug)]
pub struct ExtractArgs {
    /// The checkpoint that was tuned: folder or file, safetensors or PyTorch
    #[arg(value_parser = location())]
    pub base: Location,
    /// What it was tuned to
    #[arg(value_parser = location())]
    pub tuned: Location,
    /// Folder to write: adapter_model.safetensors, adapter_config.json, README.md
    #[arg(short, long, value_name = "DIR")]
    pub output: PathBuf,
    /// Rank of the factors; where --energy is given, the largest
    #[arg(short, long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=65536))]
    pub rank: u32,
    /// Share of each change's energy (squared Frobenius norm) that is enough: tensors get the smallest rank that holds it
    #[arg(long, value_name = "SHARE")]
    pub energy: Option<f64>,
    /// Only modules whose name matches
    #[arg(long, value_name = "REGEX")]
    pub modules: Option<String>,
    /// Not the modules whose name matches
    #[arg(long, value_name = "REGEX")]
    pub exclude: Option<String>,
    /// Keep modules whose name matches whole, instead of as factors
    #[arg(long, value_name = "REGEX")]
    pub save_modules: Option<String>,
    /// Factors for embeddings, too, instead of keeping them whole
    #[arg(long)]
    pub embed_lora: bool,
    /// Go on without what an adapter cannot hold, and without tensors that only one of the two has
    #[arg(long)]
    pub allow_loss: bool,
    /// Type of the factors; the default is the tuned weight's
    #[arg(long, value_enum, value_name = "DTYPE")]
    pub dtype: Option<Dtype>,
    /// What the adapter calls its base, e.g. a repository's name; the default is BASE
    #[arg(long, value_name = "NAME")]
    pub base_name: Option<String>,
    /// Steps towards the best that the rank can do; each goes through both checkpoints
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=32))]
    pub iterations: u8,
    /// Of the random matrix that the decomposition begins with
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// Bound on resident memory (plus a fixed 64 MiB)
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = size::parse, env = "TENSORMILL_MEMORY")]
    pub memory: u64,
    /// Threads that compute; the default is one per core
    #[arg(short = 'j', long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    /// How the Hub is reached
    #[command(flatten)]
    pub hub: HubArgs,
    /// How to show it
    #[command(flatten)]
    pub common: Common,
}

/// What is told about the run.
#[derive(Args, Debug)]
pub struct Common {
    /// Overwrite existing output files
    #[arg(short, long)]
    pub force: bool,
    /// How to show progress, on standard error
    #[arg(long, value_enum, value_name = "HOW", default_value_t)]
    pub progress: Progress,
    /// Print one JSON report on standard output
    #[arg(long)]
    pub json: bool,
}

/// Extracts, and prints the error of each tensor.
pub fn run(args: &ExtractArgs) -> Result<ExitCode> {
    let defaults = Options::new(args.rank as usize);
    let options = Options {
        energy: args.energy,
        modules: args.modules.clone(),
        exclude: args.exclude.clone(),
        save_modules: args.save_modules.clone(),
        embed_lora: args.embed_lora,
        allow_loss: args.allow_loss,
        dtype: args.dtype.map(|d| match d {
            Dtype::F32 => DType::F32,
            Dtype::F16 => DType::F16,
            Dtype::Bf16 => DType::BF16,
        }),
        base_name: args.base_name.clone(),
        iterations: args.iterations.into(),
        seed: args.seed,
        threads: args.threads.map_or(defaults.threads, usize::from),
        memory: args.memory,
        force: args.common.force,
        access: args.hub.access(),
        ..defaults
    };
    let cancel = cancel_flag();
    let display = Display::new(args.common.progress, args.common.json, args.memory, &cancel);
    let report = extract(&args.base, &args.tuned, &args.output, &options, &display, &cancel);
    hub::tell_watched(&options.access, &display, report.is_ok());
    for text in report.iter().flat_map(|r| &r.notes) {
        display.event(Event::Note { text });
    }
    display.finish(report.is_ok());
    let report = report?;
    if args.common.json {
        print_json(&report);
    } else {
        print_report(&report);
    }
    Ok(ExitCode::SUCCESS)
}

fn print_report(r: &Extraction) {
    let mut t = table(&["tensor", "shape", "held as", "rank", "change", "error", "energy kept"]);
    for x in &r.tensors {
        t.add_row([
            x.name.clone(),
            dims(&x.shape),
            format!("{} {}", x.held, x.dtype),
            x.rank.map_or_else(String::new, |r| r.to_string()),
            x.change.map_or_else(|| "new shape".to_owned(), |c| format!("{c:.3e}")),
            format!("{:.3e}", x.relative_error),
            format!("{:.2} %", 100.0 * x.energy_kept),
        ]);
    }
    print_table(&t);
    print_line(&format!(
        "\n{} tensors changed, {} did not; change {:.3e}, relative error {:.3e}, {:.2} % of the energy kept",
        r.tensors.len(),
        r.unchanged,
        r.change,
        r.relative_error,
        100.0 * r.energy_kept
    ));
    print_line(&format!(
        "done: {} numbers ({}) in {}, {:.2} s, {} read, peak memory {}",
        r.parameters,
        human(r.bytes),
        r.files.first().map_or("", String::as_str),
        r.wall_seconds,
        human(r.read_bytes),
        r.peak_rss_bytes.map_or_else(|| "unknown".to_owned(), human)
    ));
}
