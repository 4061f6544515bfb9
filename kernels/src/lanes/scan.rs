//! What a scan of a list needs beyond [`Simd`]: here the lanes are entries of the list, not blocks.

use super::{MAX_LANES, Simd};

/// Lanes that look up, and find the least of themselves.
pub(crate) trait Scan: Simd {
    /// The first `N` words.
    fn load_words(self, words: &[u32; MAX_LANES]) -> Self::I;
    /// The lanes' words, first of all.
    fn store_words(self, x: Self::I) -> [u32; MAX_LANES];
    /// The entries of `table` that the low bits of `at` count, as many bits as `N` has.
    fn lookup(self, table: Self::F, at: Self::I) -> Self::F;
    /// The least number, in every lane. Wants no NaN.
    fn least(self, x: Self::F) -> Self::F;
    /// The truth values as bits, the first lane lowest.
    fn lanes(self, m: Self::M) -> u32;
    /// The lanes whose bits are set.
    fn mask(self, bits: u32) -> Self::M;
}
