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
    /// What the layout wants to know beyond that.
    pub flavour: Flavour,
}

/// What tells schemes of one layout apart that hold the same codes and numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Flavour {
    /// Nothing does.
    #[default]
    Usual,
    /// compressed-tensors: activations become 8 bits while the model runs, with a scale for each token.
    TokenActivations,
    /// The same with a scale for each group of a token's columns.
    BlockActivations,
    /// `GPTQModel`'s second format: zero points stand as they are, and not less one.
    GptqV2,
    /// bitsandbytes: scales are quantized, too.
    NestedScales,
    /// ONNX: all other floats of the graph become `f16`.
    HalfGraph,
}

impl Scheme {
    /// The quantizer for weights of the type `source`.
    pub fn quantizer(&self, source: ScaleType, fit: Fit) -> Quantizer {
        Quantizer { grid: self.grid, scale: self.scale.unwrap_or(source), rule: self.rule, fit }
    }

    /// What a search comes down to: floats have no zero point to look for.
    pub fn fit(&self, fit: Fit) -> Fit {
        match fit {
            _ if self.unsearched().is_some() => Fit::Nearest,
            Fit::Hqq if !matches!(self.grid.code, Code::Int(_)) => Fit::Mse,
            fit => fit,
        }
    }

    /// Why no scales are looked for, where none are.
    pub fn unsearched(&self) -> Option<&'static str> {
        if self.is_cast() {
            Some("weights that are cast have no scales")
        } else if self.grid.rows == 0 && self.grid.outer {
            Some("the scale of a whole matrix is found before its codes are")
        } else {
            None
        }
    }

    /// Whether weights only change their type.
    pub fn is_cast(&self) -> bool {
        self.layout.cast(self).is_some()
    }

    /// The format of files that hold it, by its name.
    pub fn format(&self) -> &'static str {
        if self.layout.operators().is_some() { "onnx" } else { "safetensors" }
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

/// Blocks of rows and columns that share a scale.
const fn blocks(code: Code, rows: u32, columns: u32) -> Grid {
    Grid { code, group: columns, rows, offset: Offset::None, outer: false }
}

/// One scale for the whole matrix.
const fn whole(code: Code) -> Grid {
    Grid { code, group: 0, rows: 0, offset: Offset::None, outer: true }
}

/// NVIDIA's FP4: scales are 8-bit floats, and divided by a number for the whole matrix.
const NVFP4: Grid = Grid { code: Code::E2M1, group: 16, rows: 1, offset: Offset::None, outer: true };

macro_rules! schemes {
    ($($name:literal $layout:expr, $grid:expr, $scale:expr, $rule:ident, $flavour:ident, $about:literal;)*) => {
        static SCHEMES: &[Scheme] = &[$(Scheme {
            name: $name,
            about: $about,
            layout: $layout,
            grid: $grid,
            scale: $scale,
            rule: Rule::$rule,
            flavour: Flavour::$flavour,
        }),*];
    };
}

schemes! {
    "int4-g128" layout::PACK_QUANTIZED, grid(Code::Int(4), 128, Offset::Middle), None, CompressedTensors, Usual, "4-bit integers, a scale per 128 weights (vLLM, SGLang, transformers)";
    "int4-g128-asym" layout::PACK_QUANTIZED, grid(Code::Int(4), 128, Offset::Point), None, CompressedTensors, Usual, "4-bit integers, a scale and a zero point per 128 weights (vLLM, SGLang, transformers)";
    "int4-g64" layout::PACK_QUANTIZED, grid(Code::Int(4), 64, Offset::Middle), None, CompressedTensors, Usual, "4-bit integers, a scale per 64 weights (vLLM, SGLang, transformers)";
    "int4-g32" layout::PACK_QUANTIZED, grid(Code::Int(4), 32, Offset::Middle), None, CompressedTensors, Usual, "4-bit integers, a scale per 32 weights (vLLM, SGLang, transformers)";
    "int4-g32-asym" layout::PACK_QUANTIZED, grid(Code::Int(4), 32, Offset::Point), None, CompressedTensors, Usual, "4-bit integers, a scale and a zero point per 32 weights (vLLM, SGLang, transformers)";
    "int4-channel" layout::PACK_QUANTIZED, grid(Code::Int(4), 0, Offset::Middle), None, CompressedTensors, Usual, "4-bit integers, a scale per row (vLLM, SGLang, transformers)";
    "int4-channel-asym" layout::PACK_QUANTIZED, grid(Code::Int(4), 0, Offset::Point), None, CompressedTensors, Usual, "4-bit integers, a scale and a zero point per row (vLLM, SGLang, transformers)";
    "int8" layout::PACK_QUANTIZED, grid(Code::Int(8), 0, Offset::Middle), None, CompressedTensors, Usual, "8-bit integers, a scale per row (vLLM, SGLang, transformers)";
    "int8-g128" layout::PACK_QUANTIZED, grid(Code::Int(8), 128, Offset::Middle), None, CompressedTensors, Usual, "8-bit integers, a scale per 128 weights (vLLM, SGLang, transformers)";
    "int8-g32" layout::PACK_QUANTIZED, grid(Code::Int(8), 32, Offset::Middle), None, CompressedTensors, Usual, "8-bit integers, a scale per 32 weights (vLLM, SGLang, transformers)";
    "int2-g32" layout::PACK_QUANTIZED, grid(Code::Int(2), 32, Offset::Middle), None, CompressedTensors, Usual, "2-bit integers, a scale per 32 weights (transformers)";
    "int2-g32-asym" layout::PACK_QUANTIZED, grid(Code::Int(2), 32, Offset::Point), None, CompressedTensors, Usual, "2-bit integers, a scale and a zero point per 32 weights (transformers)";
    "int3-g128" layout::PACK_QUANTIZED, grid(Code::Int(3), 128, Offset::Middle), None, CompressedTensors, Usual, "3-bit integers, a scale per 128 weights (transformers)";
    "int3-g32" layout::PACK_QUANTIZED, grid(Code::Int(3), 32, Offset::Middle), None, CompressedTensors, Usual, "3-bit integers, a scale per 32 weights (transformers)";
    "int3-g32-asym" layout::PACK_QUANTIZED, grid(Code::Int(3), 32, Offset::Point), None, CompressedTensors, Usual, "3-bit integers, a scale and a zero point per 32 weights (transformers)";
    "int5-g128" layout::PACK_QUANTIZED, grid(Code::Int(5), 128, Offset::Middle), None, CompressedTensors, Usual, "5-bit integers, a scale per 128 weights (transformers)";
    "int6-g128" layout::PACK_QUANTIZED, grid(Code::Int(6), 128, Offset::Middle), None, CompressedTensors, Usual, "6-bit integers, a scale per 128 weights (transformers)";
    "int7-g128" layout::PACK_QUANTIZED, grid(Code::Int(7), 128, Offset::Middle), None, CompressedTensors, Usual, "7-bit integers, a scale per 128 weights (transformers)";
    "w8a8" layout::INT_QUANTIZED, grid(Code::Int(8), 0, Offset::Middle), None, CompressedTensors, TokenActivations, "8-bit integers, a scale per row; activations to 8 bits at run time (vLLM, SGLang)";
    "fp8" layout::FLOAT_QUANTIZED, grid(Code::E4M3, 0, Offset::None), None, CompressedTensors, TokenActivations, "8-bit floats, a scale per row; activations to 8 bits at run time (vLLM, SGLang)";
    "fp8-tensor" layout::FLOAT_QUANTIZED, whole(Code::E4M3), None, CompressedTensors, TokenActivations, "8-bit floats, a scale per matrix; activations to 8 bits at run time (vLLM, SGLang)";
    "fp8-block" layout::FLOAT_QUANTIZED, blocks(Code::E4M3, 128, 128), None, CompressedTensors, BlockActivations, "8-bit floats, a scale per 128 x 128 weights; activations to 8 bits at run time (vLLM, SGLang)";
    "fp8-weights" layout::NAIVE_QUANTIZED, grid(Code::E4M3, 0, Offset::None), None, CompressedTensors, Usual, "8-bit floats, a scale per row; activations stay as they are (transformers)";
    "nvfp4" layout::NVFP4_PACKED, NVFP4, Some(ScaleType::E4M3), CompressedTensors, Usual, "4-bit floats, an 8-bit float scale per 16 weights; activations stay as they are (vLLM)";
    "mxfp4" layout::MXFP4_PACKED, grid(Code::E2M1, 32, Offset::None), Some(ScaleType::E8M0), CompressedTensors, Usual, "4-bit floats, a power of two per 32 weights; activations stay as they are (vLLM)";
    "mxfp8" layout::MXFP8, grid(Code::E4M3, 32, Offset::None), Some(ScaleType::E8M0), CompressedTensors, Usual, "8-bit floats, a power of two per 32 weights; activations stay as they are (vLLM)";
    "onnx-int4" layout::onnx::MATMUL_NBITS, grid(Code::Int(4), 32, Offset::Middle), None, Mlas, Usual, "MatMulNBits: 4-bit integers, a scale per 32 weights (ONNX Runtime)";
    "onnx-int4-g128" layout::onnx::MATMUL_NBITS, grid(Code::Int(4), 128, Offset::Middle), None, Mlas, Usual, "MatMulNBits: 4-bit integers, a scale per 128 weights (ONNX Runtime)";
    "onnx-int4-asym" layout::onnx::MATMUL_NBITS, grid(Code::Int(4), 32, Offset::Point), None, Mlas, Usual, "MatMulNBits: 4-bit integers, a scale and a zero point per 32 weights (ONNX Runtime)";
    "onnx-int4-g128-asym" layout::onnx::MATMUL_NBITS, grid(Code::Int(4), 128, Offset::Point), None, Mlas, Usual, "MatMulNBits: 4-bit integers, a scale and a zero point per 128 weights (ONNX Runtime)";
    "onnx-int4-f16" layout::onnx::MATMUL_NBITS, grid(Code::Int(4), 32, Offset::Middle), None, Mlas, HalfGraph, "MatMulNBits: 4-bit integers, a scale per 32 weights, all else f16 (transformers.js' q4f16)";
    "onnx-int8-g32" layout::onnx::MATMUL_NBITS, grid(Code::Int(8), 32, Offset::Middle), None, Mlas, Usual, "MatMulNBits: 8-bit integers, a scale per 32 weights (ONNX Runtime)";
    "onnx-int2-asym" layout::onnx::MATMUL_NBITS, grid(Code::Int(2), 32, Offset::Point), None, Mlas, Usual, "MatMulNBits: 2-bit integers, a scale and a zero point per 32 weights (ONNX Runtime)";
    "onnx-int8" layout::onnx::MATMUL_INTEGER, grid(Code::Int(8), 0, Offset::Middle), None, OrtTools, Usual, "8-bit integers, a scale per row; activations to 8 bits at run time (any ONNX runtime)";
    "onnx-uint8" layout::onnx::MATMUL_INTEGER, grid(Code::Int(8), 0, Offset::Point), None, OrtTools, Usual, "unsigned 8-bit integers, a scale and a zero point per row; activations to 8 bits at run time (any ONNX runtime)";
    "onnx-qdq-int8" layout::onnx::QDQ, grid(Code::Int(8), 0, Offset::Middle), None, OrtTools, Usual, "DequantizeLinear: 8-bit integers, a scale per row (any ONNX runtime)";
    "onnx-qdq-int4" layout::onnx::QDQ, grid(Code::Int(4), 32, Offset::Middle), None, OrtTools, Usual, "DequantizeLinear: 4-bit integers, a scale per 32 weights, opset 21 (any ONNX runtime)";
    "deepseek-fp8" layout::FINE_GRAINED, blocks(Code::E4M3, 128, 128), Some(ScaleType::F32), DeepSeek, Usual, "8-bit floats, a scale per 128 x 128 weights, as DeepSeek-V3 has them (vLLM, SGLang, transformers)";
    "fp8-cast" layout::CAST, grid(Code::E4M3, 0, Offset::None), None, CompressedTensors, Usual, "8-bit floats E4M3 without scales (ComfyUI)";
    "fp8-cast-e5m2" layout::CAST, grid(Code::E5M2, 0, Offset::None), None, CompressedTensors, Usual, "8-bit floats E5M2 without scales (ComfyUI)";
    "gptq-int4-g128" layout::GPTQ, grid(Code::Int(4), 128, Offset::Middle), Some(ScaleType::F16), Gptq, Usual, "GPTQ layout: 4-bit integers, a scale per 128 weights";
    "gptq-int4-g32" layout::GPTQ, grid(Code::Int(4), 32, Offset::Middle), Some(ScaleType::F16), Gptq, Usual, "GPTQ layout: 4-bit integers, a scale per 32 weights";
    "gptq-int4-g128-asym" layout::GPTQ, grid(Code::Int(4), 128, Offset::Point), Some(ScaleType::F16), Gptq, Usual, "GPTQ layout: 4-bit integers, a scale and a zero point per 128 weights";
    "gptq-int4-g128-v2" layout::GPTQ, grid(Code::Int(4), 128, Offset::Middle), Some(ScaleType::F16), Gptq, GptqV2, "GPTQ layout, second format: 4-bit integers, a scale per 128 weights (GPTQModel, vLLM)";
    "gptq-int8-g128" layout::GPTQ, grid(Code::Int(8), 128, Offset::Middle), Some(ScaleType::F16), Gptq, Usual, "GPTQ layout: 8-bit integers, a scale per 128 weights";
    "gptq-int3-g128" layout::GPTQ, grid(Code::Int(3), 128, Offset::Middle), Some(ScaleType::F16), Gptq, Usual, "GPTQ layout: 3-bit integers, a scale per 128 weights";
    "gptq-int2-g64" layout::GPTQ, grid(Code::Int(2), 64, Offset::Point), Some(ScaleType::F16), Gptq, Usual, "GPTQ layout: 2-bit integers, a scale and a zero point per 64 weights";
    "awq-int4-g128" layout::AWQ, grid(Code::Int(4), 128, Offset::Point), Some(ScaleType::F16), Awq, Usual, "AWQ layout: 4-bit integers, a scale and a zero point per 128 weights";
    "awq-int4-g64" layout::AWQ, grid(Code::Int(4), 64, Offset::Point), Some(ScaleType::F16), Awq, Usual, "AWQ layout: 4-bit integers, a scale and a zero point per 64 weights";
    "nf4" layout::BNB_4BIT, grid(Code::Nf4, 64, Offset::None), Some(ScaleType::F32), BitsAndBytes, Usual, "bitsandbytes: 4-bit normal floats, a scale per 64 weights (QLoRA)";
    "nf4-dq" layout::BNB_4BIT, grid(Code::Nf4, 64, Offset::None), Some(ScaleType::F32), BitsAndBytes, NestedScales, "bitsandbytes: 4-bit normal floats, scales in 8 bits (double quantization)";
    "fp4" layout::BNB_4BIT, grid(Code::Fp4, 64, Offset::None), Some(ScaleType::F32), BitsAndBytes, Usual, "bitsandbytes: its 4-bit floats, a scale per 64 weights";
    "bnb-int8" layout::BNB_8BIT, Grid { outer: true, ..grid(Code::Int(8), 0, Offset::Middle) }, Some(ScaleType::F32), BitsAndBytes, Usual, "bitsandbytes: LLM.int8(), a scale per row";
    "mlx-2bit" layout::MLX, grid(Code::Int(2), 64, Offset::Bias), None, Mlx, Usual, "2-bit integers, a scale and a bias per 64 weights, embeddings too (MLX)";
    "mlx-2bit-g32" layout::MLX, grid(Code::Int(2), 32, Offset::Bias), None, Mlx, Usual, "2-bit integers, a scale and a bias per 32 weights, embeddings too (MLX)";
    "mlx-2bit-g128" layout::MLX, grid(Code::Int(2), 128, Offset::Bias), None, Mlx, Usual, "2-bit integers, a scale and a bias per 128 weights, embeddings too (MLX)";
    "mlx-3bit" layout::MLX, grid(Code::Int(3), 64, Offset::Bias), None, Mlx, Usual, "3-bit integers, a scale and a bias per 64 weights, embeddings too (MLX)";
    "mlx-3bit-g32" layout::MLX, grid(Code::Int(3), 32, Offset::Bias), None, Mlx, Usual, "3-bit integers, a scale and a bias per 32 weights, embeddings too (MLX)";
    "mlx-3bit-g128" layout::MLX, grid(Code::Int(3), 128, Offset::Bias), None, Mlx, Usual, "3-bit integers, a scale and a bias per 128 weights, embeddings too (MLX)";
    "mlx-4bit" layout::MLX, grid(Code::Int(4), 64, Offset::Bias), None, Mlx, Usual, "4-bit integers, a scale and a bias per 64 weights, embeddings too (MLX)";
    "mlx-4bit-g32" layout::MLX, grid(Code::Int(4), 32, Offset::Bias), None, Mlx, Usual, "4-bit integers, a scale and a bias per 32 weights, embeddings too (MLX)";
    "mlx-4bit-g128" layout::MLX, grid(Code::Int(4), 128, Offset::Bias), None, Mlx, Usual, "4-bit integers, a scale and a bias per 128 weights, embeddings too (MLX)";
    "mlx-5bit" layout::MLX, grid(Code::Int(5), 64, Offset::Bias), None, Mlx, Usual, "5-bit integers, a scale and a bias per 64 weights, embeddings too (MLX)";
    "mlx-5bit-g32" layout::MLX, grid(Code::Int(5), 32, Offset::Bias), None, Mlx, Usual, "5-bit integers, a scale and a bias per 32 weights, embeddings too (MLX)";
    "mlx-5bit-g128" layout::MLX, grid(Code::Int(5), 128, Offset::Bias), None, Mlx, Usual, "5-bit integers, a scale and a bias per 128 weights, embeddings too (MLX)";
    "mlx-6bit" layout::MLX, grid(Code::Int(6), 64, Offset::Bias), None, Mlx, Usual, "6-bit integers, a scale and a bias per 64 weights, embeddings too (MLX)";
    "mlx-6bit-g32" layout::MLX, grid(Code::Int(6), 32, Offset::Bias), None, Mlx, Usual, "6-bit integers, a scale and a bias per 32 weights, embeddings too (MLX)";
    "mlx-6bit-g128" layout::MLX, grid(Code::Int(6), 128, Offset::Bias), None, Mlx, Usual, "6-bit integers, a scale and a bias per 128 weights, embeddings too (MLX)";
    "mlx-8bit" layout::MLX, grid(Code::Int(8), 64, Offset::Bias), None, Mlx, Usual, "8-bit integers, a scale and a bias per 64 weights, embeddings too (MLX)";
    "mlx-8bit-g32" layout::MLX, grid(Code::Int(8), 32, Offset::Bias), None, Mlx, Usual, "8-bit integers, a scale and a bias per 32 weights, embeddings too (MLX)";
    "mlx-8bit-g128" layout::MLX, grid(Code::Int(8), 128, Offset::Bias), None, Mlx, Usual, "8-bit integers, a scale and a bias per 128 weights, embeddings too (MLX)";
    "mlx-mxfp4" layout::MLX, grid(Code::E2M1, 32, Offset::None), Some(ScaleType::E8M0), Mlx, Usual, "4-bit floats, a power of two per 32 weights, embeddings too (MLX)";
    "mlx-nvfp4" layout::MLX, grid(Code::E2M1, 16, Offset::None), Some(ScaleType::E4M3), Mlx, Usual, "4-bit floats, an 8-bit float per 16 weights, embeddings too (MLX)";
    "mlx-mxfp8" layout::MLX, grid(Code::E4M3, 32, Offset::None), Some(ScaleType::E8M0), Mlx, Usual, "8-bit floats, a power of two per 32 weights, embeddings too (MLX)";
}

/// Every preset, in the order of lists.
pub fn schemes() -> &'static [Scheme] {
    SCHEMES
}

/// The preset of this name, in any case.
pub fn scheme(name: &str) -> Option<&'static Scheme> {
    SCHEMES.iter().find(|s| s.name.eq_ignore_ascii_case(name))
}
