//! Files that use every part of the format (`golden/generators/onnx_formats.py`) and those of exporters
//! (`onnx_exports.py`): what is found in them, and that rewriting loses nothing.

mod common;

use common::{Files, Found, bare, json, listed, sha256, tensors, written};
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;
use tensormill_graph::{Attribute, Content, Elem, Node, Pair, Program, Tensor};
use tensormill_model::{ErrorKind, Reader, ShardLimits};
use tensormill_onnx::OnnxReader;
use tensormill_tensor::{DType, Encoding};

/// Golden files by name, with their lists.
fn formats() -> Vec<(String, Files, String, Json)> {
    let mut all = Vec::new();
    for name in listed("formats") {
        if name == "external" {
            let list = json("formats/external/model.json");
            all.push((name, Files::golden("formats/external"), "model.onnx".to_owned(), list));
        } else if let Some(stem) = name.strip_suffix(".json") {
            let list = json(&format!("formats/{name}"));
            all.push((stem.to_owned(), Files::golden("formats"), format!("{stem}.onnx"), list));
        }
    }
    all
}

/// A graph that is there and says nothing is refused as one that is not there: nothing could be made of it.
const REFUSED: &str = "empty-graph-message";

/// ONNX's name of an element type.
fn type_name(elem: Elem) -> String {
    elem.name().expect("a golden type").to_uppercase()
}

/// A row of a list, as far as tensors of the program have it. The lists' library clears what is left of the last byte; the
/// reader gives it as it is.
fn row(f: &Found) -> (String, Vec<i64>, String) {
    let mut bytes = f.bytes.clone();
    let bits = f.tensor.elem.bits().unwrap_or_default() * f.tensor.elements().expect("golden");
    if let (Some(last), n @ 1..) = (bytes.last_mut(), bits % 8) {
        *last &= (1 << n) - 1;
    }
    (type_name(f.tensor.elem), f.tensor.dims.clone(), sha256(&bytes))
}

fn wanted(row: &Json) -> (String, Vec<i64>, String) {
    let dims = row["shape"].as_array().expect("shape").iter().map(|d| d.as_i64().expect("length")).collect();
    let text = |key: &str| row[key].as_str().expect("text").to_owned();
    (text("dtype"), dims, text("sha256"))
}

/// Lists have numbers and texts of `Constant` nodes as tensors; here they are attributes and no tensors.
fn scalars(program: &mut Program) -> Vec<(String, String, Vec<i64>, String)> {
    let mut all = Vec::new();
    let texts = |all: &[Vec<u8>]| -> Vec<u8> {
        all.iter().flat_map(|s| [&(s.len() as u64).to_le_bytes()[..], &s[..]].concat()).collect()
    };
    program.nodes_mut(|node| {
        let Node { op, outputs, attributes, .. } = node;
        for a in attributes.iter().filter(|a| op == "Constant" && a.reference.is_empty()) {
            let (name, dims, bytes) = match a.name.as_str() {
                "value_float" => ("FLOAT", vec![], a.f.expect("float").to_le_bytes().to_vec()),
                "value_int" => ("INT64", vec![], a.i.expect("int").to_le_bytes().to_vec()),
                "value_string" => ("STRING", vec![], texts(&[a.s.clone().expect("text")])),
                "value_floats" => (
                    "FLOAT",
                    vec![a.floats.len() as i64],
                    a.floats.iter().flat_map(|x| x.to_le_bytes()).collect(),
                ),
                "value_ints" => (
                    "INT64",
                    vec![a.ints.len() as i64],
                    a.ints.iter().flat_map(|x| x.to_le_bytes()).collect(),
                ),
                "value_strings" => ("STRING", vec![a.strings.len() as i64], texts(&a.strings)),
                _ => continue,
            };
            all.push((outputs[0].clone(), name.to_owned(), dims, sha256(&bytes)));
        }
    });
    all
}

#[test]
fn golden_files_are_read_as_their_lists_say() {
    let mut checked = 0;
    for (stem, files, name, list) in formats() {
        if stem == REFUSED {
            let refused = files.try_open(&name).err().expect("no graph");
            assert_eq!(refused.kind(), ErrorKind::Malformed);
            continue;
        }
        let reader = files.open(&name);
        let rows = list["tensors"].as_array().expect("tensors");
        let is_scalar = |r: &&Json| r["where"].as_str().expect("where").contains(".value_");
        let found = tensors(&reader);
        let want: Vec<&Json> = rows.iter().filter(|r| !is_scalar(r)).collect();
        assert_eq!(found.len(), want.len(), "{stem}");
        for (f, w) in found.iter().zip(want) {
            assert_eq!(row(f), wanted(w), "{stem}: {w}");
            let place = w["where"].as_str().expect("where");
            let (attribute, sparse) = (f.stand == "attribute", f.stand == "sparse");
            assert_eq!(sparse, place.ends_with(".values") || place.ends_with(".indices"), "{stem}: {w}");
            assert_eq!(f.stand == "initializer", place.contains(".initializer[") && !sparse, "{stem}: {w}");
            let listed = w["name"].as_str().expect("name");
            assert!(f.path.contains(listed) || f.tensor.name == listed, "{stem}: {} is at {}", w, f.path);
            // Of constants within nodes only those are the model's tensors that can be weights, and those that are not here.
            let weight =
                !attribute || f.tensor.elem.dtype().is_some_and(DType::is_float) && !f.tensor.dims.is_empty();
            let texts = f.tensor.elem == Elem::STRING;
            assert_eq!(f.slot.is_some(), weight && !texts, "{stem}: {w}");
            if let Some(slot) = f.slot {
                index_row(&reader, slot, f);
                checked += 1;
            }
        }
        let want: BTreeMap<_, _> = rows
            .iter()
            .filter(is_scalar)
            .map(|r| (r["name"].as_str().expect("name").to_owned(), wanted(r)))
            .collect();
        let mut program = Program::clone(reader.program());
        let have: BTreeMap<_, _> =
            scalars(&mut program).into_iter().map(|(name, t, dims, sha)| (name, (t, dims, sha))).collect();
        assert_eq!(have, want, "{stem}");
        assert_eq!(further(&program, &list), list, "{stem}");
    }
    assert!(checked > 200, "{checked} tensors");
}

/// A tensor in the index: of its own type where there is one, and otherwise bytes.
fn index_row(reader: &OnnxReader, slot: usize, f: &Found) {
    const BYTES: [Elem; 6] = [Elem::C128, Elem::U4, Elem::I4, Elem::U2, Elem::I2, Elem::UNDEFINED];
    let spec = &reader.index().tensors[slot];
    let dims: Vec<i64> = spec.shape.dims().iter().map(|d| *d as i64).collect();
    let bits = f.tensor.elem.bits().expect("golden") * f.tensor.elements().expect("golden");
    if BYTES.contains(&f.tensor.elem) || !bits.is_multiple_of(8) {
        assert_eq!(
            (spec.encoding, dims),
            (Encoding::Plain(DType::U8), vec![f.bytes.len() as i64]),
            "{}",
            f.path
        );
    } else {
        let dtype = f.tensor.elem.dtype().expect("a type of the house");
        assert_eq!((spec.encoding, dims), (Encoding::Plain(dtype), f.tensor.dims.clone()), "{}", f.path);
    }
}

/// What the list says beside tensors, as the program has it: keys that are not there say nothing.
fn further(program: &Program, list: &Json) -> Json {
    let pairs = |all: &[Pair]| -> Json { all.iter().map(|p| (p.key.clone(), json!(p.value))).collect() };
    let g = &program.graph;
    let mut all = list.clone();
    for (key, value) in all.as_object_mut().expect("object") {
        *value = match key.as_str() {
            "ir_version" => json!(program.ir_version),
            "opset" => program.opsets.iter().map(|o| (o.domain.clone(), json!(o.version))).collect(),
            "producer" => json!([program.producer, program.producer_version]),
            "domain" => json!(program.domain),
            "model_version" => json!(program.model_version),
            "doc_string" => json!(program.doc),
            "metadata_props" => pairs(&program.metadata),
            "graph_metadata" => pairs(&g.metadata),
            "node_metadata" => g.nodes.iter().map(|n| (n.name.clone(), pairs(&n.metadata))).collect(),
            "tensor_metadata" => g
                .initializers
                .iter()
                .filter(|t| !t.metadata.is_empty())
                .map(|t| (t.name.clone(), pairs(&t.metadata)))
                .collect(),
            "quantization_annotation" => {
                g.annotations.iter().map(|a| (a.tensor.clone(), pairs(&a.parameters))).collect()
            }
            "update_binding" => pairs(&program.training[0].update_binding),
            // Tensors are compared one by one; files and their checksums are not what a program says.
            "tensors" | "files" | "sha1" => continue,
            other => panic!("{other} is not compared"),
        };
    }
    all
}

#[test]
fn metadata_of_the_file_are_the_models() {
    let reader = Files::golden("formats").open("metadata.onnx");
    let want = &json("formats/metadata.json")["metadata_props"];
    let have: Json = reader
        .index()
        .metadata
        .iter()
        .map(|(k, v)| (k.to_owned(), json!(v.as_str().expect("text"))))
        .collect();
    assert_eq!(&have, want);
}

/// Everything but whether an element is in the graph or beside it.
fn same(what: &str, a: &OnnxReader, b: &OnnxReader) {
    assert_eq!(bare(a), bare(b), "{what}");
    let strip = |r: &OnnxReader| -> Vec<Found> {
        tensors(r).into_iter().map(|f| Found { slot: None, ..f }).collect()
    };
    assert!(strip(a) == strip(b), "{what}: a tensor has changed");
}

/// Written in one file and in several, read again: the same.
fn round_trips(what: &str, reader: &OnnxReader) {
    let small = |bytes, tensors| ShardLimits { bytes, tensors };
    let ways = [
        (false, ShardLimits::default()),
        (true, ShardLimits::default()),
        (true, small(Some(1500), None)),
        (true, small(None, Some(1))),
    ];
    for (external, shards) in ways {
        let files = written(reader, external, shards);
        let again = files.open("model.onnx");
        let what = format!("{what}, external {external}, {shards:?}");
        same(&what, reader, &again);
        let large: Vec<_> =
            tensors(reader).into_iter().filter(|f| f.slot.is_some() && f.bytes.len() >= 1024).collect();
        assert_eq!(files.0.len() > 1, external && !large.is_empty(), "{what}");
        if shards.tensors == Some(1) {
            assert_eq!(files.0.len(), 1 + large.len(), "{what}");
        }
        // What is written twice is the same.
        assert!(files == written(&again, external, shards), "{what}: written otherwise the second time");
        assert_eq!(again.index().tensors.len(), files.open("model.onnx").index().tensors.len());
        aligned(&what, &again);
    }
}

/// Large tensors begin on pages, and others that lie beside the graph on cache lines.
fn aligned(what: &str, reader: &OnnxReader) {
    for (i, spec) in reader.index().tensors.iter().enumerate() {
        let (place, bytes) = (reader.place(i), spec.bytes().expect("size"));
        if place.file > 0 {
            let unit = if bytes >= 4096 { 4096 } else { 64 };
            assert!(place.offset.is_multiple_of(unit), "{what}: {} at {}", spec.name, place.offset);
        }
    }
}

#[test]
fn rewriting_golden_files_loses_nothing() {
    for (stem, files, name, _) in formats() {
        if stem != REFUSED {
            round_trips(&stem, &files.open(&name));
        }
    }
}

#[test]
fn unknown_fields_are_kept() {
    let files = Files::golden("formats");
    let reader = files.open("unknown-fields.onnx");
    let program = reader.program();
    let node = &program.graph.nodes[0];
    let tensor = &program.graph.initializers[0];
    let lists = [&program.unknown, &program.graph.unknown, &node.unknown, &tensor.unknown];
    for unknown in lists {
        assert!(unknown.windows(16).any(|w| w == b"\x0a\xff not a message"), "{unknown:?}");
    }
    let count = |bytes: &[u8]| bytes.windows(16).filter(|w| w == b"\x0a\xff not a message").count();
    let again = written(&reader, false, ShardLimits::default());
    assert_eq!(count(&again.0["model.onnx"]), count(&files.0["unknown-fields.onnx"]));
}

#[test]
fn rewriting_what_exporters_wrote_loses_nothing() {
    let mut bytewise = Vec::new();
    for name in listed("exports") {
        let files = Files::golden(&format!("exports/{name}"));
        let reader = files.open("model.onnx");
        round_trips(&name, &reader);
        let again = written(&reader, false, ShardLimits::default());
        if again.0["model.onnx"] == files.0["model.onnx"] {
            bytewise.push(name);
        }
    }
    println!("byte for byte: {bytewise:?}");
    for name in ["bert-torchscript", "llama-torchscript", "bert-optimum", "vit-torchscript"] {
        assert!(bytewise.iter().any(|n| n == name), "{name} is not written as it was read");
    }
}

#[test]
fn elements_without_a_type_of_the_house_go_beside_the_graph_as_well() {
    let large = |name: &str, elem: Elem, n: i64| {
        let bytes = elem.bytes(n as u64).expect("few");
        Tensor::raw(name, elem, &[n], (0..bytes).map(|i| (i * 7 % 251) as u8).collect::<Vec<_>>())
    };
    let mut program = Program { ir_version: 14, ..Program::default() };
    let all = [Elem::I4, Elem::U2, Elem::F4, Elem::F6E3M2, Elem::C128, Elem::F32];
    for (i, elem) in all.into_iter().enumerate() {
        program.graph.initializers.push(large(&format!("t{i}"), elem, 9001));
    }
    // Equal tensors are two.
    program.graph.initializers.push(large("again", Elem::F32, 9001));
    let constant = Attribute::tensor("value", large("", Elem::F16, 3000));
    let node = Node {
        outputs: vec!["c".into()],
        op: "Constant".into(),
        attributes: vec![constant],
        ..Node::default()
    };
    program.graph.nodes.push(node);
    let files = Files([("model.onnx".to_owned(), encoded(&program))].into());
    let reader = files.open("model.onnx");
    assert_eq!(reader.index().tensors.len(), 8);
    let bytes = |elem: Elem| elem.bytes(9001).expect("few");
    for (spec, elem) in reader.index().tensors.iter().zip(all) {
        assert_eq!(spec.bytes().expect("size"), bytes(elem));
    }
    round_trips("types", &reader);
    let mut found = tensors(&reader).into_iter();
    for elem in all {
        assert_eq!(found.next().expect("a tensor").tensor.elem, elem);
    }
}

/// A program without slots as its file.
fn encoded(program: &Program) -> Vec<u8> {
    use std::sync::Arc;
    use tensormill_model::{Format, MemoryAssets, Metadata, Model, WriteOptions};
    let mut program = program.clone();
    program.tensors_mut(|_, _, t| assert!(matches!(t.content, Content::Raw(_)) && t.slot.is_none()));
    let assets = Arc::new(MemoryAssets::default());
    let model =
        Model { tensors: Vec::new(), metadata: Metadata::new(), assets, program: Some(Arc::new(program)) };
    let checked = model.check(&tensormill_onnx::CAPABILITIES).expect("a model");
    let options =
        WriteOptions { file_name: "model.onnx".into(), shards: ShardLimits::default(), external: false };
    let layout = tensormill_onnx::FORMAT.layout(&checked, &options).expect("a layout");
    assert_eq!(layout.files.len(), 1);
    layout.files[0].header.clone()
}
