//! Vision transformers: images are cut into patches, which are the positions. Images have the size of the configuration:
//! tables of positions are not interpolated.

use super::{Names, Sizes, Stack, head::first, text::with};
use crate::{
    Config, Family, Request,
    layers::{Layers, cast, held, length, reshape, transpose, unsqueeze},
};
use tensormill_graph::{Attribute, Dim, Program, Value};
use tensormill_model::{Error, Result};

/// The family.
pub(crate) struct Vit;

pub(crate) static VIT: Vit = Vit;

/// Names of checkpoints.
const NAMES: Names = Names {
    layers: "encoder.layer",
    attention: "attention.attention",
    query: "attention.attention.query",
    key: "attention.attention.key",
    value: "attention.attention.value",
    output: "attention.output.dense",
    attention_norm: "layernorm_before",
    up: "intermediate.dense",
    down: "output.dense",
    norm: "layernorm_after",
};

/// Names of transformers' modules since 5.0, which writes checkpoints under the older ones.
const MODULES: Names = Names {
    layers: "layers",
    attention: "attention",
    query: "attention.q_proj",
    key: "attention.k_proj",
    value: "attention.v_proj",
    output: "attention.o_proj",
    attention_norm: "layernorm_before",
    up: "mlp.fc1",
    down: "mlp.fc2",
    norm: "layernorm_after",
};

impl Family for Vit {
    fn model_types(&self) -> &'static [&'static str] {
        &["vit"]
    }

    fn build(&self, request: &Request<'_>) -> Result<Program> {
        let config = request.config;
        let class = config.architecture().unwrap_or("ViTModel");
        let classes = match class {
            "ViTModel" => false,
            "ViTForImageClassification" => true,
            _ => {
                return Err(Error::unsupported(format!(
                    "architectures names {class}, whose head no graph has"
                ))
                .file("config.json")
                .hint("known are ViTModel and ViTForImageClassification"));
            }
        };
        let sizes = Sizes::of(config)?;
        let each = config.maybe_count("head_dim")?.unwrap_or(sizes.hidden / sizes.heads);
        if each.checked_mul(sizes.heads) != Some(sizes.hidden) {
            let what = format!("is {each}; graphs have heads that share the hidden size, {}", sizes.hidden);
            return Err(config.unsupported("head_dim", &what));
        }
        let prefix = if request.has("vit.embeddings.cls_token") { "vit." } else { "" };
        let modules = request.has(&format!("{prefix}{}.0.{}.weight", MODULES.layers, MODULES.query));
        let names = if modules { &MODULES } else { &NAMES };
        let mut l = Layers::new(request, config.model_type()?)?;
        let x = embeddings(&mut l, config, prefix, sizes.hidden)?;
        let stack = Stack { names, sizes: &sizes, norm_first: true, bias: config.switch("qkv_bias", true)? };
        let x = stack.build(&mut l, prefix, x.patches, &[]).map(|y| Patches { patches: y, ..x })?;
        let y = l.layer_norm(&x.patches, &format!("{prefix}layernorm"), sizes.hidden, sizes.epsilon)?;
        let batch = Dim::from("batch_size");
        if classes {
            let labels = config.labels()?;
            let y = first(&mut l, &y);
            let y = l.linear(&y, "classifier", (labels, sizes.hidden), true)?;
            l.float_output("logits", &y, request.float, &with(&[batch], labels));
        } else {
            let dims = with(&[batch, Dim::Known(x.count as i64)], sizes.hidden);
            l.float_output("last_hidden_state", &y, request.float, &dims);
        }
        Ok(l.finish())
    }
}

/// Patches and the token before them, and how many that is.
struct Patches {
    patches: Value,
    count: u64,
}

fn embeddings(l: &mut Layers<'_>, config: &Config, prefix: &str, hidden: u64) -> Result<Patches> {
    let channels = config.maybe_count("num_channels")?.unwrap_or(3);
    let [height, width] = sides(config, "image_size", 224)?;
    let patch = sides(config, "patch_size", 16)?;
    let count = (height / patch[0]).checked_mul(width / patch[1]).and_then(|n| n.checked_add(1));
    let count = count.ok_or_else(|| config.bad("image_size", "has more patches than can be counted"))?;
    let known = |n: u64| Dim::Known(n as i64);
    let dims = [Dim::from("batch_size"), known(channels), known(height), known(width)];
    let pixels = l.float_input("pixel_values", &dims);
    let module = format!("{prefix}embeddings");
    let projection = format!("{module}.patch_embeddings.projection");
    let weight = l.parameter(&projection, "weight", &[hidden, channels, patch[0], patch[1]])?;
    let bias = l.parameter(&projection, "bias", &[hidden])?;
    let class = l.tensor(&format!("{module}.cls_token"), &[1, 1, hidden])?;
    let positions = l.tensor(&format!("{module}.position_embeddings"), &[1, count, hidden])?;
    let steps = patch.map(|n| n as i64);
    let x = l.at(&projection, |b| {
        let attributes = vec![Attribute::ints("kernel_shape", &steps), Attribute::ints("strides", &steps)];
        let (float, elem) = (b.float(), held(b, 22));
        let [x, weight, bias] = [&pixels, &weight, &bias].map(|x| cast(b, x, float, elem));
        let x = b.node("Conv", &[&x, &weight, &bias], attributes);
        cast(b, &x, elem, float)
    });
    let x = l.at(&format!("{module}.patch_embeddings"), |b| {
        let x = reshape(b, &x, &[0, hidden as i64, -1]);
        transpose(b, &x, &[0, 2, 1])
    });
    let patches = l.at(&module, |b| {
        // One for each image.
        let batch = length(b, &pixels, 0);
        let batch = unsqueeze(b, &batch, &[0]);
        let rest = b.ints(&[2], &[1, 1]);
        let dims = b.node("Concat", &[&batch, &rest], vec![Attribute::int("axis", 0)]);
        let class = b.node("Expand", &[&class, &dims], vec![]);
        let x = b.node("Concat", &[&class, &x], vec![Attribute::int("axis", 1)]);
        b.node("Add", &[&x, &positions], vec![])
    });
    Ok(Patches { patches, count })
}

/// Height and width: a number for both, or both in a list.
fn sides(config: &Config, key: &str, usual: u64) -> Result<[u64; 2]> {
    let Some(list) = config.get(key).and_then(|v| v.as_array()) else {
        return Ok([config.maybe_count(key)?.unwrap_or(usual); 2]);
    };
    let numbers: Option<Vec<u64>> = list.iter().map(|v| v.as_u64().filter(|n| *n > 0)).collect();
    let sides = numbers.and_then(|n| <[u64; 2]>::try_from(n).ok());
    sides
        .filter(|sides| sides.iter().all(|n| i64::try_from(*n).is_ok()))
        .ok_or_else(|| config.bad(key, "is a list of something else than height and width"))
}
