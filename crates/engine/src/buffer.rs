//! The memory of tiles: zeroed bytes, in huge pages where the system has them.
//!
//! A disk takes a direct write page by page: of ordinary pages each is a piece of its own, of huge ones five hundred are
//! one. `benches/results/2026-11-formats.md` has what that is worth. Must not know what the bytes are for.

use memmap2::MmapMut;
use std::ops::{Deref, DerefMut};

/// A huge page on x86-64 and most of AArch64. Shorter memory has none.
const HUGE: u64 = 2 << 20;

/// Bytes that begin as zeros.
pub(crate) enum Bytes {
    Plain(Vec<u8>),
    Mapped(MmapMut),
}

impl Bytes {
    pub(crate) fn new(len: u64) -> Self {
        let plain = || Self::Plain(vec![0; len as usize]);
        if len < 2 * HUGE {
            return plain();
        }
        let Ok(map) = MmapMut::map_anon(len as usize) else { return plain() };
        // A system without huge pages refuses, and loses nothing.
        #[cfg(target_os = "linux")]
        let _ = map.advise(memmap2::Advice::HugePage);
        Self::Mapped(map)
    }
}

impl Default for Bytes {
    fn default() -> Self {
        Self::Plain(Vec::new())
    }
}

impl Deref for Bytes {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match self {
            Self::Plain(bytes) => bytes,
            Self::Mapped(map) => map,
        }
    }
}

impl DerefMut for Bytes {
    fn deref_mut(&mut self) -> &mut [u8] {
        match self {
            Self::Plain(bytes) => bytes,
            Self::Mapped(map) => map,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_of_any_length() {
        for len in [0, 1, 2 * HUGE - 1, 2 * HUGE, 5 * HUGE + 3] {
            let mut bytes = Bytes::new(len);
            assert_eq!(bytes.len() as u64, len);
            assert!(bytes.iter().all(|b| *b == 0));
            bytes.fill(7);
            assert!(bytes.iter().all(|b| *b == 7));
        }
    }
}
