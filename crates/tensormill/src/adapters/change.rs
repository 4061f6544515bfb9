//! An adapter by itself, in another scheme: PEFT's folder, llama.cpp's GGUF file, kohya's file.
//!
//! What is written is a model like any other, whose tensors are the factors; the job machinery does the rest.

use super::{Combination, Wanted, base::Base, open};
use crate::{
    Source,
    convert::{self, Conversion, Target},
    job::{self, Job, Variant},
    location::{Access, Location},
};
use serde_json::{Map, Value as Json, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
};
use tensormill_adapters::{Factors, Parts, combine, scaled};
use tensormill_card::{ParamCounts, general};
use tensormill_model::{Error, Expr, Form, MemoryAssets, Metadata, Model, Reader, Result, Tensor};
use tensormill_tensor::{DType, Encoding, Shape};

/// How an adapter's tensors are called and what lies beside them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// `adapter_model.safetensors` and `adapter_config.json`.
    Peft,
    /// A GGUF file, as `convert_lora_to_gguf.py` writes it.
    Gguf,
    /// One safetensors file with flat names and alphas.
    Kohya,
}

/// An adapter to write.
#[derive(Clone, Debug)]
pub struct Request {
    /// Adapters to read; several become one.
    pub adapters: Vec<Wanted>,
    /// How several become one; beside each other by default, which is exact.
    pub combine: Option<Combination>,
    /// The model that they belong to: GGUF files need its configuration, flat names its tensors' names.
    pub base: Option<Location>,
    /// File or folder to write.
    pub output: PathBuf,
    /// What to write; by default what the output's name says.
    pub scheme: Option<Scheme>,
    /// Type of the factors; by default as they are, and `F32` in GGUF files, as llama.cpp's converter.
    pub dtype: Option<DType>,
    /// What stands before kohya's flat names.
    pub prefix: String,
    /// The run: memory, threads, force, and whether loss is allowed.
    pub job: Job,
}

/// Opens adapters and plans the file that is made of them.
///
/// # Errors
/// Adapters that cannot be read or written so, and a base that is needed and not given.
pub fn plan(request: &Request) -> Result<Conversion> {
    let first = request.adapters.first().ok_or_else(|| Error::usage("no adapter is given"))?;
    let scheme = request.scheme.unwrap_or_else(|| scheme_of(&request.output));
    let how = request.job.opening();
    let base = request.base.as_ref().map(|at| Base::open(at, &how)).transpose()?;
    // Names and configuration are all that is needed of it.
    how.access.headers_only();
    let (mut adapters, mut readers): (Vec<_>, Vec<Arc<dyn Reader>>) = (Vec::new(), Vec::new());
    for wanted in &request.adapters {
        let (adapter, reader) = open::adapter(wanted, base.as_ref(), readers.len(), &how.access)?;
        adapters.push(adapter);
        readers.push(reader);
    }
    let adapter = match (request.combine, adapters.len()) {
        (Some(how), _) => combine(adapters, how)?,
        (None, 1) => adapters.remove(0),
        (None, _) => combine(adapters, Combination::cat())?,
    };
    let mut parts = adapter.into_parts();
    if scheme != Scheme::Peft {
        let whole = std::mem::take(&mut parts.whole);
        parts.left.extend(whole.into_iter().map(|(name, _)| format!("{name} (trained as a whole)")));
    }
    if parts.factors.is_empty() {
        return Err(Error::unsupported(format!(
            "nothing of it is a product of two factors: {}",
            super::abridged(&parts.left)
        ))
        .file(&first.at)
        .hint("merge it into its base instead: `tensormill convert BASE --adapter ...`"));
    }
    let mut notes = Vec::new();
    if !parts.left.is_empty() {
        let text = format!("the output cannot hold {}", super::abridged(&parts.left));
        if !request.job.allow_loss {
            return Err(Error::unsupported(text)
                .file(&first.at)
                .hint("go on without them with --allow-loss, or merge the adapter into its base"));
        }
        notes.push(text);
    }
    let flat = parts.factors.iter().find(|f| FLAT.iter().any(|p| f.module.starts_with(p)));
    if let (Some(flat), true) = (flat.filter(|_| base.is_none()), scheme != Scheme::Kohya) {
        return Err(Error::usage(format!("{} is a flat name, which does not say its module", flat.module))
            .file(&first.at)
            .hint("give the model that the adapter belongs to with --base"));
    }
    let model = match scheme {
        Scheme::Peft => peft(parts, request)?,
        Scheme::Kohya => kohya(parts, &request.prefix)?,
        Scheme::Gguf => {
            let base = base.as_ref().ok_or_else(|| {
                Error::usage("a GGUF adapter's names and rows depend on the base model")
                    .hint("give its folder with --base; config.json is enough")
            })?;
            gguf(parts, base, &first.at, &how.access)?
        }
    };
    let dtype = request.dtype.or((scheme == Scheme::Gguf).then_some(DType::F32));
    let source = Source::made(&first.at, "adapter", scheme == Scheme::Gguf, model, readers)?;
    let to = match scheme {
        Scheme::Peft if request.output.extension().is_none_or(|e| e != "safetensors") => Some("safetensors"),
        _ => None,
    };
    let conversion = convert::Request {
        job: Job { source: first.at.clone(), keep_names: true, measure: false, ..request.job.clone() },
        variant: Variant {
            // A type of the whole file is said of models, not of adapters.
            remove_metadata: if scheme == Scheme::Gguf {
                vec!["general.file_type".to_owned()]
            } else {
                Vec::new()
            },
            ..Variant::new("", "", dtype.map_or(Target::Lossless, Target::Dtype))
        },
        output: request.output.clone(),
        to: to.map(str::to_owned),
    };
    convert::plan_by(&conversion, |mut job| {
        for v in &mut job.variants {
            if scheme == Scheme::Peft && v.file == "model.safetensors" {
                "adapter_model.safetensors".clone_into(&mut v.file);
                v.name.clone_from(&v.file);
            }
        }
        job::plan_source(job, source)
    })
}

/// How flat names begin that no model's names were found for.
const FLAT: [&str; 2] = ["lora_", "lycoris_"];

fn scheme_of(output: &Path) -> Scheme {
    match output.extension().and_then(|e| e.to_str()) {
        Some("gguf") => Scheme::Gguf,
        Some("safetensors") => Scheme::Kohya,
        _ => Scheme::Peft,
    }
}

/// Rank and alpha of a pair: `alpha / rank` is its scale.
fn rank_and_alpha(f: &Factors) -> Result<(u64, f64)> {
    let rank = f.a.form()?.shape.dims().first().copied().unwrap_or(0);
    Ok((rank, f.scale * rank as f64))
}

/// What most pairs have.
fn usual<T: Copy + PartialEq>(all: &(impl Iterator<Item = T> + Clone)) -> Option<T> {
    let count = |x: &T| all.clone().filter(|y| y == x).count();
    // The first of several that are as frequent.
    all.clone().map(|x| (count(&x), x)).reduce(|best, x| if x.0 > best.0 { x } else { best }).map(|(_, x)| x)
}

fn model(tensors: Vec<Tensor>, metadata: Metadata, files: BTreeMap<String, Vec<u8>>) -> Model {
    Model { tensors, metadata, assets: Arc::new(MemoryAssets { name: String::new(), files }), program: None }
}

fn peft(parts: Parts, request: &Request) -> Result<Model> {
    let pairs = parts.factors.iter().map(rank_and_alpha).collect::<Result<Vec<_>>>()?;
    let (rank, alpha) = usual(&pairs.iter().copied()).unwrap_or((1, 1.0));
    let (mut ranks, mut alphas, mut targets) = (Map::new(), Map::new(), BTreeSet::new());
    let mut tensors = Vec::new();
    for (f, (own_rank, own_alpha)) in parts.factors.into_iter().zip(pairs) {
        if own_rank != rank {
            ranks.insert(f.module.clone(), json!(own_rank));
        }
        if own_alpha != alpha {
            alphas.insert(f.module.clone(), json!(own_alpha));
        }
        targets.insert(f.module.rsplit('.').next().unwrap_or(&f.module).to_owned());
        let name = |part: &str| format!("base_model.model.{}.{part}", f.module);
        let words = if f.embedding {
            ["lora_embedding_A", "lora_embedding_B"]
        } else {
            ["lora_A.weight", "lora_B.weight"]
        };
        tensors.push(Tensor::new(name(words[0]), f.a.clone())?);
        tensors.push(Tensor::new(name(words[1]), f.b.clone())?);
    }
    let mut saved = BTreeSet::new();
    for (parameter, value) in parts.whole {
        let module = parameter.rsplit_once('.').map_or(parameter.as_str(), |(module, _)| module);
        saved.insert(module.rsplit('.').next().unwrap_or(module).to_owned());
        tensors.push(Tensor::new(format!("base_model.model.{parameter}"), value)?);
    }
    let base = request.base.as_ref().map(Location::last).filter(|n| !n.is_empty());
    let config = json!({
        "peft_type": "LORA",
        "base_model_name_or_path": base,
        "task_type": null,
        "inference_mode": true,
        "r": rank,
        "lora_alpha": alpha,
        "rank_pattern": ranks,
        "alpha_pattern": alphas,
        "target_modules": targets,
        "modules_to_save": if saved.is_empty() { Json::Null } else { json!(saved) },
        "bias": "none",
        "fan_in_fan_out": false,
        "lora_dropout": 0.0,
        "use_dora": false,
        "use_rslora": false,
    });
    let text = serde_json::to_string_pretty(&config)
        .map_err(|e| Error::io("encode adapter_config.json", e.into()))?;
    let files = BTreeMap::from([("adapter_config.json".to_owned(), (text + "\n").into_bytes())]);
    Ok(model(tensors, Metadata::new(), files))
}

fn kohya(parts: Parts, prefix: &str) -> Result<Model> {
    let mut tensors = Vec::new();
    for f in parts.factors {
        let (_, alpha) = rank_and_alpha(&f)?;
        if f.embedding {
            return Err(Error::unsupported("this scheme has no embeddings").tensor(&f.module));
        }
        let known = FLAT.iter().any(|p| f.module.starts_with(p));
        let flat = f.module.replace('.', "_");
        let name =
            |part: &str| if known { format!("{flat}.{part}") } else { format!("{prefix}{flat}.{part}") };
        tensors.push(Tensor::new(name("lora_down.weight"), f.a.clone())?);
        tensors.push(Tensor::new(name("lora_up.weight"), f.b.clone())?);
        let form = Form::new(Shape::new(Vec::new())?, Encoding::F32);
        let bytes = (alpha as f32).to_le_bytes().to_vec().into();
        tensors.push(Tensor::new(name("alpha"), Expr::Const { form, bytes })?);
    }
    Ok(model(tensors, Metadata::new(), BTreeMap::new()))
}

fn gguf(parts: Parts, base: &Base, at: &Location, access: &Access) -> Result<Model> {
    let (arch, config, assets) = base.architecture()?;
    let mut factors = parts.factors;
    let pairs = factors.iter().map(rank_and_alpha).collect::<Result<Vec<_>>>()?;
    // One alpha serves the whole file; pairs with another one have the difference in their factors.
    let alpha = usual(&pairs.iter().map(|(_, a)| *a as f32)).unwrap_or(1.0);
    for (f, (_, own)) in factors.iter_mut().zip(&pairs) {
        if *own as f32 != alpha {
            f.b = scaled(f.b.clone(), own / f64::from(alpha))?;
        }
    }
    // The factor with the weight's rows goes through the architecture's rewrites in the weight's place.
    let rows = |f: &Factors| if f.embedding { f.a.clone().transpose() } else { f.b.clone() };
    let stand_ins = factors.iter().map(|f| Tensor::new(format!("{}.weight", f.module), rows(f)));
    let (written, dropped) = arch.rewrite_some(stand_ins.collect::<Result<_>>()?, &config, assets)?;
    if !dropped.is_empty() {
        return Err(Error::unsupported(format!(
            "the GGUF form has no place for {}",
            super::abridged(&dropped)
        )));
    }
    let texts: BTreeMap<String, usize> =
        factors.iter().enumerate().map(|(i, f)| (rows(f).to_string(), i)).collect();
    let mut tensors = Vec::with_capacity(2 * written.len());
    for t in written {
        let mut from = Vec::new();
        origins(&t.expr, &texts, &mut from);
        let name = |part: &str| format!("{}.lora_{part}", t.name());
        let (a, b) = match from.as_slice() {
            [i] if factors[*i].embedding => (t.expr.clone(), factors[*i].b.clone()),
            [i] => (factors[*i].a.clone(), t.expr.clone()),
            [] => {
                return Err(
                    Error::unsupported("a change that is no row of a factor any more").tensor(t.name())
                );
            }
            experts => {
                let inputs: Vec<Expr> = experts.iter().map(|i| factors[*i].a.clone()).collect();
                let one = inputs[0].form()?.shape;
                let shape = Shape::new([&[inputs.len() as u64], one.dims()].concat())?;
                (Expr::Concat { inputs, shape }, t.expr.clone())
            }
        };
        tensors.push(Tensor::new(name("a"), a)?);
        tensors.push(Tensor::new(name("b"), b)?);
    }
    let card = at.find(access)?.1;
    let card = card.dir();
    let mut metadata = Metadata::new();
    metadata.set("general.architecture", arch.gguf_name());
    metadata.set("general.type", "adapter");
    metadata.set("adapter.type", "lora");
    let full =
        factors.iter().map(|f| Ok(f.a.form()?.shape.row_len().saturating_mul(f.b.form()?.shape.rows())));
    let total = full.collect::<Result<Vec<u64>>>()?.into_iter().fold(0, u64::saturating_add);
    let mut own =
        general(&**card, ParamCounts { total, adapter: true, ..ParamCounts::default() }, &[])?.metadata;
    own.remove("general.type");
    metadata.extend(own);
    metadata.set("adapter.lora.alpha", alpha);
    metadata.set("general.quantization_version", crate::hf::QUANTIZATION_VERSION);
    Ok(model(tensors, metadata, BTreeMap::new()))
}

/// Which factors an expression was made of, in its order.
fn origins(expr: &Expr, texts: &BTreeMap<String, usize>, found: &mut Vec<usize>) {
    if let Some(i) = texts.get(&expr.to_string()) {
        found.push(*i);
        return;
    }
    match expr {
        Expr::Rows { input, .. } | Expr::Reshape { input, .. } | Expr::Transpose { input } => {
            origins(input, texts, found);
        }
        Expr::Concat { inputs, .. } => inputs.iter().for_each(|e| origins(e, texts, found)),
        // Anything computed is no factor any more.
        Expr::Read { .. } | Expr::Const { .. } | Expr::Apply { .. } => {}
    }
}
