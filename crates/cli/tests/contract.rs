//! What scripts rely on: exit codes, JSON, what is printed where, and which files exist afterwards.

mod common;

use common::{copy_demo, demo, expect, json, names, run};
use std::fs;

#[test]
fn the_readmes_command_works_and_its_report_adds_up() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("tiny.gguf");
    let demo = demo();
    let (stdout, stderr) = expect(
        0,
        [
            "convert".as_ref(),
            demo.as_os_str(),
            "-o".as_ref(),
            out.as_os_str(),
            "--quant".as_ref(),
            "Q4_K_M".as_ref(),
        ],
    );
    assert!(stdout.contains("bits per weight") && stdout.contains("SQNR"), "{stdout}");
    assert_eq!(stderr, "", "nothing but errors and notes goes to standard error in a pipe");
    let (stdout, _) = expect(
        0,
        [
            "convert".as_ref(),
            demo.as_os_str(),
            "-o".as_ref(),
            out.as_os_str(),
            "--quant".as_ref(),
            "q4_k_m".as_ref(),
            "--json".as_ref(),
            "--force".as_ref(),
        ],
    );
    let report = json(&stdout);
    assert_eq!(report["output_bytes"].as_u64(), Some(fs::metadata(&out).unwrap().len()));
    assert_eq!(report["target"], "Q4_K_M");
    assert!(report["error"]["sqnr_db"].as_f64().unwrap() > 20.0);
    assert!(report["peak_rss_bytes"].as_u64().unwrap() > 0);
    let tensors = report["tensors"].as_array().unwrap();
    let sum: u64 = tensors.iter().map(|t| t["bytes"].as_u64().unwrap()).sum();
    let bpw = sum as f64 * 8.0 / report["parameters"].as_f64().unwrap();
    assert!((bpw - report["bits_per_weight"].as_f64().unwrap()).abs() < 1e-9);
    assert_eq!(names(dir.path()), ["tiny.gguf"]);
}

#[test]
fn a_better_search_gives_the_same_types_with_less_error() {
    let dir = tempfile::tempdir().unwrap();
    let reports = ["ggml", "best"].map(|search| {
        let out = dir.path().join(format!("{search}.gguf"));
        let (source, out) = (demo().display().to_string(), out.display().to_string());
        let args = ["convert", &source, "-o", &out, "--quant", "Q4_K_M", "--search", search, "--json"];
        let report = json(&expect(0, args).0);
        assert_eq!(report["search"], search);
        report
    });
    let [ggml, best] = &reports;
    assert_eq!(ggml["types"], best["types"]);
    assert_eq!(ggml["output_bytes"], best["output_bytes"]);
    let rmse = |r: &serde_json::Value| r["error"]["rmse"].as_f64().unwrap();
    assert!(rmse(best) < rmse(ggml), "{} after {}", rmse(best), rmse(ggml));
}

#[test]
fn a_dry_run_knows_the_size_and_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("tiny.gguf");
    let args = |extra: &[&str]| {
        let mut v = vec![
            "convert".to_owned(),
            demo().display().to_string(),
            "-o".to_owned(),
            out.display().to_string(),
        ];
        v.extend(extra.iter().map(|s| (*s).to_owned()));
        v
    };
    let (stdout, _) = expect(0, args(&["--quant", "Q6_K", "--dry-run", "--json"]));
    let planned = json(&stdout)["output_bytes"].as_u64().unwrap();
    assert!(names(dir.path()).is_empty());
    let (stdout, _) = expect(0, args(&["--quant", "Q6_K", "--dry-run"]));
    assert!(stdout.contains("would write"));
    expect(0, args(&["--quant", "Q6_K"]));
    assert_eq!(fs::metadata(&out).unwrap().len(), planned);
}

#[test]
fn existing_files_are_kept_unless_forced() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("tiny.gguf");
    fs::write(&out, "mine").unwrap();
    let demo = demo();
    let args = ["convert".as_ref(), demo.as_os_str(), "-o".as_ref(), out.as_os_str()];
    let (_, stderr) = expect(2, args);
    assert!(stderr.contains("--force"), "{stderr}");
    assert_eq!(fs::read(&out).unwrap(), b"mine");
    expect(0, args.into_iter().chain(["--force".as_ref()]));
    assert_ne!(fs::read(&out).unwrap(), b"mine");
    assert_eq!(names(dir.path()), ["tiny.gguf"]);
}

#[test]
fn comparisons_pass_fail_and_cross_formats() {
    let dir = tempfile::tempdir().unwrap();
    let demo = demo().display().to_string();
    let path = |n: &str| dir.path().join(n).display().to_string();
    expect(0, ["convert", &demo, "-o", &path("b.gguf")]);
    expect(0, ["convert", &demo, "-o", &path("q.gguf"), "--quant", "Q4_0"]);
    let (stdout, _) = expect(0, ["compare", &demo, &path("b.gguf"), "--max-rmse", "0", "--json"]);
    assert_eq!(json(&stdout)["total"]["different"], 0, "permuted rows meet their originals");
    let (stdout, _) = expect(5, ["compare", &demo, &path("q.gguf"), "--max-rmse", "1e-6", "--json"]);
    assert!(json(&stdout)["failure"].as_str().unwrap().contains("RMSE"));
    expect(0, ["compare", &path("b.gguf"), &path("q.gguf"), "--max-rmse", "0.1"]);
    expect(
        5,
        ["compare", &demo, &path("nothing.gguf")]
            .map(|s| s.replace("nothing", "q"))
            .iter()
            .chain(&["--max-rmse".into(), "0".into()]),
    );
}

#[test]
fn splits_are_written_and_read_as_one() {
    let dir = tempfile::tempdir().unwrap();
    let demo = demo().display().to_string();
    let whole = dir.path().join("whole.gguf").display().to_string();
    expect(0, ["convert", &demo, "-o", &whole]);
    let parts = dir.path().join("parts.gguf").display().to_string();
    expect(0, ["convert", &demo, "-o", &parts, "--max-shard-size", "300KB"]);
    let first = dir.path().join("parts-00001-of-00004.gguf");
    expect(0, ["compare", &whole, &first.display().to_string(), "--max-rmse", "0"]);
    // Converting the set back gives the file that was never split.
    let joined = dir.path().join("joined.gguf").display().to_string();
    expect(0, ["convert", &first.display().to_string(), "-o", &joined]);
    assert_eq!(fs::read(&whole).unwrap(), fs::read(&joined).unwrap());
    fs::remove_file(dir.path().join("parts-00003-of-00004.gguf")).unwrap();
    let (_, stderr) = expect(3, ["inspect", &first.display().to_string()]);
    assert!(stderr.contains("parts-00003-of-00004.gguf"), "{stderr}");
}

#[test]
fn metadata_edits_land_in_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("t.gguf").display().to_string();
    let demo = demo().display().to_string();
    expect(
        0,
        ["convert", &demo, "-o", &out, "--metadata", "general.name=Other", "--metadata", "my.number=u32:7"],
    );
    let (stdout, _) = expect(0, ["inspect", &out, "--json"]);
    let found = json(&stdout);
    let value = |key: &str| {
        let m = found["metadata"].as_array().unwrap().iter().find(|m| m["key"] == key).unwrap();
        (m["type"].as_str().unwrap().to_owned(), m["value"].clone())
    };
    assert_eq!(value("general.name"), ("str".into(), "Other".into()));
    assert_eq!(value("my.number"), ("u32".into(), 7.into()));
    assert_eq!(value("tokenizer.ggml.tokens").1["len"], 384, "long arrays are abridged");
    expect(2, ["convert", &demo, "-o", &out, "--force", "--metadata", "general.file_type=soup"]);
}

#[test]
fn usage_errors_name_the_next_step() {
    let demo = demo().display().to_string();
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("t.gguf").display().to_string();
    for (args, says) in [
        (vec!["convert", &demo, "-o", &out, "--quant", "Q9_K"], "list recipes"),
        (vec!["convert", &demo, "-o", &out, "--quant", "Q4_K_M", "--tensor-type", "attn_v"], "REGEX=TYPE"),
        (vec!["convert", &demo, "-o", &out, "--pre", "nonsense-pre"], "pre"),
        (vec!["convert", &demo, "-o", &out, "--memory", "soup"], "256MiB"),
        (vec!["convert", &demo, "-o", dir.path().to_str().unwrap()], "-o model"),
        (vec!["convert", &demo, "-o", &out, "--quant", "Q4_0", "--dtype", "f16"], "cannot be used with"),
        (vec!["frobnicate"], "unrecognized subcommand"),
    ] {
        let r = run(&args);
        let stderr = String::from_utf8_lossy(&r.stderr);
        assert!(matches!(r.status.code(), Some(2 | 4)), "{args:?}: {stderr}");
        assert!(stderr.contains(says), "{args:?}: {stderr}");
    }
    let (_, stderr) = expect(4, ["convert", &demo, "-o", &out.replace("gguf", "xyz")]);
    assert!(stderr.contains(".gguf"), "{stderr}");
    assert!(names(dir.path()).is_empty());
}

#[test]
fn io_errors_are_six() {
    let demo = demo().display().to_string();
    let (_, stderr) = expect(6, ["convert", &demo, "-o", "no/such/folder/x.gguf"]);
    assert!(stderr.contains("no/such/folder"), "{stderr}");
    let (stdout, stderr) = expect(6, ["inspect", "no-such-model", "--json"]);
    assert!(stderr.contains("no-such-model"), "{stderr}");
    assert_eq!(json(&stdout)["error"]["kind"], "io");
}

#[test]
fn unsupported_inputs_are_four_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("m");
    copy_demo(&model);
    let config = fs::read_to_string(model.join("config.json")).unwrap();
    let out = dir.path().join("t.gguf").display().to_string();
    let m = model.display().to_string();
    fs::write(model.join("config.json"), config.replace("LlamaForCausalLM", "NovelForCausalLM")).unwrap();
    let (_, stderr) = expect(4, ["convert", &m, "-o", &out]);
    assert!(stderr.contains("NovelForCausalLM") && stderr.contains("hint"), "{stderr}");
    let mut quantized = json(&config);
    quantized["quantization_config"] = serde_json::json!({"quant_method": "eetq", "bits": 4});
    fs::write(model.join("config.json"), quantized.to_string()).unwrap();
    let (_, stderr) = expect(4, ["convert", &m, "-o", &out]);
    assert!(stderr.contains("eetq"), "{stderr}");
    assert_eq!(names(dir.path()), ["m"]);
}

#[test]
fn lists_and_completions_print() {
    for what in ["types", "recipes", "formats", "archs"] {
        let (stdout, _) = expect(0, ["list", what]);
        assert!(stdout.lines().count() > 2, "{what}");
        let (stdout, _) = expect(0, ["list", what, "--json"]);
        assert!(!json(&stdout).as_array().unwrap().is_empty());
    }
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let (stdout, _) = expect(0, ["completions", shell]);
        assert!(stdout.contains("tensormill"), "{shell}");
    }
    let (stdout, _) = expect(0, ["convert", "--help"]);
    assert!(stdout.contains("Examples:") && stdout.contains("--memory"));
}
