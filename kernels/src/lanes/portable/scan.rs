//! [`Scan`] of any number of entries.

use super::{Lanes, Portable};
use crate::lanes::{MAX_LANES, Simd, scan::Scan};

impl<const N: usize> Scan for Portable<N> {
    fn load_words(self, words: &[u32; MAX_LANES]) -> Self::I {
        Lanes(std::array::from_fn(|l| words[l] as i32))
    }
    fn store_words(self, x: Self::I) -> [u32; MAX_LANES] {
        std::array::from_fn(|l| if l < N { x.0[l] as u32 } else { 0 })
    }
    fn lookup(self, table: Self::F, at: Self::I) -> Self::F {
        at.map(|at| table.0[at as usize % N])
    }
    fn least(self, x: Self::F) -> Self::F {
        self.splat(x.0.into_iter().fold(f32::INFINITY, f32::min))
    }
    fn lanes(self, m: Self::M) -> u32 {
        m.0.iter().enumerate().map(|(l, &m)| u32::from(m) << l).sum()
    }
    fn mask(self, bits: u32) -> Self::M {
        Lanes(std::array::from_fn(|l| bits >> l & 1 == 1))
    }
}
