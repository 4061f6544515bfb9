//! What tests of grouped integers go through.

use tensormill_kernels::groups::Rule;

/// Every rule that says something of integers.
pub const RULES: [Rule; 9] = [
    Rule::CompressedTensors,
    Rule::Gptq,
    Rule::Awq,
    Rule::BitsAndBytes,
    Rule::Mlx,
    Rule::Mlas,
    Rule::OrtTools,
    Rule::OrtToolsReduced,
    Rule::Hqq,
];
