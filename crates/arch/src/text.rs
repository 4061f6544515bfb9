//! The rewrite that text architectures share: which tensors are left out, in which order the others come,
//! which encodings are pinned. Families plug in as plain functions.

use crate::{Architecture, Config, Rewritten, VocabPolicy, hyper::Hyper, names::NameMap};
use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap, hash_map::Entry},
    sync::Arc,
};
use tensormill_model::{
    AddScalar, Assets, Cast, Error, Expr, Form, Kind, Metadata, Model, Result, Role, RowMap, Slot, Tensor,
};
use tensormill_tensor::{DType, Encoding, Shape};

/// One text architecture, as data and hooks.
pub(crate) struct Text {
    /// GGUF name.
    pub gguf: &'static str,
    /// Hugging Face class names.
    pub hf: &'static [&'static str],
    /// The family's own part of filtering source names; runs before the rules that all share.
    pub filter: fn(&str) -> Option<Cow<'_, str>>,
    /// Tensors that the source does not hold; they come first.
    pub extra: fn(&mut Rewrite) -> Result<()>,
    /// What becomes of one source tensor.
    pub modify: fn(&mut Rewrite, Item) -> Result<()>,
    /// The hyper-parameter keys.
    pub hyper: fn(&mut Hyper) -> Result<()>,
    /// The vocabulary.
    pub vocab: fn(&Config, &dyn Assets) -> Result<VocabPolicy>,
}

/// Defaults for [`Text`]'s hooks.
pub(crate) mod plain {
    use super::{Cow, Item, Result, Rewrite};

    /// Filters nothing.
    #[allow(clippy::unnecessary_wraps)] // the signature is the hook's
    pub fn filter(name: &str) -> Option<Cow<'_, str>> {
        Some(Cow::Borrowed(name))
    }
    /// Generates nothing.
    #[allow(clippy::unnecessary_wraps)] // the signature is the hook's
    pub fn extra(_: &mut Rewrite) -> Result<()> {
        Ok(())
    }
    /// Maps the name and nothing else.
    pub fn modify(rw: &mut Rewrite, item: Item) -> Result<()> {
        rw.emit(&item.name, item.layer, item.expr)
    }
}

/// One source tensor on its way through [`Text::modify`].
pub(crate) struct Item {
    /// Filtered source name.
    pub name: String,
    /// First whole number among the dotted parts of the name.
    pub layer: Option<u64>,
    /// The tensor.
    pub expr: Expr,
}

/// A rewrite in progress.
pub(crate) struct Rewrite<'a> {
    /// The model's config.
    pub config: &'a Config,
    /// The model's side files.
    pub assets: &'a dyn Assets,
    /// Keys written before all others.
    pub early: Metadata,
    /// Source names left out.
    pub dropped: Vec<String>,
    arch: &'static str,
    names: NameMap,
    layers: u64,
    out: Vec<Tensor>,
    experts: BTreeMap<u64, HashMap<String, Expr>>,
}

impl Architecture for Text {
    fn gguf_name(&self) -> &'static str {
        self.gguf
    }
    fn hf_names(&self) -> &'static [&'static str] {
        self.hf
    }
    fn rewrite(&self, model: Model, config: &Config, file_type: u32) -> Result<Rewritten> {
        let Model { tensors, metadata, assets, .. } = model;
        let mut rw = self.begin(config, &*assets)?;
        let items = index(tensors, self.filter, &mut rw.dropped);
        (self.extra)(&mut rw)?;
        self.modify_all(&mut rw, items)?;
        let mut hyper = Hyper::new(self.gguf, config, &*assets, file_type);
        (self.hyper)(&mut hyper)?;
        let hyper = hyper.finish();
        let vocab = (self.vocab)(config, &*assets)?;
        let Rewrite { early, dropped, out, .. } = rw;
        Ok(Rewritten {
            model: Model { tensors: out, metadata, assets, program: None },
            early,
            hyper,
            vocab,
            dropped,
        })
    }
    fn rewrite_some(
        &self,
        tensors: Vec<Tensor>,
        config: &Config,
        assets: &dyn Assets,
    ) -> Result<(Vec<Tensor>, Vec<String>)> {
        let mut rw = self.begin(config, assets)?;
        let items = index(tensors, self.filter, &mut rw.dropped);
        self.modify_all(&mut rw, items)?;
        Ok((rw.out, rw.dropped))
    }
    fn hyper_parameters(&self, config: &Config, assets: &dyn Assets) -> Result<Metadata> {
        let mut hyper = Hyper::new(self.gguf, config, assets, 0);
        (self.hyper)(&mut hyper)?;
        Ok(hyper.finish())
    }
}

impl Text {
    fn begin<'a>(&self, config: &'a Config, assets: &'a dyn Assets) -> Result<Rewrite<'a>> {
        config.refuse_quantized()?;
        let layers = config.layers()?;
        Ok(Rewrite {
            config,
            assets,
            early: Metadata::new(),
            dropped: Vec::new(),
            arch: self.gguf,
            names: NameMap::new(self.gguf, layers),
            layers,
            out: Vec::new(),
            experts: BTreeMap::new(),
        })
    }

    fn modify_all(&self, rw: &mut Rewrite<'_>, items: Vec<(String, Item)>) -> Result<()> {
        for (source, item) in items {
            if SKIPPED.iter().any(|s| item.name.ends_with(s)) {
                rw.dropped.push(source);
                continue;
            }
            let (layer, layers) = (item.layer, rw.layers);
            (self.modify)(rw, item).map_err(|e| {
                let e = e.tensor(&source);
                if layer.is_some_and(|l| l >= layers) && e.hint_text().is_none() {
                    e.hint(format!("config.json says {layers} layers"))
                } else {
                    e
                }
            })?;
        }
        rw.no_experts_left()
    }
}

/// Buffers that some checkpoints store and no runtime needs (`ModelBase.prepare_tensors`).
const SKIPPED: [&str; 3] = [".attention.masked_bias", ".attention.bias", ".rotary_emb.inv_freq"];

/// Prefixes and parts of the names of vision and audio towers (`TextModel.filter_tensors`).
const OTHER_PREFIXES: [&str; 10] = [
    "mlp",
    "vit.",
    "vpm.",
    "siglip2.",
    "conformer.",
    "merger.",
    "resampler.",
    "sound_encoder.",
    "sound_projection.",
    "speech_embeddings.",
];
const OTHER_PARTS: [&str; 17] = [
    "visual.",
    "vision.",
    "audio.",
    "talker.",
    "vision_",
    "audio_",
    "token2wav.",
    "code2wav.",
    "projector.",
    "pre_mm_projector_norm",
    "image_newline",
    "view_seperator",
    "patch_embed",
    "patch_embedding",
    "patch_merger.",
    "patch_merge_mlp.",
    "model.connector.",
];

/// Filters names as the peer does when it indexes a checkpoint. Two tensors that end up under one name: the
/// later one, at the earlier one's place.
fn index(
    tensors: Vec<Tensor>,
    filter: fn(&str) -> Option<Cow<'_, str>>,
    dropped: &mut Vec<String>,
) -> Vec<(String, Item)> {
    let mut items: Vec<(String, Item)> = Vec::with_capacity(tensors.len());
    let mut seen: HashMap<String, usize> = HashMap::new();
    for t in tensors {
        let source = t.spec.name;
        let Some(mut name) = filter(&source).map(Cow::into_owned) else {
            dropped.push(source);
            continue;
        };
        if OTHER_PREFIXES.iter().any(|p| name.starts_with(p)) || OTHER_PARTS.iter().any(|p| name.contains(p))
        {
            dropped.push(source);
            continue;
        }
        if name.ends_with("e_score_correction_bias") {
            name = name.replace("e_score_correction_bias", "e_score_correction.bias");
        }
        if name.contains("language_model.") {
            name = name.replace("language_model.", "");
        }
        let layer = name
            .split('.')
            .find(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit()))
            .map(|p| p.parse().unwrap_or(u64::MAX));
        let item = (source, Item { name: name.clone(), layer, expr: t.expr });
        match seen.entry(name) {
            Entry::Occupied(o) => {
                let old = std::mem::replace(&mut items[*o.get()], item);
                dropped.push(old.0);
            }
            Entry::Vacant(v) => {
                v.insert(items.len());
                items.push(item);
            }
        }
    }
    items
}

impl Rewrite<'_> {
    /// Adds a tensor under the GGUF name of a source name.
    ///
    /// # Errors
    /// When the architecture has no tensor of that name.
    pub fn emit(&mut self, name: &str, layer: Option<u64>, expr: Expr) -> Result<()> {
        let role = self.names.role(name).ok_or_else(|| {
            Error::unsupported(format!("{name:?} has no counterpart in the {} architecture", self.arch))
        })?;
        self.push(role, layer, expr)
    }

    /// Adds a tensor under the name that its role spells, and pins its encoding.
    ///
    /// # Errors
    /// When the parts of the expression do not fit.
    pub fn push(&mut self, role: Role, layer: Option<u64>, expr: Expr) -> Result<()> {
        let mut t = Tensor::new(role.to_string(), expr)?;
        // The peer compares with the name formatted for the source's layer number.
        let same_layer = role.layer.map(u64::from) == layer;
        if t.spec.shape.rank() <= 1
            || t.spec.name.ends_with("_norm.weight")
            || role.slot != Slot::Weight
            || (role.kind.stays_f32() && same_layer)
        {
            t.pinned = Some(Encoding::F32);
        }
        t.role = Some(role);
        self.out.push(t);
        Ok(())
    }

    /// Adds a generated f32 vector.
    ///
    /// # Errors
    /// When its length cannot be represented.
    pub fn generate(&mut self, kind: Kind, values: &[f32]) -> Result<()> {
        let bytes: Arc<[u8]> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let form = Form::new(Shape::new(vec![values.len() as u64])?, Encoding::F32);
        self.push(Role::new(kind, None, Slot::Weight), None, Expr::Const { form, bytes })
    }

    /// Keeps one matrix of one expert; when a layer has `experts * parts.len()` of them, adds the stacks.
    ///
    /// `parts` gives, in the order of addition, `(source name of expert x, source name of the stack)` with
    /// `{bid}` and `{xid}` in place of the numbers.
    ///
    /// # Errors
    /// When an expert is missing, or the numbers do not fit the config.
    pub fn expert(&mut self, item: Item, experts: u64, parts: &[(&str, &str)]) -> Result<()> {
        let layer = item.layer.filter(|l| *l < self.layers).ok_or_else(|| {
            Error::mismatch(format!("an expert outside the {} layers of config.json", self.layers))
        })?;
        let held = self.experts.entry(layer).or_default();
        held.insert(item.name, item.expr);
        if (held.len() as u64) < experts.saturating_mul(parts.len() as u64) {
            return Ok(());
        }
        let mut held = self.experts.remove(&layer).unwrap_or_default();
        let bid = layer.to_string();
        for (source, stack) in parts {
            let mut inputs = Vec::new();
            for x in 0..experts {
                let name = source.replace("{bid}", &bid).replace("{xid}", &x.to_string());
                inputs.push(held.remove(&name).ok_or_else(|| {
                    Error::mismatch(format!(
                        "layer {layer} has {experts} experts in config.json, but no {name}"
                    ))
                    .tensor(&name)
                })?);
            }
            let expr = stacked(inputs)?;
            self.emit(&stack.replace("{bid}", &bid), Some(layer), expr)?;
        }
        if !held.is_empty() {
            self.experts.insert(layer, held);
        }
        Ok(())
    }

    fn no_experts_left(&self) -> Result<()> {
        let Some((layer, held)) = self.experts.iter().find(|(_, h)| !h.is_empty()) else { return Ok(()) };
        let name = held.keys().min().cloned().unwrap_or_default();
        Err(Error::mismatch(format!(
            "layer {layer} holds {} expert matrices, which does not fit the number of experts in config.json",
            held.len()
        ))
        .tensor(name)
        .hint("check that all shards are there and that config.json belongs to them"))
    }
}

/// Matrices stacked along a new first axis (`torch.stack`).
fn stacked(inputs: Vec<Expr>) -> Result<Expr> {
    let first = inputs.first().ok_or_else(|| Error::malformed("no experts to stack"))?.form()?;
    let mut dims = vec![inputs.len() as u64];
    dims.extend_from_slice(first.shape.dims());
    for e in &inputs {
        let form = e.form()?;
        if form.shape != first.shape {
            return Err(Error::mismatch(format!("experts of shapes {} and {}", first.shape, form.shape)));
        }
    }
    Ok(Expr::Concat { inputs, shape: Shape::new(dims)? })
}

/// Rows regrouped per head from the rotate-half to the interleaved order (`LlamaModel.permute`); biases too.
///
/// # Errors
/// When the rows cannot be shared among the heads in pairs.
pub(crate) fn permuted(expr: Expr, heads: u64) -> Result<Expr> {
    regrouped(expr, heads, |half| RowMap::SwapInner { a: 2, b: half })
}

/// The way back of [`permuted`].
///
/// # Errors
/// As [`permuted`].
pub(crate) fn unpermuted(expr: Expr, heads: u64) -> Result<Expr> {
    regrouped(expr, heads, |half| RowMap::SwapInner { a: half, b: 2 })
}

fn regrouped(expr: Expr, heads: u64, map: fn(u64) -> RowMap) -> Result<Expr> {
    let shape = expr.form()?.shape;
    let rows = *shape.dims().first().ok_or_else(|| Error::mismatch("a scalar has no heads"))?;
    let half = rows.checked_div(heads).map_or(0, |r| r / 2);
    if half.checked_mul(2).and_then(|r| r.checked_mul(heads)) != Some(rows) || rows == 0 {
        return Err(Error::mismatch(format!("{rows} rows cannot be shared among {heads} heads in pairs")));
    }
    let map = map(half);
    if shape.rank() == 1 {
        return Ok(expr.reshape(Shape::new(vec![rows, 1])?).rows(map).reshape(shape));
    }
    // Row maps count rows as all dimensions but the last; q and k are matrices.
    if shape.rank() != 2 {
        return Err(Error::mismatch(format!("an attention matrix of shape {shape}")));
    }
    Ok(expr.rows(map))
}

/// The tensor plus one, rounded where the peer rounds: f16 sources stay f16, all others are f32 by then.
///
/// # Errors
/// When the elements are no plain numbers.
pub(crate) fn plus_one(expr: Expr) -> Result<Expr> {
    let half = expr.form()?.encoding == Encoding::F16;
    let sum = expr.apply(AddScalar(1.0));
    let sum = if half { sum.apply(Cast(DType::F16)) } else { sum };
    sum.form()?;
    Ok(sum)
}
