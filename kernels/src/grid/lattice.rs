//! Finding grid points: which combinations of levels are points, and which points lie near the others.
//!
//! A level is the rank of a coordinate among those the grid uses: 0, 1, 2 for IQ1 and IQ2, 0 to 7 for IQ3. An
//! encoder rounds weights to levels first. A combination that is no point is replaced by the best of its
//! *neighbours*: all points at the few smallest distances, nearest first, then by index
//! (`iq2xs_init_impl`, `iq3xs_init_impl`, whose `qsort` comparator is a total order). The best is the one of
//! least weighted error; the first in the list wins ties (`iq2_find_best_neighbour`,
//! `iq3_find_best_neighbour`, `iq1_find_best_neighbour2`).
//!
//! Tables are derived from the points at first use and kept: per grid a map of 16 or 26 KiB and lists of
//! neighbours (44 KiB for IQ3_XXS to 649 KiB for IQ1; all six grids 1.4 MiB), in about 10 ms, 0.1 s for IQ1.
//! ggml indexes its map by levels of two bits each, 43692 places, most of which no encoder asks for; counting
//! in base 3 leaves 6561.
//!
//! Where ggml stops the process: when no neighbour has an error below the largest `f32`, it fails an assertion,
//! for IQ1 after trying weights that do not belong to the group. Magnitudes beyond about 1e19, whose squares
//! overflow, make errors infinite or NaN, and so does importance that is huge or negative. Here the first
//! neighbour is taken, the nearest of lowest index.
//!
//! Must not know blocks, scales or signs.

use super::tables;
use std::sync::LazyLock;

/// IQ2_XXS: two shells of neighbours, of 256 points.
pub(super) static IQ2_XXS: LazyLock<Lattice<8, 3>> = LazyLock::new(|| Lattice::new(tables::IQ2_XXS, 2));
/// IQ2_XS: two shells, 512 points.
pub(super) static IQ2_XS: LazyLock<Lattice<8, 3>> = LazyLock::new(|| Lattice::new(tables::IQ2_XS, 2));
/// IQ2_S: one shell, 1024 points.
pub(super) static IQ2_S: LazyLock<Lattice<8, 3>> = LazyLock::new(|| Lattice::new(tables::IQ2_S, 1));
/// IQ1_S and IQ1_M: three shells, 2048 points.
pub(super) static IQ1: LazyLock<Lattice<8, 3>> = LazyLock::new(|| Lattice::new(tables::IQ1, 3));
/// IQ3_XXS: two shells, 256 points.
pub(super) static IQ3_XXS: LazyLock<Lattice<4, 8>> = LazyLock::new(|| Lattice::new(tables::IQ3_XXS, 2));
/// IQ3_S: three shells, 512 points.
pub(super) static IQ3_S: LazyLock<Lattice<4, 8>> = LazyLock::new(|| Lattice::new(tables::IQ3_S, 3));

/// Set in a place that is no point.
const OFF: u32 = 1 << 31;

/// A grid of points with `D` coordinates of `R` levels.
pub(super) struct Lattice<const D: usize, const R: usize> {
    /// Levels of each point.
    points: Vec<[u8; D]>,
    /// By combination of levels, read as a number of base `R`: the point's index, or [`OFF`] and where its
    /// list of neighbours starts.
    places: Vec<u32>,
    /// Lists of neighbours: their number, then their indices.
    lists: Vec<u16>,
}

/// What a combination of levels is.
pub(super) enum Place<'a> {
    /// This point.
    On(u16),
    /// No point, but these are near. Never empty.
    Off(&'a [u16]),
}

impl<const D: usize, const R: usize> Lattice<D, R> {
    /// Derives the tables from a table of coordinates. `shells` counts the distances that make neighbours.
    fn new(table: &[u8], shells: usize) -> Self {
        // As signed bytes, so that IQ1's -1 sorts below 0; all others are below 128.
        let coordinates: Vec<[i8; D]> =
            table.as_chunks::<D>().0.iter().map(|p| p.map(u8::cast_signed)).collect();
        let mut used = coordinates.as_flattened().to_vec();
        used.sort_unstable();
        used.dedup();
        assert_eq!(used.len(), R, "the table has as many coordinates as the format has levels");
        let level = |c: i8| used.partition_point(|&u| u < c) as u8;
        let points: Vec<[u8; D]> = coordinates.iter().map(|p| p.map(level)).collect();

        let mut places = vec![OFF; R.pow(D as u32)];
        for (i, point) in points.iter().enumerate() {
            places[code::<D, R>(point)] = i as u32;
        }
        let mut lists = Vec::new();
        let mut distances = vec![0u16; points.len()];
        for (code, place) in places.iter_mut().enumerate().filter(|(_, place)| **place == OFF) {
            let levels: [u8; D] = std::array::from_fn(|i| (code / R.pow(i as u32) % R) as u8);
            for (distance, point) in distances.iter_mut().zip(&points) {
                *distance = squared_distance(point, &levels);
            }
            *place = OFF | lists.len() as u32;
            let head = lists.len();
            lists.push(0);
            let mut beyond = 0;
            for _ in 0..shells {
                let Some(&shell) = distances.iter().filter(|&&d| d >= beyond).min() else { break };
                let at = |(i, &d): (usize, &u16)| (d == shell).then_some(i as u16);
                lists.extend(distances.iter().enumerate().filter_map(at));
                beyond = shell + 1;
            }
            lists[head] = (lists.len() - head - 1) as u16;
        }
        Self { points, places, lists }
    }

    /// Levels of a point.
    pub(super) fn levels(&self, index: u16) -> &[u8; D] {
        &self.points[usize::from(index)]
    }

    /// Number of points.
    pub(super) fn len(&self) -> usize {
        self.points.len()
    }

    /// What `levels` are.
    pub(super) fn place(&self, levels: &[u8; D]) -> Place<'_> {
        let place = self.places[code::<D, R>(levels)];
        if place & OFF == 0 {
            return Place::On(place as u16);
        }
        let head = (place & !OFF) as usize;
        Place::Off(&self.lists[head + 1..][..usize::from(self.lists[head])])
    }

    /// The point for `levels`, and whether they are one. Otherwise it is the neighbour `q` of least
    /// `sum weights * (scale * values[q] - x)^2`, where `values` says what each level stands for.
    #[inline]
    pub(super) fn snap(
        &self,
        levels: &[u8; D],
        x: &[f32; D],
        weights: &[f32; D],
        scale: f32,
        values: &[f32; R],
    ) -> (u16, bool) {
        match self.place(levels) {
            Place::On(index) => (index, true),
            Place::Off(neighbours) => {
                (self.nearest(neighbours, &level_errors(x, weights, scale, values)), false)
            }
        }
    }

    /// The neighbour of least error; the first one on ties and when no error is a finite number.
    fn nearest(&self, neighbours: &[u16], errors: &[[f32; R]; D]) -> u16 {
        let (mut best, mut nearest) = (f32::MAX, neighbours[0]);
        for &index in neighbours {
            let mut error = 0.0;
            for (errors, &level) in errors.iter().zip(self.levels(index)) {
                error += errors[usize::from(level)];
            }
            if error < best {
                best = error;
                nearest = index;
            }
        }
        nearest
    }
}

/// The error of each coordinate at each level. Neighbours are many more than levels, so each product is
/// computed once here; a neighbour's error is the same sum in the same order.
#[inline]
fn level_errors<const D: usize, const R: usize>(
    x: &[f32; D],
    weights: &[f32; D],
    scale: f32,
    values: &[f32; R],
) -> [[f32; R]; D] {
    std::array::from_fn(|i| {
        values.map(|v| {
            let diff = scale * v - x[i];
            weights[i] * diff * diff
        })
    })
}

/// Levels as a number of base `R`, the first the lowest digit.
#[inline]
pub(super) fn code<const D: usize, const R: usize>(levels: &[u8; D]) -> usize {
    levels.iter().rev().fold(0, |code, &level| code * R + usize::from(level))
}

fn squared_distance<const D: usize>(a: &[u8; D], b: &[u8; D]) -> u16 {
    a.iter().zip(b).map(|(&a, &b)| u16::from(a.abs_diff(b)).pow(2)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Neighbour lists by sorting all points, as ggml makes them.
    fn sorted<const D: usize, const R: usize>(
        lattice: &Lattice<D, R>,
        levels: &[u8; D],
        shells: usize,
    ) -> Vec<u16> {
        let mut all: Vec<(u16, u16)> = (0..lattice.points.len() as u16)
            .map(|i| (squared_distance(lattice.levels(i), levels), i))
            .collect();
        all.sort_unstable();
        let mut kept: Vec<u16> = all.iter().map(|(d, _)| *d).collect();
        kept.dedup();
        kept.truncate(shells);
        all.into_iter().filter(|(d, _)| kept.contains(d)).map(|(_, i)| i).collect()
    }

    fn check<const D: usize, const R: usize>(lattice: &Lattice<D, R>, shells: usize) {
        // The encoders rely on it: groups that were never searched have index 0.
        assert_eq!(lattice.points[0], [0; D]);
        let (mut on, mut off) = (0, 0);
        for number in 0..R.pow(D as u32) {
            let levels = std::array::from_fn(|i| (number / R.pow(i as u32) % R) as u8);
            match lattice.place(&levels) {
                Place::On(index) => {
                    assert_eq!(lattice.levels(index), &levels);
                    on += 1;
                }
                Place::Off(neighbours) => {
                    if off % 16 == 0 {
                        assert_eq!(neighbours, sorted(lattice, &levels, shells), "{levels:?}");
                    }
                    off += 1;
                }
            }
        }
        assert_eq!(on, lattice.points.len(), "each point has its own levels");
        assert_eq!(on + off, R.pow(D as u32));
    }

    #[test]
    fn neighbours_are_the_nearest_shells_in_order() {
        check(&IQ2_XXS, 2);
        check(&IQ2_XS, 2);
        check(&IQ2_S, 1);
        check(&IQ1, 3);
        check(&IQ3_XXS, 2);
        check(&IQ3_S, 3);
    }

    #[test]
    fn the_first_neighbour_is_taken_when_no_error_is_finite() {
        let levels = [2, 1, 1, 2, 1, 2, 1, 1];
        let Place::Off(neighbours) = IQ2_XXS.place(&levels) else { panic!("{levels:?} is no point") };
        let odd = [1.0, 3.0, 5.0];
        for weight in [f32::NAN, f32::INFINITY] {
            assert_eq!(IQ2_XXS.snap(&levels, &[0.5; 8], &[weight; 8], 1.0, &odd), (neighbours[0], false));
        }
    }
}
