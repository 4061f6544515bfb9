//! Work that other hardware than the processor may take over: what an op says of itself, and who may take it.
//!
//! Must not know which hardware there is, nor how an encoder works.

use crate::{Form, Op, Result, Rows};
use tensormill_tensor::BlockFormat;

/// What an op does that encodes rows as blocks by ggml's search, in words that do not need the op.
#[derive(Clone, Copy, Debug)]
pub struct Encode<'a> {
    /// The format of the blocks.
    pub block: &'static BlockFormat,
    /// Importance of each column, for one matrix after the other of those that the tensor stacks.
    pub importance: Option<&'a [f32]>,
}

/// One op on some rows, and the place of its result.
pub struct Task<'a> {
    /// What to do.
    pub op: &'a dyn Op,
    /// Exactly as long as the result. What it holds means nothing until `done`.
    pub out: &'a mut [u8],
    /// Whether it was done; the processor does what was not.
    pub done: bool,
}

/// Runs ops on other hardware than the processor.
///
/// The bytes are those of [`Op::run`]. Where they might not be, where the values are ones that [`Op::run`] refuses, or
/// where there is any other reason, a task is left undone.
pub trait Accelerator: Send + Sync {
    /// Does those of the tasks that it can do, on rows `rows` of an input of form `form`. Called from several threads
    /// at a time; waits where the hardware is busy.
    ///
    /// # Errors
    /// When the hardware failed, and the processor is not to go on in its place.
    fn run(&self, rows: Rows, form: &Form, value: &[u8], tasks: &mut [Task<'_>]) -> Result<()>;
}
