//! Rounding one group under given scales and offsets, and the sums that tell how to move them. Each lane has its own
//! group; `K` trials go side by side, because each sum is a chain. Knows no format.

use crate::lanes::{Codebook, Simd, reciprocal_or_zero};

/// How a group is rounded.
pub(super) trait Levels<V: Simd>: Copy {
    /// The level nearest to `t`; a level also for NaN.
    fn round(self, v: V, t: V::F) -> V::F;
    /// The integer that stands for that level in a block.
    fn index(self, v: V, t: V::F) -> V::I;
}

/// Every integer of `low..=high`, which stands for itself.
#[derive(Clone, Copy)]
pub(super) struct Even {
    pub(super) low: f32,
    pub(super) high: f32,
}

impl<V: Simd> Levels<V> for Even {
    #[inline(always)]
    fn round(self, v: V, t: V::F) -> V::F {
        v.round(v.max(v.min(t, v.splat(self.high)), v.splat(self.low)))
    }

    #[inline(always)]
    fn index(self, v: V, t: V::F) -> V::I {
        v.trunc(self.round(v, t))
    }
}

/// The entries of a codebook, for which their indices stand.
#[derive(Clone, Copy)]
pub(super) struct Entries {
    pub(super) by_value: &'static Codebook,
    pub(super) by_index: &'static Codebook,
}

impl Entries {
    /// Within the reach of the codebook's bins; beyond the outer entries nothing changes.
    #[inline(always)]
    fn cut<V: Simd>(v: V, t: V::F) -> V::F {
        v.max(v.min(t, v.splat(128.0)), v.splat(-128.0))
    }
}

impl<V: Simd> Levels<V> for Entries {
    #[inline(always)]
    fn round(self, v: V, t: V::F) -> V::F {
        v.nearest(self.by_value, Self::cut(v, t))
    }

    #[inline(always)]
    fn index(self, v: V, t: V::F) -> V::I {
        v.trunc(v.nearest(self.by_index, Self::cut(v, t)))
    }
}

/// A group: its weights and, with `W`, the weights of their errors, which are one otherwise and not looked at.
#[derive(Clone, Copy)]
pub(super) struct Group<'a, V: Simd, const N: usize, const W: bool> {
    pub(super) x: &'a [V::F; N],
    pub(super) w: &'a [V::F; N],
}

/// Weighted sums over a group, with `r = x - scale * q - offset`. Residuals instead of `x` keep the small
/// differences that decide between fine levels. Without `OFFSET`, `q` and `r` are zero.
#[derive(Clone, Copy)]
pub(super) struct Sums<V: Simd> {
    pub(super) q: V::F,
    pub(super) qq: V::F,
    pub(super) r: V::F,
    pub(super) rq: V::F,
    pub(super) rr: V::F,
}

impl<V: Simd, const N: usize, const W: bool> Group<'_, V, N, W> {
    /// `v` times the weight of error `i`.
    #[inline(always)]
    fn weigh(&self, i: usize, value: V::F) -> V::F {
        if W { self.w[i] * value } else { value }
    }

    /// What the weights of errors add up to.
    #[inline(always)]
    pub(super) fn total(&self, v: V) -> V::F {
        if !W {
            return v.splat(N as f32);
        }
        let mut sum = v.splat(0.0);
        for i in 0..N {
            sum = sum + self.w[i];
        }
        sum
    }

    /// The weighted squared errors under each scale and offset; infinite for a scale of zero.
    #[inline(always)]
    pub(super) fn errors<L: Levels<V>, const K: usize, const OFFSET: bool>(
        &self,
        v: V,
        levels: L,
        scale: &[V::F; K],
        offset: &[V::F; K],
    ) -> [V::F; K] {
        let zero = [v.splat(0.0); K];
        let (mut inverse, mut rr) = (zero, zero);
        for k in 0..K {
            inverse[k] = reciprocal_or_zero(v, scale[k]);
        }
        for i in 0..N {
            for k in 0..K {
                let y = if OFFSET { self.x[i] - offset[k] } else { self.x[i] };
                let t = y * inverse[k];
                let residual = t - levels.round(v, t);
                rr[k] = rr[k] + self.weigh(i, residual) * residual;
            }
        }
        for k in 0..K {
            let nothing = v.eq(inverse[k], v.splat(0.0));
            rr[k] = v.select(nothing, v.splat(f32::INFINITY), scale[k] * (scale[k] * rr[k]));
        }
        rr
    }

    /// All sums under each scale and offset; their errors are infinite for a scale of zero.
    #[inline(always)]
    pub(super) fn sums<L: Levels<V>, const K: usize, const OFFSET: bool>(
        &self,
        v: V,
        levels: L,
        scale: &[V::F; K],
        offset: &[V::F; K],
    ) -> [Sums<V>; K] {
        let zero = v.splat(0.0);
        let mut inverse = [zero; K];
        let mut sums = [Sums { q: zero, qq: zero, r: zero, rq: zero, rr: zero }; K];
        for k in 0..K {
            inverse[k] = reciprocal_or_zero(v, scale[k]);
        }
        for i in 0..N {
            for k in 0..K {
                let y = if OFFSET { self.x[i] - offset[k] } else { self.x[i] };
                let t = y * inverse[k];
                let q = levels.round(v, t);
                let residual = t - q;
                let (wq, wr) = (self.weigh(i, q), self.weigh(i, residual));
                let sums = &mut sums[k];
                if OFFSET {
                    sums.q = sums.q + wq;
                    sums.r = sums.r + wr;
                }
                sums.qq = sums.qq + wq * q;
                sums.rq = sums.rq + wr * q;
                sums.rr = sums.rr + wr * residual;
            }
        }
        for k in 0..K {
            let sums = &mut sums[k];
            let nothing = v.eq(inverse[k], zero);
            sums.r = scale[k] * sums.r;
            sums.rq = scale[k] * sums.rq;
            sums.rr = v.select(nothing, v.splat(f32::INFINITY), scale[k] * (scale[k] * sums.rr));
        }
        sums
    }
}

/// Weighted sums over the weights alone.
#[derive(Clone, Copy)]
pub(super) struct Own<V: Simd> {
    pub(super) w: V::F,
    x: V::F,
}

/// Weighted sums that give the best scale and offset for fixed levels. Cheaper than [`Sums`], but too coarse to tell
/// apart what differs by little.
#[derive(Clone, Copy)]
pub(super) struct Moments<V: Simd> {
    /// Zero without `OFFSET`.
    pub(super) q: V::F,
    qq: V::F,
    xq: V::F,
}

/// The best scale and offset for fixed levels, and the error less that of a scale and offset of zero.
pub(super) struct Fit<V: Simd> {
    pub(super) scale: V::F,
    pub(super) offset: V::F,
    pub(super) error: V::F,
}

impl<V: Simd, const N: usize, const W: bool> Group<'_, V, N, W> {
    #[inline(always)]
    pub(super) fn own(&self, v: V) -> Own<V> {
        let mut x = v.splat(0.0);
        for i in 0..N {
            x = x + self.weigh(i, self.x[i]);
        }
        Own { w: self.total(v), x }
    }

    /// Of the levels under each scale and offset.
    #[inline(always)]
    pub(super) fn moments<L: Levels<V>, const K: usize, const OFFSET: bool>(
        &self,
        v: V,
        levels: L,
        scale: &[V::F; K],
        offset: &[V::F; K],
    ) -> [Moments<V>; K] {
        let zero = v.splat(0.0);
        let mut inverse = [zero; K];
        let mut sums = [Moments { q: zero, qq: zero, xq: zero }; K];
        for k in 0..K {
            inverse[k] = reciprocal_or_zero(v, scale[k]);
        }
        for i in 0..N {
            for k in 0..K {
                let y = if OFFSET { self.x[i] - offset[k] } else { self.x[i] };
                let q = levels.round(v, y * inverse[k]);
                let wq = self.weigh(i, q);
                let sums = &mut sums[k];
                if OFFSET {
                    sums.q = sums.q + wq;
                }
                sums.qq = sums.qq + wq * q;
                sums.xq = sums.xq + wq * self.x[i];
            }
        }
        sums
    }
}

/// Scale and offset of the line through values over levels, by least squares: from the sums of weights, weighted levels
/// and their squares, and from those of weighted values and values times levels.
#[inline(always)]
fn solve<V: Simd>(v: V, (w, q, qq): (V::F, V::F, V::F), (x, xq): (V::F, V::F)) -> (V::F, V::F) {
    let both = qq * w;
    let determinant = both - q * q;
    // Where all levels are (nearly) equal, only the offset says anything.
    let apart = v.lt(v.splat(1e-5) * both, determinant);
    let scale = (xq * w - x * q) / determinant;
    let offset = (qq * x - q * xq) / determinant;
    (v.select(apart, scale, v.splat(0.0)), v.select(apart, offset, x / w))
}

impl<V: Simd> Moments<V> {
    /// Least squares; unless `FREE`, the offset is not above zero.
    #[inline(always)]
    pub(super) fn fit<const OFFSET: bool, const FREE: bool>(&self, v: V, own: Own<V>) -> Fit<V> {
        let zero = v.splat(0.0);
        let alone = self.xq / self.qq;
        if !OFFSET {
            return Fit { scale: alone, offset: zero, error: v.neg(alone * self.xq) };
        }
        let (mut scale, mut offset) = solve(v, (own.w, self.q, self.qq), (own.x, self.xq));
        if !FREE {
            let beyond = v.lt(zero, offset);
            scale = v.select(beyond, alone, scale);
            offset = v.select(beyond, zero, offset);
        }
        Fit { scale, offset, error: v.neg(scale * self.xq + offset * own.x) }
    }
}

impl<V: Simd> Sums<V> {
    /// By how much to change the scale, the offset being fixed.
    #[inline(always)]
    pub(super) fn scale_step(&self, v: V) -> V::F {
        let zero = v.splat(0.0);
        v.select(v.lt(zero, self.qq), self.rq / self.qq, zero)
    }

    /// By how much to change both; `total` is that of the weights of errors.
    #[inline(always)]
    pub(super) fn steps(&self, v: V, total: V::F) -> (V::F, V::F) {
        solve(v, (total, self.q, self.qq), (self.r, self.rq))
    }
}
