//! A reader of tensors that were put together from pieces, under names that were checked.
//!
//! Must not know where the pieces come from.

use super::pieces::Pieced;
use crate::{names::MAX_NAME, reader::first_byte, tensors::spec, walk::Extras};
use std::{
    collections::{HashMap, HashSet, hash_map::DefaultHasher},
    hash::{Hash, Hasher},
};
use tensormill_model::{Alias, Error, Index, Limits, Metadata, Place, Reader, Result, Rows};
use tensormill_tensor::DType;

/// Tensors as they are found, and what is left out.
pub(super) struct Merged {
    index: Index,
    tensors: Vec<Pieced>,
    names: HashMap<String, usize>,
    /// First tensors of these pieces, by a hash of them.
    seen: HashMap<u64, usize>,
    pub extras: Extras,
    max_tensors: u64,
}

impl Merged {
    pub fn new(limits: &Limits) -> Self {
        Self {
            index: Index::default(),
            tensors: Vec::new(),
            names: HashMap::new(),
            seen: HashMap::new(),
            extras: Extras::default(),
            max_tensors: limits.tensors,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.tensors.is_empty()
    }

    pub fn has(&self, name: &str) -> bool {
        self.names.contains_key(name)
    }

    fn claim(&mut self, name: &str, tensor: usize) -> Result<()> {
        if name.len() > MAX_NAME {
            return Err(Error::over_limit(format!("a tensor name of {} bytes", name.len())));
        }
        if self.names.len() as u64 >= self.max_tensors {
            return Err(Error::over_limit(format!("more than {} tensors", self.max_tensors)));
        }
        if self.names.insert(name.to_owned(), tensor).is_some() {
            return Err(Error::malformed("two tensors have this name"));
        }
        Ok(())
    }

    /// Adds a tensor; pieces that are there already are a further name for their tensor.
    pub fn add(&mut self, name: &str, dims: Vec<u64>, dtype: DType, pieced: Pieced) -> Result<()> {
        let spec = spec(name, dims, dtype)?;
        let mut hash = DefaultHasher::new();
        (pieced.place(), dtype.bits(), &spec.shape).hash(&mut hash);
        let hash = hash.finish();
        if let Some(first) = self.seen.get(&hash)
            && self.tensors[*first].is_same(&pieced)
            && self.index.tensors[*first].encoding == spec.encoding
        {
            return self.alias(name, *first);
        }
        self.claim(name, self.tensors.len())?;
        self.seen.entry(hash).or_insert(self.tensors.len());
        self.index.tensors.push(spec);
        self.tensors.push(pieced);
        Ok(())
    }

    fn alias(&mut self, name: &str, tensor: usize) -> Result<()> {
        self.claim(name, tensor)?;
        let at = self.index.tensors.len() + self.index.aliases.len();
        self.index.aliases.push(Alias { name: name.to_owned(), tensor, at });
        Ok(())
    }

    /// Another name for the tensor of a name; whether there is one.
    pub fn tie(&mut self, name: &str, to: &str) -> Result<bool> {
        match self.names.get(to) {
            Some(tensor) => self.alias(name, *tensor).map(|()| true),
            None => Ok(false),
        }
    }

    /// The reader, which is called `label` in messages.
    pub fn finish(mut self, label: String) -> Result<Box<dyn Reader>> {
        self.extras.finish();
        self.index.left_out = self.extras.left_out;
        self.index.metadata = Metadata::from_entries(self.extras.metadata)
            .map_err(|k| Error::malformed(format!("metadata key {k:?} occurs twice")))?;
        Ok(Box::new(MergedReader { label, index: self.index, tensors: self.tensors }))
    }
}

/// An opened checkpoint of many files.
struct MergedReader {
    label: String,
    index: Index,
    tensors: Vec<Pieced>,
}

impl Reader for MergedReader {
    fn index(&self) -> &Index {
        &self.index
    }

    fn read(&self, tensor: usize, rows: Rows, out: &mut [u8]) -> Result<()> {
        let spec = &self.index.tensors[tensor];
        let fail = |e: Error| e.tensor(&spec.name).file(&self.label);
        let first = first_byte(spec, &rows, out).map_err(fail)?;
        if out.is_empty() {
            return Ok(());
        }
        self.tensors[tensor].read(first, out).map_err(fail)
    }

    fn place(&self, tensor: usize) -> Place {
        let (file, offset) = self.tensors[tensor].place();
        Place { file, offset }
    }
}

/// What is to be read of a checkpoint, by the names of its parts.
pub(super) struct Wanted<'a> {
    pub key: Option<&'a str>,
    pub all: bool,
}

impl Wanted<'_> {
    /// Where the name of a tensor starts in its path (names of containers, then its own) joined by dots, when it is below
    /// the part that is asked for; and whether it is state of an optimizer there.
    pub fn find(&self, path: &[&str]) -> Option<(usize, bool)> {
        let mut rest = path;
        let mut start = 0;
        if let Some(key) = self.key {
            while start < key.len() {
                let (first, others) = rest.split_first()?;
                let tail = key.get(start..)?.strip_prefix(first)?;
                if others.is_empty() || !(tail.is_empty() || tail.starts_with('.')) {
                    return None;
                }
                start += first.len() + 1;
                rest = others;
            }
        }
        let containers = rest.split_last().map_or(rest, |(_, c)| c);
        let optimizer = containers.iter().any(|c| *c == "optim" || c.starts_with("optimizer"));
        Some((start, optimizer && !self.all))
    }

    /// An error for when nothing was found.
    pub fn nothing<'a>(&self, roots: impl Iterator<Item = &'a str>, optimizers: u64) -> Error {
        const SHOWN: usize = 12;
        let mut names: Vec<&str> = Vec::new();
        let mut seen = HashSet::new();
        for root in roots {
            if seen.insert(root) && names.len() <= SHOWN {
                names.push(root);
            }
        }
        let more = if names.len() > SHOWN { ", ..." } else { "" };
        names.truncate(SHOWN);
        match self.key {
            Some(key) if optimizers == 0 => Error::usage(format!("there is no {key:?} in this checkpoint"))
                .hint(format!("at its root there are: {}{more}", names.join(", "))),
            _ if optimizers > 0 => {
                Error::usage("there is nothing but the state of an optimizer in this checkpoint")
                    .hint("--all keeps it")
            }
            _ => Error::malformed("there are no tensors in this checkpoint"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_whole_parts_of_names() {
        let find = |key, path: &[&str]| Wanted { key, all: false }.find(path);
        assert_eq!(find(None, &["model", "a.weight"]), Some((0, false)));
        assert_eq!(find(Some("model"), &["model", "a.weight"]), Some((6, false)));
        assert_eq!(find(Some("model.a"), &["model", "a", "w"]), Some((8, false)));
        assert_eq!(find(Some("model"), &["models", "a"]), None);
        assert_eq!(find(Some("models"), &["model", "a"]), None);
        assert_eq!(find(Some("model.a"), &["model", "a"]), None);
        assert_eq!(find(None, &["optim", "state", "w"]), Some((0, true)));
        assert_eq!(find(None, &["model", "optimizer.w"]), Some((0, false)));
        assert_eq!(find(Some("optim"), &["optim", "state", "w"]), Some((6, false)));
    }
}
