//! Vocabularies of `tokenizer.json`: byte-level BPE, SentencePiece-style BPE saved by transformers, WordPiece.
//!
//! Must not know special tokens' keys (`special`) or how the tokenizer is built (`hf`).

use crate::{Cx, Tokens, hf::Backend, pre, token_type};
use serde_json::Value as Json;
use std::collections::HashSet;
use tensormill_model::{Error, Result};

/// Texts, types and pre-tokenizer of a byte-level BPE or WordPiece vocabulary (the peer's `get_vocab_base`).
fn base(cx: &mut Cx<'_, '_>) -> Result<(Vec<String>, Vec<i32>, String)> {
    let backend = Backend::load(cx.files, cx.notes)?;
    let texts = backend.texts();
    let size = cx.vocab_size.unwrap_or(texts.len() as u64);
    if texts.len() as u64 > size {
        return Err(Error::mismatch(format!(
            "the tokenizer has ids up to {}, but the model's vocab_size is {size}",
            texts.len() - 1
        ))
        .file("tokenizer.json")
        .hint("the tokenizer belongs to another model, or config.json's vocab_size is wrong"));
    }
    let pre = if let Some(name) = cx.req.pre {
        name.to_owned()
    } else {
        pre::resolve(&backend.encode(pre::check_text(), true)?)?.to_owned()
    };
    let added = backend.added();
    let mut types = Vec::with_capacity(size as usize);
    let mut out = Vec::with_capacity(size as usize);
    let ids = texts.into_iter().chain(std::iter::repeat(None)).take(size as usize);
    for (i, text) in ids.enumerate() {
        let Some(mut text) = text else {
            out.push(format!("[PAD{i}]"));
            types.push(token_type::UNUSED);
            continue;
        };
        let Some(token) = added.get(&(i as u32)) else {
            out.push(text);
            types.push(token_type::NORMAL);
            continue;
        };
        // llama.cpp matches these tokens before normalization, so it wants them as they come out.
        if !token.normalized {
            let back = backend.round_trip(&text)?;
            if back != text {
                cx.notes.push(format!("added token {text:?} is stored as {back:?}"));
                text = back;
            }
        }
        if token.special || looks_special(&text) {
            types.push(token_type::CONTROL);
        } else {
            text = text.replace('\u{2581}', " ");
            types.push(token_type::USER_DEFINED);
        }
        out.push(text);
    }
    Ok((out, types, pre))
}

/// Tokens that are control tokens whatever their flags say (the peer's list).
pub fn looks_special(t: &str) -> bool {
    matches!(t, "<pad>" | "<mask>" | "<2mass>" | "[@BOS@]")
        || t.starts_with("<|") && t.ends_with("|>")
        || t.starts_with("<\u{ff5c}") && t.ends_with("\u{ff5c}>")
        || t.starts_with("<unused") && t.ends_with('>')
}

/// Byte-level BPE.
pub fn gpt2_tokens(cx: &mut Cx<'_, '_>) -> Result<Option<Tokens>> {
    if cx.files.tokenizer_json.is_none() {
        return Ok(None);
    }
    let merges = joined_merges(cx);
    let (texts, types, pre) = base(cx)?;
    if merges.is_empty() {
        cx.notes.push("no merges found: the result may not work".to_owned());
    }
    Ok(Some(Tokens {
        model: "gpt2",
        pre,
        texts,
        scores: None,
        types,
        merges: Some(merges),
        bound_specials: false,
    }))
}

/// Merges as `"a b"`. Spaces inside a part are stored as byte-level BPE writes a space.
fn joined_merges(cx: &Cx<'_, '_>) -> Vec<String> {
    if let Some(list) = cx.files.tokenizer_json.as_ref().and_then(|t| t.merges.as_ref())
        && !list.is_empty()
    {
        let part =
            |s: &mut String, p: &str| s.extend(p.chars().map(|c| if c == ' ' { '\u{120}' } else { c }));
        return list
            .iter()
            .map(|(a, b)| {
                let mut s = String::with_capacity(a.len() + b.len() + 1);
                part(&mut s, a);
                s.push(' ');
                part(&mut s, b);
                s
            })
            .collect();
    }
    let text = cx.files.merges_txt.as_deref().unwrap_or("");
    let body = match text.split_once('\n') {
        Some((first, rest)) if first.trim_start().starts_with('#') => rest,
        _ => text,
    };
    body.lines()
        .filter_map(|l| {
            let mut parts = l.split_whitespace();
            match (parts.next(), parts.next(), parts.next()) {
                (Some(a), Some(b), None) => Some(format!("{a} {b}")),
                _ => None,
            }
        })
        .collect()
}

/// WordPiece: continuations lose their `##`, other ordinary tokens get a phantom space.
pub fn wordpiece_tokens(cx: &mut Cx<'_, '_>) -> Result<Option<Tokens>> {
    if cx.files.tokenizer_json.is_none() {
        return Ok(None);
    }
    let (mut texts, types, pre) = base(cx)?;
    for (text, kind) in texts.iter_mut().zip(&types) {
        if *kind == token_type::CONTROL {
            continue;
        }
        match text.strip_prefix("##") {
            Some(rest) => *text = rest.to_owned(),
            None => text.insert(0, '\u{2581}'),
        }
    }
    Ok(Some(Tokens { model: "bert", pre, texts, scores: None, types, merges: None, bound_specials: true }))
}

/// BPE with byte fallback. Llama-3's and other byte-level files are not of this kind.
pub fn llama_hf_tokens(cx: &mut Cx<'_, '_>) -> Result<Option<Tokens>> {
    let Some(t) = &cx.files.tokenizer_json else { return Ok(None) };
    let decoder = t.part("decoder").and_then(|d| d.get("type")).and_then(Json::as_str);
    if t.model_type() != Some("BPE")
        || t.model_flag("byte_fallback") != Some(true)
        || decoder != Some("Sequence")
    {
        return Ok(None);
    }
    let backend = Backend::load(cx.files, cx.notes)?;
    let special_ids: HashSet<u32> = backend.specials.iter().filter_map(|t| backend.id(t)).collect();
    let base = backend.base_size;
    let added = backend.added();
    let all = backend.texts();
    let mut texts = Vec::with_capacity(all.len());
    let mut types = Vec::with_capacity(all.len());
    for (id, text) in all.into_iter().enumerate() {
        if id >= base {
            // Ids past the base vocabulary are added tokens, listed without gaps.
            let Some(text) = text.filter(|_| added.contains_key(&(id as u32))) else { continue };
            types.push(if special_ids.contains(&(id as u32)) {
                token_type::CONTROL
            } else {
                token_type::USER_DEFINED
            });
            texts.push(text);
            continue;
        }
        let Some(text) = text else {
            return Err(Error::malformed(format!(
                "no token has id {id}, but the vocabulary has {base} tokens"
            ))
            .file("tokenizer.json"));
        };
        types.push(if is_byte(&text) {
            token_type::BYTE
        } else if special_ids.contains(&(id as u32)) {
            token_type::CONTROL
        } else {
            token_type::NORMAL
        });
        texts.push(text);
    }
    let scores = vec![-1000.0; texts.len()];
    Ok(Some(Tokens {
        model: "llama",
        pre: "default".to_owned(),
        texts,
        scores: Some(scores),
        types,
        merges: None,
        bound_specials: true,
    }))
}

/// `<0xNN>`.
fn is_byte(t: &str) -> bool {
    t.len() == 6
        && t.strip_prefix("<0x")
            .and_then(|t| t.strip_suffix('>'))
            .is_some_and(|h| h.bytes().all(|b| b.is_ascii_hexdigit()))
}
