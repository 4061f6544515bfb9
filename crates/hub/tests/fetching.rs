//! Downloads into the cache, and everything that goes wrong with them.

mod common;

use common::{address, token};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tensormill_hub::{Endpoint, Fetched, Hub, Need, Progress, Settings, Silent, wanted};
use tensormill_hub_server::{Fault, Repo, Server, Side, User, What};
use tensormill_model::{Error, ErrorKind};

const BIG: usize = 3 << 20;

fn bytes(n: usize) -> Vec<u8> {
    (0..n as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

fn server() -> Server {
    let server = Server::start();
    server.state().add(
        Repo::new("org/tiny")
            .file("config.json", b"{\"model_type\": \"llama\"}")
            .file("empty.txt", b"")
            .file("1_Pooling/config.json", b"{}")
            .lfs("model.safetensors", &bytes(BIG)),
    );
    server
}

fn cache_of(server: &Server, dir: &Path) -> Hub {
    common::hub(server, |s| s.cache = dir.join("hub"))
}

fn fetch(hub: &Hub, what: &str) -> Result<Fetched, Error> {
    fetch_with(hub, what, &Silent)
}

fn fetch_with(hub: &Hub, what: &str, progress: &dyn Progress) -> Result<Fetched, Error> {
    let snapshot = hub.model(&address(what))?;
    let files: Vec<&str> = snapshot.files.iter().map(|f| f.path.as_str()).collect();
    hub.fetch(&snapshot, &files, progress)
}

/// All files below a folder, links included, as paths relative to it.
fn tree(folder: &Path) -> Vec<String> {
    fn walk(folder: &Path, root: &Path, out: &mut Vec<String>) {
        for e in fs::read_dir(folder).into_iter().flatten().flatten() {
            if e.file_type().unwrap().is_dir() {
                walk(&e.path(), root, out);
            } else {
                out.push(e.path().strip_prefix(root).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    let mut out = Vec::new();
    walk(folder, folder, &mut out);
    out.sort();
    out
}

#[test]
fn the_cache_has_the_layout_that_everybody_shares() {
    let server = server();
    let dir = tempfile::tempdir().unwrap();
    let hub = cache_of(&server, dir.path());
    let found = fetch(&hub, "org/tiny").unwrap();
    assert_eq!((found.files, found.fetched), (4, 4));
    let commit = server.state().repos()["org/tiny"].head().sha.clone();
    let repo = dir.path().join("hub/models--org--tiny");
    assert_eq!(found.folder, repo.join("snapshots").join(&commit));
    assert_eq!(fs::read_to_string(repo.join("refs/main")).unwrap(), commit);
    assert_eq!(fs::read(found.folder.join("model.safetensors")).unwrap(), bytes(BIG));
    let link = fs::read_link(found.folder.join("1_Pooling/config.json")).unwrap();
    assert_eq!(link, PathBuf::from("../../../blobs/9e26dfeeb6e641a33dae4961196235bdb965b21b"));
    let blobs = tree(&repo.join("blobs"));
    assert_eq!(blobs.len(), 4);
    assert!(blobs.iter().all(|b| matches!(b.len(), 40 | 64)), "nothing unfinished: {blobs:?}");
    assert!(dir.path().join("hub/CACHEDIR.TAG").exists());

    // A second time nothing is fetched, and the commit itself is not even asked for.
    server.state().clear_log();
    assert_eq!(fetch(&hub, "org/tiny").unwrap().fetched, 0);
    assert_eq!(server.state().count("/resolve"), 0);
    server.state().clear_log();
    assert_eq!(fetch(&hub, &format!("org/tiny@{commit}")).unwrap().received, 0);
    assert!(server.state().log().is_empty());
}

#[test]
fn a_new_commit_shares_what_did_not_change() {
    let server = server();
    let dir = tempfile::tempdir().unwrap();
    let hub = cache_of(&server, dir.path());
    let first = fetch(&hub, "org/tiny").unwrap();
    let new = Repo::new("x").file("config.json", b"{\"new\": 1}").head().files["config.json"].clone();
    let mut repo = server.state().repos()["org/tiny"].clone();
    repo.commit("main", "change", |files| drop(files.insert("config.json".into(), new)));
    server.state().add(repo);
    server.state().clear_log();
    let second = fetch(&hub, "org/tiny").unwrap();
    assert_ne!(first.folder, second.folder);
    assert_eq!(server.state().sent("/blobs/"), 0);
    assert_eq!(fs::read(second.folder.join("config.json")).unwrap(), b"{\"new\": 1}");
    assert_eq!(fs::read(second.folder.join("model.safetensors")).unwrap().len(), BIG);
    assert!(fs::read_to_string(first.folder.join("config.json")).unwrap().contains("llama"));
}

#[test]
fn a_broken_transfer_goes_on_where_it_stopped() {
    let server = server();
    let dir = tempfile::tempdir().unwrap();
    let hub = cache_of(&server, dir.path());
    for n in [100_000, 1, 700_001] {
        server.state().fault(Fault::once("/blobs/", What::DropAfter(n)).side(Side::Cdn));
    }
    let found = fetch(&hub, "org/tiny").unwrap();
    assert_eq!(fs::read(found.folder.join("model.safetensors")).unwrap(), bytes(BIG));
    assert_eq!(server.state().sent("/blobs/"), BIG as u64, "every byte once");
    assert_eq!(server.state().count("/blobs/"), 4);
}

#[test]
fn another_run_goes_on_where_the_last_one_stopped() {
    let server = server();
    let dir = tempfile::tempdir().unwrap();
    let hub = common::hub(&server, |s| {
        s.cache = dir.path().join("hub");
        s.retry.attempts = 1;
    });
    server.state().fault(Fault::once("/blobs/", What::DropAfter(1_000_000)));
    let e = fetch(&hub, "org/tiny").unwrap_err();
    assert!(e.is_transient(), "{e:?}");
    assert!(e.hint_text().unwrap().contains("kept"), "{e:?}");
    let blobs = dir.path().join("hub/models--org--tiny/blobs");
    let unfinished: Vec<String> = tree(&blobs).into_iter().filter(|n| n.ends_with(".incomplete")).collect();
    // Small files may have been on their way, too.
    let lengths: Vec<u64> = unfinished.iter().map(|n| fs::metadata(blobs.join(n)).unwrap().len()).collect();
    assert_eq!(lengths.iter().filter(|n| **n == 1_000_000).count(), 1, "{lengths:?}");
    server.state().clear_log();
    let found = fetch(&hub, "org/tiny").unwrap();
    assert_eq!(server.state().sent("/blobs/"), (BIG - 1_000_000) as u64);
    assert_eq!(fs::read(found.folder.join("model.safetensors")).unwrap(), bytes(BIG));
    assert!(tree(&blobs).iter().all(|n| !n.contains("incomplete")));
}

#[test]
fn large_files_come_by_several_connections_and_resume() {
    let server = Server::start();
    server.state().add(Repo::new("org/one").lfs("m.gguf", &bytes(BIG)));
    let dir = tempfile::tempdir().unwrap();
    let hub = |attempts| {
        common::hub(&server, |s| {
            s.cache = dir.path().join("hub");
            (s.jobs, s.range_bytes, s.retry.attempts) = (3, 256 << 10, attempts);
        })
    };
    server.state().fault(Fault::once("/blobs/", What::DropAfter(100_000)).after(7));
    let e = fetch(&hub(1), "org/one").unwrap_err();
    assert!(e.is_transient(), "{e:?}");
    let before = server.state().sent("/blobs/");
    assert!(before < BIG as u64);
    let found = fetch(&hub(2), "org/one").unwrap();
    assert_eq!(fs::read(found.folder.join("m.gguf")).unwrap(), bytes(BIG));
    // What other connections had sent when the first one broke may not have been taken any more.
    let twice = server.state().sent("/blobs/") - BIG as u64;
    assert!(twice <= 3 * (256 << 10), "{twice} bytes came twice");
    assert_eq!(tree(&dir.path().join("hub/models--org--one/blobs")).len(), 1);
}

#[test]
fn wrong_bytes_never_get_a_name() {
    let server = server();
    let dir = tempfile::tempdir().unwrap();
    let hub = cache_of(&server, dir.path());
    // Once: fetched again.
    server.state().fault(Fault::once("/blobs/", What::Corrupt));
    let found = fetch(&hub, "org/tiny").unwrap();
    assert_eq!(fs::read(found.folder.join("model.safetensors")).unwrap(), bytes(BIG));
    // Always: an error with both hashes, and nothing kept; for what Git hashes, too.
    for (path, file, kind) in
        [("/blobs/", "model.safetensors", "SHA-256"), ("config.json", "config.json", "Git blob hash")]
    {
        let dir = tempfile::tempdir().unwrap();
        let hub = cache_of(&server, dir.path());
        server.state().faults().clear();
        server.state().fault(Fault::always(path, What::Corrupt).method("GET"));
        let snapshot = hub.model(&address("org/tiny")).unwrap();
        let e = hub.fetch(&snapshot, &[file], &Silent).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Mismatch, "{e:?}");
        assert!(e.message().contains(kind) && e.file_name().unwrap().starts_with("hf://org/tiny@"), "{e}");
        let blobs = tree(&dir.path().join("hub/models--org--tiny/blobs"));
        assert!(blobs.is_empty(), "{blobs:?}");
    }
    // What an earlier run left may be wrong, too.
    let dir = tempfile::tempdir().unwrap();
    server.state().faults().clear();
    let hub = cache_of(&server, dir.path());
    let snapshot = hub.model(&address("org/tiny")).unwrap();
    let blobs = dir.path().join("hub/models--org--tiny/blobs");
    fs::create_dir_all(&blobs).unwrap();
    let name = format!("{}.incomplete", snapshot.file("model.safetensors").unwrap().etag());
    fs::write(blobs.join(name), vec![7; 5000]).unwrap();
    let found = hub.fetch(&snapshot, &["model.safetensors"], &Silent).unwrap();
    assert_eq!(fs::read(found.folder.join("model.safetensors")).unwrap(), bytes(BIG));
}

#[test]
fn a_server_that_ignores_ranges_is_asked_for_everything() {
    let server = server();
    let dir = tempfile::tempdir().unwrap();
    let hub = common::hub(&server, |s| {
        s.cache = dir.path().join("hub");
        s.retry.attempts = 1;
    });
    server.state().fault(Fault::once("/blobs/", What::DropAfter(100_000)));
    fetch(&hub, "org/tiny").unwrap_err();
    server.state().fault(Fault::always("/blobs/", What::IgnoreRange));
    let found = fetch(&hub, "org/tiny").unwrap();
    assert_eq!(fs::read(found.folder.join("model.safetensors")).unwrap(), bytes(BIG));
}

#[test]
fn a_connection_that_stands_still_is_given_up_and_continued() {
    let server = server();
    let dir = tempfile::tempdir().unwrap();
    let hub = common::hub(&server, |s| {
        s.cache = dir.path().join("hub");
        s.stall_timeout = Duration::from_millis(100);
    });
    server.state().fault(Fault::once("/blobs/", What::Stall(50_000, Duration::from_millis(400))));
    server.state().fault(Fault::once("/blobs/", What::Slow(1 << 20, Duration::from_millis(5))));
    let found = fetch(&hub, "org/tiny").unwrap();
    assert_eq!(fs::read(found.folder.join("model.safetensors")).unwrap(), bytes(BIG));
    assert_eq!(server.state().sent("/blobs/"), BIG as u64);
}

#[test]
fn many_at_once_fetch_every_byte_once() {
    let server = server();
    let dir = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        for _ in 0..6 {
            // Each with locks of its own, as processes have them.
            scope.spawn(|| {
                let found = fetch(&cache_of(&server, dir.path()), "org/tiny").unwrap();
                assert_eq!(fs::read(found.folder.join("model.safetensors")).unwrap(), bytes(BIG));
            });
        }
    });
    assert_eq!(server.state().sent("/blobs/"), BIG as u64);
}

#[test]
fn without_symbolic_links_there_are_files() {
    let server = server();
    let dir = tempfile::tempdir().unwrap();
    let hub = common::hub(&server, |s| {
        s.cache = dir.path().join("hub");
        s.symlinks = false;
    });
    let found = fetch(&hub, "org/tiny").unwrap();
    let file = found.folder.join("model.safetensors");
    assert!(!file.is_symlink());
    assert_eq!(fs::read(file).unwrap(), bytes(BIG));
}

#[test]
fn offline_the_cache_is_enough_or_says_what_it_lacks() {
    let server = server();
    let dir = tempfile::tempdir().unwrap();
    let online = cache_of(&server, dir.path());
    let snapshot = online.model(&address("org/tiny")).unwrap();
    online.fetch(&snapshot, &["config.json"], &Silent).unwrap();
    server.state().clear_log();
    let offline = common::hub(&server, |s| {
        s.cache = dir.path().join("hub");
        s.offline = true;
    });
    let found = offline.model(&address("org/tiny")).unwrap();
    assert_eq!((found.commit.as_ref(), found.files.len()), (snapshot.commit.as_ref(), 4));
    assert!(!found.is_remote());
    let folder = offline.fetch(&found, &["config.json"], &Silent).unwrap().folder;
    assert!(folder.join("config.json").is_file());
    let e = offline.fetch(&found, &["config.json", "model.safetensors"], &Silent).unwrap_err();
    assert!(e.message().contains("model.safetensors") && e.message().starts_with("1 of"), "{e}");
    assert!(e.hint_text().unwrap().contains("tensormill pull org/tiny@"));
    for (what, said) in [("org/tiny@v1", "\"v1\""), ("org/other", "nothing of this repository")] {
        let e = offline.model(&address(what)).unwrap_err();
        assert!(e.message().contains(said) && e.kind() == ErrorKind::Usage, "{e}");
    }
    let short = &snapshot.commit.as_ref().unwrap()[..8];
    assert!(offline.model(&address(&format!("org/tiny@{short}"))).is_ok());
    let e = offline.search(&tensormill_hub::Query { limit: 1, ..Default::default() }).unwrap_err();
    assert!(e.hint_text().unwrap().contains("--offline"), "{e:?}");
    assert!(server.state().log().is_empty(), "not one request");
}

#[test]
fn a_folder_is_a_mirror() {
    let server = server();
    let dir = tempfile::tempdir().unwrap();
    let commit = {
        let hub = cache_of(&server, dir.path());
        fetch(&hub, "org/tiny").unwrap();
        hub.model(&address("org/tiny")).unwrap().commit.unwrap()
    };
    let at = |folder: PathBuf| {
        Hub::new(Settings { endpoint: Endpoint::Mirror(folder), ..Settings::default() }).unwrap()
    };
    // A cache as it is.
    let hub = at(dir.path().join("hub"));
    assert_eq!(hub.model(&address("org/tiny")).unwrap().commit.as_deref(), Some(&*commit));
    // A folder of files, which says no commit.
    let plain = dir.path().join("mirror/org/tiny");
    fs::create_dir_all(plain.join(".git/refs/heads")).unwrap();
    fs::write(plain.join("config.json"), "{}").unwrap();
    let hub = at(dir.path().join("mirror"));
    let found = hub.model(&address("org/tiny")).unwrap();
    assert_eq!((found.commit.clone(), found.files.len()), (None, 1));
    assert_eq!(hub.fetch(&found, &["config.json"], &Silent).unwrap().folder, plain);
    assert!(hub.model(&address(&format!("org/tiny@{commit}"))).is_err());
    // A clone does.
    fs::write(plain.join(".git/HEAD"), "ref: refs/heads/main\n").unwrap();
    fs::write(plain.join(".git/refs/heads/main"), format!("{commit}\n")).unwrap();
    let found = hub.model(&address(&format!("org/tiny@{commit}"))).unwrap();
    assert_eq!(found.commit.as_deref(), Some(&*commit));
    assert!(hub.model(&address("org/none")).unwrap_err().message().contains("mirror"));
    assert!(hub.search(&tensormill_hub::Query::default()).is_err());
}

#[test]
fn gates_say_where_to_accept_the_terms() {
    let server = Server::start();
    server.state().add(Repo::new("meta/llama").file("config.json", b"{}").gated("manual"));
    server.state().user("hf_new", User { name: "ann".into(), ..User::default() });
    server.state().user(
        "hf_in",
        User { name: "bob".into(), accepted: ["meta/llama".to_owned()].into(), ..User::default() },
    );
    let dir = tempfile::tempdir().unwrap();
    let with = |t: &str| {
        common::hub(&server, |s| {
            s.cache = dir.path().join("hub");
            s.token = token(t);
        })
    };
    for (t, login) in [("", true), ("hf_new", false)] {
        let e = fetch(&with(t), "meta/llama").unwrap_err();
        let hint = e.hint_text().unwrap();
        assert!(e.message().contains("gated"), "{e}");
        assert!(hint.contains(&format!("{}/meta/llama", server.url())), "{hint}");
        assert_eq!(hint.contains("HF_TOKEN"), login, "{hint}");
        assert_eq!(e.kind(), ErrorKind::Io);
        assert!(!e.is_transient());
    }
    fetch(&with("hf_in"), "meta/llama").unwrap();
}

#[test]
fn the_token_reaches_the_hub_and_nobody_else() {
    let server = server();
    let secret = "hf_PlantedSecretToken";
    server.state().user(secret, User { name: "org".into(), ..User::default() });
    let dir = tempfile::tempdir().unwrap();
    let hub = common::hub(&server, |s| {
        s.cache = dir.path().join("hub");
        s.token = token(secret);
    });
    fetch(&hub, "org/tiny").unwrap();
    let log = server.state().log();
    let carried = |side| {
        log.iter().filter(|r| r.side == side).map(|r| r.header("authorization").is_some()).collect::<Vec<_>>()
    };
    assert!(!carried(Side::Hub).is_empty() && carried(Side::Hub).iter().all(|&c| c));
    assert!(!carried(Side::Cdn).is_empty() && carried(Side::Cdn).iter().all(|&c| !c));
    // A server that repeats it gets it out of the message.
    let echo = format!("bad token {secret}");
    for status in [401, 403, 418, 429] {
        server.state().fault(Fault::once(
            "/revision/",
            What::Answer(status, vec![("x-error-message".into(), echo.clone())], echo.clone()),
        ));
        server
            .state()
            .fault(Fault::times(Fault::once("/revision/", What::Answer(status, vec![], echo.clone())), 9));
        let e = hub.model(&address("org/tiny")).unwrap_err();
        let all = format!("{e} {e:?} {:?} {hub:?}", e.hint_text());
        assert!(!all.contains(secret), "{all}");
        server.state().faults().clear();
    }
    for file in tree(dir.path()) {
        let bytes = fs::read(dir.path().join(&file)).unwrap();
        assert!(!bytes.windows(secret.len()).any(|w| w == secret.as_bytes()), "{file}");
    }
}

#[test]
fn names_that_lead_out_of_the_cache_are_refused() {
    for bad in ["../../evil", "/etc/evil", "a/../../b", "a//b", "a\\..\\b"] {
        let server = Server::start();
        server.state().add(Repo::new("org/evil").file(bad, b"x"));
        let dir = tempfile::tempdir().unwrap();
        let e = fetch(&cache_of(&server, dir.path()), "org/evil").unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Malformed, "{bad}: {e}");
        assert!(tree(dir.path()).is_empty());
    }
}

#[test]
fn a_file_that_changes_under_its_commit_is_an_error() {
    let server = server();
    let dir = tempfile::tempdir().unwrap();
    let hub = cache_of(&server, dir.path());
    let snapshot = hub.model(&address("org/tiny")).unwrap();
    let other = "0".repeat(64);
    server.state().fault(Fault::always(
        "model.safetensors",
        What::Header("x-linked-etag".into(), format!("\"{other}\"")),
    ));
    let e = hub.fetch(&snapshot, &["model.safetensors"], &Silent).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Mismatch);
    assert!(e.message().contains(&other), "{e}");
}

#[derive(Default)]
struct Watch {
    begun: Mutex<Option<(usize, u64, u64)>>,
    arrived: AtomicU64,
    stop_at: u64,
    done: AtomicU64,
}

impl Progress for Watch {
    fn begin(&self, files: usize, bytes: u64, there: u64) {
        *self.begun.lock().unwrap() = Some((files, bytes, there));
    }
    fn arrived(&self, _: &str, bytes: u64) {
        self.arrived.fetch_add(bytes, Ordering::Relaxed);
    }
    fn lost(&self, _: &str, bytes: u64) {
        self.arrived.fetch_sub(bytes, Ordering::Relaxed);
    }
    fn done(&self, _: &str) {
        self.done.fetch_add(1, Ordering::Relaxed);
    }
    fn cancelled(&self) -> bool {
        self.stop_at > 0 && self.arrived.load(Ordering::Relaxed) >= self.stop_at
    }
}

#[test]
fn whoever_watches_sees_every_byte_and_may_stop() {
    let server = server();
    let dir = tempfile::tempdir().unwrap();
    let hub = cache_of(&server, dir.path());
    let watch = Watch { stop_at: 1 << 20, ..Watch::default() };
    let e = fetch_with(&hub, "org/tiny", &watch).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Cancelled);
    let watch = Watch::default();
    server.state().fault(Fault::once("/blobs/", What::Corrupt));
    let found = fetch_with(&hub, "org/tiny", &watch).unwrap();
    let (files, bytes, there) = watch.begun.lock().unwrap().unwrap();
    assert_eq!((files, bytes), (found.fetched, found.bytes));
    assert_eq!(watch.arrived.load(Ordering::Relaxed), bytes - there);
    assert_eq!(watch.done.load(Ordering::Relaxed), found.fetched as u64);
    // Where nothing is missing nothing begins, and where something is, that alone is counted.
    let watch = Watch::default();
    fetch_with(&hub, "org/tiny", &watch).unwrap();
    assert_eq!(*watch.begun.lock().unwrap(), None);
    let config = found.folder.join("config.json");
    let size = fs::read(&config).unwrap().len() as u64;
    fs::remove_file(&config).unwrap();
    fetch_with(&hub, "org/tiny", &watch).unwrap();
    assert_eq!(*watch.begun.lock().unwrap(), Some((1, found.bytes, found.bytes - size)));
}

#[test]
fn a_disk_without_room_is_known_before_the_first_byte() {
    let server = server();
    let dir = tempfile::tempdir().unwrap();
    let hub = cache_of(&server, dir.path());
    let mut snapshot = hub.model(&address("org/tiny")).unwrap();
    let i = snapshot.files.iter().position(|f| f.path == "model.safetensors").unwrap();
    snapshot.files[i].size = 1 << 60;
    server.state().clear_log();
    let e = hub.fetch(&snapshot, &["model.safetensors"], &Silent).unwrap_err();
    assert!(e.message().contains(&(1u64 << 60).to_string()), "{e}");
    assert!(e.hint_text().unwrap().contains("HF_HUB_CACHE"));
    assert!(server.state().log().is_empty());
}

#[test]
fn only_what_a_job_needs_is_fetched() {
    let server = Server::start();
    server.state().add(
        Repo::new("org/m")
            .file("config.json", b"{}")
            .lfs("model.safetensors", b"a")
            .lfs("pytorch_model.bin", b"b")
            .lfs("original/consolidated.00.pth", b"c"),
    );
    let dir = tempfile::tempdir().unwrap();
    let hub = cache_of(&server, dir.path());
    let snapshot = hub.model(&address("org/m")).unwrap();
    let files = wanted(&snapshot, None, Need::Weights, &[], &[]).unwrap();
    let found = hub.fetch(&snapshot, &files, &Silent).unwrap();
    assert_eq!(tree(&found.folder), ["config.json", "model.safetensors"]);
}
