//! `quantization_config`, key by key as compressed-tensors writes it.

use super::super::{plain_modules, told};
use crate::{
    scheme::{Flavour, Scheme},
    target::Used,
};
use regex::Regex;
use serde_json::{Map, Value as Json, json};
use std::collections::{BTreeSet, HashMap};
use tensormill_kernels::groups::{Code, Offset, ScaleType};
use tensormill_model::{Error, Result};

/// What all of these layouts are told of as.
pub(super) const FAMILY: &str = "compressed-tensors";

/// The version whose layouts these are.
const VERSION: &str = "0.20.0";

/// The entries of a mixture whose first scheme is `scheme`.
pub(super) fn config(scheme: &Scheme, used: &[Used]) -> Result<Map<String, Json>> {
    // In the order in which they first appear; one of them alone may say that it means all linear layers.
    let mut groups: Vec<(&Scheme, Vec<&str>)> = Vec::new();
    for u in used {
        let Some(s) = u.scheme else { continue };
        match groups.iter_mut().find(|(g, _)| std::ptr::eq(*g, s)) {
            Some((_, modules)) => modules.push(&u.module),
            None => groups.push((s, vec![&u.module])),
        }
    }
    if groups.is_empty() {
        groups.push((scheme, Vec::new()));
    }
    let alone = groups.len() == 1;
    let patterns = Patterns::new(used);
    let mut config_groups = Map::new();
    let mut formats: Vec<&str> = Vec::new();
    for (i, (s, modules)) in groups.iter().enumerate() {
        let targets = if alone { vec!["Linear".to_owned()] } else { patterns.targets(modules)? };
        config_groups.insert(format!("group_{i}"), group(s, &targets));
        if !formats.contains(&s.layout.id()) {
            formats.push(s.layout.id());
        }
    }
    Ok(told(json!({
        "config_groups": config_groups,
        "format": if let [one] = formats.as_slice() { one } else { "mixed-precision" },
        "global_compression_ratio": null,
        "ignore": plain_modules(used),
        "kv_cache_scheme": null,
        "moe_sparsity_config": null,
        "quant_method": FAMILY,
        "quantization_status": "compressed",
        "sparsity_config": {},
        "transform_config": {},
        "version": VERSION,
    })))
}

fn group(scheme: &Scheme, targets: &[String]) -> Json {
    json!({
        "format": scheme.layout.id(),
        "input_activations": activations(scheme),
        "output_activations": null,
        "targets": targets,
        "weights": weights(scheme),
    })
}

fn kind(code: Code) -> &'static str {
    if matches!(code, Code::Int(_)) { "int" } else { "float" }
}

fn weights(scheme: &Scheme) -> Json {
    let grid = scheme.grid;
    let strategy = match (grid.rows, grid.group, grid.outer) {
        (0, ..) => "tensor",
        (1, 0, _) => "channel",
        (1, _, true) => "tensor_group",
        (1, _, false) => "group",
        _ => "block",
    };
    let mut args = json!({
        "dynamic": false,
        "group_size": if grid.rows == 1 && grid.group > 0 { json!(grid.group) } else { Json::Null },
        "num_bits": grid.code.bits(),
        "strategy": strategy,
        "symmetric": grid.offset != Offset::Point,
        "type": kind(grid.code),
    });
    if grid.rows > 1 {
        args["block_structure"] = json!([grid.rows, grid.group]);
    }
    match scheme.scale {
        Some(ScaleType::E4M3) => args["scale_dtype"] = json!("torch.float8_e4m3fn"),
        Some(ScaleType::E8M0) => args["scale_dtype"] = json!("torch.uint8"),
        _ => {}
    }
    args
}

/// Activations, which are quantized when they are there: nothing has to be known of them before.
fn activations(scheme: &Scheme) -> Json {
    let (strategy, group) = match scheme.flavour {
        Flavour::TokenActivations => ("token", Json::Null),
        Flavour::BlockActivations => ("group", json!(scheme.grid.group)),
        _ => return Json::Null,
    };
    json!({
        "dynamic": true,
        "group_size": group,
        "num_bits": 8,
        "strategy": strategy,
        "symmetric": true,
        "type": kind(scheme.grid.code),
    })
}

/// Names of modules up to the numbers in them.
struct Patterns<'a> {
    number: Regex,
    /// Which schemes the modules of a pattern have; by the scheme's name.
    schemes: HashMap<String, Vec<Option<&'a str>>>,
}

impl<'a> Patterns<'a> {
    fn new(used: &'a [Used]) -> Self {
        // What lies between dots.
        let number = Regex::new(r"(^|\\\.)[0-9]+($|\\\.)").unwrap_or_else(|e| unreachable!("{e}"));
        let mut patterns = Self { number, schemes: HashMap::new() };
        for u in used {
            let name = u.scheme.map(|s| s.name);
            let pattern = patterns.of(&u.module);
            let schemes = patterns.schemes.entry(pattern).or_default();
            if !schemes.contains(&name) {
                schemes.push(name);
            }
        }
        patterns
    }

    fn of(&self, module: &str) -> String {
        format!("re:^{}$", self.number.replace_all(&regex::escape(module), "$1[0-9]+$2"))
    }

    /// What means these modules and no other: patterns where all modules of a pattern have one scheme, else names.
    fn targets(&self, modules: &[&str]) -> Result<Vec<String>> {
        let mut targets = BTreeSet::new();
        for module in modules {
            let pattern = self.of(module);
            let Some(schemes) = self.schemes.get(&pattern) else {
                return Err(Error::mismatch(format!("{module} was not among those quantized")));
            };
            let target = if schemes.len() == 1 { pattern } else { (*module).to_owned() };
            targets.insert(target);
        }
        Ok(targets.into_iter().collect())
    }
}
