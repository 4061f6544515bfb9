//! bitsandbytes: what transformers writes of models that it loaded in 4 or 8 bits.
//!
//! Facts: bitsandbytes 0.50, `functional.py` (`QuantState.as_dict`, `quantize_4bit`), `backends/default/ops.py` and
//! `nn/modules.py` (`Int8Params`). Blocks of 4-bit codes run through the flattened weight.

use super::{Layout, OfMatrix, Quantized, constant, floats, gptq::mixed, names, plain_modules, told, values};
use crate::{
    ops::{self, AllScales, Nest, Numbers, Part, Times, Unnest, Unpack, What},
    packing::{Order, Packing},
    scheme::{Flavour, Scheme},
    source::{Found, SourceCx},
    target::{Coded, Used},
};
use serde_json::{Map, Value as Json, json};
use std::sync::Arc;
use tensormill_kernels::groups::{Code, Grid, Offset, ScaleType, nested};
use tensormill_model::{Error, Expr, Result, Tensor};
use tensormill_tensor::{DType, Encoding, Shape};

/// 4 bits, `nf4` or `fp4` by the grid's code; with [`Flavour::NestedScales`] scales are quantized, too.
pub static BNB_4BIT: &dyn Layout = &FourBit;
/// 8 bits, a scale per row.
pub static BNB_8BIT: &dyn Layout = &EightBit;

struct FourBit;
struct EightBit;

const PACKING: Packing = Packing { order: Order::HighFirst, bits: 4, flip: 0 };
/// What the library multiplies by instead of dividing by 127: `7.874015718698502e-3`.
const PER_127: f32 = 7.874_016e-3;

fn quant_type(code: Code) -> &'static str {
    if code == Code::Nf4 { "nf4" } else { "fp4" }
}

/// The matrix whose rows hold whole blocks, of as many elements, where blocks run on from row to row: the weight itself where
/// its rows do. Its rows hold whole rows of the weight, so that what is known of columns is known of it.
///
/// # Errors
/// Sizes that cannot be represented.
pub fn blocks_of(shape: &Shape, block: u64) -> Result<Shape> {
    let (n, row) = (shape.elements(), shape.row_len());
    if row.is_multiple_of(block) {
        return Ok(Shape::new(vec![shape.rows(), row])?);
    }
    // The fewest rows that fill blocks.
    let (mut divisor, mut rest) = (row, block);
    while rest > 0 {
        (divisor, rest) = (rest, divisor % rest);
    }
    Ok(match (row / divisor).checked_mul(block) {
        Some(wide) if n.is_multiple_of(wide) => Shape::new(vec![n / wide, wide])?,
        _ => Shape::new(vec![1, n])?,
    })
}

impl Layout for FourBit {
    fn id(&self) -> &'static str {
        "bitsandbytes-4bit"
    }

    fn family(&self) -> &'static str {
        "bitsandbytes"
    }

    fn takes(&self, _: &Scheme, shape: &Shape) -> Result<()> {
        if !shape.elements().is_multiple_of(2) {
            return Err(Error::unsupported("an odd number of 4-bit codes"));
        }
        Ok(())
    }

    fn rounds_scales(&self, scheme: &Scheme) -> bool {
        scheme.flavour == Flavour::NestedScales
    }

    fn view(&self, scheme: &Scheme, shape: &Shape) -> Result<Shape> {
        blocks_of(shape, u64::from(scheme.grid.group.max(1)))
    }

    fn siblings(&self, w: &Coded<'_>) -> Result<Vec<Tensor>> {
        let view = self.view(w.scheme, w.shape)?;
        let (n, block) = (view.elements(), u64::from(w.grid.group.max(1)));
        let part = |what| w.bundle.clone().apply(Part { grid: w.grid, columns: view.row_len(), what });
        let kind = quant_type(w.grid.code);
        let dtype = match w.encoding {
            Encoding::Plain(DType::BF16) => "bfloat16",
            Encoding::Plain(DType::F16) => "float16",
            _ => "float32",
        };
        // As Python's json.dumps prints the dictionary.
        let dims: Vec<String> = w.shape.dims().iter().map(u64::to_string).collect();
        let state = format!(
            "{{\"quant_type\": \"{kind}\", \"blocksize\": {block}, \"dtype\": \"{dtype}\", \"shape\": [{}]",
            dims.join(", ")
        );
        let name = |s: &str| format!("{}.weight{s}", w.module);
        let state_name = name(&format!(".quant_state.bitsandbytes__{kind}"));
        let codes = part(What::Codes(PACKING, DType::U8)).reshape(Shape::new(vec![n / 2, 1])?);
        let map = floats(&w.grid.code.values()[..16])?;
        let mut out = vec![Tensor::new(name(""), codes)?];
        if w.scheme.flavour == Flavour::NestedScales {
            let scales = w.bundle.clone().apply(AllScales { grid: w.grid, columns: view.row_len() });
            let text = format!(
                "{state}, \"nested_blocksize\": {}, \"nested_dtype\": \"float32\", \"nested_offset\": ",
                nested::BLOCK
            );
            let nest = |what: Nest| scales.clone().apply(what);
            out.push(Tensor::new(name(".absmax"), nest(Nest::Codes))?);
            out.push(Tensor::new(name(".nested_absmax"), nest(Nest::Scales))?);
            out.push(Tensor::new(name(".nested_quant_map"), floats(&nested::map())?)?);
            out.push(Tensor::new(name(".quant_map"), map)?);
            out.push(Tensor::new(state_name, nest(Nest::State(text)))?);
        } else {
            let scales = part(What::Scales(DType::F32)).reshape(Shape::new(vec![n.div_ceil(block)])?);
            let text = (state + "}").into_bytes();
            out.push(Tensor::new(name(".absmax"), scales)?);
            out.push(Tensor::new(name(".quant_map"), map)?);
            out.push(Tensor::new(state_name, constant(vec![text.len() as u64], DType::U8, text)?)?);
        }
        Ok(out)
    }

    fn config(&self, scheme: &Scheme, used: &[Used]) -> Result<Map<String, Json>> {
        config(scheme, used, true)
    }
}

impl Layout for EightBit {
    fn id(&self) -> &'static str {
        "bitsandbytes-8bit"
    }

    fn takes(&self, _: &Scheme, _: &Shape) -> Result<()> {
        Ok(())
    }

    fn rounded(&self) -> Option<DType> {
        // `Int8Params` quantizes what it made of the weight in binary16.
        Some(DType::F16)
    }

    fn outer(&self, _: &Scheme) -> Option<OfMatrix> {
        Some(OfMatrix::Constant(PER_127))
    }

    fn family(&self) -> &'static str {
        "bitsandbytes"
    }

    fn siblings(&self, w: &Coded<'_>) -> Result<Vec<Tensor>> {
        let scales = w.part(What::Scales(DType::F32)).reshape(Shape::new(vec![w.rows])?);
        Ok(vec![
            w.tensor("SCB", scales)?,
            w.tensor("weight", w.part(What::Codes(Packing::SIGNED, DType::I8)))?,
            // Rows as they are.
            w.tensor("weight_format", constant(Vec::new(), DType::U8, vec![0])?)?,
        ])
    }

    fn config(&self, scheme: &Scheme, used: &[Used]) -> Result<Map<String, Json>> {
        config(scheme, used, false)
    }
}

/// The module that is left out where nothing is said.
const OUTPUT: &str = "lm_head";

/// `BitsAndBytesConfig.to_dict` of transformers 5.23.
fn config(scheme: &Scheme, used: &[Used], four: bool) -> Result<Map<String, Json>> {
    if let Some(other) = used.iter().filter_map(|u| u.scheme).find(|s| {
        // Blocks and code books are told of beside each weight.
        s.layout.id() != scheme.layout.id()
    }) {
        return Err(mixed("bitsandbytes", scheme, other));
    }
    let mut plain = plain_modules(used);
    plain.retain(|m| *m != OUTPUT);
    // A list replaces what is left out otherwise: the output.
    let skipped = if used.iter().any(|u| u.module == OUTPUT && u.scheme.is_some()) {
        json!(plain)
    } else if plain.is_empty() {
        Json::Null
    } else {
        plain.push(OUTPUT);
        json!(plain)
    };
    let method = json!({
        "_load_in_4bit": four,
        "_load_in_8bit": !four,
        "bnb_4bit_compute_dtype": if four { "bfloat16" } else { "float32" },
        "bnb_4bit_quant_storage": "uint8",
        "bnb_4bit_quant_type": quant_type(scheme.grid.code),
        "bnb_4bit_use_double_quant": scheme.flavour == Flavour::NestedScales,
        "llm_int8_enable_fp32_cpu_offload": false,
        "llm_int8_has_fp16_weight": false,
        "llm_int8_skip_modules": skipped,
        "llm_int8_threshold": 6.0,
        "load_in_4bit": four,
        "load_in_8bit": !four,
        "quant_method": "bitsandbytes",
    });
    Ok(told(method))
}

/// Checkpoints of transformers with bitsandbytes.
pub(crate) struct BnbCheckpoint;

const STATES: [(&str, Code); 2] =
    [(".quant_state.bitsandbytes__nf4", Code::Nf4), (".quant_state.bitsandbytes__fp4", Code::Fp4)];

impl Quantized for BnbCheckpoint {
    fn name(&self) -> &'static str {
        "bitsandbytes"
    }

    fn claims(&self, cx: &SourceCx<'_>) -> bool {
        match cx.method() {
            Some(method) => method == "bitsandbytes",
            None => STATES.iter().any(|(s, _)| !cx.with_suffix(s).is_empty()),
        }
    }

    fn find(&self, cx: &SourceCx<'_>) -> Result<Vec<Found>> {
        let mut out = Vec::new();
        for (suffix, code) in STATES {
            for (weight, state) in cx.with_suffix(suffix) {
                out.push(four_bit(cx, &weight, state, code)?);
            }
        }
        for (module, scales) in cx.with_suffix(".SCB") {
            out.push(eight_bit(cx, &module, scales)?);
        }
        Ok(out)
    }
}

/// Bytes of a state: far more than one takes.
const STATE: u64 = 1 << 14;

/// What the state of a 4-bit weight says.
struct State {
    block: u64,
    shape: Shape,
    /// Block and offset of scales that are codes.
    nested: Option<(u64, f32)>,
}

fn block(json: &Map<String, Json>, key: &str) -> Option<u64> {
    json.get(key)?.as_u64().filter(|b| b.is_power_of_two() && (16..=1 << 16).contains(b))
}

impl State {
    fn parse(bytes: &[u8], code: Code) -> Result<Self> {
        let json: Map<String, Json> = serde_json::from_slice(bytes)
            .map_err(|e| Error::malformed(format!("the state of a 4-bit weight is no JSON object: {e}")))?;
        let wrong =
            |key: &str| Error::malformed(format!("the state of a 4-bit weight has no usable {key:?}"));
        if json.get("quant_type").and_then(Json::as_str) != Some(quant_type(code)) {
            return Err(wrong("quant_type"));
        }
        let dims = json.get("shape").and_then(Json::as_array).filter(|d| (1..=8).contains(&d.len()));
        let dims =
            dims.and_then(|d| d.iter().map(|n| n.as_u64().filter(|n| *n > 0)).collect::<Option<Vec<_>>>());
        let shape = Shape::new(dims.ok_or_else(|| wrong("shape"))?)?;
        let nested = if json.contains_key("nested_blocksize") {
            let offset = json.get("nested_offset").and_then(Json::as_f64).map(|o| o as f32);
            let offset = offset.filter(|o| o.is_finite()).ok_or_else(|| wrong("nested_offset"))?;
            Some((block(&json, "nested_blocksize").ok_or_else(|| wrong("nested_blocksize"))?, offset))
        } else {
            None
        };
        Ok(Self { block: block(&json, "blocksize").ok_or_else(|| wrong("blocksize"))?, shape, nested })
    }
}

fn four_bit(cx: &SourceCx<'_>, weight: &str, state_tensor: &Tensor, code: Code) -> Result<Found> {
    if state_tensor.spec.bytes()? > STATE {
        return Err(
            Error::malformed("is larger than the state of a 4-bit weight").tensor(state_tensor.name())
        );
    }
    let state = State::parse(&cx.peek(state_tensor)?, code).map_err(|e| e.tensor(state_tensor.name()))?;
    let packed = cx.must(weight, "the codes of a 4-bit weight are missing")?;
    let (absmax, map) = (cx.need(weight, "absmax")?, cx.need(weight, "quant_map")?);
    check_map(&cx.peek(map)?, code).map_err(|e| e.tensor(map.name()))?;
    let view = blocks_of(&state.shape, state.block)?;
    let n = view.elements();
    // Codes may be stored in elements of any type.
    let size = match packed.spec.encoding {
        Encoding::Plain(d) if matches!(d.bits(), 8 | 16 | 32) => d.bits() / 8,
        other => return Err(Error::malformed(format!("4-bit codes in {other}")).tensor(packed.name())),
    };
    let (bytes, row) = (packed.spec.bytes()?, view.row_len().div_ceil(2));
    if bytes != n.div_ceil(2).next_multiple_of(size) {
        return Err(Error::malformed(format!(
            "{bytes} bytes of 4-bit codes for a weight of shape {}",
            state.shape
        ))
        .tensor(packed.name()));
    }
    let row = row.div_ceil(size);
    let codes = packed.expr.clone().reshape(Shape::new(vec![view.rows(), row])?);
    let groups = view.row_len().div_ceil(state.block);
    if absmax.spec.shape.elements() != view.rows() * groups {
        return Err(Error::malformed(format!(
            "{} scales for {} blocks of {}",
            absmax.spec.shape,
            view.rows() * groups,
            state.block
        ))
        .tensor(absmax.name()));
    }
    let scales = absmax.expr.clone().reshape(Shape::new(vec![view.rows(), groups])?);
    let mut used = names([packed, absmax, map, state_tensor].map(Some));
    let scales = match state.nested {
        None => {
            super::typed(absmax, &[DType::F32])?;
            scales
        }
        Some((block, offset)) => {
            let (outer, map) = (cx.need(weight, "nested_absmax")?, cx.need(weight, "nested_quant_map")?);
            used.extend(names([outer, map].map(Some)));
            let inputs = vec![scales, outer.expr.clone(), map.expr.clone()];
            let scales = Expr::Apply { op: Arc::new(Unnest { block, offset }), inputs };
            scales.form().map_err(|e| e.tensor(absmax.name()))?;
            scales
        }
    };
    let group = u32::try_from(state.block).map_err(|_| Error::malformed("too long a block"))?;
    let grid = Grid { code, group, rows: 1, offset: Offset::None, outer: false };
    let codes = codes.apply(Unpack { packing: PACKING, columns: view.row_len() });
    let expr = values(Numbers::plain(grid, ScaleType::F32), vec![codes, scales]);
    let expr = if view == state.shape { expr } else { expr.reshape(state.shape) };
    let double = if state.nested.is_some() { ", double quantization" } else { "" };
    Ok(Found {
        name: weight.to_owned(),
        used,
        expr,
        what: format!("bitsandbytes {}{double}", quant_type(code)),
    })
}

/// That codes stand for what they are known to stand for.
fn check_map(bytes: &[u8], code: Code) -> Result<()> {
    let known = code.values();
    let same = |(a, b): (f32, f32)| (a - b).abs() <= 1e-6;
    if bytes.len() != 64 || !ops::floats(bytes).zip(known).all(same) {
        return Err(Error::unsupported(format!("a code book of its own for {}", quant_type(code)))
            .hint("only the code books of bitsandbytes are known"));
    }
    Ok(())
}

fn eight_bit(cx: &SourceCx<'_>, module: &str, scales: &Tensor) -> Result<Found> {
    let weight = cx.need(module, "weight")?;
    let (rows, columns) = super::matrix(weight, &[DType::I8])?;
    super::typed(scales, &[DType::F32])?;
    if scales.spec.shape.elements() != rows {
        return Err(
            Error::malformed(format!("{} scales for {rows} rows", scales.spec.shape)).tensor(scales.name())
        );
    }
    let format = cx.of(module, "weight_format");
    if let Some(format) = format {
        let bytes = cx.peek(format)?;
        if bytes.iter().any(|b| *b != 0) {
            return Err(Error::unsupported("8-bit weights in the tiles of one kind of GPU")
                .tensor(format.name())
                .hint(
                    "load the model with bitsandbytes on such a GPU and save it again with a newer version",
                ));
        }
    }
    let grid = Grid { code: Code::Int(8), group: 0, rows: 1, offset: Offset::Middle, outer: false };
    let codes = weight.expr.clone().apply(Unpack { packing: Packing::SIGNED, columns });
    let inputs = vec![codes, scales.expr.clone().reshape(Shape::new(vec![rows, 1])?)];
    // The library multiplies codes by scales first.
    let expr = values(Numbers::plain(grid, ScaleType::F32), inputs).apply(Times(PER_127));
    let used = names([Some(weight), Some(scales), format]);
    Ok(Found { name: weight.name().to_owned(), used, expr, what: "bitsandbytes int8".to_owned() })
}
