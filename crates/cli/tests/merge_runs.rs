//! Merges as sources of everything else: conversions, releases, shards, GGUF files; and recipes that are refused.

mod common;

use common::{big_zero_model, copy_demo, demo, expect, json, names, text};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// A copy of the demo with other weights: low bits of its bf16 values changed.
fn tuned(to: &Path, seed: u32) {
    copy_demo(to);
    let path = to.join("model.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    let n = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize + 8;
    let mut state = seed;
    for low in bytes[n..].chunks_exact_mut(2).map(|b| &mut b[0]) {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *low ^= (state >> 24) as u8 & 0x1f;
    }
    fs::write(path, bytes).unwrap();
}

/// A folder with two tuned copies of the demo, and a recipe.
struct Bench {
    dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        tuned(&dir.path().join("a"), 1);
        tuned(&dir.path().join("b"), 2);
        Self { dir }
    }
    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
    fn text(&self, name: &str) -> String {
        text(&self.path(name))
    }
    fn write(&self, name: &str, recipe: &str) -> String {
        fs::write(self.path(name), recipe.replace("DEMO", &text(&demo()))).unwrap();
        self.text(name)
    }
    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap()
    }
}

const DARE: &str = "\
merge_method = \"dare_ties\"
base_model = \"DEMO\"
seed = 3
[[models]]
model = \"a\"
parameters = { weight = 0.7, density = [0.4, 0.8] }
[[models]]
model = \"b\"
parameters = { weight = 0.5, density = 0.6 }
";

const TIES: &str = "\
merge_method: ties
base_model: DEMO
dtype: float32
models:
- {model: a, parameters: {weight: 0.7, density: 0.4}}
- {model: b, parameters: {weight: 0.5, density: 0.6}}
";

#[test]
fn merging_and_quantizing_are_one_run() {
    let b = Bench::new();
    for (name, recipe) in [("mix.toml", DARE), ("mix.yaml", TIES)] {
        let recipe = b.write(name, recipe);
        expect(0, ["merge", &recipe, "-o", &b.text("mix"), "--force"]);
        for quant in ["Q4_K_M", "Q8_0"] {
            expect(0, ["convert", &b.text("mix"), "-o", &b.text("two.gguf"), "--quant", quant, "--force"]);
            let small = ["--quant", quant, "--force", "--memory", "96MiB", "-j", "3", "--verify"];
            expect(0, [&["merge", &recipe, "-o", &b.text("one.gguf")], &small[..]].concat());
            assert!(b.read("one.gguf") == b.read("two.gguf"), "{name} {quant}");
        }
    }
    let (out, _) = expect(0, ["inspect", &b.text("mix.yaml"), "--json"]);
    assert_eq!(json(&out)["format"], "merge of 3 models, ties");
    let (out, _) = expect(0, ["compare", &b.text("mix.yaml"), &b.text("mix"), "--max-rmse", "0", "--json"]);
    assert_eq!(json(&out)["only_in_a"], serde_json::json!([]));
}

#[test]
fn bytes_do_not_depend_on_how_they_are_made() {
    let b = Bench::new();
    for (name, recipe) in [("y.yaml", TIES), ("x.toml", DARE)] {
        let recipe = b.write(name, recipe);
        let make = |out: &str, more: &[&str]| {
            let args = ["convert", &recipe, "-o", &b.text(out), "--force"];
            expect(0, [&args[..], more].concat());
            b.read(out)
        };
        let one = make("1.safetensors", &["-j", "1"]);
        assert!(one == make("2.safetensors", &["-j", "5", "--memory", "90MiB"]), "{name}");
    }
    let seeded = |seed: &str, out: &str| {
        expect(0, ["merge", &b.text("x.toml"), "-o", &b.text(out), "--seed", seed, "--force"]);
        b.read(out)
    };
    assert!(seeded("3", "3.safetensors") == b.read("1.safetensors"));
    assert!(seeded("3", "4.safetensors") != seeded("4", "5.safetensors"));
    // In parts, as a release.
    let release = "[source]\npath = \"x.toml\"\n[release]\nname = \"r\"\nfolder = \"out\"\n[[variant]]\nquant = \"Q6_K\"\n";
    let release = b.write("release.toml", release);
    expect(0, ["release", &release]);
    let whole = b.read("out/r-Q6_K.gguf");
    fs::remove_dir_all(b.path("out")).unwrap();
    for part in ["2/2", "1/2"] {
        expect(0, ["release", &release, "--shard", part]);
    }
    expect(0, ["finish", &release]);
    assert!(b.read("out/r-Q6_K.gguf") == whole);
}

#[test]
fn layers_are_stacked_and_the_configuration_follows() {
    let b = Bench::new();
    let layers =
        json(&fs::read_to_string(demo().join("config.json")).unwrap())["num_hidden_layers"].as_u64().unwrap();
    let recipe = format!(
        "merge_method: passthrough\nslices:\n- sources: [{{model: a, layer_range: [0, {layers}]}}]\n- sources: [{{model: b, layer_range: [0, {layers}]}}]\n"
    );
    // The chosen model's tokenizer goes along.
    let tokenizer = fs::read_to_string(b.path("b/tokenizer_config.json")).unwrap() + "\n";
    fs::write(b.path("b/tokenizer_config.json"), &tokenizer).unwrap();
    let recipe = b.write("tall.yml", &(recipe + "tokenizer_source: b\n"));
    expect(0, ["merge", &recipe, "-o", &b.text("tall")]);
    let config = json(&fs::read_to_string(b.path("tall/config.json")).unwrap());
    assert_eq!(config["num_hidden_layers"], 2 * layers);
    // The recipe goes along; the demo's card would speak of another model.
    let files = names(&b.path("tall"));
    for name in ["mergekit_config.yml", "tokenizer.model", "model.safetensors"] {
        assert!(files.contains(&name.to_owned()), "{files:?}");
    }
    assert!(!files.contains(&"README.md".to_owned()));
    assert_eq!(fs::read_to_string(b.path("tall/tokenizer_config.json")).unwrap(), tokenizer);
    expect(0, ["merge", &recipe, "-o", &b.text("tall.gguf")]);
    let (out, _) = expect(0, ["inspect", &b.text("tall.gguf"), "--json"]);
    let metadata = json(&out)["metadata"].clone();
    let count = metadata.as_array().unwrap().iter().find(|m| m["key"] == "llama.block_count").unwrap();
    assert_eq!(count["value"], 2 * layers);
}

#[test]
fn models_come_in_every_format() {
    let b = Bench::new();
    let hf = b.write("hf.yaml", &TIES.replace("ties", "linear").replace("base_model: DEMO\n", ""));
    expect(0, ["merge", &hf, "-o", &b.text("hf")]);
    // Pickles, and shards.
    expect(0, ["convert", &b.text("a"), "-o", &b.text("pt"), "--to", "pickle"]);
    expect(
        0,
        [
            "convert",
            &b.text("b"),
            "-o",
            &b.text("sharded"),
            "--to",
            "safetensors",
            "--max-shard-size",
            "100KB",
        ],
    );
    let mixed = fs::read_to_string(&hf)
        .unwrap()
        .replace("model: a,", "model: pt,")
        .replace("model: b,", "model: sharded,");
    let mixed = b.write("mixed.yaml", &mixed);
    expect(0, ["merge", &mixed, "-o", &b.text("mixed.safetensors")]);
    expect(0, ["compare", &b.text("hf"), &b.text("mixed.safetensors"), "--max-rmse", "0"]);
    // GGUF files, whose rows stand in another order.
    for name in ["a", "b"] {
        expect(0, ["convert", &b.text(name), "-o", &b.text(&format!("{name}.gguf")), "--dtype", "f32"]);
    }
    let gguf = fs::read_to_string(&hf).unwrap().replace("a,", "a.gguf,").replace("b,", "b.gguf,");
    let refused = b.write("gguf.yaml", &gguf);
    let (_, e) = expect(4, ["merge", &refused, "-o", &b.text("gguf.gguf")]);
    assert!(e.contains("dtype"), "{e}");
    let gguf = b.write("gguf.yaml", &gguf.replace("dtype: float32\n", ""));
    expect(0, ["merge", &gguf, "-o", &b.text("gguf.gguf")]);
    expect(0, ["convert", &b.text("hf"), "-o", &b.text("hf.gguf")]);
    expect(0, ["compare", &b.text("hf.gguf"), &b.text("gguf.gguf"), "--max-rmse", "0"]);
    // Quantized ones are decoded.
    expect(0, ["convert", &b.text("a"), "-o", &b.text("q.gguf"), "--quant", "Q8_0"]);
    let alone = "merge_method: linear\nmodels:\n- {model: q.gguf, parameters: {weight: 1}}\n";
    let (_, e) = expect(0, ["merge", &b.write("alone.yaml", alone), "-o", &b.text("decoded.gguf")]);
    assert!(e.contains("of q.gguf are decoded"), "{e}");
    expect(0, ["compare", &b.text("q.gguf"), &b.text("decoded.gguf"), "--max-rmse", "0"]);
    let decoded = json(&expect(0, ["inspect", &b.text("decoded.gguf"), "--json"]).0);
    let mut metadata = decoded["metadata"].as_array().unwrap().iter();
    assert_eq!(metadata.find(|m| m["key"] == "general.file_type").unwrap()["value"], 0, "ALL_F32");
}

#[test]
fn large_models_are_merged_in_little_memory() {
    let dir = tempfile::tempdir().unwrap();
    let each = big_zero_model(&dir.path().join("a"), 2048, 2);
    big_zero_model(&dir.path().join("b"), 2048, 2);
    let base = dir.path().join("base");
    big_zero_model(&base, 2048, 2);
    let recipe = dir.path().join("r.yaml");
    let text_of = TIES.replace("DEMO", "base").replace("float32", "bfloat16").replace("ties", "dare_ties");
    for recipe_text in [text_of.clone(), text_of.replace("dare_ties", "ties")] {
        fs::write(&recipe, recipe_text).unwrap();
        let out = text(&dir.path().join("out.gguf"));
        let args = ["merge", &text(&recipe), "-o", &out, "--memory", "96MiB", "-j", "2", "--json", "--force"];
        let (report, _) = expect(0, args);
        let peak = json(&report)["peak_rss_bytes"].as_u64().unwrap();
        assert!(each > 100 << 20 && peak <= (96 + 64) << 20, "{peak} bytes for models of {each}");
    }
}

#[test]
fn what_cannot_be_merged_is_named() {
    let b = Bench::new();
    let refuse = |code: i32, recipe: &str, says: &str| {
        let recipe = b.write("bad.yaml", recipe);
        let (_, e) = expect(code, ["merge", &recipe, "-o", &b.text("bad"), "--force"]);
        assert!(e.contains(says) && e.contains("bad.yaml") && e.contains("hint"), "{says}: {e}");
        assert!(!b.path("bad").exists());
    };
    let change = |from: &str, to: &str| TIES.replacen(from, to, 1);
    refuse(2, "merge_method: [", "not a merge recipe");
    refuse(2, "models: []", "merge_method");
    refuse(2, &change("ties", "tise"), "tise");
    refuse(4, &change("ties", "model_stock"), "model_stock");
    refuse(2, &change("density: 0.4", "densitty: 0.4"), "models[0].parameters.densitty");
    refuse(2, &change("dtype", "dytpe"), "dytpe");
    refuse(2, &change("weight: 0.5", "lambda: 0.5"), "weight for b");
    refuse(2, &change("model: a", "model: nobody/nothing"), "nobody/nothing");
    refuse(4, &change("model: a", "model: a+lora"), "a+lora");
    fs::write(b.path("c.yaml"), TIES).unwrap();
    refuse(4, &change("model: a", "model: c.yaml"), "c.yaml is a merge itself");
    refuse(2, &change("dtype: float32", "tokenizer_source: c"), "c is none of the models");
    // A vocabulary that differs, and one that has more tokens.
    let vocabulary = b.path("b/tokenizer.model");
    let good = fs::read(&vocabulary).unwrap();
    fs::write(&vocabulary, [&good[..], &[0]].concat()).unwrap();
    refuse(4, &change("dtype: float32", "tokenizer_source: base"), "vocabularies of");
    refuse(4, &change("dtype: float32", "tokenizer: {source: union}"), "vocabularies of");
    let (_, e) = expect(0, ["merge", &b.write("ok.yaml", TIES), "-o", &b.text("ok")]);
    assert!(e.contains("vocabularies of"), "{e}");
    let config = json(&fs::read_to_string(b.path("ok/config.json")).unwrap());
    assert_eq!(config["torch_dtype"], "float32");
    let big = b.path("big");
    big_zero_model(&big, 64, 2);
    refuse(3, &change("model: b", "model: big"), "it is");
    // What is not a recipe has no seed.
    let (_, e) = expect(2, ["merge", &b.text("a"), "-o", &b.text("bad"), "--seed", "1"]);
    assert!(e.contains("only merges"), "{e}");
    // GGUF files are not merged with folders.
    expect(0, ["convert", &b.text("a"), "-o", &b.text("q.gguf"), "--quant", "Q8_0"]);
    refuse(4, &change("model: a", "model: q.gguf"), "GGUF files cannot be merged with checkpoints");
}
