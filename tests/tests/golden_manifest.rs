//! Golden data is what its manifest says: nobody edits an expectation by hand, and no generator ran without saying so.

use sha2::{Digest, Sha256};
use std::{collections::BTreeSet, fmt::Write as _, fs, path::Path};
use tensormill_tests::golden;

fn walk(dir: &Path, root: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(dir).expect("golden lists") {
        let path = entry.expect("entry").path();
        if path.is_dir() {
            if path.file_name().is_some_and(|n| n != "__pycache__") {
                walk(&path, root, found);
            }
        } else {
            let name = path.strip_prefix(root).expect("inside").to_string_lossy().replace('\\', "/");
            found.insert(name);
        }
    }
}

#[test]
fn every_golden_file_is_the_one_its_generator_made() {
    let root = golden("");
    let manifest: serde_json::Value =
        serde_json::from_slice(&fs::read(golden("MANIFEST.json")).expect("manifest")).expect("JSON");
    let listed = manifest["files"].as_object().expect("files");
    let mut found = BTreeSet::new();
    walk(&root, &root, &mut found);
    let (mut wrong, mut bytes) = (Vec::new(), 0);
    for name in &found {
        if matches!(name.as_str(), "MANIFEST.json" | "README.md") {
            continue;
        }
        let content = fs::read(root.join(name)).expect("reads");
        bytes += content.len();
        let digest = Sha256::digest(&content).iter().fold(String::new(), |mut s, b| {
            let _ = write!(s, "{b:02x}");
            s
        });
        match listed.get(name).and_then(serde_json::Value::as_str) {
            None => wrong.push(format!("{name} is not in MANIFEST.json")),
            Some(expected) if expected != digest => {
                wrong.push(format!("{name} is not what MANIFEST.json says"));
            }
            Some(_) => {}
        }
    }
    wrong.extend(listed.keys().filter(|n| !found.contains(*n)).map(|n| format!("{n} is missing")));
    assert!(wrong.is_empty(), "run golden/generators/write_manifest.py:\n{}", wrong.join("\n"));
    assert!(bytes < 30_000_000, "golden data is to stay below 30 MB, not {bytes}");
}
