//! Rows and importance made from a seed: the same bits here and in `golden/generators/blocks.py`.
//!
//! Everything is integer arithmetic or a single correctly rounded binary64 operation (add, multiply, divide,
//! square root), so no library's `exp` or `cos` can make the two differ.

/// The kinds of row. Order and names are those of the generator.
pub const DISTRIBUTIONS: [&str; 17] = [
    "gauss",
    "t3",
    "constant",
    "sparse",
    "zeros",
    "negzero",
    "subnormal",
    "tiny",
    "huge",
    "mixed",
    "ties",
    "positive",
    "negative",
    "bf16",
    "bits",
    "outlier",
    "powers",
];

/// The kinds of importance.
pub const IMPORTANCES: [&str; 4] = ["none", "spread", "extreme", "signed"];

/// Draw `i` of the stream `seed` (splitmix64, addressed by counter).
pub fn draw(seed: u64, i: u64) -> u64 {
    let mut z = seed.wrapping_add((i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Nearly normal: twelve 21-bit uniforms from four draws, centred, in units of 2^-21.
fn normal(seed: u64, first: u64) -> f64 {
    let sum: i64 = (0..4)
        .map(|k| draw(seed, first + k))
        .flat_map(|d| [d & 0x1f_ffff, (d >> 21) & 0x1f_ffff, (d >> 42) & 0x1f_ffff])
        .sum::<u64>() as i64;
    (sum - 6 * 0x1f_ffff) as f64 / 2_097_152.0
}

/// 2^e as a binary64.
fn power(e: i64) -> f64 {
    f64::from_bits(((1023 + e) as u64) << 52)
}

/// A row of `n` weights. Every weight uses sixteen draws of its own.
pub fn row(distribution: &str, seed: u64, n: usize) -> Vec<f32> {
    (0..n as u64)
        .map(|i| {
            let z = normal(seed, 16 * i);
            let spare = draw(seed, 16 * i + 15);
            let per_group = draw(!seed, i / 32);
            match distribution {
                "gauss" => (z * 0.02) as f32,
                "t3" => {
                    let [a, b, c] = [4, 8, 12].map(|k| normal(seed, 16 * i + k));
                    (z / ((a * a + b * b + c * c) / 3.0).sqrt() * 0.02) as f32
                }
                "constant" => normal(!seed, i / 64 * 4) as f32,
                "sparse" => match spare % 10 {
                    0 => z as f32,
                    1..5 => 0.0,
                    _ => -0.0,
                },
                "zeros" => 0.0,
                "negzero" => -0.0,
                "subnormal" => f32::from_bits(spare as u32 & 0x807f_ffff),
                "tiny" => (z * power(-40 - 8 * (i / 256 % 10) as i64)) as f32,
                "huge" => (z * power(125)) as f32,
                "mixed" => (z * power((per_group % 250) as i64 - 140)) as f32,
                // Quarters; or halves up to 127, which tie between entries of a codebook that ends there.
                "ties" => match per_group % 2 {
                    0 => ((spare % 33) as f64 * 0.25 - 4.0) as f32,
                    _ if i % 32 == 5 => -127.0,
                    _ => ((spare % 507) as f64 * 0.5 - 126.5) as f32,
                },
                "positive" => (z.abs() + 0.125) as f32,
                "negative" => -((z.abs() + 0.125) as f32),
                "bf16" => {
                    let bits = ((z * 0.02) as f32).to_bits();
                    f32::from_bits((bits + 0x7fff + (bits >> 16 & 1)) & 0xffff_0000)
                }
                "bits" => {
                    let bits = spare as u32;
                    let all_ones = bits & 0x7f80_0000 == 0x7f80_0000;
                    f32::from_bits(if all_ones { bits & 0xbfff_ffff } else { bits })
                }
                "outlier" => (if spare.is_multiple_of(64) { z * 1000.0 } else { z }) as f32,
                "powers" => {
                    // The same power of two for a whole group: within 64 steps of it, or just below.
                    let power = (1 + per_group % 253) << 23;
                    let bits = match per_group >> 16 & 1 {
                        0 => power + spare % 129 - 64,
                        _ => power - 1 - (per_group >> 32) % 64 - spare % 128,
                    };
                    f32::from_bits(bits as u32 | (spare >> 32) as u32 & 0x8000_0000)
                }
                other => panic!("no distribution {other}"),
            }
        })
        .collect()
}

/// Importance for a row of `n` columns.
pub fn importance(kind: &str, seed: u64, n: usize) -> Option<Vec<f32>> {
    let seed = seed ^ 0x5851_f42d_4c95_7f2d;
    let weight = |i: u64| {
        let z = normal(seed, 8 * i);
        let spare = draw(seed, 8 * i + 7);
        let mantissa = 1.0 + (spare >> 40) as f64 / 16_777_216.0;
        match kind {
            // Roughly lognormal: a uniform mantissa under a normal exponent.
            "spread" => (mantissa * power((2.0 * z).floor() as i64)) as f32,
            // A third of the columns and every seventh group of 32 weigh nothing, others anything.
            "extreme" if spare.is_multiple_of(3) || (i / 32) % 7 == 3 => 0.0,
            "extreme" => (mantissa * power((spare >> 8 & 127) as i64 - 64)) as f32,
            // No importance matrix is negative, but scales become so here, and then their bytes wrap.
            "signed" => (z * 2.0) as f32,
            other => panic!("no importance {other}"),
        }
    };
    (kind != "none").then(|| (0..n as u64).map(weight).collect())
}
