//! From Hugging Face tensor names to kinds, by the table extracted from gguf-py.
//!
//! The table (`data/names.txt`) lists patterns in gguf-py's order; where two kinds of one architecture claim
//! the same name, the later one wins, as in the dictionary there. Nothing here knows what a kind means.

use std::{
    collections::{HashMap, HashSet},
    sync::OnceLock,
};
use tensormill_model::{Kind, Role, Slot};

const TABLE: &str = include_str!("../data/names.txt");

/// The names of one architecture.
pub(crate) struct NameMap {
    patterns: HashMap<&'static str, Kind>,
    layers: u64,
}

fn kind_by_name() -> &'static HashMap<String, Kind> {
    static MAP: OnceLock<HashMap<String, Kind>> = OnceLock::new();
    MAP.get_or_init(|| Kind::ALL.iter().map(|k| (format!("{k:?}"), *k)).collect())
}

impl NameMap {
    /// The names of the architecture `arch` (GGUF spelling), for layers `0..layers`.
    pub fn new(arch: &str, layers: u64) -> Self {
        let kind = |name: &str| kind_by_name()[name];
        let (mut allowed, mut only) = (HashSet::new(), HashMap::new());
        let mut order: Vec<(Kind, Vec<&'static str>)> = Vec::new();
        for line in TABLE.lines() {
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("map") => {
                    if let Some(k) = words.next() {
                        order.push((kind(k), words.collect()));
                    }
                }
                Some("only") if words.next() == Some(arch) => {
                    if let Some(k) = words.next() {
                        only.insert(kind(k), words.collect::<Vec<_>>());
                    }
                }
                Some("arch") if words.next() == Some(arch) => allowed.extend(words.map(kind)),
                _ => {}
            }
        }
        let mut patterns = HashMap::new();
        let mut add = |k: Kind, keys: &[&'static str]| {
            if allowed.contains(&k) {
                patterns.insert(k.pattern(), k);
                patterns.extend(keys.iter().map(|p| (*p, k)));
            }
        };
        for (k, keys) in &order {
            add(*k, only.remove(k).as_ref().unwrap_or(keys));
        }
        for (k, keys) in &only {
            add(*k, keys);
        }
        Self { patterns, layers }
    }

    /// The names of all architectures together, for any number of layers.
    pub fn any() -> Self {
        let mut patterns: HashMap<&'static str, Kind> = HashMap::new();
        for line in TABLE.lines() {
            let mut words = line.split_ascii_whitespace();
            let keys = match words.next() {
                Some("map") => words,
                Some("only") if words.next().is_some() => words,
                _ => continue,
            };
            let mut keys = keys;
            let Some(name) = keys.next() else { continue };
            let Some(k) = kind_by_name().get(name) else { continue };
            // RWKV's are said last, and claim the names that attention has everywhere else.
            let only_new = name.starts_with("TimeMix");
            for pattern in keys {
                if !(only_new && patterns.contains_key(pattern)) {
                    patterns.insert(pattern, *k);
                }
            }
        }
        Self { patterns, layers: u64::MAX }
    }

    /// The role that a name has: the name itself, or the name without `.weight` or `.bias`.
    pub fn role(&self, name: &str) -> Option<Role> {
        let with = |slot: Slot| move |(kind, layer)| Role::new(kind, layer, slot);
        self.base(name)
            .map(with(Slot::Bare))
            .or_else(|| self.base(name.strip_suffix(".weight")?).map(with(Slot::Weight)))
            .or_else(|| self.base(name.strip_suffix(".bias")?).map(with(Slot::Bias)))
    }

    fn base(&self, name: &str) -> Option<(Kind, Option<u32>)> {
        if let Some(kind) = self.patterns.get(name) {
            return Some((*kind, None));
        }
        // Every run of digits may be the layer number; patterns hold one `{bid}`.
        let bytes = name.as_bytes();
        let mut i = 0;
        while i < bytes.len() {
            if !bytes[i].is_ascii_digit() {
                i += 1;
                continue;
            }
            let end = (i..bytes.len()).find(|&j| !bytes[j].is_ascii_digit()).unwrap_or(bytes.len());
            let digits = &name[i..end];
            let canonical = digits == "0" || !digits.starts_with('0');
            if let (true, Ok(layer)) = (canonical, digits.parse::<u32>())
                && u64::from(layer) < self.layers
            {
                let pattern = format!("{}{{bid}}{}", &name[..i], &name[end..]);
                if let Some(kind) = self.patterns.get(pattern.as_str()) {
                    return Some((*kind, Some(layer)));
                }
            }
            i = end;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_roles() {
        let m = NameMap::new("llama", 4);
        let name = |s: &str| m.role(s).map(|r| r.to_string());
        assert_eq!(name("model.embed_tokens.weight").as_deref(), Some("token_embd.weight"));
        assert_eq!(name("model.layers.3.self_attn.q_proj.bias").as_deref(), Some("blk.3.attn_q.bias"));
        assert_eq!(name("blk.1.ffn_up.weight").as_deref(), Some("blk.1.ffn_up.weight"));
        assert_eq!(name("model.layers.4.self_attn.q_proj.weight"), None);
        assert_eq!(name("model.layers.03.self_attn.q_proj.weight"), None);
        assert_eq!(name("model.layers.3.self_attn.q_norm.weight"), None);
    }

    #[test]
    fn every_line_of_the_table_is_understood() {
        let mut archs = 0;
        for line in TABLE.lines() {
            let words: Vec<&str> = line.split_ascii_whitespace().collect();
            let kinds = match words[0] {
                "map" => &words[1..2],
                "only" => &words[2..3],
                "arch" => {
                    archs += 1;
                    &words[2..]
                }
                other => panic!("unknown line {other}"),
            };
            for k in kinds {
                assert!(kind_by_name().contains_key(*k), "{k} is no kind");
            }
        }
        assert!(archs > 100, "{archs} architectures");
    }
}
