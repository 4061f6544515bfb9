//! Configurations, tokenizers and release files that lie.

use super::{Case, How};

pub(super) fn cases() -> Vec<Case> {
    let mut out = configs();
    out.extend(tokenizers());
    out.extend(releases());
    out
}

const CONFIG: &str = include_str!("../../../golden/models/tiny-llama/config.json");
const TOKENIZER: &str = include_str!("../../../golden/models/llama-f32-bias/tokenizer.json");

/// The configuration of `tiny-llama` with one key changed.
fn changed(key: &str, value: &str) -> Vec<u8> {
    let from = format!("\"{key}\": ");
    let (before, rest) = CONFIG.split_once(&from).unwrap_or((CONFIG, ""));
    let after = rest.find([',', '\n']).map_or("", |i| &rest[i..]);
    format!("{before}{from}{value}{after}").into_bytes()
}

fn configs() -> Vec<Case> {
    let new = |tries: &str, bytes: Vec<u8>| {
        Case::new("config", ".json", How::InModel("tiny-llama", "config.json"), tries, bytes)
    };
    let mut out = vec![
        new("empty", vec![]),
        new("cut off", CONFIG.as_bytes()[..100].to_vec()),
        new("a list", b"[]".to_vec()),
        new("a number", b"1".to_vec()),
        new("not UTF-8", b"{\"architectures\": [\"Llama\xff\"]}".to_vec()),
        new("30 000 brackets", "[".repeat(30_000).into_bytes()),
        new(
            "6000 objects in objects",
            format!("{{\"architectures\":{}", "{\"a\":".repeat(6000)).into_bytes(),
        ),
        new("text behind its end", format!("{CONFIG}x").into_bytes()),
        new(
            "a pointer of Git LFS",
            b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n".to_vec(),
        ),
        new("architectures that are a number", changed_list("architectures", "7")),
    ];
    for (tries, key, value) in [
        ("2^62 layers", "num_hidden_layers", "4611686018427387904"),
        ("2^40 layers", "num_hidden_layers", "1099511627776"),
        ("-1 layers", "num_hidden_layers", "-1"),
        ("layers that are a text", "num_hidden_layers", "\"1\""),
        ("2^62 words", "vocab_size", "4611686018427387904"),
        ("2^40 words", "vocab_size", "1099511627776"),
        ("two billion words", "vocab_size", "2000000000"),
        ("-1 words", "vocab_size", "-1"),
        ("no attention heads", "num_attention_heads", "0"),
        ("2^62 attention heads", "num_attention_heads", "4611686018427387904"),
        ("-4 attention heads", "num_attention_heads", "-4"),
        ("3 attention heads", "num_attention_heads", "3"),
        ("no key-value heads", "num_key_value_heads", "0"),
        ("a head of 2^62 dimensions", "head_dim", "4611686018427387904"),
        ("a hidden size of 2^62", "hidden_size", "4611686018427387904"),
        ("a hidden size of 1.5", "hidden_size", "1.5"),
        ("a context of 2^64", "max_position_embeddings", "18446744073709551616"),
        ("a rope base that is a text", "rope_theta", "\"x\""),
        ("an epsilon that is a list", "rms_norm_eps", "[]"),
    ] {
        out.push(new(tries, changed(key, value)));
    }
    let harmless = "it is written as it stands; the weights have shapes of their own";
    for (tries, key, value) in
        [("a head of no dimensions", "head_dim", "0"), ("a hidden size of 0", "hidden_size", "0")]
    {
        out.push(new(tries, changed(key, value)).exits(0, harmless));
    }
    out.push(
        new("a rope scaling that is a text", changed("rope_scaling", "\"x\""))
            .exits(0, "what is no table says nothing about scaling"),
    );
    out
}

/// The same for a key whose value is a list.
fn changed_list(key: &str, value: &str) -> Vec<u8> {
    let from = format!("\"{key}\": ");
    let (before, rest) = CONFIG.split_once(&from).unwrap_or((CONFIG, ""));
    let after = rest.find(']').map_or("", |i| &rest[i + 1..]);
    format!("{before}{from}{value}{after}").into_bytes()
}

fn tokenizers() -> Vec<Case> {
    let new = |tries: &str, bytes: Vec<u8>| {
        Case::new("tokenizer", ".json", How::InModel("llama-f32-bias", "tokenizer.json"), tries, bytes)
    };
    let with = |from: &str, to: &str| TOKENIZER.replacen(from, to, 1).into_bytes();
    vec![
        new("empty", vec![]),
        new("cut off", TOKENIZER.as_bytes()[..2000].to_vec()),
        new("a list", b"[]".to_vec()),
        new("30 000 brackets", "[".repeat(30_000).into_bytes()),
        new("1000 normalizers in normalizers", {
            let deep = format!(
                "{}null{}",
                "{\"type\":\"Sequence\",\"normalizers\":[".repeat(1000),
                "]}".repeat(1000)
            );
            with("\"normalizer\":", &format!("\"normalizer\":{deep},\"was\":"))
        }),
        new("a model of an unknown kind", with("\"type\": \"BPE\"", "\"type\": \"XPE\""))
            .exits(4, "a kind of tokenizer that is not known"),
        new("a model that is a number", with("\"model\":", "\"model\": 7, \"was\":")),
        new("a token of number 2^63", with("\"<unk>\": 0", "\"<unk>\": 9223372036854775808")),
        new("a token of number 4 billion", with("\"<unk>\": 0", "\"<unk>\": 4294967295")),
        new("a token of number -1", with("\"<unk>\": 0", "\"<unk>\": -1")),
        new("a merge of three parts", with("\"merges\": [", "\"merges\": [ [\"a\", \"b\", \"c\"],")),
        new(
            "a merge of tokens that are not there",
            with("\"merges\": [", "\"merges\": [ [\"qqqq\", \"zzzz\"],"),
        ),
        new("an added token of number 2^63", with("\"id\": 0", "\"id\": 9223372036854775808")),
        new("an added token of number 4 billion", with("\"id\": 0", "\"id\": 4294967295")),
        new("an added token that is a list", with("\"added_tokens\": [", "\"added_tokens\": [ [],")),
    ]
}

fn releases() -> Vec<Case> {
    let new =
        |tries: &str, text: String| Case::new("release", ".toml", How::Release, tries, text.into_bytes());
    let head = "[source]\npath = \".\"\n";
    let variant = "[[variant]]\nquant = \"Q8_0\"\n";
    let good = format!("{head}{variant}");
    let usage = "the request itself makes no sense";
    vec![
        new("empty", String::new()).exits(2, usage),
        new("cut off", good[..20].to_owned()).exits(2, usage),
        new("no variants", head.to_owned()).exits(2, usage),
        new("a key twice", format!("[source]\npath = \".\"\npath = \"..\"\n{variant}")).exits(2, usage),
        new("a key that is not known", format!("{head}evil = 1\n{variant}")).exits(2, usage),
        new("10 000 brackets", format!("{head}revision = {}", "[".repeat(10_000))).exits(2, usage),
        new("10 000 tables in tables", format!("{head}[a{}]\n", ".a".repeat(10_000))).exits(2, usage),
        new("a file that leads out of the folder", format!("{good}file = \"../../../evil.gguf\"\n"))
            .exits(2, usage),
        new("a file at an absolute path", format!("{good}file = \"/tmp/evil.gguf\"\n")).exits(2, usage),
        new(
            "a name that leads out of the folder",
            format!("{head}[release]\nname = \"../../evil\"\n{variant}"),
        )
        .exits(2, usage),
        new(
            "a memory of 2^80 bytes",
            format!("{head}[release]\nmemory = \"99999999999999999999GiB\"\n{variant}"),
        )
        .exits(2, usage),
        new("2^62 threads", format!("{head}[release]\nthreads = 4611686018427387904\n{variant}"))
            .exits(2, usage),
        new("two variants of one name", format!("{good}{variant}")).exits(2, usage),
        new(
            "an expression without end",
            format!("{good}[variant.types]\n\"{}\" = \"Q8_0\"\n", "(a*)*".repeat(4000)),
        )
        .exits(2, usage),
        new(
            "an expression that is huge",
            format!("{good}[variant.types]\n\"(((a{{1000}}){{1000}}){{1000}})\" = \"Q8_0\"\n"),
        )
        .exits(2, usage),
        new("a source that is not there", format!("[source]\npath = \"nowhere\"\n{variant}"))
            .exits(6, "a missing file is not malformed"),
    ]
}
