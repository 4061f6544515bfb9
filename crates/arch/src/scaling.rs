//! Which layers see one input, and what makes that input: for scaling its columns without changing what a model computes.
//!
//! Only models whose blocks are known to be built so: a norm whose output nothing else sees, before the projections of the
//! attention and before the gated feed-forward layer. Where experts see a norm's output, it is left alone: a router and every
//! expert would have to be scaled alike, by statistics that rare experts lack.

use std::collections::BTreeSet;

/// What makes an input.
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    /// The weights of a norm, used with a number added to them.
    Norm {
        /// The norm.
        module: String,
        /// What is added: one in Gemma.
        plus: f32,
    },
    /// The rows of a linear layer: what is computed with its outputs leaves columns apart, and multiplies.
    Rows {
        /// The layer.
        module: String,
    },
}

/// Linear layers that see one input.
#[derive(Clone, Debug, PartialEq)]
pub struct SameInput {
    /// What makes it.
    pub source: Source,
    /// The layers.
    pub modules: Vec<String>,
}

/// Kinds of models (`model_type`) whose blocks are like Llama's, and what their norms add.
const KINDS: &[(&str, f32)] = &[
    ("llama", 0.0),
    ("mistral", 0.0),
    ("mixtral", 0.0),
    ("qwen2", 0.0),
    ("qwen2_moe", 0.0),
    ("qwen3", 0.0),
    ("qwen3_moe", 0.0),
    ("phi3", 0.0),
    ("granite", 0.0),
    ("gemma", 1.0),
    ("gemma2", 1.0),
    ("gemma3", 1.0),
    ("gemma3_text", 1.0),
];

/// What the attention of such models consists of.
const ATTENTION: &[&str] = &["q_proj", "k_proj", "v_proj", "qkv_proj", "o_proj", "q_norm", "k_norm"];

/// Kinds of models that [`same_inputs`] knows.
pub fn scalable_kinds() -> impl Iterator<Item = &'static str> {
    KINDS.iter().map(|(kind, _)| *kind)
}

/// The layers of a model that see one input each, by the names of its weights; `None` for kinds that are not known.
pub fn same_inputs<'a>(kind: &str, weights: impl IntoIterator<Item = &'a str>) -> Option<Vec<SameInput>> {
    let plus = KINDS.iter().find(|(known, _)| *known == kind)?.1;
    let modules: BTreeSet<&str> = weights.into_iter().filter_map(|n| n.strip_suffix(".weight")).collect();
    let has = |module: &str| modules.contains(module);
    let below = |parent: &str| {
        let parent = format!("{parent}.");
        modules.iter().filter_map(move |m| m.strip_prefix(&*parent).map(str::to_owned)).collect::<Vec<_>>()
    };
    let all = |parent: &str, names: &[&str]| {
        let modules: Vec<String> = names.iter().map(|n| format!("{parent}.{n}")).collect();
        modules.iter().all(|m| has(m)).then_some(modules)
    };
    let mut found = Vec::new();
    let mut norm = |block: &str, names: &[&str], modules: Option<Vec<String>>| {
        let module = names.iter().map(|n| format!("{block}.{n}")).find(|m| has(m));
        if let (Some(module), Some(modules)) = (module, modules) {
            found.push(SameInput { source: Source::Norm { module, plus }, modules });
        }
    };
    for attention in modules.iter().filter_map(|m| m.strip_suffix(".o_proj")) {
        let Some(block) = attention.strip_suffix(".self_attn") else { continue };
        if below(attention).iter().all(|m| ATTENTION.contains(&&**m)) {
            let projections = all(attention, &["q_proj", "k_proj", "v_proj"]);
            norm(block, &["input_layernorm"], projections.or_else(|| all(attention, &["qkv_proj"])));
        }
    }
    for feed_forward in modules.iter().filter_map(|m| m.strip_suffix(".down_proj")) {
        let Some(block) = feed_forward.strip_suffix(".mlp") else { continue };
        let known = ["gate_proj", "up_proj", "gate_up_proj", "down_proj"];
        if below(feed_forward).iter().all(|m| known.contains(&&**m)) {
            let projections = all(feed_forward, &["gate_proj", "up_proj"]);
            // Gemma 2 and 3 have a norm after the attention, too, under the name that others' second norm has.
            let names = ["pre_feedforward_layernorm", "post_attention_layernorm"];
            norm(block, &names, projections.or_else(|| all(feed_forward, &["gate_up_proj"])));
        }
    }
    for (from, to) in [("v_proj", "o_proj"), ("up_proj", "down_proj")] {
        for parent in modules.iter().filter_map(|m| m.strip_suffix(&format!(".{to}"))) {
            let module = format!("{parent}.{from}");
            if has(&module) {
                let modules = vec![format!("{parent}.{to}")];
                found.push(SameInput { source: Source::Rows { module }, modules });
            }
        }
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(more: &[&str]) -> Vec<String> {
        let usual = [
            "input_layernorm",
            "self_attn.q_proj",
            "self_attn.k_proj",
            "self_attn.v_proj",
            "self_attn.o_proj",
            "post_attention_layernorm",
        ];
        usual.iter().chain(more).map(|m| format!("model.layers.0.{m}.weight")).collect()
    }

    fn texts(kind: &str, names: &[String]) -> Vec<String> {
        let found = same_inputs(kind, names.iter().map(String::as_str)).unwrap();
        let short = |m: &str| m.trim_start_matches("model.layers.0.").to_owned();
        let text = |s: SameInput| {
            let to: Vec<String> = s.modules.iter().map(|m| short(m)).collect();
            match s.source {
                Source::Norm { module, plus } => format!("{}+{plus} -> {}", short(&module), to.join(" ")),
                Source::Rows { module } => format!("{} -> {}", short(&module), to.join(" ")),
            }
        };
        found.into_iter().map(text).collect()
    }

    const ATTENTION_OF_LLAMA: &str =
        "input_layernorm+0 -> self_attn.q_proj self_attn.k_proj self_attn.v_proj";

    #[test]
    fn a_block_of_llama() {
        let names = block(&["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]);
        let wanted = [
            ATTENTION_OF_LLAMA,
            "post_attention_layernorm+0 -> mlp.gate_proj mlp.up_proj",
            "self_attn.v_proj -> self_attn.o_proj",
            "mlp.up_proj -> mlp.down_proj",
        ];
        assert_eq!(texts("llama", &names), wanted);
        assert_eq!(same_inputs("bert", names.iter().map(String::as_str)), None);
    }

    #[test]
    fn gemmas_second_norm_is_another() {
        let names = block(&["pre_feedforward_layernorm", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]);
        assert_eq!(texts("gemma2", &names)[1], "pre_feedforward_layernorm+1 -> mlp.gate_proj mlp.up_proj");
    }

    #[test]
    fn what_experts_see_is_left_alone() {
        let names = block(&[
            "mlp.gate",
            "mlp.experts.0.gate_proj",
            "mlp.experts.0.up_proj",
            "mlp.experts.0.down_proj",
        ]);
        let wanted = [
            ATTENTION_OF_LLAMA,
            "self_attn.v_proj -> self_attn.o_proj",
            "mlp.experts.0.up_proj -> mlp.experts.0.down_proj",
        ];
        assert_eq!(texts("qwen3_moe", &names), wanted);
    }

    #[test]
    fn unknown_parts_of_attention_keep_its_norm() {
        let names = block(&["self_attn.gate"]);
        assert_eq!(texts("llama", &names), ["self_attn.v_proj -> self_attn.o_proj"]);
    }
}
