//! Tokenizers: a Hugging Face tokenizer folder becomes the `tokenizer.*` metadata of a GGUF file.
//!
//! Keys, their order, value types and values are those llama.cpp's converter writes (`conversion/base.py` and
//! `gguf-py/gguf/vocab.py` of the pinned peer), so that a file made here is the same file byte for byte. Which of
//! the converter's paths applies to a model is data ([`VocabRequest::kinds`], [`Tweaks`]), decided by whoever knows
//! the architecture.
//!
//! The converter sees byte-level BPE and WordPiece vocabularies through transformers' `AutoTokenizer`, which does
//! not always load what `tokenizer.json` says: see the private module `hf` for what is rebuilt and when.
//!
//! One thing cannot be matched: with several *named* chat templates the peer writes `tokenizer.chat_templates` in
//! the order of a Python set, which changes from run to run. Here it is the order of the files.
//!
//! This crate must *not* know any file format (it makes [`Metadata`], others write it) or any architecture.

mod bpe;
mod chat;
mod class;
mod files;
mod guard;
mod hf;
mod pre;
mod restore;
mod sentencepiece;
mod special;
mod spm;
mod tokenizer_json;

use serde_json::Value as Json;
use tensormill_model::{Array, Assets, Error, Metadata, Result};

pub use pre::{check_text, pre_names};
pub use restore::{RestoredFiles, tokenizer_files};

/// Most tokens a vocabulary may have. The largest published ones have about half a million; ids and padding are
/// checked against this before memory is taken.
pub const MAX_TOKENS: u64 = 1 << 22;

/// A way to read a tokenizer folder. A request lists those to try, in order; each either applies, does not apply
/// (its files are absent or of another kind), or fails.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Attempt {
    /// `tokenizer.model`, SentencePiece: pieces, scores and types, then added tokens, padded to the vocabulary size.
    SentencePiece,
    /// `tokenizer.model` as Phi-3 reads it: added tokens also come from `tokenizer.json`, and only the files' own
    /// `special` flag makes a token a control token. Does not apply where `tokenizer_class` is `GPT2Tokenizer`.
    Phi3,
    /// `tokenizer.json` with BPE, byte fallback and a `Sequence` decoder: a SentencePiece model saved by transformers.
    LlamaHf,
    /// `tokenizer.json` with byte-level BPE.
    Gpt2,
    /// `tokenizer.json` with WordPiece; word-initial pieces get the phantom space U+2581.
    WordPiece,
}

/// What single architectures add to the common rules. Keys they merely set before or after the vocabulary's own are
/// theirs to set: [`Metadata::set`] keeps a key's first place, as the peer's dictionary does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Tweaks {
    /// Infill models (CodeLlama: 32010, CodeGemma: 107): the special tokens are read once more, for the infill kinds,
    /// and this is the end-of-turn token where the files name none.
    pub infill_end: Option<u32>,
}

/// What to read and how.
pub struct VocabRequest<'a> {
    /// The model's side files.
    pub assets: &'a dyn Assets,
    /// Ways to try, in order; the first that applies is used.
    pub kinds: &'a [Attempt],
    /// `vocab_size` of the model's configuration: the list of tokens is padded to it.
    pub vocab_size: Option<u64>,
    /// Name of the pre-tokenizer, instead of the one computed (`--pre`).
    pub pre: Option<&'a str>,
    /// What this architecture adds.
    pub tweaks: Tweaks,
    /// `config.json`, as it is.
    pub config: &'a Json,
}

/// A tokenizer as metadata.
#[derive(Clone, Debug)]
pub struct Vocab {
    /// Every `tokenizer.*` key, in the peer's order.
    pub metadata: Metadata,
    /// Number of tokens.
    pub tokens: usize,
    /// `tokenizer.ggml.model`.
    pub model: &'static str,
    /// `tokenizer.ggml.pre`.
    pub pre: Option<String>,
    /// Things a user may want to know (a value ignored, a token replaced).
    pub notes: Vec<String>,
}

/// Token types as `tokenizer.ggml.token_type` stores them (the enum of `SentencePiece`'s model, and llama.cpp's).
pub(crate) mod token_type {
    pub const NORMAL: i32 = 1;
    pub const UNKNOWN: i32 = 2;
    pub const CONTROL: i32 = 3;
    pub const USER_DEFINED: i32 = 4;
    pub const UNUSED: i32 = 5;
    pub const BYTE: i32 = 6;
}

/// What an attempt yields before the special tokens: the list itself.
pub(crate) struct Tokens {
    pub model: &'static str,
    pub pre: String,
    pub texts: Vec<String>,
    pub scores: Option<Vec<f32>>,
    pub types: Vec<i32>,
    /// Joined merges; `None` where this kind does not write them.
    pub merges: Option<Vec<String>>,
    /// Whether special token ids at or above the number of tokens are left out (the peer's `n_vocab`).
    pub bound_specials: bool,
}

/// Reads the tokenizer of a model folder.
///
/// # Errors
/// Files that contradict their format, vocabularies above [`MAX_TOKENS`] or above the model's vocabulary size, a
/// pre-tokenizer that is not in the peer's table (with its hash, and what to do), no tokenizer at all.
pub fn tokenizer_metadata(req: &VocabRequest<'_>) -> Result<Vocab> {
    let mut files = files::Files::read(req.assets, req.config)?;
    let vocab_size = match req.vocab_size.or_else(|| req.config.get("vocab_size").and_then(Json::as_u64)) {
        Some(n) if n > MAX_TOKENS => {
            return Err(Error::over_limit(format!(
                "vocab_size is {n}; at most {MAX_TOKENS} tokens are taken"
            ))
            .file("config.json"));
        }
        n => n,
    };
    if let Some(name) = req.pre
        && !pre_names().any(|n| n == name)
    {
        return Err(pre::unknown_name(name));
    }
    let mut notes = Vec::new();
    let mut found = None;
    for kind in req.kinds {
        let cx = &mut Cx { req, files: &mut files, vocab_size, notes: &mut notes };
        found = match kind {
            Attempt::SentencePiece => sentencepiece::spm_tokens(cx)?,
            Attempt::Phi3 => sentencepiece::phi3_tokens(cx)?,
            Attempt::LlamaHf => bpe::llama_hf_tokens(cx)?,
            Attempt::Gpt2 => bpe::gpt2_tokens(cx)?,
            Attempt::WordPiece => bpe::wordpiece_tokens(cx)?,
        };
        if found.is_some() {
            break;
        }
    }
    let Some(tokens) = found else {
        let tried: Vec<_> = req.kinds.iter().map(|k| k.files()).collect();
        return Err(Error::unsupported(format!(
            "no tokenizer of a kind this model uses; tried {}",
            tried.join(", ")
        ))
        .hint("put tokenizer.model or tokenizer.json beside config.json"));
    };
    Ok(assemble(req, &files, tokens, notes))
}

/// Everything an attempt may look at.
pub(crate) struct Cx<'r, 'a> {
    pub req: &'r VocabRequest<'a>,
    pub files: &'r mut files::Files,
    pub vocab_size: Option<u64>,
    pub notes: &'r mut Vec<String>,
}

impl Attempt {
    fn files(self) -> &'static str {
        match self {
            Self::SentencePiece | Self::Phi3 => "SentencePiece (tokenizer.model)",
            Self::LlamaHf => "BPE with byte fallback (tokenizer.json)",
            Self::Gpt2 => "byte-level BPE (tokenizer.json)",
            Self::WordPiece => "WordPiece (tokenizer.json)",
        }
    }
}

/// The keys in the peer's order. A key written twice keeps its first place, as in the peer's dictionary.
fn assemble(req: &VocabRequest<'_>, files: &files::Files, tokens: Tokens, mut notes: Vec<String>) -> Vocab {
    let mut m = Metadata::new();
    let count = tokens.texts.len();
    let bound = tokens.bound_specials.then_some(count as u64);
    m.set("tokenizer.ggml.model", tokens.model);
    m.set("tokenizer.ggml.pre", tokens.pre.as_str());
    m.set("tokenizer.ggml.tokens", Array::Str(tokens.texts));
    if let Some(scores) = tokens.scores {
        m.set("tokenizer.ggml.scores", Array::F32(scores));
    }
    m.set("tokenizer.ggml.token_type", Array::I32(tokens.types));
    if let Some(merges) = tokens.merges.filter(|m| !m.is_empty()) {
        m.set("tokenizer.ggml.merges", Array::Str(merges));
    }
    special::Special::load(files, bound, special::STANDARD, &mut notes).write(&mut m);
    if let Some(id) = req.tweaks.infill_end {
        let mut infill = special::Special::load(files, None, special::INFILL, &mut notes);
        infill.set_id("eot", u64::from(id), &mut notes);
        infill.write(&mut m);
    }
    Vocab { metadata: m, tokens: count, model: tokens.model, pre: Some(tokens.pre), notes }
}
