//! The points of a grid (IQ1, IQ2, IQ3), and the one nearest to some weights: every point is looked at, so it is the
//! best there is; ggml looks at the neighbours of the rounded weights. Lanes are points. Must not know blocks.
//!
//! A point is a *word* of four nibbles, and its error the sum of four entries of tables, one for each nibble. With four
//! coordinates to a point, a nibble is the level of one; with eight, the levels of two, which are three.
//!
//! Points are sorted by their *heads*, the first two nibbles. In large grids a head is looked at only if its error and
//! the least error that the other nibbles can have are together no more than the error of the best point yet. A float
//! sum is a monotone function of its terms, so no point that could win, or tie, is passed over.

use crate::lanes::{MAX_LANES, Scan};
use std::sync::LazyLock;

/// Entries of a table.
const ENTRIES: usize = 16;

/// The bits of a head.
const HEAD: u32 = 0xff;
/// From so many points on, heads are worth their while.
const MANY: usize = 1024;

/// A grid of points with `D` coordinates.
pub(super) struct Points<const D: usize> {
    /// Sorted by heads, then by index, and some unused ones for loads that begin at the last.
    words: Vec<u32>,
    /// Their indices.
    indices: Vec<u16>,
    /// Heads, the first repeated to fill [`MAX_LANES`], and some unused ones.
    heads: Vec<u32>,
    /// Where the words of each begin, and how many they are.
    starts: Vec<(u32, u32)>,
    /// By index.
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
        let words: Vec<u32> = coordinates.iter().map(word).collect();
        let mut indices: Vec<u16> = (0..words.len() as u16).collect();
        indices.sort_by_key(|&i| (words[usize::from(i)] & HEAD, i));
        let mut words: Vec<u32> = indices.iter().map(|&i| words[usize::from(i)]).collect();
        let (mut heads, mut starts) = (Vec::new(), Vec::new());
        for same in words.chunk_by(|a, b| a & HEAD == b & HEAD) {
            let start = starts.last().map_or(0, |(start, n)| start + n);
            heads.push(same[0] & HEAD);
            starts.push((start, same.len() as u32));
        }
        while !heads.len().is_multiple_of(MAX_LANES) {
            heads.push(heads[0]);
            starts.push(starts[0]);
        }
        heads.resize(heads.len() + MAX_LANES, heads[0]);
        words.resize(words.len() + MAX_LANES, words[0]);
        let of_level = |level: usize| f32::from(used[level.min(used.len() - 1)]) * unit;
        let mask = (1 << bits) - 1;
        Self {
            words,
            indices,
            heads,
            starts,
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

    /// For each of `U` weighted groups, the point of least `sum w * (scale * (point + shift) - x)^2`, and that sum; of
    /// equals the first by head, then by index.
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
        let mut best = [Nearest::<V>::none(v); U];
        if self.indices.len() >= MANY {
            for u in 0..U {
                self.scan_heads(v, &tables[u], &mut best[u]);
            }
        } else {
            let mut first = 0;
            while first < self.indices.len() {
                let words = self.load(v, first);
                for u in 0..U {
                    best[u].consider::<true>(v, &tables[u], words, first);
                }
                first += V::N;
            }
        }
        let mut found = [(0, 0.0); U];
        for u in 0..U {
            let (at, error) = best[u].first(v);
            // No error is a number where weights overflow: then any point will do.
            found[u] = (self.indices[at.min(self.indices.len() - 1)], error);
        }
        found
    }

    /// The words from this one on.
    #[inline(always)]
    fn load<V: Scan>(&self, v: V, first: usize) -> V::I {
        let words = self.words[first..].first_chunk::<MAX_LANES>();
        v.load_words(words.expect("some more words than points"))
    }

    /// Looks at the points of one head.
    #[inline(always)]
    fn scan_head<V: Scan>(&self, v: V, tables: &[[f32; ENTRIES]; 4], head: usize, best: &mut Nearest<V>) {
        let (start, count) = self.starts[head];
        let (mut first, end) = (start as usize, (start + count) as usize);
        while first < end {
            // Those of the next head that come along do no harm.
            best.consider::<false>(v, tables, self.load(v, first), first);
            first += V::N;
        }
    }

    /// Looks at the points of those heads that can have the best.
    #[inline(always)]
    fn scan_heads<V: Scan>(&self, v: V, tables: &[[f32; ENTRIES]; 4], best: &mut Nearest<V>) {
        let mut rest = v.splat(0.0);
        for table in &tables[2..] {
            let mut least = v.splat(f32::INFINITY);
            let mut at = 0;
            while at < ENTRIES {
                least = v.min(v.load_from(&table[at..]), least);
                at += V::N;
            }
            rest = rest + v.least(least);
        }
        let mut errors = [0.0; MAX_HEADS];
        let mut least = Nearest::<V>::none(v);
        let mut first = 0;
        while first < self.starts.len() {
            let words =
                v.load_words(self.heads[first..].first_chunk().expect("some more heads than there are"));
            let error = v.look_up(&tables[0], words) + v.look_up(&tables[1], v.shr(words, 4));
            v.store_to(error, &mut errors[first..]);
            least.take::<true>(v, error, first);
            first += V::N;
        }
        let (nearest, _) = least.first(v);
        self.scan_head(v, tables, nearest.min(self.starts.len() - 1), best);
        let mut first = 0;
        while first < self.starts.len() {
            let bound = v.load_from(&errors[first..]) + rest;
            let mut hopeful = v.lanes(v.le(bound, v.least(best.least)));
            while hopeful != 0 {
                self.scan_head(v, tables, first + hopeful.trailing_zeros() as usize, best);
                hopeful &= hopeful - 1;
            }
            first += V::N;
        }
    }
}

/// Most heads of a large grid: four coordinates of three levels, filled up.
const MAX_HEADS: usize = 96;

/// The nearest words yet, by lane.
#[derive(Clone, Copy)]
struct Nearest<V: Scan> {
    least: V::F,
    /// Their places.
    at: V::F,
    /// The lanes' numbers.
    count: V::F,
}

impl<V: Scan> Nearest<V> {
    #[inline(always)]
    fn none(v: V) -> Self {
        let mut count = [0.0; MAX_LANES];
        for l in 0..V::N {
            count[l] = l as f32;
        }
        Self { least: v.splat(f32::INFINITY), at: v.splat(0.0), count: v.load(&count) }
    }

    /// The words from place `first` on.
    #[inline(always)]
    fn consider<const ORDER: bool>(&mut self, v: V, tables: &[[f32; ENTRIES]; 4], words: V::I, first: usize) {
        let (b, c, d) = (v.shr(words, 4), v.shr(words, 8), v.shr(words, 12));
        let head = v.look_up(&tables[0], words) + v.look_up(&tables[1], b);
        self.take::<ORDER>(v, head + (v.look_up(&tables[2], c) + v.look_up(&tables[3], d)), first);
    }

    /// The same by their errors. Of equal ones the first place counts, also when they do not come in `ORDER`.
    #[inline(always)]
    fn take<const ORDER: bool>(&mut self, v: V, error: V::F, first: usize) {
        let place = self.count + v.splat(first as f32);
        let mut better = v.lt(error, self.least);
        if !ORDER {
            better = better | (v.eq(error, self.least) & v.lt(place, self.at));
        }
        self.at = v.select(better, place, self.at);
        self.least = v.min(error, self.least);
    }

    /// The first place of least error, and that error.
    #[inline(always)]
    fn first(&self, v: V) -> (usize, f32) {
        let least = v.least(self.least);
        let at = v.least(v.select(v.eq(self.least, least), self.at, v.splat(f32::MAX)));
        (v.store(at)[0] as usize, v.store(least)[0])
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
