//! A server that speaks the Hub's HTTP interface, for tests and for trying things out without the Hub.
//!
//! It is a real server: TCP, TLS, HTTP/1.1 with kept connections, ranges, redirects to a second port that stands for the
//! content network, access tokens, and faults on demand; and there is a proxy to ask it through. Repositories live in memory or are served from a folder. What it was asked is
//! on record ([`State::log`]), so that a test can say how many bytes were fetched and who was told the token.
//!
//! ```no_run
//! use tensormill_hub_server::{Repo, Server};
//! let server = Server::start();
//! server.state().add(Repo::new("org/tiny").file("config.json", b"{}").lfs("model.safetensors", b"..."));
//! println!("HF_ENDPOINT={}", server.url());
//! ```
//!
//! It depends on no crate of ours: that a client agrees with it shall mean something. The behaviour is that of the Hub as
//! `huggingface_hub` 2.4 expects it. It is no place for secrets: everything it has, it shows.

pub mod faults;
pub mod http;
mod proxy;
pub mod repo;
pub mod routes;
mod server;
pub mod state;
mod tls;

pub use faults::{Fault, What};
pub use http::{Body, Reply, Request, Side};
pub use proxy::Proxy;
pub use repo::{Content, File, Repo};
pub use server::Server;
pub use state::{Seen, State, User};
pub use tls::{ALONE, AUTHORITY, Certificate, OWN};
