//! Rules of `model-index`, whose parts readers look up without asking (`model_index_to_eval_results` of
//! huggingface_hub/repocard_data.py stops at the first that is missing).

use super::{Findings, shown};
use crate::yaml::{Tree, Value};

/// Metrics whose values are parts of one, or percents.
const SHARES: [&str; 14] = [
    "accuracy",
    "f1",
    "precision",
    "recall",
    "exact_match",
    "roc_auc",
    "matthews_correlation",
    "map",
    "ndcg",
    "bleu",
    "rouge",
    "pass@1",
    "spearmanr",
    "pearsonr",
];
/// Metrics that are at least zero.
const AMOUNTS: [&str; 8] = ["wer", "cer", "perplexity", "loss", "mse", "rmse", "mae", "ter"];

pub(super) fn check(root: &Tree, found: &mut Findings) {
    let Some(index) = root.get("model-index") else { return };
    let Some(models) = index.items() else {
        found.error("model-index", index.at, format!("`model-index` is {}; it must be a list", shown(index)));
        return;
    };
    for model in models {
        if model.entries().is_none() {
            found.error("model-index", model.at, "an entry of `model-index` is no map");
            continue;
        }
        text_of(model, "name", "an entry of `model-index`", found);
        match model.get("results").map(|r| (r, r.items())) {
            Some((_, Some(results))) => results.iter().for_each(|r| result(r, found)),
            Some((other, None)) => {
                found.error(
                    "model-index",
                    other.at,
                    format!("`results` is {}; it must be a list", shown(other)),
                );
            }
            None => {
                found.error("model-index", model.at, "an entry of `model-index` has no `results`");
            }
        }
    }
}

fn result(result: &Tree, found: &mut Findings) {
    if result.entries().is_none() {
        found.error("model-index", result.at, "an entry of `results` is no map");
        return;
    }
    for (part, keys) in [("task", &["type"][..]), ("dataset", &["type", "name"])] {
        match result.get(part) {
            Some(map) if map.entries().is_some() => {
                for key in keys {
                    text_of(map, key, &format!("`{part}`"), found);
                }
            }
            Some(other) => {
                found.error(
                    "model-index",
                    other.at,
                    format!("`{part}` is {}; it must be a map", shown(other)),
                );
            }
            None => {
                found.error("model-index", result.at, format!("a result has no `{part}`"));
            }
        }
    }
    if let Some(source) = result.get("source")
        && source.get("name").is_some()
        && source.get("url").is_none()
    {
        found.error("model-index", source.at, "a `source` with a `name` needs a `url`");
    }
    match result.get("metrics").map(|m| (m, m.items())) {
        Some((list, Some([]))) => {
            found.warn("model-index", list.at, "a result without metrics says nothing");
        }
        Some((_, Some(metrics))) => metrics.iter().for_each(|m| metric(m, found)),
        Some((other, None)) => {
            found.error("model-index", other.at, format!("`metrics` is {}; it must be a list", shown(other)));
        }
        None => {
            found.error("model-index", result.at, "a result has no `metrics`");
        }
    }
}

fn metric(metric: &Tree, found: &mut Findings) {
    if metric.entries().is_none() {
        found.error("model-index", metric.at, "an entry of `metrics` is no map");
        return;
    }
    text_of(metric, "type", "a metric", found);
    let Some(value) = metric.get("value") else {
        found.error("model-index", metric.at, "a metric has no `value`");
        return;
    };
    let number = match &value.value {
        Value::Int(Some(n), _) => *n as f64,
        Value::Float(x, _) => *x,
        Value::Str(text) if !text.trim().is_empty() => return,
        // Lists and maps are what some metrics give.
        Value::Seq(v) if !v.is_empty() => return,
        Value::Map(m) if !m.is_empty() => return,
        _ => {
            found.error("metric-value", value.at, format!("`{}` is no value of a metric", shown(value)));
            return;
        }
    };
    let kind = metric.get("type").and_then(Tree::as_str).unwrap_or_default().to_ascii_lowercase();
    let kind = kind.rsplit_once('/').map_or(kind.as_str(), |(_, last)| last);
    let name = kind.trim_start_matches("eval_").trim_start_matches("cosine_");
    let is = |names: &[&str]| {
        names.contains(&name) || names.contains(&name.split(['_', '@']).next().unwrap_or(name))
    };
    if !number.is_finite() {
        found.error("metric-value", value.at, format!("`{}` is no finite number", shown(value)));
    } else if is(&SHARES) && !(-100.0..=100.0).contains(&number) {
        let text = format!("{name} of {}: it is a part of one, or percent", shown(value));
        found.warn("metric-value", value.at, text);
    } else if is(&AMOUNTS) && number < 0.0 {
        found.warn("metric-value", value.at, format!("{name} of {}: it is never negative", shown(value)));
    }
}

/// A text that has to be there.
fn text_of(map: &Tree, key: &str, what: &str, found: &mut Findings) {
    match map.get(key) {
        None => {
            found.error("model-index", map.at, format!("{what} has no `{key}`"));
        }
        Some(value) if value.as_str().is_some_and(|s| !s.trim().is_empty()) => {}
        Some(value) => {
            found.error(
                "model-index",
                value.at,
                format!("`{key}` of {what} is {}; it must be text", shown(value)),
            );
        }
    }
}
