//! What a GGUF file says of its model, as facts: for sources and releases that have no files beside it.

use crate::{Source, formats::GGUF};
use std::path::Path;
use tensormill_card::{document::Card, facts::Row, gather::Gathered, privacy::hub_id, yaml::Tree};
use tensormill_model::{Array, Format, Limits, Metadata, Result, Value};

/// Sizes by their key below the architecture's name.
const SIZES: [(&str, &str); 9] = [
    ("layers", "block_count"),
    ("hidden size", "embedding_length"),
    ("feed-forward size", "feed_forward_length"),
    ("attention heads", "attention.head_count"),
    ("key and value heads", "attention.head_count_kv"),
    ("experts", "expert_count"),
    ("experts per token", "expert_used_count"),
    ("vocabulary", "vocab_size"),
    ("context length", "context_length"),
];

/// Reads a file's metadata; `None` where it is no GGUF file.
///
/// # Errors
/// GGUF files that cannot be read.
pub(super) fn gather(path: &Path) -> Result<Option<Gathered>> {
    let is = path.extension().and_then(|e| e.to_str()).is_some_and(|e| GGUF.info().extensions.contains(&e));
    if !is || !path.is_file() {
        return Ok(None);
    }
    Ok(Some(of(&Source::open(path, &Limits::default())?.model.metadata)))
}

/// What metadata says.
pub(super) fn of(m: &Metadata) -> Gathered {
    let mut out = Gathered::default();
    let mut card = Card::default();
    let text = |key: &str| m.str(key).filter(|s| !s.trim().is_empty());
    for (key, field) in [
        ("general.license", "license"),
        ("general.license.name", "license_name"),
        ("general.license.link", "license_link"),
    ] {
        if let Some(value) = text(key) {
            card.set(field, Tree::text(value));
        }
    }
    for (key, field) in [("general.languages", "language"), ("general.tags", "tags")] {
        if let Some(Value::Array(Array::Str(items))) = m.get(key) {
            card.set(field, Tree::list(items.iter().map(|s| Tree::text(&**s))));
        }
    }
    let ids = |what: &str| -> Vec<Tree> {
        let count = m.get(&format!("general.{what}.count")).and_then(Value::as_u64).unwrap_or(0).min(64);
        (0..count)
            .filter_map(|i| text(&format!("general.{what}.{i}.repo_url")))
            .filter_map(id_of)
            .map(Tree::text)
            .collect()
    };
    for (what, field) in [("base_model", "base_model"), ("dataset", "datasets")] {
        let ids = ids(what);
        if !ids.is_empty() {
            card.set(field, Tree::list(ids));
        }
    }
    // The task is among the tags, as converters write them.
    let mut tags = card.get("tags").map(Tree::each).unwrap_or_default().iter().filter_map(Tree::as_str);
    let task = tags.rfind(|t| tensormill_card::known::is_pipeline(t)).map(str::to_owned);
    if let Some(task) = &task {
        card.set("pipeline_tag", Tree::text(task));
    }
    let architecture = text("general.architecture").unwrap_or_default().to_owned();
    for (label, key) in SIZES {
        if let Some(n) = m.get(&format!("{architecture}.{key}")).and_then(Value::as_u64) {
            out.model.rows.push(Row::new(label, n));
        }
    }
    if let Some(label) = text("general.size_label") {
        out.model.rows.push(Row::new("size label", label));
    }
    out.model.chats = m.get("tokenizer.chat_template").is_some();
    let encoder = architecture.contains("bert");
    (out.model.embeds, out.model.generates) = (encoder, !encoder && m.get("tokenizer.ggml.model").is_some());
    out.pipeline = task
        .is_none()
        .then_some(match (encoder, out.model.generates) {
            (true, _) => Some("feature-extraction"),
            (_, true) => Some("text-generation"),
            _ => None,
        })
        .flatten();
    out.model.kind = (!architecture.is_empty()).then_some(architecture);
    out.card = (!card.fields.is_empty()).then_some(card);
    out
}

/// The Hub id of a repository's address.
fn id_of(url: &str) -> Option<String> {
    let id = url.strip_prefix("https://huggingface.co/")?;
    hub_id(id.trim_start_matches("datasets/").trim_end_matches('/')).map(str::to_owned)
}
