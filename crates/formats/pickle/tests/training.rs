//! Checkpoints of many files that torch and DeepSpeed wrote (`golden/generators/training*.py`), against what their own
//! libraries merge.

mod common;

use common::{sha256, whole};
use serde_json::Value as Json;
use std::{collections::BTreeMap, fs, path::PathBuf};
use tensormill_model::{Assets, Error, ErrorKind, Limits, Reader, Result};
use tensormill_pickle::{PickleOptions, Training};
use tensormill_store::LocalDir;

fn golden(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../golden/training").join(path)
}

/// What the libraries merged: type, shape and hash by name.
fn merged(case: &str) -> BTreeMap<String, (String, Vec<u64>, String)> {
    let file = if case.starts_with("deepspeed") { "deepspeed.json" } else { "torch.json" };
    let json: Json = serde_json::from_slice(&fs::read(golden(file)).unwrap()).unwrap();
    let text = |v: &Json| v.as_str().unwrap().to_owned();
    let entry = |e: &Json| {
        let shape = e[2].as_array().unwrap().iter().map(|d| d.as_u64().unwrap()).collect();
        (text(&e[0]), (text(&e[1]), shape, text(&e[3])))
    };
    json[case].as_array().unwrap_or_else(|| panic!("no {case}")).iter().map(entry).collect()
}

fn open_in(folder: &PathBuf, options: &PickleOptions) -> Result<Box<dyn Reader>> {
    let dir = LocalDir::open(folder)?;
    let training = Training::of_folder(&dir.list())?.expect("a checkpoint is recognised");
    training.open(&dir, &Limits::default(), options).map(|r| r.expect("it is divided"))
}

fn open(path: &str, options: &PickleOptions) -> Result<Box<dyn Reader>> {
    open_in(&golden(path), options)
}

/// Every byte of every tensor, whole and row by row; other names of a tensor too.
fn found(r: &dyn Reader) -> BTreeMap<String, (String, Vec<u64>, String)> {
    let index = r.index();
    let mut out = BTreeMap::new();
    for (t, spec) in index.tensors.iter().enumerate() {
        let bytes = whole(r, t).unwrap();
        let row = bytes.len().checked_div(spec.shape.rows() as usize).unwrap_or(0);
        for i in (0..spec.shape.rows()).rev() {
            let mut out = vec![0; row];
            r.read(t, i..i + 1, &mut out).unwrap();
            assert!(out == bytes[i as usize * row..][..row], "{} row {i}", spec.name);
        }
        let entry = (spec.encoding.to_string(), spec.shape.dims().to_vec(), sha256(&bytes));
        for a in index.aliases.iter().filter(|a| a.tensor == t) {
            out.insert(a.name.clone(), entry.clone());
        }
        out.insert(spec.name.clone(), entry);
    }
    out
}

fn options(key: Option<&str>, all: bool) -> PickleOptions {
    PickleOptions { key: key.map(str::to_owned), all }
}

#[test]
fn folders_of_dcp_are_what_torch_merges() {
    for (case, folder) in [
        ("dcp/fsdp2", "dcp/fsdp2"),
        ("dcp/mesh2d", "dcp/mesh2d"),
        ("dcp/plain", "dcp/plain"),
        ("dcp/fsdp1", "dcp/fsdp1"),
        ("dcp/trainer", "dcp/trainer/pytorch_model_fsdp_0"),
    ] {
        let r = open(folder, &options(None, true)).unwrap();
        assert_eq!(found(&*r), merged(case), "{case}");
    }
}

#[test]
fn names_of_dcp_start_below_the_only_container() {
    let want: BTreeMap<_, _> = merged("dcp/fsdp2")
        .into_iter()
        .filter_map(|(name, e)| Some((name.strip_prefix("model.")?.to_owned(), e)))
        .collect();
    let r = open("dcp/fsdp2", &options(None, false)).unwrap();
    assert_eq!(found(&*r), want);
    let left: Vec<String> = r.index().left_out.iter().map(|l| format!("{}: {}", l.name, l.what)).collect();
    assert!(left.iter().any(|l| l.starts_with("(optimizer): optimizer state (2 tensors")), "{left:?}");
    assert!(left.contains(&"step: a value that is no tensor".to_owned()), "{left:?}");
    assert_eq!(found(&*open("dcp/fsdp2", &options(Some("model"), false)).unwrap()), want);
    // The optimizer's state, when that is what is asked for.
    let optimizer = open("dcp/fsdp2", &options(Some("optim.state"), false)).unwrap();
    assert_eq!(optimizer.index().tensors[0].name, "up.weight.momentum_buffer");
    // Two containers have tensors: nothing is taken off.
    let plain = open("dcp/plain", &options(None, false)).unwrap();
    assert_eq!(found(&*plain), merged("dcp/plain"));
    let e = open("dcp/fsdp2", &options(Some("modle"), false)).err().unwrap();
    assert_eq!(e.kind(), ErrorKind::Usage);
    assert!(e.hint_text().unwrap().contains("model, optim"), "{e} {:?}", e.hint_text());
}

#[test]
fn files_of_ranks_are_what_torch_gathers() {
    for case in ["ranks/mesh2d", "ranks/verl", "ranks/sharded"] {
        let r = open(case, &PickleOptions::default()).unwrap();
        assert_eq!(found(&*r), merged(case), "{case}");
    }
    let r = open("ranks/sharded", &options(Some("model"), false)).unwrap();
    assert_eq!(r.index().tensors[0].name, "0.weight");
    let e = open("ranks/partial", &PickleOptions::default()).err().unwrap();
    assert_eq!(e.kind(), ErrorKind::Unsupported);
    assert!(e.message().contains("Partial"), "{e}");
    assert_eq!(e.tensor_name(), Some("w"));
}

#[test]
fn one_file_of_a_rank_alone_is_no_model() {
    let bytes = fs::read(golden("ranks/verl/model_world_size_2_rank_1.pt")).unwrap();
    let e = common::open(bytes, &PickleOptions::default()).err().unwrap();
    assert_eq!(e.kind(), ErrorKind::Unsupported);
    assert!(e.message().contains("one process's part"), "{e}");
}

#[test]
fn deepspeed_is_what_zero_to_fp32_merges() {
    for case in ["zero1", "zero2", "zero3", "trainer"] {
        let case = format!("deepspeed/{case}");
        let r = open(&format!("{case}/global_step1"), &PickleOptions::default()).unwrap();
        let mut got = found(&*r);
        if case == "deepspeed/zero1" {
            // Frozen parameters are not listed in stage 1, and the library loses them.
            let frozen = got.remove("frozen.weight").unwrap();
            assert_eq!((frozen.0.as_str(), frozen.1.as_slice()), ("bf16", &[3, 7][..]));
        }
        assert_eq!(got, merged(&case), "{case}");
        let tied: Vec<&str> = r.index().aliases.iter().map(|a| a.name.as_str()).collect();
        assert_eq!(tied, if case.ends_with("trainer") { vec![] } else { vec!["head.weight"] }, "{case}");
    }
    // Without ZeRO the state dict is there as it is.
    let r = open("deepspeed/zero0/global_step1", &PickleOptions::default()).unwrap();
    assert_eq!(found(&*r), merged("deepspeed/zero0"));
    let r = open("deepspeed/zero3/global_step1", &options(Some("up"), false)).unwrap();
    let names: Vec<&str> = r.index().tensors.iter().map(|t| t.name.as_str()).collect();
    assert_eq!(names, ["weight", "bias"]);
    let e = open("deepspeed/zero3/global_step1", &options(Some("upp"), false)).err().unwrap();
    assert_eq!(e.kind(), ErrorKind::Usage);
    assert!(e.hint_text().is_some_and(|h| h.contains("embed") && h.contains("up")), "{:?}", e.hint_text());
}

/// A copy of a golden folder, to be spoilt.
fn copy(path: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for e in fs::read_dir(golden(path)).unwrap() {
        let e = e.unwrap();
        if e.file_type().unwrap().is_file() {
            fs::copy(e.path(), dir.path().join(e.file_name())).unwrap();
        }
    }
    dir
}

fn refused(dir: &tempfile::TempDir) -> Error {
    open_in(&dir.path().to_path_buf(), &PickleOptions::default()).err().expect("this was accepted")
}

#[test]
fn missing_files_are_named() {
    for (folder, file) in [
        ("dcp/fsdp2", "__1_0.distcp"),
        ("ranks/mesh2d", "model_world_size_4_rank_3.pt"),
        ("ranks/mesh2d", "model_world_size_4_rank_0.pt"),
        ("ranks/sharded", "rank1.pt"),
        ("deepspeed/zero1/global_step1", "bf16_zero_pp_rank_1_mp_rank_00_optim_states.pt"),
        ("deepspeed/zero2/global_step1", "mp_rank_00_model_states.pt"),
        ("deepspeed/zero3/global_step1", "zero_pp_rank_1_mp_rank_00_model_states.pt"),
        ("deepspeed/zero3/global_step1", "bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt"),
    ] {
        let dir = copy(folder);
        fs::remove_file(dir.path().join(file)).unwrap();
        let e = refused(&dir);
        assert_eq!((e.kind(), e.file_name()), (ErrorKind::Mismatch, Some(file)), "{folder}: {e}");
    }
}

#[test]
fn what_is_not_merged_is_refused_by_name() {
    for name in [
        "mp_rank_01_model_states.pt",
        "zero_pp_rank_0_mp_rank_01_optim_states.pt",
        "layer_3_expert_0_mp_rank_00_model_states.pt",
        "expp_rank_0_mp_rank_00_optim_states.pt",
        "layer_01-model_states.pt",
    ] {
        let dir = copy("deepspeed/zero2/global_step1");
        fs::write(dir.path().join(name), b"").unwrap();
        let e = refused(&dir);
        assert_eq!((e.kind(), e.file_name()), (ErrorKind::Unsupported, Some(name)), "{e}");
    }
    // The same rank of a run in another precision.
    let dir = copy("deepspeed/zero2/global_step1");
    let twice = "zero_pp_rank_1_mp_rank_00_optim_states.pt";
    fs::copy(dir.path().join(twice), dir.path().join(format!("bf16_{twice}"))).unwrap();
    let e = refused(&dir);
    assert_eq!((e.kind(), e.file_name()), (ErrorKind::Mismatch, Some(twice)), "{e}");
    // A rank of a run of more processes.
    let dir = copy("deepspeed/zero2/global_step1");
    let extra = "zero_pp_rank_2_mp_rank_00_optim_states.pt";
    fs::copy(dir.path().join(extra.replace('2', "1")), dir.path().join(extra)).unwrap();
    assert_eq!(refused(&dir).file_name(), Some(extra));
}

#[test]
fn cut_files_are_refused_before_weights_are_read() {
    for (folder, file) in [
        ("dcp/mesh2d", "__2_0.distcp"),
        ("dcp/mesh2d", ".metadata"),
        ("ranks/sharded", "rank1.pt"),
        ("deepspeed/zero1/global_step1", "bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt"),
        ("deepspeed/zero3/global_step1", "zero_pp_rank_0_mp_rank_00_model_states.pt"),
    ] {
        let path = golden(folder).join(file);
        let bytes = fs::read(path).unwrap();
        for keep in [0, 1, bytes.len() / 3, bytes.len() / 2, bytes.len() - 1] {
            let dir = copy(folder);
            fs::write(dir.path().join(file), &bytes[..keep]).unwrap();
            let e = refused(&dir);
            assert!(matches!(e.kind(), ErrorKind::Malformed | ErrorKind::Unsupported), "{file} {keep}: {e}");
            assert!(e.file_name().is_some_and(|n| n.ends_with(file)), "{file} {keep}: {e}");
        }
    }
}
