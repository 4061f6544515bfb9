//! Every folder of golden/vocab gives the keys that the peer wrote for it: order, types and values.

use serde_json::{Value as Json, json};
use sha2::{Digest, Sha256};
use std::{fs, path::PathBuf};
use tensormill_model::{Array, ErrorKind, MemoryAssets, Value};
use tensormill_vocab::{Attempt, Tweaks, VocabRequest, tokenizer_metadata};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../golden/vocab")
}

fn assets(case: &str) -> MemoryAssets {
    let files = fs::read_dir(root().join(case)).unwrap().map(|e| {
        let e = e.unwrap();
        (e.file_name().into_string().unwrap(), fs::read(e.path()).unwrap())
    });
    MemoryAssets { name: case.to_owned(), files: files.collect() }
}

fn attempt(name: &Json) -> Attempt {
    match name.as_str().unwrap() {
        "SentencePiece" => Attempt::SentencePiece,
        "Phi3" => Attempt::Phi3,
        "LlamaHf" => Attempt::LlamaHf,
        "Gpt2" => Attempt::Gpt2,
        "WordPiece" => Attempt::WordPiece,
        other => panic!("{other}"),
    }
}

/// A value as the generator prints it.
fn printed(v: &Value) -> (String, Json) {
    let Value::Array(a) = v else {
        let j = match v {
            Value::U32(x) => json!(x),
            Value::Bool(x) => json!(x),
            Value::Str(x) => json!(x),
            other => panic!("no tokenizer key has this type: {other:?}"),
        };
        return (v.value_type().0.to_owned(), j);
    };
    let mut h = Sha256::new();
    let mut head = Vec::new();
    match a {
        Array::Str(l) => l.iter().enumerate().for_each(|(i, s)| {
            h.update((s.len() as u64).to_le_bytes());
            h.update(s.as_bytes());
            if i < 8 {
                head.push(json!(s));
            }
        }),
        Array::I32(l) => l.iter().enumerate().for_each(|(i, x)| {
            h.update(x.to_le_bytes());
            if i < 8 {
                head.push(json!(x));
            }
        }),
        Array::F32(l) => l.iter().enumerate().for_each(|(i, x)| {
            h.update(x.to_le_bytes());
            if i < 8 {
                head.push(json!(f64::from(*x)));
            }
        }),
        other => panic!("no tokenizer key has this type: {other:?}"),
    }
    let sha: String = h
        .finalize()
        .iter()
        .flat_map(|b| [b >> 4, b & 15])
        .map(|d| char::from_digit(d.into(), 16).unwrap())
        .collect();
    (format!("[{}]", a.element_type().0), json!({"len": a.len(), "sha256": sha, "head": head}))
}

fn check(case: &str) {
    let expected: Json =
        serde_json::from_slice(&fs::read(root().join(format!("{case}.json"))).unwrap()).unwrap();
    let assets = assets(case);
    let config: Json = serde_json::from_slice(&assets.files["config.json"]).unwrap();
    let kinds: Vec<Attempt> = expected["kinds"].as_array().unwrap().iter().map(attempt).collect();
    let mut req = VocabRequest {
        assets: &assets,
        kinds: &kinds,
        vocab_size: config["vocab_size"].as_u64(),
        pre: None,
        tweaks: Tweaks { infill_end: expected["infill_end"].as_u64().map(|id| id as u32) },
        config: &config,
    };
    if let Some(hash) = expected["check_hash"].as_str() {
        // No tiny vocabulary is in the table: the error carries the digest of the ids, which must be the peer's.
        let e = tokenizer_metadata(&req).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Unsupported, "{case}");
        assert!(e.message().contains(hash), "{case}: {e}\nthe peer has {hash}");
        assert!(
            e.hint_text().unwrap().contains("--pre NAME") && e.hint_text().unwrap().contains("llama-bpe")
        );
        req.pre = expected["pre"].as_str();
    }
    let vocab = tokenizer_metadata(&req).unwrap();
    let got: Vec<Json> = vocab
        .metadata
        .iter()
        .map(|(k, v)| {
            let (kind, value) = printed(v);
            json!([k, kind, value])
        })
        .collect();
    let want = expected["keys"].as_array().unwrap();
    for (g, w) in got.iter().zip(want) {
        assert_eq!(g, w, "{case}");
    }
    assert_eq!(got.len(), want.len(), "{case}");
    assert_eq!(vocab.tokens, config["vocab_size"].as_u64().unwrap() as usize, "{case}");
    assert_eq!(vocab.metadata.str("tokenizer.ggml.model"), Some(vocab.model));
    assert_eq!(vocab.metadata.str("tokenizer.ggml.pre"), vocab.pre.as_deref());
}

macro_rules! cases {
    ($($test:ident $case:literal;)*) => {
        $(#[test] fn $test() { check($case); })*
        #[test]
        fn every_folder_has_its_test() {
            let mut tested = vec![$($case),*];
            tested.sort_unstable();
            let mut there: Vec<String> = fs::read_dir(root()).unwrap().map(|e| e.unwrap())
                .filter(|e| e.path().is_dir()).map(|e| e.file_name().into_string().unwrap()).collect();
            there.sort_unstable();
            assert_eq!(there, tested);
        }
    };
}

cases! {
    bpe_llama3 "bpe-llama3";
    bpe_llama_declared "bpe-llama-declared";
    bpe_qwen2 "bpe-qwen2";
    bpe_gpt2 "bpe-gpt2";
    bpe_gemma3 "bpe-gemma3";
    spm_llama "spm-llama";
    spm_codellama "spm-codellama";
    spm_phi3 "spm-phi3";
    spm_gemma2 "spm-gemma2";
    llama_hf "llama-hf";
    wordpiece_uncased "wordpiece-uncased";
    wordpiece_cased "wordpiece-cased";
}
