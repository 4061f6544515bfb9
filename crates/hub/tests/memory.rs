//! The documents that a server may send take a bounded amount of memory, whatever they say. A process of its own: what
//! is measured is the most that it ever had.
#![cfg(target_os = "linux")]

mod common;

use common::address;
use std::{fs, sync::Arc};
use tensormill_hub::answers;
use tensormill_hub_server::{Fault, Repo, Server, What};

const MIB: usize = 1 << 20;

/// Bytes of a document that, as values of two bytes each, would take a gigabyte.
const LARGE: usize = 24 * MIB;

/// The most memory that this process ever had.
fn peak() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10
}

#[test]
fn large_documents_take_a_bounded_amount_of_memory() {
    let commit = "0123456789abcdef0123456789abcdef01234567";
    let card = format!("{{\"sha\": \"{commit}\", \"cardData\": ");
    let tags = format!("{{\"sha\": \"{commit}\", \"tags\": [");
    let server = Server::start();
    server.state().add(Repo::new("org/tiny").file("config.json", b"{}"));
    let hub = common::hub(&server, |_| {});
    // The text, what server and connection hold of it, and what is made of it.
    let allowed = peak() + 384 * MIB;
    for (front, one, back) in [
        ("[", "0,", "0]"),
        ("[", "{},", "{}]"),
        ("[", "[],", "[]]"),
        ("[", "{\"type\":\"directory\",\"path\":\"\"},", "{}]"),
        ("{\"format_version\": 1, \"files\": {", "\"\":{\"blob_id\":\"\"},", "\"\":{}}}"),
        ("{\"objects\": [", "{\"oid\":\"\"},", "{}]}"),
        ("[\"", "x", "\"]"),
        ("", "[", ""),
        ("", "{\"\":", ""),
        (&format!("{card}["), "0,", "0]}"),
        (&format!("{card}{{"), "\"\":0,", "\"\":0}}"),
        (&tags, "\"\",", "\"\"]}"),
    ] {
        let bytes = Arc::new([front, &one.repeat(LARGE / one.len()), back].concat().into_bytes());
        let about = format!("{front}{one}");
        assert!(answers::listing(&bytes).is_err(), "{about}");
        assert!(answers::objects_wanted(&bytes, &[commit]).is_err(), "{about}");
        assert!(answers::tree_note(&bytes).is_err(), "{about}");
        drop(answers::info(&bytes));
        for path in ["/revision/", "/tree/"] {
            server.state().faults().clear();
            server.state().fault(Fault::always(path, What::Say(Arc::clone(&bytes), vec![])));
            assert!(hub.model(&address("org/tiny")).is_err(), "{path} {about}");
        }
        let now = peak();
        assert!(now < allowed, "{} MiB more than is allowed after {about}", (now - allowed) / MIB);
    }
    // What is longer is not read to its end.
    let long = Arc::new(vec![b' '; 66 * MIB]);
    server.state().faults().clear();
    server.state().fault(Fault::always("/revision/", What::Say(long, vec![])));
    let e = hub.model(&address("org/tiny")).unwrap_err();
    assert!(e.message().contains("more than") && !e.is_transient(), "{e:?}");
}
