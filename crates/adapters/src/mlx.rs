//! Adapters as mlx-lm trains them: `adapters.safetensors` and an `adapter_config.json` of its own, factors transposed
//! (`mlx_lm/tuner/lora.py`, `dora.py`).

use crate::{
    adapter::{Adapter, Change, Layer, LowRank},
    peft::FILE,
};
use serde_json::Value;
use std::{collections::BTreeMap, sync::Arc};
use tensormill_model::{Error, MemoryAssets, Model, Reader, Result, Tensor};
use tensormill_tensor::DType;

/// Reads such an adapter as source number `source`; `None` where the configuration is another one's.
///
/// # Errors
/// Kinds of training that are not merged, and parts that are missing.
pub(crate) fn read(
    name: &str,
    weight: f64,
    source: usize,
    reader: &dyn Reader,
    config: Option<&[u8]>,
) -> Result<Option<Adapter>> {
    let Some(json) = config else { return Ok(None) };
    let bad = |what: String| Error::malformed(what).file(FILE).context(format!("adapter {name}"));
    let config: Value = serde_json::from_slice(json).map_err(|e| bad(format!("not valid JSON: {e}")))?;
    let Some(parameters) = config.get("lora_parameters").filter(|_| config.get("peft_type").is_none()) else {
        return Ok(None);
    };
    let kind = config.get("fine_tune_type").and_then(Value::as_str).unwrap_or("lora");
    if kind != "lora" && kind != "dora" {
        return Err(Error::unsupported(format!("an adapter that was trained as {kind:?}"))
            .file(FILE)
            .hint("fuse it with mlx_lm.fuse and convert the result"));
    }
    let scale = parameters.get("scale").and_then(Value::as_f64).filter(|s| s.is_finite());
    let scale = scale.ok_or_else(|| bad("lora_parameters.scale is not a number".to_owned()))?;
    let tensors = Model::from_index(reader.index(), source, Arc::new(MemoryAssets::default())).tensors;
    let mut modules: BTreeMap<&str, BTreeMap<&str, &Tensor>> = BTreeMap::new();
    let mut unknown = Vec::new();
    for t in &tensors {
        match t.name().rsplit_once('.') {
            Some((module, part @ ("lora_a" | "lora_b" | "m"))) => {
                modules.entry(module).or_default().insert(part, t);
            }
            _ => unknown.push(t.name().to_owned()),
        }
    }
    let layers = modules.into_iter().map(|(module, parts)| {
        let (Some(a), Some(b)) = (parts.get("lora_a"), parts.get("lora_b")) else {
            return Err(bad("the other factor of this module is missing".to_owned()).tensor(module));
        };
        if a.spec.shape.rank() != 2 || b.spec.shape.rank() != 2 {
            return Err(
                Error::unsupported("factors of experts are not merged by this version").tensor(a.name())
            );
        }
        // x a b is W + scale (a b)^T for outputs in rows; an embedding's rows are inputs, and its change is a b.
        let embedding = module.ends_with("embed_tokens") || module.ends_with("wte");
        let (left, right) = if embedding {
            (a.expr.clone(), b.expr.clone())
        } else {
            (b.expr.clone().transpose(), a.expr.clone().transpose())
        };
        let low = LowRank {
            magnitude: parts.get("m").map(|t| t.expr.clone()),
            ..LowRank::new(right, left, DType::F32, scale)
        };
        Ok(Layer {
            module: module.to_owned(),
            parameter: "weight",
            tensors: parts.values().map(|t| t.name().to_owned()).collect(),
            change: Change::LowRank(Box::new(low)),
        })
    });
    let layers = layers.collect::<Result<_>>()?;
    Ok(Some(Adapter { name: name.to_owned(), weight, layers, whole: Vec::new(), unknown, notes: Vec::new() }))
}
