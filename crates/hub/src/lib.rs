//! The Hugging Face Hub: repositories found, listed and fetched into the cache that every other tool uses, and read in place
//! by ranges; folders [published](push).
//!
//! ```no_run
//! use tensormill_hub::{Hub, Settings};
//! let hub = Hub::new(Settings::from_env()?)?;
//! let snapshot = hub.model(&"org/model@main".parse()?)?;
//! println!("{} files at {}", snapshot.files.len(), snapshot.pinned());
//! # Ok::<(), tensormill_model::Error>(())
//! ```
//!
//! - A revision is pinned to a commit once; everything after speaks of the commit.
//! - What is fetched is verified against the hash that the Hub lists, and stands under its name only then.
//! - The token goes to the endpoint's own host and into no output, message or file.
//!
//! This crate must *not* know any format or what a model is; which files a job needs is decided by their names alone.

pub mod address;
mod agents;
pub mod answers;
mod blocks;
mod cache;
pub mod client;
mod digest;
mod fetch;
mod forward;
mod glob;
mod hub;
mod json;
mod mirror;
mod pieces;
pub mod push;
mod query;
mod remote;
pub mod retry;
mod room;
pub mod settings;
mod snapshot;
mod status;
mod tls;
pub mod url;
mod wanted;

pub use address::Address;
pub use cache::RepoCache;
pub use client::Client;
pub use fetch::{Fetched, Progress, Silent};
pub use glob::matches;
pub use hub::Hub;
pub use query::{Query, Sort};
pub use remote::{RemoteDir, RemoteFile};
pub use retry::Retry;
pub use settings::{Endpoint, Proxies, Settings, Token};
pub use snapshot::{Entry, Gate, Info, Snapshot};
pub use status::Subject;
pub use wanted::{Need, wanted};
