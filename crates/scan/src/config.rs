//! Configurations of models, tokenizers, pipelines and adapters: which code they have a loader import, and what chat
//! templates they hold.

use crate::{
    archive::leads_out,
    finding::{Place, Sink},
    json::{self, Scalar, Step, keys},
    rules, template, text,
};
use std::collections::HashSet;

/// Bytes of a document that is walked. Real ones stay below a few MB.
pub(crate) const MOST: u64 = 16 << 20;

/// Documents that no loader goes on without.
const NEEDED: [&str; 12] = [
    "config.json",
    "tokenizer_config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "adapter_config.json",
    "special_tokens_map.json",
    "chat_template.json",
    "model_index.json",
    "modules.json",
    "config_sentence_transformers.json",
    "quantize_config.json",
];

/// Libraries that a pipeline's components may be from without code of the repository. The third is a module of diffusers.
const PIPELINE_LIBRARIES: [&str; 6] =
    ["diffusers", "transformers", "stable_diffusion", "onnxruntime", "optimum", "flax"];

/// Vocabularies: large, and nothing in them is acted on.
pub(crate) fn is_vocabulary(name: &str) -> bool {
    matches!(name, "tokenizer.json" | "vocab.json" | "added_tokens.json" | "merges.json")
}

/// Whether this document is one that must be JSON.
pub(crate) fn is_needed(name: &str) -> bool {
    NEEDED.contains(&name) || name.ends_with(".index.json")
}

/// Looks at a document called `name`; names of Python files that it makes a loader import go to `named`.
pub(crate) fn scan(text: &[u8], name: &str, named: &mut HashSet<String>, sink: &mut Sink<'_>) {
    let is_index = name.ends_with(".index.json");
    let look = |path: &[Step], value: Scalar<'_>| {
        let place = || Place::path(json::path(path));
        let key = keys(path).next().unwrap_or("");
        let under = |wanted: &str| keys(path).any(|k| k == wanted);
        match value {
            Scalar::Bool(true) if key == "trust_remote_code" => {
                sink.add(&rules::CODE_TRUST, place(), "trust_remote_code: true");
            }
            Scalar::Text(value) => {
                if is_index && matches!(path, [Step::Key(map), _] if map == "weight_map") {
                    if leads_out(value) {
                        sink.add(&rules::INDEX_ESCAPE, place(), value);
                    }
                    return;
                }
                if under("auto_map") {
                    name_module(value, named);
                    sink.add(&rules::CODE_AUTO_MAP, place(), value);
                } else if under("custom_pipelines") && key == "impl" {
                    name_module(value, named);
                    sink.add(&rules::CODE_PIPELINE, place(), value);
                } else if under("chat_template") && key != "name" {
                    template::scan(value, &json::path(path), sink);
                } else if name == "model_index.json" {
                    component(path, value, named, sink);
                } else if name == "modules.json"
                    && key == "type"
                    && !value.starts_with("sentence_transformers.")
                {
                    name_module(value, named);
                    sink.add(&rules::CODE_MODULE, place(), value);
                } else if key == "parent_library" && !is_library(value) {
                    sink.add(&rules::CODE_MODULE, place(), value);
                } else if text::is_password(key, value) {
                    sink.add(&rules::SECRET_PASSWORD, place(), key);
                }
            }
            _ => {}
        }
    };
    // Python's reader takes a byte order mark only where it is told to, but editors leave it.
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    if let Err(e) = json::walk(&plain(text), look)
        && is_needed(name)
    {
        sink.add(&rules::JSON_BROKEN, Place::line(e.line() as u64), e.to_string());
    }
}

/// Python writes and reads `NaN` and `Infinity`, which JSON does not have.
fn plain(text: &[u8]) -> std::borrow::Cow<'_, [u8]> {
    let has = |word: &[u8]| text.windows(word.len()).any(|w| w == word);
    if !has(b"NaN") && !has(b"Infinity") {
        return text.into();
    }
    let mut out = text.to_vec();
    let mut in_text = false;
    let mut i = 0;
    while i < out.len() {
        match out[i] {
            b'\\' if in_text => i += 1,
            b'"' => in_text = !in_text,
            b'N' | b'I' if !in_text => {
                for word in [&b"NaN"[..], b"Infinity"] {
                    if out[i..].starts_with(word) {
                        out[i..i + word.len()].fill(b' ');
                        out[i] = b'0';
                    }
                }
            }
            _ => {}
        }
        i += 1;
    }
    out.into()
}

fn is_library(name: &str) -> bool {
    matches!(name.split('.').next(), Some("transformers" | "peft" | "diffusers" | "timm" | ""))
}

/// A component of a diffusion pipeline: `[library, class]`; or the class of the pipeline itself, in the same form.
fn component(path: &[Step], value: &str, named: &mut HashSet<String>, sink: &mut Sink<'_>) {
    let [Step::Key(_), Step::Index(0)] = path else { return };
    let library = value.split('.').next().unwrap_or("");
    if !PIPELINE_LIBRARIES.contains(&library) {
        name_module(&format!("{value}.x"), named);
        sink.add(&rules::CODE_PIPELINE, Place::path(json::path(path)), value);
    }
}

/// `modeling_x.Model`, `repo--modeling_x.Model`: the file that the class is in.
fn name_module(class: &str, named: &mut HashSet<String>) {
    let class = class.rsplit_once("--").map_or(class, |(_, c)| c);
    if let Some((module, _)) = class.rsplit_once('.')
        && named.len() < 10_000
    {
        named.insert(format!("{}.py", module.replace('.', "/")));
    }
}
