//! Names that the Hub knows: licences, tasks, libraries, languages. The tables are made by `data/extract.py`, which names
//! their sources.

use std::{collections::HashSet, sync::LazyLock};

/// Values of `base_model_relation`.
pub const RELATIONS: [&str; 4] = ["adapter", "finetune", "merge", "quantized"];

/// Formats that cards give as a library; the Hub keeps them apart from its list of libraries.
const FORMATS: [&str; 5] = ["gguf", "onnx", "safetensors", "llama.cpp", "pytorch"];

/// Values of `language` beside codes.
const SPECIAL_LANGUAGES: [&str; 4] = ["code", "multilingual", "mul", "zxx"];

static LICENSES: LazyLock<Vec<(&str, &str)>> = LazyLock::new(|| {
    include_str!("../data/licenses.tsv").lines().filter_map(|l| l.split_once('\t')).collect()
});
static PIPELINES: LazyLock<Vec<&str>> =
    LazyLock::new(|| include_str!("../data/pipelines.txt").lines().collect());
static LIBRARIES: LazyLock<Vec<&str>> =
    LazyLock::new(|| include_str!("../data/libraries.txt").lines().chain(FORMATS).collect());
static LANGUAGES: LazyLock<HashSet<&str>> = LazyLock::new(|| {
    include_str!("../data/languages.txt").split_whitespace().chain(SPECIAL_LANGUAGES).collect()
});

/// What a licence's identifier stands for.
pub fn license(id: &str) -> Option<&'static str> {
    LICENSES.iter().find(|(known, _)| *known == id).map(|(_, name)| *name)
}

/// Whether the Hub has such a task.
pub fn is_pipeline(tag: &str) -> bool {
    PIPELINES.contains(&tag)
}

/// Whether the Hub knows such a library.
pub fn is_library(name: &str) -> bool {
    LIBRARIES.contains(&name)
}

/// Whether it is an ISO 639 code, or one of the Hub's special values.
pub fn is_language(code: &str) -> bool {
    LANGUAGES.contains(code)
}

/// The known licence that a text most likely means.
pub fn like_license(text: &str) -> Option<&'static str> {
    // "MIT License" is mit, and not the unlicense.
    let text = text.trim();
    let end = text.len().saturating_sub(" license".len());
    let text = text
        .get(..end)
        .filter(|_| [" license", " licence"].iter().any(|w| text.to_ascii_lowercase().ends_with(w)))
        .unwrap_or(text);
    let by_name = LICENSES.iter().find(|(_, name)| name.eq_ignore_ascii_case(text)).map(|(id, _)| *id);
    by_name.or_else(|| nearest(text, LICENSES.iter().map(|(id, _)| *id)))
}

/// The known task that a text most likely means.
pub fn like_pipeline(text: &str) -> Option<&'static str> {
    nearest(text, PIPELINES.iter().copied())
}

/// The known library that a text most likely means.
pub fn like_library(text: &str) -> Option<&'static str> {
    nearest(text, LIBRARIES.iter().copied())
}

/// The nearest of some words, if it is near: letters and digits alone count, a third of them may differ.
pub fn nearest<'a>(text: &str, words: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // What is longer than every known name is none of them misspelled.
    const MOST: usize = 48;
    let plain = |s: &str| -> Vec<char> {
        s.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).take(MOST + 1).collect()
    };
    let wanted = plain(text);
    if wanted.is_empty() || wanted.len() > MOST {
        return None;
    }
    let best = words.into_iter().map(|w| (distance(&wanted, &plain(w)), w)).min_by_key(|(d, _)| *d)?;
    (best.0 * 3 <= wanted.len()).then_some(best.1)
}

/// Levenshtein's distance.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let changed = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_there_and_misspellings_find_their_word() {
        assert_eq!(license("apache-2.0"), Some("Apache license 2.0"));
        assert!(is_pipeline("text-generation") && is_library("transformers") && is_library("gguf"));
        assert!(is_language("en") && is_language("deu") && is_language("code") && !is_language("english"));
        assert_eq!(like_license("Apache-2.0"), Some("apache-2.0"));
        assert_eq!(like_license("Apache 2"), Some("apache-2.0"));
        assert_eq!(like_license("MIT License"), Some("mit"));
        assert_eq!(like_pipeline("text_generation"), Some("text-generation"));
        assert_eq!(like_library("Transformers"), Some("transformers"));
        assert_eq!(nearest("qqqqqqqq", ["mit"]), None);
    }
}
