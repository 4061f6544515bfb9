//! Where a source came from, as its place tells: a snapshot in the Hub's cache knows its repository and its commit.

use crate::Location;
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
    /// An address says it; a path may be `.../models--org--name/snapshots/COMMIT`.
    pub(crate) fn of(at: &Location) -> Self {
        match at {
            Location::Hub(a) => Self { repository: Some(a.repo.clone()), revision: a.revision.clone() },
            Location::Local(path) => Self::of_path(path),
        }
    }

    fn of_path(path: &Path) -> Self {
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
        let p = Provenance::of(&Location::from(
            "/c/hub/models--org--a-model/snapshots/0123abc/model.safetensors",
        ));
        assert_eq!((p.repository.as_deref(), p.revision.as_deref()), (Some("org/a-model"), Some("0123abc")));
        let p = Provenance::of(&"hf://org/name@v1".parse().unwrap());
        assert_eq!((p.repository.as_deref(), p.revision.as_deref()), (Some("org/name"), Some("v1")));
        assert_eq!(Provenance::of(&Location::from("/models/org/name")), Provenance::default());
    }
}
