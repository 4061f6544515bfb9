//! [`super::lattice`] once more, laid out for scans whose lanes are neighbours.
//!
//! A point is a *word*: for each coordinate four bits, the number of an entry in a table of errors that has 32
//! entries, so many levels to a coordinate as divide them evenly (8 of IQ3, 4 of IQ2, of which 3 are used);
//! of the number only the low four bits are kept.
//!
//! Lists (but not those of IQ1) are shorter than in `lattice`: a neighbour is left out when an earlier one lies, in every coordinate,
//! between it and the levels that were looked up. Its error is never less *if* the levels are those nearest to
//! the weights, by more than rounding. Who scans must make sure of that, or ask `lattice`.

use super::lattice::{self, Lattice, Place, code};
use std::sync::LazyLock;

pub(super) static IQ2_XXS: LazyLock<Neighbours<8, 3>> =
    LazyLock::new(|| Neighbours::of(&lattice::IQ2_XXS, true));
pub(super) static IQ2_XS: LazyLock<Neighbours<8, 3>> =
    LazyLock::new(|| Neighbours::of(&lattice::IQ2_XS, true));
pub(super) static IQ2_S: LazyLock<Neighbours<8, 3>> = LazyLock::new(|| Neighbours::of(&lattice::IQ2_S, true));
pub(super) static IQ3_XXS: LazyLock<Neighbours<4, 8>> =
    LazyLock::new(|| Neighbours::of(&lattice::IQ3_XXS, true));
pub(super) static IQ3_S: LazyLock<Neighbours<4, 8>> = LazyLock::new(|| Neighbours::of(&lattice::IQ3_S, true));
/// Its lists are whole.
pub(super) static IQ1: LazyLock<Neighbours<8, 3>> = LazyLock::new(|| Neighbours::of(&lattice::IQ1, false));

/// Set in the place of levels that are no point.
pub(super) const OFF: u32 = 1 << 31;
/// Words of a list are padded to a multiple of this by repeating the first.
pub(super) const PAD: usize = 16;

/// Where the points and lists of a lattice are among words.
pub(super) struct Neighbours<const D: usize, const R: usize> {
    /// By combination of levels, the first the lowest digit of a number of base `R`: see [`start`] and [`eights`].
    pub(super) places: Vec<u32>,
    words: Vec<u32>,
    /// How many unused words come first, so that lists start where cache lines do.
    lead: usize,
    /// The points that the words are.
    pub(super) indices: Vec<u16>,
}

/// Where a place's list starts among the words; of a place that is a point, the point.
#[inline(always)]
pub(super) fn start(place: u32) -> usize {
    (place & 0x00ff_ffff) as usize
}

/// How often eight words its list has, rounded up.
#[inline(always)]
pub(super) fn eights(place: u32) -> usize {
    (place >> 24 & 127) as usize
}

impl<const D: usize, const R: usize> Neighbours<D, R> {
    /// Entries of a coordinate.
    pub(super) const ENTRIES: usize = 32 / D;

    fn word(levels: &[u8; D]) -> u32 {
        let entry = |(i, &l): (usize, &u8)| ((Self::ENTRIES * i + usize::from(l)) as u32 & 15) << (4 * i);
        levels.iter().enumerate().map(entry).sum()
    }

    fn of(lattice: &Lattice<D, R>, shorten: bool) -> Self {
        let mut indices: Vec<u16> = (0..lattice.len() as u16).collect();
        let mut places = vec![0; R.pow(D as u32)];
        for (number, place) in places.iter_mut().enumerate() {
            let levels: [u8; D] = std::array::from_fn(|i| (number / R.pow(i as u32) % R) as u8);
            debug_assert_eq!(code::<D, R>(&levels), number);
            *place = match lattice.place(&levels) {
                Place::On(index) => u32::from(index),
                Place::Off(list) => {
                    let list = if shorten { undominated(lattice, &levels, list) } else { list.to_vec() };
                    let place = OFF | (list.len().div_ceil(8) as u32) << 24 | indices.len() as u32;
                    let padding = std::iter::repeat_n(list[0], list.len().next_multiple_of(PAD) - list.len());
                    indices.extend(list.iter().copied().chain(padding));
                    place
                }
            };
        }
        // A load of sixteen that wants the last eight.
        indices.extend([0; PAD]);
        let mut words: Vec<u32> = Vec::with_capacity(indices.len() + PAD);
        // Only speed depends on it.
        let lead = words.as_ptr().align_offset(64).min(PAD);
        words.resize(lead, 0);
        words.extend(indices.iter().map(|&index| Self::word(lattice.levels(index))));
        Self { places, words, lead, indices }
    }

    /// All points by index, then the lists.
    pub(super) fn words(&self) -> &[u32] {
        &self.words[self.lead..]
    }
}

/// The neighbours that no earlier one stands before.
pub(super) fn undominated<const D: usize, const R: usize>(
    lattice: &Lattice<D, R>,
    levels: &[u8; D],
    list: &[u16],
) -> Vec<u16> {
    let mut kept: Vec<u16> = Vec::new();
    for &index in list {
        let far = lattice.levels(index);
        let before = |&near: &u16| {
            let near = lattice.levels(near);
            (0..D).all(|i| {
                let (l, n, f) = (levels[i], near[i], far[i]);
                l <= n && n <= f || l >= n && n >= f
            })
        };
        if !kept.iter().any(before) {
            kept.push(index);
        }
    }
    kept
}
