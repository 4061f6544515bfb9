//! Made-up releases with plausible numbers, for the tests and the example. The same every time.
#![allow(dead_code, reason = "each test binary uses a part")]

use tensormill_report::{Error, File, MemorySample, Release, Stage, Tensor, Variant};

/// Name, bits per weight of most tensors, of the better ones, and middle SQNR in dB.
const RECIPES: &[(&str, &str, f64, &str, f64)] = &[
    ("F16", "F16", 16.0, "F16", 71.0),
    ("BF16", "BF16", 16.0, "BF16", f64::INFINITY),
    ("Q8_0", "Q8_0", 8.5, "Q8_0", 43.6),
    ("Q6_K", "Q6_K", 6.5625, "Q8_0", 33.4),
    ("Q5_K_M", "Q5_K", 5.5, "Q6_K", 27.6),
    ("Q5_K_S", "Q5_K", 5.5, "Q5_K", 27.3),
    ("Q5_0", "Q5_0", 5.5, "Q6_K", 26.2),
    ("Q4_K_M", "Q4_K", 4.5, "Q6_K", 21.9),
    ("Q4_K_S", "Q4_K", 4.5, "Q5_K", 21.5),
    ("Q4_1", "Q4_1", 5.0, "Q6_K", 20.9),
    ("Q4_0", "Q4_0", 4.5, "Q6_K", 19.8),
    ("IQ4_NL", "IQ4_NL", 4.5, "Q6_K", 21.1),
    ("IQ4_XS", "IQ4_XS", 4.25, "Q5_K", 20.9),
    ("Q3_K_L", "Q3_K", 3.4375, "Q5_K", 16.3),
    ("Q3_K_M", "Q3_K", 3.4375, "Q4_K", 15.7),
    ("Q3_K_S", "Q3_K", 3.4375, "Q3_K", 15.2),
    ("IQ3_M", "IQ3_S", 3.4375, "Q4_K", 16.0),
    ("IQ3_S", "IQ3_S", 3.4375, "IQ3_S", 15.5),
    ("Q2_K", "Q2_K", 2.625, "Q3_K", 10.4),
    ("IQ2_M", "IQ2_S", 2.5625, "IQ3_S", 10.9),
];

/// Roles of a layer with their number of weights.
const ROLES: &[(&str, u64)] = &[
    ("attn_norm", 2048),
    ("attn_q", 4_194_304),
    ("attn_k", 1_048_576),
    ("attn_v", 1_048_576),
    ("attn_output", 4_194_304),
    ("ffn_norm", 2048),
    ("ffn_gate", 16_777_216),
    ("ffn_up", 16_777_216),
    ("ffn_down", 16_777_216),
    ("ffn_gate_exps", 16_777_216),
    ("ffn_up_exps", 16_777_216),
    ("ffn_down_exps", 16_777_216),
    ("attn_q_norm", 128),
    ("attn_k_norm", 128),
];

/// A small generator of noise (xorshift).
pub struct Noise(u64);

impl Noise {
    /// In -1..1.
    pub fn next(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }
}

/// An error with the given SQNR.
pub fn error(sqnr_db: f64) -> Error {
    if sqnr_db == f64::INFINITY {
        return Error { max_abs: 0.0, rmse: 0.0, sqnr_db, cosine: 1.0, non_finite: 0 };
    }
    let ratio = 10f64.powf(-sqnr_db / 20.0);
    let rmse = 0.021 * ratio;
    Error { max_abs: rmse * 31.0, rmse, sqnr_db, cosine: 1.0 - ratio * ratio / 2.0, non_finite: 0 }
}

/// A release of `variants` variants of a model with `layers` layers and `roles` roles, two of them norms.
pub fn release(layers: u32, roles: usize, variants: usize) -> Release {
    let mut noise = Noise(0x9e37_79b9_7f4a_7c15);
    let variants: Vec<Variant> = (0..variants)
        .map(|i| {
            let recipe = RECIPES[i % RECIPES.len()];
            let again = i / RECIPES.len();
            variant(recipe, again, layers, &ROLES[..roles.min(ROLES.len())], &mut noise)
        })
        .collect();
    let written: u64 = variants.iter().map(Variant::bytes).sum();
    Release {
        title: "Granite-Sample 1.2B Instruct".into(),
        source: "models/granite-sample-1.2b-instruct".into(),
        revision: Some("4b2f86c1d0a7".into()),
        source_bytes: 2_471_628_032,
        read_bytes: 2_471_628_032,
        tool_version: "tensormill 0.1.0".into(),
        date: Some("2026-03-14 09:26 UTC".into()),
        variants,
        stages: stages(written),
        memory: memory(&mut noise),
        memory_limit: Some(1 << 30),
        peak_rss: Some(1_043_333_120),
        wall_seconds: 197.4,
        threads: 8,
        notes: vec![
            "The output head is tied to the embedding; one tensor serves both.".into(),
            "No importance matrix was given: types below 3 bits per weight lose more than they need.".into(),
        ],
    }
}

fn variant(
    (name, main, bits, better, middle): (&str, &str, f64, &str, f64),
    again: usize,
    layers: u32,
    roles: &[(&str, u64)],
    noise: &mut Noise,
) -> Variant {
    let mut tensors = vec![
        tensor(
            "token_embd.weight",
            None,
            "token_embd",
            better,
            width_of(better),
            262_668_288,
            middle + 6.0 + noise.next(),
        ),
        tensor("output_norm.weight", None, "output_norm", "F32", 32.0, 2048, f64::INFINITY),
        tensor("rope_freqs.weight", None, "rope_freqs", "F32", 32.0, 32, f64::INFINITY),
    ];
    for layer in 0..layers {
        let depth = f64::from(layer) / f64::from(layers.max(2) - 1);
        for (role, weights) in roles {
            let full = format!("blk.{layer}.{role}.weight");
            if role.ends_with("norm") {
                tensors.push(tensor(&full, Some(layer), role, "F32", 32.0, *weights, f64::INFINITY));
                continue;
            }
            // Value projections and the first and last down projections get the better type.
            let lifted = main != better
                && (role.starts_with("attn_v")
                    || (role.starts_with("ffn_down") && !(0.13..0.87).contains(&depth)));
            let hard = if role.starts_with("attn_k") { 1.2 } else { 0.0 }
                + if layer == 1 && *role == "ffn_down" { 3.4 } else { 0.0 };
            let sqnr = middle + if lifted { 5.8 } else { 0.0 } - hard
                + 0.9 * (depth * 5.0).sin()
                + 0.5 * noise.next();
            let (encoding, width) = if lifted { (better, width_of(better)) } else { (main, bits) };
            tensors.push(tensor(&full, Some(layer), role, encoding, width, *weights, sqnr));
        }
    }
    let bytes: u64 = tensors.iter().map(|t| t.bytes).sum::<u64>() + 7_821_344;
    let weights: u64 = tensors.iter().map(|t| t.weights).sum();
    let name = if again > 0 { format!("{name}-imatrix{again}") } else { name.to_owned() };
    let split = bytes > 2_000_000_000;
    let files = (0..if split { 2u32 } else { 1 })
        .map(|i| File {
            name: if split {
                format!("granite-sample-1.2b-instruct-{name}-{:05}-of-00002.gguf", i + 1)
            } else {
                format!("granite-sample-1.2b-instruct-{name}.gguf")
            },
            bytes: if split { bytes / 2 + u64::from(i) * (bytes % 2) } else { bytes },
            sha256: Some(
                (0..64)
                    .map(|_| char::from(b"0123456789abcdef"[(noise.next() * 7.99 + 8.0) as usize]))
                    .collect(),
            ),
        })
        .collect();
    let low = middle < 10.5;
    Variant {
        name,
        files,
        bits_per_weight: bytes as f64 * 8.0 / weights as f64,
        error: Some(error(middle + 1.2)),
        limits_checked: 3,
        limits_broken: if low {
            vec!["min_sqnr_db = 9.0 for ffn_down: blk.1.ffn_down.weight has 7.12 dB".into()]
        } else {
            Vec::new()
        },
        tensors,
    }
}

fn tensor(
    name: &str,
    layer: Option<u32>,
    role: &str,
    encoding: &str,
    bits: f64,
    weights: u64,
    sqnr: f64,
) -> Tensor {
    Tensor {
        name: name.to_owned(),
        layer,
        role: role.to_owned(),
        encoding: encoding.to_owned(),
        bytes: (weights as f64 * bits / 8.0) as u64,
        weights,
        error: Some(error(sqnr)),
    }
}

/// Bits per weight of a type.
fn width_of(encoding: &str) -> f64 {
    RECIPES.iter().find(|r| r.1 == encoding).map_or(16.0, |r| r.2)
}

fn stages(written: u64) -> Vec<Stage> {
    let stage = |name: &str, seconds: f64, bytes: u64| Stage { name: name.to_owned(), seconds, bytes };
    vec![
        stage("read", 3.4, 2_471_628_032),
        stage("decode BF16", 6.1, 4_943_256_064),
        stage("encode Q2_K", 96.0, 4_943_256_064),
        stage("encode Q3_K", 143.2, 14_829_768_192),
        stage("encode Q4_K", 188.9, 14_200_000_000),
        stage("encode Q5_K", 151.7, 13_100_000_000),
        stage("encode Q6_K", 118.4, 9_900_000_000),
        stage("encode Q8_0", 9.8, 4_943_256_064),
        stage("encode IQ3_S", 402.6, 9_886_512_128),
        stage("encode IQ4_NL", 164.3, 9_886_512_128),
        stage("encode F16", 2.2, 4_943_256_064),
        stage("measure", 61.5, 98_865_121_280),
        stage("write", 24.9, written),
        stage("hash", 19.3, written),
        stage("wait", 41.0, 0),
    ]
}

fn memory(noise: &mut Noise) -> Vec<MemorySample> {
    (0..1974)
        .map(|i| {
            let seconds = f64::from(i) / 10.0;
            let rise = 1.0 - (-seconds / 6.0).exp();
            let fall = if seconds > 188.0 { (197.4 - seconds) / 9.4 } else { 1.0 };
            let tiles = 8.2e8 * rise * fall * (1.0 + 0.06 * noise.next());
            MemorySample {
                seconds,
                resident_bytes: (1.4e8 * rise + tiles * 1.04).max(0.0) as u64,
                tile_bytes: tiles.max(0.0) as u64,
            }
        })
        .collect()
}

/// One variant, nothing measured, nothing timed.
pub fn tiny() -> Release {
    Release {
        title: "tiny".into(),
        source: "tiny".into(),
        source_bytes: 4096,
        read_bytes: 4096,
        tool_version: "tensormill 0.1.0".into(),
        variants: vec![Variant {
            name: "Q8_0".into(),
            files: vec![File { name: "tiny-Q8_0.gguf".into(), bytes: 2752, sha256: None }],
            bits_per_weight: 8.5,
            error: None,
            limits_checked: 0,
            limits_broken: Vec::new(),
            tensors: vec![Tensor {
                name: "blk.0.attn_q.weight".into(),
                layer: Some(0),
                role: "attn_q".into(),
                encoding: "Q8_0".into(),
                bytes: 2176,
                weights: 2048,
                error: None,
            }],
        }],
        wall_seconds: 0.012,
        threads: 1,
        ..Release::default()
    }
}
