//! `push`, and `[publish]` of release files, against a real server: what arrives there, and what never does.

mod common;
#[path = "common/hub.rs"]
mod program;

use common::{demo, json, mill, text};
use program::program;
use std::{
    fs,
    path::Path,
    process::{Command, Output},
};
use tensormill_hub_server::{Fault, Repo, Server, User, What};

const TOKEN: &str = "hf_QxTestsOwnTokenOfNobody8471";

fn server() -> Server {
    let server = Server::start();
    let user = User { name: "me".into(), orgs: vec!["org".into()], writes: true, ..User::default() };
    server.state().user(TOKEN, user);
    server
}

/// The program with this server as the Hub, a token and a home folder that tells a name.
fn with(server: &Server, home: &Path) -> Command {
    let mut c = program(server.url());
    c.env("HF_TOKEN", TOKEN).env("HF_HOME", home.join("hf")).env("HOME", home);
    c
}

fn expect(code: i32, command: &mut Command) -> (String, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let (o, e) = (String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap());
    assert_eq!(status.code(), Some(code), "stdout:\n{o}\nstderr:\n{e}");
    (o, e)
}

fn write(folder: &Path, name: &str, bytes: impl AsRef<[u8]>) {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

fn bytes_of(repo: &Repo, revision: &str, name: &str) -> Vec<u8> {
    let commit = repo.resolve(revision).unwrap_or_else(|| panic!("{revision}"));
    let file = commit.files.get(name).unwrap_or_else(|| panic!("{name} in {:?}", commit.files.keys()));
    file.content.bytes().unwrap()
}

fn names_of(repo: &Repo, revision: &str) -> Vec<String> {
    repo.resolve(revision).unwrap().files.keys().cloned().collect()
}

#[test]
fn a_folder_is_published_and_the_second_time_nothing_is_sent() {
    let (server, tmp) = (server(), tempfile::tempdir().unwrap());
    let folder = tmp.path().join("out");
    write(&folder, "README.md", "# Card\n");
    write(&folder, "m.gguf", vec![7; 70_000]);
    let args = [text(&folder), "org/m".into()];
    let (o, _) = expect(0, with(&server, tmp.path()).arg("push").args(&args).args(["--create", "--dry-run"]));
    assert!(
        o.contains("org/m (private, to be made)")
            && o.contains("to send")
            && o.contains("nothing was written"),
        "{o}"
    );
    assert!(server.state().repos().is_empty());
    let (o, _) = expect(
        0,
        with(&server, tmp.path()).arg("push").args(&args).args(["--create", "--tag", "v1", "-m", "First"]),
    );
    assert!(o.contains("the hashes of 2 files are those of the repository") && o.contains("tag v1"), "{o}");
    let repo = server.state().repos()["org/m"].clone();
    assert!(repo.private && repo.tags["v1"] == repo.head().sha && repo.head().title == "First");
    assert_eq!(bytes_of(&repo, "v1", "m.gguf"), vec![7; 70_000]);
    let (o, _) = expect(0, with(&server, tmp.path()).arg("push").args(&args).arg("--json"));
    let report = json(&o);
    assert_eq!((&report["bytes"], &report["branches"][0]["verified"]), (&0.into(), &2.into()));
    assert_eq!(report["branches"][0]["files"][0]["state"], "same");
    assert_eq!(server.state().repos()["org/m"].commits.len(), repo.commits.len());
    let (o, _) = expect(0, with(&server, tmp.path()).arg("push").args(&args));
    assert!(o.contains("nothing to commit"), "{o}");
}

#[test]
fn refusals_say_what_to_do() {
    let (server, tmp) = (server(), tempfile::tempdir().unwrap());
    let folder = tmp.path().join("out");
    write(&folder, "a.txt", "a");
    let push = |change: &dyn Fn(&mut Command)| {
        let mut c = with(&server, tmp.path());
        c.args(["push", &text(&folder), "org/m"]);
        change(&mut c);
        c
    };
    let (_, e) = expect(2, &mut push(&|_| ()));
    assert!(e.contains("--create"), "{e}");
    let (_, e) = expect(2, push(&|_| ()).env_remove("HF_TOKEN"));
    assert!(e.contains("HF_TOKEN") && e.contains("settings/tokens"), "{e}");
    server.state().user("hf_canOnlyRead", User { name: "me".into(), ..User::default() });
    let (_, e) = expect(2, push(&|_| ()).env("HF_TOKEN", "hf_canOnlyRead"));
    assert!(e.contains("only read"), "{e}");
    let (_, e) = expect(2, push(&|_| ()).env("HF_HUB_OFFLINE", "1"));
    assert!(e.contains("HF_HUB_OFFLINE"), "{e}");
    write(&folder, ".m.tensormill-journal", "");
    let (_, e) = expect(2, push(&|_| ()).arg("--create"));
    assert!(e.contains("not finished") && e.contains("tensormill finish"), "{e}");
    fs::remove_file(folder.join(".m.tensormill-journal")).unwrap();
    // What a server says is shown, but for the token.
    let refused = What::Answer(403, vec![], format!("{TOKEN} may not"));
    server.state().fault(Fault::once("/repos/create", refused));
    let (_, e) = expect(6, push(&|_| ()).arg("--create"));
    assert!(e.contains("may not") && !e.contains(TOKEN), "{e}");
}

#[test]
fn what_is_private_stops_a_push_before_anything_is_sent() {
    let (server, tmp) = (server(), tempfile::tempdir().unwrap());
    let home = tmp.path().join("home/jane-of-the-tests");
    for (name, content) in [
        ("config.json", r#"{"token": "hf_abcdefGHIJKLmnopqrSTUVWXyz01234567"}"#.to_owned()),
        ("notes.md", format!("made with {TOKEN} today")),
        ("config.json", format!(r#"{{"_name_or_path": "{}/models/x"}}"#, home.display())),
    ] {
        let folder = tmp.path().join("out");
        let _ = fs::remove_dir_all(&folder);
        write(&folder, name, &content);
        write(&folder, "m.gguf", [1; 100]);
        let push = |more: &[&str]| {
            let mut c = with(&server, &home);
            c.args(["push", &text(&folder), "org/m", "--create"]).args(more);
            c
        };
        let (o, e) = expect(5, &mut push(&[]));
        assert!(e.contains(name) && e.contains("nothing was sent") && e.contains("--allow-private"), "{e}");
        for secret in [TOKEN, "hf_abcdefGHIJKL", "jane-of-the-tests/models"] {
            assert!(!o.contains(secret) && !e.contains(secret), "{o}{e}");
        }
        assert!(server.state().writing().received.is_empty(), "{name}");
        // Without that file, and where somebody means it.
        expect(0, &mut push(&["--exclude", name, "--dry-run"]));
        expect(0, &mut push(&["--allow-private", "--dry-run"]));
    }
}

/// A release file beside a source in somebody's home folder, with what must not get out in all inputs.
fn release(home: &Path, publish: &str) -> std::path::PathBuf {
    let source = home.join("secret-project/tiny");
    common::copy_demo(&source);
    let file = home.join("release.toml");
    let text = format!(
        r#"
[source]
path = "{source}"
revision = "abc123"
[release]
name = "tiny"
folder = "{out}"
[[variant]]
quant = "Q8_0"
[[variant]]
dtype = "f16"
format = "safetensors"
[publish]
repo = "org/tiny"
create = true
{publish}"#,
        source = source.display(),
        out = home.join("out").display(),
    );
    write(home, "release.toml", text);
    file
}

#[test]
fn a_release_ends_on_the_hub_and_tells_nothing_of_the_machine() {
    let (server, tmp) = (server(), tempfile::tempdir().unwrap());
    let home = tmp.path().join("home/jane-of-the-tests");
    let file = release(&home, "tag = \"v1\"\nmessage = \"First release\"\ninclude = [\"extra/*\"]\n");
    // In the folder of the release: a card, what is asked for, and what is nobody's business.
    for name in ["README.md", "LICENSE.txt", "extra/notes.txt", "diary.txt"] {
        write(&home.join("out"), name, name);
    }
    let (o, _) = expect(0, with(&server, &home).args(["release", &text(&file), "--dry-run"]));
    assert!(o.contains("would be sent to org/tiny"), "{o}");
    // The server fails once everything is made: the release stands, and the same command goes on.
    let refused = What::Answer(403, vec![], "no".into());
    server.state().fault(Fault::once("/commit/", refused));
    let (_, e) = expect(6, with(&server, &home).args(["release", &text(&file)]));
    assert!(e.contains("the release is complete"), "{e}");
    let (o, _) = expect(0, with(&server, &home).args(["release", &text(&file), "--json"]));
    let report = json(&o);
    assert_eq!(
        (&report["publish"]["tag"], &report["publish"]["visibility"]),
        (&"v1".into(), &"private".into())
    );
    assert_eq!(report["publish"]["bytes_uploaded"], 0, "the first try had uploaded it all");
    let repo = server.state().repos()["org/tiny"].clone();
    let names = names_of(&repo, "v1");
    for name in [
        "README.md",
        "LICENSE.txt",
        "extra/notes.txt",
        "SHA256SUMS",
        "tiny.manifest.json",
        "tiny.report.html",
        "tiny.report/stages.svg",
        "tiny-Q8_0.gguf",
        "tiny-F16-safetensors/model.safetensors",
        "tiny-F16-safetensors/config.json",
    ] {
        assert!(names.iter().any(|n| n == name), "{name} in {names:?}");
        assert!(bytes_of(&repo, "v1", name) == fs::read(home.join("out").join(name)).unwrap(), "{name}");
    }
    assert!(!names.iter().any(|n| n == "diary.txt"));
    // Nothing that the server was ever told, but in the header that is for it, knows of this machine.
    let state = server.state();
    let received = state.writing().received.clone();
    assert!(received.len() > 5);
    for secret in [TOKEN, "jane-of-the-tests", "secret-project", &text(&demo()), &text(tmp.path())] {
        let has = |bytes: &[u8]| bytes.windows(secret.len()).any(|w| w == secret.as_bytes());
        for (path, body) in &received {
            let decoded = lines_decoded(body);
            assert!(!has(body) && !has(path.as_bytes()) && !has(&decoded), "{secret} in a request to {path}");
        }
        for seen in state.log() {
            let told =
                seen.headers.iter().filter(|(k, _)| k != "authorization").any(|(_, v)| has(v.as_bytes()));
            assert!(!told && !has(seen.path.as_bytes()), "{secret} in {seen:?}");
        }
        for commit in repo.commits.values() {
            for (name, f) in &commit.files {
                assert!(!has(&f.content.bytes().unwrap()), "{secret} in {name}");
            }
        }
    }
    // A third time there is nothing to do, and --no-push does not even ask.
    let before = server.state().log().len();
    let (o, _) = expect(0, with(&server, &home).args(["release", &text(&file), "--no-push", "--json"]));
    assert!(json(&o)["publish"].is_null() && server.state().log().len() == before);
    let (o, _) = expect(0, with(&server, &home).args(["finish", &text(&file)]));
    assert!(o.contains("nothing to commit"), "{o}");
}

/// The contents of a commit's lines.
fn lines_decoded(body: &[u8]) -> Vec<u8> {
    let lines =
        body.split(|b| *b == b'\n').filter_map(|l| serde_json::from_slice::<serde_json::Value>(l).ok());
    let content = |v: serde_json::Value| {
        tensormill_hub_server::routes::write::decode(v["value"]["content"].as_str().unwrap_or_default())
    };
    lines.filter_map(content).flatten().collect()
}

#[test]
fn variants_have_branches_of_their_own_where_that_is_wanted() {
    let (server, tmp) = (server(), tempfile::tempdir().unwrap());
    let file = release(tmp.path(), "branch_per_variant = true\nvisibility = \"public\"\n");
    write(&tmp.path().join("out"), "README.md", "# Card");
    for _ in 0..2 {
        expect(0, with(&server, tmp.path()).args(["release", &text(&file)]));
        let repo = server.state().repos()["org/tiny"].clone();
        assert!(!repo.private);
        assert_eq!(names_of(&repo, "Q8_0"), [".gitattributes", "README.md", "tiny-Q8_0.gguf"]);
        // A folder's files stand at the root, where loaders look for them.
        let names = names_of(&repo, "F16-safetensors");
        assert!(
            names.contains(&"model.safetensors".to_owned()) && names.contains(&"config.json".to_owned()),
            "{names:?}"
        );
        let main = names_of(&repo, "main");
        assert!(
            main.contains(&"tiny.manifest.json".to_owned())
                && !main.iter().any(|n| Path::new(n).extension().is_some_and(|x| x == "gguf")),
            "{main:?}"
        );
        assert_eq!(repo.branches.len(), 3);
    }
    let commits = server.state().repos()["org/tiny"].commits.len();
    // `push` of the folder says the same.
    let out = text(&tmp.path().join("out"));
    let (o, _) =
        expect(0, with(&server, tmp.path()).args(["push", &out, "org/tiny", "--branch-per-variant"]));
    assert!(o.contains("Q8_0"), "{o}");
    assert_eq!(server.state().repos()["org/tiny"].commits.len(), commits);
    let (_, e) =
        expect(2, with(&server, tmp.path()).args(["push", &text(&demo()), "org/x", "--branch-per-variant"]));
    assert!(e.contains("manifest"), "{e}");
}

#[test]
fn keys_of_publish_are_known() {
    let tmp = tempfile::tempdir().unwrap();
    for (publish, said) in [
        ("colour = \"red\"\n", "unknown field"),
        ("visibility = \"secret\"\n", "private or public"),
        ("pull_request = 3\n", "invalid type"),
    ] {
        let file = release(tmp.path(), publish);
        let (_, e) = expect(2, mill().args(["release", &text(&file), "--dry-run"]));
        assert!(e.contains(said) && e.contains("line"), "{e}");
    }
}

/// What `cargo xtask hub-demo` runs: from a name to a repository with a card.
#[test]
fn the_release_of_the_documentation_goes_from_a_name_to_a_repository_with_a_card() {
    let (server, tmp) = (server(), tempfile::tempdir().unwrap());
    let model = tmp.path().join("tiny-llama");
    common::copy_demo(&model);
    server.state().add(Repo::from_folder("demo/tiny-llama", &model).unwrap());
    let source = server.state().repos()["demo/tiny-llama"].head().sha.clone();
    let file = tmp.path().join("release.toml");
    fs::copy(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/hub-release.toml"), &file).unwrap();
    expect(0, with(&server, tmp.path()).args(["release", &text(&file)]));
    let repo = server.state().repos()["me/tiny-llama-GGUF"].clone();
    assert!(repo.private && repo.tags["v1"] == repo.head().sha);
    let names = names_of(&repo, "v1");
    for name in ["tiny-llama-Q4_K_M.gguf", "tiny-llama-Q8_0.gguf", "SHA256SUMS", "tiny-llama.manifest.json"] {
        assert!(names.iter().any(|n| n == name), "{name} in {names:?}");
    }
    let card = String::from_utf8(bytes_of(&repo, "v1", "README.md")).unwrap();
    for said in ["base_model:", "demo/tiny-llama", &source, "tiny-llama-Q4_K_M.gguf", "me/tiny-llama-GGUF"] {
        assert!(card.contains(said), "{said} in {card}");
    }
    let manifest = json(&String::from_utf8(bytes_of(&repo, "v1", "tiny-llama.manifest.json")).unwrap());
    let known = (&manifest["source"]["repository"], &manifest["source"]["revision"]);
    assert_eq!(known, (&"demo/tiny-llama".into(), &source.into()));
    // What stands there is what was made, and the card holds by the Hub's rules.
    let got = tmp.path().join("got");
    expect(0, with(&server, tmp.path()).args(["pull", "me/tiny-llama-GGUF@v1", "--all", "-o", &text(&got)]));
    for name in names.iter().filter(|n| *n != ".gitattributes") {
        assert!(
            fs::read(got.join(name)).unwrap() == fs::read(tmp.path().join("out").join(name)).unwrap(),
            "{name}"
        );
    }
    expect(0, with(&server, tmp.path()).args(["card", "--check", &text(&got.join("README.md"))]));
}
