//! IQ1_S and IQ1_M over lanes: a lane is a group of weights, until levels turn out to be no point; then lanes are
//! the neighbours of one group's levels. Weights are prepared and blocks packed by the reference's own functions.

use super::iq1::{
    self, DOWN, Fit, M_ZERO_BELOW, S_ZERO_BELOW, UP, largest_magnitude, mean_square, pack_m, pack_s, weights,
};
use super::lanes::{Tables, columns};
use super::neighbours::start;
use super::{lattice, neighbours};
use crate::lanes::{MAX_LANES, Rows, Scan};
use crate::superblock::{WEIGHTS, group};

/// Groups side by side, by rows: one row more than lanes, because scans read past a row's end.
struct Batch<const N: usize> {
    x: [[f32; N]; MAX_LANES + 1],
    weights: [[f32; N]; MAX_LANES + 1],
    /// Bits: the lanes whose groups do not count as zero.
    live: u32,
}

impl<const N: usize> Batch<N> {
    const EMPTY: Self = Self { x: [[0.0; N]; MAX_LANES + 1], weights: [[0.0; N]; MAX_LANES + 1], live: 0 };

    #[inline(always)]
    fn set(&mut self, lane: usize, x: &[f32; N], weights: &[f32; N], zero_below: f32) {
        (self.x[lane], self.weights[lane]) = (*x, *weights);
        let dead = largest_magnitude(x) < zero_below;
        self.live |= u32::from(!dead) << lane;
    }
}

/// What each level stands for, shifted up and shifted down.
struct Shifts<V: Scan> {
    tables: [[V::F; 4]; 2],
}

type Iq1<'a, V> = Tables<'a, V, 8, 3>;

/// The importance of a super-block's weights.
#[inline(always)]
fn importance_of<'a>(rows: &Rows<'a>, super_block: usize) -> Option<&'a [f32; WEIGHTS]> {
    let column = super_block * WEIGHTS % rows.len;
    rows.importance.map(|w| &w[column..].as_chunks().0[0])
}

#[inline(always)]
pub(crate) fn encode_iq1_s<V: Scan>(v: V, rows: Rows<'_>, out: &mut [u8]) {
    if V::N < 8 {
        // Four vectors do not hold a table.
        for (x, out) in rows.x.chunks(rows.len).zip(out.chunks_mut(rows.len / WEIGHTS * 50)) {
            iq1::encode_s(x, rows.importance, out);
        }
        return;
    }
    let tables = Iq1::new(v, &lattice::IQ1, &neighbours::IQ1);
    let shifts = Shifts { tables: [Iq1::values(v, &UP), Iq1::values(v, &DOWN)] };
    let super_blocks = rows.x.as_chunks::<WEIGHTS>().0;
    let together = V::N.div_ceil(8);
    for (b, blocks) in out.as_chunks_mut::<50>().0.chunks_mut(together).enumerate() {
        let mut batch = Batch::<32>::EMPTY;
        for i in 0..blocks.len() {
            let x = &super_blocks[b * together + i];
            let (sigma2, importance) = (mean_square(x), importance_of(&rows, b * together + i));
            for j in 0..8 {
                let xg = group::<32>(x, j);
                let weights = weights(xg, importance.map(|w| group(w, j)), sigma2);
                batch.set(8 * i + j, xg, &weights, S_ZERO_BELOW);
            }
        }
        let mut fits = [[Fit::<4>::NONE; 8]; MAX_LANES];
        let sorted = Sorted::of(v, &batch);
        let split = split_s(v, &sorted);
        fit(v, &tables, &shifts, &batch, &sorted, split, fits.as_flattened_mut());
        for (fits, block) in fits.iter().zip(blocks) {
            pack_s(fits, block);
        }
    }
}

#[inline(always)]
pub(crate) fn encode_iq1_m<V: Scan>(v: V, rows: Rows<'_>, out: &mut [u8]) {
    if V::N < 8 {
        // Four vectors do not hold a table.
        for (x, out) in rows.x.chunks(rows.len).zip(out.chunks_mut(rows.len / WEIGHTS * 56)) {
            iq1::encode_m(x, rows.importance, out);
        }
        return;
    }
    let tables = Iq1::new(v, &lattice::IQ1, &neighbours::IQ1);
    let shifts = Shifts { tables: [Iq1::values(v, &UP), Iq1::values(v, &DOWN)] };
    let super_blocks = rows.x.as_chunks::<WEIGHTS>().0;
    for (b, block) in out.as_chunks_mut::<56>().0.iter_mut().enumerate() {
        let x = &super_blocks[b];
        let (sigma2, importance) = (mean_square(x), importance_of(&rows, b));
        let mut all_weights = [[0.0; 16]; 16];
        let mut fits = [Fit::<2>::NONE; 16];
        let mut first = 0;
        while first < 16 {
            let mut batch = Batch::<16>::EMPTY;
            for l in 0..V::N.min(16) {
                let j = first + l;
                let xg = group::<16>(x, j);
                all_weights[j] = weights(xg, importance.map(|w| group(w, j)), sigma2);
                batch.set(l, xg, &all_weights[j], M_ZERO_BELOW);
            }
            let sorted = Sorted::of(v, &batch);
            let split = split_m(v, &sorted);
            fit(v, &tables, &shifts, &batch, &sorted, split, &mut fits[first..]);
            first += V::N;
        }
        pack_m(x, &all_weights, &fits, block);
    }
}

/// The groups' weights, as they come and in ascending order.
struct Sorted<V: Scan, const N: usize> {
    x: [V::F; N],
    weights: [V::F; N],
    by_x: [V::F; N],
    weights_by_x: [V::F; N],
    /// Where each one came from.
    from: [V::F; N],
}

impl<V: Scan, const N: usize> Sorted<V, N> {
    #[inline(always)]
    fn of(v: V, batch: &Batch<N>) -> Self {
        let (x, weights) = (columns(v, &batch.x), columns(v, &batch.weights));
        let mut from = [v.splat(0.0); N];
        for i in 0..N {
            from[i] = v.splat(i as f32);
        }
        let mut sorted = Self { x, weights, by_x: x, weights_by_x: weights, from };
        sorted.sort(v);
        sorted
    }

    /// Batcher's odd-even merge sort. Equal weights are ordered by where they came from, which is what a stable
    /// sort does.
    #[inline(always)]
    fn sort(&mut self, v: V) {
        let mut run = 1;
        while run < N {
            let mut apart = run;
            while apart > 0 {
                let mut j = apart % run;
                while j + apart < N {
                    for i in j..(j + apart).min(N - apart) {
                        if i / (2 * run) == (i + apart) / (2 * run) {
                            self.order(v, i, i + apart);
                        }
                    }
                    j += 2 * apart;
                }
                apart /= 2;
            }
            run *= 2;
        }
    }

    #[inline(always)]
    fn order(&mut self, v: V, i: usize, j: usize) {
        let turned = precedes(v, (self.by_x[j], self.from[j]), (self.by_x[i], self.from[i]));
        for row in [&mut self.by_x, &mut self.weights_by_x, &mut self.from] {
            (row[i], row[j]) = (v.select(turned, row[j], row[i]), v.select(turned, row[i], row[j]));
        }
    }
}

/// Whether weight `a` comes before `b`; both come with their number.
#[inline(always)]
fn precedes<V: Scan>(v: V, a: (V::F, V::F), b: (V::F, V::F)) -> V::M {
    v.lt(a.0, b.0) | (v.eq(a.0, b.0) & v.lt(a.1, b.1))
}

/// The best split so far.
#[derive(Clone, Copy)]
struct Split<V: Scan> {
    scale: V::F,
    score: V::F,
    /// Where the second and third run start, in ascending order.
    starts: [V::F; 2],
    /// Whether the first and the second half of the group are shifted down: 1 if so.
    down: [V::F; 2],
}

impl<V: Scan> Split<V> {
    #[inline(always)]
    fn none(v: V) -> Self {
        let zero = v.splat(0.0);
        Self { scale: zero, score: v.splat(-f32::MAX), starts: [v.splat(f32::MAX); 2], down: [zero; 2] }
    }

    #[inline(always)]
    fn consider(&mut self, v: V, (qx, q2): (V::F, V::F), starts: [V::F; 2], down: [V::F; 2]) {
        let better = v.lt(v.splat(0.0), q2) & v.lt(self.score * q2, qx * qx);
        if v.any(better) {
            let scale = qx / q2;
            self.scale = v.select(better, scale, self.scale);
            self.score = v.select(better, scale * qx, self.score);
            for i in 0..2 {
                self.starts[i] = v.select(better, starts[i], self.starts[i]);
                self.down[i] = v.select(better, down[i], self.down[i]);
            }
        }
    }
}

/// The best split with one shift for the whole group of 32.
#[inline(always)]
fn split_s<V: Scan>(v: V, sorted: &Sorted<V, 32>) -> Split<V> {
    let zero = v.splat(0.0);
    let (mut x, mut w) = ([zero; 33], [zero; 33]);
    for j in 0..32 {
        x[j + 1] = x[j] + sorted.weights_by_x[j] * sorted.by_x[j];
        w[j + 1] = w[j] + sorted.weights_by_x[j];
    }
    // What the third run adds, by where it starts.
    let (mut last_x, mut last_w) = ([[zero; 33]; 2], [[zero; 33]; 2]);
    let values = [UP, DOWN];
    for d in 0..2 {
        let top = v.splat(values[d][2]);
        for i in 0..33 {
            last_x[d][i] = (x[32] - x[i]) * top;
            last_w[d][i] = (w[32] - w[i]) * top * top;
        }
    }
    let mut best = Split::none(v);
    for i1 in 0..=32 {
        for i2 in i1..=32 {
            let (middle_x, middle_w) = (x[i2] - x[i1], w[i2] - w[i1]);
            for d in 0..2 {
                let (low, middle) = (v.splat(values[d][0]), v.splat(values[d][1]));
                let qx = (x[i1] - x[0]) * low + middle_x * middle + last_x[d][i2];
                let q2 = (w[i1] - w[0]) * low * low + middle_w * middle * middle + last_w[d][i2];
                let starts = [v.splat(i1 as f32), v.splat(i2 as f32)];
                best.consider(v, (qx, q2), starts, [v.splat(d as f32); 2]);
            }
        }
    }
    best
}

/// The best split with a shift for each half of the group of 16.
#[inline(always)]
fn split_m<V: Scan>(v: V, sorted: &Sorted<V, 16>) -> Split<V> {
    let zero = v.splat(0.0);
    // Prefix sums by half.
    let (mut x, mut w) = ([[zero; 17]; 2], [[zero; 17]; 2]);
    for j in 0..16 {
        let first = v.lt(sorted.from[j], v.splat(8.0));
        let (wj, wx) = (sorted.weights_by_x[j], sorted.weights_by_x[j] * sorted.by_x[j]);
        x[0][j + 1] = v.select(first, x[0][j] + wx, x[0][j]);
        w[0][j + 1] = v.select(first, w[0][j] + wj, w[0][j]);
        x[1][j + 1] = v.select(first, x[1][j], x[1][j] + wx);
        w[1][j + 1] = v.select(first, w[1][j], w[1][j] + wj);
    }
    let values = [UP, DOWN];
    let mut best = Split::none(v);
    for i1 in 0..=16 {
        for i2 in i1..=16 {
            // By half and shift.
            let (mut qx, mut q2) = ([[zero; 2]; 2], [[zero; 2]; 2]);
            for h in 0..2 {
                let both = x[h][i1] + x[h][i2];
                for d in 0..2 {
                    let [low, middle, top] = values[d];
                    let (first, second) = (low * low - middle * middle, middle * middle - top * top);
                    let top = v.splat(top);
                    qx[h][d] = x[h][16] * top - both;
                    q2[h][d] = w[h][16] * top * top + w[h][i1] * v.splat(first) + w[h][i2] * v.splat(second);
                }
            }
            let starts = [v.splat(i1 as f32), v.splat(i2 as f32)];
            for a in 0..2 {
                for b in 0..2 {
                    let sums = (qx[0][a] + qx[1][b], q2[0][a] + q2[1][b]);
                    best.consider(v, sums, starts, [v.splat(a as f32), v.splat(b as f32)]);
                }
            }
        }
    }
    best
}

/// Points for the levels of each lane's split; where some were no point, the scale is fitted again.
#[inline(always)]
fn fit<V: Scan, const N: usize, const G: usize>(
    v: V,
    tables: &Iq1<'_, V>,
    shifts: &Shifts<V>,
    batch: &Batch<N>,
    sorted: &Sorted<V, N>,
    split: Split<V>,
    fits: &mut [Fit<G>],
) {
    let (zero, one, two) = (v.splat(0.0), v.splat(1.0), v.splat(2.0));
    let live = batch.live & v.lanes(v.le(split.starts[0], v.splat(N as f32)));
    // The first weights of the second and the third run; none is as large where there is no such run.
    let mut bounds = [(v.splat(f32::INFINITY), zero); 2];
    for j in 0..N {
        for r in 0..2 {
            let here = v.eq(split.starts[r], v.splat(j as f32));
            bounds[r].0 = v.select(here, sorted.by_x[j], bounds[r].0);
            bounds[r].1 = v.select(here, sorted.from[j], bounds[r].1);
        }
    }
    // A negative scale turns levels and shifts around.
    let turned = v.lt(split.scale, zero);
    let mut scale = v.select(turned, v.neg(split.scale), split.scale);
    let mut down = split.down;
    for h in 0..2 {
        down[h] = v.select(turned, one - down[h], down[h]);
    }
    let mut levels = [zero; N];
    let mut sane = v.lt(scale, v.splat(1e9));
    for i in 0..N {
        let own = (sorted.x[i], v.splat(i as f32));
        let low = v.select(precedes(v, own, bounds[0]), zero, one);
        let high = v.select(precedes(v, own, bounds[1]), zero, one);
        let level = low + high;
        levels[i] = v.select(turned, two - level, level);
        let (x, w) = (v.abs(sorted.x[i]), sorted.weights[i]);
        sane = sane & v.lt(x, v.splat(1e9)) & v.le(zero, w) & v.lt(w, v.splat(1e15));
    }
    let sane = v.lanes(sane);
    let scales = v.store(scale);
    let downs = [v.store(down[0]), v.store(down[1])];

    let (mut qx, mut q2) = (zero, zero);
    let mut any_off = 0;
    for k in 0..G {
        let half = k * 2 / G;
        let mut code = zero;
        for i in (0..8).rev() {
            code = code * v.splat(3.0) + levels[8 * k + i];
        }
        let codes = v.store_words(v.trunc(code));
        let (mut at, mut words) = ([0; MAX_LANES], [0; MAX_LANES]);
        for l in 0..V::N {
            let place = tables.neighbours.places[codes[l] as usize];
            at[l] = start(place);
            if place >> 31 == 1 && live >> l & 1 == 1 {
                any_off |= 1 << l;
                let is_down = downs[half][l] == 1.0;
                let values = &shifts.tables[usize::from(is_down)];
                let (x, w) = (
                    &batch.x.as_flattened()[l * N + 8 * k..],
                    &batch.weights.as_flattened()[l * N + 8 * k..],
                );
                if sane >> l & 1 == 1 {
                    let row = (x.first_chunk().expect("a row more"), w.first_chunk().expect("a row more"));
                    at[l] += tables.nearest(v, place, row, scales[l], values) as usize;
                } else {
                    let mut own = [0; 8];
                    for i in 0..8 {
                        own[i] = v.store(levels[8 * k + i])[l] as u8;
                    }
                    let (x, w) = (x.first_chunk().expect("a row"), w.first_chunk().expect("a row"));
                    let values = if is_down { &DOWN } else { &UP };
                    at[l] = usize::from(tables.lattice.snap(&own, x, w, scales[l], values).0);
                }
            }
            words[l] = tables.words[at[l]];
            if l < fits.len() {
                fits[l].points[k] = tables.neighbours.indices[at[l]];
            }
        }
        let words = v.load_words(&words);
        let is_down = v.eq(down[half], one);
        for i in 0..8 {
            let (up, down) =
                (Iq1::entry(v, &shifts.tables[0], words, i), Iq1::entry(v, &shifts.tables[1], words, i));
            let q = v.select(is_down, down, up);
            let wq = sorted.weights[8 * k + i] * q;
            qx = qx + wq * sorted.x[8 * k + i];
            q2 = q2 + wq * q;
        }
    }
    let again = v.mask(any_off) & v.lt(zero, qx) & v.lt(zero, q2);
    scale = v.select(again, qx / q2, scale);
    let scales = v.store(scale);
    for l in 0..V::N.min(fits.len()) {
        if live >> l & 1 == 1 {
            fits[l].scale = if scales[l].is_nan() { 0.0 } else { scales[l] };
            fits[l].down = [downs[0][l] == 1.0, downs[1][l] == 1.0];
        } else {
            fits[l] = Fit::NONE;
        }
    }
}
