//! What the server knows: repositories, accounts, faults, and what it was asked.

use crate::{
    faults::Fault,
    http::{Reply, Request, Side},
    repo::Repo,
    routes::write::Uploads,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, OnceLock},
};

/// An account.
#[derive(Clone, Debug, Default)]
pub struct User {
    /// Its name; it owns `name/...`.
    pub name: String,
    /// Organisations whose repositories it may see and change.
    pub orgs: Vec<String>,
    /// Gated repositories whose terms it has accepted.
    pub accepted: BTreeSet<String>,
    /// Whether its token may write.
    pub writes: bool,
}

impl User {
    /// Whether repositories of this owner are its own.
    pub fn owns(&self, owner: &str) -> bool {
        self.name == owner || self.orgs.iter().any(|o| o == owner)
    }
}

/// A request on record.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The port.
    pub side: Side,
    /// Method.
    pub method: String,
    /// Path and query, as sent.
    pub path: String,
    /// Parameters.
    pub query: Vec<(String, String)>,
    /// Headers.
    pub headers: Vec<(String, String)>,
    /// Status of the answer; 0 where there was none.
    pub status: u16,
    /// Bytes of the body that were sent.
    pub sent: u64,
    /// Bytes of the request's body.
    pub received: u64,
}

impl Seen {
    /// A header of the request.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(k, _)| k == name).map(|(_, v)| v.as_str())
    }
}

/// The state of a server. Everything is behind locks of its own: routes hold one at a time.
#[derive(Debug, Default)]
pub struct State {
    repos: Mutex<BTreeMap<String, Repo>>,
    users: Mutex<BTreeMap<String, User>>,
    faults: Mutex<Vec<Fault>>,
    log: Mutex<Vec<Seen>>,
    /// What the routes that write keep between requests.
    pub uploads: Mutex<Uploads>,
    /// Entries on one page of a listing.
    pub page: Mutex<Option<usize>>,
    pub(crate) urls: OnceLock<(String, String)>,
}

fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl State {
    /// The repositories by id.
    pub fn repos(&self) -> MutexGuard<'_, BTreeMap<String, Repo>> {
        lock(&self.repos)
    }
    /// The accounts by token.
    pub fn users(&self) -> MutexGuard<'_, BTreeMap<String, User>> {
        lock(&self.users)
    }
    /// The faults.
    pub fn faults(&self) -> MutexGuard<'_, Vec<Fault>> {
        lock(&self.faults)
    }
    /// Requests so far, in the order of their answers.
    pub fn log(&self) -> Vec<Seen> {
        lock(&self.log).clone()
    }
    /// Forgets the requests so far.
    pub fn clear_log(&self) {
        lock(&self.log).clear();
    }
    /// How many requests had `path` in their path.
    pub fn count(&self, path: &str) -> usize {
        lock(&self.log).iter().filter(|s| s.path.contains(path)).count()
    }
    /// Body bytes that were sent in answer to `GET` requests with `path` in their path.
    pub fn sent(&self, path: &str) -> u64 {
        lock(&self.log).iter().filter(|s| s.method == "GET" && s.path.contains(path)).map(|s| s.sent).sum()
    }
    pub(crate) fn note(&self, request: &Request, status: u16, sent: u64) {
        lock(&self.log).push(Seen {
            side: request.side,
            method: request.method.clone(),
            path: request.path.clone(),
            query: request.query.clone(),
            headers: request.headers.clone(),
            status,
            sent,
            received: request.body.len() as u64,
        });
    }

    /// Adds a repository, or puts one in its place.
    pub fn add(&self, repo: Repo) {
        self.repos().insert(repo.id.clone(), repo);
    }
    /// Adds an account.
    pub fn user(&self, token: &str, user: User) {
        self.users().insert(token.to_owned(), user);
    }
    /// Adds a fault.
    pub fn fault(&self, fault: Fault) {
        self.faults().push(fault);
    }

    /// URL of the Hub's port.
    pub fn hub(&self) -> &str {
        self.urls.get().map_or("", |(hub, _)| hub)
    }
    /// URL of the content network's port.
    pub fn cdn(&self) -> &str {
        self.urls.get().map_or("", |(_, cdn)| cdn)
    }

    /// Who asks.
    ///
    /// # Errors
    /// The answer to a token that nobody has.
    pub fn who(&self, request: &Request) -> Result<Option<User>, Reply> {
        let Some(token) = request.token() else { return Ok(None) };
        match self.users().get(token) {
            Some(user) => Ok(Some(user.clone())),
            None => Err(Reply::error(401, "", "Invalid credentials in Authorization header")),
        }
    }

    /// A repository that whoever asks may see. `files` says whether its terms matter: metadata is shown without.
    ///
    /// # Errors
    /// The answer to who may not.
    pub fn visible(&self, request: &Request, id: &str, files: bool) -> Result<Repo, Reply> {
        let user = self.who(request)?;
        let owns = |repo: &Repo| user.as_ref().is_some_and(|u| u.owns(repo.owner()));
        let repo = self.repos().get(id).filter(|r| !r.private || owns(r)).cloned();
        let Some(repo) = repo else {
            // As the Hub does: nobody learns whether a private repository exists.
            return Err(match user {
                Some(_) => Reply::error(404, "RepoNotFound", "Repository not found"),
                None => Reply::error(401, "RepoNotFound", "Invalid username or password."),
            });
        };
        let let_in = owns(&repo) || user.as_ref().is_some_and(|u| u.accepted.contains(id));
        if files && repo.gated.is_some() && !let_in {
            let message = format!(
                "Access to model {id} is restricted. You must have access to it and be authenticated to access it. Please log in."
            );
            return Err(Reply::error(if user.is_some() { 403 } else { 401 }, "GatedRepo", &message));
        }
        Ok(repo)
    }
}
