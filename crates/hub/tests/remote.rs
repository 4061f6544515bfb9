//! Files read in place, by ranges.

mod common;

use common::address;
use std::time::Duration;
use tensormill_hub::{Hub, RemoteDir};
use tensormill_hub_server::{Fault, Repo, Server, Side, What};
use tensormill_model::{Assets, ErrorKind, Folder, Store};

const BIG: usize = 2 << 20;

fn bytes() -> Vec<u8> {
    (0..BIG as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

fn setup() -> (Server, Hub) {
    let server = Server::start();
    server.state().add(
        Repo::new("org/tiny")
            .file("config.json", b"{}")
            .file("1_Pooling/config.json", b"[]")
            .lfs("model.safetensors", &bytes()),
    );
    let hub = common::hub(&server, |s| s.retry.attempts = 4);
    (server, hub)
}

fn open(hub: &Hub) -> RemoteDir {
    RemoteDir::new(hub, hub.model(&address("org/tiny")).unwrap()).unwrap()
}

#[test]
fn a_remote_folder_is_like_a_local_one() {
    let (_server, hub) = setup();
    let dir = open(&hub);
    assert_eq!(Assets::name(&dir), "tiny");
    assert_eq!(dir.names(), ["config.json", "model.safetensors"]);
    assert!(dir.label().starts_with("hf://org/tiny@"));
    assert_eq!(dir.read("config.json").unwrap().unwrap(), b"{}");
    assert_eq!(dir.read("1_Pooling/config.json").unwrap().unwrap(), b"[]");
    assert_eq!(dir.read("no.json").unwrap(), None);
    assert!(dir.store("no.bin").unwrap().is_none());
    for bad in ["../x", "/etc/passwd", ""] {
        assert_eq!(dir.read(bad).unwrap_err().kind(), ErrorKind::Malformed);
    }
    let inner = dir.subfolder("1_Pooling").unwrap();
    assert_eq!((inner.names(), Assets::name(&inner)), (vec!["config.json".to_owned()], "1_Pooling"));
    assert!(dir.subfolder("2_Pooling").is_err());
}

#[test]
fn reads_fetch_what_they_need_and_little_more() {
    let (server, hub) = setup();
    let file = open(&hub).open("model.safetensors").unwrap().unwrap();
    let all = bytes();
    server.state().clear_log();
    let mut out = vec![0; 1 << 20];
    file.read_at(12_345, &mut out).unwrap();
    assert_eq!(out, all[12_345..12_345 + (1 << 20)]);
    assert_eq!(server.state().sent("/blobs/"), 1 << 20, "large reads are exact");
    // Header fields: one request for all that lie together.
    server.state().clear_log();
    for at in 0..100 {
        let mut out = [0; 8];
        file.read_at(at * 8, &mut out).unwrap();
        assert_eq!(out, all[at as usize * 8..][..8]);
    }
    assert_eq!(server.state().count("/blobs/"), 1);
    // The signed URL is kept: the Hub is asked once for all of it.
    assert_eq!(server.state().count("/resolve/"), 0);
    let e = file.read_at(BIG as u64 - 4, &mut [0; 8]).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Malformed);
    let mut tail = [0; 4];
    file.read_at(BIG as u64 - 4, &mut tail).unwrap();
    assert_eq!(tail, all[BIG - 4..]);
}

#[test]
fn side_files_are_verified_and_kept() {
    let (server, hub) = setup();
    let dir = open(&hub);
    server.state().clear_log();
    for _ in 0..3 {
        dir.read("config.json").unwrap();
    }
    assert_eq!(server.state().count("resolve-cache"), 1);
    server.state().fault(Fault::always("1_Pooling", What::Corrupt));
    assert_eq!(dir.read("1_Pooling/config.json").unwrap_err().kind(), ErrorKind::Mismatch);
}

#[test]
fn broken_connections_and_expired_signatures_are_mended() {
    let (server, hub) = setup();
    let file = open(&hub).open("model.safetensors").unwrap().unwrap();
    let mut out = vec![0; BIG];
    for n in [10, 500_000] {
        server.state().fault(Fault::once("/blobs/", What::DropAfter(n)).side(Side::Cdn));
    }
    server.state().fault(Fault::once("/blobs/", What::Answer(403, vec![], "expired".into())));
    server.state().fault(Fault::once(
        "/blobs/",
        What::Answer(503, vec![("retry-after".into(), "1".into())], String::new()),
    ));
    file.read_at(0, &mut out).unwrap();
    assert_eq!(out, bytes());
    assert_eq!(server.state().count("/resolve/"), 2, "asked anew where the signature had expired");
    assert_eq!(
        server
            .state()
            .log()
            .iter()
            .filter(|r| r.side == Side::Cdn && r.status == 206)
            .map(|r| r.sent)
            .sum::<u64>(),
        BIG as u64
    );
    server.state().fault(Fault::always("/blobs/", What::DropAfter(0)));
    let e = file.read_at(0, &mut out).unwrap_err();
    assert!(e.is_transient(), "{e:?}");
    assert_eq!(e.offset(), Some(0));
}

#[test]
fn a_source_that_changes_is_an_error() {
    let (server, hub) = setup();
    let file = open(&hub).open("model.safetensors").unwrap().unwrap();
    let mut out = vec![0; 1 << 20];
    file.read_at(0, &mut out).unwrap();
    for (name, value) in [("etag", "\"another\""), ("content-range", "bytes 0-1048575/999999999")] {
        server.state().fault(Fault::once("/blobs/", What::Header(name.into(), value.into())));
        let e = file.read_at(0, &mut out).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Mismatch, "{name}: {e:?}");
        assert!(e.file_name().unwrap().starts_with("hf://org/tiny@"));
    }
    let fresh = open(&hub).open("model.safetensors").unwrap().unwrap();
    server.state().fault(Fault::once("/resolve/", What::Header("x-repo-commit".into(), "0".repeat(40))));
    assert_eq!(fresh.read_at(0, &mut out).unwrap_err().kind(), ErrorKind::Mismatch);
    server.state().fault(Fault::once("/blobs/", What::IgnoreRange));
    let e = fresh.read_at(7, &mut out).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Unsupported);
    assert!(e.hint_text().unwrap().contains("pull"));
}

#[test]
fn threads_read_at_the_same_time() {
    let (server, hub) = setup();
    let file = open(&hub).open("model.safetensors").unwrap().unwrap();
    server.state().fault(Fault::always("/blobs/", What::Slow(64 << 10, Duration::from_millis(1))));
    let all = bytes();
    std::thread::scope(|scope| {
        for t in 0..4 {
            let (file, all) = (&file, &all);
            scope.spawn(move || {
                for i in 0..4 {
                    let at = (t * 4 + i) * (BIG / 16);
                    let mut out = vec![0; BIG / 16];
                    file.read_at(at as u64, &mut out).unwrap();
                    assert_eq!(out, all[at..at + BIG / 16]);
                }
            });
        }
    });
}
