//! `adapter_config.json`, the names of an adapter's tensors, and its card, as PEFT reads them.
//!
//! Scales are one everywhere: alpha is the rank, in patterns, too. A loader that knows no patterns computes the same.

use super::{
    Extraction, Options,
    pairs::{How, Pair, Pairs, leaf, task},
    run::Outcome,
};
use serde_json::{Map, Value as Json, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
};

/// Names of a pair's tensors in the adapter: `A` and `B`, or the parameter.
pub(super) fn names(pair: &Pair, has_factors: bool) -> Vec<String> {
    let module = format!("base_model.model.{}", pair.module);
    match pair.how {
        How::Linear(_) | How::Convolution => {
            vec![format!("{module}.lora_A.weight"), format!("{module}.lora_B.weight")]
        }
        How::Embedding => vec![format!("{module}.lora_embedding_A"), format!("{module}.lora_embedding_B")],
        // A bias whose module has factors stands in the layer that PEFT wraps.
        How::Bias if has_factors => vec![format!("{module}.base_layer.bias")],
        // PEFT demands both names of a tied tensor.
        How::Whole if pair.is_output => {
            vec![format!("base_model.model.{}", pair.name), "base_model.model.lm_head.weight".to_owned()]
        }
        How::Bias | How::Whole | How::Refused(_) => vec![format!("base_model.model.{}", pair.name)],
    }
}

/// Whether names that PEFT looks for mean this module.
type Means = fn(&str, &str) -> bool;

/// `target_modules`: the end of a name, behind a dot.
fn targets(name: &str, module: &str) -> bool {
    module == name || module.strip_suffix(name).is_some_and(|rest| rest.ends_with('.'))
}

/// `modules_to_save`: the end of a name, wherever it begins.
fn saves(name: &str, module: &str) -> bool {
    module.ends_with(name)
}

/// Modules that are kept whole: those that changed, and those that PEFT takes for them.
pub(super) fn saved_modules(found: &Pairs, outcomes: &[Outcome]) -> BTreeSet<String> {
    let whole = |p: &&Pair| p.how == How::Whole;
    let all: BTreeSet<&str> = found.list.iter().filter(whole).map(|p| p.module.as_str()).collect();
    let changed = found.list.iter().zip(outcomes).filter(|(p, o)| p.base.is_none() || o.energy > 0.0);
    let mut saved: BTreeSet<String> =
        changed.map(|(p, _)| p).filter(whole).map(|p| p.module.clone()).collect();
    let too: Vec<String> = all
        .iter()
        .filter(|module| saved.iter().any(|s| saves(s, module)))
        .map(|module| (*module).to_owned())
        .collect();
    saved.extend(too);
    saved
}

/// The shortest list that means these modules and no other.
fn shortest(wanted: &BTreeSet<&str>, all: &BTreeSet<String>, means: Means) -> Vec<String> {
    let mut by_leaf: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for module in wanted {
        by_leaf.entry(leaf(module)).or_default().push(module);
    }
    let list = by_leaf.into_iter().flat_map(|(leaf, modules)| {
        let sharp = all.iter().filter(|m| means(leaf, m)).all(|m| wanted.contains(m.as_str()));
        if sharp { vec![leaf.to_owned()] } else { modules.into_iter().map(str::to_owned).collect() }
    });
    list.collect()
}

/// `adapter_config.json`.
pub(super) fn config(
    found: &Pairs,
    outcomes: &[Outcome],
    saved: &BTreeSet<String>,
    base_name: &str,
    options: &Options,
) -> Json {
    let ranks: BTreeMap<&str, usize> = found
        .list
        .iter()
        .zip(outcomes)
        .filter(|(p, o)| p.how.is_low_rank() && o.rank > 0)
        .map(|(p, o)| (p.module.as_str(), o.rank))
        .collect();
    let rank = ranks.values().max().copied().unwrap_or(options.rank);
    let others: Map<String, Json> =
        ranks.iter().filter(|(_, r)| **r != rank).map(|(m, r)| ((*m).to_owned(), (*r).into())).collect();
    let biases = |with_factors: bool| {
        let changed = |(p, o): &(&Pair, &Outcome)| p.how == How::Bias && o.energy > 0.0;
        let mut all = found.list.iter().zip(outcomes).filter(changed);
        all.any(|(p, _)| ranks.contains_key(p.module.as_str()) == with_factors)
    };
    let saved: BTreeSet<&str> = saved.iter().map(String::as_str).collect();
    let turned = |p: &Pair| p.how == How::Linear(true) && ranks.contains_key(p.module.as_str());
    let output_changed = found.list.iter().any(|p| p.is_output && saved.contains(p.module.as_str()));
    let mut config = json!({
        "peft_type": "LORA",
        "task_type": task(&found.config),
        "base_model_name_or_path": base_name,
        "inference_mode": true,
        "r": rank,
        "lora_alpha": rank,
        "lora_dropout": 0.0,
        "use_rslora": false,
        "use_dora": false,
        "fan_in_fan_out": found.list.iter().any(turned),
        "bias": if biases(false) { "all" } else if biases(true) { "lora_only" } else { "none" },
        "target_modules": shortest(&ranks.keys().copied().collect(), &found.modules, targets),
        "modules_to_save": if saved.is_empty() { Json::Null } else { shortest(&saved, &found.modules, saves).into() },
        "rank_pattern": others,
        "alpha_pattern": others,
    });
    // Without it PEFT would change the input and leave the output, which is the same tensor, as it was.
    if output_changed {
        config["ensure_weight_tying"] = true.into();
    }
    config
}

/// The model card.
pub(super) fn card(base_name: &str, report: &Extraction) -> String {
    let mut text = String::from("---\n");
    // A JSON string is a YAML string.
    let _ = writeln!(text, "base_model: {}\nlibrary_name: peft\ntags:\n- lora\n---\n", Json::from(base_name));
    let _ = writeln!(
        text,
        "A LoRA adapter of rank {}: the change from `{base_name}` to `{}`, extracted by tensormill {}.\n",
        report.rank,
        report.tuned,
        env!("CARGO_PKG_VERSION")
    );
    let factors = report.tensors.iter().filter(|t| t.rank.is_some()).count();
    let whole = report.tensors.iter().filter(|t| matches!(t.held, "whole" | "bias")).count();
    let _ = writeln!(
        text,
        "It holds {:.2} % of the change's squared norm (relative error {:.4}): {factors} tensors as two factors, {whole} as \
         they are, {} numbers. {} tensors did not change.",
        100.0 * report.energy_kept,
        report.relative_error,
        report.parameters,
        report.unchanged
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_mean_the_modules_and_no_other() {
        let all: BTreeSet<String> = ["m.0.q", "m.1.q", "m.0.k", "m.1.k", "m.norm", "m.0.in_norm", "m", "m.0"]
            .into_iter()
            .map(str::to_owned)
            .collect();
        let of = |wanted: &[&'static str], means| shortest(&wanted.iter().copied().collect(), &all, means);
        assert_eq!(of(&["m.0.q", "m.1.q", "m.0.k"], targets), ["m.0.k", "q"]);
        assert_eq!(of(&["m.norm"], targets), ["norm"]);
        assert_eq!(of(&["m.norm"], saves), ["m.norm"]);
        assert_eq!(of(&["m.norm", "m.0.in_norm"], saves), ["in_norm", "norm"]);
    }
}
