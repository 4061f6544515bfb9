//! Files beside weights, and files that people write.

use super::{assets, expected};
use std::{path::Path, sync::Arc};
use tensormill_card::{ParamCounts, check::check, document::Card, gather::gather, general_metadata};
use tensormill_model::{Index, Model};
use tensormill_vocab::{Attempt, Tweaks, VocabRequest};

/// Which files an input of [`tokenizer`] is, by its first byte; a NUL stands between the two.
pub const TOKENIZERS: &[(&str, &str)] = &[
    ("tokenizer.model", ""),
    ("tokenizer.json", "tokenizer_config.json"),
    ("tokenizer.json", "special_tokens_map.json"),
    ("tokenizer.json", "added_tokens.json"),
    ("tokenizer.json", "vocab.txt"),
];

/// Tokenizers: into GGUF metadata, and from there back into files.
pub fn tokenizer(data: &[u8]) {
    const KINDS: &[&[Attempt]] =
        &[&[Attempt::SentencePiece, Attempt::LlamaHf, Attempt::Gpt2], &[Attempt::WordPiece]];
    let Some((&kind, data)) = data.split_first() else { return };
    let (first, second) = TOKENIZERS[usize::from(kind) % TOKENIZERS.len()];
    let cut = data.iter().position(|b| *b == 0).filter(|_| !second.is_empty());
    let mut files = vec![(first, &data[..cut.unwrap_or(data.len())])];
    files.extend(cut.map(|n| (second, &data[n + 1..])));
    let assets = assets(&files);
    for kinds in KINDS {
        let found = tensormill_vocab::tokenizer_metadata(&VocabRequest {
            assets: &assets,
            kinds,
            vocab_size: None,
            pre: Some("gpt-2"),
            tweaks: Tweaks::default(),
            config: &serde_json::json!({"vocab_size": 512}),
        });
        match found {
            Ok(vocab) => {
                let _ = tensormill_vocab::tokenizer_files(&vocab.metadata).map_err(|e| expected(&e));
            }
            Err(e) => expected(&e),
        }
    }
}

/// Config and model card, both from the same bytes: JSON is nearly YAML.
pub fn side_files(data: &[u8]) {
    let files = assets(&[("config.json", data), ("README.md", data), ("generation_config.json", data)]);
    match tensormill_arch::Config::read(&files) {
        Ok(config) => {
            if let Ok(arch) = tensormill_arch::for_config(&config).map_err(|e| expected(&e)) {
                let empty = Model::from_index(&Index::default(), 0, Arc::new(files.clone()));
                let _ = arch.rewrite(empty, &config, 0).map_err(|e| expected(&e));
            }
        }
        Err(e) => expected(&e),
    }
    for files in [files, assets(&[("README.md", data)])] {
        let _ = general_metadata(&files, ParamCounts::default()).map_err(|e| expected(&e));
        let _ = gather(&files).map_err(|e| expected(&e));
    }
    check(data);
    let Some(card) = std::str::from_utf8(data).ok().and_then(|t| Card::parse(t).ok()) else { return };
    for text in [card.text(), card.restyled().text()] {
        let again = Card::parse(&text).unwrap_or_else(|p| panic!("{p:?}"));
        let same =
            again.fields.iter().zip(&card.fields).all(|(a, b)| a.key.same(&b.key) && a.value.same(&b.value));
        assert!(same && again.fields.len() == card.fields.len(), "{text}");
    }
}

/// Release files.
pub fn release(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = tensormill_core::release::parse(text, Path::new("/folder")).map_err(|e| expected(&e));
    }
}
