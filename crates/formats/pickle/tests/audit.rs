//! What is told of pickles without loading them: opcodes as pickletools lists them, imports and calls.

mod common;

use common::{build, golden, sha256, store};
use serde_json::Value as Json;
use std::fmt::Write as _;
use tensormill_model::Limits;
use tensormill_pickle::{Argument, audit, instructions, pickles};

#[test]
fn opcodes_imports_and_calls_are_pickletools() {
    let want: Json = serde_json::from_slice(&golden("disassembly.json")).unwrap();
    let limits = Limits::default();
    for (name, want) in want.as_object().unwrap() {
        let list = pickles(&store(name, golden(name)), &limits).unwrap();
        let p = &list[0];
        assert_eq!(p.member, if name.contains(".pkl") { "" } else { "archive/data.pkl" });
        let mut text = String::new();
        let mut count = 0;
        for i in instructions(&*p.store, p.start, &limits) {
            let i = i.unwrap();
            writeln!(text, "{} {}", i.at, i.name).unwrap();
            count += 1;
        }
        assert_eq!(count, want["ops"].as_u64().unwrap(), "{name}");
        assert_eq!(sha256(text.as_bytes()), want["sha256"].as_str().unwrap(), "{name}");

        let a = audit(&*p.store, p.start, &limits);
        assert!(a.error.is_none(), "{name}: {:?}", a.error);
        assert_eq!(a.end, p.store.len(), "{name}");
        let imports: Vec<Json> =
            a.imports.iter().map(|i| serde_json::json!([i.at, i.module, i.name])).collect();
        assert_eq!(Json::from(imports), want["imports"], "{name}");
        let calls: Vec<Json> = a.calls.iter().map(|c| serde_json::json!([c.opcode, c.at])).collect();
        assert_eq!(Json::from(calls), want["calls"], "{name}");
    }
}

#[test]
fn calls_name_what_they_call() {
    let limits = Limits::default();
    let told = |bytes: Vec<u8>| {
        let a = audit(&*store("x", bytes), 0, &limits);
        let imports: Vec<String> =
            a.imports.iter().map(|i| format!("{}@{} {}.{}", i.opcode, i.at, i.module, i.name)).collect();
        let calls: Vec<String> =
            a.calls.iter().map(|c| format!("{}@{} {}", c.opcode, c.at, c.target)).collect();
        (imports, calls, a.error.map(|e| e.to_string()))
    };
    let id = build::text("id");
    let (imports, calls, error) = told(build::pickle(&[b"cos\nsystem\n(", &id, b"tR"]));
    assert_eq!(imports, ["GLOBAL@2 os.system"]);
    assert_eq!(calls, ["REDUCE@22 os.system"]);
    assert_eq!(error, None);

    // By way of the memo, of attributes, of instances and of what calls give.
    let hidden =
        [&build::text("builtins")[..], b"q\x05", &build::text("getattr"), b"q\x060", b"0h\x05h\x06\x93"]
            .concat();
    let (imports, calls, _) = told(build::pickle(&[&hidden, b"(", &id, b"tR(", &id, b"tR"]));
    assert_eq!(imports, ["STACK_GLOBAL@37 builtins.getattr"]);
    assert_eq!(calls[0], "REDUCE@47 builtins.getattr");
    assert_eq!(calls[1], "REDUCE@57 builtins.getattr (at byte 47 of x)");

    let (imports, calls, _) = told(build::pickle(&[b"(", &id, b"iposix\npopen\n"]));
    assert_eq!((&imports[0][..], &calls[0][..]), ("INST@10 posix.popen", "INST@10 posix.popen"));
    let (_, calls, _) = told(build::pickle(&[b"(cos\nsystem\n", &id, b"o}b"]));
    assert_eq!(calls, ["OBJ@21 os.system", "BUILD@23 os.system (at byte 21 of x)"]);
    let (imports, ..) = told(build::pickle(&[b"\x83\x07\x01)R"]));
    assert_eq!(imports, ["EXT2@2 copyreg.extension.263"]);
    let (imports, ..) = told(build::pickle(&[b"NN\x93"]));
    assert_eq!(imports, ["STACK_GLOBAL@4 ?.?"]);

    // A pickle that breaks off has done its work by then; foreign persistent ids are no reason to stop.
    let (imports, calls, error) =
        told([&build::pickle(&[b"Pid\n0K\x07Q0cos\nsystem\n(", &id, b"tR"])[..16], b""].concat());
    assert!(imports.is_empty() && calls.is_empty() && error.is_some());
    let (imports, calls, error) = told(build::pickle(&[b"Pid\n0K\x07Q0cos\nsystem\n(", &id, b"tR00000"]));
    assert_eq!((imports.len(), calls.len()), (1, 1));
    assert!(error.unwrap().contains("the stack is empty here"));
}

#[test]
fn arguments_are_shown() {
    let limits = Limits::default();
    let long = build::text(&"x".repeat(2000));
    let bytes =
        build::pickle(&[b"K\x05G\x3f\xf0\0\0\0\0\0\0cos\nsystem\nU\x02hiC\x01\xff", &long, b"S'a'\n"]);
    let file = store("x", bytes);
    let got: Vec<Argument> = instructions(&*file, 0, &limits).map(|i| i.unwrap().argument).collect();
    assert_eq!(
        got,
        [
            Argument::Int(2),
            Argument::Int(5),
            Argument::Float(1.0),
            Argument::Global("os".into(), "system".into()),
            Argument::Text("hi".into()),
            Argument::Bytes(vec![255]),
            Argument::Long(2000),
            Argument::Text("'a'".into()),
            Argument::None,
        ]
    );
    for start in [9, u64::MAX] {
        // Where others' lengths may point to.
        let nothing = store("x", b"\x80\x02].".to_vec());
        assert!(instructions(&*nothing, start, &limits).next().unwrap().is_err());
        assert!(audit(&*nothing, start, &limits).error.is_some());
    }
    let broken = store("x", b"\x80\x02]\xee]".to_vec());
    let got: Vec<bool> = instructions(&*broken, 0, &limits).map(|i| i.is_ok()).collect();
    assert_eq!(got, [true, true, false]);
}

#[test]
fn every_pickle_of_a_file_is_found() {
    let limits = Limits::default();
    let found = |name: &str| -> Vec<(String, u64)> {
        let list = pickles(&store(name, golden(name)), &limits).unwrap();
        list.into_iter().map(|p| (p.member, p.start)).collect()
    };
    assert_eq!(found("views.pt"), [("archive/data.pkl".to_owned(), 0)]);
    let names: Vec<String> = found("traced.pt").into_iter().map(|(n, _)| n).collect();
    for inner in ["/data.pkl", "/constants.pkl"] {
        assert!(names.iter().any(|n| n.ends_with(inner)), "{names:?}");
    }
    assert_eq!(found("legacy4.pt").len(), 5);
    // The count, two storages, the views; the count and four tensors; the object; facts about the system.
    let tar = found("tar.pt");
    for (member, n) in [("storages", 4), ("tensors", 5), ("pickle", 1), ("sys_info", 1)] {
        assert_eq!(tar.iter().filter(|(m, _)| m == member).count(), n, "{member}");
    }
    for (member, start) in tar {
        let list = pickles(&store("tar.pt", golden("tar.pt")), &limits).unwrap();
        let p = list.into_iter().find(|p| p.member == member && p.start == start).unwrap();
        assert!(audit(&*p.store, start, &limits).error.is_none(), "{member} {start}");
    }
}
