//! `adapter_config.json`: what scales an adapter's products, and what it asks for that is not known here.

use super::{Change, Family, Parts, lora, lycoris, rotations, scales};
use regex::Regex;
use serde_json::{Map, Value};
use tensormill_model::{Error, Result};

/// The file's name.
pub(crate) const FILE: &str = "adapter_config.json";

/// The configuration of an adapter.
#[derive(Debug)]
pub struct Config {
    pub(super) family: Box<dyn Family>,
    /// Rows of embeddings that were trained: the embedding's name, or that of all, and tokens.
    tokens: Vec<(Option<String>, Vec<u64>)>,
    /// What a user may want to know.
    pub notes: Vec<String>,
}

/// Keys whose presence, other than empty, means another computation than the ones here.
const REFUSED: &[(&str, &str)] = &[
    ("alora_invocation_tokens", "aLoRA acts on some tokens only and cannot be merged"),
    ("arrow_config", "Arrow routes between adapters and cannot be merged"),
    ("kasa_config", "KaSA is not merged by this version"),
    ("layer_replication", "layer_replication builds a model of other layers"),
    ("monteclora_config", "MonteCLoRA samples its weights"),
    ("use_bdlora", "block-diagonal LoRA is not merged by this version"),
    ("use_qalora", "QALoRA is not merged by this version"),
    ("velora_config", "VeLoRA is not merged by this version"),
];

/// Families that no merge can express, and why.
const UNMERGEABLE: &[(&str, &str)] = &[
    ("XLORA", "X-LoRA weighs its adapters anew for every token"),
    ("POLY", "Polytropon weighs its adapters by task"),
    ("PROMPT_TUNING", "prompt tuning adds to a model's input"),
    ("MULTITASK_PROMPT_TUNING", "prompt tuning adds to a model's input"),
    ("P_TUNING", "p-tuning adds to a model's input"),
    ("PREFIX_TUNING", "prefix tuning adds to the cache of keys and values"),
    ("CPT", "context-aware prompt tuning adds to a model's input"),
    ("ADAPTION_PROMPT", "adaption prompts add to the attention"),
];

impl Config {
    /// Reads the configuration of an adapter.
    ///
    /// # Errors
    /// `Malformed` for what is no such file, `Unsupported` for families that are not merged, by name.
    pub fn parse(json: &[u8]) -> Result<Self> {
        let bad = |what: String| Error::malformed(what).file(FILE);
        let value: Value = serde_json::from_slice(json).map_err(|e| bad(format!("not valid JSON: {e}")))?;
        let Value::Object(map) = value else { return Err(bad("not a JSON object".into())) };
        let family = map.get("peft_type").and_then(Value::as_str);
        let name = family.ok_or_else(|| bad("there is no peft_type".into()))?;
        let refuse = |why: String| {
            Err(Error::unsupported(why)
                .file(FILE)
                .hint("merge it with PEFT (merge_and_unload) and convert the result"))
        };
        for (key, why) in REFUSED {
            if map.get(*key).is_some_and(|v| !is_empty(v)) {
                return refuse((*why).to_owned());
            }
        }
        if let Some((_, why)) = UNMERGEABLE.iter().find(|(n, _)| *n == name) {
            return Err(Error::unsupported(format!(
                "an adapter of the family {name} cannot be merged: {why}"
            ))
            .file(FILE)
            .hint("convert the base model, and run the adapter beside it where that is possible"));
        }
        let fields = Fields(&map);
        let family: Box<dyn Family> = match name {
            "LORA" => Box::new(lora::Lora::parse(fields)?),
            "ADALORA" => Box::new(lora::AdaLora::parse(fields)),
            "LOHA" => Box::new(lycoris::LoHa::parse(fields)?),
            "LOKR" => Box::new(lycoris::LoKr::parse(fields)?),
            "IA3" => Box::new(scales::Ia3::parse(fields)?),
            "VERA" => Box::new(scales::Vera::parse(fields)),
            "OFT" => Box::new(rotations::Oft::parse(fields)),
            "BOFT" => Box::new(rotations::Boft),
            "LN_TUNING" | "TRAINABLE_TOKENS" => Box::new(OnlyWhole),
            other => return refuse(format!("adapters of the family {other} are not merged by this version")),
        };
        Ok(Self { family, tokens: tokens(&map)?, notes: notes(&map) })
    }

    /// Tokens whose rows of an embedding were trained.
    pub(super) fn tokens(&self, parameter: &str) -> Option<Vec<u64>> {
        let module = parameter.trim_end_matches(".weight");
        let ends = |name: &str| module == name || module.ends_with(&format!(".{name}"));
        let found = self.tokens.iter().find(|(name, _)| name.as_deref().is_none_or(ends));
        found.map(|(_, tokens)| tokens.clone())
    }
}

/// A family without parts of its own: parameters are replaced.
#[derive(Debug)]
struct OnlyWhole;

impl Family for OnlyWhole {
    fn words(&self) -> &'static [&'static str] {
        &[]
    }
    fn change(&self, _: &str, _: &Parts<'_>, _: &Parts<'_>) -> Result<Change> {
        Err(Error::malformed("a part of an adapter that has none"))
    }
}

/// The configuration's fields.
#[derive(Clone, Copy)]
pub(super) struct Fields<'a>(&'a Map<String, Value>);

impl<'a> Fields<'a> {
    pub(super) fn flag(self, key: &str) -> bool {
        self.0.get(key).and_then(Value::as_bool).unwrap_or(false)
    }
    pub(super) fn whole(self, key: &str) -> Option<u64> {
        self.0.get(key).and_then(Value::as_u64)
    }
    pub(super) fn number(self, key: &str) -> Option<f64> {
        self.0.get(key).and_then(Value::as_f64).filter(|x| x.is_finite())
    }
    pub(super) fn text(self, key: &str) -> Option<&'a str> {
        self.0.get(key).and_then(Value::as_str)
    }
    /// A list of names; empty where there is none.
    pub(super) fn names(self, key: &str) -> Vec<String> {
        let list = self.0.get(key).and_then(Value::as_array);
        list.map_or_else(Vec::new, |l| l.iter().filter_map(Value::as_str).map(str::to_owned).collect())
    }
    pub(super) fn ranks(self, rank: &str, alpha: &str) -> Result<Ranks> {
        let bad = |what: String| Error::malformed(what).file(FILE);
        let r = self.whole(rank).filter(|r| *r > 0);
        let a = self.number(alpha);
        Ok(Ranks {
            rank: r.ok_or_else(|| bad(format!("{rank} is not a positive number")))?,
            alpha: a.ok_or_else(|| bad(format!("{alpha} is not a number")))?,
            rank_of: patterns(self.0, "rank_pattern", Value::as_u64)?,
            alpha_of: patterns(self.0, "alpha_pattern", Value::as_f64)?,
        })
    }
}

/// Ranks and alphas of modules.
#[derive(Clone, Debug)]
pub(super) struct Ranks {
    rank: u64,
    alpha: f64,
    rank_of: Vec<(Regex, u64)>,
    alpha_of: Vec<(Regex, f64)>,
}

impl Ranks {
    /// Rank of the adapter on a module.
    pub(super) fn rank(&self, module: &str) -> u64 {
        find(&self.rank_of, module).unwrap_or(self.rank)
    }
    /// Its alpha.
    pub(super) fn alpha(&self, module: &str) -> f64 {
        find(&self.alpha_of, module).unwrap_or(self.alpha)
    }
}

/// `token_indices`, or `trainable_token_indices` as a list or as lists by the embedding's name.
fn tokens(map: &Map<String, Value>) -> Result<Vec<(Option<String>, Vec<u64>)>> {
    /// More than any vocabulary's.
    const MOST: usize = 1 << 20;
    let list = |v: &Value| -> Option<Vec<u64>> {
        v.as_array().filter(|l| l.len() <= MOST)?.iter().map(Value::as_u64).collect()
    };
    let Some(value) = ["trainable_token_indices", "token_indices"].iter().find_map(|k| map.get(*k)) else {
        return Ok(Vec::new());
    };
    let all = match value {
        Value::Null => Some(Vec::new()),
        Value::Object(by_name) => {
            by_name.iter().map(|(name, v)| Some((Some(name.clone()), list(v)?))).collect()
        }
        other => list(other).map(|l| vec![(None, l)]),
    };
    all.ok_or_else(|| Error::malformed("the trained tokens are not a list of numbers").file(FILE))
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

    fn parse(text: &str) -> Result<Config> {
        Config::parse(text.as_bytes())
    }

    #[test]
    fn ranks_follow_patterns() {
        let text = r#"{"r":8,"lora_alpha":16,
            "rank_pattern":{"layers.1.mlp.up_proj":4,"k_proj":2},"alpha_pattern":{"^x.v_proj":3}}"#;
        let Value::Object(map) = serde_json::from_str(text).unwrap() else { panic!() };
        let c = Fields(&map).ranks("r", "lora_alpha").unwrap();
        assert_eq!((c.rank("a.q_proj"), c.rank("a.layers.1.mlp.up_proj"), c.rank("a.b.k_proj")), (8, 4, 2));
        // Part of a name is no match.
        assert_eq!(c.rank("a.bk_proj"), 8);
        assert_eq!((c.alpha("q"), c.alpha("x.v_proj")), (16.0, 3.0));
    }

    #[test]
    fn what_is_not_merged_is_refused_by_name() {
        for (text, kind, says) in [
            (r#"{"peft_type":"XLORA"}"#, ErrorKind::Unsupported, "X-LoRA weighs"),
            (r#"{"peft_type":"FOURIERFT"}"#, ErrorKind::Unsupported, "FOURIERFT"),
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
            (r#"{"peft_type":"TRAINABLE_TOKENS","token_indices":["a"]}"#, ErrorKind::Malformed, "list"),
            ("[]", ErrorKind::Malformed, "object"),
            ("{}", ErrorKind::Malformed, "peft_type"),
        ] {
            let e = parse(text).unwrap_err();
            assert_eq!(e.kind(), kind, "{e}");
            assert!(e.message().contains(says), "{e}");
        }
        let text = r#"{"peft_type":"LORA","r":8,"lora_alpha":8,"init_lora_weights":"pissa_niter_4"}"#;
        assert!(parse(text).unwrap().notes[0].contains("pissa"));
    }
}
