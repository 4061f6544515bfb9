//! `adapter_config.json`: what scales an adapter's products, and what it asks for that is not known here.

use regex::Regex;
use serde_json::{Map, Value};
use tensormill_model::{Error, Result};

/// The file's name.
pub(crate) const FILE: &str = "adapter_config.json";

/// The configuration of a LoRA adapter.
#[derive(Clone, Debug)]
pub struct Config {
    rank: u64,
    alpha: f64,
    ranks: Vec<(Regex, u64)>,
    alphas: Vec<(Regex, f64)>,
    rank_stabilised: bool,
    /// Weights have shape `[in, out]` (`Conv1D` of GPT-2).
    pub fan_in_fan_out: bool,
    /// Magnitudes are trained apart from directions.
    pub dora: bool,
    /// What a user may want to know.
    pub notes: Vec<String>,
}

/// Keys whose presence, other than empty, means another computation than the ones here.
const REFUSED: &[(&str, &str)] = &[
    ("alora_invocation_tokens", "aLoRA acts on some tokens only and cannot be merged"),
    ("arrow_config", "Arrow routes between adapters and cannot be merged"),
    ("layer_replication", "layer_replication builds a model of other layers"),
    ("monteclora_config", "MonteCLoRA samples its weights"),
    ("target_parameters", "target_parameters (weights of experts) are not merged by this version"),
    ("trainable_token_indices", "trainable_token_indices are not merged by this version"),
    ("use_bdlora", "block-diagonal LoRA is not merged by this version"),
    ("use_qalora", "QALoRA is not merged by this version"),
    ("velora_config", "VeLoRA is not merged by this version"),
];

impl Config {
    /// Reads the configuration of a LoRA adapter.
    ///
    /// # Errors
    /// `Malformed` for what is no such file, `Unsupported` for other families, which it names.
    pub fn parse(json: &[u8]) -> Result<Self> {
        let bad = |what: String| Error::malformed(what).file(FILE);
        let value: Value = serde_json::from_slice(json).map_err(|e| bad(format!("not valid JSON: {e}")))?;
        let Value::Object(map) = value else { return Err(bad("not a JSON object".into())) };
        let family = map.get("peft_type").and_then(Value::as_str);
        let family = family.ok_or_else(|| bad("there is no peft_type".into()))?;
        if family != "LORA" {
            return Err(Error::unsupported(format!(
                "adapters of the family {family} are not merged by this version"
            ))
            .file(FILE)
            .hint("merge it with PEFT (merge_and_unload) and convert the result"));
        }
        for (key, why) in REFUSED {
            if map.get(*key).is_some_and(|v| !is_empty(v)) {
                return Err(Error::unsupported(*why)
                    .file(FILE)
                    .hint("merge it with PEFT (merge_and_unload) and convert the result"));
            }
        }
        let flag = |key: &str| map.get(key).and_then(Value::as_bool).unwrap_or(false);
        let rank = map.get("r").and_then(Value::as_u64).filter(|r| *r > 0);
        let alpha = map.get("lora_alpha").and_then(Value::as_f64).filter(|a| a.is_finite());
        Ok(Self {
            rank: rank.ok_or_else(|| bad("r is not a positive number".into()))?,
            alpha: alpha.ok_or_else(|| bad("lora_alpha is not a number".into()))?,
            ranks: patterns(&map, "rank_pattern", Value::as_u64)?,
            alphas: patterns(&map, "alpha_pattern", Value::as_f64)?,
            rank_stabilised: flag("use_rslora"),
            fan_in_fan_out: flag("fan_in_fan_out"),
            dora: flag("use_dora"),
            notes: notes(&map),
        })
    }

    /// Rank of the adapter on a module.
    pub fn rank(&self, module: &str) -> u64 {
        find(&self.ranks, module).unwrap_or(self.rank)
    }

    /// What its product is multiplied by: alpha / rank, or alpha / sqrt(rank) where ranks are stabilised.
    pub fn scale(&self, module: &str) -> f64 {
        let rank = self.rank(module) as f64;
        let alpha = find(&self.alphas, module).unwrap_or(self.alpha);
        if self.rank_stabilised { alpha / rank.sqrt() } else { alpha / rank }
    }
}

fn is_empty(v: &Value) -> bool {
    match v {
        Value::Null | Value::Bool(false) => true,
        Value::Array(a) => a.is_empty(),
        Value::Object(o) => o.is_empty(),
        _ => false,
    }
}

/// Keys are regular expressions for the ends of modules' names, behind a dot; the first that matches counts
/// (`get_pattern_key` of PEFT).
fn patterns<T>(
    map: &Map<String, Value>,
    key: &str,
    read: impl Fn(&Value) -> Option<T>,
) -> Result<Vec<(Regex, T)>> {
    /// More than any adapter lists.
    const MOST: usize = 1 << 16;
    let bad = |what: String| Error::malformed(what).file(FILE);
    let Some(table) = map.get(key).and_then(Value::as_object) else { return Ok(Vec::new()) };
    if table.len() > MOST {
        return Err(Error::over_limit(format!("{key} has {} entries", table.len())).file(FILE));
    }
    let each = table.iter().map(|(pattern, value)| {
        let regex = Regex::new(&format!(r"^(?:.*\.)?(?:{pattern})$"))
            .map_err(|e| bad(format!("{key}: {pattern:?} is not a pattern: {e}")))?;
        let value = read(value).ok_or_else(|| bad(format!("{key}: {pattern:?} has no number")))?;
        Ok((regex, value))
    });
    each.collect()
}

fn find<T: Copy>(patterns: &[(Regex, T)], module: &str) -> Option<T> {
    patterns.iter().find(|(regex, _)| regex.is_match(module)).map(|(_, v)| *v)
}

/// Ways of beginning that take something from the base: the adapter then belongs to what is left of it.
fn notes(map: &Map<String, Value>) -> Vec<String> {
    let residual = match map.get("init_lora_weights") {
        Some(Value::String(s)) => {
            let lower = s.to_ascii_lowercase();
            ["pissa", "olora", "loftq", "corda", "lora_ga"].into_iter().find(|k| lower.starts_with(k))
        }
        _ => None,
    };
    residual.map_or_else(Vec::new, |how| {
        vec![format!(
            "the adapter began as {how}, which takes its share out of the base: merge it into the residual base that was \
             saved with it, unless it was converted to plain LoRA when it was saved"
        )]
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tensormill_model::ErrorKind;

    #[test]
    fn scales_follow_patterns_and_rank() {
        let text = r#"{"peft_type":"LORA","r":8,"lora_alpha":16,"use_rslora":true,
            "rank_pattern":{"layers.1.mlp.up_proj":4,"k_proj":2},"alpha_pattern":{"^x.v_proj":3}}"#;
        let c = Config::parse(text.as_bytes()).unwrap();
        assert_eq!((c.rank("a.q_proj"), c.rank("a.layers.1.mlp.up_proj"), c.rank("a.b.k_proj")), (8, 4, 2));
        // Part of a name is no match.
        assert_eq!(c.rank("a.bk_proj"), 8);
        assert!((c.scale("q") - 16.0 / 8f64.sqrt()).abs() < 1e-15);
        assert!((c.scale("k_proj") - 16.0 / 2f64.sqrt()).abs() < 1e-15);
    }

    #[test]
    fn other_families_are_refused_by_name() {
        for (text, kind, says) in [
            (r#"{"peft_type":"LOHA"}"#, ErrorKind::Unsupported, "LOHA"),
            (
                r#"{"peft_type":"LORA","r":8,"lora_alpha":8,"use_qalora":true}"#,
                ErrorKind::Unsupported,
                "QALoRA",
            ),
            (r#"{"peft_type":"LORA","r":0,"lora_alpha":8}"#, ErrorKind::Malformed, "r is not"),
            (
                r#"{"peft_type":"LORA","r":8,"lora_alpha":8,"rank_pattern":{"(":1}}"#,
                ErrorKind::Malformed,
                "pattern",
            ),
            ("[]", ErrorKind::Malformed, "object"),
            ("{}", ErrorKind::Malformed, "peft_type"),
        ] {
            let e = Config::parse(text.as_bytes()).unwrap_err();
            assert_eq!(e.kind(), kind, "{e}");
            assert!(e.message().contains(says), "{e}");
        }
        let text = r#"{"peft_type":"LORA","r":8,"lora_alpha":8,"init_lora_weights":"pissa_niter_4"}"#;
        assert!(Config::parse(text.as_bytes()).unwrap().notes[0].contains("pissa"));
    }
}
