//! Carrying out a plan: the repository and its branches, uploads, commits, the look at what is there afterwards, the tag.
//!
//! Everything may be repeated. What is uploaded is known to LFS storage, what is committed to the tree; so a run that was
//! stopped is continued by running the same again.

use super::{
    MAIN, Watch,
    batches::Pace,
    body::{Header, Operation, Sending},
    commit::{self, Outcome},
    lfs::{self, Object},
    plan::{self, Branch, Planfile, Planned},
    remote::{self, Mode},
    report::{BranchReport, CommitReport, PushReport, State},
};
use crate::Snapshot;
use std::{
    collections::{HashMap, HashSet},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::Instant,
};
use tensormill_model::{Error, ErrorKind, Result};

/// What a run hears and says.
#[derive(Clone, Copy)]
struct Seams<'a> {
    watch: &'a dyn Watch,
    cancel: &'a AtomicBool,
    jobs: usize,
}

impl Planned<'_> {
    /// Writes to the Hub.
    ///
    /// # Errors
    /// `Busy` where somebody else committed in between, `Failed` where the repository does not hold what was sent,
    /// `Cancelled`, and what connections and the server say. All of them leave something that can be continued.
    pub fn run(mut self, watch: &dyn Watch, cancel: &AtomicBool, jobs: usize) -> Result<PushReport> {
        let seams = Seams { watch, cancel, jobs: jobs.max(1) };
        match self.carry_out(seams) {
            Err(_) if cancel.load(Relaxed) => {
                Err(Error::cancelled().hint("run the same command again: what is uploaded is not sent again"))
            }
            Err(e) if e.kind() == ErrorKind::Io => {
                Err(e.also_hint("run the same command again: what is uploaded is not sent again"))
            }
            other => other,
        }
    }

    fn carry_out(&mut self, seams: Seams<'_>) -> Result<PushReport> {
        let mut report = PushReport { dry_run: false, ..self.report() };
        let (visibility, changes) = self.visibility();
        if self.exists.is_none() {
            remote::create(self.wire(), visibility)?;
            self.greet()?;
        }
        let uploaded = AtomicU64::new(0);
        report.branches = Vec::new();
        for mut branch in std::mem::take(&mut self.branches) {
            let done = self.push(&mut branch, &mut report.pull_request, &uploaded, seams)?;
            report.branches.push(done);
        }
        report.bytes_uploaded = uploaded.into_inner();
        if let (Some(tag), Some(head)) =
            (&self.request.tag, report.branches.first().and_then(|b| b.head.as_ref()))
        {
            remote::create_tag(self.wire(), tag, head, &self.request.message)?;
        }
        // Last: nobody sees half of it.
        if changes {
            remote::set_visibility(self.wire(), visibility)?;
        }
        Ok(report)
    }

    /// One branch.
    fn push(
        &self,
        branch: &mut Branch,
        pull_request: &mut Option<u64>,
        uploaded: &AtomicU64,
        seams: Seams<'_>,
    ) -> Result<BranchReport> {
        if self.exists.is_some() && branch.new {
            remote::create_branch(self.wire(), &branch.revision, branch.parent.as_deref())?;
        }
        hash(&mut branch.files, seams)?;
        let mut report = branch.report();
        let send: Vec<&Planfile> = branch.files.iter().filter(|f| f.state == State::Send).collect();
        let mut head = branch.parent.clone();
        let mut revision = branch.revision.clone();
        if self.request.pull_request && (!send.is_empty() || !branch.deleted.is_empty()) {
            let number =
                remote::create_pull_request(self.wire(), &self.request.message, &self.request.description)?;
            *pull_request = Some(number);
            revision = format!("refs/pr/{number}");
            head = remote::head(self.wire(), &revision)?.or(head);
            report.revision.clone_from(&revision);
        }
        if !send.is_empty() {
            seams.watch.phase("uploading", send.iter().map(|f| f.item.size).sum());
        }
        let mut sender =
            Sender { planned: self, revision: &revision, head, stored: HashMap::new(), uploaded, seams };
        report.commits = sender.send(&send, &branch.deleted).map_err(|e| match *pull_request {
            None => e,
            Some(n) => {
                e.also_hint(format!("the pull request is open: go on there with --branch refs/pr/{n}"))
            }
        })?;
        let (head, stored) = (sender.head, sender.stored);
        for file in &mut report.files {
            let at = file.sha256.as_ref().and_then(|s| stored.get(s));
            file.stored_already = at.copied().filter(|_| file.state == State::Send && file.mode == Mode::Lfs);
        }
        if let Some(head) = &head {
            report.verified = self.verify(branch, head)?;
        }
        report.head = head;
        Ok(report)
    }

    /// A repository that was made just now: its branches begin where it does, and it says how it wants files.
    fn greet(&mut self) -> Result<()> {
        let mut branches = std::mem::take(&mut self.branches);
        let main = remote::head(self.wire(), MAIN)?;
        for branch in &mut branches {
            if branch.new {
                remote::create_branch(self.wire(), &branch.revision, main.as_deref())?;
            }
            branch.parent.clone_from(&main);
            let items: Vec<_> = branch.files.iter().map(|f| f.item.clone()).collect();
            let modes = plan::modes(self.wire(), MAIN, false, &items)?;
            for (file, mode) in branch.files.iter_mut().zip(modes) {
                file.mode = mode;
                if mode == Mode::Ignored {
                    file.state = State::Ignored;
                }
            }
        }
        self.branches = branches;
        Ok(())
    }

    /// Holds the commit's files against what was sent. Gives how many.
    fn verify(&self, branch: &Branch, head: &str) -> Result<usize> {
        let tree = remote::tree(self.wire(), head)?;
        let files = || branch.files.iter().filter(|f| f.state != State::Ignored);
        if let Some(wrong) = files().find(|f| !stands(&tree, f)) {
            return Err(Error::failed("the repository does not hold the bytes that were sent")
                .file(&wrong.item.name)
                .hint("run the same command again; if it stays so, report it with the name of the server"));
        }
        Ok(files().count())
    }
}

/// Whether a tree has a file's bytes under its name.
fn stands(tree: &Snapshot, file: &Planfile) -> bool {
    tree.file(&file.item.name).is_some_and(|entry| file.is(entry))
}

/// Hashes what is sent and was not read yet.
fn hash(files: &mut [Planfile], seams: Seams<'_>) -> Result<()> {
    let mut unread: Vec<&mut Planfile> =
        files.iter_mut().filter(|f| f.state == State::Send && f.digests.is_none()).collect();
    let bytes = unread.iter().map(|f| f.item.size).sum();
    if unread.is_empty() {
        return Ok(());
    }
    seams.watch.phase("hashing", bytes);
    let found = Mutex::new(Vec::new());
    let items: Vec<_> = unread.iter().map(|f| f.item.clone()).collect();
    in_parallel(seams, items.len(), &|i| {
        let digests = plan::digests(&items[i], seams.watch, seams.cancel)?;
        found.lock().unwrap_or_else(PoisonError::into_inner).push((i, digests));
        Ok(())
    })?;
    for (i, digests) in found.into_inner().unwrap_or_else(PoisonError::into_inner) {
        unread[i].digests = Some(digests);
    }
    Ok(())
}

/// Sends files to one branch.
struct Sender<'a> {
    planned: &'a Planned<'a>,
    revision: &'a str,
    /// Where the branch stands.
    head: Option<String>,
    /// Objects that storage has now, and whether it had them before.
    stored: HashMap<String, bool>,
    uploaded: &'a AtomicU64,
    seams: Seams<'a>,
}

impl Sender<'_> {
    /// Uploads and commits, some files at a time.
    fn send(&mut self, files: &[&Planfile], deleted: &[String]) -> Result<Vec<CommitReport>> {
        let mut pace = Pace::default();
        let mut commits: Vec<CommitReport> = Vec::new();
        let mut at = 0;
        while at < files.len() || (commits.is_empty() && !deleted.is_empty()) {
            let left = &files[at..];
            let content = |i: usize| if left[i].mode == Mode::Regular { left[i].item.size } else { 0 };
            let some = &left[..pace.take(left.len(), content)];
            self.upload(some)?;
            let start = Instant::now();
            let deleted = if commits.is_empty() { deleted } else { &[] };
            match self.commit(some, deleted, commits.len())? {
                Outcome::Made(oid) => {
                    pace.made(some.len(), start.elapsed());
                    commits.push(CommitReport {
                        oid: oid.clone(),
                        message: self.message(commits.len()),
                        files: some.len(),
                        deleted: deleted.len(),
                    });
                    self.head = Some(oid);
                    at += some.len();
                }
                Outcome::TooMuch(e) if !Pace::can_shrink(some.len()) => return Err(e),
                Outcome::TooMuch(e) => {
                    let text = format!("a commit of {} files failed ({e}); trying with fewer", some.len());
                    self.seams.watch.note(&text);
                    pace.failed(some.len());
                }
            }
        }
        Ok(commits)
    }

    fn message(&self, before: usize) -> String {
        let message = &self.planned.request.message;
        if before == 0 { message.clone() } else { format!("{message} (part {})", before + 1) }
    }

    fn commit(&self, files: &[&Planfile], deleted: &[String], before: usize) -> Result<Outcome> {
        let mut operations: Vec<Operation> =
            deleted.iter().map(|name| Operation::Delete { name: name.clone() }).collect();
        operations.extend(files.iter().map(|f| {
            let (name, size) = (f.item.name.clone(), f.item.size);
            match (f.mode, f.sha256()) {
                (Mode::Lfs, Some(sha256)) => Operation::Lfs { name, sha256: sha256.to_owned(), size },
                _ => Operation::Regular { name, path: f.item.path.clone(), size },
            }
        }));
        let summary = self.message(before);
        let header = Header {
            summary: &summary,
            description: &self.planned.request.description,
            parent: self.head.as_deref(),
        };
        let holds = |tree: &Snapshot| {
            files.iter().all(|f| stands(tree, f)) && deleted.iter().all(|name| tree.file(name).is_none())
        };
        // Sent again, they are heard of once.
        let (told, sent) = (AtomicU64::new(0), AtomicU64::new(0));
        let all: u64 = files.iter().filter(|f| f.mode == Mode::Regular).map(|f| f.item.size).sum();
        let advanced = |n| {
            let now = sent.fetch_add(n, Relaxed) + n;
            let new = now.min(all).saturating_sub(told.fetch_max(now.min(all), Relaxed));
            self.seams.advanced(new)
        };
        commit::send(
            self.planned.wire(),
            self.revision,
            &header,
            &operations,
            &holds,
            &Sending::new(&advanced),
        )
    }

    /// What LFS holds of some files.
    fn upload(&mut self, files: &[&Planfile]) -> Result<()> {
        let mut seen = HashSet::new();
        let mut objects = Vec::new();
        for file in files.iter().filter(|f| f.mode == Mode::Lfs) {
            let Some(sha256) = file.sha256().map(str::to_owned) else { continue };
            if self.stored.contains_key(&sha256) || !seen.insert(sha256.clone()) {
                self.seams.watch.advanced(file.item.size);
                continue;
            }
            let (name, path, size) = (file.item.name.clone(), file.item.path.clone(), file.item.size);
            objects.push(Object { name, path, sha256, size });
        }
        // Who opens a pull request need not be allowed to write to the branch itself.
        let revision = (!self.planned.request.pull_request).then_some(self.revision);
        for some in objects.chunks(lfs::BATCH) {
            let wanted = lfs::batch(self.planned.wire(), revision, some)?;
            let sent: Vec<AtomicBool> = some.iter().map(|_| AtomicBool::new(false)).collect();
            in_parallel(self.seams, some.len(), &|i| {
                let advanced = |n| self.seams.advanced(n);
                let new = lfs::upload(self.planned.wire(), revision, &some[i], wanted[i].clone(), &advanced)?;
                sent[i].store(new, Relaxed);
                if new {
                    self.uploaded.fetch_add(some[i].size, Relaxed);
                } else {
                    self.seams.watch.advanced(some[i].size);
                }
                Ok(())
            })?;
            let known = some.iter().zip(sent).map(|(o, new)| (o.sha256.clone(), !new.into_inner()));
            self.stored.extend(known);
        }
        Ok(())
    }
}

impl Seams<'_> {
    /// Bytes are on their way; stops them where that is wanted.
    fn advanced(self, bytes: u64) -> Result<()> {
        self.watch.advanced(bytes);
        if self.cancel.load(Relaxed) { Err(Error::cancelled()) } else { Ok(()) }
    }
}

/// Does something for each number below `count`, several at a time. The first error ends it.
fn in_parallel(seams: Seams<'_>, count: usize, work: &(dyn Fn(usize) -> Result<()> + Sync)) -> Result<()> {
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(None));
    let worker = || {
        while !seams.cancel.load(Relaxed) {
            let i = next.fetch_add(1, Relaxed);
            if i >= count {
                return;
            }
            if let Err(e) = work(i) {
                // The others end after what they are at.
                next.store(count, Relaxed);
                failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(e);
            }
        }
    };
    thread::scope(|s| {
        for _ in 1..seams.jobs.min(count) {
            // Where the system gives no more threads, this one does the work.
            if thread::Builder::new().spawn_scoped(s, worker).is_err() {
                break;
            }
        }
        worker();
    });
    match failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(e) => Err(e),
        None if seams.cancel.load(Relaxed) => Err(Error::cancelled()),
        None => Ok(()),
    }
}
