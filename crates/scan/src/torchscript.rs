//! Code in TorchScript archives: the language has no imports, but its operators can read and write files.

use crate::{
    finding::{Place, Sink},
    rules,
    text::line_of,
};
use regex::bytes::Regex;
use std::sync::LazyLock;

/// Bytes looked at of one member.
pub(crate) const MOST: usize = 4 << 20;

/// Operators that touch files, and those of libraries that a loader must have registered. `torch.ops.aten` is torch's.
static TOUCHES: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(
        r"(?-u)\b(?:torch\.(?:from_file|save|load|hub)\b|ops\.(?:aten\.(?:from_file|save)\b|image\.(?:read_file|write_file)\b)|__torch__\.torch\.classes\.[a-z]\w*)",
    )
    .ok()
});

/// What was seen of an archive's code.
#[derive(Default)]
pub(crate) struct Code {
    files: u64,
    first: Option<String>,
}

impl Code {
    pub fn member(&mut self, name: &str, text: &[u8], sink: &mut Sink<'_>) {
        self.files += 1;
        self.first.get_or_insert_with(|| name.to_owned());
        if let Some(found) = TOUCHES.as_ref().and_then(|r| r.find(text)) {
            let what = String::from_utf8_lossy(found.as_bytes());
            sink.add(&rules::TORCHSCRIPT_FILE, Place::line(line_of(text, found.start())), what);
        }
    }

    /// One finding for all files.
    pub fn tell(self, sink: &mut Sink<'_>) {
        if let Some(first) = self.first {
            sink.add(&rules::TORCHSCRIPT_CODE, Place::member(&first), format!("{} source files", self.files));
        }
    }
}
