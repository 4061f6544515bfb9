//! Validation of a card, anybody's: what the Hub would refuse or misread, and what is better said otherwise, each with its
//! line and column.
//!
//! The rules follow the Hub's specification (hub-docs, `modelcard.md` and `docs/hub/model-cards.md`), the data classes of
//! huggingface_hub (`repocard_data.py`), and the tables in `data/`. `docs/cards.md` lists them; a test compares the lists.

mod fields;
mod results;
mod text;

pub(crate) use text::PLACEHOLDERS;

use crate::{
    document::{front_matter, unix_lines},
    front::KEYS,
    known::nearest,
    yaml::{Mark, Tree, Value, parse_tree},
};
use serde::Serialize;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Readers lose something, or take it for something else.
    Warning,
    /// The Hub refuses it, or readers fail.
    Error,
}

/// Something that is wrong with a card.
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// Short name of the rule.
    pub rule: &'static str,
    /// Line, counted from one.
    pub line: usize,
    /// Column in characters, counted from one.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// All rules, with what each asks for.
pub const RULES: &[(&str, &str)] = &[
    ("utf-8", "the file is UTF-8"),
    ("front-matter", "the file begins with a front matter between two lines of `---`"),
    ("yaml", "the front matter is YAML, and a map"),
    ("duplicate-key", "no key is there twice"),
    ("required", "`license` is there; `pipeline_tag`, `library_name` and `language` should be"),
    ("type", "a field holds what its kind asks for: text, a list of texts, a number"),
    ("known-license", "licences are the Hub's identifiers"),
    ("other-license", "`license: other` comes with `license_name` and `license_link`, and only then"),
    ("license-link", "`license_link` is a URL or a file of the repository"),
    ("known-pipeline", "`pipeline_tag` is one of the Hub's tasks"),
    ("known-library", "`library_name` is one that the Hub knows"),
    ("language-code", "languages are ISO 639 codes in small letters, or `code`, `multilingual`"),
    ("bare-word", "words that YAML takes for truth values or numbers are quoted where text is meant (`no`)"),
    ("model-id", "models and data sets are named by their Hub ids"),
    ("relation", "`base_model_relation` is adapter, finetune, merge or quantized, and has its `base_model`"),
    ("repeated", "lists do not repeat themselves"),
    ("model-index", "evaluation results have the parts that readers ask for"),
    ("metric-value", "values of metrics are finite numbers, or texts, in the metric's range"),
    ("emissions", "`co2_eq_emissions` is grams, or a map with `emissions` in grams"),
    ("unknown-key", "keys are not misspelled"),
    ("empty", "there is a text with a heading"),
    ("placeholder", "templates' placeholders are filled or gone"),
    ("private-path", "no path of somebody's machine is in the card"),
    ("secret", "no token is in the card"),
];

/// Collects findings; places are those of the front matter's text until they are moved.
struct Findings {
    all: Vec<Finding>,
    /// Lines above the front matter.
    above: usize,
}

impl Findings {
    fn add(
        &mut self,
        severity: Severity,
        rule: &'static str,
        at: Mark,
        message: impl Into<String>,
    ) -> &mut Finding {
        debug_assert!(RULES.iter().any(|(name, _)| *name == rule), "{rule} is not listed");
        self.all.push(Finding {
            severity,
            rule,
            line: at.line.max(1) + self.above,
            column: at.column.max(1),
            message: message.into(),
            hint: None,
        });
        let last = self.all.len() - 1;
        &mut self.all[last]
    }
    fn error(&mut self, rule: &'static str, at: Mark, message: impl Into<String>) -> &mut Finding {
        self.add(Severity::Error, rule, at, message)
    }
    fn warn(&mut self, rule: &'static str, at: Mark, message: impl Into<String>) -> &mut Finding {
        self.add(Severity::Warning, rule, at, message)
    }
}

impl Finding {
    fn hint(&mut self, hint: impl Into<String>) {
        self.hint = Some(hint.into());
    }
}

/// Checks a card; findings come in the file's order.
pub fn check(bytes: &[u8]) -> Vec<Finding> {
    let mut found = Findings { all: Vec::new(), above: 0 };
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => unix_lines(text),
        Err(e) => {
            let line = bytes[..e.valid_up_to()].split(|b| *b == b'\n').count();
            found.error(
                "utf-8",
                Mark { line, column: 1 },
                format!("not UTF-8 from byte {} on", e.valid_up_to()),
            );
            return found.all;
        }
    };
    match front_matter(&text) {
        None => {
            let at = Mark { line: 1, column: 1 };
            let begun = text.trim_start().starts_with("---\n");
            let message = if begun { "the front matter does not end" } else { "there is no front matter" };
            found.error("front-matter", at, message).hint(if begun {
                "end it with a line of three dashes"
            } else {
                "begin the file with a line `---`, keys such as `license: mit`, and another line `---`"
            });
        }
        Some(front) => {
            found.above = front.above;
            front_matter_rules(front.yaml, &mut found);
            found.above = 0;
        }
    }
    text::check(&text, &mut found);
    found.all.sort_by_key(|f| (f.line, f.column));
    found.all
}

fn front_matter_rules(yaml: &str, found: &mut Findings) {
    let root = match parse_tree(yaml) {
        Ok(parsed) => parsed.root,
        Err(p) => {
            let tab = yaml
                .lines()
                .nth(p.at.line.saturating_sub(1))
                .is_some_and(|l| l.trim_start_matches(' ').starts_with('\t'));
            let finding = found.error("yaml", p.at, format!("not YAML: {}", p.message));
            if tab {
                finding.hint("indent with spaces: YAML has no tabs");
            }
            return;
        }
    };
    if root.is_null() {
        found
            .error("required", Mark { line: 1, column: 1 }, "the front matter is empty")
            .hint("give at least `license`");
        return;
    }
    let Some(entries) = root.entries() else {
        found.error("yaml", root.at, "the front matter is not a map of keys to values");
        return;
    };
    if let Some(at) = root.odd_key() {
        found.error("yaml", at, "a list or a map stands as a key, which readers of cards do not take");
    }
    duplicates(&root, found);
    for e in entries.iter().filter(|e| !e.merged) {
        match e.key.as_str() {
            Some(key) => unknown_key(key, &e.key, found),
            None => {
                found.warn("type", e.key.at, format!("the key `{}` is not text", shown(&e.key)));
            }
        }
    }
    fields::check(&root, found);
    results::check(&root, found);
}

/// Keys that are there twice, at any depth: PyYAML takes the last, the Hub refuses the card.
fn duplicates(tree: &Tree, found: &mut Findings) {
    match &tree.value {
        Value::Map(entries) => {
            let mut seen = std::collections::HashMap::new();
            for e in entries.iter().filter(|e| !e.merged) {
                if let Some(first) = seen.insert(format!("{:?}", e.key.node()), e.key.at) {
                    let first = first.line + found.above;
                    let key = shown(&e.key);
                    found.error(
                        "duplicate-key",
                        e.key.at,
                        format!("`{key}` is there already, in line {first}"),
                    );
                }
                duplicates(&e.value, found);
            }
        }
        Value::Seq(items) => items.iter().for_each(|i| duplicates(i, found)),
        _ => {}
    }
}

/// Keys that the Hub knows beside those that cards are written with.
const OTHER_KEYS: [&str; 9] = [
    "language_bcp47",
    "extra_gated_prompt",
    "extra_gated_fields",
    "extra_gated_heading",
    "extra_gated_description",
    "extra_gated_button_content",
    "mask_token",
    "eval_results",
    "arxiv",
];

fn unknown_key(key: &str, at: &Tree, found: &mut Findings) {
    // Other keys are fine; those that are nearly a key of the specification are not.
    const MEANT: [(&str, &str); 5] = [
        ("licence", "license"),
        ("lang", "language"),
        ("languages", "language"),
        ("dataset", "datasets"),
        ("tag", "tags"),
    ];
    let known = || KEYS.iter().chain(&OTHER_KEYS).copied();
    if known().any(|k| k == key) {
        return;
    }
    let meant = MEANT.iter().find(|(wrong, _)| *wrong == key).map(|(_, right)| *right);
    let near = || nearest(key, known()).filter(|k| k.len().abs_diff(key.len()) <= 1);
    if let Some(meant) = meant.or_else(near) {
        found
            .warn("unknown-key", at.at, format!("`{key}` is no key of the Hub's specification"))
            .hint(format!("perhaps `{meant}`"));
    }
}

/// A scalar as it is written, shortened.
fn shown(tree: &Tree) -> String {
    let text = match tree.node().scalar_text() {
        Some(text) => text.to_owned(),
        None => match &tree.value {
            Value::Null => "null".into(),
            Value::Seq(_) => "a list".into(),
            _ => "a map".into(),
        },
    };
    if text.chars().count() > 60 { text.chars().take(57).chain("...".chars()).collect() } else { text }
}

/// Whether a card has findings that make it unfit.
pub fn has_errors(findings: &[Finding]) -> bool {
    findings.iter().any(|f| f.severity == Severity::Error)
}
