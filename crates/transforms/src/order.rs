//! The order of tensors in a file that `llama-quantize` writes.
//!
//! The order is a property of GGUF names, not of roles, because the peer sorts names (`weight_name_comparer` in
//! `llama-model-loader.h`). Must not know anything else about names.

use std::cmp::Ordering;

/// Order of two GGUF names in the peer's quantized files: by layer number, tensors outside `blk.N.` first, then
/// by the bytes of the name.
pub fn quantized_order(a: &str, b: &str) -> Ordering {
    layer(a).cmp(&layer(b)).then_with(|| a.as_bytes().cmp(b.as_bytes()))
}

/// What `sscanf(name, "blk.%d.")` finds, with -1 for nothing: the number is taken even when no dot follows.
pub(crate) fn layer(name: &str) -> i32 {
    name.strip_prefix("blk.").and_then(leading_int).unwrap_or(-1)
}

/// `%d`: optional white space, optional sign, digits; the value is the low 32 bits of a saturated 64-bit number.
fn leading_int(s: &str) -> Option<i32> {
    let s = s.trim_start_matches([' ', '\t', '\n', '\u{b}', '\u{c}', '\r']);
    let (negative, digits) = match s.as_bytes().first()? {
        b'-' => (true, &s[1..]),
        b'+' => (false, &s[1..]),
        _ => (false, s),
    };
    let n = digits.bytes().take_while(u8::is_ascii_digit).count();
    if n == 0 {
        return None;
    }
    let value = digits.as_bytes()[..n]
        .iter()
        .fold(0i64, |v, d| v.saturating_mul(10).saturating_add(i64::from(d - b'0')));
    Some(if negative { -value } else { value } as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_come_in_numeric_order_after_everything_else() {
        let mut names = [
            "token_embd.weight",
            "blk.10.attn_k.weight",
            "blk.2.ffn_up.weight",
            "blk.2.attn_k.weight",
            "output.weight",
            "enc.blk.0.attn_k.weight",
            "blk.2.attn_k.bias",
        ];
        names.sort_by(|a, b| quantized_order(a, b));
        assert_eq!(
            names,
            [
                "enc.blk.0.attn_k.weight",
                "output.weight",
                "token_embd.weight",
                "blk.2.attn_k.bias",
                "blk.2.attn_k.weight",
                "blk.2.ffn_up.weight",
                "blk.10.attn_k.weight",
            ]
        );
    }

    #[test]
    fn numbers_are_read_as_scanf_reads_them() {
        assert_eq!(layer("blk.12foo"), 12);
        assert_eq!(layer("blk.-3.x"), -3);
        assert_eq!(layer("blk.x"), -1);
        assert_eq!(layer("blk."), -1);
        assert_eq!(layer("blk.99999999999999999999.x"), i64::MAX as i32);
    }
}
