//! Checkpoints as outputs: GGUF turned back into a Hugging Face folder, safetensors cast, resharded and copied.

mod common;

use common::{GOLDEN, demo, expect, golden, json, names, run, text};
use serde_json::Value as Json;
use std::{fs, path::Path};

fn config(folder: &Path) -> Json {
    json(&fs::read_to_string(folder.join("config.json")).unwrap())
}

#[test]
fn gguf_turns_back_into_the_checkpoint_it_came_from() {
    for (model, pre) in GOLDEN {
        let dir = tempfile::tempdir().unwrap();
        let (gguf, back) = (dir.path().join("m.gguf"), dir.path().join("back"));
        let mut args = vec!["convert".to_owned(), text(&golden(model)), "-o".into(), text(&gguf)];
        args.extend(pre.iter().flat_map(|p| ["--pre".to_owned(), (*p).to_owned()]));
        expect(0, &args);
        expect(0, ["convert", &text(&gguf), "-o", &text(&back), "--to", "safetensors"]);
        // Under the source's own names, every value as it was.
        let out = run(["compare", &text(&golden(model)), &text(&back), "--json"]);
        let compared = json(&String::from_utf8_lossy(&out.stdout));
        assert_eq!(compared["total"]["different"], 0, "{model}");
        assert_eq!(compared["mismatched"], serde_json::json!([]), "{model}");
        assert_eq!(compared["only_in_b"], serde_json::json!([]), "{model}");
        // The GGUF form of an encoder has no pooler.
        let gone = compared["only_in_a"].as_array().unwrap();
        assert!(gone.iter().all(|n| n.as_str().unwrap().starts_with("pooler.")), "{model}: {gone:?}");
        let (want, got) = (config(&golden(model)), config(&back));
        for key in [
            "hidden_size",
            "num_hidden_layers",
            "intermediate_size",
            "num_attention_heads",
            "vocab_size",
            "max_position_embeddings",
            "rms_norm_eps",
            "tie_word_embeddings",
            "num_local_experts",
            "num_experts",
            "num_experts_per_tok",
            "moe_intermediate_size",
            "final_logit_softcapping",
            "bos_token_id",
        ] {
            if !want[key].is_null() && !got[key].is_null() {
                assert_eq!(want[key], got[key], "{model}: {key}");
            }
        }
        let class = |c: &Json| c["architectures"][0].as_str().unwrap_or("").to_owned();
        assert!(class(&got) == class(&want) || *model == "mistral-f16", "{model}: {}", class(&got));
    }
}

#[test]
fn what_comes_back_makes_the_same_file_again() {
    let dir = tempfile::tempdir().unwrap();
    let [first, again] = ["a.gguf", "b.gguf"].map(|n| dir.path().join(n));
    // A folder's name becomes part of the metadata.
    let back = dir.path().join("mistral-f16");
    expect(0, ["convert", &text(&golden("mistral-f16")), "-o", &text(&first)]);
    expect(0, ["convert", &text(&first), "-o", &text(&back), "--to", "safetensors"]);
    expect(0, ["convert", &text(&back), "-o", &text(&again)]);
    assert!(fs::read(&first).unwrap() == fs::read(&again).unwrap());
}

#[test]
fn blocks_become_floats_and_losses_ask_for_consent() {
    let dir = tempfile::tempdir().unwrap();
    let (gguf, back) = (dir.path().join("m.gguf"), dir.path().join("back"));
    expect(0, ["convert", &text(&demo()), "-o", &text(&gguf), "--quant", "Q4_K_M"]);
    expect(0, ["convert", &text(&gguf), "-o", &text(&back), "--to", "safetensors"]);
    assert_eq!(config(&back)["torch_dtype"], "float32");
    expect(0, ["compare", &text(&gguf), &text(&back), "--max-rmse", "0"]);
    let half = dir.path().join("half");
    expect(0, ["convert", &text(&gguf), "-o", &text(&half), "--to", "safetensors", "--dtype", "bf16"]);
    assert_eq!(config(&half)["torch_dtype"], "bfloat16");

    let phi = dir.path().join("phi.gguf");
    expect(0, ["convert", &text(&golden("phi3-longrope")), "-o", &text(&phi)]);
    let out = dir.path().join("phi");
    let (_, stderr) = expect(2, ["convert", &text(&phi), "-o", &text(&out), "--to", "safetensors"]);
    assert!(stderr.contains("rope_factors_long") && stderr.contains("--allow-loss"), "{stderr}");
    assert!(!out.join("model.safetensors").exists());
    expect(0, ["convert", &text(&phi), "-o", &text(&out), "--to", "safetensors", "--allow-loss"]);
    let (stdout, _) = expect(
        0,
        ["convert", &text(&phi), "-o", &text(&dir.path().join("x")), "--to", "safetensors", "--dry-run"],
    );
    assert!(stdout.contains("lost: rope_factors_long.weight"), "{stdout}");
}

#[test]
fn safetensors_are_cast_resharded_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    let source = golden("qwen3");
    // One file: the canonical one; and the same again from itself.
    let [one, two] = ["one.safetensors", "two.safetensors"].map(|n| dir.path().join(n));
    expect(0, ["convert", &text(&source), "-o", &text(&one)]);
    expect(0, ["convert", &text(&one), "-o", &text(&two)]);
    assert!(fs::read(&one).unwrap() == fs::read(&two).unwrap());
    // A folder in shards, with everything that stands beside the weights.
    let folder = dir.path().join("folder");
    expect(
        0,
        ["convert", &text(&source), "-o", &text(&folder), "--to", "safetensors", "--max-shard-size", "100KB"],
    );
    let written = names(&folder);
    assert!(written.iter().any(|n| n == "model.safetensors.index.json"), "{written:?}");
    assert!(written.iter().any(|n| n.starts_with("model-00001-of-")), "{written:?}");
    for file in ["tokenizer.json", "tokenizer_config.json"] {
        assert_eq!(fs::read(folder.join(file)).unwrap(), fs::read(source.join(file)).unwrap(), "{file}");
    }
    assert_eq!(config(&folder), config(&source));
    expect(0, ["compare", &text(&source), &text(&folder), "--max-rmse", "0"]);
    let whole = dir.path().join("whole.safetensors");
    expect(0, ["convert", &text(&folder), "-o", &text(&whole)]);
    assert!(fs::read(&whole).unwrap() == fs::read(&one).unwrap());
    // Another type.
    let wide = dir.path().join("wide.safetensors");
    expect(0, ["convert", &text(&source), "-o", &text(&wide), "--dtype", "f32"]);
    expect(0, ["compare", &text(&source), &text(&wide), "--max-rmse", "0"]);
    // What makes no sense.
    let (_, stderr) = expect(
        2,
        ["convert", &text(&source), "-o", &text(&dir.path().join("q.safetensors")), "--quant", "Q4_0"],
    );
    assert!(stderr.contains("recipe for GGUF"), "{stderr}");
    let (_, stderr) = expect(4, ["convert", &text(&source), "-o", &text(&dir.path().join("model.xyz"))]);
    assert!(stderr.contains("--to"), "{stderr}");
    let (_, stderr) =
        expect(2, ["convert", &text(&source), "-o", &text(&dir.path().join("d")), "--to", "gguf"]);
    assert!(stderr.contains(".gguf"), "{stderr}");
}
