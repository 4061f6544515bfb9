//! What an architecture demands of its vocabulary, as plain data for the crate that reads tokenizers.

use crate::Config;
use tensormill_model::{Assets, Error, Metadata, Result};

/// One way of reading a tokenizer, named after what the peer's converter does.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum VocabForm {
    /// tokenizer.model read as SentencePiece (`_set_vocab_sentencepiece`).
    SentencePiece,
    /// tokenizer.json with byte fallback, written as a `llama` vocabulary (`_set_vocab_llama_hf`).
    LlamaHf,
    /// Byte-level BPE from tokenizer.json (`_set_vocab_gpt2`).
    Gpt2,
    /// tokenizer.model with Phi-3's own treatment of added tokens (`Phi3MiniModel.set_vocab`).
    Phi3SentencePiece,
    /// The tokens of whatever tokenizer.json or vocab.txt holds, usually WordPiece, with continuation marks
    /// (`##`) turned into marks of beginnings (`BertModel.set_vocab`).
    WordPiece,
    /// tekken.json (`_set_vocab_mistral`).
    Tekken,
}

/// How the vocabulary is to be read, and what the architecture writes around it.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct VocabPolicy {
    /// Forms to try in order: the next one only where the files of the one before are not there.
    pub attempts: Vec<VocabForm>,
    /// Number of tokens that the config demands; shorter vocabularies are padded to it. `None` when the
    /// config does not say.
    pub vocab_size: Option<u64>,
    /// Keys written before the vocabulary's own.
    pub before: Metadata,
    /// Keys written after the vocabulary's own; one that exists already is set in place.
    pub after: Metadata,
}

impl VocabPolicy {
    /// The forms to try, with the config's vocabulary size and no further keys.
    ///
    /// # Errors
    /// When the config's `vocab_size` is no size.
    pub(crate) fn new(attempts: &[VocabForm], config: &Config) -> Result<Self> {
        Ok(Self {
            attempts: attempts.to_vec(),
            vocab_size: config.find_u64(&["vocab_size"])?,
            ..Self::default()
        })
    }
}

/// Whether there is a side file of this name.
pub(crate) fn has(assets: &dyn Assets, name: &str) -> bool {
    assets.list().iter().any(|n| n == name)
}

/// A side file parsed as JSON, or `None` when there is none.
pub(crate) fn json(assets: &dyn Assets, name: &str) -> Result<Option<serde_json::Value>> {
    let Some(bytes) = assets.read(name)? else { return Ok(None) };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|e| Error::malformed(format!("not valid JSON: {e}")).file(name))
}
