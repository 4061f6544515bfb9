//! The tokenizer transformers' `AutoTokenizer` would build from a folder (transformers 5.23).
//!
//! The converter's results depend on it in three ways: the ids of the check text, which tokens count as added or
//! special, and the text of added tokens. Two facts make this more than loading `tokenizer.json`:
//!
//! - **Some classes rebuild the tokenizer in code** and take only vocabulary, merges and post-processor from the
//!   file: normalizer, pre-tokenizer, decoder and the model's switches come from the class. Which class is used
//!   depends on `model_type`, the `tokenizer_class` of the folder, and tables in transformers
//!   (`data/tokenizer_classes.tsv`). Llama-3 folders that declare `LlamaTokenizer` are recognised by their
//!   byte-level components and load as they are. Classes that rebuild but are not listed in [`Class`] are loaded
//!   as `tokenizer.json` says, with a note.
//! - **Special tokens become added tokens**: those named in `tokenizer_config.json` (or by a class's defaults) that
//!   are not among the added tokens are added, as special ones; `added_tokens_decoder` overrides the flags of
//!   `tokenizer.json`.
//!
//! Truncation, padding and dropout are never applied (the converter calls `encode` without them).
//!
//! Must not know GGUF's keys.

use crate::class::{Class, resolve_class};
use crate::files::Files;
use crate::guard;
use crate::tokenizer_json::TokenizerJson;
use serde_json::{Map, Value as Json, json};
use std::collections::{BTreeMap, HashMap};
use tensormill_model::{Error, Result};
use tokenizers::models::bpe::BPE;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::{
    AddedToken, DecoderWrapper, ModelWrapper, NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper,
    Tokenizer,
};

/// Attributes of every tokenizer, in transformers' order.
const ATTRIBUTES: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

pub(crate) const QWEN2_PATTERN: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// A tokenizer as transformers presents it.
pub struct Backend {
    tokenizer: Tokenizer,
    /// Number of entries of the base vocabulary.
    pub base_size: usize,
    /// Named and extra special tokens.
    pub specials: Vec<String>,
    clean_up: bool,
}

impl Backend {
    /// Builds it, taking vocabulary and merges out of `files`.
    pub fn load(files: &mut Files, notes: &mut Vec<String>) -> Result<Self> {
        Self::build(files, notes).map_err(|e| e.file("tokenizer.json"))
    }

    fn build(files: &mut Files, notes: &mut Vec<String>) -> Result<Self> {
        let Some(t) = files.tokenizer_json.as_mut() else {
            return Err(Error::unsupported("no tokenizer.json"));
        };
        let kind = t.model_type().unwrap_or("of no type").to_owned();
        let (Some(vocab), merges) = (t.vocab.take(), t.merges.take()) else {
            return Err(Error::unsupported(format!(
                "a {kind} model without a vocabulary of ids is not handled"
            )));
        };
        let (class, note) =
            resolve_class(files, files.tokenizer_json.as_ref().is_some_and(|t| t.mentions_byte_level));
        notes.extend(note);
        check_ids(&vocab)?;
        let plan = Plan::new(files, class)?;
        let Some(t) = files.tokenizer_json.as_ref() else {
            return Err(Error::unsupported("no tokenizer.json"));
        };
        let model = match kind.as_str() {
            "BPE" if class != Class::Bert => bpe(&t.model, &plan, vocab, merges.unwrap_or_default())?,
            "WordPiece" if matches!(class, Class::AsFile | Class::Bert) => wordpiece(&t.model, &plan, vocab)?,
            other => {
                return Err(Error::unsupported(format!(
                    "tokenizer model {other} with tokenizer class {class:?} is not handled"
                )));
            }
        };
        let is_bpe = matches!(model, ModelWrapper::BPE(_));
        let mut tokenizer = Tokenizer::new(model);
        plan.components(files, &mut tokenizer)?;
        let base_size = tokenizer.get_vocab_size(false);
        for batch in plan.batches(files) {
            guard::contained("added_tokens", || tokenizer.add_tokens(batch))?;
        }
        plan.post_processor(files, &mut tokenizer)?;
        let clean_up = files.setting("clean_up_tokenization_spaces").and_then(Json::as_bool).unwrap_or(false)
            && (!is_bpe
                || files
                    .setting("clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output")
                    .and_then(Json::as_bool)
                    .unwrap_or(false));
        Ok(Self { tokenizer, base_size, specials: plan.special_texts(), clean_up })
    }

    /// Ids of a text.
    pub fn encode(&self, text: &str, add_special_tokens: bool) -> Result<Vec<u32>> {
        let what = format!("encoding {:?}", abridge(text));
        let e = guard::contained(&what, || self.tokenizer.encode_fast(text, add_special_tokens))?;
        Ok(e.get_ids().to_vec())
    }

    /// A text encoded and decoded again: what a non-normalized added token is stored as.
    pub fn round_trip(&self, text: &str) -> Result<String> {
        let ids = self.encode(text, false)?;
        let what = format!("decoding {:?}", abridge(text));
        let out = guard::contained(&what, || self.tokenizer.decode(&ids, false))?;
        Ok(if self.clean_up { clean_up(&out) } else { out })
    }

    /// Added tokens by id.
    pub fn added(&self) -> BTreeMap<u32, AddedToken> {
        self.tokenizer.get_added_tokens_decoder().into_iter().collect()
    }

    /// The id of a token.
    pub fn id(&self, text: &str) -> Option<u32> {
        self.tokenizer.token_to_id(text)
    }

    /// Texts by id; `None` for ids no token has.
    pub fn texts(&self) -> Vec<Option<String>> {
        let map: HashMap<String, u32> = self.tokenizer.get_vocab(true).into_iter().collect();
        let len = map.values().max().map_or(0, |m| *m as usize + 1);
        let mut texts = vec![None; len];
        for (text, id) in map {
            texts[id as usize] = Some(text);
        }
        texts
    }
}

fn abridge(text: &str) -> String {
    text.chars().take(40).collect()
}

/// Transformers' `clean_up_tokenization`.
fn clean_up(text: &str) -> String {
    [" .", " ?", " !", " ,"]
        .iter()
        .fold(text.to_owned(), |t, p| t.replace(p, &p[1..]))
        .replace(" ' ", "'")
        .replace(" n't", "n't")
        .replace(" 'm", "'m")
        .replace(" 's", "'s")
        .replace(" 've", "'ve")
        .replace(" 're", "'re")
}

/// Two tokens with one id would make the list depend on hash order.
fn check_ids(vocab: &[(String, u32)]) -> Result<()> {
    let len = vocab.iter().map(|(_, id)| *id as usize + 1).max().unwrap_or(0);
    let mut seen = vec![u32::MAX; len];
    for (i, (text, id)) in vocab.iter().enumerate() {
        let slot = &mut seen[*id as usize];
        if let Some((other, _)) = vocab.get(*slot as usize)
            && other != text
        {
            return Err(Error::malformed(format!("tokens {other:?} and {text:?} both have id {id}")));
        }
        *slot = i as u32;
    }
    Ok(())
}

/// What the folder's small files say, before any tokenizer exists.
struct Plan {
    class: Class,
    /// Named tokens in transformers' order, then model-specific ones.
    named: Vec<(String, AddedToken)>,
    /// `extra_special_tokens`.
    extra: Vec<AddedToken>,
    /// `added_tokens_decoder`, or its legacy replacements, by id.
    decoder: BTreeMap<u64, AddedToken>,
    settings: Map<String, Json>,
}

/// An added token from a JSON object; a missing `normalized` is the opposite of `special`.
fn added_token(v: &Json, special: Option<bool>) -> Option<AddedToken> {
    let flag = |k: &str| v.get(k).and_then(Json::as_bool);
    let special = special.or_else(|| flag("special")).unwrap_or(false);
    Some(
        AddedToken::from(v.get("content")?.as_str()?, special)
            .normalized(flag("normalized").unwrap_or(!special))
            .lstrip(flag("lstrip").unwrap_or(false))
            .rstrip(flag("rstrip").unwrap_or(false))
            .single_word(flag("single_word").unwrap_or(false)),
    )
}

/// A named token: a string, or an object. A string takes the flags of an added token of the same text.
fn named_token(v: &Json, known: &HashMap<String, AddedToken>) -> Option<AddedToken> {
    let token = match v {
        Json::String(s) => AddedToken::from(s.as_str(), true),
        Json::Object(_) => added_token(v, None)?,
        _ => return None,
    };
    Some(known.get(&token.content).cloned().unwrap_or(token))
}

impl Plan {
    fn new(files: &Files, class: Class) -> Result<Self> {
        let mut settings = files.tokenizer_config.clone().unwrap_or_default();
        let mut decoder = BTreeMap::new();
        if let Some(d) = settings.get("added_tokens_decoder") {
            let bad = || {
                Error::malformed("added_tokens_decoder is not an object of tokens")
                    .file("tokenizer_config.json")
            };
            for (id, token) in d.as_object().ok_or_else(bad)? {
                let id = id.trim().parse::<u64>().map_err(|_| bad())?;
                decoder.insert(id, added_token(token, None).ok_or_else(bad)?);
            }
        } else {
            for (k, v) in files.special_tokens_map.iter().flatten() {
                settings.insert(k.clone(), v.clone());
            }
            for (text, id) in files.added_tokens.iter().flatten() {
                let id = id.as_u64().ok_or_else(|| {
                    Error::malformed(format!("the id of {text:?} is not a number")).file("added_tokens.json")
                })?;
                let special = ATTRIBUTES
                    .iter()
                    .filter_map(|a| settings.get(*a))
                    .chain(
                        settings.get("extra_special_tokens").and_then(Json::as_array).into_iter().flatten(),
                    )
                    .any(|v| v.as_str().or_else(|| v.get("content")?.as_str()) == Some(text));
                decoder.insert(id, AddedToken::from(text.as_str(), special).normalized(!special));
            }
            for t in files.tokenizer_json.iter().flat_map(TokenizerJson::added_tokens) {
                if let (Some(id), Some(token)) = (t.get("id").and_then(Json::as_u64), added_token(t, None)) {
                    decoder.insert(id, token);
                }
            }
        }
        let known: HashMap<String, AddedToken> =
            decoder.values().map(|t| (t.content.clone(), t.clone())).collect();
        if settings.get("extra_special_tokens").is_none_or(Json::is_null)
            && let Some(v) = settings.remove("additional_special_tokens")
        {
            settings.insert("extra_special_tokens".into(), v);
        }
        for (name, text) in class.defaults() {
            settings.entry(*name).or_insert_with(|| json!(text));
        }
        let padding =
            files.tokenizer_json.as_ref().and_then(|t| t.part("padding")?.get("pad_token").cloned());
        if let Some(pad) = padding
            && matches!(class, Class::AsFile | Class::Llama)
        {
            settings.entry("pad_token").or_insert(pad);
        }
        let mut named = Vec::new();
        for name in ATTRIBUTES {
            named.extend(
                settings.get(name).and_then(|v| named_token(v, &known)).map(|t| (name.to_owned(), t)),
            );
        }
        let none = HashMap::new();
        for (name, v) in &settings {
            if name.ends_with("_token") && !ATTRIBUTES.contains(&name.as_str()) && v.is_string() {
                named.extend(named_token(v, &none).map(|t| (name.clone(), t)));
            }
        }
        let mut extra = Vec::new();
        match settings.get("extra_special_tokens") {
            Some(Json::Object(map)) => {
                for (name, v) in map {
                    named.extend(named_token(v, &none).map(|t| (name.clone(), t)));
                }
            }
            Some(Json::Array(list)) => extra.extend(list.iter().filter_map(|v| named_token(v, &none))),
            _ => {}
        }
        Ok(Self { class, named, extra, decoder, settings })
    }

    fn text_of(&self, name: &str) -> String {
        self.named
            .iter()
            .find(|(n, _)| n == name)
            .map_or_else(|| "None".to_owned(), |(_, t)| t.content.clone())
    }

    fn special_texts(&self) -> Vec<String> {
        self.named.iter().map(|(_, t)| t).chain(&self.extra).map(|t| t.content.clone()).collect()
    }

    /// Batches of tokens in the order transformers adds them.
    fn batches(&self, files: &Files) -> Vec<Vec<AddedToken>> {
        let mut batches = Vec::new();
        let mut have: Vec<&str> = Vec::new();
        if self.class == Class::AsFile {
            let json = files.tokenizer_json.as_ref().map_or(&[][..], |t| t.added_tokens());
            have.extend(json.iter().filter_map(|t| t.get("content")?.as_str()));
            batches.push(json.iter().filter_map(|t| added_token(t, None)).collect());
        }
        let is_named = |t: &AddedToken| self.named.iter().any(|(_, n)| n.content == t.content);
        let mut batch: Vec<AddedToken> = self.decoder.values().cloned().collect();
        let mut have: std::collections::HashSet<String> =
            have.into_iter().map(str::to_owned).chain(batch.iter().map(|t| t.content.clone())).collect();
        for t in self.named.iter().map(|(_, t)| t).chain(&self.extra) {
            if have.insert(t.content.clone()) {
                batch.push(t.clone());
            }
        }
        for t in &mut batch {
            t.special |= is_named(t);
        }
        batches.push(batch);
        if self.class == Class::Qwen2 {
            batches.push(self.special_texts().into_iter().map(|t| AddedToken::from(t, true)).collect());
        }
        batches
    }

    /// Normalizer, pre-tokenizer and decoder.
    fn components(&self, files: &Files, t: &mut Tokenizer) -> Result<()> {
        let from_file = |key: &str| {
            files.tokenizer_json.as_ref().and_then(|t| t.part(key)).cloned().unwrap_or(Json::Null)
        };
        let flag = |key: &str, default: bool| match self.settings.get(key) {
            None => json!(default),
            Some(v) => v.clone(),
        };
        let [normalizer, pre, decoder] = match self.class {
            Class::AsFile => [from_file("normalizer"), from_file("pre_tokenizer"), from_file("decoder")],
            Class::Llama => {
                let prefix = flag("add_prefix_space", true) != json!(false);
                let legacy = flag("legacy", false) == json!(true);
                let scheme = match (prefix, legacy) {
                    (false, _) => "never",
                    (true, true) => "always",
                    (true, false) => "first",
                };
                let mut steps = vec![
                    json!({"type": "Replace", "pattern": {"String": "\u{2581}"}, "content": " "}),
                    json!({"type": "ByteFallback"}),
                    json!({"type": "Fuse"}),
                ];
                if prefix {
                    steps.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
                }
                [
                    Json::Null,
                    json!({"type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": scheme, "split": false}),
                    json!({"type": "Sequence", "decoders": steps}),
                ]
            }
            Class::Gemma => [
                json!({"type": "Replace", "pattern": {"String": " "}, "content": "\u{2581}"}),
                json!({"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": false}),
                json!({"type": "Sequence", "decoders": [
                    {"type": "Replace", "pattern": {"String": "\u{2581}"}, "content": " "},
                    {"type": "ByteFallback"}, {"type": "Fuse"}]}),
            ],
            Class::Qwen2 => [
                json!({"type": "NFC"}),
                json!({"type": "Sequence", "pretokenizers": [
                    {"type": "Split", "pattern": {"Regex": QWEN2_PATTERN}, "behavior": "Isolated", "invert": false},
                    {"type": "ByteLevel", "add_prefix_space": flag("add_prefix_space", false) == json!(true),
                     "trim_offsets": true, "use_regex": false}]}),
                byte_level(true),
            ],
            Class::Gpt2 => {
                [Json::Null, byte_level(flag("add_prefix_space", false) == json!(true)), byte_level(true)]
            }
            Class::Bert => [
                json!({"type": "BertNormalizer", "clean_text": true,
                           "handle_chinese_chars": flag("tokenize_chinese_chars", true),
                           "strip_accents": self.settings.get("strip_accents"),
                           "lowercase": flag("do_lower_case", true)}),
                json!({"type": "BertPreTokenizer"}),
                json!({"type": "WordPiece", "prefix": "##", "cleanup": true}),
            ],
        };
        t.with_normalizer(part::<NormalizerWrapper>(normalizer, "normalizer")?)
            .map_err(|e| Error::malformed(format!("normalizer: {e}")))?;
        t.with_pre_tokenizer(part::<PreTokenizerWrapper>(pre, "pre_tokenizer")?);
        t.with_decoder(part::<DecoderWrapper>(decoder, "decoder")?);
        Ok(())
    }

    /// The post-processor, once every token has its id.
    fn post_processor(&self, files: &Files, t: &mut Tokenizer) -> Result<()> {
        let post = if self.class == Class::Bert {
            let (cls, sep) = (self.text_of("cls_token"), self.text_of("sep_token"));
            let special = |s: &str, default: u32| json!({"id": s, "ids": [t.token_to_id(s).unwrap_or(default)], "tokens": [s]});
            json!({"type": "TemplateProcessing",
                "single": [{"SpecialToken": {"id": cls, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                           {"SpecialToken": {"id": sep, "type_id": 0}}],
                "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
                "special_tokens": {cls.as_str(): special(&cls, 2), sep.as_str(): special(&sep, 3)}})
        } else {
            files
                .tokenizer_json
                .as_ref()
                .and_then(|t| t.part("post_processor"))
                .cloned()
                .unwrap_or(Json::Null)
        };
        t.with_post_processor(part::<PostProcessorWrapper>(post, "post_processor")?);
        Ok(())
    }
}

pub(crate) fn byte_level(prefix: bool) -> Json {
    json!({"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": true, "use_regex": true})
}

/// A component from JSON; `null` is none.
fn part<T: serde::de::DeserializeOwned>(v: Json, what: &str) -> Result<Option<T>> {
    if v.is_null() {
        return Ok(None);
    }
    guard::component(what, &v)?;
    guard::contained(what, || Ok(serde_json::from_value(v)?)).map(Some)
}

/// A BPE model: its switches from the file, or from the class that rebuilds it.
fn bpe(
    switches: &Map<String, Json>,
    plan: &Plan,
    vocab: Vec<(String, u32)>,
    merges: Vec<(String, String)>,
) -> Result<ModelWrapper> {
    let flag = |k: &str| switches.get(k).and_then(Json::as_bool).unwrap_or(false);
    let text = |k: &str| switches.get(k).and_then(Json::as_str).map(str::to_owned);
    let (fuse, fallback, ignore, unk, prefix, suffix) = match plan.class {
        Class::Llama => (true, true, false, None, None, None),
        Class::Gemma => (true, true, false, Some(plan.text_of("unk_token")), None, None),
        Class::Qwen2 | Class::Gpt2 | Class::Bert => (false, false, false, None, None, None),
        Class::AsFile => (
            flag("fuse_unk"),
            flag("byte_fallback"),
            flag("ignore_merges"),
            text("unk_token"),
            text("continuing_subword_prefix").filter(|s| !s.is_empty()),
            text("end_of_word_suffix").filter(|s| !s.is_empty()),
        ),
    };
    let vocab: tokenizers::models::bpe::Vocab = vocab.into_iter().collect();
    let pairs = merges.iter().map(|(a, b)| (a.as_str(), b.as_str()));
    guard::merges(|t| vocab.contains_key(t), pairs, prefix.as_deref().unwrap_or(""))?;
    let mut b = BPE::builder()
        .vocab_and_merges(vocab, merges)
        .fuse_unk(fuse)
        .byte_fallback(fallback)
        .ignore_merges(ignore);
    if let Some(t) = unk {
        b = b.unk_token(t);
    }
    if let Some(t) = prefix {
        b = b.continuing_subword_prefix(t);
    }
    if let Some(t) = suffix {
        b = b.end_of_word_suffix(t);
    }
    guard::contained("BPE model", || b.build()).map(ModelWrapper::BPE)
}

/// A WordPiece model.
fn wordpiece(switches: &Map<String, Json>, plan: &Plan, vocab: Vec<(String, u32)>) -> Result<ModelWrapper> {
    let text = |k: &str| switches.get(k).and_then(Json::as_str).map(str::to_owned);
    let vocab: tokenizers::models::bpe::Vocab = vocab.into_iter().collect();
    let mut b = WordPiece::builder().vocab(vocab);
    if plan.class == Class::Bert {
        b = b.unk_token(plan.text_of("unk_token"));
    } else {
        b = b.unk_token(text("unk_token").unwrap_or_else(|| "[UNK]".to_owned()));
        if let Some(p) = text("continuing_subword_prefix") {
            b = b.continuing_subword_prefix(p);
        }
        if let Some(n) = switches.get("max_input_chars_per_word").and_then(Json::as_u64) {
            b = b.max_input_chars_per_word(n as usize);
        }
    }
    guard::contained("WordPiece model", || b.build()).map(ModelWrapper::WordPiece)
}
