//! The tables that device code of the grid formats reads, and its registration.
//!
//! Tables are little-endian words of four bytes, then of two:
//!
//! ```text
//! header   4 words: where places and lists start, in bytes; two of zero
//! places   2 words for each combination of levels, the first level the lowest digit of a number in base 3 (or 8):
//!          index of the point, then 0; or bit 31 and the eighth of the byte, from the lists' start, at which a list
//!          starts, then its sizes
//! lists    words of two bytes, 2 bits (or 3) for each level, the first lowest
//! ```
//! Sizes count fours of a list's words, which is padded with its first: bits 0-7 of the list that [`undominated`]
//! leaves; bits 8-15 how many fours later the whole list starts, 0 where the two are the same; from bit 16 on, of the
//! whole list. `lattice.cuh` reads them.

use super::lattice::{self, Lattice, Place, code};
use super::neighbours::undominated;
use crate::cuda::{DeviceCode, RowMeans};
use tensormill_tensor::{BlockFormat, ggml};

/// Set in the place of levels that are no point.
const OFF: u32 = 1 << 31;
/// Words of two bytes that are read at once.
const TOGETHER: usize = 4;
const HEADER: usize = 16;

/// The tables of one grid. Lists of which nothing is left out stand there once.
fn tables<const D: usize, const R: usize>(lattice: &Lattice<D, R>, shorten: bool) -> Vec<u8> {
    let bits = if R == 3 { 2 } else { 3 };
    let word = |levels: &[u8; D]| levels.iter().rev().fold(0u16, |word, &l| word << bits | u16::from(l));
    let mut lists: Vec<u16> = Vec::new();
    let mut append = |list: &[u16]| {
        let words = list.iter().map(|&point| word(lattice.levels(point)));
        lists.extend(
            words
                .chain(std::iter::repeat(word(lattice.levels(list[0]))))
                .take(list.len().next_multiple_of(TOGETHER)),
        );
        list.len().div_ceil(TOGETHER) as u32
    };
    let mut places: Vec<u32> = Vec::new();
    let mut start = 0;
    for number in 0..R.pow(D as u32) {
        let levels: [u8; D] = std::array::from_fn(|i| (number / R.pow(i as u32) % R) as u8);
        debug_assert_eq!(code::<D, R>(&levels), number);
        match lattice.place(&levels) {
            Place::On(index) => places.extend([u32::from(index), 0]),
            Place::Off(whole) => {
                let near = if shorten { undominated(lattice, &levels, whole) } else { whole.to_vec() };
                let size = append(&near);
                let (later, whole) =
                    if near.len() == whole.len() { (0, size) } else { (size, append(whole)) };
                places.extend([OFF | start, size | later << 8 | whole << 16]);
                start += later + whole;
                assert!(size < 256, "sizes have eight bits");
            }
        }
    }
    let header = [HEADER as u32, (HEADER + 4 * places.len()) as u32, 0, 0];
    let words = header.iter().chain(&places).flat_map(|w| w.to_le_bytes());
    words.chain(lists.iter().flat_map(|w| w.to_le_bytes())).collect()
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
