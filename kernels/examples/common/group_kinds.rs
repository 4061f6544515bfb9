//! What is measured of grouped codes, by the criterion benchmark and by `group_speed`.

#[path = "gaussian.rs"]
mod gaussian;

use gaussian::gaussian;
use tensormill_kernels::groups::{Code, Fit, Grid, Offset, Quantizer, Rule, ScaleType};

/// Weights per row and rows per call: 256 KiB of input, so that it stays in the second-level cache.
pub const ROW: usize = 4096;
/// See [`ROW`].
pub const ROWS: usize = 16;

/// Gaussian values of the size of weights; a fixed sequence.
pub fn weights(n: usize) -> Vec<f32> {
    gaussian(n, 1).iter().map(|x| 0.02 * x).collect()
}

/// The quantizers that are measured, with names.
pub fn kinds() -> Vec<(&'static str, Quantizer)> {
    let of = |bits, group, offset, scale, rule, fit| {
        let grid = Grid { code: Code::Int(bits), group, rows: 1, offset, outer: false };
        Quantizer { grid, scale, rule, fit }
    };
    let (middle, point) = (Offset::Middle, Offset::Point);
    let (f32_, f16, bf16) = (ScaleType::F32, ScaleType::F16, ScaleType::BF16);
    vec![
        ("int4-g128", of(4, 128, middle, f32_, Rule::CompressedTensors, Fit::Nearest)),
        ("int4-g128-bf16", of(4, 128, middle, bf16, Rule::CompressedTensors, Fit::Nearest)),
        ("int4-g32-point", of(4, 32, point, f32_, Rule::CompressedTensors, Fit::Nearest)),
        ("int8-channel", of(8, 0, middle, f32_, Rule::CompressedTensors, Fit::Nearest)),
        ("int8-channel-bf16", of(8, 0, middle, bf16, Rule::CompressedTensors, Fit::Nearest)),
        ("gptq-int4-g128", of(4, 128, point, f16, Rule::Gptq, Fit::Nearest)),
        ("awq-int4-g128", of(4, 128, point, f16, Rule::Awq, Fit::Nearest)),
        ("mlx-int4-g64", of(4, 64, Offset::Bias, f16, Rule::Mlx, Fit::Nearest)),
        ("matmulnbits-int4-g32", of(4, 32, middle, f32_, Rule::Mlas, Fit::Nearest)),
        ("qdq-int8-channel", of(8, 0, middle, f32_, Rule::OrtTools, Fit::Nearest)),
        ("int4-g128-mse", of(4, 128, middle, f32_, Rule::CompressedTensors, Fit::Mse)),
        ("hqq-int4-g64", of(4, 64, point, f32_, Rule::Hqq, Fit::Hqq)),
        ("int4-g128-hqq", of(4, 128, middle, f32_, Rule::CompressedTensors, Fit::Hqq)),
    ]
}
