//! Importance matrices: how strongly each column of each weight is excited by real text.
//!
//! Two file forms carry them, GGUF and an older one (`.dat`). Both hold sums of squared activations; what
//! encoders take is the mean, computed here in the peer's arithmetic (`tools/quantize/quantize.cpp`,
//! `load_imatrix`). Must not know how a GGUF file is laid out: it is handed an opened [`Reader`].

mod gguf;
mod legacy;

use std::{collections::HashMap, path::Path, sync::Arc};
use tensormill_model::{Error, Reader, Result};

/// Most values that one entry may have: 512 experts of 131072 columns. A bound against hostile headers.
const MAX_VALUES: u64 = 1 << 26;

/// Importance of the columns of many tensors.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Importance {
    /// Name of the file, without folder.
    pub file_name: String,
    /// By tensor name: `row_len` values for each matrix that the tensor stacks.
    pub entries: HashMap<String, Arc<[f32]>>,
    /// Texts that were read to measure it.
    pub datasets: Vec<String>,
    /// Number of chunks of text, zero or less when unknown.
    pub chunks: i32,
}

impl Importance {
    /// Takes the GGUF form from an opened file. `file_name` may be a path: only its last component is kept.
    ///
    /// # Errors
    /// `Malformed` or `OverLimit`, naming file and tensor; and whatever the reader reports.
    pub fn from_reader(reader: &dyn Reader, file_name: &str) -> Result<Self> {
        gguf::read(reader).and_then(|i| i.finish(file_name)).map_err(|e| e.file(file_name))
    }

    /// Takes the older form, the bytes of a whole file. `file_name` as in [`Self::from_reader`].
    ///
    /// # Errors
    /// `Malformed` or `OverLimit`, naming file and tensor or offset.
    pub fn from_legacy(bytes: &[u8], file_name: &str) -> Result<Self> {
        legacy::read(bytes).and_then(|i| i.finish(file_name)).map_err(|e| e.file(file_name))
    }

    fn finish(mut self, file_name: &str) -> Result<Self> {
        if self.entries.is_empty() {
            return Err(Error::malformed("the importance matrix has no entries"));
        }
        for (name, values) in &self.entries {
            if let Some(i) = values.iter().position(|v| !v.is_finite()) {
                return Err(Error::malformed(format!("importance value {i} is NaN or infinite")).tensor(name));
            }
        }
        let last = Path::new(file_name).file_name().unwrap_or_default();
        self.file_name = last.to_string_lossy().into_owned();
        Ok(self)
    }
}

fn check_len(values: u64) -> Result<()> {
    if values > MAX_VALUES {
        return Err(Error::over_limit(format!(
            "an importance entry of {values} values; at most {MAX_VALUES} are read"
        )));
    }
    Ok(())
}
