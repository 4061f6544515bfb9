//! GGUF variants of quantized checkpoints: codes that blocks hold as they are.
//!
//! llama.cpp's converter repacks FP4 whatever type it is asked for, and puts NVFP4's scales of scales beside the weights
//! (`_generate_nvfp4_tensors` and `prepare_metadata` in `conversion/base.py`); everything else is decoded. A recipe that asks for
//! blocks which hold the source's codes gets these, too. The way back is [`quantized::scaled`].
//! Must not know how codes are found: that is `tensormill-schemes`.

use crate::{quantized, source::Source};
use std::{collections::HashMap, sync::Arc};
use tensormill_model::{Error, Expr, Form, Model, Result, Tensor};
use tensormill_schemes::{BlockExpr, Outer, as_blocks};
use tensormill_tensor::{Encoding, Shape, ggml};
use tensormill_transforms::QuantizeOp;

/// `general.file_type` of files with such blocks.
const MOSTLY_MXFP4: u32 = 38;
const MOSTLY_NVFP4: u32 = 39;

/// Makes NVFP4 blocks, and MXFP4 blocks where `mxfp4` says so, of weights that hold such codes. Gives the file's type where it
/// is another one for that, to be set when nothing else sets it.
///
/// # Errors
/// Damaged checkpoints.
pub(super) fn keep(model: &mut Model, source: &Source, mxfp4: bool) -> Result<Option<u32>> {
    let Some(packed) = &source.packed else { return Ok(None) };
    let scales = Scales::of(source, packed);
    let (mut first, mut rest) = (Vec::new(), Vec::with_capacity(model.tensors.len()));
    let mut file_type = None;
    // Of this architecture, the peer's converter makes blocks before it looks at anything else, whatever type is asked for.
    let experts_first = model.metadata.str("general.architecture") == Some("gpt-oss");
    for mut t in std::mem::take(&mut model.tensors) {
        if let Some(blocks) = as_blocks(&t.expr, ggml::NVFP4) {
            file_type = Some(MOSTLY_NVFP4);
            let beside = scales.beside(&t, &blocks)?;
            pin(&mut t, blocks.expr)?;
            first.push(t);
            first.extend(beside);
            continue;
        }
        let mut to = &mut rest;
        if let Some(blocks) = as_blocks(&t.expr, ggml::MXFP4).filter(|_| mxfp4 || experts_first) {
            file_type = file_type.or(Some(MOSTLY_MXFP4));
            pin(&mut t, blocks.expr)?;
            if experts_first {
                to = &mut first;
            }
        }
        to.push(t);
    }
    first.append(&mut rest);
    model.tensors = first;
    Ok(file_type)
}

fn pin(t: &mut Tensor, blocks: Expr) -> Result<()> {
    t.set_expr(blocks)?;
    t.pinned = Some(t.spec.encoding);
    Ok(())
}

/// Where a recipe encodes weights as blocks that hold the source's own codes exactly, makes the blocks of these. Gives how many
/// there are.
///
/// # Errors
/// Damaged checkpoints.
pub(super) fn encode_by_codes(model: &mut Model, source: &Source) -> Result<usize> {
    let Some(packed) = &source.packed else { return Ok(0) };
    let scales = Scales::of(source, packed);
    let mut n = 0;
    let mut tensors = Vec::with_capacity(model.tensors.len());
    for mut t in std::mem::take(&mut model.tensors) {
        let mut beside = Vec::new();
        if let (Encoding::Block(block), Expr::Apply { op, inputs }) = (t.spec.encoding, &t.expr)
            && op.any().is_some_and(<dyn std::any::Any>::is::<QuantizeOp>)
            && let [weights] = inputs.as_slice()
            && let Some(blocks) = as_blocks(weights, block)
        {
            n += 1;
            if block == ggml::NVFP4 {
                beside = scales.beside(&t, &blocks)?;
            }
            t.set_expr(blocks.expr)?;
        }
        tensors.push(t);
        tensors.append(&mut beside);
    }
    model.tensors = tensors;
    Ok(n)
}

/// Numbers about whole matrices, which GGUF files have as tensors of their own.
struct Scales<'a> {
    source: &'a Source,
    /// The checkpoint's tensors by what reads them.
    names: HashMap<(usize, usize), &'a str>,
    tensors: HashMap<&'a str, &'a Tensor>,
}

impl<'a> Scales<'a> {
    fn of(source: &'a Source, packed: &'a Model) -> Self {
        let read = |t: &'a Tensor| match t.expr {
            Expr::Read { source, tensor, .. } => Some(((source, tensor), t.name())),
            _ => None,
        };
        let names = packed.tensors.iter().filter_map(read).collect();
        Self { source, names, tensors: packed.tensors.iter().map(|t| (t.name(), t)).collect() }
    }

    /// `.scale` and `.input_scale`, where they are not one.
    fn beside(&self, t: &Tensor, blocks: &BlockExpr) -> Result<Vec<Tensor>> {
        let scales = blocks.outers.iter().map(|o| self.outer(o)).collect::<Result<Vec<_>>>()?;
        let mut inputs = Vec::new();
        for module in self.modules(&blocks.expr) {
            let get = |name: &str| self.tensors.get(format!("{module}.{name}").as_str()).copied();
            inputs.push(match (get("input_scale"), get("input_global_scale")) {
                (Some(t), _) => self.number(&t.expr)?,
                (None, Some(t)) => 1.0 / self.number(&t.expr)?,
                (None, None) => 1.0,
            });
        }
        let mut out = Vec::new();
        for (name, values) in [("scale", scales), ("input_scale", inputs)] {
            if trivial(&values) {
                continue;
            }
            let stem = t.name().strip_suffix(".weight").unwrap_or(t.name());
            let form = Form::new(Shape::new(vec![values.len() as u64])?, Encoding::F32);
            let bytes: Arc<[u8]> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            let mut made = Tensor::new(format!("{stem}.{name}"), Expr::Const { form, bytes })?;
            made.pinned = Some(Encoding::F32);
            out.push(made);
        }
        Ok(out)
    }

    fn outer(&self, o: &Outer) -> Result<f32> {
        let x = self.number(&o.expr)?;
        Ok(if o.divides { 1.0 / x } else { x })
    }

    /// A number that the checkpoint holds.
    fn number(&self, expr: &Expr) -> Result<f32> {
        match quantized::numbers(&self.source.readers, expr)?[..] {
            [x] => Ok(x),
            ref all => Err(Error::malformed(format!("{} scales for a matrix", all.len()))),
        }
    }

    /// The modules whose codes an expression reads, in order.
    fn modules(&self, expr: &Expr) -> Vec<&'a str> {
        match expr {
            Expr::Read { source, tensor, .. } => {
                let name = self.names.get(&(*source, *tensor));
                name.and_then(|n| n.strip_suffix(".weight_packed").or_else(|| n.strip_suffix(".weight")))
                    .into_iter()
                    .collect()
            }
            Expr::Const { .. } => Vec::new(),
            Expr::Rows { input, .. } | Expr::Reshape { input, .. } | Expr::Transpose { input } => {
                self.modules(input)
            }
            Expr::Concat { inputs, .. } => inputs.iter().flat_map(|i| self.modules(i)).collect(),
            // Of codes and numbers, the codes come first.
            Expr::Apply { inputs, .. } => inputs.first().map(|i| self.modules(i)).unwrap_or_default(),
        }
    }
}

/// Whether numbers are so near to one that the peer leaves them out.
fn trivial(values: &[f32]) -> bool {
    let bound = if values.len() == 1 { 1e-6 } else { 1.1e-5 };
    values.iter().all(|v| (f64::from(*v) - 1.0).abs() < bound)
}
