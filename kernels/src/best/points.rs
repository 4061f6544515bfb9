//! The points of a grid (IQ1, IQ2, IQ3), and the one nearest to some weights: every point is looked at, so it is the
//! best there is; ggml looks at the neighbours of the rounded weights. Lanes are points. Must not know blocks.
//!
//! A point is a *word* of four nibbles, and its error the sum of four entries of tables, one for each nibble. With four
//! coordinates to a point, a nibble is the level of one; with eight, the levels of two, which are three.

use crate::lanes::{MAX_LANES, Scan};
use std::sync::LazyLock;

/// Entries of a table.
const ENTRIES: usize = 16;

/// A grid of points with `D` coordinates.
pub(super) struct Points<const D: usize> {
    words: Vec<u32>,
    coordinates: Vec<[f32; D]>,
    /// What the entries of a nibble's table stand for: one coordinate, or two.
    entries: [[f32; ENTRIES]; 2],
}

/// Coordinates that a nibble stands for.
const fn per_nibble(d: usize) -> usize {
    d / 4
}

impl<const D: usize> Points<D> {
    /// `unit` is what coordinates are counted in.
    fn new(table: &[u8], unit: f32) -> Self {
        let coordinates: Vec<[i8; D]> =
            table.as_chunks::<D>().0.iter().map(|p| p.map(u8::cast_signed)).collect();
        let mut used = coordinates.as_flattened().to_vec();
        used.sort_unstable();
        used.dedup();
        let bits = 4 / per_nibble(D);
        let word = |point: &[i8; D]| {
            let level = |c: i8| used.partition_point(|&u| u < c) as u32;
            point.iter().enumerate().map(|(i, &c)| level(c) << (bits * i)).sum()
        };
        let of_level = |level: usize| f32::from(used[level.min(used.len() - 1)]) * unit;
        let mask = (1 << bits) - 1;
        Self {
            words: coordinates.iter().map(word).collect(),
            coordinates: coordinates.iter().map(|p| p.map(|c| f32::from(c) * unit)).collect(),
            entries: [
                std::array::from_fn(|i| of_level(i & mask)),
                std::array::from_fn(|i| of_level(i >> bits & mask)),
            ],
        }
    }

    pub(super) fn point(&self, index: u16) -> &[f32; D] {
        &self.coordinates[usize::from(index)]
    }

    /// The tables of `w * (scale * (c + shift) - x)^2` for each coordinate c.
    #[inline(always)]
    fn tables<V: Scan>(
        &self,
        v: V,
        x: &[f32; D],
        w: &[f32; D],
        scale: f32,
        shift: f32,
    ) -> [[f32; ENTRIES]; 4] {
        let mut tables = [[0.0; ENTRIES]; 4];
        let (scale, shift) = (v.splat(scale), v.splat(shift));
        let mut at = 0;
        while at < ENTRIES {
            for (t, table) in tables.iter_mut().enumerate() {
                let mut sum = v.splat(0.0);
                for c in 0..per_nibble(D) {
                    let i = per_nibble(D) * t + c;
                    let mut entries = [0.0; MAX_LANES];
                    entries[..V::N].copy_from_slice(&self.entries[c][at..][..V::N]);
                    let error = scale * (v.load(&entries) + shift) - v.splat(x[i]);
                    sum = sum + v.splat(w[i]) * error * error;
                }
                v.store_to(sum, &mut table[at..]);
            }
            at += V::N;
        }
        tables
    }

    /// For each of `U` weighted groups, the point of least `sum w * (scale * (point + shift) - x)^2`, and that sum; the
    /// first of equals.
    #[inline(always)]
    pub(super) fn nearest<V: Scan, const U: usize>(
        &self,
        v: V,
        x: [&[f32; D]; U],
        w: [&[f32; D]; U],
        scale: f32,
        shift: [f32; U],
    ) -> [(u16, f32); U] {
        let mut tables = [[[0.0; ENTRIES]; 4]; U];
        for u in 0..U {
            tables[u] = self.tables(v, x[u], w[u], scale, shift[u]);
        }
        let mut numbers = [0.0; MAX_LANES];
        for l in 0..V::N {
            numbers[l] = l as f32;
        }
        let (mut number, step) = (v.load(&numbers), v.splat(V::N as f32));
        let (mut least, mut at) = ([v.splat(f32::INFINITY); U], [v.splat(0.0); U]);
        let mut first = 0;
        while first < self.words.len() {
            let mut words = [0; MAX_LANES];
            words[..V::N].copy_from_slice(&self.words[first..][..V::N]);
            let word = v.load_words(&words);
            let (b, c, d) = (v.shr(word, 4), v.shr(word, 8), v.shr(word, 12));
            for u in 0..U {
                let t = &tables[u];
                let error = (v.look_up(&t[0], word) + v.look_up(&t[1], b))
                    + (v.look_up(&t[2], c) + v.look_up(&t[3], d));
                at[u] = v.select(v.lt(error, least[u]), number, at[u]);
                least[u] = v.min(error, least[u]);
            }
            number = number + step;
            first += V::N;
        }
        let mut found = [(0, 0.0); U];
        for u in 0..U {
            let error = v.least(least[u]);
            let first = v.least(v.select(v.eq(least[u], error), at[u], v.splat(f32::MAX)));
            // No error is a number where weights overflow: then any point will do.
            found[u] = ((v.store(first)[0] as u16).min(self.words.len() as u16 - 1), v.store(error)[0]);
        }
        found
    }
}

macro_rules! points {
    ($($name:ident: $d:literal, $file:literal, $unit:expr;)*) => {
        $(pub(super) static $name: LazyLock<Points<$d>> =
            LazyLock::new(|| Points::new(include_bytes!(concat!("../../data/", $file)), $unit));)*
    };
}

// A scale of IQ2 is `d * (2 l + 1) / 8`, of IQ3_XXS `d * (2 l + 1) / 4`: the fractions are counted to the points.
points! {
    IQ2_XXS: 8, "iq2xxs_grid.bin", 0.125;
    IQ2_XS: 8, "iq2xs_grid.bin", 0.125;
    IQ2_S: 8, "iq2s_grid.bin", 0.125;
    IQ3_XXS: 4, "iq3xxs_grid.bin", 0.25;
    IQ3_S: 4, "iq3s_grid.bin", 1.0;
    IQ1: 8, "iq1s_grid.bin", 1.0;
}
