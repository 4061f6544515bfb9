//! Numeric comparison of two sets of values: what a report prints and what a gate tests.

/// Running error of `got` against `want`, accumulated in `f64`; mergeable across tiles.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ErrorStats {
    /// Pairs of values seen.
    pub count: u64,
    /// Pairs in which exactly one side, or both sides unequally, are NaN or infinite.
    pub non_finite: u64,
    /// Pairs whose bit patterns differ (`-0.0` and `0.0` differ here).
    pub different: u64,
    /// Largest absolute difference over finite pairs.
    pub max_abs: f64,
    sum_sq_error: f64,
    sum_sq_want: f64,
    sum_sq_got: f64,
    dot: f64,
}

impl ErrorStats {
    /// Adds pairs of values.
    ///
    /// # Panics
    /// When the slices differ in length.
    pub fn add(&mut self, want: &[f32], got: &[f32]) {
        assert_eq!(want.len(), got.len());
        self.count += want.len() as u64;
        for (&w, &g) in want.iter().zip(got) {
            if w.to_bits() != g.to_bits() {
                self.different += 1;
            }
            let (w, g) = (f64::from(w), f64::from(g));
            if w.is_finite() && g.is_finite() {
                let e = w - g;
                self.max_abs = self.max_abs.max(e.abs());
                self.sum_sq_error += e * e;
                self.sum_sq_want += w * w;
                self.sum_sq_got += g * g;
                self.dot += w * g;
            } else if !(w == g || w.is_nan() && g.is_nan()) {
                self.non_finite += 1;
            }
        }
    }

    /// Adds what another accumulator saw.
    pub fn merge(&mut self, other: &Self) {
        self.count += other.count;
        self.non_finite += other.non_finite;
        self.different += other.different;
        self.max_abs = self.max_abs.max(other.max_abs);
        self.sum_sq_error += other.sum_sq_error;
        self.sum_sq_want += other.sum_sq_want;
        self.sum_sq_got += other.sum_sq_got;
        self.dot += other.dot;
    }

    /// Root of the mean squared error; zero for no values.
    pub fn rmse(&self) -> f64 {
        if self.count == 0 { 0.0 } else { (self.sum_sq_error / self.count as f64).sqrt() }
    }

    /// Signal to quantization noise ratio in dB: `10 log10(sum want^2 / sum error^2)`; infinite when exact.
    pub fn sqnr_db(&self) -> f64 {
        if self.sum_sq_error == 0.0 {
            f64::INFINITY
        } else {
            10.0 * (self.sum_sq_want / self.sum_sq_error).log10()
        }
    }

    /// Cosine of the angle between the two; one when both are all zero.
    pub fn cosine(&self) -> f64 {
        if self.sum_sq_want == 0.0 && self.sum_sq_got == 0.0 {
            return 1.0;
        }
        let d = (self.sum_sq_want * self.sum_sq_got).sqrt();
        if d == 0.0 { 0.0 } else { self.dot / d }
    }

    /// Whether every pair was bit-identical.
    pub fn identical(&self) -> bool {
        self.different == 0
    }
}

/// Distance in units in the last place; `u32::MAX` when exactly one side is NaN.
pub fn ulp_distance_f32(a: f32, b: f32) -> u32 {
    if a.is_nan() || b.is_nan() {
        return if a.is_nan() && b.is_nan() { 0 } else { u32::MAX };
    }
    // Map the sign-magnitude patterns onto one monotone line.
    let line = |x: f32| {
        let b = x.to_bits() as i32;
        i64::from(if b < 0 { i32::MIN - b } else { b })
    };
    line(a).abs_diff(line(b)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_of_a_known_pair() {
        let mut s = ErrorStats::default();
        s.add(&[3.0, 4.0], &[3.0, 3.0]);
        assert_eq!((s.count, s.different, s.max_abs), (2, 1, 1.0));
        assert!((s.rmse() - 0.5f64.sqrt()).abs() < 1e-12);
        assert!((s.sqnr_db() - 10.0 * 25f64.log10()).abs() < 1e-9);
        let mut t = ErrorStats::default();
        t.add(&[f32::NAN, 1.0], &[f32::NAN, f32::INFINITY]);
        assert_eq!(t.non_finite, 1);
    }

    #[test]
    fn ulps_cross_zero() {
        assert_eq!(ulp_distance_f32(0.0, -0.0), 0);
        assert_eq!(ulp_distance_f32(1.0, f32::from_bits(1.0f32.to_bits() + 3)), 3);
        assert_eq!(ulp_distance_f32(f32::from_bits(1), -f32::from_bits(1)), 2);
    }
}
