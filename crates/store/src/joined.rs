//! Many readers presented as one: shard sets.
//!
//! The combinator knows nothing of formats. What a set's metadata is, and whether the set is complete, is for
//! the format to say.

use std::collections::HashMap;
use tensormill_model::{Error, Index, Metadata, Place, Reader, Result, Rows};

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
            index: Index { tensors: Vec::new(), metadata },
            tensors: Vec::new(),
        };
        let mut seen: HashMap<String, usize> = HashMap::new();
        let mut first_file = 0;
        for (p, (name, reader)) in parts.into_iter().enumerate() {
            let mut files = 1;
            for (t, spec) in reader.index().tensors.iter().enumerate() {
                if let Some(first) = seen.insert(spec.name.clone(), p) {
                    return Err(Error::mismatch(format!(
                        "{} holds a tensor of this name too",
                        joined.parts[first].name
                    ))
                    .file(name)
                    .tensor(&spec.name)
                    .hint("remove the file that does not belong to the model"));
                }
                files = files.max(reader.place(t).file + 1);
                joined.tensors.push((p, t));
                joined.index.tensors.push(spec.clone());
            }
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
    use tensormill_model::ErrorKind;
    use tensormill_tensor::{Encoding, Shape, TensorSpec};

    /// Every byte of tensor `t` is `base + t`; the tensors lie in two files, last one first.
    struct Fake(Index, u8);
    impl Fake {
        fn boxed(base: u8, names: &[&str]) -> Box<dyn Reader> {
            let spec = |n: &&str| TensorSpec::new(*n, Shape::new(vec![2, 1]).unwrap(), Encoding::F32);
            Box::new(Self(
                Index { tensors: names.iter().map(spec).collect(), metadata: Metadata::new() },
                base,
            ))
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
