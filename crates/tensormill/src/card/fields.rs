//! What the user says: fields from the command line, from files and from release files, and what each of them sets.

use super::read_text;
use serde_json::{Map, Value as Json, json};
use std::path::Path;
use tensormill_card::{
    facts::Facts,
    front::{KEYS, in_order},
    sections::Section,
    yaml::Tree,
};
use tensormill_model::{Error, Result};

/// Sections that a field of their name fills.
const SECTIONS: [&str; 11] = [
    "summary",
    "description",
    "intended_use",
    "limitations",
    "ethics",
    "license_text",
    "citation",
    "environment",
    "training_data",
    "training",
    "evaluation",
];

/// `KEY=VALUE` into fields. A value is JSON where it is a list, a map, a number or a truth value, else text; points in the
/// key lead into maps.
///
/// # Errors
/// `Usage` for what is no assignment.
pub fn assignment(text: &str, fields: &mut Map<String, Json>) -> Result<()> {
    let wrong = || Error::usage(format!("{text:?} is no field")).hint("write it as key=value");
    let (key, value) = text.split_once('=').ok_or_else(wrong)?;
    let value = match serde_json::from_str(value) {
        Ok(json @ (Json::Array(_) | Json::Object(_) | Json::Number(_) | Json::Bool(_) | Json::String(_))) => {
            json
        }
        _ => json!(value),
    };
    let mut at = fields;
    let mut steps = key.split('.').peekable();
    while let Some(step) = steps.next() {
        if step.is_empty() {
            return Err(wrong());
        }
        if steps.peek().is_none() {
            at.insert(step.to_owned(), value);
            break;
        }
        at = match at.entry(step).or_insert_with(|| json!({})) {
            Json::Object(map) => map,
            _ => return Err(Error::usage(format!("{text:?}: {step} holds no fields"))),
        };
    }
    Ok(())
}

/// Fields from a file, TOML or JSON by its name.
///
/// # Errors
/// Files that cannot be read, or are neither.
pub fn read_fields(path: &Path) -> Result<Map<String, Json>> {
    let text = read_text(path)?;
    let wrong = |what: String| Error::usage(what).file(path.display());
    let value = if path.extension().is_some_and(|e| e.eq_ignore_ascii_case("json")) {
        serde_json::from_str(&text).map_err(|e| wrong(format!("not JSON: {e}")))?
    } else {
        toml::from_str(&text).map_err(|e| wrong(format!("not TOML: {}", e.to_string().trim_end())))?
    };
    match value {
        Json::Object(map) => Ok(map),
        _ => Err(wrong("fields are a map of keys to values".into())),
    }
}

/// Puts fields where they belong; all of them are there for templates. `measured` is what training evaluated.
pub(super) fn apply(facts: &mut Facts, fields: &Map<String, Json>, measured: &[(String, f64)]) -> Result<()> {
    facts.fields.clone_from(fields);
    for (key, value) in fields {
        if KEYS.contains(&key.as_str()) {
            facts.front.set(key, Tree::from_json(value));
        } else if SECTIONS.contains(&key.as_str()) {
            let text = value.as_str().ok_or_else(|| {
                Error::usage(format!("the field `{key}` is the text of a section, and must be text"))
            })?;
            let topic = if key == "license_text" { "license" } else { key.as_str() };
            facts
                .sections
                .insert(topic.to_owned(), vec![Section { heading: String::new(), text: text.to_owned() }]);
        }
    }
    for (key, value) in fields.get("front_matter").and_then(Json::as_object).into_iter().flatten() {
        facts.front.set(key, Tree::from_json(value));
    }
    results(facts, fields, measured)?;
    in_order(&mut facts.front);
    Ok(())
}

/// `results` of the user's, and what training measured where the user names the data set, as a `model-index`.
fn results(facts: &mut Facts, fields: &Map<String, Json>, measured: &[(String, f64)]) -> Result<()> {
    const KEYS: [(&str, &str, &str); 9] = [
        ("task", "type", "task"),
        ("task_name", "name", "task"),
        ("dataset_name", "name", "dataset"),
        ("dataset", "type", "dataset"),
        ("config", "config", "dataset"),
        ("split", "split", "dataset"),
        ("revision", "revision", "dataset"),
        ("source_name", "name", "source"),
        ("source_url", "url", "source"),
    ];
    let mut given: Vec<Map<String, Json>> = Vec::new();
    let tag = facts.front.get("pipeline_tag").and_then(Tree::as_str).map(str::to_owned);
    if let Some(dataset) = fields.get("eval_dataset").and_then(Json::as_str) {
        for (metric, value) in measured {
            let mut one = Map::new();
            one.insert("dataset".into(), json!(dataset));
            one.insert(
                "dataset_name".into(),
                fields.get("eval_dataset_name").cloned().unwrap_or(json!(dataset)),
            );
            if let Some(split) = fields.get("eval_split") {
                one.insert("split".into(), split.clone());
            }
            one.insert("metric".into(), json!(metric));
            one.insert("value".into(), json!(value));
            given.push(one);
        }
    }
    for one in fields.get("results").and_then(Json::as_array).into_iter().flatten() {
        given.push(one.as_object().cloned().ok_or_else(|| Error::usage("an entry of `results` is no map"))?);
    }
    if given.is_empty() {
        return Ok(());
    }
    // Metrics of the same task and data are one result.
    let mut all: Vec<(Json, Vec<Json>)> = Vec::new();
    for one in given {
        let mut result = json!({});
        for (field, key, part) in KEYS {
            let value = match (one.get(field), field) {
                (Some(value), _) => value.clone(),
                (None, "task") => json!(tag.clone()),
                (None, "dataset_name") => one.get("dataset").cloned().unwrap_or_default(),
                _ => Json::Null,
            };
            if !value.is_null() {
                result[part][key] = value;
            }
        }
        let (Some(metric), Some(value)) = (one.get("metric"), one.get("value")) else {
            return Err(Error::usage("an entry of `results` needs `metric` and `value`"));
        };
        if result["task"]["type"].is_null() || result["dataset"]["type"].is_null() {
            return Err(Error::usage("an entry of `results` needs `task` and `dataset`"));
        }
        let mut entry = json!({ "type": metric, "value": value });
        if let Some(name) = one.get("metric_name") {
            entry["name"] = name.clone();
        }
        match all.iter_mut().find(|(known, _)| *known == result) {
            Some((_, metrics)) => metrics.push(entry),
            None => all.push((result, vec![entry])),
        }
    }
    let results: Vec<Json> = all
        .into_iter()
        .map(|(mut result, metrics)| {
            let source = result.as_object_mut().and_then(|r| r.remove("source"));
            result["metrics"] = json!(metrics);
            if let Some(source) = source {
                result["source"] = source;
            }
            result
        })
        .collect();
    let name = facts.repository.as_deref().and_then(|r| r.rsplit('/').next()).unwrap_or(&facts.title);
    facts.front.set("model-index", Tree::from_json(&json!([{ "name": name, "results": results }])));
    Ok(())
}
