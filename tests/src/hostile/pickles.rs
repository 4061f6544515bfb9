//! PyTorch checkpoints that lie: the cases of the pickle reader's own tests, and what they leave out.

use super::{Case, How, slug};
use tensormill_model::ErrorKind;

#[path = "../../../crates/formats/pickle/tests/common/build.rs"]
#[allow(missing_docs, unreachable_pub, dead_code, reason = "shared with the tests of another crate")]
mod build;
#[path = "../../../crates/formats/pickle/tests/common/hostile.rs"]
#[allow(missing_docs, unreachable_pub, reason = "shared with the tests of another crate")]
mod hostile;

use build::{Member, archive, dict, four, pickle, storage, tensor, zip};

/// Larger archives are packed; what would be larger still is left to the reader's own tests.
const LARGE: usize = 8 << 10;
const TOO_LARGE: usize = 1 << 20;

/// An archive of stored members with the same members deflated: `build::archive`'s alone, whose headers tell the truth.
fn packed(bytes: &[u8]) -> Option<Vec<u8>> {
    let u16_at = |i: usize| usize::from(bytes[i]) | usize::from(bytes[i + 1]) << 8;
    let u32_at = |i: usize| u16_at(i) | u16_at(i + 2) << 16;
    let mut members = Vec::new();
    let mut at = 0;
    while bytes[at..].starts_with(b"PK\x03\x04") {
        let (method, name, len) = (u16_at(at + 8), u16_at(at + 26), u32_at(at + 18));
        let data = bytes.get(at + 30 + name..at + 30 + name + len)?;
        if method != 0 || len > TOO_LARGE {
            return None;
        }
        let name = std::str::from_utf8(&bytes[at + 30..at + 30 + name]).ok()?;
        members.push(Member::deflated(name, data));
        at += 30 + name.len() + len;
    }
    Some(zip(&members))
}

pub(super) fn cases() -> Vec<Case> {
    let mut out = Vec::new();
    for (name, bytes, want) in hostile::cases() {
        let is_plain = name.starts_with("a plain");
        let is_archive = bytes.starts_with(b"PK\x03\x04") && !name.contains("bomb");
        let bytes = match bytes.len() {
            _ if is_plain => continue,
            n if n > LARGE && is_archive => match packed(&bytes) {
                Some(b) if b.len() < 64 << 10 => b,
                _ => continue,
            },
            n if n > 200 << 10 => continue,
            _ => bytes,
        };
        let case = Case::new("pickle", ".pt", How::Inspect, name, bytes);
        out.push(match want {
            Some(ErrorKind::Unsupported) => case.exits(4, "well-formed, and not read by this version"),
            Some(_) => case,
            None => harmless(case, name),
        });
    }
    out.extend(more());
    // Packed, what is within limits in a file of its own length asks for more than a file of a few kilobytes may.
    let packed = ["a million empty lists", "a million memo entries"];
    for case in out.iter_mut().filter(|c| packed.contains(&&*c.tries)) {
        (case.exit, case.why) = (3, "");
    }
    out.sort_by(|a, b| a.path.cmp(&b.path));
    out
}

/// What harms a loader that obeys, or one that is careless; not this one.
fn harmless(case: Case, name: &str) -> Case {
    if name.starts_with("weights that") {
        return Case { how: How::Convert, ..case };
    }
    if name.contains("bomb of weights") {
        return case.exits(0, "64 MiB of zeros are what it holds; they are read tile by tile");
    }
    if name.contains("system") || name.contains("import") || name.contains("extension") {
        return case
            .exits(0, "nothing is run; the weights beside it are fine; `scan` says what a loader would run");
    }
    case.exits(0, "what it makes stays within limits, and its weights, if any, are fine")
}

fn more() -> Vec<Case> {
    let new = |tries: &str, bytes: Vec<u8>| Case::new("pickle", ".pt", How::Inspect, tries, bytes);
    let good = archive(pickle(&[&dict(&[("w", &four())])]));
    let one = |inside: &[u8]| packed(&archive(pickle(&[inside]))).unwrap_or_default();
    let nested =
        |open: &[u8], close: &[u8], n: usize| one(&[open.repeat(n), four(), close.repeat(n)].concat());
    let deflated = |pickle: &[u8]| {
        zip(&[Member::deflated("a/data.pkl", pickle), Member::stored("a/data/0", vec![7; 16])])
    };
    let filled = |byte: u8, n: usize| {
        let mut bytes = b"\x80\x02](".to_vec();
        bytes.resize(n, byte);
        [bytes, b"e.".to_vec()].concat()
    };
    let mut out = vec![
        new("300 000 lists in lists", nested(b"](", b"e", 300_000)),
        new("100 000 dicts in dicts", nested(b"}(X\x01\0\0\0k", b"u", 100_000)),
        new("a pickle that unpacks to 60 MB of values", deflated(&filled(b'N', 60_000_000))),
        new("a pickle that unpacks to 30 MB of empty lists", deflated(&filled(b']', 30_000_000))),
        new("a pickle that unpacks to 5 MB of values", deflated(&filled(b'N', 5_000_000))),
        new("a pickle that unpacks to 1 MB of values", deflated(&filled(b'N', 1_000_000))),
        new("a pickle that unpacks to 1 MB of empty dicts", deflated(&filled(b'}', 1_000_000))),
        new("a pickle that unpacks to 1 MB of memo entries", deflated(&filled(b'\x94', 1_000_000))),
        new(
            "os.system in a legacy stream",
            build::legacy(&pickle(&[b"cos\nsystem\n(", &build::text("id"), b"tR"]), &[], &[]),
        )
        .exits(0, "nothing is run, and there are no weights"),
        new("os.system in a plain pickle", pickle(&[b"cos\nsystem\n(", &build::text("id"), b"tR"]))
            .exits(0, "nothing is run, and there are no weights"),
        new(
            "members that lead out of the folder",
            zip(&[
                Member::stored("../../a/data.pkl", pickle(&[&dict(&[("w", &four())])])),
                Member::stored("../../a/data/0", vec![7; 16]),
            ]),
        )
        .exits(4, "nothing is unpacked; there is no checkpoint where one would be"),
        new(
            "a storage whose key leads out of the folder",
            zip(&[
                Member::stored(
                    "a/data.pkl",
                    pickle(&[&tensor(&storage("FloatStorage", "../../../etc/passwd", 4), 0, &[4], &[1])]),
                ),
                Member::stored("a/data/0", vec![7; 16]),
            ]),
        ),
    ];
    let central = good.windows(4).position(|w| w == b"PK\x01\x02").unwrap_or(0);
    let end = good.windows(4).position(|w| w == b"PK\x05\x06").unwrap_or(0);
    for (what, n) in [
        ("a member's header", 20),
        ("a member's name", 34),
        ("the pickle", 60),
        ("the weights", central - 5),
        ("the directory", central),
        ("an entry of the directory", central + 30),
        ("the end record", end),
        ("the end record's numbers", end + 12),
    ] {
        out.push(new(&format!("cut off in {what}"), good[..n].to_vec()));
    }
    let file = |name: &str, tries: &str, bytes: Vec<u8>| Case {
        path: format!("pickle/{}/{name}", slug(tries)),
        ..Case::new("pickle", "", How::Inspect, tries, bytes)
    };
    for (tries, to) in [
        ("a shard index that leads out of the folder", "../../pytorch_model-00001-of-00001.bin"),
        ("a shard index with an absolute path", "/etc/passwd"),
    ] {
        let index = format!(r#"{{"weight_map":{{"w":"{to}"}}}}"#);
        let case = file("pytorch_model.bin.index.json", tries, index.into_bytes());
        out.push(Case { how: How::InModel("-", "pytorch_model.bin.index.json"), ..case });
    }
    out
}
