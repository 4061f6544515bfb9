//! compressed-tensors, ModelOpt and 8-bit floats against what the libraries themselves wrote and decode: `golden/quantized`.

mod common;

use common::{File, config, file};
use serde_json::{Map, Value as Json, json};
use std::collections::BTreeMap;
use tensormill_kernels::groups::Grid;
use tensormill_model::{Cast, Form, Model, Result, Tensor};
use tensormill_schemes::{Made, Place, Quantize, Scheme, layout::is_about_caches, open, scheme};
use tensormill_tensor::{DType, Encoding, Shape, decode_plain};

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
            let element = dtype.bits() as usize / 8;
            // ModelOpt's table has no negative zero.
            let zero =
                |x: &[u8]| matches!(x[element - 1], 0 | 0x80) && x[..element - 1].iter().all(|b| *b == 0);
            let same = |a, b| a == b || (*name == "modelopt-nvfp4" && zero(a) && zero(b));
            let differ = got.chunks(element).zip(bytes.chunks(element)).filter(|(a, b)| !same(a, b)).count();
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

type Fused<'a> = &'a dyn Fn(&str) -> Vec<String>;

fn made(model: Model, name: &str, rules: &[(&str, &str)], fused: Fused<'_>) -> Result<Made> {
    made_by(model, scheme(name).unwrap(), rules, fused)
}

fn made_by(model: Model, by: &'static Scheme, rules: &[(&str, &str)], fused: Fused<'_>) -> Result<Made> {
    let rules = rules.iter().map(|(pattern, name)| common::rule(pattern, scheme(name))).collect();
    Quantize { rules, fused, ..common::quantize(by, &place) }.rewrite(model)
}

fn alone(module: &str) -> Vec<String> {
    vec![module.to_owned()]
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
        assert_same(name, &source.written(&made.model).tensors, &file(name, "model.safetensors").tensors);
    }
}

/// A preset with blocks of another size.
fn blocks(name: &str, rows: u32, columns: u32) -> &'static Scheme {
    let s = scheme(name).unwrap();
    let grid = Grid { rows, group: columns, ..s.grid };
    Box::leak(Box::new(Scheme { name: s.name, about: s.about, flavour: s.flavour, grid, ..*s }))
}

#[test]
fn blocks_and_whole_matrices_are_the_librarys() {
    let source = file("source", "model.safetensors");
    for (name, scheme, activations) in [
        ("ct-fp8-block", blocks("fp8-block", 64, 32), None),
        ("ct-fp8-tensor", scheme("fp8-tensor").unwrap(), Some("input_scale")),
        ("fp8-block", blocks("deepseek-fp8", 32, 32), None),
    ] {
        let made = made_by(source.model(), scheme, &[], &alone).unwrap();
        let mut want = file(name, "model.safetensors").tensors;
        want.retain(|n, _| activations.is_none_or(|a| !n.ends_with(a)));
        assert_same(name, &source.written(&made.model).tensors, &want);
        let (mut got, mut config) =
            (made.config["quantization_config"].clone(), config(name)["quantization_config"].clone());
        if let Some(group) = config.pointer_mut("/config_groups/group_0/input_activations") {
            // Ours are always found at run time.
            let ours = got.pointer_mut("/config_groups/group_0/input_activations").unwrap();
            if activations.is_some() {
                assert_eq!((&ours["dynamic"], &ours["strategy"]), (&json!(true), &json!("token")));
                *ours = group.clone();
            }
            assert_eq!(got, config, "{name}");
        } else {
            for key in ["quant_method", "weight_block_size", "modules_to_not_convert", "activation_scheme"] {
                assert_eq!(got[key], config[key], "{name} {key}");
            }
        }
    }
}

#[test]
fn casts_are_torchs() {
    let source = file("source", "model.safetensors");
    let made = made(source.model(), "fp8-cast", &[(r"\.mlp\.", "fp8-cast-e5m2")], &alone).unwrap();
    assert!(made.config.is_empty());
    assert_same(
        "fp8-cast",
        &source.written(&made.model).tensors,
        &file("fp8-cast", "model.safetensors").tensors,
    );
}

#[test]
fn mixtures_name_their_modules() {
    let source = file("source", "model.safetensors");
    let made = made(source.model(), "int4-g32", &[("self_attn.*_proj", "fp8")], &alone).unwrap();
    let mut got = made.config["quantization_config"].clone();
    assert_same(
        "ct-mixed",
        &source.written(&made.model).tensors,
        &file("ct-mixed", "model.safetensors").tensors,
    );
    // The same but for order and targets, of which each module fits those of one group.
    let want = &config("ct-mixed")["quantization_config"];
    for module in made.used.iter().filter(|u| u.scheme.is_some()) {
        let fits = got["config_groups"].as_object().unwrap().values().filter(|g| {
            g["targets"].as_array().unwrap().iter().any(|t| {
                let pattern = t.as_str().unwrap().strip_prefix("re:").expect("one layer stands for all");
                regex::Regex::new(pattern).unwrap().is_match(&module.module)
            })
        });
        let formats: Vec<&Json> = fits.map(|g| &g["format"]).collect();
        let format = if module.module.contains("self_attn") { "float-quantized" } else { "pack-quantized" };
        assert_eq!(formats, [&json!(format)], "{}", module.module);
    }
    let by_format = |config: &Json| -> BTreeMap<String, Json> {
        let groups = config["config_groups"].as_object().unwrap().values();
        groups.map(|g| (g["format"].to_string(), json!([g["weights"], g["input_activations"]]))).collect()
    };
    assert_eq!(by_format(&got), by_format(want));
    got["config_groups"] = want["config_groups"].clone();
    assert_eq!(&got, want);
    // And it is read back.
    let f = source.written(&made.model);
    assert_eq!(opened(&f, &made.config).unwrap().counts.len(), 2);
    // What one configuration cannot tell is refused.
    let error =
        self::made(source.model(), "int4-g32", &[("down_proj", "deepseek-fp8")], &alone).err().unwrap();
    assert!(error.to_string().contains("deepseek-fp8"), "{error}");
}

fn number(t: &(Form, Vec<u8>)) -> f32 {
    let (Encoding::Plain(dtype), mut x) = (t.0.encoding, [0f32]) else { panic!() };
    assert!(decode_plain(dtype, &t.1, &mut x));
    x[0]
}

#[test]
fn matrices_that_run_as_one_share_their_global_scale() {
    let source = file("source", "model.safetensors");
    let fused = |module: &str| match module.rsplit_once('.').unwrap() {
        (parent, "q_proj" | "k_proj" | "v_proj") => {
            ["q_proj", "k_proj", "v_proj"].map(|n| format!("{parent}.{n}")).to_vec()
        }
        (parent, "gate_proj" | "up_proj") => {
            ["gate_proj", "up_proj", "absent"].map(|n| format!("{parent}.{n}")).to_vec()
        }
        _ => vec![module.to_owned()],
    };
    let scale = |made: &Made, module: &str| {
        let name = format!("model.layers.0.{module}.weight_global_scale");
        number(&source.written(&made.model).tensors[&name])
    };
    let (own, shared) = (
        made(source.model(), "nvfp4", &[], &alone).unwrap(),
        made(source.model(), "nvfp4", &[], &fused).unwrap(),
    );
    for group in
        [&["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"][..], &["mlp.gate_proj", "mlp.up_proj"]]
    {
        let least = group.iter().map(|m| scale(&own, m)).fold(f32::INFINITY, f32::min);
        for m in group {
            assert_eq!(scale(&shared, m), least, "{m}");
        }
    }
    assert_eq!(scale(&shared, "mlp.down_proj"), scale(&own, "mlp.down_proj"));
}

#[test]
fn the_same_codes_are_kept() {
    for (name, scheme) in [
        ("ct-int4-g32", "int4-g32"),
        ("ct-int4-g32-asym", "int4-g32-asym"),
        ("ct-int3-g32", "int3-g32"),
        ("ct-w8a8", "w8a8"),
        ("ct-fp8-channel", "fp8"),
        ("ct-nvfp4a16", "nvfp4"),
        ("ct-mxfp4a16", "mxfp4"),
        ("ct-mxfp8a16", "mxfp8"),
    ] {
        let f = file(name, "model.safetensors");
        let plain = opened(&f, &config(name)).unwrap().model;
        let made = made(plain, scheme, &[], &alone).unwrap();
        assert!(made.used.iter().all(|u| u.repacked || u.scheme.is_none()), "{name}");
        assert_same(name, &f.written(&made.model).tensors, &f.tensors);
    }
    // The old words become dense ones.
    let f = file("ct-int3-g32-v0.9.4", "model.safetensors");
    let plain = opened(&f, &config("ct-int3-g32-v0.9.4")).unwrap().model;
    let made = made(plain, "int3-g32", &[], &alone).unwrap();
    assert_same("old", &f.written(&made.model).tensors, &file("ct-int3-g32", "model.safetensors").tensors);
}

#[test]
fn codes_pass_between_libraries() {
    // What multiplies in one divides in the other: values may differ in the last place, and codes do not.
    let f = file("modelopt-nvfp4", "model.safetensors");
    let plain = opened(&f, &config("modelopt-nvfp4")).unwrap().model;
    let got = f.written(&made(plain, "nvfp4", &[], &alone).unwrap().model).tensors;
    let module = "model.layers.0.mlp.down_proj";
    assert_eq!(got[&format!("{module}.weight_packed")].1, f.tensors[&format!("{module}.weight")].1);
    assert_eq!(got[&format!("{module}.weight_scale")], f.tensors[&format!("{module}.weight_scale")]);
    let outer = number(&f.tensors[&format!("{module}.weight_scale_2")]);
    assert_eq!(number(&got[&format!("{module}.weight_global_scale")]), 1.0 / outer);
    // Other codes are not made of codes unless that is asked for.
    let f = file("ct-int4-g32", "model.safetensors");
    let plain = opened(&f, &config("ct-int4-g32")).unwrap().model;
    let error = made(plain, "fp8", &[], &alone).err().unwrap();
    assert!(error.to_string().contains("already quantized"), "{error}");
}

/// What is said of a checkpoint after a change.
fn complaint(name: &str, change: impl Fn(&mut File, &mut Map<String, Json>)) -> String {
    let (mut f, mut c) = (file(name, "model.safetensors"), config(name));
    change(&mut f, &mut c);
    match open(&f.model(), &c, &|e| f.eval(e)) {
        Ok(_) => panic!("{name} opened"),
        Err(e) => format!("{e:?} {e}"),
    }
}

#[test]
fn lies_are_told_by_name() {
    const DOWN: &str = "model.layers.0.mlp.down_proj";
    let of = |n: &str| format!("{DOWN}.{n}");
    let shape = |f: &mut File, name: &str, dims: &[u64], dtype: DType| {
        let t = f.tensors.get_mut(name).unwrap();
        t.0 = Form::new(Shape::new(dims.to_vec()).unwrap(), Encoding::Plain(dtype));
        t.1.resize(dims.iter().product::<u64>() as usize * dtype.bits() as usize / 8, 0);
    };
    for missing in ["weight_shape", "weight_scale"] {
        let said = complaint("ct-int4-g32", |f, _| drop(f.tensors.remove(&of(missing))));
        assert!(said.contains(&of(missing)), "{said}");
    }
    for lie in [[32i64, 97], [33, 96], [32, -1], [32, 0], [32, i64::MAX], [i64::MAX, i64::MAX]] {
        let said = complaint("ct-int4-g32", |f, _| {
            f.tensors.get_mut(&of("weight_shape")).unwrap().1 =
                lie.iter().flat_map(|n| n.to_le_bytes()).collect();
        });
        assert!(said.contains(DOWN), "{lie:?}: {said}");
    }
    let said = complaint("ct-int4-g32", |f, _| shape(f, &of("weight_shape"), &[1 << 20], DType::I64));
    assert!(said.contains(&of("weight_shape")), "{said}");
    for dims in [&[32, 2][..], &[0, 3], &[32, 0], &[96]] {
        if dims != [96] {
            let said = complaint("ct-int4-g32", |f, _| shape(f, &of("weight_scale"), dims, DType::BF16));
            assert!(said.contains(&of("weight_scale")), "{said}");
        }
    }
    let said = complaint("ct-int4-g32", |f, _| shape(f, &of("weight_scale"), &[32, 3], DType::I64));
    assert!(said.contains(&of("weight_scale")), "{said}");
    let said = complaint("ct-int4-g32-asym", |f, _| shape(f, &of("weight_zero_point"), &[3, 3], DType::I32));
    assert!(said.contains(&of("weight_zero_point")), "{said}");
    let said = complaint("ct-int4-g32", |f, _| shape(f, &of("weight_packed"), &[32, 12], DType::F32));
    assert!(said.contains(&of("weight_packed")), "{said}");
    let said = complaint("ct-int4-g32", |f, _| shape(f, &of("weight_packed"), &[0, 12], DType::I32));
    assert!(said.contains(&of("weight_packed")), "{said}");
    for (bits, group) in [
        (json!(0), json!(32)),
        (json!(9), json!(32)),
        (json!(4), json!(0)),
        (json!("4"), json!(32)),
        (json!(-4), json!(32)),
        (json!(4), json!(1u64 << 40)),
    ] {
        let said = complaint("ct-int4-g32", |_, c| {
            let weights = &mut c["quantization_config"]["config_groups"]["group_0"]["weights"];
            (weights["num_bits"], weights["group_size"]) = (bits.clone(), group.clone());
        });
        assert!(said.contains("config.json"), "{bits} {group}: {said}");
    }
    for format in ["marlin-24", "sparse-24-bitmask"] {
        let said = complaint("ct-int4-g32", |_, c| c["quantization_config"]["format"] = json!(format));
        assert!(said.contains(format), "{said}");
    }
    let said = complaint("ct-nvfp4a16", |f, _| drop(f.tensors.remove(&of("weight_global_scale"))));
    assert!(said.contains(&of("weight_global_scale")), "{said}");
    let said = complaint("ct-nvfp4a16", |f, _| shape(f, &of("weight_scale"), &[32, 5], DType::F8E4M3));
    assert!(said.contains(&of("weight_scale")), "{said}");
    let said = complaint("ct-fp8-block", |f, _| shape(f, &of("weight_scale"), &[1, 2], DType::BF16));
    assert!(said.contains(&of("weight_scale")), "{said}");
    let said = complaint("ct-fp8-channel", |f, _| drop(f.tensors.remove(&of("weight"))));
    assert!(said.contains(&of("weight")), "{said}");
    let said = complaint("fp8-block", |f, _| drop(f.tensors.remove(&of("weight"))));
    assert!(said.contains(&of("weight")), "{said}");
    for size in [json!([0, 128]), json!([128]), json!("x"), json!([128, 128, 2])] {
        let said =
            complaint("fp8-block", |_, c| c["quantization_config"]["weight_block_size"] = size.clone());
        assert!(said.contains("config.json"), "{size}: {said}");
    }
    let said = complaint("modelopt-nvfp4", |f, _| drop(f.tensors.remove(&of("weight_scale_2"))));
    assert!(said.contains(&of("weight_scale_2")), "{said}");
}

/// A ModelOpt folder's file and configuration, changed.
fn modelopt(
    name: &str,
    change: impl FnOnce(&mut File, &mut Map<String, Json>),
) -> Result<(tensormill_schemes::Opened, File)> {
    let (mut f, mut c) = (file(name, "model.safetensors"), config(name));
    change(&mut f, &mut c);
    Ok((opened(&f, &c)?, f))
}

fn one(x: f32) -> (Form, Vec<u8>) {
    (Form::new(Shape::new(vec![]).unwrap(), Encoding::F32), x.to_le_bytes().to_vec())
}

#[test]
fn modelopt_has_groups_that_share_powers_of_two() {
    // The same tensors as compressed-tensors has them.
    let name = "ct-mxfp8a16";
    let (o, f) = modelopt(name, |_, c| {
        c["quantization_config"] = json!({ "quant_method": "modelopt", "quant_algo": "MXFP8" });
    })
    .unwrap();
    assert_eq!((o.kind, o.counts.get("8-bit floats, a scale per group")), ("ModelOpt", Some(&7)));
    for (weight, (form, bytes)) in &file(name, "expected.safetensors").tensors {
        let t = o.model.tensor(weight).unwrap();
        let Encoding::Plain(dtype) = form.encoding else { panic!() };
        assert_eq!(&f.values(&t.expr, dtype).unwrap(), bytes, "{weight}");
    }
}

#[test]
fn scales_of_caches_are_left_out() {
    const ATTENTION: &str = "model.layers.0.self_attn";
    for name in ["modelopt-fp8", "modelopt-nvfp4"] {
        let (o, _) = modelopt(name, |f, _| {
            for of in ["k_proj.k_scale", "v_proj.v_scale", "k_proj.k_bias", "v_proj.v_bias"] {
                f.tensors.insert(format!("{ATTENTION}.{of}"), one(0.25));
            }
            // A bias of another model.
            f.tensors.insert(format!("{ATTENTION}.v_bias"), one(0.25));
        })
        .unwrap();
        let caches: Vec<&String> = o.dropped.iter().filter(|n| is_about_caches(n)).collect();
        assert_eq!((caches.len(), o.dropped.len()), (4, 7 + 4), "{name}: {:?}", o.dropped);
        assert!(
            o.dropped.iter().all(|n| is_about_caches(n) || n.ends_with(".input_scale")),
            "{:?}",
            o.dropped
        );
        assert!(o.model.tensor(&format!("{ATTENTION}.v_bias")).is_some(), "{name}");
        assert!(o.model.tensors.iter().all(|t| !t.name().contains("_scale")), "{name}");
    }
}

#[test]
fn integers_that_modelopt_packs_are_refused_by_name() {
    let e = modelopt("modelopt-mxfp4", |f, _| {
        for (name, (form, bytes)) in &mut f.tensors {
            if name.ends_with(".weight_scale") {
                (*form, *bytes) = (
                    Form::new(form.shape.clone(), Encoding::Plain(DType::BF16)),
                    bytes.iter().flat_map(|b| [0, *b]).collect(),
                );
            }
        }
    })
    .err()
    .expect("scales of 16 bits");
    assert!(e.to_string().contains("4-bit integers") && e.to_string().contains(".weight"), "{e}");
}

#[test]
fn act_order_takes_each_columns_group() {
    let name = "ct-int4-g32";
    let module = "model.layers.0.mlp.down_proj";
    let mut f = file(name, "model.safetensors");
    // Columns 0 and 40 change places, with their groups.
    let index: Vec<i32> = (0..96)
        .map(|i| match i {
            0 => 1,
            40 => 0,
            i => i / 32,
        })
        .collect();
    let form = Form::new(Shape::new(vec![96]).unwrap(), Encoding::Plain(DType::I32));
    f.tensors.insert(
        format!("{module}.weight_g_idx"),
        (form, index.iter().flat_map(|i| i.to_le_bytes()).collect()),
    );
    let packed = &mut f.tensors.get_mut(&format!("{module}.weight_packed")).unwrap().1;
    for row in packed.chunks_exact_mut(48) {
        let (a, b) = (row[0] & 15, row[20] & 15);
        (row[0], row[20]) = (row[0] & 0xf0 | b, row[20] & 0xf0 | a);
    }
    let o = opened(&f, &config(name)).unwrap();
    let t = o.model.tensors.iter().find(|t| t.name() == format!("{module}.weight")).unwrap();
    let got = f.values(&t.expr, DType::BF16).unwrap();
    let mut want = file(name, "expected.safetensors").tensors[&format!("{module}.weight")].1.clone();
    for row in want.chunks_exact_mut(192) {
        (0..2).for_each(|i| row.swap(i, 80 + i));
    }
    assert_eq!(got, want);
}
