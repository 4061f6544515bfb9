//! `card` as people use it: from a release to a card, as a part of a release, its checks; and that nothing private gets out.

mod common;

use common::{copy_demo, demo, expect, json, mill, names, text};
use std::{
    fs,
    path::{Path, PathBuf},
};

const VARIANTS: &str = "[[variant]]\nquant = \"Q4_K_M\"\n[[variant]]\nquant = \"Q8_0\"\n[[variant]]\ndtype = \"bf16\"\n\
    [[variant]]\ndtype = \"bf16\"\nformat = \"safetensors\"\n";

fn release(dir: &Path, source: &Path, more: &str) -> PathBuf {
    let path = dir.join("release.toml");
    let source = source.display().to_string();
    let head = format!("[source]\npath = {source:?}\n[release]\nname = \"m\"\nfolder = \"out\"\n");
    fs::write(&path, format!("{head}{VARIANTS}{more}")).unwrap();
    path
}

#[test]
fn a_release_writes_its_card_and_every_number_is_the_manifests() {
    let dir = tempfile::tempdir().unwrap();
    let card = "[card]\ntitle = \"Tiny\"\nrepository = \"me/tiny-GGUF\"\nbase_model = [\"golden-mill/tiny-llama\"]\n\
        quantized_by = \"me\"\nfields = { citation = \"@misc{x}\", \"own-key\" = 1, front_matter = { own = [1, \"no\"] } }\n";
    let file = release(dir.path(), &demo(), card);
    let out = dir.path().join("out");
    expect(0, ["release", &text(&file)]);
    let readme = fs::read_to_string(out.join("README.md")).unwrap();
    let manifest = json(&fs::read_to_string(out.join("m.manifest.json")).unwrap());
    for v in manifest["variants"].as_array().unwrap() {
        let bits = format!("| {:.2} |", v["bits_per_weight"].as_f64().unwrap());
        let row =
            readme.lines().find(|l| l.starts_with(&format!("| {} |", v["name"].as_str().unwrap()))).unwrap();
        assert!(row.contains(&bits), "{row} {bits}");
        // Weights that are moved are not measured.
        let rmse = v["error"]["rmse"].as_f64().map_or("not measured".into(), |e| format!("{e:.3e}"));
        assert!(row.contains(&rmse), "{row} {rmse}");
        for f in v["files"].as_array().unwrap() {
            let (name, sum) = (f["name"].as_str().unwrap(), f["sha256"].as_str().unwrap());
            assert!(readme.contains(&format!("| `{name}` | {} | `{sum}` |", f["bytes"])), "{name}");
        }
    }
    for said in [
        "# Tiny\n",
        "license: apache-2.0\n",
        "base_model: golden-mill/tiny-llama\nbase_model_relation: quantized\n",
        "quantization_types:\n- Q4_K_M\n- Q8_0\n",
        "own:\n- 1\n- 'no'\n",
        "language:\n- en\n- 'no'\n",
        "model_creator: The Golden Mill\n",
        "llama-cli -hf me/tiny-GGUF:Q4_K_M\n",
        "AutoModelForCausalLM.from_pretrained(\"./m-BF16-safetensors\"",
        "| BF16 | `m-BF16.gguf` |",
        "the source's values",
        "![Size against error](m.report/size-vs-error.svg)",
        "@misc{x}",
        "| layers | 1 |",
    ] {
        assert!(readme.contains(said), "{said} is missing in\n{readme}");
    }
    assert!(
        !readme.contains("Ethical")
            && !readme.contains("Environmental")
            && !readme.contains("unknown sampling")
    );
    expect(0, ["card", "--check", &text(&out.join("README.md"))]);
    // The sums speak of what is in the release for good; the card may be edited.
    assert!(!fs::read_to_string(out.join("SHA256SUMS")).unwrap().contains("  README.md"));
    let (_, stderr) = expect(2, ["release", &text(&file)]);
    assert!(stderr.contains("already exists"), "{stderr}");

    // The commands in the card make the same bytes.
    let alone = dir.path().join("alone");
    fs::create_dir(&alone).unwrap();
    let commands: Vec<&str> = readme.lines().filter(|l| l.starts_with("tensormill convert ")).collect();
    assert_eq!(commands.len(), 4);
    for command in commands {
        let words: Vec<&str> = command.split(' ').skip(1).collect();
        let words: Vec<String> =
            words.iter().map(|w| if *w == "tiny-llama" { text(&demo()) } else { (*w).to_owned() }).collect();
        let got = mill().args(&words).current_dir(&alone).output().unwrap();
        assert!(got.status.success(), "{command}: {}", String::from_utf8_lossy(&got.stderr));
    }
    for name in ["m-Q4_K_M.gguf", "m-Q8_0.gguf", "m-BF16.gguf", "m-BF16-safetensors/model.safetensors"] {
        assert!(fs::read(alone.join(name)).unwrap() == fs::read(out.join(name)).unwrap(), "{name}");
    }
}

#[test]
fn a_card_comes_later_too_and_keeps_what_others_added() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    expect(0, ["release", &text(&release(dir.path(), &demo(), ""))]);
    assert!(!out.join("README.md").exists(), "nobody asked for it");
    let (stdout, stderr) = expect(0, ["card", &text(&out)]);
    assert!(stdout.contains("README.md written") && stderr.contains("--base-model"), "{stdout}{stderr}");
    let first = fs::read_to_string(out.join("README.md")).unwrap();
    // Without the source, what the files themselves say.
    assert!(first.contains("license: apache-2.0") && first.contains("## Files"), "{first}");
    let (_, stderr) = expect(2, ["card", &text(&out)]);
    assert!(stderr.contains("exist"), "{stderr}");
    fs::write(out.join("README.md"), first.replacen("---\n", "---\nmine: {a: 1}   # by hand\n", 1)).unwrap();
    expect(0, ["card", &text(&out), "--force", "--source", &text(&demo()), "--relation", "quantized"]);
    let second = fs::read_to_string(out.join("README.md")).unwrap();
    assert!(
        second.contains("mine: {a: 1}   # by hand\n") && second.contains("model_creator: The Golden Mill"),
        "{second}"
    );
    assert_eq!(second.matches("## Limitations and bias").count(), 1);

    let own = dir.path().join("own.md");
    fs::write(
        &own,
        "{% extends \"default\" %}{% block summary %}{{ fields.who }}: {{ variants | length }}{% endblock %}",
    )
    .unwrap();
    let (stdout, _) = expect(
        0,
        [
            "card",
            &text(&out),
            "-o",
            "-",
            "--template",
            &text(&own),
            "--field",
            "who=us",
            "--field",
            "license=mit",
        ],
    );
    assert!(
        stdout.contains("us: 4\n") && stdout.contains("license: mit\n") && stdout.contains("## Files"),
        "{stdout}"
    );
    fs::write(&own, "line\n{{ fields.nobody }}").unwrap();
    let (_, stderr) = expect(2, ["card", &text(&out), "-o", "-", "--template", &text(&own)]);
    assert!(stderr.contains("own.md") && stderr.contains("line 2"), "{stderr}");
    let (stdout, _) = expect(0, ["card", "--print-template"]);
    assert!(stdout.contains("{% block limitations %}"));
    expect(2, ["card", &text(&dir.path().join("own.md"))]);
}

#[test]
fn training_leaves_facts_and_an_adapter_names_its_base() {
    let dir = tempfile::tempdir().unwrap();
    let tuned = dir.path().join("tuned");
    copy_demo(&tuned);
    let put = |name: &str, json: serde_json::Value| fs::write(tuned.join(name), json.to_string()).unwrap();
    put(
        "training_args.json",
        serde_json::json!({"learning_rate": 2e-5, "seed": 7, "output_dir": "/home/alice/out", "hub_token": "hf_aaaaaaaaaaaaaaaaaaaaaaaa"}),
    );
    put(
        "trainer_state.json",
        serde_json::json!({"global_step": 1200, "best_model_checkpoint": "/home/alice/out/checkpoint-9", "log_history": [{"loss": 0.5}, {"eval_accuracy": 0.7, "eval_runtime": 3.0}]}),
    );
    put("all_results.json", serde_json::json!({"eval_accuracy": 0.75, "train_loss": 0.4321}));
    let (stdout, _) = expect(0, ["card", &text(&tuned), "-o", "-", "--field", "eval_dataset=glue"]);
    for said in [
        "| learning rate | 2e-5 |",
        "| seed | 7 |",
        "| steps done | 1200 |",
        "| training loss | 0.4321 |",
        "| accuracy | 0.75 |",
    ] {
        assert!(stdout.contains(said), "{said} is missing in\n{stdout}");
    }
    assert!(
        stdout.contains("value: 0.75")
            && stdout.contains("type: glue")
            && stdout.contains("type: text-generation"),
        "{stdout}"
    );
    assert!(!stdout.contains("alice") && !stdout.contains("hf_") && !stdout.contains("runtime"), "{stdout}");

    let lora = dir.path().join("lora");
    fs::create_dir(&lora).unwrap();
    let config = serde_json::json!({"peft_type": "LORA", "r": 8, "lora_alpha": 16, "target_modules": ["q_proj"], "base_model_name_or_path": "org/base"});
    fs::write(lora.join("adapter_config.json"), config.to_string()).unwrap();
    let (stdout, _) = expect(0, ["card", &text(&lora), "-o", "-"]);
    assert!(
        stdout.contains("base_model: org/base\nbase_model_relation: adapter\n")
            && stdout.contains("| rank | 8 |"),
        "{stdout}"
    );
    assert!(stdout.contains("library_name: peft"), "{stdout}");
}

#[test]
fn nothing_private_gets_into_a_card() {
    const TOKEN: &str = "hf_PlantedPlantedPlantedPlanted42";
    const SECRET: &str = "correct-horse-battery";
    const HOST: &str = "grindstone-42";
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("home/rosalind");
    let source = home.join("secret-project/tiny-llama");
    copy_demo(&source);
    let config = fs::read_to_string(source.join("config.json")).unwrap();
    let planted = text(&home.join("checkpoints/run-3"));
    let config =
        config.replacen('{', &format!("{{\"_name_or_path\": {planted:?}, \"hostname\": \"{HOST}\","), 1);
    fs::write(source.join("config.json"), config).unwrap();
    let card = fs::read_to_string(source.join("README.md")).unwrap();
    let card = card.replacen(
        "---\n",
        &format!("---\ntrained_on: {HOST}\nlog: {planted}/log # by {HOST}\nkey: {TOKEN}\n"),
        1,
    );
    let more = format!(
        "\n## Limitations\nSee {planted}/notes.md and /home/other/notes.md on {HOST}, token {TOKEN}, {SECRET}.\n"
    );
    fs::write(source.join("README.md"), card + &more).unwrap();
    let file = release(&home, &source, "[card]\nfields = { description = \"from ~/data/x.bin\" }\n");
    let run = |args: &[&str]| {
        let out = mill()
            .args(args)
            .env("HF_TOKEN", TOKEN)
            .env("WANDB_API_KEY", SECRET)
            .env("HOME", &home)
            .env("USER", "rosalind")
            .env("HOSTNAME", HOST)
            .current_dir(&home)
            .output()
            .unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    };
    run(&["release", &text(&file)]);
    let out = home.join("out");
    let written = fs::read_to_string(out.join("README.md")).unwrap();
    fs::remove_file(out.join("README.md")).unwrap();
    run(&["card", &text(&out), "--source", &text(&source)]);
    let later = fs::read_to_string(out.join("README.md")).unwrap();
    run(&["card", &text(&source), "--force", "--base-model", "a/b"]);
    let own = fs::read_to_string(source.join("README.md")).unwrap();
    for card in [written, later, own] {
        for private in [
            TOKEN,
            SECRET,
            HOST,
            "rosalind",
            "secret-project",
            "checkpoints",
            "/home",
            "~/work",
            &text(dir.path()),
        ] {
            assert!(!card.contains(private), "{private} is in\n{card}");
        }
        assert!(card.contains("See notes.md and notes.md on <host>, token <removed>, <removed>."), "{card}");
        assert!(card.contains("log: log\n") && card.contains("key: '<removed>'\n"), "{card}");
    }
    // Nor into anything else that a release writes.
    let plots = out.join("m.report");
    let beside = names(&out)
        .into_iter()
        .map(|n| out.join(n))
        .filter(|p| p.extension().is_some_and(|x| x == "json" || x == "html"));
    let all: Vec<PathBuf> = beside.chain(names(&plots).into_iter().map(|n| plots.join(n))).collect();
    assert!(all.len() > 4);
    for path in all {
        let written = fs::read_to_string(&path).unwrap();
        assert!(!written.contains("rosalind") && !written.contains(TOKEN), "{}", path.display());
    }
}

#[test]
fn checks_are_for_scripts_and_editors() {
    let dir = tempfile::tempdir().unwrap();
    let good = dir.path().join("good.md");
    let bad = dir.path().join("bad.md");
    let warned = dir.path().join("warned.md");
    fs::write(
        &good,
        "---\nlicense: mit\nlanguage: en\npipeline_tag: text-generation\nlibrary_name: gguf\n---\n# M\n",
    )
    .unwrap();
    fs::write(&bad, "---\nlicense: MIT\nbase_model_relation: quantized\n---\n# M\n").unwrap();
    fs::write(&warned, "---\nlicense: mit\n---\n# M\n").unwrap();
    let (stdout, stderr) = expect(0, ["card", "--check", &text(&good)]);
    assert_eq!((stdout.as_str(), stderr.as_str()), ("1 card: 0 errors, 0 warnings\n", ""));
    let (stdout, _) = expect(5, ["card", "--check", &text(&good), &text(&bad)]);
    assert!(
        stdout.contains(&format!(
            "{}:2:10: error: the Hub does not know the licence `MIT` (perhaps `mit`)",
            text(&bad)
        )),
        "{stdout}"
    );
    assert!(stdout.contains("bad.md:3:22: error: `base_model_relation` needs `base_model`"), "{stdout}");
    expect(0, ["card", "--check", &text(&warned)]);
    expect(5, ["card", "--check", &text(&warned), "--strict"]);
    let (stdout, _) = expect(5, ["card", "--check", &text(&bad), "--json"]);
    let report = json(&stdout);
    let findings = report["files"][0]["findings"].as_array().unwrap();
    assert!(
        findings.iter().any(|f| f["rule"] == "known-license" && f["line"] == 2 && f["column"] == 10),
        "{report}"
    );
    assert_eq!(report["errors"], 2);
    expect(6, ["card", "--check", &text(&dir.path().join("none.md"))]);
    let (_, stderr) = expect(2, ["card"]);
    assert!(stderr.contains("DIR"), "{stderr}");
}
