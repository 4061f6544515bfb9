//! GGUF files put together by hand, lies included.
#![allow(dead_code, missing_docs, reason = "each user takes its part")]

/// A file by hand: pieces of bytes, little-endian.
#[derive(Clone, Default)]
pub struct Raw(pub Vec<u8>);

impl Raw {
    pub fn head(version: u32, tensors: u64, entries: u64) -> Self {
        Self(b"GGUF".to_vec()).u32(version).u64(tensors).u64(entries)
    }
    pub fn u32(mut self, x: u32) -> Self {
        self.0.extend(x.to_le_bytes());
        self
    }
    pub fn u64(mut self, x: u64) -> Self {
        self.0.extend(x.to_le_bytes());
        self
    }
    pub fn bytes(mut self, b: &[u8]) -> Self {
        self.0.extend(b);
        self
    }
    pub fn str(self, s: impl AsRef<[u8]>) -> Self {
        let s = s.as_ref();
        self.u64(s.len() as u64).bytes(s)
    }
    pub fn number(self, key: &str, value: u32) -> Self {
        self.str(key).u32(4).u32(value)
    }
    pub fn tensor(self, name: &str, dims: &[u64], code: u32, offset: u64) -> Self {
        let r = self.str(name).u32(dims.len() as u32);
        dims.iter().fold(r, |r, d| r.u64(*d)).u32(code).u64(offset)
    }
    pub fn data(mut self, n: usize) -> Vec<u8> {
        self.0.resize(self.0.len().next_multiple_of(32) + n, 0);
        self.0
    }
}
