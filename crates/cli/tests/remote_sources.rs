//! What else reads the Hub: `extract`, graphs that are run or lent, mirrors that are folders; and whoever watches or stops
//! a download. Results are those of the same files on this machine.

mod common;
#[path = "common/hub.rs"]
mod hub;

use common::{big_zero_model, expect, json, names, text};
use hub::{Hub, copy, local, program, same, walk};
use serde_json::Value as Json;
use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};
use tensormill_hub_server::{Fault, Repo, What};

fn golden(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../golden")).join(name)
}

/// A repository of some files under names of their own.
fn repository(hub: &Hub, id: &str, files: &[(&str, PathBuf)]) {
    let folder = hub.path(&id.replace('/', "-"));
    for (name, from) in files {
        let to = folder.join(name);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(from, to).unwrap();
    }
    hub.server.state().add(Repo::from_folder(id, &folder).unwrap());
}

#[test]
fn adapters_are_extracted_from_checkpoints_on_the_hub() {
    let hub =
        Hub::new().with("org/base", &golden("extract/base")).with("org/tuned", &golden("extract/tuned"));
    let at = |name: &str| hub.path(name);
    let (base, tuned) = (text(&golden("extract/base")), text(&golden("extract/tuned")));
    let near = text(&at("near"));
    expect(0, ["extract", &base, &tuned, "-o", &near, "--rank", "4", "--base-name", "org/base"]);
    let state = hub.server.state();
    for (to, more) in [("in-place", &["--no-cache"][..]), ("cached", &[]), ("offline", &["--offline"])] {
        state.clear_log();
        let out = text(&at(to));
        let args = ["extract", "hf://org/base", "hf://org/tuned@main", "-o", &out, "--rank", "4", "--json"];
        let (report, notes) = hub.expect(0, &[&args[..], more].concat());
        for name in ["adapter_model.safetensors", "adapter_config.json"] {
            same(&at("near").join(name), &at(to).join(name));
        }
        let tuned_at = format!("hf://org/tuned@{}", hub.head("org/tuned"));
        assert_eq!(json(&report)["tuned"], tuned_at);
        assert!(
            notes.contains(&format!("hf://org/tuned@main is commit {}", hub.head("org/tuned"))),
            "{notes}"
        );
        let card = fs::read_to_string(at(to).join("README.md")).unwrap();
        assert!(card.contains("base_model: \"org/base\"") && !card.contains("127.0.0.1"), "{card}");
        if to == "in-place" {
            hub.nothing_cached();
        }
        assert_eq!(state.log().is_empty(), to == "offline", "{to}");
    }
}

fn outputs(report: &str) -> Json {
    json(report)["outputs"].clone()
}

#[test]
fn graphs_on_the_hub_are_run_from_the_cache() {
    let hub = Hub::new();
    let of = |name: &str| golden("onnx-runtime").join(name);
    repository(
        &hub,
        "org/graphs",
        &[
            ("onnx/model.onnx", of("encoder.opset17.onnx")),
            ("onnx/model_fp16.onnx", of("encoder.f16.onnx")),
            ("expected.safetensors", of("encoder.expected.safetensors")),
            ("unrelated.onnx", of("decoder.onnx")),
        ],
    );
    let common = ["--outputs", "--runtime", "tract", "--json"];
    let near = |a: &str, b: &str, more: &[&str]| {
        let (a, b) = (text(&of(a)), text(&of(b)));
        outputs(&expect(0, [&["compare", &a, &b][..], &common, more].concat()).0)
    };
    let far = |code: i32, a: &str, b: &str, more: &[&str]| {
        hub.expect(code, &[&["compare", a, b][..], &common, more].concat())
    };
    let (whole, half) = ("hf://org/graphs/onnx/model.onnx", "hf://org/graphs/onnx/model_fp16.onnx");
    // A runtime opens files: in place there are none, and that is said before anything is fetched.
    let (_, error) = far(4, whole, half, &["--no-cache"]);
    assert!(error.contains("leave out --no-cache"), "{error}");
    hub.nothing_cached();
    // What is not there is found before what is there is fetched.
    let (_, error) = far(2, whole, "hf://org/graphs/onnx/none.onnx", &[]);
    assert!(error.contains("none.onnx") && error.contains("perhaps"), "{error}");
    assert!(!walk(&hub.cache()).iter().any(|p| p.ends_with("model.onnx")), "{:?}", walk(&hub.cache()));

    let (report, notes) = far(0, whole, half, &[]);
    assert_eq!(outputs(&report), near("encoder.opset17.onnx", "encoder.f16.onnx", &[]));
    let commit = hub.head("org/graphs");
    assert_eq!(json(&report)["a"], format!("hf://org/graphs@{commit}/onnx/model.onnx"));
    assert!(notes.contains("is commit"), "{notes}");
    assert!(!walk(&hub.cache()).iter().any(|p| p.ends_with("unrelated.onnx")));
    // Known outputs, and a graph of this machine beside one of the Hub.
    let inputs = text(&of("encoder.inputs.safetensors"));
    let given = ["--input", inputs.as_str(), "--atol", "2e-6", "--rtol", "1e-5"];
    let (report, _) = far(0, whole, "hf://org/graphs/expected.safetensors", &given);
    assert_eq!(outputs(&report), near("encoder.opset17.onnx", "encoder.expected.safetensors", &given));
    let (report, _) = far(0, &text(&of("encoder.opset14.onnx")), whole, &["--atol", "1e-4"]);
    assert_eq!(json(&report)["failure"], Json::Null);
    // And without the network, what is there.
    hub.server.state().clear_log();
    let (report, _) = far(0, whole, half, &["--offline"]);
    assert_eq!(outputs(&report), near("encoder.opset17.onnx", "encoder.f16.onnx", &[]));
    let (_, error) = far(2, whole, "hf://org/graphs/unrelated.onnx", &["--offline"]);
    assert!(error.contains("unrelated.onnx") && error.contains("tensormill pull"), "{error}");
    assert!(hub.server.state().log().is_empty());
}

#[test]
fn graphs_bring_the_files_of_their_weights_and_lend_themselves_to_others() {
    let hub = Hub::new();
    let bert = text(&golden("onnx/models/bert"));
    let graph = hub.path("graph");
    expect(0, ["convert", &bert, "-o", &text(&graph), "--to", "onnx", "--external-data"]);
    let hub = hub.with("org/graph", &graph).with("org/bert", &golden("onnx/models/bert"));
    let inner = names(&graph.join("onnx"));
    assert!(inner.contains(&"model.onnx_data".to_owned()), "{inner:?}");
    let near = text(&graph.join("onnx/model.onnx"));
    let args = ["compare", "hf://org/graph/onnx/model.onnx", &near, "--outputs", "--runtime", "tract"];
    // This runtime follows no links to weights, of which caches consist; a folder has none.
    let (_, error) = hub.expect(4, &args);
    assert!(error.contains("tensormill pull org/graph -o"), "{error}");
    assert!(walk(&hub.cache()).iter().any(|p| p.ends_with("model.onnx_data")));
    let copy = hub.path("copy");
    hub.expect(0, &["pull", "org/graph", "-o", &text(&copy)]);
    let args = ["compare", &text(&copy.join("onnx/model.onnx")), &near, "--outputs", "--runtime", "tract"];
    let (report, _) = expect(0, [&args[..], &["--json", "--max-rmse", "0"]].concat());
    assert_eq!(json(&report)["failure"], Json::Null);

    // Its graph for weights that are elsewhere.
    let export = golden("onnx/exports/bert-torchscript");
    let hub = hub.with("org/export", &export);
    let (a, b) = (text(&hub.path("a.onnx")), text(&hub.path("b.onnx")));
    expect(0, ["convert", &bert, "--graph", &text(&export.join("model.onnx")), "-o", &a]);
    for more in [&["--no-cache"][..], &[], &["--offline"]] {
        let args = ["convert", "hf://org/bert", "--graph", "hf://org/export/model.onnx", "-o", &b, "--force"];
        hub.expect(0, &[&args[..], more].concat());
        same(Path::new(&a), Path::new(&b));
    }
}

#[test]
fn a_folder_serves_jobs_as_a_mirror() {
    let hub = Hub::new();
    let source = local(hub.dir.path(), "tiny-llama");
    let at = |name: &str| text(&hub.path(name));
    let near = at("near.gguf");
    expect(0, ["convert", &text(&source), "-o", &near, "--quant", "Q4_K_M"]);
    let mirror = hub.path("mirror");
    let held = mirror.join("org/tiny-llama");
    copy(&source, &held);
    let home = hub.path("home");
    let run = |code: i32, args: &[&str]| {
        hub::expect_of(code, program(&text(&mirror)).env("HF_HOME", &home).args(args))
    };
    for (n, more) in
        [&[][..], &["--offline"], &["--no-cache"], &["--offline", "--no-cache"]].iter().enumerate()
    {
        let out = at(&format!("far-{n}.gguf"));
        let args = ["convert", "hf://org/tiny-llama", "-o", &out, "--quant", "Q4_K_M", "--json"];
        let (report, _) = run(0, &[&args[..], more].concat());
        same(Path::new(&near), Path::new(&out));
        let report = json(&report);
        assert_eq!(report["repositories"][0]["commit"], Json::Null, "{report}");
        assert!(!home.exists(), "a mirror is read where it is");
    }
    // A run that broke off goes on, and merges and looks work as well.
    let (shown, _) = run(0, &["inspect", "hf://org/tiny-llama", "--offline", "--json"]);
    assert_eq!(json(&shown)["tensors"], json(&expect(0, ["inspect", &text(&source), "--json"]).0)["tensors"]);
    // A clone says which commit it is.
    let commit = "0123456789abcdef0123456789abcdef01234567";
    fs::create_dir_all(held.join(".git/refs/heads")).unwrap();
    fs::write(held.join(".git/HEAD"), "ref: refs/heads/main\n").unwrap();
    fs::write(held.join(".git/refs/heads/main"), format!("{commit}\n")).unwrap();
    let args = ["convert", "hf://org/tiny-llama", "-o", &at("clone.gguf"), "--quant", "Q4_K_M", "--json"];
    let (report, notes) = run(0, &args);
    assert_eq!(json(&report)["source"], format!("hf://org/tiny-llama@{commit}"));
    assert!(notes.contains(commit), "{notes}");
    same(Path::new(&near), Path::new(&at("clone.gguf")));
    // Another revision, another repository, a file that is only a pointer: each says what to do.
    let (_, error) = run(2, &["inspect", "hf://org/tiny-llama@v2"]);
    assert!(error.contains("\"v2\"") && error.contains(commit), "{error}");
    let (_, error) = run(2, &["inspect", "hf://org/none", "--offline"]);
    assert!(error.contains("holds no org/none") && error.contains("tensormill pull"), "{error}");
    let pointer =
        format!("version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize 123456\n", "a".repeat(64));
    fs::write(held.join("model.safetensors"), pointer).unwrap();
    let (_, error) = run(3, &["convert", "hf://org/tiny-llama", "-o", &at("no.gguf"), "--quant", "Q8_0"]);
    assert!(error.contains("git lfs pull"), "{error}");
}

#[test]
fn a_job_is_watched_from_its_download_on() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("big");
    big_zero_model(&folder, 512, 2);
    let hub = Hub::new().with("org/big", &folder);
    let out = text(&dir.path().join("out.gguf"));
    let (near, far) = (text(&folder), "hf://org/big");
    for args in [
        &["convert", far, "-o", &out, "--quant", "Q8_0", "--verify"][..],
        &["compare", far, &near, "--max-rmse", "0"],
    ] {
        if hub.cache().exists() {
            fs::remove_dir_all(hub.cache()).unwrap();
        }
        let (_, said) = hub.expect(0, &[args, &["--progress", "json"]].concat());
        let events: Vec<Json> = said.lines().map(json).collect();
        let at =
            |name: &str| events.iter().position(|e| e["event"] == name).unwrap_or_else(|| panic!("{said}"));
        let (download, tiles) = (at("phase"), at("started"));
        assert_eq!(events[download]["name"], "downloading");
        assert!(download < tiles, "{said}");
        let started = &events[tiles];
        assert!(started["tensors"].as_u64().unwrap() > 0, "{started}");
        let last = events.last().unwrap();
        assert_eq!((&last["event"], &last["read_bytes"]), (&"finished".into(), &started["source_bytes"]));
        // Nothing is missing any more: there is no such phase.
        let again: Vec<&str> = args.iter().copied().chain(["--progress", "json"]).collect();
        let force: &[&str] = if args[0] == "convert" { &["--force"] } else { &[] };
        let (_, said) = hub.expect(0, &[&again[..], force].concat());
        assert!(!said.contains("downloading"), "{said}");
    }
}

#[cfg(unix)]
mod signals {
    use super::*;
    use std::{
        io::{BufRead, BufReader, Read},
        process::Command,
    };

    #[test]
    fn a_comparison_is_stopped_while_it_downloads_and_goes_on_later() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("big");
        let bytes = big_zero_model(&folder, 512, 2);
        let hub = Hub::new().with("org/big", &folder);
        let state = hub.server.state();
        let near = text(&folder);
        let args = &["compare", "hf://org/big", &near][..];
        let slow = What::Slow(16 << 10, Duration::from_millis(30));
        // The header is read by ranges first.
        let weights = Fault::always("/blobs/", slow).after(1);
        state.fault(weights);
        let mut child = hub.begin(args);
        let mut events = BufReader::new(child.stderr.take().unwrap());
        loop {
            let mut line = String::new();
            assert!(events.read_line(&mut line).unwrap() > 0, "it ended before it could be stopped");
            let event = json(&line);
            if event["event"] == "progress" && event["done_bytes"].as_u64() > Some(0) {
                assert_eq!(event["phase"], "downloading");
                break;
            }
        }
        let status = Command::new("kill").arg("-INT").arg(child.id().to_string()).status().unwrap();
        assert!(status.success());
        let mut rest = String::new();
        events.read_to_string(&mut rest).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(130), "{rest}");
        assert!(rest.contains("\"cancelled\""), "{rest}");
        let parts =
            |end: &str| walk(&hub.cache()).iter().filter(|p| p.to_string_lossy().ends_with(end)).count();
        assert_eq!(parts(".incomplete"), 1, "what arrived is kept");
        state.faults().clear();
        state.clear_log();
        hub.expect(0, args);
        assert_eq!(parts(".incomplete"), 0);
        assert!(bytes > 1 << 20);
    }
}
