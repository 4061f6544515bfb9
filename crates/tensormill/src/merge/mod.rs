//! Merge recipes as sources: a recipe's file is opened like a model, and gives the merged one, with a reader for each model
//! that it names. So everything that is made of a model can be made of a merge, without the merge ever being a file.
//!
//! Which tensors become which is `tensormill_merge`'s to say. Here: files, paths, and the files beside the weights.

mod assets;
mod tokenizers;

use crate::{
    Source,
    location::{Location, Opening},
    quantized,
};
use serde_json::{Map, Value};
use std::{path::Path, sync::Arc};
use tensormill_arch::usual_type;
use tensormill_card::yaml::{self, Node};
use tensormill_merge::{Input, Recipe, Tokenizer};
use tensormill_model::{Error, Model, Result, Store, Tensor};
use tensormill_store::LocalFile;
use tensormill_tensor::Encoding;
use tensormill_transforms::Target;

/// Larger than any merge recipe.
const MOST: u64 = 1 << 20;

/// The path of what can only be a merge recipe: no model has such a suffix. Recipes are on this machine.
pub(crate) fn recipe(at: &Location) -> Option<&Path> {
    let known = |s: &str| ["toml", "yaml", "yml"].iter().any(|k| s.eq_ignore_ascii_case(k));
    let path = at.local()?;
    (path.extension().and_then(|s| s.to_str()).is_some_and(known) && path.is_file()).then_some(path)
}

/// Opens a source; with a seed, it must be a merge recipe, whose own seed does not count.
///
/// # Errors
/// As [`Source::open_at`].
pub(crate) fn open_source(at: &Location, how: &Opening, seed: Option<u64>) -> Result<Source> {
    if let Some(path) = recipe(at) {
        return open(path, how, seed);
    }
    if seed.is_some() {
        return Err(Error::usage("only merges have random numbers to choose").file(at));
    }
    Source::open_at(at, how)
}

/// Opens a merge recipe and the models that it names; paths are relative to its folder.
///
/// # Errors
/// `Usage` for what is no recipe, naming the key; errors of opening the models; those of merging them.
pub(crate) fn open(path: &Path, how: &Opening, seed: Option<u64>) -> Result<Source> {
    let bytes = read(path)?;
    let recipe = tree(path, &bytes).and_then(|t| Recipe::parse(&t)).map_err(|e| e.file(path.display()))?;
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let (mut inputs, mut readers) = (Vec::new(), Vec::new());
    let (mut total, mut gguf, mut decoded) = (0u64, Vec::new(), Vec::new());
    for name in &recipe.models {
        let at = locate(folder, name).map_err(|e| e.file(path.display()))?;
        let mut source = Source::open_at(&at, how)?;
        quantized::open(&mut source).map_err(|e| e.file(&at))?;
        let mut weights = source.take_model();
        if source.is_gguf() && !recipe.only_moves() {
            let whole = whole(&mut weights, name).map_err(|e| e.file(&at))?;
            decoded.extend(whole);
        }
        total = total.saturating_add(source.bytes);
        gguf.push(source.is_gguf());
        let [reader] = source.readers.as_slice() else {
            return Err(Error::unsupported("models that are merged themselves").file(&at));
        };
        let shifted = |t: Tensor| Tensor::new(t.name(), t.expr.shifted(readers.len()));
        let tensors = weights.tensors.into_iter().map(shifted).collect::<Result<_>>()?;
        let model = Model {
            tensors,
            metadata: reader.index().metadata.clone(),
            assets: weights.assets,
            program: None,
        };
        inputs.push(Input { name: name.clone(), model });
        readers.push(Arc::clone(reader));
    }
    let gguf = match (gguf.iter().all(|g| *g), gguf.iter().any(|g| *g)) {
        (true, _) => true,
        (_, false) => false,
        _ => {
            return Err(Error::unsupported("GGUF files cannot be merged with checkpoints")
                .file(path.display())
                .hint("name the Hugging Face folders that the files were made from"));
        }
    };
    let named = |e: Error| e.context(path.display());
    let mut notes = tokenizers::compare(&recipe, &inputs, gguf).map_err(named)?;
    let seed = seed.unwrap_or(recipe.seed);
    let merged = tensormill_merge::merge(&recipe, &inputs, seed).map_err(named)?;
    let mut model = merged.model;
    if gguf {
        restack_gguf(&recipe, &inputs, merged.layers.as_deref(), &mut model).map_err(named)?;
        // What the donor says may be true of its blocks, and those are decoded.
        if let (false, Some(Encoding::Plain(d))) = (recipe.only_moves(), usual_type(&model))
            && let Some(target) = Target::plain(d)
        {
            model.metadata.set("general.file_type", target.file_type());
        }
    } else {
        let made = assets::Made { recipe: &recipe, inputs: &inputs, layers: merged.layers.as_deref() };
        model.assets = made.assets(path, bytes, merged.untied, &mut notes).map_err(named)?;
    }
    notes.extend(merged.notes);
    notes.extend(decoded);
    let format = format!("merge of {} models, {}", inputs.len(), recipe.method.name());
    let mut made = Source::made(&path.into(), &format, gguf, model, readers)?;
    (made.bytes, made.notes) = (total, notes);
    Ok(made)
}

/// Makes a GGUF file's tensors the whole weights that can be computed with: blocks decoded, times the scales beside them.
/// Gives what should be said of that.
fn whole(model: &mut Model, name: &str) -> Result<Vec<String>> {
    let blocks = model.tensors.iter().filter(|t| t.spec.encoding.is_block()).count();
    let inputs = quantized::scaled(model)?;
    quantized::decode_blocks(model)?;
    let mut notes = quantized::left_out(inputs.iter().map(Tensor::name));
    if blocks > 0 {
        notes.push(format!("{blocks} quantized tensors of {name} are decoded to be merged"));
    }
    Ok(notes)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let store = LocalFile::open(path)?;
    if store.len() > MOST {
        return Err(Error::over_limit("larger than any merge recipe").file(path.display()));
    }
    let mut bytes = vec![0; store.len() as usize];
    store.read_at(0, &mut bytes)?;
    Ok(bytes)
}

/// What a recipe's file holds.
fn tree(path: &Path, bytes: &[u8]) -> Result<Value> {
    let no = |what: String| {
        Error::usage(format!("not a merge recipe: {what}"))
            .hint("`tensormill merge --help` shows one; release files are for `tensormill release`")
    };
    let text = str::from_utf8(bytes).map_err(|_| no("not UTF-8 text".into()))?;
    if path.extension().is_some_and(|s| s.eq_ignore_ascii_case("toml")) {
        return toml::from_str(text).map_err(|e| no(e.to_string().trim_end().to_owned()));
    }
    yaml::parse(text).map(value).map_err(no)
}

fn value(node: Node) -> Value {
    match node {
        Node::Null => Value::Null,
        Node::Str(s) | Node::Time(s) => Value::String(s),
        Node::Bool(b) => Value::Bool(b),
        Node::Int(Some(n), _) => Value::from(n),
        // What has no value as a number is refused as text where a number must be.
        Node::Int(None, text) => Value::String(text),
        Node::Float(x, text) => serde_json::Number::from_f64(x).map_or(Value::String(text), Value::Number),
        Node::Seq(list) => Value::Array(list.into_iter().map(value).collect()),
        Node::Map(map) => Value::Object(map.into_iter().map(|(k, v)| (k, value(v))).collect::<Map<_, _>>()),
    }
}

/// Where a model is.
fn locate(folder: &Path, name: &str) -> Result<Location> {
    let at = name.parse::<Location>()?.within(folder);
    if recipe(&at).is_some() {
        return Err(Error::unsupported(format!("{name} is a merge itself"))
            .hint("make it first: tensormill merge RECIPE -o FOLDER"));
    }
    if at.local().is_none_or(Path::exists) {
        return Ok(at);
    }
    if let Some((model, adapter)) = name.split_once('+') {
        return Err(Error::unsupported(format!(
            "{name}: adapters in recipes are not merged by this version"
        ))
        .hint(format!(
            "make the model first: tensormill convert {model} -o FOLDER --to safetensors --adapter {adapter}"
        )));
    }
    let e = Error::usage(format!("there is no {name} in the recipe's folder"));
    let hub = name.split('/').count() == 2 && !name.starts_with('.') && !name.contains('\\');
    Err(e.hint(if hub {
        "models are local: download it from the Hub, and write the folder's path; relative paths start at the recipe"
    } else {
        "write the path of a model's folder or file; relative paths start at the recipe"
    }))
}

/// What GGUF files say about their layers, as it is after a merge.
fn restack_gguf(
    recipe: &Recipe,
    inputs: &[Input],
    layers: Option<&[(usize, u64)]>,
    model: &mut Model,
) -> Result<()> {
    if recipe.dtype.is_some() || recipe.out_dtype.is_some() {
        return Err(Error::unsupported("dtype and out_dtype are for checkpoints: GGUF files mix types")
            .hint("leave them out; tensors are computed in the types that they have"));
    }
    if let Some(Tokenizer::Model(i)) = recipe.tokenizer {
        for (key, v) in inputs[i].model.metadata.iter().filter(|(k, _)| k.starts_with("tokenizer.")) {
            model.metadata.set(key, v.clone());
        }
    }
    let Some(layers) = layers else { return Ok(()) };
    let arch = model.metadata.str("general.architecture").unwrap_or_default().to_owned();
    let front = format!("{arch}.");
    let lists = model
        .metadata
        .iter()
        .any(|(k, v)| k.starts_with(&front) && matches!(v, tensormill_model::Value::Array(_)));
    if lists {
        return Err(Error::unsupported(format!(
            "layers of {arch} GGUF files, each with numbers of its own, cannot be restacked"
        ))
        .hint("name the Hugging Face folders that the files were made from"));
    }
    model.metadata.set(format!("{arch}.block_count"), layers.len() as u32);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn yaml_and_toml_are_one_tree() {
        let yaml = "merge_method: slerp\nparameters:\n  t:\n  - filter: mlp\n    value: [0, 0.5, 1e-3]\n  - value: 0.5\n";
        let toml = "merge_method = \"slerp\"\n[parameters]\nt = [{ filter = \"mlp\", value = [0, 0.5, \"1e-3\"] }, { value = 0.5 }]\n";
        let of = |name: &str, text: &str| tree(Path::new(name), text.as_bytes()).unwrap();
        assert_eq!(of("a.yml", yaml), of("a.toml", toml));
        assert!(tree(Path::new("a.yml"), b"\xff").is_err() && tree(Path::new("a.toml"), b"a = ").is_err());
    }

    #[test]
    fn changed_bytes_are_no_more_than_errors() {
        let golden = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../golden/merge"));
        let (mut state, mut good, mut bad) = (1u64, 0, 0);
        let mut pick = |n: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % n
        };
        for name in ["ties-slices.yaml", "linear-bf16.yaml", "passthrough.yaml", "slerp.yaml"] {
            let text = std::fs::read(golden.join(name)).unwrap();
            for _ in 0..1500 {
                let mut bytes = text.clone();
                for _ in 0..=pick(3) {
                    let at = pick(bytes.len());
                    match pick(4) {
                        0 => bytes[at] = b"{}[]:-&*!|>'\"#%@, \n0x9.e"[pick(24)],
                        1 => drop(bytes.remove(at)),
                        2 => bytes.truncate(at + 1),
                        _ => bytes[at] ^= 1 << pick(8),
                    }
                }
                for suffix in ["a.yaml", "a.toml"] {
                    match tree(Path::new(suffix), &bytes).and_then(|t| Recipe::parse(&t)) {
                        Ok(_) => good += 1,
                        Err(_) => bad += 1,
                    }
                }
            }
        }
        assert!(good > 100 && bad > 1000, "{good} good, {bad} bad");
    }
}
