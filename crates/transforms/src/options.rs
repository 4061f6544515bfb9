//! What a user may say about quantization beyond the recipe's name.

use regex::bytes::{Regex, RegexBuilder};
use std::fmt;
use tensormill_kernels::Search;
use tensormill_model::{Error, Kind, Result};
use tensormill_tensor::{DType, Encoding};

/// Bytes that a compiled pattern may take, and its groups. Real ones are a few kilobytes.
const MAX_COMPILED: usize = 1 << 20;
const MAX_GROUPS: usize = 200;

/// One `REGEX=TYPE`: tensors whose GGUF name matches somewhere get this type.
#[derive(Clone)]
pub struct TensorType {
    pattern: Regex,
    /// The type they get.
    pub encoding: Encoding,
}

impl TensorType {
    /// Parses `REGEX=TYPE`. As in llama-quantize the pattern ends at the first `=`, is put in lower case (so
    /// `\D` means `\d`), and is searched for anywhere in the name.
    ///
    /// # Errors
    /// `Usage`, for a missing or invalid half.
    pub fn parse(text: &str) -> Result<Self> {
        let (pattern, encoding) = text
            .split_once('=')
            .filter(|(pattern, encoding)| !pattern.is_empty() && !encoding.is_empty())
            .ok_or_else(|| {
                Error::usage(format!("{text:?} is not of the form REGEX=TYPE"))
                    .hint("for example --tensor-type attn_v=q6_k")
            })?;
        let encoding = parse_type(encoding)?;
        let lower = pattern.to_ascii_lowercase();
        let invalid = |e: &dyn fmt::Display| {
            let start: String = lower.chars().take(100).collect();
            Error::usage(format!("{start:?} is not a regular expression: {e}"))
        };
        let pattern = RegexBuilder::new(&lower)
            .unicode(false)
            .size_limit(MAX_COMPILED)
            .build()
            .map_err(|e| invalid(&e))?;
        // Searching takes memory for every group in every state.
        if pattern.captures_len() > MAX_GROUPS {
            return Err(
                invalid(&format!("it has more than {MAX_GROUPS} groups")).hint("write (?:...) for (...)")
            );
        }
        Ok(Self { pattern, encoding })
    }

    /// A rule for the weights of a role, under its GGUF spelling: `attn_v` speaks of every layer's.
    ///
    /// # Errors
    /// `Usage`, for a role or type that does not exist.
    pub fn for_role(role: &str, encoding: &str) -> Result<Self> {
        let kinds: Vec<Kind> = Kind::ALL.iter().copied().filter(|k| k.label() == role).collect();
        if kinds.is_empty() {
            return Err(Error::usage(format!("there is no role {role:?}")).hint(
                "a role is a tensor's GGUF name without layer and suffix, such as attn_v or ffn_down_exps",
            ));
        }
        let names: Vec<String> =
            kinds.iter().map(|k| regex::escape(k.pattern()).replace(r"\{bid\}", "[0-9]+")).collect();
        let text = format!(r"^(?:{})\.weight$", names.join("|"));
        let pattern = RegexBuilder::new(&text)
            .unicode(false)
            .build()
            .map_err(|e| Error::usage(format!("{text:?} is not a regular expression: {e}")))?;
        Ok(Self { pattern, encoding: parse_type(encoding)? })
    }

    /// Whether this rule speaks of a tensor.
    pub fn matches(&self, name: &str) -> bool {
        self.pattern.is_match(name.as_bytes())
    }
}

impl fmt::Debug for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.pattern.as_str(), self.encoding)
    }
}

/// Parses a type that tensors can be given: `f32`, `f16`, `bf16` or a block type, in any case.
///
/// # Errors
/// `Usage`, for anything else.
pub fn parse_type(text: &str) -> Result<Encoding> {
    match Encoding::parse(text) {
        Some(e @ (Encoding::Plain(DType::F32 | DType::F16 | DType::BF16) | Encoding::Block(_))) => Ok(e),
        _ => Err(Error::usage(format!("{text:?} is not a type that a tensor can be quantized to"))
            .hint("`tensormill list types` shows them")),
    }
}

/// Departures from a recipe, as llama-quantize knows them.
#[derive(Clone, Debug, Default)]
pub struct QuantizeOptions {
    /// No mixture: the recipe's base type for every tensor that is quantized at all.
    pub pure: bool,
    /// Keep the output projection as it is.
    pub leave_output_tensor: bool,
    /// Type of the output projection (and of shared embeddings).
    pub output_tensor_type: Option<Encoding>,
    /// Type of the token embeddings.
    pub token_embedding_type: Option<Encoding>,
    /// Types by name; the first that matches wins. Without effect when the recipe's base type is plain.
    pub tensor_types: Vec<TensorType>,
    /// Let tensors that are quantized already be decoded and quantized again, losing twice.
    pub allow_requantize: bool,
    /// How encoders look for scales and levels.
    pub search: Search,
}

#[cfg(test)]
mod tests {
    use super::*;
    use tensormill_tensor::ggml;

    #[test]
    fn patterns_are_searched_in_lower_case_up_to_the_first_equals_sign() {
        let t = TensorType::parse(r"BLK\.[01]\.attn_v=Q6_k").unwrap();
        assert_eq!(t.encoding, Encoding::Block(ggml::Q6_K));
        assert!(t.matches("blk.1.attn_v.weight") && !t.matches("blk.2.attn_v.weight"));
        assert!(!t.matches("blk.11.attn_v.weight"));
        assert!(TensorType::parse("a=b=q8_0").is_err());
    }

    #[test]
    fn roles_speak_of_every_layer_and_of_nothing_else() {
        let t = TensorType::for_role("attn_v", "q8_0").unwrap();
        assert!(t.matches("blk.0.attn_v.weight") && t.matches("blk.17.attn_v.weight"));
        for other in ["blk.0.attn_v.bias", "blk.0.attn_v_b.weight", "attn_v.weight", "v.blk.0.attn_v.weight"]
        {
            assert!(!t.matches(other), "{other}");
        }
        assert!(TensorType::for_role("token_embd", "f16").unwrap().matches("token_embd.weight"));
        assert!(
            TensorType::for_role("attn_w", "q8_0").is_err() && TensorType::for_role("attn_v", "q9").is_err()
        );
    }

    #[test]
    fn bad_rules_are_usage_errors() {
        for bad in ["", "q8_0", "=q8_0", "x=", "x=i32", "x=q9_9", "(=q8_0"] {
            let e = TensorType::parse(bad).unwrap_err();
            assert_eq!(e.kind(), tensormill_model::ErrorKind::Usage, "{bad}");
        }
    }
}
