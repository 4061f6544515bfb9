//! Graphs of other exporters: all are taken for programs, and what is inferred of their values is what ONNX's own inference
//! finds (`golden/generators/onnx_operators.py`).

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};
use tensormill_graph::{Dim, Elem, Fact, Group, Program, QuantizeError, Scheme};
use tensormill_model::{Limits, Result};
use tensormill_onnx::open_in;
use tensormill_store::{LocalDir, LocalFile};

fn golden(path: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../golden/onnx")).join(path)
}

fn read(path: &PathBuf) -> Result<Program> {
    let dir = LocalDir::open(path.parent().expect("files are in folders"))?;
    let store = Arc::new(LocalFile::open(path)?);
    Ok(Program::clone(open_in(store, &dir, &Limits::default())?.program()))
}

fn exports() -> Vec<(String, Program)> {
    let mut names: Vec<String> = std::fs::read_dir(golden("exports"))
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .filter(|name| golden("exports").join(name).is_dir())
        .collect();
    names.sort();
    assert!(names.len() > 20, "{names:?}");
    let graph = |name: String| {
        let program =
            read(&golden(&format!("exports/{name}/model.onnx"))).unwrap_or_else(|e| panic!("{name}: {e}"));
        (name, program)
    };
    names.into_iter().map(graph).collect()
}

/// One value of `inferred.json`: its element type and dimensions as far as they are known.
fn expected(text: &str) -> Option<(i32, Option<Vec<Option<i64>>>)> {
    let (elem, dims) = text.split_once(':')?;
    let dims = match dims {
        "*" => None,
        "" => Some(Vec::new()),
        dims => Some(dims.split(',').map(|d| d.parse().ok()).collect()),
    };
    Some((elem.parse().unwrap(), dims))
}

#[test]
fn exporters_graphs_are_programs() {
    for (name, mut program) in exports() {
        program.check().unwrap_or_else(|e| panic!("{name}: {e}"));
        let inferred = program.infer(&|_| None);
        if name.ends_with("-genai") {
            // The builder declares its constants to have no dimensions, lists too.
            let e = inferred.expect_err("the declaration is wrong").to_string();
            let wanted = "is declared as int64[]; what is computed is int64[1]";
            assert!(e.starts_with("node 0 (Constant ") && e.ends_with(wanted), "{e}");
            program.graph.values.retain(|v| !v.name.starts_with("/model/constants/"));
            program.infer(&|_| None).unwrap_or_else(|e| panic!("{name}: {e}"));
        } else {
            inferred.unwrap_or_else(|e| panic!("{name}: {e}"));
        }
    }
}

#[test]
fn types_and_dimensions_are_those_of_onnx() {
    let text = std::fs::read_to_string(golden("inferred.json")).unwrap();
    let all: BTreeMap<String, String> = serde_json::from_str(&text).unwrap();
    let exports = exports();
    assert_eq!(all.len(), exports.len());
    let (mut values, mut more, mut unknown) = (0, 0, Vec::new());
    for (name, mut program) in exports {
        program.graph.values.clear();
        let inferred = program.infer(&|_| None).unwrap();
        let outputs: Vec<(&str, &str)> = (program.graph.nodes.iter())
            .flat_map(|n| n.outputs.iter().map(|o| (n.op.as_str(), o.as_str())))
            .filter(|(_, o)| !o.is_empty())
            .collect();
        let wanted: Vec<&str> = all[&name].split(' ').collect();
        assert_eq!(outputs.len(), wanted.len(), "{name}");
        for ((op, value), wanted) in outputs.into_iter().zip(wanted) {
            let fact = inferred.get(value).unwrap_or_else(|| panic!("{name}: {value} is not there"));
            let what = format!("{name}: {value} of {op} is {fact}, not {wanted}");
            values += 1;
            let Some((elem, dims)) = expected(wanted) else {
                // Operators that ONNX's own inference does not know.
                more += usize::from(fact.elem != Elem::UNDEFINED && fact.dims.is_some());
                if fact.dims.is_none() {
                    unknown.push(what);
                }
                continue;
            };
            assert_eq!(fact.elem.0, elem, "{what}");
            let (Some(dims), found) = (dims, &fact.dims) else { continue };
            let Some(found) = found else {
                unknown.push(what);
                continue;
            };
            assert_eq!(found.len(), dims.len(), "{what}");
            for (found, wanted) in found.iter().zip(&dims) {
                match (found, wanted) {
                    (Dim::Known(found), Some(wanted)) => assert_eq!(found, wanted, "{what}"),
                    // What ONNX knows, this does, too.
                    (_, Some(_)) => unknown.push(what.clone()),
                    _ => {}
                }
            }
        }
    }
    assert!(values > 4000, "{values} values");
    assert!(more > 50, "{more} values that ONNX's inference does not know");
    assert!(unknown.is_empty(), "{} values less known than by ONNX:\n{}", unknown.len(), unknown.join("\n"));
}

#[test]
fn files_of_every_form_are_programs() {
    let mut seen = 0;
    for entry in std::fs::read_dir(golden("formats")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "onnx") || path.ends_with("empty-graph-message.onnx") {
            continue;
        }
        // What the reader takes is its own tests' affair.
        let Ok(program) = read(&path) else { continue };
        seen += 1;
        program.check().unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        program.infer(&|_| None).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    }
    assert!(seen > 20, "{seen}");
}

#[test]
fn cast_graphs_are_programs() {
    for (name, program) in exports() {
        for (to, keep_io) in [(Elem::F16, false), (Elem::F16, true), (Elem::BF16, false), (Elem::F32, false)]
        {
            let mut program = program.clone();
            program.cast(to, keep_io);
            program.check().unwrap_or_else(|e| panic!("{name} as {to}: {e}"));
            program.graph.values.retain(|v| !v.name.starts_with("/model/constants/"));
            program.infer(&|_| None).unwrap_or_else(|e| panic!("{name} as {to}: {e}"));
        }
    }
}

#[test]
fn what_is_known_can_be_declared() {
    let fact = |value: &str| {
        let (_, program) = exports().into_iter().find(|(name, _)| name == "bert-optimum").unwrap();
        program.infer(&|_| None).unwrap().get(value).cloned()
    };
    let ids = fact("input_ids").unwrap();
    let info = ids.info("again").unwrap();
    assert_eq!((info.elem(), info.dims()), (Some(Elem::I64), ids.dims.clone()));
    assert_eq!(Fact::default().info("nothing"), None);
}

/// Quantized and back, every exporter's graph stays a program, and its parameters keep their names.
#[test]
fn quantized_graphs_are_programs() {
    let schemes = [
        Scheme::Blocks { bits: 4, block: 32, zero_points: true, accuracy: None },
        Scheme::Dequantize { elem: Elem::I8, group: Group::Row, zero_points: false },
        Scheme::Dequantize { elem: Elem::I4, group: Group::Block(32), zero_points: false },
        Scheme::Dynamic { elem: Elem::I8, group: Group::Row, zero_points: false },
    ];
    let (mut done, mut refused) = (0, 0);
    for (name, plain) in exports().into_iter().filter(|(name, _)| !name.ends_with("-genai")) {
        let parameters = |p: &Program| -> Vec<String> {
            let mut all: Vec<String> = p.recover().parameters.into_iter().map(|r| r.name).collect();
            all.sort();
            all
        };
        for scheme in schemes {
            let mut program = plain.clone();
            match program.quantize(&|_| None, &|_| Some(scheme)) {
                Ok(found) if !found.tensors.is_empty() => done += 1,
                Ok(_) => continue,
                Err(QuantizeError::Opset { needed, found, .. }) if needed > found => {
                    refused += 1;
                    continue;
                }
                Err(e) => panic!("{name}: {e}"),
            }
            let what = format!("{name} {scheme:?}");
            program.check().unwrap_or_else(|e| panic!("{what}: {e}"));
            program.infer(&|_| None).unwrap_or_else(|e| panic!("{what}: {e}"));
            let back = program.dequantized().unwrap_or_else(|| panic!("{what}: nothing is quantized"));
            back.program.check().unwrap_or_else(|e| panic!("{what}, back: {e}"));
            back.program.infer(&|_| None).unwrap_or_else(|e| panic!("{what}, back: {e}"));
            assert_eq!(back.origins.len(), back.program.weights.len(), "{what}");
            let (before, after) = (parameters(&plain), parameters(&back.program));
            let lost: Vec<&String> = before.iter().filter(|n| !after.contains(n)).collect();
            assert!(lost.is_empty(), "{what}: {lost:?}");
        }
    }
    assert!(done > 40 && refused < 20, "{done} graphs, {refused} refused");
}
