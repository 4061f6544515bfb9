//! Files of weights: what opens is read, written again by its own format, and read back. Index and bytes must be what
//! they were.

use super::{assets, expected, limits, store};
use std::{path::Path, sync::Arc};
use tensormill_core::Limits;
use tensormill_model::{Format, Index, MetadataKind, Model, Reader, Result, ShardLimits, WriteOptions};
use tensormill_pickle::PickleOptions;
use tensormill_tensor::TensorSpec;

/// Bytes of tensors that are read; larger models have been opened, which is what matters.
const MOST: u64 = 1 << 20;

/// All tensors' bytes; `None` where they are too many.
pub(super) fn read_all(reader: &dyn Reader) -> Option<Result<Vec<Vec<u8>>>> {
    let mut sizes = reader.index().tensors.iter().map(|t| t.bytes().ok());
    sizes.try_fold(0u64, |sum, n| sum.checked_add(n?)).filter(|total| *total <= MOST)?;
    let each = reader.index().tensors.iter().enumerate().map(|(i, t)| {
        let mut out = vec![0; t.bytes()? as usize];
        reader.read(i, 0..t.shape.rows(), &mut out)?;
        Ok(out)
    });
    Some(each.collect())
}

/// A file in memory as [`Format::layout`] plans it; `None` where the format cannot hold the model.
fn image(format: &dyn Format, index: &Index, bytes: &[Vec<u8>], name: &str) -> Option<Vec<u8>> {
    let model = Model::from_index(index, 0, Arc::new(assets(&[])));
    let checked = model.check(&format.info().capabilities).map_err(|e| expected(&e)).ok()?;
    let options = WriteOptions { file_name: name.into(), shards: ShardLimits::default(), external: false };
    let layout = format.layout(&checked, &options).map_err(|e| expected(&e)).ok()?;
    let [file] = layout.files.as_slice() else { panic!("one file was asked for") };
    let mut image = vec![0; usize::try_from(file.len).expect("small")];
    image[..file.header.len()].copy_from_slice(&file.header);
    for piece in &file.pieces {
        image[piece.offset as usize..][..piece.bytes.len()].copy_from_slice(&piece.bytes);
    }
    for (tensor, place) in checked.model().tensors.iter().zip(&layout.places) {
        let from = index.tensors.iter().position(|t| t.name == tensor.name());
        // Names that are tied to another tensor are tensors of the model, too.
        let alias = || index.aliases.iter().find(|a| a.name == tensor.name()).map(|a| a.tensor);
        let data = &bytes[from.or_else(alias).expect("from the index")];
        image[place.offset as usize..][..data.len()].copy_from_slice(data);
    }
    Some(image)
}

/// Tensors and ties with their bytes, by name.
fn by_name(index: &Index, bytes: &[Vec<u8>]) -> Vec<(TensorSpec, Vec<u8>)> {
    let mut all: Vec<_> = index.tensors.iter().cloned().zip(bytes.iter().cloned()).collect();
    for alias in &index.aliases {
        let spec = TensorSpec { name: alias.name.clone(), ..index.tensors[alias.tensor].clone() };
        all.push((spec, bytes[alias.tensor].clone()));
    }
    all.sort_by(|a, b| a.0.name.cmp(&b.0.name));
    all
}

/// Metadata that belong to the model and not to its division into files.
fn kept(index: &Index) -> Vec<String> {
    let own = |(k, _): &(&str, _)| !k.starts_with("split.") && *k != "general.alignment";
    index.metadata.iter().filter(own).map(|(k, v)| format!("{k} {v:?}")).collect()
}

fn round_trip(format: &dyn Format, index: &Index, bytes: &[Vec<u8>]) {
    let name = format!("again.{}", format.info().extensions[0]);
    let Some(image) = image(format, index, bytes, &name) else { return };
    let back = format.open(store(&name, &image), &Limits::default());
    let back = back.unwrap_or_else(|e| panic!("what was written does not open: {e}"));
    let second = read_all(back.as_ref()).expect("as small as before").expect("what was written reads");
    assert!(by_name(index, bytes) == by_name(back.index(), &second), "a tensor has changed");
    if format.info().metadata == MetadataKind::Typed {
        assert_eq!(kept(index), kept(back.index()), "metadata have changed");
    }
}

fn check(format: &dyn Format, opened: Result<Box<dyn Reader>>) -> Option<Box<dyn Reader>> {
    let reader = opened.map_err(|e| expected(&e)).ok()?;
    match read_all(reader.as_ref()) {
        Some(Ok(bytes)) => round_trip(format, reader.index(), &bytes),
        Some(Err(e)) => expected(&e),
        None => {}
    }
    Some(reader)
}

/// PyTorch checkpoints of every form, read with and without optimizers' state, and their audit.
pub fn pickle(data: &[u8]) {
    let (store, limits) = (store("fuzz.pt", data), limits());
    for all in [false, true] {
        let options = PickleOptions { key: None, all };
        check(&tensormill_pickle::FORMAT, tensormill_pickle::open_with(&store, &limits, &options));
    }
    let key = PickleOptions { key: Some("model".into()), all: false };
    let _ = tensormill_pickle::open_with(&store, &limits, &key).map_err(|e| expected(&e));
    match tensormill_pickle::pickles(&store, &limits) {
        Ok(found) => {
            for p in found.iter().take(8) {
                let audit = tensormill_pickle::audit(p.store.as_ref(), p.start, &limits);
                assert!(audit.end <= p.store.len(), "an audit ends behind the file");
                let listed = tensormill_pickle::instructions(p.store.as_ref(), p.start, &limits);
                listed.take(1 << 12).for_each(drop);
            }
        }
        Err(e) => expected(&e),
    }
}

/// safetensors files, and indexes of shards.
pub fn safetensors(data: &[u8]) {
    let format = &tensormill_safetensors::FORMAT;
    check(format, format.open(store("fuzz.safetensors", data), &limits()));
    match tensormill_safetensors::shard_names(data) {
        Ok(index) => {
            for name in index.files() {
                let path = Path::new(&name);
                let inside = path.components().all(|c| matches!(c, std::path::Component::Normal(_)));
                assert!(inside, "an index leads out of its folder: {name:?}");
            }
        }
        Err(e) => expected(&e),
    }
}

/// GGUF files; and from their metadata back to a checkpoint's config and tokenizer.
pub fn gguf(data: &[u8]) {
    let format = &tensormill_gguf::FORMAT;
    let Some(reader) = check(format, format.open(store("fuzz.gguf", data), &limits())) else { return };
    let index = reader.index();
    let _ = tensormill_gguf::join_metadata(&[("fuzz.gguf", index)]).map_err(|e| expected(&e));
    let _ = tensormill_vocab::tokenizer_files(&index.metadata).map_err(|e| expected(&e));
    let model = Model::from_index(index, 0, Arc::new(assets(&[])));
    let _ = tensormill_arch::restore(tensormill_arch::roles_for_gguf(model), |blocks| blocks)
        .map_err(|e| expected(&e));
    let importance = tensormill_transforms::Importance::from_reader(reader.as_ref(), "fuzz.gguf");
    let _ = importance.map_err(|e| expected(&e));
}

/// Importance matrices of the old kind.
pub fn imatrix(data: &[u8]) {
    let _ = tensormill_transforms::Importance::from_legacy(data, "fuzz.dat").map_err(|e| expected(&e));
}
