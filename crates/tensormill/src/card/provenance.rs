//! Where a source came from, as its place tells: a snapshot in the Hub's cache knows its repository and its commit.

use std::path::{Component, Path};
use tensormill_card::privacy::hub_id;

/// Hub id and revision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Provenance {
    /// `org/name`.
    pub(crate) repository: Option<String>,
    /// Commit.
    pub(crate) revision: Option<String>,
}

impl Provenance {
    /// `.../models--org--name/snapshots/COMMIT`, or `hf://org/name@revision`.
    pub(crate) fn of(path: &Path) -> Self {
        if let Some(id) = path.to_str().and_then(|p| p.strip_prefix("hf://")) {
            let (id, revision) = id.split_once('@').map_or((id, None), |(id, r)| (id, Some(r)));
            let id = id.split('/').take(2).collect::<Vec<_>>().join("/");
            let repository = hub_id(&id).map(str::to_owned);
            return Self {
                repository,
                revision: revision.and_then(|r| r.split('/').next()).map(str::to_owned),
            };
        }
        let full = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let parts: Vec<String> = full
            .components()
            .filter_map(|c| match c {
                Component::Normal(n) => Some(n.to_string_lossy().into_owned()),
                _ => None,
            })
            .collect();
        for w in parts.windows(3) {
            if let (Some(id), "snapshots") = (w[0].strip_prefix("models--"), w[1].as_str()) {
                let id = id.replacen("--", "/", 1);
                if hub_id(&id).is_some() {
                    return Self { repository: Some(id), revision: Some(w[2].clone()) };
                }
            }
        }
        Self::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_knows_its_repository() {
        let p = Provenance::of(Path::new("/c/hub/models--org--a-model/snapshots/0123abc/model.safetensors"));
        assert_eq!((p.repository.as_deref(), p.revision.as_deref()), (Some("org/a-model"), Some("0123abc")));
        let p = Provenance::of(Path::new("hf://org/name@v1"));
        assert_eq!((p.repository.as_deref(), p.revision.as_deref()), (Some("org/name"), Some("v1")));
        assert_eq!(Provenance::of(Path::new("/models/org/name")), Provenance::default());
    }
}
