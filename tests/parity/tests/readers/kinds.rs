//! Every kind of metadata value, an alignment of its own, and every tensor type that `candle` loads, written by us.

use crate::{candle, gguf_rs};
use candle_core::quantized::gguf_file::Content;
use std::{collections::BTreeSet, fs::File};
use tensormill_model::{Array, Index, Metadata};
use tensormill_parity::{bytes, open, write};
use tensormill_tensor::{Encoding, Shape, TensorSpec};

/// A value of every kind, and an array of every kind but arrays. Extremes, an empty string, text that is not ASCII.
pub fn every_kind() -> Metadata {
    let mut m = Metadata::new();
    m.set("general.architecture", "llama");
    m.set("kind.u8", u8::MAX);
    m.set("kind.i8", i8::MIN);
    m.set("kind.u16", u16::MAX);
    m.set("kind.i16", i16::MIN);
    m.set("kind.u32", u32::MAX);
    m.set("kind.i32", i32::MIN);
    m.set("kind.u64", u64::MAX);
    m.set("kind.i64", i64::MIN);
    m.set("kind.f32", 0.1f32);
    m.set("kind.f64", 0.1f64);
    m.set("kind.true", true);
    m.set("kind.false", false);
    m.set("kind.text", "korn \u{1f33e}\n\u{2581}t");
    m.set("kind.empty", "");
    m.set("array.u8", vec![0u8, 255]);
    m.set("array.i8", vec![-128i8, 127]);
    m.set("array.u16", vec![0u16, 65535]);
    m.set("array.i16", vec![i16::MIN, i16::MAX]);
    m.set("array.u32", vec![0, u32::MAX]);
    m.set("array.i32", vec![i32::MIN, i32::MAX]);
    m.set("array.u64", vec![0, u64::MAX]);
    m.set("array.i64", vec![i64::MIN, i64::MAX]);
    m.set("array.f32", vec![-0.0f32, f32::MIN_POSITIVE / 2.0, f32::MAX, 1e-5]);
    m.set("array.f64", vec![-0.0f64, f64::MIN_POSITIVE / 2.0, f64::MAX, 1e-5]);
    m.set("array.bool", vec![true, false, true]);
    m.set("array.text", vec!["a".to_owned(), String::new(), "\u{e5}".to_owned()]);
    m
}

/// Bytes that say nearly everything a block can say. Only the upper bytes of NaN and infinity do not occur, in any of
/// the float types: two decoders may rightly give NaN different bits.
fn some_bytes(n: u64, seed: u32) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2_654_435_761) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        let byte = (state >> 24) as u8;
        // The exponent of an f16, all ones.
        if byte & 0x7c == 0x7c { byte ^ 0x40 } else { byte }
    };
    (0..n).map(|_| next()).collect()
}

#[test]
fn candle_and_gguf_rs_see_every_kind_of_value() {
    let scratch = tempfile::tempdir().expect("scratch folder");
    let path = scratch.path().join("kinds.gguf");
    let mut metadata = every_kind();
    metadata.set("general.alignment", 256u32);
    let shapes: [&[u64]; 4] = [&[5], &[3, 7], &[2, 3, 5], &[2, 3, 4, 5]];
    let tensors: Vec<TensorSpec> = shapes
        .iter()
        .enumerate()
        .map(|(i, dims)| {
            TensorSpec::new(format!("t{i}"), Shape::new(dims.to_vec()).expect("shape"), Encoding::F32)
        })
        .collect();
    let data: Vec<Vec<u8>> =
        tensors.iter().zip(1..).map(|(t, seed)| some_bytes(t.bytes().expect("size"), seed)).collect();
    let places = write(&path, &Index { tensors, metadata: metadata.clone(), ..Index::default() }, &data);
    assert!(places.iter().all(|p| p.offset % 256 == 0), "{places:?}");

    let ours = open(&path);
    assert!(data.iter().enumerate().all(|(i, d)| bytes(&*ours, i) == *d), "bytes that were to be written");
    let theirs = gguf_rs::read(&path);
    // What was to be written is the measure, not what we read.
    assert_eq!(ours.index().metadata, metadata);
    let mut wrong = gguf_rs::compare_metadata(&theirs, &metadata);
    wrong.extend(gguf_rs::compare_tensors(&theirs, &*ours));
    let theirs = Content::read(&mut File::open(&path).expect("file opens")).expect("candle reads the file");
    wrong.extend(candle::compare_metadata(&theirs, &metadata));
    wrong.extend(candle::compare_tensors(&path, &theirs, &*ours, &mut BTreeSet::new()));
    assert!(wrong.is_empty(), "{} differences:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn candle_sees_nested_and_empty_arrays() {
    let scratch = tempfile::tempdir().expect("scratch folder");
    let path = scratch.path().join("nested.gguf");
    let mut metadata = Metadata::new();
    let nested = vec![Array::I32(vec![1, -2]), Array::I32(vec![]), Array::I32(vec![3])];
    metadata.set("nested", Array::Array(nested.clone()));
    metadata.set("twice", Array::Array(vec![Array::Array(nested), Array::Array(vec![])]));
    metadata.set("texts", Array::Array(vec![Array::Str(vec!["a".to_owned(), "b".to_owned()])]));
    metadata.set("empty", Array::Str(vec![]));
    metadata.set("last", 7u16);
    write(&path, &Index { metadata: metadata.clone(), ..Index::default() }, &[]);
    let theirs = Content::read(&mut File::open(&path).expect("file opens")).expect("candle reads the file");
    let wrong = candle::compare_metadata(&theirs, &metadata);
    assert!(wrong.is_empty(), "{} differences:\n{}", wrong.len(), wrong.join("\n"));
    // If gguf-rs learns to read this, it can be asked for nested arrays too.
    let refused = gguf_rs::try_read(&path).err().map(|e| e.to_string());
    assert_eq!(refused.as_deref(), Some("Unsupport item value type: Array"));
}

/// Converted weights use a small part of what a block can say; any bytes use all of it.
#[test]
fn candle_decodes_arbitrary_blocks_to_the_same_bits() {
    let scratch = tempfile::tempdir().expect("scratch folder");
    let path = scratch.path().join("blocks.gguf");
    let tensors: Vec<TensorSpec> = candle::TYPES
        .iter()
        .filter(|(_, e)| !candle::NOT_LOADED.contains(e))
        .map(|&(_, e)| TensorSpec::new(e.name(), Shape::new(vec![64, 512]).expect("shape"), e))
        .collect();
    let data: Vec<Vec<u8>> =
        tensors.iter().zip(7..).map(|(t, seed)| some_bytes(t.bytes().expect("size"), seed)).collect();
    write(&path, &Index { tensors, ..Index::default() }, &data);

    let ours = open(&path);
    assert!(data.iter().enumerate().all(|(i, d)| bytes(&*ours, i) == *d), "bytes that were to be written");
    let theirs = Content::read(&mut File::open(&path).expect("file opens")).expect("candle reads the file");
    let mut seen = BTreeSet::new();
    let wrong = candle::compare_tensors(&path, &theirs, &*ours, &mut seen);
    assert!(wrong.is_empty(), "{} differences:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(seen.len(), candle::TYPES.len() - candle::NOT_LOADED.len());
}
