//! What a checkpoint's tensor is for, by its name alone: for choosing what is quantized where no GGUF form is made.
//!
//! Names mean the same throughout the Hugging Face world, with few exceptions; so the tables of all architectures are one
//! here. Must not be used where bytes depend on which architecture a name belongs to.

use crate::names::NameMap;
use std::sync::OnceLock;
use tensormill_model::{Kind, Role, Slot};
use tensormill_tensor::Shape;

/// What a matrix is to those who choose what is quantized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer {
    /// The weight of a linear layer within the blocks.
    Linear,
    /// That of another linear layer: output, router, head.
    OtherLinear,
    /// A table of embeddings.
    Table,
    /// Anything else.
    Other,
}

/// Tables.
const TABLES: &[Kind] = &[Kind::TokenEmbd, Kind::PerLayerTokenEmbd, Kind::PosEmbd, Kind::TokenTypes];

/// Linear layers that no scheme quantizes unless it is told to.
const OTHER_LINEAR: &[Kind] =
    &[Kind::Output, Kind::ClsOut, Kind::FfnGateInp, Kind::FfnGateInpShexp, Kind::IndexerProj];

/// Parts of names of modules, where the tables know nothing.
const TABLE_NAMES: &[&str] = &["embed", "wte", "wpe"];
const OTHER_LINEAR_NAMES: &[&str] = &["lm_head", "router", "classifier", "score", "shared_expert_gate"];
const OTHER_NAMES: &[&str] = &["conv", "norm"];

/// The role of a checkpoint's tensor.
pub fn checkpoint_role(name: &str) -> Option<Role> {
    static NAMES: OnceLock<NameMap> = OnceLock::new();
    NAMES.get_or_init(NameMap::any).role(name)
}

/// What a checkpoint's tensor is.
pub fn layer_of(name: &str, shape: &Shape) -> Layer {
    let Some(module) = name.strip_suffix(".weight").filter(|_| shape.rank() == 2) else {
        return Layer::Other;
    };
    let last = module.rsplit('.').next().unwrap_or(module);
    // GPT-2's Conv1D modules hold matrices the other way round.
    if matches!(last, "c_attn" | "c_proj" | "c_fc") {
        return Layer::Other;
    }
    if let Some(role) = checkpoint_role(name) {
        return match role.kind {
            _ if role.slot != Slot::Weight => Layer::Other,
            kind if TABLES.contains(&kind) => Layer::Table,
            kind if OTHER_LINEAR.contains(&kind) => Layer::OtherLinear,
            kind if kind.stays_f32() => Layer::Other,
            _ => Layer::Linear,
        };
    }
    let has = |names: &[&str]| names.iter().any(|n| last.contains(n));
    match () {
        () if has(TABLE_NAMES) => Layer::Table,
        () if last == "gate" || has(OTHER_LINEAR_NAMES) => Layer::OtherLinear,
        () if has(OTHER_NAMES) => Layer::Other,
        () => Layer::Linear,
    }
}

/// Modules that runtimes run as one matrix, by the last part of their names.
const FUSED: &[&[&str]] =
    &[&["q_proj", "k_proj", "v_proj"], &["gate_proj", "up_proj"], &["w1", "w3"], &["query", "key", "value"]];

/// The modules that runtimes run as one with a module, itself among them.
pub fn fused_with(module: &str) -> Vec<String> {
    let (parent, last) = module
        .rsplit_once('.')
        .map_or(("", module), |(_, last)| (&module[..module.len() - last.len()], last));
    FUSED.iter().find(|names| names.contains(&last)).map_or_else(
        || vec![module.to_owned()],
        |names| names.iter().map(|n| format!("{parent}{n}")).collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn linear_layers_are_told_from_other_matrices() {
        let matrix = Shape::new(vec![64, 64]).unwrap();
        for linear in [
            "model.layers.0.self_attn.q_proj.weight",
            "model.layers.11.mlp.down_proj.weight",
            "model.layers.3.mlp.experts.7.up_proj.weight",
            "encoder.layer.0.attention.self.query.weight",
            "bert.encoder.layer.2.output.dense.weight",
            "pooler.dense.weight",
            "some.unknown.projection.weight",
        ] {
            assert_eq!(layer_of(linear, &matrix), Layer::Linear, "{linear}");
        }
        for (other, layer) in [
            ("model.embed_tokens.weight", Layer::Table),
            ("lm_head.weight", Layer::OtherLinear),
            ("model.layers.0.mlp.gate.weight", Layer::OtherLinear),
            ("embeddings.word_embeddings.weight", Layer::Table),
            ("embeddings.position_embeddings.weight", Layer::Table),
            ("embeddings.token_type_embeddings.weight", Layer::Table),
            ("transformer.wte.weight", Layer::Table),
            ("model.layers.0.self_attn.q_proj.bias", Layer::Other),
            ("h.0.attn.c_attn.weight", Layer::Other),
        ] {
            assert_eq!(layer_of(other, &matrix), layer, "{other}");
        }
        assert_eq!(layer_of("model.norm.weight", &Shape::new(vec![64]).unwrap()), Layer::Other);
    }

    #[test]
    fn roles_are_those_that_most_architectures_give() {
        for (name, role) in [
            ("model.layers.3.self_attn.q_proj.weight", "blk.3.attn_q.weight"),
            ("model.layers.3.self_attn.k_proj.weight", "blk.3.attn_k.weight"),
            ("model.layers.3.self_attn.v_proj.weight", "blk.3.attn_v.weight"),
            ("model.layers.3.self_attn.o_proj.weight", "blk.3.attn_output.weight"),
            ("model.layers.3.mlp.down_proj.weight", "blk.3.ffn_down.weight"),
            ("model.layers.3.feed_forward.up_proj.weight", "blk.3.ffn_up.weight"),
            ("encoder.layer.3.attention.self.value.weight", "blk.3.attn_v.weight"),
            ("lm_head.weight", "output.weight"),
        ] {
            assert_eq!(checkpoint_role(name).map(|r| r.to_string()).as_deref(), Some(role), "{name}");
        }
    }

    #[test]
    fn projections_of_one_input_run_as_one() {
        assert_eq!(fused_with("a.0.mlp.up_proj"), ["a.0.mlp.gate_proj", "a.0.mlp.up_proj"]);
        assert_eq!(fused_with("k_proj"), ["q_proj", "k_proj", "v_proj"]);
        assert_eq!(fused_with("a.o_proj"), ["a.o_proj"]);
    }
}
