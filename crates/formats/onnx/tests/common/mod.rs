//! What tests of this crate share: golden files, folders in memory, and the part of the engine that fills layouts.

#![allow(dead_code)] // each test uses a part

use serde_json::Value as Json;
use std::{collections::BTreeMap, fmt::Write as _, fs, path::PathBuf, sync::Arc};
use tensormill_graph::{Content, Program, Stand, Tensor};
use tensormill_model::{
    Folder, Format, Layout, Limits, MemoryAssets, MemoryStore, Model, Reader, Result, ShardLimits, Store,
    WriteOptions,
};
use tensormill_onnx::{CAPABILITIES, FORMAT, OnnxReader, open_in};

/// A path under `golden/onnx`.
pub fn golden(path: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../golden/onnx")).join(path)
}

/// Names of what is in a golden folder, sorted.
pub fn listed(folder: &str) -> Vec<String> {
    let entries = fs::read_dir(golden(folder)).expect("golden folder").flatten();
    let mut names: Vec<String> = entries.map(|e| e.file_name().into_string().expect("text")).collect();
    names.sort();
    names
}

pub fn json(path: &str) -> Json {
    serde_json::from_slice(&fs::read(golden(path)).expect("golden file")).expect("golden JSON")
}

/// Files by name, in memory.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Files(pub BTreeMap<String, Vec<u8>>);

impl Folder for Files {
    fn label(&self) -> String {
        "memory".into()
    }
    fn names(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }
    fn store(&self, name: &str) -> Result<Option<Arc<dyn Store>>> {
        let name = name.strip_prefix("./").unwrap_or(name);
        let store = |bytes: &Vec<u8>| MemoryStore { name: name.to_owned(), bytes: bytes.clone() };
        Ok(self.0.get(name).map(|bytes| Arc::new(store(bytes)) as Arc<dyn Store>))
    }
}

impl Files {
    /// A golden folder's files (and those of folders in it).
    pub fn golden(folder: &str) -> Self {
        let mut files = Self::default();
        for name in listed(folder) {
            let path = format!("{folder}/{name}");
            if golden(&path).is_dir() {
                let inner = Self::golden(&path).0;
                files.0.extend(inner.into_iter().map(|(n, bytes)| (format!("{name}/{n}"), bytes)));
            } else {
                files.0.insert(name, fs::read(golden(&path)).expect("golden file"));
            }
        }
        files
    }

    pub fn try_open(&self, name: &str) -> Result<OnnxReader> {
        let store = MemoryStore { name: name.to_owned(), bytes: self.0[name].clone() };
        open_in(Arc::new(store), self, &Limits::default())
    }

    pub fn open(&self, name: &str) -> OnnxReader {
        self.try_open(name).unwrap_or_else(|e| panic!("{name}: {e}"))
    }
}

pub fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest;
    sha2::Sha256::digest(bytes).iter().fold(String::new(), |mut s, b| {
        write!(s, "{b:02x}").expect("strings take anything");
        s
    })
}

/// A tensor's bytes, read at once, and again by rows wherever these end on bytes.
pub fn whole(reader: &dyn Reader, tensor: usize) -> Vec<u8> {
    let spec = &reader.index().tensors[tensor];
    let rows = spec.shape.rows();
    let mut all = vec![0; spec.bytes().expect("size") as usize];
    reader.read(tensor, 0..rows, &mut all).unwrap_or_else(|e| panic!("{}: {e}", spec.name));
    if rows > 0 && (all.len() as u64).is_multiple_of(rows) && spec.row_bytes().is_ok() {
        for step in [1, 2, 7] {
            let mut parts = Vec::new();
            for start in (0..rows).step_by(step) {
                let end = rows.min(start + step as u64);
                let mut part = vec![0; (all.len() as u64 / rows * (end - start)) as usize];
                reader.read(tensor, start..end, &mut part).unwrap_or_else(|e| panic!("{}: {e}", spec.name));
                parts.extend(part);
            }
            assert!(parts == all, "{} differs when it is read by {step} rows", spec.name);
        }
    }
    all
}

/// A tensor of a program with its elements, wherever they are.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    pub path: String,
    pub stand: &'static str,
    /// Without its elements and its number.
    pub tensor: Tensor,
    pub bytes: Vec<u8>,
    pub slot: Option<usize>,
}

/// All tensors of a program in the order of the file. Elements that the program knows must be those that are read.
pub fn tensors(reader: &OnnxReader) -> Vec<Found> {
    let mut program = Program::clone(reader.program());
    let mut all = Vec::new();
    program.tensors_mut(|path, stand, t| {
        let known = match &t.content {
            Content::Raw(bytes) => Some(bytes.to_vec()),
            Content::Texts(texts) => Some(
                texts.iter().flat_map(|s| [&(s.len() as u64).to_le_bytes()[..], &s[..]].concat()).collect(),
            ),
            Content::Elsewhere => None,
        };
        let bytes =
            t.slot.map_or_else(|| known.clone().expect("known or with a number"), |n| whole(reader, n));
        assert!(known.is_none_or(|k| k == bytes), "{path} is known otherwise than it is read");
        let stand = match stand {
            Stand::Initializer => "initializer",
            Stand::Attribute => "attribute",
            Stand::Sparse => "sparse",
        };
        let mut tensor = t.clone();
        (tensor.content, tensor.slot) = (Content::Elsewhere, None);
        all.push(Found { path: path.to_owned(), stand, tensor, bytes, slot: t.slot });
    });
    all
}

/// The program without elements and numbers of tensors.
pub fn bare(reader: &OnnxReader) -> Program {
    let mut program = Program::clone(reader.program());
    program.tensors_mut(|_, _, t| (t.content, t.slot) = (Content::Elsewhere, None));
    program.weights.clear();
    program
}

/// The layout filled with what the reader reads.
pub fn written(reader: &OnnxReader, external: bool, shards: ShardLimits) -> Files {
    let mut model = Model::from_index(reader.index(), 0, Arc::new(MemoryAssets::default()));
    model.program = Some(Arc::clone(reader.program()));
    let checked = model.check(&CAPABILITIES).expect("what was read can be written");
    let options = WriteOptions { file_name: "model.onnx".into(), shards, external };
    let layout = FORMAT.layout(&checked, &options).expect("what was read can be written");
    fill(&layout, |i| whole(reader, i))
}

pub fn fill(layout: &Layout, data: impl Fn(usize) -> Vec<u8>) -> Files {
    let mut images: Vec<Vec<u8>> = layout.files.iter().map(|f| vec![0; f.len as usize]).collect();
    for (image, file) in images.iter_mut().zip(&layout.files) {
        image[..file.header.len()].copy_from_slice(&file.header);
        for piece in &file.pieces {
            image[piece.offset as usize..][..piece.bytes.len()].copy_from_slice(&piece.bytes);
        }
    }
    for (i, place) in layout.places.iter().enumerate() {
        let bytes = data(i);
        images[place.file][place.offset as usize..][..bytes.len()].copy_from_slice(&bytes);
    }
    Files(layout.files.iter().map(|f| f.name.clone()).zip(images).collect())
}
