//! Adapters under other names than PEFT's: what they make of a model, and how they are written.

mod common;

use common::{Stored, demo, expect, golden, tensors, text, write_tensors};
use serde_json::json;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

fn peft(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../golden/adapters")).join(name)
}

fn gguf(model: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../golden/adapters-gguf")).join(model)
}

/// Tensors of a base after a merge.
fn merged(base: &Path, adapter: &Path, more: &[&str]) -> BTreeMap<String, Stored> {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out.safetensors");
    let args = ["convert", &text(base), "-o", &text(&out), "--adapter", &text(adapter)];
    expect(0, [&args[..], more].concat());
    tensors(&out)
}

const MODELS: [&str; 4] = ["tiny-llama", "mixtral-4x", "gemma2", "qwen3"];

#[test]
fn gguf_adapters_are_the_converters_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out.gguf");
    for model in MODELS {
        for dtype in ["f32", "f16"] {
            let (lora, base) = (text(&gguf(model).join("lora")), text(&golden(model)));
            let args = ["adapter", &lora, "-o", &text(&out), "--base", &base, "--dtype", dtype, "--force"];
            expect(0, args);
            let want = fs::read(gguf(model).join(format!("reference-{dtype}.gguf"))).unwrap();
            assert!(fs::read(&out).unwrap() == want, "{model} {dtype}");
        }
    }
}

#[test]
fn a_gguf_adapter_does_what_its_source_does() {
    let dir = tempfile::tempdir().unwrap();
    for model in MODELS {
        let (lora, file) = (gguf(model).join("lora"), gguf(model).join("reference-f32.gguf"));
        let want = merged(&golden(model), &lora, &[]);
        assert!(merged(&golden(model), &file, &[]) == want, "{model}: merged as it is");
        // And back in PEFT's folder.
        let back = dir.path().join(model);
        expect(0, ["adapter", &text(&file), "-o", &text(&back), "--base", &text(&golden(model))]);
        assert!(merged(&golden(model), &back, &[]) == want, "{model}: turned back");
        let tensors = |folder: &Path| tensors(&folder.join("adapter_model.safetensors"));
        assert!(tensors(&back) == tensors(&lora), "{model}: factors");
    }
}

#[test]
fn gguf_bases_keep_what_they_say_of_themselves() {
    let dir = tempfile::tempdir().unwrap();
    let path = |n: &str| text(&dir.path().join(n));
    let lora = text(&gguf("tiny-llama").join("lora"));
    // The folder's name is in the metadata.
    expect(0, ["convert", &text(&demo()), "-o", &path("base.gguf"), "--metadata", "my.key=kept"]);
    expect(
        0,
        ["convert", &text(&demo()), "-o", &path("a.gguf"), "--metadata", "my.key=kept", "--adapter", &lora],
    );
    expect(0, ["convert", &path("base.gguf"), "-o", &path("b.gguf"), "--adapter", &lora]);
    assert!(fs::read(path("a.gguf")).unwrap() == fs::read(path("b.gguf")).unwrap());
    // A quantized base: decoded, merged, encoded again; what the adapter leaves alone keeps its bytes.
    expect(0, ["convert", &text(&demo()), "-o", &path("q.gguf"), "--quant", "Q8_0"]);
    let only_q = dir.path().join("only-q");
    let mut some = tensors(&gguf("tiny-llama").join("lora/adapter_model.safetensors"));
    some.retain(|name, _| name.contains("q_proj"));
    fs::create_dir_all(&only_q).unwrap();
    write_tensors(&only_q.join("adapter_model.safetensors"), &some);
    fs::copy(gguf("tiny-llama").join("lora/adapter_config.json"), only_q.join("adapter_config.json"))
        .unwrap();
    expect(0, ["convert", &path("q.gguf"), "-o", &path("m.gguf"), "--adapter", &text(&only_q)]);
    let report = common::json(&expect(0, ["compare", &path("q.gguf"), &path("m.gguf"), "--json"]).0);
    for t in report["tensors"].as_array().unwrap() {
        assert_eq!(t["type_a"], t["type_b"], "{t}");
        let changed = t["name"].as_str().unwrap().contains("attn_q");
        assert_eq!(t["different"].as_u64().unwrap() > 0, changed, "{t}");
    }
    // Within the blocks' own error of merging first.
    expect(0, ["convert", &text(&demo()), "-o", &path("c.gguf"), "--adapter", &text(&only_q)]);
    let args = ["compare", &path("c.gguf"), &path("m.gguf"), "--json"];
    let report = common::json(&expect(0, args).0);
    let q = report["tensors"].as_array().unwrap().iter().find(|t| t["name"] == "blk.0.attn_q.weight");
    assert!(q.unwrap()["sqnr_db"].as_f64().unwrap() > 35.0, "{q:?}");
}

/// A case of PEFT's under kohya's names: flat, with alphas.
fn as_kohya(case: &str, alpha: f32, dir: &Path) -> PathBuf {
    let parts = [("lora_A.weight", "lora_down.weight"), ("lora_B.weight", "lora_up.weight")];
    let mut out = BTreeMap::new();
    for (name, t) in tensors(&peft(case).join("adapter_model.safetensors")) {
        let name = name.strip_prefix("base_model.model.").unwrap();
        let named = parts.iter().find_map(|(from, to)| Some((name.strip_suffix(from)?, *to)));
        let (module, part) = named.or_else(|| name.rsplit_once('.')).unwrap();
        let flat = module.trim_end_matches('.').replace('.', "_");
        out.insert(format!("lora_unet_{flat}.{part}"), t);
        out.insert(format!("lora_unet_{flat}.alpha"), Stored::f32(&[], [alpha]));
    }
    let file = dir.join(format!("{case}.safetensors"));
    write_tensors(&file, &out);
    file
}

#[test]
fn kohyas_names_mean_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let base = peft("base-f32.safetensors");
    for (case, alpha) in [("plain", 8.0), ("conv", 8.0), ("loha", 3.0), ("lokr", 3.0)] {
        let file = as_kohya(case, alpha, dir.path());
        assert!(merged(&base, &file, &[]) == merged(&base, &peft(case), &[]), "{case}");
    }
    // Without alphas nothing is scaled, as with an alpha that is the rank.
    let mut bare = tensors(&as_kohya("plain", 4.0, dir.path()));
    let scaled = merged(&base, &dir.path().join("plain.safetensors"), &[]);
    bare.retain(|name, _| !name.ends_with("alpha"));
    write_tensors(&dir.path().join("bare.safetensors"), &bare);
    assert!(merged(&base, &dir.path().join("bare.safetensors"), &[]) == scaled);
    // Of a file for several models, what belongs to others is named.
    let mut more = bare.clone();
    for (name, t) in bare.iter().filter(|(n, _)| n.contains("layers_0_q_proj")) {
        more.insert(name.replace("lora_unet_layers_0_q_proj", "lora_te_text_model_encoder"), t.clone());
    }
    let file = dir.path().join("more.safetensors");
    write_tensors(&file, &more);
    let out = text(&dir.path().join("out.safetensors"));
    let args = ["convert", &text(&base), "-o", &out, "--adapter", &text(&file)];
    assert!(expect(3, args).1.contains("lora_te_text_model_encoder"));
    expect(0, [&args[..], &["--allow-unused"]].concat());
}

#[test]
fn lycoris_adapters_are_merged_by_its_formulas() {
    let folder = peft("../adapters-lycoris");
    let base = peft("base-f32.safetensors");
    let mut cases = 0;
    for file in common::names(&folder) {
        let Some(case) = file.strip_suffix(".merged.safetensors") else { continue };
        cases += 1;
        let got = merged(&base, &folder.join(format!("{case}.safetensors")), &[]);
        for (name, want) in tensors(&folder.join(&file)) {
            let (got, want) = (got[&name].floats(), want.floats());
            let largest = want.iter().fold(0f32, |m, x| m.max(x.abs()));
            let apart = got.iter().zip(&want).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
            // Four units in the last place of the largest: terms are summed in another order.
            assert!(apart <= 4.0 * f32::EPSILON * largest, "{case}: {name}: {apart:e} of {largest}");
        }
    }
    assert!(cases >= 7);
}

#[test]
fn kohyas_files_go_both_ways() {
    let dir = tempfile::tempdir().unwrap();
    let path = |n: &str| dir.path().join(n);
    let base = peft("base-f32.safetensors");
    let want = merged(&base, &peft("conv"), &[]);
    expect(0, ["adapter", &text(&peft("conv")), "-o", &text(&path("k.safetensors"))]);
    assert!(tensors(&path("k.safetensors")).keys().any(|n| n == "lora_unet_conv.lora_down.weight"));
    assert!(merged(&base, &path("k.safetensors"), &[]) == want);
    let to_peft = ["adapter", &text(&path("k.safetensors")), "-o", &text(&path("p")), "--base", &text(&base)];
    expect(0, to_peft);
    assert!(merged(&base, &path("p"), &[]) == want);
    // Flat names alone do not say which module is meant.
    let file = as_kohya("plain", 8.0, dir.path());
    let args = ["adapter", &text(&file), "-o", &text(&path("q"))];
    assert!(expect(2, args).1.contains("--base"));
}

#[test]
fn mlx_adapters_are_transposed() {
    let dir = tempfile::tempdir().unwrap();
    let mut out = BTreeMap::new();
    for (name, t) in tensors(&peft("plain").join("adapter_model.safetensors")) {
        let name =
            name.strip_prefix("base_model.model.").unwrap().replace("A.weight", "a").replace("B.weight", "b");
        out.insert(name, t.transposed());
    }
    write_tensors(&dir.path().join("adapters.safetensors"), &out);
    let config = dir.path().join("adapter_config.json");
    let parameters = json!({"rank": 4, "scale": 2.0, "dropout": 0.0});
    let write = |kind: &str| {
        let json = json!({"fine_tune_type": kind, "num_layers": 2, "lora_parameters": parameters});
        fs::write(&config, json.to_string()).unwrap();
    };
    write("lora");
    let base = peft("base-f32.safetensors");
    assert!(merged(&base, dir.path(), &[]) == merged(&base, &peft("plain"), &[]));
    // And in PEFT's folder.
    let out = dir.path().join("peft");
    expect(0, ["adapter", &text(dir.path()), "-o", &text(&out)]);
    assert!(merged(&base, &out, &[]) == merged(&base, &peft("plain"), &[]));
    write("full");
    let target = text(&dir.path().join("x.safetensors"));
    expect(4, ["convert", &text(&base), "-o", &target, "--adapter", &text(dir.path())]);
}

#[test]
fn experts_of_their_own_are_parts_of_the_stack() {
    let dir = tempfile::tempdir().unwrap();
    let (stacked, want) = (
        tensors(&peft("base-bf16.safetensors")),
        merged(&peft("base-bf16.safetensors"), &peft("experts"), &[]),
    );
    let apart = |all: &BTreeMap<String, Stored>| {
        let (up, down) = (&all["experts.gate_up_proj"], &all["experts.down_proj"]);
        let mut out = BTreeMap::new();
        for e in 0..3 {
            out.insert(format!("experts.{e}.gate_proj.weight"), up.rows(e * 24, 12));
            out.insert(format!("experts.{e}.up_proj.weight"), up.rows(e * 24 + 12, 12));
            out.insert(format!("experts.{e}.down_proj.weight"), down.rows(e * 40, 40));
        }
        out
    };
    let base = dir.path().join("base.safetensors");
    write_tensors(&base, &apart(&stacked));
    assert!(merged(&base, &peft("experts"), &["--allow-unused"]) == apart(&want));
}

#[test]
fn several_become_one_file() {
    let dir = tempfile::tempdir().unwrap();
    let of = |name: &str| text(&peft("../adapters-combined").join(name));
    let base = peft("base-f32.safetensors");
    let out = dir.path().join("both");
    let [a, b] = [("a", 0.7), ("b", -0.4)].map(|(n, share)| format!("{}={share}", of(n)));
    let convert = |how: &str| {
        let file = dir.path().join("m.safetensors");
        let args = ["convert", &text(&base), "-o", &text(&file), "--adapter", &a, "--adapter", &b, "--force"];
        expect(0, [&args[..], &["--combine", how]].concat());
        tensors(&file)
    };
    // Beside each other by default, which is exact.
    expect(0, ["adapter", &a, &b, "-o", &text(&out)]);
    assert!(merged(&base, &out, &[]) == convert("cat"));
    let dare = "dare_ties:density=0.5,seed=3";
    expect(0, ["adapter", &a, &b, "-o", &text(&out), "--combine", dare, "--force"]);
    let mixed = merged(&base, &out, &[]);
    assert!(mixed == convert(dare) && mixed != convert("dare_ties:density=0.5,seed=4"));
}

#[test]
fn what_a_scheme_cannot_hold_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let out = text(&dir.path().join("out.gguf"));
    let base = text(&golden("tiny-llama"));
    let says = |code: i32, adapter: &str, text_of: &str, more: &[&str]| {
        let args = ["adapter", &text(&peft(adapter)), "-o", &out, "--force"];
        let (_, stderr) = expect(code, [&args[..], more].concat());
        assert!(stderr.contains(text_of), "{stderr}");
    };
    says(2, "plain", "--base", &[]);
    let (_, stderr) = expect(2, ["convert", &text(&peft("plain")), "-o", &out]);
    assert!(stderr.contains("--adapter"), "{stderr}");
    says(4, "oft", "nothing of it is a product", &["--base", &base]);
    says(4, "dora", "nothing of it is a product", &["--base", &base]);
    says(4, "modules", "lm_head.weight (trained as a whole)", &["--base", &base]);
    // Names that the architecture does not have.
    says(4, "plain", "counterpart", &["--base", &base]);
}
