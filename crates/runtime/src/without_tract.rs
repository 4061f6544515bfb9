//! In place of `tract.rs` where the feature is off.

use crate::Runtime;
use std::path::Path;
use tensormill_model::{Error, Result};

pub(crate) const BUILT_IN: bool = false;

pub(crate) fn open(_: &Path) -> Result<Box<dyn Runtime>> {
    Err(Error::unsupported("this build has no runtime of its own for graphs").hint(
        "install ONNX Runtime and name its library with --onnxruntime PATH, or build with `--features tract`",
    ))
}
