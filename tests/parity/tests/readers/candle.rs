//! `candle`: metadata with types, tensor infos, bytes, and decoded values.

use candle_core::{
    Device,
    quantized::{
        GgmlDType,
        gguf_file::{Content, Value as Theirs},
    },
};
use std::{collections::BTreeSet, fs::File, path::Path};
use tensormill_gguf::{code_of, encoding_of};
use tensormill_model::{Index, Metadata, Reader, Value};
use tensormill_parity::{bytes, decode, for_every_conversion, open, write};
use tensormill_tensor::{Encoding, Shape, TensorSpec, ggml};

/// Every type that `candle` knows, and ours.
pub const TYPES: [(GgmlDType, Encoding); 15] = [
    (GgmlDType::F32, Encoding::F32),
    (GgmlDType::F16, Encoding::F16),
    (GgmlDType::BF16, Encoding::BF16),
    (GgmlDType::Q4_0, Encoding::Block(ggml::Q4_0)),
    (GgmlDType::Q4_1, Encoding::Block(ggml::Q4_1)),
    (GgmlDType::Q5_0, Encoding::Block(ggml::Q5_0)),
    (GgmlDType::Q5_1, Encoding::Block(ggml::Q5_1)),
    (GgmlDType::Q8_0, Encoding::Block(ggml::Q8_0)),
    (GgmlDType::Q8_1, Encoding::Block(ggml::Q8_1)),
    (GgmlDType::Q2K, Encoding::Block(ggml::Q2_K)),
    (GgmlDType::Q3K, Encoding::Block(ggml::Q3_K)),
    (GgmlDType::Q4K, Encoding::Block(ggml::Q4_K)),
    (GgmlDType::Q5K, Encoding::Block(ggml::Q5_K)),
    (GgmlDType::Q6K, Encoding::Block(ggml::Q6_K)),
    (GgmlDType::Q8K, Encoding::Block(ggml::Q8_K)),
];

/// Types that `candle` knows but cannot load from a file.
pub const NOT_LOADED: [Encoding; 2] = [Encoding::Block(ggml::Q8_1), Encoding::Block(ggml::Q8_K)];

/// Ours for theirs.
pub fn encoding(dtype: GgmlDType) -> Encoding {
    TYPES.iter().find(|(theirs, _)| *theirs == dtype).expect("every type is in the table").1
}

/// Same type and same value; floats by their bits. `candle` does not keep the element type of an empty array.
pub fn same_value(theirs: &Theirs, ours: &Value) -> bool {
    match (theirs, ours) {
        (Theirs::U8(a), Value::U8(b)) => a == b,
        (Theirs::I8(a), Value::I8(b)) => a == b,
        (Theirs::U16(a), Value::U16(b)) => a == b,
        (Theirs::I16(a), Value::I16(b)) => a == b,
        (Theirs::U32(a), Value::U32(b)) => a == b,
        (Theirs::I32(a), Value::I32(b)) => a == b,
        (Theirs::U64(a), Value::U64(b)) => a == b,
        (Theirs::I64(a), Value::I64(b)) => a == b,
        (Theirs::F32(a), Value::F32(b)) => a.to_bits() == b.to_bits(),
        (Theirs::F64(a), Value::F64(b)) => a.to_bits() == b.to_bits(),
        (Theirs::Bool(a), Value::Bool(b)) => a == b,
        (Theirs::String(a), Value::Str(b)) => a == b,
        (Theirs::Array(a), Value::Array(b)) => {
            a.len() == b.len()
                && a.iter().enumerate().all(|(i, a)| b.get(i).is_some_and(|b| same_value(a, &b)))
        }
        _ => false,
    }
}

/// Differences between the two readings of metadata.
pub fn compare_metadata(theirs: &Content, ours: &Metadata) -> Vec<String> {
    let mut wrong = Vec::new();
    for (key, value) in ours.iter() {
        match theirs.metadata.get(key) {
            Some(theirs) if same_value(theirs, value) => {}
            other => wrong.push(format!("{key}: we read {value}, candle {other:?}")),
        }
    }
    if theirs.metadata.len() != ours.len() {
        wrong.push(format!("we read {} keys, candle {}", ours.len(), theirs.metadata.len()));
    }
    wrong
}

/// Differences between the two readings of tensors: names, shapes, types, places, bytes, values. Adds to `seen` the
/// name of every type whose values were compared.
pub fn compare_tensors(
    path: &Path,
    theirs: &Content,
    ours: &dyn Reader,
    seen: &mut BTreeSet<&'static str>,
) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut file = File::open(path).expect("file opens");
    for (i, spec) in ours.index().tensors.iter().enumerate() {
        let name = &spec.name;
        let Some(info) = theirs.tensor_infos.get(name) else {
            wrong.push(format!("{name}: candle does not see it"));
            continue;
        };
        let dims: Vec<u64> = info.shape.dims().iter().map(|&d| d as u64).collect();
        if dims != spec.shape.dims() {
            wrong.push(format!("{name}: our shape is {}, candle's {dims:?}", spec.shape));
        }
        if encoding(info.ggml_dtype) != spec.encoding {
            wrong.push(format!("{name}: our type is {}, candle's {:?}", spec.encoding, info.ggml_dtype));
        }
        let offset = theirs.tensor_data_offset + info.offset;
        if ours.place(i).offset != offset {
            wrong.push(format!("{name}: we find it at {}, candle at {offset}", ours.place(i).offset));
        }
        let loaded = theirs.tensor(&mut file, name, &Device::Cpu).expect("candle loads the tensor");
        let our_bytes = bytes(ours, i);
        if *loaded.data().expect("candle gives the bytes") != our_bytes[..] {
            wrong.push(format!("{name}: other bytes"));
        }
        let their_values = values(&loaded);
        let our_values = decode(spec, &our_bytes);
        if let Some(j) = first_difference(&our_values, &their_values) {
            wrong.push(format!(
                "{name} ({}): value {j} is {:e} for us, {:e} for candle",
                spec.encoding, our_values[j], their_values[j]
            ));
        }
        seen.insert(spec.encoding.name());
    }
    if theirs.tensor_infos.len() != ours.index().tensors.len() {
        wrong.push(format!(
            "we see {} tensors, candle {}",
            ours.index().tensors.len(),
            theirs.tensor_infos.len()
        ));
    }
    wrong
}

/// Values as `candle` decodes them.
pub fn values(tensor: &candle_core::quantized::QTensor) -> Vec<f32> {
    tensor
        .dequantize(&Device::Cpu)
        .and_then(|t| t.flatten_all()?.to_vec1::<f32>())
        .expect("candle decodes the tensor")
}

/// Where two lists of values first differ in any bit.
pub fn first_difference(a: &[f32], b: &[f32]) -> Option<usize> {
    assert_eq!(a.len(), b.len(), "number of values");
    a.iter().zip(b).position(|(a, b)| a.to_bits() != b.to_bits())
}

#[test]
fn candle_sees_the_same_metadata_tensors_and_values() {
    let scratch = tempfile::tempdir().expect("scratch folder");
    let (mut wrong, mut seen) = (Vec::new(), BTreeSet::new());
    for_every_conversion(scratch.path(), |model, variant, path| {
        let ours = open(path);
        let theirs = Content::read(&mut File::open(path).expect("file opens"))
            .unwrap_or_else(|e| panic!("{model} {variant}: {e}"));
        let mut found = compare_metadata(&theirs, &ours.index().metadata);
        found.extend(compare_tensors(path, &theirs, &*ours, &mut seen));
        wrong.extend(found.into_iter().map(|d| format!("{model} {variant}: {d}")));
    });
    assert!(wrong.is_empty(), "{} differences:\n{}", wrong.len(), wrong.join("\n"));
    let all = [
        "Q2_K", "Q3_K", "Q4_0", "Q4_1", "Q4_K", "Q5_0", "Q5_1", "Q5_K", "Q6_K", "Q8_0", "bf16", "f16", "f32",
    ];
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), all, "types whose values were compared");
}

/// If this fails after an update, `candle` can be asked more: extend [`TYPES`].
#[test]
fn candle_refuses_a_file_for_one_tensor_of_a_type_it_does_not_know() {
    let scratch = tempfile::tempdir().expect("scratch folder");
    let path = scratch.path().join("type.gguf");
    let (mut read, mut loaded) = (Vec::new(), Vec::new());
    for encoding in (0..64).filter_map(encoding_of) {
        let spec = TensorSpec::new("t", Shape::new(vec![256]).expect("shape"), encoding);
        write(&path, &Index { tensors: vec![spec], ..Index::default() }, &[]);
        let mut file = File::open(&path).expect("file opens");
        match Content::read(&mut file) {
            Err(e) => assert!(e.to_string().contains("unknown dtype for tensor"), "{encoding}: {e}"),
            Ok(content) => {
                read.push(encoding);
                if content.tensor(&mut file, "t", &Device::Cpu).is_ok() {
                    loaded.push(encoding);
                }
            }
        }
    }
    let mut known = TYPES.map(|(_, ours)| ours).to_vec();
    known.sort_by_key(|&e| code_of(e));
    assert_eq!(read, known, "types whose header candle reads");
    known.retain(|e| !NOT_LOADED.contains(e));
    assert_eq!(loaded, known, "types that candle loads from a file");
}
