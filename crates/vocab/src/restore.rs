//! The way back: `tokenizer.*` metadata as the files of a tokenizer folder.
//!
//! A GGUF file holds tokens, merges or scores, and the pre-tokenizer's *name*. Byte-level BPE needs the rules behind that
//! name: those of a few are known here, and what is built is believed only when it gives the ids that the name stands
//! for ([`crate::pre`]). SentencePiece vocabularies become a `tokenizer.model`, WordPiece ones a `tokenizer.json`.
//!
//! Must not know architectures or file formats.

use crate::{MAX_TOKENS, guard, hf, pre, spm, token_type};
use serde_json::{Map, Value as Json, json};
use std::collections::HashSet;
use tensormill_model::{Error, Metadata, Result};
use tokenizers::Tokenizer;

/// Files of a tokenizer folder, and what they lack.
#[derive(Debug, Default)]
pub struct RestoredFiles {
    /// Names and contents.
    pub files: Vec<(String, Vec<u8>)>,
    /// What could not be made.
    pub lost: Vec<String>,
    /// What was assumed.
    pub notes: Vec<String>,
}

impl RestoredFiles {
    fn json(&mut self, name: &str, value: &Json) -> Result<()> {
        let text =
            serde_json::to_vec_pretty(value).map_err(|e| Error::io("encode the tokenizer", e.into()))?;
        self.files.push((name.to_owned(), text));
        Ok(())
    }
}

/// The tokens as the metadata holds them.
struct List {
    texts: Vec<String>,
    types: Vec<i32>,
    scores: Option<Vec<f32>>,
    merges: Vec<String>,
}

impl List {
    fn read(m: &Metadata) -> Result<Option<Self>> {
        let array = |key: &str| m.get(key).and_then(|v| v.as_array());
        let Some(tokens) = array("tokenizer.ggml.tokens") else { return Ok(None) };
        let len = tokens.len();
        if len as u64 > MAX_TOKENS {
            return Err(Error::over_limit(format!("{len} tokens; at most {MAX_TOKENS} are taken")));
        }
        let bad = |key: &str| Error::malformed(format!("{key} does not fit the {len} tokens"));
        let texts = |key: &str| -> Result<Vec<String>> {
            let Some(list) = array(key) else { return Ok(Vec::new()) };
            (0..list.len())
                .map(|i| list.get(i).and_then(|v| v.as_str().map(str::to_owned)).ok_or_else(|| bad(key)))
                .collect()
        };
        let key = "tokenizer.ggml.token_type";
        let types = match array(key) {
            None => vec![token_type::NORMAL; len],
            Some(list) => (0..list.len())
                .map(|i| list.get(i).and_then(|v| v.as_u64()).map(|n| n as i32).ok_or_else(|| bad(key)))
                .collect::<Result<Vec<_>>>()?,
        };
        let key = "tokenizer.ggml.scores";
        let scores = match array(key) {
            None => None,
            Some(list) => Some(
                (0..list.len())
                    .map(|i| list.get(i).and_then(|v| v.as_f64()).map(|x| x as f32).ok_or_else(|| bad(key)))
                    .collect::<Result<Vec<_>>>()?,
            ),
        };
        if types.len() != len || scores.as_ref().is_some_and(|s| s.len() != len) {
            return Err(bad("tokenizer.ggml.token_type or scores"));
        }
        let list = Self {
            texts: texts("tokenizer.ggml.tokens")?,
            types,
            scores,
            merges: texts("tokenizer.ggml.merges")?,
        };
        Ok(Some(list))
    }

    /// Ids of tokens that stand outside the model's own vocabulary; padding is nobody's.
    fn added(&self) -> impl Iterator<Item = usize> {
        (0..self.texts.len())
            .filter(|&i| matches!(self.types[i], token_type::CONTROL | token_type::USER_DEFINED))
    }

    fn added_tokens(&self) -> Vec<Json> {
        let token = |i: usize| {
            json!({"id": i, "content": self.texts[i], "single_word": false, "lstrip": false, "rstrip": false,
                   "normalized": false, "special": self.types[i] == token_type::CONTROL})
        };
        self.added().map(token).collect()
    }

    /// Texts and ids that are left for the model.
    fn vocabulary(&self, text: impl Fn(&str) -> String) -> Map<String, Json> {
        let own = (0..self.texts.len()).filter(|&i| {
            !matches!(self.types[i], token_type::CONTROL | token_type::USER_DEFINED | token_type::UNUSED)
        });
        own.map(|i| (text(&self.texts[i]), json!(i))).collect()
    }
}

/// The files of a tokenizer folder, from its metadata.
///
/// # Errors
/// Metadata that contradicts itself.
pub fn tokenizer_files(m: &Metadata) -> Result<RestoredFiles> {
    let mut out = RestoredFiles::default();
    let Some(list) = List::read(m)? else {
        out.lost.push("tokenizer: the file holds none".to_owned());
        return Ok(out);
    };
    let model = m.str("tokenizer.ggml.model").unwrap_or_default();
    let class = match model {
        "gpt2" => {
            byte_level(m, &list, &mut out)?;
            "PreTrainedTokenizerFast"
        }
        "llama" => {
            let prefix = m
                .get("tokenizer.ggml.add_space_prefix")
                .and_then(tensormill_model::Value::as_bool)
                .unwrap_or(true);
            let specials = ["unknown", "bos", "eos", "padding"].map(|s| special_id(m, s));
            out.files.push((
                "tokenizer.model".to_owned(),
                spm::encode(&list.texts, list.scores.as_deref(), &list.types, prefix, specials),
            ));
            "LlamaTokenizer"
        }
        "bert" => {
            word_piece(m, &list, &mut out)?;
            "BertTokenizerFast"
        }
        other => {
            out.lost.push(format!("tokenizer: the way back from {other:?} vocabularies is not known"));
            return Ok(out);
        }
    };
    let config = settings(m, &list, class, model == "llama");
    out.json("tokenizer_config.json", &config)?;
    if let Some(template) = m.str("tokenizer.chat_template") {
        out.files.push(("chat_template.jinja".to_owned(), template.as_bytes().to_vec()));
    }
    Ok(out)
}

fn special_id(m: &Metadata, kind: &str) -> Option<u64> {
    m.u64(&format!("tokenizer.ggml.{kind}_token_id"))
}

/// `tokenizer_config.json`.
fn settings(m: &Metadata, list: &List, class: &str, added: bool) -> Json {
    let mut c = Map::new();
    c.insert("tokenizer_class".into(), json!(class));
    for (name, kind) in [
        ("bos_token", "bos"),
        ("eos_token", "eos"),
        ("unk_token", "unknown"),
        ("sep_token", "seperator"),
        ("pad_token", "padding"),
        ("mask_token", "mask"),
        ("cls_token", "cls"),
    ] {
        if let Some(text) = special_id(m, kind).and_then(|id| list.texts.get(usize::try_from(id).ok()?)) {
            c.insert(name.into(), json!(text));
        }
    }
    for (name, key) in [
        ("add_bos_token", "add_bos_token"),
        ("add_eos_token", "add_eos_token"),
        ("add_prefix_space", "add_space_prefix"),
    ] {
        if let Some(on) = m.get(&format!("tokenizer.ggml.{key}")).and_then(tensormill_model::Value::as_bool) {
            c.insert(name.into(), json!(on));
        }
    }
    c.insert("clean_up_tokenization_spaces".into(), json!(false));
    if added {
        // A tokenizer.model does not say which of its pieces were added later; the score does.
        let later = |i: &usize| list.scores.as_ref().is_some_and(|s| s[*i] == crate::sentencepiece::ADDED);
        let decoder: Map<String, Json> = list
            .added()
            .filter(later)
            .map(|i| {
                let special = list.types[i] == token_type::CONTROL;
                let token = json!({"content": list.texts[i], "lstrip": false, "normalized": false, "rstrip": false,
                                   "single_word": false, "special": special});
                (i.to_string(), token)
            })
            .collect();
        if !decoder.is_empty() {
            c.insert("added_tokens_decoder".into(), Json::Object(decoder));
        }
    }
    Json::Object(c)
}

/// How Llama 3 cuts text.
const LLAMA3_PATTERN: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// How GPT-4o and gpt-oss cut text (tiktoken's `o200k_base`).
const GPT_4O_PATTERN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Normalizer and pre-tokenizer behind a name, and whether merges are ignored for whole tokens.
fn rules(name: &str) -> Option<(Json, Json, bool)> {
    let split = |pattern: &str| {
        json!({"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false}]})
    };
    match name {
        "llama-bpe" => Some((Json::Null, split(LLAMA3_PATTERN), true)),
        "qwen2" => Some((json!({"type": "NFC"}), split(hf::QWEN2_PATTERN), false)),
        "gpt-4o" => Some((Json::Null, split(GPT_4O_PATTERN), false)),
        "gpt-2" => Some((Json::Null, hf::byte_level(false), false)),
        _ => None,
    }
}

fn byte_level(m: &Metadata, list: &List, out: &mut RestoredFiles) -> Result<()> {
    let name = m.str("tokenizer.ggml.pre").unwrap_or("default");
    let Some((normalizer, pre_tokenizer, ignore_merges)) = rules(name) else {
        out.lost.push(format!("tokenizer.json: the rules of the pre-tokenizer {name:?} are not in the file"));
        return Ok(());
    };
    let bos = special_id(m, "bos").and_then(|id| list.texts.get(usize::try_from(id).ok()?).map(|t| (id, t)));
    let adds = m.get("tokenizer.ggml.add_bos_token").and_then(tensormill_model::Value::as_bool);
    let trimmed =
        json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": false, "use_regex": true});
    let post = match bos.filter(|_| adds.unwrap_or(name == "llama-bpe")) {
        None => trimmed,
        Some((id, text)) => {
            let (a, b) = (
                json!({"Sequence": {"id": "A", "type_id": 0}}),
                json!({"Sequence": {"id": "B", "type_id": 1}}),
            );
            let first = |n: u8| json!({"SpecialToken": {"id": text, "type_id": n}});
            json!({"type": "Sequence", "processors": [trimmed, {
                "type": "TemplateProcessing", "single": [first(0), a], "pair": [first(0), a, first(1), b],
                "special_tokens": {text: {"id": text, "ids": [id], "tokens": [text]}}}]})
        }
    };
    let texts: HashSet<&str> = list.texts.iter().map(String::as_str).collect();
    let pairs = list.merges.iter().map(|m| {
        let parts = m.split_once(' ').filter(|(_, b)| !b.contains(' '));
        parts.ok_or_else(|| Error::malformed(format!("the merge {m:?} is not two tokens")))
    });
    guard::merges(|t| texts.contains(t), pairs.collect::<Result<Vec<_>>>()?, "")?;
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": list.added_tokens(),
        "normalizer": normalizer, "pre_tokenizer": pre_tokenizer, "post_processor": post,
        "decoder": hf::byte_level(true),
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                  "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
                  "ignore_merges": ignore_merges, "vocab": list.vocabulary(str::to_owned), "merges": list.merges},
    });
    let bytes = serde_json::to_vec(&tokenizer).map_err(|e| Error::io("encode the tokenizer", e.into()))?;
    let ids = guard::contained("the vocabulary makes no tokenizer", || {
        Tokenizer::from_bytes(&bytes)?.encode(pre::check_text(), false)
    })?;
    // Small vocabularies of tests cut the text otherwise than the large ones that have names.
    if list.texts.len() > SMALL && pre::resolve(ids.get_ids()).ok() != Some(name) {
        out.notes.push(format!(
            "tokenizer.json: gives other ids for the peers' check text than {name:?} stands for; compare before use"
        ));
    }
    out.files.push(("tokenizer.json".to_owned(), bytes));
    Ok(())
}

/// Vocabularies this small are nobody's whose ids are known.
const SMALL: usize = 4096;

fn word_piece(m: &Metadata, list: &List, out: &mut RestoredFiles) -> Result<()> {
    let whole = |text: &str| match text.strip_prefix('\u{2581}') {
        Some(word) => word.to_owned(),
        None if text.starts_with('[') && text.ends_with(']') => text.to_owned(),
        None => format!("##{text}"),
    };
    let flag = |key: &str| {
        m.get(&format!("tokenizer.ggml.normalizer.{key}")).and_then(tensormill_model::Value::as_bool)
    };
    let cased = list.texts.iter().any(|t| t.starts_with('\u{2581}') && t.chars().any(char::is_uppercase));
    let lowercase = flag("lowercase").unwrap_or(!cased);
    if flag("lowercase").is_none() {
        out.notes.push(format!("tokenizer.json: lowercase is {lowercase}, as the vocabulary suggests"));
    }
    let mut vocabulary = list.vocabulary(whole);
    for i in list.added() {
        vocabulary.insert(list.texts[i].clone(), json!(i));
    }
    let text = |kind: &str, usual: &str| {
        let id = special_id(m, kind).and_then(|id| usize::try_from(id).ok());
        id.and_then(|id| list.texts.get(id).cloned()).unwrap_or_else(|| usual.to_owned())
    };
    let pair = |text: String| json!([text, vocabulary.get(&text).cloned().unwrap_or(json!(0))]);
    let post = json!({"type": "BertProcessing", "sep": pair(text("seperator", "[SEP]")),
                      "cls": pair(text("bos", "[CLS]"))});
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": list.added_tokens(),
        "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
                       "strip_accents": flag("strip_accents"), "lowercase": lowercase},
        "pre_tokenizer": {"type": "BertPreTokenizer"}, "post_processor": post,
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        "model": {"type": "WordPiece", "unk_token": text("unknown", "[UNK]"), "continuing_subword_prefix": "##",
                  "max_input_chars_per_word": 100, "vocab": vocabulary},
    });
    let bytes = serde_json::to_vec(&tokenizer).map_err(|e| Error::io("encode the tokenizer", e.into()))?;
    out.files.push(("tokenizer.json".to_owned(), bytes));
    Ok(())
}
