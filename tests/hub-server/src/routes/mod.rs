//! Which request goes where. Each file here answers one part of the interface; `None` means "not mine".

pub mod lfs;
pub mod read;
pub mod resolve;
pub mod search;
pub mod write;

use crate::{
    http::{Reply, Request, Side},
    state::State,
};

/// The answer to a request.
pub fn route(state: &State, request: &Request) -> Reply {
    let found = match request.side {
        Side::Cdn => resolve::content(state, request).or_else(|| write::upload(state, request)),
        Side::Hub => write::route(state, request)
            .or_else(|| search::route(state, request))
            .or_else(|| read::route(state, request))
            .or_else(|| resolve::route(state, request)),
    };
    found.unwrap_or_else(|| Reply::error(404, "", "Not Found"))
}

/// `org/name` and what follows, from segments that begin with a repository.
pub(crate) fn repo_of<'a>(state: &State, segments: &'a [String]) -> (String, &'a [String]) {
    match segments {
        [owner, name, rest @ ..] => {
            let id = format!("{owner}/{name}");
            // Few repositories have no owner, and those are known.
            if !state.repos().contains_key(&id) && state.repos().contains_key(owner) {
                (owner.clone(), &segments[1..])
            } else {
                (id, rest)
            }
        }
        _ => (segments.first().cloned().unwrap_or_default(), &[]),
    }
}
