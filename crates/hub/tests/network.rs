//! Networks as companies have them: proxies, and certificates of an authority of their own. Settings come from variables, as
//! programs read them.

mod common;

use common::address;
use std::{
    collections::BTreeMap,
    fs,
    io::{Read, Write},
};
use tensormill_hub::{Hub, Retry, Settings, Silent, push};
use tensormill_hub_server::{ALONE, AUTHORITY, Certificate, OWN, Proxy, Repo, Server, Side, User};
use tensormill_model::{Error, ErrorKind, Result};

const TOKEN: &str = "hf_theTokenOfTheTests";

/// A file that does not fit into a buffer.
fn weights() -> Vec<u8> {
    (0..3_000_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

fn with_model(server: Server) -> Server {
    server.state().add(Repo::new("org/tiny").file("config.json", b"{}").lfs("model.safetensors", &weights()));
    let user = User { name: "me".into(), orgs: vec!["org".into()], writes: true, ..User::default() };
    server.state().user(TOKEN, user);
    server
}

/// A hub whose environment is this.
fn hub(server: &Server, vars: &[(&str, &str)]) -> Result<(Hub, tempfile::TempDir)> {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().to_str().unwrap();
    let mut all = BTreeMap::from([("HF_ENDPOINT", server.url()), ("HF_TOKEN", TOKEN), ("HF_HOME", home)]);
    all.extend(vars.iter().copied());
    let settings = Settings::from_vars(&|name| all.get(name).map(|v| (*v).to_owned()))?;
    Ok((Hub::new(Settings { retry: Retry::at_once(), ..settings })?, dir))
}

fn try_pull(server: &Server, vars: &[(&str, &str)]) -> Result<()> {
    let (hub, _dir) = hub(server, vars)?;
    let snapshot = hub.model(&address("org/tiny"))?;
    let found = hub.fetch(&snapshot, &["config.json", "model.safetensors"], &Silent)?;
    assert!(fs::read(found.folder.join("model.safetensors")).unwrap() == weights());
    Ok(())
}

#[track_caller]
fn pulls(server: &Server, vars: &[(&str, &str)]) {
    try_pull(server, vars).unwrap();
}

#[track_caller]
fn refused(server: &Server, vars: &[(&str, &str)], kind: ErrorKind, said: &[&str]) -> String {
    let e: Error = try_pull(server, vars).unwrap_err();
    let text = format!("{e} {}", e.hint_text().unwrap_or_default());
    assert_eq!(e.kind(), kind, "{text}");
    assert!(!e.is_transient(), "{text}");
    for part in said {
        assert!(text.contains(part), "{part} in {text}");
    }
    text
}

#[track_caller]
fn pushes(server: &Server, vars: &[(&str, &str)]) {
    let folder = tempfile::tempdir().unwrap();
    let bytes: Vec<u8> = weights().into_iter().rev().collect();
    fs::write(folder.path().join("model.bin"), &bytes).unwrap();
    fs::write(folder.path().join("README.md"), "# A model").unwrap();
    let (hub, _dir) = hub(server, vars).unwrap();
    let request = common::whole(folder.path(), "org/new");
    let stop = false.into();
    push::plan(&hub, request, &(), &stop).unwrap().run(&(), &stop, 3).unwrap();
    let repo = server.state().repos()["org/new"].clone();
    assert!(repo.head().files["model.bin"].content.bytes().unwrap() == bytes);
}

#[test]
fn proxies_are_asked_for_whole_addresses() {
    let server = with_model(Server::start());
    let proxy = Proxy::start();
    let url = proxy.url();
    for name in ["HTTP_PROXY", "http_proxy", "ALL_PROXY"] {
        server.state().clear_log();
        pulls(&server, &[(name, &url)]);
        let asked = proxy.asked();
        assert_eq!(asked.len(), server.state().log().len(), "everything goes through the proxy: {asked:?}");
        let whole = |a: &String| a.contains(" http://127.0.0.1:");
        assert!(asked.len() > 3 && asked.iter().all(whole), "{asked:?}");
    }
    pushes(&server, &[("HTTP_PROXY", &url)]);
    let asked = proxy.asked();
    assert!(asked.iter().any(|a| a.starts_with("PUT http://")), "{asked:?}");
    assert!(asked.iter().all(|a| !a.starts_with("CONNECT")), "{asked:?}");
    // Names are the proxy's to resolve.
    let named = server.url().replace("127.0.0.1", "hub.test");
    pulls(&server, &[("HTTP_PROXY", &url), ("HF_ENDPOINT", &named)]);
    assert!(proxy.asked().iter().any(|a| a.starts_with(&format!("GET {named}/api/models/org/tiny/"))));
    // Those that are none of it.
    for no_proxy in ["127.0.0.1", "localhost,127.0.0.0/8", "*"] {
        pulls(&server, &[("HTTP_PROXY", &url), ("NO_PROXY", no_proxy)]);
        assert_eq!(proxy.asked(), [""; 0], "{no_proxy}");
    }
    pulls(&server, &[("HTTPS_PROXY", &url)]);
    assert_eq!(proxy.asked(), [""; 0]);
}

#[test]
fn proxies_make_tunnels_for_what_is_encrypted() {
    let server = with_model(Server::start_tls(Certificate::Good));
    let proxy = Proxy::start();
    let url = proxy.url();
    let trusted = ("SSL_CERT_FILE", AUTHORITY);
    for name in ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"] {
        pulls(&server, &[(name, &url), trusted]);
        let asked = proxy.asked();
        assert!(!asked.is_empty() && asked.iter().all(|a| a.starts_with("CONNECT 127.0.0.1:")), "{asked:?}");
    }
    pushes(&server, &[("HTTPS_PROXY", &url), trusted]);
    assert!(!proxy.asked().is_empty());
    pulls(&server, &[("HTTPS_PROXY", &url), ("NO_PROXY", "127.0.0.1"), trusted]);
    assert_eq!(proxy.asked(), [""; 0]);
    // A moment's trouble is waited for, a refusal is not.
    proxy.refuse(503);
    pulls(&server, &[("HTTPS_PROXY", &url), trusted]);
    proxy.asked();
    proxy.refuse(403);
    refused(
        &server,
        &[("HTTPS_PROXY", &url), trusted],
        ErrorKind::Io,
        &["proxy does not permit", "403", "NO_PROXY"],
    );
    assert_eq!(proxy.asked().len(), 1);
}

#[test]
fn proxies_are_told_the_password_that_their_address_holds() {
    for server in [Server::start(), Server::start_tls(Certificate::Good)] {
        let server = with_model(server);
        let proxy = Proxy::start();
        let right = proxy.url_with("me:p%40ss%3Aword", "me:p@ss:word");
        let trusted = ("SSL_CERT_FILE", AUTHORITY);
        pulls(&server, &[("ALL_PROXY", &right), trusted]);
        assert!(!proxy.asked().is_empty());
        for wrong in [proxy.url(), right.replace("p%40ss", "secret")] {
            let said = ["407", "http://user:password@host:port"];
            let text = refused(&server, &[("ALL_PROXY", &wrong), trusted], ErrorKind::Io, &said);
            assert!(!text.contains("secret") && !text.contains("word@127"), "{text}");
            assert_eq!(proxy.asked().len(), 1, "asked once");
        }
        // The server never hears what is the proxy's.
        assert!(server.state().log().iter().all(|s| s.header("proxy-authorization").is_none()));
    }
    let server = with_model(Server::start());
    refused(&server, &[("ALL_PROXY", "socks5://127.0.0.1:1")], ErrorKind::Unsupported, &["SOCKS"]);
    let text = refused(&server, &[("HTTP_PROXY", "http://me:secret@")], ErrorKind::Usage, &["HTTP_PROXY"]);
    assert!(!text.contains("secret"), "{text}");
}

#[test]
fn encrypted_servers_are_trusted_by_an_authority_of_ones_own() {
    let server = with_model(Server::start_tls(Certificate::Good));
    for name in ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"] {
        pulls(&server, &[(name, AUTHORITY)]);
    }
    // A bundle that somebody put together, with what else there is.
    let dir = tempfile::tempdir().unwrap();
    let bundle = dir.path().join("bundle.pem");
    let parts = [OWN, AUTHORITY].map(|f| fs::read_to_string(f).unwrap());
    fs::write(&bundle, format!("# ours\n{}\n# theirs\n{}", parts[0], parts[1])).unwrap();
    pulls(&server, &[("SSL_CERT_FILE", bundle.to_str().unwrap())]);
    pushes(&server, &[("SSL_CERT_FILE", AUTHORITY)]);
    // A server that signed itself.
    pulls(&with_model(Server::start_tls(Certificate::Alone)), &[("SSL_CERT_FILE", ALONE)]);
    // The token goes to the Hub's origin, and to no other port of it.
    let log = server.state().log();
    let told =
        |side: Side| log.iter().filter(move |s| s.side == side).map(|s| s.header("authorization").is_some());
    assert!(told(Side::Hub).all(|t| t) && told(Side::Cdn).count() > 0 && !told(Side::Cdn).any(|t| t));
}

#[test]
fn certificates_that_are_not_trusted_say_what_to_do() {
    let untrusted = |server: Server, vars: &[(&str, &str)], said: &[&str]| {
        let server = with_model(server);
        refused(&server, vars, ErrorKind::Io, said);
        assert!(server.state().log().is_empty(), "nothing was asked, and no token was told");
    };
    let trusted = ("SSL_CERT_FILE", AUTHORITY);
    untrusted(Server::start_tls(Certificate::Good), &[], &["not trusted here", "SSL_CERT_FILE"]);
    let own = ("SSL_CERT_FILE", OWN);
    untrusted(Server::start_tls(Certificate::Good), &[own], &["not trusted here", "SSL_CERT_FILE"]);
    untrusted(Server::start_tls(Certificate::Own), &[own], &["cannot be accepted", "CaUsedAsEndEntity"]);
    untrusted(Server::start_tls(Certificate::Expired), &[trusted], &["not valid at this time", "clock"]);
    let server = Server::start_tls(Certificate::Good);
    let other = server.url().replace("127.0.0.1", "localhost");
    untrusted(server, &[trusted, ("HF_ENDPOINT", &other)], &["not that of localhost", "HF_ENDPOINT"]);
    // What answers in words that are not encrypted, as web servers do.
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let encrypted = format!("https://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").unwrap();
        drop(stream.read(&mut [0; 4096]));
    });
    let said = ["does not speak TLS", "http://"];
    untrusted(Server::start(), &[trusted, ("HF_ENDPOINT", &encrypted)], &said);
}

#[test]
fn files_of_certificates_are_looked_at_before_anything_is_asked() {
    let server = with_model(Server::start());
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("none.pem");
    let none = path.to_str().unwrap();
    refused(&server, &[("REQUESTS_CA_BUNDLE", none)], ErrorKind::Io, &["none.pem", "REQUESTS_CA_BUNDLE"]);
    fs::write(&path, "").unwrap();
    refused(&server, &[("SSL_CERT_FILE", none)], ErrorKind::Malformed, &["none.pem", "no certificate"]);
    assert!(server.state().log().is_empty());
    // Where nothing is asked, it does not matter.
    let vars = [("SSL_CERT_FILE", none), ("ALL_PROXY", "socks5://nowhere"), ("HF_HUB_OFFLINE", "1")];
    assert!(hub(&server, &vars).is_ok());
}
