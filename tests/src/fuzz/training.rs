//! Checkpoints of many files, of which one is any bytes: the first byte says which, the rest is that file, or the pickle in
//! it. The others are golden.

use super::{Files, expected, limits, store, weights::read_all};
use std::collections::BTreeMap;
use tensormill_model::Folder;
use tensormill_pickle::{PickleOptions, Training};

/// Golden folder, file that is fuzzed, and whether the bytes are the pickle in its archive.
pub const FILES: &[(&str, &str, bool)] = &[
    ("dcp/mesh2d", ".metadata", false),
    ("dcp/plain", ".metadata", false),
    ("ranks/mesh2d", "model_world_size_4_rank_1.pt", true),
    ("ranks/sharded", "rank0.pt", true),
    ("deepspeed/zero1/global_step1", "mp_rank_00_model_states.pt", true),
    ("deepspeed/zero2/global_step1", "zero_pp_rank_0_mp_rank_00_optim_states.pt", true),
    ("deepspeed/zero3/global_step1", "zero_pp_rank_1_mp_rank_00_model_states.pt", true),
    ("deepspeed/zero3/global_step1", "bf16_zero_pp_rank_1_mp_rank_00_optim_states.pt", true),
];

/// Merged checkpoints.
pub fn training(data: &[u8]) {
    opens(data);
}

/// Whether the checkpoint opens.
fn opens(data: &[u8]) -> bool {
    let Some((row, data)) = data.split_first() else { return false };
    let (folder, file, inner) = FILES[usize::from(*row) % FILES.len()];
    let root = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../golden/training")).join(folder);
    let mut files = Files(BTreeMap::new());
    for e in std::fs::read_dir(root).expect("golden folder") {
        let e = e.expect("entry");
        let name = e.file_name().into_string().expect("golden names are text");
        let bytes = if name == file { Vec::new() } else { std::fs::read(e.path()).expect("golden file") };
        files.0.insert(name.clone(), store(&name, &bytes));
    }
    let bytes = if inner { archive(data) } else { data.to_vec() };
    files.0.insert(file.to_owned(), store(file, &bytes));
    let mut opens = false;
    for all in [false, true] {
        let opened = Training::of_folder(&files.names())
            .map(|t| t.expect("golden names are known"))
            .and_then(|t| t.open(&files, &limits(), &PickleOptions { key: None, all }));
        match opened {
            Ok(Some(reader)) => {
                opens = true;
                if let Some(Err(e)) = read_all(reader.as_ref()) {
                    expected(&e);
                }
            }
            Ok(None) => {}
            Err(e) => expected(&e),
        }
    }
    opens
}

/// A stored archive of a pickle and of storages that are as long as the golden ones need.
fn archive(pickle: &[u8]) -> Vec<u8> {
    const STORAGES: usize = 64;
    let zeros = [0; 4096];
    let storages = (0..STORAGES).map(|i| (format!("a/data/{i}"), &zeros[..]));
    let members = std::iter::once(("a/data.pkl".to_owned(), pickle)).chain(storages);
    let (mut out, mut directory) = (Vec::new(), Vec::new());
    for (name, bytes) in members {
        let at = (out.len() as u32).to_le_bytes();
        let [len, crc] = [bytes.len() as u32, crc32fast::hash(bytes)].map(u32::to_le_bytes);
        let name_len = (name.len() as u16).to_le_bytes();
        let common: Vec<u8> =
            [&[20, 0, 0, 0, 0, 0, 0, 0, 0, 0][..], &crc, &len, &len, &name_len, &[0, 0]].concat();
        out.extend([b"PK\x03\x04", &common[..], name.as_bytes(), bytes].concat());
        directory.extend([b"PK\x01\x02\x14\0", &common[..], &[0; 10], &at, name.as_bytes()].concat());
    }
    let count = (STORAGES as u16 + 1).to_le_bytes();
    let [len, at] = [directory.len() as u32, out.len() as u32].map(u32::to_le_bytes);
    out.extend([&directory[..], b"PK\x05\x06\0\0\0\0", &count, &count, &len, &at, &[0, 0]].concat());
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn fuzzing_starts_from_what_opens() {
        for seed in super::super::seeds::seeds("training") {
            assert!(super::opens(&seed.bytes), "{}", seed.name);
        }
    }
}
