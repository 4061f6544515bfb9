//! `GET /api/models`: which models there are.

use super::read::{describe, page};
use crate::{
    http::{Reply, Request},
    repo::Repo,
    state::State,
};
use serde_json::Value;

/// Models on one page, where nobody says otherwise.
const PAGE: usize = 1000;

/// The listing, filtered and sorted.
pub fn route(state: &State, request: &Request) -> Option<Reply> {
    if request.method != "GET" || request.path.trim_end_matches('/') != "/api/models" {
        return None;
    }
    let user = match state.who(request) {
        Ok(user) => user,
        Err(reply) => return Some(reply),
    };
    let seen = |r: &&Repo| !r.private || user.as_ref().is_some_and(|u| u.owns(r.owner()));
    let repos = state.repos();
    let mut found: Vec<&Repo> = repos.values().filter(seen).filter(|r| matches(r, request)).collect();
    let key = request.param("sort").unwrap_or("trendingScore");
    let number = |r: &Repo| r.meta.get(key).and_then(Value::as_i64).unwrap_or(0);
    found.sort_by_key(|r| std::cmp::Reverse(number(r)));
    let entries: Vec<Value> = found.iter().map(|r| Value::Object(describe(r, r.head()))).collect();
    drop(repos);
    Some(page(state, request, &entries, PAGE))
}

fn matches(repo: &Repo, request: &Request) -> bool {
    let text = |key: &str| repo.meta.get(key).and_then(Value::as_str);
    let tags = repo.meta.get("tags").and_then(Value::as_array);
    let tagged = |tag: &str| {
        tags.is_some_and(|t| t.iter().any(|v| v.as_str() == Some(tag)))
            || text("library_name") == Some(tag)
            || text("pipeline_tag") == Some(tag)
    };
    request.param("author").is_none_or(|a| repo.owner() == a)
        && request.param("search").is_none_or(|s| repo.id.to_lowercase().contains(&s.to_lowercase()))
        && request.param("pipeline_tag").is_none_or(|t| text("pipeline_tag") == Some(t))
        && request.params("filter").iter().flat_map(|f| f.split(',')).all(tagged)
}
