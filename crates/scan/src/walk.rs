//! Folders: which files are looked at, and links, which are told of and not trusted. Devices are not opened.

use crate::{
    Listing,
    content::{file, in_store},
    finding::{Place, Report, Sink},
    rules,
};
use std::{
    collections::{BTreeSet, HashSet},
    fs,
    path::{Path, PathBuf},
};
use tensormill_model::{Error, Result};

const MAX_DEPTH: u32 = 32;
const MAX_ENTRIES: usize = 100_000;
const MAX_FILES: u64 = 1_000_000;

/// Looks at one path that a user named.
pub(crate) fn path(path: &Path, report: &mut Report) -> Result<()> {
    let named = |e| Error::io("open", e).file(path.display());
    // What the user names is followed, wherever it leads.
    let meta = fs::metadata(path).map_err(named)?;
    if meta.is_dir() {
        let root = path.canonicalize().map_err(named)?;
        folder(path, &root, 0, &HashSet::new(), report);
    } else if meta.is_file() {
        file(path, &HashSet::new(), report);
    } else {
        return Err(Error::usage("this is neither a file nor a folder").file(path.display()));
    }
    Ok(())
}

fn folder(dir: &Path, root: &Path, depth: u32, above: &HashSet<PathBuf>, report: &mut Report) {
    let told = |report: &mut Report, rule, what: &str| {
        Sink::new(report, dir.display().to_string()).add(rule, Place::default(), what);
    };
    if depth == MAX_DEPTH {
        return told(report, &rules::SCAN_LIMIT, "folders nested deeper than is looked at");
    }
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) => return told(report, &rules::FILE_UNREADABLE, &e.to_string()),
    };
    let mut names: Vec<_> = entries.flatten().take(MAX_ENTRIES + 1).map(|e| e.file_name()).collect();
    if names.len() > MAX_ENTRIES {
        names.pop();
        told(report, &rules::SCAN_LIMIT, "a folder of more files than are looked at");
    }
    names.sort_unstable();
    let (mut folders, mut code) = (Vec::new(), Vec::new());
    let mut named = above.clone();
    for name in names {
        let path = dir.join(&name);
        let Ok(meta) = fs::symlink_metadata(&path) else { continue };
        if report.files >= MAX_FILES {
            return told(report, &rules::SCAN_LIMIT, "more files than are looked at");
        }
        let is_link = meta.file_type().is_symlink();
        if is_link {
            link(&path, root, report);
        }
        // Of links, what they lead to: a loader follows them.
        let Ok(meta) = fs::metadata(&path) else { continue };
        if meta.is_dir() {
            // Behind links lies what is looked at elsewhere, or what is not the model's.
            let git = dir.file_name().is_some_and(|n| n == ".git") && (name == "objects" || name == "lfs");
            if !is_link && !git {
                folders.push(path);
            }
        } else if !meta.is_file() {
            let mut sink = Sink::new(report, path.display().to_string());
            sink.add(&rules::FILE_SPECIAL, Place::default(), "no regular file");
        } else if path.extension().is_some_and(|e| e == "py") {
            code.push(path);
        } else {
            named.extend(file(&path, &named, report).iter().map(|name| dir.join(name)));
        }
    }
    // Configurations say which of these are loaded, and may name those of folders below.
    for path in code {
        file(&path, &named, report);
    }
    for path in folders {
        folder(&path, root, depth + 1, &named, report);
    }
}

/// Looks at files that are listed, folder by folder, as [`folder`] does.
pub(crate) fn listing(listing: &Listing, report: &mut Report) {
    below(listing, "", 0, &HashSet::new(), report);
}

fn below(all: &Listing, front: &str, depth: u32, above: &HashSet<PathBuf>, report: &mut Report) {
    let root = Path::new(&all.at);
    let told = |report: &mut Report, what: &str| {
        let at = root.join(front).display().to_string();
        Sink::new(report, at).add(&rules::SCAN_LIMIT, Place::default(), what);
    };
    if depth == MAX_DEPTH {
        return told(report, "folders nested deeper than is looked at");
    }
    let start = all.names.partition_point(|n| n.as_str() < front);
    let names = all.names[start..].iter().map_while(|n| Some((n, n.strip_prefix(front)?)));
    let (mut folders, mut code) = (BTreeSet::new(), Vec::new());
    let mut named = above.clone();
    for (name, rest) in names {
        if report.files >= MAX_FILES {
            return told(report, "more files than are looked at");
        }
        match rest.split_once('/') {
            Some((folder, _)) => drop(folders.insert(format!("{front}{folder}/"))),
            None if Path::new(rest).extension().is_some_and(|e| e == "py") => code.push(name),
            None => {
                let path = root.join(name);
                let imported = in_store(&path, (all.open)(name), &named, report);
                named.extend(imported.iter().map(|i| path.with_file_name(i)));
            }
        }
    }
    for name in code {
        in_store(&root.join(name), (all.open)(name), &named, report);
    }
    for folder in folders {
        below(all, &folder, depth + 1, &named, report);
    }
}

fn link(path: &Path, root: &Path, report: &mut Report) {
    let mut sink = Sink::new(report, path.display().to_string());
    let target = fs::read_link(path).map_or_else(|_| String::new(), |t| t.display().to_string());
    if fs::metadata(path).is_err() {
        sink.add(
            &rules::FILE_UNREADABLE,
            Place::default(),
            format!("a link to {target}, which is not there"),
        );
    } else if leaves(root, path) {
        sink.add(&rules::LINK_LEAVES, Place::default(), target);
    }
}

/// Whether a path, all links followed, lies outside of a folder. Download caches of `huggingface_hub` keep files in
/// `blobs` beside the folder of links: that is inside.
pub(crate) fn leaves(folder: &Path, path: &Path) -> bool {
    // Of a file that was given by its name alone.
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let (Ok(folder), Ok(target)) = (folder.canonicalize(), path.canonicalize()) else { return false };
    let is_cache = |p: &&Path| {
        let name = p.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        ["models--", "datasets--", "spaces--"].iter().any(|s| name.starts_with(s))
    };
    let blobs = folder.ancestors().find(is_cache).map(|p| p.join("blobs"));
    !target.starts_with(&folder) && !blobs.is_some_and(|b| target.starts_with(b))
}
