//! Quantization by recipe: what `llama-quantize` makes of a model.
//!
//! Source: llama.cpp's `src/llama-quant.cpp` (`llama_tensor_get_type`, `llama_model_quantize_impl`) and
//! `tools/quantize/quantize.cpp`. The choices themselves are rows of `recipe`. What an architecture pins
//! (`Tensor::pinned`) binds the converter only, as in the peer.

use crate::ops::needs_importance;
use crate::order::{layer, quantized_order};
use crate::recipe::{self, Chooser, Facts, Part, Recipe, Subject, fallback, is_always_plain};
use crate::{CheckedCast, Importance, QuantizeOp, QuantizeOptions, TensorImportance};
use std::sync::Arc;
use tensormill_model::{
    Array, Error, Expr, Kind, Metadata, Model, Op, Result, Role, Tensor, Transform, Value,
};
use tensormill_tensor::{DType, Encoding, Shape};

/// Version of the block encodings as ggml counts them (`GGML_QNT_VERSION`).
const QUANTIZATION_VERSION: u32 = 2;
/// Bytes that the peer keeps of a text it adds to the metadata.
const OVERRIDE_BYTES: usize = 127;

/// Quantizes a model in GGUF form.
#[derive(Clone, Debug)]
pub struct Quantize {
    /// The recipe.
    pub recipe: &'static Recipe,
    /// Departures from it.
    pub options: QuantizeOptions,
    /// Importance of columns, where measured.
    pub importance: Option<Arc<Importance>>,
}

/// What was decided for one tensor.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Choice {
    /// The encoding it gets.
    pub encoding: Encoding,
    /// What the recipe wanted, where rows do not fill that type's blocks.
    pub instead_of: Option<Encoding>,
    /// Whether `--tensor-type` named it.
    pub named: bool,
}

impl Choice {
    fn plain(encoding: Encoding) -> Self {
        Self { encoding, instead_of: None, named: false }
    }
}

impl Quantize {
    /// Chooses an encoding for each tensor, in the model's order, which must be the output's
    /// ([`quantized_order`]): positions are counted along it. Needs no weights and no encoders.
    ///
    /// # Errors
    /// Names the tensor that no choice can be made for.
    pub fn choices(&self, model: &Model) -> Result<Vec<Choice>> {
        let roles: Vec<Option<Role>> =
            model.tensors.iter().map(|t| t.role.clone().or_else(|| Role::from_gguf_name(t.name()))).collect();
        let facts = Facts::new(&model.metadata, roles.iter().map(Option::as_ref), self.importance.is_some());
        if facts.arch().is_empty() {
            return Err(Error::mismatch("the model has no general.architecture to choose block types by"));
        }
        if self.recipe.base.is_block() && facts.layers() == 0 && facts.arch() != "clip" {
            return Err(Error::mismatch(format!(
                "the model has no {}.block_count to choose block types by",
                facts.arch()
            )));
        }
        let mut chooser = match self.recipe.base {
            Encoding::Block(base) => Some(Chooser::new(&facts, self.recipe, base)),
            Encoding::Plain(_) => None,
        };
        let each = model.tensors.iter().zip(&roles);
        each.map(|(t, role)| {
            self.choose(t, role.as_ref(), facts.arch(), chooser.as_mut()).map_err(|e| e.tensor(t.name()))
        })
        .collect()
    }

    fn choose(
        &self,
        t: &Tensor,
        role: Option<&Role>,
        arch: &str,
        chooser: Option<&mut Chooser>,
    ) -> Result<Choice> {
        let o = &self.options;
        let part = recipe::part(role);
        if is_always_plain(arch, role, t.name(), &t.spec.shape)
            || part == Part::Output && o.leave_output_tensor
        {
            return Ok(Choice::plain(t.spec.encoding));
        }
        let named = o.tensor_types.iter().find(|rule| rule.matches(t.name()));
        if let (Part::TokenEmbd, Some(encoding)) = (part, o.token_embedding_type) {
            // The per-layer embeddings are a large table of their own, so a name may override here.
            let own = role.is_some_and(|r| r.kind == Kind::PerLayerTokenEmbd);
            if !own || named.is_none() {
                return Ok(Choice::plain(encoding));
            }
        }
        if let (Part::Output, Some(encoding)) = (part, o.output_tensor_type) {
            return Ok(Choice::plain(encoding));
        }
        let Some(chooser) = chooser else {
            return Ok(Choice::plain(self.recipe.base));
        };
        let subject = Subject { role, shape: &t.spec.shape, layer: layer(t.name()) };
        let wanted = if let Some(rule) = named {
            rule.encoding
        } else if o.pure {
            self.recipe.base
        } else if let (true, Some(encoding)) = (chooser.is_output(role), o.output_tensor_type) {
            encoding
        } else {
            Encoding::Block(chooser.choose(&subject)?)
        };
        let encoding = match wanted {
            Encoding::Block(b) => fallback(b, t.spec.shape.row_len())?,
            Encoding::Plain(_) => wanted,
        };
        let instead_of = (encoding != wanted).then_some(wanted);
        Ok(Choice { encoding, instead_of, named: named.is_some() })
    }

    /// The importance of one tensor that is to be encoded as `to`.
    fn importance_of(
        &self,
        t: &Tensor,
        role: Option<&Role>,
        to: Encoding,
    ) -> Result<Option<TensorImportance>> {
        let entry = self.importance.as_ref().and_then(|i| i.entries.get(t.name()));
        let dims = t.spec.shape.dims();
        let matrices: u64 = dims[..dims.len().saturating_sub(2)].iter().product();
        let found = match entry {
            Some(values) if Some(values.len() as u64) == matrices.checked_mul(t.spec.shape.row_len()) => {
                Some(TensorImportance::new(values.clone()))
            }
            // Embeddings are looked up, not multiplied: an entry of another size says nothing about them.
            Some(_) if recipe::part(role) == Part::TokenEmbd => None,
            Some(values) => {
                return Err(Error::mismatch(format!(
                    "the importance matrix has {} values for this tensor of shape {}, which takes {}",
                    values.len(),
                    t.spec.shape,
                    matrices.saturating_mul(t.spec.shape.row_len())
                ))
                .hint("make the importance matrix from this very model"));
            }
            None => None,
        };
        if let (None, Encoding::Block(b)) = (&found, to)
            && recipe::needs_importance(self.recipe, role, b)
        {
            return Err(needs_importance(b));
        }
        Ok(found)
    }

    fn apply(&self, t: &mut Tensor, to: Encoding) -> Result<()> {
        let from = t.spec.encoding;
        if from == to {
            return Ok(());
        }
        let spelled = t.role.clone().or_else(|| Role::from_gguf_name(t.name()));
        let importance = self.importance_of(t, spelled.as_ref(), to)?;
        if from.is_block() && !self.options.allow_requantize {
            return Err(Error::unsupported(format!("is already quantized, as {from}"))
                .hint("start from a plain model, or accept the double loss with --allow-requantize"));
        }
        let op: Arc<dyn Op> = match to {
            Encoding::Block(b) => Arc::new(QuantizeOp::new(b, importance)?.with_search(self.options.search)),
            Encoding::Plain(d @ (DType::F32 | DType::F16 | DType::BF16)) => Arc::new(CheckedCast(d)),
            Encoding::Plain(d) => return Err(Error::unsupported(format!("cannot quantize to {d}"))),
        };
        t.set_expr(Expr::Apply { op, inputs: vec![t.expr.clone()] })
    }

    fn edit(&self, metadata: &mut Metadata) {
        metadata.map_values(as_c_string);
        metadata.set_last("general.quantization_version", QUANTIZATION_VERSION);
        metadata.set_last("general.file_type", self.recipe.file_type);
        for key in ["split.no", "split.count", "split.tensors.count"] {
            metadata.remove(key);
        }
        if let Some(i) = &self.importance {
            metadata.set_last("quantize.imatrix.file", kept_text(&i.file_name));
            if let Some(dataset) = i.datasets.first() {
                metadata.set_last("quantize.imatrix.dataset", kept_text(dataset));
            }
            metadata.set_last("quantize.imatrix.entries_count", i.entries.len() as u32);
            if i.chunks > 0 {
                metadata.set_last("quantize.imatrix.chunks_count", i.chunks.unsigned_abs());
            }
        }
    }
}

/// The peer copies texts as C strings: what follows a NUL is lost. Byte-identical files need that too. `None` for
/// values without one.
fn as_c_string(value: &Value) -> Option<Value> {
    fn cut(b: &[u8]) -> &[u8] {
        b.split(|b| *b == 0).next().unwrap_or_default()
    }
    fn cut_str(s: &str) -> &str {
        s.split('\0').next().unwrap_or_default()
    }
    let has_nul = match value {
        Value::Str(s) => s.contains('\0'),
        // Cut before its first wrong byte, it is UTF-8 after all.
        Value::Bytes(b) => b.contains(&0),
        Value::Array(Array::Str(v)) => v.iter().any(|s| s.contains('\0')),
        Value::Array(Array::Bytes(v)) => v.iter().any(|b| b.contains(&0)),
        _ => false,
    };
    if !has_nul {
        return None;
    }
    Some(match value {
        Value::Str(s) => Value::Str(cut_str(s).to_owned()),
        Value::Bytes(b) => text(cut(b).to_vec()),
        Value::Array(Array::Str(v)) => Array::Str(v.iter().map(|s| cut_str(s).to_owned()).collect()).into(),
        Value::Array(Array::Bytes(v)) => Array::Bytes(v.iter().map(|b| cut(b).to_vec()).collect()).into(),
        other => other.clone(),
    })
}

/// As much of an added text as the peer keeps.
fn kept_text(s: &str) -> Value {
    let bytes = s.as_bytes();
    text(bytes[..bytes.len().min(OVERRIDE_BYTES)].split(|b| *b == 0).next().unwrap_or_default().to_vec())
}

fn text(bytes: Vec<u8>) -> Value {
    String::from_utf8(bytes).map_or_else(|e| Value::Bytes(e.into_bytes()), Value::Str)
}

/// ggml counts dimensions up to the last that is not one, so the peer's quantizer writes `[1, 64]` as `[64]` and a
/// scalar as `[1]` (`ggml_n_dims`); whether a tensor is quantized at all depends on that count too.
fn drop_outer_ones(t: &mut Tensor) -> Result<()> {
    let dims = t.spec.shape.dims();
    let ones = dims.iter().take_while(|&&d| d == 1).count();
    let kept = match dims {
        [] => vec![1],
        _ => dims[ones.min(dims.len() - 1)..].to_vec(),
    };
    if kept == dims {
        return Ok(());
    }
    let shape = Shape::new(kept)?;
    t.set_expr(t.expr.clone().reshape(shape))
}

impl Transform for Quantize {
    fn rewrite(&self, mut model: Model) -> Result<Model> {
        model.tensors.sort_by(|a, b| quantized_order(a.name(), b.name()));
        for t in &mut model.tensors {
            drop_outer_ones(t)?;
        }
        let choices = self.choices(&model)?;
        for (t, choice) in model.tensors.iter_mut().zip(choices) {
            self.apply(t, choice.encoding).map_err(|e| e.tensor(t.name()))?;
        }
        self.edit(&mut model.metadata);
        Ok(model)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tensormill_model::Form;

    #[test]
    fn outer_dimensions_of_one_are_dropped_as_ggml_counts_them() {
        for (dims, kept) in [
            (vec![1, 64], vec![64]),
            (vec![1, 1, 3, 64], vec![3, 64]),
            (vec![3, 1, 64], vec![3, 1, 64]),
            (vec![1, 1], vec![1]),
            (vec![], vec![1]),
        ] {
            let form = Form::new(Shape::new(dims).unwrap(), Encoding::F32);
            let mut t = Tensor::new("t", Expr::Read { source: 0, tensor: 0, form }).unwrap();
            drop_outer_ones(&mut t).unwrap();
            assert_eq!(t.spec.shape.dims(), kept);
        }
    }
}
