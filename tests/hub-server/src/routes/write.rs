//! What changes repositories: creating them, uploads, commits, branches and tags.

use crate::{
    http::{Reply, Request},
    state::State,
};

/// What uploads keep between requests.
#[derive(Debug, Default)]
pub struct Uploads {}

/// Requests to the Hub.
pub fn route(_: &State, _: &Request) -> Option<Reply> {
    None
}

/// Bytes sent to the content network.
pub fn upload(_: &State, _: &Request) -> Option<Reply> {
    None
}
