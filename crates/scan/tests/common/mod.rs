//! What the tests share: folders made of files, what a scan says of them, and small files put together by hand.
#![allow(dead_code, unused_imports, reason = "each test file uses its part")]

// Pickles and archives are put together as the tests of the pickle reader do it.
#[path = "../../../formats/pickle/tests/common/build.rs"]
#[allow(missing_docs, reason = "shared with the tests of another crate")]
pub mod build;

use std::{fs, path::Path};
use tensormill_scan::{Finding, Report, scan};

/// A folder with these files.
pub fn folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    dir
}

/// What is found in a folder.
pub fn report(dir: &Path) -> Report {
    scan(&[dir.to_owned()]).unwrap()
}

/// What is found in a folder of these files.
pub fn found(files: &[(&str, &[u8])]) -> Vec<Finding> {
    report(folder(files).path()).findings
}

/// The names of the rules that one file breaks.
pub fn rules(name: &str, bytes: &[u8]) -> Vec<&'static str> {
    found(&[(name, bytes)]).into_iter().map(|f| f.rule).collect()
}

/// A field of a protocol buffer with bytes in it.
pub fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![];
    let mut varint = |mut n: usize| {
        while n > 127 {
            out.push(n as u8 | 0x80);
            n >>= 7;
        }
        out.push(n as u8);
    };
    varint(usize::from(number) << 3 | 2);
    varint(bytes.len());
    [out, bytes.to_vec()].concat()
}

/// An ONNX model of one node: operator, domain, attributes.
pub fn onnx(op: &str, domain: &str, rest: &[u8]) -> Vec<u8> {
    let node = [field(4, op.as_bytes()), field(7, domain.as_bytes()), rest.to_vec()].concat();
    [vec![8, 8], field(7, &field(1, &node))].concat()
}

/// An ONNX model whose weights lie in this file.
pub fn onnx_external(location: &str) -> Vec<u8> {
    let entry = [field(1, b"location"), field(2, location.as_bytes())].concat();
    field(7, &field(5, &[field(8, b"w"), field(13, &entry)].concat()))
}

/// A GGUF file of string keys without tensors.
pub fn gguf(entries: &[(&str, &str)]) -> Vec<u8> {
    let text = |s: &str| [&(s.len() as u64).to_le_bytes()[..], s.as_bytes()].concat();
    let head = [&b"GGUF\x03\0\0\0"[..], &0u64.to_le_bytes(), &(entries.len() as u64).to_le_bytes()].concat();
    let keys = entries.iter().flat_map(|(k, v)| [text(k), vec![8, 0, 0, 0], text(v)].concat());
    head.into_iter().chain(keys).collect()
}

/// A numpy array with this description and data.
pub fn npy(descr: &str, data: &[u8]) -> Vec<u8> {
    let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': (1,), }}\n");
    [&b"\x93NUMPY\x01\0"[..], &(header.len() as u16).to_le_bytes(), header.as_bytes(), data].concat()
}

/// `os.system("id")`.
pub fn system() -> Vec<u8> {
    build::pickle(&[b"cos\nsystem\n(", &build::text("id"), b"tR"])
}
