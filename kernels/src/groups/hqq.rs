//! Half-quadratic quantization (Badri and Shaji, 2023): numbers that leave few large errors, without data.
//!
//! `hqq/core/optimize.py`, `optimize_weights_proximal_legacy` with its defaults, for groups along rows (`axis=1`): the error
//! `x - value` is split into a part `e` that may be large but seldom, and one that is small and spread; `e` is the error shrunk by
//! `|e|^(p-1) / beta`, and the zero point becomes the mean of `code - (x - e) / scale`. That repeats while the mean of
//! `|x - value|` falls, at most twenty times. (`kappa`, by which `beta` is to grow, that function takes and leaves unused.)
//!
//! Differences from the package:
//! * It stops when the error of the *whole matrix* no longer falls; here each group stops by itself, since tiles know nothing of
//!   each other. One group alone gives the package's numbers, up to the order of sums.
//! * What it ends with need not be its best. Here it is the start's numbers where those left less.
//! * Importance, where given, weighs the means.
//! * Whole zero points are rounded at the end. With a bias, `bias = -zero * scale`. Where zero is the middle code, the *scale*
//!   is what moves: `scale = sum of w (x - e) d / sum of w d^2` with `d = code - middle`, and the best of all rounds counts.

use super::rounding::stored;
use super::rules::{Coding, Numbers};
use super::search::{Search, Trial, sum};
use super::{Offset, Rule, ScaleType};
use crate::lanes::{MAX_LANES, Scan, Simd};

const ROUNDS: usize = 20;
/// One less than the norm's exponent.
const EXPONENT: f32 = 0.7 - 1.0;
const BETA: f32 = 10.0;

/// Codes by `round(x * inverse + zero)`.
#[derive(Clone, Copy)]
struct Affine {
    inverse: f32,
    zero: f32,
    top: f32,
}

impl Search<'_> {
    #[inline(always)]
    pub(super) fn half_quadratic<V: Scan>(&self, v: V, start: &Numbers) -> Numbers {
        match self.q.grid.offset {
            Offset::None | Offset::Middle => self.numbers_of(start, self.move_scale(v, self.trial(start))),
            Offset::Point => self.move_point(v, start),
            Offset::Bias => {
                let trial = self.trial(start);
                let at =
                    Affine { inverse: 1.0 / trial.scale, zero: -trial.bias / trial.scale, top: self.q.top() };
                let zero = self.move_zero(v, at);
                let bias = stored(self.q.scale, -zero * trial.scale);
                let moved = Trial { bias, ..trial };
                let better = self.far(v, &moved) <= self.far(v, &trial) && bias.is_finite();
                self.numbers_of(start, if better { moved } else { trial })
            }
        }
    }

    #[inline(always)]
    fn move_point<V: Scan>(&self, v: V, start: &Numbers) -> Numbers {
        let trial = self.trial(start);
        let whole = self.q.rule != Rule::Hqq;
        // The package goes on with the inverse that it had before it was turned into a scale.
        let kept = !whole && self.q.scale == ScaleType::F32 && !self.q.grid.outer;
        let inverse = if kept { start.coding.by } else { 1.0 / trial.scale };
        let at = Affine { inverse, zero: start.offset, top: self.q.top() };
        let zero = self.move_zero(v, at);
        let zero = if whole {
            zero.round_ties_even().clamp(0.0, self.q.top()) + 0.0
        } else {
            stored(self.q.scale, zero)
        };
        let moved = Affine { zero, ..at };
        let better = self.round(v, moved, 0.0).1 <= self.round(v, at, 0.0).1;
        let zero = if better { zero } else { start.offset };
        if whole {
            let top = self.q.top();
            return self.numbers_of(start, Trial { low: -zero, high: top - zero, ..trial });
        }
        Numbers { offset: zero, coding: Coding { by: inverse, plus: zero, ..start.coding }, ..*start }
    }

    /// The zero point that the rounds end with.
    #[inline(always)]
    fn move_zero<V: Scan>(&self, v: V, mut at: Affine) -> f32 {
        let mut least = f32::INFINITY;
        for _ in 0..ROUNDS {
            let (zero, error) = self.round(v, at, BETA);
            if zero.is_finite() {
                at.zero = zero;
            }
            if error >= least || !zero.is_finite() {
                break;
            }
            least = error;
        }
        at.zero
    }

    /// The next zero point, and the error with this one: one pass. No zero point where beta is zero.
    #[inline(always)]
    fn round<V: Scan>(&self, v: V, at: Affine, beta: f32) -> (f32, f32) {
        let zero = v.splat(0.0);
        let (inverse, point, top) = (v.splat(at.inverse), v.splat(at.zero), v.splat(at.top));
        let scale = v.splat(1.0 / at.inverse);
        let shrink = Shrink::new(beta);
        let [mut points, mut errors, mut weights] = [[zero; MAX_LANES]; 3];
        let vectors = MAX_LANES / V::N;
        for (x, w) in self.x.as_chunks::<MAX_LANES>().0.iter().zip(self.w.as_chunks::<MAX_LANES>().0) {
            for part in 0..vectors {
                let (x, w) = (v.load_from(&x[part * V::N..]), v.load_from(&w[part * V::N..]));
                let exact = x * inverse;
                let code = v.max(v.min(v.round(exact + point), top), zero);
                let far = x - (code - point) * scale;
                errors[part] = errors[part] + w * v.abs(far);
                weights[part] = weights[part] + w;
                let next = if shrink.any(v, far) { (x - shrink.of(v, far)) * inverse } else { exact };
                points[part] = points[part] + w * (code - next);
            }
        }
        let weight = sum(v, &weights);
        (sum(v, &points) / weight, sum(v, &errors) / weight)
    }

    /// Rounds that move the scale, for codes around the middle.
    #[inline(always)]
    fn move_scale<V: Scan>(&self, v: V, mut trial: Trial) -> Trial {
        let (mut best, mut least) = (trial, f32::INFINITY);
        let shrink = Shrink::new(BETA);
        let zero = v.splat(0.0);
        for _ in 0..ROUNDS {
            let [mut top, mut bottom, mut errors] = [[zero; MAX_LANES]; 3];
            let vectors = MAX_LANES / V::N;
            for (x, w) in self.x.as_chunks::<MAX_LANES>().0.iter().zip(self.w.as_chunks::<MAX_LANES>().0) {
                for part in 0..vectors {
                    let (x, w) = (v.load_from(&x[part * V::N..]), v.load_from(&w[part * V::N..]));
                    let level = super::search::level(v, &trial, x);
                    let far = x - super::search::value(v, &trial, level);
                    errors[part] = errors[part] + w * v.abs(far);
                    let x = if shrink.any(v, far) { x - shrink.of(v, far) } else { x };
                    top[part] = top[part] + w * (x * level);
                    bottom[part] = bottom[part] + w * (level * level);
                }
            }
            let error = sum(v, &errors);
            if error >= least {
                break;
            }
            (best, least) = (trial, error);
            let scale = self.storable(sum(v, &top) / sum(v, &bottom));
            if !scale.is_finite() || scale == 0.0 {
                break;
            }
            trial.scale = scale;
        }
        best
    }

    /// The weighted sum of magnitudes of errors.
    #[inline(always)]
    fn far<V: Scan>(&self, v: V, trial: &Trial) -> f32 {
        let mut errors = [v.splat(0.0); MAX_LANES];
        let vectors = MAX_LANES / V::N;
        for (x, w) in self.x.as_chunks::<MAX_LANES>().0.iter().zip(self.w.as_chunks::<MAX_LANES>().0) {
            for part in 0..vectors {
                let (x, w) = (v.load_from(&x[part * V::N..]), v.load_from(&w[part * V::N..]));
                let level = super::search::level(v, trial, x);
                errors[part] = errors[part] + w * v.abs(x - super::search::value(v, trial, level));
            }
        }
        sum(v, &errors)
    }
}

/// The shrinking operator: `sign(e) * max(|e| - |e|^(p-1) / beta, 0)`.
struct Shrink {
    by: f32,
    /// Below it, nothing is left.
    cut: f32,
}

impl Shrink {
    fn new(beta: f32) -> Self {
        if beta == 0.0 {
            return Self { by: 0.0, cut: f32::INFINITY };
        }
        // |e| = |e|^(p-1) / beta there; a little less, for what rounding does.
        Self { by: 1.0 / beta, cut: 0.99 * beta.powf(-1.0 / (1.0 - EXPONENT)) }
    }

    #[inline(always)]
    fn any<V: Simd>(&self, v: V, far: V::F) -> bool {
        v.any(v.lt(v.splat(self.cut), v.abs(far)))
    }

    #[inline(always)]
    fn of<V: Simd>(&self, v: V, far: V::F) -> V::F {
        let far_ = v.abs(far);
        let left = v.max(far_ - power(v, far_) * v.splat(self.by), v.splat(0.0));
        v.float(v.bits(left) | (v.bits(far) & v.splat_i(i32::MIN)))
    }
}

/// `x^(p-1)` to about a millionth, of positive normal x: `2^((p-1) log2 x)`.
#[inline(always)]
fn power<V: Simd>(v: V, x: V::F) -> V::F {
    // x = 2^e m with m around one.
    let bits = v.bits(x) - v.splat_i(0x3f35_04f3);
    let exponent = v.shr(bits, 23) - v.shl(v.shr(bits, 31), 9);
    let m = v.float((bits & v.splat_i(0x007f_ffff)) + v.splat_i(0x3f35_04f3));
    let (one, t) = (v.splat(1.0), m - v.splat(1.0));
    let t = t / (m + one);
    let square = t * t;
    let mut series = v.splat(1.0 / 9.0);
    for of in [7.0, 5.0, 3.0, 1.0] {
        series = series * square + v.splat(1.0 / of);
    }
    let log = v.to_f(exponent) + t * series * v.splat(2.0 * std::f32::consts::LOG2_E);
    let log = log * v.splat(EXPONENT);
    let whole = v.round(log);
    let part = (log - whole) * v.splat(std::f32::consts::LN_2);
    let mut series = one;
    for of in [7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0] {
        series = series * part * v.splat(1.0 / of) + one;
    }
    v.float(v.bits(series) + v.shl(v.trunc(whole), 23))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lanes::Portable;

    #[test]
    fn powers_are_near() {
        let v = Portable::<4>;
        for i in 0..4000 {
            let x = 1e-30f32 * 1.04f32.powi(i);
            if !x.is_finite() {
                break;
            }
            let (got, want) = (v.store(power(v, v.splat(x)))[0], f64::from(x).powf(f64::from(EXPONENT)));
            assert!((f64::from(got) / want - 1.0).abs() < 4e-6, "{x:e}: {got} {want}");
        }
    }
}
