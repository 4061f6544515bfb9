//! The tables that device code of the grid formats reads, and its registration.
//!
//! Tables are little-endian words of four bytes, then of two:
//!
//! ```text
//! header   4 words: where places and lists start, in bytes; two of zero
//! places   2 words for each word of levels there could be: index of the point, then 0; or bit 31 and how many units
//!          of lists come before its own, then the sizes of these
//! lists    words of levels, two bytes each: 2 bits for each of eight levels or 4 for each of four, the first lowest
//! end      16 bytes of zero
//! ```
//! Lists fill units of four words of eight levels, or two of four, by repeating their first word. A place's sizes:
//! bits 0-7 count the words of the list that [`undominated`] leaves; bits 8-15 say how many units later the whole list
//! starts, 0 where the two are the same; bits 16-27 count its words. Bits 30-31 rank the former by its length, so that
//! searches that take about as long go side by side. `lattice.cuh` reads all this.

use super::lattice::{self, Lattice, Place};
use super::neighbours::undominated;
use crate::cuda::{DeviceCode, RowMeans};
use tensormill_tensor::{BlockFormat, ggml};

/// Set in the place of levels that are no point.
const OFF: u32 = 1 << 31;
const HEADER: u32 = 16;

/// The rank of a list of so many units: a quarter of the searches each, roughly.
fn rank(units: u32) -> u32 {
    u32::from(units > 2) + u32::from(units > 3) + u32::from(units > 5)
}

/// The tables of one grid. Lists of which nothing is left out stand there once.
fn tables<const D: usize, const R: usize>(lattice: &Lattice<D, R>, shorten: bool) -> Vec<u8> {
    let (bits, unit) = (16 / D, D / 2);
    let word = |levels: &[u8; D]| levels.iter().rev().fold(0u16, |word, &l| word << bits | u16::from(l));
    let mut lists: Vec<u16> = Vec::new();
    // Returns in how many units it is.
    let mut append = |list: &[u16]| {
        lists.extend(list.iter().map(|&point| word(lattice.levels(point))));
        lists.extend(vec![word(lattice.levels(list[0])); list.len().next_multiple_of(unit) - list.len()]);
        list.len().div_ceil(unit) as u32
    };
    let mut places = vec![[0u32; 2]; 1 << 16];
    let mut units = 0;
    for number in 0..R.pow(D as u32) {
        let levels: [u8; D] = std::array::from_fn(|i| (number / R.pow(i as u32) % R) as u8);
        places[usize::from(word(&levels))] = match lattice.place(&levels) {
            Place::On(index) => [u32::from(index), 0],
            Place::Off(all) => {
                let near = if shorten { undominated(lattice, &levels, all) } else { all.to_vec() };
                let start = units;
                let near_units = append(&near);
                let later = if near.len() == all.len() { 0 } else { near_units };
                units += near_units + if later == 0 { 0 } else { append(all) };
                assert!(near.len() < 1 << 8 && all.len() < 1 << 12, "their bits hold them");
                let sizes = near.len() as u32 | later << 8 | (all.len() as u32) << 16;
                [OFF | start, sizes | rank(near_units) << 30]
            }
        };
    }
    let header = [HEADER, HEADER + 8 * places.len() as u32, 0, 0];
    let words = header.iter().chain(places.as_flattened()).flat_map(|w| w.to_le_bytes());
    words.chain(lists.iter().flat_map(|w| w.to_le_bytes())).chain([0; 16]).collect()
}

const fn device_code(
    block: &'static BlockFormat,
    file: &'static str,
    text: &'static str,
    kernel: &'static str,
    lanes: u32,
    tables: fn() -> Vec<u8>,
) -> DeviceCode {
    DeviceCode {
        block,
        file,
        text,
        kernel,
        lanes,
        row_means: RowMeans::Unused,
        tables: Some(tables),
        uses_importance: true,
    }
}

const fn iq2(block: &'static BlockFormat, kernel: &'static str, tables: fn() -> Vec<u8>) -> DeviceCode {
    device_code(block, "grid/iq2.cu", include_str!("iq2.cu"), kernel, 32, tables)
}

const fn iq3(block: &'static BlockFormat, kernel: &'static str, tables: fn() -> Vec<u8>) -> DeviceCode {
    device_code(block, "grid/iq3.cu", include_str!("iq3.cu"), kernel, 32, tables)
}

const fn iq1(block: &'static BlockFormat, kernel: &'static str, lanes: u32) -> DeviceCode {
    // Levels come from splits, so that they need not be the nearest.
    let tables = || tables(&lattice::IQ1, false);
    device_code(block, "grid/iq1.cu", include_str!("iq1.cu"), kernel, lanes, tables)
}

pub(crate) static CUDA: [DeviceCode; 7] = [
    iq1(ggml::IQ1_S, "encode_iq1_s", 8),
    iq1(ggml::IQ1_M, "encode_iq1_m", 16),
    iq2(ggml::IQ2_XXS, "encode_iq2_xxs", || tables(&lattice::IQ2_XXS, true)),
    iq2(ggml::IQ2_XS, "encode_iq2_xs", || tables(&lattice::IQ2_XS, true)),
    iq2(ggml::IQ2_S, "encode_iq2_s", || tables(&lattice::IQ2_S, true)),
    iq3(ggml::IQ3_XXS, "encode_iq3_xxs", || tables(&lattice::IQ3_XXS, true)),
    iq3(ggml::IQ3_S, "encode_iq3_s", || tables(&lattice::IQ3_S, true)),
];

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads tables as `lattice.cuh` does.
    fn check<const D: usize, const R: usize>(lattice: &Lattice<D, R>, shorten: bool) {
        let bytes = tables(lattice, shorten);
        assert_eq!(bytes, tables(lattice, shorten), "the same bytes each time");
        let word = |at: usize| u32::from_le_bytes(bytes[at..][..4].try_into().expect("four bytes")) as usize;
        let levels_at = |at: usize| -> [u8; D] {
            let word = u16::from_le_bytes([bytes[at], bytes[at + 1]]);
            std::array::from_fn(|i| (word >> (16 / D * i)) as u8 & (if D == 8 { 3 } else { 15 }))
        };
        let list = |units: usize, len: usize| -> Vec<[u8; D]> {
            (0..len).map(|k| levels_at(word(4) + D * units + 2 * k)).collect()
        };
        for number in 0..R.pow(D as u32) {
            let levels: [u8; D] = std::array::from_fn(|i| (number / R.pow(i as u32) % R) as u8);
            let place =
                levels.iter().rev().fold(0, |place, &l| place << (16 / D) | usize::from(l)) * 8 + word(0);
            let (at, sizes) = (word(place), word(place + 4));
            match lattice.place(&levels) {
                Place::On(index) => assert_eq!((at, sizes), (usize::from(index), 0), "{levels:?}"),
                Place::Off(all) => {
                    assert_eq!(at >> 31, 1, "{levels:?}");
                    let points: Vec<_> = all.iter().map(|&index| *lattice.levels(index)).collect();
                    let start = at & 0x7fff_ffff;
                    let near = list(start, sizes & 255);
                    assert_eq!(list(start + (sizes >> 8 & 255), sizes >> 16 & 0xfff), points, "{levels:?}");
                    assert_eq!(near[0], points[0], "{levels:?}");
                    let mut rest = points.iter();
                    assert!(near.iter().all(|n| rest.any(|p| p == n)), "{levels:?}: near ones are in order");
                    assert!(shorten || near.len() == all.len(), "{levels:?}");
                }
            }
        }
    }

    #[test]
    fn tables_hold_points_and_lists() {
        check(&lattice::IQ2_XXS, true);
        check(&lattice::IQ2_XS, true);
        check(&lattice::IQ2_S, true);
        check(&lattice::IQ3_XXS, true);
        check(&lattice::IQ3_S, true);
        check(&lattice::IQ1, false);
    }
}
