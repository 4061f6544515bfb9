//! `tensormill pull`: a model from the Hub into the cache.

use crate::{args::Progress, print_json, print_line, progress::Display, run::cancel_flag};
use clap::Args;
use std::{path::PathBuf, process::ExitCode};
use tensormill_core::{
    Result,
    hub::{Address, Hub, Need, PullReport, PullRequest, Settings, Watch, pull},
    size::human,
};

pub const EXAMPLES: &str = "\
Examples:
  tensormill pull Qwen/Qwen3-0.6B                         what a conversion needs, into the cache
  tensormill pull Qwen/Qwen3-0.6B@main --dry-run          the commit, the files, their sizes
  tensormill pull hf://org/model@v1.0/subfolder
  tensormill pull org/model-GGUF --include '*Q8_0*'
  tensormill pull org/model --config-only --json
  tensormill pull org/model -o ./model --hard-links       a folder of its own
  tensormill pull org/model --offline                     is all of it in the cache?

The token is read from HF_TOKEN or from the file that `hf auth login` writes. The cache is HF_HUB_CACHE, HF_HOME/hub or
~/.cache/huggingface/hub, and is shared with every tool that uses it. docs/hub.md has all variables.";

/// `pull`
#[derive(Args, Debug)]
#[allow(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub struct PullArgs {
    /// org/model, org/model@revision, or hf://org/model@revision/folder
    #[arg(value_name = "MODEL")]
    pub address: Address,
    /// Configuration, tokenizer and card only
    #[arg(long, conflicts_with_all = ["gguf", "onnx", "all"])]
    pub config_only: bool,
    /// GGUF files, also where there are safetensors
    #[arg(long, conflicts_with_all = ["onnx", "all"])]
    pub gguf: bool,
    /// ONNX graphs, also where there are safetensors
    #[arg(long, conflicts_with = "all")]
    pub onnx: bool,
    /// Every file of the repository
    #[arg(long)]
    pub all: bool,
    /// Files by pattern, instead of what a conversion needs; may be repeated. * matches slashes, too
    #[arg(long, value_name = "GLOB")]
    pub include: Vec<String>,
    /// Files to leave out; may be repeated
    #[arg(long, value_name = "GLOB")]
    pub exclude: Vec<String>,
    /// Folder that gets copies of the files
    #[arg(short, long, value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// Links into the cache instead of copies: they need no room, and changing them changes the cache
    #[arg(long, requires = "output")]
    pub hard_links: bool,
    /// Replace files of the folder that differ
    #[arg(short, long, requires = "output")]
    pub force: bool,
    /// Use the cache (or a mirror) alone; send nothing
    #[arg(long)]
    pub offline: bool,
    /// Say which commit and files it would be; fetch nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Connections at a time
    #[arg(short = 'j', long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub jobs: Option<u16>,
    /// How to show progress, on standard error
    #[arg(long, value_enum, value_name = "HOW", default_value_t)]
    pub progress: Progress,
    /// Print one JSON report on standard output
    #[arg(long)]
    pub json: bool,
}

/// Fetches, and prints what is where.
pub fn run(args: &PullArgs) -> Result<ExitCode> {
    let mut settings = Settings::from_env()?;
    settings.offline |= args.offline;
    settings.jobs = args.jobs.map_or(settings.jobs, usize::from);
    let need = match args {
        PullArgs { config_only: true, .. } => Need::Config,
        PullArgs { gguf: true, .. } => Need::Gguf,
        PullArgs { onnx: true, .. } => Need::Onnx,
        PullArgs { all: true, .. } => Need::Everything,
        _ => Need::Weights,
    };
    let request = PullRequest {
        need,
        include: args.include.clone(),
        exclude: args.exclude.clone(),
        output: args.output.clone(),
        hard_links: args.hard_links,
        force: args.force,
        ..PullRequest::new(args.address.clone())
    };
    let cancel = cancel_flag();
    let display = Display::new(args.progress, args.json, 0, &cancel);
    let report = pull(
        &Hub::new(settings)?,
        &request,
        args.dry_run,
        &Watch { progress: &display, cancel: &cancel, alone: true },
    );
    display.finish(report.is_ok());
    let report = report?;
    if args.json {
        print_json(&report);
    } else {
        print(&report, args.dry_run);
    }
    Ok(ExitCode::SUCCESS)
}

fn print(r: &PullReport, dry_run: bool) {
    match &r.commit {
        Some(commit) if *commit != r.revision => {
            print_line(&format!("{}@{} is commit {commit}", r.repo, r.revision));
        }
        Some(commit) => print_line(&format!("{}@{commit}", r.repo)),
        None => print_line(&format!("{}: this mirror does not say which commit it is", r.repo)),
    }
    if dry_run {
        for file in &r.files {
            print_line(&format!("  {:>10}  {}", human(file.bytes), file.path));
        }
    }
    let s = if r.files.len() == 1 { "" } else { "s" };
    let sum = format!("{} file{s}, {}", r.files.len(), human(r.bytes));
    match (r.fetched_files, r.received_bytes, &r.folder) {
        (Some(fetched), Some(received), Some(folder)) => {
            print_line(&format!("{sum}; {fetched} fetched, {} received", human(received)));
            print_line(&folder.display().to_string());
        }
        _ => print_line(&format!("{sum}; nothing was fetched")),
    }
}
