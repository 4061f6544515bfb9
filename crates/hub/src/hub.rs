//! The Hub: what a repository holds, and which repositories there are.

use crate::{
    address::Address,
    client::{Client, Request},
    query::Query,
    settings::Settings,
    snapshot::{Entry, Info, Place, Snapshot, TreeEntry},
    status::Subject,
    url::{Url, encode, encode_path},
};
use std::sync::Arc;
use tensormill_model::{Error, Result};

/// Results that the Hub gives on one page, at most.
const PAGE: usize = 100;

/// Files of one repository, at most: beyond it a listing is refused before it fills memory.
const FILES: usize = 1 << 20;

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

    /// What a repository holds at a revision, which is pinned to a commit here.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub fn model(&self, address: &Address) -> Result<Snapshot> {
        let info = self.info(address)?;
        let commit = info.sha.clone().filter(|sha| crate::address::is_commit(sha)).ok_or_else(|| {
            Error::malformed("the server does not say which commit this revision is")
                .file(&address.repo)
                .hint("check that HF_ENDPOINT is a server that speaks the Hub's interface")
        })?;
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
        let mut files = Vec::new();
        let mut next = Some(self.client.url(&path)?);
        while let Some(url) = next {
            let (page, more): (Vec<TreeEntry>, Option<Url>) =
                self.client.json_and_next(&Request::get(url).about(Subject::repo(repo, commit)))?;
            for entry in page {
                files.extend(entry.file().map_err(|e| e.file(repo))?);
            }
            if files.len() > FILES {
                return Err(Error::over_limit(format!("more than {FILES} files")).file(repo));
            }
            next = more;
        }
        files.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        files.dedup_by(|a, b| a.path == b.path);
        Ok(files)
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
