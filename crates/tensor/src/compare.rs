//! Numeric comparison of two sets of values: what a report prints and what a gate tests.

/// A sum that keeps the rounding error of its additions (Knuth's TwoSum), so that the order of additions does not
/// show in the first 53 bits of the result: statistics merge in any order.
#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    high: f64,
    low: f64,
}

impl Sum {
    fn add(&mut self, x: f64) {
        let s = self.high + x;
        let back = s - self.high;
        self.low += (self.high - (s - back)) + (x - back);
        self.high = s;
    }
    fn merge(&mut self, other: &Self) {
        self.add(other.high);
        self.add(other.low);
    }
    fn value(&self) -> f64 {
        self.high + self.low
    }
}

impl PartialEq for Sum {
    fn eq(&self, other: &Self) -> bool {
        self.value() == other.value()
    }
}

/// Running error of `got` against `want`, accumulated in `f64` pairs; mergeable across tiles in any order.
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
    sum_sq_error: Sum,
    sum_sq_want: Sum,
    sum_sq_got: Sum,
}

/// Independent sums, so that they are not one long chain of additions.
const LANES: usize = 8;

/// Blocks of pairs that are added before anyone asks whether they were finite.
const STRETCH: usize = 2048;

#[derive(Clone, Copy, Default)]
struct Sums {
    max_abs: [f64; LANES],
    error: [f64; LANES],
    want: [f64; LANES],
    got: [f64; LANES],
    different: [u32; LANES],
}

/// Adds blocks of pairs as if all values were finite. The lanes are fixed, so every instruction set gives the same
/// sums.
#[multiversion::multiversion(targets("x86_64+avx512f", "x86_64+avx2"))]
fn add_blocks(sums: &mut Sums, want: &[[f32; LANES]], got: &[[f32; LANES]]) {
    for (want, got) in want.iter().zip(got) {
        for i in 0..LANES {
            let (w, g) = (f64::from(want[i]), f64::from(got[i]));
            let e = w - g;
            sums.max_abs[i] = if e.abs() > sums.max_abs[i] { e.abs() } else { sums.max_abs[i] };
            sums.error[i] += e * e;
            sums.want[i] += w * w;
            sums.got[i] += g * g;
            sums.different[i] += u32::from(want[i].to_bits() != got[i].to_bits());
        }
    }
}

impl Sums {
    /// Whether all values added so far were finite: a difference to or of one that is not is not finite either, and no
    /// sum of squares of finite `f32` overflows an `f64`.
    fn finite(&self) -> bool {
        self.error.iter().all(|e| e.is_finite())
    }

    fn merge_into(&self, stats: &mut ErrorStats) {
        for i in 0..LANES {
            stats.max_abs = stats.max_abs.max(self.max_abs[i]);
            stats.sum_sq_error.add(self.error[i]);
            stats.sum_sq_want.add(self.want[i]);
            stats.sum_sq_got.add(self.got[i]);
            stats.different += u64::from(self.different[i]);
        }
    }
}

impl ErrorStats {
    /// Adds pairs of values.
    ///
    /// # Panics
    /// When the slices differ in length.
    pub fn add(&mut self, want: &[f32], got: &[f32]) {
        assert_eq!(want.len(), got.len());
        self.count += want.len() as u64;
        let (want_blocks, want_rest) = want.as_chunks::<LANES>();
        let (got_blocks, got_rest) = got.as_chunks::<LANES>();
        for (want, got) in want_blocks.chunks(STRETCH).zip(got_blocks.chunks(STRETCH)) {
            let mut lanes = Sums::default();
            add_blocks(&mut lanes, want, got);
            if lanes.finite() {
                lanes.merge_into(self);
            } else {
                self.add_one_by_one(want.as_flattened(), got.as_flattened());
            }
        }
        self.add_one_by_one(want_rest, got_rest);
    }

    fn add_one_by_one(&mut self, want: &[f32], got: &[f32]) {
        for (&w, &g) in want.iter().zip(got) {
            self.different += u64::from(w.to_bits() != g.to_bits());
            let (w, g) = (f64::from(w), f64::from(g));
            if w.is_finite() && g.is_finite() {
                let e = w - g;
                self.max_abs = self.max_abs.max(e.abs());
                self.sum_sq_error.add(e * e);
                self.sum_sq_want.add(w * w);
                self.sum_sq_got.add(g * g);
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
        self.sum_sq_error.merge(&other.sum_sq_error);
        self.sum_sq_want.merge(&other.sum_sq_want);
        self.sum_sq_got.merge(&other.sum_sq_got);
    }

    /// Words that hold an accumulator.
    pub const WORDS: usize = 10;

    /// Everything in words, for a journal; [`Self::from_words`] gives the same accumulator back.
    pub fn to_words(&self) -> [u64; Self::WORDS] {
        let sums = [self.sum_sq_error, self.sum_sq_want, self.sum_sq_got];
        let mut words = [0; Self::WORDS];
        words[..4].copy_from_slice(&[self.count, self.non_finite, self.different, self.max_abs.to_bits()]);
        for (pair, sum) in words[4..].as_chunks_mut::<2>().0.iter_mut().zip(sums) {
            *pair = [sum.high.to_bits(), sum.low.to_bits()];
        }
        words
    }

    /// The accumulator that [`Self::to_words`] wrote.
    pub fn from_words(words: &[u64; Self::WORDS]) -> Self {
        let sum = |i: usize| Sum { high: f64::from_bits(words[i]), low: f64::from_bits(words[i + 1]) };
        Self {
            count: words[0],
            non_finite: words[1],
            different: words[2],
            max_abs: f64::from_bits(words[3]),
            sum_sq_error: sum(4),
            sum_sq_want: sum(6),
            sum_sq_got: sum(8),
        }
    }

    /// Root of the mean squared error; zero for no values.
    pub fn rmse(&self) -> f64 {
        if self.count == 0 { 0.0 } else { (self.sum_sq_error.value() / self.count as f64).sqrt() }
    }

    /// Signal to quantization noise ratio in dB: `10 log10(sum want^2 / sum error^2)`; infinite when exact.
    pub fn sqnr_db(&self) -> f64 {
        let error = self.sum_sq_error.value();
        if error == 0.0 { f64::INFINITY } else { 10.0 * (self.sum_sq_want.value() / error).log10() }
    }

    /// Cosine of the angle between the two; one when both are all zero. The product comes from the three sums of
    /// squares: `|want - got|^2 = |want|^2 + |got|^2 - 2 want got`.
    pub fn cosine(&self) -> f64 {
        let (want, got) = (self.sum_sq_want.value(), self.sum_sq_got.value());
        if want == 0.0 && got == 0.0 {
            return 1.0;
        }
        let d = (want * got).sqrt();
        let dot = (want + got - self.sum_sq_error.value()) / 2.0;
        if d == 0.0 { 0.0 } else { dot / d }
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
    fn lanes_see_what_single_values_show() {
        let want: Vec<f32> = (0..1003).map(|i| (i as f32 * 0.37).sin()).collect();
        let mut got: Vec<f32> = want.iter().map(|x| (x * 16.0).round() / 16.0).collect();
        (got[500], got[501]) = (f32::INFINITY, f32::NAN);
        let (mut lanes, mut single) = (ErrorStats::default(), ErrorStats::default());
        lanes.add(&want, &got);
        single.add_one_by_one(&want, &got);
        assert_eq!((lanes.different, lanes.non_finite), (single.different, single.non_finite));
        assert_eq!((lanes.count, lanes.non_finite, lanes.max_abs), (1003, 2, single.max_abs));
        assert!((lanes.sqnr_db() - single.sqnr_db()).abs() < 1e-9);
        assert!((lanes.cosine() - single.cosine()).abs() < 1e-12);
    }

    #[test]
    fn order_does_not_matter_and_words_hold_everything() {
        let parts: Vec<ErrorStats> = (0..500)
            .map(|i| {
                let mut s = ErrorStats::default();
                let x = (i as f32 * 0.7).sin() * 10f32.powi(i % 9 - 4);
                s.add(&[x, 1e-7], &[x + x * 0.01, 1.0 / (i as f32 + 3.0)]);
                s
            })
            .collect();
        let sum = |order: &dyn Fn(usize) -> usize| {
            let mut total = ErrorStats::default();
            (0..500).for_each(|i| total.merge(&parts[order(i)]));
            total
        };
        let forward = sum(&|i| i);
        assert_eq!(forward, sum(&|i| i * 7 % 500));
        assert_eq!(forward, sum(&|i| 499 - i));
        let back = ErrorStats::from_words(&forward.to_words());
        assert_eq!((back, back.to_words()), (forward, forward.to_words()));
    }

    #[test]
    fn ulps_cross_zero() {
        assert_eq!(ulp_distance_f32(0.0, -0.0), 0);
        assert_eq!(ulp_distance_f32(1.0, f32::from_bits(1.0f32.to_bits() + 3)), 3);
        assert_eq!(ulp_distance_f32(f32::from_bits(1), -f32::from_bits(1)), 2);
    }
}
