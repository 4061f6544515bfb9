//! What the command line accepts.

use crate::hub::HubArgs;
use clap::{
    Args, Parser, Subcommand, ValueEnum,
    builder::{OsStringValueParser, TypedValueParser},
};
use std::path::PathBuf;
use tensormill_core::{
    DType, Location, adapters, device,
    job::{Leftovers, Part},
    search, size,
};

/// Turns one trained model into the files people can run.
#[derive(Parser, Debug)]
#[command(name = "tensormill", version, propagate_version = true, after_help = EXIT_CODES)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const EXIT_CODES: &str = "\
Exit codes: 0 done; 2 usage; 3 bad or hostile input; 4 unsupported; 5 a comparison, limit or verification failed;
6 I/O; 7 a scan found something at or above --fail-on; 75 worth repeating as it is (another process is at work,
parts are missing, a disk did not answer); 130 stopped on request.";

/// Subcommands.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Convert a model to GGUF (quantized or not) or safetensors, in one streaming pass
    #[command(after_help = CONVERT_EXAMPLES)]
    Convert(Box<ConvertArgs>),
    /// Write an adapter in another scheme, or several as one: PEFT's folder, a GGUF adapter, kohya's file
    #[command(after_help = crate::adapter::EXAMPLES)]
    Adapter(Box<crate::adapter::AdapterArgs>),
    /// Merge models as a recipe says (its own TOML, or mergekit's YAML), in one streaming pass
    #[command(after_help = MERGE_EXAMPLES, mut_arg("source", |a| a.value_name("RECIPE").help(MERGE_SOURCE).long_help(None::<&str>)))]
    Merge(Box<MergeArgs>),
    /// Make every variant that a release file lists, from one read of the source
    #[command(after_help = RELEASE_EXAMPLES)]
    Release(Box<ReleaseArgs>),
    /// Publish a release whose parts were made with --shard, once all of them are complete
    #[command(after_help = FINISH_EXAMPLES)]
    Finish(FinishArgs),
    /// Run a release on many machines: write, or submit, what a batch engine needs
    #[command(after_help = crate::submit::EXAMPLES)]
    Submit(crate::submit::SubmitArgs),
    /// Show a model's format, metadata and tensors; no weights are read
    #[command(after_help = "Example:\n  tensormill inspect model.Q4_K_M.gguf")]
    Inspect(InspectArgs),
    /// Compare two models tensor by tensor, across formats and encodings, or by what graphs compute
    #[command(after_help = COMPARE_EXAMPLES)]
    Compare(CompareArgs),
    /// Extract the change from one checkpoint to another as a LoRA adapter that PEFT loads
    #[command(after_help = crate::extract::EXAMPLES)]
    Extract(Box<crate::extract::ExtractArgs>),
    /// Write a model card from what was measured and what the source says, or check one, anybody's
    #[command(after_help = crate::card::EXAMPLES)]
    Card(Box<crate::card::CardArgs>),
    /// Audit files and folders for what loaders would execute, and for secrets; nothing is run
    #[command(after_help = SCAN_EXAMPLES)]
    Scan(ScanArgs),
    /// Fetch a model from the Hugging Face Hub into the shared cache: only the files that a job needs, verified
    #[command(after_help = crate::pull::EXAMPLES)]
    Pull(Box<crate::pull::PullArgs>),
    /// Publish a folder, or a release, on the Hub: verified, resumable, private unless asked
    #[command(after_help = crate::push::EXAMPLES)]
    Push(Box<crate::push::PushArgs>),
    /// Find models on the Hugging Face Hub
    #[command(after_help = crate::search::EXAMPLES)]
    Search(crate::search::SearchArgs),
    /// List what this version knows
    List(ListArgs),
    /// Print a completion script for a shell
    #[command(
        after_help = "Example:\n  tensormill completions bash > ~/.local/share/bash-completion/completions/tensormill"
    )]
    Completions {
        /// Shell to write for
        shell: clap_complete::Shell,
    },
}

const CONVERT_EXAMPLES: &str = "\
Examples:
  tensormill convert ./Llama-3.2-1B -o llama-3.2-1b.Q4_K_M.gguf --quant Q4_K_M
  tensormill convert ./Qwen3-8B -o qwen3.gguf --quant Q4_K_M --imatrix imatrix.gguf --memory 512MiB
  tensormill convert ./all-MiniLM-L6-v2 --to onnx -o minilm --dtype f16
  tensormill convert model.onnx -o model-f16.onnx --dtype f16 --keep-io-types
  tensormill convert ./Qwen3-8B -o qwen3.gguf --quant Q4_K_M --search best
  tensormill convert ./model -o model.gguf --dtype bf16 --max-shard-size 4GB
  tensormill convert model.Q4_K_M.gguf -o ./model --to safetensors --dtype bf16
  tensormill convert ./model -o model.safetensors --dtype f16
  tensormill convert model.BF16.gguf -o model.Q6_K.gguf --quant Q6_K --tensor-type 'attn_v=q8_0'
  tensormill convert ./Llama-3.2-1B -o tuned.gguf --quant Q4_K_M --adapter ./my-lora
  tensormill convert ./model -o model.gguf --quant Q8_0 --dry-run --json
  tensormill convert ./Qwen3-8B -o out/ --quant Q4_K_M --quant Q6_K --quant Q8_0";

const MERGE_SOURCE: &str = "Merge recipe, .toml or .yaml; its paths are relative to its folder";

const MERGE_EXAMPLES: &str = "\
Examples:
  tensormill merge ties.yaml -o ./merged                            a Hugging Face folder
  tensormill merge ties.yaml -o merged.Q4_K_M.gguf --quant Q4_K_M   straight to a quantized file
  tensormill merge dare.toml -o ./merged --seed 7 --memory 512MiB
  tensormill merge ties.yaml -o ./merged --dry-run

A recipe (YAML has the same keys; docs/merge.md has all of them):
  # linear, slerp, task_arithmetic, ties, dare_linear, dare_ties or passthrough
  merge_method = \"ties\"
  base_model = \"./base\"
  dtype = \"bfloat16\"
  models = [
    { model = \"./code\", parameters = { weight = 0.5, density = 0.4 } },
    { model = \"./chat\", parameters = { weight = [0.2, 0.8], density = 0.4 } },   # over the layers
  ]";

const RELEASE_EXAMPLES: &str = "\
Examples:
  tensormill release --init ./Llama-3.2-1B > release.toml
  tensormill release release.toml --dry-run
  tensormill release release.toml
  tensormill release release.toml --resume              after a crash, a full disk, or Ctrl-C
  tensormill release release.toml --shard 3/8           the third of eight parts; then `tensormill finish`";

const FINISH_EXAMPLES: &str = "\
Example:
  tensormill finish release.toml";

const COMPARE_EXAMPLES: &str = "\
Examples:
  tensormill compare ./model model.Q4_K_M.gguf
  tensormill compare a.gguf b.gguf --max-rmse 0
  tensormill compare model.onnx model.f16.onnx --outputs --atol 2e-3
  tensormill compare model.onnx expected.safetensors --outputs --input inputs.safetensors --rtol 1e-4 --atol 1e-5";

const SCAN_EXAMPLES: &str = "\
Examples:
  tensormill scan ./Llama-3.2-1B
  tensormill scan pytorch_model.bin model.Q4_K_M.gguf
  tensormill scan ./upload --fail-on suspicious --json > scan.json

Exit codes: 0 nothing at or above --fail-on; 7 something; 3 nothing, but a file is damaged and was not looked at
as a whole. With `--fail-on never` always 0, unless a path cannot be opened (6).";

/// `convert`
#[derive(Args, Debug)]
#[allow(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub struct ConvertArgs {
    /// Hugging Face folder, .safetensors, PyTorch, ONNX or .gguf file (any part of a split set), what training leaves (DCP,
    /// FSDP and DeepSpeed folders), or a merge recipe
    #[arg(value_name = "SRC", value_parser = location())]
    pub source: Location,
    /// File to write, its suffix says the format; with several --quant, or with --to, the folder
    #[arg(short, long, value_name = "OUT|DIR")]
    pub output: PathBuf,
    /// Format to write, where the output's name does not say it; a folder gets configuration and tokenizer, too
    #[arg(long, value_name = "FORMAT")]
    pub to: Option<String>,
    /// Part of a PyTorch checkpoint to read, e.g. `model.state_dict`
    #[arg(long, value_name = "PATH")]
    pub key: Option<String>,
    /// Keep the optimizer's state of a PyTorch checkpoint
    #[arg(long)]
    pub all: bool,
    /// Go on where the output cannot hold everything that the source has
    #[arg(long)]
    pub allow_loss: bool,
    /// Adapter to merge, with what its change is multiplied by; repeatable. A folder or file of PEFT, MLX, kohya, LyCORIS,
    /// diffusers, or a GGUF adapter
    #[arg(long, value_name = "PATH[=SCALE]")]
    pub adapter: Vec<adapters::Wanted>,
    /// Make one adapter of all first: cat, svd, linear, or ties, dare_linear, dare_ties, magnitude_prune with a density
    #[arg(long, value_name = "METHOD[:density=D,seed=N]", requires = "adapter")]
    pub combine: Option<adapters::Combination>,
    /// How merged weights are rounded
    #[arg(long, value_enum, value_name = "HOW", default_value_t, requires = "adapter")]
    pub merge_precision: MergePrecision,
    /// Go on where an adapter has tensors that belong to no tensor of the model
    #[arg(long, requires = "adapter")]
    pub allow_unused: bool,
    /// Leave tensors' names and shapes as the source has them, whatever the output's format
    #[arg(long)]
    pub keep_names: bool,
    /// Quantization recipe or scheme (see `tensormill list recipes` and `list schemes`); repeat it to make several files from one read
    #[arg(short, long, value_name = "RECIPE", conflicts_with = "dtype", value_delimiter = ',')]
    pub quant: Vec<String>,
    /// Convert without quantizing; the default keeps the source's precision
    #[arg(long, value_enum, value_name = "DTYPE")]
    pub dtype: Option<Dtype>,
    /// Importance matrix, GGUF or legacy .dat
    #[arg(long, value_name = "FILE", requires = "quant")]
    pub imatrix: Option<PathBuf>,
    /// Calibration file, for --search gptq and awq (see docs/calibration.md)
    #[arg(long, value_name = "FILE.safetensors", requires = "quant")]
    pub calibration: Option<PathBuf>,
    /// Part of the mean of a Hessian's diagonal that is added to it (--search gptq)
    #[arg(long, value_name = "X", requires = "calibration", default_value_t = 0.05, value_parser = damping)]
    pub damp_percent: f64,
    /// Quantize the columns with the largest inputs first (--search gptq)
    #[arg(long, requires = "calibration")]
    pub act_order: bool,
    /// How to look for scales and levels
    #[arg(long, value_enum, value_name = "SEARCH", default_value_t, requires = "quant")]
    pub search: Search,
    /// Type for tensors whose name matches a regular expression, with a scheme a scheme or `plain`; repeatable, the first
    /// match wins
    #[arg(long, value_name = "REGEX=TYPE", requires = "quant")]
    pub tensor_type: Vec<String>,
    /// Type for the output tensor
    #[arg(long, value_name = "TYPE", requires = "quant")]
    pub output_tensor_type: Option<String>,
    /// Type for the token embedding
    #[arg(long, value_name = "TYPE", requires = "quant")]
    pub token_embedding_type: Option<String>,
    /// Leave the output tensor as it is
    #[arg(long, requires = "quant")]
    pub leave_output_tensor: bool,
    /// Use the recipe's base type for every quantized tensor
    #[arg(long, requires = "quant")]
    pub pure: bool,
    /// Quantize tensors that are quantized already (loses quality)
    #[arg(long, requires = "quant")]
    pub allow_requantize: bool,
    /// Name of the BPE pre-tokenizer, for vocabularies that are not recognised
    #[arg(long, value_name = "NAME")]
    pub pre: Option<String>,
    /// Split the output into files of at most this much tensor data
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    pub max_shard_size: Option<u64>,
    /// Split the output into files of at most this many tensors
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_shard_tensors: Option<u32>,
    /// Leave out a metadata key; repeatable
    #[arg(long, value_name = "KEY")]
    pub remove_metadata: Vec<String>,
    /// Set a metadata key, e.g. `general.author=Jane` or `my.key=u32:7`; repeatable
    #[arg(long, value_name = "KEY=VALUE")]
    pub metadata: Vec<String>,
    /// Take the graph of this ONNX file in place of one that is built, with the source's weights
    #[arg(long, value_name = "FILE.onnx", value_parser = location())]
    pub graph: Option<Location>,
    /// Give initializers of a read ONNX graph the names of their parameters (`onnx::MatMul_123` becomes
    /// `layer.0.query.MatMul.weight`)
    #[arg(long)]
    pub rename_weights: bool,
    /// Version of ONNX's operators in a graph that is built, or to which a read one is raised (ONNX outputs)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..100))]
    pub opset: Option<i64>,
    /// Operators of a graph that is built (ONNX outputs): ONNX's own, or those of ONNX Runtime and its GenAI library, too
    #[arg(long, value_enum, value_name = "FORM", default_value_t)]
    pub onnx_form: OnnxForm,
    /// Leave float inputs and outputs of an ONNX graph f32, whatever its weights are
    #[arg(long)]
    pub keep_io_types: bool,
    /// Put an ONNX graph's weights into a file beside it, also where one file could hold them (up to 2 GiB)
    #[arg(long)]
    pub external_data: bool,
    /// Bound on resident memory (plus a fixed 64 MiB)
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = size::parse, env = "TENSORMILL_MEMORY")]
    pub memory: u64,
    /// Do not measure the error of the written tensors
    #[arg(long)]
    pub no_measure: bool,
    /// How to run
    #[command(flatten)]
    pub run: RunArgs,
}

/// Which operators graphs are made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum OnnxForm {
    /// ONNX's own
    #[default]
    Standard,
    /// ONNX Runtime's, too
    Genai,
}

/// `merge`
#[derive(Args, Debug)]
pub struct MergeArgs {
    /// Seed of DARE's random numbers, instead of the recipe's
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// What to make of the merge
    #[command(flatten)]
    pub convert: ConvertArgs,
}

/// `release`
#[derive(Args, Debug)]
pub struct ReleaseArgs {
    /// Release file
    #[arg(value_name = "RELEASE.toml", required_unless_present = "init")]
    pub file: Option<PathBuf>,
    /// Write a commented release file for a source to standard output
    // Not `exclusive`: what the environment sets would count.
    #[arg(long, value_name = "SRC", value_parser = location(), conflicts_with_all = ["file", "dry_run", "resume", "restart", "force", "verify", "json"])]
    pub init: Option<Location>,
    /// Do one part of the work, counted from one; continues by itself what an earlier try of it has done
    #[arg(long, value_name = "I/N", value_parser = part, env = "TENSORMILL_SHARD")]
    pub shard: Option<Part>,
    /// Let a shard be some of the output files instead of some of every file, for machines that share no disk: bring
    /// their folders (hidden files too) together, then `tensormill finish`
    #[arg(long, requires = "shard")]
    pub whole_files: bool,
    /// Bound on resident memory (plus a fixed 64 MiB), instead of the release file's
    #[arg(long, value_name = "SIZE", value_parser = size::parse, env = "TENSORMILL_MEMORY")]
    pub memory: Option<u64>,
    /// Do not send it to the Hub, whatever its `publish` table says
    #[arg(long)]
    pub no_push: bool,
    /// How to run
    #[command(flatten)]
    pub run: RunArgs,
}

/// `finish`
#[derive(Args, Debug)]
pub struct FinishArgs {
    /// Release file
    #[arg(value_name = "RELEASE.toml")]
    pub file: PathBuf,
    /// How the Hub is reached
    #[command(flatten)]
    pub hub: HubArgs,
    /// Do not send it to the Hub, whatever its `publish` table says
    #[arg(long)]
    pub no_push: bool,
    /// How to publish
    #[command(flatten)]
    pub common: CommonArgs,
}

/// What can be told to everything that makes files.
#[derive(Args, Debug)]
pub struct CommonArgs {
    /// Overwrite existing output files
    #[arg(short, long)]
    pub force: bool,
    /// Read outputs back and compare bytes and values before they get their names
    #[arg(long)]
    pub verify: bool,
    /// How to show progress, on standard error
    #[arg(long, value_enum, value_name = "HOW", default_value_t)]
    pub progress: Progress,
    /// Print one JSON report on standard output
    #[arg(long)]
    pub json: bool,
}

/// What every run can be told.
#[derive(Args, Debug)]
pub struct RunArgs {
    /// Threads that compute; the default is one per core
    #[arg(short = 'j', long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    /// Where to encode: auto, cpu, or cuda:N (see `tensormill list devices`); the bytes are the same
    #[arg(long, value_name = "DEVICE", env = "TENSORMILL_DEVICE")]
    pub device: Option<device::Choice>,
    /// Bound on the device's memory
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    pub device_memory: Option<u64>,
    /// Plan only: print sizes, types and memory; read no weights, write nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Continue what an unfinished run left
    #[arg(long, conflicts_with = "restart")]
    pub resume: bool,
    /// Remove what an unfinished run left, and begin again
    #[arg(long)]
    pub restart: bool,
    /// How the Hub is reached
    #[command(flatten)]
    pub hub: HubArgs,
    /// What finishing can be told, too
    #[command(flatten)]
    pub common: CommonArgs,
}

impl RunArgs {
    /// What to do about an unfinished run.
    pub fn leftovers(&self) -> Leftovers {
        match (self.resume, self.restart) {
            (_, true) => Leftovers::Restart,
            (true, false) => Leftovers::Resume,
            (false, false) => Leftovers::Refuse,
        }
    }
}

/// `--progress`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Progress {
    /// Bars on a terminal, nothing in a pipe
    #[default]
    Auto,
    /// A line every few seconds
    Plain,
    /// One JSON object per event and line
    Json,
    /// Nothing
    None,
}

/// Parses a source: a path, which need not be UTF-8, or an address.
pub fn location() -> impl TypedValueParser<Value = Location> {
    OsStringValueParser::new().try_map(Location::try_from)
}

/// Parses a part of one.
fn damping(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(x) if x > 0.0 && x < 1.0 => Ok(x),
        _ => Err("it is a part of one, such as 0.05".to_owned()),
    }
}

/// Parses `I/N`, counted from one.
fn part(text: &str) -> Result<Part, String> {
    let parsed =
        text.split_once('/').and_then(|(i, n)| Some((i.parse::<u64>().ok()?, n.parse::<u64>().ok()?)));
    match parsed {
        Some((i, n)) if (1..=n).contains(&i) => Ok(Part { index: i - 1, count: n, whole_files: false }),
        _ => Err("write the part as I/N, from 1/N to N/N".to_owned()),
    }
}

/// `--dtype`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Dtype {
    /// binary32
    F32,
    /// binary16
    F16,
    /// bfloat16
    Bf16,
}

impl Dtype {
    /// The element type.
    pub fn element(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::F16 => DType::F16,
            Self::Bf16 => DType::BF16,
        }
    }
}

/// `--search`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Search {
    /// As the format's own library: ggml's searches (the same bytes as llama-quantize), the range of a scheme's groups
    #[default]
    #[value(alias = "ggml", alias = "nearest")]
    Usual,
    /// Least (importance-weighted) squared error in the same types; never worse on any block, but slower
    Best,
    /// Least squared error among shrunken ranges (schemes)
    Mse,
    /// Half-quadratic quantization: few large errors, no data (schemes with integers)
    Hqq,
    /// Error feedback (GPTQ): later columns make up for the errors of earlier ones; needs --calibration (schemes)
    Gptq,
    /// Columns scaled by what their inputs are like (AWQ); needs --calibration or --imatrix (schemes)
    Awq,
}

impl Search {
    /// What the library calls it.
    pub fn kind(self) -> search::Search {
        match self {
            Self::Usual => search::Search::Usual,
            Self::Best => search::Search::Best,
            Self::Mse => search::Search::Mse,
            Self::Hqq => search::Search::Hqq,
            Self::Gptq => search::Search::Gptq,
            Self::Awq => search::Search::Awq,
        }
    }
}

/// `--merge-precision`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum MergePrecision {
    /// Products and sums in f32, rounded once to the weight's type
    #[default]
    Single,
    /// As PEFT on a CPU: 16-bit products are rounded first, and every adapter's sum
    Peft,
}

/// `inspect`
#[derive(Args, Debug)]
pub struct InspectArgs {
    /// Model folder or file
    #[arg(value_parser = location())]
    pub path: Location,
    /// How the Hub is reached
    #[command(flatten)]
    pub hub: HubArgs,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `compare`
#[derive(Args, Debug)]
pub struct CompareArgs {
    /// The reference
    #[arg(value_parser = location())]
    pub a: Location,
    /// What is compared with it
    #[arg(value_parser = location())]
    pub b: Location,
    /// How the Hub is reached
    #[command(flatten)]
    pub hub: HubArgs,
    /// Fail (exit 5) when any tensor's or output's root mean square error exceeds this
    #[arg(long, value_name = "X")]
    pub max_rmse: Option<f64>,
    /// Bound on resident memory (plus a fixed 64 MiB); not with --outputs
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = size::parse, env = "TENSORMILL_MEMORY")]
    pub memory: u64,
    /// Run two ONNX graphs on the same inputs and compare what they compute; instead of one of them, a .safetensors
    /// file with outputs that are known
    #[arg(long)]
    pub outputs: bool,
    #[command(flatten)]
    pub graphs: GraphArgs,
    /// How to show progress, on standard error
    #[arg(long, value_enum, value_name = "HOW", default_value_t)]
    pub progress: Progress,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// How `compare --outputs` runs graphs.
#[derive(Args, Debug)]
#[command(next_help_heading = "With --outputs")]
pub struct GraphArgs {
    /// Inputs: tensors named like the graphs' inputs
    #[arg(long, value_name = "FILE.safetensors", requires = "outputs", conflicts_with = "generate")]
    pub input: Option<PathBuf>,
    /// Inputs made from names, types and dimensions, with this seed
    #[arg(long, value_name = "SEED", requires = "outputs", default_value_t = 0)]
    pub generate: u64,
    /// Fail (exit 5) when a value differs by more than --atol + X * |reference|
    #[arg(long, value_name = "X", requires = "outputs")]
    pub rtol: Option<f64>,
    /// Fail (exit 5) when a value differs by more than X + --rtol * |reference|
    #[arg(long, value_name = "X", requires = "outputs")]
    pub atol: Option<f64>,
    /// What runs graphs
    #[arg(long, value_enum, value_name = "NAME", requires = "outputs", default_value_t)]
    pub runtime: GraphRuntime,
    /// ONNX Runtime's shared library; else what ORT_DYLIB_PATH names, or what the system's loader finds
    #[arg(long, value_name = "PATH", requires = "outputs")]
    pub onnxruntime: Option<PathBuf>,
}

/// `--runtime`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum GraphRuntime {
    /// ONNX Runtime if it can be loaded, else tract if this build has it
    #[default]
    Auto,
    /// ONNX Runtime
    Onnxruntime,
    /// The runtime written in Rust, in builds with `--features tract`
    Tract,
}

/// `scan`
#[derive(Args, Debug)]
pub struct ScanArgs {
    /// Files and folders to look at
    #[arg(value_name = "SRC", required = true, value_parser = location())]
    pub paths: Vec<Location>,
    /// How the Hub is reached
    #[command(flatten)]
    pub hub: HubArgs,
    /// Least severity that makes the exit code 7
    #[arg(long, value_enum, value_name = "SEVERITY", default_value_t)]
    pub fail_on: FailOn,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `--fail-on`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum FailOn {
    /// Whatever is found
    Info,
    /// What a scan cannot judge, or could not look at
    Suspicious,
    /// What runs code or leaves the folder when it is loaded, and secrets
    #[default]
    Dangerous,
    /// Only report
    Never,
}

/// `list`
#[derive(Args, Debug)]
pub struct ListArgs {
    /// Which list
    #[arg(value_enum)]
    pub what: Listing,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// What `list` lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Listing {
    /// Tensor encodings
    Types,
    /// Quantization recipes of GGUF files
    Recipes,
    /// Quantization schemes of safetensors and ONNX files
    Schemes,
    /// File formats
    Formats,
    /// Model architectures
    Archs,
    /// Models for which ONNX graphs can be built
    Graphs,
    /// Devices that can encode, beside the processor
    Devices,
}
