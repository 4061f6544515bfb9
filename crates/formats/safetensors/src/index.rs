//! Sharded models: `model.safetensors.index.json` and what it promises about the shards.

use crate::header::Ordered;
use serde::Deserialize;
use std::collections::{BTreeSet, HashMap, HashSet};
use tensormill_model::{Error, Index, Result};

/// Name of the index file in a model's folder.
pub const INDEX_NAME: &str = "model.safetensors.index.json";

/// Which shard holds which tensor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShardIndex {
    /// Tensor and file name, in the order of the index file.
    pub weight_map: Vec<(String, String)>,
}

/// Parses an index file.
///
/// # Errors
/// `Malformed` for JSON that is no index, tensors listed twice, and shards outside the model's folder.
pub fn shard_names(index_json: &[u8]) -> Result<ShardIndex> {
    #[derive(Deserialize)]
    struct File {
        weight_map: Ordered<String>,
    }
    let fail = |e: Error| e.file(INDEX_NAME);
    let file: File = serde_json::from_slice(index_json).map_err(|e| fail(Error::malformed(e.to_string())))?;
    let weight_map = file.weight_map.0;
    for (tensor, shard) in &weight_map {
        let inside = !shard.is_empty()
            && !shard.contains(['\\', '\0'])
            && shard.split('/').all(|c| !matches!(c, "" | "." | ".."));
        if !inside {
            return Err(fail(
                Error::malformed(format!("{shard:?} is not a file in the model's folder")).tensor(tensor),
            ));
        }
    }
    Ok(ShardIndex { weight_map })
}

/// Weight files of a folder that has no index, from the names of its files: those that start with `prefix`
/// (`model`, or `consolidated` for Mistral's own layout) and end with `.safetensors`, sorted, as llama.cpp's
/// converter picks them.
pub fn part_names(files: &[String], prefix: &str) -> Vec<String> {
    let mut parts: Vec<String> =
        files.iter().filter(|f| f.starts_with(prefix) && f.ends_with(".safetensors")).cloned().collect();
    parts.sort_unstable();
    parts
}

impl ShardIndex {
    /// The shards, sorted by name: the order in which the converters go through them, and so the order of tensors.
    pub fn files(&self) -> Vec<String> {
        self.weight_map.iter().map(|(_, f)| f).collect::<BTreeSet<_>>().into_iter().cloned().collect()
    }

    /// Checks that every shard is there, by asking `exists` for each.
    ///
    /// # Errors
    /// `Mismatch` naming the first missing shard and how many there are.
    pub fn check_files(&self, exists: impl Fn(&str) -> bool) -> Result<()> {
        let files = self.files();
        let missing: Vec<&String> = files.iter().filter(|f| !exists(f)).collect();
        let Some(first) = missing.first() else { return Ok(()) };
        let more =
            if missing.len() > 1 { format!(" (and {} more)", missing.len() - 1) } else { String::new() };
        Err(Error::mismatch(format!(
            "this shard is missing{more}; {INDEX_NAME} lists {} shards",
            files.len()
        ))
        .file(first)
        .hint("download the missing files into the model's folder"))
    }

    /// Checks opened shards, given as file names and indexes, against the list, both ways.
    ///
    /// # Errors
    /// `Mismatch` naming shard and tensor: one listed but absent, or present but not listed there.
    pub fn check_tensors(&self, shards: &[(&str, &Index)]) -> Result<()> {
        let listed: HashMap<&str, &str> =
            self.weight_map.iter().map(|(t, f)| (t.as_str(), f.as_str())).collect();
        let mut found = HashSet::with_capacity(listed.len());
        for (file, index) in shards {
            for t in &index.tensors {
                match listed.get(t.name.as_str()) {
                    Some(f) if f == file => found.insert((t.name.as_str(), *file)),
                    other => {
                        let what = match other {
                            Some(f) => format!("{INDEX_NAME} says that this tensor is in {f}"),
                            None => format!("{INDEX_NAME} does not list this tensor"),
                        };
                        return Err(Error::mismatch(what)
                            .file(file)
                            .tensor(&t.name)
                            .hint("index and shards are not of one model: download them again"));
                    }
                };
            }
        }
        match self.weight_map.iter().find(|(t, f)| !found.contains(&(t.as_str(), f.as_str()))) {
            None => Ok(()),
            Some((t, f)) => {
                Err(Error::mismatch(format!("{INDEX_NAME} lists this tensor, but the shard lacks it"))
                    .file(f)
                    .tensor(t)
                    .hint("the shard is not of this model or an older one: download it again"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tensormill_model::ErrorKind;
    use tensormill_tensor::{Encoding, Shape, TensorSpec};

    fn index(names: &[&str]) -> Index {
        let spec = |n: &&str| TensorSpec::new(*n, Shape::new(vec![1]).unwrap(), Encoding::F32);
        Index { tensors: names.iter().map(spec).collect(), ..Index::default() }
    }

    #[test]
    fn each_disagreement_has_its_own_error() {
        let json = br#"{"metadata":{"total_size":12},"weight_map":{"b":"m-2.safetensors","a":"m-1.safetensors","c":"m-1.safetensors"}}"#;
        let s = shard_names(json).unwrap();
        assert_eq!(s.weight_map[0].0, "b");
        assert_eq!(s.files(), ["m-1.safetensors", "m-2.safetensors"]);

        let e = s.check_files(|f| f.contains("m-1")).unwrap_err();
        assert_eq!(
            e.to_string(),
            "m-2.safetensors: this shard is missing; model.safetensors.index.json lists 2 shards"
        );
        s.check_files(|_| true).unwrap();

        let check = |one: &[&str], two: &[&str]| {
            s.check_tensors(&[("m-1.safetensors", &index(one)), ("m-2.safetensors", &index(two))])
        };
        check(&["a", "c"], &["b"]).unwrap();
        for (one, two, tensor, what) in [
            (&["a"][..], &["b"][..], "c", "lacks it"),
            (&["a", "c"], &["b", "x"], "x", "does not list"),
            (&["a", "b", "c"], &["b"], "b", "is in m-2.safetensors"),
        ] {
            let e = check(one, two).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::Mismatch);
            assert_eq!(e.tensor_name(), Some(tensor));
            assert!(e.message().contains(what), "{e}");
        }
    }

    #[test]
    fn bad_indexes_are_refused() {
        for bad in [
            r#"{"weight_map":{"a":"x","a":"y"}}"#,
            r#"{"weight_map":{"a":"../x"}}"#,
            r#"{"weight_map":{"a":"/etc/x"}}"#,
            r#"{"weight_map":{"a":""}}"#,
            r#"{"weight_map":{"a":3}}"#,
            r#"{"weight_map":[]}"#,
            r"{}",
            r"",
            "version https://git-lfs",
        ] {
            let e = shard_names(bad.as_bytes()).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::Malformed, "{bad}");
            assert_eq!(e.file_name(), Some(INDEX_NAME));
        }
    }

    #[test]
    fn parts_are_picked_and_sorted() {
        let files = ["model-2.safetensors", "model.bin", "model-1.safetensors", "consolidated.safetensors"];
        let files: Vec<String> = files.map(String::from).to_vec();
        assert_eq!(part_names(&files, "model"), ["model-1.safetensors", "model-2.safetensors"]);
        assert_eq!(part_names(&files, "consolidated"), ["consolidated.safetensors"]);
    }
}
