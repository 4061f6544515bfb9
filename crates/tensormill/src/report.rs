//! What a plan and a run say about themselves: plain data, serializable, printed by nobody here.

use crate::{gate::Broken, location::RepositoryReport};
use serde::Serialize;
use std::collections::BTreeMap;
use tensormill_tensor::ErrorStats;

/// Measured error of written values against source values.
///
/// `null` in JSON stands for a value that is not finite, such as the SQNR of an exact copy.
#[derive(Clone, Debug, Serialize, PartialEq)]
pub struct ErrorReport {
    /// Largest absolute difference.
    pub max_abs: f64,
    /// Root of the mean squared error.
    pub rmse: f64,
    /// Signal to noise ratio in dB; infinite when exact.
    pub sqnr_db: f64,
    /// Cosine similarity.
    pub cosine: f64,
    /// Pairs in which one side is not finite.
    pub non_finite: u64,
    /// Values whose bits differ.
    pub different: u64,
    /// Values compared.
    pub values: u64,
}

impl From<&ErrorStats> for ErrorReport {
    fn from(s: &ErrorStats) -> Self {
        Self {
            max_abs: s.max_abs,
            rmse: s.rmse(),
            sqnr_db: s.sqnr_db(),
            cosine: s.cosine(),
            non_finite: s.non_finite,
            different: s.different,
            values: s.count,
        }
    }
}

/// One tensor of a plan or a report.
#[derive(Clone, Debug, Serialize)]
pub struct TensorReport {
    /// Name in the output.
    pub name: String,
    /// What it is for, as a GGUF name without layer: `attn_v`. Empty when no role is known.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub role: String,
    /// Its layer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layer: Option<u32>,
    /// Dimensions, outermost first.
    pub shape: Vec<u64>,
    /// Type it is read from.
    pub source_type: String,
    /// Type it is written as.
    #[serde(rename = "type")]
    pub target_type: String,
    /// Bytes in the output.
    pub bytes: u64,
    /// Measured error; absent in plans and for exact copies of quantized data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorReport>,
}

/// One output file.
#[derive(Clone, Debug, Serialize)]
pub struct FileReport {
    /// Path as it will be, or is, written.
    pub path: String,
    /// Bytes.
    pub bytes: u64,
    /// SHA-256 in hexadecimal, once it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

/// Something that was checked before any weight is read.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// What was checked.
    pub name: &'static str,
    /// Whether it is as it should be.
    pub ok: bool,
    /// What was found.
    pub detail: String,
}

/// The device that encodes, as far as a plan knows it.
#[derive(Clone, Debug, Serialize)]
pub struct PlannedDevice {
    /// What `--device` calls it.
    pub device: String,
    /// Its name.
    pub name: String,
    /// Compute capability.
    pub compute_capability: String,
    /// Memory of the machine for what is on its way to it and back; part of `--memory`.
    pub staging_bytes: u64,
}

/// What a device did.
#[derive(Clone, Debug, Serialize)]
pub struct DeviceReport {
    /// What `--device` calls it.
    pub device: String,
    /// Its name.
    pub name: String,
    /// Bytes of blocks that it made.
    pub encoded_bytes: u64,
    /// Bytes of blocks that it was asked for and that the processor made.
    pub processor_bytes: u64,
    /// Bytes of its memory that were taken.
    pub memory_bytes: u64,
    /// Why the processor went on in its place, if it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

/// What a run reads and takes, whatever it makes.
#[derive(Clone, Debug, Serialize)]
pub struct JobReport {
    /// The source as given.
    pub source: String,
    /// Revision of the source, where the user gave one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// What was read of the Hub.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub repositories: Vec<RepositoryReport>,
    /// What the source is.
    pub source_format: String,
    /// Bytes of tensor data in the source.
    pub source_bytes: u64,
    /// Adapters that are merged into it, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub adapters: Vec<AdapterReport>,
    /// Architecture under its GGUF name.
    pub architecture: String,
    /// `--memory`.
    pub memory_limit: u64,
    /// Bytes of tile buffers that the run will hold at most.
    pub memory_planned: u64,
    /// Threads that compute.
    pub threads: usize,
    /// What encodes beside the processor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<PlannedDevice>,
    /// Bytes that will be read from the source's tensors.
    pub read_bytes_planned: u64,
    /// Bytes that all outputs will take on the disk.
    pub written_bytes_planned: u64,
    /// Bytes that are free where they go, where the system tells.
    pub disk_free: Option<u64>,
    /// What was checked.
    pub checks: Vec<Check>,
    /// Source tensors that have no place in the outputs.
    pub unmapped: Vec<String>,
    /// What the source has and the outputs cannot hold: asks for consent.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub lost: Vec<String>,
    /// Remarks that a user should see.
    pub notes: Vec<String>,
}

/// An adapter of a run.
#[derive(Clone, Debug, Serialize)]
pub struct AdapterReport {
    /// As given.
    pub path: String,
    /// What its change was multiplied by.
    pub scale: f64,
}

/// One variant; everything but errors and hashes is known before a weight is read.
#[derive(Clone, Debug, Serialize)]
pub struct VariantReport {
    /// What it is called.
    pub name: String,
    /// Recipe or dtype.
    pub target: String,
    /// How encoders looked for scales and levels; only with a recipe.
    pub search: Option<&'static str>,
    /// Weights in the output.
    pub parameters: u64,
    /// Output files.
    pub files: Vec<FileReport>,
    /// Bytes of all output files.
    pub output_bytes: u64,
    /// Bits per weight over all tensors.
    pub bits_per_weight: f64,
    /// Number of tensors per type.
    pub types: BTreeMap<String, usize>,
    /// Tensors in output order.
    pub tensors: Vec<TensorReport>,
    /// Error over all measured tensors.
    pub error: Option<ErrorReport>,
    /// Bounds on its error that it breaks.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub broken: Vec<Broken>,
}

/// What will be done.
#[derive(Clone, Debug, Serialize)]
pub struct PlanReport {
    /// What is read, and what it takes.
    #[serde(flatten)]
    pub job: JobReport,
    /// What is made.
    pub variants: Vec<VariantReport>,
}

/// How a run went.
#[derive(Clone, Debug, Serialize)]
pub struct RunReport {
    /// Seconds from the start of reading weights to the last rename.
    pub wall_seconds: f64,
    /// Bytes read from the source's tensors.
    pub read_bytes: u64,
    /// Bytes of tensors written.
    pub written_bytes: u64,
    /// Bytes of tensors that an earlier run had written.
    pub resumed_bytes: u64,
    /// Highest resident memory of the process so far, where the system tells.
    pub peak_rss_bytes: Option<u64>,
    /// Highest total of tile buffers held at once.
    pub peak_tile_bytes: u64,
    /// Seconds of all workers, by what they did.
    pub stages: BTreeMap<&'static str, f64>,
    /// Whether outputs were read back and compared.
    pub verified: bool,
    /// What a device did, where one was to be used.
    #[serde(skip_serializing_if = "Option::is_none", rename = "device_run")]
    pub device: Option<DeviceReport>,
    /// Which part of the work this was, as `i/n` counted from one; outputs appear when all parts are finished.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub part: Option<String>,
    /// Resident bytes and tile bytes over time.
    #[serde(skip)]
    pub memory: Vec<MemorySample>,
}

/// Memory at a moment of a run.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct MemorySample {
    /// Since its start.
    pub seconds: f64,
    /// Resident bytes of the process.
    pub resident: u64,
}

/// What was done.
#[derive(Clone, Debug, Serialize)]
pub struct DoneReport {
    /// The plan that was carried out, with what was measured.
    #[serde(flatten)]
    pub plan: PlanReport,
    /// How it went.
    #[serde(flatten)]
    pub run: RunReport,
}

/// The plan of one conversion: [`PlanReport`] for a single variant, flat.
#[derive(Clone, Debug, Serialize)]
pub struct ConvertPlan {
    /// What is read, and what it takes.
    #[serde(flatten)]
    pub job: JobReport,
    /// What is made.
    #[serde(flatten)]
    pub variant: VariantReport,
}

/// One conversion that was done, flat.
#[derive(Clone, Debug, Serialize)]
pub struct ConvertReport {
    /// The plan that was carried out, with what was measured.
    #[serde(flatten)]
    pub plan: ConvertPlan,
    /// How it went.
    #[serde(flatten)]
    pub run: RunReport,
}
