//! What tests of this crate share: files in memory, whole tensors, and the part of the engine that fills layouts.

#![allow(dead_code)] // each test uses a part

pub mod build;
pub mod hostile;
pub mod training;

use sha2::{Digest, Sha256};
use std::{fmt::Write as _, path::PathBuf, sync::Arc};
use tensormill_model::{
    Checked, Error, Format, Layout, Limits, MemoryStore, Reader, Result, Store, WriteOptions,
};
use tensormill_pickle::{FORMAT, PickleOptions, open_with};

/// Bytes of a golden file.
pub fn golden(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../golden/pickle").join(name);
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut s, b| {
        write!(s, "{b:02x}").expect("strings take anything");
        s
    })
}

pub fn store(name: &str, bytes: Vec<u8>) -> Arc<dyn Store> {
    Arc::new(MemoryStore { name: name.to_owned(), bytes })
}

/// Opens bytes with default limits.
pub fn open(bytes: Vec<u8>, options: &PickleOptions) -> Result<Box<dyn Reader>> {
    open_with(&store("test.pt", bytes), &Limits::default(), options)
}

/// All bytes of a tensor.
pub fn whole(reader: &dyn Reader, t: usize) -> Result<Vec<u8>> {
    let spec = &reader.index().tensors[t];
    let mut out = vec![0; spec.bytes().expect("specs have sizes") as usize];
    reader.read(t, 0..spec.shape.rows(), &mut out)?;
    Ok(out)
}

/// What an error says about itself, for comparison.
pub fn refused(result: Result<Box<dyn Reader>>) -> Error {
    let e = result.err().expect("this was accepted");
    assert_eq!(e.file_name(), Some("test.pt"), "{e}");
    e
}

/// Files as they come to be when every tensor's bytes are `data(tensor)`: headers, pieces, tensors, checksums; the rest
/// zero. Checks that nothing overlaps and nothing reaches over the end.
pub fn files(
    model: &Checked,
    options: &WriteOptions,
    data: impl Fn(usize) -> Vec<u8>,
) -> Vec<(String, Vec<u8>)> {
    fill(&FORMAT.layout(model, options).expect("a layout"), data)
}

pub fn fill(layout: &Layout, data: impl Fn(usize) -> Vec<u8>) -> Vec<(String, Vec<u8>)> {
    let mut out: Vec<(String, Vec<u8>)> =
        layout.files.iter().map(|f| (f.name.clone(), vec![0; f.len as usize])).collect();
    let mut taken: Vec<(usize, u64, u64)> = Vec::new();
    let mut put = |out: &mut Vec<(String, Vec<u8>)>, file: usize, offset: u64, bytes: &[u8]| {
        if bytes.is_empty() {
            return;
        }
        taken.push((file, offset, offset + bytes.len() as u64));
        out[file].1[offset as usize..][..bytes.len()].copy_from_slice(bytes);
    };
    for (i, f) in layout.files.iter().enumerate() {
        put(&mut out, i, 0, &f.header);
        for p in &f.pieces {
            put(&mut out, i, p.offset, &p.bytes);
        }
    }
    let mut written = Vec::new();
    for (t, place) in layout.places.iter().enumerate() {
        if !written.contains(place) {
            put(&mut out, place.file, place.offset, &data(t));
            written.push(*place);
        }
    }
    taken.sort_unstable();
    for pair in taken.windows(2) {
        assert!(pair[0].0 != pair[1].0 || pair[0].2 <= pair[1].1, "overlap: {pair:?}");
    }
    let mut last = (0, 0);
    for slot in &layout.checksums {
        let crc = crc32fast::hash(&data(slot.tensor)).to_le_bytes();
        assert!((slot.places[0].file, slot.places[0].offset) > last, "slots are in order");
        last = (slot.places[0].file, slot.places[0].offset);
        for p in &slot.places {
            let at = &mut out[p.file].1[p.offset as usize..][..4];
            assert_eq!(at, [0; 4], "planned as zero");
            at.copy_from_slice(&crc);
        }
    }
    out
}
