//! Where the bytes of a tensor lie, and how they are read.
//!
//! Must not know pickles: offsets and strides were checked by whoever made these.

use crate::gather::gather;
use std::sync::Arc;
use tensormill_model::{MemoryStore, Result, Store};
use tensormill_tensor::DType;

/// Where the bytes of a tensor lie.
#[derive(Clone)]
pub(crate) struct Data {
    pub store: Arc<dyn Store>,
    /// First byte in `store`.
    pub at: u64,
    /// First byte in the file, as near as can be said.
    pub place: u64,
    /// Width within which bytes are reversed; one for data that is little-endian already.
    pub swap: u8,
    /// How elements lie, where they do not follow each other.
    pub view: Option<Box<View>>,
}

impl Data {
    /// Bytes that are in no file as they are.
    pub fn in_memory(file: &str, bytes: Vec<u8>) -> Self {
        let store = Arc::new(MemoryStore { name: file.to_owned(), bytes });
        Self { store, at: 0, place: 0, swap: 1, view: None }
    }

    /// Fills `out` with bytes from number `first` on, as if elements followed each other. Both are whole elements.
    pub fn read(&self, first: u64, out: &mut [u8]) -> Result<()> {
        match &self.view {
            None => self.store.read_at(self.at + first, out)?,
            Some(view) => gather(&*self.store, self.at, view, first / view.unit, out)?,
        }
        if self.swap > 1 {
            out.chunks_exact_mut(self.swap.into()).for_each(<[u8]>::reverse);
        }
        Ok(())
    }
}

/// Elements with strides, both counted in elements of `unit` bytes.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct View {
    pub unit: u64,
    pub size: Box<[u64]>,
    pub stride: Box<[u64]>,
}

impl View {
    /// With strides that matter only: those of dimensions of one element are zero.
    pub fn new(unit: u64, size: &[u64], stride: &[u64]) -> Self {
        let stride = size.iter().zip(stride).map(|(d, s)| if *d <= 1 { 0 } else { *s }).collect();
        Self { unit, size: size.into(), stride }
    }

    pub fn is_contiguous(&self) -> bool {
        let mut expected = 1u64;
        self.size.iter().zip(&self.stride).rev().all(|(d, s)| {
            let fits = *d <= 1 || *s == expected;
            expected = expected.saturating_mul(*d);
            fits
        })
    }
}

/// A tensor without a name: type, dimensions, bytes. Its elements are whole bytes.
#[derive(Clone)]
pub(crate) struct Part {
    pub dtype: DType,
    pub dims: Vec<u64>,
    pub data: Data,
}

impl Part {
    /// The elements of a box within it, which is known to be inside and not empty.
    pub fn narrow(&self, at: &[u64], size: &[u64]) -> Data {
        let unit = self.dtype.bits() / 8;
        let stride: Vec<u64> = if let Some(view) = &self.data.view {
            view.stride.to_vec()
        } else {
            let mut step = 1;
            let mut stride: Vec<u64> = self
                .dims
                .iter()
                .rev()
                .map(|d| {
                    let s = step;
                    step *= d;
                    s
                })
                .collect();
            stride.reverse();
            stride
        };
        let skip: u64 = at.iter().zip(&stride).map(|(a, s)| a * s * unit).sum();
        let view = View::new(unit, size, &stride);
        Data {
            at: self.data.at + skip,
            place: self.data.place + skip,
            view: (!view.is_contiguous()).then(|| Box::new(view)),
            ..self.data.clone()
        }
    }
}
