//! The source as a checkpoint: tensors under the names that training code gives them, with the files beside them.
//!
//! A GGUF source is turned back into one; any other source is one already. Must not know how files are laid out.

use crate::{Source, formats::SAFETENSORS, modules, quantized};
use serde_json::{Map, Value as Json};
use std::{collections::BTreeMap, sync::Arc};
use tensormill_model::{
    Assets, Cast, Error, Expr, Format, Metadata, MetadataKind, Model, Result, Tensor, Value,
};
use tensormill_schemes::is_quantized;
use tensormill_tensor::{DType, Encoding};
use tensormill_transforms::Dequantize;

/// A file beside the weights.
#[derive(Clone)]
pub(super) enum SideFile {
    /// One of the source's.
    Asset(String),
    /// Made from what the source says.
    Made(String, Arc<[u8]>),
}

impl SideFile {
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Asset(name) | Self::Made(name, _) => name,
        }
    }

    pub(super) fn bytes(&self, assets: &dyn Assets) -> Result<Vec<u8>> {
        match self {
            Self::Made(_, bytes) => Ok(bytes.to_vec()),
            Self::Asset(name) => assets
                .read(name)?
                .ok_or_else(|| Error::mismatch("the file vanished while the run was planned").file(name)),
        }
    }
}

/// A source as a checkpoint.
pub(super) struct Checkpoint {
    model: Model,
    /// `config.json`, where there is one.
    config: Option<Map<String, Json>>,
    /// Files beside it, except `config.json`.
    side: Vec<SideFile>,
    /// The type that a GGUF source's weights become when nothing is said.
    usual: Option<DType>,
    /// The type that weights of a quantized checkpoint become, once decoded, when nothing is said: that of its other weights.
    decoded: Option<DType>,
    /// Whether the source is no safetensors file, whose metadata is its own affair.
    foreign: bool,
}

/// What a checkpoint lacks of its source, and what should be said about it.
#[derive(Default)]
pub(super) struct Remarks {
    pub(super) lost: Vec<String>,
    pub(super) notes: Vec<String>,
}

impl Remarks {
    /// Only ONNX files hold graphs.
    pub(super) fn graph_is_lost(&mut self, model: &Model) {
        let Some(program) = &model.program else { return };
        let nodes = program.graph.nodes.len();
        let lost = format!("the graph ({nodes} nodes): what is computed with the weights");
        // Several variants lose it once.
        if !self.lost.contains(&lost) {
            self.lost.push(lost);
        }
    }
}

impl Checkpoint {
    /// `keep_names` leaves a GGUF source's tensors under the names that they have there, without configuration.
    pub(super) fn of(
        source: &Source,
        model: &Model,
        keep_names: bool,
        remarks: &mut Remarks,
    ) -> Result<Self> {
        if source.is_gguf() && keep_names {
            remarks.lost.push("metadata that is not text, configuration and tokenizer with it".to_owned());
            let usual = Some(usual_type(model));
            return Ok(Self {
                model: model.clone(),
                config: None,
                side: Vec::new(),
                usual,
                decoded: None,
                foreign: true,
            });
        }
        if source.is_gguf() {
            return Self::restored(model, remarks);
        }
        let config = quantized::read_config(model)?;
        let list = model.assets.list().into_iter();
        let mut side: Vec<_> =
            list.filter(|n| n != "config.json" && belongs(n)).map(SideFile::Asset).collect();
        side.extend(modules::files(&*model.assets)?.into_iter().map(SideFile::Asset));
        let foreign = !source.format.contains(SAFETENSORS.info().id);
        // Of a graph's codes the graph says what they are decoded to.
        let packed = model.program.is_none() && model.tensors.iter().any(|t| is_quantized(&t.expr));
        let decoded = packed.then(|| decoded_type(config.as_ref(), model));
        Ok(Self { model: model.clone(), config, side, usual: None, decoded, foreign })
    }

    /// Tensors as training code calls them.
    pub(super) fn model(&self) -> &Model {
        &self.model
    }

    /// The type that a GGUF source's weights become when nothing is said.
    pub(super) fn usual(&self) -> Option<DType> {
        self.usual
    }

    /// The type of a tensor when nothing is said.
    pub(super) fn type_of(&self, t: &Tensor) -> Encoding {
        match self.decoded {
            Some(to) if is_quantized(&t.expr) => Encoding::Plain(to),
            _ => t.spec.encoding,
        }
    }

    /// Whether a note is the one about decoded weights.
    pub(super) fn tells_of_decoded(&self, note: &str) -> bool {
        self.decoded.is_some_and(|to| note == decoded_note(to))
    }

    /// What `config.json` says.
    pub(super) fn config(&self) -> Option<&Map<String, Json>> {
        self.config.as_ref()
    }

    fn restored(model: &Model, remarks: &mut Remarks) -> Result<Self> {
        let usual = usual_type(model);
        let tokenizer = tensormill_vocab::tokenizer_files(&model.metadata)?;
        let mut model = model.clone();
        let inputs = quantized::scaled(&mut model)?;
        remarks.notes.extend(quantized::left_out(inputs.iter().map(Tensor::name)));
        let restored = tensormill_arch::restore(model, |blocks| blocks.apply(Dequantize))?;
        remarks.lost.extend(tokenizer.lost.into_iter().chain(restored.lost));
        remarks.notes.extend(tokenizer.notes.into_iter().chain(restored.notes));
        let side =
            tokenizer.files.into_iter().map(|(name, bytes)| SideFile::Made(name, bytes.into())).collect();
        Ok(Self {
            model: restored.model,
            config: Some(restored.config),
            side,
            usual: Some(usual),
            decoded: None,
            foreign: true,
        })
    }

    /// Model and side files with floats as `dtype`, or as the source has them; and the name of what it is.
    pub(super) fn variant(
        &self,
        dtype: Option<DType>,
        format: &dyn Format,
        notes: &mut Vec<String>,
    ) -> Result<(Model, Vec<SideFile>, String)> {
        let mut model = self.model.clone();
        let dtype = dtype.or(self.usual);
        let mut rounded = false;
        for t in &mut model.tensors {
            let Some(to) = dtype.or_else(|| self.decoded.filter(|_| is_quantized(&t.expr))) else { continue };
            if let Some(expr) = converted(&t.expr, t.spec.encoding, to) {
                t.set_expr(expr)?;
                rounded |= dtype.is_none();
            }
        }
        if let (true, Some(to)) = (rounded, self.decoded) {
            let note = decoded_note(to);
            if !notes.contains(&note) {
                notes.push(note);
            }
        }
        match format.info().metadata {
            MetadataKind::Text => {
                record_ties(&mut model);
                if self.foreign {
                    model.metadata.set(WRITER, "pt");
                }
            }
            _ => restore_ties(&mut model),
        }
        fit_metadata(&mut model.metadata, format, notes);
        Ok((model, self.side_files(dtype)?, type_name(dtype)))
    }

    /// The files beside the weights, for floats as `dtype`.
    pub(super) fn side_files(&self, dtype: Option<DType>) -> Result<Vec<SideFile>> {
        self.side_files_with(dtype, Map::new())
    }

    /// The same, with further entries of `config.json`.
    pub(super) fn side_files_with(
        &self,
        dtype: Option<DType>,
        more: Map<String, Json>,
    ) -> Result<Vec<SideFile>> {
        let mut side = self.side.clone();
        if let Some(mut config) = self.config.clone() {
            config.extend(more);
            if let Some(to) = dtype {
                // What transformers reads first is the newer key; older versions know the other one only.
                let key = if config.contains_key("dtype") { "dtype" } else { "torch_dtype" };
                config.insert(key.to_owned(), Json::from(torch_name(to)));
            }
            let text = serde_json::to_string_pretty(&config)
                .map_err(|e| Error::io("encode config.json", e.into()))?;
            side.push(SideFile::Made("config.json".to_owned(), (text + "\n").into_bytes().into()));
        }
        Ok(side)
    }
}

/// The type that a GGUF source's weights become when nothing is said.
fn usual_type(model: &Model) -> DType {
    match tensormill_arch::usual_type(model) {
        Some(Encoding::Plain(d)) => d,
        _ => DType::F32,
    }
}

/// The type of a quantized checkpoint's weights before they were: what `config.json` says, or the first of the others has
/// that has 16 bits.
fn decoded_type(config: Option<&Map<String, Json>>, model: &Model) -> DType {
    let said = ["dtype", "torch_dtype"].iter().find_map(|k| config?.get(*k)?.as_str());
    match said {
        Some("bfloat16") => DType::BF16,
        Some("float16") => DType::F16,
        Some("float32") => DType::F32,
        _ => {
            let plain = model.tensors.iter().filter(|t| !is_quantized(&t.expr)).map(|t| t.spec.encoding);
            let halves = |e| match e {
                Encoding::Plain(d @ (DType::BF16 | DType::F16)) => Some(d),
                _ => None,
            };
            plain.into_iter().find_map(halves).unwrap_or(DType::F32)
        }
    }
}

/// What is said where decoded weights lose digits.
pub(super) fn decoded_note(to: DType) -> String {
    let name = type_name(Some(to));
    format!("decoded weights are rounded to {name}; --dtype f32 keeps all of their digits")
}

/// Metadata of a file that is no GGUF file, as those of one: who wrote it is no news, and something must be said of
/// what it is.
pub(super) fn as_typed(metadata: &mut Metadata) {
    metadata.remove(WRITER);
    let mut all = Metadata::new();
    all.set("general.architecture", "unknown");
    all.extend(std::mem::take(metadata));
    *metadata = all;
}

/// The expression as plain floats of another type; `None` where there is nothing to do.
fn converted(expr: &Expr, from: Encoding, to: DType) -> Option<Expr> {
    let plain = match from {
        Encoding::Plain(d) if d == to || !d.is_float() => return None,
        Encoding::Plain(_) => expr.clone(),
        Encoding::Block(_) => expr.clone().apply(Dequantize),
    };
    Some(if from.is_block() && to == DType::F32 { plain } else { plain.apply(Cast(to)) })
}

/// What a variant is called for people, whose floats are of one type or as they were.
pub(super) fn type_name(dtype: Option<DType>) -> String {
    dtype.map_or_else(|| "types as in the source".to_owned(), |d| d.to_string().to_uppercase())
}

/// What transformers calls a type.
fn torch_name(d: DType) -> &'static str {
    match d {
        DType::F16 => "float16",
        DType::BF16 => "bfloat16",
        _ => "float32",
    }
}

/// Leaves out metadata that the format cannot hold, and says so.
fn fit_metadata(metadata: &mut Metadata, format: &dyn Format, notes: &mut Vec<String>) {
    let fits = |v: &Value| match format.info().metadata {
        MetadataKind::Nothing => false,
        MetadataKind::Text => matches!(v, Value::Str(_)),
        MetadataKind::Typed => true,
    };
    let unfit: Vec<String> = metadata.iter().filter(|(_, v)| !fits(v)).map(|(k, _)| k.to_owned()).collect();
    for key in &unfit {
        metadata.remove(key);
    }
    // Who wrote the file is no news in another format.
    let told: Vec<&str> = unfit.iter().map(String::as_str).filter(|k| *k != WRITER).collect();
    if !told.is_empty() {
        notes.push(format!("metadata that {} cannot hold: {}", format.info().id, told.join(", ")));
    }
}

/// The key under which safetensors files say which library's tensors they hold; transformers insists on it.
const WRITER: &str = "format";

/// Tensors that are the same bytes of the source under several names: the first name in order of text stays, the others
/// become metadata that names it (`_remove_duplicate_names` of huggingface_hub).
fn record_ties(model: &mut Model) {
    // A map with an order, since that of the entries in the file follows it.
    let mut groups: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for t in &model.tensors {
        if reads(&t.expr) {
            groups.entry(t.expr.to_string()).or_default().push(t.spec.name.clone());
        }
    }
    for mut names in groups.into_values().filter(|names| names.len() > 1) {
        names.sort_unstable();
        let kept = names.remove(0);
        model.tensors.retain(|t| !names.contains(&t.spec.name));
        for name in names {
            model.metadata.set(name, kept.as_str());
        }
    }
}

/// The way back: metadata whose key is no tensor, but whose value is, names a tie.
fn restore_ties(model: &mut Model) {
    let ties: Vec<(String, String)> = model
        .metadata
        .iter()
        .filter_map(|(k, v)| Some((k.to_owned(), v.as_str()?.to_owned())))
        .filter(|(name, kept)| model.tensor(name).is_none() && model.tensor(kept).is_some())
        .collect();
    for (name, kept) in ties {
        let Some(mut tied) = model.tensor(&kept).cloned() else { continue };
        model.metadata.remove(&name);
        tied.spec.name = name;
        model.tensors.push(tied);
    }
}

/// Whether an expression reads the source, so that its text tells it apart from all others.
fn reads(expr: &Expr) -> bool {
    match expr {
        Expr::Read { .. } => true,
        Expr::Const { .. } => false,
        Expr::Rows { input, .. } | Expr::Reshape { input, .. } | Expr::Transpose { input } => reads(input),
        Expr::Concat { inputs, .. } | Expr::Apply { inputs, .. } => inputs.iter().all(reads),
    }
}

/// Whether a file of the source's folder goes along: everything that is not weights, their index, what DeepSpeed puts
/// beside them, or hidden.
fn belongs(name: &str) -> bool {
    const DEEPSPEED: &[&str] = &["latest", "zero_to_fp32.py", "zero_to_torch.py"];
    const WEIGHTS: &[&str] = &[
        "safetensors",
        "bin",
        "pt",
        "pth",
        "ckpt",
        "distcp",
        "gguf",
        "onnx",
        "onnx_data",
        "h5",
        "msgpack",
        "npz",
        "tflite",
        "ot",
        "index.json",
    ];
    let lower = name.to_ascii_lowercase();
    !name.starts_with('.')
        && !DEEPSPEED.contains(&name)
        && WEIGHTS.iter().all(|w| !lower.ends_with(&format!(".{w}")))
}
