//! The files beside a merge's weights: those of the base or the first model, with the tokenizer that the recipe chooses,
//! and a `config.json` that says what the merge is. The recipe goes along; the model card does not, since it is another
//! model's.

use serde_json::{Map, Value};
use std::{path::Path, sync::Arc};
use tensormill_merge::{Input, Recipe, Tokenizer};
use tensormill_model::{Assets, Error, Result};
use tensormill_tensor::DType;

const CONFIG: &str = "config.json";

/// What a merge is made of.
pub(super) struct Made<'a> {
    pub recipe: &'a Recipe,
    pub inputs: &'a [Input],
    /// Where the layers come from, if they were restacked.
    pub layers: Option<&'a [(usize, u64)]>,
}

struct MergedAssets {
    name: String,
    donor: Arc<dyn Assets>,
    /// Whose tokenizer is taken.
    tokenizer: Arc<dyn Assets>,
    config: Option<Vec<u8>>,
    /// The recipe's name here, and its text.
    recipe: (&'static str, Vec<u8>),
}

/// Whether a file belongs to the tokenizer.
fn of_tokenizer(name: &str) -> bool {
    const NAMES: &[&str] = &[
        "added_tokens.json",
        "merges.txt",
        "special_tokens_map.json",
        "tekken.json",
        "vocab.json",
        "vocab.txt",
    ];
    const FRONTS: &[&str] = &["tokenizer", "chat_template", "additional_chat_templates/"];
    let sentence_piece = Path::new(name).extension().is_some_and(|s| s == "model");
    NAMES.contains(&name) || FRONTS.iter().any(|f| name.starts_with(f)) || sentence_piece
}

/// Whether a file speaks of the model that it lies beside, and of no other.
fn of_model_alone(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    lower.starts_with("readme") || RECIPES.contains(&name)
}

/// Names of recipes beside merges: mergekit's, and that of the other syntax.
const RECIPES: &[&str] = &["mergekit_config.yml", "merge.toml"];

impl MergedAssets {
    fn whose(&self, name: &str) -> &dyn Assets {
        if of_tokenizer(name) { &*self.tokenizer } else { &*self.donor }
    }
}

impl Assets for MergedAssets {
    fn name(&self) -> &str {
        &self.name
    }
    fn list(&self) -> Vec<String> {
        let mut all: Vec<String> = self.donor.list().into_iter().filter(|n| !of_tokenizer(n)).collect();
        all.extend(self.tokenizer.list().into_iter().filter(|n| of_tokenizer(n)));
        all.retain(|n| !of_model_alone(n));
        all.push(self.recipe.0.to_owned());
        all.sort_unstable();
        all
    }
    fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        if name == self.recipe.0 {
            return Ok(Some(self.recipe.1.clone()));
        }
        if of_model_alone(name) {
            return Ok(None);
        }
        match (&self.config, name) {
            (Some(config), CONFIG) => Ok(Some(config.clone())),
            _ => self.whose(name).read(name),
        }
    }
}

impl Made<'_> {
    /// The files; `path` is the recipe's, and its name the merge's.
    pub(super) fn assets(
        &self,
        path: &Path,
        recipe: Vec<u8>,
        untied: bool,
        notes: &mut Vec<String>,
    ) -> Result<Arc<dyn Assets>> {
        let of = |i: usize| Arc::clone(&self.inputs[i].model.assets);
        let donor = of(self.recipe.donor());
        let tokenizer = match self.recipe.tokenizer {
            Some(Tokenizer::Model(i)) => of(i),
            _ => Arc::clone(&donor),
        };
        let yaml = !path.extension().is_some_and(|s| s.eq_ignore_ascii_case("toml"));
        Ok(Arc::new(MergedAssets {
            name: path.file_stem().map_or_else(String::new, |n| n.to_string_lossy().into_owned()),
            config: self.config(untied, notes)?,
            donor,
            tokenizer,
            recipe: (RECIPES[usize::from(!yaml)], recipe),
        }))
    }

    fn read_config(&self, model: usize) -> Result<Option<Map<String, Value>>> {
        let input = &self.inputs[model];
        let Some(bytes) = input.model.assets.read(CONFIG)? else { return Ok(None) };
        let config = serde_json::from_slice(&bytes)
            .map_err(|e| Error::malformed(format!("{CONFIG} is not valid JSON: {e}")).file(&input.name))?;
        Ok(Some(config))
    }

    /// The donor's configuration with what is different now; `None` where it stays as it is.
    fn config(&self, untied: bool, notes: &mut Vec<String>) -> Result<Option<Vec<u8>>> {
        let mut configs = Vec::with_capacity(self.inputs.len());
        for i in 0..self.inputs.len() {
            configs.push(self.read_config(i)?);
        }
        let donor = self.recipe.donor();
        let kind = |c: &Map<String, Value>| c.get("model_type").and_then(Value::as_str).map(str::to_owned);
        let mut kinds: Vec<String> = configs.iter().flatten().filter_map(kind).collect();
        kinds.sort_unstable();
        kinds.dedup();
        if kinds.len() > 1 {
            notes.push(format!("the models are of different kinds: {}", kinds.join(", ")));
        }
        let Some(mut config) = configs[donor].clone() else { return Ok(None) };
        let before = config.clone();
        if let Some(dtype) = self.recipe.out_dtype.or(self.recipe.dtype) {
            let name = match dtype {
                DType::F16 => "float16",
                DType::BF16 => "bfloat16",
                _ => "float32",
            };
            let key = if config.contains_key("dtype") { "dtype" } else { "torch_dtype" };
            config.insert(key.to_owned(), name.into());
        }
        if untied {
            config.insert("tie_word_embeddings".to_owned(), false.into());
            notes.push("the output matrix is no longer tied to the embedding".to_owned());
        }
        if let Some(layers) = self.layers {
            restack(&mut config, &configs, layers, notes);
        }
        if config == before {
            return Ok(None);
        }
        let text =
            serde_json::to_string_pretty(&config).map_err(|e| Error::io("encode config.json", e.into()))?;
        Ok(Some((text + "\n").into_bytes()))
    }
}

/// Keys that say how many layers there are.
const COUNTS: &[&str] = &["num_hidden_layers", "n_layer", "num_layers", "n_layers"];

/// The part of a configuration that speaks of layers, and how many it says there are.
fn of_layers(config: &Map<String, Value>) -> Option<(Option<&'static str>, &'static str, u64)> {
    let count = |m: &Map<String, Value>| COUNTS.iter().find_map(|k| Some((*k, m.get(*k)?.as_u64()?)));
    if let Some((key, n)) = count(config) {
        return Some((None, key, n));
    }
    let (key, n) = count(config.get("text_config")?.as_object()?)?;
    Some((Some("text_config"), key, n))
}

fn within<'c>(config: &'c Map<String, Value>, part: Option<&str>) -> Option<&'c Map<String, Value>> {
    part.map_or(Some(config), |p| config.get(p)?.as_object())
}

/// Number of layers, and lists that say something of each.
fn restack(
    config: &mut Map<String, Value>,
    configs: &[Option<Map<String, Value>>],
    layers: &[(usize, u64)],
    notes: &mut Vec<String>,
) {
    let Some((part, key, count)) = of_layers(config) else {
        notes.push(format!("{CONFIG} says nowhere how many layers there are: set it to {}", layers.len()));
        return;
    };
    let table = match part {
        Some(part) => config.get_mut(part).and_then(Value::as_object_mut),
        None => Some(config),
    };
    let Some(table) = table else { return };
    table.insert(key.to_owned(), layers.len().into());
    for (name, list) in table.iter_mut() {
        let of_each = |v: &Value| v.as_array().is_some_and(|l| l.len() as u64 == count);
        if !name.contains("layer") || !of_each(list) {
            continue;
        }
        let entry = |(model, layer): &(usize, u64)| {
            let from = within(configs[*model].as_ref()?, part)?;
            from.get(name)?.as_array()?.get(usize::try_from(*layer).ok()?).cloned()
        };
        match layers.iter().map(entry).collect::<Option<Vec<_>>>() {
            Some(entries) => *list = Value::Array(entries),
            None => notes.push(format!("{CONFIG}: {name} is not known for every layer; look at it")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn configurations_follow_the_layers() {
        let config = |kinds: Value| {
            let Value::Object(m) = json!({"num_hidden_layers": 3, "layer_types": kinds, "head_dim": 64})
            else {
                unreachable!()
            };
            m
        };
        let configs = [Some(config(json!(["a", "b", "c"]))), Some(config(json!(["d", "e", "f"])))];
        let (mut made, mut notes) = (config(json!(["a", "b", "c"])), Vec::new());
        restack(&mut made, &configs, &[(0, 0), (1, 2), (0, 1), (0, 2)], &mut notes);
        assert_eq!(made["num_hidden_layers"], 4);
        assert_eq!(made["layer_types"], json!(["a", "f", "b", "c"]));
        assert!(notes.is_empty() && made["head_dim"] == 64);
        let mut bare = Map::new();
        restack(&mut bare, &configs, &[(0, 0)], &mut notes);
        assert_eq!(notes.len(), 1);
    }

    #[test]
    fn tokenizers_files_are_told_from_others() {
        for name in
            ["tokenizer.json", "tokenizer_config.json", "vocab.json", "spiece.model", "chat_template.jinja"]
        {
            assert!(of_tokenizer(name), "{name}");
        }
        assert!(!of_tokenizer("config.json") && !of_tokenizer("generation_config.json"));
        assert!(of_model_alone("README.md") && !of_model_alone("LICENSE"));
    }
}
