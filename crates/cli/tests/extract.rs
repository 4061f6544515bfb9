//! Adapters extracted from two checkpoints: merged again they give the tuned one, and errors are those that numpy finds.

mod common;

use common::{Stored, expect, golden, json, names, text, write_tensors};
use serde_json::Value as Json;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Weights in f32, with biases everywhere and an output of its own.
fn base() -> PathBuf {
    golden("llama-f32-bias")
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for e in fs::read_dir(from).unwrap().map(Result::unwrap).filter(|e| e.path().is_file()) {
        fs::copy(e.path(), to.join(e.file_name())).unwrap();
    }
}

/// Header and data of a safetensors file.
fn parts(path: &Path) -> (Json, Vec<u8>) {
    let bytes = fs::read(path).unwrap();
    let n = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    (json(std::str::from_utf8(&bytes[8..8 + n]).unwrap()), bytes[8 + n..].to_vec())
}

/// Changes the elements of f32 tensors in place: `change(name, element's number, columns, value)`.
fn edit(path: &Path, change: impl Fn(&str, usize, usize, f32) -> f32) {
    let (header, mut data) = parts(path);
    for (name, t) in header.as_object().unwrap().iter().filter(|(n, _)| *n != "__metadata__") {
        let at = |i: usize| t["data_offsets"][i].as_u64().unwrap() as usize;
        let columns = t["shape"].as_array().unwrap().last().map_or(1, |c| c.as_u64().unwrap()) as usize;
        for (i, b) in data[at(0)..at(1)].as_chunks_mut::<4>().0.iter_mut().enumerate() {
            *b = change(name, i, columns, f32::from_le_bytes(*b)).to_le_bytes();
        }
    }
    let mut file = common::safetensors(&header.to_string(), 0);
    file.extend(data);
    fs::write(path, file).unwrap();
}

/// A number without a pattern for row or column `i` of factor `k`.
fn factor(name: &str, k: usize, i: usize) -> f32 {
    let mut x =
        name.bytes().fold((k * 65_537 + i + 1) as u32, |h, b| (h ^ u32::from(b)).wrapping_mul(0x0100_0193));
    x ^= x >> 15;
    x = x.wrapping_mul(0x2c1b_3c6d);
    x ^= x >> 12;
    (x >> 8) as f32 / 8_388_608.0 - 1.0
}

/// A change of rank 3 for an element of a matrix, with singular values that fall.
fn low_rank(name: &str, i: usize, columns: usize) -> f32 {
    let (row, column) = (i / columns, i % columns);
    (0..3).map(|k| 0.3 / (k + 1) as f32 * factor(name, 2 * k, row) * factor(name, 2 * k + 1, column)).sum()
}

fn is_matrix(name: &str) -> bool {
    name.ends_with("_proj.weight")
}

/// The base with a change of rank 3 in every linear layer.
fn tuned(to: &Path) {
    copy(&base(), to);
    edit(
        &to.join("model.safetensors"),
        |name, i, columns, x| {
            if is_matrix(name) { x + low_rank(name, i, columns) } else { x }
        },
    );
}

fn extract(code: i32, base: &Path, tuned: &Path, out: &Path, more: &[&str]) -> (String, String) {
    let (base, tuned, out) = (text(base), text(tuned), text(out));
    expect(code, [&["extract", &base, &tuned, "-o", &out][..], more].concat())
}

fn report(base: &Path, tuned: &Path, out: &Path, more: &[&str]) -> Json {
    json(&extract(0, base, tuned, out, &[&["--json"][..], more].concat()).0)
}

/// Merges the adapter into the base, and compares with the tuned checkpoint.
fn merged_is(adapter: &Path, base: &Path, tuned: &Path, rmse: &str) {
    let merged = adapter.with_extension("merged");
    expect(
        0,
        ["convert", &text(base), "-o", &text(&merged), "--to", "safetensors", "--adapter", &text(adapter)],
    );
    expect(0, ["compare", &text(tuned), &text(&merged), "--max-rmse", rmse]);
    fs::remove_dir_all(merged).unwrap();
}

fn number(x: &Json) -> f64 {
    x.as_f64().unwrap_or_else(|| panic!("{x} is no number"))
}

#[test]
fn a_change_of_low_rank_is_found_and_merged_again() {
    let dir = tempfile::tempdir().unwrap();
    let (to, out) = (dir.path().join("tuned"), dir.path().join("adapter"));
    tuned(&to);
    let r = report(&base(), &to, &out, &["--rank", "3"]);
    let found = r["tensors"].as_array().unwrap();
    assert!(found.len() >= 7 && found.iter().all(|t| t["held"] == "lora" && t["rank"] == 3), "{r}");
    // What is left is the rounding of the tuned weights.
    assert!(found.iter().all(|t| number(&t["relative_error"]) < 1e-5), "{r}");
    assert!(number(&r["relative_error"]) < 1e-5 && number(&r["energy_kept"]) > 0.999_999);
    merged_is(&out, &base(), &to, "1e-6");
    assert_eq!(names(&out), ["README.md", "adapter_config.json", "adapter_model.safetensors"]);

    let config = json(&fs::read_to_string(out.join("adapter_config.json")).unwrap());
    let targets: Vec<&str> =
        config["target_modules"].as_array().unwrap().iter().map(|t| t.as_str().unwrap()).collect();
    assert_eq!(targets, ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]);
    assert_eq!(
        (&config["r"], &config["lora_alpha"], &config["bias"]),
        (&3.into(), &3.into(), &"none".into())
    );
    assert_eq!((&config["task_type"], &config["modules_to_save"]), (&"CAUSAL_LM".into(), &Json::Null));
    let (header, _) = parts(&out.join("adapter_model.safetensors"));
    assert_eq!(header["base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"]["shape"][0], 3);
}

#[test]
fn threads_memory_and_repetition_change_no_byte() {
    let dir = tempfile::tempdir().unwrap();
    let (to, out) = (dir.path().join("tuned"), dir.path().join("adapter"));
    tuned(&to);
    let weights = |more: &[&str]| {
        extract(0, &base(), &to, &out, &[&["--rank", "2", "--force"][..], more].concat());
        fs::read(out.join("adapter_model.safetensors")).unwrap()
    };
    let one = weights(&["-j", "1"]);
    for more in [&["-j", "2"][..], &["-j", "7"], &["-j", "2", "--memory", "24MiB"]] {
        assert!(weights(more) == one, "{more:?}");
    }
    assert!(weights(&["--seed", "5"]) != one, "the seed does nothing");
}

#[test]
fn errors_are_those_of_an_exact_decomposition() {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../golden/extract"));
    let expected = json(&fs::read_to_string(folder.join("expected.json")).unwrap());
    let dir = tempfile::tempdir().unwrap();
    for rank in ["1", "2", "4", "8", "12"] {
        let out = dir.path().join(rank);
        let r = report(&folder.join("base"), &folder.join("tuned"), &out, &["--rank", rank]);
        for t in r["tensors"].as_array().unwrap() {
            let want = &expected[t["name"].as_str().unwrap()];
            let (got, best) = (number(&t["relative_error"]), number(&want["errors"][rank]));
            assert!((got / best - 1.0).abs() < 0.01, "rank {rank}: {got} where {best} is the least: {t}");
            let exact = want["singular_values"].as_array().unwrap();
            for (got, want) in t["singular_values"].as_array().unwrap().iter().zip(exact) {
                assert!((number(got) / number(want) - 1.0).abs() < 0.02, "rank {rank}: {got} for {want}");
            }
        }
        assert_eq!(r["tensors"].as_array().unwrap().len(), 3);
    }
}

#[test]
fn energy_chooses_ranks_and_scales_stay_one() {
    let dir = tempfile::tempdir().unwrap();
    let (to, out) = (dir.path().join("tuned"), dir.path().join("adapter"));
    copy(&base(), &to);
    // Layers of rank 1 and of rank 3.
    edit(&to.join("model.safetensors"), |name, i, columns, x| match name {
        n if n.ends_with("q_proj.weight") => x + factor(n, 0, i / columns) * factor(n, 1, i % columns),
        n if n.ends_with("down_proj.weight") => x + low_rank(n, i, columns),
        _ => x,
    });
    let r = report(&base(), &to, &out, &["--rank", "8", "--energy", "0.9999"]);
    for t in r["tensors"].as_array().unwrap() {
        let rank = if t["name"].as_str().unwrap().contains("q_proj") { 1 } else { 3 };
        assert!(t["rank"] == rank && number(&t["energy_kept"]) >= 0.9999, "{t}");
    }
    let config = json(&fs::read_to_string(out.join("adapter_config.json")).unwrap());
    assert_eq!((&config["r"], &config["lora_alpha"]), (&3.into(), &3.into()));
    assert_eq!(config["rank_pattern"]["model.layers.0.self_attn.q_proj"], 1);
    assert_eq!(config["rank_pattern"], config["alpha_pattern"]);
    merged_is(&out, &base(), &to, "1e-5");
}

#[test]
fn what_has_no_low_rank_is_kept_whole() {
    let dir = tempfile::tempdir().unwrap();
    let (to, out) = (dir.path().join("tuned"), dir.path().join("adapter"));
    copy(&base(), &to);
    edit(&to.join("model.safetensors"), |name, i, columns, x| match name {
        n if is_matrix(n) && !n.contains("up_proj") => x + low_rank(n, i, columns),
        "model.norm.weight" | "model.embed_tokens.weight" => x * 1.25,
        n if n.ends_with("layers.0.self_attn.q_proj.bias") || n.ends_with("up_proj.bias") => x + 0.5,
        _ => x,
    });
    let r = report(&base(), &to, &out, &["--rank", "3"]);
    let held = |name: &str| {
        let all = r["tensors"].as_array().unwrap();
        all.iter().find(|t| t["name"] == name).map(|t| t["held"].as_str().unwrap().to_owned())
    };
    assert_eq!(held("model.norm.weight").as_deref(), Some("whole"));
    assert_eq!(held("model.embed_tokens.weight").as_deref(), Some("whole"));
    assert_eq!(held("model.layers.0.self_attn.q_proj.bias").as_deref(), Some("bias"));
    assert_eq!(held("model.layers.0.input_layernorm.weight"), None);
    merged_is(&out, &base(), &to, "1e-6");
    let config = json(&fs::read_to_string(out.join("adapter_config.json")).unwrap());
    // PEFT would take `norm` for every layer's norm.
    assert_eq!(config["modules_to_save"], serde_json::json!(["embed_tokens", "model.norm"]));
    assert_eq!(config["bias"], "all");
    let targets = config["target_modules"].to_string();
    assert!(!targets.contains("up_proj") && targets.contains("\"q_proj\""), "{targets}");

    // Embeddings as factors, and a choice of modules.
    let more =
        ["--rank", "3", "--embed-lora", "--modules", "embed|self_attn", "--exclude", "k_proj", "--force"];
    let r = report(&base(), &to, &out, &more);
    let all = r["tensors"].as_array().unwrap();
    let is = |end: &str| all.iter().filter(|t| t["name"].as_str().unwrap().ends_with(end)).count();
    assert!(is("k_proj.weight") == 0 && is("norm.weight") == 0 && is("q_proj.weight") > 0, "{r}");
    assert!(all.iter().any(|t| t["held"] == "embedding" && number(&t["relative_error"]) > 0.1), "{r}");
    let (header, _) = parts(&out.join("adapter_model.safetensors"));
    let shape = |n: &str| header[format!("base_model.model.model.embed_tokens.{n}")]["shape"].clone();
    assert_eq!((&shape("lora_embedding_A")[0], &shape("lora_embedding_B")[1]), (&3.into(), &3.into()));
}

/// A safetensors file of f32 tensors with these shapes, whose elements are `value(name, i)`.
fn write(path: &Path, shapes: &[(&str, &[usize])], value: impl Fn(&str, usize) -> f32) {
    let tensor = |(name, shape): &(&str, &[usize])| {
        let values = (0..shape.iter().product()).map(|i| value(name, i));
        ((*name).to_owned(), Stored::f32(shape, values))
    };
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    write_tensors(path, &shapes.iter().map(tensor).collect());
}

#[test]
fn convolutions_prefixes_and_a_grown_vocabulary() {
    let dir = tempfile::tempdir().unwrap();
    let path = |n: &str| dir.path().join(n).join("model.safetensors");
    let base = |name: &str, i: usize| factor(name.trim_start_matches("m."), 90, i);
    let shapes: &[(&str, &[usize])] = &[
        ("wte.weight", &[20, 6]),
        ("h.0.conv.weight", &[12, 5, 3, 3]),
        ("h.0.depthwise.weight", &[12, 1, 4]),
        ("h.0.fc.weight", &[9, 14]),
        ("h.0.fc.bias", &[9]),
    ];
    write(&path("base"), shapes, base);
    let longer: Vec<String> = shapes.iter().map(|(n, _)| format!("m.{n}")).collect();
    let mut same: Vec<(&str, &[usize])> =
        longer.iter().zip(shapes).map(|(n, (_, s))| (n.as_str(), *s)).collect();
    let change = |name: &str, i: usize| {
        base(name, i)
            + match name {
                "m.h.0.conv.weight" => low_rank(name, i, 45),
                "m.h.0.fc.weight" => low_rank(name, i, 14),
                "m.h.0.depthwise.weight" => 0.25,
                _ => 0.0,
            }
    };
    write(&path("tuned"), &same, change);
    let folder = |n: &str| dir.path().join(n);
    let r = report(&folder("base"), &folder("tuned"), &folder("a"), &["--rank", "3"]);
    let held: Vec<(&str, &str)> = r["tensors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|t| (t["name"].as_str().unwrap(), t["held"].as_str().unwrap()))
        .collect();
    let expected = [
        ("m.h.0.conv.weight", "convolution"),
        ("m.h.0.depthwise.weight", "whole"),
        ("m.h.0.fc.weight", "lora"),
    ];
    assert_eq!(held, expected);
    assert!(number(&r["relative_error"]) < 1e-5, "{r}");
    let (header, _) = parts(&folder("a").join("adapter_model.safetensors"));
    let shape = |n: &str| header[format!("base_model.model.m.h.0.{n}.weight")]["shape"].clone();
    assert_eq!(shape("conv.lora_A"), serde_json::json!([3, 5, 3, 3]));
    assert_eq!(shape("conv.lora_B"), serde_json::json!([12, 3, 1, 1]));
    // The names of the longer kind, which the base's own merge finds, too.
    write(&path("long"), &same, base);
    merged_is(&folder("a"), &folder("long"), &folder("tuned"), "1e-6");

    same[0].1 = &[23, 6];
    write(&path("grown"), &same, change);
    let (_, stderr) = extract(0, &folder("base"), &folder("grown"), &folder("b"), &["--rank", "3"]);
    assert!(stderr.contains("23 rows instead of 20"), "{stderr}");
    let (header, _) = parts(&folder("b").join("adapter_model.safetensors"));
    assert_eq!(header["base_model.model.m.wte.weight"]["shape"], serde_json::json!([23, 6]));
    let config = json(&fs::read_to_string(folder("b").join("adapter_config.json")).unwrap());
    assert_eq!(config["modules_to_save"], serde_json::json!(["depthwise", "wte"]));
}

#[test]
fn what_does_not_belong_together_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let (to, out) = (dir.path().join("tuned"), dir.path().join("adapter"));
    let says = |code: i32, words: &[&str], base: &Path, tuned: &Path, more: &[&str]| {
        let (_, stderr) = extract(code, base, tuned, &out, more);
        assert!(words.iter().all(|w| stderr.contains(w)), "{words:?}: {stderr}");
        // Nothing that looks like an adapter, and nothing hidden.
        assert!(!out.exists() || names(&out).is_empty(), "{:?}", names(&out));
    };
    says(3, &["nothing changed"], &base(), &base(), &[]);
    says(3, &["other shapes", "k_proj", "--allow-loss"], &base(), &golden("qwen3"), &[]);
    tuned(&to);
    let weights = to.join("model.safetensors");
    let good = fs::read(&weights).unwrap();
    let rewrite = |change: &dyn Fn(&mut Json)| {
        fs::write(&weights, &good).unwrap();
        let (mut header, data) = parts(&weights);
        change(&mut header);
        let mut file = common::safetensors(&header.to_string(), 0);
        file.extend(data);
        fs::write(&weights, file).unwrap();
    };
    let q = "model.layers.0.self_attn.q_proj.weight";
    rewrite(&|h| h[q]["shape"].as_array_mut().unwrap().insert(0, 1.into()));
    says(3, &["other shapes", q], &base(), &to, &[]);
    rewrite(&|h| {
        let t = h.as_object_mut().unwrap().remove(q).unwrap();
        h["model.layers.0.self_attn.z_proj.weight"] = t;
    });
    says(3, &["only", "z_proj"], &base(), &to, &[]);
    let (_, stderr) = extract(0, &base(), &to, &out, &["--allow-loss"]);
    assert!(stderr.contains("z_proj") && stderr.contains(q), "{stderr}");
    fs::remove_dir_all(&out).unwrap();
    fs::write(&weights, &good).unwrap();
    edit(&weights, |name, i, _, x| if name == q && i == 40 { f32::NAN } else { x });
    says(3, &[q, "not finite", "row"], &base(), &to, &[]);
    fs::write(&weights, &good).unwrap();
    says(2, &["regular expression"], &base(), &to, &["--modules", "("]);
    says(2, &["no module"], &base(), &to, &["--modules", "nowhere"]);
    says(2, &["regular expression"], &base(), &to, &["--exclude", "*"]);
    says(2, &["energy"], &base(), &to, &["--energy", "1.5"]);
    let gguf = dir.path().join("x.gguf");
    expect(0, ["convert", &text(&base()), "-o", &text(&gguf)]);
    says(4, &["GGUF", "--to safetensors"], &gguf, &to, &[]);
    edit(&weights, |name, _, _, x| if name == "model.norm.weight" { x * 2.0 } else { x });
    says(4, &["without factors"], &base(), &to, &["--modules", "norm"]);
    // Factors beyond the largest half.
    edit(&weights, |name, i, columns, x| {
        if name == q { 1e12 * factor(name, 0, i / columns) * factor(name, 1, i % columns) } else { x }
    });
    says(4, &[q, "--dtype f32"], &base(), &to, &["--dtype", "f16"]);
    extract(0, &base(), &to, &out, &[]);
    let (_, stderr) = extract(2, &base(), &to, &out, &[]);
    assert!(stderr.contains("--force"), "{stderr}");
}

#[test]
fn memory_is_bounded_whatever_the_sizes() {
    const MIB: u64 = 1 << 20;
    let dir = tempfile::tempdir().unwrap();
    let (from, to, out) = (dir.path().join("base"), dir.path().join("tuned"), dir.path().join("adapter"));
    common::big_zero_model(&from, 4096, 2);
    common::big_zero_model(&to, 4096, 2);
    // One element of the last matrix differs: a change of rank 1.
    let weights = to.join("model.safetensors");
    let mut head = [0; 8];
    std::io::Read::read_exact(&mut fs::File::open(&weights).unwrap(), &mut head).unwrap();
    let n = u64::from_le_bytes(head);
    let len = fs::metadata(&weights).unwrap().len();
    let file = fs::OpenOptions::new().read(true).write(true).open(&weights).unwrap();
    let mut header = vec![0; n as usize];
    std::os::unix::fs::FileExt::read_exact_at(&file, &mut header, 8).unwrap();
    let header = json(std::str::from_utf8(&header).unwrap());
    let at = header["model.layers.1.mlp.down_proj.weight"]["data_offsets"][0].as_u64().unwrap() + 8 + n;
    assert!(at < len);
    std::os::unix::fs::FileExt::write_all_at(&file, &[0x80, 0x3f], at + 2 * 4097).unwrap();
    // A difference alone takes 64 MiB.
    let r = report(&from, &to, &out, &["--rank", "8", "--memory", "40MiB", "-j", "2"]);
    let peak = r["peak_rss_bytes"].as_u64().unwrap();
    assert!(peak <= (40 + 64) * MIB, "{} MiB of 40 + 64", peak / MIB);
    assert_eq!((r["tensors"].as_array().unwrap().len(), &r["tensors"][0]["rank"]), (1, &1.into()));
    let (_, stderr) = extract(3, &from, &to, &out, &["--rank", "512", "--memory", "40MiB", "--force"]);
    assert!(stderr.contains("--memory") && stderr.contains("_proj"), "{stderr}");
}
