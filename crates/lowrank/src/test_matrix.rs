//! The random matrix that a decomposition begins with, from a counter: element `i` is a function of seed and `i`.

/// SplitMix64's output function (Steele, Lea, Flood 2014) at a counter.
fn mix(seed: u64, counter: u64) -> u64 {
    let mut z = seed.wrapping_add(counter.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Uniform between -1 and 1 in steps of 2^-23, never zero: no logarithm, no cosine, so the same number on every machine.
pub(crate) fn element(seed: u64, i: u64) -> f32 {
    let step = (mix(seed, i) >> 40) as i32 - (1 << 23);
    (2 * step + 1) as f32 / (1 << 24) as f32
}

#[cfg(test)]
mod tests {
    use super::element;

    #[test]
    fn elements_are_spread_evenly() {
        let n = 100_000u64;
        let x: Vec<f64> = (0..n).map(|i| f64::from(element(7, i))).collect();
        let mean = x.iter().sum::<f64>() / n as f64;
        let square = x.iter().map(|x| x * x).sum::<f64>() / n as f64;
        assert!(mean.abs() < 0.01 && (square - 1.0 / 3.0).abs() < 0.01, "{mean} {square}");
        let lagged = x.windows(2).map(|w| w[0] * w[1]).sum::<f64>() / n as f64;
        assert!(lagged.abs() < 0.01, "{lagged}");
        assert!(x.iter().all(|x| x.abs() < 1.0 && *x != 0.0));
        assert_ne!(element(1, 0).to_bits(), element(2, 0).to_bits());
    }
}
