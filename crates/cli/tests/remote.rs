//! Sources on the Hub: the bytes of a local conversion, whatever goes wrong on the way, and nothing on this disk that was not
//! asked for. The Hub is a server on this machine.

mod common;
#[path = "common/hub.rs"]
mod hub;

use common::{big_zero_model, expect, json, names, text};
use hub::{Hub, TOKEN, copy, local, same, walk};
use std::{
    fs,
    path::Path,
    process::Stdio,
    thread,
    time::{Duration, Instant},
};
use tensormill_hub_server::{Fault, Repo, Side, What};

const MIB: u64 = 1 << 20;
#[test]
fn remote_conversions_give_the_bytes_of_local_ones_and_write_nothing_else() {
    for (model, pre) in
        [("tiny-llama", None), ("mixtral-4x", None), ("qwen3", Some("qwen2")), ("bert", Some("jina-v2-en"))]
    {
        let dir = tempfile::tempdir().unwrap();
        let folder = local(dir.path(), model);
        let hub = Hub::new().with(&format!("org/{model}"), &folder);
        let (near, far) = (dir.path().join("near.gguf"), dir.path().join("far.gguf"));
        let (near_text, far_text) = (text(&near), text(&far));
        let more: Vec<&str> = pre.map_or(vec![], |p| vec!["--pre", p]);
        for target in [["--quant", "Q8_0"], ["--dtype", "f16"]] {
            let source = text(&folder);
            let common = [&target[..], &more[..], &["--force", "--json"][..]].concat();
            expect(0, [&["convert", &source, "-o", &near_text][..], &common[..]].concat());
            let id = format!("hf://org/{model}");
            let (out, notes) =
                hub.expect(0, &[&["convert", &id, "-o", &far_text, "--no-cache"][..], &common[..]].concat());
            same(&near, &far);
            hub.nothing_cached();
            let (report, commit) = (json(&out), hub.head(&format!("org/{model}")));
            assert!(notes.contains(&format!("note: hf://org/{model}@main is commit {commit}")), "{notes}");
            assert_eq!(report["source"], format!("hf://org/{model}@{commit}"));
            assert_eq!(report["revision"], commit);
            let read = &report["repositories"][0];
            assert_eq!(
                (&read["repository"], &read["revision"]),
                (&format!("org/{model}").into(), &"main".into())
            );
            let files: Vec<&str> =
                read["files"].as_array().unwrap().iter().map(|f| f["path"].as_str().unwrap()).collect();
            assert!(
                files.contains(&"config.json") && files.iter().any(|f| f.ends_with(".safetensors")),
                "{files:?}"
            );
        }
    }
}

#[test]
fn nothing_that_breaks_on_the_way_changes_the_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let folder = local(dir.path(), "tiny-llama");
    let hub = Hub::new().with("org/tiny-llama", &folder);
    let (near, far) = (dir.path().join("near.gguf"), dir.path().join("far.gguf"));
    expect(0, ["convert", &text(&folder), "-o", &text(&near), "--quant", "Q4_K_M"]);
    let busy = || What::Answer(429, vec![("retry-after".into(), "0".into())], "slow down".into());
    for fault in [
        Fault::once("/blobs/", What::Drop).times(2),
        Fault::once("/blobs/", What::DropAfter(1000)).times(5),
        Fault::once("/resolve/", busy()).times(2),
        Fault::once("/blobs/", busy()),
        // A signature that has run out: the Hub gives another.
        Fault::once("/blobs/", What::Answer(403, vec![], "expired".into())).after(2),
        Fault::always("/blobs/", What::Slow(4096, Duration::from_millis(2))),
        Fault::once(
            "/api/models/",
            What::Answer(503, vec![("retry-after".into(), "0".into())], String::new()),
        ),
    ] {
        let what = format!("{fault:?}");
        hub.server.state().faults().clear();
        hub.server.state().fault(fault);
        hub.expect(
            0,
            &[
                "convert",
                "hf://org/tiny-llama",
                "-o",
                &text(&far),
                "--quant",
                "Q4_K_M",
                "--no-cache",
                "--force",
            ],
        );
        assert!(fs::read(&near).unwrap() == fs::read(&far).unwrap(), "{what}");
    }
    hub.nothing_cached();
}

#[test]
fn a_file_that_is_another_one_is_an_error_and_no_output() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("big");
    big_zero_model(&folder, 512, 2);
    let hub = Hub::new().with("org/big", &folder);
    let out = dir.path().join("out.gguf");
    let convert = |code| {
        hub.expect(code, &["convert", "hf://org/big", "-o", &text(&out), "--dtype", "f16", "--no-cache"])
    };
    let state = hub.server.state();
    let blob = state.repos()["org/big"].head().files["model.safetensors"].sha256.clone().unwrap();
    // Between header and tiles: the signature runs out, and the Hub then has another file.
    let other = What::Header("x-linked-etag".into(), format!("\"{}\"", "0".repeat(64)));
    state.fault(Fault::always(&blob, What::Answer(403, vec![], "expired".into())).after(1));
    state.fault(Fault::always("model.safetensors", other).after(1));
    let (_, error) = convert(3);
    assert!(error.contains("hf://org/big@") && error.contains("another file now"), "{error}");
    // The content network has another one.
    state.faults().clear();
    state.fault(Fault::always(&blob, What::Header("etag".into(), "\"other\"".into())).after(1));
    let (_, error) = convert(3);
    assert!(error.contains("model.safetensors") && error.contains("changed while it was read"), "{error}");
    // Another length.
    state.faults().clear();
    state.fault(Fault::always(&blob, What::Header("content-range".into(), "bytes 0-7/99".into())));
    let (_, error) = convert(3);
    assert!(error.contains("has 99 bytes now"), "{error}");
    // A side file that is not what its hash says.
    state.faults().clear();
    state.fault(Fault::always("/resolve-cache/", What::Corrupt));
    let (_, error) = convert(3);
    assert!(error.contains("config.json"), "{error}");
    // No ranges.
    state.faults().clear();
    state.fault(Fault::always("/blobs/", What::IgnoreRange));
    let (_, error) = convert(4);
    assert!(error.contains("ranges of files"), "{error}");
    assert_eq!(names(dir.path()), ["big"]);
}

#[test]
fn a_killed_remote_run_is_continued_and_memory_stays_in_its_bound() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("big");
    let bytes = big_zero_model(&folder, 2048, 6);
    assert!(bytes > 300 * MIB);
    let hub = Hub::new().with("org/big", &folder);
    let (near, far) = (dir.path().join("near.gguf"), dir.path().join("far.gguf"));
    expect(0, ["convert", &text(&folder), "-o", &text(&near), "--quant", "Q8_0", "--memory", "32MiB"]);
    let far_text = text(&far);
    let args = ["convert", "hf://org/big", "-o", &far_text, "--quant", "Q8_0", "--memory", "32MiB"];
    let state = hub.server.state();
    let journal = dir.path().join(".far.gguf.tensormill-journal");
    // Slow enough to be met at work, and killed when some of it has been noted: that happens every three seconds.
    let killed = |more: &[&str]| {
        state.fault(Fault::always("/blobs/", What::Slow(256 << 10, Duration::from_millis(20))).after(12));
        let args = [&args[..], more].concat();
        let mut child = hub.mill().args(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let (start, before) = (Instant::now(), fs::read(&journal).unwrap_or_default());
        while fs::read(&journal).unwrap_or_default() == before {
            assert!(child.try_wait().unwrap().is_none(), "it ended before it was killed");
            assert!(start.elapsed() < Duration::from_mins(2), "nothing is noted");
            thread::sleep(Duration::from_millis(50));
        }
        thread::sleep(Duration::from_secs(4));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!far.exists());
        state.faults().clear();
    };
    let finished = |more: &[&str]| {
        let (out, _) = hub.expect(0, &[&args[..], &["--json", "--resume"], more].concat());
        same(&near, &far);
        let report = json(&out);
        let peak = report["peak_rss_bytes"].as_u64().unwrap();
        assert!(peak <= (32 + 64) * MIB, "{} MiB", peak / MIB);
        assert!(report["resumed_bytes"].as_u64().unwrap() > 0, "{}", report["resumed_bytes"]);
    };
    killed(&["--no-cache"]);
    finished(&["--no-cache"]);
    hub.nothing_cached();
    // What was begun in place is continued by way of the cache.
    fs::remove_file(&far).unwrap();
    killed(&["--no-cache"]);
    finished(&[]);
}

#[test]
fn headers_are_all_that_is_read_of_weights_where_no_weight_is_needed() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("big");
    let bytes = big_zero_model(&folder, 1024, 4);
    let hub = Hub::new().with("org/big", &folder);
    let state = hub.server.state();
    let (near, _) = expect(0, ["inspect", &text(&folder), "--json"]);
    for more in [&["--no-cache"][..], &[]] {
        state.clear_log();
        let (far, _) = hub.expect(0, &[&["inspect", "hf://org/big", "--json"][..], more].concat());
        assert_eq!(json(&near)["tensors"], json(&far)["tensors"]);
        let sent = state.sent("/blobs/");
        assert!(sent > 0 && sent <= 512 << 10, "{sent} of {bytes} bytes");
    }
    for more in [&["--no-cache"][..], &[]] {
        state.clear_log();
        let out = text(&dir.path().join("out.gguf"));
        let args = ["convert", "hf://org/big", "-o", &out, "--quant", "Q4_K_M", "--dry-run"];
        hub.expect(0, &[&args[..], more].concat());
        let sent = state.sent("/blobs/");
        assert!(sent <= 512 << 10, "{sent} of {bytes} bytes");
    }
    // Small files are in the cache by now, the weights are not.
    let size: u64 = walk(&hub.cache()).iter().map(|p| fs::metadata(p).unwrap().len()).sum();
    assert!(size < bytes / 4, "{size}");
}

#[test]
fn what_was_fetched_serves_without_the_network() {
    let dir = tempfile::tempdir().unwrap();
    let folder = local(dir.path(), "tiny-llama");
    fs::write(folder.join("pytorch_model.bin"), b"never fetched").unwrap();
    fs::write(folder.join("tf_model.h5"), b"never fetched").unwrap();
    let hub = Hub::new().with("org/tiny-llama", &folder);
    let out = |name: &str| text(&dir.path().join(name));
    expect(0, ["convert", &text(&folder), "-o", &out("near.gguf"), "--quant", "Q4_K_M"]);
    hub.expect(0, &["convert", "hf://org/tiny-llama", "-o", &out("far.gguf"), "--quant", "Q4_K_M"]);
    same(&dir.path().join("near.gguf"), &dir.path().join("far.gguf"));
    let snapshot = hub.cache().join("models--org--tiny-llama/snapshots").join(hub.head("org/tiny-llama"));
    let there = names(&snapshot);
    assert!(
        there.contains(&"model.safetensors".to_owned()) && there.contains(&"config.json".to_owned()),
        "{there:?}"
    );
    assert!(
        !there
            .iter()
            .any(|n| ["bin", "h5"].iter().any(|x| Path::new(n).extension().is_some_and(|e| e == *x))),
        "{there:?}"
    );
    hub.server.state().clear_log();
    hub.expect(
        0,
        &["convert", "hf://org/tiny-llama", "-o", &out("off.gguf"), "--quant", "Q4_K_M", "--offline"],
    );
    assert!(hub.server.state().log().is_empty());
    same(&dir.path().join("near.gguf"), &dir.path().join("off.gguf"));
    // What is not there is said, and how to get it.
    let (_, error) = hub.expect(2, &["inspect", "hf://org/other", "--offline"]);
    assert!(error.contains("org/other") && error.contains("tensormill pull"), "{error}");
    let (_, error) = hub.expect(2, &["inspect", "hf://org/other", "--offline", "--no-cache"]);
    assert!(error.contains("leave out --no-cache"), "{error}");
}

#[test]
fn addresses_serve_wherever_a_source_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let folder = local(dir.path(), "tiny-llama");
    let out = |name: &str| text(&dir.path().join(name));
    expect(0, ["convert", &text(&folder), "-o", &out("m.gguf"), "--quant", "Q8_0"]);
    let gguf = dir.path().join("gguf");
    fs::create_dir(&gguf).unwrap();
    fs::copy(out("m.gguf"), gguf.join("m.gguf")).unwrap();
    let hub = Hub::new().with("org/tiny-llama", &folder).with("org/tiny-gguf", &gguf);
    let all = |code, args: &[&str]| hub.expect(code, &[args, &["--no-cache"]].concat());
    // A GGUF file in a repository.
    let (shown, _) = all(0, &["inspect", "hf://org/tiny-gguf/m.gguf"]);
    assert!(shown.contains("general.architecture"), "{shown}");
    let (_, error) = all(2, &["inspect", "hf://org/tiny-gguf"]);
    assert!(error.contains("name one of them") && error.contains("hf://org/tiny-gguf@"), "{error}");
    let (_, error) = all(2, &["inspect", "hf://org/tiny-gguf/no.gguf"]);
    assert!(error.contains("perhaps m.gguf"), "{error}");
    let (_, error) = all(2, &["inspect", "hf://org/tiny-gguf@v9"]);
    assert!(error.contains("v9"), "{error}");
    // Near and far, compared.
    let (shown, _) = all(0, &["compare", "hf://org/tiny-llama", &text(&folder), "--max-rmse", "0"]);
    assert!(shown.contains("every value exact"), "{shown}");
    // A scan finds there what it finds here.
    let near = json(&expect(0, ["scan", &text(&folder), "--json"]).0);
    let far = json(&all(0, &["scan", "hf://org/tiny-llama", "--json"]).0);
    assert_eq!((&near["files"], &near["counts"]), (&far["files"], &far["counts"]));
    // Merges.
    let recipe = dir.path().join("merge.yaml");
    let write = |a: &str, b: &str| {
        let text = format!(
            "merge_method: linear\ndtype: float32\nmodels:\n- model: {a}\n  parameters: {{weight: 0.5}}\n- model: {b}\n  parameters: {{weight: 0.5}}\n"
        );
        fs::write(&recipe, text).unwrap();
    };
    copy(&folder, &dir.path().join("second"));
    write("./tiny-llama", "./second");
    expect(0, ["merge", &text(&recipe), "-o", &out("near.gguf"), "--quant", "Q8_0"]);
    write("hf://org/tiny-llama", "./second");
    let (_, notes) = all(0, &["merge", &text(&recipe), "-o", &out("far.gguf"), "--quant", "Q8_0"]);
    assert!(notes.contains("is commit"), "{notes}");
    let tensors = |name: &str| json(&expect(0, ["inspect", &out(name), "--json"]).0)["tensors"].clone();
    assert_eq!(tensors("near.gguf"), tensors("far.gguf"));
    expect(0, ["compare", &out("near.gguf"), &out("far.gguf"), "--max-rmse", "0"]);
}

#[test]
fn every_kind_of_source_is_read_in_place() {
    let dir = tempfile::tempdir().unwrap();
    let golden = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../golden"));
    let hub = Hub::new();
    let out = |name: &str| text(&dir.path().join(name));
    // A GGUF file in parts.
    let parts = dir.path().join("parts");
    fs::create_dir(&parts).unwrap();
    let whole = text(&local(dir.path(), "tiny-llama"));
    expect(0, ["convert", &whole, "-o", &text(&parts.join("m.gguf")), "--max-shard-tensors", "9"]);
    let part = names(&parts)[0].clone();
    // A graph with its weights beside it.
    let graph = dir.path().join("graph");
    let bert = text(&golden.join("onnx/models/bert"));
    expect(0, ["convert", &bert, "-o", &text(&graph), "--to", "onnx", "--external-data"]);
    // A folder with PyTorch's archives.
    let torch = dir.path().join("torch");
    expect(0, ["convert", &whole, "-o", &text(&torch), "--to", "pickle", "--max-shard-tensors", "9"]);
    for (number, (folder, inner)) in [
        (torch.clone(), ""),
        (golden.join("pickle"), "/state_dict.pt"),
        (golden.join("pickle"), "/legacy.pt"),
        (golden.join("pickle"), "/tar.pt"),
        (golden.join("pickle"), "/deflated.pt"),
        (golden.join("pickle"), "/views.pt"),
        (golden.join("training/dcp/trainer"), ""),
        (golden.join("training/dcp/fsdp2"), ""),
        (golden.join("training/ranks/verl"), ""),
        (golden.join("training/deepspeed/zero2"), ""),
        (graph.clone(), ""),
        (golden.join("onnx/models/bert"), ""),
        (golden.join("training/deepspeed/trainer"), ""),
        (parts.clone(), &format!("/{part}")),
    ]
    .into_iter()
    .enumerate()
    {
        let id = format!("org/source-{number}");
        hub.server.state().add(Repo::from_folder(&id, &folder).unwrap());
        let near = format!("{}{inner}", text(&folder));
        let (a, b) = (out("near.safetensors"), out("far.safetensors"));
        let common = ["--keep-names", "--allow-loss", "--force"];
        expect(0, [&["convert", &near, "-o", &a][..], &common].concat());
        let far = format!("hf://{id}{inner}");
        hub.expect(0, &[&["convert", &far, "-o", &b, "--no-cache"][..], &common].concat());
        assert!(fs::read(&a).unwrap() == fs::read(&b).unwrap(), "{near}");
    }
    hub.nothing_cached();
}

#[test]
fn adapters_and_their_bases_are_on_the_hub() {
    let dir = tempfile::tempdir().unwrap();
    let adapters = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../golden/adapters"));
    let (base, lora) = (dir.path().join("base"), dir.path().join("lora"));
    fs::create_dir(&base).unwrap();
    fs::copy(adapters.join("base-f32.safetensors"), base.join("model.safetensors")).unwrap();
    fs::write(base.join("config.json"), "{}").unwrap();
    copy(&adapters.join("layers"), &lora);
    let hub = Hub::new().with("org/base", &base).with("org/lora", &lora);
    let out = |name: &str| text(&dir.path().join(name));
    let convert = |base: &str, lora: &str, to: &str| {
        let args = ["convert", base, "-o", to, "--adapter", lora].map(str::to_owned);
        args.to_vec()
    };
    expect(0, convert(&text(&base), &format!("{}=0.5", text(&lora)), &out("near.safetensors")));
    let far = convert("hf://org/base", "hf://org/lora@main=0.5", &out("far.safetensors"));
    let far: Vec<&str> = far.iter().map(String::as_str).chain(["--no-cache", "--json"]).collect();
    let (report, _) = hub.expect(0, &far);
    same(&dir.path().join("near.safetensors"), &dir.path().join("far.safetensors"));
    let report = json(&report);
    let lora_at = format!("hf://org/lora@{}", hub.head("org/lora"));
    assert_eq!(report["adapters"][0]["path"], lora_at);
    assert_eq!(report["repositories"].as_array().unwrap().len(), 2);
    hub.nothing_cached();
    // Of a base that says names alone, no weight is fetched; of the adapter, all.
    hub.expect(
        0,
        &[
            "adapter",
            "hf://org/lora",
            "-o",
            &out("kohya.safetensors"),
            "--base",
            "hf://org/base",
            "--allow-loss",
        ],
    );
    let held = |repo: &str| {
        names(
            &hub.cache()
                .join(format!("models--org--{repo}/snapshots"))
                .join(hub.head(&format!("org/{repo}"))),
        )
    };
    assert!(held("lora").contains(&"adapter_model.safetensors".to_owned()), "{:?}", held("lora"));
    let base_there = hub.cache().join("models--org--base/snapshots");
    assert!(!walk(&base_there).iter().any(|p| p.ends_with("model.safetensors")), "{:?}", walk(&base_there));
}

#[test]
fn a_release_says_what_it_was_made_of() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::new().with("org/tiny-llama", &local(dir.path(), "tiny-llama"));
    let file = dir.path().join("r.toml");
    fs::write(&file, "[source]\npath = \"hf://org/tiny-llama\"\nrevision = \"main\"\n[release]\nfolder = \"out\"\n[[variant]]\nquant = \"Q8_0\"\n").unwrap();
    hub.expect(0, &["release", &text(&file), "--no-cache"]);
    let out = dir.path().join("out");
    assert!(names(&out).contains(&"tiny-llama-Q8_0.gguf".to_owned()), "{:?}", names(&out));
    let manifest = json(&fs::read_to_string(out.join("tiny-llama.manifest.json")).unwrap());
    let commit = hub.head("org/tiny-llama");
    assert_eq!(
        (&manifest["source"]["name"], &manifest["source"]["revision"]),
        (&"tiny-llama".into(), &commit.clone().into())
    );
    let read = &manifest["repositories"][0];
    assert_eq!((&read["repository"], &read["commit"]), (&"org/tiny-llama".into(), &commit.into()));
    let weights =
        read["files"].as_array().unwrap().iter().find(|f| f["path"] == "model.safetensors").unwrap();
    assert_eq!(weights["sha256"].as_str().map(str::len), Some(64));
    // Neither the token nor this server is in anything that was written, and the content network heard no token.
    for path in walk(&out) {
        let bytes = fs::read(&path).unwrap();
        let has = |what: &str| bytes.windows(what.len()).any(|w| w == what.as_bytes());
        assert!(!has(TOKEN) && !has("127.0.0.1"), "{}", path.display());
    }
    let log = hub.server.state().log();
    assert!(log.iter().any(|s| s.side == Side::Cdn));
    assert!(log.iter().filter(|s| s.side == Side::Cdn).all(|s| s.header("authorization").is_none()));
    // The release file that begins one.
    let (starter, _) = hub.expect(0, &["release", "--init", "hf://org/tiny-llama"]);
    assert!(
        starter.contains("path = \"hf://org/tiny-llama\"") && starter.contains("name = \"tiny-llama\""),
        "{starter}"
    );
}
