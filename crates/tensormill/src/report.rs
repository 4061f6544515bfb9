//! What a plan and a run say about themselves: plain data, serializable, printed by nobody here.

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
}

/// What will be done; everything here is known before a weight is read.
#[derive(Clone, Debug, Serialize)]
pub struct PlanReport {
    /// The source as given.
    pub source: String,
    /// What the source is.
    pub source_format: String,
    /// Bytes of tensor data in the source.
    pub source_bytes: u64,
    /// Architecture under its GGUF name.
    pub architecture: String,
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
    /// `--memory`.
    pub memory_limit: u64,
    /// Bytes of tile buffers that the run will hold at most.
    pub memory_planned: u64,
    /// Worker threads.
    pub threads: usize,
    /// Number of tensors per type.
    pub types: BTreeMap<String, usize>,
    /// Remarks that a user should see.
    pub notes: Vec<String>,
    /// Tensors in output order.
    pub tensors: Vec<TensorReport>,
}

/// What was done.
#[derive(Clone, Debug, Serialize)]
pub struct ConvertReport {
    /// The plan that was carried out, with each tensor's measured error.
    #[serde(flatten)]
    pub plan: PlanReport,
    /// Error over all measured tensors.
    pub error: Option<ErrorReport>,
    /// Seconds from the start of reading weights to the last rename.
    pub wall_seconds: f64,
    /// Bytes read from the source's tensors.
    pub read_bytes: u64,
    /// Highest resident memory of the process so far, where the system tells.
    pub peak_rss_bytes: Option<u64>,
    /// Highest total of tile buffers held at once.
    pub peak_tile_bytes: u64,
}
