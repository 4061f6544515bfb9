//! Which ranges of a file have arrived, when several connections fetch it: in memory, and in a small file beside it from time to time.
//!
//! The list is a promise about bytes that were written before; after a power failure it may promise too much, which the file's hash
//! finds out.

use crate::cache::{read_small, write_whole};
use std::{
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};
use tensormill_model::Result;

/// Bytes after which the list is written again.
const NOTE: u64 = 32 << 20;

/// Ranges of a file.
pub(crate) struct Pieces {
    path: PathBuf,
    size: u64,
    /// Bytes of a piece; the last may have fewer.
    step: u64,
    state: Mutex<State>,
}

struct State {
    /// Bytes that are there of each piece, from its start.
    there: Vec<u64>,
    /// Pieces that somebody fetches, or has fetched.
    taken: Vec<bool>,
    unsaved: u64,
}

impl Pieces {
    /// The pieces of a file of `size` bytes, with what an earlier run noted, if its pieces were of the same size.
    pub fn open(path: &Path, size: u64, step: u64) -> Self {
        let count = size.div_ceil(step) as usize;
        let this = Self {
            path: path.to_owned(),
            size,
            step,
            state: Mutex::new(State { there: vec![0; count], taken: vec![false; count], unsaved: 0 }),
        };
        if let Some(there) = this.noted() {
            let mut state = this.lock();
            state.taken = there.iter().enumerate().map(|(i, &n)| n == this.len(i)).collect();
            state.there = there;
        }
        this
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn len(&self, number: usize) -> u64 {
        self.step.min(self.size - number as u64 * self.step)
    }

    /// What is noted: `size step` and a number for each piece.
    fn noted(&self) -> Option<Vec<u64>> {
        // Numbers have twenty digits, at most.
        let most = 21 * (self.lock().there.len() as u64 + 3);
        let text = String::from_utf8(read_small(&self.path, most).ok()?).ok()?;
        let mut numbers = text.split_whitespace().map(|n| n.parse::<u64>().ok());
        if (numbers.next()??, numbers.next()??) != (self.size, self.step) {
            return None;
        }
        let there: Vec<u64> = numbers.collect::<Option<_>>()?;
        let fits = there.len() == self.lock().there.len()
            && there.iter().enumerate().all(|(i, &n)| n <= self.len(i));
        fits.then_some(there)
    }

    /// Bytes that are there.
    pub fn there(&self) -> u64 {
        self.lock().there.iter().sum()
    }

    /// The next piece that nobody fetches: its number, and what is missing of it.
    pub fn take(&self) -> Option<(usize, u64, u64)> {
        let mut state = self.lock();
        let number = state.taken.iter().position(|t| !t)?;
        state.taken[number] = true;
        let start = number as u64 * self.step;
        Some((number, start + state.there[number], start + self.len(number)))
    }

    /// Bytes of a piece were written.
    pub fn wrote(&self, number: usize, bytes: u64) -> Result<()> {
        let mut state = self.lock();
        state.there[number] += bytes;
        state.unsaved += bytes;
        if state.unsaved < NOTE {
            return Ok(());
        }
        self.note(state)
    }

    /// Notes what is there.
    pub fn save(&self) -> Result<()> {
        self.note(self.lock())
    }

    fn note(&self, mut state: MutexGuard<'_, State>) -> Result<()> {
        state.unsaved = 0;
        let numbers: Vec<String> = state.there.iter().map(u64::to_string).collect();
        write_whole(&self.path, format!("{} {}\n{}\n", self.size, self.step, numbers.join(" ")).as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn what_was_noted_is_not_fetched_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.pieces");
        let pieces = Pieces::open(&path, 25, 10);
        assert_eq!(pieces.take(), Some((0, 0, 10)));
        assert_eq!(pieces.take(), Some((1, 10, 20)));
        pieces.wrote(0, 10).unwrap();
        pieces.wrote(1, 4).unwrap();
        pieces.save().unwrap();
        let again = Pieces::open(&path, 25, 10);
        assert_eq!(again.there(), 14);
        assert_eq!(again.take(), Some((1, 14, 20)));
        assert_eq!(again.take(), Some((2, 20, 25)));
        assert_eq!(again.take(), None);
        // Notes of another size of file or pieces are not these.
        assert_eq!(Pieces::open(&path, 26, 10).there(), 0);
        fs::write(&path, "25 10\n10 99 0\n").unwrap();
        assert_eq!(Pieces::open(&path, 25, 10).there(), 0);
        for odd in [
            "",
            "25",
            "25 10\n10 10 5 1\n",
            "25 10\n10 10 -5\n",
            "25 10\n18446744073709551616 1 1\n",
            "\u{fffd}",
        ] {
            fs::write(&path, odd).unwrap();
            assert_eq!(Pieces::open(&path, 25, 10).there(), 0, "{odd:?}");
        }
    }
}
