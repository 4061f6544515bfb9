//! GPTQ, AWQ, bitsandbytes and HQQ against what the libraries wrote and decoded: golden/quantized.

mod common;

use common::{File, config, file};
use serde_json::{Map, Value as Json, json};
use std::{collections::BTreeMap, sync::Arc};
use tensormill_kernels::groups::{Code, Grid, Offset, Rule, ScaleType};
use tensormill_model::{Expr, Form, Model, Result, Tensor};
use tensormill_schemes::{
    Flavour, Made, Opened, Place, Quantize, Scheme, coded, layout, open,
    ops::{Numbers, Values},
    same_codes, scheme,
};
use tensormill_tensor::{DType, Encoding, Shape, decode_plain};
use tensormill_transforms::TensorImportance;

/// Folders of the layouts here, with what their weights are held as.
const SOURCES: [(&str, &str); 23] = [
    ("gptq-int4-g32", "GPTQ 4-bit"),
    ("gptq-int4-g32-v2", "GPTQ v2 4-bit"),
    ("gptq-int4-g32-asym", "GPTQ 4-bit"),
    ("gptq-int4-g32-act-order", "GPTQ 4-bit, act-order"),
    ("gptq-int4-g32-asym-act-order-v2", "GPTQ v2 4-bit, act-order"),
    ("gptq-int2-g32-asym", "GPTQ 2-bit"),
    ("gptq-int3-g32", "GPTQ 3-bit"),
    ("gptq-int3-g32-asym-v2", "GPTQ v2 3-bit"),
    ("gptq-int8-channel", "GPTQ 8-bit"),
    ("gptq-int8-g32-asym-v2", "GPTQ v2 8-bit"),
    ("awq-int4-g32", "AWQ 4-bit"),
    ("awq-int4-g96", "AWQ 4-bit"),
    ("bnb-nf4", "bitsandbytes nf4"),
    ("bnb-fp4", "bitsandbytes fp4"),
    ("bnb-nf4-double", "bitsandbytes nf4, double quantization"),
    ("bnb-nf4-storage-bf16", "bitsandbytes nf4"),
    ("bnb-int8", "bitsandbytes int8"),
    ("hqq-int4-g32", "HQQ 4-bit"),
    ("hqq-int4-g32-axis0", "HQQ 4-bit"),
    ("hqq-int4-g32-plain", "HQQ 4-bit"),
    ("hqq-int3-g32", "HQQ 3-bit"),
    ("hqq-int2-g32", "HQQ 2-bit"),
    ("hqq-int8-g32", "HQQ 8-bit"),
];

fn opened(source: &File, config: &Map<String, Json>) -> Result<Option<Opened>> {
    open(&source.model(), config, &|e| source.eval(e))
}

fn dtype(form: &Form) -> DType {
    match form.encoding {
        Encoding::Plain(d) => d,
        Encoding::Block(_) => panic!("blocks"),
    }
}

#[test]
fn values_are_those_that_the_libraries_decode() {
    for (name, what) in SOURCES {
        let source = file(name, "model.safetensors");
        let opened = opened(&source, &config(name)).unwrap().unwrap();
        // Rows of one group have no order of groups.
        assert!(opened.counts.keys().all(|k| what.starts_with(k.as_str())), "{name}: {:?}", opened.counts);
        assert!(opened.counts.contains_key(what), "{name}: {:?}", opened.counts);
        let expected = file(name, "expected.safetensors");
        assert!(!expected.tensors.is_empty());
        for (tensor, (form, bytes)) in &expected.tensors {
            let t = opened.model.tensor(tensor).unwrap_or_else(|| panic!("{name} lacks {tensor}"));
            assert_eq!(t.spec.shape, form.shape, "{name} {tensor}");
            let values = source.values(&t.expr, dtype(form)).unwrap();
            // The sign of zero is lost where zero points are subtracted, and is no value's.
            let numbers = |bytes: &[u8]| {
                let mut x = vec![0f32; form.shape.elements() as usize];
                assert!(decode_plain(dtype(form), bytes, &mut x));
                x
            };
            assert_eq!(numbers(&values), numbers(bytes), "{name} {tensor}");
        }
        // Nothing is left of the siblings, and everything else is there.
        let plain = file("source", "model.safetensors");
        let names: Vec<&str> = opened.model.tensors.iter().map(Tensor::name).collect();
        assert_eq!(names.len(), plain.tensors.len(), "{name}: {names:?}");
        assert!(names.iter().all(|n| plain.tensors.contains_key(*n)), "{name}: {names:?}");
    }
}

#[test]
fn versions_of_gptq_are_told_apart_by_values() {
    for name in
        ["gptq-int4-g32", "gptq-int4-g32-asym", "gptq-int3-g32-asym-v2", "gptq-int4-g32-asym-act-order-v2"]
    {
        let source = file(name, "model.safetensors");
        let mut config = config(name);
        let right = opened(&source, &config).unwrap().unwrap();
        let said = config["quantization_config"]["checkpoint_format"].clone();
        let other = if said == "gptq" { "gptq_v2" } else { "gptq" };
        config["quantization_config"]["checkpoint_format"] = other.into();
        let misled = opened(&source, &config).unwrap().unwrap();
        assert_eq!(misled.counts, right.counts, "{name}");
    }
}

#[test]
fn codes_in_planes_are_refused_by_name() {
    let name = "gptq-int5-g32";
    let error = opened(&file(name, "model.safetensors"), &config(name)).err().unwrap();
    assert!(error.to_string().contains("5-bit codes in bit planes"), "{error}");
}

/// What a golden folder was made with.
fn scheme_of(name: &str) -> Scheme {
    let four = |group, offset| Grid { code: Code::Int(4), group, rows: 1, offset, outer: false };
    let of = |layout, grid, rule, flavour| Scheme {
        name: "golden",
        about: "",
        layout,
        grid,
        scale: Some(ScaleType::F16),
        rule,
        flavour,
    };
    let gptq = |grid, flavour| of(layout::GPTQ, grid, Rule::Gptq, flavour);
    let bnb = |code, flavour| {
        let grid = Grid { code, ..four(64, Offset::None) };
        Scheme { scale: Some(ScaleType::F32), ..of(layout::BNB_4BIT, grid, Rule::BitsAndBytes, flavour) }
    };
    let int = |bits, grid| Grid { code: Code::Int(bits), ..grid };
    match name {
        "gptq-int4-g32" => gptq(four(32, Offset::Middle), Flavour::Usual),
        "gptq-int4-g32-v2" => gptq(four(32, Offset::Middle), Flavour::GptqV2),
        "gptq-int4-g32-asym" => gptq(four(32, Offset::Point), Flavour::Usual),
        "gptq-int3-g32" => gptq(int(3, four(32, Offset::Middle)), Flavour::Usual),
        "gptq-int3-g32-asym-v2" => gptq(int(3, four(32, Offset::Point)), Flavour::GptqV2),
        "gptq-int8-channel" => gptq(int(8, four(0, Offset::Middle)), Flavour::Usual),
        "gptq-int8-g32-asym-v2" => gptq(int(8, four(32, Offset::Point)), Flavour::GptqV2),
        "awq-int4-g32" => of(layout::AWQ, four(32, Offset::Point), Rule::Awq, Flavour::Usual),
        "awq-int4-g96" => of(layout::AWQ, four(96, Offset::Point), Rule::Awq, Flavour::Usual),
        "bnb-nf4" => bnb(Code::Nf4, Flavour::Usual),
        "bnb-fp4" => bnb(Code::Fp4, Flavour::Usual),
        "bnb-nf4-double" => bnb(Code::Nf4, Flavour::NestedScales),
        "bnb-int8" => Scheme { name: "golden", about: "", ..copy(scheme("bnb-int8").unwrap()) },
        other => panic!("{other}"),
    }
}

fn copy(s: &Scheme) -> Scheme {
    Scheme {
        name: s.name,
        about: s.about,
        layout: s.layout,
        grid: s.grid,
        scale: s.scale,
        rule: s.rule,
        flavour: s.flavour,
    }
}

fn place(t: &Tensor) -> Place {
    match t.name() {
        n if n.contains("_proj") => Place::Linear,
        n if n.contains("embed") => Place::Table,
        _ => Place::Other,
    }
}

fn quantize(model: Model, scheme: Scheme) -> Result<Made> {
    common::quantize(Box::leak(Box::new(scheme)), &place).rewrite(model)
}

const TARGETS: [&str; 13] = [
    "gptq-int4-g32",
    "gptq-int4-g32-v2",
    "gptq-int4-g32-asym",
    "gptq-int3-g32",
    "gptq-int3-g32-asym-v2",
    "gptq-int8-channel",
    "gptq-int8-g32-asym-v2",
    "awq-int4-g32",
    "awq-int4-g96",
    "bnb-nf4",
    "bnb-fp4",
    "bnb-nf4-double",
    "bnb-int8",
];

#[test]
fn tensors_are_those_that_the_libraries_write() {
    let mut differ = BTreeMap::new();
    for name in TARGETS {
        let source = file("source", "model.safetensors");
        let golden = file(name, "model.safetensors");
        let made = quantize(source.model(), scheme_of(name)).unwrap();
        let ours = source.written(&made.model);
        assert_eq!(
            ours.tensors.keys().collect::<Vec<_>>(),
            golden.tensors.keys().collect::<Vec<_>>(),
            "{name}"
        );
        for (tensor, (form, bytes)) in &golden.tensors {
            let (our_form, our_bytes) = &ours.tensors[tensor];
            if name == "bnb-nf4-double" && tensor.contains("quant_state") {
                // The same object, and spaces.
                let object = |bytes: &[u8]| serde_json::from_slice::<Json>(bytes).unwrap();
                assert_eq!(object(our_bytes), object(bytes), "{tensor}");
                assert!(our_bytes.starts_with(bytes) && our_bytes[bytes.len()..].iter().all(|b| *b == b' '));
                continue;
            }
            assert_eq!(our_form, form, "{name} {tensor}");
            let n = bytes.iter().zip(our_bytes).filter(|(a, b)| a != b).count();
            if n > 0 {
                differ.insert(format!("{name} {tensor}"), (n, bytes.len()));
            }
        }
    }
    assert!(differ.is_empty(), "bytes that differ: {differ:?}");
}

#[test]
fn configurations_are_those_that_the_libraries_write() {
    for name in TARGETS {
        let source = file("source", "model.safetensors");
        let made = quantize(source.model(), scheme_of(name)).unwrap();
        let mut golden = config(name)["quantization_config"].clone();
        let mut ours = made.config["quantization_config"].clone();
        if name.starts_with("gptq") {
            let meta = |c: &mut Json| c.as_object_mut().unwrap().remove("meta").unwrap();
            assert!(meta(&mut ours)["quantizer"][0].as_str().unwrap().starts_with("tensormill:"));
            meta(&mut golden);
            assert_eq!(made.files[0].name, "quantize_config.json");
            let beside: Json = serde_json::from_slice(&made.files[0].bytes).unwrap();
            assert_eq!(beside, made.config["quantization_config"]);
        }
        if name == "awq-int4-g96" {
            // AutoAWQ is told the last parts of names; the whole ones leave out no others.
            let out = ours["modules_to_not_convert"].take();
            assert_eq!(out.as_array().unwrap().len(), 7, "{out}");
            golden["modules_to_not_convert"].take();
        } else if name.starts_with("awq") {
            assert_eq!(ours["modules_to_not_convert"].take(), json!(["lm_head"]));
        }
        assert_eq!(ours, golden, "{name}");
    }
}

#[test]
fn what_is_written_is_read_back() {
    for name in TARGETS {
        let source = file("source", "model.safetensors");
        let made = quantize(source.model(), scheme_of(name)).unwrap();
        let ours = source.written(&made.model);
        let back = opened(&ours, &made.config).unwrap().unwrap();
        for (tensor, (form, bytes)) in &source.tensors {
            let t = back.model.tensor(tensor).unwrap();
            assert_eq!(t.spec.shape, form.shape);
            let values = ours.values(&t.expr, DType::F32).unwrap();
            let (mut a, mut b) = (vec![0f32; values.len() / 4], vec![0f32; values.len() / 4]);
            assert!(decode_plain(DType::F32, &values, &mut a) && decode_plain(dtype(form), bytes, &mut b));
            let largest = b.iter().fold(0f32, |m, v| m.max(v.abs()));
            let worst = a.iter().zip(&b).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
            assert!(worst <= largest * 0.4, "{name} {tensor}: {worst} of {largest}");
            if !tensor.contains("_proj") {
                assert_eq!(a, b, "{tensor}");
            }
        }
    }
}

/// What the bundles of a source's codes decode to, rounded as its values are.
fn bundles(source: &File, expr: &Expr, columns: usize) -> Option<(Grid, Vec<f32>)> {
    let found = coded(expr)?;
    let bundles = source.eval(&found.bundle).unwrap();
    let rows = bundles.chunks_exact(found.grid.bundle_bytes(columns));
    let mut out = Vec::new();
    for bundle in rows {
        let mut row = vec![0f32; columns];
        found.grid.decode_row(bundle, &mut row);
        out.extend(row);
    }
    Some((found.grid, out))
}

#[test]
fn codes_of_sources_are_seen_as_bundles_of_the_same_values() {
    for (name, _) in SOURCES {
        let source = file(name, "model.safetensors");
        let model = opened(&source, &config(name)).unwrap().unwrap().model;
        let tensor = "model.layers.0.mlp.down_proj.weight";
        let t = model.tensor(tensor).unwrap();
        let seen = bundles(&source, &t.expr, 96);
        // Rows of 96 are no whole blocks of 64, and what is multiplied last is no scale.
        if name.starts_with("bnb") {
            assert!(seen.is_none(), "{name}");
            continue;
        }
        let (grid, bundles) = seen.unwrap_or_else(|| panic!("{name}"));
        let symmetric = name.starts_with("gptq") && !name.contains("asym");
        assert_eq!(grid.offset, if symmetric { Offset::Middle } else { Offset::Point }, "{name}");
        let values = source.values(&t.expr, DType::F32).unwrap();
        let mut plain = vec![0f32; bundles.len()];
        assert!(decode_plain(DType::F32, &values, &mut plain));
        assert_eq!(bundles, plain, "{name}");
    }
}

#[test]
fn what_holds_the_same_codes_is_repacked() {
    let name = "gptq-int4-g32";
    let source = file(name, "model.safetensors");
    let plain = opened(&source, &config(name)).unwrap().unwrap().model;
    for target in ["gptq-int4-g32", "gptq-int4-g32-v2"] {
        let made = quantize(plain.clone(), scheme_of(target)).unwrap();
        assert!(made.used.iter().all(|u| u.repacked || u.scheme.is_none()), "{target}");
        let golden = file(target, "model.safetensors");
        let ours = source.written(&made.model);
        for (tensor, (form, bytes)) in &golden.tensors {
            assert_eq!(
                (&ours.tensors[tensor].0, &ours.tensors[tensor].1),
                (form, bytes),
                "{target} {tensor}"
            );
        }
    }
    // 4-bit normal floats whose blocks run through rows.
    let source = file("bnb-nf4", "model.safetensors");
    let plain = opened(&source, &config("bnb-nf4")).unwrap().unwrap().model;
    let made = quantize(plain.clone(), scheme_of("bnb-nf4")).unwrap();
    assert!(made.used.iter().all(|u| u.repacked || u.scheme.is_none()));
    let ours = source.written(&made.model);
    for (tensor, (_, bytes)) in source.tensors.iter().filter(|(n, _)| !n.contains("quant_state")) {
        assert_eq!(&ours.tensors[tensor].1, bytes, "{tensor}");
    }
    // Zero points that need not be whole are no integers.
    let source = file("hqq-int4-g32", "model.safetensors");
    let plain = opened(&source, &config("hqq-int4-g32")).unwrap().unwrap().model;
    let error = quantize(plain, copy(scheme("int4-g32-asym").unwrap())).err().unwrap();
    assert!(error.to_string().contains("already quantized"), "{error}");
    // Other codes are refused, whatever stands between.
    let source = file("bnb-int8", "model.safetensors");
    let plain = opened(&source, &config("bnb-int8")).unwrap().unwrap().model;
    let error = quantize(plain, scheme_of("bnb-nf4")).err().unwrap();
    assert!(error.to_string().contains("already quantized"), "{error}");
}

#[test]
fn as_many_groups_are_not_the_same_groups() {
    let grid = |group| Grid { code: Code::Int(4), group, rows: 1, offset: Offset::Middle, outer: false };
    let read = |tensor, columns, dtype| {
        let form = Form::new(Shape::new(vec![8, columns]).unwrap(), Encoding::Plain(dtype));
        Expr::Read { source: 0, tensor, form }
    };
    let weight = |group, columns: u64, groups| {
        let values = Values { numbers: Numbers::plain(grid(group), ScaleType::F16), to: DType::F32 };
        let inputs = vec![read(0, columns, DType::U8), read(1, groups, DType::F16)];
        Expr::Apply { op: Arc::new(values), inputs }
    };
    let same = |group, columns, groups, wanted| {
        let weight = weight(group, columns, groups);
        assert!(weight.form().is_ok());
        same_codes(&weight, grid(wanted), Some(ScaleType::F32), columns).is_some()
    };
    assert!(same(96, 192, 2, 96));
    assert!(!same(96, 192, 2, 128), "groups of 96 and 96, and of 128 and 64");
    assert!(same(96, 96, 1, 128) && same(96, 96, 1, 0), "one group either way");
}

/// A file with another tensor in place of one, or without it.
fn changed(name: &str, tensor: &str, to: Option<(Vec<u64>, DType, Vec<u8>)>) -> Result<Option<Opened>> {
    let mut source = file(name, "model.safetensors");
    let full = format!("model.layers.0.mlp.down_proj.{tensor}");
    assert!(source.tensors.remove(&full).is_some(), "{full}");
    if let Some((dims, dtype, bytes)) = to {
        let form = Form::new(Shape::new(dims).unwrap(), Encoding::Plain(dtype));
        source.tensors.insert(full, (form, bytes));
    }
    opened(&source, &config(name))
}

/// Folder, tensor, what stands in its place, what the error says.
type Case<'a> = (&'a str, &'a str, Option<(Vec<u64>, DType, Vec<u8>)>, &'a str);

#[test]
fn damaged_checkpoints_are_errors() {
    let zeros = |n: usize| vec![0u8; n];
    let state = |text: &str| Some((vec![text.len() as u64], DType::U8, text.as_bytes().to_vec()));
    let nf4 = "weight.quant_state.bitsandbytes__nf4";
    let cases: Vec<Case<'_>> = vec![
        ("gptq-int4-g32", "qzeros", None, "lacks qzeros"),
        ("gptq-int4-g32", "scales", None, "lacks scales"),
        ("gptq-int4-g32", "scales", Some((vec![3, 31], DType::F16, zeros(186))), "do not belong"),
        ("gptq-int4-g32", "scales", Some((vec![3, 32], DType::I32, zeros(384))), "is i32"),
        ("gptq-int4-g32", "qzeros", Some((vec![3, 5], DType::I32, zeros(60))), "do not belong"),
        ("gptq-int4-g32", "qweight", Some((vec![384], DType::I32, zeros(1536))), "should be a matrix"),
        ("gptq-int4-g32", "qweight", Some((vec![0, 32], DType::I32, zeros(0))), "should be a matrix"),
        (
            "gptq-int4-g32",
            "qweight",
            Some((vec![99, 32], DType::I32, zeros(12672))),
            "no codes of 96 columns",
        ),
        ("gptq-int4-g32", "g_idx", Some((vec![96], DType::I32, vec![9; 384])), "is of group"),
        ("gptq-int4-g32", "g_idx", Some((vec![0], DType::I32, zeros(0))), "no codes of 0 columns"),
        ("gptq-int4-g32", "g_idx", Some((vec![96], DType::F32, zeros(384))), "is f32"),
        ("awq-int4-g32", "qzeros", None, "lacks qzeros"),
        ("awq-int4-g32", "scales", Some((vec![0, 32], DType::F16, zeros(0))), "should be a matrix"),
        ("awq-int4-g32", "scales", Some((vec![3, 24], DType::F16, zeros(144))), "do not belong"),
        ("bnb-nf4", "weight.absmax", None, "lacks absmax"),
        ("bnb-nf4", "weight", None, "codes of a 4-bit weight are missing"),
        ("bnb-nf4", "weight.quant_map", Some((vec![16], DType::F32, zeros(64))), "a code book of its own"),
        ("bnb-nf4", "weight.absmax", Some((vec![47], DType::F32, zeros(188))), "for 48 blocks"),
        ("bnb-nf4", nf4, state("garbage"), "no JSON object"),
        ("bnb-nf4", nf4, state("[]"), "no JSON object"),
        ("bnb-nf4", nf4, state("{}"), "quant_type"),
        ("bnb-nf4", nf4, state(r#"{"quant_type":"nf4","blocksize":0,"shape":[32,96]}"#), "blocksize"),
        ("bnb-nf4", nf4, state(r#"{"quant_type":"nf4","blocksize":63,"shape":[32,96]}"#), "blocksize"),
        ("bnb-nf4", nf4, state(r#"{"quant_type":"nf4","blocksize":64,"shape":[32,0]}"#), "shape"),
        (
            "bnb-nf4",
            nf4,
            state(r#"{"quant_type":"nf4","blocksize":64,"shape":[32,97]}"#),
            "bytes of 4-bit codes",
        ),
        (
            "bnb-nf4",
            nf4,
            state(r#"{"quant_type":"nf4","blocksize":64,"shape":[4294967296,4294967296]}"#),
            "elements",
        ),
        ("bnb-nf4", nf4, Some((vec![1 << 15], DType::U8, zeros(1 << 15))), "larger than the state"),
        ("bnb-nf4-double", "weight.nested_absmax", None, "lacks nested_absmax"),
        ("bnb-nf4-double", "weight.nested_absmax", Some((vec![2], DType::F32, zeros(8))), "for 1 blocks"),
        ("bnb-nf4-double", "weight.absmax", Some((vec![48], DType::F32, zeros(192))), "nested scales of f32"),
        ("bnb-int8", "SCB", Some((vec![31], DType::F32, zeros(124))), "31] scales for 32 rows"),
        ("bnb-int8", "weight_format", Some((vec![], DType::U8, vec![2])), "tiles"),
        ("bnb-int8", "weight", None, "lacks weight"),
        ("hqq-int4-g32", "shape", None, "need their shape"),
        ("hqq-int4-g32", "shape", Some((vec![2], DType::I64, vec![255; 16])), "are matrices"),
        ("hqq-int4-g32", "packing", Some((vec![1], DType::U8, vec![b'x'])), "packed as"),
        ("hqq-int4-g32", "zero", Some((vec![95, 1], DType::BF16, zeros(190))), "zero points for"),
        ("hqq-int4-g32", "scale", Some((vec![0, 1], DType::BF16, zeros(0))), "scales and"),
        ("hqq-int4-g32", "W_q", Some((vec![48, 31], DType::U8, zeros(48 * 31))), "are not 48 x 32"),
        ("hqq-int4-g32", "quant_zero", Some((vec![], DType::U8, vec![1])), "with quant_zero"),
    ];
    for (name, tensor, to, wanted) in cases {
        let Err(error) = changed(name, tensor, to) else { panic!("{name} {tensor}: {wanted}") };
        assert!(error.to_string().contains(wanted), "{name} {tensor}: {error}");
    }
    for bits in [0, 64, -1, 5] {
        let mut c = config("gptq-int4-g32");
        c["quantization_config"]["bits"] = bits.into();
        // The index tells as much.
        assert!(opened(&file("gptq-int4-g32", "model.safetensors"), &c).is_ok());
        let mut source = file("gptq-int4-g32", "model.safetensors");
        source.tensors.retain(|n, _| !n.ends_with("g_idx"));
        assert!(opened(&source, &c).is_err(), "{bits}");
    }
    for version in ["gemv", "gemv_fast", "marlin"] {
        let mut c = config("awq-int4-g32");
        c["quantization_config"]["version"] = version.into();
        let error = opened(&file("awq-int4-g32", "model.safetensors"), &c).err().unwrap();
        assert!(error.to_string().contains(version), "{error}");
    }
}

#[test]
fn checkpoints_without_an_index_are_read() {
    let name = "gptq-int4-g32";
    let with = file(name, "model.safetensors");
    let mut without = file(name, "model.safetensors");
    without.tensors.retain(|n, _| !n.ends_with("g_idx"));
    let (a, b) =
        (opened(&with, &config(name)).unwrap().unwrap(), opened(&without, &config(name)).unwrap().unwrap());
    for t in &a.model.tensors {
        let other = b.model.tensor(t.name()).unwrap();
        assert_eq!(with.eval(&t.expr).unwrap(), without.eval(&other.expr).unwrap(), "{}", t.name());
    }
}

/// A model of one matrix, quantized to NF4 with a weight for each column's errors: its codes and scales.
fn weighed(dims: [u64; 2], x: &[f32], importance: Option<Vec<f32>>) -> [Vec<u8>; 2] {
    const WEIGHT: &str = "q_proj.weight";
    let form = Form::new(Shape::new(dims.to_vec()).unwrap(), Encoding::F32);
    let bytes = x.iter().flat_map(|x| x.to_le_bytes()).collect();
    let source = File { tensors: BTreeMap::from([(WEIGHT.to_owned(), (form, bytes))]) };
    let known = importance.map(|i| TensorImportance::new(i.into()));
    let importance = |_: &Tensor| Ok(known.clone());
    let quantize = Quantize { importance: &importance, ..common::quantize(scheme("nf4").unwrap(), &place) };
    let made = source.written(&quantize.rewrite(source.model()).unwrap().model);
    ["", ".absmax"].map(|part| made.tensors[&format!("{WEIGHT}{part}")].1.clone())
}

#[test]
fn importance_is_that_of_columns_where_blocks_run_on_from_row_to_row() {
    let mut state = 7u32;
    let mut next = move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    // Two rows fill a block; two fill three; no number of rows does, and the last block is short.
    for dims @ [rows, columns] in [[48, 32], [20, 96], [5, 96], [7, 10]] {
        let x: Vec<f32> = (0..rows * columns).map(|_| next().powi(3)).collect();
        let importance: Vec<f32> = (0..columns).map(|i| if i % 5 == 0 { 100.0 } else { 0.01 }).collect();
        let made = weighed(dims, &x, Some(importance.clone()));
        // One row of all weights, of which everything is known.
        let whole = importance.repeat(rows as usize);
        assert_eq!(made, weighed([1, rows * columns], &x, Some(whole)), "{dims:?}");
        assert_ne!(made, weighed(dims, &x, None), "{dims:?}");
    }
}

#[test]
fn rules_are_told_in_each_configuration() {
    let source = file("source", "model.safetensors");
    let rule = |pattern: &str, name: Option<&str>| common::rule(pattern, name.map(|n| scheme(n).unwrap()));
    let made = |name: &str, rules| {
        Quantize { rules, ..common::quantize(scheme(name).unwrap(), &place) }.rewrite(source.model())
    };
    let q = |m: Made| m.config["quantization_config"].clone();
    let down = "model.layers.0.mlp.down_proj";
    let c = q(made("gptq-int4-g32", vec![rule("down_proj", None)]).unwrap());
    assert_eq!(c["dynamic"], json!({ r"-:^model\.layers\.0\.mlp\.down_proj$": {} }));
    let c = q(made("nf4", vec![rule("down_proj", None)]).unwrap());
    assert_eq!(c["llm_int8_skip_modules"], json!([down, "lm_head"]));
    for (name, other) in [("nf4", "bnb-int8"), ("gptq-int4-g32", "nf4"), ("awq-int4-g64", "gptq-int4-g32")] {
        let error = made(name, vec![rule("down_proj", Some(other)), rule("o_proj", Some(name))]).err();
        // Where the layout takes nothing of this model, that is the error.
        let error = error.unwrap_or_else(|| panic!("{name} with {other}")).to_string();
        assert!(
            error.contains("cannot hold") || error.contains("both") || error.contains("do not fill"),
            "{error}"
        );
    }
}
