//! Big-endian weights to little-endian: which fields of a block have more than one byte.
//!
//! A big-endian machine writes each block as its C struct lies in memory, so exactly the fields that code accesses
//! as 16- or 32-bit numbers are reversed (`ggml-common.h`; `qh` of Q5_0 and Q5_1 is declared as bytes but moved
//! as one `uint32_t` in `ggml-quants.c`). IQ2_XXS, IQ3_XXS and IQ1_M access the same bytes both as bytes and
//! as wider numbers, so their big-endian form is not well defined: they are refused.

use tensormill_model::{Error, Result};
use tensormill_tensor::Encoding;

/// Byte offset of the first, width in bytes, count.
type Field = (usize, usize, usize);

fn fields(block: &str) -> Option<&'static [Field]> {
    Some(match block {
        "MXFP4" | "NVFP4" => &[],
        "Q1_0" | "Q2_0" | "Q4_0" | "Q8_0" | "IQ4_NL" | "IQ2_S" | "IQ3_S" => &[(0, 2, 1)],
        "Q4_1" | "Q8_1" | "Q4_K" | "Q5_K" | "IQ4_XS" => &[(0, 2, 2)],
        "Q5_0" => &[(0, 2, 1), (2, 4, 1)],
        "Q5_1" => &[(0, 2, 2), (4, 4, 1)],
        "Q2_K" => &[(80, 2, 2)],
        "Q3_K" => &[(108, 2, 1)],
        "Q6_K" => &[(208, 2, 1)],
        "Q8_K" => &[(0, 4, 1), (260, 2, 16)],
        "IQ2_XS" => &[(0, 2, 33)],
        "IQ1_S" => &[(0, 2, 1), (34, 2, 8)],
        "TQ1_0" => &[(52, 2, 1)],
        "TQ2_0" => &[(64, 2, 1)],
        _ => return None,
    })
}

/// Reverses the multi-byte fields of whole rows in place.
pub(crate) fn to_little_endian(encoding: Encoding, bytes: &mut [u8]) -> Result<()> {
    match encoding {
        Encoding::Plain(d) => {
            let width = (d.bits() / 8) as usize;
            if width > 1 {
                bytes.chunks_exact_mut(width).for_each(<[u8]>::reverse);
            }
        }
        Encoding::Block(b) => {
            let Some(fields) = fields(b.name) else {
                return Err(Error::unsupported(format!("big-endian {b} blocks have no well-defined layout")));
            };
            if !fields.is_empty() {
                for block in bytes.chunks_exact_mut(b.bytes as usize) {
                    for &(start, width, count) in fields {
                        block[start..start + width * count].chunks_exact_mut(width).for_each(<[u8]>::reverse);
                    }
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tensormill_tensor::{DType, ggml};

    #[test]
    fn fields_lie_inside_their_blocks_and_swapping_twice_changes_nothing() {
        let mut refused = Vec::new();
        for b in ggml::ALL {
            let original: Vec<u8> = (0..b.bytes * 2).map(|i| i as u8).collect();
            let mut x = original.clone();
            if to_little_endian(Encoding::Block(b), &mut x).is_err() {
                refused.push(b.name);
                continue;
            }
            assert_eq!(x == original, matches!(b.name, "MXFP4" | "NVFP4"), "{b}");
            to_little_endian(Encoding::Block(b), &mut x).unwrap();
            assert_eq!(x, original, "{b}");
        }
        assert_eq!(refused, ["IQ2_XXS", "IQ3_XXS", "IQ1_M"]);
    }

    #[test]
    fn plain_elements_are_reversed() {
        let mut x = [1, 2, 3, 4];
        to_little_endian(Encoding::BF16, &mut x).unwrap();
        assert_eq!(x, [2, 1, 4, 3]);
        to_little_endian(Encoding::Plain(DType::I8), &mut x).unwrap();
        assert_eq!(x, [2, 1, 4, 3]);
        to_little_endian(Encoding::F32, &mut x).unwrap();
        assert_eq!(x, [3, 4, 1, 2]);
    }
}
