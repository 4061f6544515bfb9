//! compressed-tensors, ModelOpt and 8-bit floats against what the libraries themselves wrote and decode: `golden/quantized`.

mod common;

use common::{File, config, file, folder};
use serde_json::{Map, Value as Json, json};
use std::collections::BTreeMap;
use tensormill_model::{Cast, Expr, Form, Model, Result, Tensor};
use tensormill_schemes::{Fit, Made, Place, Quantize, Rule, open, scheme, schemes};
use tensormill_tensor::{DType, Encoding, Shape};

/// Folders with the number of their weights.
const SOURCES: &[(&str, &str, usize)] = &[
    ("ct-fp8-block", "8-bit floats, a scale per block", 7),
    ("ct-fp8-channel", "8-bit floats, a scale per row", 7),
    ("ct-fp8-naive", "8-bit floats, a scale per row", 7),
    ("ct-fp8-tensor", "8-bit floats, a scale per matrix", 7),
    ("ct-int3-g32", "pack-quantized 3-bit", 7),
    ("ct-int3-g32-asym", "pack-quantized 3-bit", 7),
    ("ct-int3-g32-v0.9.4", "pack-quantized 3-bit", 7),
    ("ct-int4-channel-asym", "pack-quantized 4-bit", 7),
    ("ct-int4-g32", "pack-quantized 4-bit", 7),
    ("ct-int4-g32-asym", "pack-quantized 4-bit", 7),
    ("ct-int8-channel", "pack-quantized 8-bit", 7),
    ("ct-mixed", "pack-quantized 4-bit", 3),
    ("ct-mixed", "8-bit floats, a scale per row", 4),
    ("ct-mxfp4a16", "MXFP4", 7),
    ("ct-mxfp8a16", "8-bit floats, a scale per group", 7),
    ("ct-nvfp4", "NVFP4", 7),
    ("ct-nvfp4a16", "NVFP4", 7),
    ("ct-w8a8", "8-bit integers, a scale per row", 7),
    ("modelopt-fp8", "8-bit floats, a scale per matrix", 7),
    ("modelopt-mxfp4", "MXFP4", 7),
    ("modelopt-nvfp4", "NVFP4", 7),
    ("fp8-block", "8-bit floats, a scale per block", 7),
    ("fp8-block-partial", "8-bit floats, a scale per block", 7),
    ("fp8-block-ue8m0", "8-bit floats, a scale per block", 7),
    ("fbgemm-fp8", "8-bit floats, a scale per row", 7),
];

fn opened(f: &File, config: &Map<String, Json>) -> Result<tensormill_schemes::Opened> {
    Ok(open(&f.model(), config, &|e| f.eval(e))?.expect("a quantized checkpoint"))
}

#[test]
fn values_are_those_that_libraries_decode() {
    for (name, what, count) in SOURCES {
        let f = file(name, "model.safetensors");
        let o = opened(&f, &config(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(o.counts.get(*what), Some(count), "{name}: {:?}", o.counts);
        let expected = file(name, "expected.safetensors");
        assert!(!expected.tensors.is_empty());
        for (weight, (form, bytes)) in &expected.tensors {
            let t = o.model.tensors.iter().find(|t| t.name() == weight).unwrap();
            assert_eq!(t.spec.shape, form.shape, "{name} {weight}");
            let Encoding::Plain(dtype) = form.encoding else { panic!() };
            let got = f.values(&t.expr, dtype).unwrap();
            let differ = got.chunks(dtype.bits() as usize / 8).zip(bytes.chunks(dtype.bits() as usize / 8));
            let differ = differ.filter(|(a, b)| a != b).count();
            assert_eq!(differ, 0, "{name} {weight}: of {}", form.shape.elements());
        }
        // Whatever is no weight is there as it was, but for what is about activations.
        let plain = file("source", "model.safetensors");
        let names = |t: &mut dyn Iterator<Item = &str>| {
            t.map(str::to_owned).collect::<std::collections::BTreeSet<_>>()
        };
        assert_eq!(
            names(&mut o.model.tensors.iter().map(Tensor::name)),
            names(&mut plain.tensors.keys().map(String::as_str)),
            "{name}"
        );
        let dropped = matches!(*name, "ct-fp8-tensor" | "ct-nvfp4" | "modelopt-fp8" | "modelopt-nvfp4");
        assert_eq!(!o.dropped.is_empty(), dropped, "{name}: {:?}", o.dropped);
    }
}

#[test]
fn casts_without_scales_are_plain() {
    let f = file("fp8-cast", "model.safetensors");
    let model = f.model();
    assert!(open(&model, &config("fp8-cast"), &|e| f.eval(e)).unwrap().is_none());
    for (weight, (_, bytes)) in &file("fp8-cast", "expected.safetensors").tensors {
        let t = model.tensors.iter().find(|t| t.name() == weight).unwrap();
        assert_eq!(&f.eval(&t.expr.clone().apply(Cast(DType::BF16))).unwrap(), bytes, "{weight}");
    }
}

fn place(t: &Tensor) -> Place {
    match (t.spec.shape.rank(), t.name().ends_with("_proj.weight")) {
        (2, true) => Place::Linear,
        (2, false) => Place::Table,
        _ => Place::Other,
    }
}

fn made(
    model: Model,
    name: &str,
    rules: &[(&str, &str)],
    fused: &dyn Fn(&str) -> Vec<String>,
) -> Result<Made> {
    let rules = rules
        .iter()
        .map(|(pattern, name)| Rule { pattern: regex::Regex::new(pattern).unwrap(), scheme: scheme(name) });
    Quantize {
        scheme: scheme(name).unwrap(),
        rules: rules.collect(),
        fit: Fit::Nearest,
        place: &place,
        fused,
        shared: vec!["lm_head".to_owned()],
        importance: &|_| Ok(None),
        allow_requantize: false,
    }
    .rewrite(model)
}

fn alone(module: &str) -> Vec<String> {
    vec![module.to_owned()]
}

/// The tensors of a model over a file.
fn tensors(f: &File, model: &Model) -> BTreeMap<String, (Form, Vec<u8>)> {
    let of = |t: &Tensor| {
        let form = Form::new(t.spec.shape.clone(), t.spec.encoding);
        (t.name().to_owned(), (form, f.eval(&t.expr).unwrap_or_else(|e| panic!("{}: {e}", t.name()))))
    };
    model.tensors.iter().map(of).collect()
}

fn assert_same(
    name: &str,
    got: &BTreeMap<String, (Form, Vec<u8>)>,
    want: &BTreeMap<String, (Form, Vec<u8>)>,
) {
    assert_eq!(got.keys().collect::<Vec<_>>(), want.keys().collect::<Vec<_>>(), "{name}");
    let mut wrong = Vec::new();
    for (tensor, (form, bytes)) in want {
        let (got_form, got) = &got[tensor];
        assert_eq!(got_form, form, "{name} {tensor}");
        if got != bytes {
            let differ = got.iter().zip(bytes).filter(|(a, b)| a != b).count();
            wrong.push(format!("{tensor}: {differ} of {} bytes", bytes.len()));
        }
    }
    assert!(wrong.is_empty(), "{name}:\n{}", wrong.join("\n"));
}

/// Schemes that are what a folder's library was asked for.
const TARGETS: &[(&str, &str)] = &[
    ("ct-int4-g32", "int4-g32"),
    ("ct-int4-g32-asym", "int4-g32-asym"),
    ("ct-int4-channel-asym", "int4-channel-asym"),
    ("ct-int8-channel", "int8"),
    ("ct-int3-g32", "int3-g32"),
    ("ct-int3-g32-asym", "int3-g32-asym"),
    ("ct-w8a8", "w8a8"),
    ("ct-fp8-channel", "fp8"),
    ("ct-fp8-naive", "fp8-weights"),
    ("ct-nvfp4a16", "nvfp4"),
    ("ct-mxfp4a16", "mxfp4"),
    ("ct-mxfp8a16", "mxfp8"),
];

#[test]
fn targets_are_the_librarys_bytes_and_configuration() {
    let source = file("source", "model.safetensors");
    for (name, scheme) in TARGETS {
        let made = made(source.model(), scheme, &[], &alone).unwrap();
        assert_eq!(
            Json::Object(made.config),
            json!({"quantization_config": config(name)["quantization_config"]})
        );
        assert_same(name, &tensors(&source, &made.model), &file(name, "model.safetensors").tensors);
    }
}
