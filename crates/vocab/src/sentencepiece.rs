//! SentencePiece vocabularies as token lists: pieces, added tokens over them, padding.
//!
//! Must not know the model file's encoding (`spm`) or special tokens' keys (`special`).

use crate::bpe::looks_special;
use crate::tokenizer_json::TokenizerJson;
use crate::{Cx, MAX_TOKENS, Tokens, spm, token_type};
use serde_json::Value as Json;
use tensormill_model::{Error, Result};

/// Score of an added token.
pub(crate) const ADDED: f32 = -1000.0;
/// Score of a padding token.
const PADDING: f32 = -10000.0;

struct List {
    texts: Vec<String>,
    scores: Vec<f32>,
    types: Vec<i32>,
}

impl List {
    /// The pieces, padded or cut to `vocab_size`.
    fn pieces(cx: &mut Cx<'_, '_>) -> Result<Option<Self>> {
        const FILE: &str = "tokenizer.model";
        let Some(bytes) = cx.req.assets.read(FILE)? else { return Ok(None) };
        let pieces = spm::pieces(&bytes).map_err(|e| e.file(FILE))?;
        drop(bytes);
        // A size of 0 counts as unset, as in Python.
        let size = cx.vocab_size.filter(|n| *n > 0).unwrap_or(pieces.len() as u64) as usize;
        if pieces.len() > size {
            cx.notes.push(format!("{} pieces past vocab_size {size} are left out", pieces.len() - size));
        }
        let mut list = Self {
            texts: Vec::with_capacity(size),
            scores: Vec::with_capacity(size),
            types: Vec::with_capacity(size),
        };
        for p in pieces.into_iter().take(size) {
            list.texts.push(p.text);
            list.scores.push(p.score);
            // The peer knows no user-defined pieces.
            list.types.push(if p.kind == token_type::USER_DEFINED { token_type::NORMAL } else { p.kind });
        }
        for i in list.texts.len()..size {
            list.texts.push(format!("[PAD{i}]"));
            list.scores.push(PADDING);
            list.types.push(token_type::UNUSED);
        }
        Ok(Some(list))
    }

    /// `added_tokens.json`: text to id.
    fn added_tokens_file(&mut self, cx: &mut Cx<'_, '_>) -> Result<()> {
        for (text, id) in cx.files.added_tokens.iter().flatten() {
            let id = token_id(id.as_u64(), text, "added_tokens.json")?;
            if id >= self.texts.len() {
                cx.notes.push(format!("added token {text:?} with id {id} is past the vocabulary: left out"));
                continue;
            }
            self.set(id, text.clone(), token_type::USER_DEFINED);
        }
        Ok(())
    }

    fn set(&mut self, id: usize, text: String, kind: i32) {
        self.texts[id] = text;
        self.scores[id] = ADDED;
        self.types[id] = kind;
    }

    fn finish(self) -> Tokens {
        Tokens {
            model: "llama",
            pre: "default".to_owned(),
            texts: self.texts,
            scores: Some(self.scores),
            types: self.types,
            merges: None,
            bound_specials: true,
        }
    }
}

fn token_id(id: Option<u64>, text: &str, file: &str) -> Result<usize> {
    match id {
        Some(id) if id < MAX_TOKENS => Ok(id as usize),
        _ => {
            Err(Error::malformed(format!("the id of {text:?} is not a number from 0 to {}", MAX_TOKENS - 1))
                .file(file))
        }
    }
}

/// Id, text and flag of each entry of `added_tokens_decoder`.
fn decoder_entries(cx: &Cx<'_, '_>) -> Result<Vec<(usize, String, bool)>> {
    const FILE: &str = "tokenizer_config.json";
    let Some(decoder) = cx.files.setting("added_tokens_decoder") else { return Ok(Vec::new()) };
    let entries = decoder
        .as_object()
        .ok_or_else(|| Error::malformed("added_tokens_decoder is not an object").file(FILE))?;
    entries
        .iter()
        .map(|(id, token)| {
            let text = token.get("content").and_then(Json::as_str).ok_or_else(|| {
                Error::malformed(format!("token {id} of added_tokens_decoder has no content")).file(FILE)
            })?;
            let special = token.get("special").and_then(Json::as_bool).unwrap_or(false);
            Ok((token_id(id.trim().parse().ok(), text, FILE)?, text.to_owned(), special))
        })
        .collect()
}

/// The common rules.
pub fn spm_tokens(cx: &mut Cx<'_, '_>) -> Result<Option<Tokens>> {
    let Some(mut list) = List::pieces(cx)? else { return Ok(None) };
    list.added_tokens_file(cx)?;
    for (id, text, special) in decoder_entries(cx)? {
        if id >= list.texts.len() {
            cx.notes.push(format!("added token {text:?} with id {id} is past the vocabulary: left out"));
            continue;
        }
        note_replaced(&list, id, &text, cx.notes);
        if special || looks_special(&text) {
            list.set(id, text, token_type::CONTROL);
        } else {
            list.set(id, text.replace('\u{2581}', " "), token_type::USER_DEFINED);
        }
    }
    Ok(Some(list.finish()))
}

/// Phi-3's rules: tokens of `tokenizer.json` too, and an id past the vocabulary is an error.
pub fn phi3_tokens(cx: &mut Cx<'_, '_>) -> Result<Option<Tokens>> {
    if cx.files.setting("tokenizer_class").and_then(Json::as_str) == Some("GPT2Tokenizer") {
        return Ok(None);
    }
    let Some(mut list) = List::pieces(cx)? else { return Ok(None) };
    list.added_tokens_file(cx)?;
    let mut entries = decoder_entries(cx)?;
    for t in cx.files.tokenizer_json.iter().flat_map(TokenizerJson::added_tokens) {
        let text = t.get("content").and_then(Json::as_str).unwrap_or_default();
        let id = token_id(t.get("id").and_then(Json::as_u64), text, "tokenizer.json")?;
        entries.push((id, text.to_owned(), t.get("special").and_then(Json::as_bool).unwrap_or(false)));
    }
    for (id, text, special) in entries {
        if id >= list.texts.len() {
            return Err(Error::mismatch(format!(
                "added token {text:?} has id {id}, but the vocabulary has {} tokens",
                list.texts.len()
            ))
            .file("tokenizer_config.json")
            .hint("config.json's vocab_size must cover the added tokens"));
        }
        note_replaced(&list, id, &text, cx.notes);
        list.set(id, text, if special { token_type::CONTROL } else { token_type::USER_DEFINED });
    }
    Ok(Some(list.finish()))
}

fn note_replaced(list: &List, id: usize, text: &str, notes: &mut Vec<String>) {
    if list.types[id] != token_type::UNUSED && list.texts[id] != text {
        notes.push(format!("token {id} {:?} is replaced by {text:?}", list.texts[id]));
    }
}
