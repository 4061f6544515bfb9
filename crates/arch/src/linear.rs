//! What a checkpoint's tensor is for, by its name alone: for choosing what is quantized where no GGUF form is made.
//!
//! Names mean the same throughout the Hugging Face world, with few exceptions; so the tables of all architectures are one
//! here. Must not be used where bytes depend on which architecture a name belongs to.

use crate::names::NameMap;
use std::sync::OnceLock;
use tensormill_model::{Kind, Role, Slot};
use tensormill_tensor::Shape;

/// Kinds of matrices that are no weights of linear layers, or that schemes leave alone: embeddings, output, heads.
const NOT_LINEAR: &[Kind] =
    &[Kind::TokenEmbd, Kind::TokenEmbdNorm, Kind::PerLayerTokenEmbd, Kind::Output, Kind::ClsOut];

/// Parts of names of modules that are no linear layers of blocks, where the tables know nothing.
const OTHER: &[&str] = &[
    "embed",
    "wte",
    "wpe",
    "lm_head",
    "router",
    "classifier",
    "score",
    "shared_expert_gate",
    "conv",
    "norm",
];

/// The role of a checkpoint's tensor.
pub fn checkpoint_role(name: &str) -> Option<Role> {
    static NAMES: OnceLock<NameMap> = OnceLock::new();
    NAMES.get_or_init(NameMap::any).role(name)
}

/// Whether this is the weight of a linear layer within a model's blocks: a matrix, and neither an embedding nor the output
/// nor a router.
pub fn is_linear(name: &str, shape: &Shape) -> bool {
    let Some(module) = name.strip_suffix(".weight").filter(|_| shape.rank() == 2) else { return false };
    let last = module.rsplit('.').next().unwrap_or(module);
    // GPT-2's Conv1D modules hold matrices the other way round.
    if matches!(last, "c_attn" | "c_proj" | "c_fc") {
        return false;
    }
    if let Some(role) = checkpoint_role(name) {
        return role.slot == Slot::Weight && !role.kind.stays_f32() && !NOT_LINEAR.contains(&role.kind);
    }
    last != "gate" && OTHER.iter().all(|part| !last.contains(part))
}

/// Whether this is the matrix of a token embedding or of the output.
pub fn is_embedding(name: &str, shape: &Shape) -> bool {
    let wanted = |r: Role| r.slot == Slot::Weight && matches!(r.kind, Kind::TokenEmbd | Kind::Output);
    shape.rank() == 2 && checkpoint_role(name).is_some_and(wanted)
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
            assert!(is_linear(linear, &matrix), "{linear}");
        }
        for other in [
            "model.embed_tokens.weight",
            "lm_head.weight",
            "model.layers.0.mlp.gate.weight",
            "embeddings.word_embeddings.weight",
            "embeddings.position_embeddings.weight",
            "embeddings.token_type_embeddings.weight",
            "transformer.wte.weight",
            "model.layers.0.self_attn.q_proj.bias",
            "h.0.attn.c_attn.weight",
        ] {
            assert!(!is_linear(other, &matrix), "{other}");
        }
        assert!(!is_linear("model.norm.weight", &Shape::new(vec![64]).unwrap()));
        for (name, embedding) in [
            ("model.embed_tokens.weight", true),
            ("lm_head.weight", true),
            ("embeddings.position_embeddings.weight", false),
            ("model.layers.0.mlp.down_proj.weight", false),
        ] {
            assert_eq!(is_embedding(name, &matrix), embedding, "{name}");
        }
    }
}
