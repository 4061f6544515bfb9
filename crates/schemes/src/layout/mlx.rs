//! MLX: what `mlx_lm.convert` writes and mlx, mlx-lm and LM Studio read.
//!
//! A module's `weight` holds codes in 32-bit words, one dense stream of bits from the lowest on; `scales` and, for integers,
//! `biases` have a number per group, and `value = code * scale + bias`. Modes are named in the configuration, which stands there
//! twice, with entries for modules that differ. Embeddings and the output are quantized like every other module.
//!
//! Layout facts: `mlx/backend/cpu/quantized.cpp`, `mlx/nn/layers/quantized.py`, `quantize_model` and `load_model` in
//! `mlx_lm/utils.py` (mlx 0.32.4, mlx-lm 0.32.2).

use super::{Layout, Quantized, values, whole_groups};
use crate::{
    ops::{Numbers, Unpack, View, What, scale_type},
    packing::Packing,
    scheme::Scheme,
    source::{Found, SourceCx},
    target::{Coded, Place, Used, dtype_of},
};
use serde_json::{Map, Value as Json, json};
use tensormill_kernels::groups::{Code, Grid, Offset, ScaleType};
use tensormill_model::{Error, Expr, Model, Result, RowMap, Tensor};
use tensormill_tensor::{DType, Encoding, Shape};

/// `affine`, `mxfp4`, `nvfp4` and `mxfp8`, by the scheme's grid.
pub static MLX: &dyn Layout = &Mlx;

/// The keys of `config.json`: the one that mlx-lm reads and the one that the Hub's model tree does.
const KEYS: [&str; 2] = ["quantization", "quantization_config"];

/// A mode of `mx.quantize` that is no `affine` one: its name, codes, and scales, which files hold as bytes.
const FLOATS: [(&str, Code, ScaleType); 3] = [
    ("mxfp4", Code::E2M1, ScaleType::E8M0),
    ("nvfp4", Code::E2M1, ScaleType::E4M3),
    ("mxfp8", Code::E4M3, ScaleType::E8M0),
];

struct Mlx;

/// What the configuration says of a module that is quantized so.
fn settings(scheme: &Scheme) -> Json {
    let float =
        FLOATS.iter().find(|(_, code, scale)| (*code, Some(*scale)) == (scheme.grid.code, scheme.scale));
    json!({
        "group_size": scheme.grid.group,
        "bits": scheme.grid.code.bits(),
        "mode": float.map_or("affine", |f| f.0),
    })
}

impl Layout for Mlx {
    fn id(&self) -> &'static str {
        "mlx"
    }

    fn takes(&self, scheme: &Scheme, shape: &Shape) -> Result<()> {
        whole_groups(scheme, shape)
    }

    fn quantizes(&self, place: Place) -> bool {
        place != Place::Other
    }

    fn siblings(&self, w: &Coded<'_>) -> Result<Vec<Tensor>> {
        let packing = Packing::dense(w.grid.code.bits());
        let scales = w.part(What::Scales(dtype_of(w.scale)));
        let affine = w.grid.offset == Offset::Bias;
        let mut made = vec![
            w.tensor("weight", w.part(What::Codes(packing, DType::U32)))?,
            w.tensor("scales", if affine { scales } else { scales.apply(View(DType::U8)) })?,
        ];
        if affine {
            made.push(w.tensor("biases", w.part(What::Offsets(dtype_of(w.scale), 0)))?);
        }
        Ok(made)
    }

    fn config(&self, scheme: &Scheme, used: &[Used]) -> Result<Map<String, Json>> {
        let mut quantization = settings(scheme);
        for (u, other) in used.iter().filter_map(|u| Some((u, u.scheme?))) {
            if other.layout.id() != self.id() {
                return Err(Error::unsupported(format!("{} beside {} weights", other.name, scheme.name))
                    .tensor(format!("{}.weight", u.module))
                    .hint("MLX checkpoints hold MLX's own schemes: choose one whose name begins with mlx-"));
            }
            let mut own = settings(other);
            if own == settings(scheme) {
                continue;
            }
            if let Some(own) = own.as_object_mut().filter(|o| o["mode"] == "affine") {
                // What a module's entry means without it.
                own.remove("mode");
            }
            quantization[u.module.as_str()] = own;
        }
        Ok(KEYS.iter().map(|k| ((*k).to_owned(), quantization.clone())).collect())
    }

    fn finish(&self, model: &mut Model) -> Result<()> {
        // mlx-lm loads nothing else.
        model.metadata.set("format", "mlx");
        Ok(())
    }
}

/// Checkpoints of mlx-lm.
pub(crate) struct MlxCheckpoint;

/// How a module's weight is held.
struct Mode {
    name: String,
    numbers: Numbers,
}

impl Mode {
    fn of(cx: &SourceCx<'_>, module: &str, scales: &Tensor) -> Result<Self> {
        let own = cx.quantization.get(module).and_then(Json::as_object);
        let get = |key: &str| own.and_then(|o| o.get(key)).or_else(|| cx.quantization.get(key));
        // A module's own entry without a mode is affine, whatever the others are.
        let mode = match own {
            Some(own) => own.get("mode").and_then(Json::as_str),
            None => cx.text("mode"),
        };
        let mode = mode.unwrap_or("affine");
        let number =
            |key: &str, usual: u32| match get(key).map(|v| v.as_u64().and_then(|n| u32::try_from(n).ok())) {
                None => Ok(usual),
                Some(Some(n)) => Ok(n),
                Some(None) => {
                    Err(Error::malformed(format!("{key} of {module} is no number")).file("config.json"))
                }
            };
        let grid = |code, group, offset| Grid { code, group, rows: 1, offset, outer: false };
        let (grid, scale) = if mode == "affine" {
            let (group, bits) = (number("group_size", 64)?, number("bits", 4)?);
            if !matches!(bits, 2..=6 | 8) || !matches!(group, 16 | 32 | 64 | 128) {
                return Err(Error::unsupported(format!("MLX weights of {bits} bits in groups of {group}"))
                    .tensor(scales.name()));
            }
            (grid(Code::Int(bits as u8), group, Offset::Bias), scale_type(scales.spec.encoding))
        } else {
            let Some((_, code, scale)) = FLOATS.iter().find(|f| f.0 == mode) else {
                return Err(
                    Error::unsupported(format!("MLX's mode {mode:?} is not known")).tensor(scales.name())
                );
            };
            let group = number("group_size", if *scale == ScaleType::E4M3 { 16 } else { 32 })?;
            (grid(*code, group.max(1), Offset::None), *scale)
        };
        let name = match grid.code {
            Code::Int(bits) => format!("mlx {bits}-bit"),
            _ => format!("mlx {mode}"),
        };
        Ok(Self { name, numbers: Numbers::plain(grid, scale) })
    }
}

impl Quantized for MlxCheckpoint {
    fn name(&self) -> &'static str {
        "MLX"
    }

    fn claims(&self, cx: &SourceCx<'_>) -> bool {
        let words = |t: &Tensor| t.spec.encoding == Encoding::Plain(DType::U32);
        cx.method().is_none()
            && cx.quantization.contains_key("group_size")
            && cx.with_suffix(".scales").iter().any(|(m, _)| cx.of(m, "weight").is_some_and(words))
    }

    fn find(&self, cx: &SourceCx<'_>) -> Result<Vec<Found>> {
        let mut found = Vec::new();
        for (module, scales) in cx.with_suffix(".scales") {
            let packed = cx.need(&module, "weight")?;
            if packed.spec.encoding != Encoding::Plain(DType::U32) {
                continue;
            }
            if cx.of(&module, "global_scale").is_some() {
                return Err(Error::unsupported("MLX weights with a global scale cannot be read yet")
                    .tensor(packed.name()));
            }
            let Mode { name, numbers } = Mode::of(cx, &module, scales)?;
            let bits = u64::from(numbers.grid.code.bits());
            let columns = packed.spec.shape.row_len() * 32 / bits;
            let wanted = columns.div_ceil(u64::from(numbers.grid.group));
            if scales.spec.shape.row_len() != wanted {
                return Err(Error::malformed(format!(
                    "{} scales in a row of {columns} weights in groups of {}",
                    scales.spec.shape.row_len(),
                    numbers.grid.group
                ))
                .tensor(scales.name())
                .hint("config.json says other bits or groups than the file has"));
            }
            let codes = packed.expr.clone().apply(Unpack { packing: Packing::dense(bits as u32), columns });
            let mut parts = vec!["weight", "scales"];
            let mut inputs = vec![codes];
            if numbers.grid.offset == Offset::Bias {
                parts.push("biases");
                inputs.extend([scales.expr.clone(), cx.need(&module, "biases")?.expr.clone()]);
            } else {
                let as_float = if numbers.scale == ScaleType::E4M3 { DType::F8E4M3 } else { DType::F8E8M0 };
                inputs.push(scales.expr.clone().apply(View(as_float)));
            }
            let values = values(numbers, inputs);
            let used: Vec<String> = parts.iter().map(|p| format!("{module}.{p}")).collect();
            for (module, expr) in unstacked(module, values, &packed.spec.shape)? {
                found.push(Found {
                    name: format!("{module}.weight"),
                    used: used.clone(),
                    expr,
                    what: name.clone(),
                });
            }
        }
        Ok(found)
    }
}

/// The modules that a weight belongs to: mlx-lm stacks experts (`switch_mlp`), which the Hugging Face names do not.
fn unstacked(module: String, values: Expr, packed: &Shape) -> Result<Vec<(String, Expr)>> {
    let (experts, rows) = match packed.dims() {
        [_, _] => return Ok(vec![(module, values)]),
        [experts, rows, _] => (*experts, *rows),
        _ => return Err(Error::unsupported(format!("MLX weights of shape {packed}")).tensor(module)),
    };
    let Some((before, projection)) = module.split_once(".switch_mlp.") else {
        return Err(Error::unsupported("stacked MLX weights of a module that is not known").tensor(module));
    };
    // Mixtral's experts count their matrices.
    let counted = before.ends_with("block_sparse_moe");
    let projection = match projection {
        "gate_proj" if counted => "w1",
        "down_proj" if counted => "w2",
        "up_proj" if counted => "w3",
        other => other,
    };
    (0..experts)
        .map(|e| {
            let expr = values.clone().rows(RowMap::Slice { start: e * rows, len: rows });
            expr.form()?;
            Ok((format!("{before}.experts.{e}.{projection}"), expr))
        })
        .collect()
}
