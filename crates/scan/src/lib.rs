//! Audits model files for what loaders would execute, and for what should not be published.
//!
//! Nothing is executed, imported, unpacked to disk or fetched. Weights are not read: of each file, headers, and those
//! parts that loaders interpret. Memory stays within some tens of megabytes and the time with what is read, whatever
//! files say of themselves; what lies behind a bound is a finding of its own.
//!
//! Every finding follows a [`Rule`] with a stable name; [`RULES`] lists them. This crate must *not* know terminals, jobs
//! or engines, nor how models are converted: it looks where converters do not.
//!
//! ```no_run
//! let report = tensormill_scan::scan(&["model-folder".into()])?;
//! for f in &report.findings {
//!     println!("{:?} {} {} {}: {}", f.severity, f.rule, f.file, f.place.text(), f.found);
//! }
//! # Ok::<(), tensormill_model::Error>(())
//! ```

mod archive;
mod bytes;
mod config;
mod content;
mod finding;
mod gguf;
mod json;
mod keras;
mod names;
mod numpy;
mod onnx;
mod pickle;
mod proto;
mod rules;
mod salvage;
mod template;
mod tensorflow;
mod text;
mod torchscript;
mod walk;
mod zip;

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    sync::Arc,
};
use tensormill_model::{Result, Store};

pub use finding::{Counts, Finding, Place, Report, Severity, shown};
pub use rules::{RULES, Rule};

/// Looks at one file that is not on a disk. Its name says what it promises to be, as file names do.
pub fn scan_store(name: &str, store: &Arc<dyn Store>) -> Report {
    let mut report = Report::new(vec![name.to_owned()]);
    content::in_store(Path::new(name), Ok(Arc::clone(store)), &HashSet::new(), &mut report);
    report
}

/// Opens a file by its name in a listing.
pub type Opener = Box<dyn Fn(&str) -> Result<Arc<dyn Store>>>;

/// Files that are not on a disk, as a repository lists them.
pub struct Listing {
    /// What stands before names in findings.
    pub at: String,
    /// Names of files, with slashes, sorted.
    pub names: Vec<String>,
    /// Opens one.
    pub open: Opener,
}

/// What is looked at.
pub enum Target {
    /// A file or folder of this machine.
    Path(PathBuf),
    /// Files that are somewhere else.
    Listing(Listing),
}

/// Looks at files and folders.
///
/// # Errors
/// `Io` and `Usage` where a path that was given cannot be opened. What is wrong below it is a finding.
pub fn scan(paths: &[PathBuf]) -> Result<Report> {
    scan_all(&paths.iter().cloned().map(Target::Path).collect::<Vec<_>>())
}

/// Looks at files and folders, wherever they are.
///
/// # Errors
/// As [`scan`].
pub fn scan_all(targets: &[Target]) -> Result<Report> {
    let name = |t: &Target| match t {
        Target::Path(path) => path.display().to_string(),
        Target::Listing(listing) => listing.at.clone(),
    };
    let mut report = Report::new(targets.iter().map(name).collect());
    for target in targets {
        match target {
            Target::Path(path) => walk::path(path, &mut report)?,
            Target::Listing(listing) => walk::listing(listing, &mut report),
        }
    }
    // Within a file, what is worst comes first, rule by rule.
    report.findings.sort_by(|a, b| (&a.file, b.severity, a.rule).cmp(&(&b.file, a.severity, b.rule)));
    Ok(report)
}
