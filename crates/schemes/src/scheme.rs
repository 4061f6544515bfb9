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
    "gptq-int4-g128" layout::GPTQ, grid(Code::Int(4), 128, Offset::Middle), Some(ScaleType::F16), Gptq, "gptq", "GPTQ layout: 4-bit integers, a scale per 128 weights";
    "gptq-int4-g32" layout::GPTQ, grid(Code::Int(4), 32, Offset::Middle), Some(ScaleType::F16), Gptq, "gptq", "GPTQ layout: 4-bit integers, a scale per 32 weights";
    "gptq-int4-g128-asym" layout::GPTQ, grid(Code::Int(4), 128, Offset::Point), Some(ScaleType::F16), Gptq, "gptq", "GPTQ layout: 4-bit integers, a scale and a zero point per 128 weights";
    "gptq-int4-g128-v2" layout::GPTQ, grid(Code::Int(4), 128, Offset::Middle), Some(ScaleType::F16), Gptq, "gptq_v2", "GPTQ layout, second format: 4-bit integers, a scale per 128 weights (GPTQModel, vLLM)";
    "gptq-int8-g128" layout::GPTQ, grid(Code::Int(8), 128, Offset::Middle), Some(ScaleType::F16), Gptq, "gptq", "GPTQ layout: 8-bit integers, a scale per 128 weights";
    "gptq-int3-g128" layout::GPTQ, grid(Code::Int(3), 128, Offset::Middle), Some(ScaleType::F16), Gptq, "gptq", "GPTQ layout: 3-bit integers, a scale per 128 weights";
    "gptq-int2-g64" layout::GPTQ, grid(Code::Int(2), 64, Offset::Point), Some(ScaleType::F16), Gptq, "gptq", "GPTQ layout: 2-bit integers, a scale and a zero point per 64 weights";
    "awq-int4-g128" layout::AWQ, grid(Code::Int(4), 128, Offset::Point), Some(ScaleType::F16), Awq, "gemm", "AWQ layout: 4-bit integers, a scale and a zero point per 128 weights";
    "awq-int4-g64" layout::AWQ, grid(Code::Int(4), 64, Offset::Point), Some(ScaleType::F16), Awq, "gemm", "AWQ layout: 4-bit integers, a scale and a zero point per 64 weights";
    "nf4" layout::BNB_4BIT, grid(Code::Nf4, 64, Offset::None), Some(ScaleType::F32), BitsAndBytes, "", "bitsandbytes: 4-bit normal floats, a scale per 64 weights (QLoRA)";
    "nf4-dq" layout::BNB_4BIT, grid(Code::Nf4, 64, Offset::None), Some(ScaleType::F32), BitsAndBytes, "nested", "bitsandbytes: 4-bit normal floats, scales in 8 bits (double quantization)";
    "fp4" layout::BNB_4BIT, grid(Code::Fp4, 64, Offset::None), Some(ScaleType::F32), BitsAndBytes, "", "bitsandbytes: its 4-bit floats, a scale per 64 weights";
    "bnb-int8" layout::BNB_8BIT, Grid { outer: true, ..grid(Code::Int(8), 0, Offset::Middle) }, Some(ScaleType::F32), BitsAndBytes, "", "bitsandbytes: LLM.int8(), a scale per row";
}

/// Every preset, in the order of lists.
pub fn schemes() -> &'static [Scheme] {
    SCHEMES
}

/// The preset of this name, in any case.
pub fn scheme(name: &str) -> Option<&'static Scheme> {
    SCHEMES.iter().find(|s| s.name.eq_ignore_ascii_case(name))
}
