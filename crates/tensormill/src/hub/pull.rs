//! A model from the Hub into the cache, and from there into a folder of its own where one is wanted.

use super::Watch;
use serde::Serialize;
use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};
use tensormill_hub::{Address, Gate, Hub, Info, Need, Snapshot, wanted};
use tensormill_model::{Error, Result};

/// Where tools around the Hub note, in a folder of files, which commit they are.
const NOTES: &str = ".cache/huggingface/download";

/// What to fetch, and where to.
#[derive(Clone, Debug)]
pub struct PullRequest {
    /// Repository, revision, perhaps a folder or file of it.
    pub address: Address,
    /// What the files are for.
    pub need: Need,
    /// Files by pattern, instead of by need.
    pub include: Vec<String>,
    /// Files that are left out.
    pub exclude: Vec<String>,
    /// A folder that gets the files, beside the cache.
    pub output: Option<PathBuf>,
    /// Hard links into the cache instead of copies: no further room is needed, and whoever changes a file changes the cache's.
    pub hard_links: bool,
    /// Replace files of the folder that differ.
    pub force: bool,
}

impl PullRequest {
    /// What a conversion needs of a model, into the cache.
    pub fn new(address: Address) -> Self {
        Self {
            address,
            need: Need::Weights,
            include: Vec::new(),
            exclude: Vec::new(),
            output: None,
            hard_links: false,
            force: false,
        }
    }
}

/// A file that is, or would be, fetched.
#[derive(Clone, Debug, Serialize)]
pub struct Pulled {
    /// Its name in the repository.
    pub path: String,
    /// Its length.
    pub bytes: u64,
    /// SHA-256, where the Hub lists one.
    pub sha256: Option<String>,
}

/// What a pull did, or would do.
#[derive(Clone, Debug, Serialize)]
pub struct PullReport {
    /// `org/model`.
    pub repo: String,
    /// What was asked for.
    pub revision: String,
    /// The commit that it is; `None` for a mirror that does not say.
    pub commit: Option<String>,
    /// Licence, where the Hub was asked and says one.
    pub license: Option<String>,
    /// Whether its terms have to be accepted.
    pub gated: Gate,
    /// The files.
    pub files: Vec<Pulled>,
    /// Bytes of the files.
    pub bytes: u64,
    /// Files that had to be fetched; `None` in a dry run.
    pub fetched_files: Option<usize>,
    /// Bytes that came over the network; `None` in a dry run.
    pub received_bytes: Option<u64>,
    /// Where they are: the output folder, or the snapshot in the cache; `None` in a dry run.
    pub folder: Option<PathBuf>,
}

/// Fetches; with `dry_run` only says what would be.
///
/// # Errors
/// As [`Hub::model`], [`wanted`] and [`Hub::fetch`]; `Usage` where a file of the output folder differs.
pub fn pull(hub: &Hub, request: &PullRequest, dry_run: bool, watch: &Watch<'_>) -> Result<PullReport> {
    let address = &request.address;
    let snapshot = hub.model(address)?;
    let files = wanted(&snapshot, address.path.as_deref(), request.need, &request.include, &request.exclude);
    let files = match files {
        Err(e) => {
            if let Some(path) = address.path.as_deref().filter(|p| !is_there(&snapshot, p)) {
                hub.note_absent(&snapshot, path)?;
            }
            return Err(e);
        }
        Ok(files) => files,
    };
    let info = snapshot.info.as_ref();
    let row = |path: &&str| {
        let entry = snapshot.file(path);
        Pulled {
            path: (*path).to_owned(),
            bytes: entry.map_or(0, |e| e.size),
            sha256: entry.and_then(|e| e.sha256.clone()),
        }
    };
    let rows: Vec<Pulled> = files.iter().map(row).collect();
    let mut report = PullReport {
        repo: snapshot.repo.clone(),
        revision: snapshot.revision.clone(),
        commit: snapshot.commit.clone(),
        license: info.and_then(Info::license).map(str::to_owned),
        gated: info.map_or(Gate::Open, |i| i.gated),
        bytes: rows.iter().map(|f| f.bytes).sum(),
        files: rows,
        fetched_files: None,
        received_bytes: None,
        folder: None,
    };
    if dry_run {
        return Ok(report);
    }
    if let Some(output) = &request.output {
        // Known before gigabytes are fetched.
        refuse_others(output, &snapshot, &files, request.force)?;
    }
    let fetched = hub.fetch(&snapshot, &files, watch)?;
    if let Some(output) = &request.output {
        for path in &files {
            place(&fetched.folder.join(path), output, path, request, &snapshot)?;
        }
    }
    report.fetched_files = Some(fetched.fetched);
    report.received_bytes = Some(fetched.received);
    report.folder = Some(request.output.clone().unwrap_or(fetched.folder));
    Ok(report)
}

/// Whether a path is a file or a folder of a snapshot.
fn is_there(snapshot: &Snapshot, path: &str) -> bool {
    let inside = format!("{}/", path.trim_end_matches('/'));
    snapshot.files.iter().any(|e| e.path == path || e.path.starts_with(&inside))
}

/// Files that stand in the folder already and are of another length are somebody's.
fn refuse_others(output: &Path, snapshot: &Snapshot, files: &[&str], force: bool) -> Result<()> {
    if force {
        return Ok(());
    }
    for path in files {
        let target = output.join(path);
        let size = snapshot.file(path).map(|e| e.size);
        if fs::metadata(&target).is_ok_and(|m| Some(m.len()) != size) {
            return Err(Error::usage("this file exists, and is another one")
                .file(target.display())
                .hint("choose another folder, or replace it with --force"));
        }
    }
    Ok(())
}

/// Copies (or links) a file of the cache, and notes which commit it is.
fn place(from: &Path, output: &Path, path: &str, request: &PullRequest, snapshot: &Snapshot) -> Result<()> {
    let target = output.join(path);
    let fail = |what: &'static str| {
        let target = target.clone();
        move |e: io::Error| Error::io(what, e).file(target.display())
    };
    // The cache has links; what is wanted is what they lead to.
    let from = from.canonicalize().map_err(fail("find in the cache"))?;
    if target.canonicalize().is_ok_and(|t| t == from) {
        return Ok(());
    }
    let folder = target.parent().unwrap_or(output);
    fs::create_dir_all(folder).map_err(fail("create the folder"))?;
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    let part = target.with_file_name(format!(".{name}.tensormill-part"));
    drop(fs::remove_file(&part));
    let made = if request.hard_links {
        fs::hard_link(&from, &part).map_err(|e| {
            fail("link")(e).hint("links work within one file system: leave out --hard-links for a copy")
        })
    } else {
        fs::copy(&from, &part).map(|_| ()).map_err(|e| {
            fail("copy")(e).hint(format!(
                "the cache holds the whole file ({}): free some space, choose another folder, or take --hard-links",
                from.display()
            ))
        })
    };
    made.and_then(|()| fs::rename(&part, &target).map_err(fail("rename")))
        .inspect_err(|_| drop(fs::remove_file(&part)))?;
    let (Some(commit), Some(entry)) =
        (&snapshot.commit, snapshot.file(path).filter(|e| !e.etag().is_empty()))
    else {
        return Ok(());
    };
    // Commit, hash, time: what `huggingface_hub` writes, so that it and mirrors know these files.
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64());
    let note = output.join(NOTES).join(format!("{path}.metadata"));
    let part = note.with_extension("metadata.tensormill-part");
    let made = fs::create_dir_all(note.parent().unwrap_or(output));
    made.and_then(|()| fs::write(&part, format!("{commit}\n{}\n{seconds}\n", entry.etag())))
        .and_then(|()| fs::rename(&part, &note))
        .map_err(|e| {
            Error::io("note the commit", e).file(note.display()).hint("free some space, and run it again")
        })
        .inspect_err(|_| drop(fs::remove_file(&part)))
}
