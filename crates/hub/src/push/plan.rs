//! What a push will do, found out without writing anything: what the repository has, how the server wants each file,
//! what is the same already.

use super::{
    MAIN, Request, Target, Watch, account,
    digest::{self, Digests},
    folder::Item,
    remote::{self, Mode, Visibility},
    report::{BranchReport, FileReport, PushReport, State},
    wire::Wire,
};
use crate::{Address, Entry, Hub, Snapshot};
use base64::{Engine, engine::general_purpose::STANDARD};
use std::{
    fs::File,
    io::Read,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};
use tensormill_model::{Error, Result};

/// A push that was thought through.
pub struct Planned<'a> {
    hub: &'a Hub,
    address: Address,
    pub(super) request: Request,
    pub(super) branches: Vec<Branch>,
    /// Who sees the repository; `None` where it does not exist.
    pub(super) exists: Option<Visibility>,
    pub(super) notes: Vec<String>,
}

/// One branch of it.
pub(super) struct Branch {
    /// The branch, and where commits go: of a pull request, its ref.
    pub revision: String,
    pub new: bool,
    /// The commit that the plan is about.
    pub parent: Option<String>,
    pub files: Vec<Planfile>,
    pub deleted: Vec<String>,
}

/// One file of it.
pub(super) struct Planfile {
    pub item: Item,
    pub mode: Mode,
    pub state: State,
    /// Known once it was read.
    pub digests: Option<Digests>,
}

impl Planfile {
    /// Its SHA-256 as far as it is known.
    pub fn sha256(&self) -> Option<&str> {
        match (&self.digests, &self.item.known) {
            (Some(d), _) => Some(&d.sha256),
            (None, Some(known)) if known.trusted => Some(&known.sha256),
            _ => None,
        }
    }

    /// Whether an entry of the repository is of the same bytes.
    pub fn is(&self, entry: &Entry) -> bool {
        match &entry.sha256 {
            Some(sha256) => self.sha256() == Some(sha256),
            None => self.digests.as_ref().is_some_and(|d| d.git == entry.oid),
        }
    }
}

/// Looks at the repository and the files.
pub(super) fn plan<'a>(
    hub: &'a Hub,
    request: Request,
    watch: &dyn Watch,
    cancel: &AtomicBool,
) -> Result<Planned<'a>> {
    request.check()?;
    let address = Address::new(request.repo.as_str())?;
    if !address.repo.contains('/') {
        return Err(Error::usage(format!("{:?} has no owner", address.repo)).hint("write org/name"));
    }
    let wire = Wire { hub, address: &address };
    account::check(wire)?;
    let exists = remote::visibility(wire)?;
    if exists.is_none() && !request.create {
        return Err(Error::usage(format!(
            "there is no repository {}, or this token may not see it",
            wire.repo()
        ))
        .hint("--create makes it, private unless --public is given, too"));
    }
    let refs = if exists.is_some() { remote::refs(wire)? } else { remote::Refs::default() };
    let mut branches = Vec::new();
    for target in &request.targets {
        let parent = match refs.branches.get(&target.branch) {
            Some(commit) => Some(commit.clone()),
            // Refs of pull requests are not listed; and none can be made by its name.
            None if target.branch.starts_with("refs/") => Some(
                remote::head(wire, &target.branch)?
                    .ok_or_else(|| Error::usage(format!("{} has no {}", wire.repo(), target.branch)))?,
            ),
            None => None,
        };
        let new = parent.is_none() && target.branch != MAIN;
        // A new branch begins where main stands.
        let parent = parent.or_else(|| refs.branches.get(MAIN).cloned());
        let tree = match &parent {
            Some(commit) => Some(remote::tree(wire, commit)?),
            None => None,
        };
        let modes = match (exists, new) {
            (None, _) => target.items.iter().map(usual).collect(),
            // Of a branch that is not there, main's rules hold.
            (Some(_), new) => {
                let revision = if new { MAIN } else { &target.branch };
                modes(wire, revision, request.pull_request, &target.items)?
            }
        };
        branches.push(branch(target, new, parent, tree.as_ref(), modes, (watch, cancel))?);
    }
    let planned = Planned { hub, address, request, branches, exists, notes: Vec::new() };
    planned.check_tag(&refs)?;
    Ok(planned)
}

/// Compares a branch's files with a tree.
fn branch(
    target: &Target,
    new: bool,
    parent: Option<String>,
    tree: Option<&Snapshot>,
    modes: Vec<Mode>,
    (watch, cancel): (&dyn Watch, &AtomicBool),
) -> Result<Branch> {
    let mut files: Vec<Planfile> = target
        .items
        .iter()
        .zip(modes)
        .map(|(item, mode)| {
            let state = if mode == Mode::Ignored { State::Ignored } else { State::Send };
            Planfile { item: item.clone(), mode, state, digests: None }
        })
        .collect();
    // Only a file of the same size can be the same.
    let alike = |f: &Planfile| {
        let entry = tree?.file(&f.item.name).filter(|e| e.size == f.item.size)?;
        (f.state == State::Send).then_some(entry)
    };
    let read = |f: &Planfile| alike(f).is_some_and(|e| e.sha256.is_none() || f.sha256().is_none());
    let bytes = files.iter().filter(|f| read(f)).map(|f| f.item.size).sum();
    if bytes > 0 {
        watch.phase("comparing", bytes);
    }
    for file in &mut files {
        if read(file) {
            file.digests = Some(digests(&file.item, watch, cancel)?);
        }
        if let Some(entry) = alike(file)
            && file.is(entry)
        {
            file.state = State::Same;
        }
    }
    let sent = |name: &str| files.iter().any(|f| f.item.name == name && f.state != State::Ignored);
    let there = tree.iter().flat_map(|t| &t.files).map(|e| &e.path);
    let deleted = there.filter(|name| target.goes(name) && !sent(name)).cloned().collect();
    // Cards and indices say what else is there: they come when it is there.
    files.sort_by(|a, b| (is_last(&a.item.name), &a.item.name).cmp(&(is_last(&b.item.name), &b.item.name)));
    Ok(Branch { revision: target.branch.clone(), new, parent, files, deleted })
}

fn is_last(name: &str) -> bool {
    name == "README.md" || name.ends_with(".index.json") || name.ends_with(".manifest.json")
}

/// Reads a file, and holds what it is against what its maker said.
pub(super) fn digests(item: &Item, watch: &dyn Watch, cancel: &AtomicBool) -> Result<Digests> {
    let advanced = |bytes| {
        watch.advanced(bytes);
        if cancel.load(Relaxed) { Err(Error::cancelled()) } else { Ok(()) }
    };
    let digests = digest::of_file(&item.path, item.size, &advanced).map_err(|e| e.file(&item.name))?;
    if let Some(known) = item.known.as_ref().filter(|k| k.sha256 != digests.sha256) {
        return Err(Error::failed(format!(
            "the file is not what the manifest of its release says ({})",
            known.sha256
        ))
        .file(&item.name)
        .hint("make the release again (--force), or take its manifest and sums out of the folder"));
    }
    Ok(digests)
}

/// How the server wants files.
pub(super) fn modes(wire: Wire<'_>, revision: &str, pull_request: bool, items: &[Item]) -> Result<Vec<Mode>> {
    let listed: Vec<(String, u64, String)> = items
        .iter()
        .map(|i| Ok((i.name.clone(), i.size, STANDARD.encode(sample(i)?))))
        .collect::<Result<_>>()?;
    remote::modes(wire, revision, pull_request, &listed)
}

/// The beginning of a file.
fn sample(item: &Item) -> Result<Vec<u8>> {
    let failed = |e| Error::io("read", e).file(&item.name);
    let mut bytes = Vec::with_capacity(remote::SAMPLE);
    let file = File::open(&item.path).map_err(failed)?;
    file.take(remote::SAMPLE as u64).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

/// What the Hub says of a file in a new repository: large ones, and those whose suffix its `.gitattributes` has.
fn usual(item: &Item) -> Mode {
    const LARGE: u64 = 10 << 20;
    const SUFFIXES: [&str; 16] = [
        "safetensors",
        "gguf",
        "bin",
        "onnx",
        "pt",
        "pth",
        "ckpt",
        "h5",
        "npz",
        "npy",
        "msgpack",
        "model",
        "zip",
        "tar",
        "gz",
        "parquet",
    ];
    let suffix = item.name.rsplit_once('.').map_or("", |(_, s)| s);
    if item.size > LARGE || (SUFFIXES.contains(&suffix) && item.size > 0) { Mode::Lfs } else { Mode::Regular }
}

impl Planned<'_> {
    pub(super) fn wire(&self) -> Wire<'_> {
        Wire { hub: self.hub, address: &self.address }
    }

    /// A tag that stands elsewhere is known before anything is sent.
    fn check_tag(&self, refs: &remote::Refs) -> Result<()> {
        let Some((tag, first)) = self.request.tag.as_ref().zip(self.branches.first()) else { return Ok(()) };
        let Some(at) = refs.tags.get(tag) else { return Ok(()) };
        let changes = !first.deleted.is_empty() || first.files.iter().any(|f| f.state == State::Send);
        if changes || Some(at) != first.parent.as_ref() { Err(remote::taken(tag)) } else { Ok(()) }
    }

    /// Who sees the repository afterwards, and whether that is a change.
    pub(super) fn visibility(&self) -> (Visibility, bool) {
        let wanted = self.request.visibility;
        match self.exists {
            None => (wanted.unwrap_or(Visibility::Private), false),
            Some(now) => (wanted.unwrap_or(now), wanted.is_some_and(|w| w != now)),
        }
    }

    /// What a push would do.
    pub fn report(&self) -> PushReport {
        let branches: Vec<BranchReport> = self.branches.iter().map(Branch::report).collect();
        let (visibility, visibility_changed) = self.visibility();
        let of = |state| {
            let files = branches.iter().flat_map(|b| &b.files);
            files.filter(move |f| f.state == state).map(|f| f.bytes).sum()
        };
        PushReport {
            schema: "tensormill-push/1",
            repo: self.address.repo.clone(),
            dry_run: true,
            created: self.exists.is_none(),
            visibility,
            visibility_changed,
            message: self.request.message.clone(),
            bytes: of(State::Send),
            bytes_same: of(State::Same),
            bytes_uploaded: 0,
            branches,
            tag: self.request.tag.clone(),
            pull_request: None,
            notes: self.notes.clone(),
        }
    }
}

impl Branch {
    pub(super) fn report(&self) -> BranchReport {
        let file = |f: &Planfile| FileReport {
            name: f.item.name.clone(),
            bytes: f.item.size,
            mode: f.mode,
            state: f.state,
            sha256: f.sha256().map(str::to_owned),
            stored_already: None,
        };
        BranchReport {
            revision: self.revision.clone(),
            new: self.new,
            parent: self.parent.clone(),
            head: None,
            files: self.files.iter().map(file).collect(),
            deleted: self.deleted.clone(),
            commits: Vec::new(),
            verified: 0,
        }
    }
}
