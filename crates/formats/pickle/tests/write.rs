//! What is written: torch's own bytes, shard sets, ties; and what cannot be written.

mod common;

use common::{files, fill, golden, open, store, whole};
use serde_json::Value as Json;
use std::sync::Arc;
use tensormill_model::{
    AddScalar, Alias, ErrorKind, Expr, Form, Format, Index, Limits, MemoryAssets, Metadata, Model, Reader,
    ShardLimits, Tensor, WriteOptions,
};
use tensormill_pickle::{CAPABILITIES, FORMAT, INDEX_NAME, PickleOptions};
use tensormill_safetensors::shard_names;
use tensormill_store::JoinedReader;
use tensormill_tensor::{DType, Encoding, Shape, TensorSpec, ggml};

fn options(name: &str, max_shard_bytes: Option<u64>) -> WriteOptions {
    WriteOptions {
        file_name: name.to_owned(),
        shards: ShardLimits { bytes: max_shard_bytes, tensors: None },
        external: false,
    }
}

fn model(index: &Index) -> Model {
    Model::from_index(index, 0, Arc::new(MemoryAssets::default()))
}

/// Zeroes the serialization id and its two checksums: torch hashes its checksums into it, which a layout does not know.
fn without_id(mut file: Vec<u8>) -> Vec<u8> {
    let places = |file: &[u8]| -> Vec<usize> {
        let name = b"/.data/serialization_id";
        (0..file.len() - name.len())
            .filter(|i| file[*i..].starts_with(name))
            .map(|i| i + name.len())
            .collect()
    };
    let [local, central] = places(&file)[..] else { panic!("no serialization id") };
    let folder = file[..local].windows(4).rposition(|w| w == b"PK\x03\x04").unwrap();
    let extra = usize::from(u16::from_le_bytes([file[folder + 28], file[folder + 29]]));
    file[local + extra..][..40].fill(0);
    file[local + extra + 44..][..4].fill(0);
    let entry = file[..central].windows(4).rposition(|w| w == b"PK\x01\x02").unwrap();
    file[entry + 16..][..4].fill(0);
    file
}

#[test]
fn files_are_torchs_own_byte_for_byte() {
    for name in ["plain.pt", "one.pt", "none.pt", "many.pt"] {
        let theirs = golden(&format!("written/{name}"));
        let r = open(theirs.clone(), &PickleOptions::default()).unwrap();
        let model = model(r.index());
        let source = |t: usize| match &model.tensors[t].expr {
            Expr::Read { tensor, .. } => *tensor,
            other => panic!("{other}"),
        };
        let checked = model.clone().check(&CAPABILITIES).unwrap();
        let ours = files(&checked, &options(name, None), |t| whole(&*r, source(t)).unwrap());
        assert_eq!(ours.len(), 1);
        let (ours, theirs) = (without_id(ours[0].1.clone()), without_id(theirs));
        let first = ours.iter().zip(&theirs).position(|(a, b)| a != b);
        assert!(
            ours == theirs,
            "{name}: {} and {} bytes, first difference at {first:?}",
            ours.len(),
            theirs.len()
        );
    }
}

#[test]
fn files_beyond_four_gib_are_torchs_own_too() {
    let want: Json = serde_json::from_slice(&golden("written/zip64.json")).unwrap();
    let spec = |t: &Json| {
        let shape = t[2].as_array().unwrap().iter().map(|d| d.as_u64().unwrap()).collect();
        let encoding = Encoding::parse(t[1].as_str().unwrap()).unwrap();
        TensorSpec::new(t[0].as_str().unwrap(), Shape::new(shape).unwrap(), encoding)
    };
    let tensors = want["tensors"].as_array().unwrap().iter().map(spec).collect();
    let index = Index { tensors, ..Index::default() };
    let layout =
        FORMAT.layout(&model(&index).check(&CAPABILITIES).unwrap(), &options("big.pt", None)).unwrap();
    let file = &layout.files[0];
    assert_eq!(file.len, want["len"].as_u64().unwrap());
    let mut ours = vec![(0, file.header.clone())];
    ours.extend(file.pieces.iter().map(|p| (p.offset, p.bytes.clone())));
    let hex = |s: &str| -> Vec<u8> {
        (0..s.len()).step_by(2).map(|i| u8::from_str_radix(&s[i..i + 2], 16).unwrap()).collect()
    };
    let mut theirs: Vec<(u64, Vec<u8>)> = want["pieces"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| (p[0].as_u64().unwrap(), hex(p[1].as_str().unwrap())))
        .collect();
    assert_eq!(ours.len(), theirs.len());
    for pieces in [&mut ours, &mut theirs] {
        let last = pieces.last_mut().unwrap();
        last.1 = without_id(std::mem::take(&mut last.1));
    }
    for (a, b) in ours.iter().zip(&theirs) {
        assert_eq!(a.0, b.0);
        assert!(a.1 == b.1, "piece at {}", a.0);
    }
    // Empty tensors have no checksum to fill in.
    let slots: Vec<usize> = layout.checksums.iter().map(|s| s.tensor).collect();
    assert_eq!(slots, [0, 1, 2, 4, 5]);
}

/// Every dtype, ties, and a tensor larger than a shard.
fn sample() -> (Index, impl Fn(usize) -> Vec<u8>) {
    let mut index = Index::default();
    for (i, d) in DType::ALL.iter().enumerate() {
        if !matches!(d, DType::F6E2M3 | DType::F6E3M2) {
            let shape = Shape::new(vec![3, 2 + 2 * i as u64]).unwrap();
            index.tensors.push(TensorSpec::new(format!("layer.{i}"), shape, Encoding::Plain(*d)));
        }
    }
    index.tensors.push(TensorSpec::new("large", Shape::new(vec![100, 9]).unwrap(), Encoding::F32));
    index.tensors.push(TensorSpec::new("none", Shape::new(vec![4, 0]).unwrap(), Encoding::BF16));
    index.tensors.push(TensorSpec::new("scalar", Shape::new(vec![]).unwrap(), Encoding::F32));
    index.aliases.push(Alias { name: "head".into(), tensor: 4, at: 7 });
    index.aliases.push(Alias { name: "tail".into(), tensor: 11, at: 24 });
    let sizes: Vec<usize> = index.tensors.iter().map(|t| t.bytes().unwrap() as usize).collect();
    (index, move |t| (0..sizes[t]).map(|i| (i * 7 + t * 31) as u8).collect())
}

fn source(t: &Tensor) -> usize {
    match &t.expr {
        Expr::Read { tensor, .. } => *tensor,
        other => panic!("{other}"),
    }
}

#[test]
fn what_is_written_is_read_back() {
    let (index, data) = sample();
    let model = model(&index);
    assert_eq!(model.tensors[7].name(), "head");
    for max in [None, Some(1000), Some(200), Some(1)] {
        let checked = model.clone().check(&CAPABILITIES).unwrap();
        let out = files(&checked, &options("pytorch_model.bin", max), |t| data(source(&model.tensors[t])));
        let weights: Vec<_> = out.iter().filter(|(n, _)| !n.contains(".json")).cloned().collect();
        if max.is_some() {
            assert_eq!(out.last().unwrap().0, INDEX_NAME);
            let listed = shard_names(&out.last().unwrap().1).unwrap();
            let names: Vec<&str> = weights.iter().map(|(n, _)| n.as_str()).collect();
            assert_eq!(listed.files(), names);
            let total: u64 = index.tensors.iter().map(|t| t.bytes().unwrap()).sum();
            let json: Json = serde_json::from_slice(&out.last().unwrap().1).unwrap();
            assert_eq!(json["metadata"]["total_size"], total);
        } else {
            assert_eq!(out.len(), 1);
        }
        let parts = weights.into_iter().map(|(name, bytes)| {
            let r = FORMAT.open(store(&name, bytes), &Limits::default()).unwrap();
            (name, r)
        });
        let r = JoinedReader::concat(parts.collect(), Metadata::new()).unwrap();
        assert_eq!(r.index().aliases.len(), 2, "ties are kept");
        for a in &r.index().aliases {
            let of = &index.tensors[if a.name == "head" { 4 } else { 11 }].name;
            assert_eq!(&r.index().tensors[a.tensor].name, of);
        }
        assert_eq!(r.index().tensors.len(), index.tensors.len());
        for (t, spec) in r.index().tensors.iter().enumerate() {
            let i = index.tensors.iter().position(|s| s.name == spec.name).unwrap();
            assert_eq!(spec, &index.tensors[i]);
            assert_eq!(whole(&r, t).unwrap(), data(i), "{}", spec.name);
        }
        if max.is_none() {
            let order: Vec<&str> = r.index().tensors.iter().map(|t| t.name.as_str()).collect();
            let want: Vec<&str> = index.tensors.iter().map(|t| t.name.as_str()).collect();
            assert_eq!(order, want);
            assert_eq!(r.index().aliases.iter().map(|a| a.at).collect::<Vec<_>>(), [7, 24]);
        }
    }
}

#[test]
fn ties_are_equal_expressions_through_rewrites() {
    let form = || Form::new(Shape::new(vec![2, 3]).unwrap(), Encoding::F32);
    let read = |tensor| Expr::Read { source: 0, tensor, form: form() };
    let zero = || Expr::Const { form: form(), bytes: Arc::from([0; 24]) };
    let exprs = [
        read(0),
        read(0).apply(AddScalar(1.0)),
        read(1),
        read(0),
        read(0).apply(AddScalar(1.0)),
        read(0).apply(AddScalar(2.0)),
        zero(),
        zero(),
    ];
    let tensors = exprs.into_iter().enumerate().map(|(i, e)| Tensor::new(format!("t{i}"), e).unwrap());
    let model = Model {
        tensors: tensors.collect(),
        metadata: Metadata::new(),
        assets: Arc::new(MemoryAssets::default()),
        program: None,
    };
    let layout = FORMAT.layout(&model.check(&CAPABILITIES).unwrap(), &options("x.pt", None)).unwrap();
    let first = |i: usize| layout.places.iter().position(|p| *p == layout.places[i]).unwrap();
    assert_eq!((0..8).map(first).collect::<Vec<_>>(), [0, 1, 2, 0, 1, 5, 6, 7]);
    assert_eq!(layout.checksums.len(), 6);
    assert!(layout.places.iter().all(|p| p.offset % 64 == 0));
    // Every checksum lies behind the tensor's bytes.
    for slot in &layout.checksums {
        assert!(slot.places.iter().all(|p| p.offset >= layout.places[slot.tensor].offset + 24));
    }
    let again = fill(&layout, |_| vec![1; 24]);
    let r = FORMAT.open(store("x.pt", again[0].1.clone()), &Limits::default()).unwrap();
    assert_eq!((r.index().tensors.len(), r.index().aliases.len()), (6, 2));
}

#[test]
fn folders_in_archives_are_named_as_torch_names_them() {
    let form = Form::new(Shape::new(vec![1]).unwrap(), Encoding::F32);
    let tensor = Tensor::new("t", Expr::Read { source: 0, tensor: 0, form }).unwrap();
    let model = Model {
        tensors: vec![tensor],
        metadata: Metadata::new(),
        assets: Arc::new(MemoryAssets::default()),
        program: None,
    };
    for (name, folder) in [("a.b.pt", "a.b/"), ("x", "x/"), ("gr\u{fc}n.pt", "archive/"), (".pt", ".pt/")] {
        let layout =
            FORMAT.layout(&model.clone().check(&CAPABILITIES).unwrap(), &options(name, None)).unwrap();
        assert_eq!(layout.files[0].name, name);
        assert!(layout.files[0].header[30..].starts_with(format!("{folder}data.pkl").as_bytes()), "{name}");
    }
}

#[test]
fn what_cannot_be_written_is_said() {
    let layout = |encoding, dims: Vec<u64>, metadata: Metadata| {
        let form = Form::new(Shape::new(dims).unwrap(), encoding);
        let model = Model {
            tensors: vec![Tensor::new("t", Expr::Read { source: 0, tensor: 0, form }).unwrap()],
            metadata,
            assets: Arc::new(MemoryAssets::default()),
            program: None,
        };
        FORMAT.layout(&model.check(&CAPABILITIES)?, &options("x.pt", None))
    };
    let none = Metadata::new;
    layout(Encoding::Plain(DType::F4), vec![2, 4], none()).unwrap();
    let mut some = none();
    some.set("format", "pt");
    for (e, tensor) in [
        (layout(Encoding::Block(ggml::Q4_K), vec![256], none()), Some("t")),
        (layout(Encoding::Plain(DType::F6E2M3), vec![4], none()), Some("t")),
        (layout(Encoding::Plain(DType::F4), vec![4, 3], none()), Some("t")),
        (layout(Encoding::F32, vec![1], some), None),
    ] {
        let e = e.unwrap_err();
        assert_eq!((e.kind(), e.tensor_name()), (ErrorKind::Unsupported, tensor), "{e}");
    }
}
