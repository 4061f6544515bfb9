//! The older form: native little-endian `i32` count, then per entry name length, name, number of calls, number
//! of values and `f32` values; then, optionally, number of chunks and the name of the text.
//! (llama.cpp, `common/imatrix-loader.cpp`.)

use super::{Importance, check_len};
use tensormill_model::{Error, Result};

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, n: usize, what: &str) -> Result<&'a [u8]> {
        let slice = self
            .at
            .checked_add(n)
            .and_then(|end| self.bytes.get(self.at..end))
            .ok_or_else(|| Error::malformed(format!("the file ends inside {what}")).at(self.at as u64))?;
        self.at += n;
        Ok(slice)
    }
    fn i32(&mut self, what: &str) -> Result<i32> {
        let b = self.take(4, what)?;
        Ok(i32::from_le_bytes([b[0], b[1], b[2], b[3]]))
    }
    fn len(&mut self, least: i32, what: &str) -> Result<usize> {
        let at = self.at as u64;
        let n = self.i32(what)?;
        if n < least {
            return Err(Error::malformed(format!("{what} is {n}")).at(at));
        }
        Ok(n as usize)
    }
    /// A text up to its first NUL.
    fn text(&mut self, n: usize, what: &str) -> Result<String> {
        let bytes = self.take(n, what)?;
        let end = bytes.iter().position(|b| *b == 0).unwrap_or(n);
        Ok(String::from_utf8_lossy(&bytes[..end]).into_owned())
    }
    fn done(&self) -> bool {
        self.at == self.bytes.len()
    }
}

pub(super) fn read(bytes: &[u8]) -> Result<Importance> {
    let mut c = Cursor { bytes, at: 0 };
    let mut out = Importance::default();
    for _ in 0..c.len(1, "the number of entries")? {
        let n = c.len(0, "the length of a name")?;
        let name = c.text(n, "a name")?;
        let calls = c.i32("the number of calls").map_err(|e| e.tensor(&name))?;
        let values = c.len(1, "the number of values").map_err(|e| e.tensor(&name))?;
        check_len(values as u64).map_err(|e| e.tensor(&name))?;
        let data = c.take(values * 4, "the values").map_err(|e| e.tensor(&name))?;
        // The values are means times calls.
        let divisor = if calls > 0 { calls as f32 } else { 1.0 };
        let values = data.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b) / divisor).collect();
        out.entries.insert(name, values);
    }
    if !c.done() {
        out.chunks = c.i32("the number of chunks")?;
    }
    if !c.done() {
        let n = c.len(0, "the length of the text's name")?;
        if n > 0 {
            out.datasets.push(c.text(n, "the text's name")?);
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use crate::Importance;

    fn file(trailer: &[u8]) -> Vec<u8> {
        let mut b = 2i32.to_le_bytes().to_vec();
        for (name, calls, values) in [("a", 4i32, [2.0f32, 6.0]), ("bc", 0, [3.0, 5.0])] {
            b.extend((name.len() as i32).to_le_bytes());
            b.extend(name.as_bytes());
            b.extend(calls.to_le_bytes());
            b.extend(2i32.to_le_bytes());
            b.extend(values.iter().flat_map(|v| v.to_le_bytes()));
        }
        b.extend(trailer);
        b
    }

    #[test]
    fn values_are_divided_by_calls() {
        let mut trailer = 7i32.to_le_bytes().to_vec();
        trailer.extend(8i32.to_le_bytes());
        trailer.extend(b"wiki.txt");
        let i = Importance::from_legacy(&file(&trailer), "/some/where/im.dat").unwrap();
        assert_eq!(&*i.entries["a"], [0.5, 1.5]);
        assert_eq!(&*i.entries["bc"], [3.0, 5.0]);
        assert_eq!((i.chunks, i.datasets.as_slice()), (7, &["wiki.txt".to_owned()][..]));
        assert_eq!(i.file_name, "im.dat");
        let bare = Importance::from_legacy(&file(&[]), "im.dat").unwrap();
        assert_eq!((bare.chunks, bare.datasets.len()), (0, 0));
    }

    #[test]
    fn every_truncation_is_an_error_and_no_length_is_believed() {
        let mut trailer = 7i32.to_le_bytes().to_vec();
        trailer.extend(3i32.to_le_bytes());
        trailer.extend(b"abc");
        let whole = file(&trailer);
        let complete = [file(&[]).len(), file(&[]).len() + 4, whole.len()];
        for n in 0..whole.len() {
            let got = Importance::from_legacy(&whole[..n], "x");
            assert_eq!(got.is_ok(), complete.contains(&n), "{n} bytes");
        }
        for at in [0, 4, 13] {
            for bad in [i32::MAX, -1, i32::MIN] {
                let mut b = file(&[]);
                b[at..at + 4].copy_from_slice(&bad.to_le_bytes());
                assert!(Importance::from_legacy(&b, "x").is_err(), "{bad} at {at}");
            }
        }
    }

    #[test]
    fn nan_is_refused_by_name() {
        let mut b = file(&[]);
        let at = 17;
        b[at..at + 4].copy_from_slice(&f32::NAN.to_le_bytes());
        let e = Importance::from_legacy(&b, "x").unwrap_err();
        assert_eq!((e.tensor_name(), e.file_name()), (Some("a"), Some("x")));
    }
}
