//! IQ2 and IQ3 over lanes: a lane is a group of weights, until levels turn out to be no point; then lanes are
//! the neighbours of one group's levels.
//!
//! Groups are prepared and blocks packed by the reference's own functions. So are, one at a time, the levels of
//! which it is not sure that they are the nearest, which is what [`Neighbours`] wants: within a five-thousandth
//! of the middle between two levels, or where magnitudes, importance or scale are so large or small (or not
//! even numbers) that errors might overflow or lose their order.

#[cfg(target_arch = "aarch64")]
pub(crate) use super::decode_lanes::decode_neon;
#[cfg(target_arch = "x86_64")]
pub(crate) use super::decode_lanes::{decode_avx2, decode_avx512};
pub(crate) use super::iq1_lanes::{encode_iq1_m, encode_iq1_s};
use super::magnitude::{Fit, Format, GROUPS, Group, Refit, Search, snap as reference_snap};
use super::neighbours::{Neighbours, eights, start};
use super::{iq2, iq3, lattice::Lattice};
use crate::lanes::{MAX_LANES, Rows, Scan, stamp};
use crate::search::lanes::fit_positive;
use crate::superblock::WEIGHTS;

stamp! {
    search encode_iq2_xxs = encode_iq2_xxs;
    search encode_iq2_xs = encode_iq2_xs;
    search encode_iq2_s = encode_iq2_s;
    search encode_iq3_xxs = encode_iq3_xxs;
    search encode_iq3_s = encode_iq3_s;
    search encode_iq1_s = encode_iq1_s;
    search encode_iq1_m = encode_iq1_m;
}

#[inline(always)]
pub(crate) fn encode_iq2_xxs<V: Scan>(v: V, rows: Rows<'_>, out: &mut [u8]) {
    encode(v, &iq2::XXS, &rows, out);
}

#[inline(always)]
pub(crate) fn encode_iq2_xs<V: Scan>(v: V, rows: Rows<'_>, out: &mut [u8]) {
    encode(v, &iq2::XS, &rows, out);
}

#[inline(always)]
pub(crate) fn encode_iq2_s<V: Scan>(v: V, rows: Rows<'_>, out: &mut [u8]) {
    encode(v, &iq2::S, &rows, out);
}

#[inline(always)]
pub(crate) fn encode_iq3_xxs<V: Scan>(v: V, rows: Rows<'_>, out: &mut [u8]) {
    encode(v, &iq3::XXS, &rows, out);
}

#[inline(always)]
pub(crate) fn encode_iq3_s<V: Scan>(v: V, rows: Rows<'_>, out: &mut [u8]) {
    encode(v, &iq3::S, &rows, out);
}

/// For each lane and each `D` of its weights, the weight that each entry of a table of errors belongs to, then, from
/// the thirty-third on, its root. One row more, because loads of sixteen read past the last eight.
#[repr(align(64))]
struct Spread([[f32; 64]; MAX_LANES * GROUPS + 1]);

/// Groups side by side, by rows: one row more than lanes, because scans read past a row's end.
struct Batch<const N: usize> {
    x: [[f32; N]; MAX_LANES + 1],
    weights: [[f32; N]; MAX_LANES + 1],
    /// Roots of the weights.
    roots: [[f32; N]; MAX_LANES + 1],
    spread: Spread,
    range: [f32; MAX_LANES],
    start: [f32; MAX_LANES],
    signs: [[u8; 4]; MAX_LANES],
    /// Bits: the lanes whose groups do not count as zero.
    live: u32,
}

impl<const N: usize> Batch<N> {
    /// A batch of groups that count as zero.
    #[allow(clippy::large_stack_arrays)] // 33 KB that are in use all the time
    const EMPTY: Self = Self {
        x: [[0.0; N]; MAX_LANES + 1],
        weights: [[0.0; N]; MAX_LANES + 1],
        roots: [[0.0; N]; MAX_LANES + 1],
        spread: Spread([[0.0; 64]; MAX_LANES * GROUPS + 1]),
        range: [1.0; MAX_LANES],
        start: [0.0; MAX_LANES],
        signs: [[0; 4]; MAX_LANES],
        live: 0,
    };

    #[inline(always)]
    fn set(&mut self, lane: usize, group: &Group<N>) {
        self.x[lane] = group.x;
        self.weights[lane] = group.weights;
        for i in 0..N {
            self.roots[lane][i] = group.weights[i].sqrt();
        }
        (self.range[lane], self.start[lane], self.signs[lane]) = (group.range, group.start, group.signs);
        self.live = self.live & !(1 << lane) | u32::from(group.live) << lane;
    }
}

#[inline(always)]
fn encode<V: Scan, const D: usize, const R: usize, const N: usize, const G: usize, const BYTES: usize>(
    v: V,
    format: &Format<D, R, N, G, BYTES>,
    rows: &Rows<'_>,
    out: &mut [u8],
) {
    if V::N < 8 {
        // Four vectors do not hold a table.
        for (x, out) in rows.x.chunks(rows.len).zip(out.chunks_mut(rows.len / WEIGHTS * BYTES)) {
            format.encode(x, rows.importance, out);
        }
        return;
    }
    let tables = Tables::new(v, format.lattice, format.neighbours);
    let super_blocks = rows.x.as_chunks::<WEIGHTS>().0;
    let blocks = out.as_chunks_mut::<BYTES>().0;
    // As many super-blocks as fill the lanes.
    let together = V::N.div_ceil(G);
    for (b, blocks) in blocks.chunks_mut(together).enumerate() {
        let mut batch = Batch::<N>::EMPTY;
        let mut fits = [[None; G]; MAX_LANES];
        let mut lanes = 0;
        let mut done = 0;
        for i in 0..blocks.len() {
            let first = b * together + i;
            let column = first * WEIGHTS % rows.len;
            let importance = rows.importance.map(|w| &w[column..].as_chunks().0[0]);
            let groups = format.groups(&super_blocks[first], importance);
            for group in &groups {
                batch.set(lanes, group);
                lanes += 1;
                if lanes == V::N {
                    fit(v, format, &tables, &mut batch, &mut fits.as_flattened_mut()[done..]);
                    done += V::N;
                    lanes = 0;
                    batch.live = 0;
                }
            }
        }
        if lanes > 0 {
            fit(v, format, &tables, &mut batch, &mut fits.as_flattened_mut()[done..]);
        }
        for (fits, block) in fits.iter().zip(blocks) {
            (format.pack)(fits, block);
        }
    }
}

/// What all searches of a format share. A table of 32 entries takes as many vectors as its entries fill.
pub(super) struct Tables<'a, V: Scan, const D: usize, const R: usize> {
    pub(super) lattice: &'a Lattice<D, R>,
    pub(super) neighbours: &'a Neighbours<D, R>,
    /// The neighbours' words.
    pub(super) words: &'a [u32],
    /// Whose error each entry is.
    coordinates: [V::I; 4],
    /// What its level stands for.
    odd: [V::F; 4],
    /// 0, 1, 2 and so on.
    count: V::F,
}

impl<'a, V: Scan, const D: usize, const R: usize> Tables<'a, V, D, R> {
    #[inline(always)]
    pub(super) fn new(v: V, lattice: &'a Lattice<D, R>, neighbours: &'a Neighbours<D, R>) -> Self {
        let each = Neighbours::<D, R>::ENTRIES;
        let (mut coordinates, mut odd) = ([v.splat_i(0); 4], [v.splat(0.0); 4]);
        let mut count = [0.0; MAX_LANES];
        for l in 0..MAX_LANES {
            count[l] = l as f32;
        }
        for t in 0..4 {
            let (mut c, mut o) = ([0; MAX_LANES], [0.0; MAX_LANES]);
            for l in 0..V::N {
                let entry = (t * V::N + l) % 32;
                c[l] = (entry / each) as u32;
                o[l] = (2 * (entry % each) + 1) as f32;
            }
            (coordinates[t], odd[t]) = (v.load_words(&c), v.load(&o));
        }
        Self { lattice, neighbours, words: neighbours.words(), coordinates, odd, count: v.load(&count) }
    }

    /// A table of what each level stands for.
    #[inline(always)]
    pub(super) fn values(v: V, values: &[f32; R]) -> [V::F; 4] {
        let mut table = [v.splat(0.0); 4];
        for t in 0..4 {
            let mut entries = [0.0; MAX_LANES];
            for l in 0..V::N {
                entries[l] = values[((t * V::N + l) % Neighbours::<D, R>::ENTRIES).min(R - 1)];
            }
            table[t] = v.load(&entries);
        }
        table
    }

    /// Each word's entry for coordinate `i`.
    #[inline(always)]
    pub(super) fn entry(v: V, table: &[V::F; 4], words: V::I, i: usize) -> V::F {
        v.lookup(table[Neighbours::<D, R>::ENTRIES * i / V::N], v.shr(words, 4 * i as u32))
    }

    /// Where among the words of a list the neighbour of least error is.
    #[inline(always)]
    pub(super) fn nearest(
        &self,
        v: V,
        place: u32,
        (x, roots): (&[f32; MAX_LANES], &[f32; MAX_LANES]),
        scale: f32,
        values: &[V::F; 4],
    ) -> u32 {
        let (x, roots, scale) = (v.load(x), v.load(roots), v.splat(scale));
        let mut errors = [v.splat(0.0); 4];
        for t in 0..32 / V::N {
            let diff = scale * values[t] - v.lookup(x, self.coordinates[t]);
            errors[t] = v.lookup(roots, self.coordinates[t]) * diff * diff;
        }
        self.least(v, place, &errors)
    }

    /// The same of the weights that start a spread.
    #[inline(always)]
    fn nearest_spread(&self, v: V, place: u32, spread: &[f32], scale: f32) -> u32 {
        let scale = v.splat(scale);
        let mut errors = [v.splat(0.0); 4];
        for t in 0..32 / V::N {
            let (x, roots) = (spread[t * V::N..].first_chunk(), spread[32 + t * V::N..].first_chunk());
            let diff = scale * self.odd[t] - v.load(x.expect("a row more"));
            errors[t] = v.load(roots.expect("a row more")) * diff * diff;
        }
        self.least(v, place, &errors)
    }

    /// Spreads weights to the entries of a table.
    #[inline(always)]
    fn spread(&self, v: V, x: &[f32], out: &mut [f32]) {
        let x = v.load(x.first_chunk().expect("a row more"));
        for t in 0..32 / V::N {
            let entries = v.store(v.lookup(x, self.coordinates[t]));
            out[t * V::N..][..V::N].copy_from_slice(&entries[..V::N]);
        }
    }

    /// Where among the words of a list the first of least error is.
    #[inline(always)]
    fn least(&self, v: V, place: u32, errors: &[V::F; 4]) -> u32 {
        let list = &self.words[start(place)..];
        let mut best = Self::errors(v, errors, list);
        // The list's words by so many as there are lanes; a word's number is that of its step and of its lane.
        let steps = (8 * eights(place)).div_ceil(V::N);
        if steps == 1 {
            return v.lanes(v.eq(best, v.least(best))).trailing_zeros();
        }
        let mut of_best = v.splat(0.0);
        for step in 1..steps {
            let found = Self::errors(v, errors, &list[step * V::N..]);
            of_best = v.select(v.lt(found, best), v.splat((step * V::N) as f32), of_best);
            best = v.min(found, best);
        }
        let winners = v.eq(best, v.least(best));
        let number = v.select(winners, of_best + self.count, v.splat(f32::MAX));
        v.store(v.least(number))[0] as u32
    }

    /// The errors of the first words.
    #[inline(always)]
    fn errors(v: V, table: &[V::F; 4], list: &[u32]) -> V::F {
        let words = v.load_words(list.first_chunk().expect("lists are padded"));
        let mut error = Self::entry(v, table, words, 0);
        for i in 1..D {
            error = error + Self::entry(v, table, words, i);
        }
        error
    }
}

/// Points of each lane, by the number of the `D` weights that they stand for.
struct Snapped<V: Scan> {
    /// Their places among the words.
    at: [V::I; GROUPS],
    /// Bits: the lanes whose levels were no point.
    off: [u32; GROUPS],
}

/// [`super::magnitude::snap`] of all weights of a batch, for the lanes whose bits are in `wanted`; those in `sane`
/// are lanes whose errors keep their order.
///
/// In two steps, so that neither waits for numbers to come back from memory.
#[inline(always)]
fn snap<V: Scan, const D: usize, const R: usize, const N: usize>(
    v: V,
    tables: &Tables<'_, V, D, R>,
    batch: &Batch<N>,
    x: &[V::F; N],
    (inverse, scale): (V::F, V::F),
    wanted: &[u32; GROUPS],
    sane: u32,
) -> Snapped<V> {
    let Tables { lattice, neighbours, .. } = tables;
    let (zero, one, half) = (v.splat(0.0), v.splat(1.0), v.splat(0.5));
    let top = v.splat((R - 1) as f32);
    let (mut codes, mut sure) = ([[0; MAX_LANES]; GROUPS], [0; GROUPS]);
    for k in 0..N / D {
        let (mut code, mut worst) = (zero, zero);
        for i in (0..D).rev() {
            let level = half * (inverse * x[D * k + i] - one);
            let level = v.max(v.min(level, top), zero);
            let rounded = v.round(level);
            worst = v.max(v.abs(level - rounded), worst);
            code = code * v.splat(R as f32) + rounded;
        }
        sure[k] = v.lanes(v.lt(worst, v.splat(0.4999))) & sane;
        codes[k] = v.store_words(v.trunc(code));
    }
    let (inverses, scales) = (v.store(inverse), v.store(scale));
    let spread = batch.spread.0.as_flattened();
    let mut at = [[0; MAX_LANES]; GROUPS];
    let mut off = [0; GROUPS];
    for k in 0..N / D {
        let mut places = [0; MAX_LANES];
        for l in 0..V::N {
            places[l] = neighbours.places[codes[k][l] as usize];
            off[k] |= (places[l] >> 31) << l;
            at[k][l] = start(places[l]) as u32;
        }
        let mut left = off[k] & sure[k] & wanted[k];
        while left != 0 {
            let l = left.trailing_zeros() as usize % MAX_LANES;
            left &= left - 1;
            at[k][l] += tables.nearest_spread(v, places[l], &spread[(l * GROUPS + k) * 64..], scales[l]);
        }
        let mut left = wanted[k] & !sure[k];
        while left != 0 {
            let l = left.trailing_zeros() as usize;
            left &= left - 1;
            let (x, roots) = (&batch.x[l].as_chunks().0[k], &batch.roots[l].as_chunks().0[k]);
            let (index, on) = reference_snap(lattice, x, roots, inverses[l], scales[l]);
            at[k][l] = u32::from(index);
            off[k] = off[k] & !(1 << l) | u32::from(!on) << l;
        }
    }
    let mut all = [v.splat_i(0); GROUPS];
    for k in 0..N / D {
        all[k] = v.load_words(&at[k]);
    }
    Snapped { at: all, off }
}

/// The sums that a scale is fitted from.
#[derive(Clone, Copy)]
struct Sums<V: Scan> {
    qx: V::F,
    q2: V::F,
}

impl<V: Scan> Sums<V> {
    /// Of points at these places, and weights `w` which times magnitudes are `wx`.
    #[inline(always)]
    fn of<const D: usize, const R: usize, const N: usize>(
        v: V,
        tables: &Tables<'_, V, D, R>,
        points: &[V::I; GROUPS],
        wx: &[V::F; N],
        w: &[V::F; N],
    ) -> Self {
        let mut words = [[0; MAX_LANES]; GROUPS];
        for k in 0..N / D {
            let at = v.store_words(points[k]);
            for l in 0..V::N {
                words[k][l] = tables.words[at[l] as usize];
            }
        }
        let (mut qx, mut q2) = (v.splat(0.0), v.splat(0.0));
        for k in 0..N / D {
            let words = v.load_words(&words[k]);
            for i in 0..D {
                let q = Tables::<V, D, R>::entry(v, &tables.odd, words, i);
                qx = qx + wx[D * k + i] * q;
                q2 = q2 + w[D * k + i] * q * q;
            }
        }
        Self { qx, q2 }
    }
}

/// [`Search::fit`] of the first lanes of a batch.
/// Groups side by side: value `i` of group `l` in lane `l` of vector `i`.
#[inline(always)]
pub(super) fn columns<V: Scan, const N: usize>(v: V, groups: &[[f32; N]]) -> [V::F; N] {
    let mut values = [v.splat(0.0); N];
    let mut at = [0; MAX_LANES];
    for l in 0..V::N {
        at[l] = l * N;
    }
    let mut c = 0;
    while c < N {
        v.load_columns(groups.as_flattened(), &at, &mut values[c..][..V::N]);
        for l in 0..V::N {
            at[l] += V::N;
        }
        c += V::N;
    }
    values
}

#[inline(always)]
fn fit<V: Scan, const D: usize, const R: usize, const N: usize, const G: usize, const BYTES: usize>(
    v: V,
    format: &Format<D, R, N, G, BYTES>,
    tables: &Tables<'_, V, D, R>,
    batch: &mut Batch<N>,
    fits: &mut [Option<Fit>],
) {
    let Search { candidates, step, refit } = format.search;
    let (zero, one) = (v.splat(0.0), v.splat(1.0));
    let (x, w) = (columns(v, &batch.x), columns(v, &batch.weights));
    let mut wx = [zero; N];
    let (mut largest, mut heaviest) = (zero, zero);
    let mut sane = v.le(zero, zero);
    for i in 0..N {
        wx[i] = w[i] * x[i];
        largest = v.max(v.abs(x[i]), largest);
        heaviest = v.max(w[i], heaviest);
        sane = sane & v.le(zero, w[i]);
    }
    // Errors of roots up to 1e15 and differences up to some 1e10 are far from overflow.
    let sane = sane & v.lt(largest, v.splat(1e9)) & v.lt(heaviest, v.splat(1e30));

    if format.from_free_levels {
        let start = v.store(fit_positive(v, &x, &w, 4, &mut [v.splat_i(0); N]));
        for l in 0..V::N {
            let range = start[l] * 3.0;
            (batch.start[l], batch.range[l]) = (start[l], range);
            if range <= 0.0 {
                batch.live &= !(1 << l);
            }
        }
    }
    let live = batch.live;
    for l in 0..V::N {
        for k in 0..N / D {
            let at = l * N + D * k;
            let (x, roots) = batch.spread.0[l * GROUPS + k].split_at_mut(32);
            tables.spread(v, &batch.x.as_flattened()[at..], x);
            tables.spread(v, &batch.roots.as_flattened()[at..], roots);
        }
    }
    let (range, mut scale) = (v.load(&batch.range), v.load(&batch.start));
    let mut best = zero;
    let mut points = [v.splat_i(0); GROUPS];
    let mut off = [if refit == Refit::AllIfAnyOffGrid { live } else { 0 }; GROUPS];

    let mut number = -candidates;
    while number <= candidates {
        let inverse = v.splat((2 * R - 1) as f32 + f32::from(number) * step) / range;
        let trial_scale = one / inverse;
        let sane = v.lanes(sane & keeps_order(v, largest, inverse, trial_scale));
        let trial = snap(v, tables, batch, &x, (inverse, trial_scale), &[live; GROUPS], sane);
        let sums = Sums::of(v, tables, &trial.at, &wx, &w);
        let better = v.lt(zero, sums.q2) & v.lt(best * sums.q2, sums.qx * sums.qx);
        let bits = v.lanes(better);
        let new = sums.qx / sums.q2;
        scale = v.select(better, new, scale);
        best = v.select(better, new * sums.qx, best);
        for k in 0..N / D {
            points[k] = v.select_i(better, trial.at[k], points[k]);
            off[k] = off[k] & !bits | trial.off[k] & bits;
        }
        number += 1;
    }

    let mut any_off = 0;
    for k in 0..N / D {
        any_off |= off[k];
    }
    let mut again = live & v.lanes(v.lt(zero, scale));
    if refit != Refit::Always {
        again &= any_off;
    }
    if again != 0 {
        let inverse = one / scale;
        let sane = v.lanes(sane & keeps_order(v, largest, inverse, scale));
        let mut wanted = [again; GROUPS];
        for k in 0..N / D {
            if refit == Refit::OffGrid {
                wanted[k] &= off[k];
            }
        }
        let snapped = snap(v, tables, batch, &x, (inverse, scale), &wanted, sane);
        for k in 0..N / D {
            points[k] = v.select_i(v.mask(wanted[k]), snapped.at[k], points[k]);
        }
        let sums = Sums::of(v, tables, &points, &wx, &w);
        let takes = v.mask(again) & v.lt(zero, sums.q2);
        scale = v.select(takes, sums.qx / sums.q2, scale);
    }

    let scales = v.store(scale);
    let mut indices = [[0; GROUPS]; MAX_LANES];
    for k in 0..N / D {
        let at = v.store_words(points[k]);
        for l in 0..V::N {
            indices[l][k] = tables.neighbours.indices[at[l] as usize];
        }
    }
    for l in 0..V::N {
        if live >> l & 1 == 1 {
            fits[l] = Some(Fit::new(scales[l], batch.signs[l], indices[l]));
        }
    }
}

/// Whether errors under this scale neither overflow nor lose the order of their levels to rounding.
#[inline(always)]
fn keeps_order<V: Scan>(v: V, largest: V::F, inverse: V::F, scale: V::F) -> V::M {
    let within = v.lt(v.splat(1e-30), scale) & v.lt(scale, v.splat(1e9));
    within & v.lt(largest * inverse, v.splat(1e6))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{Codec, Importance};
    use crate::grid;
    use crate::lanes::Portable;
    use crate::levels::inputs;

    type Encode = fn(Rows<'_>, &mut [u8]);

    /// Formats at eight and at sixteen lanes of no instruction set.
    const ENCODERS: [(&Codec, [Encode; 2]); 7] = [
        (
            &grid::IQ2_XXS,
            [|r, o| encode_iq2_xxs(Portable::<8>, r, o), |r, o| encode_iq2_xxs(Portable::<16>, r, o)],
        ),
        (
            &grid::IQ2_XS,
            [|r, o| encode_iq2_xs(Portable::<8>, r, o), |r, o| encode_iq2_xs(Portable::<16>, r, o)],
        ),
        (&grid::IQ2_S, [|r, o| encode_iq2_s(Portable::<8>, r, o), |r, o| encode_iq2_s(Portable::<16>, r, o)]),
        (
            &grid::IQ3_XXS,
            [|r, o| encode_iq3_xxs(Portable::<8>, r, o), |r, o| encode_iq3_xxs(Portable::<16>, r, o)],
        ),
        (&grid::IQ3_S, [|r, o| encode_iq3_s(Portable::<8>, r, o), |r, o| encode_iq3_s(Portable::<16>, r, o)]),
        (&grid::IQ1_S, [|r, o| encode_iq1_s(Portable::<8>, r, o), |r, o| encode_iq1_s(Portable::<16>, r, o)]),
        (&grid::IQ1_M, [|r, o| encode_iq1_m(Portable::<8>, r, o), |r, o| encode_iq1_m(Portable::<16>, r, o)]),
    ];

    #[test]
    fn lanes_of_eight_and_sixteen_give_the_references_bytes() {
        // Three super-blocks to a row: two do not divide them, so the last batch is not full.
        let columns = 768;
        for distribution in inputs::DISTRIBUTIONS {
            let x = inputs::row(distribution, 11, columns);
            for kind in inputs::IMPORTANCES {
                let w = inputs::importance(kind, 7, columns);
                for (reference, encoders) in &ENCODERS {
                    if w.is_none() && reference.importance == Importance::Required {
                        continue;
                    }
                    let bytes = reference.block.row_bytes(columns as u64).expect("whole blocks") as usize;
                    let mut want = vec![0x5a; bytes];
                    (reference.encode.expect("it encodes"))(&x, w.as_deref(), &mut want);
                    for encode in encoders {
                        let mut got = vec![0xa5; bytes];
                        encode(Rows { x: &x, len: columns, importance: w.as_deref() }, &mut got);
                        assert!(got == want, "{} {distribution} {kind}", reference.block.name);
                    }
                }
            }
        }
    }
}
