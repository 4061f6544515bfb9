//! What a card says, as plain data: whoever made a model fills it in, [`crate::write()`] turns it into text.
//!
//! Whatever is not known is left out here, and then it is not in the card: nothing is invented on the way. Numbers come with
//! the text that shows them, so that templates need no arithmetic.

use crate::{document::Card, sections::Section};
use serde::Serialize;
use serde_json::{Map, Value as Json};
use std::collections::BTreeMap;

/// Everything a card is made of.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Facts {
    /// Heading of the card.
    pub title: String,
    /// Where it will be published, as `org/name`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repository: Option<String>,
    /// Name and version of the program that made the files.
    pub tool: String,
    /// The front matter; templates get it as `front_matter` (YAML) and `meta` (data).
    #[serde(skip)]
    pub front: Card,
    /// What the files were made from.
    pub source: Source,
    /// The model.
    pub model: Model,
    /// What was made.
    pub variants: Vec<Variant>,
    /// Whether the written files were read back and compared.
    pub verified: bool,
    /// Plots beside the card.
    pub plots: Vec<Plot>,
    /// Adapters that were merged into the model.
    pub adapters: Vec<String>,
    /// Where the model is an adapter.
    pub adapter: Vec<Row>,
    /// Where the model was merged of others.
    pub merge: Vec<Row>,
    /// How it was trained.
    pub training: Vec<Row>,
    /// What training measured.
    pub evaluation: Vec<Row>,
    /// What the source's card reports of the source.
    pub reported: Vec<Reported>,
    /// Environmental impact of the training, as the card's metadata has it.
    pub emissions: Vec<Row>,
    /// Sections of the source's card by what they speak of, and what the user says in their place.
    pub sections: BTreeMap<String, Vec<Section>>,
    /// The user's own fields.
    pub fields: Map<String, Json>,
}

/// What files were made from.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Source {
    /// Name of its folder or file.
    pub name: String,
    /// Its Hub id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repository: Option<String>,
    /// Its revision.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// What it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
    /// A hash of its headers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    /// Whether it had a card.
    pub has_card: bool,
    /// Files with the licence's text.
    pub license_files: Vec<String>,
}

/// The model.
#[derive(Clone, Debug, Default, Serialize)]
#[allow(clippy::struct_excessive_bools, reason = "independent facts that templates ask for")]
pub struct Model {
    /// `model_type` of its configuration, or its GGUF architecture.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Class that loads it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// Class of transformers' that loads it by itself (`AutoModelForCausalLM`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auto_class: Option<String>,
    /// Whether it continues text.
    pub generates: bool,
    /// Whether it makes vectors of texts.
    pub embeds: bool,
    /// Whether it comes with a chat template.
    pub chats: bool,
    /// Whether it is a folder of sentence-transformers.
    pub sentence_transformers: bool,
    /// Sizes and such.
    pub rows: Vec<Row>,
    /// How to sample from it, as its author suggests.
    pub generation: Vec<Row>,
}

/// A name and a value, as tables show them.
#[derive(Clone, Debug, Default, Serialize, PartialEq, Eq)]
pub struct Row {
    /// Name.
    pub name: String,
    /// Value.
    pub value: String,
}

impl Row {
    /// A row.
    #[allow(clippy::needless_pass_by_value, reason = "numbers and texts, as they come")]
    pub fn new(name: impl Into<String>, value: impl ToString) -> Self {
        Self { name: name.into(), value: value.to_string() }
    }
}

/// One variant: the files that one recipe gave.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Variant {
    /// Short name.
    pub name: String,
    /// Recipe or dtype.
    pub target: String,
    /// Format: `gguf`, `safetensors`, `onnx`, `pickle`.
    pub format: String,
    /// What programs are given: a file, or the folder.
    pub entry: String,
    /// Whether that is a folder.
    pub is_folder: bool,
    /// Files in order.
    pub files: Vec<File>,
    /// Bytes of all files.
    pub bytes: u64,
    /// The same for people.
    pub size: String,
    /// Bits per weight over all tensors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bits_per_weight: Option<f64>,
    /// Tensors by type: `28 Q4_K, 3 Q6_K`.
    pub types: String,
    /// Whether it is quantized.
    pub quantized: bool,
    /// Error against the source, where it was measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Numbers>,
    /// What sizes and errors of all variants say about this one; filled in by [`recommend`].
    pub advice: String,
    /// Importance matrix or calibration file, by name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub importance: Option<String>,
    /// The command that makes the same bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
}

/// Measured error.
#[derive(Clone, Copy, Debug, Default, Serialize, PartialEq)]
pub struct Numbers {
    /// Root of the mean squared difference.
    pub rmse: f64,
    /// Largest absolute difference.
    pub max_abs: f64,
    /// Signal to noise ratio in dB; infinite (`None`) where nothing differs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sqnr_db: Option<f64>,
    /// Cosine similarity.
    pub cosine: f64,
}

impl Numbers {
    /// Whether no difference was found.
    pub fn is_exact(&self) -> bool {
        self.max_abs == 0.0
    }
}

/// A file.
#[derive(Clone, Debug, Default, Serialize)]
pub struct File {
    /// Path in the release.
    pub name: String,
    /// Bytes.
    pub bytes: u64,
    /// The same for people.
    pub size: String,
    /// SHA-256 in hexadecimal, where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

/// A picture.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Plot {
    /// What it shows.
    pub title: String,
    /// Path in the release.
    pub file: String,
}

/// An evaluation result that a card reports.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Reported {
    /// What was asked of the model.
    pub task: String,
    /// On which data.
    pub dataset: String,
    /// What was measured.
    pub metric: String,
    /// What came out.
    pub value: String,
}

/// Says of every variant what the measured sizes and errors of all say about it, and nothing else.
pub fn recommend(variants: &mut [Variant]) {
    // Without an error nothing can be compared.
    let known: Vec<(usize, u64, f64)> =
        variants.iter().enumerate().filter_map(|(i, v)| Some((i, v.bytes, v.error?.rmse))).collect();
    let name = |i: usize| variants[i].name.clone();
    let smallest = known.iter().min_by_key(|k| k.1).map(|k| k.0);
    let nearest = known.iter().min_by(|a, b| a.2.total_cmp(&b.2).then(a.1.cmp(&b.1))).map(|k| k.0);
    let advice: Vec<(usize, String)> = known
        .iter()
        .map(|&(i, bytes, rmse)| {
            let exact = variants[i].error.is_some_and(|e| e.is_exact());
            let better = known
                .iter()
                .filter(|k| k.1 <= bytes && k.2 <= rmse && (k.1 < bytes || k.2 < rmse))
                .min_by(|a, b| a.2.total_cmp(&b.2));
            let mut said = Vec::new();
            if exact {
                said.push("the source's values".to_owned());
            }
            if known.len() > 1 {
                match better {
                    Some(b) if b.1 == bytes => {
                        said.push(format!("{} is as large and nearer to the source", name(b.0)));
                    }
                    Some(b) if b.2 == rmse => {
                        said.push(format!("{} is smaller and as near to the source", name(b.0)));
                    }
                    Some(b) => said.push(format!("{} is smaller and nearer to the source", name(b.0))),
                    None if Some(i) == smallest => said.push("the smallest file".to_owned()),
                    None if Some(i) == nearest && !exact => said.push("nearest to the source".to_owned()),
                    None if !exact => said.push("nothing smaller here is as near to the source".to_owned()),
                    None => {}
                }
            }
            (i, said.join("; "))
        })
        .collect();
    for (i, text) in advice {
        variants[i].advice = text;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_follows_from_what_was_measured() {
        let v = |name: &str, bytes, rmse: f64| Variant {
            name: name.into(),
            bytes,
            error: Some(Numbers { rmse, max_abs: rmse, ..Numbers::default() }),
            ..Variant::default()
        };
        let unmeasured = Variant { name: "U".into(), bytes: 1, ..Variant::default() };
        let mut all =
            [v("A", 10, 0.3), v("B", 20, 0.1), v("C", 30, 0.2), v("D", 15, 0.2), v("E", 40, 0.0), unmeasured];
        recommend(&mut all);
        let said: Vec<&str> = all.iter().map(|v| v.advice.as_str()).collect();
        assert_eq!(
            said,
            [
                "the smallest file",
                "nothing smaller here is as near to the source",
                "B is smaller and nearer to the source",
                "nothing smaller here is as near to the source",
                "the source's values",
                "",
            ]
        );
    }
}
