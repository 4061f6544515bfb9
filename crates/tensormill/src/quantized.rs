//! Quantized checkpoints as sources, and schemes as targets: `tensormill-schemes` with what this crate knows of files,
//! configurations and architectures.

use crate::{inspect::QuantizedRow, onnx, source::Source};
use serde_json::{Map, Value as Json};
use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};
use tensormill_graph::Origin;
use tensormill_model::{Assets, Error, Expr, Form, Model, Reader, Result, Tensor};
use tensormill_schemes::{CONFIG_KEYS, Opened, layout::is_about_caches, with_scales};
use tensormill_tensor::{Encoding, decode_plain};
use tensormill_transforms::Dequantize;

/// Quantizers' own files beside `config.json`, which say nothing of plain weights: ModelOpt's, GPTQ's and AWQ's.
pub(crate) const QUANTIZERS: [&str; 3] =
    ["hf_quant_config.json", "quantize_config.json", "quant_config.json"];

/// Side files, with one in place of another, and without [`QUANTIZERS`].
struct Overlaid {
    inner: Arc<dyn Assets>,
    name: &'static str,
    bytes: Vec<u8>,
}

impl Assets for Overlaid {
    fn name(&self) -> &str {
        self.inner.name()
    }
    fn list(&self) -> Vec<String> {
        let mut list = self.inner.list();
        list.retain(|n| !QUANTIZERS.contains(&n.as_str()));
        list
    }
    fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        match name {
            _ if name == self.name => Ok(Some(self.bytes.clone())),
            _ if QUANTIZERS.contains(&name) => Ok(None),
            _ => self.inner.read(name),
        }
    }
}

/// The model that a quantized checkpoint stands for, as the source's model; its tensors as files have them stay at
/// [`Source::packed`]. Does nothing with a source that is not quantized in a way that is known.
///
/// # Errors
/// Damaged checkpoints.
pub(crate) fn open(source: &mut Source) -> Result<()> {
    if source.is_gguf() || source.packed.is_some() {
        return Ok(());
    }
    if let Some(n) = in_graph(source) {
        let reader = &source.readers[0];
        let assets = Arc::clone(&source.model.assets);
        let (model, notes) = onnx::recovered(reader, 0, assets, Some(&onnx::decode))?;
        source.notes = notes;
        source.notes.push(format!("quantized weights (ONNX operators on codes): {n}"));
        source.packed = Some(std::mem::replace(&mut source.model, model));
        return Ok(());
    }
    let Some((opened, mut config)) = find(source)? else { return Ok(()) };
    let counts: Vec<String> = opened.counts.iter().map(|(what, n)| format!("{n} {what}")).collect();
    if !counts.is_empty() {
        source.notes.push(format!("quantized weights ({}): {}", opened.kind, counts.join(", ")));
    }
    let mut left = left_out(opened.dropped.iter().map(String::as_str));
    let inputs = opened.dropped.iter().any(|name| name.contains(".input_"));
    if let Some(note) = left.first_mut().filter(|_| inputs && opened.counts.contains_key("NVFP4")) {
        note.push_str("; GGUF files have those of inputs beside NVFP4 weights");
    }
    source.notes.append(&mut left);
    for key in CONFIG_KEYS {
        config.remove(key);
    }
    let mut model = opened.model;
    if model.assets.list().iter().any(|n| n == "config.json") {
        let bytes = serde_json::to_vec(&config).map_err(|e| Error::io("encode config.json", e.into()))?;
        model.assets = Arc::new(Overlaid { inner: Arc::clone(&model.assets), name: "config.json", bytes });
    }
    source.packed = Some(std::mem::replace(&mut source.model, model));
    Ok(())
}

/// What is said of scales of activations and caches, which plain weights have no use for.
pub(crate) fn left_out<'a>(names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let (caches, activations): (Vec<&str>, Vec<&str>) = names.partition(|name| is_about_caches(name));
    let note = |(all, of): (Vec<&str>, &str)| {
        let first = all.first()?;
        Some(format!("{} scales of {of} are left out, for example {first}", all.len()))
    };
    [(activations, "activations"), (caches, "caches of keys and values")]
        .into_iter()
        .filter_map(note)
        .collect()
}

/// The numbers that a GGUF file's weights go with, by the weights' names.
pub(crate) fn scales(model: &Model) -> BTreeMap<String, Tensor> {
    beside(model, ".scale")
}

/// Tensors with a suffix in place of `.weight`, by the names of their weights.
fn beside(model: &Model, suffix: &str) -> BTreeMap<String, Tensor> {
    let of = |t: &Tensor| {
        let weight = format!("{}.weight", t.name().strip_suffix(suffix)?);
        model.tensor(&weight).map(|_| (weight, t.clone()))
    };
    model.tensors.iter().filter_map(of).collect()
}

/// A GGUF file's weights times the scales that stand beside them in tensors of their own, which nothing else has a name for.
/// Those are taken out; so are scales of activations, which are given back.
///
/// # Errors
/// Scales that do not belong to their weights.
pub(crate) fn scaled(model: &mut Model) -> Result<Vec<Tensor>> {
    let (scales, inputs) = (scales(model), beside(model, ".input_scale"));
    for t in &mut model.tensors {
        if let Some(scale) = scales.get(t.name()) {
            let expr = with_scales(&t.expr, &scale.expr).map_err(|e| e.tensor(scale.name()))?;
            t.set_expr(expr)?;
        }
    }
    let taken: HashSet<&str> = scales.values().chain(inputs.values()).map(Tensor::name).collect();
    model.tensors.retain(|t| !taken.contains(t.name()));
    Ok(inputs.into_values().collect())
}

/// Makes floats of a model's blocks.
///
/// # Errors
/// Blocks that have no decoder.
pub(crate) fn decode_blocks(model: &mut Model) -> Result<()> {
    for t in model.tensors.iter_mut().filter(|t| t.spec.encoding.is_block()) {
        t.set_expr(t.expr.clone().apply(Dequantize))?;
    }
    Ok(())
}

/// The way back from [`scaled`]: what stands beside a scale, so that both make `whole`, and that scale.
///
/// It is the one that was there, with room above: scales of blocks reach the largest number of their type where they were
/// chosen for the weights before they changed, and what grows would be cut off. By a power of two, which rounds nothing.
///
/// # Errors
/// Scales by which nothing can be divided; failed reads.
pub(crate) fn divided(whole: &Expr, scale: &Tensor, readers: &[Arc<dyn Reader>]) -> Result<(Expr, Expr)> {
    /// Growth that finds its place; below, a block may still be 1/1792 of the largest before its scale loses digits.
    const ROOM: f32 = 16.0;
    let named = |e: Error| e.tensor(scale.name());
    let old = numbers(readers, &scale.expr).map_err(named)?;
    let new: Vec<f32> = old.iter().map(|x| x * ROOM).collect();
    if !new.iter().all(|x| x.is_normal()) {
        let what = "a weight beside a scale that is zero or no number cannot be changed";
        return Err(named(
            Error::unsupported(what)
                .hint("restore the model first: tensormill convert MODEL.gguf -o FOLDER --to safetensors"),
        ));
    }
    let constant = |of: &dyn Fn(f32) -> f32| {
        let bytes = new.iter().flat_map(|x| of(*x).to_le_bytes()).collect();
        Expr::Const { form: Form::new(scale.spec.shape.clone(), Encoding::F32), bytes }
    };
    Ok((with_scales(whole, &constant(&f32::recip))?, constant(&|x| x)))
}

/// Number of weights that a read graph holds in codes.
fn in_graph(source: &Source) -> Option<usize> {
    let [reader] = source.readers.as_slice() else { return None };
    let plain = reader.program()?.dequantized()?;
    let n = plain.origins.iter().filter(|o| matches!(o, Origin::Encoded(_))).count();
    (n > 0).then_some(n)
}

fn find(source: &Source) -> Result<Option<(Opened, Map<String, Json>)>> {
    let mut config = read_config(&source.model)?.unwrap_or_default();
    if !CONFIG_KEYS.iter().any(|key| config.contains_key(*key))
        && let Some(said) = beside_config(&source.model)?
    {
        config.insert(CONFIG_KEYS[0].to_owned(), said);
    }
    let read = |e: &Expr| read_whole(&source.readers, e);
    Ok(tensormill_schemes::open(&source.model, &config, &read)?.map(|opened| (opened, config)))
}

/// What ModelOpt says of a checkpoint's quantization in a file of its own: older versions say it nowhere else.
fn beside_config(model: &Model) -> Result<Option<Json>> {
    const FILE: &str = QUANTIZERS[0];
    let Some(bytes) = model.assets.read(FILE)? else { return Ok(None) };
    let wrong = |what: String| Error::malformed(what).file(FILE);
    let mut file: Map<String, Json> =
        serde_json::from_slice(&bytes).map_err(|e| wrong(format!("not valid JSON: {e}")))?;
    let Some(Json::Object(mut said)) = file.remove("quantization") else {
        return Err(wrong("says nothing of a quantization".to_owned()));
    };
    said.insert("quant_method".to_owned(), "modelopt".into());
    Ok(Some(said.into()))
}

/// What a checkpoint's weights are held as, where several tensors hold one.
///
/// # Errors
/// Damaged checkpoints.
pub(crate) fn summary(source: &Source) -> Result<Option<QuantizedRow>> {
    if let Some(n) = in_graph(source) {
        let weights = [("operators on codes".to_owned(), n)].into();
        return Ok(Some(QuantizedRow { kind: "ONNX", weights }));
    }
    let found = if source.is_gguf() { None } else { find(source)? };
    Ok(found.map(|(opened, _)| QuantizedRow { kind: opened.kind, weights: opened.counts }))
}

/// What a quantized checkpoint is called.
///
/// # Errors
/// Damaged checkpoints.
pub(crate) fn kind(source: &Source) -> Result<Option<&'static str>> {
    Ok(summary(source)?.map(|row| row.kind))
}

/// `config.json`, where there is one.
pub(crate) fn read_config(model: &Model) -> Result<Option<Map<String, Json>>> {
    let Some(bytes) = model.assets.read("config.json")? else { return Ok(None) };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|e| Error::malformed(format!("not valid JSON: {e}")).file("config.json"))
}

/// All bytes of a source tensor.
///
/// # Errors
/// Expressions that are no source tensor; failed reads.
pub(crate) fn read_whole(readers: &[Arc<dyn Reader>], expr: &Expr) -> Result<Vec<u8>> {
    let Expr::Read { source, tensor, form } = expr else {
        return Err(Error::mismatch("only tensors as files have them are looked into"));
    };
    let rows = form.shape.rows();
    let bytes = rows.saturating_mul(form.row_bytes()?);
    let mut out = vec![0; usize::try_from(bytes).map_err(|_| Error::over_limit("larger than memory"))?];
    readers[*source].read(*tensor, 0..rows, &mut out)?;
    Ok(out)
}

/// Scales that a source tensor holds.
///
/// # Errors
/// What cannot be scales of matrices; failed reads.
pub(crate) fn numbers(readers: &[Arc<dyn Reader>], expr: &Expr) -> Result<Vec<f32>> {
    /// More matrices than any stack of experts has.
    const MOST: usize = 1 << 16;
    let form = expr.form()?;
    let wrong = || Error::malformed(format!("scales of type {} and shape {}", form.encoding, form.shape));
    let n = usize::try_from(form.shape.elements()).ok().filter(|n| *n <= MOST).ok_or_else(wrong)?;
    let Encoding::Plain(dtype) = form.encoding else { return Err(wrong()) };
    let mut x = vec![0f32; n];
    if !decode_plain(dtype, &read_whole(readers, expr)?, &mut x) {
        return Err(wrong());
    }
    Ok(x)
}
