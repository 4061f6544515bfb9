//! A Hugging Face model in GGUF form: tensors by its architecture, then all metadata in the peer's order.

use serde_json::Value as Json;
use tensormill_arch::{Config, VocabForm, for_config};
use tensormill_card::{ParamCounts, general};
use tensormill_model::{Error, Metadata, Model, Result};
use tensormill_vocab::{Attempt, Tweaks, VocabRequest, tokenizer_metadata};

/// `GGML_QUANT_VERSION`: the version of the block layouts, in every file the converter writes.
pub(crate) const QUANTIZATION_VERSION: u32 = 2;

/// What the caller decides.
pub struct HfOptions<'a> {
    /// `general.file_type`.
    pub file_type: u32,
    /// Name of the pre-tokenizer, instead of the one that is recognised.
    pub pre: Option<&'a str>,
}

/// Rewrites tensors and writes metadata. Gives the names of source tensors that have no place there, too.
///
/// # Errors
/// Unknown architectures or tokenizers, and side files that contradict each other.
pub fn to_gguf_form(
    model: Model,
    options: &HfOptions<'_>,
    notes: &mut Vec<String>,
) -> Result<(Model, Vec<String>)> {
    let config = Config::read(&*model.assets)?;
    let arch = for_config(&config)?;
    let rewritten = arch.rewrite(model, &config, options.file_type)?;
    let mut model = rewritten.model;
    let assets = std::sync::Arc::clone(&model.assets);
    if !rewritten.dropped.is_empty() {
        notes.push(format!("not part of the GGUF form: {}", abridged(&rewritten.dropped)));
    }

    let general = general(&*assets, ParamCounts::of(&model), &[])?;
    notes.extend(general.warnings);

    let policy = rewritten.vocab;
    let kinds: Vec<Attempt> = policy.attempts.iter().filter_map(|f| attempt(*f)).collect();
    if kinds.is_empty() {
        return Err(Error::unsupported("this tokenizer format is not read yet")
            .file("tekken.json")
            .hint("add the tokenizer.json of the Hugging Face version of this model"));
    }
    let raw: Json = match assets.read("config.json")? {
        Some(bytes) => serde_json::from_slice(&bytes)
            .map_err(|e| Error::malformed(format!("not valid JSON: {e}")).file("config.json"))?,
        None => Json::Null,
    };
    let vocab = tokenizer_metadata(&VocabRequest {
        assets: &*assets,
        kinds: &kinds,
        vocab_size: policy.vocab_size,
        pre: options.pre,
        tweaks: Tweaks::default(),
        config: &raw,
    })?;
    notes.extend(vocab.notes);

    let mut metadata = Metadata::new();
    metadata.set("general.architecture", arch.gguf_name());
    metadata.extend(rewritten.early);
    metadata.extend(general.metadata);
    metadata.extend(rewritten.hyper);
    metadata.set("general.quantization_version", QUANTIZATION_VERSION);
    metadata.extend(policy.before);
    metadata.extend(vocab.metadata);
    metadata.extend(policy.after);
    model.metadata = metadata;
    Ok((model, rewritten.dropped))
}

/// The tensors alone in GGUF form: for comparing weights, where no tokenizer is needed.
///
/// # Errors
/// As [`to_gguf_form`], less the tokenizer's.
pub fn tensors_in_gguf_form(model: Model) -> Result<Model> {
    let config = Config::read(&*model.assets)?;
    Ok(for_config(&config)?.rewrite(model, &config, 0)?.model)
}

fn attempt(form: VocabForm) -> Option<Attempt> {
    match form {
        VocabForm::SentencePiece => Some(Attempt::SentencePiece),
        VocabForm::LlamaHf => Some(Attempt::LlamaHf),
        VocabForm::Gpt2 => Some(Attempt::Gpt2),
        VocabForm::Phi3SentencePiece => Some(Attempt::Phi3),
        VocabForm::WordPiece => Some(Attempt::WordPiece),
        _ => None,
    }
}

pub(crate) fn abridged(names: &[String]) -> String {
    const SHOWN: usize = 5;
    let head = names.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN { format!("{head} and {} more", names.len() - SHOWN) } else { head }
}
