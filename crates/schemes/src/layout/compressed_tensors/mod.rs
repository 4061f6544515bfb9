//! compressed-tensors: what llm-compressor writes, and vLLM, SGLang and transformers read.
//!
//! Layout facts: `compressors/pack_quantized/base.py`, `quantization/quant_config.py` of compressed-tensors 0.20.

use super::{Layout, Quantized, whole_groups};
use crate::{
    ops::{Join, Numbers, Part, Unpack, Values, What},
    packing::{Order, Packing},
    scheme::Scheme,
    source::{Found, SourceCx},
    target::{Coded, Used, dtype_of},
};
use serde_json::{Map, Value as Json, json};
use std::sync::Arc;
use tensormill_kernels::groups::{Code, Grid, Offset, ScaleType};
use tensormill_model::{Error, Expr, Form, Result, Tensor};
use tensormill_tensor::{DType, Encoding, Shape};

/// `pack-quantized`: integers of up to 8 bits, packed along the columns.
pub static PACK_QUANTIZED: &dyn Layout = &PackQuantized;

struct PackQuantized;

impl Layout for PackQuantized {
    fn id(&self) -> &'static str {
        "pack-quantized"
    }

    fn takes(&self, scheme: &Scheme, shape: &Shape) -> Result<()> {
        whole_groups(scheme, shape)
    }

    fn siblings(&self, w: &Coded<'_>) -> Result<Vec<Tensor>> {
        let part = |what| w.bundle.clone().apply(Part { grid: w.grid, columns: w.columns, what });
        let packing = Packing::dense(w.grid.code.bits());
        let dims: Vec<u8> = [w.rows, w.columns].iter().flat_map(|d| (*d as i64).to_le_bytes()).collect();
        let form = Form::new(Shape::new(vec![2])?, Encoding::Plain(DType::I64));
        Ok(vec![
            Tensor::new(format!("{}.weight_packed", w.module), part(What::Codes(packing, DType::I32)))?,
            Tensor::new(format!("{}.weight_scale", w.module), part(What::Scales(dtype_of(w.scale))))?,
            Tensor::new(format!("{}.weight_shape", w.module), Expr::Const { form, bytes: dims.into() })?,
        ])
    }

    fn config(&self, scheme: &Scheme, used: &[Used]) -> Result<Map<String, Json>> {
        config("pack-quantized", scheme, used)
    }
}

/// `quantization_config` of a mixture.
fn config(format: &str, scheme: &Scheme, used: &[Used]) -> Result<Map<String, Json>> {
    let ignore: Vec<&str> = used.iter().filter(|u| u.scheme.is_none()).map(|u| u.module.as_str()).collect();
    let weights = json!({
        "num_bits": scheme.grid.code.bits(),
        "type": "int",
        "symmetric": true,
        "group_size": if scheme.grid.group == 0 { Json::Null } else { json!(scheme.grid.group) },
        "strategy": if scheme.grid.group == 0 { "channel" } else { "group" },
        "block_structure": null,
        "dynamic": false,
        "actorder": null,
        "observer": "minmax",
        "observer_kwargs": {},
    });
    let group = json!({
        "targets": ["Linear"],
        "weights": weights,
        "input_activations": null,
        "output_activations": null,
        "format": format,
    });
    let mut out = Map::new();
    out.insert(
        "quantization_config".to_owned(),
        json!({
            "quant_method": "compressed-tensors",
            "format": format,
            "quantization_status": "compressed",
            "config_groups": { "group_0": group },
            "ignore": ignore,
            "kv_cache_scheme": null,
            "global_compression_ratio": null,
            "version": "0.20.0",
        }),
    );
    Ok(out)
}

/// Checkpoints of compressed-tensors.
pub(crate) struct CompressedTensors;

impl Quantized for CompressedTensors {
    fn name(&self) -> &'static str {
        "compressed-tensors"
    }

    fn claims(&self, cx: &SourceCx<'_>) -> bool {
        cx.method() == Some("compressed-tensors")
    }

    fn find(&self, cx: &SourceCx<'_>) -> Result<Vec<Found>> {
        let mut found = Vec::new();
        for (module, packed) in cx.with_suffix(".weight_packed") {
            let shape = cx.need(&module, "weight_shape")?;
            let dims: Vec<u64> =
                cx.peek(shape)?.as_chunks::<8>().0.iter().map(|b| u64::from_le_bytes(*b)).collect();
            let &[rows, columns] = dims.as_slice() else {
                return Err(Error::malformed("weight_shape must have two numbers").tensor(shape.name()));
            };
            let scale = cx.need(&module, "weight_scale")?;
            let groups = scale.spec.shape.row_len();
            let group = if groups <= 1 { 0 } else { columns.div_ceil(groups) as u32 };
            let bits = (packed.spec.shape.row_len() * 32 / columns.max(1)) as u8;
            let packing = Packing { order: Order::Dense, bits: u32::from(bits), flip: 0 };
            let grid = Grid { code: Code::Int(bits), group, rows: 1, offset: Offset::Middle, outer: false };
            let numbers = Numbers::plain(grid, ScaleType::BF16);
            let codes = packed.expr.clone().apply(Unpack { packing, columns });
            if codes.form()?.shape.rows() != rows {
                return Err(Error::malformed("weight_shape and weight_packed disagree").tensor(packed.name()));
            }
            let _ = Join(numbers);
            let expr = Expr::Apply {
                op: Arc::new(Values { numbers, to: DType::F32 }),
                inputs: vec![codes, scale.expr.clone()],
            };
            found.push(Found {
                name: format!("{module}.weight"),
                used: ["weight_packed", "weight_scale", "weight_shape"]
                    .iter()
                    .map(|s| format!("{module}.{s}"))
                    .collect(),
                expr,
                what: format!("pack-quantized {bits}-bit"),
            });
        }
        Ok(found)
    }
}
