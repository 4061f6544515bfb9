//! Small reads of remote files go through blocks, of which a bounded number is kept: a header read field by field is a few
//! requests, and reads that go on where the last one ended ask for more at once.

use std::sync::{Arc, Mutex, PoisonError};
use tensormill_model::Result;

/// Bytes of a block.
pub(crate) const BLOCK: u64 = 256 << 10;

/// Blocks that are kept, of all files of a folder together: 8 MiB.
const KEPT: usize = 32;

/// Blocks that one request asks for, at most: 2 MiB.
const AHEAD: u64 = 8;

type Key = (usize, u64);

/// Blocks of some files.
#[derive(Debug, Default)]
pub(crate) struct Blocks {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    /// The most recently used last.
    blocks: Vec<(Key, Arc<Vec<u8>>)>,
    /// File and block that the next read will begin with if it goes on, and how many blocks were asked for.
    going: Option<(Key, u64)>,
}

impl Blocks {
    fn lock(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fills `out` from byte `offset` of file number `file`, which has `len` bytes; `fetch(offset, buffer)` gets what is missing.
    pub fn read(
        &self,
        file: usize,
        len: u64,
        offset: u64,
        out: &mut [u8],
        fetch: &dyn Fn(u64, &mut [u8]) -> Result<()>,
    ) -> Result<()> {
        let mut done = 0;
        while done < out.len() {
            let at = offset + done as u64;
            let (number, inner) = (at / BLOCK, (at % BLOCK) as usize);
            let block = match self.get((file, number)) {
                Some(block) => block,
                None => self.load((file, number), len, fetch)?,
            };
            let n = (block.len() - inner).min(out.len() - done);
            out[done..done + n].copy_from_slice(&block[inner..inner + n]);
            done += n;
        }
        Ok(())
    }

    fn get(&self, key: Key) -> Option<Arc<Vec<u8>>> {
        let mut kept = self.lock();
        let at = kept.blocks.iter().position(|(k, _)| *k == key)?;
        let found = kept.blocks.remove(at);
        let block = Arc::clone(&found.1);
        kept.blocks.push(found);
        Some(block)
    }

    /// Gets a block, and more behind it where reading has been going on.
    fn load(&self, key: Key, len: u64, fetch: &dyn Fn(u64, &mut [u8]) -> Result<()>) -> Result<Arc<Vec<u8>>> {
        let ahead = match self.lock().going {
            Some((next, before)) if next == key => (2 * before).min(AHEAD),
            _ => 1,
        };
        let start = key.1 * BLOCK;
        let end = (start + ahead * BLOCK).min(len);
        let mut bytes = vec![0; (end - start) as usize];
        fetch(start, &mut bytes)?;
        let mut first = None;
        let mut kept = self.lock();
        for (i, part) in bytes.chunks(BLOCK as usize).enumerate() {
            let block = Arc::new(part.to_vec());
            first.get_or_insert_with(|| Arc::clone(&block));
            let key = (key.0, key.1 + i as u64);
            kept.blocks.retain(|(k, _)| *k != key);
            kept.blocks.push((key, block));
        }
        kept.going = Some(((key.0, key.1 + ahead), ahead));
        let surplus = kept.blocks.len().saturating_sub(KEPT);
        kept.blocks.drain(..surplus);
        Ok(first.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    #[test]
    fn reads_that_go_on_need_ever_fewer_requests_and_memory_is_bounded() {
        let len = 100 * BLOCK + 7;
        let blocks = Blocks::default();
        let asked = RefCell::new(Vec::new());
        let fetch = |at: u64, out: &mut [u8]| {
            asked.borrow_mut().push((at, out.len() as u64));
            out.iter_mut().enumerate().for_each(|(i, b)| *b = ((at + i as u64) % 251) as u8);
            Ok(())
        };
        let mut at = 0;
        while at < len {
            let n = 60_000.min(len - at);
            let mut out = vec![0; n as usize];
            blocks.read(0, len, at, &mut out, &fetch).unwrap();
            assert!(out.iter().enumerate().all(|(i, &b)| b == ((at + i as u64) % 251) as u8));
            at += n;
        }
        let total: u64 = asked.borrow().iter().map(|(_, n)| n).sum();
        assert_eq!(total, len, "each byte once");
        assert!(asked.borrow().len() < 20, "{:?}", asked.borrow());
        let kept: usize = blocks.lock().blocks.iter().map(|(_, b)| b.len()).sum();
        assert!(kept as u64 <= KEPT as u64 * BLOCK);
    }

    #[test]
    fn a_read_here_and_there_asks_for_little() {
        let blocks = Blocks::default();
        let asked = RefCell::new(0);
        let fetch = |_: u64, out: &mut [u8]| {
            *asked.borrow_mut() += out.len() as u64;
            Ok(())
        };
        let mut out = [0; 8];
        for at in [0, 50 * BLOCK, 8, 20 * BLOCK, 50 * BLOCK + 16] {
            blocks.read(0, 100 * BLOCK, at, &mut out, &fetch).unwrap();
        }
        assert_eq!(*asked.borrow(), 3 * BLOCK);
    }
}
