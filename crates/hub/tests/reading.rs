//! What repositories hold and which there are, asked of a real server.

mod common;

use common::address;
use tensormill_hub::{Gate, Hub, Query, Retry, Sort, Token};
use tensormill_hub_server::{Fault, Repo, Server, User, What};
use tensormill_model::ErrorKind;

fn hub_with(server: &Server, token: Option<&str>) -> Hub {
    common::hub(server, |s| s.token = token.and_then(|t| Token::new(t).unwrap()))
}

fn hub(server: &Server) -> Hub {
    hub_with(server, None)
}

#[test]
fn a_revision_is_pinned_to_a_commit_with_its_files() {
    let server = Server::start();
    let repo =
        Repo::new("org/tiny").file("config.json", b"{}").lfs("sub/model.safetensors", b"weights").tag("v1");
    let commit = repo.head().sha.clone();
    server.state().add(repo.meta("tags", ["license:mit"].as_slice().into()).gated("auto"));
    for revision in ["", "@main", "@v1", "@refs%2Fheads%2Fmain"] {
        let found = hub(&server).model(&address(&format!("org/tiny{revision}"))).unwrap();
        assert_eq!(found.commit.as_deref(), Some(&*commit), "{revision}");
        let names: Vec<&str> = found.files.iter().map(|f| f.path.as_str()).collect();
        assert_eq!(names, ["config.json", "sub/model.safetensors"]);
        let large = found.file("sub/model.safetensors").unwrap();
        assert_eq!((large.size, large.sha256.as_ref().map(String::len)), (7, Some(64)));
        // `git hash-object` of the two bytes.
        assert_eq!(found.file("config.json").unwrap().etag(), "9e26dfeeb6e641a33dae4961196235bdb965b21b");
        let info = found.info.unwrap();
        assert_eq!((info.gated, info.license()), (Gate::Auto, Some("mit")));
    }
}

#[test]
fn listings_of_many_pages_are_followed() {
    let server = Server::start();
    let repo = (0..25).fold(Repo::new("org/many"), |r, i| r.file(&format!("f{i:02}"), b"x"));
    server.state().add(repo);
    *server.state().page.lock().unwrap() = Some(10);
    let found = hub(&server).model(&address("org/many")).unwrap();
    assert_eq!(found.files.len(), 25);
    assert_eq!(server.state().count("/tree/"), 3);
}

#[test]
fn searches_filter_sort_and_stop_at_their_limit() {
    let server = Server::start();
    for i in 0..30 {
        let library = if i % 2 == 0 { "gguf" } else { "transformers" };
        server.state().add(
            Repo::new(&format!("org/m{i}"))
                .meta("library_name", library.into())
                .meta("pipeline_tag", "text-generation".into())
                .meta("tags", ["license:apache-2.0"].as_slice().into())
                .meta("downloads", i.into()),
        );
    }
    server.state().add(Repo::new("other/m").meta("library_name", "gguf".into()));
    *server.state().page.lock().unwrap() = Some(4);
    let query = Query {
        author: Some("org".into()),
        library: Some("gguf".into()),
        task: Some("text-generation".into()),
        license: Some("apache-2.0".into()),
        sort: Sort::Downloads,
        limit: 10,
        ..Query::default()
    };
    let found = hub(&server).search(&query).unwrap();
    let ids: Vec<&str> = found.iter().map(|m| m.id.as_str()).collect();
    assert_eq!(&ids[..3], ["org/m28", "org/m26", "org/m24"]);
    assert_eq!(ids.len(), 10);
    assert_eq!(server.state().count("/api/models"), 3, "no page more than needed");
}

#[test]
fn what_is_missing_is_told_apart() {
    let server = Server::start();
    server.state().add(Repo::new("org/open"));
    server.state().add(Repo::new("org/secret").private());
    server.state().user("hf_a", User { name: "ann".into(), ..User::default() });
    server.state().user("hf_o", User { name: "org".into(), ..User::default() });
    let fails = |token: Option<&str>, what: &str| hub_with(&server, token).model(&address(what)).unwrap_err();

    let e = fails(None, "org/opne");
    assert_eq!(e.kind(), ErrorKind::Usage);
    assert!(e.message().contains("no repository org/opne"), "{e}");
    assert!(e.hint_text().unwrap().contains("HF_TOKEN"), "{:?}", e.hint_text());
    let e = fails(Some("hf_a"), "org/secret");
    assert!(e.message().contains("private") && !e.hint_text().unwrap().contains("HF_TOKEN"), "{e}");
    assert!(hub_with(&server, Some("hf_o")).model(&address("org/secret")).is_ok());
    let e = fails(None, "org/open@v9");
    assert!(e.message().contains("no revision \"v9\""), "{e}");
    let e = fails(Some("hf_wrong"), "org/open");
    assert!(e.message().contains("does not accept the access token"), "{e}");
    assert!(!format!("{e:?}").contains("hf_wrong"));
}

#[test]
fn a_busy_server_is_asked_again_after_the_time_it_names() {
    let server = Server::start();
    server.state().add(Repo::new("org/tiny"));
    let waits = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let noted = waits.clone();
    let retry = Retry {
        pause: std::sync::Arc::new(move |d| noted.lock().unwrap().push(d.as_secs())),
        ..Retry::default()
    };
    let hub = common::hub(&server, |s| s.retry = retry);
    let header = |k: &str, v: &str| vec![(k.to_owned(), v.to_owned())];
    server
        .state()
        .fault(Fault::once("/revision/", What::Answer(429, header("retry-after", "7"), "slow down".into())));
    server.state().fault(Fault::once(
        "/revision/",
        What::Answer(429, header("ratelimit", "\"api\";r=0;t=55"), String::new()),
    ));
    server.state().fault(Fault::once("/revision/", What::Answer(503, vec![], String::new())));
    server.state().fault(Fault::once("/revision/", What::Drop));
    server.state().fault(Fault::once("/revision/", What::DropAfter(5)));
    hub.model(&address("org/tiny")).unwrap();
    let waits = waits.lock().unwrap().clone();
    assert_eq!(waits[..2], [7, 55]);
    assert_eq!(waits.len(), 5, "{waits:?}");
    server.state().fault(Fault::always("/revision/", What::Answer(429, vec![], "slow down".into())));
    let e = hub.model(&address("org/tiny")).unwrap_err();
    assert!(e.is_transient() && e.message().contains("slow down"), "{e}");
    assert!(e.hint_text().is_some());
}

#[test]
fn an_answer_that_is_no_hub_is_named() {
    let server = Server::start();
    server.state().add(Repo::new("org/tiny"));
    server
        .state()
        .fault(Fault::once("/revision/", What::Answer(200, vec![], "welcome to this network".into())));
    let e = hub(&server).model(&address("org/tiny")).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Malformed);
    assert!(e.hint_text().unwrap().contains("HF_ENDPOINT"));
}
