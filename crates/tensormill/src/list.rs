//! What this version knows: types, recipes, formats, architectures. Data for `tensormill list`.

use crate::formats::FORMATS;
use serde::Serialize;
use tensormill_kernels as kernels;
use tensormill_tensor::{DType, Encoding, ggml};

/// One tensor encoding.
#[derive(Debug, Serialize)]
pub struct TypeRow {
    /// Name.
    pub name: &'static str,
    /// Bits per weight, scales included.
    pub bits_per_weight: f64,
    /// Weights per block.
    pub weights: u32,
    /// Bytes per block.
    pub bytes: u32,
    /// Whether it can be written from floats.
    pub encode: bool,
    /// Whether it can be turned into floats.
    pub decode: bool,
    /// Level at which this machine's processor encodes it.
    pub level: &'static str,
    /// Whether a CUDA device can encode it.
    pub cuda: bool,
}

/// Plain float types, then ggml's block types.
pub fn types() -> Vec<TypeRow> {
    let plain = [DType::F32, DType::F16, DType::BF16].into_iter().map(|d| TypeRow {
        name: d.name(),
        bits_per_weight: d.bits() as f64,
        weights: 1,
        bytes: (d.bits() / 8) as u32,
        encode: true,
        decode: true,
        level: "scalar",
        cuda: false,
    });
    let blocks = ggml::ALL.iter().map(|&b| {
        let codec = kernels::codec(b);
        TypeRow {
            name: b.name,
            bits_per_weight: Encoding::Block(b).bits_per_weight(),
            weights: b.weights,
            bytes: b.bytes,
            encode: codec.is_some_and(kernels::BlockCodec::can_encode),
            decode: codec.is_some(),
            level: kernels::level_of(b).map_or("-", kernels::Level::name),
            cuda: kernels::cuda::device_code(b).is_some(),
        }
    });
    plain.chain(blocks).collect()
}

/// What is wrong with the environment variable `TENSORMILL_SIMD`, in a sentence, if anything.
pub fn simd_setting_problem() -> Option<String> {
    let asked = std::env::var("TENSORMILL_SIMD").ok()?;
    let have: Vec<&str> = kernels::available_levels().iter().map(|l| l.name()).collect();
    match kernels::Level::from_name(&asked) {
        Some(level) if kernels::available_levels().contains(&level) => None,
        Some(level) => Some(format!(
            "TENSORMILL_SIMD={asked}: this machine has no {}; the variable can only lower the level ({})",
            level.name(),
            have.join(", ")
        )),
        None => Some(format!("TENSORMILL_SIMD={asked} is no level; known here: {}", have.join(", "))),
    }
}

/// One recipe.
#[derive(Debug, Serialize)]
pub struct RecipeRow {
    /// Name.
    pub name: &'static str,
    /// `general.file_type`.
    pub file_type: u32,
    /// Type that most tensors get.
    pub base: String,
    /// One line.
    pub summary: &'static str,
}

/// Every recipe.
pub fn recipes() -> Vec<RecipeRow> {
    tensormill_transforms::recipes()
        .iter()
        .map(|r| RecipeRow {
            name: r.name,
            file_type: r.file_type,
            base: r.base.to_string(),
            summary: r.about,
        })
        .collect()
}

/// One scheme.
#[derive(Debug, Serialize)]
pub struct SchemeRow {
    /// Name.
    pub name: &'static str,
    /// Which tensors hold a weight.
    pub layout: &'static str,
    /// Format of its files.
    pub format: &'static str,
    /// One line.
    pub summary: &'static str,
}

/// Every scheme.
pub fn schemes() -> Vec<SchemeRow> {
    tensormill_schemes::schemes()
        .iter()
        .map(|s| SchemeRow { name: s.name, layout: s.layout.id(), format: s.format(), summary: s.about })
        .collect()
}

/// One file format.
#[derive(Debug, Serialize)]
pub struct FormatRow {
    /// Short name.
    pub id: &'static str,
    /// One line.
    pub title: &'static str,
    /// File name extensions.
    pub extensions: &'static [&'static str],
    /// Whether a conversion can end in it.
    pub can_write: bool,
}

/// Every format.
pub fn formats() -> Vec<FormatRow> {
    FORMATS
        .iter()
        .map(|f| {
            let i = f.info();
            FormatRow { id: i.id, title: i.title, extensions: i.extensions, can_write: i.can_write }
        })
        .collect()
}

/// One architecture.
#[derive(Debug, Serialize)]
pub struct ArchRow {
    /// GGUF name.
    pub name: &'static str,
    /// What `config.json` calls it.
    pub config_names: &'static [&'static str],
}

/// Every architecture.
pub fn archs() -> Vec<ArchRow> {
    tensormill_arch::registry()
        .iter()
        .map(|a| ArchRow { name: a.gguf_name(), config_names: a.hf_names() })
        .collect()
}

/// A family of models for which graphs can be built.
#[derive(Debug, Serialize)]
pub struct GraphRow {
    /// What `config.json` says under `model_type`.
    pub model_types: &'static [&'static str],
    /// Which operators graphs can be made of, as `--onnx-form` takes it.
    pub forms: Vec<&'static str>,
    /// First and last version of ONNX's operators.
    pub opsets: (i64, i64),
}

/// Every family for which graphs can be built.
pub fn graphs() -> Vec<GraphRow> {
    let opsets = (*tensormill_export::OPSETS.start(), *tensormill_export::OPSETS.end());
    tensormill_export::registry()
        .iter()
        .map(|f| GraphRow {
            model_types: f.model_types(),
            forms: if f.has_contrib() { vec!["standard", "genai"] } else { vec!["standard"] },
            opsets,
        })
        .collect()
}
