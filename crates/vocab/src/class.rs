//! Which of transformers' tokenizer classes loads a folder: the choice `AutoTokenizer` makes.
//!
//! `data/tokenizer_classes.tsv` (extracted by `data/extract.py`) has the class registered for each `model_type`, and
//! marks the types whose repositories are known to declare a wrong one.
//!
//! Must not know how a class builds its tokenizer (`hf`).

use crate::files::Files;
use serde_json::Value as Json;

const CLASSES: &str = include_str!("../data/tokenizer_classes.tsv");

/// Which of transformers' classes loads the folder.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// Everything as in `tokenizer.json`.
    AsFile,
    /// `LlamaTokenizer`: Metaspace, byte fallback, no normalizer.
    Llama,
    /// `GemmaTokenizer`: spaces become U+2581 in the normalizer, byte fallback.
    Gemma,
    /// `Qwen2Tokenizer`: NFC, its own split pattern, byte level.
    Qwen2,
    /// `GPT2Tokenizer`: byte level with GPT-2's pattern, no normalizer.
    Gpt2,
    /// `BertTokenizer`: its normalizer is built from the switches of `tokenizer_config.json`.
    Bert,
}

impl Class {
    fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "LlamaTokenizer" => Self::Llama,
            "GemmaTokenizer" => Self::Gemma,
            "Qwen2Tokenizer" => Self::Qwen2,
            "GPT2Tokenizer" => Self::Gpt2,
            "BertTokenizer" => Self::Bert,
            _ => return None,
        })
    }

    /// Named tokens a class assumes where the folder says nothing.
    pub fn defaults(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::AsFile => &[],
            Self::Llama => &[("unk_token", "<unk>"), ("bos_token", "<s>"), ("eos_token", "</s>")],
            Self::Gemma => &[
                ("unk_token", "<unk>"),
                ("bos_token", "<bos>"),
                ("eos_token", "<eos>"),
                ("pad_token", "<pad>"),
                ("mask_token", "<mask>"),
            ],
            Self::Qwen2 => &[
                ("unk_token", "<|endoftext|>"),
                ("eos_token", "<|endoftext|>"),
                ("pad_token", "<|endoftext|>"),
            ],
            Self::Gpt2 => &[
                ("unk_token", "<|endoftext|>"),
                ("bos_token", "<|endoftext|>"),
                ("eos_token", "<|endoftext|>"),
            ],
            Self::Bert => &[
                ("unk_token", "[UNK]"),
                ("sep_token", "[SEP]"),
                ("pad_token", "[PAD]"),
                ("cls_token", "[CLS]"),
                ("mask_token", "[MASK]"),
            ],
        }
    }
}

/// The class for this folder, and a note where it is one that is not rebuilt here.
pub fn resolve_class(files: &Files, byte_level: bool) -> (Class, Option<String>) {
    fn base(name: &str) -> &str {
        name.strip_suffix("Fast").unwrap_or(name)
    }
    let generic = |n: &str| matches!(n, "TokenizersBackend" | "PythonBackend" | "PreTrainedTokenizer");
    let model_type = files.config.get("model_type").and_then(Json::as_str);
    let hub = files
        .setting("tokenizer_class")
        .and_then(Json::as_str)
        .or_else(|| files.config.get("tokenizer_class").and_then(Json::as_str))
        .map(base);
    let row = model_type.and_then(|t| {
        CLASSES.lines().find_map(|l| {
            let mut f = l.split('\t');
            (f.next() == Some(t)).then(|| (f.next().unwrap_or(""), f.next() == Some("override")))
        })
    });
    let (registered, distrusted) = row.map_or((None, false), |(c, o)| (Some(base(c)), o));
    let name = match (hub, registered) {
        (Some("LlamaTokenizer"), _) if byte_level && !distrusted => return (Class::AsFile, None),
        (Some(h), Some(r)) if h != r => match (generic(r), distrusted) {
            (true, _) => return (Class::AsFile, None),
            (false, true) => r,
            (false, false) => h,
        },
        (Some(h), _) => h,
        (None, Some(r)) => r,
        (None, None) => return (Class::AsFile, None),
    };
    match Class::from_name(name) {
        Some(c) => (c, None),
        None if generic(name) => (Class::AsFile, None),
        None => {
            (Class::AsFile, Some(format!("tokenizer class {name} is read as tokenizer.json describes it")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use tensormill_model::MemoryAssets;

    fn class(model_type: &str, declared: Option<&str>, byte_level: bool) -> Class {
        let mut assets = MemoryAssets::default();
        if let Some(d) = declared {
            let config = serde_json::to_vec(&json!({"tokenizer_class": d})).unwrap();
            assets.files.insert("tokenizer_config.json".to_owned(), config);
        }
        resolve_class(&Files::read(&assets, &json!({"model_type": model_type})).unwrap(), byte_level).0
    }

    #[test]
    fn the_choice_of_auto_tokenizer() {
        use Class::{AsFile, Bert, Gemma, Gpt2, Llama, Qwen2};
        let cases = [
            ("llama", Some("PreTrainedTokenizerFast"), true, AsFile),
            ("llama", Some("LlamaTokenizerFast"), false, Llama),
            ("llama", Some("LlamaTokenizer"), true, AsFile),
            ("llama", None, true, AsFile),
            ("mistral", Some("LlamaTokenizer"), false, AsFile),
            ("qwen2", Some("PreTrainedTokenizerFast"), true, Qwen2),
            ("qwen3", Some("PreTrainedTokenizerFast"), true, AsFile),
            ("qwen3", None, true, Qwen2),
            ("qwen3_moe", Some("Qwen2Tokenizer"), true, Qwen2),
            ("gemma3_text", Some("GemmaTokenizerFast"), false, Gemma),
            ("phi3", Some("GPT2Tokenizer"), true, AsFile),
            ("phi3", Some("LlamaTokenizer"), false, AsFile),
            ("bert", Some("BertTokenizer"), false, Bert),
            ("bert", None, false, Bert),
            ("llama", Some("GPT2Tokenizer"), true, Gpt2),
            ("no-such-model", Some("TheirOwnTokenizer"), true, AsFile),
        ];
        for (model_type, declared, byte_level, want) in cases {
            assert_eq!(class(model_type, declared, byte_level), want, "{model_type} {declared:?}");
        }
    }
}
