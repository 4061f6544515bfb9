//! Device code of encoders: its text, and what whoever runs it has to know.
//!
//! Every type's `cuda.cu` stands beside its twins for the processor; `base.cuh`, `num.cuh` and the searches are here. The
//! text compiles for a device, and as plain C++, which is how `kernels/tests/cuda_source.rs` compares its bytes with the
//! reference on machines that have no device. Each `cuda.cu` is a translation unit of its own.
//!
//! What device code may count on, and owes:
//! - Rows, importance and blocks start at multiples of 16 bytes, so that whole lines are read at once.
//! - What is infinite or NaN is noted in [`Job::bad`], the smallest index last; the blocks then mean nothing.
//! - A NaN among the scales is noted in [`Job::odd`], because its sign is stored and devices do not keep it; the blocks
//!   then mean nothing either. Where a NaN decides levels, it does so alike.
//! - A kernel that several formats share a file with is compiled with theirs: keep compiled files, not kernels.
//!
//! Must not know drivers, compilers, streams or memory of a device: those are the accelerator's.

use tensormill_tensor::BlockFormat;

/// What a kernel is given; the same fields as `struct Job` in `base.cuh`, which says what they are. Pointers are addresses
/// in the device's memory.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Job {
    /// Weights, aligned to 16 bytes.
    pub x: u64,
    /// Importance of each column, aligned to 16 bytes, or null.
    pub importance: u64,
    /// Mean square of each row, or null.
    pub row_means: u64,
    /// Blocks, aligned to 16 bytes.
    pub out: u64,
    /// Smallest index of a weight that is no number: `u64`, starts as all ones.
    pub bad: u64,
    /// `u32`, starts as zero: whether the processor has to encode the job again.
    pub odd: u64,
    /// The format's tables, or null.
    pub tables: u64,
    /// Weights in a row.
    pub row_len: u64,
    /// Blocks in all rows.
    pub blocks: u64,
    /// 0: `f32`, 1: `f16`, 2: `bf16`.
    pub input: u32,
    /// Zero.
    pub reserved: u32,
}

/// Threads in a block of the device's; as in `base.cuh`.
pub const THREADS: u32 = 128;

/// When a kernel reads [`Job::row_means`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RowMeans {
    /// Never.
    Unused,
    /// When there is importance.
    WithImportance,
    /// Always.
    Always,
}

/// The encoder of one format as device code.
pub struct DeviceCode {
    /// The format.
    pub block: &'static BlockFormat,
    /// Name of the file that [`Self::text`] is, from `kernels/src`: formats that share it share the text.
    pub file: &'static str,
    /// Source of the translation unit; it includes [`headers`].
    pub text: &'static str,
    /// Name of the kernel: `encode_` and the format.
    pub kernel: &'static str,
    /// Lanes of the team that encodes one block: a grid has `blocks * lanes / THREADS` blocks of [`THREADS`].
    pub lanes: u32,
    /// Whether `row_means` has to run first.
    pub row_means: RowMeans,
    /// Makes the tables that the kernel reads, the same bytes each time.
    pub tables: Option<fn() -> Vec<u8>>,
    /// What the encoder does with importance: looked at, or never.
    pub uses_importance: bool,
}

/// Name and text of what device code includes.
pub fn headers() -> &'static [(&'static str, &'static str)] {
    &[
        ("base.cuh", include_str!("base.cuh")),
        ("num.cuh", include_str!("num.cuh")),
        ("search.cuh", include_str!("search.cuh")),
        ("superblock.cuh", include_str!("superblock.cuh")),
        ("grid/free_levels.cuh", include_str!("../grid/free_levels.cuh")),
        ("grid/lattice.cuh", include_str!("../grid/lattice.cuh")),
        ("grid/levels.cuh", include_str!("../grid/levels.cuh")),
        ("grid/lines.cuh", include_str!("../grid/lines.cuh")),
        ("grid/queue.cuh", include_str!("../grid/queue.cuh")),
        ("grid/magnitude.cuh", include_str!("../grid/magnitude.cuh")),
    ]
}

/// The kernel that makes [`Job::row_means`]: launched as an encoder of one lane is, for a job whose blocks are the rows
/// and whose `out` is one `f32` for each.
pub struct RowMeansCode {
    /// As [`DeviceCode::file`].
    pub file: &'static str,
    /// As [`DeviceCode::text`].
    pub text: &'static str,
    /// Name of the kernel.
    pub kernel: &'static str,
}

/// What has to run before encoders whose [`DeviceCode::row_means`] says so.
pub static ROW_MEANS: RowMeansCode =
    RowMeansCode { file: "cuda/row_means.cu", text: include_str!("row_means.cu"), kernel: "row_means" };

/// All device code there is.
pub fn device_codes() -> &'static [&'static DeviceCode] {
    static CODES: &[&DeviceCode] = &[
        &crate::legacy::CUDA[0],
        &crate::legacy::CUDA[1],
        &crate::legacy::CUDA[2],
        &crate::legacy::CUDA[3],
        &crate::legacy::CUDA[4],
        &crate::q2_k::CUDA,
        &crate::q3_k::CUDA,
        &crate::q4_k::CUDA,
        &crate::q5_k::CUDA,
        &crate::q6_k::CUDA,
        &crate::iq4::CUDA[0],
        &crate::iq4::CUDA[1],
        &crate::grid::cuda::CUDA[0],
        &crate::grid::cuda::CUDA[1],
        &crate::grid::cuda::CUDA[2],
        &crate::grid::cuda::CUDA[3],
        &crate::grid::cuda::CUDA[4],
        &crate::grid::cuda::CUDA[5],
        &crate::grid::cuda::CUDA[6],
    ];
    CODES
}

/// The device code of a format, where there is some.
pub fn device_code(block: &BlockFormat) -> Option<&'static DeviceCode> {
    device_codes().iter().copied().find(|c| c.block == block)
}
