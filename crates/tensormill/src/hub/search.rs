//! Finding models, as rows.

use serde::Serialize;
use tensormill_hub::{Gate, Hub, Query};
use tensormill_model::Result;

/// A model that was found; what the Hub does not say is `None`.
#[derive(Clone, Debug, Serialize)]
pub struct Found {
    /// `org/model`.
    pub id: String,
    /// Commit of its main branch.
    pub commit: Option<String>,
    /// Task.
    pub task: Option<String>,
    /// Library.
    pub library: Option<String>,
    /// Licence.
    pub license: Option<String>,
    /// Downloads of the last month.
    pub downloads: Option<u64>,
    /// Likes.
    pub likes: Option<u64>,
    /// Time of the last commit.
    pub last_modified: Option<String>,
    /// Whether only some accounts see it.
    pub private: bool,
    /// Whether its terms have to be accepted.
    pub gated: Gate,
    /// Tags.
    pub tags: Vec<String>,
}

/// Models that a query finds, in its order.
///
/// # Errors
/// `Io` where the Hub cannot be asked, `Usage` offline and where the endpoint is a folder.
pub fn search(hub: &Hub, query: &Query) -> Result<Vec<Found>> {
    let row = |info: tensormill_hub::Info| Found {
        license: info.license().map(str::to_owned),
        id: info.id,
        commit: info.sha,
        task: info.pipeline_tag,
        library: info.library_name,
        downloads: info.downloads,
        likes: info.likes,
        last_modified: info.last_modified,
        private: info.private,
        gated: info.gated,
        tags: info.tags,
    };
    Ok(hub.search(query)?.into_iter().map(row).collect())
}
