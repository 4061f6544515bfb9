//! The program with a Hub of its own: a server on this machine, and nothing of this machine's settings.
#![allow(dead_code, reason = "each test file uses its part")]

use super::common::{golden, mill, names};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};
use tensormill_hub_server::{Repo, Server, User};

/// A token that must not be seen again.
pub const TOKEN: &str = "hf_plantedplantedplanted";

/// The program, for which a server (or a folder) is the Hub: whatever the environment says of the Hub, of proxies and of
/// certificates is the test's to say.
pub fn program(endpoint: &str) -> Command {
    let mut c = mill();
    let ours = |n: &str| {
        n.starts_with("HF_")
            || n.to_lowercase().ends_with("_proxy")
            || [
                "HUGGINGFACE_HUB_CACHE",
                "HUGGING_FACE_HUB_TOKEN",
                "TRANSFORMERS_OFFLINE",
                "SSL_CERT_FILE",
                "REQUESTS_CA_BUNDLE",
                "CURL_CA_BUNDLE",
            ]
            .contains(&n)
    };
    for (name, _) in std::env::vars().filter(|(n, _)| ours(n)) {
        c.env_remove(name);
    }
    c.env("HF_ENDPOINT", endpoint);
    c
}

/// Runs it, checks the exit code, and gives standard output and standard error.
#[track_caller]
pub fn expect_of(code: i32, command: &mut Command) -> (String, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let said = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
    let (o, e) = (said(&stdout), said(&stderr));
    assert_eq!(status.code(), Some(code), "stdout:\n{o}\nstderr:\n{e}");
    assert!(!o.contains(TOKEN) && !e.contains(TOKEN), "the token was printed");
    (o, e)
}

/// A server, and a folder for what a test makes.
pub struct Hub {
    pub server: Server,
    pub dir: tempfile::TempDir,
}

impl Hub {
    pub fn new() -> Self {
        Self::of(Server::start())
    }

    /// With a server that was started in another way.
    pub fn of(server: Server) -> Self {
        server.state().user(TOKEN, User { name: "me".into(), ..User::default() });
        Self { server, dir: tempfile::tempdir().unwrap() }
    }

    /// A golden model as a repository; weights are in LFS storage, as the Hub does it.
    pub fn with(self, id: &str, folder: &Path) -> Self {
        self.server.state().add(Repo::from_folder(id, folder).unwrap());
        self
    }

    pub fn cache(&self) -> PathBuf {
        self.dir.path().join("cache")
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn head(&self, id: &str) -> String {
        self.server.state().repos()[id].head().sha.clone()
    }

    /// The program, for which this server is the Hub.
    pub fn mill(&self) -> Command {
        let mut c = program(self.server.url());
        c.env("HF_HUB_CACHE", self.cache()).env("HF_HOME", self.path("home")).env("HF_TOKEN", TOKEN);
        c
    }

    #[track_caller]
    pub fn expect(&self, code: i32, args: &[&str]) -> (String, String) {
        expect_of(code, self.mill().args(args))
    }

    /// Begins a run whose events can be read.
    pub fn begin(&self, args: &[&str]) -> Child {
        let mut c = self.mill();
        c.args(args).args(["--progress", "json"]).env_remove("RUST_LOG");
        c.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Nothing of any repository was written.
    #[track_caller]
    pub fn nothing_cached(&self) {
        assert!(!self.cache().exists(), "{:?}", names(&self.cache()));
        assert!(!self.path("home").exists());
    }
}

/// A model's folder under the name that its repository has, for names that are derived of it.
pub fn local(dir: &Path, model: &str) -> PathBuf {
    let to = dir.join(model);
    copy(&golden(model), &to);
    to
}

pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for e in fs::read_dir(from).unwrap().flatten() {
        if e.file_type().unwrap().is_dir() {
            copy(&e.path(), &to.join(e.file_name()));
        } else {
            fs::copy(e.path(), to.join(e.file_name())).unwrap();
        }
    }
}

#[track_caller]
pub fn same(a: &Path, b: &Path) {
    assert!(fs::read(a).unwrap() == fs::read(b).unwrap(), "{} and {} differ", a.display(), b.display());
}

/// All files below a folder.
pub fn walk(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    entries
        .flatten()
        .flat_map(|e| if e.file_type().unwrap().is_dir() { walk(&e.path()) } else { vec![e.path()] })
        .collect()
}
