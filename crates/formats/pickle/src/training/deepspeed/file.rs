//! One file of DeepSpeed's: the few kinds of values that are looked for in it.

use super::Stores;
use crate::{
    files::{self, Opened, Program},
    machine::heap::{Object, Value},
};
use tensormill_model::{Error, Limits, Result};

/// An opened file and what its one program made.
pub(super) struct File {
    pub number: usize,
    pub name: String,
    pub opened: Opened,
}

impl File {
    pub fn open(stores: &mut Stores<'_>, name: &str, limits: &Limits) -> Result<Self> {
        let (number, store) = stores.get(name)?;
        let named = |e: Error| e.file(store.name());
        let opened = files::open(&store, limits).map_err(named)?;
        if opened.programs.is_empty() {
            return Err(named(Error::malformed("there is no pickle in it")));
        }
        Ok(Self { number, name: store.name().to_owned(), opened })
    }

    pub fn program(&self) -> &Program {
        &self.opened.programs[0]
    }

    /// A value at the root, or in a dict there; `None` where it is not there or is `None`.
    pub fn get(&self, path: &[&str]) -> Option<Value> {
        let program = self.program();
        let mut v = program.root;
        for key in path {
            match program.entry(v, key) {
                Some(next) if next != Value::None => v = next,
                _ => return None,
            }
        }
        Some(v)
    }

    /// Keys and values of a dict; nothing where there is none.
    pub fn entries(&self, v: Option<Value>) -> Result<Vec<(&str, Value)>> {
        let heap = &self.program().heap;
        match v.map(|v| (v, heap.get(v))) {
            None => Ok(Vec::new()),
            Some((_, Some(Object::Dict(d)))) => {
                Ok(d.iter().filter_map(|(k, v)| Some((heap.str(*k)?, *v))).collect())
            }
            Some((v, _)) => {
                Err(Error::malformed(format!("{} in place of a dict of parameters", heap.kind(v)))
                    .file(&self.name))
            }
        }
    }

    pub fn dict_len(&self, v: Value) -> u64 {
        match self.program().heap.get(v) {
            Some(Object::Dict(d)) => d.len() as u64,
            _ => 0,
        }
    }

    pub fn items(&self, v: Option<Value>) -> &[Value] {
        v.and_then(|v| self.program().heap.items(v)).unwrap_or_default()
    }

    /// First parts of the names in the module's state dict.
    pub fn roots(&self) -> impl Iterator<Item = &str> {
        let names = self.entries(self.get(&["module"])).unwrap_or_default();
        names.into_iter().map(|(name, _)| name.split('.').next().unwrap_or(name))
    }

    /// A number, which may be that of an enum.
    pub fn int(&self, v: Value) -> Option<u64> {
        let heap = &self.program().heap;
        let v = match heap.get(v) {
            Some(Object::Opaque(o)) => {
                o.parts.first().and_then(|a| heap.items(*a)?.first()).copied().unwrap_or(v)
            }
            _ => v,
        };
        match v {
            Value::Int(n) => u64::try_from(n).ok(),
            _ => None,
        }
    }
}

/// Names and shapes of parameters.
pub(super) fn shapes(file: &File, v: Option<Value>) -> Result<Vec<(String, Vec<u64>)>> {
    let heap = &file.program().heap;
    let sizes = |(name, v): (&str, Value)| {
        let dims = heap.sizes(v).map_err(|e| e.tensor(name))?;
        Ok((name.to_owned(), dims.to_vec()))
    };
    file.entries(v)?.into_iter().map(sizes).collect()
}
