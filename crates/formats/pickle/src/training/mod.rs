//! Checkpoints that training leaves: many files that make one model, merged while they are read.
//!
//! | kind | how it is known | module |
//! |---|---|---|
//! | `torch.distributed.checkpoint` | `.metadata` beside `.distcp` files | [`dcp`] |
//! | DeepSpeed | `*_model_states.pt` | [`deepspeed`] |
//! | one `torch.save` per rank | names such as `model_world_size_8_rank_0.pt` | [`ranks`] |
//!
//! Each module understands headers and says which bytes are which elements; [`pieces`] reads them in place, so that no
//! tensor is ever put together as a whole. Files are opened through [`Folder`].

mod dcp;
mod deepspeed;
mod merged;
mod pieces;
mod ranks;

use crate::PickleOptions;
use std::{collections::HashMap, sync::Arc};
use tensormill_model::{Error, Folder, Limits, Reader, Result, Store};

/// A checkpoint of many files that was recognised in a folder.
#[derive(Debug)]
pub struct Training(Kind);

#[derive(Debug)]
enum Kind {
    Dcp,
    DeepSpeed,
    Ranks(ranks::Set),
}

impl Training {
    /// The checkpoint that a folder with these files is.
    ///
    /// # Errors
    /// `Usage` where files of several sets of ranks are in one folder.
    pub fn of_folder(names: &[String]) -> Result<Option<Self>> {
        let distcp = names.iter().any(|n| n.ends_with(".distcp"));
        Ok(if distcp && names.iter().any(|n| n == dcp::METADATA) {
            Some(Self(Kind::Dcp))
        } else if names.iter().any(|n| deepspeed::is_part(n)) {
            Some(Self(Kind::DeepSpeed))
        } else {
            ranks::of_folder(names)?.map(|set| Self(Kind::Ranks(set)))
        })
    }

    /// The checkpoint that a file is one part of, by its name and those of the other files in its folder. Only
    /// [`Self::open`] can tell whether a file of one rank holds parts.
    pub fn of_file(name: &str, names: &[String]) -> Option<Self> {
        if name == dcp::METADATA || name.ends_with(".distcp") {
            Some(Self(Kind::Dcp))
        } else if deepspeed::is_part(name) {
            Some(Self(Kind::DeepSpeed))
        } else {
            ranks::of_file(name, names).map(|set| Self(Kind::Ranks(set)))
        }
    }

    /// Whether its files can be read one by one, too: as pickles with parts that a key names.
    pub fn has_whole_files(&self) -> bool {
        matches!(self.0, Kind::DeepSpeed)
    }

    /// What it is, for people.
    pub fn what(&self) -> &'static str {
        match self.0 {
            Kind::Dcp => "torch.distributed.checkpoint",
            Kind::DeepSpeed => "DeepSpeed checkpoint",
            Kind::Ranks(_) => "PyTorch files of each rank",
        }
    }

    /// Opens the checkpoint in its folder; `None` where the files of ranks are complete in themselves.
    ///
    /// # Errors
    /// As [`crate::open_with`]; `Mismatch` when a file is missing; errors about a tensor name it.
    pub fn open(
        &self,
        folder: &dyn Folder,
        limits: &Limits,
        options: &PickleOptions,
    ) -> Result<Option<Box<dyn Reader>>> {
        match &self.0 {
            Kind::Dcp => dcp::open(folder, limits, options).map(Some),
            Kind::DeepSpeed => deepspeed::open(folder, limits, options).map(Some),
            Kind::Ranks(set) => ranks::open(set, folder, limits, options),
        }
        .map_err(|e| e.file(folder.label()))
    }
}

/// Files of a folder, each opened once and numbered.
struct Stores<'a> {
    folder: &'a dyn Folder,
    opened: HashMap<String, (usize, Arc<dyn Store>)>,
    /// Bytes of each that were asked for.
    covered: HashMap<usize, u64>,
}

impl<'a> Stores<'a> {
    fn new(folder: &'a dyn Folder) -> Self {
        Self { folder, opened: HashMap::new(), covered: HashMap::new() }
    }

    fn get(&mut self, name: &str) -> Result<(usize, Arc<dyn Store>)> {
        if let Some((number, store)) = self.opened.get(name) {
            return Ok((*number, Arc::clone(store)));
        }
        let store = self.folder.store(name)?.ok_or_else(|| missing(name))?;
        let number = self.opened.len();
        self.opened.insert(name.to_owned(), (number, Arc::clone(&store)));
        Ok((number, store))
    }

    /// Counts bytes of a file that are looked at; whether they are no more than `max` in all.
    fn cover(&mut self, file: usize, bytes: u64, max: u64) -> bool {
        let sum = self.covered.entry(file).or_default();
        *sum = sum.saturating_add(bytes);
        *sum <= max
    }
}

/// A file that must be there and is not.
fn missing(name: &str) -> Error {
    Error::mismatch("this file of the checkpoint is missing")
        .file(name)
        .hint("copy all files that training left into one folder")
}
