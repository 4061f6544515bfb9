//! Adapters and models in GGUF form: a GGUF adapter's factors under the names of training code, and a GGUF model that
//! is merged into without losing what it says of itself.
//!
//! Names and row orders are those of the architecture (`tensormill_arch`): a factor with a weight's rows goes through
//! its rewrites in the weight's place.

use crate::quantized;
use std::{collections::BTreeMap, sync::Arc};
use tensormill_adapters::{Adapter, Factors, Merged};
use tensormill_arch::{Config, for_config, restore, restore_some};
use tensormill_model::{Error, Expr, MemoryAssets, Metadata, Model, Reader, Result, RowMap, Tensor};
use tensormill_tensor::Shape;
use tensormill_transforms::Dequantize;

/// Reads a GGUF adapter for a model of which `metadata` are the GGUF form's.
///
/// # Errors
/// Files that hold no LoRA adapter, or one of another architecture.
pub(super) fn adapter(
    name: String,
    weight: f64,
    source: usize,
    reader: &dyn Reader,
    metadata: &Metadata,
) -> Result<Adapter> {
    let own = &reader.index().metadata;
    let bad = |what: String| Error::malformed(what).file(&name);
    let kind = own.str("adapter.type").or_else(|| own.str("general.type")).unwrap_or("nothing");
    if kind != "lora" {
        return Err(bad(format!("a GGUF file that says it is {kind}, not a LoRA adapter"))
            .hint("adapter.type must be \"lora\", as convert_lora_to_gguf.py writes it"));
    }
    let (of, base) = (own.str("general.architecture"), metadata.str("general.architecture"));
    if of != base {
        return Err(Error::mismatch(format!(
            "an adapter of the architecture {}, a model of {}",
            of.unwrap_or("unknown"),
            base.unwrap_or("unknown")
        ))
        .file(&name));
    }
    let alpha = own.get("adapter.lora.alpha").and_then(tensormill_model::Value::as_f64).unwrap_or(0.0);
    let none = Arc::new(MemoryAssets::default());
    let tensors = Model::from_index(reader.index(), source, none).tensors;
    let mut pairs: BTreeMap<String, [Option<Tensor>; 2]> = BTreeMap::new();
    for t in tensors {
        let Some((weight, part)) = ["a", "b"]
            .iter()
            .enumerate()
            .find_map(|(i, p)| Some((t.name().strip_suffix(&format!(".lora_{p}"))?.to_owned(), i)))
        else {
            return Err(bad("no factor of an adapter".to_owned()).tensor(t.name()));
        };
        pairs.entry(weight).or_default()[part] = Some(t);
    }
    let mut factors = Vec::with_capacity(pairs.len());
    for (weight, pair) in pairs {
        let [Some(a), Some(b)] = pair else {
            return Err(bad("the other factor of this weight is missing".to_owned()).tensor(weight));
        };
        factors.extend(of_pair(&weight, &a, &b, alpha, metadata).map_err(|e| e.file(&name))?);
    }
    Adapter::from_factors(name, weight, factors)
}

/// The factors of one weight: of a stack of experts, those of each.
fn of_pair(weight: &str, a: &Tensor, b: &Tensor, alpha: f64, metadata: &Metadata) -> Result<Vec<Factors>> {
    let rank = b.spec.shape.row_len();
    // As llama.cpp: without an alpha, nothing is scaled.
    let scale = if alpha == 0.0 { 1.0 } else { alpha / rank.max(1) as f64 };
    let tensors = vec![a.name().to_owned(), b.name().to_owned()];
    let embedding = weight == "token_embd.weight";
    // An embedding's factors are exchanged: rows of `a` are tokens.
    let rows = if embedding { a } else { b };
    let restored = restore_some(vec![Tensor::new(weight, plain(rows))?], metadata)?;
    let experts = restored.len() as u64;
    let a_plain = plain(a);
    let each = restored.into_iter().zip(0..).map(|(t, e)| {
        let module =
            t.name().strip_suffix(".weight").map(str::to_owned).ok_or_else(|| {
                Error::unsupported("an adapter of something that is no weight").tensor(weight)
            })?;
        let (a, b) = if embedding {
            (t.expr.transpose(), plain(b))
        } else if experts == 1 {
            (a_plain.clone(), t.expr)
        } else {
            let &[of, ranks, inner] = a.spec.shape.dims() else {
                return Err(Error::mismatch(format!("factors {} of experts", a.spec.shape)).tensor(a.name()));
            };
            if of != experts {
                return Err(
                    Error::mismatch(format!("factors of {of} and {experts} experts")).tensor(a.name())
                );
            }
            let part = a_plain.clone().rows(RowMap::Slice { start: e * ranks, len: ranks });
            (part.reshape(Shape::new(vec![ranks, inner])?), t.expr)
        };
        Ok(Factors { module, tensors: tensors.clone(), a, b, scale, embedding })
    });
    each.collect()
}

/// A tensor's values as plain floats.
fn plain(t: &Tensor) -> Expr {
    if t.spec.encoding.is_block() { t.expr.clone().apply(Dequantize) } else { t.expr.clone() }
}

/// Merges into a model in GGUF form: under the names of training code, and back. Tensors that do not change stay as they
/// are, and so do metadata and order; what changes is merged with as the whole weight that it is with the scale beside it,
/// and divided by one again.
///
/// # Errors
/// Architectures whose way back is not known, and all that `merge` has.
pub(super) fn merge_into(
    model: &Model,
    readers: &[Arc<dyn Reader>],
    merge: impl FnOnce(Model) -> Result<Merged>,
) -> Result<Merged> {
    let scales = quantized::scales(model);
    let mut whole = model.clone();
    quantized::scaled(&mut whole)?;
    let restored = restore(whole, |blocks| blocks.apply(Dequantize))?;
    let mut plain_model = restored.model;
    quantized::decode_blocks(&mut plain_model)?;
    let json = serde_json::to_vec(&restored.config).map_err(|e| Error::io("encode config.json", e.into()))?;
    let config = Config::parse(&json)?;
    let arch = for_config(&config)?;
    let none = MemoryAssets::default();
    let (before, _) = arch.rewrite_some(plain_model.tensors.clone(), &config, &none)?;
    let mut merged = merge(plain_model)?;
    let (after, _) = arch.rewrite_some(std::mem::take(&mut merged.model.tensors), &config, &none)?;
    let mut result = model.clone();
    let places: BTreeMap<String, usize> =
        result.tensors.iter().enumerate().map(|(i, t)| (t.name().to_owned(), i)).collect();
    merged.changed.clear();
    for (before, after) in before.into_iter().zip(after) {
        if before.expr.to_string() == after.expr.to_string() {
            continue;
        }
        let Some(&i) = places.get(after.name()) else {
            return Err(
                Error::unsupported("the merged tensor has no place in the GGUF file").tensor(after.name())
            );
        };
        let mut expr = after.expr.clone();
        if let Some(scale) = scales.get(after.name()) {
            let (weight, by) = quantized::divided(&expr, scale, readers)?;
            expr = weight;
            if let Some(t) = places.get(scale.name()).and_then(|i| result.tensors.get_mut(*i)) {
                t.set_expr(by)?;
            }
        }
        result.tensors[i].set_expr(expr)?;
        merged.changed.push(i);
    }
    merged.model = result;
    Ok(merged)
}
