//! [`super::super::fit_by_descent`] over lanes.
//!
//! Where the scalar search looks at one weight after the other, nothing but an accepted change makes the next look
//! depend on the last. So the lanes that search are the weights of one group: all are looked at under the same sums,
//! the first one that takes another level changes them, and the weights behind it are looked at again. There is
//! about one change to two groups, and none in half of them: see [`needs_search`].
//!
//! Which groups go on nobody can predict. So the groups of a whole batch take their looks in turn, each look without
//! a branch.

use crate::lanes::{Batch, MAX_LANES, Rows, Scan, clamped_level, exact_level, signed_max};
use crate::search::ZERO_BELOW;

/// Weights of a group.
const N: usize = 16;
/// How often each weight is looked at, at most.
const PASSES: u32 = 5;
/// Groups of a block.
const GROUPS: usize = 16;

/// What the search of one group per lane found.
#[derive(Clone, Copy)]
pub(crate) struct DescentFit<V: Scan> {
    pub(crate) scale: V::F,
    /// The group counts as zero.
    pub(crate) nothing: V::M,
}

/// The search of one group.
#[derive(Clone, Copy)]
struct Search {
    levels: [f32; N],
    sum_lx: f32,
    sum_l2: f32,
    /// The next look's number among all looks of all passes.
    next: u32,
    /// Where the group starts in the rows.
    start: usize,
    /// Which group of the block in which lane.
    group: u8,
    lane: u8,
}

/// The searches of a batch, kept from one to the next because they are large.
pub(crate) struct Searches([Search; MAX_LANES * GROUPS]);

impl Searches {
    /// None yet.
    #[allow(clippy::large_stack_arrays)] // 22 KB that are in use all the time
    pub(crate) const NONE: Self = Self(
        [Search { levels: [0.0; N], sum_lx: 0.0, sum_l2: 0.0, next: 0, start: 0, group: 0, lane: 0 };
            MAX_LANES * GROUPS],
    );
}

/// Whether any level can change. Where the largest weight is positive, levels have the opposite signs of their
/// weights, so that all terms of the first sum are negative or zero, and the sum, rounded as it is, is at most
/// each of them: what is left without one of them is never positive, as a change demands.
#[inline(always)]
fn needs_search<V: Scan>(v: V, max: V::F, nothing: V::M) -> u32 {
    v.lanes(v.lt(max, v.splat(0.0))) & !v.lanes(nothing)
}

/// Fits the groups of a batch of blocks, whose weights are `x`.
#[inline(always)]
pub(crate) fn fit_by_descent<V: Scan>(
    v: V,
    rows: &Rows<'_>,
    batch: &Batch,
    x: &[[V::F; N]; GROUPS],
    half: i32,
    Searches(searches): &mut Searches,
) -> [DescentFit<V>; GROUPS] {
    let zero = v.splat(0.0);
    let (low, high) = (v.splat(-half as f32), v.splat((half - 1) as f32));
    let mut fits = [DescentFit { scale: zero, nothing: v.lt(zero, zero) }; GROUPS];
    let mut sums = [[[0.0; MAX_LANES]; 2]; GROUPS];
    let mut count = 0;
    for (j, x) in x.iter().enumerate() {
        let (max, amax) = signed_max(v, x);
        fits[j].nothing = v.lt(amax, v.splat(ZERO_BELOW));
        let inverse = low / max;
        let (mut sum_lx, mut sum_l2) = (zero, zero);
        for &x in x {
            let l = clamped_level(v, inverse * x, low, high);
            let w = x * x;
            sum_lx = sum_lx + w * x * l;
            sum_l2 = sum_l2 + w * l * l;
        }
        sums[j] = [v.store(sum_lx), v.store(sum_l2)];
        let mut left = needs_search(v, max, fits[j].nothing);
        let inverses = v.store(inverse);
        while left != 0 {
            let l = left.trailing_zeros() as usize % MAX_LANES;
            left &= left - 1;
            let search = &mut searches[count % (MAX_LANES * GROUPS)];
            count += 1;
            let inverse = v.splat(inverses[l]);
            let start = batch.start(l) + N * j;
            let x = &rows.x[start..][..N];
            let mut c = 0;
            while c < N {
                let level = clamped_level(v, inverse * v.load_from(&x[c..]), low, high);
                v.store_to(level, &mut search.levels[c..]);
                c += V::N;
            }
            (search.sum_lx, search.sum_l2) = (sums[j][0][l], sums[j][1][l]);
            (search.next, search.start) = (0, start);
            (search.group, search.lane) = (j as u8, l as u8);
        }
    }

    let mut going = [0u8; MAX_LANES * GROUPS];
    for i in 0..MAX_LANES * GROUPS {
        going[i] = i as u8;
    }
    let mut left = count;
    while left != 0 {
        let mut kept = 0;
        for i in 0..left {
            let number = going[i];
            let search = &mut searches[usize::from(number)];
            let goes_on = look(v, &rows.x[search.start..][..N], search, half);
            going[kept] = number;
            kept += usize::from(goes_on);
        }
        left = kept;
    }

    for search in &searches[..count] {
        let (j, l) = (usize::from(search.group) % GROUPS, usize::from(search.lane) % MAX_LANES);
        (sums[j][0][l], sums[j][1][l]) = (search.sum_lx, search.sum_l2);
    }
    for j in 0..GROUPS {
        let (sum_lx, sum_l2) = (v.load(&sums[j][0]), v.load(&sums[j][1]));
        let scale = v.select(v.lt(zero, sum_l2), sum_lx / sum_l2, zero);
        fits[j].scale = v.select(fits[j].nothing, zero, scale);
    }
    fits
}

/// Looks at all weights of a group and lets the first that would change do so; false when none will any more.
#[inline(always)]
fn look<V: Scan>(v: V, x: &[f32], search: &mut Search, half: i32) -> bool {
    let zero = v.splat(0.0);
    // What the sums would be after each weight's change, and, behind the last, as they are.
    let (mut all_lx, mut all_l2) = ([search.sum_lx; N + 1], [search.sum_l2; N + 1]);
    let (old_lx, old_l2) = (v.splat(search.sum_lx), v.splat(search.sum_l2));
    let square = old_lx * old_lx;
    let (mut old, mut new) = ([zero; N], [zero; N]);
    let mut takes = 0;
    let mut c = 0;
    while c < N {
        let (x, l) = (v.load_from(&x[c..]), v.load_from(&search.levels[c..]));
        let w = x * x;
        let wx = w * x;
        let rest_lx = old_lx - wx * l;
        let rest_l2 = old_l2 - w * l * l;
        let level = v.to_f(exact_level(v, x * rest_l2 / rest_lx, -half, half - 1));
        let with_lx = rest_lx + wx * level;
        let with_l2 = rest_l2 + w * level * level;
        let better = v.lt(square * with_l2, with_lx * with_lx * old_l2);
        let valid = v.lt(zero, rest_lx) & v.lt(zero, with_l2);
        // The same level again would only recompute the sums, differently rounded.
        takes |= (v.lanes(better & valid) & !v.lanes(v.eq(level, l))) << c;
        v.store_to(with_lx, &mut all_lx[c..]);
        v.store_to(with_l2, &mut all_l2[c..]);
        (old[c / V::N], new[c / V::N]) = (l, level);
        c += V::N;
    }
    // The next to change comes in this pass or in the one after it, which under the same sums finds the same.
    let ring = (takes | takes << N) >> (search.next % N as u32);
    let next = search.next + ring.trailing_zeros();
    let changes = takes != 0 && next < PASSES * N as u32;
    search.next = next + 1;
    let first = u32::from(changes) << (next % N as u32);
    let at = if changes { next as usize % N } else { N };
    (search.sum_lx, search.sum_l2) = (all_lx[at], all_l2[at]);
    let mut c = 0;
    while c < N {
        let l = v.select(v.mask(first >> c), new[c / V::N], old[c / V::N]);
        v.store_to(l, &mut search.levels[c..]);
        c += V::N;
    }
    changes
}
