//! The front matter of a card that is to be written: what is known of the files, over what the source's card says.
//!
//! Keys of the Hub's specification come first, in its order; all others of the source's card follow as they stood. What would
//! be wrong of derived files goes: results of another model, the tags of formats that are not here, a newer version of the
//! source.

use crate::{
    document::Card,
    yaml::{Tree, Value},
};

/// Order of the keys, and which of them a user's field of that name sets.
pub const KEYS: [&str; 22] = [
    "language",
    "license",
    "license_name",
    "license_link",
    "library_name",
    "pipeline_tag",
    "tags",
    "base_model",
    "base_model_relation",
    "datasets",
    "metrics",
    "quantized_by",
    "quantization_types",
    "model_name",
    "model_creator",
    "thumbnail",
    "widget",
    "inference",
    "new_version",
    "co2_eq_emissions",
    "hardware",
    "model-index",
];

/// Tags of formats.
const FORMAT_TAGS: [&str; 9] =
    ["gguf", "safetensors", "onnx", "pytorch", "tf", "jax", "coreml", "mlx", "openvino"];

/// What is known of the files.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// Language codes.
    pub languages: Vec<String>,
    /// Licence, its name and its link, where the source's card has none.
    pub license: [Option<String>; 3],
    /// Library that loads the files.
    pub library: Option<String>,
    /// Task, where the source's card has none.
    pub pipeline: Option<String>,
    /// Tags beside the source's.
    pub tags: Vec<String>,
    /// Formats of the files, as tags.
    pub formats: Vec<String>,
    /// Hub ids of what the files were made from; empty where nobody knows.
    pub base: Vec<String>,
    /// What they are to it, or to what the source's card names.
    pub relation: Option<String>,
    /// Data sets, where the source's card has none.
    pub datasets: Vec<String>,
    /// Recipes of the quantized files.
    pub quantization: Vec<String>,
    /// Who made them.
    pub quantized_by: Option<String>,
    /// Evaluation results: task, data set (id and name), metrics.
    pub results: Option<Tree>,
    /// Whether the files hold other values than the source, or are another model.
    pub derived: bool,
}

/// Puts a front matter together.
pub fn front(source: Option<&Card>, known: &Known) -> Card {
    let mut card = Card { fields: source.map(|c| c.fields.clone()).unwrap_or_default(), body: String::new() };
    let text_list = |v: &[String]| Tree::list(v.iter().map(Tree::text));
    let missing = |card: &Card, key: &str| card.get(key).is_none_or(|t| t.is_null() || t.each().is_empty());
    norwegian(&mut card);
    if missing(&card, "language") && !known.languages.is_empty() {
        card.set("language", text_list(&known.languages));
    }
    if missing(&card, "license") {
        for (key, value) in ["license", "license_name", "license_link"].into_iter().zip(&known.license) {
            if let Some(value) = value {
                card.set(key, Tree::text(value));
            }
        }
    }
    license_file(&mut card, known);
    if let Some(library) = &known.library {
        card.set("library_name", Tree::text(library));
    }
    if let Some(pipeline) = known.pipeline.as_ref().filter(|_| missing(&card, "pipeline_tag")) {
        card.set("pipeline_tag", Tree::text(pipeline));
    }
    tags(&mut card, known);
    match known.base.as_slice() {
        [] => {}
        [one] => card.set("base_model", Tree::text(one)),
        several => card.set("base_model", text_list(several)),
    }
    if let Some(relation) = known.relation.as_ref().filter(|_| !missing(&card, "base_model")) {
        card.set("base_model_relation", Tree::text(relation));
    }
    if missing(&card, "datasets") && !known.datasets.is_empty() {
        card.set("datasets", text_list(&known.datasets));
    }
    if !known.quantization.is_empty() {
        card.set("quantization_types", text_list(&known.quantization));
    }
    if let Some(by) = &known.quantized_by {
        card.set("quantized_by", Tree::text(by));
    } else if known.derived {
        card.remove("quantized_by");
    }
    if known.derived {
        for key in ["model-index", "new_version", "eval_results"] {
            card.remove(key);
        }
    }
    if let Some(results) = &known.results {
        card.set("model-index", results.clone());
    }
    in_order(&mut card);
    card
}

/// Sorts the keys of the specification to the front, all others as they stood.
pub fn in_order(card: &mut Card) {
    card.fields.sort_by_key(|f| {
        f.key.as_str().and_then(|k| KEYS.iter().position(|known| *known == k)).unwrap_or(KEYS.len())
    });
}

/// The language `no` is a truth value to YAML, and a language to everybody else.
fn norwegian(card: &mut Card) {
    let mend = |t: &Tree| match t.value {
        Value::Bool(false) => Tree::text("no"),
        _ => t.clone(),
    };
    let Some(language) = card.get("language") else { return };
    let mended = match &language.value {
        Value::Seq(items) => Tree::list(items.iter().map(mend)),
        _ => mend(language),
    };
    card.set("language", mended);
}

/// A licence's text that lies in the source's repository is not in this one.
fn license_file(card: &mut Card, known: &Known) {
    let link = card.get("license_link").and_then(Tree::as_str).unwrap_or_default();
    let relative = !link.is_empty() && !link.contains("://");
    if let (true, true, [base]) = (relative, known.derived, known.base.as_slice()) {
        let url = format!("https://huggingface.co/{base}/blob/main/{}", link.trim_start_matches("./"));
        card.set("license_link", Tree::text(url));
    }
}

fn tags(card: &mut Card, known: &Known) {
    let source = card.get("tags").cloned();
    let kept = source.as_ref().map(Tree::each).unwrap_or_default().iter().filter(|t| {
        t.as_str().is_none_or(|s| {
            !known.derived || !FORMAT_TAGS.contains(&s) || known.formats.iter().any(|f| f == s)
        })
    });
    let mut all: Vec<Tree> = kept.cloned().collect();
    for tag in known.formats.iter().chain(&known.tags) {
        if !all.iter().any(|t| t.as_str() == Some(tag)) {
            all.push(Tree::text(tag));
        }
    }
    if all.is_empty() {
        card.remove("tags");
    } else {
        card.set("tags", Tree::list(all));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_source_says_survives_and_what_is_wrong_of_derived_files_goes() {
        let source = Card::parse(
            "---\nx-own: {a: 1}   # kept\nlanguage: [en, no]\nlicense: other\nlicense_link: LICENSE\ntags: [pytorch, chat]\n\
             base_model: a/grandparent\nbase_model_relation: finetune\nmodel-index: []\n---\n",
        )
        .unwrap();
        let known = Known {
            base: vec!["a/parent".into()],
            relation: Some("quantized".into()),
            formats: vec!["gguf".into()],
            quantization: vec!["Q4_K_M".into()],
            derived: true,
            ..Known::default()
        };
        assert_eq!(
            front(Some(&source), &known).front_text(),
            "language:\n- en\n- 'no'\nlicense: other\nlicense_link: https://huggingface.co/a/parent/blob/main/LICENSE\n\
             tags:\n- chat\n- gguf\nbase_model: a/parent\nbase_model_relation: quantized\nquantization_types:\n- Q4_K_M\n\
             x-own: {a: 1}   # kept\n"
        );
        // Who the files come from is not known: what the source says of itself stays.
        let known = Known { base: Vec::new(), relation: None, ..known };
        let text = front(Some(&source), &known).front_text();
        assert!(text.contains("base_model: a/grandparent\nbase_model_relation: finetune\n"), "{text}");
    }
}
