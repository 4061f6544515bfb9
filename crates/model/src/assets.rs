//! Side files of a model: config, tokenizer, model card. Small, read whole, by name.

use crate::Result;
use std::collections::BTreeMap;

/// Where side files come from.
pub trait Assets: Send + Sync {
    /// The last component of the folder or repository name (the peers derive `general.name` from it).
    fn name(&self) -> &str;
    /// Names of the files at hand.
    fn list(&self) -> Vec<String>;
    /// A whole file, or `None` when there is none of that name.
    ///
    /// # Errors
    /// I/O errors, and files larger than the implementation's limit.
    fn read(&self, name: &str) -> Result<Option<Vec<u8>>>;
}

/// Side files held in memory: for tests, and for sources that carry none.
#[derive(Clone, Debug, Default)]
pub struct MemoryAssets {
    /// What [`Assets::name`] answers.
    pub name: String,
    /// The files.
    pub files: BTreeMap<String, Vec<u8>>,
}

impl Assets for MemoryAssets {
    fn name(&self) -> &str {
        &self.name
    }
    fn list(&self) -> Vec<String> {
        self.files.keys().cloned().collect()
    }
    fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        Ok(self.files.get(name).cloned())
    }
}
