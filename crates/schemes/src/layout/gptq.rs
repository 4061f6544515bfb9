//! GPTQ: what GPTQModel and AutoGPTQ write; codes packed down the rows of the transposed matrix.
//!
//! Facts: GPTQModel 7.7, `nn_modules/qlinear/__init__.py` (`pack_original`, `dequantize_weight`) and `utils/model.py`
//! (`convert_gptq_v2_to_v1_format_module`).

use super::{
    File, Layout, Quantized, group_size, names, packed_points, regular, told, transposed, uniform_points,
    values, whole_groups,
};
use crate::{
    ops::{Gather, GroupIndex, Numbers, Pack, Shifted, Unpack, What},
    packing::Packing,
    scheme::{Flavour, Scheme},
    source::{Found, SourceCx},
    target::{Coded, Used, dtype_of},
};
use serde_json::{Map, Value as Json, json};
use std::sync::Arc;
use tensormill_kernels::groups::{Code, Grid, Offset};
use tensormill_model::{Error, Expr, Result, Tensor};
use tensormill_tensor::{DType, Shape};

/// GPTQ, in its first format unless it is [`Flavour::GptqV2`].
pub static GPTQ: &dyn Layout = &Gptq;

struct Gptq;

impl Layout for Gptq {
    fn id(&self) -> &'static str {
        "gptq"
    }

    fn takes(&self, scheme: &Scheme, shape: &Shape) -> Result<()> {
        whole_groups(scheme, shape)?;
        let bits = u64::from(scheme.grid.code.bits());
        // Codes of three bits fill three words together.
        let whole = |n: u64| (n * bits).is_multiple_of(32) && (bits != 3 || n.is_multiple_of(32));
        if !whole(shape.row_len()) || !whole(shape.rows()) {
            return Err(Error::unsupported(format!("{bits}-bit codes do not fill whole words")));
        }
        Ok(())
    }

    fn siblings(&self, w: &Coded<'_>) -> Result<Vec<Tensor>> {
        let bits = w.grid.code.bits();
        let packing = Packing::dense(bits);
        // Words of a row's codes, transposed, are words of codes down a column.
        let codes = w.part(What::Codes(packing, DType::I32)).transpose();
        let points = w.part(What::Offsets(DType::U8, 0)).transpose().apply(Pack { packing, to: DType::I32 });
        let points = match w.scheme.flavour {
            Flavour::GptqV2 => points,
            _ => points.apply(Shifted { bits, up: false }),
        };
        let scales = w.part(What::Scales(dtype_of(w.scale))).transpose();
        let group = w.grid.group_len(w.columns as usize) as u64;
        let index =
            Expr::Apply { op: Arc::new(GroupIndex { columns: w.columns, group }), inputs: Vec::new() };
        Ok(vec![
            w.tensor("g_idx", index)?,
            w.tensor("qweight", codes)?,
            w.tensor("qzeros", points)?,
            w.tensor("scales", scales)?,
        ])
    }

    fn config(&self, scheme: &Scheme, used: &[Used]) -> Result<Map<String, Json>> {
        let settings = |s: &Scheme| (s.grid.code.bits(), group_size(s.grid), s.grid.offset == Offset::Middle);
        let (bits, group, sym) = settings(scheme);
        let format = if scheme.flavour == Flavour::GptqV2 { "gptq_v2" } else { "gptq" };
        let mut dynamic = Map::new();
        for u in used {
            // A regular expression, and the whole name.
            let pattern = format!("^{}$", regex::escape(&u.module));
            match u.scheme {
                // Of the output another entry speaks.
                None if u.module == "lm_head" => {}
                None => drop(dynamic.insert(format!("-:{pattern}"), json!({}))),
                Some(s) if s.layout.id() != "gptq" || s.flavour != scheme.flavour => {
                    return Err(mixed("GPTQ", scheme, s));
                }
                Some(s) if settings(s) != settings(scheme) => {
                    let (bits, group, sym) = settings(s);
                    let other = json!({ "bits": bits, "group_size": group, "sym": sym });
                    dynamic.insert(format!("+:{pattern}"), other);
                }
                Some(_) => {}
            }
        }
        let mut method = json!({
            "bits": bits,
            "checkpoint_format": format,
            "desc_act": false,
            "format": format,
            "group_size": group,
            "lm_head": used.iter().any(|u| u.module == "lm_head" && u.scheme.is_some()),
            "meta": { "quantizer": [concat!("tensormill:", env!("CARGO_PKG_VERSION"))], "true_sequential": false },
            "method": "gptq",
            "pack_dtype": "int32",
            "quant_method": "gptq",
            "sym": sym,
        });
        if !dynamic.is_empty() {
            method["dynamic"] = dynamic.into();
        }
        Ok(told(method))
    }

    fn files(&self, config: &Map<String, Json>) -> Vec<File> {
        // What GPTQModel looks for first; the same entries.
        let text = config.get("quantization_config").map(|c| format!("{c:#}\n")).unwrap_or_default();
        vec![File { name: "quantize_config.json", bytes: text.into_bytes() }]
    }
}

/// That one configuration cannot tell of two schemes.
pub(super) fn mixed(world: &str, one: &Scheme, other: &Scheme) -> Error {
    Error::unsupported(format!("{world} checkpoints cannot hold {} beside {}", other.name, one.name))
        .hint("let rules name schemes of one layout, or `plain`")
}

/// Checkpoints of `GPTQModel`, `AutoGPTQ` and those who write as they do.
pub(crate) struct GptqCheckpoint;

/// How zero points are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    /// Less one.
    V1,
    /// As they are.
    V2,
}

/// The tensors of a module, checked.
struct Module<'a> {
    name: String,
    codes: &'a Tensor,
    points: &'a Tensor,
    scales: &'a Tensor,
    index: Option<&'a Tensor>,
    bits: u32,
    rows: u64,
    columns: u64,
    groups: u64,
    /// Columns of a group; `None`: as the index says.
    group: Option<u32>,
    /// The stored zero point, where there is only one.
    same: Option<u8>,
}

impl Quantized for GptqCheckpoint {
    fn name(&self) -> &'static str {
        "GPTQ"
    }

    fn claims(&self, cx: &SourceCx<'_>) -> bool {
        match cx.method() {
            Some("gptq") => true,
            // What AutoRound writes for GPTQ's readers.
            Some("auto-round" | "intel/auto-round") => {
                cx.text("packing_format").is_some_and(|f| f.contains("gptq"))
            }
            Some(_) => false,
            None => !cx.with_suffix(".qweight").is_empty() && !cx.with_suffix(".g_idx").is_empty(),
        }
    }

    fn find(&self, cx: &SourceCx<'_>) -> Result<Vec<Found>> {
        let modules = cx
            .with_suffix(".qweight")
            .into_iter()
            .map(|(name, codes)| module(cx, name, codes))
            .collect::<Result<Vec<_>>>()?;
        let symmetric = cx.flag("sym") != Some(false);
        // Where zero points are no news, they tell themselves.
        let version = if symmetric && modules.iter().all(|m| m.same.is_some()) {
            Version::told(cx)
        } else {
            by_values(cx, &modules)?.unwrap_or_else(|| Version::told(cx))
        };
        modules.into_iter().map(|m| m.found(symmetric, version)).collect()
    }
}

impl Version {
    /// What the configuration says. `GPTQModel` 5 wrote `gptq` over zero points of the second format: values decide.
    fn told(cx: &SourceCx<'_>) -> Self {
        let format = cx.text("checkpoint_format").or_else(|| cx.text("format"));
        if format == Some("gptq_v2") { Self::V2 } else { Self::V1 }
    }
}

/// The dimensions of a matrix of a type.
fn matrix(t: &Tensor, dtype: DType) -> Result<(u64, u64)> {
    super::matrix(t, &[dtype])
}

/// Whether so many codes fill so many words.
fn fills(words: u64, bits: u32, codes: u64) -> bool {
    codes.checked_mul(u64::from(bits)).is_some_and(|n| n.div_ceil(32) == words)
}

fn module<'a>(cx: &SourceCx<'a>, name: String, codes: &'a Tensor) -> Result<Module<'a>> {
    let (words, rows) = matrix(codes, DType::I32)?;
    let scales = cx.need(&name, "scales")?;
    let (groups, of) = super::matrix(scales, &[DType::F16, DType::BF16, DType::F32])?;
    let points = cx.need(&name, "qzeros")?;
    let index = cx.of(&name, "g_idx");
    let told = cx.number("bits").and_then(|b| u32::try_from(b).ok()).filter(|b| (1..=8).contains(b));
    let columns = match (index, told) {
        (Some(index), _) => index.spec.shape.elements(),
        (None, Some(bits)) => words * 32 / u64::from(bits),
        (None, None) => {
            return Err(
                Error::malformed("neither g_idx nor `bits` tells how wide codes are").tensor(codes.name())
            );
        }
    };
    let widths = told.into_iter().chain([4, 8, 2, 3, 5, 6, 7]);
    let bits = { widths }.find(|b| columns > 0 && fills(words, *b, columns)).ok_or_else(|| {
        Error::malformed(format!("{words} words a column are no codes of {columns} columns"))
            .tensor(codes.name())
    })?;
    if !matches!(bits, 2 | 3 | 4 | 8) {
        return Err(Error::unsupported(format!(
            "{bits}-bit codes in bit planes, which only GPTQModel writes"
        ))
        .tensor(codes.name())
        .hint("quantize the original model again, to 2, 3, 4 or 8 bits"));
    }
    let (high, wide) = matrix(points, DType::I32)?;
    if of != rows || high != groups || groups == 0 || rows == 0 || !fills(wide, bits, rows) {
        return Err(Error::malformed(format!(
            "scales {} and zero points {} do not belong to {rows} outputs of {bits} bits",
            scales.spec.shape, points.spec.shape
        ))
        .tensor(codes.name()));
    }
    let group = match index {
        Some(index) => indexed(cx, index, groups)?,
        None => Some(regular(cx, columns, groups).ok_or_else(|| {
            Error::malformed(format!("{groups} groups do not divide {columns} columns")).tensor(scales.name())
        })?),
    };
    let packing = Packing::dense(bits);
    let same = uniform_points(&cx.peek(points)?, packing, wide, rows);
    Ok(Module { name, codes, points, scales, index, bits, rows, columns, groups, group, same })
}

/// Columns of a group where groups stand one after another, 0 for one group; `None` where they do not.
fn indexed(cx: &SourceCx<'_>, index: &Tensor, groups: u64) -> Result<Option<u32>> {
    super::typed(index, &[DType::I32])?;
    let bytes = cx.peek(index)?;
    let of: Vec<i32> = bytes.as_chunks::<4>().0.iter().map(|b| i32::from_le_bytes(*b)).collect();
    if let Some((column, g)) =
        of.iter().enumerate().find(|(_, g)| u64::try_from(**g).is_ok_and(|g| g >= groups) || **g < 0)
    {
        return Err(Error::malformed(format!("column {column} is of group {g}; there are {groups}"))
            .tensor(index.name()));
    }
    let group = of.iter().position(|g| *g != of[0]).unwrap_or(of.len());
    let regular = of.iter().enumerate().all(|(i, g)| (i / group.max(1)) as i32 == *g);
    let whole = group as u64 == of.len() as u64;
    Ok(match (regular && of.len().div_ceil(group.max(1)) as u64 == groups, whole) {
        (true, true) => Some(0),
        (true, false) => u32::try_from(group).ok(),
        (false, _) => None,
    })
}

/// Codes that are looked at to tell versions apart.
const SAMPLE: u64 = 1 << 22;

/// The version of zero points that are not all the same, by values: weights are as often above zero as below, so their mean
/// code is their mean zero point. `None` where that does not tell.
fn by_values(cx: &SourceCx<'_>, modules: &[Module<'_>]) -> Result<Option<Version>> {
    let mut sample: Vec<&Module<'_>> = modules.iter().collect();
    sample.sort_by_key(|m| m.codes.spec.shape.elements());
    let (mut seen, mut above) = (0u64, [0f64; 2]);
    for m in sample {
        let n = m.rows * m.columns;
        if seen > 0 && seen + n > SAMPLE || m.codes.spec.shape.elements() > SAMPLE {
            break;
        }
        let packing = Packing::dense(m.bits);
        let codes = cx.peek(m.codes)?;
        // Means want each code once, in whatever order: of words down columns those of 3 bits would have to be turned.
        let words: Vec<u8> = turned(&codes, m.rows as usize);
        let of_column = words.len() / m.rows as usize;
        let mut code = vec![0; m.columns as usize];
        let mut total = 0u64;
        for column in words.chunks_exact(of_column) {
            packing.unpack(column, &mut code);
            total += code.iter().map(|c| u64::from(*c)).sum::<u64>();
        }
        let stored = cx.peek(m.points)?;
        for (above, version) in above.iter_mut().zip([Version::V1, Version::V2]) {
            let mut points = stored.clone();
            let row = points.len() / m.groups as usize;
            if version == Version::V1 {
                Shifted { bits: m.bits, up: true }.apply(&mut points, row);
            }
            let mut point = vec![0; m.rows as usize];
            let mut sum = 0u64;
            for row in points.chunks_exact(row) {
                packing.unpack(row, &mut point);
                sum += point.iter().map(|p| u64::from(*p)).sum::<u64>();
            }
            let mean = sum as f64 / (m.groups * m.rows) as f64;
            *above += total as f64 - mean * n as f64;
        }
        seen += n;
    }
    let [first, second] = above.map(|a| (a / seen.max(1) as f64).abs());
    // Another version is one step off; noise is far less for as many codes as a layer has.
    Ok(if seen == 0 || (first - second).abs() < 0.3 {
        None
    } else if first < second {
        Some(Version::V1)
    } else {
        Some(Version::V2)
    })
}

/// A matrix of words of so many columns, transposed.
fn turned(words: &[u8], columns: usize) -> Vec<u8> {
    let words = words.as_chunks::<4>().0;
    (0..columns).flat_map(|c| words[c..].iter().step_by(columns).flatten().copied()).collect()
}

impl Module<'_> {
    /// The version of this module's zero points, and the zero point where it is the middle everywhere.
    fn version(&self, symmetric: bool, version: Version) -> (Version, bool) {
        let middle = 1u8 << (self.bits - 1);
        match self.same {
            Some(p) if symmetric && p == middle - 1 => (Version::V1, true),
            Some(p) if symmetric && p == middle => (Version::V2, true),
            Some(p) => (version, p == if version == Version::V1 { middle - 1 } else { middle }),
            None => (version, false),
        }
    }

    fn found(self, symmetric: bool, version: Version) -> Result<Found> {
        let (version, middle) = self.version(symmetric, version);
        let packing = Packing::dense(self.bits);
        let codes = self.codes.expr.clone().transpose().apply(Unpack { packing, columns: self.columns });
        let mut numbers = vec![transposed(self.scales)];
        if !middle {
            let points = self.points.expr.clone();
            let points = match version {
                Version::V1 => points.apply(Shifted { bits: self.bits, up: true }),
                Version::V2 => points,
            };
            numbers.push(packed_points(points, packing, self.rows));
        }
        if let (None, Some(index)) = (self.group, self.index) {
            for n in &mut numbers {
                let inputs = vec![n.clone(), index.expr.clone()];
                *n = Expr::Apply { op: Arc::new(Gather), inputs };
            }
        }
        let grid = Grid {
            code: Code::Int(self.bits as u8),
            group: self.group.unwrap_or(1),
            rows: 1,
            offset: if middle { Offset::Middle } else { Offset::Point },
            outer: false,
        };
        let numbers_of = Numbers::plain(grid, super::scale_type(self.scales)?);
        let expr = values(numbers_of, std::iter::once(codes).chain(numbers).collect());
        let order = if self.group.is_none() { ", act-order" } else { "" };
        let flavour = match version {
            Version::V1 => "",
            Version::V2 => " v2",
        };
        Ok(Found {
            name: format!("{}.weight", self.name),
            used: names([Some(self.codes), Some(self.points), Some(self.scales), self.index]),
            expr,
            what: format!("GPTQ{flavour} {}-bit{order}", self.bits),
        })
    }
}
