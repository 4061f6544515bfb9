//! Every folder of `golden/quantized`, converted to GGUF, against the manifest of what llama.cpp's converter makes of it; and what
//! becomes of quantized weights on other ways.

use serde_json::Value as Json;
use std::{collections::BTreeMap, fs, path::Path, sync::atomic::AtomicBool};
use tensormill_core::{
    DType, compare,
    convert::Target,
    job::{self, Job, Variant},
};
use tensormill_tensor::{decode_plain, encode_plain};
use tensormill_tests::{Manifest, golden};

/// Pre-tokenizers that small vocabularies are not recognized by.
const PRE: &[(&str, &str)] = &[("gpt-oss-mxfp4", "gpt-4o")];

/// Where the peer is wrong: it lets zero points of GPTQ's first format that were stored as the largest code, which stands for
/// zero, become one more than that.
const WRONG: &[(&str, &str)] =
    &[("gptq-int2-g32-asym", "blk.0.ffn_up.weight"), ("gptq-int2-g32-asym", "blk.0.attn_v.weight")];

/// What the peer made of a folder; `None` where it refuses it.
fn expected(folder: &Path) -> Option<Json> {
    let bytes = fs::read(folder.join("llama_cpp.json")).ok()?;
    let manifest: Json = serde_json::from_slice(&bytes).expect("manifest is JSON");
    manifest.get("refused").is_none().then_some(manifest)
}

/// The folder with the tokenizer that the peer had beside the model.
fn with_tokenizer(folder: &Path, to: &Path) {
    fs::create_dir_all(to).expect("folder");
    let copy = |from: &Path, file: &str| fs::copy(from.join(file), to.join(file)).expect("copies");
    for file in ["config.json", "hf_quant_config.json", "model.safetensors", "tokenizer.json"] {
        if folder.join(file).exists() {
            copy(folder, file);
        }
    }
    let own = folder.join("tokenizer.json").exists();
    let from = if own { folder.to_owned() } else { golden("quantized/source") };
    copy(&from, "tokenizer_config.json");
    if !own {
        copy(&from, "tokenizer.model");
    }
}

#[test]
fn every_quantized_folder_converts_to_the_peers_bytes() {
    let (mut checked, mut wrong) = (0, Vec::new());
    let mut folders: Vec<_> = fs::read_dir(golden("quantized"))
        .expect("golden folders")
        .map(|e| e.expect("lists").path())
        .collect();
    folders.sort();
    for folder in folders.iter().filter(|f| f.is_dir()) {
        let name = folder.file_name().expect("name").to_string_lossy().into_owned();
        let Some(expected) = expected(folder) else { continue };
        checked += 1;
        let scratch = tempfile::tempdir().expect("scratch folder");
        let source = scratch.path().join(&name);
        with_tokenizer(folder, &source);
        let mut job = Job::new(&source, scratch.path(), "golden");
        job.pre = PRE.iter().find(|(folder, _)| *folder == name).map(|(_, pre)| (*pre).to_owned());
        job.variants = vec![Variant::new("out", "out.gguf", Target::Lossless)];
        if let Err(e) = job::plan(job).and_then(|planned| planned.run(&(), &AtomicBool::new(false))) {
            wrong.push(format!("{name}: {e}"));
            continue;
        }
        let differences = Manifest::of(&scratch.path().join("out.gguf"))
            .differences(&expected, &["tensormill.", "general.quantized_by"]);
        let known = |d: &String| WRONG.iter().any(|(f, t)| *f == name && d.contains(t));
        assert_eq!(
            differences.iter().filter(|d| known(d)).count(),
            WRONG.iter().filter(|(f, _)| *f == name).count()
        );
        wrong.extend(differences.into_iter().filter(|d| !known(d)).map(|d| format!("{name}: {d}")));
    }
    assert!(checked >= 20, "{checked} folders");
    assert!(wrong.is_empty(), "{} differences in {checked} folders:\n{}", wrong.len(), wrong.join("\n"));
}

/// Values by tensor of a safetensors file of F32 and BF16.
fn values(path: &Path) -> BTreeMap<String, (DType, Vec<f32>)> {
    let bytes = fs::read(path).expect("reads");
    let n = 8 + u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes")) as usize;
    let header: Json = serde_json::from_slice(&bytes[8..n]).expect("header");
    let tensors = header.as_object().expect("object").iter().filter(|(name, _)| *name != "__metadata__");
    let of = |t: &Json| {
        let at = |i: usize| n + t["data_offsets"][i].as_u64().expect("offset") as usize;
        let (dtype, width) = match t["dtype"].as_str().expect("type") {
            "F32" => (DType::F32, 4),
            "F16" => (DType::F16, 2),
            _ => (DType::BF16, 2),
        };
        let mut x = vec![0f32; (at(1) - at(0)) / width];
        assert!(decode_plain(dtype, &bytes[at(0)..at(1)], &mut x));
        (dtype, x)
    };
    tensors.map(|(name, t)| (name.clone(), of(t))).collect()
}

/// Converts to one file, with what should be said; gives that, or what is wrong.
fn converted(
    source: &Path,
    to: &Path,
    file: &str,
    target: Target,
    change: impl FnOnce(&mut Variant),
) -> Result<Vec<String>, String> {
    let mut job = Job::new(source, to, "test");
    job.allow_loss = true;
    job.create_folder = true;
    let mut v = Variant::new("v", file, target);
    v.side_files = Path::new(file).extension().is_none_or(|e| e != "gguf");
    change(&mut v);
    job.variants = vec![v];
    let done = job::plan(job).and_then(|planned| planned.run(&(), &AtomicBool::new(false)));
    done.map(|d| d.plan.job.notes).map_err(|e| format!("{} to {file}: {e}", source.display()))
}

fn convert(source: &Path, to: &Path, file: &str, target: Target) -> Vec<String> {
    converted(source, to, file, target, |_| ()).unwrap_or_else(|e| panic!("{e}"))
}

fn recipe(name: &str) -> Target {
    Target::Recipe(name.to_owned())
}

#[test]
fn codes_pass_through_blocks_without_loss() {
    // A checkpoint, how its GGUF file is made, the blocks that weights must have there, and a scheme that wants their codes.
    for (name, target, block, scheme) in [
        ("gptq-int4-g32", recipe("Q4_0"), "Q4_0", Some("int4-g32")),
        ("gptq-int4-g32", recipe("Q8_0"), "Q8_0", None),
        ("mlx-mxfp4", Target::Lossless, "MXFP4", Some("mlx-mxfp4")),
        ("ct-mxfp4a16", Target::Lossless, "MXFP4", Some("mxfp4")),
    ] {
        let scratch = tempfile::tempdir().expect("scratch folder");
        let source = scratch.path().join("source");
        with_tokenizer(&golden("quantized").join(name), &source);
        convert(&source, scratch.path(), "out.gguf", target);
        let gguf = scratch.path().join("out.gguf");
        let made = Manifest::of(&gguf);
        let down = made.tensors.iter().find(|t| t[0] == "blk.0.ffn_down.weight").expect("a tensor");
        assert_eq!(down[1], block, "{name}");
        let expected = values(&golden("quantized").join(name).join("expected.safetensors"));
        let check = |folder: &Path, what: &str| {
            let got = values(&folder.join("model.safetensors"));
            for (tensor, (dtype, want)) in &expected {
                // The libraries' values are rounded to the type that their layers have.
                let mut x = got[tensor].1.clone();
                let mut bytes = vec![0; x.len() * dtype.bits() as usize / 8];
                assert!(encode_plain(*dtype, &x, &mut bytes) && decode_plain(*dtype, &bytes, &mut x));
                assert_eq!(&x, want, "{name} {what} {tensor}");
            }
        };
        convert(&gguf, &scratch.path().join("f32"), "model.safetensors", Target::Dtype(DType::F32));
        check(&scratch.path().join("f32"), "decoded");
        let Some(scheme) = scheme else { continue };
        let again = scratch.path().join("again");
        let notes = convert(&gguf, &again, "model.safetensors", recipe(scheme));
        assert!(notes.iter().any(|n| n.contains("keep the codes")), "{name}: {notes:?}");
        convert(&again, &scratch.path().join("back"), "model.safetensors", Target::Dtype(DType::F32));
        check(&scratch.path().join("back"), scheme);
    }
}

#[test]
fn experts_of_gpt_oss_come_back() {
    const FILE: &str = "model.safetensors";
    let scratch = tempfile::tempdir().expect("scratch folder");
    let at = |name: &str| scratch.path().join(name);
    with_tokenizer(&golden("quantized/gpt-oss-mxfp4"), &at("source"));
    let made = |target: Target, file: &str| {
        let mut job = Job::new(at("source"), scratch.path(), "test");
        job.pre = Some("gpt-4o".to_owned());
        job.variants = vec![Variant::new("v", file, target)];
        job::plan(job).and_then(|p| p.run(&(), &AtomicBool::new(false))).expect("runs");
        Manifest::of(&at(file))
    };
    // Blocks whatever type is asked for, and what a recipe says.
    for (target, file, block) in [
        (Target::Lossless, "out.gguf", "MXFP4"),
        (Target::Dtype(DType::F16), "f16.gguf", "MXFP4"),
        (recipe("Q8_0"), "q8.gguf", "Q8_0"),
    ] {
        let made = made(target, file);
        let blocks = made
            .tensors
            .iter()
            .filter(|t| t[1] == block && t[0].as_str().is_some_and(|n| n.contains("exps")));
        assert_eq!(blocks.count(), 3, "{file}");
    }
    convert(&at("out.gguf"), &at("back"), FILE, Target::Dtype(DType::BF16));
    convert(&at("source"), &at("plain"), FILE, Target::Dtype(DType::BF16));
    let want = values(&at("plain").join(FILE));
    assert_eq!(values(&at("back").join(FILE)), want);
    for (name, value) in values(&golden("quantized/gpt-oss-mxfp4").join("expected.safetensors")) {
        assert_eq!(want[&name], value, "{name}");
    }
    let config = |folder: &str| -> Json {
        serde_json::from_slice(&fs::read(at(folder).join("config.json")).expect("reads")).expect("config")
    };
    let (back, from) = (config("back"), config("source"));
    for key in [
        "architectures",
        "model_type",
        "intermediate_size",
        "num_local_experts",
        "num_experts_per_tok",
        "head_dim",
        "sliding_window",
        "attention_bias",
        "rope_scaling",
        "rope_theta",
        "tie_word_embeddings",
        "vocab_size",
    ] {
        let number = |v: &Json| v.as_f64().map_or_else(|| v.clone(), Json::from);
        assert_eq!(number(&back[key]), number(&from[key]), "{key}");
    }
}

/// Number of scales that stand beside weights.
fn scales(file: &Manifest) -> usize {
    let beside = |t: &&Json| t[0].as_str().is_some_and(|n| n.rsplit('.').next() == Some("scale"));
    file.tensors.iter().filter(beside).count()
}

#[test]
fn scales_beside_blocks_are_part_of_the_weights_of_a_checkpoint() {
    const FILE: &str = "model.safetensors";
    for name in ["modelopt-nvfp4-wide", "ct-nvfp4a16-wide"] {
        let scratch = tempfile::tempdir().expect("scratch folder");
        let source = scratch.path().join("source");
        with_tokenizer(&golden("quantized").join(name), &source);
        convert(&source, scratch.path(), "out.gguf", Target::Lossless);
        let gguf = scratch.path().join("out.gguf");
        let made = Manifest::of(&gguf);
        assert_eq!(scales(&made), 7, "{name}");
        let decoded = |from: &Path, folder: &str, dtype| {
            convert(from, &scratch.path().join(folder), FILE, Target::Dtype(dtype));
            values(&scratch.path().join(folder).join(FILE))
        };
        let want = decoded(&source, "direct", DType::BF16);
        assert_eq!(decoded(&gguf, "back", DType::BF16), want, "{name}");
        // The codes and scales are there to be kept.
        let again = scratch.path().join("again");
        let notes = convert(&gguf, &again, FILE, recipe("nvfp4"));
        assert!(notes.iter().any(|n| n == "7 weights keep the codes that the source has"), "{notes:?}");
        let again = decoded(&again, "again-plain", DType::F32);
        for (tensor, (_, x)) in decoded(&source, "f32", DType::F32) {
            // Scales are divided by another number's inverse there.
            let near = |(a, b): (&f32, &f32)| (a - b).abs() <= b.abs() * 1e-6;
            assert!(again[&tensor].1.iter().zip(&x).all(near), "{name} {tensor}");
        }
    }
}

/// A LoRA adapter of rank 2 for `down_proj` and `q_proj` of a layer, in PEFT's files.
fn adapter(folder: &Path) {
    let module = "base_model.model.model.layers.0";
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for (of, [rows, columns]) in [("mlp.down_proj", [64, 128]), ("self_attn.q_proj", [64, 64])] {
        for (part, shape) in [("A", [2, columns]), ("B", [rows, 2])] {
            let start = data.len();
            let values = (0..shape[0] * shape[1]).map(|i| ((i * 37 + start) % 101) as f32 / 100.0 - 0.5);
            data.extend(values.flat_map(f32::to_le_bytes));
            let t = serde_json::json!({"dtype": "F32", "shape": shape, "data_offsets": [start, data.len()]});
            header.insert(format!("{module}.{of}.lora_{part}.weight"), t);
        }
    }
    let header = serde_json::to_vec(&header).expect("header");
    fs::create_dir_all(folder).expect("folder");
    let bytes = [&(header.len() as u64).to_le_bytes(), &header[..], &data].concat();
    fs::write(folder.join("adapter_model.safetensors"), bytes).expect("writes");
    let config = r#"{"peft_type":"LORA","r":2,"lora_alpha":2,"target_modules":["down_proj","q_proj"]}"#;
    fs::write(folder.join("adapter_config.json"), config).expect("writes");
}

/// The largest distance of values to others, as a share of the largest of those.
fn apart(a: &[f32], b: &[f32]) -> f32 {
    let largest = |x: f32, y: f32| x.max(y.abs());
    a.iter().zip(b).map(|(a, b)| a - b).fold(0.0, largest) / b.iter().copied().fold(0.0, largest)
}

#[test]
fn what_changes_weights_sees_the_scales_beside_them() {
    const FILE: &str = "model.safetensors";
    let scratch = tempfile::tempdir().expect("scratch folder");
    let at = |name: &str| scratch.path().join(name);
    with_tokenizer(&golden("quantized/modelopt-nvfp4-wide"), &at("source"));
    convert(&at("source"), scratch.path(), "base.gguf", Target::Lossless);
    adapter(&at("adapter"));
    let adapted = |from: &str, file: &str, target: Target| {
        let (folder, file) = file.split_once('/').unwrap_or(("", file));
        let mut job = Job::new(at(from), at(folder), "test");
        (job.allow_loss, job.create_folder) = (true, true);
        job.adapters = vec![at("adapter").to_str().expect("text").parse().expect("an adapter")];
        let mut v = Variant::new("v", file, target);
        v.side_files = !file.ends_with("gguf");
        job.variants = vec![v];
        job::plan(job).and_then(|p| p.run(&(), &AtomicBool::new(false))).expect("runs");
    };
    let f32 = || Target::Dtype(DType::F32);
    let plain = |from: &str, folder: &str| {
        convert(&at(from), &at(folder), FILE, f32());
        values(&at(folder).join(FILE))
    };
    adapted("source", "want/model.safetensors", f32());
    let want = values(&at("want").join(FILE));
    let before = plain("source", "before");
    let changed = |name: &String| name.contains("down_proj") || name.contains("q_proj");
    adapted("base.gguf", "got/model.safetensors", f32());
    adapted("base.gguf", "f32.gguf", f32());
    adapted("base.gguf", "kept.gguf", Target::Lossless);
    for (got, bound) in [
        (values(&at("got").join(FILE)), 1e-6),
        (plain("f32.gguf", "f32"), 1e-6),
        // Encoded anew in blocks of 4-bit floats.
        (plain("kept.gguf", "kept"), 0.15),
    ] {
        for (name, (_, want)) in &want {
            let far = apart(&got[name].1, want);
            assert!(far <= if changed(name) { bound } else { 1e-6 }, "{name}: {far}");
            assert!(!changed(name) || apart(&before[name].1, want) > 0.15, "{name} has to change");
        }
    }
    assert_eq!(scales(&Manifest::of(&at("kept.gguf"))), 7);

    // Of a model and its change, the mean; and layers as they are.
    let recipe = |name: &str, text: &str| fs::write(at(name), text).expect("writes");
    recipe(
        "mean.yaml",
        "merge_method: linear\nmodels:\n- model: base.gguf\n  parameters: {weight: 1}\n- model: f32.gguf\n  parameters: {weight: 1}\n",
    );
    recipe(
        "twice.yaml",
        "merge_method: passthrough\nslices:\n- sources: [{model: base.gguf, layer_range: [0, 1]}]\n- sources: [{model: base.gguf, layer_range: [0, 1]}]\n",
    );
    recipe(
        "half.yaml",
        "merge_method: passthrough\nmodels: [{model: base.gguf, parameters: {scale: [{filter: ffn_down, value: 0.5}, {value: 1}]}}]\n",
    );
    for (name, (_, mean)) in plain("mean.yaml", "mean") {
        let both: Vec<f32> = before[&name].1.iter().zip(&want[&name].1).map(|(a, b)| (a + b) / 2.0).collect();
        assert!(apart(&mean, &both) <= 1e-6, "{name}");
    }
    convert(&at("twice.yaml"), scratch.path(), "twice.gguf", Target::Lossless);
    assert_eq!(scales(&Manifest::of(&at("twice.gguf"))), 14);
    for (name, (_, x)) in plain("twice.gguf", "twice") {
        assert_eq!(x, before[&name.replace("layers.1", "layers.0")].1, "{name}");
    }
    for (name, (_, x)) in plain("half.yaml", "half") {
        let by = if name.contains("down_proj") { 0.5 } else { 1.0 };
        let want: Vec<f32> = before[&name].1.iter().map(|x| x * by).collect();
        assert!(apart(&x, &want) <= 1e-6, "{name}");
    }
}

#[test]
fn comparisons_multiply_weights_by_the_scales_beside_them() {
    let options = compare::Options { max_rmse: Some(1e-7), memory: 256 << 20 };
    for (name, activations) in [("modelopt-nvfp4-wide", 7), ("ct-nvfp4a16-wide", 0)] {
        let scratch = tempfile::tempdir().expect("scratch folder");
        let source = scratch.path().join("source");
        with_tokenizer(&golden("quantized").join(name), &source);
        convert(&source, scratch.path(), "out.gguf", Target::Lossless);
        let gguf = scratch.path().join("out.gguf");
        for (a, b) in [(&source, &gguf), (&gguf, &source)] {
            let c = compare::compare(a, b, &options).expect("compares");
            assert_eq!(c.failure, None, "{name}");
            let down = c.tensors.iter().find(|t| t.name == "blk.0.ffn_down.weight").expect("is compared");
            assert_eq!([&down.type_a, &down.type_b].iter().filter(|t| **t == "NVFP4").count(), 1, "{name}");
        }
        // What both files know of activations is compared, too.
        let c = compare::compare(&gguf, &gguf, &options).expect("compares");
        assert_eq!(c.failure, None, "{name}");
        let of = |suffix: &str| c.tensors.iter().filter(|t| t.name.ends_with(suffix)).count();
        assert_eq!((of(".input_scale"), of(".scale")), (activations, 0), "{name}");
    }
}

#[test]
fn quantized_weights_are_not_quantized_again_unasked() {
    let scratch = tempfile::tempdir().expect("scratch folder");
    let plain = scratch.path().join("plain");
    with_tokenizer(&golden("quantized/source"), &plain);
    for (blocks, scheme, refused) in [
        ("Q5_0", "gptq-int4-g32", true),
        ("Q8_0", "fp8", true),
        ("Q4_0", "int4-g32", false),
        ("F16", "fp8", false),
    ] {
        let gguf = format!("{blocks}.gguf");
        convert(&plain, scratch.path(), &gguf, recipe(blocks));
        let (from, to) = (scratch.path().join(&gguf), scratch.path().join(format!("{blocks}-{scheme}")));
        let made = |allow: bool| {
            converted(&from, &to, "model.safetensors", recipe(scheme), |v| v.allow_requantize = allow)
        };
        match made(false) {
            Err(e) => assert!(refused && e.contains("already quantized"), "{blocks}: {e}"),
            Ok(notes) => {
                assert!(!refused, "{blocks}: {notes:?}");
                continue;
            }
        }
        made(true).unwrap_or_else(|e| panic!("{e}"));
    }
}

#[test]
fn decoded_weights_have_the_checkpoints_type_and_no_quantizers_files() {
    const FILES: [&str; 2] = ["quantize_config.json", "quant_config.json"];
    // The type that config.json says, and what the source has.
    for (name, dtype) in [("gptq-int4-g32", DType::F16), ("ct-int4-g32", DType::BF16)] {
        let scratch = tempfile::tempdir().expect("scratch folder");
        let source = scratch.path().join("source");
        with_tokenizer(&golden("quantized").join(name), &source);
        for file in FILES {
            fs::write(source.join(file), "{\"bits\": 4}").expect("writes");
        }
        let to = scratch.path().join("plain");
        convert(&source, &to, "model.safetensors", Target::Dtype(dtype));
        assert!(FILES.iter().all(|f| !to.join(f).exists()), "{name}");
        assert!(to.join("tokenizer.model").exists());
        let config = fs::read_to_string(to.join("config.json")).expect("reads");
        assert!(!config.contains("quantization_config"), "{config}");
        // What stays plain among other codes.
        let to = scratch.path().join("other");
        let notes = converted(&source, &to, "model.safetensors", recipe("fp8"), |v| {
            v.allow_requantize = true;
            v.tensor_types = vec!["down_proj=plain".to_owned()];
        });
        let note = format!("decoded weights are rounded to {}", dtype.to_string().to_uppercase());
        let notes = notes.unwrap_or_else(|e| panic!("{e}"));
        assert!(notes.iter().any(|n| n.starts_with(&note)), "{name}: {notes:?}");
        let header = fs::read(to.join("model.safetensors")).expect("reads");
        let n = 8 + u64::from_le_bytes(header[..8].try_into().expect("eight bytes")) as usize;
        let header: Json = serde_json::from_slice(&header[8..n]).expect("header");
        let got = &header["model.layers.0.mlp.down_proj.weight"]["dtype"];
        assert_eq!(got, &dtype.to_string().to_uppercase(), "{name}");
    }
}
