//! The Hub: what a repository holds, and which repositories there are.

use crate::{
    address::Address,
    client::{Client, Request},
    mirror::{cached, mirrored},
    query::Query,
    settings::Settings,
    snapshot::{Entry, FILES, Info, Place, Snapshot, TreeEntry},
    status::Subject,
    url::{Url, encode, encode_path},
};
use std::sync::Arc;
use tensormill_model::{Error, Result};

/// Results that the Hub gives on one page, at most.
const PAGE: usize = 100;

/// The Hub, as seen with some settings. Cheap to clone, shareable between threads.
#[derive(Clone, Debug)]
pub struct Hub {
    client: Arc<Client>,
}

impl Hub {
    /// The Hub with these settings. Nothing is sent yet.
    ///
    /// # Errors
    /// As [`Client::new`].
    pub fn new(settings: Settings) -> Result<Self> {
        Ok(Self { client: Arc::new(Client::new(settings)?) })
    }

    /// The client, for requests that this crate has no function for.
    pub fn client(&self) -> &Client {
        &self.client
    }

    pub(crate) fn client_arc(&self) -> Arc<Client> {
        Arc::clone(&self.client)
    }

    /// Where the server has a file of a snapshot.
    pub(crate) fn file_url(&self, snapshot: &Snapshot, path: &str) -> Result<Url> {
        let (repo, commit) = (encode_path(&snapshot.repo), encode(snapshot.pinned()));
        self.client.url(&format!("/{repo}/resolve/{commit}/{}", encode_path(path)))
    }

    /// The settings.
    pub fn settings(&self) -> &Settings {
        self.client.settings()
    }

    /// What the server says of a repository at a revision.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub fn info(&self, address: &Address) -> Result<Info> {
        let path =
            format!("/api/models/{}/revision/{}", encode_path(&address.repo), encode(address.revision()));
        let about = Subject::repo(&address.repo, address.revision());
        self.client.json(&Request::get(self.client.url(&path)?).about(about))
    }

    /// What a repository holds at a revision, which is pinned to a commit here. Offline, it is what the cache knows; where the
    /// endpoint is a mirror, what lies there.
    ///
    /// # Errors
    /// As [`Client::send`]; offline and from a mirror, `Usage` that says what is missing.
    pub fn model(&self, address: &Address) -> Result<Snapshot> {
        if let Some(mirror) = self.settings().mirror() {
            return mirrored(mirror, address);
        }
        let cache = self.cache(&address.repo);
        if self.settings().offline {
            return cached(&cache, address, &self.settings().cache);
        }
        // A commit never changes: what it holds is asked once.
        if let Some(commit) = address.commit()
            && let Some(files) = cache.tree(commit)
        {
            return Ok(Snapshot {
                repo: address.repo.clone(),
                revision: commit.to_owned(),
                commit: Some(commit.to_owned()),
                files,
                info: None,
                place: Place::Server,
            });
        }
        let info = self.info(address)?;
        let commit = info.sha.clone().filter(|sha| crate::address::is_commit(sha)).ok_or_else(|| {
            Error::malformed("the server does not say which commit this revision is")
                .file(&address.repo)
                .hint("check that HF_ENDPOINT is a server that speaks the Hub's interface")
        })?;
        cache.mend(&commit);
        Ok(Snapshot {
            repo: address.repo.clone(),
            revision: address.revision().to_owned(),
            files: self.list(&address.repo, &commit)?,
            commit: Some(commit),
            info: Some(info),
            place: Place::Server,
        })
    }

    /// All files of a commit, page by page, sorted by path.
    fn list(&self, repo: &str, commit: &str) -> Result<Vec<Entry>> {
        let path =
            format!("/api/models/{}/tree/{}?recursive=true&expand=false", encode_path(repo), encode(commit));
        let (mut files, mut listed) = (Vec::new(), 0);
        let mut next = Some(self.client.url(&path)?);
        while let Some(url) = next {
            let (page, more): (Vec<TreeEntry>, Option<Url>) =
                self.client.json_and_next(&Request::get(url).about(Subject::repo(repo, commit)))?;
            // Such a server would keep us forever, or hide what comes after.
            if page.is_empty() && more.is_some() {
                return Err(
                    Error::malformed("a page of the list of files is empty, and not the last").file(repo)
                );
            }
            next = more;
            listed += page.len();
            if listed > FILES {
                return Err(Error::over_limit(format!("more than {FILES} files and folders")).file(repo));
            }
            for entry in page {
                files.extend(entry.file().map_err(|e| e.file(repo))?);
            }
        }
        files.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        files.dedup_by(|a, b| a.path == b.path);
        Ok(files)
    }

    /// Notes in the cache that a commit has no file of this name, as programs look there before they ask.
    ///
    /// # Errors
    /// `Io` where the cache cannot be written; `Malformed` for what is no name.
    pub fn note_absent(&self, snapshot: &Snapshot, path: &str) -> Result<()> {
        crate::address::check_path(path)?;
        match &snapshot.commit {
            Some(commit) if snapshot.is_remote() => self.cache(&snapshot.repo).set_absent(commit, path),
            _ => Ok(()),
        }
    }

    /// Models that a query finds, in its order, at most as many as it wants.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub fn search(&self, query: &Query) -> Result<Vec<Info>> {
        let mut found: Vec<Info> = Vec::new();
        let mut next = Some(self.client.url(&query.path(query.limit.min(PAGE)))?);
        while let Some(url) = next.filter(|_| found.len() < query.limit) {
            let (page, more): (Vec<Info>, Option<Url>) = self.client.json_and_next(&Request::get(url))?;
            // A page without results that promises another is a server that would keep us forever.
            next = more.filter(|_| !page.is_empty());
            found.extend(page);
        }
        found.truncate(query.limit);
        Ok(found)
    }
}
