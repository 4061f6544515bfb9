//! CRC-32 of tensors, for formats that store them (zip archives): taken while tiles are written, in whatever order.
//!
//! Must not know which format wants them, nor where they go.

use super::sink::Extent;
use crc32fast::Hasher;
use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

/// The checksums of some tensors, portion by portion.
#[derive(Default)]
pub(super) struct Checksums {
    /// Per file, by offset of the first byte.
    files: Vec<BTreeMap<u64, Watched>>,
}

/// One tensor's place, and the portions seen so far: length and checksum by offset.
struct Watched {
    extent: Extent,
    seen: Mutex<BTreeMap<u64, (u64, u32)>>,
}

impl Checksums {
    /// Watches a tensor of a file.
    pub(super) fn watch(&mut self, file: usize, extent: Extent) {
        if self.files.len() <= file {
            self.files.resize_with(file + 1, BTreeMap::new);
        }
        self.files[file].insert(extent.start, Watched { extent, seen: Mutex::default() });
    }

    /// Takes bytes that are written to a file.
    pub(super) fn update(&self, file: usize, offset: u64, bytes: &[u8]) {
        let found = self.files.get(file).and_then(|f| f.range(..=offset).next_back());
        let Some((_, watched)) = found.filter(|(_, w)| offset < w.extent.end) else { return };
        let checksum = crc32fast::hash(bytes);
        let mut seen = watched.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.insert(offset, (bytes.len() as u64, checksum));
    }

    /// The checksum of every tensor whose bytes have all been seen.
    pub(super) fn finish(self) -> BTreeMap<usize, u32> {
        let all = self.files.into_iter().flat_map(BTreeMap::into_values);
        all.filter_map(|w| Some((w.extent.tensor, w.whole()?))).collect()
    }
}

impl Watched {
    fn whole(self) -> Option<u32> {
        let mut hasher = Hasher::new();
        let mut at = self.extent.start;
        for (offset, (len, checksum)) in self.seen.into_inner().unwrap_or_else(PoisonError::into_inner) {
            if offset != at {
                return None;
            }
            hasher.combine(&Hasher::new_with_initial_len(checksum, len));
            at += len;
        }
        (at == self.extent.end).then(|| hasher.finalize())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn portions_in_any_order_give_the_whole() {
        let bytes: Vec<u8> = (0..100u8).collect();
        let mut sums = Checksums::default();
        sums.watch(1, Extent { start: 10, end: 60, tensor: 7 });
        sums.watch(1, Extent { start: 60, end: 70, tensor: 8 });
        sums.watch(1, Extent { start: 80, end: 80, tensor: 9 });
        for (from, to) in [(30, 60), (10, 20), (62, 70), (20, 30), (0, 10), (90, 100)] {
            sums.update(1, from as u64, &bytes[from..to]);
        }
        sums.update(0, 10, &bytes);
        // Of tensor 8 two bytes were never seen.
        assert_eq!(sums.finish(), [(7, crc32fast::hash(&bytes[10..60])), (9, 0)].into());
    }
}
