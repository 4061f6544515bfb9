//! Numbers of a group of integers that leave less error than those of its range.
//!
//! Every search starts from the numbers of the [rule](super::Rule), with which it also ends unless it finds better.
//! In it weights are never rounded, and codes are those that are nearest with the numbers as they are stored.
//!
//! * [`Fit::Mse`]: the range times `1 - i / 100` for `i` of `0..80` (the grid of GPTQModel), that is, the scale times it, the
//!   bias too, and the zero point as it was. Least is `sum of w (x - value)^2`, where `w` is the importance of the column, or
//!   one. The first of equal errors stays.
//! * [`Fit::Nearest`] with importance: that, and then with the codes found, as long as the error falls but at most eight times,
//!   the numbers that are best for them: `scale = sum of w x d / sum of w d^2` with `d = code - zero`, or with a bias
//!   the weighted straight line through `(code, x)`; and with those numbers the nearest codes.
//! * [`Fit::Hqq`]: see `hqq`.
//!
//! Sums are made in sixteen parts, of the weights whose indices agree in their low four bits, and those are then added by
//! halves: so every level finds the same.

use super::rounding::stored;
use super::rules::{Coding, Numbers};
use super::{Fit, GroupRows, Offset, Quantizer, Rule};
use crate::lanes::{MAX_LANES, Scan, Simd};

/// Shrunken ranges that are tried.
const RANGES: usize = 80;
/// Most refits of a scale to codes.
const REFITS: usize = 8;
/// Numbers tried at once.
const AT_ONCE: usize = 2;

/// The weights of one group, and what is wanted.
pub(super) struct Search<'a> {
    pub(super) q: &'a Quantizer,
    pub(super) outer: f32,
    importance: Option<&'a [f32]>,
    range: (f32, f32),
    /// Multiples of sixteen; what is beyond the group weighs nothing.
    pub(super) x: Vec<f32>,
    pub(super) w: Vec<f32>,
    len: usize,
}

/// Numbers as a search has them: `value = (code - zero) * scale + bias`, with `level = code - zero` of `low..=high`.
#[derive(Clone, Copy)]
pub(super) struct Trial {
    /// With the outer scale.
    pub(super) scale: f32,
    pub(super) bias: f32,
    pub(super) low: f32,
    pub(super) high: f32,
}

impl<'a> Search<'a> {
    pub(super) fn new(q: &'a Quantizer, rows: &GroupRows<'a>) -> Self {
        let outer = if q.grid.outer { rows.outer } else { 1.0 };
        Self {
            q,
            outer,
            importance: rows.importance,
            range: (f32::INFINITY, f32::NEG_INFINITY),
            x: Vec::new(),
            w: Vec::new(),
            len: 0,
        }
    }

    pub(super) fn clear(&mut self) {
        self.range = (f32::INFINITY, f32::NEG_INFINITY);
        self.x.clear();
        self.w.clear();
        self.len = 0;
    }

    /// Adds a row's weights from column `start` on.
    #[inline(always)]
    pub(super) fn push(&mut self, x: &[f32], start: usize) {
        self.x.truncate(self.len);
        self.w.truncate(self.len);
        self.x.extend_from_slice(x);
        match self.importance {
            Some(importance) => self.w.extend(importance[start..start + x.len()].iter().map(|w| w.max(0.0))),
            None => self.w.resize(self.x.len(), 1.0),
        }
        self.len = self.x.len();
        let whole = self.len.next_multiple_of(MAX_LANES);
        self.x.resize(whole, 0.0);
        self.w.resize(whole, 0.0);
    }

    #[inline(always)]
    pub(super) fn find<V: Scan>(&mut self, v: V) -> Numbers {
        use super::lanes::{Lanes, Weights};
        let (low, high) = Lanes(v).range(&self.x[..self.len]);
        let start = self.q.numbers(low, high, self.outer);
        if start.scale == 0.0 {
            let base = -self.trial(&start).low;
            let nothing = Coding { minus: 0.0, by: 1.0, plus: 0.0, low: 0.0, high: 0.0, base };
            return Numbers { coding: nothing, ..start };
        }
        match self.q.fit {
            Fit::Hqq => self.half_quadratic(v, &start),
            Fit::Mse => self.numbers_of(&start, self.shrink(v, &start).0),
            Fit::Nearest => {
                let (best, error) = self.shrink(v, &start);
                self.numbers_of(&start, self.refit(v, best, error))
            }
        }
    }

    /// The numbers that a search starts from.
    pub(super) fn trial(&self, start: &Numbers) -> Trial {
        let scale = start.scale * self.outer;
        let (zero, bias) = match self.q.grid.offset {
            Offset::None => (0.0, 0.0),
            Offset::Bias => (0.0, start.offset),
            Offset::Middle => (self.q.middle(), 0.0),
            // A point that need not be whole is a bias by another name.
            Offset::Point if self.affine() => (0.0, -start.offset * scale),
            Offset::Point => (start.offset, 0.0),
        };
        Trial { scale, bias, low: -zero, high: self.q.top() - zero }
    }

    /// Whether zero may be anywhere.
    fn affine(&self) -> bool {
        self.q.grid.offset == Offset::Bias
            || (self.q.grid.offset == Offset::Point && self.q.rule == Rule::Hqq)
    }

    /// The scale of a trial as it would be stored.
    pub(super) fn storable(&self, scale: f32) -> f32 {
        stored(self.q.scale, scale / self.outer) * self.outer
    }

    /// What a bundle gets of a trial that came of `start`.
    pub(super) fn numbers_of(&self, start: &Numbers, trial: Trial) -> Numbers {
        let offset = match self.q.grid.offset {
            Offset::Bias => trial.bias,
            Offset::Point if self.affine() => stored(self.q.scale, -trial.bias / trial.scale),
            Offset::Point => -trial.low,
            Offset::None | Offset::Middle => start.offset,
        };
        let coding = Coding {
            minus: trial.bias,
            by: trial.scale,
            plus: 0.0,
            low: trial.low,
            high: trial.high,
            base: -trial.low,
        };
        Numbers { scale: stored(self.q.scale, trial.scale / self.outer), offset, coding }
    }

    /// The best of shrunken ranges, and its error.
    #[inline(always)]
    fn shrink<V: Scan>(&self, v: V, start: &Numbers) -> (Trial, f32) {
        let whole = self.trial(start);
        let (mut best, mut least) = (whole, f32::INFINITY);
        let mut i = 0;
        while i < RANGES {
            let mut trials = [whole; AT_ONCE];
            for k in 0..AT_ONCE {
                let part = (100 - i - k) as f32 / 100.0;
                trials[k].scale = self.storable(whole.scale * part);
                trials[k].bias = stored(self.q.scale, whole.bias * part);
            }
            let errors = self.errors(v, &trials);
            for k in 0..AT_ONCE {
                if errors[k] < least && trials[k].scale != 0.0 {
                    (best, least) = (trials[k], errors[k]);
                }
            }
            i += AT_ONCE;
        }
        (best, least)
    }

    /// The sums of weighted squares that trials leave.
    #[inline(always)]
    fn errors<V: Scan, const K: usize>(&self, v: V, trials: &[Trial; K]) -> [f32; K] {
        let mut sums = [[v.splat(0.0); MAX_LANES]; K];
        let vectors = MAX_LANES / V::N;
        for (x, w) in self.x.as_chunks::<MAX_LANES>().0.iter().zip(self.w.as_chunks::<MAX_LANES>().0) {
            for part in 0..vectors {
                let (x, w) = (v.load_from(&x[part * V::N..]), v.load_from(&w[part * V::N..]));
                for k in 0..K {
                    let far = x - value(v, &trials[k], level(v, &trials[k], x));
                    sums[k][part] = sums[k][part] + w * (far * far);
                }
            }
        }
        let mut errors = [0.0; K];
        for k in 0..K {
            errors[k] = sum(v, &sums[k]);
        }
        errors
    }

    /// Alternates between the best codes for numbers and the best numbers for codes.
    #[inline(always)]
    fn refit<V: Scan>(&self, v: V, mut best: Trial, mut least: f32) -> Trial {
        for _ in 0..REFITS {
            let Some(trial) = self.fit_to_codes(v, &best) else { break };
            let [error] = self.errors(v, &[trial]);
            if error < least {
                (best, least) = (trial, error);
            } else {
                break;
            }
        }
        best
    }

    #[inline(always)]
    fn fit_to_codes<V: Scan>(&self, v: V, trial: &Trial) -> Option<Trial> {
        let zero = v.splat(0.0);
        let mut sums = [[zero; MAX_LANES]; 5];
        let vectors = MAX_LANES / V::N;
        for (x, w) in self.x.as_chunks::<MAX_LANES>().0.iter().zip(self.w.as_chunks::<MAX_LANES>().0) {
            for part in 0..vectors {
                let (x, w) = (v.load_from(&x[part * V::N..]), v.load_from(&w[part * V::N..]));
                let d = level(v, trial, x);
                let (wd, wx) = (w * d, w * x);
                sums[0][part] = sums[0][part] + wx * d;
                sums[1][part] = sums[1][part] + wd * d;
                sums[2][part] = sums[2][part] + w;
                sums[3][part] = sums[3][part] + wd;
                sums[4][part] = sums[4][part] + wx;
            }
        }
        let mut total = [0.0; 5];
        for k in 0..5 {
            total[k] = sum(v, &sums[k]);
        }
        let [xd, dd, w, d, x] = total;
        let (scale, bias) = if self.affine() {
            let scale = self.storable((w * xd - x * d) / (w * dd - d * d));
            (scale, stored(self.q.scale, (x - scale * d) / w))
        } else {
            (self.storable(xd / dd), 0.0)
        };
        let usable = scale.is_finite() && scale != 0.0 && bias.is_finite();
        usable.then_some(Trial { scale, bias, ..*trial })
    }
}

/// The level nearest to a weight.
#[inline(always)]
pub(super) fn level<V: Simd>(v: V, trial: &Trial, x: V::F) -> V::F {
    let near = v.round((x - v.splat(trial.bias)) * v.splat(1.0 / trial.scale));
    v.max(v.min(near, v.splat(trial.high)), v.splat(trial.low))
}

/// What a level stands for.
#[inline(always)]
pub(super) fn value<V: Simd>(v: V, trial: &Trial, level: V::F) -> V::F {
    level * v.splat(trial.scale) + v.splat(trial.bias)
}

/// The sum of sixteen parts, by halves.
#[inline(always)]
pub(super) fn sum<V: Simd>(v: V, parts: &[V::F; MAX_LANES]) -> f32 {
    let mut sums = [0.0; MAX_LANES];
    for part in 0..MAX_LANES / V::N {
        sums[part * V::N..][..V::N].copy_from_slice(&v.store(parts[part])[..V::N]);
    }
    let mut half = MAX_LANES / 2;
    while half > 0 {
        for i in 0..half {
            sums[i] += sums[i + half];
        }
        half /= 2;
    }
    sums[0]
}
