//! Broken and hostile tokenizer files: a clear error that names the file, and never a large allocation.

use serde_json::{Value as Json, json};
use tensormill_model::{Array, Error, ErrorKind, MemoryAssets};
use tensormill_vocab::{Attempt, MAX_TOKENS, Tweaks, Vocab, VocabRequest, pre_names, tokenizer_metadata};

const ALL: &[Attempt] = &[Attempt::SentencePiece, Attempt::LlamaHf, Attempt::Gpt2];

fn read(files: &[(&str, Vec<u8>)], config: &Json, pre: Option<&str>) -> Result<Vocab, Error> {
    let files = files.iter().map(|(n, b)| ((*n).to_owned(), b.clone())).collect();
    let assets = MemoryAssets { name: "x".into(), files };
    tokenizer_metadata(&VocabRequest {
        assets: &assets,
        kinds: ALL,
        vocab_size: config.get("vocab_size").and_then(Json::as_u64),
        pre,
        tweaks: Tweaks::default(),
        config,
    })
}

fn fails(files: &[(&str, Vec<u8>)], config: &Json, kind: ErrorKind, file: &str, says: &str) {
    let e = read(files, config, Some("gpt-2")).unwrap_err();
    assert_eq!(e.kind(), kind, "{e}");
    assert_eq!(e.file_name(), Some(file), "{e}");
    assert!(e.message().contains(says), "{e} does not say {says:?}");
}

fn bytes(v: &Json) -> Vec<u8> {
    serde_json::to_vec(v).unwrap()
}

/// A byte-level BPE of three letters.
fn bpe() -> Json {
    json!({
        "added_tokens": [{"id": 4, "content": "<|end|>", "special": true, "normalized": false,
                          "lstrip": false, "rstrip": false, "single_word": false}],
        "normalizer": null,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "post_processor": null,
        "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "c": 2, "ab": 3}, "merges": [["a", "b"]]}
    })
}

fn with(change: impl FnOnce(&mut Json)) -> Vec<u8> {
    let mut t = bpe();
    change(&mut t);
    bytes(&t)
}

/// One SentencePiece piece as protobuf.
fn piece(text: &[u8], kind: u8) -> Vec<u8> {
    let mut m = vec![0x0a, text.len() as u8];
    m.extend(text);
    m.push(0x15);
    m.extend((-1.5f32).to_le_bytes());
    m.extend([0x18, kind]);
    let mut out = vec![0x0a, m.len() as u8];
    out.extend(m);
    out
}

fn spm() -> Vec<u8> {
    [piece(b"<unk>", 2), piece(b"<s>", 3), piece("\u{2581}a".as_bytes(), 1), piece(b"u", 4)].concat()
}

#[test]
fn the_unbroken_files_read() {
    let v = read(&[("tokenizer.json", bytes(&bpe()))], &json!({"vocab_size": 7}), Some("gpt-2")).unwrap();
    let want = ["a", "b", "c", "ab", "<|end|>", "[PAD5]", "[PAD6]"].map(str::to_owned);
    assert_eq!(v.metadata.get("tokenizer.ggml.tokens").unwrap().as_array(), Some(&Array::Str(want.to_vec())));
    let types = Array::I32(vec![1, 1, 1, 1, 3, 5, 5]);
    assert_eq!(v.metadata.get("tokenizer.ggml.token_type").unwrap().as_array(), Some(&types));
    let v = read(&[("tokenizer.model", spm())], &json!({}), None).unwrap();
    assert_eq!((v.tokens, v.model, v.pre.as_deref()), (4, "llama", Some("default")));
    let scores = Array::F32(vec![-1.5; 4]);
    assert_eq!(v.metadata.get("tokenizer.ggml.scores").unwrap().as_array(), Some(&scores));
    let types = Array::I32(vec![2, 3, 1, 1]);
    assert_eq!(v.metadata.get("tokenizer.ggml.token_type").unwrap().as_array(), Some(&types));
}

#[test]
fn every_truncation_of_a_sentencepiece_model_is_an_error_or_whole_pieces() {
    let whole = spm();
    let bounds: Vec<usize> = (1..=4)
        .map(|n| {
            [piece(b"<unk>", 2), piece(b"<s>", 3), piece("\u{2581}a".as_bytes(), 1), piece(b"u", 4)][..n]
                .concat()
                .len()
        })
        .collect();
    for n in 0..whole.len() {
        let r = read(&[("tokenizer.model", whole[..n].to_vec())], &json!({}), None);
        if bounds.contains(&n) {
            assert!(r.is_ok());
        } else {
            let e = r.unwrap_err();
            assert_eq!(
                (e.kind(), e.file_name()),
                (ErrorKind::Malformed, Some("tokenizer.model")),
                "{n}: {e}"
            );
        }
    }
}

#[test]
fn sentencepiece_models_are_checked() {
    let m = |parts: &[Vec<u8>]| [("tokenizer.model", parts.concat())];
    let unk = piece(b"<unk>", 2);
    let bad = ErrorKind::Malformed;
    let file = "tokenizer.model";
    fails(&m(&[unk.clone(), piece(b"a", 1), piece(b"a", 1)]), &json!({}), bad, file, "\"a\" occurs twice");
    fails(&m(&[unk.clone(), piece(b"", 1)]), &json!({}), bad, file, "piece 1 is empty");
    fails(&m(&[unk.clone(), piece(&[0xff], 1)]), &json!({}), bad, file, "not UTF-8");
    fails(&m(&[unk.clone(), piece(b"a", 2)]), &json!({}), bad, file, "2 unknown tokens");
    fails(&m(&[unk.clone(), piece(b"a", 9)]), &json!({}), bad, file, "unknown type 9");
    fails(&m(&[unk.clone(), piece(b"<0x00>", 6)]), &json!({}), bad, file, "1 byte pieces");
    fails(
        &m(&[vec![0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]]),
        &json!({}),
        bad,
        file,
        "past the end",
    );
    fails(&m(&[vec![0xff; 16]]), &json!({}), bad, file, "64 bits");
    fails(
        &m(&[b"version https://git-lfs.github.com/spec/v1\n".to_vec()]),
        &json!({}),
        bad,
        file,
        "not a SentencePiece",
    );
}

#[test]
fn added_tokens_beside_a_sentencepiece_model_are_checked() {
    let m = ("tokenizer.model", spm());
    let bad = ErrorKind::Malformed;
    for id in [json!("3"), json!(-1), json!(1.5), json!(u64::MAX)] {
        fails(
            &[m.clone(), ("added_tokens.json", bytes(&json!({"x": id})))],
            &json!({}),
            bad,
            "added_tokens.json",
            "\"x\"",
        );
    }
    let config = |v: Json| ("tokenizer_config.json", bytes(&json!({"added_tokens_decoder": v})));
    fails(&[m.clone(), config(json!([]))], &json!({}), bad, "tokenizer_config.json", "not an object");
    fails(
        &[m.clone(), config(json!({"q": {"content": "x"}}))],
        &json!({}),
        bad,
        "tokenizer_config.json",
        "\"x\"",
    );
    fails(&[m.clone(), config(json!({"1": {}}))], &json!({}), bad, "tokenizer_config.json", "no content");
    let v = read(&[m, config(json!({"99": {"content": "far"}}))], &json!({}), None).unwrap();
    assert!(v.notes.iter().any(|n| n.contains("far") && n.contains("99")));
}

#[test]
fn tokenizer_json_is_checked() {
    let bad = ErrorKind::Malformed;
    let file = "tokenizer.json";
    let whole = bytes(&bpe());
    for n in [0, 1, whole.len() / 2, whole.len() - 1] {
        fails(&[(file, whole[..n].to_vec())], &json!({}), bad, file, "not a tokenizer file");
    }
    let t =
        |change: &dyn Fn(&mut Json), says: &str| fails(&[(file, with(change))], &json!({}), bad, file, says);
    t(&|t| t["model"]["vocab"]["b"] = json!(0), "both have id 0");
    t(&|t| t["model"]["vocab"]["b"] = json!(4_000_000_000_u32), "ids must be below");
    t(&|t| t["model"]["vocab"]["b"] = json!(-1), "invalid value");
    t(&|t| t["model"]["vocab"]["b"] = json!("1"), "invalid type");
    t(&|t| t["model"]["vocab"] = json!(7), "a vocabulary");
    t(&|t| t["model"]["merges"] = json!([["a"]]), "two parts");
    t(&|t| t["model"]["merges"] = json!(["a b c"]), "one space");
    t(&|t| t["model"]["merges"] = json!([["a", "z"]]), "merges and vocabulary disagree");
    t(&|t| t["pre_tokenizer"] = json!({"type": "Nonsense"}), "pre_tokenizer");
    let split = json!({"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated", "invert": false});
    t(&|t| t["pre_tokenizer"] = split.clone(), "pre_tokenizer");
    t(&|t| t["added_tokens"] = json!({"a": 1}), "added_tokens");
    t(&|t| t["added_tokens"] = json!([{"id": MAX_TOKENS, "content": "x"}]), "added_tokens");
    t(&|t| t["added_tokens"] = json!([{"content": "x"}]), "added_tokens");
    t(&|t| t["model"]["merges"] = json!([["ab", "ab"]]), "needs the token \"abab\"");
    t(&|t| t["model"]["continuing_subword_prefix"] = json!("##"), "merges and vocabulary disagree");
    let template = json!({"type": "TemplateProcessing", "pair": [], "special_tokens": {},
        "single": [{"SpecialToken": {"id": "X", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]});
    t(&|t| t["post_processor"] = template.clone(), "names \"X\" without an id");
    t(&|t| t["normalizer"] = json!({"type": "Precompiled", "precompiled_charsmap": "AAAA"}), "normalizer");
    let double = json!({"type": "Replace", "pattern": {"String": "a"}, "content": "aa"});
    let bomb = with(|t| t["normalizer"] = json!({"type": "Sequence", "normalizers": vec![double; 60]}));
    fails(&[(file, bomb)], &json!({}), ErrorKind::OverLimit, file, "2^60");
    fails(&[(file, b"{\"model\": \xff}".to_vec())], &json!({}), bad, file, "UTF-8");
    fails(&[(file, vec![b'['; 100_000])], &json!({}), bad, file, "not a tokenizer file");
    let unigram = with(|t| t["model"] = json!({"type": "Unigram", "vocab": [["a", -1.0]]}));
    fails(&[(file, unigram)], &json!({}), ErrorKind::Unsupported, file, "Unigram");
}

#[test]
fn vocabulary_sizes_are_checked() {
    let t = ("tokenizer.json", bytes(&bpe()));
    fails(
        std::slice::from_ref(&t),
        &json!({"vocab_size": 4}),
        ErrorKind::Mismatch,
        "tokenizer.json",
        "vocab_size is 4",
    );
    fails(&[t], &json!({"vocab_size": u64::MAX}), ErrorKind::OverLimit, "config.json", "tokens are taken");
    fails(
        &[("tokenizer.model", spm())],
        &json!({"vocab_size": 1_u64 << 40}),
        ErrorKind::OverLimit,
        "config.json",
        "tokens",
    );
    let v = read(&[("tokenizer.model", spm())], &json!({"vocab_size": 3}), None).unwrap();
    assert_eq!(v.tokens, 3);
    assert!(v.notes.iter().any(|n| n.contains("1 pieces past vocab_size 3")));
}

#[test]
fn side_files_are_checked() {
    let t = ("tokenizer.json", bytes(&bpe()));
    for name in
        ["tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.json"]
    {
        fails(&[t.clone(), (name, b"{".to_vec())], &json!({}), ErrorKind::Malformed, name, "not valid JSON");
        fails(&[t.clone(), (name, b"[]".to_vec())], &json!({}), ErrorKind::Malformed, name, "a JSON object");
    }
    fails(
        &[t, ("chat_template.jinja", vec![0xff])],
        &json!({}),
        ErrorKind::Malformed,
        "chat_template.jinja",
        "UTF-8",
    );
}

#[test]
fn no_tokenizer_says_what_to_bring() {
    let e = read(&[], &json!({}), None).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Unsupported);
    assert!(e.message().contains("tokenizer.model") && e.hint_text().unwrap().contains("tokenizer.json"));
}

#[test]
fn pre_tokenizer_names() {
    let t = [("tokenizer.json", bytes(&bpe()))];
    let e = read(&t, &json!({}), None).unwrap_err();
    assert_eq!((e.kind(), e.file_name()), (ErrorKind::Unsupported, Some("tokenizer.json")));
    assert!(e.hint_text().unwrap().contains("--pre NAME"));
    let e = read(&t, &json!({}), Some("llama-bpee")).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Usage);
    for name in pre_names() {
        assert_eq!(read(&t, &json!({}), Some(name)).unwrap().metadata.str("tokenizer.ggml.pre"), Some(name));
    }
}

#[test]
fn special_token_ids_out_of_range() {
    let m = [("tokenizer.model", spm())];
    let v = read(&m, &json!({"bos_token_id": 1, "eos_token_id": 4, "pad_token_id": -1}), None).unwrap();
    assert_eq!(v.metadata.u64("tokenizer.ggml.bos_token_id"), Some(1));
    assert_eq!(v.metadata.get("tokenizer.ggml.eos_token_id"), None);
    assert!(v.notes.iter().any(|n| n.contains("eos has id 4")));
    assert!(v.notes.iter().any(|n| n.contains("pad_token_id is -1")));
    let t = [("tokenizer.json", bytes(&bpe()))];
    let v = read(&t, &json!({"eos_token_id": 1_u64 << 33}), Some("gpt-2")).unwrap();
    assert_eq!(v.metadata.get("tokenizer.ggml.eos_token_id"), None);
}

#[test]
fn chat_templates_come_from_the_first_place_that_has_one() {
    let config = |v: Json| ("tokenizer_config.json", bytes(&v));
    let jinja = ("chat_template.jinja", b"J\r\nK".to_vec());
    let side = ("chat_template.json", bytes(&json!({"chat_template": "S"})));
    let more = ("additional_chat_templates/rag v2.jinja", b"R".to_vec());
    let plain = json!({"bos_token": "<s>"});
    let get = |files: &[(&str, Vec<u8>)]| {
        let files: Vec<_> = files.iter().cloned().chain([("tokenizer.model", spm())]).collect();
        read(&files, &json!({}), None).unwrap()
    };
    let template =
        |files: &[(&str, Vec<u8>)]| get(files).metadata.str("tokenizer.chat_template").map(str::to_owned);
    assert_eq!(template(&[config(plain.clone()), side.clone()]).as_deref(), Some("S"));
    assert_eq!(template(&[config(plain.clone()), side.clone(), jinja.clone()]).as_deref(), Some("J\nK"));
    assert_eq!(template(&[config(json!({"chat_template": "C"})), jinja.clone()]).as_deref(), Some("C"));
    assert_eq!(template(&[config(json!({"chat_template": null})), jinja.clone()]), None);
    assert_eq!(template(&[config(json!({"chat_template": ""}))]), None);
    // Without a configuration the side files are not looked at.
    assert_eq!(template(std::slice::from_ref(&jinja)), None);
    let v = get(&[config(plain), jinja, more]);
    assert_eq!(v.metadata.str("tokenizer.chat_template"), Some("J\nK"));
    assert_eq!(v.metadata.str("tokenizer.chat_template.rag_v2"), Some("R"));
    let names = Array::Str(vec!["rag_v2".to_owned()]);
    assert_eq!(v.metadata.get("tokenizer.chat_templates").unwrap().as_array(), Some(&names));
    let v = get(&[config(json!({"chat_template": 5}))]);
    assert!(v.notes.iter().any(|n| n.contains("chat_template")));
}
