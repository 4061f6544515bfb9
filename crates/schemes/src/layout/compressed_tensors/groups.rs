//! `config_groups`: which modules are quantized how.

use crate::source::SourceCx;
use regex::Regex;
use serde_json::Value as Json;
use tensormill_model::{Error, Result};

/// How weights of a group are quantized.
#[derive(Debug)]
pub(super) struct Group {
    targets: Vec<Target>,
    /// Bits of a code: 1 to 8.
    pub bits: u8,
    pub strategy: Option<String>,
    /// Columns that share a scale.
    pub wide: Option<u32>,
    /// Rows and columns that share a scale.
    pub block: Option<(u32, u32)>,
    pub float: bool,
}

#[derive(Debug)]
enum Target {
    Name(String),
    /// `None`: an expression of Python's that is none here.
    Pattern(Option<Regex>),
    Class,
}

impl Target {
    fn new(text: &str) -> Self {
        match text.strip_prefix("re:") {
            // Python's `match` begins at the first character, and needs not reach the last.
            Some(pattern) => Self::Pattern(Regex::new(&format!("^(?:{pattern})")).ok()),
            None if text.contains('.') => Self::Name(text.to_owned()),
            None => Self::Class,
        }
    }

    /// How well it fits: names before patterns before classes. A class may mean any module that is quantized, and what cannot
    /// be read as well.
    fn fits(&self, module: &str) -> Option<u8> {
        match self {
            Self::Name(name) => (name == module).then_some(3),
            Self::Pattern(Some(pattern)) => pattern.is_match(module).then_some(2),
            Self::Class => Some(1),
            Self::Pattern(None) => Some(0),
        }
    }
}

fn malformed(what: impl Into<String>) -> Error {
    Error::malformed(what.into()).file("config.json")
}

/// The groups that say something of weights.
pub(super) fn groups(cx: &SourceCx<'_>) -> Result<Vec<Group>> {
    let Some(groups) = cx.quantization.get("config_groups").and_then(Json::as_object) else {
        return Err(malformed("quantization_config has no config_groups"));
    };
    let mut out = Vec::new();
    for (name, group) in groups {
        let Some(targets) = group.get("targets").and_then(Json::as_array) else {
            return Err(malformed(format!("{name} of config_groups has no targets")));
        };
        let Some(weights) = group.get("weights").filter(|w| w.is_object()) else { continue };
        let number = |key: &str| match weights.get(key) {
            None | Some(Json::Null) => Ok(None),
            Some(n) => match n.as_i64() {
                // -1 is how some say "the whole row".
                Some(-1) => Ok(None),
                Some(n) => u32::try_from(n).map(Some).map_err(|_| malformed(format!("{name}: {key} is {n}"))),
                None => Err(malformed(format!("{name}: {key} is {n}"))),
            },
        };
        let bits = number("num_bits")?.unwrap_or(8);
        if !(1..=8).contains(&bits) {
            return Err(malformed(format!("{name}: weights of {bits} bits")));
        }
        let group_size = number("group_size")?;
        if group_size == Some(0) {
            return Err(malformed(format!("{name}: group_size is 0")));
        }
        let block = match weights.get("block_structure") {
            None | Some(Json::Null) => None,
            // "128x128" is how older versions wrote it.
            Some(Json::String(text)) => {
                let sides: Vec<Json> =
                    text.split('x').filter_map(|s| s.parse::<u32>().ok()).map(Json::from).collect();
                Some(super::super::fp8::block(&Json::Array(sides))?)
            }
            Some(size) => Some(super::super::fp8::block(size)?),
        };
        out.push(Group {
            targets: targets.iter().filter_map(Json::as_str).map(Target::new).collect(),
            bits: bits as u8,
            strategy: weights.get("strategy").and_then(Json::as_str).map(str::to_owned),
            wide: group_size,
            block,
            float: weights.get("type").and_then(Json::as_str) == Some("float"),
        });
    }
    Ok(out)
}

/// The group of a module, among those that `can` hold what its tensors are.
pub(super) fn group_of<'g>(
    groups: &'g [Group],
    module: &str,
    can: impl Fn(&Group) -> bool,
) -> Result<&'g Group> {
    let fit = |g: &Group| g.targets.iter().filter_map(|t| t.fits(module)).max();
    groups
        .iter()
        .filter(|g| can(g))
        .filter_map(|g| Some((fit(g)?, g)))
        // The first of equals.
        .rev()
        .max_by_key(|(fit, _)| *fit)
        .map(|(_, g)| g)
        .ok_or_else(|| malformed(format!("no group of config_groups says how {module} is quantized")))
}
