//! Progress on standard error, stopping on request, and log lines.

mod common;

use common::{big_zero_model, demo, expect, json, mill, names};
use serde_json::Value as Json;
use std::{
    ffi::OsStr,
    path::Path,
    process::{Command, Output},
};

/// A conversion of the demo, into a folder that is given.
fn convert(dir: &Path, extra: &[&str]) -> Command {
    let mut c = mill();
    c.arg("convert").arg(demo()).arg("-o").arg(dir.join("tiny.gguf")).args(["--quant", "Q4_K_M"]).args(extra);
    c.env_remove("RUST_LOG");
    c
}

fn texts(out: &Output) -> (String, String) {
    let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
    (text(&out.stdout), text(&out.stderr))
}

fn events(stderr: &str) -> Vec<Json> {
    stderr.lines().map(json).collect()
}

fn of<'a>(events: &'a [Json], name: &str) -> Vec<&'a Json> {
    events.iter().filter(|e| e["event"] == name).collect()
}

fn number(e: &Json, field: &str) -> u64 {
    e[field].as_u64().unwrap_or_else(|| panic!("{field} of {e}"))
}

#[test]
fn json_events_parse_and_add_up() {
    let dir = tempfile::tempdir().unwrap();
    let out = convert(dir.path(), &["--progress", "json", "--json", "--verify"]).output().unwrap();
    let (stdout, stderr) = texts(&out);
    assert_eq!(out.status.code(), Some(0), "{stderr}");
    let events = events(&stderr);
    let times: Vec<f64> = events.iter().map(|e| e["seconds"].as_f64().unwrap()).collect();
    assert!(times.is_sorted(), "{times:?}");
    let started = of(&events, "started");
    assert_eq!(started.len(), 1);
    assert_eq!(events[0]["event"], "started");
    let last = events.last().unwrap();
    assert_eq!(last["event"], "finished");
    for field in ["read_bytes", "written_bytes"] {
        assert_eq!(json(&stdout)[field], last[field], "the report and the events agree");
    }
    assert_eq!(number(last, "read_bytes"), number(started[0], "source_bytes"));
    assert_eq!(number(last, "written_bytes"), number(started[0], "output_bytes"));
    let progress = of(&events, "progress");
    assert_eq!(number(progress.last().unwrap(), "read_bytes"), number(last, "read_bytes"));
    let names = |event: &str, phase: &Json| -> Vec<String> {
        let found = of(&events, event).into_iter().filter(|e| e["phase"] == *phase);
        let mut names: Vec<String> = found.map(|e| e["name"].as_str().unwrap().to_owned()).collect();
        names.sort();
        names
    };
    for phase in [Json::Null, "verifying".into()] {
        let begun = names("tensor_started", &phase);
        assert_eq!(begun.len() as u64, number(started[0], "tensors"), "{phase}");
        assert_eq!(begun, names("tensor_finished", &phase), "{phase}");
    }
    let phases: Vec<&Json> = of(&events, "phase").into_iter().map(|e| &e["name"]).collect();
    assert!(
        phases.first() == Some(&&"verifying".into()) && phases.contains(&&"syncing".into()),
        "{phases:?}"
    );
}

#[test]
fn errors_are_events_too() {
    let dir = tempfile::tempdir().unwrap();
    let out = convert(&dir.path().join("missing"), &["--progress", "json"]).output().unwrap();
    let events = events(&texts(&out).1);
    let last = events.last().unwrap();
    assert_eq!(last["event"], "failed");
    assert_eq!(last["exit_code"].as_i64(), out.status.code().map(i64::from));
    assert!(last["error"]["message"].as_str().is_some_and(|m| !m.is_empty()), "{last}");
}

#[test]
fn lines_are_for_logs_and_bars_for_terminals() {
    let dir = tempfile::tempdir().unwrap();
    for (how, report) in [("plain", true), ("plain", false), ("auto", true), ("auto", false), ("none", false)]
    {
        let mut extra = vec!["--force", "--progress", how];
        extra.extend(report.then_some("--json"));
        let out = convert(dir.path(), &extra).output().unwrap();
        let (_, stderr) = texts(&out);
        assert_eq!(out.status.code(), Some(0), "{stderr}");
        if how == "plain" {
            let lines: Vec<&str> = stderr.lines().collect();
            assert!(lines.iter().all(|l| l.starts_with("progress: ")), "{stderr}");
            assert!(lines.contains(&"progress: syncing"), "{stderr}");
            assert!(lines.last().unwrap().starts_with("progress: done after "), "{stderr}");
        } else {
            assert_eq!(stderr, "", "{how}");
        }
    }
}

#[test]
fn log_lines_come_when_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let run = |filter: &str| {
        let out = convert(dir.path(), &["--force"]).env("RUST_LOG", filter).output().unwrap();
        assert_eq!(out.status.code(), Some(0), "{:?}", texts(&out));
        texts(&out).1
    };
    let info = run("info");
    for word in ["source opened", "planned", "files opened", "published"] {
        assert!(info.contains(word), "{word} in {info}");
    }
    assert!(!info.contains("tile written"), "{info}");
    let debug = run("tensormill=debug");
    assert!(debug.contains("tile written") && debug.contains("journal flushed"), "{debug}");
    assert!(!run("tensormill_engine=debug").contains("published"));
    let note = run("tensormill=soup");
    assert!(note.starts_with("note: RUST_LOG") && note.lines().count() == 1, "{note}");
    assert_eq!(run(""), "");
}

#[cfg(unix)]
mod signals {
    use super::*;
    use std::{
        fs,
        io::{BufRead, BufReader, Read},
        process::{Child, Stdio},
    };

    fn send(child: &Child, signal: &str) {
        let status = Command::new("kill").arg(signal).arg(child.id().to_string()).status().unwrap();
        assert!(status.success());
    }

    /// Begins a slow conversion, and gives it when some of it is done.
    #[allow(clippy::zombie_processes, reason = "the caller waits for it")]
    fn begin(model: &Path, out: &Path) -> (Child, impl BufRead) {
        let mut child = mill()
            .arg("convert")
            .args([model.as_os_str(), "-o".as_ref(), out.as_os_str()])
            .args(["--quant", "Q4_K_M", "-j", "1", "--progress", "json"])
            .env("TENSORMILL_SIMD", "scalar")
            .env_remove("RUST_LOG")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut events = BufReader::new(child.stderr.take().unwrap());
        loop {
            let mut line = String::new();
            assert!(events.read_line(&mut line).unwrap() > 0, "it ended before it could be stopped");
            let event = json(&line);
            if event["event"] == "progress" && event["read_bytes"].as_u64() > Some(0) {
                return (child, events);
            }
        }
    }

    #[test]
    fn a_stopped_run_says_how_to_continue_and_gives_the_same_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let model = dir.path().join("m");
        big_zero_model(&model, 2048, 8);
        let folder = dir.path().join("out");
        fs::create_dir(&folder).unwrap();
        let out = folder.join("big.gguf");
        let (mut child, mut events) = begin(&model, &out);
        send(&child, "-INT");
        let mut rest = String::new();
        events.read_to_string(&mut rest).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(130), "{rest}");
        let failed = json(rest.lines().last().unwrap());
        assert_eq!((&failed["event"], &failed["exit_code"]), (&"failed".into(), &130.into()));
        assert!(failed["error"]["hint"].as_str().unwrap().contains("--resume"), "{failed}");
        assert!(!out.exists() && !names(&folder).is_empty(), "{:?}", names(&folder));

        let args = |out: &Path, more: &[&str]| -> Vec<std::ffi::OsString> {
            let fixed = ["convert".as_ref(), model.as_os_str(), "-o".as_ref(), out.as_os_str()];
            let rest = ["--quant", "Q4_K_M"].iter().chain(more).map(OsStr::new);
            fixed.into_iter().chain(rest).map(OsStr::to_owned).collect()
        };
        let (_, stderr) = expect(0, args(&out, &["--resume", "--progress", "json"]));
        let events = super::events(&stderr);
        let last = events.last().unwrap();
        assert!(number(last, "skipped_read_bytes") > 0, "{last}");
        let sum = number(last, "read_bytes") + number(last, "skipped_read_bytes");
        assert_eq!(sum, number(&events[0], "source_bytes"));
        let sum = number(last, "written_bytes") + number(last, "skipped_written_bytes");
        assert_eq!(sum, number(&events[0], "output_bytes"));
        assert_eq!(names(&folder), ["big.gguf"]);
        let whole = dir.path().join("whole.gguf");
        expect(0, args(&whole, &[]));
        assert!(
            fs::read(&out).unwrap() == fs::read(&whole).unwrap(),
            "resumed and uninterrupted runs differ"
        );
    }
}
