//! Rounding one group under a given scale and offset, and the sums that tell how to move them.
//! Loops are elementwise or over eight independent sums, which is what lanes need. Knows no format.

/// How a group is rounded.
pub(super) trait Levels<const N: usize>: Sync {
    /// Writes the `q` of least weighted error for `x ~ scale * q + offset`.
    fn round(&self, x: &[f32; N], w: &[f32; N], scale: f32, offset: f32, q: &mut [f32; N]);
}

/// Every integer of `low..=high`.
#[derive(Clone, Copy)]
pub(super) struct Even {
    pub(super) low: f32,
    pub(super) high: f32,
}

/// Adding and subtracting 1.5 * 2^23 rounds to an integer.
const MAGIC: f32 = 12_582_912.0;

fn reciprocal(scale: f32) -> f32 {
    let inverse = 1.0 / scale;
    if inverse.is_finite() { inverse } else { 0.0 }
}

impl<const N: usize> Levels<N> for Even {
    #[inline(always)]
    fn round(&self, x: &[f32; N], _w: &[f32; N], scale: f32, offset: f32, q: &mut [f32; N]) {
        let inverse = reciprocal(scale);
        for (q, x) in q.iter_mut().zip(x) {
            let v = (x - offset) * inverse;
            // Plain comparisons: one instruction each.
            let v = if v > self.low { v } else { self.low };
            let v = if v < self.high { v } else { self.high };
            *q = (v + MAGIC) - MAGIC;
        }
    }
}

/// Sixteen increasing values.
pub(super) struct Codebook {
    first: f32,
    /// Where each next value becomes the nearest, and how far it is from the one before.
    steps: [(f32, f32); 15],
}

impl Codebook {
    pub(super) const fn new(values: &[i8; 16]) -> Self {
        let mut steps = [(0.0, 0.0); 15];
        let mut i = 0;
        while i < 15 {
            let (low, high) = (values[i] as f32, values[i + 1] as f32);
            steps[i] = (f32::midpoint(low, high), high - low);
            i += 1;
        }
        Self { first: values[0] as f32, steps }
    }

    /// Index of a value.
    pub(super) fn index(&self, value: f32) -> u8 {
        self.steps.iter().map(|(threshold, _)| u8::from(value > *threshold)).sum()
    }
}

impl<const N: usize> Levels<N> for Codebook {
    #[inline(always)]
    fn round(&self, x: &[f32; N], _w: &[f32; N], scale: f32, offset: f32, q: &mut [f32; N]) {
        let inverse = reciprocal(scale);
        *q = [self.first; N];
        for &(threshold, step) in &self.steps {
            for (q, x) in q.iter_mut().zip(x) {
                *q += if (x - offset) * inverse > threshold { step } else { 0.0 };
            }
        }
    }
}

/// Weighted sums over a group, with `r = x - scale * q - offset`. Residuals instead of `x` keep the small
/// differences that decide between fine levels.
#[derive(Clone, Copy, Default)]
pub(super) struct Sums {
    pub(super) w: f32,
    pub(super) q: f32,
    pub(super) qq: f32,
    pub(super) r: f32,
    pub(super) rq: f32,
    /// The weighted squared error.
    pub(super) rr: f32,
}

impl Sums {
    #[inline(always)]
    pub(super) fn of<const N: usize>(
        x: &[f32; N],
        w: &[f32; N],
        q: &[f32; N],
        scale: f32,
        offset: f32,
    ) -> Self {
        let mut lanes = [[0f32; 8]; 6];
        let chunks = x.as_chunks::<8>().0.iter().zip(w.as_chunks::<8>().0).zip(q.as_chunks::<8>().0);
        for ((x, w), q) in chunks {
            for i in 0..8 {
                let r = x[i] - (scale * q[i] + offset);
                let (wq, wr) = (w[i] * q[i], w[i] * r);
                lanes[0][i] += w[i];
                lanes[1][i] += wq;
                lanes[2][i] += wq * q[i];
                lanes[3][i] += wr;
                lanes[4][i] += wr * q[i];
                lanes[5][i] += wr * r;
            }
        }
        let [w, q, qq, r, rq, rr] = lanes.map(|l| l.iter().sum());
        Self { w, q, qq, r, rq, rr }
    }

    /// Without an offset: half as many sums, the others zero.
    #[inline(always)]
    pub(super) fn without_offset<const N: usize>(
        x: &[f32; N],
        w: &[f32; N],
        q: &[f32; N],
        scale: f32,
    ) -> Self {
        let mut lanes = [[0f32; 8]; 3];
        let chunks = x.as_chunks::<8>().0.iter().zip(w.as_chunks::<8>().0).zip(q.as_chunks::<8>().0);
        for ((x, w), q) in chunks {
            for i in 0..8 {
                let r = x[i] - scale * q[i];
                let (wq, wr) = (w[i] * q[i], w[i] * r);
                lanes[0][i] += wq * q[i];
                lanes[1][i] += wr * q[i];
                lanes[2][i] += wr * r;
            }
        }
        let [qq, rq, rr] = lanes.map(|l| l.iter().sum());
        Self { qq, rq, rr, ..Self::default() }
    }

    /// By how much to change the scale, the offset being fixed.
    pub(super) fn scale_step(&self) -> f32 {
        if self.qq > 0.0 { self.rq / self.qq } else { 0.0 }
    }

    /// By how much to change the offset, the scale being fixed.
    pub(super) fn offset_step(&self) -> f32 {
        if self.w > 0.0 { self.r / self.w } else { 0.0 }
    }

    /// By how much to change both.
    pub(super) fn steps(&self) -> (f32, f32) {
        let determinant = self.qq * self.w - self.q * self.q;
        // All levels (nearly) equal: only the offset says anything.
        if determinant <= 1e-6 * self.qq * self.w {
            return (0.0, self.offset_step());
        }
        (
            (self.rq * self.w - self.r * self.q) / determinant,
            (self.qq * self.r - self.q * self.rq) / determinant,
        )
    }

    /// The error that would remain after these steps, the levels being fixed.
    pub(super) fn error_after(&self, scale_step: f32, offset_step: f32) -> f32 {
        let (a, b) = (scale_step, offset_step);
        self.rr - 2.0 * (a * self.rq + b * self.r) + a * a * self.qq + 2.0 * a * b * self.q + b * b * self.w
    }
}
