//! Whether models speak of the same tokens: rows of embeddings can be merged only where they stand for the same ones.
//!
//! A recipe that chooses a tokenizer says that this matters, and vocabularies that differ are an error; mergekit moves and
//! adds rows there, which this version does not do. Where nothing is chosen, a difference is said, as no more is known.

use serde::Deserialize;
use serde_json::Value;
use tensormill_merge::{Input, Recipe, Tokenizer};
use tensormill_model::{Assets, Error, Result};
use xxhash_rust::xxh3::xxh3_64;

/// Compares every model's vocabulary with the first one's.
///
/// # Errors
/// `Unsupported` where a recipe chooses a tokenizer and vocabularies differ, or are not there.
pub(super) fn compare(recipe: &Recipe, inputs: &[Input], gguf: bool) -> Result<Vec<String>> {
    let chosen = match recipe.tokenizer {
        Some(Tokenizer::Model(i)) => i,
        _ => recipe.donor(),
    };
    let mut notes = Vec::new();
    for (i, input) in inputs.iter().enumerate().filter(|(i, _)| *i != chosen) {
        let (a, b) = (&inputs[chosen], input);
        let same = if gguf {
            let tokens = |i: &Input| i.model.metadata.get("tokenizer.ggml.tokens").cloned();
            tokens(a).zip(tokens(b)).map(|(a, b)| a == b)
        } else {
            same(&*a.model.assets, &*b.model.assets).map_err(|e| e.context(&recipe.models[i]))?
        };
        let text = match same {
            Some(true) => continue,
            Some(false) => format!("the vocabularies of {} and {} differ", a.name, b.name),
            None if recipe.tokenizer.is_none() => continue,
            None => format!("the vocabularies of {} and {} cannot be compared", a.name, b.name),
        };
        if recipe.tokenizer.is_some() {
            return Err(Error::unsupported(format!(
                "{text}, and rows of embeddings are not moved by this version"
            ))
            .hint("resize and reorder the models' embeddings first, or merge with mergekit-yaml"));
        }
        notes.push(text);
    }
    Ok(notes)
}

/// Files that hold a vocabulary, the one that counts first.
const FILES: &[&str] =
    &["tokenizer.json", "tokenizer.model", "tekken.json", "vocab.json", "vocab.txt", "spiece.model"];

/// Whether two folders have the same tokens; `None` where there is nothing to compare.
fn same(a: &dyn Assets, b: &dyn Assets) -> Result<Option<bool>> {
    for file in FILES {
        let (Some(a), Some(b)) = (a.read(file)?, b.read(file)?) else { continue };
        if a == b {
            return Ok(Some(true));
        }
        if *file != "tokenizer.json" {
            return Ok(Some(false));
        }
        // The same tokens may be written in another way, and beside another template.
        let a = tokens(&a);
        return Ok(Some(a.is_some() && a == tokens(&b)));
    }
    Ok(None)
}

#[derive(Deserialize)]
struct Json {
    model: Vocabulary,
    #[serde(default)]
    added_tokens: Vec<Added>,
}

#[derive(Deserialize)]
struct Vocabulary {
    vocab: Value,
}

#[derive(Deserialize)]
struct Added {
    id: u64,
    content: String,
}

/// How many tokens there are, and a number for all of them with their places, whatever their order.
fn tokens(json: &[u8]) -> Option<(usize, u64)> {
    let Json { model, added_tokens } = serde_json::from_slice(json).ok()?;
    let mut all = std::collections::BTreeMap::new();
    match model.vocab {
        Value::Object(map) => all.extend(map.into_iter().map(|(t, id)| (t, id.as_u64()))),
        // Unigram models list tokens with their scores; the place is the token's number.
        Value::Array(list) => {
            for (id, entry) in list.into_iter().enumerate() {
                all.insert(entry.get(0)?.as_str()?.to_owned(), Some(id as u64));
            }
        }
        _ => return None,
    }
    all.extend(added_tokens.into_iter().map(|a| (a.content, Some(a.id))));
    let one = |(token, id): (&String, &Option<u64>)| xxh3_64(format!("{id:?} {token}").as_bytes());
    let sum = all.iter().map(one).fold(0, u64::wrapping_add);
    Some((all.len(), sum))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tensormill_model::MemoryAssets;

    #[test]
    fn tokens_are_compared_and_not_their_files() {
        let folder = |json: &str| {
            let files = [("tokenizer.json".to_owned(), json.as_bytes().to_vec())];
            MemoryAssets { name: String::new(), files: files.into() }
        };
        let a = folder(
            r#"{"model": {"vocab": {"a": 0, "b": 1}}, "added_tokens": [{"id": 2, "content": "<s>"}]}"#,
        );
        let b = folder(r#"{"added_tokens":[{"id":2,"content":"<s>"}],"model":{"vocab":{"b":1,"a":0}}}"#);
        let c = folder(r#"{"added_tokens":[{"id":2,"content":"<s>"}],"model":{"vocab":{"b":0,"a":1}}}"#);
        let d = folder(r#"{"model": {"vocab": [["a", -1.0], ["b", -2.0], ["<s>", 0]]}}"#);
        assert_eq!(same(&a, &b).unwrap(), Some(true));
        assert_eq!(same(&a, &c).unwrap(), Some(false));
        assert_eq!(same(&a, &d).unwrap(), Some(true));
        assert_eq!(same(&a, &folder("no")).unwrap(), Some(false));
        assert_eq!(same(&a, &MemoryAssets::default()).unwrap(), None);
    }
}
