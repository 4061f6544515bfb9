//! Names of tensors as far as a merge needs them: which layer a tensor belongs to, what comes before the first layer, and
//! what is left out where it is tied.

/// The first number in a name, where it says the layer: `model.layers.`, 7, `.mlp.up_proj.weight`.
pub fn layer_of(name: &str) -> Option<(&str, u64, &str)> {
    let mut start = 0;
    for part in name.split('.') {
        let end = start + part.len();
        if !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()) {
            return Some((&name[..start], part.parse().ok()?, &name[end..]));
        }
        start = end + 1;
    }
    None
}

/// How many layers there are under names with this front.
pub fn layer_count<'a>(names: impl IntoIterator<Item = &'a str>, front: &str) -> u64 {
    let numbers = names.into_iter().filter_map(layer_of).filter(|(f, _, _)| *f == front);
    numbers.map(|(_, n, _)| n.saturating_add(1)).max().unwrap_or(0)
}

/// Whether a tensor outside the layers belongs to what comes before the first of them: embeddings of tokens and positions.
/// Where layers come from several slices, these are merged as the first one says, and all others as the last one.
pub(crate) fn before_layers(name: &str) -> bool {
    const WORDS: &[&str] = &["emb", "wte", "wpe", "relative_pe", "rotary"];
    WORDS.iter().any(|w| name.contains(w)) && !name.contains("embed_out")
}

/// Constants that some checkpoints hold and none needs.
pub(crate) fn is_constant(name: &str) -> bool {
    name.ends_with("rotary_emb.inv_freq")
}

/// The names of an output matrix, and of the embedding that takes its place where it is tied (`tied_names` in mergekit's
/// definitions of architectures).
const TIES: &[(&str, &[&str])] = &[
    (
        "lm_head.weight",
        &[
            "model.embed_tokens.weight",
            "model.language_model.embed_tokens.weight",
            "backbone.embeddings.weight",
            "transformer.wte.weight",
            "wte.weight",
            "shared.weight",
            "model.lm_head.weight",
        ],
    ),
    ("output.weight", &["model.tok_embeddings.weight", "token_embd.weight"]),
    ("cls.predictions.decoder.weight", &["bert.embeddings.word_embeddings.weight"]),
    ("vocab_projector.weight", &["distilbert.embeddings.word_embeddings.weight"]),
];

/// Names under which a tensor may be found where it is tied.
pub(crate) fn tied_names(name: &str) -> &'static [&'static str] {
    TIES.iter().find(|(n, _)| *n == name).map_or(&[], |(_, tied)| *tied)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_found_in_names() {
        assert_eq!(
            layer_of("model.layers.12.mlp.experts.3.w1.weight"),
            Some(("model.layers.", 12, ".mlp.experts.3.w1.weight"))
        );
        assert_eq!(layer_of("h.0.ln_1.weight"), Some(("h.", 0, ".ln_1.weight")));
        assert_eq!(layer_of("0.weight"), Some(("", 0, ".weight")));
        assert_eq!(layer_of("blk.3"), Some(("blk.", 3, "")));
        for none in ["lm_head.weight", "", "..", "ln_1.weight", "a.99999999999999999999999.b"] {
            assert_eq!(layer_of(none), None, "{none}");
        }
        let names = ["a.0.x", "a.4.x", "b.9.x", "c"];
        assert_eq!((layer_count(names, "a."), layer_count(names, "c.")), (5, 0));
    }

    #[test]
    fn embeddings_come_before_layers() {
        for name in ["model.embed_tokens.weight", "transformer.wpe.weight", "token_embd.weight"] {
            assert!(before_layers(name));
        }
        for name in ["lm_head.weight", "model.norm.weight", "embed_out.weight", "output.weight"] {
            assert!(!before_layers(name));
        }
    }
}
