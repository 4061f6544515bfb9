//! The way back: a model in GGUF form as a Hugging Face checkpoint, names, row orders, experts and norms turned back.
//!
//! Values are those of the GGUF file, in whatever encoding it has; who asked chooses the type. What a GGUF file does not
//! hold, or holds in a form that does not tell what it was made of, is listed in [`Restored::lost`] and never guessed.
//!
//! Must not know formats, nor how a tokenizer's files are made.

mod config;
mod tables;

use crate::text::unpermuted;
use serde_json::{Map, Value as Json};
use std::collections::BTreeMap;
use tables::{Family, Place};
use tensormill_model::{AddScalar, Error, Expr, Kind, Metadata, Model, Result, Role, RowMap, Slot, Tensor};
use tensormill_tensor::{Encoding, Shape};

/// What [`restore`] gives.
pub struct Restored {
    /// The tensors under Hugging Face names, without metadata.
    pub model: Model,
    /// `config.json`, less `torch_dtype`, which depends on what is written.
    pub config: Map<String, Json>,
    /// What the checkpoint will lack, in words.
    pub lost: Vec<String>,
    /// What it holds only nearly, or by a guess that is safe, in words.
    pub notes: Vec<String>,
}

/// More experts or layers than any model has: a file must not decide how long a list becomes.
const MOST: u64 = 1 << 16;

/// The Hugging Face form of a model with GGUF names and metadata. `decode` makes floats of blocks, where columns become rows.
///
/// # Errors
/// Architectures whose way back is not known, tensors without a Hugging Face name, hyper-parameters that are absent.
pub fn restore(model: Model, decode: fn(Expr) -> Expr) -> Result<Restored> {
    let Model { tensors, metadata, assets, .. } = model;
    let mut back = Back { decode, ..Back::new(&metadata)? };
    let tied = tensors.iter().all(|t| t.name() != "output.weight");
    back.all(tensors)?;
    let Back { family, keys, out, mut lost, mut notes, .. } = back;
    let config = config::config(family, &keys, tied, &out, (&mut lost, &mut notes))?;
    Ok(Restored {
        model: Model { tensors: out, metadata: Metadata::new(), assets, program: None },
        config,
        lost,
        notes,
    })
}

/// Some of a model's tensors, none in blocks, under their Hugging Face names, by the metadata of the whole. As with
/// [`crate::Architecture::rewrite_some`], factors with a weight's rows can go through in its place.
///
/// # Errors
/// As [`restore`], of the tensors that are given.
pub fn restore_some(tensors: Vec<Tensor>, metadata: &Metadata) -> Result<Vec<Tensor>> {
    let mut back = Back::new(metadata)?;
    back.all(tensors)?;
    Ok(back.out)
}

/// The hyper-parameters of one file.
struct Keys<'a> {
    arch: &'a str,
    metadata: &'a Metadata,
}

impl Keys<'_> {
    fn get(&self, key: &str) -> Option<&tensormill_model::Value> {
        self.metadata.get(&format!("{}.{key}", self.arch))
    }
    fn u64(&self, key: &str) -> Option<u64> {
        self.get(key)?.as_u64()
    }
    fn need(&self, key: &str) -> Result<u64> {
        self.u64(key).ok_or_else(|| Error::malformed(format!("{}.{key} is absent or no number", self.arch)))
    }
    fn f64(&self, key: &str) -> Option<f64> {
        self.get(key)?.as_f64()
    }
    /// Query heads and key-value heads.
    fn heads(&self) -> Result<(u64, u64)> {
        let query = self.need("attention.head_count")?;
        Ok((query, self.u64("attention.head_count_kv").unwrap_or(query)))
    }
}

/// The way back in progress.
struct Back<'a> {
    family: &'static Family,
    keys: Keys<'a>,
    heads: (u64, u64),
    decode: fn(Expr) -> Expr,
    /// Even and odd rows of what is not whole yet.
    halves: BTreeMap<String, [Option<Expr>; 2]>,
    out: Vec<Tensor>,
    lost: Vec<String>,
    notes: Vec<String>,
}

impl<'a> Back<'a> {
    fn new(metadata: &'a Metadata) -> Result<Self> {
        let arch = metadata
            .str("general.architecture")
            .ok_or_else(|| Error::malformed("there is no general.architecture"))?;
        let family = tables::family(arch).ok_or_else(|| {
            Error::unsupported(format!("the way back from {arch:?} to a Hugging Face checkpoint is not known"))
                .hint(format!(
                    "known: {}; GGUF outputs work for every architecture, and --keep-names leaves names as they are",
                    tables::known().join(", ")
                ))
        })?;
        let keys = Keys { arch, metadata };
        let heads = keys.heads()?;
        Ok(Self {
            family,
            keys,
            heads,
            decode: |e| e,
            halves: BTreeMap::new(),
            out: Vec::new(),
            lost: Vec::new(),
            notes: Vec::new(),
        })
    }

    fn all(&mut self, tensors: Vec<Tensor>) -> Result<()> {
        for t in tensors {
            let name = t.spec.name.clone();
            self.tensor(t).map_err(|e| e.tensor(name))?;
        }
        match self.halves.keys().next() {
            Some(name) => {
                Err(Error::mismatch("only every other row is there: the gate's or the other ones")
                    .tensor(name))
            }
            None => Ok(()),
        }
    }

    fn tensor(&mut self, t: Tensor) -> Result<()> {
        let role = t.role.clone().or_else(|| Role::from_gguf_name(t.name()));
        let Some(role) = role else {
            return Err(Error::unsupported("a tensor that no architecture has"));
        };
        if tables::GENERATED.contains(&role.kind) {
            self.lost.push(format!(
                "{}: made from config.json's rope_scaling, which cannot be told from it",
                t.name()
            ));
            return Ok(());
        }
        let place = self
            .family
            .place(role.kind, self.keys.u64("expert_count").is_some())
            .ok_or_else(|| Error::unsupported(format!("it has no counterpart in {}", self.family.gguf)))?;
        let suffix = match &role.slot {
            Slot::Weight => ".weight",
            Slot::Bias => ".bias",
            Slot::Bare => "",
            Slot::Other(other) => {
                return Err(Error::unsupported(format!("a parameter {other:?}")));
            }
        };
        let layer = role.layer.map_or_else(String::new, |l| l.to_string());
        let mut expr = t.expr;
        if self.family.interleaved {
            match role.kind {
                Kind::AttnQ => expr = unpermuted(expr, self.heads.0)?,
                Kind::AttnK => expr = unpermuted(expr, self.heads.1)?,
                _ => {}
            }
        }
        if self.family.raised_norms && t.spec.name.ends_with("norm.weight") {
            expr = expr.apply(AddScalar(-1.0));
            if self.notes.iter().all(|l| l != NORMS) {
                self.notes.push(NORMS.to_owned());
            }
        }
        match place {
            Place::One(name) => self.push(format!("{}{suffix}", name.replace("{bid}", &layer)), expr),
            Place::Each(name) => {
                let name = name.replace("{bid}", &layer) + suffix;
                for (x, part) in unstacked(&expr)?.into_iter().enumerate() {
                    self.push(name.replace("{xid}", &x.to_string()), part)?;
                }
                Ok(())
            }
            Place::Bare(name) => self.push(name.replace("{bid}", &layer), expr),
            Place::Across(name) => self.across(name.replace("{bid}", &layer), &role.slot, expr),
            Place::Woven(name, half) => {
                let name = name.replace("{bid}", &layer);
                let mut halves = self.halves.remove(&(name.clone() + suffix)).unwrap_or_default();
                halves[half] = Some(expr);
                match halves {
                    [Some(even), Some(odd)] => self.across(name, &role.slot, woven(even, odd)?),
                    more => {
                        self.halves.insert(name + suffix, more);
                        Ok(())
                    }
                }
            }
        }
    }

    /// A stack that is used from the other side, or its biases.
    fn across(&mut self, name: String, slot: &Slot, expr: Expr) -> Result<()> {
        match slot {
            Slot::Bias => self.push(name + "_bias", expr),
            _ if expr.form()?.encoding.is_block() => self.push(name, (self.decode)(expr).transpose()),
            _ => self.push(name, expr.transpose()),
        }
    }

    fn push(&mut self, name: String, expr: Expr) -> Result<()> {
        self.out.push(Tensor::new(name, expr)?);
        Ok(())
    }
}

const NORMS: &str = "norms: stored plus one; the smallest ones come back rounded to binary32 steps of one";

/// Stacks of matrices, or of rows, whose rows and elements alternate.
fn woven(even: Expr, odd: Expr) -> Result<Expr> {
    let shape = even.form()?.shape;
    let other = odd.form()?.shape;
    let wrong = || Error::mismatch(format!("stacks of shapes {shape} and {other}"));
    if shape != other {
        return Err(wrong());
    }
    let (experts, rows, len) = match *shape.dims() {
        [experts, rows] => (experts, rows, 1),
        [experts, rows, len] => (experts, rows, len),
        _ => return Err(wrong()),
    };
    let all = rows.checked_mul(2).filter(|_| rows > 0).ok_or_else(wrong)?;
    let stack = Shape::new(vec![experts, rows, len])?;
    let [even, odd] = [unstacked(&even.reshape(stack.clone()))?, unstacked(&odd.reshape(stack))?];
    let inputs = even.into_iter().zip(odd).flat_map(<[Expr; 2]>::from).collect();
    let apart = Expr::Concat { inputs, shape: Shape::new(vec![experts, all, len])? };
    let made = apart.rows(RowMap::SwapInner { a: 2, b: rows });
    Ok(if shape.rank() == 2 { made.reshape(Shape::new(vec![experts, all])?) } else { made })
}

/// The matrices of a stack.
fn unstacked(expr: &Expr) -> Result<Vec<Expr>> {
    let shape = expr.form()?.shape;
    let &[experts, rows, len] = shape.dims() else {
        return Err(Error::mismatch(format!("experts of shape {shape}")));
    };
    if experts > MOST {
        return Err(Error::over_limit(format!("{experts} experts")));
    }
    let one = Shape::new(vec![rows, len])?;
    let part = |x| expr.clone().rows(RowMap::Slice { start: x * rows, len: rows }).reshape(one.clone());
    Ok((0..experts).map(part).collect())
}

/// The type that matrices have most of, by elements; `None` where those are in blocks.
pub fn usual_type(model: &Model) -> Option<Encoding> {
    let mut counts: Vec<(Encoding, u64)> = Vec::new();
    for t in model.tensors.iter().filter(|t| t.spec.shape.rank() >= 2) {
        let elements = t.spec.shape.elements();
        match counts.iter_mut().find(|(e, _)| *e == t.spec.encoding) {
            Some((_, n)) => *n = n.saturating_add(elements),
            None => counts.push((t.spec.encoding, elements)),
        }
    }
    counts.into_iter().max_by_key(|(_, n)| *n).map(|(e, _)| e).filter(|e| !e.is_block())
}
