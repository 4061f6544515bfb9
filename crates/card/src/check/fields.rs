//! Rules of single fields, and of fields that need each other.

use super::{Findings, shown};
use crate::{
    known::{
        RELATIONS, is_language, is_library, is_pipeline, license, like_library, like_license, like_pipeline,
    },
    privacy::hub_id,
    yaml::{Mark, Tree, Value},
};

pub(super) fn check(root: &Tree, found: &mut Findings) {
    required(root, found);
    licenses(root, found);
    one_of(root, "pipeline_tag", found, |text, at, found| {
        if !is_pipeline(text) {
            let finding = found.error("known-pipeline", at, format!("the Hub has no task `{text}`"));
            if let Some(like) = like_pipeline(text) {
                finding.hint(format!("perhaps `{like}`"));
            }
        }
    });
    one_of(root, "library_name", found, |text, at, found| {
        if !is_library(text) {
            let finding =
                found.warn("known-library", at, format!("the Hub does not know the library `{text}`"));
            if let Some(like) = like_library(text) {
                finding.hint(format!("perhaps `{like}`"));
            }
        }
    });
    languages(root, found);
    relation(root, found);
    for key in ["tags", "metrics", "quantization_types"] {
        texts(root, key, found, |_, _, _| {});
    }
    for (key, what) in [("datasets", "data set"), ("base_model", "model"), ("new_version", "model")] {
        texts(root, key, found, |text, at, found| ids(text, key, what, at, found));
    }
    for key in ["quantized_by", "model_name", "license_name", "license_link", "thumbnail", "model_creator"] {
        one_of(root, key, found, |_, _, _| {});
    }
    if let Some(extra) = root.get("new_version").filter(|t| t.items().is_some()) {
        found.error("type", extra.at, "`new_version` is one model id, not a list");
    }
    emissions(root, found);
}

fn required(root: &Tree, found: &mut Findings) {
    let missing = |key: &str| root.get(key).is_none_or(Tree::is_null);
    let at = Mark { line: 1, column: 1 };
    if missing("license") {
        found.error("required", at, "`license` is missing").hint(
            "an identifier of https://huggingface.co/docs/hub/repositories-licenses, or `other` or `unknown`",
        );
    }
    for key in ["pipeline_tag", "library_name"] {
        if missing(key) {
            found.warn("required", at, format!("`{key}` is missing: models are found by it"));
        }
    }
    // Languages mean something for models of text and speech alone.
    let task = root.get("pipeline_tag").and_then(Tree::as_str).unwrap_or_default();
    let of_language =
        ["text", "translation", "summarization", "question", "fill-mask", "sentence", "token", "speech"];
    if missing("language") && of_language.iter().any(|w| task.contains(w)) {
        found.warn("required", at, format!("`language` is missing for a model of {task}"));
    }
}

/// A field of one text.
fn one_of(root: &Tree, key: &str, found: &mut Findings, rule: impl Fn(&str, Mark, &mut Findings)) {
    let Some(value) = root.get(key) else { return };
    match &value.value {
        Value::Str(text) if text.trim().is_empty() => {
            found.error("type", value.at, format!("`{key}` is empty"));
        }
        Value::Str(text) => rule(text, value.at, found),
        Value::Null => {
            found.warn("type", value.at, format!("`{key}` has no value")).hint("leave the key out");
        }
        Value::Seq(_) | Value::Map(_) => {
            found.error("type", value.at, format!("`{key}` is {}; it must be one text", shown(value)));
        }
        _ => bare(key, value, found),
    }
}

/// A field of one text or several.
fn texts(root: &Tree, key: &str, found: &mut Findings, rule: impl Fn(&str, Mark, &mut Findings)) {
    let Some(value) = root.get(key) else { return };
    if matches!(value.value, Value::Map(_)) {
        found.error("type", value.at, format!("`{key}` is a map; it must be a text or a list of texts"));
        return;
    }
    let mut seen: Vec<&str> = Vec::new();
    for item in value.each() {
        match &item.value {
            Value::Str(text) if text.trim().is_empty() => {
                found.error("type", item.at, format!("an entry of `{key}` is empty"));
            }
            Value::Str(text) => {
                // One of a thousand tags more costs nothing; comparing each with each would.
                if seen.len() < 1000 && seen.contains(&text.as_str()) {
                    found.warn("repeated", item.at, format!("`{text}` is in `{key}` already"));
                }
                seen.push(text);
                rule(text, item.at, found);
            }
            Value::Null | Value::Seq(_) | Value::Map(_) => {
                found.error(
                    "type",
                    item.at,
                    format!("an entry of `{key}` is {}; it must be text", shown(item)),
                );
            }
            _ => bare(key, item, found),
        }
    }
}

/// A word that is no text to readers of YAML.
fn bare(key: &str, value: &Tree, found: &mut Findings) {
    let text = shown(value);
    let what = match &value.value {
        Value::Bool(_) => "a truth value",
        Value::Time(_) => "a date",
        _ => "a number",
    };
    found
        .warn("bare-word", value.at, format!("a value of `{key}` is {what} to readers of YAML, not text"))
        .hint(format!("quote it: \"{text}\""));
}

fn licenses(root: &Tree, found: &mut Findings) {
    texts(root, "license", found, |text, at, found| {
        if license(text).is_none() {
            let finding =
                found.error("known-license", at, format!("the Hub does not know the licence `{text}`"));
            match like_license(text) {
                Some(like) => finding.hint(format!("perhaps `{like}`")),
                None => finding.hint("write `license: other` with `license_name` and `license_link`"),
            }
        }
    });
    let Some(value) = root.get("license") else { return };
    let other = value.each().iter().any(|l| l.as_str() == Some("other"));
    for key in ["license_name", "license_link"] {
        match root.get(key).filter(|v| !v.is_null()) {
            None if other => {
                found.error("other-license", value.at, format!("`license: other` needs `{key}`"));
            }
            Some(given) if !other && key == "license_name" => {
                found.warn(
                    "other-license",
                    given.at,
                    format!("`{key}` says something only beside `license: other`"),
                );
            }
            _ => {}
        }
    }
    if let Some((link, at)) = root.get("license_link").and_then(|l| Some((l.as_str()?, l.at))) {
        let is_url = ["https://", "http://"].iter().any(|p| link.len() > p.len() && link.starts_with(p));
        let is_file = !link.contains(':') && !link.starts_with('/') && !link.contains(char::is_whitespace);
        if !link.is_empty() && !is_url && !is_file {
            found
                .error("license-link", at, format!("`{link}` is neither a URL nor a file of the repository"))
                .hint("for example `LICENSE`, or https://...");
        }
    }
    if let Some((name, at)) = root.get("license_name").and_then(|l| Some((l.as_str()?, l.at))) {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c);
        if other && !name.is_empty() && !name.chars().all(plain) {
            found
                .warn("other-license", at, format!("`{name}` is no name that the Hub shows as a tag"))
                .hint("small letters, digits, dashes and points");
        }
    }
}

fn languages(root: &Tree, found: &mut Findings) {
    let Some(value) = root.get("language") else { return };
    for item in value.each() {
        match &item.value {
            Value::Bool(false) => {
                found
                    .error("bare-word", item.at, "`no` is a truth value to readers of YAML, not Norwegian")
                    .hint("quote it: \"no\"");
            }
            Value::Str(code) if is_language(code) => {}
            Value::Str(code) => {
                let small = code.to_ascii_lowercase();
                let finding = found.error("language-code", item.at, format!("`{code}` is no ISO 639 code"));
                if is_language(&small) {
                    finding.hint(format!("write `{small}`"));
                } else if let Some(code) =
                    code.split(['-', '_']).next().filter(|c| is_language(c) && *c != small)
                {
                    finding.hint(format!("write `{code}`, and the longer one under `language_bcp47`"));
                } else {
                    finding.hint("two or three small letters, or `code`, `multilingual`");
                }
            }
            _ => {
                let what = shown(item);
                found.error("type", item.at, format!("an entry of `language` is {what}; it must be a code"));
            }
        }
    }
}

fn relation(root: &Tree, found: &mut Findings) {
    let base = root.get("base_model").filter(|b| !b.each().is_empty());
    one_of(root, "base_model_relation", found, |text, at, found| {
        if !RELATIONS.contains(&text) {
            found.error("relation", at, format!("`{text}` is no relation")).hint(RELATIONS.join(", "));
        }
        match base {
            None => {
                found.error("relation", at, "`base_model_relation` needs `base_model`");
            }
            Some(base) if text == "merge" && base.each().len() < 2 => {
                found.warn("relation", at, "a merge of one model: the others are missing in `base_model`");
            }
            Some(_) => {}
        }
    });
    let library = root.get("library_name").and_then(Tree::as_str);
    if library == Some("peft") && base.is_none() {
        let at = root.get("library_name").map_or_else(Mark::default, |l| l.at);
        found.warn("relation", at, "an adapter needs `base_model`: nobody can use it without");
    }
}

fn ids(text: &str, key: &str, what: &str, at: Mark, found: &mut Findings) {
    let url = text.split_once("huggingface.co/").map(|(_, id)| id.trim_start_matches("datasets/"));
    if let Some(id) = url {
        found
            .error("model-id", at, format!("`{text}` is a URL; `{key}` wants the id"))
            .hint(format!("write `{id}`"));
    } else if text.starts_with(['/', '.', '~'])
        || text.contains([' ', '\\', ':'])
        || text.matches('/').count() > 1
    {
        found.error("model-id", at, format!("`{text}` is no id of a {what} on the Hub"));
    } else if hub_id(text).is_none() {
        found.warn("model-id", at, format!("`{text}` looks like a folder, not like the id of a {what}"));
    }
}

fn emissions(root: &Tree, found: &mut Findings) {
    let Some(value) = root.get("co2_eq_emissions") else { return };
    let grams = match &value.value {
        Value::Map(_) => {
            if let Some(grams) = value.get("emissions") {
                grams
            } else {
                found.error("emissions", value.at, "`co2_eq_emissions` has no `emissions`");
                return;
            }
        }
        _ => value,
    };
    match &grams.value {
        Value::Int(Some(n), _) if *n >= 0 => {}
        Value::Float(x, _) if x.is_finite() && *x >= 0.0 => {}
        _ => {
            found
                .error("emissions", grams.at, format!("`{}` is no number of grams", shown(grams)))
                .hint("a number without a unit: grams of CO2 equivalent");
        }
    }
    if let Some(kind) = value.get("training_type").and_then(|t| Some((t.as_str()?, t.at)))
        && !["pre-training", "fine-tuning"].contains(&kind.0)
    {
        found
            .warn("emissions", kind.1, format!("`{}` is no kind of training that the Hub lists", kind.0))
            .hint("pre-training or fine-tuning");
    }
}
