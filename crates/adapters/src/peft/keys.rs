//! Names of an adapter's tensors: the module that each belongs to, and what it is there.
//!
//! PEFT puts `base_model.model.` in front of a module's name and the part's word behind it, with the adapter's own name
//! between the two where a training library saved it without PEFT's help. Some leave out the former.

/// What a name says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Key {
    /// A part of a module's adapter.
    Part {
        /// The module; empty for parts that all modules share.
        module: String,
        /// The part's word, as the family lists it.
        word: &'static str,
    },
    /// A parameter in place of the base's.
    Whole(String),
    /// Rows in place of some of the base's.
    Tokens(String),
}

/// Beginnings of the words that any family's parts have.
const PREFIXES: [&str; 9] =
    ["lora_", "hada_", "lokr_", "ia3_", "oft_", "boft_", "vera_", "trainable_tokens_", "token_adapter"];

/// The word of rows that replace an embedding's.
const TOKENS: &str = "trainable_tokens_delta";

/// Takes a name apart; `None` for one that is no adapter's of a family with these words. A word with `.bias` behind it is
/// one of its own.
pub(super) fn parse(name: &str, words: &[&'static str]) -> Option<Key> {
    let bare = name.strip_prefix("base_model.model.").or_else(|| name.strip_prefix("base_model."));
    let name = bare.unwrap_or(name);
    let components: Vec<&str> = name.split('.').collect();
    if let Some((at, word)) =
        components.iter().enumerate().find_map(|(i, c)| Some((i, *words.iter().find(|w| *w == c)?)))
    {
        // `.weight`, `.bias`, or nothing, with the adapter's name before or behind it.
        let rest = &components[at + 1..];
        if rest.len() > 2 {
            return None;
        }
        let word = match rest.last() {
            Some(&"bias") => {
                let biased = format!("{word}.bias");
                *words.iter().find(|w| **w == biased)?
            }
            _ => word,
        };
        return Some(Key::Part { module: components[..at].join("."), word });
    }
    if let Some(at) = components.iter().position(|c| *c == TOKENS) {
        let module = components[..at].iter().filter(|c| **c != "token_adapter").copied().collect::<Vec<_>>();
        return Some(Key::Tokens(format!("{}.weight", module.join("."))));
    }
    if components.iter().any(|c| PREFIXES.iter().any(|p| c.starts_with(p))) {
        return None;
    }
    // A copy of the base's own parameter that was trained, or saved because the vocabulary grew.
    for copy in [".modules_to_save.", ".ln_tuning_layers."] {
        if let Some((module, rest)) = name.split_once(copy) {
            let last = rest.rsplit('.').next()?;
            return Some(Key::Whole(format!("{module}.{last}")));
        }
    }
    Some(Key::Whole(name.replace(".base_layer.", ".")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORDS: [&str; 7] = [
        "lora_A",
        "lora_B",
        "lora_B.bias",
        "lora_embedding_A",
        "lora_embedding_B",
        "lora_magnitude_vector",
        "vera_A",
    ];

    #[test]
    fn names_are_taken_apart() {
        let of = |n: &str| parse(&format!("base_model.model.{n}"), &WORDS);
        let part = |m: &str, word| Some(Key::Part { module: m.to_owned(), word });
        let whole = |n: &str| Some(Key::Whole(n.to_owned()));
        assert_eq!(of("m.l.0.q_proj.lora_A.weight"), part("m.l.0.q_proj", "lora_A"));
        assert_eq!(of("m.l.0.q_proj.lora_B.default.weight"), part("m.l.0.q_proj", "lora_B"));
        assert_eq!(of("x.base_layer.lora_A.weight"), part("x.base_layer", "lora_A"));
        assert_eq!(of("q.lora_B.bias"), part("q", "lora_B.bias"));
        assert_eq!(of("e.lora_embedding_A"), part("e", "lora_embedding_A"));
        assert_eq!(of("e.lora_embedding_B.default"), part("e", "lora_embedding_B"));
        assert_eq!(of("q.lora_magnitude_vector"), part("q", "lora_magnitude_vector"));
        assert_eq!(of("q.lora_magnitude_vector.default.weight"), part("q", "lora_magnitude_vector"));
        assert_eq!(parse("base_model.vera_A", &WORDS), part("", "vera_A"));
        assert_eq!(of("lm_head.weight"), whole("lm_head.weight"));
        assert_eq!(of("lm_head.modules_to_save.default.weight"), whole("lm_head.weight"));
        assert_eq!(of("l.0.norm.ln_tuning_layers.weight"), whole("l.0.norm.weight"));
        assert_eq!(of("e.base_layer.weight"), whole("e.weight"));
        assert_eq!(of("q.bias"), whole("q.bias"));
        let tokens = Some(Key::Tokens("e.weight".into()));
        assert_eq!(of("e.token_adapter.trainable_tokens_delta"), tokens);
        assert_eq!(of("e.trainable_tokens_delta.default"), tokens);
        for bad in ["q.lora_A.bias", "q.lora_E", "q.lora_A.a.b.c", "q.hada_w1_a"] {
            assert_eq!(of(bad), None, "{bad}");
        }
        assert_eq!(parse("q.lora_A.weight", &WORDS), part("q", "lora_A"));
    }
}
