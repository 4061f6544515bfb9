//! Graphs that are quantized here and read back, and those that ONNX Runtime's quantizers wrote
//! (`golden/generators/onnx_quantized.py`). With `TENSORMILL_QUANTIZED` naming a folder, what is written goes there: then
//! `check_onnx_quantized.py` runs it.

#[path = "common/coding.rs"]
mod coding;
mod common;

use coding::Codes;
use common::{Files, fill, json, sha256, whole};
use serde_json::json;
use std::{collections::BTreeMap, sync::Arc};
use tensormill_graph::{
    Candidate, Content, Elem, Group, Origin, Part, Program, QuantizeError, Scheme, Tensor, Weight, WeightKind,
};
use tensormill_model::{Expr, Form, Format, MemoryAssets, Metadata, Model, ShardLimits, WriteOptions};
use tensormill_onnx::{CAPABILITIES, FORMAT, OnnxReader};
use tensormill_tensor::{DType, Encoding, Shape, decode_plain, encode_plain};

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

fn bytes(x: &[f32]) -> Vec<u8> {
    x.iter().flat_map(|x| x.to_le_bytes()).collect()
}

/// As `f16`.
fn halves(x: &[u8]) -> Vec<u8> {
    let mut out = vec![0; x.len() / 2];
    assert!(encode_plain(DType::F16, &floats(x), &mut out));
    out
}

/// `[rows, columns]` to `[columns, rows]`.
fn turned(x: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    (0..rows * columns).map(|i| x[i % rows * columns + i / rows]).collect()
}

/// A file of a program whose weights have these bytes.
fn write(mut program: Program, data: &[Vec<u8>]) -> Files {
    let mut tensors = vec![None; program.weights.len()];
    program.tensors(|_, _, t| {
        let Some(slot) = t.slot else { return };
        let (dtype, dims) = match t.dtype() {
            Some(d) => (d, t.dims.iter().map(|d| *d as u64).collect()),
            None => (DType::U8, vec![data[slot].len() as u64]),
        };
        assert_eq!(
            t.elem.bytes(t.elements().unwrap()),
            Some(data[slot].len() as u64),
            "{} {} {:?}",
            t.name,
            t.elem,
            t.dims
        );
        let form = Form::new(Shape::new(dims).expect("dimensions"), Encoding::Plain(dtype));
        let expr = Expr::Const { form, bytes: data[slot].clone().into() };
        tensors[slot] =
            Some(tensormill_model::Tensor::new(format!("{}.{slot}", t.name), expr).expect("name"));
    });
    let tensors: Vec<_> = tensors.into_iter().map(|t| t.expect("every weight is somewhere")).collect();
    program.weights = tensors.iter().map(|t| Weight { keep_type: true, ..Weight::plain(t.name()) }).collect();
    let assets = Arc::new(MemoryAssets::default());
    let model = Model { tensors, metadata: Metadata::new(), assets, program: Some(Arc::new(program)) };
    let checked = model.check(&CAPABILITIES).expect("can be written");
    let options =
        WriteOptions { file_name: "model.onnx".into(), shards: ShardLimits::default(), external: false };
    let layout = FORMAT.layout(&checked, &options).expect("can be written");
    fill(&layout, |i| data[i].clone())
}

/// A program whose weights are quantized by a plain coder, and the file of it.
fn quantized(
    reader: &OnnxReader,
    mut program: Program,
    choose: &dyn Fn(&Candidate) -> Option<Scheme>,
    half: bool,
) -> (Program, Files, Vec<String>) {
    let by_name: BTreeMap<&str, usize> =
        reader.program().weights.iter().enumerate().map(|(i, w)| (w.tensor.as_str(), i)).collect();
    let result = program.quantize(&|_| None, choose).expect("schemes are sound");
    if half {
        program.cast(Elem::F16, true);
    }
    program.check().unwrap_or_else(|e| panic!("{e}"));
    program.infer(&|_| None).unwrap_or_else(|e| panic!("{e}"));
    let mut declared = vec![None; program.weights.len()];
    program.tensors(|_, _, t| {
        if let Some(slot) = t.slot {
            declared[slot] = Some(t.clone());
        }
    });
    let part = |w: &Weight, t: &Tensor| {
        let from = by_name[w.tensor.as_str()];
        let bytes = whole(reader, from);
        let own = |bytes: Vec<u8>| if t.elem == Elem::F16 { halves(&bytes) } else { bytes };
        let Some(part) = w.part else { return own(bytes) };
        let (rows, columns) = (part.coding.rows as usize, part.coding.columns as usize);
        let x = floats(&bytes);
        let x = if w.transposed { turned(&x, columns, rows) } else { x };
        let made = own(Codes::of(part.coding, &x).bytes(part.part));
        assert_eq!(
            t.elem.bytes(t.elements().unwrap()),
            Some(made.len() as u64),
            "{} {part:?} {:?}",
            t.name,
            t.dims
        );
        made
    };
    let data: Vec<Vec<u8>> =
        program.weights.iter().zip(&declared).map(|(w, t)| part(w, t.as_ref().unwrap())).collect();
    let files = write(program.clone(), &data);
    (program, files, result.notes)
}

/// The program in floats that a file stands for, and the bytes of its weights.
fn dequantized(reader: &OnnxReader) -> (Program, Vec<Vec<u8>>) {
    let found = reader.program().dequantized().expect("something is quantized");
    assert_eq!(found.notes.iter().filter(|n| n.contains("stays")).count(), 0, "{:?}", found.notes);
    let numbers = |t: &Tensor| match (&t.content, t.slot) {
        (Content::Raw(bytes), _) => bytes.to_vec(),
        (_, Some(slot)) => whole(reader, slot),
        _ => panic!("{} has no elements", t.name),
    };
    let data = found.origins.iter().map(|origin| match origin {
        Origin::Weight(n) => whole(reader, *n),
        Origin::Encoded(e) => {
            let zeros = e.zero_points.as_ref().map(&numbers);
            let half = e.scales.elem == Elem::F16;
            let scales = numbers(&e.scales);
            let scales = if half {
                let mut x = vec![0f32; scales.len() / 2];
                assert!(decode_plain(DType::F16, &scales, &mut x));
                x
            } else {
                floats(&scales)
            };
            let x = Codes::read(e.coding, &numbers(&e.codes), &scales, zeros.as_deref()).values();
            let (rows, columns) = (e.coding.rows as usize, e.coding.columns as usize);
            let x = bytes(&if e.turned { turned(&x, rows, columns) } else { x });
            if half { halves(&x) } else { x }
        }
    });
    let data = data.collect();
    found.program.check().unwrap_or_else(|e| panic!("{e}"));
    found.program.infer(&|_| None).unwrap_or_else(|e| panic!("{e}"));
    (found.program, data)
}

/// Operators of a program with the number of their inputs, those within others too.
fn operators(program: &Program) -> Vec<String> {
    let mut all = Vec::new();
    program.clone().nodes_mut(|n| all.push(format!("{}/{}", n.op, n.inputs.len())));
    all.sort();
    all
}

#[test]
fn what_quantizers_wrote_is_read_as_floats() {
    let files = Files::golden("quantized");
    for (name, weights) in json("quantized/decoded.json").as_object().expect("a list") {
        let reader = files.open(&format!("{name}.onnx"));
        let (program, data) = dequantized(&reader);
        let mut found = BTreeMap::new();
        program.tensors(|_, _, t| {
            if let Some(slot) = t.slot.filter(|_| weights.get(&t.name).is_some()) {
                let hash = sha256(&data[slot]);
                found.insert(t.name.clone(), json!({"shape": t.dims, "sha256": hash}));
            }
        });
        assert_eq!(&serde_json::to_value(found).unwrap(), weights, "{name}");
        let left = operators(&program);
        let mut quantized =
            left.iter().filter(|o| o.contains("Integer") || o.contains("Bits") || o.contains("Bnb"));
        assert_eq!(quantized.next(), None, "{name}: {left:?}");
        if name != "static" {
            let dequantize = left.iter().any(|o| o.contains("Quantize"));
            assert!(!dequantize, "{name}: {left:?}");
            // The same operators as before, Gemm aside, which quantizers take apart.
            let plain = operators(files.open("plain-chain.onnx").program());
            let apart = |all: &[String]| -> Vec<String> {
                all.iter()
                    .filter(|o| !o.starts_with("Gemm") && !o.starts_with("MatMul") && !o.starts_with("Add"))
                    .cloned()
                    .collect()
            };
            assert_eq!(apart(&left), apart(&plain), "{name}");
        }
    }
}

/// Schemes by name.
fn schemes() -> Vec<(&'static str, Scheme)> {
    let blocks = |bits, zero_points| Scheme::Blocks { bits, block: 16, zero_points, accuracy: None };
    let linear = |elem, group, zero_points| Scheme::Dequantize { elem, group, zero_points };
    let dynamic = |elem, group, zero_points| Scheme::Dynamic { elem, group, zero_points };
    vec![
        ("nbits-4", blocks(4, false)),
        ("nbits-4-zero", blocks(4, true)),
        ("nbits-8", blocks(8, false)),
        ("nbits-8-zero", blocks(8, true)),
        ("nbits-2", blocks(2, false)),
        ("nbits-2-zero", blocks(2, true)),
        ("qdq-4", linear(Elem::I4, Group::Block(16), false)),
        ("qdq-4-zero", linear(Elem::U4, Group::Block(16), true)),
        ("qdq-4-row", linear(Elem::I4, Group::Row, false)),
        ("qdq-8", linear(Elem::I8, Group::Row, false)),
        ("qdq-8-zero", linear(Elem::U8, Group::Row, true)),
        ("qdq-8-whole", linear(Elem::U8, Group::Tensor, true)),
        ("qdq-8-block", linear(Elem::I8, Group::Block(16), false)),
        ("qdq-8-block-zero", linear(Elem::U8, Group::Block(16), true)),
        ("qdq-8-mixed", linear(Elem::I8, Group::Row, false)),
        ("dynamic", dynamic(Elem::I8, Group::Tensor, false)),
        ("dynamic-zero", dynamic(Elem::U8, Group::Tensor, true)),
        ("dynamic-row", dynamic(Elem::I8, Group::Row, false)),
        ("dynamic-row-zero", dynamic(Elem::U8, Group::Row, true)),
    ]
}

#[test]
fn what_is_quantized_reads_back() {
    let files = Files::golden("quantized");
    let out = std::env::var_os("TENSORMILL_QUANTIZED").map(std::path::PathBuf::from);
    for stem in ["chain", "tied", "conv", "old"] {
        let plain = files.open(&format!("plain-{stem}.onnx"));
        for (name, scheme) in schemes() {
            for (opset, half) in [(None, false), (Some(21), false), (None, true), (Some(21), true)] {
                let mut program = Program::clone(plain.program());
                if stem == "old" && (opset.is_some() || half) {
                    continue;
                }
                program.opsets[0].version = opset.unwrap_or(program.opsets[0].version);
                let version = opset.map_or(String::new(), |o| format!("-{o}"));
                let what = format!("{stem}-{name}{version}{}", if half { "-f16" } else { "" });
                // Kernels have no blocks.
                let choose = |c: &Candidate| {
                    let conv = c.kinds == [WeightKind::Conv];
                    let fits = !conv
                        || matches!(scheme, Scheme::Dequantize { group: Group::Row | Group::Tensor, .. });
                    // Tables and products each in their own way.
                    let mixed = Scheme::Dequantize { elem: Elem::U8, group: Group::Row, zero_points: true };
                    let other = name == "qdq-8-mixed" && !c.kinds.contains(&WeightKind::Embedding);
                    fits.then_some(if other { mixed } else { scheme })
                };
                let (program, written, _) = quantized(&plain, program, &choose, half);
                let reader = written.open("model.onnx");
                let parts =
                    program.weights.iter().filter(|w| w.part.is_some_and(|p| p.part == Part::Codes)).count();
                assert!(parts > 0, "{what}");
                let (back, data) = dequantized(&reader);
                let floats = write(back, &data);
                if let Some(folder) = &out {
                    std::fs::create_dir_all(folder).expect("folder");
                    std::fs::write(folder.join(format!("{what}.onnx")), &written.0["model.onnx"])
                        .expect("file");
                    std::fs::write(folder.join(format!("{what}.floats.onnx")), &floats.0["model.onnx"])
                        .expect("file");
                }
            }
        }
    }
}

/// Nodes of a graph by operator, with attributes, inputs and outputs; kinds of initializers by name.
fn structure(program: &Program) -> (Vec<String>, BTreeMap<String, String>) {
    let node = |n: &tensormill_graph::Node| {
        let ints: BTreeMap<&str, i64> =
            n.attributes.iter().filter_map(|a| Some((a.name.as_str(), a.i?))).collect();
        format!("{} {:?} {:?} > {:?} {ints:?}", n.op, n.name, n.inputs, n.outputs)
    };
    let mut nodes: Vec<String> = program.graph.nodes.iter().map(node).collect();
    nodes.sort();
    let kind = |t: &Tensor| (t.name.clone(), format!("{}{:?}", t.elem, t.dims));
    (nodes, program.graph.initializers.iter().map(kind).collect())
}

/// ONNX Runtime's quantizers leave `Gemm` as it is where they make `MatMulNBits`.
fn products_alone(scheme: Scheme) -> impl Fn(&Candidate) -> Option<Scheme> {
    move |c| {
        (!c.kinds.contains(&WeightKind::Gemm) && !c.kinds.contains(&WeightKind::Embedding)).then_some(scheme)
    }
}

#[test]
fn graphs_are_those_of_onnx_runtime() {
    let files = Files::golden("quantized");
    let plain = files.open("plain-chain.onnx");
    let blocks = |bits, zero_points| Scheme::Blocks { bits, block: 16, zero_points, accuracy: None };
    let same = [
        ("nbits-8-zero", blocks(8, true)),
        ("nbits-2", blocks(2, false)),
        ("nbits-4", blocks(4, false)),
        ("nbits-4-zero", blocks(4, true)),
    ];
    for (name, scheme) in same {
        let mut ours = Program::clone(plain.program());
        ours.quantize(&|_| None, &products_alone(scheme)).expect("sound");
        let theirs = files.open(&format!("{name}.onnx"));
        let (ours, theirs) = (structure(&ours), structure(theirs.program()));
        // Tables of bytes, which older structures of files can hold, too, in place of elements of four bits.
        let tables = |all: Vec<String>| -> Vec<String> {
            all.into_iter().filter(|n| !n.starts_with("Gather")).collect()
        };
        assert_eq!(tables(ours.0), tables(theirs.0), "{name}");
        let others = |all: BTreeMap<String, String>| -> BTreeMap<String, String> {
            all.into_iter().filter(|(n, _)| !n.starts_with("embeddings")).collect()
        };
        assert_eq!(others(ours.1), others(theirs.1), "{name}");
    }
    for (name, elem, zero_points) in [("qdq-4", Elem::I4, false), ("qdq-4-zero", Elem::U4, true)] {
        let scheme = Scheme::Dequantize { elem, group: Group::Block(16), zero_points };
        let mut ours = Program::clone(plain.program());
        ours.quantize(&|_| None, &products_alone(scheme)).expect("sound");
        let theirs = files.open(&format!("{name}.onnx"));
        // Names of nodes aside.
        let bare = |p: &Program| {
            let mut p = p.clone();
            p.nodes_mut(|n| n.name.clear());
            (p.opset(""), structure(&p))
        };
        assert_eq!(bare(&ours), bare(theirs.program()), "{name}");
    }
    for (name, scheme) in [
        ("dynamic", Scheme::Dynamic { elem: Elem::I8, group: Group::Tensor, zero_points: true }),
        ("dynamic-channel", Scheme::Dynamic { elem: Elem::U8, group: Group::Row, zero_points: true }),
    ] {
        let mut ours = Program::clone(plain.program());
        let own = |c: &Candidate| {
            let table = Scheme::Dynamic { elem: Elem::U8, group: Group::Tensor, zero_points: true };
            Some(if c.kinds.contains(&WeightKind::Embedding) { table } else { scheme })
        };
        ours.quantize(&|_| None, &own).expect("sound");
        let theirs = files.open(&format!("{name}.onnx"));
        // Operators, and initializers by type and dimensions: a table's rows are dequantized here before anything takes them, and
        // there are multiplied as they are.
        let mut ops = operators(theirs.program());
        ops.extend(["DequantizeLinear/3".to_owned(), "DynamicQuantizeLinear/1".to_owned()]);
        ops.sort();
        assert_eq!(operators(&ours), ops, "{name}");
        let names = |all: BTreeMap<String, String>| -> BTreeMap<String, String> {
            all.into_iter().map(|(n, k)| (n.replace(".MatMul.", "."), k)).collect()
        };
        assert_eq!(names(structure(&ours).1), names(structure(theirs.program()).1), "{name}");
    }
}

#[test]
fn versions_are_raised_where_the_graph_allows_it() {
    let files = Files::golden("quantized");
    let plain = files.open("plain-chain.onnx");
    let scheme = Scheme::Dequantize { elem: Elem::I4, group: Group::Block(16), zero_points: false };
    let mut program = Program::clone(plain.program());
    program.quantize(&|_| None, &|_| Some(scheme)).expect("nothing stands against it");
    assert_eq!((program.opset(""), program.ir_version), (Some(21), 10));
    // An operator that is gone since.
    let mut program = Program::clone(plain.program());
    program.opsets[0].version = 11;
    program.graph.nodes[3].op = "Softmax".to_owned();
    let before = program.clone();
    let e = program.quantize(&|_| None, &|_| Some(scheme)).expect_err("means something else");
    assert!(matches!(&e, QuantizeError::Opset { needed: 21, found: 11, .. }), "{e}");
    assert!(e.to_string().contains("opset 21") && e.to_string().contains("Softmax"), "{e}");
    assert_eq!(program, before);
    let wrong = Scheme::Blocks { bits: 3, block: 16, zero_points: false, accuracy: None };
    let e = program.quantize(&|_| None, &|_| Some(wrong)).expect_err("three bits");
    assert!(e.to_string().contains("2, 4 or 8"), "{e}");
    assert_eq!(program, before);
}
