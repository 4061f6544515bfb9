//! Quantized checkpoints as sources: their tensors become the weights that they stand for.

use crate::layout::QUANTIZED;
pub use crate::layout::Quantized;
use serde_json::{Map, Value as Json};
use std::collections::{BTreeMap, HashMap, HashSet};
use tensormill_model::{Error, Expr, Model, Result, Tensor};

/// Bytes of a tensor that is looked into while planning.
const PEEK: u64 = 64 << 20;

/// The entries of `config.json` that tell of quantization; the first that is there counts.
pub const CONFIG_KEYS: [&str; 3] = ["quantization_config", "compression_config", "quantization"];

/// What a kind of checkpoint looks for its weights in.
pub struct SourceCx<'a> {
    /// The tensors as files have them.
    pub tensors: &'a [Tensor],
    by_name: HashMap<&'a str, &'a Tensor>,
    /// `config.json`.
    pub config: &'a Map<String, Json>,
    /// Its `quantization_config`, or what stands elsewhere for it; empty where there is none.
    pub quantization: Map<String, Json>,
    read: &'a dyn Fn(&Expr) -> Result<Vec<u8>>,
}

/// A weight that was found.
#[derive(Clone, Debug)]
pub struct Found {
    /// Its name.
    pub name: String,
    /// Names of the tensors that it is made of, and which are nothing else.
    pub used: Vec<String>,
    /// Its values.
    pub expr: Expr,
    /// What it is held as, for people: `pack-quantized 4-bit`.
    pub what: String,
}

/// A model whose weights are plain.
pub struct Opened {
    /// The model.
    pub model: Model,
    /// What people call such checkpoints.
    pub kind: &'static str,
    /// Weights by what they are held as.
    pub counts: BTreeMap<String, usize>,
    /// Tensors that are left out: they say how activations were quantized.
    pub dropped: Vec<String>,
}

impl<'a> SourceCx<'a> {
    /// `quant_method`.
    pub fn method(&self) -> Option<&str> {
        self.text("quant_method")
    }
    /// A text of the quantization's configuration.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.quantization.get(key)?.as_str()
    }
    /// A whole number of the quantization's configuration.
    pub fn number(&self, key: &str) -> Option<i64> {
        self.quantization.get(key)?.as_i64()
    }
    /// A switch of the quantization's configuration.
    pub fn flag(&self, key: &str) -> Option<bool> {
        self.quantization.get(key)?.as_bool()
    }
    /// The tensor of this name.
    pub fn get(&self, name: &str) -> Option<&'a Tensor> {
        self.by_name.get(name).copied()
    }
    /// A tensor of a module.
    pub fn of(&self, module: &str, tensor: &str) -> Option<&'a Tensor> {
        self.get(&format!("{module}.{tensor}"))
    }
    /// A tensor of a module, which must be there.
    ///
    /// # Errors
    /// `Malformed`, naming it.
    pub fn need(&self, module: &str, tensor: &str) -> Result<&'a Tensor> {
        self.must(&format!("{module}.{tensor}"), &format!("the quantized weight lacks {tensor}"))
    }
    /// The tensor of this name, which must be there: its absence is what `why` says.
    ///
    /// # Errors
    /// `Malformed`, naming it.
    pub fn must(&self, name: &str, why: &str) -> Result<&'a Tensor> {
        self.get(name).ok_or_else(|| {
            Error::malformed(why).tensor(name).hint("the checkpoint is incomplete: fetch its files again")
        })
    }
    /// Tensors whose names end so, with what stands before, in the file's order.
    pub fn with_suffix(&self, suffix: &str) -> Vec<(String, &'a Tensor)> {
        let module = |t: &'a Tensor| Some((t.name().strip_suffix(suffix)?.to_owned(), t));
        self.tensors.iter().filter_map(module).collect()
    }
    /// The bytes of a small tensor.
    ///
    /// # Errors
    /// When it is not small, or cannot be read.
    pub fn peek(&self, t: &Tensor) -> Result<Vec<u8>> {
        if t.spec.bytes()? > PEEK {
            return Err(Error::over_limit("is larger than such tensors are").tensor(t.name()));
        }
        (self.read)(&t.expr).map_err(|e| e.tensor(t.name()))
    }
}

/// Gives a checkpoint's weights the expressions that decode them; `None` where it is not quantized, or in no way that is
/// known by its tensors. `read` reads the bytes of a small source tensor.
///
/// # Errors
/// Damaged checkpoints; `Unsupported` for kinds that are known and cannot be read.
pub fn open(
    model: &Model,
    config: &Map<String, Json>,
    read: &dyn Fn(&Expr) -> Result<Vec<u8>>,
) -> Result<Option<Opened>> {
    let quantization =
        CONFIG_KEYS.iter().find_map(|k| config.get(*k)?.as_object().cloned()).unwrap_or_default();
    let by_name = model.tensors.iter().map(|t| (t.name(), t)).collect();
    let cx = SourceCx { tensors: &model.tensors, by_name, config, quantization, read };
    let Some(kind) = QUANTIZED.iter().find(|k| k.claims(&cx)) else { return Ok(None) };
    let found = kind.find(&cx)?;
    let mut counts = BTreeMap::new();
    let mut at: HashMap<&str, &Found> = HashMap::new();
    let mut used: HashSet<&str> = HashSet::new();
    for f in &found {
        *counts.entry(f.what.clone()).or_default() += 1;
        used.extend(f.used.iter().map(String::as_str));
        at.insert(&f.name, f);
    }
    let weight = |f: &Found| Tensor::new(&f.name, f.expr.clone());
    let mut tensors = Vec::with_capacity(model.tensors.len());
    let mut dropped = Vec::new();
    for t in &model.tensors {
        // A weight whose name the file has stands there; the others stand at the end, as in llama.cpp's converter.
        if let Some(f) = at.remove(t.name()) {
            tensors.push(weight(f)?);
        } else if !used.contains(t.name()) {
            if kind.is_about_activations(t.name()) {
                dropped.push(t.name().to_owned());
            } else {
                tensors.push(t.clone());
            }
        }
    }
    for f in found.iter().filter(|f| at.contains_key(f.name.as_str())) {
        tensors.push(weight(f)?);
    }
    drop((at, used));
    Ok(Some(Opened { model: Model { tensors, ..model.clone() }, kind: kind.name(), counts, dropped }))
}
