//! What is measured of grouped codes, by the criterion benchmark and by `group_speed`.

use tensormill_kernels::groups::{Code, Fit, Grid, Offset, Quantizer, Rule, ScaleType};

/// Weights per row and rows per call: 256 KiB of input, so that it stays in the second-level cache.
pub const ROW: usize = 4096;
/// See [`ROW`].
pub const ROWS: usize = 16;

/// Gaussian values of the size of weights, by the sum of twelve uniforms; a fixed sequence.
pub fn gaussian(n: usize, mut state: u64) -> Vec<f32> {
    let mut uniform = move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 40) as f32 / (1 << 24) as f32
    };
    (0..n).map(|_| 0.02 * ((0..12).map(|_| uniform()).sum::<f32>() - 6.0)).collect()
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
