//! Publishing a folder, or what a release made: which files, what is known of them, and what must not leave the machine.
//!
//! The manifest of a release says what its files are: their hashes are held against them, and need not be taken again
//! where nothing was written since. It also says which files are a variant, for branches of their own. How things get to
//! the Hub is `tensormill-hub`'s; this module must *not* know HTTP.

mod private;

use crate::{
    job::{MANIFEST_SUFFIX, SUMS},
    report::DoneReport,
};
use serde::{Deserialize, Serialize};
use std::{collections::HashMap, path::Path, sync::atomic::AtomicBool, time::SystemTime};
use tensormill_engine::{Event, Progress};
use tensormill_hub::{
    Hub,
    push::{self, Item, Known, MAIN, Patterns, Target},
};
use tensormill_model::{Assets, Error, Result};
use tensormill_store::LocalDir;

pub use tensormill_hub::push::{BranchReport, CommitReport, FileReport, Mode, PushReport, State, Visibility};

/// Files that are sent at the same time, where nobody says otherwise.
pub const JOBS: usize = 4;

/// What is published where, and how.
#[derive(Clone, Debug, Default)]
#[allow(clippy::struct_excessive_bools, reason = "independent switches of the command line")]
pub struct Options {
    /// `org/name`
    pub repo: String,
    /// Branch; main by default.
    pub branch: Option<String>,
    /// Make the repository where there is none.
    pub create: bool,
    /// Who is to see it: without a wish new ones are private, and others stay as they are.
    pub visibility: Option<Visibility>,
    /// Name for the last commit.
    pub tag: Option<String>,
    /// First line of the commit's message.
    pub message: Option<String>,
    /// The rest of it.
    pub description: Option<String>,
    /// Open a pull request instead.
    pub pull_request: bool,
    /// Names of files to send; all by default.
    pub include: Vec<String>,
    /// Names of files not to send.
    pub exclude: Vec<String>,
    /// Names of files of the repository that go, unless they are sent.
    pub delete: Vec<String>,
    /// Every variant of a release in a branch of its name.
    pub branch_per_variant: bool,
    /// Read all files, also where a manifest knows their hashes.
    pub rehash: bool,
    /// Send what looks like a secret, or tells of this machine, all the same.
    pub allow_private: bool,
    /// Only what this release made, its card and its licence, and what `more` names.
    pub release: Option<String>,
    /// Names of files that are sent beside those of `release`.
    pub more: Vec<String>,
    /// Files that are sent at the same time; [`JOBS`] where zero.
    pub jobs: usize,
}

/// A release, and what became of it on the Hub.
#[derive(Debug, Serialize)]
pub struct Released<'a> {
    /// What was made.
    #[serde(flatten)]
    pub done: &'a DoneReport,
    /// What was sent, where it was to be published.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub publish: Option<PushReport>,
}

/// A push that was thought through.
pub struct Planned<'a> {
    inner: push::Planned<'a>,
    notes: Vec<String>,
    jobs: usize,
}

/// Looks at the folder, the files, and the repository. Writes nothing.
///
/// # Errors
/// `Usage` for what cannot be meant, for unfinished releases, for tokens that may not write; `Failed` for files that hold
/// secrets; what connections and the server say.
pub fn plan<'a>(
    hub: &'a Hub,
    folder: &Path,
    options: &Options,
    progress: &dyn Progress,
    cancel: &AtomicBool,
) -> Result<Planned<'a>> {
    let listing = push::list(folder, &Patterns::new(&options.include, &options.exclude))?;
    unfinished(&listing.hidden)?;
    let mut items = listing.items;
    let manifests = manifests(folder, &items)?;
    if let Some(name) = &options.release {
        let more = Patterns::new(&options.more, &[]);
        let more = |name: &str| !options.more.is_empty() && more.takes(name);
        let made = |name_of: &str| manifests.iter().any(|m| m.made(name, name_of));
        items.retain(|i| made(&i.name) || belongs(&i.name) || more(&i.name));
    }
    for item in &mut items {
        let known = manifests.iter().find_map(|m| m.known(item));
        item.known = known.map(|k| Known { trusted: k.trusted && !options.rehash, ..k });
    }
    if !options.allow_private {
        private::check(&items, hub.settings().token.as_ref())?;
    }
    let request = push::Request {
        repo: options.repo.clone(),
        create: options.create,
        visibility: options.visibility,
        message: options
            .message
            .clone()
            .unwrap_or_else(|| format!("Upload with tensormill {}", env!("CARGO_PKG_VERSION"))),
        description: options.description.clone().unwrap_or_default(),
        pull_request: options.pull_request,
        tag: options.tag.clone(),
        targets: targets(options, items, &manifests)?,
    };
    progress.event(Event::Started { source_bytes: 0, output_bytes: 0, tensors: 0 });
    let inner = push::plan(hub, request, &Watch(progress), cancel)?;
    let jobs = if options.jobs == 0 { JOBS } else { options.jobs };
    Ok(Planned { inner, notes: listing.notes, jobs })
}

impl Planned<'_> {
    /// What a push would do.
    pub fn report(&self) -> PushReport {
        self.with_notes(self.inner.report())
    }

    /// Writes to the Hub.
    ///
    /// # Errors
    /// As [`push::Planned::run`].
    pub fn run(self, progress: &dyn Progress, cancel: &AtomicBool) -> Result<PushReport> {
        let (notes, jobs) = (self.notes, self.jobs);
        let mut report = self.inner.run(&Watch(progress), cancel, jobs)?;
        report.notes.splice(0..0, notes);
        Ok(report)
    }

    fn with_notes(&self, mut report: PushReport) -> PushReport {
        report.notes.splice(0..0, self.notes.iter().cloned());
        report
    }
}

/// Tells a push's progress as a run's.
struct Watch<'a>(&'a dyn Progress);

impl push::Watch for Watch<'_> {
    fn phase(&self, name: &'static str, bytes: u64) {
        self.0.event(Event::Phase { name, bytes });
    }
    fn advanced(&self, bytes: u64) {
        self.0.event(Event::PhaseAdvanced { bytes });
    }
    fn note(&self, text: &str) {
        self.0.event(Event::Note { text });
    }
}

/// A folder in which a run is at work, or was, is not what anybody wants to publish.
fn unfinished(hidden: &[String]) -> Result<()> {
    let left = |n: &&String| n.ends_with(".tensormill-part") || n.contains(".tensormill-journal");
    match hidden.iter().find(left) {
        None => Ok(()),
        Some(name) => Err(Error::usage("a release in this folder is not finished")
            .file(name)
            .hint("continue it with --resume, or `tensormill finish`; --restart begins again")),
    }
}

/// What people look for beside the files of a release.
fn belongs(name: &str) -> bool {
    const NAMES: [&str; 4] = ["README.md", "LICENSE", "NOTICE", "USE_POLICY"];
    !name.contains('/') && NAMES.iter().any(|n| name == *n || name.starts_with(&format!("{n}.")))
}

/// What a manifest says, as far as this module asks.
#[derive(Deserialize)]
struct Manifest {
    name: String,
    variants: Vec<Made>,
    /// When it was written.
    #[serde(skip)]
    written: Option<SystemTime>,
}

#[derive(Deserialize)]
struct Made {
    name: String,
    files: Vec<MadeFile>,
}

#[derive(Deserialize)]
struct MadeFile {
    name: String,
    sha256: Option<String>,
}

/// The manifests among the files. What is called like one and is none is a file like any other.
fn manifests(folder: &Path, items: &[Item]) -> Result<Vec<Manifest>> {
    let folder = LocalDir::open(folder)?;
    let mut found = Vec::new();
    for item in items.iter().filter(|i| i.name.ends_with(MANIFEST_SUFFIX) && !i.name.contains('/')) {
        let text = folder.read(&item.name)?.unwrap_or_default();
        if let Ok(manifest) = serde_json::from_slice::<Manifest>(&text) {
            found.push(Manifest { written: item.modified, ..manifest });
        }
    }
    Ok(found)
}

impl Manifest {
    /// Whether a file is what the release of this name left.
    fn made(&self, release: &str, name: &str) -> bool {
        let own = [format!("{release}{MANIFEST_SUFFIX}"), SUMS.to_owned(), crate::page::name(release)];
        self.name == release
            && (own.iter().any(|o| o == name)
                || name.starts_with(&crate::page::folder(release))
                || self.variant_of(name).is_some())
    }

    fn variant_of(&self, name: &str) -> Option<&Made> {
        self.variants.iter().find(|v| v.files.iter().any(|f| f.name == name))
    }

    /// What it says of a file. It is believed unread where the file was not written after it.
    fn known(&self, item: &Item) -> Option<Known> {
        let files = self.variants.iter().flat_map(|v| &v.files);
        let sha256 = files.into_iter().find(|f| f.name == item.name)?.sha256.clone()?;
        let trusted = item.modified.zip(self.written).is_some_and(|(file, manifest)| file <= manifest);
        Some(Known { sha256, trusted })
    }
}

/// What goes to which branch.
fn targets(options: &Options, items: Vec<Item>, manifests: &[Manifest]) -> Result<Vec<Target>> {
    let branch = options.branch.clone().unwrap_or_else(|| MAIN.to_owned());
    let delete = (!options.delete.is_empty()).then(|| Patterns::new(&options.delete, &[]));
    if !options.branch_per_variant {
        return Ok(vec![Target { branch, items, delete }]);
    }
    if manifests.iter().all(|m| m.variants.is_empty()) {
        return Err(Error::usage("without a release's manifest nobody knows which files are a variant")
            .hint("push the folder that `tensormill release` wrote"));
    }
    let mut own: HashMap<&str, Vec<Item>> = HashMap::new();
    let mut order: Vec<&str> = Vec::new();
    let mut shared = Vec::new();
    for item in items {
        match manifests.iter().find_map(|m| m.variant_of(&item.name)) {
            None => shared.push(item),
            Some(variant) => {
                own.entry(&variant.name)
                    .or_insert_with(|| {
                        order.push(&variant.name);
                        Vec::new()
                    })
                    .push(item);
            }
        }
    }
    let beside: Vec<Item> = shared.iter().filter(|i| belongs(&i.name)).cloned().collect();
    let mut targets = vec![Target { branch, items: shared, delete }];
    for name in order {
        let mut items = own.remove(name).unwrap_or_default();
        lift(&mut items);
        let taken = |i: &Item| items.iter().any(|o| o.name == i.name);
        let more: Vec<Item> = beside.iter().filter(|i| !taken(i)).cloned().collect();
        items.extend(more);
        // Such a branch holds its variant and nothing else: what it began with goes.
        targets.push(Target { branch: name.to_owned(), items, delete: Some(Patterns::default()) });
    }
    Ok(targets)
}

/// The files of a variant that is a folder stand at the branch's root, where loaders look for them.
fn lift(items: &mut [Item]) {
    let Some(prefix) =
        items.first().and_then(|i| i.name.split_once('/')).map(|(folder, _)| format!("{folder}/"))
    else {
        return;
    };
    if items.iter().all(|i| i.name.starts_with(&prefix)) {
        for item in items {
            item.name.drain(..prefix.len());
        }
    }
}
