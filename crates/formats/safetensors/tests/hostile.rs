//! Files that lie: an error of the right kind, never a panic, never much memory or time.

use std::{ops::Range, sync::Arc, time::Instant};
use tensormill_model::{
    Error, ErrorKind, Expr, Form, Format, Limits, MemoryAssets, MemoryStore, Metadata, Model, Reader, Score,
    ShardLimits, Tensor, WriteOptions,
};
use tensormill_safetensors::{CAPABILITIES, FORMAT};
use tensormill_tensor::{Encoding, Shape, ggml};

fn file(json: &str, data: usize) -> Vec<u8> {
    let mut b = (json.len() as u64).to_le_bytes().to_vec();
    b.extend(json.as_bytes());
    b.resize(b.len() + data, 0);
    b
}
fn open_with(bytes: Vec<u8>, limits: &Limits) -> Result<Box<dyn Reader>, Error> {
    FORMAT.open(Arc::new(MemoryStore { name: "hostile.safetensors".into(), bytes }), limits)
}
fn refused(bytes: Vec<u8>) -> Error {
    let e = open_with(bytes, &Limits::default()).err().expect("a hostile file was accepted");
    assert_eq!(e.file_name(), Some("hostile.safetensors"), "{e}");
    e
}

const TWO: &str = r#"{"b":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]},"a":{"dtype":"U8","shape":[3],"data_offsets":[16,19]}}"#;

#[test]
fn every_truncation_and_every_flip_is_survived() {
    let whole = file(TWO, 19);
    assert_eq!(open_with(whole.clone(), &Limits::default()).unwrap().index().tensors[0].name, "a");
    for n in 0..whole.len() {
        assert_eq!(refused(whole[..n].to_vec()).kind(), ErrorKind::Malformed, "{n}");
    }
    for i in 0..whole.len() {
        for mask in [0xff, 0x80, 0x01, 0x10] {
            let mut b = whole.clone();
            b[i] ^= mask;
            if let Ok(r) = open_with(b, &Limits::default()) {
                for (t, s) in r.index().tensors.iter().enumerate() {
                    r.read(t, 0..s.shape.rows(), &mut vec![0; s.bytes().unwrap() as usize]).unwrap();
                }
            }
        }
    }
}

#[test]
fn lies_about_data_name_their_tensor() {
    let one = |dtype: &str, shape: &str, offsets: &str| {
        format!(r#"{{"t":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}}}"#)
    };
    for (json, data, what) in [
        (one("F32", "[2]", "[8,0]"), 8, "before it begins"),
        (one("F32", "[2]", "[4,12]"), 12, "hole"),
        (one("F32", "[2]", "[0,8]"), 7, "ends after the file"),
        (one("F32", "[3]", "[0,8]"), 8, "takes 12 bytes"),
        (one("F32", "[9223372036854775807,9]", "[0,8]"), 8, "more elements"),
        (one("F32", "[0,9223372036854775807,9]", "[0,0]"), 0, "more elements"),
        (one("F64", "[4611686018427387904]", "[0,8]"), 8, "no whole number"),
        (one("F32", "[0,4611686018427387904]", "[0,0]"), 0, "larger than 64 bits"),
        (one("F4", "[3]", "[0,2]"), 2, "no whole number"),
        (one("F32", "[1]", "[0,18446744073709551615]"), 4, "ends after the file"),
    ] {
        let e = refused(file(&json, data));
        assert_eq!((e.kind(), e.tensor_name()), (ErrorKind::Malformed, Some("t")), "{e}");
        assert!(e.message().contains(what), "{e}");
    }
    let e = refused(file(&one("Q4_K", "[2]", "[0,8]"), 8));
    assert_eq!((e.kind(), e.tensor_name()), (ErrorKind::Unsupported, Some("t")));
    let overlap = TWO.replace("[16,19]", "[15,18]");
    let e = refused(file(&overlap, 18));
    assert!(e.message().contains("overlaps") && e.tensor_name() == Some("a"), "{e}");
    assert!(refused(file(TWO, 20)).message().contains("1 bytes at the end belong to no tensor"));
}

#[test]
fn headers_that_are_not_headers() {
    let limit = refused(u64::MAX.to_le_bytes().to_vec());
    assert_eq!(limit.kind(), ErrorKind::OverLimit);
    assert_eq!(refused(100_000_001u64.to_le_bytes().to_vec()).kind(), ErrorKind::OverLimit);
    for json in [
        "",
        "[]",
        " {}",
        "{}x",
        "{",
        "nul",
        r#"{"t":3}"#,
        r#"{"t":{}}"#,
        r#"{"t":{"dtype":"F32","shape":[1]}}"#,
        r#"{"t":{"dtype":"F32","shape":[-1],"data_offsets":[0,0]}}"#,
        r#"{"t":{"dtype":"F32","shape":[1.5],"data_offsets":[0,0]}}"#,
        r#"{"t":{"dtype":"F32","shape":[0],"data_offsets":[0,0,0]}}"#,
        r#"{"t":{"dtype":"F32","dtype":"F16","shape":[0],"data_offsets":[0,0]}}"#,
        r#"{"t":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},"t":{"dtype":"F16","shape":[0],"data_offsets":[0,0]}}"#,
        r#"{"__metadata__":{"a":"1","a":"2"}}"#,
        r#"{"__metadata__":{},"__metadata__":{}}"#,
        r#"{"__metadata__":{"a":1}}"#,
    ] {
        assert_eq!(refused(file(json, 0)).kind(), ErrorKind::Malformed, "{json}");
    }
    let bad_text = {
        let mut b = file(r#"{"__metadata__":{"a":"??"}}"#, 0);
        let n = b.len();
        b[n - 5] = 0xff;
        b
    };
    assert_eq!(refused(bad_text).kind(), ErrorKind::Malformed);
    // Padding, further fields and an empty model are in use.
    open_with(file("{}      ", 0), &Limits::default()).unwrap();
    let more = r#"{"t":{"dtype":"F32","note":[{}],"shape":[1],"data_offsets":[0,4]}}"#;
    open_with(file(more, 4), &Limits::default()).unwrap();
}

#[test]
fn limits_hold_and_nesting_does_not_overflow() {
    let start = Instant::now();
    let deep = format!(r#"{{"t":{}"#, "[".repeat(1_000_000));
    assert_eq!(refused(file(&deep, 0)).kind(), ErrorKind::Malformed);
    let deep = format!(r#"{{"t":{{"note":{}"#, "[".repeat(1_000_000));
    assert_eq!(refused(file(&deep, 0)).kind(), ErrorKind::Malformed);
    let wide =
        format!(r#"{{"t":{{"dtype":"F32","shape":[{}1],"data_offsets":[0,4]}}}}"#, "1,".repeat(1_000_000));
    assert_eq!(refused(file(&wide, 4)).kind(), ErrorKind::OverLimit);
    let mut limits = Limits::default();
    limits.tensors = 1;
    assert_eq!(open_with(file(TWO, 19), &limits).err().unwrap().kind(), ErrorKind::OverLimit);
    limits = Limits::default();
    limits.header_bytes = 64;
    assert_eq!(open_with(file(TWO, 19), &limits).err().unwrap().kind(), ErrorKind::OverLimit);
    limits = Limits::default();
    limits.metadata = 0;
    let meta = file(r#"{"__metadata__":{"a":"1"}}"#, 0);
    assert_eq!(open_with(meta, &limits).err().unwrap().kind(), ErrorKind::OverLimit);
    assert!(start.elapsed().as_secs() < 10);
}

#[test]
fn rows_of_small_types_end_on_bytes_or_are_refused() {
    let json = r#"{"t":{"dtype":"F4","shape":[2,3],"data_offsets":[0,3]}}"#;
    let r = open_with(file(json, 3), &Limits::default()).unwrap();
    r.read(0, 0..2, &mut [0; 3]).unwrap();
    let e = r.read(0, 0..1, &mut [0; 1]).unwrap_err();
    assert_eq!((e.kind(), e.tensor_name()), (ErrorKind::Unsupported, Some("t")));
    for (rows, n) in [(0..3, 4), (0..2, 4), (Range { start: 2, end: 1 }, 0), (u64::MAX..u64::MAX, 0)] {
        assert_eq!(r.read(0, rows, &mut vec![0; n]).unwrap_err().kind(), ErrorKind::Usage);
    }
}

#[test]
fn what_cannot_be_written_is_said() {
    let layout = |name: &str, encoding, metadata: Metadata, max| {
        let form = Form::new(Shape::new(vec![256]).unwrap(), encoding);
        let model = Model {
            tensors: vec![Tensor::new(name, Expr::Read { source: 0, tensor: 0, form }).unwrap()],
            metadata,
            assets: Arc::new(MemoryAssets::default()),
            program: None,
        };
        FORMAT.layout(
            &model.check(&CAPABILITIES)?,
            &WriteOptions {
                file_name: "x".into(),
                shards: ShardLimits { bytes: max, tensors: None },
                external: false,
            },
        )
    };
    let none = Metadata::new;
    layout("t", Encoding::F32, none(), Some(1024)).unwrap();
    let mut number = none();
    number.set("n", 1u32);
    for e in [
        layout("t", Encoding::Block(ggml::Q4_K), none(), None),
        layout("__metadata__", Encoding::F32, none(), None),
        layout("t", Encoding::F32, number, None),
    ] {
        assert_eq!(e.unwrap_err().kind(), ErrorKind::Unsupported);
    }
}

#[test]
fn probing_looks_inside_first() {
    assert_eq!(FORMAT.probe(&file(TWO, 19), "x"), Score::Yes);
    assert_eq!(FORMAT.probe(b"GGUF\x03\0\0\0\0\0", "x.SafeTensors"), Score::Maybe);
    assert_eq!(FORMAT.probe(b"", "x.gguf"), Score::No);
}
