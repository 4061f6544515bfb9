//! Ends of transfers that fill no page, kept until there are enough of them.
//!
//! A buffered write waits until every direct write of the same file that is under way has ended, and holds up those
//! that come after it: a lock of the file's does that in the kernel. Two such writes after every tile cost as much as the
//! tile. So ends wait here, and go to the page cache many at a time; where the end of one transfer meets the start of the
//! next they go as one.
//!
//! This module must not know how bytes are written.

use std::{io, ops::Range};

/// Bytes that wait at most.
const MOST: usize = 256 << 10;

/// Ends by their offsets. No two of them overlap.
#[derive(Debug, Default)]
pub(crate) struct Ends {
    list: Vec<(u64, Vec<u8>)>,
    bytes: usize,
}

impl Ends {
    /// Whether some of these bytes wait here.
    pub(crate) fn overlap(&self, range: &Range<u64>) -> bool {
        self.list.iter().any(|(at, bytes)| *at < range.end && range.start < at + bytes.len() as u64)
    }

    /// Takes bytes that overlap none that wait; gives whether it is time to write them.
    pub(crate) fn push(&mut self, at: u64, bytes: &[u8]) -> bool {
        if !bytes.is_empty() {
            self.list.push((at, bytes.to_vec()));
            self.bytes += bytes.len();
        }
        self.bytes >= MOST
    }

    /// Writes all that waits, by ascending offset. What could not be written goes on waiting.
    pub(crate) fn settle(&mut self, mut write: impl FnMut(&[u8], u64) -> io::Result<()>) -> io::Result<()> {
        self.list.sort_unstable_by_key(|(at, _)| *at);
        let mut done = 0;
        let mut result = Ok(());
        while done < self.list.len() && result.is_ok() {
            let (at, mut joined) = (self.list[done].0, std::mem::take(&mut self.list[done].1));
            let own = joined.len();
            let mut next = done + 1;
            while let Some((start, bytes)) = self.list.get(next)
                && *start == at + joined.len() as u64
            {
                joined.extend_from_slice(bytes);
                next += 1;
            }
            result = write(&joined, at);
            if result.is_err() {
                joined.truncate(own);
                self.list[done].1 = joined;
            } else {
                done = next;
            }
        }
        self.list.drain(..done);
        self.bytes = self.list.iter().map(|(_, b)| b.len()).sum();
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_meets_is_written_as_one_and_what_fails_stays() {
        let mut ends = Ends::default();
        for (at, bytes) in [(30, "e"), (10, "ab"), (12, "cd"), (20, "")] {
            assert!(!ends.push(at, bytes.as_bytes()));
        }
        assert!(ends.overlap(&(11..12)) && ends.overlap(&(0..11)) && ends.overlap(&(13..40)));
        assert!(!ends.overlap(&(14..30)) && !ends.overlap(&(31..32)) && !ends.overlap(&(0..10)));
        let mut seen = Vec::new();
        let full = ends.settle(|bytes, at| {
            seen.push((at, String::from_utf8(bytes.to_vec()).unwrap()));
            if at == 30 { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
        });
        assert!(full.is_err());
        assert_eq!(seen, [(10, "abcd".to_owned()), (30, "e".to_owned())]);
        assert!(!ends.overlap(&(0..30)) && ends.overlap(&(30..31)));
        ends.settle(|bytes, at| {
            assert_eq!((bytes, at), (&b"e"[..], 30));
            Ok(())
        })
        .unwrap();
        assert!(!ends.overlap(&(0..100)));
        assert!(ends.push(0, &vec![0; MOST]));
    }
}
