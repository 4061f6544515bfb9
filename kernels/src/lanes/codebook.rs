//! Nearest entries of a codebook as thresholds, laid out for each instruction set.
//!
//! The scalar search ([`crate::search::nearest_entry`]) is a monotone step function of x. Each of its fifteen steps is
//! at one exact float, found by bisection of the function itself when this is compiled.

use crate::search::nearest_entry;

/// Bins of [`Codebook::bins`], and the part of the line they divide: wider than what any search scales to.
pub(crate) const BINS: usize = 32;
pub(crate) const BIN_REACH: f32 = 137.6;
pub(crate) const BIN_WIDTH: f32 = 8.6;

/// What stands for each entry (its value, or its index), and where one entry ends and the next begins.
pub(crate) struct Codebook {
    /// Entry k + 1 begins at `thresholds[k]`.
    pub(crate) thresholds: [f32; 15],
    /// The thresholds of a binary search's third and fourth step, by the index so far.
    pub(crate) third: [f32; 8],
    pub(crate) fourth: [f32; 8],
    /// The entries with an even index, and those with an odd one.
    pub(crate) even: [f32; 8],
    pub(crate) odd: [f32; 8],
    /// For each bin: its one threshold, the entry below it and the entry from it on. Nothing depends on how x
    /// is rounded to a bin, because no threshold is close to the edge of one.
    pub(crate) bins: [[f32; BINS]; 3],
    pub(crate) entries: [f32; 16],
}

impl Codebook {
    /// The steps of `nearest_entry(values, x)`, with what stands for the entries.
    pub(crate) const fn new(values: &[i8; 16], entries: [f32; 16]) -> Self {
        let mut thresholds = [0.0; 15];
        let mut k = 0;
        while k < 15 {
            thresholds[k] = step(values, k);
            k += 1;
        }
        let mut book = Self {
            thresholds,
            third: [0.0; 8],
            fourth: [0.0; 8],
            even: [0.0; 8],
            odd: [0.0; 8],
            bins: [[f32::NEG_INFINITY; BINS]; 3],
            entries,
        };
        let mut i = 0;
        while i < 8 {
            book.third[i] = thresholds[1 + 4 * (i % 4)];
            book.fourth[i] = thresholds[2 * i];
            book.even[i] = entries[2 * i];
            book.odd[i] = entries[2 * i + 1];
            i += 1;
        }
        let (mut bin, mut entry) = (0, 0);
        while bin < BINS {
            book.bins[1][bin] = entries[entry];
            if entry < 15 {
                let at = (thresholds[entry] + BIN_REACH) / BIN_WIDTH;
                if (at as usize) == bin {
                    let inside = at - bin as f32;
                    assert!(inside > 0.05 && inside < 0.95, "a threshold at the edge of a bin");
                    book.bins[0][bin] = thresholds[entry];
                    entry += 1;
                }
            }
            book.bins[2][bin] = entries[entry];
            bin += 1;
        }
        assert!(entry == 15, "two thresholds in one bin");
        book
    }
}

/// The least float that belongs to entry k + 1 or above.
const fn step(values: &[i8; 16], k: usize) -> f32 {
    // Floats in order, as integers.
    let (mut below, mut at) = (key(values[k] as f32), key(values[k + 1] as f32));
    while at - below > 1 {
        let middle = below + (at - below) / 2;
        if nearest_entry(values, float(middle)) as usize > k {
            at = middle;
        } else {
            below = middle;
        }
    }
    float(at)
}

const fn key(x: f32) -> i64 {
    let bits = x.to_bits();
    if bits >> 31 == 0 { bits as i64 } else { -((bits & 0x7fff_ffff) as i64) }
}

const fn float(key: i64) -> f32 {
    let bits = key.unsigned_abs() as u32;
    f32::from_bits(if key < 0 { bits | 1 << 31 } else { bits })
}
