//! The generated rope tensors: Llama-3's frequency factors.
//!
//! The peer computes them with torch on 0-dimensional f32 tensors, and the bits depend on which steps run in
//! f32: `2 * pi / freq` is a multiplication by a reciprocal, comparisons round the Python number to f32,
//! divisions by a Python number are true f32 divisions.
//!
//! One step is not one function: torch's f32 `pow`. Its scalar path rounds correctly, its AVX2 and AVX-512
//! paths (Sleef) differ from that, and from each other, in the last bit for some exponents, so the peer's own
//! file depends on the machine that wrote it. Here the result is the correctly rounded one on every machine;
//! golden/arch/rope/factors.json says for which settings all paths agree (all usual heads at a base of
//! 500000).

use serde_json::{Map, Value};
use tensormill_model::{Error, Result};

/// More than any head has; a config that says more is refused before memory is taken.
const MAX_HEAD_DIM: u64 = 1 << 16;

/// The factors by which Llama-3's scaling divides each rotary frequency; `head_dim / 2` of them.
///
/// # Errors
/// When a setting is no number, or the head is absurdly large.
pub(crate) fn llama3_factors(rope: &Map<String, Value>, head_dim: u64) -> Result<Vec<f32>> {
    let number = |key: &str, default: f64| match rope.get(key) {
        None => Ok(default),
        Some(v) => v.as_f64().ok_or_else(|| {
            Error::malformed(format!("rope setting {key} is {v}, not a number")).file("config.json")
        }),
    };
    if head_dim > MAX_HEAD_DIM {
        return Err(Error::over_limit(format!("a head of {head_dim} elements")).file("config.json"));
    }
    let base = number("rope_theta", 10000.0)?;
    let factor = number("factor", 8.0)?;
    let low = number("low_freq_factor", 1.0)?;
    let high = number("high_freq_factor", 4.0)?;
    let context = number("original_max_position_embeddings", 8192.0)?;
    let (low_wavelen, high_wavelen) = ((context / low) as f32, (context / high) as f32);

    Ok((0..head_dim)
        .step_by(2)
        .map(|i| {
            let freq = 1.0 / pow(base as f32, i as f32 / head_dim as f32);
            let wavelen = (1.0 / freq) * (2.0 * std::f64::consts::PI) as f32;
            if wavelen < high_wavelen {
                1.0
            } else if wavelen > low_wavelen {
                factor as f32
            } else {
                let smooth = ((1.0 / wavelen) * context as f32 - low as f32) / (high - low) as f32;
                1.0 / ((1.0 - smooth) / factor as f32 + smooth)
            }
        })
        .collect())
}

/// `base ** exponent`, rounded once from f64.
fn pow(base: f32, exponent: f32) -> f32 {
    f64::from(base).powf(f64::from(exponent)) as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn factors_are_torchs_on_its_scalar_path() {
        let rows: Vec<Value> =
            serde_json::from_str(include_str!("../../../golden/arch/rope/factors.json")).unwrap();
        assert!(rows.len() > 40);
        for row in &rows {
            let rope = json!({"rope_theta": row[1], "factor": row[2], "low_freq_factor": row[3],
                "high_freq_factor": row[4], "original_max_position_embeddings": row[5]});
            let got = llama3_factors(rope.as_object().unwrap(), row[0].as_u64().unwrap()).unwrap();
            let h = got.iter().flat_map(|v| v.to_le_bytes()).fold(0xcbf2_9ce4_8422_2325u64, |h, b| {
                (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3)
            });
            assert_eq!(format!("{h:016x}"), row[6], "{row}");
        }
    }

    #[test]
    fn an_absurd_head_is_refused() {
        assert!(llama3_factors(&Map::new(), 1 << 40).is_err());
    }
}
