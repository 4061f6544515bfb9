//! How the Hub is reached, and what was read of it: shared by everything that one job opens.
//!
//! The environment is looked at when the first address is, and not before: who works on this machine alone needs neither
//! a cache folder nor a token.

use super::{Dir, Found, repository::Repository};
use serde::Serialize;
use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, atomic::AtomicBool},
};
use tensormill_engine::Progress;
use tensormill_hub::{Address, Hub, Settings};
use tensormill_model::{Error, Result};

/// What a user says about it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    /// Read files where they are, range by range: nothing is put into the cache.
    pub no_cache: bool,
    /// Ask nobody: what is in the cache is all there is.
    pub offline: bool,
}

/// How the Hub is reached. Cheap to clone; clones share connections and what is known of repositories, so that a branch is
/// the same commit throughout a job.
#[derive(Clone, Default)]
pub struct Access(Arc<Shared>);

#[derive(Default)]
struct Shared {
    reach: Reach,
    /// In place of the environment's.
    settings: Option<Settings>,
    hub: OnceLock<Hub>,
    /// By name and revision.
    repositories: Mutex<BTreeMap<(String, String), Arc<Repository>>>,
}

/// What was read of a repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RepositoryReport {
    /// `org/model`.
    pub repository: String,
    /// What was asked for: a branch, a tag, a commit.
    pub revision: String,
    /// The commit that was.
    pub commit: Option<String>,
    /// The files that were read, all or in part, by name.
    pub files: Vec<RepositoryFile>,
}

/// A file of a repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RepositoryFile {
    /// Its name.
    pub path: String,
    /// Its length in bytes.
    pub bytes: u64,
    /// SHA-256 of its bytes; of small files, which Git itself holds, nobody says it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// Its hash in Git: of its bytes, or where there is a SHA-256, of the pointer to them.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub git_oid: String,
}

impl Access {
    /// As the environment says, and as is said here.
    pub fn new(reach: Reach) -> Self {
        Self(Arc::new(Shared { reach, ..Shared::default() }))
    }

    /// With settings in place of the environment's.
    pub fn with_settings(reach: Reach, settings: Settings) -> Self {
        Self(Arc::new(Shared { reach, settings: Some(settings), ..Shared::default() }))
    }

    fn hub(&self) -> Result<&Hub> {
        if let Some(hub) = self.0.hub.get() {
            return Ok(hub);
        }
        let mut settings = match &self.0.settings {
            Some(settings) => settings.clone(),
            None => Settings::from_env()?,
        };
        settings.offline |= self.0.reach.offline;
        // A mirror is asked without a request.
        if settings.offline && self.0.reach.no_cache && settings.mirror().is_none() {
            return Err(Error::usage(
                "without the cache, every byte is a request, and requests are switched off",
            )
            .hint("leave out --no-cache, or --offline and HF_HUB_OFFLINE"));
        }
        let hub = Hub::new(settings)?;
        Ok(self.0.hub.get_or_init(|| hub))
    }

    fn repositories(&self) -> MutexGuard<'_, BTreeMap<(String, String), Arc<Repository>>> {
        self.0.repositories.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The repository of an address, at the commit that its revision is; asked once.
    pub(super) fn repository(&self, address: &Address) -> Result<Arc<Repository>> {
        let hub = self.hub()?;
        let key = (address.repo.clone(), address.revision().to_owned());
        let mut known = self.repositories();
        if let Some(found) = known.get(&key) {
            return Ok(Arc::clone(found));
        }
        let found = Arc::new(Repository::open(hub, address, !self.0.reach.no_cache)?);
        known.insert(key, Arc::clone(&found));
        Ok(found)
    }

    /// A folder of a repository, with the names of all files in it and below; of a file, that name and its folder.
    ///
    /// # Errors
    /// Where it cannot be reached, and for what is not there.
    pub(crate) fn listed(&self, address: &Address) -> Result<(Arc<dyn Dir>, Vec<String>)> {
        let repository = self.repository(address)?;
        Ok(match repository.find(address)?.1 {
            Found::Folder(dir) => (dir, repository.names_below(address.path.as_deref().unwrap_or_default())),
            Found::File { name, dir, .. } => (dir, vec![name]),
        })
    }

    /// Which commits branches and tags are.
    pub fn notes(&self) -> Vec<String> {
        self.repositories().values().filter_map(|r| r.note()).collect()
    }

    /// What was read so far, by repository.
    pub fn reports(&self) -> Vec<RepositoryReport> {
        self.repositories().values().map(|r| r.report()).collect()
    }

    /// Of what was opened so far, no more is needed than headers: [`Self::fetch`] leaves it out.
    pub(crate) fn headers_only(&self) {
        self.repositories().values().for_each(|r| r.headers_only());
    }

    /// Puts the files that were opened into the cache, and reads them there from now on. Without a cache, nothing.
    ///
    /// # Errors
    /// As fetching them; `Cancelled`.
    pub fn fetch(&self, progress: &dyn Progress, cancel: &AtomicBool) -> Result<()> {
        let all: Vec<_> = self.repositories().values().cloned().collect();
        all.iter().try_for_each(|r| r.fetch(progress, cancel))
    }
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Access").field(&self.0.reach).finish()
    }
}
