//! Special tokens, `add_*_token` switches, chat template and normalizer switches (`gguf-py`'s `SpecialVocab`).
//!
//! Ids come from `added_tokens` of `tokenizer.json` for the texts named in `tokenizer_config.json`, then from
//! `*_token_id` of `config.json`; the first found stays. Whether BOS, EOS and SEP are added is read off the
//! post-processor's template, which wins over `add_*_token`. A template that ends in another token than the
//! declared EOS makes that token EOS and the declared one EOT.
//!
//! Must not know how tokens are stored or encoded.

use crate::{chat, files::Files};
use serde_json::{Map, Value as Json};
use tensormill_model::Metadata;

/// The kinds of every model.
pub const STANDARD: &[&str] = &["bos", "eos", "unk", "sep", "pad", "cls", "mask"];
/// The kinds of infill models. Only `eot` still has a key.
pub const INFILL: &[&str] = &["prefix", "suffix", "middle", "fsep", "eot"];

/// What was found.
#[derive(Default, Debug)]
pub struct Special {
    ids: Vec<(&'static str, u64)>,
    add: Vec<(&'static str, bool)>,
    /// A string or a list.
    pub chat_template: Option<Json>,
    lowercase: Option<bool>,
    strip_accents: Option<bool>,
    bound: Option<u64>,
}

/// The key of a kind's id.
fn id_key(kind: &str) -> Option<&'static str> {
    Some(match kind {
        "bos" => "tokenizer.ggml.bos_token_id",
        "eos" => "tokenizer.ggml.eos_token_id",
        "eot" => "tokenizer.ggml.eot_token_id",
        "eom" => "tokenizer.ggml.eom_token_id",
        "unk" => "tokenizer.ggml.unknown_token_id",
        "sep" => "tokenizer.ggml.seperator_token_id",
        "pad" => "tokenizer.ggml.padding_token_id",
        "mask" => "tokenizer.ggml.mask_token_id",
        _ => return None,
    })
}

/// The key of a kind's switch.
fn add_key(kind: &str) -> Option<&'static str> {
    Some(match kind {
        "bos" => "tokenizer.ggml.add_bos_token",
        "eos" => "tokenizer.ggml.add_eos_token",
        "sep" => "tokenizer.ggml.add_sep_token",
        _ => return None,
    })
}

/// Python's truth of a JSON value.
fn truthy(v: &Json) -> bool {
    match v {
        Json::Null => false,
        Json::Bool(b) => *b,
        Json::Number(n) => n.as_f64() != Some(0.0),
        Json::String(s) => !s.is_empty(),
        Json::Array(a) => !a.is_empty(),
        Json::Object(o) => !o.is_empty(),
    }
}

/// The token of a template's step, where it is a special token.
fn special_id(step: Option<&Json>) -> Option<&str> {
    step?.get("SpecialToken")?.get("id")?.as_str().filter(|s| !s.is_empty())
}

fn sequence_id(step: Option<&Json>) -> Option<&str> {
    step?.get("Sequence")?.get("id")?.as_str()
}

/// `tokenizer_config.json` while the rules amend it, and the four names they look at.
struct Names {
    config: Option<Map<String, Json>>,
    bos: Json,
    cls: Json,
    eos: Json,
    sep: Json,
    kinds: Vec<&'static str>,
}

impl Names {
    /// An empty object counts as no configuration, as in Python.
    fn configured(&self) -> bool {
        self.config.as_ref().is_some_and(|c| !c.is_empty())
    }
    fn amend(&mut self, key: &str, v: Json) {
        if let Some(c) = &mut self.config {
            c.insert(key.to_owned(), v);
        }
    }
}

fn is(name: &Json, text: &str) -> bool {
    name.as_str() == Some(text)
}

impl Special {
    /// Reads the folder's files. Ids at or above `bound` are left out.
    pub fn load(files: &Files, bound: Option<u64>, kinds: &[&'static str], notes: &mut Vec<String>) -> Self {
        let mut s = Self { bound, ..Self::default() };
        let get = |k: &str| files.setting(k).cloned().unwrap_or(Json::Null);
        let mut n = Names {
            config: files.tokenizer_config.clone(),
            bos: get("bos_token"),
            cls: get("cls_token"),
            eos: get("eos_token"),
            sep: get("sep_token"),
            kinds: kinds.to_vec(),
        };
        if let Some(t) = &files.tokenizer_json {
            if let Some(norm) = t.part("normalizer") {
                s.normalizer(norm, 0);
            }
            if n.configured() && !truthy(&n.bos) && truthy(&n.cls) {
                n.bos = n.cls.clone();
                n.amend("bos_token", n.bos.clone());
            }
            if n.configured() && !truthy(&n.eos) && truthy(&n.sep) {
                n.eos = n.sep.clone();
                n.amend("eos_token", n.eos.clone());
            }
            if let Some(post) = t.part("post_processor") {
                let single = std::slice::from_ref(post);
                let list = post.get("processors").and_then(Json::as_array).map_or(single, Vec::as_slice);
                for p in list {
                    s.post_processor(p, &mut n);
                }
            }
        }
        // Without a configuration even the side files' chat templates are not looked at.
        if let Some(config) = n.config.as_ref().filter(|c| !c.is_empty()) {
            let template = config.get("chat_template").or(files.chat_template.as_ref());
            match template {
                Some(t @ (Json::String(_) | Json::Array(_))) => s.chat_template = Some(t.clone()),
                None | Some(Json::Null) => {}
                Some(_) => notes.push("chat_template is neither text nor a list: left out".to_owned()),
            }
            for &kind in &n.kinds {
                s.configured(kind, config, files, notes);
            }
        }
        for &kind in &n.kinds {
            let key = format!("{kind}_token_id");
            let id = match files.config.get(&key) {
                None | Some(Json::Null) => files.config.get("text_config").and_then(|t| t.get(&key)),
                id => id,
            };
            if let Some(id) = id.and_then(Json::as_u64) {
                s.set_id(kind, id, notes);
            } else if let Some(id) = id.and_then(Json::as_i64) {
                // The peer stops here; old configurations write -1 for "none".
                notes.push(format!("{key} is {id}: left out"));
            }
        }
        s
    }

    /// Sets an id unless the kind has one, or it is out of range.
    pub fn set_id(&mut self, kind: &'static str, id: u64, notes: &mut Vec<String>) {
        let bound = self.bound.unwrap_or(u64::from(u32::MAX) + 1);
        if id >= bound {
            notes.push(format!("special token {kind} has id {id}, not below {bound}: left out"));
        } else if !self.ids.iter().any(|(k, _)| *k == kind) {
            self.ids.push((kind, id));
        }
    }

    fn set_add(&mut self, kind: &'static str, on: bool, overwrite: bool) {
        match self.add.iter_mut().find(|(k, _)| *k == kind) {
            Some((_, v)) if overwrite => *v = on,
            Some(_) => {}
            None => self.add.push((kind, on)),
        }
    }

    /// Switches of a normalizer, of a sequence of them, or of BERT's. Nesting is bounded by the JSON reader.
    fn normalizer(&mut self, n: &Json, depth: u32) {
        match n.get("type").and_then(Json::as_str) {
            Some("Lowercase") => self.lowercase = Some(true),
            Some("StripAccents") => self.strip_accents = Some(true),
            Some("BertNormalizer") => {
                if let Some(v) = n.get("lowercase") {
                    self.lowercase = v.as_bool();
                }
                if let Some(v) = n.get("strip_accents") {
                    self.strip_accents = v.as_bool();
                }
            }
            Some("Sequence") if depth < 64 => {
                for inner in n.get("normalizers").and_then(Json::as_array).into_iter().flatten() {
                    self.normalizer(inner, depth + 1);
                }
            }
            _ => {}
        }
    }

    fn post_processor(&mut self, p: &Json, n: &mut Names) {
        match p.get("type").and_then(Json::as_str) {
            Some("ByteLevel") => {
                self.set_add("bos", false, false);
                self.set_add("eos", false, false);
            }
            Some("RobertaProcessing") => {
                for kind in ["bos", "eos", "sep"] {
                    self.set_add(kind, true, true);
                }
                let first = |key: &str, or: &Json| p.get(key).and_then(|v| v.get(0)).unwrap_or(or).clone();
                if n.configured() && !truthy(&n.cls) {
                    n.cls = first("cls", &n.bos);
                    n.amend("cls_token", n.cls.clone());
                }
                if n.configured() && !truthy(&n.sep) {
                    n.sep = first("sep", &n.eos);
                    n.amend("sep_token", n.sep.clone());
                }
            }
            Some("TemplateProcessing") => self.template(p, n),
            _ => {}
        }
    }

    /// Reads BOS, EOS and SEP off a template; only simple ones are understood, here as in the peer.
    fn template(&mut self, p: &Json, n: &mut Names) {
        let steps = |key: &str| p.get(key).and_then(Json::as_array).map_or(&[][..], Vec::as_slice);
        let (single, pair) = (steps("single"), steps("pair"));
        let (mut first, mut last) = (None, None);
        if single.len() > 1 {
            first = special_id(single.first());
            if let Some(f) = first {
                if !n.configured() {
                    n.bos = f.into();
                } else if !is(&n.bos, f) && !is(&n.cls, f) {
                    if !truthy(&n.bos) {
                        n.bos = f.into();
                        n.amend("bos_token", f.into());
                    }
                    if !truthy(&n.cls) {
                        n.cls = f.into();
                        n.amend("cls_token", f.into());
                    }
                }
                self.set_add("bos", is(&n.bos, f) || is(&n.cls, f), true);
            }
            last = special_id(single.last());
            if let Some(l) = last {
                if !n.configured() {
                    n.eos = l.into();
                } else if !is(&n.eos, l) {
                    if let Some(&kind) = ["eot", "eom"].iter().find(|k| !n.kinds.contains(k)) {
                        n.kinds.push(kind);
                        let old = n.eos.clone();
                        n.amend(&format!("{kind}_token"), old);
                    }
                    n.eos = l.into();
                    n.amend("eos_token", l.into());
                }
                self.set_add("eos", is(&n.eos, l), true);
            }
        }
        // [first] A [sep] [eos] B [last]: what stands between A and B.
        let start = usize::from(first.is_some() && special_id(pair.first()) == first);
        let stop =
            pair.len() - usize::from(last.is_some() && !pair.is_empty() && special_id(pair.last()) == last);
        let Some(inner) = pair.get(start..stop).filter(|i| !i.is_empty()) else { return };
        if sequence_id(inner.first()) != Some("A")
            || sequence_id(inner.last()) != Some("B")
            || inner.len() < 3
        {
            return;
        }
        let between = &inner[1..inner.len() - 1];
        let separates =
            |step: Option<&Json>| special_id(step).is_some_and(|t| is(&n.sep, t) || is(&n.eos, t));
        let add_sep =
            separates(between.first()) && last.is_none() || between.len() == 2 && separates(between.get(1));
        self.set_add("sep", add_sep, true);
        if add_sep && !truthy(&n.sep) && n.configured() {
            let eos = n.eos.clone();
            n.amend("sep_token", eos);
        }
    }

    fn configured(
        &mut self,
        kind: &'static str,
        config: &Map<String, Json>,
        files: &Files,
        notes: &mut Vec<String>,
    ) {
        if let Some(on) = config.get(&format!("add_{kind}_token")).and_then(Json::as_bool) {
            if let Some((_, was)) = self.add.iter().find(|(k, v)| *k == kind && *v != on) {
                notes.push(format!(
                    "add_{kind}_token is {on}, but tokenizer.json's post-processor says {was}: the latter is taken"
                ));
            }
            self.set_add(kind, on, false);
        }
        let entry = config.get(&format!("{kind}_token"));
        let Some(text) = entry.and_then(|e| e.as_str().or_else(|| e.get("content")?.as_str())) else {
            return;
        };
        let added = files.tokenizer_json.as_ref().map_or(&[][..], |t| t.added_tokens());
        let found = added.iter().find(|t| t.get("content").and_then(Json::as_str) == Some(text));
        if let Some(id) = found.and_then(|t| t.get("id")?.as_u64()) {
            self.set_id(kind, id, notes);
        }
    }

    /// Writes the keys in the peer's order.
    pub fn write(&self, m: &mut Metadata) {
        for (kind, id) in &self.ids {
            if let Some(key) = id_key(kind) {
                m.set(key, *id as u32);
            }
        }
        for (kind, on) in &self.add {
            if let Some(key) = add_key(kind) {
                m.set(key, *on);
            }
        }
        if let Some(t) = &self.chat_template {
            chat::write(t, m);
        }
        if let Some(b) = self.lowercase {
            m.set("tokenizer.ggml.normalizer.lowercase", b);
        }
        if let Some(b) = self.strip_accents {
            m.set("tokenizer.ggml.normalizer.strip_accents", b);
        }
    }
}
