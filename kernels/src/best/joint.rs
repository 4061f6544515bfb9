//! The joint search. One group's scale is `d * s`, its offset `-dmin * m`, with binary16 `d` and `dmin` for the
//! block and small integers `s` and `m` for the group.
//!
//! 1. Each group alone: rounding under a fan of scales, least squares after each.
//! 2. `d` and `dmin` that span the groups' scales and offsets, a few of them; `s` and `m` to match.
//! 3. Rounds: with `d` and `dmin` fixed at their binary16 values each group tries the `s` around its own, with
//!    the `m` that goes best, levels being rounded anew at the decoded scale and offset each time; then least
//!    squares over the whole block moves `d` and `dmin`. Until nothing improves.
//!
//! A block with a single group whose `s` and `m` are one goes through the same steps, each scale of the fan being
//! a start of its own. Must not know how levels are rounded or blocks packed.

use super::levels::{Levels, Sums};
use super::problem::Problem;

/// Values that a group's integer scale can take: `low`, `low + stride`, ... `high`.
#[derive(Clone, Copy)]
pub(super) struct Steps {
    pub(super) low: i32,
    pub(super) high: i32,
    pub(super) stride: i32,
}

impl Steps {
    fn nearest(self, v: f32) -> i32 {
        let steps = ((v - self.low as f32) / self.stride as f32).round() as i32;
        (self.low + steps.clamp(0, (self.high - self.low) / self.stride) * self.stride)
            .clamp(self.low, self.high)
    }

    fn around(self, s: i32, reach: i32) -> impl Iterator<Item = i32> {
        (-reach..=reach).map(move |k| s + k * self.stride).filter(move |s| (self.low..=self.high).contains(s))
    }
}

/// What a group's offset can be.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Offsets {
    /// None.
    Zero,
    /// `-dmin` times zero up to this.
    UpTo(i32),
    /// A binary16 of any sign; only where the block is one group.
    Free,
}

/// How long to search.
#[derive(Clone, Copy)]
pub(super) struct Effort {
    /// Scales tried for a group on its own, for each sign.
    pub(super) fan: usize,
    /// They put the largest weight on the largest level times one plus this, from and to.
    pub(super) spread: (f32, f32),
    /// How far to go from a group's `s` on either side in the first round; each next goes half as far.
    pub(super) reach: i32,
    pub(super) rounds: usize,
    /// Parts of the widest `d` to start from; in a block of one group, how many of the fan go on.
    pub(super) starts: &'static [f32],
}

/// A format as the search sees it.
pub(super) struct Scheme<L> {
    pub(super) levels: L,
    /// Smallest and largest level.
    pub(super) range: (f32, f32),
    pub(super) scales: Steps,
    pub(super) offsets: Offsets,
    pub(super) effort: Effort,
}

/// What a block will store, except the levels, which follow.
#[derive(Clone, Copy)]
pub(super) struct Choice<const G: usize> {
    pub(super) d: u16,
    /// With `Offsets::Free`, the offset itself is its negative.
    pub(super) dmin: u16,
    pub(super) s: [i32; G],
    pub(super) m: [i32; G],
}

/// Scale and offset of a group on its own.
type Free = (f32, f32);

/// A block's search under way.
pub(super) struct Joint<'a, L, const N: usize, const G: usize> {
    pub(super) problem: &'a Problem<N, G>,
    pub(super) scheme: &'a Scheme<L>,
}

/// The best choice found. `None` when nothing finite was.
pub(super) fn search<L: Levels<N>, const N: usize, const G: usize>(
    problem: &Problem<N, G>,
    scheme: &Scheme<L>,
) -> Option<Choice<G>> {
    let joint = Joint { problem, scheme };
    let mut best: Option<(Choice<G>, f32)> = None;
    let mut consider = |start: Choice<G>| {
        let found = joint.refine(start);
        if found.1 < best.map_or(f32::INFINITY, |(_, error)| error) {
            best = Some(found);
        }
    };
    if G == 1 {
        let mut fan = joint.fits(0);
        // Stable, so of equals the first.
        fan.sort_by(|a, b| a.1.total_cmp(&b.1));
        for &((scale, offset), _) in fan.iter().take(scheme.effort.starts.len()) {
            consider(joint.choice(&[(scale, offset); G], f64::from(scale), -f64::from(offset)));
        }
    } else {
        let free: [Free; G] = std::array::from_fn(|j| joint.fit_alone(j));
        let steps = scheme.scales;
        let widest = free.iter().map(|f| f.0).fold(0f32, |max, a| if a.abs() > max.abs() { a } else { max });
        let lowest = free.iter().fold(0f32, |min, f| min.min(f.1));
        let span = if steps.low < 0 { steps.low } else { steps.high };
        let most = if let Offsets::UpTo(most) = scheme.offsets { most } else { 1 };
        for part in scheme.effort.starts {
            let d = f64::from(widest) / f64::from(span) * f64::from(*part);
            consider(joint.choice(&free, d, -f64::from(lowest) / f64::from(most)));
        }
    }
    best.map(|(choice, _)| choice)
}

impl<L: Levels<N>, const N: usize, const G: usize> Joint<'_, L, N, G> {
    /// Scales for group `j` to start from, and offsets to go with them; the errors are to be found.
    fn fan(&self, j: usize) -> Vec<(Free, f32)> {
        let x = &self.problem.x[j];
        let Effort { fan, spread: (from, to), .. } = self.scheme.effort;
        let (low, high) = self.scheme.range;
        let part = |i: usize| 1.0 + from + (to - from) * i as f32 / fan.saturating_sub(1).max(1) as f32;
        let mut min = x.iter().fold(f32::INFINITY, |min, &v| min.min(v));
        let mut max = x.iter().fold(f32::NEG_INFINITY, |max, &v| max.max(v));
        if self.scheme.offsets != Offsets::Zero {
            if self.scheme.offsets != Offsets::Free {
                (min, max) = (min.min(0.0), max.max(0.0));
            }
            let around =
                |scale: f32| ((scale, f32::midpoint(min, max) - scale * f32::midpoint(low, high)), 0.0);
            return (0..fan).map(|i| around((max - min) / ((high - low) * part(i)))).collect();
        }
        if low == -high {
            let largest = max.max(-min);
            return (0..fan).map(|i| ((largest / (high * part(i)), 0.0), 0.0)).collect();
        }
        let largest = if max > -min { max } else { min };
        [low, high]
            .iter()
            .flat_map(|end| (0..fan).map(move |i| ((largest / (end * part(i)), 0.0), 0.0)))
            .collect()
    }

    fn sums(&self, j: usize, scale: f32, offset: f32) -> Sums {
        let (x, w) = (&self.problem.x[j], &self.problem.w[j]);
        let mut q = [0f32; N];
        self.scheme.levels.round(x, w, scale, offset, &mut q);
        match self.scheme.offsets {
            Offsets::Zero => Sums::without_offset(x, w, &q, scale),
            _ => Sums::of(x, w, &q, scale, offset),
        }
    }

    /// The scale and offset of least error when they need not be rounded.
    fn fit_alone(&self, j: usize) -> Free {
        let none = ((0.0, 0.0), f32::INFINITY);
        self.fits(j).into_iter().fold(none, |best, fit| if fit.1 < best.1 { fit } else { best }).0
    }

    /// Scales and offsets that fit the levels of each scale of the fan, with the errors that remain.
    fn fits(&self, j: usize) -> Vec<(Free, f32)> {
        let mut fits = self.fan(j);
        for ((scale, offset), error) in &mut fits {
            let at_most = if self.scheme.offsets == Offsets::Free { f32::INFINITY } else { 0.0 };
            *offset = offset.min(at_most);
            let sums = self.sums(j, *scale, *offset);
            let (mut a, mut b) = match self.scheme.offsets {
                Offsets::Zero => (sums.scale_step(), 0.0),
                _ => sums.steps(),
            };
            if *offset + b > at_most {
                // The offset stays at zero, and the scale alone moves from there.
                b = -*offset;
                a = if sums.qq > 0.0 { (sums.rq - b * sums.q) / sums.qq } else { 0.0 };
            }
            *error = sums.error_after(a, b);
            *scale += a;
            *offset += b;
        }
        fits
    }

    /// The choice that stores these factors and comes nearest to the groups' own scales and offsets.
    fn choice(&self, free: &[Free; G], d: f64, dmin: f64) -> Choice<G> {
        let (d, dmin) = (self.problem.half(d), self.problem.half(dmin));
        let (scale, offset) = (self.problem.value(d), self.problem.value(dmin));
        let nearest =
            |v: f32, unit: f32, steps: Steps| steps.nearest(if unit == 0.0 { 0.0 } else { v / unit });
        Choice {
            d,
            dmin,
            s: free.map(|(a, _)| nearest(a, scale, self.scheme.scales)),
            m: free.map(|(_, b)| match self.scheme.offsets {
                Offsets::Zero => 0,
                Offsets::UpTo(high) => nearest(-b, offset, Steps { low: 0, high, stride: 1 }),
                Offsets::Free => 1,
            }),
        }
    }

    /// Rounds from a start, and the error of the best of them.
    pub(super) fn refine(&self, start: Choice<G>) -> (Choice<G>, f32) {
        let (mut best, mut least) = (start, f32::INFINITY);
        let mut now = start;
        for round in 0..=self.scheme.effort.rounds {
            let reach = self.scheme.effort.reach >> round.min(31);
            let (d, dmin) = (self.problem.value(now.d), self.problem.value(now.dmin));
            let mut sums = [Sums::default(); G];
            for j in 0..G {
                (now.s[j], now.m[j], sums[j]) = self.best_steps(j, d, dmin, now.s[j], now.m[j], reach);
            }
            let error = sums.iter().map(|s| s.rr).sum::<f32>();
            if error >= least || error.is_nan() {
                break;
            }
            (best, least) = (now, error);
            let (d, dmin) = self.moved(&now, &sums);
            if (d, dmin) == (now.d, now.dmin) {
                break;
            }
            (now.d, now.dmin) = (d, dmin);
        }
        (best, least)
    }

    /// The integers of group `j`, near the given ones, of least error.
    fn best_steps(&self, j: usize, d: f32, dmin: f32, s: i32, m: i32, reach: i32) -> (i32, i32, Sums) {
        let mut best = (s, m, self.sums(j, d * s as f32, -(dmin * m as f32)));
        if let Offsets::UpTo(most) = self.scheme.offsets {
            best = self.best_offset(j, d * s as f32, dmin, most, best);
        }
        let at = best.1;
        for s in self.scheme.scales.around(s, reach).filter(|t| *t != s) {
            let scale = d * s as f32;
            let mut found = (s, at, self.sums(j, scale, -(dmin * at as f32)));
            if let Offsets::UpTo(most) = self.scheme.offsets {
                found = self.best_offset(j, scale, dmin, most, found);
            }
            if found.2.rr < best.2.rr {
                best = found;
            }
        }
        best
    }

    /// Moves the offset to where least squares want it, and goes on while that helps.
    fn best_offset(
        &self,
        j: usize,
        scale: f32,
        dmin: f32,
        most: i32,
        mut best: (i32, i32, Sums),
    ) -> (i32, i32, Sums) {
        if dmin == 0.0 {
            return best;
        }
        for _ in 0..3 {
            let steps = -best.2.offset_step() / dmin;
            let m = best.1.saturating_add(steps.round() as i32).clamp(0, most);
            if m == best.1 {
                break;
            }
            let sums = self.sums(j, scale, -(dmin * m as f32));
            if sums.rr >= best.2.rr || sums.rr.is_nan() {
                break;
            }
            best = (best.0, m, sums);
        }
        best
    }

    /// Least squares for `d` and `dmin` over all groups, their integers and levels being fixed.
    fn moved(&self, now: &Choice<G>, sums: &[Sums; G]) -> (u16, u16) {
        let (mut ss, mut sm, mut mm, mut rs, mut rm) = (0f64, 0f64, 0f64, 0f64, 0f64);
        for ((sums, &s), &m) in sums.iter().zip(&now.s).zip(&now.m) {
            let (s, m) = (f64::from(s), -f64::from(m));
            ss += s * s * f64::from(sums.qq);
            sm += s * m * f64::from(sums.q);
            mm += m * m * f64::from(sums.w);
            rs += s * f64::from(sums.rq);
            rm += m * f64::from(sums.r);
        }
        let determinant = ss * mm - sm * sm;
        let (a, b) = if determinant > 1e-9 * ss * mm {
            ((rs * mm - rm * sm) / determinant, (ss * rm - sm * rs) / determinant)
        } else if ss > 0.0 {
            (rs / ss, 0.0)
        } else {
            (0.0, 0.0)
        };
        let factor = |bits: u16, step: f64| self.problem.half(f64::from(self.problem.value(bits)) + step);
        (factor(now.d, a), factor(now.dmin, b))
    }
}
