//! Disks that fill: a limit on the length of files makes every write beyond it fail, as a full disk does. Nothing that is not
//! whole gets its name, the error says which file and what to do, and the same fetch goes on when there is room.
#![cfg(unix)]

mod common;

use common::address;
use std::{
    env, fs,
    path::Path,
    process::{Command, Stdio},
};
use tensormill_hub::{Endpoint, Hub, Retry, Settings, Silent};
use tensormill_hub_server::{Repo, Server};
use tensormill_model::Result;

/// Where the other process finds the server and the cache.
const ENDPOINT: &str = "TENSORMILL_TEST_ENDPOINT";
const CACHE: &str = "TENSORMILL_TEST_CACHE";

/// Pieces of this length, by several connections, where the file is longer than two of them.
const RANGE: u64 = 1 << 20;

fn fetch(endpoint: &str, cache: &Path, repo: &str) -> Result<Vec<u8>> {
    let settings = Settings {
        endpoint: Endpoint::parse(endpoint)?,
        cache: cache.to_owned(),
        retry: Retry::at_once(),
        range_bytes: RANGE,
        jobs: if repo == "org/pieces" { 4 } else { 1 },
        ..Settings::default()
    };
    let hub = Hub::new(settings)?;
    let snapshot = hub.model(&address(repo))?;
    let folder = hub.fetch(&snapshot, &["model.safetensors"], &Silent)?.folder;
    Ok(fs::read(folder.join("model.safetensors")).unwrap())
}

#[test]
#[ignore = "what the other test starts, in a process with a limit"]
fn in_a_process_with_a_limit() {
    let (endpoint, cache) = (env::var(ENDPOINT).unwrap(), env::var(CACHE).unwrap());
    for repo in ["org/order", "org/pieces"] {
        let e = fetch(&endpoint, Path::new(&cache), repo).unwrap_err();
        println!("{repo}: {:?}: {e}; {}", e.kind(), e.hint_text().unwrap_or_default());
    }
}

/// What a process says in which no file may become longer than so many blocks (of 512 bytes or 1 KiB, as the shell has it).
fn limited(blocks: u32, server: &Server, cache: &Path) -> String {
    let mut c = Command::new("sh");
    // Without the signal, which would end the process, the write itself fails.
    c.args(["-c", "trap '' XFSZ; ulimit -f $0 && exec \"$@\""]).arg(blocks.to_string());
    c.arg(env::current_exe().unwrap()).args([
        "in_a_process_with_a_limit",
        "--exact",
        "--ignored",
        "--nocapture",
    ]);
    c.env(ENDPOINT, server.url()).env(CACHE, cache).stdin(Stdio::null());
    let out = c.output().unwrap();
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(out.status.success(), "{said}\n{}", String::from_utf8_lossy(&out.stderr));
    said
}

/// Names of what would be taken for whole: everything but parts.
fn finished(folder: &Path) -> Vec<String> {
    let mut all = Vec::new();
    for e in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = e.file_name().into_string().unwrap();
        if e.file_type().unwrap().is_dir() {
            all.extend(finished(&e.path()).into_iter().map(|n| format!("{name}/{n}")));
        } else if ![".incomplete", ".lock", ".pieces"].iter().any(|end| name.ends_with(end)) {
            all.push(name);
        }
    }
    all
}

#[test]
fn what_finds_no_room_goes_on_when_there_is_some() {
    let weights: Vec<u8> = (0..6u32 << 20).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let (server, dir) = (Server::start(), tempfile::tempdir().unwrap());
    for repo in ["org/order", "org/pieces"] {
        server.state().add(Repo::new(repo).lfs("model.safetensors", &weights));
    }
    let cache = dir.path().join("hub");
    // Not even a note of which commit it is.
    let said = limited(0, &server, &cache);
    for part in ["org/order: Io: ", "refs/main: ", "HF_HUB_CACHE"] {
        assert!(said.contains(part), "{part} in {said}");
    }
    assert_eq!(finished(&cache), [""; 0]);
    // Neither all of the weights.
    let said = limited(2048, &server, &cache);
    let sha256 =
        server.state().repos()["org/order"].head().files["model.safetensors"].sha256.clone().unwrap();
    for repo in ["order", "pieces"] {
        let line = said
            .lines()
            .find(|l| l.contains(&format!("org/{repo}: Io: ")))
            .unwrap_or_else(|| panic!("{said}"));
        for part in [
            "/blobs/",
            "model.safetensors has 6291456 bytes",
            "ulimit -f",
            "HF_HUB_CACHE",
            "what arrived is kept",
        ] {
            assert!(line.contains(part), "{part} in {line}");
        }
        let there = finished(&cache.join(format!("models--org--{repo}")));
        assert!(!there.iter().any(|n| n.contains(&sha256) || n.contains("model.safetensors")), "{there:?}");
    }
    let blobs = cache.join("models--org--order/blobs");
    let kept = fs::metadata(blobs.join(format!("{sha256}.incomplete"))).unwrap().len();
    assert!(kept >= 1 << 20 && kept < weights.len() as u64, "{kept}");
    // Now there is room.
    server.state().clear_log();
    assert!(fetch(server.url(), &cache, "org/order").unwrap() == weights);
    assert_eq!(server.state().sent("/blobs/"), weights.len() as u64 - kept, "what arrived was kept");
    assert!(fetch(server.url(), &cache, "org/pieces").unwrap() == weights);
    for repo in ["order", "pieces"] {
        let blobs = cache.join(format!("models--org--{repo}/blobs"));
        let names: Vec<_> = fs::read_dir(blobs).unwrap().flatten().map(|e| e.file_name()).collect();
        assert_eq!(names, [&*sha256], "nothing unfinished");
    }
}
