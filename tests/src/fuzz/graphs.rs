//! ONNX models, with files of weights beside them: what opens is recovered, cast, written in one file and in several, and
//! read back. Programs and elements must be what they were.

use super::{Files, assets, expected, limits, store, weights::read_all};
use std::sync::Arc;
use tensormill_core::Limits;
use tensormill_graph::{Content, Elem, Program, Tensor};
use tensormill_model::{Format, Model, Reader, ShardLimits, WriteOptions};
use tensormill_onnx::{FORMAT, OnnxReader, open_in};

/// Files that models of the seeds name, with their lengths.
const BESIDE: &[(&str, usize)] = &[
    ("weights.bin", 4128),
    ("sub/other file.bin", 40),
    ("./sub/other file.bin", 40),
    ("a-model-that-is-fine.onnx", 48),
    ("model.onnx.data", 16 << 10),
];

/// A tensor with its elements, wherever these are.
type Whole = (Tensor, Vec<u8>);

/// All tensors in the file's order; those of the model have `bytes`.
fn tensors(program: &Program, bytes: &[Vec<u8>]) -> Vec<Whole> {
    let mut all = Vec::new();
    program.tensors(|path, _, t| {
        let mut bare = t.clone();
        (bare.content, bare.slot) = (Content::Elsewhere, None);
        let own = match &t.content {
            Content::Raw(raw) => Some(raw.to_vec()),
            Content::Texts(texts) => Some(texts.join(&0xff)),
            Content::Elsewhere => None,
        };
        let read = t.slot.map(|slot| bytes[slot].clone());
        assert!(own.is_none() || read.is_none() || own == read, "{path} is known otherwise than it is read");
        all.push((bare, read.or(own).unwrap_or_default()));
    });
    all
}

/// The program without elements.
fn bare(program: &Program) -> Program {
    let mut program = program.clone();
    program.tensors_mut(|_, _, t| (t.content, t.slot) = (Content::Elsewhere, None));
    program.weights.clear();
    program
}

/// The files of a program with the reader's tensors; `None` where they are none that can be written.
fn written(reader: &OnnxReader, program: &Arc<Program>, bytes: &[Vec<u8>], external: bool) -> Option<Files> {
    let mut model = Model::from_index(reader.index(), 0, Arc::new(assets(&[])));
    model.program = Some(Arc::clone(program));
    let checked = model.check(&FORMAT.info().capabilities).map_err(|e| expected(&e)).ok()?;
    let shards = ShardLimits { bytes: external.then_some(2048), tensors: None };
    let options = WriteOptions { file_name: "model.onnx".into(), shards, external };
    let layout = FORMAT.layout(&checked, &options).map_err(|e| expected(&e)).ok()?;
    let mut images: Vec<Vec<u8>> = layout.files.iter().map(|f| vec![0; f.len as usize]).collect();
    for (image, file) in images.iter_mut().zip(&layout.files) {
        image[..file.header.len()].copy_from_slice(&file.header);
        for piece in &file.pieces {
            image[piece.offset as usize..][..piece.bytes.len()].copy_from_slice(&piece.bytes);
        }
    }
    for (place, data) in layout.places.iter().zip(bytes) {
        images[place.file][place.offset as usize..][..data.len()].copy_from_slice(data);
    }
    let named = layout.files.iter().zip(&images).map(|(f, image)| (f.name.clone(), store(&f.name, image)));
    Some(Files(named.collect()))
}

fn reopened(files: &Files) -> (OnnxReader, Vec<Vec<u8>>) {
    let store = Arc::clone(&files.0["model.onnx"]);
    let reader = open_in(store, files, &Limits::default());
    let reader = reader.unwrap_or_else(|e| panic!("what was written does not open: {e}"));
    let bytes = read_all(&reader).expect("as small as before").expect("what was written reads");
    (reader, bytes)
}

/// ONNX models.
pub fn onnx(data: &[u8]) {
    let beside = BESIDE.iter().map(|(name, len)| {
        let bytes: Vec<u8> = (0..*len).map(|i| (i * 7 % 251) as u8).collect();
        ((*name).to_owned(), store(name, &bytes))
    });
    let folder = Files(beside.collect());
    let reader = match open_in(store("fuzz.onnx", data), &folder, &limits()) {
        Ok(reader) => reader,
        Err(e) => return expected(&e),
    };
    let program = reader.program();
    let found = program.recover();
    for r in &found.parameters {
        assert!(r.weight < program.weights.len() && !r.name.is_empty(), "{r:?}");
    }
    program.summary();
    let bytes = match read_all(&reader) {
        Some(Ok(bytes)) => bytes,
        Some(Err(e)) => return expected(&e),
        None => return,
    };
    let before = (bare(program), tensors(program, &bytes));
    for external in [false, true] {
        let Some(files) = written(&reader, program, &bytes, external) else { continue };
        let (again, back) = reopened(&files);
        let after = (bare(again.program()), tensors(again.program(), &back));
        // As texts: what is no number differs from itself.
        assert!(
            format!("{before:?}") == format!("{after:?}"),
            "the model has changed (external: {external})"
        );
    }
    let mut cast = Program::clone(program);
    cast.cast(Elem::F16, data.len().is_multiple_of(2));
    if let Some(files) = written(&reader, &Arc::new(cast), &bytes, false) {
        let (again, back) = reopened(&files);
        assert!(tensors(again.program(), &back).len() >= before.1.len(), "a tensor is gone");
    }
}
