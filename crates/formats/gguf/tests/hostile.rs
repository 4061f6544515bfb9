//! Files that lie: an error of the right kind, never a panic, never much memory or time.

#[path = "common/raw.rs"]
mod raw;

use raw::Raw;
use std::{ops::Range, sync::Arc, time::Instant};
use tensormill_gguf::{CAPABILITIES, FORMAT};
use tensormill_model::{
    Array, Error, ErrorKind, Expr, Form, Format, Limits, MemoryAssets, MemoryStore, Metadata, Model, Reader,
    ShardLimits, Tensor, Value, WriteOptions,
};
use tensormill_tensor::{DType, Encoding, Shape, ggml};

fn open_with(bytes: Vec<u8>, limits: &Limits) -> Result<Box<dyn Reader>, Error> {
    FORMAT.open(Arc::new(MemoryStore { name: "hostile.gguf".into(), bytes }), limits)
}
fn open(bytes: Vec<u8>) -> Result<Box<dyn Reader>, Error> {
    open_with(bytes, &Limits::default())
}
fn refused(bytes: Vec<u8>) -> Error {
    let e = open(bytes).err().expect("a hostile file was accepted");
    assert_eq!(e.file_name(), Some("hostile.gguf"), "{e}");
    e
}

fn small_model() -> Model {
    let tensor = |name: &str, dims: Vec<u64>, encoding| {
        let form = Form::new(Shape::new(dims).unwrap(), encoding);
        Tensor::new(name, Expr::Read { source: 0, tensor: 0, form }).unwrap()
    };
    let mut metadata = Metadata::new();
    metadata.set("general.architecture", "llama");
    metadata.set("bytes", Value::Bytes(vec![0xff, 0x00, 0xfe]));
    metadata.set("list.bytes", Array::Bytes(vec![b"ok".to_vec(), vec![0x80]]));
    metadata.set("list.none", Array::U16(vec![]));
    metadata.set(
        "nested",
        Array::Array(vec![Array::I8(vec![-1]), Array::Array(vec![Array::Str(vec!["x".into()])])]),
    );
    Model {
        tensors: vec![
            tensor("a", vec![2, 3], Encoding::F32),
            tensor("none", vec![0, 3], Encoding::F16),
            tensor("scalar", vec![], Encoding::Plain(DType::I64)),
            tensor("b", vec![1, 256], Encoding::Block(ggml::Q6_K)),
        ],
        metadata,
        assets: Arc::new(MemoryAssets::default()),
        program: None,
    }
}

fn small_file() -> Vec<u8> {
    let options =
        WriteOptions { file_name: "small.gguf".into(), shards: ShardLimits::default(), external: false };
    let layout = FORMAT.layout(&small_model().check(&CAPABILITIES).unwrap(), &options).unwrap();
    let mut bytes = layout.files[0].header.clone();
    bytes.resize(layout.files[0].len as usize, 0);
    bytes
}

#[test]
fn what_is_written_is_read_back() {
    let model = small_model();
    let r = open(small_file()).unwrap();
    assert_eq!(r.index().metadata, model.metadata);
    let specs: Vec<_> = model.tensors.into_iter().map(|t| t.spec).collect();
    assert_eq!(r.index().tensors, specs);
    r.read(1, 0..0, &mut []).unwrap();
    let mut out = [1; 8];
    r.read(2, 0..1, &mut out).unwrap();
    assert_eq!(out, [0; 8]);
    for (rows, n) in [(0..3, 36), (0..1, 11), (Range { start: 2, end: 1 }, 0), (u64::MAX..u64::MAX, 0)] {
        assert_eq!(r.read(0, rows, &mut vec![0; n]).unwrap_err().kind(), ErrorKind::Usage);
    }
}

#[test]
fn every_truncation_is_an_error() {
    let whole = small_file();
    // The last tensor's 210 bytes are padded to 224: losing padding loses nothing.
    let needed = whole.len() - (224 - 210);
    for n in 0..needed {
        let e = refused(whole[..n].to_vec());
        assert_eq!(e.kind(), ErrorKind::Malformed, "{n} bytes: {e}");
    }
    open(whole[..needed].to_vec()).unwrap();
}

#[test]
fn every_flipped_byte_is_survived() {
    let whole = small_file();
    let start = Instant::now();
    for i in 0..whole.len() - 300 {
        for mask in [0xff, 0x80, 0x01] {
            let mut b = whole.clone();
            b[i] ^= mask;
            if let Ok(r) = open(b) {
                for (t, spec) in r.index().tensors.iter().enumerate() {
                    let n = spec.bytes().unwrap();
                    assert!(n < 1 << 20);
                    r.read(t, 0..spec.shape.rows(), &mut vec![0; n as usize]).unwrap();
                }
            }
        }
    }
    assert!(start.elapsed().as_secs() < 20, "hostile files must fail quickly");
}

#[test]
fn absurd_lengths_are_refused_before_memory_is_taken() {
    for n in [u64::MAX, 1 << 63, 1 << 40, (1 << 63) - 1] {
        assert_eq!(refused(Raw::head(3, n, 0).0).kind(), ErrorKind::OverLimit);
        assert_eq!(refused(Raw::head(3, 0, n).0).kind(), ErrorKind::OverLimit);
        // Key, string value, array of numbers, of strings, of arrays.
        refused(Raw::head(3, 0, 1).u64(n).0);
        refused(Raw::head(3, 0, 1).str(b"k").u32(8).u64(n).0);
        for element in 0..13 {
            refused(Raw::head(3, 0, 1).str(b"k").u32(9).u32(element).u64(n).0);
        }
        // Tensor name and dimensions.
        refused(Raw::head(3, 1, 0).u64(n).0);
        let e = refused(Raw::head(3, 1, 0).tensor("t", &[n, 3], 0, 0).data(64));
        assert_eq!((e.kind(), e.tensor_name()), (ErrorKind::Malformed, Some("t")), "{e}");
    }
    // Announced within the limits, but not there.
    for element in [0, 8, 9] {
        let e = refused(Raw::head(3, 0, 1).str(b"k").u32(9).u32(element).u64(1 << 25).0);
        assert_eq!(e.kind(), ErrorKind::Malformed, "{e}");
    }
    let mut tight = Limits::default();
    tight.header_bytes = 100;
    let e = open_with(Raw::head(3, 0, 1).str(b"k").u32(8).str([b'x'; 200]).0, &tight).err().unwrap();
    assert_eq!(e.kind(), ErrorKind::OverLimit);
    let e = open_with(Raw::head(3, 0, 1).str([b'x'; 90]).u32(8).str(b"").0, &tight).err().unwrap();
    assert_eq!(e.kind(), ErrorKind::OverLimit);
}

#[test]
fn deep_nesting_is_refused() {
    let mut r = Raw::head(3, 0, 1).str(b"k").u32(9);
    for _ in 0..100_000 {
        r = r.u32(9).u64(1);
    }
    assert_eq!(refused(r.clone().0).kind(), ErrorKind::OverLimit);
    let mut generous = Limits::default();
    generous.depth = u32::MAX;
    assert_eq!(open_with(r.0, &generous).err().unwrap().kind(), ErrorKind::OverLimit);
}

#[test]
fn tensors_must_lie_aligned_inside_and_apart() {
    let two = |a: u64, b: u64| Raw::head(3, 2, 0).tensor("a", &[16], 0, a).tensor("b", &[16], 0, b).data(128);
    open(two(0, 64)).unwrap();
    open(two(64, 0)).unwrap();
    for (a, b, tensor, what) in [
        (0, 32, "b", "overlaps that of a"),
        (32, 0, "a", "overlaps that of b"),
        (0, 65, "b", "not a multiple"),
        (0, 96, "b", "end after the file"),
        (0, !31, "b", "end after the file"),
    ] {
        let e = refused(two(a, b));
        assert_eq!((e.kind(), e.tensor_name()), (ErrorKind::Malformed, Some(tensor)), "{e}");
        assert!(e.message().contains(what), "{e}");
    }
}

#[test]
fn names_and_keys_occur_once_and_are_text() {
    let e = refused(Raw::head(3, 2, 0).tensor("t", &[1], 0, 0).tensor("t", &[1], 0, 32).data(64));
    assert!(e.message().contains("this name") && e.tensor_name() == Some("t"), "{e}");
    let e = refused(Raw::head(3, 0, 2).str(b"k").u32(4).u32(1).str(b"k").u32(4).u32(1).0);
    assert!(e.message().contains("twice"), "{e}");
    assert!(refused(Raw::head(3, 0, 1).str(b"\xff").u32(4).u32(1).0).message().contains("UTF-8"));
    assert!(refused(Raw::head(3, 0, 1).str(b"").u32(4).u32(1).0).message().contains("empty"));
    assert!(refused(Raw::head(3, 0, 1).str(b"k").u32(13).0).message().contains("type code 13"));
    assert!(refused(Raw::head(3, 0, 1).str(b"k").u32(9).u32(77).u64(0).0).message().contains("type code 77"));
}

#[test]
fn unknown_versions_types_ranks_and_alignments_are_named() {
    for v in [0, 4, 0x0400_0000, u32::MAX] {
        assert_eq!(refused(Raw::head(v, 0, 0).0).kind(), ErrorKind::Unsupported);
    }
    assert_eq!(refused(b"GGML".to_vec()).kind(), ErrorKind::Malformed);
    let e = refused(Raw::head(3, 1, 0).tensor("t", &[32], 31, 0).data(64));
    assert_eq!((e.kind(), e.tensor_name()), (ErrorKind::Unsupported, Some("t")));
    assert!(e.message().contains("Q4_0_4_4"), "{e}");
    assert_eq!(
        refused(Raw::head(3, 1, 0).tensor("t", &[32], 4000, 0).data(64)).kind(),
        ErrorKind::Unsupported
    );
    assert_eq!(refused(Raw::head(3, 1, 0).tensor("t", &[1; 5], 0, 0).data(64)).kind(), ErrorKind::Malformed);
    assert_eq!(refused(Raw::head(3, 1, 0).tensor("t", &[33], 8, 0).data(64)).kind(), ErrorKind::Malformed);
    let align = |a: u32| Raw::head(3, 0, 1).str(b"general.alignment").u32(4).u32(a).0;
    open(align(64)).unwrap();
    for a in [0, 3, 48, u32::MAX] {
        assert_eq!(refused(align(a)).kind(), ErrorKind::Malformed);
    }
    assert!(open(Raw::head(3, 0, 1).str(b"general.alignment").u32(8).str(b"32").0).is_err());
}

#[test]
fn version_1_counts_in_32_bits() {
    let r = Raw(b"GGUF".to_vec()).u32(1).u32(1).u32(1);
    let r = r.u32(1).bytes(b"k").u32(9).u32(8).u32(2).u32(1).bytes(b"x").u32(0);
    let mut bytes = r.u32(1).bytes(b"t").u32(2).u32(4).u32(2).u32(0).u64(0).data(32);
    let data = bytes.len() - 32;
    bytes[data] = 7;
    let r = open(bytes).unwrap();
    assert_eq!(r.index().metadata.get("k"), Some(&Value::Array(Array::Str(vec!["x".into(), String::new()]))));
    assert_eq!(r.index().tensors[0].shape.dims(), [2, 4]);
    let mut out = [0; 16];
    r.read(0, 0..1, &mut out).unwrap();
    assert_eq!(out[0], 7);
}

#[test]
fn big_endian_blocks_without_a_defined_layout_are_refused_when_read() {
    let be = |x: u64| x.to_be_bytes();
    let mut b = b"GGUF\0\0\0\x03".to_vec();
    b.extend([be(1), be(0), be(1)].concat());
    b.extend(b"t\0\0\0\x01");
    b.extend(be(256));
    b.extend([0, 0, 0, 16]);
    b.extend(be(0));
    let r = open(Raw(b).data(66)).unwrap();
    let e = r.read(0, 0..1, &mut [0; 66]).unwrap_err();
    assert_eq!((e.kind(), e.tensor_name()), (ErrorKind::Unsupported, Some("t")));
    assert!(e.message().contains("IQ2_XXS"), "{e}");
}

#[test]
fn a_large_vocabulary_is_read_quickly() {
    let n = 200_000u64;
    let mut m = Metadata::new();
    m.set("tokens", (0..n).map(|i| format!("token{i}")).collect::<Vec<_>>());
    m.set("scores", (0..n).map(|i| i as f32).collect::<Vec<_>>());
    m.set("types", vec![1i32; n as usize]);
    let model = Model {
        tensors: vec![],
        metadata: m.clone(),
        assets: Arc::new(MemoryAssets::default()),
        program: None,
    };
    let options =
        WriteOptions { file_name: "v.gguf".into(), shards: ShardLimits::default(), external: false };
    let file = FORMAT.layout(&model.check(&CAPABILITIES).unwrap(), &options).unwrap().files.remove(0);
    assert!(file.header.len() > 4 << 20, "several chunks");
    let start = Instant::now();
    let r = open(file.header).unwrap();
    assert!(start.elapsed().as_secs_f32() < 2.0);
    assert_eq!(r.index().metadata, m);
}
