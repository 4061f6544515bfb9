//! Zero points that GPTQ's first format stores less one.

use super::plain;
use crate::packing::Packing;
use tensormill_model::{Error, Form, Op, Result, Rows};

/// Adds or takes one of every packed zero point, as `GPTQModel` does: for 2, 4 and 8 bits to whole words, so that what leaves a
/// zero point changes its neighbour, and comes back from there; for other widths to each by itself.
///
/// Source: `convert_gptq_v1_to_v2_format_module` of `utils/model.py`. Other readers see zero points of another value where a
/// stored one is the largest; no reader but this sees what the writer meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shifted {
    /// Bits of a zero point.
    pub bits: u32,
    /// Adds one; otherwise takes one.
    pub up: bool,
}

impl Shifted {
    fn words(self, bytes: &mut [u8]) {
        let ones = (0..32 / self.bits).fold(0u32, |w, i| w | 1 << (i * self.bits));
        let by = if self.up { ones } else { ones.wrapping_neg() };
        for word in bytes.as_chunks_mut::<4>().0 {
            *word = u32::from_le_bytes(*word).wrapping_add(by).to_le_bytes();
        }
    }

    fn each(self, bytes: &mut [u8]) {
        let packing = Packing::dense(self.bits);
        let mut points = vec![0; bytes.len() * 8 / self.bits as usize];
        packing.unpack(bytes, &mut points);
        let by = if self.up { 1 } else { u8::MAX };
        let mask = ((1u16 << self.bits) - 1) as u8;
        for p in &mut points {
            *p = p.wrapping_add(by) & mask;
        }
        packing.pack(&points, bytes);
    }

    /// Changes rows of packed zero points.
    pub fn apply(self, bytes: &mut [u8], row: usize) {
        if matches!(self.bits, 2 | 4 | 8) {
            self.words(bytes);
        } else {
            bytes.chunks_mut(row.max(1)).for_each(|row| self.each(row));
        }
    }
}

impl Op for Shifted {
    fn describe(&self) -> String {
        format!("points[{} {}]", self.bits, if self.up { "+1" } else { "-1" })
    }

    fn form(&self, inputs: &[Form]) -> Result<Form> {
        let [input] = inputs else { return Err(Error::usage("zero points are one input")) };
        if plain(input, "zero points")?.bits() != 32 || !(1..=8).contains(&self.bits) {
            return Err(Error::malformed(format!("zero points of type {}", input.encoding)));
        }
        Ok(input.clone())
    }

    fn run(&self, _: Rows, forms: &[Form], inputs: &[&[u8]], out: &mut [u8]) -> Result<()> {
        out.copy_from_slice(inputs[0]);
        self.apply(out, forms[0].row_bytes()? as usize);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_below_zero_comes_back() {
        for bits in [2, 3, 4, 8] {
            let before: Vec<u8> = (0..96u8).map(|i| i.wrapping_mul(113) & 0x7f).collect();
            let mut bytes = before.clone();
            Shifted { bits, up: false }.apply(&mut bytes, 96);
            assert_ne!(bytes, before);
            Shifted { bits, up: true }.apply(&mut bytes, 96);
            assert_eq!(bytes, before, "{bits} bits");
        }
        // A zero point of 0 takes one of the next.
        let mut word = 0x8888_8880u32.to_le_bytes();
        Shifted { bits: 4, up: false }.apply(&mut word, 4);
        assert_eq!(u32::from_le_bytes(word), 0x7777_776f);
    }
}
