//! What a report is made of: plain data that whoever ran a release fills in.
//!
//! Knows nothing of formats, block types or roles: those arrive as text and are treated as hostile.

use serde::Serialize;

/// Error of written values against source values.
///
/// The terms and formulas are those of the error statistics that fill it: `sqnr_db` is
/// `10 log10(sum of squared source values / sum of squared differences)`.
#[derive(Clone, Debug, Serialize, PartialEq)]
pub struct Error {
    /// Largest absolute difference.
    pub max_abs: f64,
    /// Root of the mean squared difference.
    pub rmse: f64,
    /// Signal to quantization noise ratio in dB; infinite when every difference is zero.
    pub sqnr_db: f64,
    /// Cosine similarity.
    pub cosine: f64,
    /// Pairs in which one side is not finite; they are left out of the other numbers.
    pub non_finite: u64,
}

impl Error {
    /// Whether no difference was found.
    pub fn is_exact(&self) -> bool {
        self.non_finite == 0 && self.max_abs == 0.0 && self.rmse == 0.0
    }
}

/// One tensor of one variant.
#[derive(Clone, Debug, Serialize)]
pub struct Tensor {
    /// Name in the output.
    pub name: String,
    /// Layer it belongs to; `None` for embeddings, the output head and the like.
    pub layer: Option<u32>,
    /// What it is for (`ffn_down`), without the layer; tensors with the same text share a row of the heat map.
    pub role: String,
    /// Type it is written as (`Q4_K`).
    pub encoding: String,
    /// Bytes in the output.
    pub bytes: u64,
    /// Number of weights.
    pub weights: u64,
    /// Measured error, where it was measured.
    pub error: Option<Error>,
}

/// One output file.
#[derive(Clone, Debug, Serialize)]
pub struct File {
    /// File name, without folders.
    pub name: String,
    /// Bytes.
    pub bytes: u64,
    /// SHA-256 in hexadecimal, where it was taken.
    pub sha256: Option<String>,
}

/// One variant of a release: the files that one recipe gave.
#[derive(Clone, Debug, Serialize)]
pub struct Variant {
    /// Short name (`Q4_K_M`); labels in plots.
    pub name: String,
    /// Output files in order.
    pub files: Vec<File>,
    /// Bits per weight over all tensors.
    pub bits_per_weight: f64,
    /// Error over all measured tensors.
    pub error: Option<Error>,
    /// Number of limits that were checked; zero when none was asked for.
    pub limits_checked: usize,
    /// The limits that do not hold, one sentence each.
    pub limits_broken: Vec<String>,
    /// Tensors in output order.
    pub tensors: Vec<Tensor>,
}

impl Variant {
    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().fold(0, |sum, f| sum.saturating_add(f.bytes))
    }
}

/// One kind of work of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Stage {
    /// What was done (`read`, `encode Q4_K`, `measure`, `write`, `hash`, `wait`).
    pub name: String,
    /// Seconds spent in it, summed over workers.
    pub seconds: f64,
    /// Bytes that went through it; zero for stages that move none (`wait`).
    pub bytes: u64,
}

/// Memory at one moment of a run.
#[derive(Clone, Debug, Serialize)]
pub struct MemorySample {
    /// Seconds since the start of the run.
    pub seconds: f64,
    /// Resident memory of the process in bytes.
    pub resident_bytes: u64,
    /// Tile buffers held, in bytes.
    pub tile_bytes: u64,
}

/// A whole release: one source, many variants.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Release {
    /// Title of the page; usually the model's name.
    pub title: String,
    /// The source as given.
    pub source: String,
    /// Revision of the source.
    pub revision: Option<String>,
    /// Bytes of tensor data in the source.
    pub source_bytes: u64,
    /// Bytes read from the source's tensors; equal to `source_bytes` when each was read once.
    pub read_bytes: u64,
    /// Name and version of the tool that made the release.
    pub tool_version: String,
    /// When it was made, as it shall be shown.
    pub date: Option<String>,
    /// Variants in the order of the release file.
    pub variants: Vec<Variant>,
    /// Where the time went.
    pub stages: Vec<Stage>,
    /// Memory over time, in order of time.
    pub memory: Vec<MemorySample>,
    /// The memory budget in bytes, if there was one.
    pub memory_limit: Option<u64>,
    /// Highest resident memory in bytes, where the system tells.
    pub peak_rss: Option<u64>,
    /// Seconds from start to publication.
    pub wall_seconds: f64,
    /// Worker threads.
    pub threads: usize,
    /// Remarks that a reader should see.
    pub notes: Vec<String>,
}
