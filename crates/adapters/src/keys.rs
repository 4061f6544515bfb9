//! Names of an adapter's tensors: the module that each belongs to, and what it is there.
//!
//! PEFT puts `base_model.model.` in front of a module's name and the parameter's behind it, with the adapter's own name
//! between the two where a training library saved it without PEFT's help.

/// What a tensor of an adapter is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Part {
    /// The factor next to the input, `[rank, in]`.
    A,
    /// The factor next to the output, `[out, rank]`.
    B,
    /// `A` of an embedding, `[rank, rows]`.
    EmbeddingA,
    /// `B` of an embedding, `[columns, rank]`.
    EmbeddingB,
    /// A bias added behind `B`.
    BiasOfB,
    /// Lengths of rows.
    Magnitude,
    /// A parameter in place of the base's.
    Whole,
}

const PARTS: &[(&str, Part)] = &[
    ("lora_A", Part::A),
    ("lora_B", Part::B),
    ("lora_embedding_A", Part::EmbeddingA),
    ("lora_embedding_B", Part::EmbeddingB),
    ("lora_magnitude_vector", Part::Magnitude),
];

/// Module, or for [`Part::Whole`] the parameter; `None` for a name that is no adapter's.
pub(crate) fn parse(name: &str) -> Option<(String, Part)> {
    let name = name.strip_prefix("base_model.model.").or_else(|| name.strip_prefix("base_model."))?;
    for (word, part) in PARTS {
        let Some((module, rest)) = name.split_once(&format!(".{word}")) else { continue };
        // `.weight`, `.bias`, or nothing, with the adapter's name before or behind it.
        let rest: Vec<&str> = match rest.strip_prefix('.') {
            Some(rest) => rest.split('.').collect(),
            None if rest.is_empty() => Vec::new(),
            None => return None,
        };
        if rest.len() > 2 {
            return None;
        }
        let part = match (*part, rest.last()) {
            (Part::B, Some(&"bias")) => Part::BiasOfB,
            (_, Some(&"bias")) => return None,
            (part, _) => part,
        };
        return Some((module.to_owned(), part));
    }
    if name.contains(".lora_") {
        return None;
    }
    // A copy of the base's own parameter that was trained, or saved because the vocabulary grew.
    let mut parameter = name.to_owned();
    if let Some((module, rest)) = name.split_once(".modules_to_save.") {
        let last = rest.rsplit('.').next()?;
        parameter = format!("{module}.{last}");
    }
    Some((parameter.replace(".base_layer.", "."), Part::Whole))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_apart() {
        let of = |n: &str| parse(&format!("base_model.model.{n}"));
        let some = |m: &str, p| Some((m.to_owned(), p));
        assert_eq!(of("m.l.0.q_proj.lora_A.weight"), some("m.l.0.q_proj", Part::A));
        assert_eq!(of("m.l.0.q_proj.lora_B.default.weight"), some("m.l.0.q_proj", Part::B));
        assert_eq!(of("q.lora_B.bias"), some("q", Part::BiasOfB));
        assert_eq!(of("e.lora_embedding_A"), some("e", Part::EmbeddingA));
        assert_eq!(of("e.lora_embedding_B.default"), some("e", Part::EmbeddingB));
        assert_eq!(of("q.lora_magnitude_vector"), some("q", Part::Magnitude));
        assert_eq!(of("q.lora_magnitude_vector.default.weight"), some("q", Part::Magnitude));
        assert_eq!(of("lm_head.weight"), some("lm_head.weight", Part::Whole));
        assert_eq!(of("lm_head.modules_to_save.default.weight"), some("lm_head.weight", Part::Whole));
        assert_eq!(of("e.base_layer.weight"), some("e.weight", Part::Whole));
        assert_eq!(of("q.bias"), some("q.bias", Part::Whole));
        for bad in ["q.lora_A.bias", "q.lora_E", "q.lora_A.a.b.c"] {
            assert_eq!(of(bad), None, "{bad}");
        }
        assert_eq!(parse("q.lora_A.weight"), None);
    }
}
