//! The other way: a file that `candle` wrote (GGUF version 2) is read by us, and converted.

use crate::candle::{
    NOT_LOADED, TYPES, compare_metadata, compare_tensors, encoding, first_difference, same_value, values,
};
use candle_core::{
    Device, Tensor,
    quantized::{
        GgmlDType, QTensor,
        gguf_file::{self, Content, Value as Theirs},
    },
};
use std::{
    collections::BTreeSet,
    fs::{self, File},
    path::Path,
};
use tensormill_core::convert::{Request, Target};
use tensormill_parity::{bytes, convert, decode, open};

/// The one of its types that our kernels do not decode: ggml uses it only for activations.
const NOT_DECODED: GgmlDType = GgmlDType::Q8_1;

fn metadata() -> Vec<(&'static str, Theirs)> {
    let text = |s: &str| Theirs::String(s.to_owned());
    vec![
        ("general.architecture", text("llama")),
        ("kind.u8", Theirs::U8(u8::MAX)),
        ("kind.i8", Theirs::I8(i8::MIN)),
        ("kind.u16", Theirs::U16(u16::MAX)),
        ("kind.i16", Theirs::I16(i16::MIN)),
        ("kind.u32", Theirs::U32(u32::MAX)),
        ("kind.i32", Theirs::I32(i32::MIN)),
        ("kind.u64", Theirs::U64(u64::MAX)),
        ("kind.i64", Theirs::I64(i64::MIN)),
        ("kind.f32", Theirs::F32(-0.0)),
        ("kind.f64", Theirs::F64(1e-300)),
        ("kind.bool", Theirs::Bool(true)),
        ("kind.text", text("m\u{f8}lle")),
        ("array.text", Theirs::Array(vec![text("a"), text(""), text("\u{1f33e}")])),
        ("array.f32", Theirs::Array(vec![Theirs::F32(0.1), Theirs::F32(-1e-30)])),
        ("array.bool", Theirs::Array(vec![Theirs::Bool(false), Theirs::Bool(true)])),
        (
            "array.nested",
            Theirs::Array(vec![
                Theirs::Array(vec![Theirs::I64(-1), Theirs::I64(2)]),
                Theirs::Array(vec![Theirs::I64(3)]),
            ]),
        ),
    ]
}

/// Weights of many magnitudes in two and three dimensions, one tensor per type.
fn tensors(types: &[GgmlDType]) -> Vec<(String, QTensor)> {
    let shapes: [&[usize]; 3] = [&[256], &[5, 512], &[2, 3, 256]];
    let mut out = Vec::new();
    for (n, dtype) in types.iter().enumerate() {
        for (s, dims) in shapes.iter().enumerate() {
            let len: usize = dims.iter().product();
            let x: Vec<f32> = (0..len)
                .map(|i| {
                    let t = (i + 1000 * n) as f32;
                    (t * 0.37).sin()
                        * (t * 0.0113).cos()
                        * 10f32.powi(i32::try_from(i / 64 % 5).expect("small") - 3)
                })
                .collect();
            let tensor = Tensor::from_vec(x, *dims, &Device::Cpu).expect("tensor is made");
            let name = format!("blk.{n}.{s}.{dtype:?}");
            out.push((name, QTensor::quantize(&tensor, *dtype).expect("candle quantizes")));
        }
    }
    out
}

fn write(path: &Path, metadata: &[(&str, Theirs)], tensors: &[(String, QTensor)]) {
    let metadata: Vec<(&str, &Theirs)> = metadata.iter().map(|(k, v)| (*k, v)).collect();
    let tensors: Vec<(&str, &QTensor)> = tensors.iter().map(|(n, t)| (n.as_str(), t)).collect();
    let mut file = File::create(path).expect("file is created");
    gguf_file::write(&mut file, &metadata, &tensors).expect("candle writes the file");
}

#[test]
fn we_read_what_candle_wrote() {
    let scratch = tempfile::tempdir().expect("scratch folder");
    let path = scratch.path().join("candle.gguf");
    let types: Vec<GgmlDType> = TYPES.iter().map(|(theirs, _)| *theirs).collect();
    let (metadata, tensors) = (metadata(), tensors(&types));
    write(&path, &metadata, &tensors);
    assert_eq!(fs::read(&path).expect("file reads")[..8], *b"GGUF\x02\0\0\0");

    let ours = open(&path);
    // Order included: it is the order in which candle was given them.
    assert_eq!(ours.index().metadata.len(), metadata.len());
    for ((key, value), (our_key, our_value)) in metadata.iter().zip(ours.index().metadata.iter()) {
        assert_eq!(*key, our_key);
        assert!(same_value(value, our_value), "{key}: candle wrote {value:?}, we read {our_value}");
    }
    assert_eq!(ours.index().tensors.len(), tensors.len());
    for (i, ((name, theirs), spec)) in tensors.iter().zip(&ours.index().tensors).enumerate() {
        assert_eq!(*name, spec.name);
        let dims: Vec<u64> = theirs.shape().dims().iter().map(|&d| d as u64).collect();
        assert_eq!(dims, spec.shape.dims(), "{name}");
        assert_eq!(encoding(theirs.dtype()), spec.encoding, "{name}");
        let our_bytes = bytes(&*ours, i);
        assert!(*theirs.data().expect("bytes") == our_bytes[..], "{name}: other bytes");
        if theirs.dtype() == NOT_DECODED {
            continue;
        }
        let (a, b) = (decode(spec, &our_bytes), values(theirs));
        if let Some(j) = first_difference(&a, &b) {
            panic!("{name}: value {j} is {:e} for us, {:e} for candle", a[j], b[j]);
        }
    }
}

#[test]
fn candle_reads_what_we_make_of_its_file() {
    let scratch = tempfile::tempdir().expect("scratch folder");
    let (from, to) = (scratch.path().join("from.gguf"), scratch.path().join("to.gguf"));
    let types: Vec<GgmlDType> =
        TYPES.iter().map(|(theirs, _)| *theirs).filter(|t| !NOT_LOADED.contains(&encoding(*t))).collect();
    let tensors = tensors(&types);
    write(&from, &metadata(), &tensors);
    convert(&Request::new(&from, &to, Target::Lossless));
    assert_eq!(fs::read(&to).expect("file reads")[..8], *b"GGUF\x03\0\0\0");

    let ours = open(&to);
    let theirs = Content::read(&mut File::open(&to).expect("file opens")).expect("candle reads the file");
    let mut wrong = compare_metadata(&theirs, &ours.index().metadata);
    wrong.extend(compare_tensors(&to, &theirs, &*ours, &mut BTreeSet::new()));
    assert!(wrong.is_empty(), "{} differences:\n{}", wrong.len(), wrong.join("\n"));
    // The same tensors that candle wrote at first, not only two equal readings of the second file.
    let mut file = File::open(&to).expect("file opens");
    assert_eq!(theirs.tensor_infos.len(), tensors.len());
    for (name, before) in &tensors {
        let after = theirs.tensor(&mut file, name, &Device::Cpu).expect("candle loads the tensor");
        assert_eq!((after.dtype(), after.shape()), (before.dtype(), before.shape()), "{name}");
        assert!(*after.data().expect("bytes") == *before.data().expect("bytes"), "{name}: other bytes");
    }
    for (key, value) in metadata() {
        let same = ours.index().metadata.get(key).is_some_and(|v| same_value(&value, v));
        assert!(same, "{key} after the conversion");
    }
}
