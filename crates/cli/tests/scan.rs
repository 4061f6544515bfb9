//! `scan` as scripts use it: exit codes, JSON, and silence where nothing is found.

mod common;

use common::{copy_demo, expect, json};
use std::fs;

/// `os.system("id")`
const SYSTEM: &[u8] = b"\x80\x02cos\nsystem\n(X\x02\0\0\0idtR.";

#[test]
fn a_clean_folder_is_quiet() {
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/../../golden/models");
    let (stdout, stderr) = expect(0, ["scan", golden, "--fail-on", "info"]);
    assert!(stdout.lines().count() == 1 && stdout.contains("nothing found"), "{stdout}");
    assert_eq!(stderr, "");
}

#[test]
fn exit_codes_follow_what_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("m");
    copy_demo(&model);
    let at = |name: &str| model.join(name).display().to_string();
    let folder = model.display().to_string();
    let scan = |code, fail_on: &str| expect(code, ["scan", &folder, "--fail-on", fail_on]).0;

    fs::write(at("helper.py"), "x = 1\n").unwrap();
    scan(7, "info");
    scan(0, "suspicious");
    // Damaged, and nothing else: what was not looked at is no clean bill.
    fs::write(at("broken.gguf"), b"GGUF\x03\0\0\0").unwrap();
    assert!(scan(7, "suspicious").contains("gguf/broken"));
    scan(3, "dangerous");
    expect(3, ["scan", &folder]);
    scan(0, "never");
    fs::write(at("pytorch_model.bin"), SYSTEM).unwrap();
    let stdout = scan(7, "dangerous");
    assert!(stdout.contains("pytorch_model.bin") && stdout.contains("byte 2: os.system"), "{stdout}");
    expect(7, ["scan", &folder]);
    expect(7, ["scan", &at("config.json"), &at("pytorch_model.bin")]);
    expect(0, ["scan", &at("config.json")]);
    scan(0, "never");
    let (_, stderr) = expect(6, ["scan", &at("absent")]);
    assert!(stderr.contains("absent"), "{stderr}");
    expect(2, ["scan"]);
    expect(2, ["scan", &folder, "--fail-on", "maybe"]);
}

#[test]
fn the_json_is_what_the_documentation_says() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a.pt");
    fs::write(&file, SYSTEM).unwrap();
    let path = file.display().to_string();
    let (stdout, _) = expect(7, ["scan", &path, "--json"]);
    let report = json(&stdout);
    assert_eq!(report["schema"], "tensormill-scan/1");
    assert_eq!(report["paths"], serde_json::json!([path]));
    assert_eq!((report["files"].as_u64(), report["bytes"].as_u64()), (Some(1), Some(24)));
    assert_eq!(report["counts"], serde_json::json!({"dangerous": 1, "suspicious": 0, "info": 0}));
    assert_eq!((report["malformed"].as_u64(), report["truncated"].as_bool()), (Some(0), Some(false)));
    let f = &report["findings"][0];
    assert_eq!(
        (f["rule"].as_str(), f["severity"].as_str()),
        (Some("pickle/dangerous-import"), Some("dangerous"))
    );
    assert_eq!(f["file"], path.as_str());
    assert_eq!(f["place"], serde_json::json!({"member": null, "offset": 2, "line": null, "path": null}));
    assert_eq!(f["found"], "os.system by GLOBAL, called by REDUCE at byte 22");
    assert!(f["advice"].as_str().unwrap().ends_with('.'));
    let (stdout, _) = expect(6, ["scan", "/nowhere/at/all", "--json"]);
    assert_eq!(json(&stdout)["error"]["kind"], "io");
}

#[test]
fn what_a_file_says_does_not_reach_the_terminal_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a\x1b[32m.pkl");
    fs::write(&file, b"\x80\x02cevil\x1b[31m\xe2\x80\xae\nx\n)R.").unwrap();
    let (stdout, _) = expect(0, ["scan".as_ref(), file.as_os_str()]);
    assert!(stdout.contains("evil\\u{1b}[31m\\u{202e}"), "{stdout}");
    assert!(!stdout.contains('\x1b') && !stdout.contains('\u{202e}'), "{stdout}");
}

/// Files that are large and hold nothing but what costs memory elsewhere.
fn costly() -> Vec<(&'static str, Vec<u8>)> {
    let pickle = |inside: &[u8]| [b"\x80\x04", inside, b"."].concat();
    let long = |c: u8| [&b"X\xe8\x03\0\0"[..], &[c; 1000], b"\x94"].concat();
    let name = |c: u8| [long(c), b"0".to_vec()].concat();
    let tensors: Vec<String> = (0..120_000)
        .map(|i| format!(r#""t{i}":{{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}"#))
        .collect();
    let header = format!("{{{}}}", tensors.join(","));
    let keys = (0..60_000u64).flat_map(|i| {
        let key = format!("{i:08}");
        [&8u64.to_le_bytes()[..], key.as_bytes(), &8u32.to_le_bytes(), &300u64.to_le_bytes(), &[b'v'; 300]]
            .concat()
    });
    let gguf = [&b"GGUF\x03\0\0\0"[..], &[0; 8], &60_000u64.to_le_bytes()].concat();
    vec![
        ("lists.pkl", pickle(&[b"](".to_vec(), vec![b']'; 4 << 20], b"e".to_vec()].concat())),
        ("names.pkl", pickle(&[name(b'm'), name(b'n'), b"h\0h\x01\x930".repeat(300_000)].concat())),
        ("line.pkl", pickle(&[b"V".to_vec(), vec![b'x'; 40 << 20], b"\n".to_vec()].concat())),
        ("texts.pt", pickle(&long(b'x').repeat(20_000))),
        ("config.json", format!(r#"{{"auto_map":[{}1]}}"#, r#""a.b","#.repeat(400_000)).into_bytes()),
        ("key.json", format!(r#"{{"{}":1}}"#, "k".repeat(15 << 20)).into_bytes()),
        ("deep.json", br#"{"a":"#.repeat(1 << 20)),
        ("t.jinja", [b"{% ".to_vec(), vec![b'a'; 30 << 20]].concat()),
        ("line.txt", vec![b'a'; 30 << 20]),
        ("many.safetensors", [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat()),
        ("many.gguf", gguf.into_iter().chain(keys).collect()),
    ]
}

#[test]
fn memory_is_bounded_whatever_files_hold() {
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes) in costly() {
        fs::write(dir.path().join(name), bytes).unwrap();
    }
    let mut c = std::process::Command::new("sh");
    c.args(["-c", "ulimit -d 65536; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_tensormill"), "scan"]);
    let out = c.arg(dir.path()).args(["--fail-on", "never", "--json"]).output().unwrap();
    assert_eq!(out.status.code(), Some(0), "{:.300}", String::from_utf8_lossy(&out.stderr));
    let report = json(std::str::from_utf8(&out.stdout).unwrap());
    assert_eq!((report["files"].as_u64(), report["truncated"].as_bool()), (Some(11), Some(true)));
}
