//! A split set: each file is a GGUF file of its own to a reader that knows nothing of sets.

use crate::{candle, gguf_rs};
use candle_core::quantized::gguf_file::{Content, Value as Theirs};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
};
use tensormill_core::{Limits, Source};
use tensormill_parity::{convert, open, request};

#[test]
fn candle_and_gguf_rs_open_a_split_set_part_by_part() {
    let scratch = tempfile::tempdir().expect("scratch folder");
    let whole = scratch.path().join("whole.gguf");
    convert(&request("mixtral-4x", "Q4_K_M", &whole));
    let mut split = request("mixtral-4x", "Q4_K_M", &scratch.path().join("split.gguf"));
    split.variant.shards.bytes = Some(100_000);
    let parts = convert(&split);
    assert!(parts.len() >= 3, "{} parts", parts.len());

    let whole = open(&whole);
    let mut tensors = BTreeMap::new();
    let (mut wrong, mut seen) = (Vec::new(), BTreeSet::new());
    for (no, path) in parts.iter().enumerate() {
        let ours = open(path);
        let theirs =
            Content::read(&mut File::open(path).expect("file opens")).expect("candle reads the part");
        let number = |key: &str| match theirs.metadata.get(key) {
            Some(Theirs::U16(n)) => usize::from(*n),
            Some(Theirs::I32(n)) => usize::try_from(*n).expect("a count"),
            other => panic!("part {no}: {key} is {other:?}"),
        };
        assert_eq!(number("split.no"), no);
        assert_eq!(number("split.count"), parts.len());
        assert_eq!(number("split.tensors.count"), whole.index().tensors.len());
        // All of the model's metadata is in the first part, beside the three keys of the set.
        let keys = if no == 0 { whole.index().metadata.len() } else { 0 } + 3;
        assert_eq!(theirs.metadata.len(), keys, "keys of part {no}");
        if no == 0 {
            for (key, value) in whole.index().metadata.iter() {
                assert!(
                    theirs.metadata.get(key).is_some_and(|t| candle::same_value(t, value)),
                    "{key} of part 0"
                );
            }
        }

        wrong.extend(candle::compare_metadata(&theirs, &ours.index().metadata));
        wrong.extend(candle::compare_tensors(path, &theirs, &*ours, &mut seen));
        for (name, info) in theirs.tensor_infos {
            let file = &mut File::open(path).expect("file opens");
            let loaded = info.read(file, theirs.tensor_data_offset, &candle_core::Device::Cpu);
            let bytes = loaded.expect("candle loads the tensor").data().expect("bytes").into_owned();
            assert!(tensors.insert(name.clone(), bytes).is_none(), "{name} is in two parts");
        }
        let theirs = gguf_rs::read(path);
        wrong.extend(gguf_rs::compare_metadata(&theirs, &ours.index().metadata));
        wrong.extend(gguf_rs::compare_tensors(&theirs, &*ours));
    }
    assert!(wrong.is_empty(), "{} differences:\n{}", wrong.len(), wrong.join("\n"));

    // Together the parts are the file that is not split.
    assert_eq!(tensors.len(), whole.index().tensors.len());
    for (i, spec) in whole.index().tensors.iter().enumerate() {
        assert!(tensors[&spec.name] == tensormill_parity::bytes(&*whole, i), "{} of the set", spec.name);
    }
    // And so they are to us, when the set is opened by its first part.
    let joined = Source::open(&parts[0], &Limits::default()).expect("the set opens");
    let specs: Vec<_> = joined.model.tensors.iter().map(|t| t.spec.clone()).collect();
    assert_eq!(specs, whole.index().tensors);
    assert_eq!(joined.model.metadata, whole.index().metadata);
}
