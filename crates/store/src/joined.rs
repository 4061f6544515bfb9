//! Many readers presented as one: shard sets.
//!
//! The combinator knows nothing of formats. What a set's metadata is, and whether the set is complete, is for
//! the format to say.

use std::collections::HashMap;
use tensormill_model::{Alias, Error, Index, Metadata, Place, Reader, Result, Rows};

struct Part {
    name: String,
    reader: Box<dyn Reader>,
    /// Number of files in all parts before this one.
    first_file: usize,
}

/// Readers in order, seen as one index.
pub struct JoinedReader {
    parts: Vec<Part>,
    index: Index,
    /// Part and tensor number in it, per tensor of the index.
    tensors: Vec<(usize, usize)>,
}

impl JoinedReader {
    /// All tensors of all parts, part by part in the order given, each part in its own order. `parts` pairs a
    /// file name (for messages) with its reader; `metadata` is the metadata of the whole.
    ///
    /// # Errors
    /// `Mismatch` when two parts hold a tensor of the same name; names both files.
    pub fn concat(parts: Vec<(String, Box<dyn Reader>)>, metadata: Metadata) -> Result<Self> {
        let mut joined = Self {
            parts: Vec::with_capacity(parts.len()),
            index: Index { metadata, ..Index::default() },
            tensors: Vec::new(),
        };
        let mut seen: HashMap<String, usize> = HashMap::new();
        let mut once =
            |name: &str, p: usize, parts: &[Part], file: &str| match seen.insert(name.to_owned(), p) {
                None => Ok(()),
                Some(first) => {
                    // The part itself when its own reader let one name through twice.
                    let holder = parts.get(first).map_or(file, |p| &p.name);
                    Err(Error::mismatch(format!("{holder} holds a tensor of this name too"))
                        .file(file)
                        .tensor(name)
                        .hint("remove the file that does not belong to the model"))
                }
            };
        let mut first_file = 0;
        for (p, (name, reader)) in parts.into_iter().enumerate() {
            let mut files = 1;
            let index = reader.index();
            let (first_tensor, names) =
                (joined.tensors.len(), joined.tensors.len() + joined.index.aliases.len());
            for (t, spec) in index.tensors.iter().enumerate() {
                once(&spec.name, p, &joined.parts, &name)?;
                files = files.max(reader.place(t).file + 1);
                joined.tensors.push((p, t));
                joined.index.tensors.push(spec.clone());
            }
            for a in &index.aliases {
                once(&a.name, p, &joined.parts, &name)?;
                let (tensor, at) = (first_tensor + a.tensor, names + a.at);
                joined.index.aliases.push(Alias { name: a.name.clone(), tensor, at });
            }
            joined.index.left_out.extend_from_slice(&index.left_out);
            joined.parts.push(Part { name, reader, first_file });
            first_file += files;
        }
        Ok(joined)
    }
}

impl Reader for JoinedReader {
    fn index(&self) -> &Index {
        &self.index
    }
    fn read(&self, tensor: usize, rows: Rows, out: &mut [u8]) -> Result<()> {
        let (p, t) = self.tensors[tensor];
        self.parts[p].reader.read(t, rows, out).map_err(|e| e.file(&self.parts[p].name))
    }
    fn place(&self, tensor: usize) -> Place {
        let (p, t) = self.tensors[tensor];
        let inner = self.parts[p].reader.place(t);
        Place { file: self.parts[p].first_file + inner.file, offset: inner.offset }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use tensormill_model::{ErrorKind, MemoryAssets, Model};
    use tensormill_tensor::{Encoding, Shape, TensorSpec};

    /// Every byte of tensor `t` is `base + t`; the tensors lie in two files, last one first.
    struct Fake(Index, u8);
    impl Fake {
        fn boxed(base: u8, names: &[&str]) -> Box<dyn Reader> {
            let spec = |n: &&str| TensorSpec::new(*n, Shape::new(vec![2, 1]).unwrap(), Encoding::F32);
            Box::new(Self(Index { tensors: names.iter().map(spec).collect(), ..Index::default() }, base))
        }
    }
    impl Reader for Fake {
        fn index(&self) -> &Index {
            &self.0
        }
        fn read(&self, tensor: usize, _: Rows, out: &mut [u8]) -> Result<()> {
            out.fill(self.1 + tensor as u8);
            Ok(())
        }
        fn place(&self, tensor: usize) -> Place {
            Place { file: 1 - tensor % 2, offset: 7 }
        }
    }

    #[test]
    fn tensors_files_and_metadata_are_joined() {
        let mut m = Metadata::new();
        m.set("k", 1u32);
        let j = JoinedReader::concat(
            vec![
                ("x".into(), Fake::boxed(10, &["a", "b"])),
                ("y".into(), Fake::boxed(20, &[])),
                ("z".into(), Fake::boxed(30, &["c"])),
            ],
            m,
        )
        .unwrap();
        let names: Vec<&str> = j.index().tensors.iter().map(|t| t.name.as_str()).collect();
        assert_eq!(names, ["a", "b", "c"]);
        assert_eq!(j.index().metadata.u64("k"), Some(1));
        let files: Vec<usize> = (0..3).map(|t| j.place(t).file).collect();
        assert_eq!(files, [1, 0, 4]);
        let mut out = [0; 4];
        j.read(2, 1..2, &mut out).unwrap();
        assert_eq!(out, [30; 4]);
    }

    #[test]
    fn aliases_keep_their_tensors_and_positions() {
        let tied = |base, names: &[&str], alias: &str, at| {
            let spec = |n: &&str| TensorSpec::new(*n, Shape::new(vec![2, 1]).unwrap(), Encoding::F32);
            let aliases = vec![Alias { name: alias.to_owned(), tensor: 1, at }];
            let index = Index { tensors: names.iter().map(spec).collect(), aliases, ..Index::default() };
            Box::new(Fake(index, base)) as Box<dyn Reader>
        };
        let parts = || {
            vec![
                ("x".into(), tied(10, &["a", "b"], "b2", 2)),
                ("y".into(), tied(20, &["c", "d", "e"], "d2", 2)),
            ]
        };
        let j = JoinedReader::concat(parts(), Metadata::new()).unwrap();
        let model = Model::from_index(j.index(), 0, Arc::new(MemoryAssets::default()));
        let names: Vec<String> = model.tensors.iter().map(|t| format!("{} {}", t.name(), t.expr)).collect();
        assert_eq!(
            names,
            [
                "a read(0:0)",
                "b read(0:1)",
                "b2 read(0:1)",
                "c read(0:2)",
                "d read(0:3)",
                "d2 read(0:3)",
                "e read(0:4)"
            ]
        );
        let clash = vec![parts().remove(0), ("z".into(), Fake::boxed(0, &["b2"]))];
        assert_eq!(JoinedReader::concat(clash, Metadata::new()).err().unwrap().kind(), ErrorKind::Mismatch);
    }

    #[test]
    fn one_name_in_two_parts_is_refused() {
        let e = JoinedReader::concat(
            vec![("x".into(), Fake::boxed(0, &["a", "b"])), ("y".into(), Fake::boxed(0, &["b"]))],
            Metadata::new(),
        )
        .err()
        .unwrap();
        assert_eq!(e.kind(), ErrorKind::Mismatch);
        assert_eq!(e.to_string(), "y: tensor b: x holds a tensor of this name too");
    }
}
