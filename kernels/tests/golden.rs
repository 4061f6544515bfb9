//! Every codec against what ggml's own library produced (`golden/blocks`, made by
//! `golden/generators/blocks.py`): encoded bytes, and decoded weights bit for bit, at every level.

#[path = "common/golden.rs"]
#[allow(dead_code, reason = "each test file uses its part")]
mod files;
#[path = "common/inputs.rs"]
mod inputs;

use files::{fnv, golden};
use std::collections::BTreeMap;
use tensormill_kernels::{available_levels, codec, codec_at, formats};
use tensormill_tensor::ggml;

/// Decoded weights stored per case; the rest is in the checksum.
const SHOWN: usize = 32;

struct Case {
    distribution: String,
    importance: String,
    seed: u64,
    columns: usize,
    row: u64,
    weights: u64,
    /// `None` when ggml fails an assertion on this row.
    decoded: Option<u64>,
    line: String,
}

fn cases() -> BTreeMap<String, Vec<Case>> {
    let text = String::from_utf8(golden("blocks/cases.tsv")).expect("UTF-8");
    let mut by_type: BTreeMap<String, Vec<Case>> = BTreeMap::new();
    for line in text.lines().filter(|l| !l.starts_with('#')) {
        let f: Vec<&str> = line.split('\t').collect();
        let hash = |s: &str| u64::from_str_radix(s, 16).expect("a checksum");
        by_type.entry(f[0].to_string()).or_default().push(Case {
            distribution: f[1].to_string(),
            importance: f[2].to_string(),
            seed: f[3].parse().expect("a seed"),
            columns: f[4].parse().expect("columns"),
            row: hash(f[5]),
            weights: hash(f[6]),
            decoded: (f[7] != "stops").then(|| hash(f[7])),
            line: line.to_string(),
        });
    }
    by_type
}

fn same(a: f32, b: f32) -> bool {
    a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan()
}

#[test]
fn every_codec_has_cases_of_every_distribution() {
    let cases = cases();
    let tested: Vec<&str> = cases.keys().map(String::as_str).collect();
    let mut known: Vec<&str> = formats().map(|c| c.block().name).collect();
    known.sort_unstable();
    assert_eq!(tested, known);
    for (name, cases) in &cases {
        assert!(cases.iter().any(|c| c.distribution == "random"), "{name} lacks random blocks");
        let codec = codec(ggml::by_name(name).expect("a ggml type")).expect("a codec");
        assert!(codec.can_encode(), "{name}");
        for distribution in inputs::DISTRIBUTIONS {
            assert!(cases.iter().any(|c| c.distribution == distribution), "{name} lacks {distribution}");
        }
        for importance in &inputs::IMPORTANCES[usize::from(codec.needs_importance())..2] {
            assert!(cases.iter().any(|c| c.importance == *importance), "{name} lacks {importance}");
        }
    }
}

#[test]
fn bytes_and_weights_equal_ggml() {
    for (name, cases) in cases() {
        let block = ggml::by_name(&name).expect("a ggml type");
        let data = golden(&format!("blocks/{name}.bin"));
        for &level in available_levels() {
            let codec = codec_at(block, level).expect("a codec");
            let mut data = data.as_slice();
            for case in &cases {
                let at = format!("{} at {level:?}", case.line);
                let bytes = block.row_bytes(case.columns as u64).expect("whole blocks") as usize;
                let blocks: Vec<u8> = if case.distribution == "random" {
                    (0..bytes as u64).map(|i| inputs::draw(case.seed, i) as u8).collect()
                } else {
                    let x = inputs::row(&case.distribution, case.seed, case.columns);
                    assert_eq!(fnv(&x), case.row, "row of {at}");
                    let w = inputs::importance(&case.importance, case.seed, case.columns);
                    assert_eq!(w.as_deref().map_or(0, fnv), case.weights, "importance of {at}");
                    // Not zeros, so that bytes left unwritten show.
                    let mut blocks = vec![0xa5; bytes];
                    codec.encode_row(&x, w.as_deref(), &mut blocks).expect("finite rows encode");
                    if case.decoded.is_none() {
                        continue;
                    }
                    let want = data.split_off(..bytes).expect("enough golden data");
                    if let Some(i) = (0..bytes).find(|&i| blocks[i] != want[i]) {
                        let size = block.bytes as usize;
                        panic!(
                            "{at}: block {} differs at byte {}: {:#04x}, ggml has {:#04x}",
                            i / size,
                            i % size,
                            blocks[i],
                            want[i]
                        );
                    }
                    blocks
                };
                let mut decoded = vec![f32::NAN; case.columns];
                codec.decode_row(&blocks, &mut decoded).expect("any blocks decode");
                let want = data.split_off(..4 * SHOWN).expect("enough golden data");
                for (i, (got, want)) in decoded.iter().zip(want.as_chunks::<4>().0).enumerate() {
                    let want = f32::from_le_bytes(*want);
                    assert!(same(*got, want), "{at}: weight {i} is {got}, ggml has {want}");
                }
                assert_eq!(Some(fnv(&decoded)), case.decoded, "decoded weights of {at}");
            }
            assert!(data.is_empty(), "{name}: golden data left over");
        }
    }
}
