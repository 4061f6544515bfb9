//! A hub that asks a test's server, never waits, and keeps its cache in a folder of the test.

use std::path::Path;
use tensormill_hub::{
    Address, Endpoint, Hub, Retry, Settings, Token,
    push::{self, Patterns, Request, Target},
};
use tensormill_hub_server::Server;

#[allow(dead_code, reason = "some tests make settings of their own")]
pub fn hub(server: &Server, change: impl FnOnce(&mut Settings)) -> Hub {
    let mut settings = Settings {
        endpoint: Endpoint::parse(server.url()).unwrap(),
        retry: Retry::at_once(),
        // Whoever writes without saying where finds out.
        cache: "/nonexistent/cache".into(),
        ..Settings::default()
    };
    change(&mut settings);
    Hub::new(settings).unwrap()
}

#[allow(dead_code, reason = "not every test needs a token")]
pub fn token(text: &str) -> Option<Token> {
    Token::new(text).unwrap()
}

#[allow(dead_code, reason = "not every test asks for a model")]
pub fn address(text: &str) -> Address {
    text.parse().unwrap()
}

/// Everything in a folder, to the branch `main` of a repository, which is created where it is not there.
#[allow(dead_code, reason = "not every test pushes")]
pub fn whole(folder: &Path, repo: &str) -> Request {
    let items = push::list(folder, &Patterns::default()).unwrap().items;
    Request {
        repo: repo.into(),
        create: true,
        visibility: None,
        message: "Upload".into(),
        description: "All of it".into(),
        pull_request: false,
        tag: None,
        targets: vec![Target { branch: "main".into(), items, delete: None }],
    }
}
