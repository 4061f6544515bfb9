//! GGUF files and importance matrices that lie.

use super::{Case, How};
use raw::Raw;

// GGUF files are put together as the tests of their reader do it.
#[path = "../../../crates/formats/gguf/tests/common/raw.rs"]
mod raw;

const MAX: u64 = u64::MAX;
const HALF: u64 = 1 << 63;

pub(super) fn cases() -> Vec<Case> {
    let mut out = headers();
    out.extend(tensors());
    out.extend(imatrices());
    out
}

fn new(tries: &str, bytes: Vec<u8>) -> Case {
    Case::new("gguf", ".gguf", How::Inspect, tries, bytes)
}

fn headers() -> Vec<Case> {
    let one = || Raw::head(3, 0, 1);
    let array = |code: u32, n: u64| one().str("k").u32(9).u32(code).u64(n);
    let whole = Raw::head(3, 1, 2)
        .str("general.architecture")
        .u32(8)
        .str("llama")
        .str("list")
        .u32(9)
        .u32(8)
        .u64(2)
        .str("a")
        .str("b")
        .tensor("t", &[4], 0, 0)
        .data(16);
    let mut out: Vec<Case> = [
        ("the magic number", 3),
        ("the version", 6),
        ("the number of tensors", 10),
        ("the number of keys", 20),
        ("a key's length", 28),
        ("a key", 40),
        ("a value's type", 54),
        ("a value's length", 60),
        ("a value", 66),
        ("an array's type", 86),
        ("an array's length", 94),
        ("an array", 108),
        ("a tensor's name", 122),
        ("a tensor's dimensions", 134),
        ("a tensor's offset", 146),
        ("the padding", 152),
        ("the weights", whole.len() - 1),
    ]
    .into_iter()
    .map(|(what, n)| new(&format!("cut off in {what}"), whole[..n].to_vec()))
    .collect();
    let nested = |n: usize| {
        let levels = (0..n).fold(one().str("k").u32(9), |r, _| r.u32(9).u64(1));
        levels.u32(4).u64(1).u32(7).data(0)
    };
    out.extend([
        new("2^63 tensors", Raw::head(3, HALF, 0).data(0)),
        new("2^64 - 1 tensors", Raw::head(3, MAX, 0).data(0)),
        new("a million tensors that are not there", Raw::head(3, 1 << 20, 0).data(0)),
        new("2^63 keys", Raw::head(3, 0, HALF).data(0)),
        new("2^64 - 1 keys", Raw::head(3, 0, MAX).data(0)),
        new("a key of 2^63 bytes", one().u64(HALF).data(0)),
        new("a key of 2^64 - 1 bytes", one().u64(MAX).data(0)),
        new("a key of 60 MB that is not there", one().u64(60_000_000).data(0)),
        new("a key without letters", one().str("").u32(4).u32(1).data(0)),
        new("a key that is not UTF-8", one().u64(2).bytes(b"\xff\xfe").u32(4).u32(1).data(0)),
        new("a key twice", Raw::head(3, 0, 2).number("k", 1).number("k", 2).data(0)),
        new("a text of 2^63 bytes", one().str("k").u32(8).u64(HALF).data(0)),
        new("a text of 2^64 - 1 bytes", one().str("k").u32(8).u64(MAX).data(0)),
        new("a value of an unknown type", one().str("k").u32(99).u64(0).data(0)),
        new("an array of an unknown type", array(99, 1).data(64)),
        new("an array of 2^63 bytes", array(0, HALF).data(0)),
        new("an array of 2^61 numbers of 64 bits", array(10, 1 << 61).data(0)),
        new("an array of 2^64 - 1 texts", array(8, MAX).data(0)),
        new("an array of 60 million texts that are not there", array(8, 60_000_000).data(0)),
        new("an array of 2^63 arrays", array(9, HALF).data(0)),
        new("arrays in arrays, 17 deep", nested(17)),
        new("arrays in arrays, 4000 deep", nested(4000)),
        new("an alignment of 0", Raw::head(3, 0, 1).number("general.alignment", 0).data(0)),
        new("an alignment of 3", Raw::head(3, 0, 1).number("general.alignment", 3).data(0)),
        new(
            "an alignment of 2^31",
            Raw::head(3, 1, 1).number("general.alignment", 1 << 31).tensor("t", &[4], 0, 0).data(16),
        ),
        new("an alignment that is a text", one().str("general.alignment").u32(8).str("32").data(0)),
        new("version 0", Raw::head(0, 0, 0).data(0)).exits(4, "a version that is not known"),
        new("version 4", Raw::head(4, 0, 0).data(0)).exits(4, "a version that is not known"),
        new("a big-endian version, and little-endian counts", Raw::head(3u32.swap_bytes(), 1, 1).data(0)),
        new("version 1 with counts of 64 bits", Raw::head(1, 1, 1).data(0)),
        new("nothing but zeros", vec![0; 64]),
    ]);
    out.push(Case {
        path: "gguf/a-set-of-99999-00001-of-99999.gguf".into(),
        ..new(
            "a split set of 99 999 files that are not there",
            Raw::head(3, 0, 1).number("split.count", 99_999).data(0),
        )
    });
    out
}

fn tensors() -> Vec<Case> {
    let one = |dims: &[u64], code: u32, offset: u64, data: usize| {
        Raw::head(3, 1, 0).tensor("t", dims, code, offset).data(data)
    };
    let two = |a: u64, b: u64, names: [&str; 2]| {
        Raw::head(3, 2, 0).tensor(names[0], &[16], 0, a).tensor(names[1], &[16], 0, b).data(128)
    };
    vec![
        new("a dimension of 2^63", one(&[HALF], 0, 0, 16)),
        new("a dimension of 2^64 - 1", one(&[MAX], 0, 0, 16)),
        new("dimensions that multiply to more than 64 bits", one(&[1 << 32, 1 << 32, 2], 0, 0, 16)),
        new("an empty tensor whose rows are beyond 64 bits", one(&[1 << 62, 0], 0, 0, 16)),
        new("five dimensions", one(&[1, 1, 1, 1, 1], 0, 0, 16)),
        new("four billion dimensions", Raw::head(3, 1, 0).str("t").u32(u32::MAX).data(64)),
        new("a row that is no whole number of blocks", one(&[100], 12, 0, 1000)),
        new("an offset that is not aligned", one(&[4], 0, 16, 64)),
        new("an offset behind the file", one(&[4], 0, 1 << 20, 16)),
        new("an offset of 2^64 - 32", one(&[4], 0, MAX - 31, 16)),
        new("a tensor larger than the file", one(&[1 << 40], 0, 0, 64)),
        new("tensors that overlap", two(0, 32, ["a", "b"])),
        new("tensors in one place", two(0, 0, ["a", "b"])),
        new("a name twice", two(0, 64, ["a", "a"])),
        new("a name of 2^63 bytes", Raw::head(3, 1, 0).u64(HALF).data(64)),
        new("a type that is not known", one(&[4], 9999, 0, 64)).exits(4, "a type that is not known"),
        new("a type that was given up", one(&[32], 4, 0, 64)).exits(4, "a type that is not known any more"),
    ]
}

fn imatrices() -> Vec<Case> {
    let dat = |tries: &str, bytes: Vec<u8>| Case::new("imatrix", ".dat", How::Imatrix, tries, bytes);
    let int = |n: i32| n.to_le_bytes().to_vec();
    let entry = |name_len: i32, name: &str, calls: i32, values: i32, data: usize| {
        [int(name_len), name.as_bytes().to_vec(), int(calls), int(values), vec![0; data]].concat()
    };
    let all = |n: i32, entries: Vec<u8>| [int(n), entries].concat();
    let good = all(1, entry(1, "a", 1, 2, 8));
    let keys = |count: u64| Raw::head(3, count, 3).str("imatrix.datasets").u32(9).u32(8).u64(0);
    let keys = |count| keys(count).number("imatrix.chunk_count", 1).number("imatrix.chunk_size", 512);
    let gguf = |tries: &str, bytes: Vec<u8>| Case::new("imatrix", ".gguf", How::Imatrix, tries, bytes);
    vec![
        dat("cut off in the number of entries", good[..2].to_vec()),
        dat("cut off in a name's length", good[..6].to_vec()),
        dat("cut off in a name", good[..8].to_vec()),
        dat("cut off in the number of calls", good[..11].to_vec()),
        dat("cut off in the values", good[..good.len() - 1].to_vec()),
        dat("2^31 - 1 entries", all(i32::MAX, entry(1, "a", 1, 2, 8))),
        dat("-1 entries", all(-1, vec![])),
        dat("a name of 2^31 - 1 bytes", all(1, entry(i32::MAX, "a", 1, 2, 8))),
        dat("a name of -1 bytes", all(1, entry(-1, "", 1, 2, 8))),
        dat("2^31 - 1 values", all(1, entry(1, "a", 1, i32::MAX, 8))),
        dat("-1 values", all(1, entry(1, "a", 1, -1, 8))),
        dat("no values", all(1, entry(1, "a", 1, 0, 0))),
        dat(
            "values that are NaN",
            all(1, [int(1), b"a".to_vec(), int(1), int(1), vec![0, 0, 0xc0, 0x7f]].concat()),
        ),
        dat("empty", vec![]),
        dat("text", b"{\"not\": \"an importance matrix\"}".to_vec()),
        gguf("without keys", Raw::head(3, 0, 0).data(0)),
        gguf(
            "sums without counts",
            keys(1).tensor("blk.0.attn_q.weight.in_sum2", &[256, 1], 0, 0).data(1024),
        ),
        gguf(
            "sums of 2^40 values",
            keys(2).tensor("a.in_sum2", &[1 << 40, 1], 0, 0).tensor("a.counts", &[1, 1], 0, 0).data(1024),
        ),
        gguf(
            "no counts for many sums",
            keys(2).tensor("a.in_sum2", &[256, 1], 0, 0).tensor("a.counts", &[0, 1], 0, 1024).data(1024),
        ),
        gguf(
            "sums that are half precision",
            keys(2).tensor("a.in_sum2", &[256, 1], 1, 0).tensor("a.counts", &[1, 1], 0, 512).data(1024),
        ),
        gguf("cut off", keys(1).0[..60].to_vec()),
    ]
}
