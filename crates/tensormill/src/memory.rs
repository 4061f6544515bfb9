//! What `--memory` means: resident memory of the process stays under it plus [`OVERHEAD`].

use tensormill_engine::{peak_rss, resident};
use tensormill_model::{Error, Result};

/// What the process may take beyond `--memory`: the program, thread stacks, the allocator's slack, and the
/// metadata of models with small vocabularies.
pub const OVERHEAD: u64 = 64 << 20;

/// The part of [`OVERHEAD`] that is kept for what grows after planning: stacks, I/O, allocator slack.
const RESERVE: u64 = 16 << 20;

/// The least that is left for tiles, so that the engine can say which tensor needs more.
const LEAST: u64 = 1 << 20;

/// Bytes left for tiles when the caller may use `limit` bytes: all of it, less what metadata and
/// vocabulary hold already beyond the overhead.
///
/// # Errors
/// `OverLimit` with the smallest limit that works, when nothing is left, or when reading headers and vocabulary
/// took more than the limit allows already.
pub fn for_tiles(limit: u64) -> Result<u64> {
    let held = (resident().unwrap_or(0) + RESERVE).saturating_sub(OVERHEAD);
    let passed = peak_rss().unwrap_or(0).saturating_sub(OVERHEAD);
    match limit.checked_sub(held) {
        Some(tiles) if tiles >= LEAST && passed <= limit => Ok(tiles),
        _ => Err(Error::over_limit(format!(
            "headers and vocabulary take {} MiB, more than --memory leaves them",
            (held.max(passed) + OVERHEAD) >> 20
        ))
        .hint(format!("use --memory {}MiB or more", (held + LEAST).max(passed).div_ceil(1 << 20) + 1))),
    }
}
