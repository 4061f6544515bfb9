//! Quantized checkpoints as sources, and schemes as targets: `tensormill-schemes` with what this crate knows of files,
//! configurations and architectures.

use crate::{inspect::QuantizedRow, onnx, source::Source};
use serde_json::{Map, Value as Json};
use std::sync::Arc;
use tensormill_graph::Origin;
use tensormill_model::{Assets, Error, Expr, Model, Reader, Result};
use tensormill_schemes::{CONFIG_KEYS, Opened};

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
    source.notes.push(format!("quantized weights ({}): {}", opened.kind, counts.join(", ")));
    if let Some(first) = opened.dropped.first() {
        let n = opened.dropped.len();
        source.notes.push(format!("{n} scales of activations are left out, for example {first}"));
    }
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

/// Number of weights that a read graph holds in codes.
fn in_graph(source: &Source) -> Option<usize> {
    let [reader] = source.readers.as_slice() else { return None };
    let plain = reader.program()?.dequantized()?;
    let n = plain.origins.iter().filter(|o| matches!(o, Origin::Encoded(_))).count();
    (n > 0).then_some(n)
}

fn find(source: &Source) -> Result<Option<(Opened, Map<String, Json>)>> {
    let config = read_config(&source.model)?.unwrap_or_default();
    let read = |e: &Expr| read_whole(&source.readers, e);
    Ok(tensormill_schemes::open(&source.model, &config, &read)?.map(|opened| (opened, config)))
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
