//! Safetensors files and shard indexes that lie.

use super::{Case, How};

fn file(json: &str, data: usize) -> Vec<u8> {
    let mut b = (json.len() as u64).to_le_bytes().to_vec();
    b.extend(json.as_bytes());
    b.resize(b.len() + data, 0);
    b
}

fn one(dtype: &str, shape: &str, offsets: &str) -> String {
    format!(r#"{{"t":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}}}"#)
}

const TWO: &str = r#"{"b":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]},"a":{"dtype":"U8","shape":[3],"data_offsets":[16,19]}}"#;

pub(super) fn cases() -> Vec<Case> {
    let new =
        |tries: &str, bytes: Vec<u8>| Case::new("safetensors", ".safetensors", How::Inspect, tries, bytes);
    let whole = file(TWO, 19);
    let head = TWO.len() + 8;
    let mut out = Vec::new();
    for (what, n) in [
        ("at its start", 0),
        ("in the header's length", 7),
        ("behind the header's length", 8),
        ("in the header", 60),
        ("at the header's last byte", head - 1),
        ("behind the header", head),
        ("in the first tensor", head + 5),
        ("at the last byte", whole.len() - 1),
    ] {
        out.push(new(&format!("cut off {what}"), whole[..n].to_vec()));
    }
    for (tries, json, data) in [
        ("a tensor that ends before it begins", one("F32", "[2]", "[8,0]"), 8),
        ("a hole before the first tensor", one("F32", "[2]", "[4,12]"), 12),
        ("a tensor that ends after the file", one("F32", "[2]", "[0,8]"), 7),
        ("a tensor of 2^62 bytes", one("F32", "[1152921504606846976]", "[0,4611686018427387904]"), 8),
        ("offsets of 2^64 - 1", one("F32", "[1]", "[0,18446744073709551615]"), 4),
        ("offsets beyond 64 bits", one("F32", "[1]", "[0,18446744073709551620]"), 4),
        ("dimensions that multiply to more than 64 bits", one("F32", "[9223372036854775807,9]", "[0,8]"), 8),
        (
            "an empty tensor whose rows are beyond 64 bits",
            one("F32", "[0,9223372036854775807,9]", "[0,0]"),
            0,
        ),
        ("a shape that needs other bytes than there are", one("F32", "[3]", "[0,8]"), 8),
        ("a dimension of -1", one("F32", "[-1]", "[0,4]"), 4),
        ("a dimension of 1.5", one("F32", "[1.5]", "[0,4]"), 4),
        ("a dimension of 1e30", one("F32", "[1e30]", "[0,4]"), 4),
        ("three offsets", one("F32", "[0]", "[0,0,0]"), 0),
        ("tensors that overlap", TWO.replace("[16,19]", "[15,18]"), 18),
        (
            "tensors in one place",
            TWO.replace("[16,19]", "[0,3]").replace("[2,2]", "[1]").replace("[0,16]", "[0,4]"),
            4,
        ),
        ("bytes that belong to no tensor", TWO.to_owned(), 20),
        ("a name twice", format!("{{{0},{0}}}", &one("F32", "[0]", "[0,0]")[1..48]), 0),
        (
            "a dtype twice",
            one("F32", "[0]", "[0,0]").replace(r#""dtype":"F32""#, r#""dtype":"F32","dtype":"F16""#),
            0,
        ),
        ("metadata twice", r#"{"__metadata__":{},"__metadata__":{}}"#.to_owned(), 0),
        ("a key of metadata twice", r#"{"__metadata__":{"a":"1","a":"2"}}"#.to_owned(), 0),
        ("metadata that is no text", r#"{"__metadata__":{"a":1}}"#.to_owned(), 0),
        ("a tensor that is a number", r#"{"t":3}"#.to_owned(), 0),
        ("a tensor that is nothing", r#"{"t":{}}"#.to_owned(), 0),
        ("a list", "[]".to_owned(), 0),
        ("a space before the header", " {}".to_owned(), 0),
        ("something behind the header's end", "{}x".to_owned(), 0),
        ("no header", String::new(), 0),
        ("a million brackets", "[".repeat(1_000_000), 0),
        (
            "30 000 brackets in a field that is skipped",
            format!(r#"{{"t":{{"note":{}"#, "[".repeat(30_000)),
            0,
        ),
        ("6000 objects in objects", r#"{"a":"#.repeat(6000), 0),
        ("a shape of 20 000 dimensions", one("F32", &format!("[{}1]", "1,".repeat(20_000)), "[0,4]"), 4),
    ] {
        out.push(new(tries, file(&json, data)));
    }
    out.push(
        new("a type of elements that is not known", file(&one("Q4_K", "[2]", "[0,8]"), 8))
            .exits(4, "well-formed, and not read by this version"),
    );
    for (tries, len) in [
        ("a header of 2^64 - 1 bytes", u64::MAX),
        ("a header of 2^63 bytes", 1 << 63),
        ("a header of 100 MB and one byte", 100_000_001),
        ("a header of 99 MB in a file of ten bytes", 99_000_000),
    ] {
        out.push(new(tries, [&len.to_le_bytes()[..], b"{}"].concat()));
    }
    let mut bad_text = file(r#"{"__metadata__":{"a":"??"}}"#, 0);
    let n = bad_text.len();
    bad_text[n - 5] = 0xff;
    out.push(new("a header that is not UTF-8", bad_text));
    out.push(new("a pickle", b"\x80\x02cos\nsystem\n(X\x02\0\0\0idtR.".to_vec()));
    out.push(new(
        "a pointer of Git LFS",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n".to_vec(),
    ));
    for (tries, index) in [
        (
            "an index that leads out of the folder",
            r#"{"weight_map":{"a":"../../model.safetensors"}}"#.to_owned(),
        ),
        ("an index with an absolute path", r#"{"weight_map":{"a":"/etc/passwd"}}"#.to_owned()),
        ("an index that names itself", r#"{"weight_map":{"a":"model.safetensors.index.json"}}"#.to_owned()),
        ("an index that names the folder", r#"{"weight_map":{"a":"."}}"#.to_owned()),
        (
            "an index of a shard that is not there",
            r#"{"weight_map":{"a":"model-00001-of-00099.safetensors"}}"#.to_owned(),
        ),
        ("an index of a tensor that is not there", r#"{"weight_map":{"a":"model.safetensors"}}"#.to_owned()),
        ("an index without a map", r#"{"metadata":{}}"#.to_owned()),
        ("an index that is a list", "[]".to_owned()),
        ("an index of numbers", r#"{"weight_map":{"a":1}}"#.to_owned()),
        ("an index that is cut off", r#"{"weight_map":{"a":"#.to_owned()),
        (
            "an index with a tensor twice",
            r#"{"weight_map":{"a":"model.safetensors","a":"x.safetensors"}}"#.to_owned(),
        ),
        ("an index of 30 000 brackets", format!(r#"{{"weight_map":{}"#, "[".repeat(30_000))),
    ] {
        let how = How::InModel("tiny-llama", "model.safetensors.index.json");
        out.push(Case::new("safetensors", ".index.json", how, tries, index.into_bytes()));
    }
    out
}
