//! The grids' points as weights decode to them, in the order that block bytes count them. Files and the script
//! that extracts them: `kernels/data`.

pub(super) static IQ2_XXS: &[u8; 256 * 8] = include_bytes!("../../data/iq2xxs_grid.bin");
pub(super) static IQ2_XS: &[u8; 512 * 8] = include_bytes!("../../data/iq2xs_grid.bin");
pub(super) static IQ2_S: &[u8; 1024 * 8] = include_bytes!("../../data/iq2s_grid.bin");
pub(super) static IQ3_XXS: &[u8; 256 * 4] = include_bytes!("../../data/iq3xxs_grid.bin");
pub(super) static IQ3_S: &[u8; 512 * 4] = include_bytes!("../../data/iq3s_grid.bin");
/// Signed bytes: -1, 0 and 1. IQ1_S and IQ1_M share it.
pub(super) static IQ1: &[u8; 2048 * 8] = include_bytes!("../../data/iq1s_grid.bin");

/// Point `index` of a table of points of `N` coordinates.
#[inline(always)]
pub(super) fn point<const N: usize>(table: &[u8], index: usize) -> &[u8; N] {
    &table.as_chunks().0[index]
}
