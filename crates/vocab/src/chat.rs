//! Chat templates: where they may be, and the keys they become.
//!
//! `tokenizer_config.json` wins over `chat_template.jinja` (with `additional_chat_templates/*.jinja`), which wins
//! over `chat_template.json`. Must not know what a template says: nothing is ever rendered.

use crate::files;
use serde_json::{Value as Json, json};
use tensormill_model::{Array, Assets, Metadata, Result};

/// The template(s) of the side files: a string, or a list of named ones.
pub fn side_templates(assets: &dyn Assets) -> Result<Option<Json>> {
    if let Some(bytes) = assets.read("chat_template.jinja")? {
        let main = universal_newlines(&files::text(bytes, "chat_template.jinja")?);
        let mut names: Vec<String> = assets.list().into_iter().filter(|n| stem(n).is_some()).collect();
        if names.is_empty() {
            return Ok(Some(Json::String(main)));
        }
        names.sort();
        let mut list = vec![json!({"name": "default", "template": main})];
        for name in names {
            if let Some(bytes) = assets.read(&name)? {
                list.push(
                    json!({"name": stem(&name), "template": universal_newlines(&files::text(bytes, &name)?)}),
                );
            }
        }
        return Ok(Some(Json::Array(list)));
    }
    Ok(files::object(assets, "chat_template.json")?.and_then(|mut o| o.remove("chat_template")))
}

/// The name of an additional template, from its file's.
fn stem(file: &str) -> Option<&str> {
    file.strip_prefix("additional_chat_templates/")?.strip_suffix(".jinja").filter(|s| !s.contains('/'))
}

/// Python's text files: every line end becomes a line feed.
pub fn universal_newlines(text: &str) -> String {
    if text.contains('\r') { text.replace("\r\n", "\n").replace('\r', "\n") } else { text.to_owned() }
}

/// Writes a template, or several: each named one under its own key, their names as a list, the default one last.
pub fn write(template: &Json, m: &mut Metadata) {
    let mut default = template.as_str();
    let mut names: Vec<String> = Vec::new();
    for choice in template.as_array().into_iter().flatten() {
        let Some(text) = choice.get("template").and_then(Json::as_str) else { continue };
        let name: String = choice
            .get("name")
            .and_then(Json::as_str)
            .unwrap_or("")
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
            .collect();
        if name == "default" {
            default = Some(text);
        } else if !name.is_empty() {
            if !text.is_empty() {
                m.set(format!("tokenizer.chat_template.{name}"), text);
            }
            if !names.contains(&name) {
                names.push(name);
            }
        }
    }
    if !names.is_empty() {
        m.set("tokenizer.chat_templates", Array::Str(names));
    }
    if let Some(text) = default.filter(|t| !t.is_empty()) {
        m.set("tokenizer.chat_template", text);
    }
}
