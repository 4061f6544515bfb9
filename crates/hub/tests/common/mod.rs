//! A hub that asks a test's server, never waits, and keeps its cache in a folder of the test.

use tensormill_hub::{Address, Endpoint, Hub, Retry, Settings, Token};
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
