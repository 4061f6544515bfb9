//! Checkpoints that training leaves, from the command line: a trained model goes to safetensors and to GGUF straight.

mod common;

use common::{demo, expect, json, names, text};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

fn golden(path: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../golden/training")).join(path)
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for e in fs::read_dir(from).unwrap() {
        let e = e.unwrap();
        let to = to.join(e.file_name());
        if e.file_type().unwrap().is_dir() {
            copy(&e.path(), &to);
        } else {
            fs::copy(e.path(), to).unwrap();
        }
    }
}

/// A copy of a golden checkpoint of a small Llama, with the demo's tokenizer beside its configuration.
fn trained(path: &str, config: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("trainer");
    copy(&golden(path), &folder);
    for file in ["tokenizer.model", "tokenizer_config.json", "special_tokens_map.json"] {
        fs::copy(demo().join(file), folder.join(config).join(file)).unwrap();
    }
    (dir, folder)
}

/// Names, types and shapes that the library's own merge has.
fn merged(case: &str) -> BTreeMap<String, (String, String)> {
    let file = golden(if case.starts_with("deepspeed") { "deepspeed.json" } else { "torch.json" });
    let all = json(&fs::read_to_string(file).unwrap());
    let row = |e: &serde_json::Value| {
        (e[0].as_str().unwrap().to_owned(), (e[1].as_str().unwrap().to_owned(), e[2].to_string()))
    };
    all[case].as_array().unwrap().iter().map(row).collect()
}

fn inspected(path: &Path) -> BTreeMap<String, (String, String)> {
    let (stdout, _) = expect(0, ["inspect", &text(path), "--json"]);
    let found = json(&stdout);
    let row = |t: &serde_json::Value| {
        (
            t["name"].as_str().unwrap().to_owned(),
            (t["type"].as_str().unwrap().to_owned(), t["shape"].to_string()),
        )
    };
    found["tensors"].as_array().unwrap().iter().map(row).collect()
}

/// Golden folder, folder of its configuration, part that is named instead, prefix of names in the library's merge.
const CASES: [(&str, &str, &[&str], &str); 3] = [
    (
        "dcp/trainer",
        "",
        &["pytorch_model_fsdp_0", "pytorch_model_fsdp_0/.metadata", "pytorch_model_fsdp_0/__1_0.distcp"],
        "model.",
    ),
    ("deepspeed/trainer", "", &["global_step1", "global_step1/mp_rank_00_model_states.pt"], ""),
    ("ranks/verl", "huggingface", &["model_world_size_2_rank_1.pt"], ""),
];

#[test]
fn a_trained_model_becomes_safetensors_and_gguf() {
    for (case, config, parts, prefix) in CASES {
        let (dir, folder) = trained(case, config);
        let want: BTreeMap<_, _> =
            merged(case).into_iter().map(|(n, e)| (n.strip_prefix(prefix).unwrap().to_owned(), e)).collect();
        assert_eq!(inspected(&folder), want, "{case}");
        // A folder of the same name, so that the same metadata comes of it.
        let name = if config.is_empty() { "trainer" } else { config };
        let plain = dir.path().join("plain").join(name);
        fs::create_dir_all(plain.parent().unwrap()).unwrap();
        expect(0, ["convert", &text(&folder), "-o", &text(&plain), "--to", "safetensors"]);
        assert_eq!(inspected(&plain), want, "{case}");
        let mut written = names(&plain);
        written.retain(|n| n != "generation_config.json");
        assert_eq!(
            written,
            [
                "config.json",
                "model.safetensors",
                "special_tokens_map.json",
                "tokenizer.model",
                "tokenizer_config.json"
            ],
            "{case}"
        );
        expect(0, ["compare", &text(&folder), &text(&plain), "--max-rmse", "0"]);
        // Straight to GGUF is what goes through safetensors.
        let [straight, around] = ["straight.gguf", "around.gguf"].map(|n| dir.path().join(n));
        expect(0, ["convert", &text(&folder), "-o", &text(&straight)]);
        expect(0, ["convert", &text(&plain), "-o", &text(&around)]);
        let (stdout, _) = expect(0, ["compare", &text(&straight), &text(&around), "--max-rmse", "0"]);
        assert!(stdout.contains("every value exact"), "{case}: {stdout}");
        // Whatever of it is named, with the configuration that lies around it.
        for part in parts {
            let out = dir.path().join("part.gguf");
            expect(0, ["convert", &text(&folder.join(part)), "-o", &text(&out), "--force"]);
            assert!(fs::read(&straight).unwrap() == fs::read(&out).unwrap(), "{case} {part}");
        }
    }
}

#[test]
fn parts_are_chosen_and_what_is_left_out_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("m.safetensors");
    let (stdout, _) = expect(0, ["convert", &text(&golden("dcp/fsdp2")), "-o", &text(&out), "--dry-run"]);
    assert!(stdout.contains("optimizer state") && stdout.contains("--all"), "{stdout}");
    expect(0, ["convert", &text(&golden("dcp/fsdp2")), "-o", &text(&out), "--all"]);
    assert_eq!(
        inspected(&out).keys().cloned().collect::<Vec<_>>(),
        merged("dcp/fsdp2").into_keys().collect::<Vec<_>>()
    );
    expect(0, ["convert", &text(&golden("dcp/fsdp2")), "-o", &text(&out), "--key", "model", "--force"]);
    assert!(inspected(&out).contains_key("embed.weight"));
    let (_, stderr) =
        expect(2, ["convert", &text(&golden("deepspeed/zero3")), "-o", &text(&out), "--all", "--force"]);
    assert!(stderr.contains("--all"), "{stderr}");
    // A file of DeepSpeed's by itself, as the pickle that it is.
    let file = golden("deepspeed/zero1/global_step1/mp_rank_00_model_states.pt");
    expect(0, ["convert", &text(&file), "-o", &text(&out), "--key", "module", "--force"]);
    assert_eq!(inspected(&out)["up.weight"].0, "bf16");
}

#[test]
fn incomplete_checkpoints_say_what_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let out = text(&dir.path().join("m.safetensors"));
    let spoilt = dir.path().join("spoilt");
    let missing = |case: &str, file: &str| {
        fs::remove_dir_all(&spoilt).ok();
        copy(&golden(case), &spoilt);
        fs::remove_file(spoilt.join(file)).unwrap();
        let (_, stderr) = expect(3, ["convert", &text(&spoilt), "-o", &out]);
        let name = file.rsplit('/').next().unwrap();
        assert!(stderr.contains(name) && stderr.contains("missing"), "{case}: {stderr}");
    };
    missing("dcp/trainer", "pytorch_model_fsdp_0/__0_0.distcp");
    missing("ranks/verl", "model_world_size_2_rank_1.pt");
    missing("deepspeed/zero2", "global_step1/zero_pp_rank_0_mp_rank_00_optim_states.pt");
    fs::remove_dir_all(&spoilt).unwrap();
    copy(&golden("deepspeed/zero2"), &spoilt);
    fs::write(spoilt.join("latest"), "global_step7").unwrap();
    let (_, stderr) = expect(3, ["inspect", &text(&spoilt)]);
    assert!(stderr.contains("global_step7"), "{stderr}");
    fs::write(spoilt.join("latest"), "../elsewhere").unwrap();
    let (_, stderr) = expect(3, ["inspect", &text(&spoilt)]);
    assert!(stderr.contains("elsewhere"), "{stderr}");
}

#[test]
fn safetensors_of_processes_are_not_taken_for_whole() {
    let dir = tempfile::tempdir().unwrap();
    let header = r#"{"__metadata__":{"format":"pt","DCP_VERSION":"1.0","DCP_SHARDING_INFO":"{\"w\": {\"saved_offsets\": [3, 0]}}"},"w":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]}}"#;
    let file = dir.path().join("shard-00002-model-00001-of-00001.safetensors");
    fs::write(&file, common::safetensors(header, 16)).unwrap();
    for path in [dir.path(), &file] {
        let (_, stderr) = expect(4, ["inspect", &text(path)]);
        assert!(stderr.contains("part") && stderr.contains("consolidat"), "{stderr}");
    }
}
