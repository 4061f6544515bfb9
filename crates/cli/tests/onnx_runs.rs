//! Runs that write ONNX files: mistakes that are explained, sizes that are known beforehand, memory that is bounded, and
//! runs that go on where they were stopped.

mod common;
mod graphs;

use common::{big_zero_model, copy_demo, demo, expect, json, mill, names, run, tensors, text};
use graphs::golden;
use std::{
    fs,
    path::Path,
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

const MIB: u64 = 1 << 20;

#[test]
fn mistakes_are_explained() {
    let dir = tempfile::tempdir().unwrap();
    let path = |n: &str| text(&dir.path().join(n));
    let explained = |code: i32, from: &str, to: &str, more: &[&str], what: &[&str]| {
        let (_, stderr) = expect(code, [&["convert", from, "-o", to], more].concat());
        for what in what.iter().chain(&["hint: "]) {
            assert!(stderr.contains(what), "{what} in\n{stderr}");
        }
        assert!(!Path::new(to).exists());
    };
    let (bert, llama) = (text(&golden("models/bert")), text(&golden("models/llama")));
    let export = text(&golden("exports/bert-torchscript/model.onnx"));
    // What is said of graphs, where none is written.
    for option in
        [&["--opset", "17"][..], &["--onnx-form", "genai"], &["--keep-io-types"], &["--external-data"]]
    {
        for to in ["x.gguf", "x.safetensors", "x.pt"] {
            explained(2, &llama, &path(to), option, &[option[0], "ONNX", ".onnx"]);
        }
        explained(2, &llama, &path("folder"), &[option, &["--to", "safetensors"]].concat(), &[option[0]]);
    }
    // What only graphs that are built can have, of one that was read.
    explained(4, &export, &path("x.onnx"), &["--opset", "13"], &["version 20", "--opset"]);
    explained(4, &export, &path("x.onnx"), &["--onnx-form", "genai"], &["--onnx-form"]);
    expect(0, ["convert", &export, "-o", &path("same.onnx"), "--opset", "20"]);
    // What there is no graph for.
    explained(4, &llama, &path("x.onnx"), &["--opset", "5"], &["opset 5", "--opset takes"]);
    explained(4, &llama, &path("x.onnx"), &["--opset", "99"], &["opset 99", "--opset takes"]);
    explained(4, &bert, &path("x.onnx"), &["--onnx-form", "genai"], &["bert", "form of ONNX's own"]);
    explained(
        4,
        &text(&common::golden("gemma2")),
        &path("x.onnx"),
        &[],
        &["gemma2", "config.json", "known: "],
    );
    explained(2, &llama, &path("x.onnx"), &["--quant", "Q8_0"], &["Q8_0", "--quant"]);
    explained(2, &llama, &path("x.gguf"), &["--to", "onnx"], &[]);
    // Weights alone say nothing of what is computed with them.
    fs::copy(golden("models/llama/model.safetensors"), path("alone.safetensors")).unwrap();
    explained(4, &path("alone.safetensors"), &path("x.onnx"), &[], &["config.json", "beside its weights"]);
    // Nor does a configuration without the weights that it speaks of.
    let wrong = dir.path().join("wrong");
    copy_demo(&wrong);
    fs::copy(golden("models/bert/config.json"), wrong.join("config.json")).unwrap();
    let out = run(["convert", &text(&wrong), "-o", &path("x.onnx")]);
    let stderr = String::from_utf8_lossy(&out.stderr);
    assert!(matches!(out.status.code(), Some(3..=5)) && stderr.contains("embeddings"), "{stderr}");
    // A graph is lost with consent alone.
    explained(2, &export, &path("x.safetensors"), &[], &["graph", "--allow-loss"]);
}

/// Bytes of each file that a report lists, by name.
fn sizes(report: &serde_json::Value) -> Vec<(String, u64)> {
    let files = report["files"].as_array().unwrap_or_else(|| panic!("{report}"));
    let size = |f: &serde_json::Value| (f["path"].as_str().unwrap().to_owned(), f["bytes"].as_u64().unwrap());
    files.iter().map(size).collect()
}

#[test]
fn sizes_are_known_before_anything_is_read() {
    let export = golden("exports/bert-torchscript/model.onnx");
    let cases: [(&Path, &str, &[&str]); 7] = [
        (&demo(), "folder", &["--to", "onnx"]),
        (&demo(), "one.onnx", &["--dtype", "bf16"]),
        (&demo(), "out.onnx", &["--external-data"]),
        (&demo(), "divided", &["--to", "onnx", "--max-shard-size", "200KB"]),
        (&golden("models/bert"), "sentence", &["--to", "onnx", "--dtype", "f16", "--keep-io-types"]),
        (&export, "rewritten.onnx", &["--dtype", "f16"]),
        (&export, "outside.onnx", &["--external-data", "--max-shard-tensors", "9"]),
    ];
    for (from, to, more) in cases {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join(to);
        let (from, to_path) = (text(from), text(&out));
        let args = [&["convert", &from, "-o", &to_path, "--json"], more].concat();
        let (planned, _) = expect(0, [&args[..], &["--dry-run"]].concat());
        let planned = sizes(&json(&planned));
        assert_eq!(names(dir.path()), [""; 0], "{to}: a dry run writes nothing");
        let (done, _) = expect(0, [&args[..], &["--verify"]].concat());
        assert_eq!(planned, sizes(&json(&done)), "{to}");
        for (path, bytes) in &planned {
            assert_eq!(fs::metadata(path).unwrap().len(), *bytes, "{path}");
        }
        let files = planned.len();
        assert!(files > 1 || to.starts_with("one") || to.starts_with("rewritten"), "{to}: {planned:?}");
        if more.iter().any(|a| a.starts_with("--max-shard")) {
            assert!(planned.iter().any(|(p, _)| p.ends_with(".onnx_data_1")), "{to}: {planned:?}");
        }
    }
}

#[test]
fn memory_is_bounded_while_matrices_are_transposed() {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("large");
    // Every matrix is twice the smaller budget; written as the bf16 that it is, to be no more.
    let bytes = big_zero_model(&model, 4096, 1);
    assert!(bytes > 200 * MIB);
    for (to, more) in [("inline.onnx", &[][..]), ("outside.onnx", &["--external-data"][..])] {
        let out = dir.path().join(to);
        for memory in [16, 64] {
            let limit = format!("{memory}MiB");
            let args = ["convert", &text(&model), "-o", &text(&out), "--dtype", "bf16", "--memory", &limit];
            let started = Instant::now();
            let (stdout, _) = expect(0, [&args[..], &["--json", "--force"], more].concat());
            let report = json(&stdout);
            let peak = report["peak_rss_bytes"].as_u64().unwrap();
            eprintln!(
                "{to} in {memory} MiB: peak {} MiB, read {} of {} MiB, {:?}",
                peak / MIB,
                report["read_bytes"].as_u64().unwrap() / MIB,
                bytes / MIB,
                started.elapsed()
            );
            assert!(peak <= (memory + 64) * MIB, "{to}: {} MiB of {memory} + 64", peak / MIB);
            // What fits is read once.
            let passes = report["read_bytes"].as_u64().unwrap() / bytes;
            assert!(if memory == 64 { passes == 1 } else { passes <= 4 }, "{to}: {passes} passes");
            let graph = fs::metadata(&out).unwrap().len();
            assert!(if more.is_empty() { graph > bytes } else { graph < MIB }, "{to}: {graph}");
            fs::remove_file(&out).unwrap();
        }
    }
}

#[test]
fn a_stopped_run_goes_on_and_gives_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("model");
    big_zero_model(&model, 1024, 8);
    // All zero would be the same bytes wherever they went.
    let weights = model.join("model.safetensors");
    let len = fs::metadata(&weights).unwrap().len();
    for at in (len / 16..len).step_by(40_962) {
        use std::os::unix::fs::FileExt;
        let file = fs::OpenOptions::new().write(true).open(&weights).unwrap();
        file.write_all_at(&[(at / 40_962) as u8, 0x3c], at / 2 * 2).unwrap();
    }
    for (name, more) in
        [("inline", &[][..]), ("outside", &["--external-data", "--max-shard-size", "30MB"][..])]
    {
        let run = |folder: &Path, more_still: &[&str]| -> Vec<String> {
            let args = [
                "convert",
                &text(&model),
                "-o",
                &text(&folder.join("m.onnx")),
                "-j",
                "1",
                "--memory",
                "8MiB",
            ];
            args.iter().chain(more).chain(more_still).map(|s| (*s).to_owned()).collect()
        };
        let [whole, stopped] = ["whole", "stopped"].map(|n| dir.path().join(format!("{name}-{n}")));
        fs::create_dir(&whole).unwrap();
        fs::create_dir(&stopped).unwrap();
        expect(0, run(&whole, &[]));
        let mut child =
            mill().args(run(&stopped, &[])).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let deadline = Instant::now() + Duration::from_mins(1);
        while !names(&stopped).iter().any(|n| n.ends_with("tensormill-part")) && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(1));
        }
        thread::sleep(Duration::from_millis(50));
        assert!(child.try_wait().unwrap().is_none(), "{name}: the run ended before it could be killed");
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(names(&stopped).iter().all(|n| n.starts_with('.')), "{:?}", names(&stopped));
        let (_, stderr) = expect(2, run(&stopped, &[]));
        assert!(stderr.contains("--resume"), "{stderr}");
        // What is asked for must be the same.
        expect(3, run(&stopped, &["--resume", "--dtype", "f16"]));
        expect(0, run(&stopped, &["--resume", "--verify"]));
        assert_eq!(names(&stopped), names(&whole));
        for file in names(&whole) {
            assert!(fs::read(whole.join(&file)).unwrap() == fs::read(stopped.join(&file)).unwrap(), "{file}");
        }
    }
}

/// Bytes of tensors that went through a graph are the bytes that they were.
#[test]
fn bytes_survive_a_graph() {
    for (name, dtype) in [
        ("models/llama", "f32"),
        ("models/qwen3", "f32"),
        ("models/vit", "f32"),
        ("../models/tiny-llama", "bf16"),
        ("../models/mistral-f16", "f16"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let path = |n: &str| dir.path().join(n);
        let source = golden(name);
        let (graph, again, back) = (path("graph"), path("again.onnx"), path("back.safetensors"));
        expect(0, ["convert", &text(&source), "-o", &text(&graph), "--to", "onnx", "--dtype", dtype]);
        expect(0, ["convert", &text(&graph), "-o", &text(&again)]);
        // transformers.js looks for graphs in f16 under another name.
        let written = if dtype == "f16" { "onnx/model_fp16.onnx" } else { "onnx/model.onnx" };
        assert!(fs::read(graph.join(written)).unwrap() == fs::read(&again).unwrap(), "{name}");
        expect(0, ["convert", &text(&graph), "-o", &text(&back), "--allow-loss"]);
        let direct = path("direct.safetensors");
        expect(0, ["convert", &text(&source), "-o", &text(&direct)]);
        let (back, direct) = (tensors(&back), tensors(&direct));
        assert_eq!(back.keys().collect::<Vec<_>>(), direct.keys().collect::<Vec<_>>(), "{name}");
        for (tensor, stored) in &direct {
            assert!(back[tensor] == *stored, "{name}: {tensor}");
        }
    }
}
