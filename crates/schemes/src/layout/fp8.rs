//! 8-bit floats outside of compressed-tensors: blocks as DeepSeek-V3 has them (`weight_scale_inv`, which multiplies all the
//! same), rows as FBGEMM has them, whole matrices as `AutoFP8` and Mistral have them, and casts without any scale.
//!
//! Layout facts: transformers `integrations/finegrained_fp8.py`, `integrations/fbgemm_fp8.py`.

use super::{Layout, Quantized, names, plain_modules, scaled, told};
use crate::{
    ops::What,
    packing::Packing,
    scheme::Scheme,
    source::{Found, SourceCx},
    target::{Coded, Used, dtype_of},
};
use scaled::Sharing;
use serde_json::{Map, Value as Json, json};
use tensormill_kernels::groups::Code;
use tensormill_model::{Error, Result, Tensor};
use tensormill_tensor::{DType, Encoding, Shape};

/// transformers' fine-grained FP8, as DeepSeek-V3 has it.
pub static FINE_GRAINED: &dyn Layout = &FineGrained;
/// Casts without scales.
pub static CAST: &dyn Layout = &Plain;

struct FineGrained;

struct Plain;

impl Layout for FineGrained {
    fn id(&self) -> &'static str {
        "fp8"
    }

    fn takes(&self, _: &Scheme, _: &Shape) -> Result<()> {
        // Blocks need not be filled.
        Ok(())
    }

    fn siblings(&self, w: &Coded<'_>) -> Result<Vec<Tensor>> {
        Ok(vec![
            w.tensor("weight", w.part(What::Codes(Packing::dense(8), DType::F8E4M3)))?,
            w.tensor("weight_scale_inv", w.part(What::Scales(dtype_of(w.scale))))?,
        ])
    }

    fn config(&self, scheme: &Scheme, used: &[Used]) -> Result<Map<String, Json>> {
        if used.iter().filter_map(|u| u.scheme).any(|s| s.grid != scheme.grid) {
            return Err(Error::unsupported("fp8 checkpoints have one size of blocks"));
        }
        Ok(told(json!({
            "activation_scheme": "dynamic",
            "fmt": "e4m3",
            "modules_to_not_convert": plain_modules(used),
            "quant_method": "fp8",
            "weight_block_size": [scheme.grid.rows, scheme.grid.group],
        })))
    }
}

impl Layout for Plain {
    fn id(&self) -> &'static str {
        "cast"
    }

    fn takes(&self, _: &Scheme, _: &Shape) -> Result<()> {
        Ok(())
    }

    fn cast(&self, scheme: &Scheme) -> Option<DType> {
        Some(if scheme.grid.code == Code::E5M2 { DType::F8E5M2 } else { DType::F8E4M3 })
    }

    fn siblings(&self, w: &Coded<'_>) -> Result<Vec<Tensor>> {
        Err(Error::mismatch(format!("{} is cast, not encoded", w.module)))
    }

    fn config(&self, _: &Scheme, _: &[Used]) -> Result<Map<String, Json>> {
        // Types say it all.
        Ok(Map::new())
    }
}

/// Checkpoints of 8-bit floats with scales.
pub(crate) struct Fp8;

/// Weights that have scales: each scale's tensor with the name of its weight.
fn scaled_weights<'a>(cx: &SourceCx<'a>) -> Vec<(String, &'a Tensor)> {
    let mut pairs = Vec::new();
    for t in cx.tensors {
        let name = t.name();
        let weight = if let Some(module) = name.strip_suffix(".qscale_weight") {
            format!("{module}.weight")
        } else if let Some(weight) = name.strip_suffix("_scale_inv").or_else(|| name.strip_suffix("_scale")) {
            weight.to_owned()
        } else {
            continue;
        };
        // A scale that says whose it is must have its weight; others may be those of activations.
        if name.ends_with("weight_scale_inv") || cx.get(&weight).is_some_and(is_fp8) {
            pairs.push((weight, t));
        }
    }
    pairs
}

fn is_fp8(t: &Tensor) -> bool {
    matches!(t.spec.encoding, Encoding::Plain(DType::F8E4M3 | DType::F8E5M2))
}

impl Quantized for Fp8 {
    fn name(&self) -> &'static str {
        "fp8"
    }

    fn claims(&self, cx: &SourceCx<'_>) -> bool {
        match cx.method() {
            Some(method) => matches!(method, "fp8" | "fbgemm_fp8"),
            None => !scaled_weights(cx).is_empty(),
        }
    }

    fn find(&self, cx: &SourceCx<'_>) -> Result<Vec<Found>> {
        let blocks = match cx.quantization.get("weight_block_size") {
            None | Some(Json::Null) => None,
            Some(size) => Some(block(size)?),
        };
        let mut found = Vec::new();
        for (name, scale) in scaled_weights(cx) {
            let weight = cx.must(&name, "the scales of this weight are there, and it is not")?;
            let sharing = match blocks {
                Some((high, wide)) if scale.spec.shape.elements() > 1 || scale.spec.shape.rank() > 1 => {
                    Sharing::Blocks(high, wide)
                }
                _ => Sharing::RowOrAll,
            };
            let read = scaled::bytes(weight, scale, None, sharing)?;
            found.push(read.found(name, names([Some(weight), Some(scale)])));
        }
        Ok(found)
    }

    fn is_about_activations(&self, name: &str) -> bool {
        scaled::about_activations(name)
    }
}

/// Rows and columns of a block, as configurations have them.
pub(super) fn block(size: &Json) -> Result<(u32, u32)> {
    let side = |i: usize| u32::try_from(size.get(i)?.as_u64()?).ok().filter(|n| *n > 0);
    match (side(0), side(1), size.get(2)) {
        (Some(high), Some(wide), None) => Ok((high, wide)),
        _ => Err(Error::malformed(format!("blocks of size {size}")).file("config.json")),
    }
}
