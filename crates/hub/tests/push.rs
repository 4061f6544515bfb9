//! Publishing to a real server: what arrives there, what is not sent twice, and what happens when things go wrong.

mod common;

use std::{
    cell::RefCell,
    fs,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};
use tensormill_hub::{
    Hub,
    push::{self, Known, Mode, Patterns, PushReport, Request, State, Target, Visibility, Watch},
};
use tensormill_hub_server::{Fault, Repo, Server, Side, User, What};
use tensormill_model::{Error, ErrorKind, Result};

const TOKEN: &str = "hf_theTokenOfTheTests";

struct Place {
    server: Server,
    hub: Hub,
    folder: tempfile::TempDir,
}

/// A server where `me` of `org` may write, and a folder with a small and two large files.
fn place() -> Place {
    let server = Server::start();
    let user = User { name: "me".into(), orgs: vec!["org".into()], writes: true, ..User::default() };
    server.state().user(TOKEN, user);
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in
        [("README.md", vec![b'#'; 100]), ("a.gguf", noise(1, 200_000)), ("sub/b.gguf", noise(2, 70_001))]
    {
        write(folder.path(), name, &bytes);
    }
    Place { hub: hub(&server, TOKEN), server, folder }
}

fn hub(server: &Server, token: &str) -> Hub {
    common::hub(server, |s| s.token = common::token(token))
}

fn write(folder: &Path, name: &str, bytes: &[u8]) {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut x = seed;
    let next = || {
        x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (x >> 56) as u8
    };
    std::iter::repeat_with(next).take(len).collect()
}

fn request(folder: &Path) -> Request {
    common::whole(folder, "org/model")
}

impl Place {
    fn request(&self) -> Request {
        request(self.folder.path())
    }
    fn push(&self, request: Request) -> Result<PushReport> {
        self.push_with(request, &(), &AtomicBool::new(false))
    }
    fn push_with(&self, request: Request, watch: &dyn Watch, cancel: &AtomicBool) -> Result<PushReport> {
        push::plan(&self.hub, request, watch, cancel)?.run(watch, cancel, 3)
    }
    fn repo(&self) -> Repo {
        self.server.state().repos()["org/model"].clone()
    }
    /// Every file of the folder stands in the branch as it is on disk.
    fn check(&self, branch: &str) {
        let repo = self.repo();
        let commit = repo.resolve(branch).unwrap();
        for item in push::list(self.folder.path(), &Patterns::default()).unwrap().items {
            let there = commit.files[&item.name].content.bytes().unwrap();
            assert!(there == fs::read(&item.path).unwrap(), "{} differs", item.name);
        }
    }
    fn puts(&self) -> usize {
        let log = self.server.state().log();
        log.iter().filter(|s| s.side == Side::Cdn && s.method == "PUT" && s.status == 200).count()
    }
    fn commits(&self) -> usize {
        self.server.state().log().iter().filter(|s| s.path.contains("/commit/") && s.status == 200).count()
    }
}

/// Counts bytes of the last phase, and does something when a phase begins.
struct Watcher<'a> {
    phase: Mutex<&'static str>,
    done: AtomicU64,
    total: AtomicU64,
    began: &'a (dyn Fn(&str) + Sync),
}

impl<'a> Watcher<'a> {
    fn new(began: &'a (dyn Fn(&str) + Sync)) -> Self {
        Self { phase: Mutex::new(""), done: AtomicU64::new(0), total: AtomicU64::new(0), began }
    }
}

impl Watch for Watcher<'_> {
    fn phase(&self, name: &'static str, bytes: u64) {
        *self.phase.lock().unwrap() = name;
        self.total.store(bytes, Relaxed);
        self.done.store(0, Relaxed);
        (self.began)(name);
    }
    fn advanced(&self, bytes: u64) {
        self.done.fetch_add(bytes, Relaxed);
    }
    fn note(&self, _: &str) {}
}

#[test]
fn a_folder_becomes_a_private_repository_with_the_same_bytes() {
    let place = place();
    let watcher = Watcher::new(&|_| ());
    let request = Request { tag: Some("v1".into()), ..place.request() };
    let report = place.push_with(request, &watcher, &AtomicBool::new(false)).unwrap();
    place.check("main");
    place.check("v1");
    let repo = place.repo();
    assert!(repo.private && report.created && report.visibility == Visibility::Private);
    let [branch] = &report.branches[..] else { panic!("one branch") };
    assert_eq!(branch.head.as_deref(), Some(&*repo.head().sha));
    assert_eq!((branch.commits.len(), branch.verified, place.puts()), (1, 3, 2));
    let modes: Vec<(&str, Mode)> = branch.files.iter().map(|f| (&*f.name, f.mode)).collect();
    // The card comes last: it speaks of the others.
    assert_eq!(modes, [("a.gguf", Mode::Lfs), ("sub/b.gguf", Mode::Lfs), ("README.md", Mode::Regular)]);
    assert_eq!(report.bytes_uploaded, 270_001);
    assert_eq!(repo.head().title, "Upload");
    // All bytes of the folder were heard of, each once.
    let (done, total) = (watcher.done.into_inner(), watcher.total.into_inner());
    assert_eq!((done, total), (270_101, 270_101));
    // The token went to the Hub and to no storage; the server refuses such uploads.
    let log = place.server.state().log();
    assert!(log.iter().all(|s| s.side == Side::Hub || s.header("authorization").is_none()));
}

#[test]
fn what_is_there_is_not_sent_again() {
    let place = place();
    place.push(place.request()).unwrap();
    let (puts, commits) = (place.puts(), place.commits());
    let report = place.push(place.request()).unwrap();
    assert_eq!((place.puts(), place.commits()), (puts, commits));
    assert!(report.branches[0].files.iter().all(|f| f.state == State::Same));
    assert_eq!((report.bytes, report.bytes_same, report.branches[0].verified), (0, 270_101, 3));
    // Of what changed, only that; what storage has under another name is not sent either.
    write(place.folder.path(), "README.md", b"changed");
    fs::copy(place.folder.path().join("a.gguf"), place.folder.path().join("c.gguf")).unwrap();
    let report = place.push(place.request()).unwrap();
    assert_eq!((place.puts(), place.commits()), (puts, commits + 1));
    assert_eq!(report.bytes_uploaded, 0);
    let copy = report.branches[0].files.iter().find(|f| f.name == "c.gguf").unwrap();
    assert_eq!((copy.state, copy.stored_already), (State::Send, Some(true)));
    place.check("main");
}

#[test]
fn hashes_that_are_trusted_need_no_reading_and_others_are_held_against_the_file() {
    let place = place();
    place.push(place.request()).unwrap();
    let sha256 = place.repo().head().files["a.gguf"].sha256.clone().unwrap();
    let known = |sha256: &str, trusted| {
        let mut request = place.request();
        let item = request.targets[0].items.iter_mut().find(|i| i.name == "a.gguf").unwrap();
        item.known = Some(Known { sha256: sha256.to_owned(), trusted });
        request
    };
    let watcher = Watcher::new(&|_| ());
    let report = place.push_with(known(&sha256, true), &watcher, &AtomicBool::new(false)).unwrap();
    assert!(report.branches[0].files.iter().all(|f| f.state == State::Same));
    // The other two: a small one, and a large one that nobody vouched for.
    assert_eq!(watcher.done.into_inner(), 70_101);
    // A manifest that is not about this file.
    let e = place.push(known(&"0".repeat(64), false)).unwrap_err();
    assert_eq!((e.kind(), e.file_name()), (ErrorKind::Failed, Some("a.gguf")));
    assert!(e.message().contains("manifest"), "{e}");
}

#[test]
fn planning_writes_nothing() {
    let place = place();
    let planned = push::plan(&place.hub, place.request(), &(), &AtomicBool::new(false)).unwrap();
    let report = planned.report();
    assert!(report.dry_run && report.created && place.server.state().repos().is_empty());
    assert_eq!(report.branches[0].files.len(), 3);
    place.push(place.request()).unwrap();
    write(place.folder.path(), "new.json", b"{}");
    let before = place.repo().commits.len();
    let planned = push::plan(&place.hub, place.request(), &(), &AtomicBool::new(false)).unwrap();
    let report = planned.report();
    let sent: Vec<&str> = report.branches[0].sent().map(|f| &*f.name).collect();
    assert_eq!((sent, place.repo().commits.len()), (vec!["new.json"], before));
}

#[test]
fn tokens_repositories_and_messages() {
    let place = place();
    let refused = |hub: &Hub, request: Request| {
        push::plan(hub, request, &(), &AtomicBool::new(false)).map(|p| p.report()).unwrap_err()
    };
    let e = refused(&hub(&place.server, ""), place.request());
    assert!(e.message().contains("needs an access token"), "{e}");
    let e = refused(&hub(&place.server, "hf_unknownUnknown"), place.request());
    assert!(e.message().contains("does not know this access token"), "{e}");
    place.server.state().user("hf_readsOnly", User { name: "me".into(), ..User::default() });
    let e = refused(&hub(&place.server, "hf_readsOnly"), place.request());
    assert!(e.message().contains("only read") && e.hint_text().unwrap().contains("settings/tokens"), "{e}");
    let e = refused(&place.hub, Request { create: false, ..place.request() });
    assert!(e.hint_text().unwrap().contains("--create"), "{e}");
    let e = place.push(Request { repo: "else/model".into(), ..place.request() }).unwrap_err();
    assert!(e.hint_text().unwrap().contains("repositories of else"), "{e} {:?}", e.hint_text());
    for (n, wrong) in [
        Request { repo: "model".into(), ..place.request() },
        Request { message: " ".into(), ..place.request() },
        Request { pull_request: true, tag: Some("v1".into()), ..place.request() },
        Request {
            targets: vec![Target { branch: "main".into(), items: vec![], delete: None }],
            ..place.request()
        },
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!(refused(&place.hub, wrong).kind(), ErrorKind::Usage, "{n}");
    }
    assert_eq!(place.puts(), 0);
}

#[test]
fn who_sees_it_is_changed_where_that_is_asked() {
    let place = place();
    place.server.state().add(Repo::new("org/model").file("x", b"x"));
    let report = place.push(place.request()).unwrap();
    assert_eq!(
        (report.visibility, report.visibility_changed, place.repo().private),
        (Visibility::Public, false, false)
    );
    let request = Request { visibility: Some(Visibility::Private), ..place.request() };
    assert!(place.push(request).unwrap().visibility_changed && place.repo().private);
    let request =
        Request { visibility: Some(Visibility::Public), repo: "org/other".into(), ..place.request() };
    place.push(request).unwrap();
    assert!(!place.server.state().repos()["org/other"].private);
}

#[test]
fn large_files_go_in_parts_where_the_server_wants_that() {
    let place = place();
    place.server.state().writing().part_bytes = Some(64 << 10);
    place.server.state().fault(Fault::once("/uploads/", What::Drop).side(Side::Cdn).after(2));
    place.push(place.request()).unwrap();
    place.check("main");
    // Four parts and two.
    assert_eq!(place.puts(), 6);
}

#[test]
fn busy_servers_and_broken_connections_are_tried_again() {
    let place = place();
    let answer = |status, headers: &[(&str, &str)]| {
        let own = headers.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        What::Answer(status, own, "later".into())
    };
    for fault in [
        Fault::once("/uploads/", What::Drop).method("PUT"),
        Fault::once("/uploads/", answer(500, &[])).after(1),
        Fault::once("objects/batch", answer(429, &[("retry-after", "7")])),
        Fault::once("preupload", answer(503, &[])),
        Fault::once("objects/verify", answer(502, &[])),
        Fault::once("/commit/", answer(500, &[])),
        Fault::once("/commit/", answer(429, &[("retry-after", "3")])),
        Fault::once("/commit/", What::Drop),
    ] {
        place.server.state().fault(fault);
    }
    let report = place.push(place.request()).unwrap();
    place.check("main");
    assert_eq!(report.branches[0].commits.len(), 1);
    assert!(place.server.state().faults().iter().all(|f| f.times == 0), "all of them happened");
}

#[test]
fn a_commit_whose_answer_is_lost_is_not_made_twice() {
    let place = place();
    place.push(place.request()).unwrap();
    let before = place.repo().commits.len();
    write(place.folder.path(), "README.md", b"second");
    // The work is done, the answer breaks off.
    place.server.state().fault(Fault::once("/commit/", What::DropAfter(0)));
    let report = place.push(place.request()).unwrap();
    assert_eq!(place.repo().commits.len(), before + 1);
    assert_eq!(report.branches[0].commits[0].oid, place.repo().head().sha);
    place.check("main");
}

#[test]
fn somebody_elses_commit_is_never_overwritten() {
    let place = place();
    place.push(place.request()).unwrap();
    write(place.folder.path(), "README.md", b"ours");
    let state = Arc::clone(place.server.state());
    let began = move |name: &str| {
        if name == "uploading" {
            let mut repos = state.repos();
            let theirs = tensormill_hub_server::File::plain(tensormill_hub_server::Content::Memory(
                Arc::new(b"theirs".to_vec()),
            ));
            let theirs = theirs.unwrap();
            repos
                .get_mut("org/model")
                .unwrap()
                .commit("main", "theirs", |f| drop(f.insert("NOTES.md".into(), theirs)));
        }
    };
    let e = place.push_with(place.request(), &Watcher::new(&began), &AtomicBool::new(false)).unwrap_err();
    assert!(e.is_transient() && e.message().contains("somebody else"), "{e}");
    assert_eq!(place.repo().head().title, "theirs");
    // Running it again puts ours on top of theirs.
    place.push(place.request()).unwrap();
    place.check("main");
    assert!(place.repo().head().files.contains_key("NOTES.md"));
}

#[test]
fn bytes_that_arrive_damaged_are_not_published() {
    let place = place();
    place.server.state().writing().damage = true;
    let e = place.push(place.request()).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Failed, "{e}");
    assert!(place.repo().head().files.keys().all(|f| f == ".gitattributes"));
    // So are files that change under way: this one, of which storage has nothing yet.
    write(place.folder.path(), "a.gguf", &noise(8, 200_000));
    let path = place.folder.path().join("a.gguf");
    let began = |name: &str| {
        if name == "uploading" {
            fs::write(&path, noise(9, 200_000)).unwrap();
        }
    };
    let e = place.push_with(place.request(), &Watcher::new(&began), &AtomicBool::new(false)).unwrap_err();
    assert_eq!((e.kind(), e.file_name()), (ErrorKind::Failed, Some("a.gguf")));
    let began = |name: &str| {
        if name == "uploading" {
            write(place.folder.path(), "README.md", b"shorter");
        }
    };
    let e = place.push_with(place.request(), &Watcher::new(&began), &AtomicBool::new(false)).unwrap_err();
    assert_eq!((e.kind(), e.file_name()), (ErrorKind::Mismatch, Some("README.md")));
    place.push(place.request()).unwrap();
    place.check("main");
}

/// Stops a run when the first object is on its way.
struct Stop<'a>(&'a AtomicBool, AtomicBool);
impl Watch for Stop<'_> {
    fn phase(&self, name: &'static str, _: u64) {
        self.1.store(name == "uploading", Relaxed);
    }
    fn advanced(&self, _: u64) {
        self.0.store(self.1.load(Relaxed), Relaxed);
    }
    fn note(&self, _: &str) {}
}

#[test]
fn a_run_that_is_stopped_is_continued() {
    let place = place();
    let cancel = AtomicBool::new(false);
    let stop = Stop(&cancel, AtomicBool::new(false));
    let e = place.push_with(place.request(), &stop, &cancel).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Cancelled);
    assert_eq!(place.commits(), 0);
    // A run that died after an upload and before its commit.
    let fault = Fault::always("/commit/", What::Answer(403, vec![], "no".into()));
    place.server.state().fault(fault);
    assert!(place.push(place.request()).is_err());
    place.server.state().faults().clear();
    let puts = place.puts();
    let report = place.push(place.request()).unwrap();
    assert_eq!((place.puts(), report.bytes_uploaded), (puts, 0));
    place.check("main");
}

#[test]
fn addresses_that_ran_out_are_asked_for_again() {
    let place = place();
    let refused = What::Answer(403, vec![], "Request has expired".into());
    place.server.state().fault(Fault::once("/uploads/", refused).times(2));
    place.push(place.request()).unwrap();
    place.check("main");
    assert!(place.server.state().count("objects/batch") > 1);
    // But not for ever.
    write(place.folder.path(), "a.gguf", &noise(5, 1000));
    place.server.state().writing().expired = 100;
    let refused = What::Answer(403, vec![], "no".into());
    place.server.state().fault(Fault::always("/uploads/", refused));
    assert_eq!(place.push(place.request()).unwrap_err().file_name(), Some("org/model/a.gguf"));
}

#[test]
fn a_server_that_only_speaks_xet_is_named() {
    let place = place();
    place.server.state().writing().xet_only = true;
    let e = place.push(place.request()).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Unsupported);
    assert!(e.hint_text().unwrap().contains("hf upload"), "{e}");
}

#[test]
fn many_files_go_in_several_commits_which_shrink_where_the_server_fails() {
    let place = place();
    for i in 0..600 {
        write(place.folder.path(), &format!("many/{i:03}.txt"), format!("{i}").as_bytes());
    }
    *place.server.state().page.lock().unwrap() = Some(100);
    let too_large = What::Answer(413, vec![], "too large".into());
    place.server.state().fault(Fault::once("/commit/", too_large));
    let notes = Notes(RefCell::default().into());
    let planned = push::plan(&place.hub, place.request(), &(), &AtomicBool::new(false)).unwrap();
    let report = planned.run(&notes, &AtomicBool::new(false), 2).unwrap();
    place.check("main");
    let commits = &report.branches[0].commits;
    // 250 were too many; then 125, and twice as many after each that went well.
    let files: Vec<usize> = commits.iter().map(|c| c.files).collect();
    assert_eq!(files, [125, 250, 228]);
    assert_eq!(commits[2].message, "Upload (part 3)");
    assert!(notes.0.lock().unwrap().borrow()[0].contains("fewer"));
    // Interrupted in between, what is committed is known from the tree.
    for i in 600..900 {
        write(place.folder.path(), &format!("many/{i:03}.txt"), format!("{i}").as_bytes());
    }
    let refused = What::Answer(403, vec![], "no".into());
    place.server.state().fault(Fault::always("/commit/", refused).after(1));
    assert!(place.push(place.request()).is_err());
    place.server.state().faults().clear();
    let report = place.push(place.request()).unwrap();
    assert_eq!(report.branches[0].commits.iter().map(|c| c.files).sum::<usize>(), 50);
    place.check("main");
}

struct Notes(Mutex<RefCell<Vec<String>>>);

impl Watch for Notes {
    fn phase(&self, _: &'static str, _: u64) {}
    fn advanced(&self, _: u64) {}
    fn note(&self, text: &str) {
        self.0.lock().unwrap().borrow_mut().push(text.to_owned());
    }
}

#[test]
fn branches_tags_deletions_and_pull_requests() {
    let place = place();
    place.push(place.request()).unwrap();
    let main = place.repo().head().sha.clone();
    // A branch that is not there begins at main.
    write(place.folder.path(), "README.md", b"on a branch");
    let mut request = place.request();
    request.targets[0].branch = "next/one".into();
    request.targets[0].delete = Some(Patterns::new(&["sub/".into()], &[]));
    request.targets[0].items.retain(|i| i.name != "sub/b.gguf");
    let report = place.push(request).unwrap();
    assert!(report.branches[0].new && report.branches[0].parent.as_deref() == Some(&*main));
    assert_eq!(report.branches[0].deleted, ["sub/b.gguf"]);
    let repo = place.repo();
    let names: Vec<&String> = repo.resolve("next/one").unwrap().files.keys().collect();
    assert_eq!(names, [".gitattributes", "README.md", "a.gguf"]);
    assert_eq!(repo.head().sha, main);
    // A pull request changes neither.
    let report = place.push(Request { pull_request: true, ..place.request() }).unwrap();
    assert_eq!((report.pull_request, &*report.branches[0].revision), (Some(1), "refs/pr/1"));
    assert_eq!(place.repo().head().sha, main);
    place.check("refs/pr/1");
    // One that was interrupted goes on under its number.
    write(place.folder.path(), "README.md", b"for the second one");
    let refused = What::Answer(403, vec![], "no".into());
    place.server.state().fault(Fault::once("/commit/", refused));
    let e = place.push(Request { pull_request: true, ..place.request() }).unwrap_err();
    assert!(e.hint_text().unwrap().contains("refs/pr/2"), "{:?}", e.hint_text());
    let mut request = place.request();
    request.targets[0].branch = "refs/pr/2".into();
    place.push(request).unwrap();
    place.check("refs/pr/2");
    assert_eq!(place.repo().head().sha, main);
    // Tags stay where they are.
    let tagged = || Request { tag: Some("v1".into()), ..place.request() };
    place.push(tagged()).unwrap();
    place.push(tagged()).unwrap();
    write(place.folder.path(), "README.md", b"later");
    let puts = place.server.state().log().len();
    let e: Error = place.push(tagged()).unwrap_err();
    assert!(e.message().contains("v1") && e.kind() == ErrorKind::Usage, "{e}");
    let later = place.server.state().log();
    assert!(later[puts..].iter().all(|s| s.method == "GET" || s.path.contains("preupload")), "known before");
}

#[test]
fn what_gitignore_names_and_files_without_bytes() {
    let place = place();
    place.server.state().add(Repo::new("org/model").file(".gitignore", b"*.log\n"));
    write(place.folder.path(), "run.log", b"not this");
    write(place.folder.path(), "empty.gguf", b"");
    let report = place.push(place.request()).unwrap();
    let of = |name: &str| report.branches[0].files.iter().find(|f| f.name == name).unwrap().clone();
    assert_eq!((of("run.log").state, of("empty.gguf").mode), (State::Ignored, Mode::Regular));
    let files = place.repo().head().files.clone();
    assert!(
        !files.contains_key("run.log")
            && files["empty.gguf"].oid == "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"
    );
}
