//! Facts and a template to text.
//!
//! Templates are Jinja's; every part of the default is a block, so that one that begins with
//! `{% extends "default" %}` says only what differs. What a template asks for and nobody knows is an error that names the
//! line, unless it asks first (`{% if fields.x %}`) or gives a default.

use crate::{facts::Facts, privacy::Scrub, yaml::Tree};
use minijinja::{
    Environment, Error as TemplateError, UndefinedBehavior, Value, syntax::SyntaxConfig, value::Serde,
};
use serde_json::{Map, Value as Json, json};
use tensormill_model::{Error, Result};

/// The template that is used when none is given.
pub const DEFAULT: &str = include_str!("../templates/default.md");

/// Most that a template may compute: loops without end are errors.
const FUEL: u64 = 20_000_000;

/// A template of the user's.
#[derive(Clone, Debug)]
pub struct Template {
    /// What messages call it.
    pub name: String,
    /// Its text.
    pub text: String,
}

/// Writes a card.
///
/// # Errors
/// `Usage` for templates that cannot be read or ask for what nobody knows, with their line.
pub fn write(facts: &Facts, template: Option<&Template>, scrub: &Scrub) -> Result<String> {
    let mut facts = facts.clone();
    let private = |text: &str| scrub.text(text);
    facts.front.map_texts(&private);
    let syntax =
        SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).keep_trailing_newline(true).build();
    let mut env = Environment::new();
    env.set_syntax(syntax.map_err(|e| problem("default", &e))?);
    env.set_undefined_behavior(UndefinedBehavior::SemiStrict);
    env.set_fuel(Some(FUEL));
    // Cards are Markdown, whatever a template is called.
    env.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    env.add_filter("cell", cell);
    env.add_filter("code", code);
    env.add_filter("fixed", fixed);
    env.add_filter("scientific", scientific);
    env.add_filter("quote", quote);
    env.add_template("default", DEFAULT).map_err(|e| problem("default", &e))?;
    let name = template.map_or("default", |t| t.name.as_str());
    if let Some(t) = template
        && t.name != "default"
    {
        env.add_template(&t.name, &t.text).map_err(|e| problem(&t.name, &e))?;
    }
    let context = context(&facts)?;
    let text = env.get_template(name).and_then(|t| t.render(context)).map_err(|e| problem(name, &e))?;
    let text = tidy(&text);
    // Values of the front matter are clean already; the rest is what templates and other people's words gave.
    Ok(match crate::document::front_matter(&text) {
        Some(front) => {
            let head = &text[..text.len() - front.body.len()];
            format!("{head}{}", scrub.text(front.body))
        }
        None => scrub.text(&text),
    })
}

/// The facts, the front matter, and the user's fields where they hide nothing.
fn context(facts: &Facts) -> Result<Value> {
    let fail =
        |e: serde_json::Error| Error::unsupported(format!("the facts of a card cannot be handed on: {e}"));
    let mut all: Map<String, Json> = facts.fields.clone();
    if let Json::Object(own) = serde_json::to_value(facts).map_err(fail)? {
        all.extend(own);
    }
    let meta = facts.front.fields.iter().map(|f| (f.key.clone(), f.value.clone()));
    let meta = Tree::map(meta.filter_map(|(k, v)| Some((k.as_str()?.to_owned(), v)))).to_json();
    let front = facts.front.front_text();
    // As huggingface_hub's own template calls it.
    all.insert("card_data".into(), json!(front.trim_end()));
    all.insert("front_matter".into(), json!(front));
    all.insert("meta".into(), meta);
    Ok(Value::from(Serde(&all)))
}

fn problem(name: &str, e: &TemplateError) -> Error {
    let line = e.line().map_or_else(String::new, |l| format!("line {l}: "));
    let detail = e.detail().map_or_else(|| e.kind().to_string(), str::to_owned);
    Error::usage(format!("{line}{detail}"))
        .file(e.name().unwrap_or(name))
        .hint("`tensormill card --print-template` shows the default; docs/cards.md lists what templates know")
}

/// No more than one empty line in a row, but in code.
fn tidy(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut empty = 0;
    let mut fenced = false;
    for line in text.trim().lines() {
        fenced ^= line.trim_start().starts_with("```");
        let bare = if fenced { line } else { line.trim_end() };
        empty = if bare.is_empty() && !fenced { empty + 1 } else { 0 };
        if empty < 2 {
            out.push_str(bare);
            out.push('\n');
        }
    }
    out
}

/// Text for a cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Text as code within a line.
fn code(text: &str) -> String {
    let text = text.replace('\n', " ");
    if text.contains('`') { format!("`` {text} ``") } else { format!("`{text}`") }
}

/// A number with so many decimals.
fn fixed(x: f64, decimals: usize) -> String {
    format!("{x:.*}", decimals.min(17))
}

/// A number as `1.234e-3`.
fn scientific(x: f64) -> String {
    format!("{x:.3e}")
}

/// Text as a Python or JSON string.
fn quote(text: &str) -> String {
    Json::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(text: &str) -> Template {
        Template { name: "own.md".into(), text: text.into() }
    }

    #[test]
    fn templates_inherit_ask_and_fail_with_their_line() {
        let mut facts = Facts { title: "T".into(), tool: "x 1".into(), ..Facts::default() };
        facts.fields.insert("team".into(), json!("Mill"));
        let none = Scrub::default();
        let own = template(
            "{% extends \"default\" %}\n{% block title %}# {{ title }} by {{ team }} at /home/a/b\n{% endblock %}",
        );
        let text = write(&facts, Some(&own), &none).unwrap();
        assert!(text.starts_with("# T by Mill at b\n"), "{text}");
        let own = template("a\n{{ fields.nobody }}");
        let e = write(&facts, Some(&own), &none).unwrap_err().to_string();
        assert!(e.contains("line 2") && e.contains("own.md"), "{e}");
        assert_eq!(
            write(&facts, Some(&template("{% if fields.nobody %}x{% else %}y{% endif %}")), &none).unwrap(),
            "y\n"
        );
        assert!(write(&facts, Some(&template("{% for")), &none).is_err());
        let endless = "{% for a in range(9999) %}{% for b in range(9999) %}{{ a }}{% endfor %}{% endfor %}";
        assert!(write(&facts, Some(&template(endless)), &none).is_err());
    }

    #[test]
    fn a_card_without_facts_has_a_title_and_claims_nothing() {
        let facts = Facts { title: "T".into(), tool: "x 1".into(), ..Facts::default() };
        let text = write(&facts, None, &Scrub::default()).unwrap();
        assert!(text.starts_with("# T\n"), "{text}");
        assert!(!text.contains("Evaluation") && !text.contains("Training") && !text.contains("##"), "{text}");
    }
}
