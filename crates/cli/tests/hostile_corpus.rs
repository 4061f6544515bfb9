//! The corpus of hostile files (`golden/hostile`), each in a process of its own that may use 64 MiB and five seconds of a
//! processor: the exit code is the table's, nothing panics, nothing is left behind.

mod common;

use common::{json, names};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

fn golden(path: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../golden")).join(path)
}

/// The program within limits: it aborts when it asks for more memory (`RLIMIT_DATA` counts what it may write to).
fn limited(args: &[&str]) -> Output {
    let mut c = Command::new("sh");
    c.args(["-c", "ulimit -d 65536; ulimit -t 5; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_tensormill")]);
    c.args(args).env_remove("TENSORMILL_MEMORY").env("TENSORMILL_DEVICE", "cpu");
    c.output().expect("sh starts")
}

/// A folder with the files of a model of `golden/models`; `-` is none.
fn model(dir: &Path, name: &str) {
    if name == "-" {
        return;
    }
    for e in fs::read_dir(golden("models").join(name)).unwrap().flatten().filter(|e| e.path().is_file()) {
        fs::copy(e.path(), dir.join(e.file_name())).unwrap();
    }
}

/// The file, or where a link is to lie beside it a copy in `folder` that has one.
fn file(path: &str, link: Option<(&str, &str)>, folder: &Path) -> String {
    let path = golden("hostile").join(path);
    let Some((name, target)) = link else { return path.display().to_string() };
    let copy = folder.join("m").join(path.file_name().unwrap());
    fs::create_dir(folder.join("m")).unwrap();
    fs::copy(&path, &copy).unwrap();
    // What a link out of the folder may lead to.
    fs::write(folder.join("README.md"), [7; 4096]).unwrap();
    std::os::unix::fs::symlink(target, folder.join("m").join(name)).unwrap();
    copy.display().to_string()
}

/// What is wrong with how the program takes one file.
fn run(path: &str, how: &str, link: Option<(&str, &str)>, exit: i32) -> Vec<String> {
    let (work, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let file = file(path, link, work.path());
    let demo = golden("models/tiny-llama").display().to_string();
    let at = |dir: &tempfile::TempDir, name: &str| dir.path().join(name).display().to_string();
    let small = ["--memory", "16MiB"];
    let (gguf, safetensors) = (at(&out, "o.gguf"), at(&out, "o.safetensors"));
    let folder = work.path().display().to_string();
    let release = at(&work, "release.toml");
    let args: Vec<&str> = match how {
        "inspect" => vec!["inspect", &file],
        "scan" => vec!["scan", &file],
        "convert" if path.starts_with("onnx/") => {
            vec!["convert", &file, "-o", &safetensors, "--allow-loss"]
        }
        "convert" => vec!["convert", &file, "-o", &safetensors],
        "imatrix" => vec!["convert", &demo, "-o", &gguf, "--quant", "Q4_0", "--imatrix", &file],
        "release" => {
            model(work.path(), "tiny-llama");
            fs::copy(&file, &release).unwrap();
            vec!["release", &release, "--dry-run"]
        }
        other => {
            let (of, name) = other.strip_prefix("in ").and_then(|o| o.split_once(" as ")).expect("how");
            model(work.path(), of);
            fs::copy(&file, work.path().join(name)).unwrap();
            vec!["convert", &folder, "-o", &gguf]
        }
    };
    let args = if matches!(args[0], "inspect" | "scan") { args } else { [&args[..], &small].concat() };
    let before = names(work.path());
    let output = limited(&args);
    let mut wrong = judged(&output, &[exit]);
    if names(work.path()) != before {
        wrong.push(format!("left {:?} beside the source", names(work.path())));
    }
    if exit != 0 && !names(out.path()).is_empty() {
        wrong.push(format!("left {:?}", names(out.path())));
    }
    // A scan looks at any of them, too.
    let output = limited(&["scan", &file]);
    let codes: &[i32] = if path.starts_with("pickle/os-system") { &[7] } else { &[0, 3, 7] };
    wrong.extend(judged(&output, codes).into_iter().map(|w| format!("scan: {w}")));
    wrong
}

fn judged(output: &Output, codes: &[i32]) -> Vec<String> {
    let stderr = String::from_utf8_lossy(&output.stderr);
    let mut wrong = Vec::new();
    if !output.status.code().is_some_and(|c| codes.contains(&c)) {
        wrong.push(format!("{} instead of {codes:?}: {stderr:.300}", output.status));
    }
    if stderr.contains("panicked") || stderr.contains("RUST_BACKTRACE") {
        wrong.push(format!("it panicked: {stderr:.300}"));
    }
    wrong
}

#[test]
fn every_hostile_file_gets_its_exit_code_in_little_memory() {
    let tables = ["hostile/cases.json", "hostile/onnx/cases.json"];
    let tables = tables.map(|name| json(&fs::read_to_string(golden(name)).unwrap()));
    let cases: Vec<_> = tables.iter().flat_map(|t| t.as_array().unwrap()).collect();
    assert!(cases.len() > 480);
    let mut wrong = Vec::new();
    for c in cases {
        let (path, how) = (c["path"].as_str().unwrap(), c["how"].as_str().unwrap());
        let exit = c["exit"].as_i64().unwrap() as i32;
        let link = c["link"].as_array().map(|l| (l[0].as_str().unwrap(), l[1].as_str().unwrap()));
        wrong.extend(run(path, how, link, exit).into_iter().map(|w| format!("{path} ({how}): {w}")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_limits_are_real() {
    // A pickle of its own length in memory many times: more than a limit of 64 MiB allows, so the process is stopped.
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("big.pkl");
    let lists = [b"\x80\x02](".to_vec(), vec![b']'; 3 << 20], b"e.".to_vec()].concat();
    fs::write(&file, lists).unwrap();
    let output = limited(&["inspect", &file.display().to_string()]);
    assert_eq!(output.status.code(), None, "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn nothing_of_the_corpus_is_run() {
    let dir = tempfile::tempdir().unwrap();
    let mark = dir.path().join("owned");
    let call = format!("touch {}", mark.display());
    let text = [&(call.len() as u32).to_le_bytes()[..], call.as_bytes()].concat();
    let pickle = [b"\x80\x02cos\nsystem\n(X".to_vec(), text, b"tR.".to_vec()].concat();
    for name in ["a.pkl", "a.pt", "a.bin"] {
        let file = dir.path().join(name);
        fs::write(&file, &pickle).unwrap();
        let path = file.display().to_string();
        let out = dir.path().join("out.safetensors").display().to_string();
        for args in [&["inspect", &path][..], &["scan", &path], &["convert", &path, "-o", &out]] {
            limited(args);
            assert!(!mark.exists(), "{args:?}");
        }
    }
}
