//! Releases: many variants from one read, kills and resumes, parts on several machines, gates, sums.

mod common;

use common::{big_zero_model, demo, expect, json, mill, names, text};
use serde_json::Value as Json;
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

const VARIANTS: &str = r#"
[[variant]]
quant = "Q4_K_M"
[[variant]]
quant = "Q8_0"
[[variant]]
quant = "IQ4_XS"
[[variant]]
dtype = "bf16"
[[variant]]
dtype = "f16"
max_shard_size = "300KB"
"#;

/// A release file for a source, beside a folder `out`.
fn release(dir: &Path, source: &Path, more: &str) -> PathBuf {
    let path = dir.join("release.toml");
    let head = format!(
        "[source]\npath = {:?}\nrevision = \"r1\"\n[release]\nname = \"m\"\nfolder = \"out\"\n",
        source.display().to_string()
    );
    fs::write(&path, head + more).unwrap();
    path
}

/// Sums and manifest of a finished release.
fn outcome(out: &Path) -> (String, String) {
    let read = |name: &str| fs::read_to_string(out.join(name)).unwrap();
    (read("SHA256SUMS"), read("m.manifest.json"))
}

/// The outcome of a release that nothing disturbs; its folder goes again.
fn undisturbed(file: &Path, out: &Path) -> (String, String) {
    expect(0, ["release", &text(file)]);
    let whole = outcome(out);
    fs::remove_dir_all(out).unwrap();
    whole
}

/// What `sha256sum --check` would say.
fn check_sums(out: &Path) {
    use sha2::{Digest, Sha256};
    let sums = fs::read_to_string(out.join("SHA256SUMS")).unwrap();
    assert!(!sums.is_empty());
    for line in sums.lines() {
        let (hash, name) = line.split_once("  ").unwrap();
        let bytes = Sha256::digest(fs::read(out.join(name)).unwrap());
        let got = bytes.iter().fold(String::new(), |text, b| text + &format!("{b:02x}"));
        assert_eq!(got, hash, "{name}");
    }
}

#[test]
fn one_read_makes_every_variant_with_sums_manifest_and_report() {
    let dir = tempfile::tempdir().unwrap();
    let file = release(dir.path(), &demo(), VARIANTS);
    let out = dir.path().join("out");
    let (stdout, _) = expect(0, ["release", &text(&file), "--dry-run", "--json"]);
    let plan = json(&stdout);
    assert!(!out.exists(), "a dry run writes nothing");
    assert_eq!(plan["variants"].as_array().unwrap().len(), 5);
    assert!(plan["checks"].as_array().unwrap().iter().all(|c| c["ok"] == true), "{}", plan["checks"]);
    let (stdout, _) = expect(0, ["release", &text(&file), "--dry-run"]);
    assert!(
        stdout.contains("IQ4_XS")
            && stdout.contains("blk.*.attn_q")
            && stdout.contains("check: vocabulary ok"),
        "{stdout}"
    );

    let (stdout, stderr) = expect(0, ["release", &text(&file), "--json", "--verify"]);
    assert_eq!(stderr, "");
    let done = json(&stdout);
    assert_eq!(done["read_bytes"], plan["read_bytes_planned"], "the source is read once");
    assert_eq!(done["verified"], true);
    check_sums(&out);
    let manifest = json(&outcome(&out).1);
    assert_eq!(
        (&manifest["source"]["revision"], &manifest["source"]["name"]),
        (&"r1".into(), &"tiny-llama".into())
    );
    for (planned, made) in
        plan["variants"].as_array().unwrap().iter().zip(manifest["variants"].as_array().unwrap())
    {
        for (p, m) in planned["files"].as_array().unwrap().iter().zip(made["files"].as_array().unwrap()) {
            let path = out.join(m["name"].as_str().unwrap());
            assert_eq!(
                (p["bytes"].as_u64(), m["bytes"].as_u64()),
                (m["bytes"].as_u64(), Some(fs::metadata(path).unwrap().len()))
            );
        }
        assert!(made["tensors"].as_array().unwrap().iter().all(|t| t["xxh3_64"].is_string()));
    }
    assert!(manifest["variants"][4]["files"].as_array().unwrap().len() > 1, "the last one is split");
    let html = fs::read_to_string(out.join("m.report.html")).unwrap();
    assert!(html.contains("IQ4_XS") && !html.contains("src=") && !html.contains("href=\"http"));
    for plot in ["size-vs-error", "memory", "error-IQ4_XS"] {
        let svg = fs::read_to_string(out.join(format!("m.report/{plot}.svg"))).unwrap();
        assert!(svg.starts_with("<svg") && svg.contains("</svg>"), "{plot}");
    }
    // Each file is what a conversion of its own makes.
    for (quant, name) in [("Q4_K_M", "m-Q4_K_M.gguf"), ("IQ4_XS", "m-IQ4_XS.gguf")] {
        let alone = dir.path().join("alone.gguf");
        expect(0, ["convert", &text(&demo()), "-o", &text(&alone), "--quant", quant, "--force"]);
        assert!(fs::read(&alone).unwrap() == fs::read(out.join(name)).unwrap(), "{name}");
    }
    let (_, stderr) = expect(2, ["release", &text(&file)]);
    assert!(stderr.contains("already exists"), "{stderr}");
}

#[test]
fn the_simple_case_needs_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("a/b");
    expect(0, ["convert", &text(&demo()), "-o", &text(&out), "--quant", "Q4_0", "--quant", "q6_k"]);
    let files = [
        "SHA256SUMS",
        "tiny-llama-Q4_0.gguf",
        "tiny-llama-Q6_K.gguf",
        "tiny-llama.manifest.json",
        "tiny-llama.report",
        "tiny-llama.report.html",
    ];
    assert_eq!(names(&out), files);
    let (stdout, _) = expect(0, ["release", "--init", &text(&demo())]);
    let file = dir.path().join("r.toml");
    fs::write(&file, stdout).unwrap();
    expect(0, ["release", &text(&file), "--dry-run"]);
}

#[test]
fn errors_of_the_release_file_point_at_the_line() {
    let dir = tempfile::tempdir().unwrap();
    let file = release(dir.path(), &demo(), "[[variant]]\nquant = \"Q9_9\"\n");
    let (_, stderr) = expect(2, ["release", &text(&file)]);
    assert!(stderr.contains("line 8") && stderr.contains("list recipes"), "{stderr}");
    let file = release(dir.path(), &demo(), "[[variant]]\nquant = \"Q8_0\"\nlimit = 3\n");
    let (_, stderr) = expect(2, ["release", &text(&file)]);
    assert!(stderr.contains("line 9") && stderr.contains("limit"), "{stderr}");
}

#[test]
fn nothing_is_published_while_a_limit_is_broken() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let variant = "[[variant]]\nquant = \"Q4_0\"\n";
    let file = release(
        dir.path(),
        &demo(),
        &format!("{variant}[limits]\nroles.attn_v = {{ min_sqnr_db = 60.0 }}\n"),
    );
    let (_, stderr) = expect(5, ["release", &text(&file)]);
    assert!(stderr.contains("attn_v.weight: min_sqnr_db = 60") && stderr.contains("--resume"), "{stderr}");
    assert!(names(&out).iter().all(|n| n.starts_with('.')), "{:?}", names(&out));
    release(dir.path(), &demo(), &format!("{variant}[limits]\nroles.attn_v = {{ min_sqnr_db = 6.0 }}\n"));
    let (_, stderr) = expect(2, ["release", &text(&file)]);
    assert!(stderr.contains("not finished") && stderr.contains("--restart"), "{stderr}");
    let (stdout, _) = expect(0, ["release", &text(&file), "--resume", "--json"]);
    assert_eq!(json(&stdout)["written_bytes"], 0, "the tiles stood already");
    check_sums(&out);
}

#[test]
fn parts_on_several_machines_give_the_same_release() {
    let dir = tempfile::tempdir().unwrap();
    let file = release(dir.path(), &demo(), VARIANTS);
    let out = dir.path().join("out");
    let whole = undisturbed(&file, &out);
    let (_, stderr) = expect(75, ["finish", &text(&file)]);
    assert!(stderr.contains("no part"), "{stderr}");
    let (_, stderr) = expect(2, ["release", &text(&file), "--shard", "5/4"]);
    assert!(stderr.contains("1/N"), "{stderr}");
    for part in ["3/4", "1/4"] {
        expect(0, ["release", &text(&file), "--shard", part]);
    }
    let (_, stderr) = expect(75, ["finish", &text(&file)]);
    assert!(stderr.contains("2/4, 4/4"), "{stderr}");
    let (_, stderr) = expect(2, ["release", &text(&file)]);
    assert!(stderr.contains("tensormill finish"), "{stderr}");
    // At the same time, and one of them twice.
    let parts = ["2/4", "4/4", "3/4"].map(|part| {
        mill()
            .args(["release", &text(&file), "--shard", part, "--json"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    });
    for part in parts {
        let out = part.wait_with_output().unwrap();
        assert!(out.status.success());
        let report = json(&String::from_utf8(out.stdout).unwrap());
        assert!(report["part"].is_string());
    }
    expect(0, ["finish", &text(&file), "--verify"]);
    let parts = outcome(&out);
    assert_eq!(parts.0, whole.0);
    let unverified = |text: &str| {
        let mut manifest = json(text);
        manifest["verified"] = Json::Null;
        manifest
    };
    assert_eq!(unverified(&parts.1), unverified(&whole.1));
    check_sums(&out);
    // What is done stays done: an engine may repeat a part, or the end, without harm.
    let before = names(&out);
    expect(0, ["finish", &text(&file)]);
    expect(0, ["release", &text(&file), "--shard", "2/4"]);
    assert!(before == names(&out) && before.iter().all(|n| !n.starts_with('.')), "{:?}", names(&out));
    expect(2, ["release", &text(&file)]);
    fs::remove_file(out.join("m-Q8_0.gguf")).unwrap();
    expect(75, ["finish", &text(&file)]);
}

#[test]
fn machines_that_share_no_disk_make_whole_files() {
    let dir = tempfile::tempdir().unwrap();
    let file = release(dir.path(), &demo(), VARIANTS);
    let out = dir.path().join("out");
    let whole = undisturbed(&file, &out);
    let mut seen = Vec::new();
    for part in ["1/3", "2/3", "3/3"] {
        expect(0, ["release", &text(&file), "--shard", part, "--whole-files"]);
        let own = dir.path().join(part.replace('/', "-"));
        fs::rename(&out, &own).unwrap();
        seen.extend(names(&own).into_iter().filter(|n| n.ends_with("part")).map(|n| (own.clone(), n)));
    }
    let mut each: Vec<&String> = seen.iter().map(|(_, n)| n).collect();
    each.dedup();
    assert!(each.len() == seen.len() && seen.len() > 5, "{seen:?}");
    fs::create_dir(&out).unwrap();
    for part in ["1-3", "2-3", "3-3"] {
        for name in names(&dir.path().join(part)) {
            fs::rename(dir.path().join(part).join(&name), out.join(&name)).unwrap();
        }
    }
    let (aside, name) = &seen[1];
    fs::rename(out.join(name), aside.join(name)).unwrap();
    let (_, stderr) = expect(6, ["finish", &text(&file)]);
    assert!(stderr.contains(name.as_str()) && stderr.contains("bring it here"), "{stderr}");
    fs::rename(aside.join(name), out.join(name)).unwrap();
    expect(0, ["finish", &text(&file)]);
    assert_eq!(outcome(&out), whole);
    check_sums(&out);
}

#[test]
fn sums_depend_on_nothing_but_the_job() {
    let dir = tempfile::tempdir().unwrap();
    let file = release(dir.path(), &demo(), VARIANTS);
    let out = dir.path().join("out");
    let mut first: Option<(String, String)> = None;
    let runs: [(&[&str], &str); 6] = [
        (&["-j", "1"], "avx512"),
        (&["-j", "2"], "avx2"),
        (&["-j", "8"], "scalar"),
        (&["-j", "2", "--memory", "24MiB"], "avx512"),
        (&["-j", "8", "--memory", "128MiB"], "avx512"),
        (&["-j", "2", "--memory", "4GiB"], "avx512"),
    ];
    for (args, simd) in runs {
        let status = mill()
            .args(["release", &text(&file)])
            .args(args)
            .env("TENSORMILL_SIMD", simd)
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(status.success(), "{args:?} {simd}");
        let got = outcome(&out);
        fs::remove_dir_all(&out).unwrap();
        assert_eq!(*first.get_or_insert_with(|| got.clone()), got, "{args:?} {simd}");
    }
}

/// Starts a run that takes seconds, and kills it once it has noted tiles.
fn kill_midway(command: &mut Command, out: &Path, after: Duration) {
    let mut child =
        command.env("TENSORMILL_SIMD", "scalar").stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_mins(1);
    while !(out.exists() && names(out).iter().any(|n| n.ends_with("tensormill-part")))
        && Instant::now() < deadline
    {
        thread::sleep(Duration::from_millis(1));
    }
    thread::sleep(after);
    assert!(child.try_wait().unwrap().is_none(), "the run ended before it could be killed");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_killed_release_goes_on_and_gives_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("model");
    big_zero_model(&model, 1024, 12);
    let variants = "[[variant]]\nquant = \"Q4_K_M\"\n[[variant]]\nquant = \"Q6_K\"\n";
    let file = release(dir.path(), &model, variants);
    let out = dir.path().join("out");
    let whole = undisturbed(&file, &out);
    kill_midway(mill().args(["release", &text(&file), "-j", "1"]), &out, Duration::from_millis(20));
    assert!(names(&out).iter().all(|n| n.starts_with('.')), "{:?}", names(&out));
    let (_, stderr) = expect(2, ["release", &text(&file)]);
    assert!(stderr.contains("not finished") && stderr.contains("--resume"), "{stderr}");
    kill_midway(
        mill().args(["release", &text(&file), "-j", "1", "--resume"]),
        &out,
        Duration::from_millis(50),
    );
    // Asked for something else, or of another source, it refuses; what is left stays.
    let before = names(&out);
    release(dir.path(), &model, "[[variant]]\nquant = \"Q5_K_M\"\n");
    let (_, stderr) = expect(3, ["release", &text(&file), "--resume"]);
    assert!(stderr.contains("other outputs"), "{stderr}");
    release(dir.path(), &model, variants);
    let weights = model.join("model.safetensors");
    let len = fs::metadata(&weights).unwrap().len();
    let write = |bytes: &[u8]| {
        use std::os::unix::fs::FileExt;
        fs::OpenOptions::new().write(true).open(&weights).unwrap().write_all_at(bytes, len - 2).unwrap();
    };
    write(&[0, 0x3f]);
    let (_, stderr) = expect(3, ["release", &text(&file), "--resume"]);
    assert!(stderr.contains("source has changed"), "{stderr}");
    write(&[0, 0]);
    assert_eq!(names(&out), before);
    expect(0, ["release", &text(&file), "--resume", "-j", "2"]);
    assert_eq!(outcome(&out), whole);
    check_sums(&out);
    // And a fresh start is there for the asking.
    fs::remove_dir_all(&out).unwrap();
    kill_midway(mill().args(["release", &text(&file), "-j", "1"]), &out, Duration::from_millis(20));
    let (stdout, _) = expect(0, ["release", &text(&file), "--restart", "--json"]);
    assert_eq!(json(&stdout)["resumed_bytes"], 0);
    assert_eq!(outcome(&out), whole);
}
