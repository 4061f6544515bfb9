//! `golden/hostile` is what its generator makes.

use std::{collections::BTreeMap, fs, path::Path};
use tensormill_tests::{golden, hostile};

fn collect(folder: &Path, prefix: &str, out: &mut BTreeMap<String, Vec<u8>>) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.path().is_dir() {
            collect(&entry.path(), &format!("{name}/"), out);
        } else {
            out.insert(name, fs::read(entry.path()).unwrap());
        }
    }
}

#[test]
fn the_corpus_is_what_its_generator_makes() {
    let cases = hostile::cases();
    let mut want: BTreeMap<String, Vec<u8>> =
        cases.iter().map(|c| (c.path.clone(), c.bytes.clone())).collect();
    assert_eq!(want.len(), cases.len(), "two files of one name");
    want.insert("cases.json".into(), format!("{:#}\n", hostile::table(&cases)).into_bytes());
    want.insert("README.md".into(), hostile::page(&cases).into_bytes());
    let mut have = BTreeMap::new();
    collect(&golden("hostile"), "", &mut have);
    // `golden/generators/onnx_hostile.py` makes these.
    have.retain(|name, _| !name.starts_with("onnx/"));
    let odd: Vec<&String> =
        want.keys().chain(have.keys()).filter(|name| want.get(*name) != have.get(*name)).collect();
    assert!(odd.is_empty(), "run `cargo run -p tensormill-tests --example hostile`: {odd:?}");
    assert!(have.values().map(Vec::len).sum::<usize>() < 2 << 20, "the corpus is to stay small");
}

#[test]
fn every_file_says_what_it_tries_and_why_it_is_not_refused() {
    let cases = hostile::cases();
    for c in &cases {
        assert!(c.tries.len() > 3, "{}", c.path);
        assert_eq!(c.exit == 3, c.why.is_empty(), "{}", c.path);
    }
    let refused = cases.iter().filter(|c| c.exit == 3).count();
    assert!(refused > 250, "{refused}");
}
