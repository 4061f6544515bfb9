//! From rows to bundles: which numbers a group gets, and the codes of its weights.

use super::{Code, Grid, floats, ints};
use crate::codec::all_finite;
use crate::lanes::{Job, Scan, run_at};
use crate::{KernelError, Level, Operand, RowsError, selected_level};

/// The type that scales are stored as, which is that of the weights a [`Rule`]'s library would be given: weights are rounded to
/// it first (not so by [`Rule::Gptq`] and [`Rule::Hqq`], nor by a search), and libraries that compute in it do so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ScaleType {
    /// Binary32.
    F32,
    /// Binary16.
    F16,
    /// bfloat16.
    BF16,
    /// 8-bit floats E4M3.
    E4M3,
    /// Powers of two.
    E8M0,
}

/// Whose arithmetic makes a scale of a group's range, and codes of weights: libraries differ in the last bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rule {
    /// compressed-tensors, `quantization/utils/helpers.py` and `lifecycle/forward.py`.
    CompressedTensors,
    /// `GPTQModel`, `quantization/quantizer.py`.
    Gptq,
    /// `AutoAWQ`, `quantize/quantizer.py`.
    Awq,
    /// bitsandbytes, `csrc/cpu_ops.cpp` and `backends/default/ops.py`.
    BitsAndBytes,
    /// MLX, `mlx/backend/cpu/quantized.cpp`.
    Mlx,
    /// ONNX Runtime's MatMulNBits quantizer, `onnxruntime/core/mlas/lib/q4_dq.cpp`.
    Mlas,
    /// ONNX Runtime's QDQ and dynamic quantizers, `onnxruntime/quantization/quant_utils.py`.
    OrtTools,
    /// The same with `reduce_range`: half of the codes, for processors whose sums of products saturate.
    OrtToolsReduced,
    /// HQQ's package, `hqq/core/quantize.py`: zero points that need not be whole.
    Hqq,
    /// DeepSeek's block FP8, `inference/kernel.py`.
    DeepSeek,
}

/// How the numbers of a group are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Fit {
    /// From the group's range, as the library of the [`Rule`] does; every weight goes to the nearest code. With importance,
    /// integers start from [`Self::Mse`] and alternate between codes and the scale that is best for them.
    #[default]
    Nearest,
    /// The range that leaves the smallest squared error (weighted by importance where given), among shrunken ones.
    Mse,
    /// Half-quadratic quantization (Badri and Shaji, 2023): the zero point that leaves few large errors.
    Hqq,
}

/// Rows to encode.
#[derive(Clone, Copy, Debug)]
pub struct GroupRows<'a> {
    /// Weights, row after row.
    pub x: &'a [f32],
    /// Weights of a row.
    pub len: usize,
    /// A weight per column for errors, where measured.
    pub importance: Option<&'a [f32]>,
    /// What scales are multiplied by, where the grid has an outer scale; 1 otherwise.
    pub outer: f32,
}

/// Makes bundles of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Quantizer {
    /// What comes out.
    pub grid: Grid,
    /// How scales are stored.
    pub scale: ScaleType,
    /// Whose arithmetic.
    pub rule: Rule,
    /// How numbers are found.
    pub fit: Fit,
}

impl Quantizer {
    /// Encodes whole rows, at least all of a group of rows (see [`Grid::rows`]); `out` holds a bundle per row.
    ///
    /// # Errors
    /// [`KernelError::NonFinite`] with row and column, [`KernelError::ImportanceLength`].
    ///
    /// # Panics
    /// When buffers are not as long as the grid says.
    pub fn encode_rows(&self, rows: GroupRows<'_>, out: &mut [u8]) -> Result<(), RowsError> {
        self.encode_rows_at(selected_level(), rows, out)
    }

    /// The same at a level, or at a lower one where this machine lacks it. The bytes are the same too.
    ///
    /// # Errors
    /// As [`Self::encode_rows`].
    ///
    /// # Panics
    /// As [`Self::encode_rows`].
    pub fn encode_rows_at(&self, level: Level, rows: GroupRows<'_>, out: &mut [u8]) -> Result<(), RowsError> {
        self.check(&rows, level, out)?;
        match self.grid.code {
            Code::Int(_) => ints::encode(self, rows, level, out),
            _ => floats::encode(self, rows, level, out),
        }
        Ok(())
    }

    /// That rows can be encoded, and that there is a bundle for each.
    pub(super) fn check(&self, rows: &GroupRows<'_>, level: Level, out: &[u8]) -> Result<(), RowsError> {
        let bundles = out.chunks_exact(self.grid.bundle_bytes(rows.len).max(1));
        assert_eq!((rows.x.len() / rows.len.max(1), 0), (bundles.len(), bundles.remainder().len()));
        assert_eq!(rows.x.len() % rows.len.max(1), 0, "whole rows");
        finite(rows, level)
    }
}

/// Whether all numbers are, with the instructions of a level.
struct Finite<'a>(&'a [f32]);

impl Job for Finite<'_> {
    type Out = bool;
    #[inline(always)]
    fn run<V: Scan>(self, _: V) -> bool {
        all_finite(self.0)
    }
}

fn finite(rows: &GroupRows<'_>, level: Level) -> Result<(), RowsError> {
    if let Some(importance) = rows.importance {
        let format = "grouped codes";
        if importance.len() != rows.len {
            let error = KernelError::ImportanceLength { format, len: importance.len(), expected: rows.len };
            return Err(RowsError { row: 0, error });
        }
        if let Some(column) = importance.iter().position(|w| !w.is_finite()) {
            return Err(RowsError {
                row: 0,
                error: KernelError::NonFinite { operand: Operand::Importance, column },
            });
        }
    }
    if run_at(level, Finite(rows.x)) {
        return Ok(());
    }
    let at = rows.x.iter().position(|x| !x.is_finite()).unwrap_or(0);
    let (row, column) = (at / rows.len, at % rows.len);
    Err(RowsError { row, error: KernelError::NonFinite { operand: Operand::Row, column } })
}
