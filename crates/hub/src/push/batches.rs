//! How many files go into one commit: as few commits as the server manages.
//!
//! Servers need longer the more files a commit has, and give up after a minute or so. The numbers are those of
//! huggingface_hub.

use std::time::Duration;

/// Files of a first commit.
const FIRST: usize = 250;
const FEWEST: usize = 20;
const MOST: usize = 1000;

/// A commit that takes longer had too many files.
const LONG: Duration = Duration::from_secs(40);

/// Bytes of files whose content is part of the commit.
const CONTENT: u64 = 100 << 20;

/// Decides how many files are sent next.
#[derive(Debug)]
pub struct Pace {
    files: usize,
}

impl Default for Pace {
    fn default() -> Self {
        Self { files: FIRST }
    }
}

impl Pace {
    /// How many of the files that are left go into the next commit: at least one. `content` gives what each adds to the
    /// commit itself.
    pub fn take(&self, left: usize, content: impl Fn(usize) -> u64) -> usize {
        let mut bytes = 0;
        let fits = |i: &usize| {
            bytes += content(*i);
            *i == 0 || bytes <= CONTENT
        };
        (0..left.min(self.files)).take_while(fits).count()
    }

    /// A commit of so many files was made in this time.
    pub fn made(&mut self, files: usize, time: Duration) {
        if time > LONG {
            self.failed(files);
        } else if files >= self.files {
            self.files = (self.files * 2).min(MOST);
        }
    }

    /// The server did not manage a commit of so many files.
    pub fn failed(&mut self, files: usize) {
        self.files = (files / 2).max(FEWEST);
    }

    /// Whether a commit of so many files can be tried again with fewer.
    pub fn can_shrink(files: usize) -> bool {
        files > FEWEST
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commits_are_bounded_by_files_and_by_content() {
        let mut pace = Pace::default();
        assert_eq!(pace.take(10, |_| 0), 10);
        assert_eq!(pace.take(10_000, |_| 0), FIRST);
        assert_eq!(pace.take(5, |_| 40 << 20), 2);
        // One that is larger than all bounds goes alone.
        assert_eq!(pace.take(5, |_| 1 << 40), 1);
        pace.made(FIRST, Duration::from_secs(1));
        assert_eq!(pace.take(10_000, |_| 0), 2 * FIRST);
        pace.failed(80);
        assert_eq!(pace.take(10_000, |_| 0), 40);
        pace.failed(30);
        assert_eq!(pace.take(10_000, |_| 0), FEWEST);
        assert!(Pace::can_shrink(FEWEST + 1) && !Pace::can_shrink(FEWEST));
    }
}
