//! Files that the reference library wrote (`golden/generators/formats.py`): read right, reproduced byte for byte,
//! and our own files opened by the reference library.

use serde_json::Value as Json;
use std::{path::PathBuf, sync::Arc};
use tensormill_model::{
    Expr, Form, Format, Index, Limits, MemoryAssets, MemoryStore, Metadata, Model, Reader, ShardLimits,
    Tensor, Value, WriteOptions,
};
use tensormill_safetensors::{CAPABILITIES, FORMAT};
use tensormill_tensor::{DType, Encoding, Shape};

fn bytes(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../golden/formats").join(name);
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn hex(s: &str) -> Vec<u8> {
    (0..s.len()).step_by(2).map(|i| u8::from_str_radix(&s[i..i + 2], 16).unwrap()).collect()
}

fn open(name: &str) -> Box<dyn Reader> {
    let store = Arc::new(MemoryStore { name: name.to_owned(), bytes: bytes(name) });
    FORMAT.open(store, &Limits::default()).unwrap()
}

fn whole(reader: &dyn Reader, t: usize) -> Vec<u8> {
    let spec = &reader.index().tensors[t];
    let mut out = vec![0; spec.bytes().unwrap() as usize];
    reader.read(t, 0..spec.shape.rows(), &mut out).unwrap();
    out
}

fn write(index: &Index, data: impl Fn(usize) -> Vec<u8>) -> Vec<u8> {
    let model = Model::from_index(index, 0, Arc::new(MemoryAssets::default())).check(&CAPABILITIES).unwrap();
    let options =
        WriteOptions { file_name: "m.safetensors".into(), shards: ShardLimits::default(), external: false };
    let layout = FORMAT.layout(&model, &options).unwrap();
    assert_eq!(layout.files.len(), 1);
    let mut file = layout.files[0].header.clone();
    file.resize(layout.files[0].len as usize, 0);
    for (t, place) in layout.places.iter().enumerate() {
        let d = data(t);
        file[place.offset as usize..][..d.len()].copy_from_slice(&d);
    }
    file
}

#[test]
fn reference_files_are_read_and_reproduced() {
    let manifest: Json = serde_json::from_slice(&bytes("manifest.json")).unwrap();
    let files = manifest["safetensors"].as_object().unwrap();
    assert_eq!(files.len(), 2);
    let mut dtypes = 0;
    for (name, want) in files {
        let r = open(name);
        let meta: Vec<(&str, &str)> = want["metadata"]
            .as_object()
            .unwrap()
            .iter()
            .map(|(k, v)| (k.as_str(), v.as_str().unwrap()))
            .collect();
        let got: Vec<(&str, &str)> =
            r.index().metadata.iter().map(|(k, v)| (k, v.as_str().unwrap())).collect();
        assert_eq!(got, meta);
        let tensors = want["tensors"].as_array().unwrap();
        assert_eq!(r.index().tensors.len(), tensors.len());
        for (t, w) in tensors.iter().enumerate() {
            let spec = &r.index().tensors[t];
            let shape: Vec<u64> =
                w["shape"].as_array().unwrap().iter().map(|d| d.as_u64().unwrap()).collect();
            assert_eq!(spec.name, w["name"].as_str().unwrap());
            assert_eq!(spec.shape.dims(), shape);
            let ours = spec.encoding.to_string().to_uppercase();
            assert_eq!(ours, w["type"].as_str().unwrap(), "{}", spec.name);
            let data = hex(w["hex"].as_str().unwrap());
            assert_eq!(whole(&*r, t), data, "{}", spec.name);
            let row = data.len() / (spec.shape.rows().max(1) as usize);
            for i in 0..spec.shape.rows() {
                let mut out = vec![0; row];
                r.read(t, i..i + 1, &mut out).unwrap();
                assert_eq!(out, data[i as usize * row..][..row]);
            }
            dtypes += 1;
        }
        assert!(
            write(r.index(), |t| whole(&*r, t)) == bytes(name),
            "{name} differs from the reference library's"
        );
    }
    assert_eq!(dtypes, 22);
}

/// Every dtype, in an order that is neither the file's nor the alphabet's.
#[test]
fn the_reference_library_reads_what_is_written() {
    let mut metadata = Metadata::new();
    metadata.set("z", "last \"quoted\" \u{1f999}");
    metadata.set("a", "first");
    let data = |t: usize| vec![t as u8; 8 * DType::ALL[t].bits() as usize / 8 * 3];
    let tensors: Vec<Tensor> = DType::ALL
        .iter()
        .enumerate()
        .map(|(i, d)| {
            let form = Form::new(Shape::new(vec![3, 8]).unwrap(), Encoding::Plain(*d));
            Tensor::new(format!("t{}\n", i * 7 % 22), Expr::Read { source: 0, tensor: i, form }).unwrap()
        })
        .collect();
    let index =
        Index { tensors: tensors.into_iter().map(|t| t.spec).collect(), metadata, ..Index::default() };
    let file = write(&index, data);
    let theirs = safetensors::SafeTensors::deserialize(&file).unwrap();
    assert_eq!(theirs.len(), DType::ALL.len());
    for (t, spec) in index.tensors.iter().enumerate() {
        let view = theirs.tensor(&spec.name).unwrap();
        let shape: Vec<u64> = view.shape().iter().map(|d| *d as u64).collect();
        assert_eq!(shape, spec.shape.dims());
        assert_eq!(view.data(), data(t), "{}", spec.encoding);
        assert_eq!(view.dtype().bitsize() as u64, DType::ALL[t].bits());
    }
    let (_, header) = safetensors::SafeTensors::read_metadata(&file).unwrap();
    assert_eq!(header.metadata().as_ref().unwrap()["z"], "last \"quoted\" \u{1f999}");
    // Theirs sorts by its own dtype order: the same tensors, serialized there, give the same file.
    let views = index.tensors.iter().map(|s| (s.name.clone(), theirs.tensor(&s.name).unwrap()));
    let without = Index { metadata: Metadata::new(), ..index.clone() };
    assert!(safetensors::serialize(views, None).unwrap() == write(&without, data));

    let again =
        FORMAT.open(Arc::new(MemoryStore { name: "x".into(), bytes: file }), &Limits::default()).unwrap();
    let keys: Vec<(&str, &Value)> = again.index().metadata.iter().collect();
    assert_eq!(keys, index.metadata.iter().collect::<Vec<_>>());
}
