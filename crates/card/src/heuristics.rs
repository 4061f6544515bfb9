//! Which entry of a card, and which part of an identifier, becomes which fact.
//!
//! Source: `Metadata.apply_metadata_heuristic` (gguf-py/gguf/metadata.py). Earlier entries win over later ones.

use crate::fields::{Fields, SOURCE_FACTS, Source};
use crate::names::{components, title};
use crate::yaml::Node;
use regex::Regex;
use std::sync::LazyLock;

/// Fact and card entry, in order of precedence: llama.cpp's own names, the same with `model_` before them, and what
/// publishers use.
const CARD: [(&str, &str); 26] = [
    ("general.name", "name"),
    ("general.author", "author"),
    ("general.version", "version"),
    ("general.organization", "organization"),
    ("general.description", "description"),
    ("general.finetune", "finetune"),
    ("general.basename", "basename"),
    ("general.size_label", "size_label"),
    ("general.source.url", "url"),
    ("general.source.doi", "doi"),
    ("general.source.uuid", "uuid"),
    ("general.source.repo_url", "repo_url"),
    ("general.name", "model_name"),
    ("general.author", "model_author"),
    ("general.version", "model_version"),
    ("general.organization", "model_organization"),
    ("general.description", "model_description"),
    ("general.finetune", "model_finetune"),
    ("general.basename", "model_basename"),
    ("general.size_label", "model_size_label"),
    ("general.source.url", "model_url"),
    ("general.source.doi", "model_doi"),
    ("general.source.uuid", "model_uuid"),
    ("general.source.repo_url", "model_repo_url"),
    ("general.author", "model_creator"),
    ("general.basename", "model_type"),
];
const LICENSE: [(&str, &str); 3] = [
    ("general.license", "license"),
    ("general.license.name", "license_name"),
    ("general.license.link", "license_link"),
];

static HUB_URL: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"\Ahttps?://huggingface.co/([^/]+/[^/]+)\z").expect("a constant pattern"));

/// Takes what a model card says.
pub fn from_card(fields: &mut Fields, card: &Node, total: i64, warnings: &mut Vec<String>) {
    for (key, entry) in CARD.into_iter().chain(LICENSE) {
        if fields.text(key).is_none()
            && let Some(node) = card.get(entry)
        {
            fields.set_default(key, text(entry, node, warnings));
        }
    }
    fields.base_models = sources(card, ["base_model", "base_models", "base_model_sources"], total, warnings);
    fields.datasets = sources(card, ["datasets", "dataset", "dataset_sources"], total, warnings);
    fields.tags = list(card, ["tags", "pipeline_tag"]);
    fields.languages = list(card, ["languages", "language"]);
}

/// Takes what an identifier says (of the Hub, or a folder's name), where nothing better is known.
pub fn from_model_id(fields: &mut Fields, id: &str, total: i64) {
    let c = components(id, total);
    fields.set_default("general.name", Some(title(&c.full_name)));
    fields.set_default("general.organization", c.organization.as_deref().map(title));
    fields.set_default("general.basename", c.basename);
    fields.set_default("general.finetune", c.finetune);
    fields.set_default("general.version", c.version);
    fields.set_default("general.size_label", c.size_label);
}

/// The text of a card's entry. A number is taken as it is written, though the peer stops there.
fn text(entry: &str, node: &Node, warnings: &mut Vec<String>) -> Option<String> {
    match node {
        Node::Null => None,
        Node::Str(s) => Some(s.clone()),
        _ if node.is_falsy() => Some(String::new()),
        Node::Seq(items) if entry == "license" => {
            Some(items.iter().filter_map(Node::scalar_text).collect::<Vec<_>>().join(","))
        }
        Node::Seq(_) | Node::Map(_) => {
            warnings.push(format!("README.md: {entry} ignored: it is not text"));
            None
        }
        scalar => {
            warnings
                .push(format!("README.md: {entry} is not text in YAML; taken as it is written (quote it)"));
            scalar.scalar_text().map(str::to_owned)
        }
    }
}

/// The entries of several keys in one list; `None` where the card has none of them.
fn list(card: &Node, keys: [&str; 2]) -> Option<Vec<Node>> {
    let mut out = None::<Vec<Node>>;
    for node in keys.into_iter().filter_map(|k| card.get(k)).filter(|n| **n != Node::Null) {
        let items = out.get_or_insert_default();
        match node {
            Node::Str(_) => items.push(node.clone()),
            Node::Seq(v) => items.extend(v.iter().cloned()),
            _ => {}
        }
    }
    out
}

/// Base models or data sets under the first of `keys` that the card has.
fn sources(card: &Node, keys: [&str; 3], total: i64, warnings: &mut Vec<String>) -> Option<Vec<Source>> {
    let node = keys.into_iter().find_map(|k| card.get(k))?;
    let entries = match node {
        Node::Str(_) => std::slice::from_ref(node),
        Node::Seq(v) => v.as_slice(),
        _ => &[],
    };
    Some(entries.iter().map(|entry| source(entry, keys[0], total, warnings)).collect())
}

fn source(entry: &Node, key: &str, total: i64, warnings: &mut Vec<String>) -> Source {
    let mut out = Source::new();
    match entry {
        Node::Str(id) if ["http://", "https://", "ssh://"].iter().any(|s| id.starts_with(s)) => {
            out.insert("repo_url", id.clone());
            if let Some(found) = HUB_URL.captures(id) {
                describe(&mut out, &found[1], total);
            }
        }
        Node::Str(id) => {
            if let Some(repo) = describe(&mut out, id, total) {
                out.insert("repo_url", format!("https://huggingface.co/{repo}"));
            }
        }
        Node::Map(_) => {
            for fact in SOURCE_FACTS {
                if let Some(t) = entry.get(fact).and_then(|n| text(fact, n, warnings)) {
                    out.insert(fact, t);
                }
            }
        }
        _ => warnings.push(format!("README.md: an entry of {key} is neither text nor a map")),
    }
    out
}

/// Names a source after its identifier. Gives `org/name` where there is an organisation.
fn describe(out: &mut Source, id: &str, total: i64) -> Option<String> {
    let c = components(id, total);
    out.insert("name", title(&c.full_name));
    if let Some(v) = c.version {
        out.insert("version", v);
    }
    let org = c.organization?;
    out.insert("organization", title(&org));
    Some(format!("{org}/{}", c.full_name))
}
