//! Which tensor of the tuned checkpoint is a change of which tensor of the base, and as what an adapter can hold that
//! change. Headers alone; no weight is read.

use super::Options;
use crate::Source;
use regex::Regex;
use serde_json::Value as Json;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use tensormill_model::{Error, Expr, Result, Tensor};
use tensormill_tensor::{DType, Encoding};

/// As what a change is held.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum How {
    /// Two factors of a matrix; `true` where the weight is `[in, out]`.
    Linear(bool),
    /// Two factors of a convolution's kernels.
    Convolution,
    /// Two factors of an embedding.
    Embedding,
    /// The tuned parameter in place of the base's, of a module whose weight is held as factors or does not change.
    Bias,
    /// The tuned module in place of the base's.
    Whole,
    /// An adapter has no place for it.
    Refused(&'static str),
}

impl How {
    /// Whether the change becomes two factors.
    pub(super) fn is_low_rank(self) -> bool {
        matches!(self, Self::Linear(_) | Self::Convolution | Self::Embedding)
    }
    /// Whether factors change places: what PEFT adds is the transpose of their product.
    pub(super) fn is_transposed(self) -> bool {
        matches!(self, Self::Linear(true) | Self::Embedding)
    }
}

/// One tensor of the tuned checkpoint.
#[derive(Clone, Debug)]
pub(super) struct Pair {
    /// Its name, as the model's class has it.
    pub(super) name: String,
    /// The module that it is a parameter of.
    pub(super) module: String,
    pub(super) how: How,
    /// Its number in the base's reader; `None` where its shape is another.
    pub(super) base: Option<usize>,
    /// Its number in the tuned checkpoint's reader.
    pub(super) tuned: usize,
    /// Whether it is the embedding that serves as output, too.
    pub(super) is_output: bool,
}

impl Pair {
    /// What it is in its module: `weight`, `bias`.
    fn parameter(&self) -> &str {
        leaf(&self.name)
    }
}

/// What there is to do.
pub(super) struct Pairs {
    /// In the order of the tuned checkpoint.
    pub(super) list: Vec<Pair>,
    /// Names of all modules, those that hold others among them.
    pub(super) modules: BTreeSet<String>,
    /// What `config.json` says.
    pub(super) config: Json,
    pub(super) notes: Vec<String>,
}

/// The first few names of a list.
pub(super) fn abridged(names: &[String]) -> String {
    const SHOWN: usize = 8;
    let shown = names.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN { format!("{shown}, and {} more", names.len() - SHOWN) } else { shown }
}

/// Last component of a module's name.
pub(super) fn leaf(module: &str) -> &str {
    module.rsplit('.').next().unwrap_or(module)
}

/// The output's weight.
fn is_head(name: &str) -> bool {
    name == "lm_head.weight" || name.ends_with(".lm_head.weight")
}

/// Whether a module's weight is looked up row by row, by the names that libraries give such modules.
fn is_embedding(module: &str) -> bool {
    let leaf = leaf(module);
    matches!(leaf, "wte" | "wpe" | "shared" | "embed_in" | "embed_tokens" | "embed_positions" | "embeddings")
        || leaf.ends_with("_embedding")
        || leaf.ends_with("_embeddings")
        || leaf == "relative_attention_bias"
}

/// Models whose linear layers are `Conv1D` of transformers: `[in, out]`.
fn is_turned(config: &Json, module: &str) -> bool {
    matches!(config["model_type"].as_str(), Some("gpt2" | "openai-gpt" | "imagegpt" | "decision_transformer"))
        && matches!(leaf(module), "c_attn" | "c_proj" | "c_fc" | "q_attn")
}

/// The task of models that write text.
const CAUSAL: &str = "CAUSAL_LM";

/// What PEFT is to expect of the model, where its name says so. Classifiers have no type: PEFT would then demand a head.
pub(super) fn task(config: &Json) -> Option<&'static str> {
    let named = |end: &str| {
        let classes = config["architectures"].as_array();
        classes.is_some_and(|a| a.iter().filter_map(Json::as_str).any(|a| a.ends_with(end)))
    };
    if named("ForCausalLM") || named("LMHeadModel") {
        Some(CAUSAL)
    } else if named("ForConditionalGeneration") && config["is_encoder_decoder"] == true {
        Some("SEQ_2_SEQ_LM")
    } else {
        None
    }
}

/// Names of a source's tensors with their numbers in its reader.
struct Names<'a> {
    tensors: Vec<(&'a str, usize)>,
    numbers: HashMap<&'a str, usize>,
}

impl<'a> Names<'a> {
    fn of(source: &'a Source) -> Result<Self> {
        let number = |t: &'a Tensor| match t.expr {
            Expr::Read { tensor, .. } => Ok((t.name(), tensor)),
            _ => Err(Error::unsupported("not stored as it stands").tensor(t.name())),
        };
        let tensors = source.model.tensors.iter().map(number).collect::<Result<Vec<_>>>()?;
        Ok(Self { numbers: tensors.iter().copied().collect(), tensors })
    }

    /// The tensor of this name; where there is no output of its own, it is the embedding.
    fn find(&self, name: &str) -> Option<usize> {
        self.numbers.get(name).copied().or_else(|| if is_head(name) { self.input() } else { None })
    }

    fn input(&self) -> Option<usize> {
        let known = ["embed_tokens.weight", "wte.weight", "word_embeddings.weight", "embed_in.weight"];
        let is = |n: &str| known.iter().any(|k| n == *k || n.ends_with(&format!(".{k}")));
        self.tensors.iter().find(|(n, _)| is(n)).map(|(_, i)| *i)
    }

    /// Whether a tensor of this name has bytes of its own.
    fn has_own_head(&self) -> bool {
        self.tensors.iter().any(|(n, i)| is_head(n) && Some(*i) != self.input())
    }
}

/// What libraries of one side put in front of all names: `(of the base, of the tuned)`, one of them empty.
fn prefixes(base: &Names<'_>, tuned: &Names<'_>) -> (String, String) {
    // The output's name has nothing in front on either side.
    let shared = tuned.tensors.iter().filter(|(n, _)| base.numbers.contains_key(n)).count();
    if shared * 2 > tuned.tensors.len() {
        return (String::new(), String::new());
    }
    let longer = |long: &Names<'_>, short: &Names<'_>| {
        let split = |n: &str| n.split_once('.').map(|(p, rest)| (p.to_owned(), rest.to_owned()));
        let mut found = long.tensors.iter().filter_map(|(n, _)| split(n));
        found.find(|(_, rest)| short.numbers.contains_key(rest.as_str())).map(|(p, _)| format!("{p}."))
    };
    if let Some(p) = longer(tuned, base) {
        return (String::new(), p);
    }
    (longer(base, tuned).unwrap_or_default(), String::new())
}

/// Pairs the tensors of two checkpoints.
pub(super) fn pair(base: &Source, tuned: &Source, options: &Options) -> Result<Pairs> {
    let (of_base, of_tuned) = (Names::of(base)?, Names::of(tuned)?);
    let config = [tuned, base].into_iter().find_map(config_of).unwrap_or(Json::Null);
    let mut notes = Vec::new();
    let (extra_base, extra_tuned) = prefixes(&of_base, &of_tuned);
    // Names of the longer kind are those of the class that adapters are loaded into.
    let in_base = |name: &str| of_base.find(name.strip_prefix(&extra_tuned).unwrap_or(name));
    let (specs_base, specs_tuned) = (&base.readers[0].index().tensors, &tuned.readers[0].index().tensors);

    // A tied output is loaded from the embedding, whatever the file has under its name.
    let says_tied = config["tie_word_embeddings"].as_bool();
    let heads = of_base.has_own_head() || of_tuned.has_own_head();
    let tied = task(&config) == Some(CAUSAL) && (says_tied == Some(true) || (!heads && says_tied.is_none()));
    let counts = |names: &Names<'_>, (name, number): &(&str, usize)| {
        !is_head(name) || (says_tied != Some(true) && (heads || Some(*number) != names.input()))
    };

    let mut pairs = Vec::new();
    let (mut only_tuned, mut shapes, mut unlike) = (Vec::new(), Vec::new(), HashSet::new());
    for &(name, number) in of_tuned.tensors.iter().filter(|t| counts(&of_tuned, t)) {
        let full = format!("{extra_base}{name}");
        let Some(partner) = in_base(&full) else {
            only_tuned.push(name.to_owned());
            continue;
        };
        let (module, _) = full.rsplit_once('.').unwrap_or(("", &full));
        let same = specs_base[partner].shape == specs_tuned[number].shape;
        if !same {
            let dims = (specs_base[partner].shape.dims(), specs_tuned[number].shape.dims());
            if is_embedding(module) && dims.0.len() == 2 && dims.0.get(1) == dims.1.get(1) {
                unlike.insert((dims.0[0], dims.1[0]));
            }
        }
        pairs.push(Pair {
            module: module.to_owned(),
            how: How::Whole,
            base: same.then_some(partner),
            tuned: number,
            is_output: tied && Some(number) == of_tuned.input(),
            name: full,
        });
    }
    let in_tuned: HashSet<String> = pairs.iter().map(|p: &Pair| p.name.clone()).collect();
    // A vocabulary that grew changes the output and its bias with the embedding.
    pairs.retain(|p| {
        let Some(partner) = in_base(&p.name).filter(|_| p.base.is_none()) else { return true };
        let (was, is) = (&specs_base[partner].shape, &specs_tuned[p.tuned].shape);
        let grown = match (was.dims(), is.dims()) {
            ([was, a @ ..], [is, b @ ..]) => a == b && unlike.contains(&(*was, *is)),
            _ => false,
        };
        if !grown {
            shapes.push(format!("{} ({was} in the base, {is} in the tuned model)", p.name));
        }
        grown
    });
    for (was, is) in &unlike {
        notes.push(format!(
            "the vocabulary has {is} rows instead of {was}: what grew is kept whole, and the base must be resized \
             (resize_token_embeddings) before the adapter is loaded"
        ));
    }
    let only_base: Vec<String> = of_base
        .tensors
        .iter()
        .filter(|t| counts(&of_base, t) && !in_tuned.contains(&format!("{extra_tuned}{}", t.0)))
        .map(|t| t.0.to_owned())
        .collect();
    for (names, what) in [
        (shapes, "have other shapes"),
        (only_tuned, "are in the tuned model only"),
        (only_base, "are in the base only"),
    ] {
        if names.is_empty() {
            continue;
        }
        let text = format!("{} tensors {what}: {}", names.len(), abridged(&names));
        if !options.allow_loss {
            return Err(Error::mismatch(text)
                .file(&tuned.location)
                .hint("this is not the model that was tuned; or leave these tensors out with --allow-loss"));
        }
        notes.push(format!("left out: {text}"));
    }
    if pairs.is_empty() {
        return Err(Error::mismatch("the two checkpoints have no tensor in common").file(&tuned.location));
    }
    let modules = modules(pairs.iter().map(|p| p.name.as_str()));
    choose(&mut pairs, &modules, specs_tuned, specs_base, &config, options)?;
    exclude(&mut pairs, options, &mut notes)?;
    if options.embed_lora && pairs.iter().any(|p| p.is_output) {
        notes.push(
            "the embedding is the output, too, and is kept whole: PEFT would merge its factors twice".into(),
        );
    }
    Ok(Pairs { list: pairs, modules, config, notes })
}

fn config_of(source: &Source) -> Option<Json> {
    let bytes = source.model.assets.read("config.json").ok().flatten()?;
    serde_json::from_slice(&bytes).ok()
}

/// All modules that these parameters belong to, directly or not.
fn modules<'a>(names: impl Iterator<Item = &'a str>) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for name in names {
        let mut rest = name;
        while let Some((module, _)) = rest.rsplit_once('.') {
            if !all.insert(module.to_owned()) {
                break;
            }
            rest = module;
        }
    }
    all
}

type Specs = [tensormill_tensor::TensorSpec];

/// Says of each pair as what it is held.
fn choose(
    pairs: &mut [Pair],
    modules: &BTreeSet<String>,
    tuned: &Specs,
    base: &Specs,
    config: &Json,
    options: &Options,
) -> Result<()> {
    let whole = options.save_modules.as_deref().map(pattern).transpose()?;
    let holds_modules = |module: &str| {
        let prefix = format!("{module}.");
        modules.range(prefix.clone()..).next().is_some_and(|m| m.starts_with(&prefix))
    };
    let real = |spec: &tensormill_tensor::TensorSpec| {
        matches!(spec.encoding, Encoding::Plain(DType::F32 | DType::F16 | DType::BF16 | DType::F64))
    };
    let mut weights: BTreeMap<String, How> = BTreeMap::new();
    for p in pairs.iter_mut() {
        let dims = tuned[p.tuned].shape.dims();
        let floats = real(&tuned[p.tuned]) && p.base.is_none_or(|b| real(&base[b]));
        p.how = match (p.parameter(), dims) {
            _ if p.module.is_empty() || holds_modules(&p.module) => {
                How::Refused("a parameter of a module that holds other modules")
            }
            ("weight", [_, _, ..]) if !floats => How::Refused("its numbers are quantized"),
            _ if p.base.is_none() || whole.as_ref().is_some_and(|w| w.is_match(&p.module)) => How::Whole,
            ("weight", [_, _]) if is_embedding(&p.module) => {
                // PEFT's merge adds the factors of a tied embedding twice.
                if options.embed_lora && !p.is_output { How::Embedding } else { How::Whole }
            }
            ("weight", [_, _]) => How::Linear(is_turned(config, &p.module)),
            // Of one input channel there is nothing to share.
            ("weight", [_, inputs, _, ..]) if dims.len() <= 5 && *inputs > 1 => How::Convolution,
            _ => How::Whole,
        };
        if p.parameter() == "weight" {
            weights.insert(p.module.clone(), p.how);
        }
    }
    for p in pairs.iter_mut().filter(|p| p.how == How::Whole && p.parameter() != "weight") {
        p.how = match weights.get(&p.module) {
            Some(how) if how.is_low_rank() && p.parameter() == "bias" && p.base.is_some() => How::Bias,
            Some(how) if how.is_low_rank() => {
                How::Refused("a further parameter of a module that is held as factors")
            }
            _ => How::Whole,
        };
    }
    Ok(())
}

fn pattern(text: &str) -> Result<Regex> {
    Regex::new(text).map_err(|e| Error::usage(format!("{text:?} is not a regular expression: {e}")))
}

/// Leaves out what was not asked for.
fn exclude(pairs: &mut Vec<Pair>, options: &Options, notes: &mut Vec<String>) -> Result<()> {
    let (modules, not) = (options.modules.as_deref(), options.exclude.as_deref());
    let (modules, not) = (modules.map(pattern).transpose()?, not.map(pattern).transpose()?);
    let before = pairs.len();
    pairs.retain(|p| {
        modules.as_ref().is_none_or(|r| r.is_match(&p.module))
            && not.as_ref().is_none_or(|r| !r.is_match(&p.module))
    });
    if pairs.is_empty() {
        return Err(
            Error::usage("no module is left to extract").hint("see the names with `tensormill inspect`")
        );
    }
    if pairs.len() < before {
        notes.push(format!("{} of {before} tensors were not looked at, as asked", before - pairs.len()));
    }
    Ok(())
}
