//! Rotary positions: inverse frequencies by the rules of transformers (`modeling_rope_utils.py`), step by step in the
//! precision in which PyTorch takes each step.
//!
//! PyTorch divides a number by a tensor as a product with the tensor's reciprocal, and `pow` is correctly rounded here, where
//! PyTorch's vector code may be off by the last bit.

use crate::Config;
use serde_json::{Map, Value};
use std::f64::consts::PI;
use tensormill_graph::{Elem, Tensor};
use tensormill_model::Result;
use tensormill_tensor::encode_plain;

/// Most positions that tables are made for, and most elements of one: 64 MiB in `f32`. A graph for a model that says more
/// ends there, and so does the `context_length` of its `genai_config.json`.
const MOST_ROWS: u64 = 1 << 18;
const MOST_ELEMENTS: u64 = 1 << 24;

/// How positions turn queries and keys.
#[derive(Clone, PartialEq, Debug)]
pub struct Rope {
    /// Radians by which a position more turns each pair of elements.
    pub inverse: Vec<f32>,
    /// What cosines and sines are multiplied by.
    pub factor: f32,
    /// Positions that the model was made for, where the configuration says so.
    pub positions: Option<u64>,
}

const ORIGINAL: &str = "original_max_position_embeddings";

/// The settings under `rope_parameters` or `rope_scaling`.
struct Settings {
    config: Config,
    base: f32,
    dim: u64,
}

impl Rope {
    /// Reads the configuration of a model with heads of `dim`.
    ///
    /// # Errors
    /// Settings that are missing or no numbers; kinds whose frequencies depend on how long a sequence is.
    pub fn read(config: &Config, dim: u64) -> Result<Self> {
        let positions = config.maybe_count("max_position_embeddings")?;
        let settings = Settings::read(config, dim)?;
        let kind = settings.config.text("rope_type")?.unwrap_or("default").to_owned();
        let (inverse, factor) = match kind.as_str() {
            "default" => (settings.plain(), 1.0),
            "linear" => {
                let factor = settings.positive("factor")? as f32;
                (settings.plain().iter().map(|f| f / factor).collect(), 1.0)
            }
            "llama3" => (settings.llama3()?, 1.0),
            "yarn" => settings.yarn(positions)?,
            "dynamic" | "longrope" => {
                let what = format!("is {kind:?}: its frequencies change with the length of the sequence");
                return Err(config.unsupported("rope_type", &what).hint(
                    "a graph has one set of them; remove the scaling where sequences stay within the original length",
                ));
            }
            _ => return Err(config.unsupported("rope_type", &format!("is {kind:?}, which no graph has"))),
        };
        if inverse.iter().any(|f| !f.is_finite()) || !factor.is_finite() {
            return Err(config.bad("rope_parameters", "give frequencies that are not finite"));
        }
        Ok(Self { inverse, factor, positions })
    }

    /// The frequencies as a value of a graph.
    pub(super) fn frequencies(&self, name: &str) -> Tensor {
        let bytes: Vec<u8> = self.inverse.iter().flat_map(|f| f.to_le_bytes()).collect();
        Tensor::raw(name, Elem::F32, &[self.inverse.len() as i64], bytes)
    }

    /// How many positions tables are made for.
    ///
    /// # Errors
    /// Where the configuration does not say.
    pub(super) fn rows(&self, config: &Config) -> Result<u64> {
        let most = MOST_ROWS.min(MOST_ELEMENTS / self.inverse.len() as u64);
        self.positions
            .map(|n| n.min(most))
            .ok_or_else(|| config.bad("max_position_embeddings", "is missing, and says how long tables are"))
    }

    /// Tables of cosines and sines, `[rows, dim / 2]`: angles are products in `f32`, their cosines rounded once.
    pub(super) fn tables(&self, rows: u64, elem: Elem) -> [Tensor; 2] {
        let table = |name: &str, of: fn(f64) -> f64| {
            let dtype = elem.dtype().expect("floats of graphs are types of tensors");
            let width = dtype.bits() as usize / 8 * self.inverse.len();
            let mut bytes = vec![0; width * rows as usize];
            let mut row = vec![0f32; self.inverse.len()];
            for (position, out) in bytes.chunks_exact_mut(width).enumerate() {
                for (x, f) in row.iter_mut().zip(&self.inverse) {
                    *x = of(f64::from(position as f32 * f)) as f32 * self.factor;
                }
                let encoded = encode_plain(dtype, &row, out);
                debug_assert!(encoded, "floats are encoded");
            }
            Tensor::raw(name, elem, &[rows as i64, self.inverse.len() as i64], bytes)
        };
        [table("cos_cache", f64::cos), table("sin_cache", f64::sin)]
    }
}

impl Settings {
    /// Brings what old and new versions of transformers write into one form.
    fn read(config: &Config, dim: u64) -> Result<Self> {
        let mut map = Map::new();
        // The old form wins where a file has both: so does transformers have it.
        let key = ["rope_scaling", "rope_parameters"].into_iter().find(|k| config.get(k).is_some());
        if let Some(key) = key {
            let given = config.get(key).and_then(Value::as_object);
            map = given.cloned().ok_or_else(|| config.bad(key, "is no object"))?;
        }
        if let Some((key, _)) = map.iter().find(|(_, v)| v.is_object()) {
            let what = format!("differ by the type of layer ({key}), which these families do not have");
            return Err(config.unsupported("rope_parameters", &what));
        }
        if let (None, Some(kind)) = (map.get("rope_type"), map.get("type").cloned()) {
            map.insert("rope_type".to_owned(), kind);
        }
        for key in ["rope_theta", "partial_rotary_factor"] {
            if let (None, Some(v)) = (map.get(key), config.get(key)) {
                map.insert(key.to_owned(), v.clone());
            }
        }
        // A length beside the settings counts more than one within; without either it is the model's.
        if let Some(v) = config.get(ORIGINAL) {
            map.insert(ORIGINAL.to_owned(), v.clone());
        } else if let (None, Some(v)) = (map.get(ORIGINAL), config.get("max_position_embeddings")) {
            map.insert(ORIGINAL.to_owned(), v.clone());
        }
        let settings = Config::new(map);
        if settings.real("partial_rotary_factor", 1.0)? != 1.0 {
            return Err(config.unsupported(
                "partial_rotary_factor",
                "turns a part of each head; transformers turns whole heads in these families",
            ));
        }
        if !dim.is_multiple_of(2) {
            return Err(config.bad("head_dim", &format!("is {dim}: positions turn pairs of elements")));
        }
        let base = settings.real("rope_theta", 10000.0)?;
        if !(base.is_finite() && base > 0.0) {
            return Err(config.bad("rope_theta", &format!("is {base}, which is not positive")));
        }
        Ok(Self { config: settings, base: base as f32, dim })
    }

    /// A setting that must be there and positive.
    fn positive(&self, key: &str) -> Result<f64> {
        let x = self.config.real(key, f64::NAN)?;
        if x.is_nan() {
            return Err(self.config.bad(key, "is missing from the settings of rotary positions"));
        }
        if x.is_finite() && x > 0.0 {
            Ok(x)
        } else {
            Err(self.config.bad(key, &format!("is {x}, not positive")))
        }
    }

    /// Wavelengths by 2 pi: `base ** (2 i / dim)`.
    fn powers(&self) -> impl Iterator<Item = f32> {
        let (base, dim) = (f64::from(self.base), self.dim as f32);
        (0..self.dim).step_by(2).map(move |i| base.powf(f64::from(i as f32 / dim)) as f32)
    }

    fn plain(&self) -> Vec<f32> {
        self.powers().map(|p| 1.0 / p).collect()
    }

    /// Llama 3.1: long wavelengths are stretched, short ones stay, those between are blended.
    fn llama3(&self) -> Result<Vec<f32>> {
        let factor = self.positive("factor")? as f32;
        let (low, high) = (self.positive("low_freq_factor")?, self.positive("high_freq_factor")?);
        let context = self.positive(ORIGINAL)?;
        let (longest, shortest) = ((context / low) as f32, (context / high) as f32);
        let scaled = |f: f32| {
            let wavelength = (1.0 / f) * (2.0 * PI) as f32;
            if wavelength > longest {
                f / factor
            } else if wavelength < shortest {
                f
            } else {
                let smooth = ((1.0 / wavelength) * context as f32 - low as f32) / (high - low) as f32;
                (1.0 - smooth) * f / factor + smooth * f
            }
        };
        Ok(self.plain().into_iter().map(scaled).collect())
    }

    /// YaRN (arXiv 2309.00071): pairs that turn often keep their frequency, those that turn rarely are stretched.
    fn yarn(&self, positions: Option<u64>) -> Result<(Vec<f32>, f32)> {
        let context = self.positive(ORIGINAL)?;
        let factor = match (self.config.get("factor"), positions) {
            (None, Some(n)) => n as f64 / context,
            _ => self.positive("factor")?,
        };
        let grown = |scale: f64, by: f64| if scale <= 1.0 { 1.0 } else { 0.1 * by * scale.ln() + 1.0 };
        // Zero is like nothing for these four, as in Python.
        let [scale, all, fast, slow] = ["mscale", "mscale_all_dim", "beta_fast", "beta_slow"].map(|key| {
            let x = self.config.real(key, 0.0);
            x.map(|x| Some(x).filter(|x| *x != 0.0))
        });
        let attention = match (self.config.get("attention_factor"), scale?, all?) {
            (Some(_), ..) => self.config.real("attention_factor", 1.0)?,
            (None, Some(scale), Some(all)) => grown(factor, scale) / grown(factor, all),
            _ => grown(factor, 1.0),
        };
        // The pair that turns `times` times within the original context.
        let base = self.config.real("rope_theta", 10000.0)?;
        let turning = |times: f64| self.dim as f64 * (context / (times * 2.0 * PI)).ln() / (2.0 * base.ln());
        let (mut low, mut high) = (turning(fast?.unwrap_or(32.0)), turning(slow?.unwrap_or(1.0)));
        if self.config.switch("truncate", true)? {
            (low, high) = (low.floor(), high.ceil());
        }
        let (low, mut high) = (low.max(0.0), high.min(self.dim as f64 - 1.0));
        if low == high {
            high += 0.001;
        }
        let blended = |(i, power): (usize, f32)| {
            let ramp = ((i as f32 - low as f32) / (high - low) as f32).clamp(0.0, 1.0);
            let keep = 1.0 - ramp;
            (1.0 / (factor as f32 * power)) * (1.0 - keep) + (1.0 / power) * keep
        };
        Ok((self.powers().enumerate().map(blended).collect(), attention as f32))
    }
}
