//! Adapters without a configuration, as trainers of image models write them: kohya's scripts, LyCORIS, diffusers, and what
//! ComfyUI reads. Names say module and part; `alpha` is a tensor, or absent where nothing is scaled.
//!
//! kohya writes dots of a module's name as underscores, so which module is meant is known from the model's own names
//! alone. Formulas: LyCORIS' `modules/{locon,loha,lokr,full}.py` and kohya's `networks/lora.py`.

use crate::{
    adapter::{Adapter, Change, Layer, LowRank, product_type},
    lycoris,
    merge::matrix,
    ops::{Product, Tucker, in_f32},
    unet,
};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};
use tensormill_model::{Error, Expr, MemoryAssets, Model, Reader, Result, Tensor};
use tensormill_tensor::{DType, Encoding, Shape, decode_plain};

/// Ends of names, and the parts that they mean; longer ones first where one ends like another.
const ENDS: &[(&str, &str)] = &[
    (".lora_down.weight", "down"),
    (".lora_up.weight", "up"),
    (".lora_mid.weight", "mid"),
    (".lora_linear_layer.down.weight", "down"),
    (".lora_linear_layer.up.weight", "up"),
    (".lora.down.weight", "down"),
    (".lora.up.weight", "up"),
    ("_lora.down.weight", "down"),
    ("_lora.up.weight", "up"),
    (".lora_A.default.weight", "down"),
    (".lora_B.default.weight", "up"),
    (".lora_A.weight", "down"),
    (".lora_B.weight", "up"),
    (".lora_B.bias", "up_bias"),
    (".alpha", "alpha"),
    (".dora_scale", "dora_scale"),
    (".lora_magnitude_vector", "dora_scale"),
    (".hada_w1_a", "hada_w1_a"),
    (".hada_w1_b", "hada_w1_b"),
    (".hada_w2_a", "hada_w2_a"),
    (".hada_w2_b", "hada_w2_b"),
    (".hada_t1", "hada_t1"),
    (".hada_t2", "hada_t2"),
    (".lokr_w1_a", "lokr_w1_a"),
    (".lokr_w1_b", "lokr_w1_b"),
    (".lokr_w1", "lokr_w1"),
    (".lokr_w2_a", "lokr_w2_a"),
    (".lokr_w2_b", "lokr_w2_b"),
    (".lokr_w2", "lokr_w2"),
    (".lokr_t2", "lokr_t2"),
    (".diff_b", "diff_b"),
    (".diff", "diff"),
];

/// What scripts put in front of a model's part, as flat names.
const PREFIXES: &[&str] = &[
    "lora_unet_",
    "lora_te1_",
    "lora_te2_",
    "lora_te3_",
    "lora_te_",
    "lora_transformer_",
    "lora_prior_unet_",
    "lora_prior_te_",
    "lycoris_",
    "base_model_model_",
    "unet_",
    "transformer_",
    "text_encoder_2_",
    "text_encoder_",
    "model_diffusion_model_",
    "diffusion_model_",
    "lora_",
];

/// Whether names are those of such an adapter.
pub(crate) fn knows<'a>(names: impl IntoIterator<Item = &'a str>) -> bool {
    names
        .into_iter()
        .any(|n| !n.starts_with("base_model.") && split(n).is_some_and(|(_, part)| part != "alpha"))
}

fn split(name: &str) -> Option<(&str, &'static str)> {
    ENDS.iter().find_map(|(end, part)| Some((name.strip_suffix(end)?, *part)))
}

/// The modules of a model by every end of their flat names; `None` where two have it.
struct Names(HashMap<String, Option<String>>);

impl Names {
    fn new<'a>(tensors: impl IntoIterator<Item = &'a str>) -> Self {
        let mut ends: HashMap<String, Option<String>> = HashMap::new();
        for module in tensors.into_iter().filter_map(|n| n.strip_suffix(".weight")) {
            let components: Vec<&str> = module.split('.').collect();
            for from in 0..components.len() {
                let end = components[from..].join("_");
                // The whole name counts, whatever else ends like it.
                let whole = from == 0;
                ends.entry(end)
                    .and_modify(|known| *known = whole.then(|| module.to_owned()))
                    .or_insert_with(|| Some(module.to_owned()));
            }
        }
        Self(ends)
    }

    /// The module that an adapter's key means, or the key where the model has none.
    fn module(&self, key: &str) -> String {
        let flat = key.replace(".processor", "").replace('.', "_");
        let bare = PREFIXES.iter().find_map(|p| flat.strip_prefix(p)).unwrap_or(&flat);
        let mut tries = vec![flat.clone(), bare.to_owned(), format!("{bare}_0")];
        tries.extend(unet::original(bare));
        let found = tries.iter().find_map(|t| self.0.get(t).cloned().flatten());
        found.unwrap_or_else(|| key.to_owned())
    }
}

/// Reads such an adapter as source number `source`, for a model whose tensors have these names.
///
/// # Errors
/// Parts that are missing or do not go together, and what is not merged, by name.
pub(crate) fn read<'a>(
    name: String,
    weight: f64,
    source: usize,
    reader: &dyn Reader,
    model: impl IntoIterator<Item = &'a str>,
) -> Result<Adapter> {
    let names = Names::new(model);
    let tensors = Model::from_index(reader.index(), source, Arc::new(MemoryAssets::default())).tensors;
    let mut keys: BTreeMap<String, Parts<'_>> = BTreeMap::new();
    let mut unknown = Vec::new();
    for t in &tensors {
        match split(t.name()) {
            Some((key, part)) => {
                keys.entry(key.to_owned()).or_default().0.insert(part, t);
            }
            None => unknown.push(t.name().to_owned()),
        }
    }
    let mut layers = Vec::new();
    for (key, parts) in keys {
        let first = parts.0.values().next().map_or(key.as_str(), |t| t.name()).to_owned();
        let context = |e: Error| {
            let e = if e.tensor_name().is_some() { e } else { e.tensor(first) };
            e.context(format!("adapter {name}"))
        };
        layers.extend(parts.layers(&names.module(&key), reader).map_err(context)?);
    }
    Ok(Adapter { name, weight, layers, whole: Vec::new(), unknown, notes: Vec::new() })
}

/// The parts of one module.
#[derive(Default)]
struct Parts<'a>(BTreeMap<&'static str, &'a Tensor>);

impl Parts<'_> {
    fn get(&self, part: &str) -> Option<Expr> {
        self.0.get(part).map(|t| t.expr.clone())
    }
    fn need(&self, part: &str) -> Result<Expr> {
        self.get(part).ok_or_else(|| Error::malformed(format!("this module has no {part}")))
    }
    /// Rows of a part, its rank.
    fn rank(&self, part: &str) -> Option<f64> {
        self.0.get(part).and_then(|t| t.spec.shape.dims().first().copied()).map(|r| r as f64)
    }

    /// What a module's difference is multiplied by, with this rank.
    fn scale(&self, rank: Option<f64>, reader: &dyn Reader) -> Result<f64> {
        match (self.0.get("alpha"), rank) {
            (Some(alpha), Some(rank)) => Ok(scalar(alpha, reader)? / rank.max(1.0)),
            _ => Ok(1.0),
        }
    }

    fn layers(&self, module: &str, reader: &dyn Reader) -> Result<Vec<Layer>> {
        let layer = |parameter: &'static str, change: Change| Layer {
            module: module.to_owned(),
            parameter,
            tensors: self.0.values().map(|t| t.name().to_owned()).collect(),
            change,
        };
        let mut layers = Vec::new();
        let has = |start: &str| self.0.keys().any(|p| p.starts_with(start));
        if has("hada_") {
            let scale = self.scale(self.rank("hada_w1_b"), reader)?;
            self.no_magnitude()?;
            layers.push(layer("weight", Change::Sum { delta: self.delta(lycoris::loha)?, scale }));
        } else if has("lokr_") {
            self.no_magnitude()?;
            let rank = self.rank("lokr_w2_b").or_else(|| self.rank("lokr_w1_b"));
            let scale = self.scale(rank, reader)?;
            layers.push(layer("weight", Change::Sum { delta: self.delta(lycoris::lokr)?, scale }));
        } else if let Some(mid) = self.get("mid") {
            self.no_magnitude()?;
            let scale = self.scale(self.rank("down"), reader)?;
            let (up, down) = (matrix(self.need("up")?)?, matrix(self.need("down")?)?);
            let delta = in_f32(Tucker, vec![mid, up.transpose(), down])?;
            layers.push(layer("weight", Change::Sum { delta, scale }));
        } else if has("up") || has("down") {
            let (a, b) = (self.need("down")?, self.need("up")?);
            let scale = self.scale(self.rank("down"), reader)?;
            let product = product_type(&b)?;
            let mut low = LowRank { bias: self.get("up_bias"), ..LowRank::new(a, b.clone(), product, scale) };
            if let Some(lengths) = self.get("dora_scale") {
                let form = lengths.form()?;
                let rows = b.form()?.shape.dims().first().copied().unwrap_or(0);
                if form.shape.dims().first() != Some(&rows) || form.shape.elements() != rows {
                    return refuse(&format!("magnitudes {} of inputs are not merged", form.shape));
                }
                low.magnitude = Some(lengths.reshape(Shape::new(vec![rows])?));
            }
            layers.push(layer("weight", Change::LowRank(Box::new(low))));
        }
        for (part, parameter) in [("diff", "weight"), ("diff_b", "bias")] {
            if let Some(delta) = self.get(part) {
                layers.push(layer(parameter, Change::Sum { delta, scale: 1.0 }));
            }
        }
        if layers.is_empty() {
            return refuse("an alpha without factors");
        }
        Ok(layers)
    }

    fn no_magnitude(&self) -> Result<()> {
        if self.0.contains_key("dora_scale") {
            return refuse("dora_scale beside anything but lora_up and lora_down is not merged");
        }
        Ok(())
    }

    /// The parts, for the formulas that PEFT shares.
    fn delta(&self, of: lycoris::Formula) -> Result<Expr> {
        let product = |a, b| in_f32(Product, vec![matrix(a)?, matrix(b)?]);
        of(&|word| self.get(word), product)
    }
}

fn refuse<T>(what: &str) -> Result<T> {
    Err(Error::unsupported(what.to_owned())
        .hint("merge it with the tool that made it, and convert the result"))
}

/// The one number that a tensor holds.
fn scalar(t: &Tensor, reader: &dyn Reader) -> Result<f64> {
    let (Expr::Read { tensor, form, .. }, Encoding::Plain(dtype)) = (&t.expr, t.spec.encoding) else {
        return Err(Error::malformed("no number").tensor(t.name()));
    };
    if form.shape.elements() != 1 {
        return Err(
            Error::malformed(format!("{} numbers for an alpha", form.shape.elements())).tensor(t.name())
        );
    }
    let mut bytes = vec![0; t.spec.bytes()? as usize];
    reader.read(*tensor, 0..form.shape.rows(), &mut bytes)?;
    let mut value = [0f32];
    let known = match dtype {
        DType::I64 => {
            value[0] = i64::from_le_bytes(bytes.as_slice().try_into().unwrap_or_default()) as f32;
            true
        }
        DType::I32 => {
            value[0] = i32::from_le_bytes(bytes.as_slice().try_into().unwrap_or_default()) as f32;
            true
        }
        _ => dtype.is_float() && decode_plain(dtype, &bytes, &mut value),
    };
    if known && value[0].is_finite() {
        return Ok(f64::from(value[0]));
    }
    Err(Error::malformed("an alpha that is no finite number").tensor(t.name()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flat_names_find_their_modules() {
        let names = Names::new([
            "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_q.weight",
            "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_out.0.weight",
            "model.diffusion_model.double_blocks.0.img_attn.qkv.weight",
            "cond_stage_model.transformer.text_model.encoder.layers.0.mlp.fc1.weight",
            "a.proj.weight",
            "b.proj.weight",
            "proj.weight",
        ]);
        let attention = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1";
        for (key, want) in [
            (
                "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q",
                format!("{attention}.to_q"),
            ),
            (
                "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.processor.to_q",
                format!("{attention}.to_q"),
            ),
            (
                "lora_unet_input_blocks_1_1_transformer_blocks_0_attn1_to_out_0",
                format!("{attention}.to_out.0"),
            ),
            (
                "lora_unet_double_blocks_0_img_attn_qkv",
                "model.diffusion_model.double_blocks.0.img_attn.qkv".into(),
            ),
            (
                "diffusion_model.double_blocks.0.img_attn.qkv",
                "model.diffusion_model.double_blocks.0.img_attn.qkv".into(),
            ),
            (
                "lora_te_text_model_encoder_layers_0_mlp_fc1",
                "cond_stage_model.transformer.text_model.encoder.layers.0.mlp.fc1".into(),
            ),
            // A whole name is no guess; of two that end so, none is taken.
            ("lora_unet_proj", "proj".into()),
            ("lora_unet_nothing", "lora_unet_nothing".into()),
        ] {
            assert_eq!(names.module(key), want, "{key}");
        }
        let two = Names::new(["a.proj.weight", "b.proj.weight"]);
        assert_eq!(two.module("lora_unet_proj"), "lora_unet_proj");
    }
}
