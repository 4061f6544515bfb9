//! Random numbers that are functions of a place: which elements of a change stay is the same under any number of
//! threads, any tile size, and on any machine.
//!
//! The key says seed, tensor and model; the counter is the element's number in the tensor. Both go through the output
//! function of SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014), whose state is
//! a counter to begin with.

use tensormill_model::{fingerprint, scramble as mix};

/// The odd number next to 2^64 divided by the golden ratio: SplitMix64's step.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// The key for one model's change of one tensor.
pub fn key(seed: u64, tensor: &str, model: usize) -> u64 {
    let name = fingerprint(tensor.bytes());
    mix(mix(mix(seed.wrapping_add(STEP)) ^ name).wrapping_add((model as u64).wrapping_mul(STEP)))
}

/// Out of 2^32, how many numbers mean that an element stays.
pub fn threshold(density: f64) -> u64 {
    // At most 2^32, so that a density of one keeps everything.
    (density.clamp(0.0, 1.0) * 4_294_967_296.0).round() as u64
}

/// Whether element number `index` stays.
#[inline]
pub fn stays(key: u64, index: u64, threshold: u64) -> bool {
    mix(key.wrapping_add(index.wrapping_add(1).wrapping_mul(STEP))) >> 32 < threshold
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_splitmix64s() {
        // The first outputs for the state 1234567, as the algorithm's reference prints them.
        let of = |i: u64| mix(1_234_567u64.wrapping_add((i + 1).wrapping_mul(STEP)));
        assert_eq!(
            [of(0), of(1), of(2)],
            [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]
        );
    }

    #[test]
    fn densities_are_kept_and_places_are_independent() {
        let n = 200_000u64;
        for density in [0.0, 0.1, 0.5, 0.9, 1.0] {
            let (a, b) = (key(7, "a.weight", 1), key(7, "a.weight", 2));
            let t = threshold(density);
            let kept = (0..n).filter(|i| stays(a, *i, t)).count() as f64 / n as f64;
            // Six standard deviations.
            let far = 6.0 * (density * (1.0 - density) / n as f64).sqrt();
            assert!((kept - density).abs() <= far, "{density}: {kept}");
            let both = (0..n).filter(|i| stays(a, *i, t) && stays(b, *i, t)).count() as f64 / n as f64;
            let p = density * density;
            assert!((both - p).abs() <= 6.0 * (p * (1.0 - p) / n as f64).sqrt(), "{density}: {both} of both");
        }
    }

    #[test]
    fn keys_tell_seeds_tensors_and_models_apart() {
        let keys = [key(1, "a", 0), key(2, "a", 0), key(1, "b", 0), key(1, "a", 1)];
        for (i, k) in keys.iter().enumerate() {
            assert!(!keys[..i].contains(k));
        }
    }
}
