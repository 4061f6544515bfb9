//! `pull` and `search`, against a server that speaks the Hub's interface.

mod common;
#[path = "common/hub.rs"]
mod program;

use common::{demo, json};
use program::{expect_of, program};
use std::{fs, path::Path, process::Command};
use tensormill_hub_server::{Fault, Repo, Server, User, What};

/// The binary, with a cache of the test's own.
fn with(server: &Server, home: &Path) -> Command {
    let mut c = program(server.url());
    c.env("HF_HOME", home);
    c
}

fn run(c: &mut Command, code: i32) -> (String, String) {
    expect_of(code, c)
}

fn server() -> Server {
    let server = Server::start();
    server
        .state()
        .add(Repo::from_folder("org/tiny", &demo()).unwrap().meta("tags", ["license:mit"].as_slice().into()));
    server
}

#[test]
fn pull_prints_the_commit_and_fetches_what_a_conversion_needs() {
    let (server, home) = (server(), tempfile::tempdir().unwrap());
    let commit = server.state().repos()["org/tiny"].head().sha.clone();
    let (out, _) = run(with(&server, home.path()).args(["pull", "org/tiny", "--dry-run"]), 0);
    assert!(out.starts_with(&format!("org/tiny@main is commit {commit}\n")), "{out}");
    assert!(out.contains("model.safetensors") && out.contains("nothing was fetched"), "{out}");
    assert!(!home.path().join("hub").exists());

    let (out, _) = run(with(&server, home.path()).args(["pull", "org/tiny", "--json"]), 0);
    let report = json(&out);
    assert_eq!((report["commit"].as_str(), report["license"].as_str()), (Some(&*commit), Some("mit")));
    let folder = Path::new(report["folder"].as_str().unwrap());
    assert!(folder.ends_with(format!("hub/models--org--tiny/snapshots/{commit}")));
    for name in ["config.json", "model.safetensors"] {
        assert_eq!(fs::read(folder.join(name)).unwrap(), fs::read(demo().join(name)).unwrap(), "{name}");
    }

    // Offline it is there, and what is not there is named.
    let (out, _) = run(with(&server, home.path()).args(["pull", "org/tiny", "--offline", "--json"]), 0);
    assert_eq!(json(&out)["received_bytes"], 0);
    let (_, err) = run(with(&server, home.path()).args(["pull", "org/other", "--offline"]), 2);
    assert!(err.contains("cache holds nothing") && err.contains("tensormill pull org/other"), "{err}");
}

#[test]
fn an_output_folder_is_a_mirror_for_others() {
    let (server, home) = (server(), tempfile::tempdir().unwrap());
    let folder = home.path().join("mirror/org/tiny");
    let commit = server.state().repos()["org/tiny"].head().sha.clone();
    run(with(&server, home.path()).args(["pull", "org/tiny", "--config-only", "-o"]).arg(&folder), 0);
    assert!(folder.join("config.json").is_file() && !folder.join("model.safetensors").exists());
    let mirror = home.path().join("mirror");
    let mut pull = with(&server, home.path());
    let (out, _) =
        run(pull.env("HF_ENDPOINT", &mirror).args(["pull", &format!("org/tiny@{commit}"), "--json"]), 0);
    assert_eq!(json(&out)["folder"].as_str(), folder.to_str());
    // Somebody's own file is not replaced unasked.
    fs::write(folder.join("config.json"), "mine").unwrap();
    let (_, err) = run(with(&server, home.path()).args(["pull", "org/tiny", "-o"]).arg(&folder), 2);
    assert!(err.contains("config.json") && err.contains("--force"), "{err}");
    assert_eq!(fs::read(folder.join("config.json")).unwrap(), b"mine");
    run(with(&server, home.path()).args(["pull", "org/tiny", "--force", "-o"]).arg(&folder), 0);
    assert_eq!(fs::read(folder.join("config.json")).unwrap(), fs::read(demo().join("config.json")).unwrap());
}

#[test]
fn gates_and_busy_servers_have_their_exit_codes_and_hints() {
    let (server, home) = (server(), tempfile::tempdir().unwrap());
    server.state().add(Repo::new("meta/gated").file("config.json", b"{}").gated("manual"));
    server.state().user("hf_planted", User { name: "ann".into(), ..User::default() });
    let mut pull = with(&server, home.path());
    let (out, err) = run(pull.env("HF_TOKEN", "hf_planted").args(["pull", "meta/gated"]), 6);
    assert!(err.contains(&format!("accept its terms at {}/meta/gated", server.url())), "{err}");
    assert!(!format!("{out}{err}").contains("hf_planted"));
    let wait = vec![("retry-after".to_owned(), "3600".to_owned())];
    server.state().fault(Fault::always("/revision/", What::Answer(429, wait, "slow down".into())));
    let (_, err) = run(with(&server, home.path()).args(["pull", "org/tiny"]), 75);
    assert!(err.contains("too many requests") && err.contains("slow down"), "{err}");
}

#[test]
fn progress_is_told_as_events() {
    let (server, home) = (server(), tempfile::tempdir().unwrap());
    let (_, err) = run(with(&server, home.path()).args(["pull", "org/tiny", "--progress", "json"]), 0);
    let events: Vec<serde_json::Value> = err.lines().map(json).collect();
    let of = |name: &str| events.iter().filter(|e| e["event"] == name).collect::<Vec<_>>();
    assert_eq!(of("phase")[0]["name"], "downloading");
    let last = of("progress").pop().unwrap();
    assert_eq!(last["done_bytes"], last["total_bytes"]);
    assert_eq!(of("tensor_started").len(), of("tensor_finished").len());
    assert_eq!(of("finished").len(), 1);
}

#[test]
fn search_lists_models() {
    let (server, home) = (server(), tempfile::tempdir().unwrap());
    server.state().add(
        Repo::new("other/big").meta("pipeline_tag", "text-generation".into()).meta("downloads", 9.into()),
    );
    let (out, _) = run(with(&server, home.path()).args(["search", "--sort", "downloads"]), 0);
    let lines: Vec<&str> = out.lines().collect();
    assert!(lines[0].starts_with("MODEL") || lines[0].trim_start().starts_with("MODEL"), "{out}");
    assert!(
        lines[1].contains("other/big") && lines[2].contains("org/tiny") && lines[2].contains("mit"),
        "{out}"
    );
    let (out, _) = run(with(&server, home.path()).args(["search", "--license", "mit", "--json"]), 0);
    assert_eq!(json(&out)[0]["id"], "org/tiny");
    let (out, _) = run(with(&server, home.path()).args(["search", "nothing-like-it"]), 0);
    assert_eq!(out, "no model was found\n");
}
