//! Presets: what `--quant` may name, beside the recipes of GGUF files.

use crate::layout::{self, Layout};
use tensormill_kernels::groups::{Code, Fit, Grid, Offset, Quantizer, Rule, ScaleType};

/// A scheme by name.
pub struct Scheme {
    /// Name on command lines.
    pub name: &'static str,
    /// One line for lists.
    pub about: &'static str,
    /// Which tensors it makes.
    pub layout: &'static dyn Layout,
    /// What weights become.
    pub grid: Grid,
    /// The type of scales; `None`: that of the weights.
    pub scale: Option<ScaleType>,
    /// Whose arithmetic.
    pub rule: Rule,
    /// What the layout wants to know beyond that: bits of activations, a flavour. See the layout.
    pub flavour: &'static str,
}

impl Scheme {
    /// The quantizer for weights of the type `source`.
    pub fn quantizer(&self, source: ScaleType, fit: Fit) -> Quantizer {
        Quantizer { grid: self.grid, scale: self.scale.unwrap_or(source), rule: self.rule, fit }
    }

    /// The format of files that hold it, by its name.
    pub fn format(&self) -> &'static str {
        "safetensors"
    }
}

impl std::fmt::Debug for Scheme {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

const fn grid(code: Code, group: u32, offset: Offset) -> Grid {
    Grid { code, group, rows: 1, offset, outer: false }
}

macro_rules! schemes {
    ($($name:literal $layout:expr, $grid:expr, $scale:expr, $rule:ident, $flavour:literal, $about:literal;)*) => {
        static SCHEMES: &[Scheme] = &[$(Scheme {
            name: $name,
            about: $about,
            layout: $layout,
            grid: $grid,
            scale: $scale,
            rule: Rule::$rule,
            flavour: $flavour,
        }),*];
    };
}

schemes! {
    "int4-g128" layout::PACK_QUANTIZED, grid(Code::Int(4), 128, Offset::Middle), None, CompressedTensors, "", "4-bit integers, a scale per 128 weights (vLLM, SGLang, transformers)";
    "int4-g32" layout::PACK_QUANTIZED, grid(Code::Int(4), 32, Offset::Middle), None, CompressedTensors, "", "4-bit integers, a scale per 32 weights (vLLM, SGLang, transformers)";
    "int8" layout::PACK_QUANTIZED, grid(Code::Int(8), 0, Offset::Middle), None, CompressedTensors, "", "8-bit integers, a scale per row (vLLM, SGLang, transformers)";
    "mlx-2bit" layout::MLX, grid(Code::Int(2), 64, Offset::Bias), None, Mlx, "", "2-bit integers, a scale and a bias per 64 weights, embeddings too (MLX)";
    "mlx-2bit-g32" layout::MLX, grid(Code::Int(2), 32, Offset::Bias), None, Mlx, "", "2-bit integers, a scale and a bias per 32 weights, embeddings too (MLX)";
    "mlx-2bit-g128" layout::MLX, grid(Code::Int(2), 128, Offset::Bias), None, Mlx, "", "2-bit integers, a scale and a bias per 128 weights, embeddings too (MLX)";
    "mlx-3bit" layout::MLX, grid(Code::Int(3), 64, Offset::Bias), None, Mlx, "", "3-bit integers, a scale and a bias per 64 weights, embeddings too (MLX)";
    "mlx-3bit-g32" layout::MLX, grid(Code::Int(3), 32, Offset::Bias), None, Mlx, "", "3-bit integers, a scale and a bias per 32 weights, embeddings too (MLX)";
    "mlx-3bit-g128" layout::MLX, grid(Code::Int(3), 128, Offset::Bias), None, Mlx, "", "3-bit integers, a scale and a bias per 128 weights, embeddings too (MLX)";
    "mlx-4bit" layout::MLX, grid(Code::Int(4), 64, Offset::Bias), None, Mlx, "", "4-bit integers, a scale and a bias per 64 weights, embeddings too (MLX)";
    "mlx-4bit-g32" layout::MLX, grid(Code::Int(4), 32, Offset::Bias), None, Mlx, "", "4-bit integers, a scale and a bias per 32 weights, embeddings too (MLX)";
    "mlx-4bit-g128" layout::MLX, grid(Code::Int(4), 128, Offset::Bias), None, Mlx, "", "4-bit integers, a scale and a bias per 128 weights, embeddings too (MLX)";
    "mlx-5bit" layout::MLX, grid(Code::Int(5), 64, Offset::Bias), None, Mlx, "", "5-bit integers, a scale and a bias per 64 weights, embeddings too (MLX)";
    "mlx-5bit-g32" layout::MLX, grid(Code::Int(5), 32, Offset::Bias), None, Mlx, "", "5-bit integers, a scale and a bias per 32 weights, embeddings too (MLX)";
    "mlx-5bit-g128" layout::MLX, grid(Code::Int(5), 128, Offset::Bias), None, Mlx, "", "5-bit integers, a scale and a bias per 128 weights, embeddings too (MLX)";
    "mlx-6bit" layout::MLX, grid(Code::Int(6), 64, Offset::Bias), None, Mlx, "", "6-bit integers, a scale and a bias per 64 weights, embeddings too (MLX)";
    "mlx-6bit-g32" layout::MLX, grid(Code::Int(6), 32, Offset::Bias), None, Mlx, "", "6-bit integers, a scale and a bias per 32 weights, embeddings too (MLX)";
    "mlx-6bit-g128" layout::MLX, grid(Code::Int(6), 128, Offset::Bias), None, Mlx, "", "6-bit integers, a scale and a bias per 128 weights, embeddings too (MLX)";
    "mlx-8bit" layout::MLX, grid(Code::Int(8), 64, Offset::Bias), None, Mlx, "", "8-bit integers, a scale and a bias per 64 weights, embeddings too (MLX)";
    "mlx-8bit-g32" layout::MLX, grid(Code::Int(8), 32, Offset::Bias), None, Mlx, "", "8-bit integers, a scale and a bias per 32 weights, embeddings too (MLX)";
    "mlx-8bit-g128" layout::MLX, grid(Code::Int(8), 128, Offset::Bias), None, Mlx, "", "8-bit integers, a scale and a bias per 128 weights, embeddings too (MLX)";
    "mlx-mxfp4" layout::MLX, grid(Code::E2M1, 32, Offset::None), Some(ScaleType::E8M0), Mlx, "", "4-bit floats, a power of two per 32 weights, embeddings too (MLX)";
    "mlx-nvfp4" layout::MLX, grid(Code::E2M1, 16, Offset::None), Some(ScaleType::E4M3), Mlx, "", "4-bit floats, an 8-bit float per 16 weights, embeddings too (MLX)";
    "mlx-mxfp8" layout::MLX, grid(Code::E4M3, 32, Offset::None), Some(ScaleType::E8M0), Mlx, "", "8-bit floats, a power of two per 32 weights, embeddings too (MLX)";
}

/// Every preset, in the order of lists.
pub fn schemes() -> &'static [Scheme] {
    SCHEMES
}

/// The preset of this name, in any case.
pub fn scheme(name: &str) -> Option<&'static Scheme> {
    SCHEMES.iter().find(|s| s.name.eq_ignore_ascii_case(name))
}
