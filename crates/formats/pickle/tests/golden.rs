//! Files that torch, numpy and Python wrote (`golden/generators/pickles.py`), against what torch.load makes of them.

mod common;

use common::{golden, open, refused, sha256, store, whole};
use serde_json::Value as Json;
use tensormill_model::{Array, Format, Limits, Metadata, Reader, Score, Value};
use tensormill_pickle::{FORMAT, INDEX_NAME, PickleOptions, part_names};
use tensormill_safetensors::shard_names;
use tensormill_store::JoinedReader;

fn manifest() -> serde_json::Map<String, Json> {
    let json: Json = serde_json::from_slice(&golden("manifest.json")).unwrap();
    json.as_object().unwrap().clone()
}

/// Metadata as JSON has it.
fn as_json(v: &Value) -> Json {
    match v {
        Value::Array(a) => Json::Array((0..a.len()).map(|i| as_json(&a.get(i).unwrap())).collect()),
        Value::F64(f) => Json::from(*f),
        Value::Bool(b) => Json::from(*b),
        Value::Str(s) => Json::from(s.as_str()),
        Value::U64(n) => Json::from(*n),
        Value::I64(n) => Json::from(*n),
        Value::I32(n) => Json::from(*n),
        other => panic!("unexpected {other:?}"),
    }
}

fn check_tensors(name: &str, r: &dyn Reader, want: &Json) -> usize {
    let tensors = want["tensors"].as_array().unwrap();
    let index = r.index();
    let got: Vec<&str> = index.tensors.iter().map(|t| t.name.as_str()).collect();
    let names: Vec<&str> = tensors.iter().map(|t| t[0].as_str().unwrap()).collect();
    assert_eq!(got, names, "{name}");
    for (t, w) in tensors.iter().enumerate() {
        let spec = &index.tensors[t];
        let shape: Vec<u64> = w[2].as_array().unwrap().iter().map(|d| d.as_u64().unwrap()).collect();
        assert_eq!(spec.shape.dims(), shape, "{name} {}", spec.name);
        assert_eq!(spec.encoding.to_string(), w[1].as_str().unwrap(), "{name} {}", spec.name);
        let bytes = whole(r, t).unwrap();
        assert_eq!(sha256(&bytes), w[3].as_str().unwrap(), "{name} {}", spec.name);
        // Row by row, backward: nothing may depend on what was read before.
        let row = bytes.len().checked_div(spec.shape.rows() as usize).unwrap_or(0);
        for i in (0..spec.shape.rows()).rev() {
            let mut out = vec![0; row];
            r.read(t, i..i + 1, &mut out).unwrap();
            assert!(out == bytes[i as usize * row..][..row], "{name} {} row {i}", spec.name);
        }
    }
    let aliases: Vec<(&str, &str)> =
        index.aliases.iter().map(|a| (a.name.as_str(), index.tensors[a.tensor].name.as_str())).collect();
    let want: Vec<(&str, &str)> = want["aliases"]
        .as_array()
        .unwrap()
        .iter()
        .map(|a| (a[0].as_str().unwrap(), a[1].as_str().unwrap()))
        .collect();
    assert_eq!(aliases, want, "{name}");
    tensors.len()
}

#[test]
fn every_file_holds_what_torch_loads() {
    let mut tensors = 0;
    for (name, file) in manifest() {
        let bytes = golden(&name);
        let head = &bytes[..bytes.len().min(4096)];
        let score = if name.contains(".pkl") { Score::Maybe } else { Score::Yes };
        assert_eq!(FORMAT.probe(head, &name), score, "{name}");
        for case in file["cases"].as_array().unwrap() {
            let key = case["key"].as_str().map(str::to_owned);
            let options = PickleOptions { key, all: case["all"] == true };
            let opened = open(bytes.clone(), &options);
            if let Some(error) = case["error"].as_object() {
                let e = refused(opened);
                assert_eq!(format!("{:?}", e.kind()), error["kind"].as_str().unwrap(), "{name}: {e}");
                assert!(e.message().contains(error["says"].as_str().unwrap()), "{name}: {e}");
                assert!(e.hint_text().is_some(), "{name}: {e}");
                if let Some(t) = error.get("tensor") {
                    assert_eq!(e.tensor_name(), t.as_str(), "{name}: {e}");
                }
                continue;
            }
            let r = opened.unwrap_or_else(|e| panic!("{name}: {e}"));
            tensors += check_tensors(&name, &*r, case);
            if let Some(want) = case["metadata"].as_object() {
                for (k, v) in want {
                    let got = r.index().metadata.get(k).unwrap_or_else(|| panic!("{name}: no {k}"));
                    assert_eq!(&as_json(got), v, "{name}: {k}");
                }
            }
            if let Some(want) = case["left_out"].as_array() {
                let got: Vec<&str> = r.index().left_out.iter().map(|l| l.name.as_str()).collect();
                let want: Vec<&str> = want.iter().map(|w| w.as_str().unwrap()).collect();
                assert_eq!(got, want, "{name}");
            }
        }
    }
    assert!(tensors > 350, "{tensors}");
}

#[test]
fn what_is_left_out_says_what_it_is() {
    let r = open(golden("nested.ckpt"), &PickleOptions::default()).unwrap();
    let what = |name: &str| {
        let found = r.index().left_out.iter().find(|l| l.name == name);
        found.unwrap_or_else(|| panic!("{name}")).what.clone()
    };
    assert_eq!(what("optimizer_state_dict"), "optimizer state (15 tensors); --all keeps it");
    assert!(what("args").starts_with("an object of argparse.Namespace (at byte "), "{}", what("args"));
    assert_eq!(what("dtype"), "the name torch.float16");
    assert_eq!(r.index().metadata.get("raw"), Some(&Value::Bytes(vec![0, 255])));
    assert_eq!(
        r.index().metadata.get("words"),
        Some(&Value::Array(Array::Str(vec!["a".into(), "b".into()])))
    );
    let r = open(golden("attributes.pt"), &PickleOptions::default()).unwrap();
    assert_eq!(r.index().left_out, []);
    let r = open(golden("dtypes.pt"), &PickleOptions::default()).unwrap();
    let raw: Vec<&str> = r.index().left_out.iter().map(|l| l.name.as_str()).collect();
    assert_eq!(raw, ["bits8", "bits16", "bits1x8", "bits2x4", "bits4x2"]);
}

/// As the facade opens a folder: names from the index, parts joined, the index checked against them.
#[test]
fn shard_sets_are_read() {
    let index = shard_names(&golden(&format!("sharded/{INDEX_NAME}"))).unwrap();
    assert_eq!(part_names(&index.files()), index.files());
    let open = |name: String| {
        let bytes = golden(&format!("sharded/{name}"));
        let r = FORMAT.open(store(&name, bytes), &Limits::default()).unwrap();
        (name, r)
    };
    let parts: Vec<_> = index.files().into_iter().map(open).collect();
    let mut names: Vec<&str> = index.weight_map.iter().map(|(n, _)| n.as_str()).collect();
    let r = JoinedReader::concat(parts, Metadata::new()).unwrap();
    let mut got: Vec<&str> = r.index().tensors.iter().map(|t| t.name.as_str()).collect();
    got.extend(r.index().aliases.iter().map(|a| a.name.as_str()));
    names.sort_unstable();
    got.sort_unstable();
    assert_eq!(got, names);
    let head = r.index().aliases[0].tensor;
    assert_eq!(r.index().tensors[head].name, "head.weight");
    assert_eq!(whole(&r, head).unwrap().len(), 160);
}

#[test]
fn names_tell_where_content_does_not() {
    let zip = b"PK\x03\x04\x14\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x07\0\0\0a/b.npy";
    assert_eq!(FORMAT.probe(zip, "x.npz"), Score::No);
    assert_eq!(FORMAT.probe(zip, "x.PTH"), Score::Maybe);
    assert_eq!(FORMAT.probe(b"GGUF", "x.gguf"), Score::No);
    assert_eq!(FORMAT.probe(b"\x80\x02}", "x.bin"), Score::Maybe);
}
