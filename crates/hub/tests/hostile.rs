//! Servers and caches that lie: whatever they say is an error in a few words or of no consequence, and never a panic.

mod common;

use common::{address, token};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicBool},
};
use tensormill_hub::{Fetched, Hub, Silent, answers, push};
use tensormill_hub_server::{Fault, Repo, Server, User, What};
use tensormill_model::{Error, ErrorKind};

const TOKEN: &str = "hf_theTokenOfTheTests";

fn server() -> Server {
    let server = Server::start();
    server.state().add(Repo::new("org/tiny").file("config.json", b"{}").lfs("model.safetensors", b"weights"));
    let user = User { name: "me".into(), orgs: vec!["org".into()], writes: true, ..User::default() };
    server.state().user(TOKEN, user);
    server
}

fn hub(server: &Server, dir: &Path) -> Hub {
    common::hub(server, |s| {
        s.cache = dir.join("hub");
        s.token = token(TOKEN);
    })
}

fn says(text: &str) -> What {
    What::Say(Arc::new(text.as_bytes().to_vec()), vec![])
}

/// Errors that bytes of others may lead to, in a few words that a terminal can show.
#[track_caller]
fn plain(e: &Error, about: &str) {
    use ErrorKind::{Failed, Malformed, Mismatch, OverLimit, Unsupported, Usage};
    let about = &about[..about.len().min(200)];
    assert!(
        [Failed, Malformed, Mismatch, OverLimit, Unsupported, Usage].contains(&e.kind()),
        "{about}: {e:?}"
    );
    let text = format!("{e} {}", e.hint_text().unwrap_or_default());
    assert!(text.len() < 2000 && !text.contains(char::is_control), "{about}: {text}");
    assert!(!text.contains(TOKEN), "{about}: {text}");
}

/// Documents that mean nothing anywhere.
fn nonsense() -> Vec<String> {
    let deep = 3 << 20;
    [
        "",
        "null",
        "5",
        "\"text\"",
        "{",
        "[1]",
        "[[]]",
        "[null]",
        "{\"files\": 5}",
        "\u{0}",
        "<html>Log in</html>",
        "99999999999999999999999999999999999999999",
        "{\"sha\": [], \"objects\": {}, \"branches\": 7, \"commitOid\": {}}",
    ]
    .map(str::to_owned)
    .into_iter()
    .chain(["[".repeat(deep), "{\"a\":".repeat(deep / 5), format!("[\"{}\"]", "x".repeat(deep))])
    .collect()
}

#[test]
fn what_a_server_says_of_a_repository_is_held_to_what_it_can_mean() {
    let (server, dir) = (server(), tempfile::tempdir().unwrap());
    let hub = hub(&server, dir.path());
    let wrong = |path: &str, text: &str| {
        server.state().faults().clear();
        server.state().fault(Fault::always(path, says(text)));
        let e = hub.model(&address("org/tiny")).expect_err(&text[..text.len().min(200)]);
        plain(&e, text);
    };
    for text in nonsense() {
        wrong("/revision/", &text);
        wrong("/tree/", &text);
    }
    let commit = "0123456789abcdef0123456789abcdef01234567";
    for text in [
        "{\"sha\": \"main\"}".to_owned(),
        "{\"sha\": \"../../../../etc/passwd\"}".to_owned(),
        format!("{{\"sha\": \"{commit}\", \"tags\": [5]}}"),
        format!("{{\"sha\": \"{commit}\", \"private\": \"{}\"}}", "\\u001b[2J".repeat(50_000)),
        format!("{{\"sha\": \"{commit}\", \"downloads\": -1}}"),
    ] {
        wrong("/revision/", &text);
    }
    let (oid, sha256) = ("a".repeat(40), "b".repeat(64));
    let file = |more: &str| format!("[{{\"type\": \"file\", \"path\": \"a\", \"oid\": \"{oid}\", {more}}}]");
    for more in [
        "\"size\": -1",
        "\"size\": 1.5",
        "\"size\": \"7\"",
        "\"size\": 1e99",
        "\"size\": 9223372036854775807",
        "\"size\": 18446744073709551615",
        "\"size\": 18446744073709551616",
        "\"size\": 1, \"lfs\": 5",
        "\"size\": 1, \"lfs\": {\"size\": 1}",
        "\"size\": 1, \"lfs\": {\"size\": 1, \"oid\": \"../../b\"}",
        "\"size\": 1, \"xetHash\": {}",
    ] {
        wrong("/tree/", &file(more));
    }
    wrong("/tree/", &file(&format!("\"lfs\": {{\"size\": 18446744073709551615, \"oid\": \"{sha256}\"}}")));
    for path in
        ["../a", "/a", "a/../b", "a\\\\b", "a\\u0000b", "a\\u001b[2Jb", "a\\nb", "", ".", &"x/".repeat(5000)]
    {
        wrong("/tree/", &file("\"size\": 1").replace("\"path\": \"a\"", &format!("\"path\": \"{path}\"")));
    }
    for oid in ["", "x", &"A".repeat(40), &"a".repeat(1 << 20)] {
        wrong(
            "/tree/",
            &format!("[{{\"type\": \"file\", \"path\": \"a\", \"oid\": \"{oid}\", \"size\": 1}}]"),
        );
    }
    // Lists that do not end.
    let folders = vec!["{\"type\": \"directory\", \"path\": \"d\"}"; 100_000].join(",");
    for (page, pages) in [("[]".to_owned(), 1), (format!("[{folders}]"), 11)] {
        server.state().faults().clear();
        server.state().clear_log();
        let next = format!("<{}/api/models/org/tiny/tree/x>; rel=\"next\"", server.url());
        let what = What::Say(Arc::new(page.into_bytes()), vec![("link".into(), next)]);
        server.state().fault(Fault::always("/tree/", what));
        plain(&hub.model(&address("org/tiny")).unwrap_err(), "a list without end");
        assert_eq!(server.state().count("/tree/"), pages);
    }
    assert!(!dir.path().join("hub").exists(), "nothing of it was written");
}

#[test]
fn headers_of_servers_are_no_danger() {
    let (server, dir) = (server(), tempfile::tempdir().unwrap());
    let hub = hub(&server, dir.path());
    let snapshot = hub.model(&address("org/tiny")).unwrap();
    let huge = "18446744073709551615";
    for (name, value) in [
        ("retry-after", format!("Sun, 06 Nov 1994 {huge}:00:00 GMT")),
        ("retry-after", format!("Sun, {huge} Nov 9999 23:59:59 GMT")),
        ("retry-after", huge.to_owned()),
        ("retry-after", "-1".to_owned()),
        ("ratelimit", format!("\"api\";r=0;t={huge}")),
    ] {
        server.state().faults().clear();
        let busy = What::Answer(429, vec![(name.into(), value.clone())], "slow down".into());
        server.state().fault(Fault::always("/revision/", busy));
        let e = hub.model(&address("org/tiny")).unwrap_err();
        assert!(e.is_transient() && e.message().contains("too many requests"), "{value}: {e:?}");
    }
    for (name, value) in [
        ("content-range", format!("bytes 0-{huge}/{huge}")),
        ("content-range", format!("bytes {huge}-0/7")),
        ("content-range", "bytes -".to_owned()),
        ("etag", "\"".repeat(5000)),
        ("location", "http://[::1".to_owned()),
    ] {
        server.state().faults().clear();
        server.state().fault(Fault::always("/blobs/", What::Header(name.into(), value.clone())));
        // What is of no consequence is none.
        if let Err(e) = hub.fetch(&snapshot, &["model.safetensors"], &Silent) {
            plain(&e, &value);
        }
    }
}

fn fetch(hub: &Hub, what: &str) -> Result<Fetched, Error> {
    let snapshot = hub.model(&address(what))?;
    let files: Vec<&str> = snapshot.files.iter().map(|f| f.path.as_str()).collect();
    hub.fetch(&snapshot, &files, &Silent)
}

/// What a cache may hold in place of its notes.
fn notes() -> Vec<String> {
    let (oid, sha256) = ("a".repeat(40), "b".repeat(64));
    let of = |files: &str| format!("{{\"format_version\": 1, \"files\": {files}}}");
    let file = |noted: &str| of(&format!("{{\"config.json\": {noted}}}"));
    let mut all = nonsense();
    all.extend([
        of("[]"),
        of("null"),
        of("{\"a\": 5}"),
        file("{}"),
        file(&format!("{{\"blob_id\": \"{oid}\"}}")),
        file(&format!("{{\"blob_id\": \"{oid}\", \"size\": -1}}")),
        file(&format!("{{\"blob_id\": \"{oid}\", \"size\": \"2\"}}")),
        file(&format!("{{\"blob_id\": \"{oid}\", \"size\": 18446744073709551615}}")),
        file(&format!("{{\"blob_id\": \"{oid}\", \"size\": 1e300}}")),
        file("{\"blob_id\": \"../../../x\", \"size\": 2}"),
        file("{\"blob_id\": 5, \"size\": 2}"),
        file(&format!("{{\"blob_id\": \"{oid}\", \"size\": 2, \"lfs_sha256\": \"x\", \"lfs_size\": 2}}")),
        file(&format!("{{\"blob_id\": \"{oid}\", \"size\": 2, \"lfs_sha256\": \"{sha256}\"}}")),
        of(&format!("{{\"../../../x\": {{\"blob_id\": \"{oid}\", \"size\": 2}}}}")),
        of("").replace("1,", "\"1\","),
        "{\"files\": {}}".to_owned(),
    ]);
    all
}

#[test]
fn notes_in_the_cache_that_make_no_sense_are_made_anew() {
    let (server, dir) = (server(), tempfile::tempdir().unwrap());
    let online = hub(&server, dir.path());
    let found = fetch(&online, "org/tiny").unwrap();
    let commit = server.state().repos()["org/tiny"].head().sha.clone();
    let repo = dir.path().join("hub/models--org--tiny");
    let note = repo.join("trees").join(format!("{commit}.json"));
    let good = fs::read(&note).unwrap();
    let offline = common::hub(&server, |s| {
        s.cache = dir.path().join("hub");
        s.offline = true;
    });
    let names = |hub: &Hub, what: &str| -> Vec<String> {
        hub.model(&address(what)).unwrap().files.into_iter().map(|f| f.path).collect()
    };
    for text in notes() {
        let about = &text[..text.len().min(100)];
        for what in ["org/tiny".to_owned(), format!("org/tiny@{commit}")] {
            fs::write(&note, &text).unwrap();
            // Offline, what is there is what there is.
            assert_eq!(names(&offline, &what), ["config.json", "model.safetensors"], "{about}");
            assert_eq!(fs::read(&note).unwrap(), text.as_bytes(), "{about}");
            // Online, the server is asked, and the note is made anew.
            server.state().clear_log();
            assert_eq!(fetch(&online, &what).unwrap().folder, found.folder, "{about}");
            assert!(server.state().count("/tree/") == 1, "{about}");
            assert!(fs::read(&note).unwrap() == good, "{about}");
        }
    }
    // A later version is somebody's who knows more.
    let later = b"{\"format_version\": 2, \"files\": []}";
    fs::write(&note, later).unwrap();
    fetch(&online, &format!("org/tiny@{commit}")).unwrap();
    assert_eq!(fs::read(&note).unwrap(), later);
    // Which commit a branch is.
    fs::remove_file(&note).unwrap();
    let main = repo.join("refs/main");
    for text in ["", "main", "../../x", &"a".repeat(1 << 20), "\u{fffd}", &format!("{commit}{commit}")] {
        fs::write(&main, text).unwrap();
        let e = offline.model(&address("org/tiny")).unwrap_err();
        plain(&e, text);
        assert!(e.hint_text().unwrap().contains("tensormill pull"), "{e}");
        fetch(&online, "org/tiny").unwrap();
        assert_eq!(fs::read_to_string(&main).unwrap(), commit);
    }
    // A part of a file, and the list of its pieces.
    for (name, text) in [("tensormill.pieces", "0 0\n".repeat(1 << 16)), ("incomplete", "x".repeat(1 << 20))]
    {
        let blob = fs::read_link(found.folder.join("model.safetensors")).unwrap();
        let blob: PathBuf = repo.join("blobs").join(blob.file_name().unwrap());
        fs::remove_file(&blob).unwrap();
        fs::remove_file(found.folder.join("model.safetensors")).unwrap();
        fs::write(blob.with_extension(name), text).unwrap();
        fetch(&online, "org/tiny").unwrap();
        assert_eq!(fs::read(found.folder.join("model.safetensors")).unwrap(), b"weights");
    }
}

#[test]
fn what_a_server_says_to_a_push_is_held_to_what_it_can_mean() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("README.md"), "# A model").unwrap();
    fs::write(dir.path().join("model.bin"), vec![7; 5000]).unwrap();
    let push = |server: &Server| {
        let request = common::whole(dir.path(), "org/tiny");
        let (hub, stop) = (hub(server, dir.path()), AtomicBool::new(false));
        push::plan(&hub, request, &(), &stop).and_then(|planned| planned.run(&(), &stop, 2))
    };
    assert_eq!(push(&server()).unwrap().branches.len(), 1);
    for path in ["/whoami-v2", "/refs", "/preupload/", "/objects/batch", "/commit/"] {
        for text in nonsense() {
            let server = server();
            server.state().fault(Fault::always(path, says(&text)));
            match push(&server) {
                Err(e) => plain(&e, &text),
                // Of an account and of branches, what is missing is not known; then the server has the last word.
                Ok(_) => {
                    assert!(
                        ["/whoami-v2", "/refs"].contains(&path),
                        "{path} {}",
                        &text[..text.len().min(99)]
                    );
                }
            }
        }
    }
}

#[test]
fn addresses_for_uploads_are_held_to_what_they_can_be() {
    let sha256 = "a".repeat(64);
    let wanted = |object: &str| {
        let text = format!("{{\"transfer\": \"basic\", \"objects\": [{{\"oid\": \"{sha256}\", {object}}}]}}");
        answers::objects_wanted(text.as_bytes(), &[&sha256])
    };
    assert_eq!(wanted("\"actions\": {\"upload\": {\"href\": \"http://x/\"}}").unwrap(), 1);
    assert_eq!(wanted("\"actions\": null").unwrap(), 0);
    for object in [
        "\"actions\": {\"upload\": 5}",
        "\"actions\": {\"upload\": {\"href\": 5}}",
        "\"actions\": {\"upload\": {\"href\": \"http://x/\", \"header\": [1]}}",
        "\"actions\": {\"upload\": {\"href\": \"http://x/\"}, \"verify\": {}}",
    ] {
        plain(&wanted(object).unwrap_err(), object);
    }
    let said = format!("\"error\": {{\"message\": \"{}\"}}", "\\u001b[31mno".repeat(10_000));
    plain(&wanted(&said).unwrap_err(), "a long refusal");
    let other = format!("{{\"transfer\": \"{}\", \"objects\": []}}", "\\n".repeat(10_000));
    plain(&answers::objects_wanted(other.as_bytes(), &[&sha256]).unwrap_err(), "a long name");
    plain(&answers::objects_wanted(b"{\"objects\": []}", &[&sha256]).unwrap_err(), "no answer");
}
