//! NVIDIA's ModelOpt: 8-bit floats with a scale per matrix, row, block or 32 columns, 8-bit integers, NVFP4 with scales of scales
//! that multiply, MXFP4.
//!
//! Layout facts: `modelopt/torch/export/quant_utils.py` of nvidia-modelopt 0.47.

use super::{Quantized, fp8, names, scaled};
use crate::source::{Found, SourceCx};
use scaled::Sharing;
use tensormill_model::{Error, Result, Tensor};
use tensormill_tensor::{DType, Encoding};

/// Checkpoints of ModelOpt.
pub(crate) struct ModelOpt;

/// Rows and columns of a block where the algorithm has blocks, unless the configuration says otherwise.
const BLOCK: (u32, u32) = (128, 128);
/// Columns that share a power of two.
const MX: u32 = 32;

impl Quantized for ModelOpt {
    fn name(&self) -> &'static str {
        "ModelOpt"
    }

    fn claims(&self, cx: &SourceCx<'_>) -> bool {
        match cx.method() {
            Some(method) => method.starts_with("modelopt"),
            // Older exports say it in hf_quant_config.json alone.
            None => cx.tensors.iter().any(|t| t.name().ends_with(".weight_scale_2")),
        }
    }

    fn find(&self, cx: &SourceCx<'_>) -> Result<Vec<Found>> {
        if let Some((module, t)) = cx.with_suffix(".pre_quant_scale").into_iter().next() {
            return Err(Error::unsupported(format!(
                "{module} has its columns scaled for AWQ as ModelOpt has it"
            ))
            .tensor(t.name())
            .hint("quantize the plain model instead"));
        }
        let mut found = Vec::new();
        for (module, scale) in cx.with_suffix(".weight_scale") {
            let weight = cx.need(&module, "weight")?;
            if is_fp4(weight) && scaled::dtype(scale)?.is_float() && scaled::dtype(scale)?.bits() > 8 {
                return Err(Error::unsupported(
                    "4-bit integers of pairs of rows, as ModelOpt packs them for AWQ",
                )
                .tensor(weight.name())
                .hint("quantize the plain model instead"));
            }
            let outer = cx.of(&module, "weight_scale_2").filter(|_| is_fp4(weight));
            let read = if is_fp4(weight) {
                if outer.is_none() && scaled::dtype(scale)? == DType::F8E4M3 {
                    cx.need(&module, "weight_scale_2")?;
                }
                scaled::fp4(weight, scale, outer.map(|t| (t, false)))?
            } else {
                scaled::bytes(weight, scale, None, sharing(cx, scale)?)?
            };
            found.push(read.found(weight.name(), names([Some(weight), Some(scale), outer])));
        }
        Ok(found)
    }

    fn is_about_activations(&self, name: &str) -> bool {
        scaled::about_activations(name) || scaled::subtracted(name)
    }
}

fn is_fp4(weight: &Tensor) -> bool {
    weight.spec.encoding == Encoding::Plain(DType::U8)
}

fn sharing(cx: &SourceCx<'_>, scale: &Tensor) -> Result<Sharing> {
    let rank = scale.spec.shape.rank();
    if matches!(scaled::dtype(scale)?, DType::U8 | DType::F8E8M0) {
        return Ok(Sharing::Group(MX));
    }
    let blocks = cx.text("quant_algo").is_some_and(|a| a.starts_with("FP8_PB")) || rank == 4;
    let (high, wide) = match cx.quantization.get("weight_block_size") {
        Some(size) => fp8::block(size)?,
        None if blocks => BLOCK,
        None => return Ok(Sharing::RowOrAll),
    };
    Ok(Sharing::Blocks(high, wide))
}
