//! Checkpoints of many files that lie: each must end in an error of the right kind that names file and tensor, at once and
//! in little memory.

mod common;

use common::{
    build::{dict, long, pickle, storage, tensor, text},
    training::{
        Dice, Dtensor, Files, PLACEMENTS, SPOIL, Zero, archive, dcp, floats, ints, list, object, rounds,
        shard, strided,
    },
};
use tensormill_model::{
    Assets,
    ErrorKind::{Malformed, Mismatch, OverLimit, Unsupported},
    Folder, Limits,
};
use tensormill_pickle::{PickleOptions, Training};
use tensormill_store::LocalDir;

#[test]
fn metadata_of_dcp_that_lies() {
    use dcp::{chunk, folder};
    let meta = |f: Files, kind, words: &str| f.refused(kind, ".metadata", Some("w"), words);
    assert_eq!(folder(&[2], &[chunk(&[0], &[2])]).open().unwrap(), ["w"]);
    // What is huge, and what does not cover.
    meta(folder(&[1 << 62, 4], &[]), Malformed, "more elements than 64 bits");
    meta(folder(&[1 << 62], &[]), Malformed, "larger than 64 bits");
    meta(folder(&[1 << 40], &[chunk(&[0], &[2])]), Malformed, "gap");
    meta(folder(&[-4], &[]), Malformed, "a dimension");
    meta(folder(&[1; 17], &[]), OverLimit, "17 dimensions");
    meta(folder(&[3], &[chunk(&[0], &[2])]), Malformed, "gap");
    meta(folder(&[3], &[chunk(&[2], &[2])]), Malformed, "outside");
    meta(folder(&[2], &[chunk(&[i64::MAX], &[2])]), Malformed, "outside");
    meta(folder(&[3], &[chunk(&[0], &[2]), chunk(&[1], &[2])]), Malformed, "overlap");
    meta(folder(&[4], &[chunk(&[0], &[2]), chunk(&[1], &[2])]), Malformed, "in one place");
    meta(folder(&[2], &[chunk(&[0, 0], &[2])]), Malformed, "outside");
    // Parts that are not what they are said to be.
    meta(folder(&[4], &[chunk(&[0], &[4])]), Malformed, "f32 [2], not f32 [4]");
    let place = |change: &dyn Fn(&mut dcp::Chunk)| {
        let mut c = chunk(&[0], &[2]);
        change(&mut c);
        folder(&[2], &[c])
    };
    let file = "__0_0.distcp";
    place(&|c| c.offset = 1 << 62).refused(Malformed, file, Some("w"), "from byte");
    place(&|c| c.length = i64::MAX).refused(Malformed, file, Some("w"), "from byte");
    place(&|c| (c.offset, c.length) = (i64::MAX, i64::MAX)).refused(Malformed, file, Some("w"), "from byte");
    place(&|c| c.offset = -1).refused(Malformed, ".metadata", Some("w"), "without path, offset and length");
    place(&|c| c.length = 0).refused(Malformed, file, Some("w"), "");
    place(&|c| c.length -= 1).refused(Malformed, file, Some("w"), "");
    place(&|c| c.path = "__9_9.distcp".into()).refused(Mismatch, "__9_9.distcp", Some("w"), "missing");
    let how = list(&[text("stream.zstd/1")]);
    place(&|c| c.how.clone_from(&how)).refused(Unsupported, ".metadata", Some("w"), "stream.zstd/1");
    // Not what it is called.
    let odd = |bytes: Vec<u8>| Files::default().with("__0_0.distcp", vec![]).with(".metadata", bytes);
    odd(pickle(&[b"N"])).refused(Malformed, ".metadata", None, "no metadata");
    odd(vec![]).refused(Malformed, ".metadata", None, "");
    odd(b"\x80\x04cos\nsystem\n(X\x02\0\0\0lstR.".to_vec()).refused(
        Malformed,
        ".metadata",
        None,
        "no metadata",
    );
}

#[test]
fn paths_of_dcp_stay_in_their_folder() {
    for path in ["../secret", "/etc/hostname", "a/../../secret", ""] {
        let tmp = tempfile::tempdir().unwrap();
        let inner = tmp.path().join("inner");
        std::fs::create_dir(&inner).unwrap();
        let mut c = dcp::chunk(&[0], &[2]);
        path.clone_into(&mut c.path);
        let files = dcp::folder(&[2], &[c]);
        for (name, bytes) in &files.0 {
            std::fs::write(inner.join(name), bytes).unwrap();
        }
        std::fs::write(tmp.path().join("secret"), &files.0["__0_0.distcp"]).unwrap();
        let dir = LocalDir::open(&inner).unwrap();
        let training = Training::of_folder(&dir.list()).unwrap().unwrap();
        let e = training.open(&dir, &Limits::default(), &PickleOptions::default()).err().unwrap();
        assert_eq!((e.kind(), e.tensor_name()), (Malformed, Some("w")), "{path}: {e}");
        assert!(e.message().contains("inside"), "{e}");
    }
}

#[test]
fn lists_that_are_shared_cost_no_more_than_themselves() {
    use dcp::{chunk, folder};
    // Thousands of parts, all of one place.
    let parts: Vec<dcp::Chunk> = (0..5000).map(|i| chunk(&[2 * i], &[2])).collect();
    folder(&[10_000], &parts).refused(Malformed, "__0_0.distcp", Some("w"), "over each other");
    // A list of a hundred thousand empty chunks, of ten thousand tensors.
    let class = |name: &str| format!("torch.distributed.checkpoint.metadata.{name}");
    let empty =
        object(&class("ChunkStorageMetadata"), &dict(&[("offsets", &ints(&[0])), ("sizes", &ints(&[0]))]));
    let chunks = [b"](", &[&empty[..], b"q\x01"].concat()[..], &b"h\x01".repeat(100_000), b"eq\x02"].concat();
    let properties = object(&class("TensorProperties"), b"(ctorch\nfloat32\nNt");
    let w = dict(&[("properties", &properties), ("size", &ints(&[0])), ("chunks", &chunks)]);
    let first = [object(&class("TensorStorageMetadata"), &w), b"q\x03".to_vec()].concat();
    let mut entries = vec![("w".to_owned(), first)];
    entries.extend((0..10_000).map(|i| (format!("w{i}"), b"h\x03".to_vec())));
    let entries: Vec<(&str, &[u8])> = entries.iter().map(|(n, v)| (n.as_str(), v.as_slice())).collect();
    let root = object(&class("Metadata"), &dict(&[("state_dict_metadata", &dict(&entries))]));
    let files = Files::default().with(".metadata", pickle(&[&root])).with("__0_0.distcp", vec![]);
    let e = files.open().unwrap_err();
    assert_eq!((e.kind(), e.file_name()), (OverLimit, Some(".metadata")), "{e}");
}

#[test]
fn parts_of_ranks_that_lie() {
    let two = || Dtensor::of_two(0);
    assert_eq!(two().folder().open().unwrap(), ["w"]);
    assert_eq!(Dtensor { old: true, ..two() }.folder().open().unwrap(), ["w"]);
    // `ShardOrderEntry(0, (0,))`, a named tuple.
    let order = |dims: &[i64]| {
        let class = &b"ctorch.distributed.tensor._dtensor_spec\nShardOrderEntry\n("[..];
        list(&[[class, &long(0), &ints(dims), b"t\x81"].concat()])
    };
    assert_eq!(Dtensor { order: order(&[0]), ..two() }.folder().open().unwrap(), ["w"]);
    let turned = Dtensor { order: order(&[1, 0]), ..two() }.folder();
    turned.refused(Unsupported, "rank0.pt", Some("w"), "another order");
    let flat = Dtensor { name: "layer._flat_param", ..two() }.folder();
    flat.refused(Unsupported, "rank0.pt", Some("layer._flat_param"), "flat parameter");
    let first = |d: Dtensor, kind, words: &str| d.folder().refused(kind, "rank0.pt", Some("w"), words);
    first(Dtensor { local: floats(3), ..two() }, Malformed, "the part that this process holds is f32 [3]");
    first(Dtensor { size: vec![1 << 62, 4], ..two() }, Malformed, "");
    first(Dtensor { size: vec![1 << 61], ..two() }, Malformed, "where its place in the whole");
    first(Dtensor { coordinate: vec![2], ..two() }, Malformed, "the process [2] of a mesh of [2]");
    first(Dtensor { coordinate: vec![0, 0], ..two() }, Malformed, "the process");
    first(Dtensor { world: 0, ..two() }, Unsupported, "unknown form");
    first(Dtensor { placement: shard(1), ..two() }, Malformed, "a dimension it lacks");
    first(Dtensor { placement: shard(i64::MAX), ..two() }, Malformed, "a dimension it lacks");
    first(Dtensor { placement: shard(-1), ..two() }, Malformed, "a dimension it lacks");
    first(Dtensor { placement: strided(0), ..two() }, Malformed, "split factor");
    first(Dtensor { placement: strided(1 << 60), size: vec![1 << 60], ..two() }, OverLimit, "stretches");
    first(
        Dtensor { placement: object(&format!("{PLACEMENTS}.Partial"), b"N"), ..two() },
        Unsupported,
        "Partial",
    );
    first(Dtensor { placement: b"K\x01".to_vec(), ..two() }, Unsupported, "the integer 1");
    first(Dtensor { local: b"N".to_vec(), ..two() }, Malformed, "None in place of a tensor");
    // Files that do not make one tensor: the same part twice, another shape.
    let twice = Files::default().with("rank0.pt", two().file()).with("rank1.pt", two().file());
    twice.refused(Malformed, "folder", Some("w"), "gap");
    let other = Dtensor { size: vec![5], local: floats(3), ..two() };
    other.folder().refused(Mismatch, "rank1.pt", Some("w"), "in the file of another rank");
    // More processes than there can be files.
    let many = Dtensor { size: vec![1 << 41], world: 1 << 40, ..two() };
    many.folder().refused(Mismatch, "rank2.pt", None, "missing");
    let name = "model_world_size_1099511627776_rank_";
    let named = Files::default().with(&format!("{name}0.pt"), two().file());
    named.refused(Mismatch, &format!("{name}1.pt"), None, "missing");
    two().folder().with("rank2.pt", Dtensor::of_two(1).file()).refused(
        Mismatch,
        "rank2.pt",
        None,
        "of 2 processes",
    );
    // The rank of an adapter is none of a process.
    let lora = Files::default().with("adapter_rank64.pt", archive(&dict(&[("w", &floats(2))])));
    let training = Training::of_folder(&lora.names()).unwrap().unwrap();
    assert!(training.open(&lora, &Limits::default(), &PickleOptions::default()).unwrap().is_none());
    // No part of anything: each file is complete in itself.
    let plain = Files::default().with("rank0.pt", archive(&dict(&[("w", &floats(2))])));
    let training = Training::of_folder(&plain.names()).unwrap().unwrap();
    assert!(training.open(&plain, &Limits::default(), &PickleOptions::default()).unwrap().is_none());
}

#[test]
fn paddings_between_parameters_are_skipped() {
    let shapes = list(&[dict(&[("v", &ints(&[2])), ("w", &ints(&[2]))])]);
    let model = dict(&[("module", b"}"), ("buffer_names", b"]"), ("param_shapes", &shapes)]);
    let paddings = list(&[list(&[long(3), long(1)])]);
    let files =
        Zero { paddings, ..Zero::stage(1) }.folder().with("mp_rank_00_model_states.pt", archive(&model));
    let training = Training::of_folder(&files.names()).unwrap().unwrap();
    let reader = training.open(&files, &Limits::default(), &PickleOptions::default()).unwrap().unwrap();
    // Both vectors are bytes 0 to 15; `w` starts at the second element of the second.
    assert_eq!(common::whole(&*reader, 0).unwrap(), (0..8).collect::<Vec<u8>>());
    assert_eq!(common::whole(&*reader, 1).unwrap(), (4..12).collect::<Vec<u8>>());
}

/// Files of a golden folder.
fn golden(path: &str) -> Files {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../golden/training").join(path);
    let dir = LocalDir::open(folder).unwrap();
    let files = dir.list().into_iter().map(|n| (n.clone(), dir.read(&n).unwrap().unwrap()));
    Files(files.collect())
}

#[test]
fn bytes_that_are_changed_are_errors_or_other_values() {
    for folder in [
        "dcp/mesh2d",
        "dcp/plain",
        "ranks/mesh2d",
        "ranks/sharded",
        "deepspeed/zero1/global_step1",
        "deepspeed/zero2/global_step1",
        "deepspeed/zero3/global_step1",
    ] {
        let good = golden(folder);
        good.open().unwrap();
        let names = good.names();
        let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
        for _ in 0..rounds() {
            let mut bad = good.clone();
            let file = &names[dice.roll(names.len())];
            dice.spoil(bad.0.get_mut(file).unwrap());
            // Neither a panic nor a wait.
            drop(bad.open());
        }
    }
}

#[test]
fn pickles_that_are_changed_under_good_checksums_too() {
    let makers: [fn() -> Files; 5] = [
        || Zero::stage(1).folder(),
        || Zero { paddings: list(&[list(&[long(0)])]), ..Zero::stage(2) }.folder(),
        || Zero::stage(3).folder(),
        || Dtensor::of_two(0).folder(),
        || Dtensor { placement: strided(2), ..Dtensor::of_two(0) }.folder(),
    ];
    for (i, make) in makers.into_iter().enumerate() {
        SPOIL.set(Some(Dice(i as u64 + 1)));
        for _ in 0..10 * rounds() {
            drop(make().open());
        }
        SPOIL.set(None);
    }
}

#[test]
fn partitions_of_zero_that_lie() {
    for stage in [1, 2, 3] {
        let good = || Zero::stage(stage);
        assert_eq!(good().folder().open().unwrap(), ["w"], "{stage}");
        let model = if stage == 3 {
            "zero_pp_rank_0_mp_rank_00_model_states.pt"
        } else {
            "mp_rank_00_model_states.pt"
        };
        let optimizer = "zero_pp_rank_0_mp_rank_00_optim_states.pt";
        let refused =
            |z: Zero, kind, file: &str, tensor, words: &str| z.folder().refused(kind, file, tensor, words);
        // Too short, too long, too large to count.
        let short = Zero { groups: vec![vec![floats(3)], vec![floats(3)]], ..good() };
        refused(
            short,
            Malformed,
            model,
            Some("w"),
            if stage == 3 { "of each process" } else { "in the vectors" },
        );
        let long_ = Zero { groups: vec![vec![floats(9)], vec![floats(9)]], ..good() };
        refused(long_, Malformed, model, None, "elements");
        refused(
            Zero { shape: vec![1 << 62, 8], ..good() },
            Malformed,
            model,
            Some("w"),
            "more elements than 64 bits",
        );
        refused(Zero { shape: vec![1 << 62], ..good() }, Malformed, model, Some("w"), "");
        refused(Zero { shape: vec![-1], ..good() }, Malformed, model, Some("w"), "a dimension");
        // Numbers of processes.
        let missing = "zero_pp_rank_2_mp_rank_00_optim_states.pt";
        refused(Zero { count: long(1 << 40), ..good() }, Mismatch, missing, None, "missing");
        refused(
            Zero { count: list(&[long(1), long(1 << 40)]), ..good() },
            Mismatch,
            missing,
            None,
            "missing",
        );
        refused(
            Zero { count: long(1), ..good() },
            Mismatch,
            "zero_pp_rank_1_mp_rank_00_optim_states.pt",
            None,
            "too many",
        );
        refused(Zero { count: long(0), ..good() }, Malformed, optimizer, None, "partition_count");
        refused(Zero { count: text("2"), ..good() }, Malformed, optimizer, None, "partition_count");
        // Vectors that are none, or unlike each other.
        let flat = |g: Vec<u8>| Zero { groups: vec![vec![g.clone()], vec![g]], ..good() };
        let square = tensor(&storage("FloatStorage", "0", 16), 0, &[2, 2], &[2, 1]);
        let key = if stage == 3 { "fp32_flat_groups.0" } else { "single_partition_of_fp32_groups.0" };
        refused(flat(square), Malformed, optimizer, Some(key), "a flat vector");
        refused(flat(b"N".to_vec()), Malformed, optimizer, Some(key), "None in place of a tensor");
        let odd = Zero { groups: vec![vec![floats(4)], vec![floats(4), floats(4)]], ..good() };
        let second = "zero_pp_rank_1_mp_rank_00_optim_states.pt";
        let e = odd.folder().open().unwrap_err();
        assert_eq!((e.kind(), e.file_name()), (Malformed, Some(second)), "{e}");
    }
    let paddings = |p: Vec<u8>| Zero { paddings: p, ..Zero::stage(2) }.folder();
    let model = "mp_rank_00_model_states.pt";
    paddings(list(&[list(&[long(i64::MAX)])])).refused(Malformed, model, None, "elements");
    paddings(list(&[list(&[])])).refused(Malformed, model, None, "paddings");
    paddings(list(&[])).refused(Malformed, model, None, "paddings");
    let unequal = Zero { groups: vec![vec![floats(4)], vec![floats(5)]], ..Zero::stage(3) };
    unequal.folder().refused(
        Malformed,
        "zero_pp_rank_1_mp_rank_00_optim_states.pt",
        Some("fp32_flat_groups.0"),
        "not that of rank 0",
    );
    Zero { stage: 4, ..Zero::stage(2) }.folder().refused(
        Unsupported,
        "zero_pp_rank_0_mp_rank_00_optim_states.pt",
        None,
        "ZeRO stage",
    );
    // A dict of a thousand parameters in a million groups.
    let many: Vec<(String, Vec<u8>)> = (0..1000).map(|i| (format!("w{i}"), ints(&[]))).collect();
    let many: Vec<(&str, &[u8])> = many.iter().map(|(n, v)| (n.as_str(), v.as_slice())).collect();
    let groups = [b"](", &dict(&many)[..], b"q\x01", &b"h\x01".repeat(1_000_000), b"e"].concat();
    let shapes = archive(&dict(&[("module", b"}"), ("buffer_names", b"]"), ("param_shapes", &groups)]));
    let e = Zero::stage(2).folder().with(model, shapes).open().unwrap_err();
    assert_eq!((e.kind(), e.file_name()), (OverLimit, Some(model)), "{e}");
}
