//! Rows of a weight with the product of two factors added: what most adapters are.

use super::{
    floats::{check, decode, float},
    packed::Packed,
};
use tensormill_model::{Error, Form, Locality, Op, Result, Rows};
use tensormill_tensor::{DType, Encoding, decode_plain, encode_plain};

/// Adds a product to a weight: `W + scale * (B A)`, in `f32`, rounded once to [`Self::out`].
///
/// Inputs: the weight `[out, in]`, `B` `[out, rank]`, `A` `[rank, in]`; with [`Self::transposed`] the weight is
/// `[in, out]` and its change the transposed product. With [`Self::dora`] a fourth input, the lengths `[out]` that the
/// sum's rows get: `m / |W + scale * (B A)|` times that sum (PEFT's `DoraLinearVariant`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MergeLora {
    /// What the product is multiplied by.
    pub scale: f32,
    /// What the scaled product is divided by (AdaLoRA does so apart).
    pub divide: Option<f32>,
    /// Whether the weight's rows are inputs.
    pub transposed: bool,
    /// Whether rows get lengths of their own.
    pub dora: bool,
    /// Round the scaled product to these types before it is added, as PEFT does: to that of factors of 16 bits, and for
    /// embeddings to the weight's.
    pub round_product: [Option<DType>; 2],
    /// Type of the result.
    pub out: DType,
}

/// Rows that are worked on together: they should stay in the second-level cache.
const BLOCK: usize = 12;

/// Rounds to a type and back.
fn round(dtype: DType, values: &mut [f32], scratch: &mut Vec<u8>) {
    scratch.resize(values.len() * (dtype.bits() / 8) as usize, 0);
    let done = encode_plain(dtype, values, scratch) && decode_plain(dtype, scratch, values);
    debug_assert!(done, "floats encode");
}

fn scale(values: &mut [f32], by: f32) {
    for x in values {
        *x *= by;
    }
}

impl MergeLora {
    /// Rank, and lengths of the weight's rows.
    fn sizes(self, inputs: &[Form]) -> Result<(u64, u64)> {
        let wanted = if self.dora { 4 } else { 3 };
        if inputs.len() != wanted {
            return Err(Error::usage(format!("a merge takes {wanted} inputs, not {}", inputs.len())));
        }
        for (form, what) in inputs.iter().zip(["the weight", "lora_B", "lora_A", "the magnitude"]) {
            float(form, what)?;
        }
        let dims = |f: &Form| (f.shape.rows(), f.shape.row_len());
        let ((rows, n), (out, rank), (rank_of_a, inner)) =
            (dims(&inputs[0]), dims(&inputs[1]), dims(&inputs[2]));
        let of_weight = if self.transposed { (n, rows) } else { (rows, n) };
        if rank != rank_of_a || (out, inner) != of_weight {
            return Err(Error::mismatch(format!(
                "lora_B {} and lora_A {} make no change for a weight {}{}",
                inputs[1].shape,
                inputs[2].shape,
                inputs[0].shape,
                if self.transposed { ", which is transposed" } else { "" }
            ))
            .hint("the adapter belongs to another base model"));
        }
        if self.dora && (self.transposed || inputs[3].shape.elements() != rows) {
            return Err(Error::mismatch(format!(
                "magnitudes {} do not fit a weight {}",
                inputs[3].shape, inputs[0].shape
            )));
        }
        Ok((rank, n))
    }
}

impl Op for MergeLora {
    fn describe(&self) -> String {
        let Self { scale, divide, transposed, dora, round_product, out } = self;
        format!(
            "merge[{scale:?}/{divide:?} round={round_product:?} transposed={transposed} dora={dora} {out}]"
        )
    }
    fn form(&self, inputs: &[Form]) -> Result<Form> {
        self.sizes(inputs)?;
        Ok(Form::new(inputs[0].shape.clone(), Encoding::Plain(self.out)))
    }
    fn locality(&self, input: usize) -> Locality {
        match input {
            0 => Locality::Row,
            1 if !self.transposed => Locality::Row,
            _ => Locality::Whole,
        }
    }
    fn scratch(&self, inputs: &[Form], rows: u64) -> u64 {
        let floats = |f: &Form, rows: u64| rows.saturating_mul(f.shape.row_len()).saturating_mul(4);
        let [w, b, a, ..] = inputs else { return 0 };
        let block = rows.min(BLOCK as u64);
        let rank = b.shape.row_len();
        let (b_rows, left) = if self.transposed {
            (b.shape.rows(), rows.saturating_mul(rank).saturating_mul(4))
        } else {
            (rows, 0)
        };
        // Weight, product and rounded bytes of a block; factors, packed too; magnitudes.
        (3 * floats(w, block))
            .saturating_add(floats(b, b_rows))
            .saturating_add(left)
            .saturating_add(floats(a, a.shape.rows()))
            .saturating_add(Packed::floats(rank, w.shape.row_len()).saturating_mul(4))
            .saturating_add(w.shape.rows().saturating_mul(4))
    }
    fn run(&self, rows: Rows, forms: &[Form], inputs: &[&[u8]], out: &mut [u8]) -> Result<()> {
        let (rank, n) = self.sizes(forms)?;
        let (rank, n) = (rank as usize, n as usize);
        let b = decode(&forms[1], inputs[1], "lora_B")?;
        let a = decode(&forms[2], inputs[2], "lora_A")?;
        let magnitudes = if self.dora { decode(&forms[3], inputs[3], "the magnitude")? } else { Vec::new() };
        let count = (rows.end - rows.start) as usize;
        // Coefficients of the rows at hand, and what they are coefficients of.
        let (left, right) = if self.transposed {
            let (inner, first) = (a.len() / rank.max(1), rows.start as usize);
            let mut left = Vec::with_capacity(count * rank);
            for i in first..first + count {
                left.extend((0..rank).map(|k| a[k * inner + i]));
            }
            (left, Packed::new(rank, n, |k, o| b[o * rank + k]))
        } else {
            (b, Packed::new(rank, n, |k, j| a[k * n + j]))
        };
        let from = float(&forms[0], "the weight")?;
        let (width, out_width) = ((from.bits() / 8) as usize, (self.out.bits() / 8) as usize);
        let (mut product, mut weight) = (vec![0f32; n * count.min(BLOCK)], vec![0f32; n * count.min(BLOCK)]);
        let mut scratch = Vec::new();
        let in_between = self.divide.is_some() || self.round_product.iter().any(Option::is_some);
        for (i, out) in out.chunks_mut(BLOCK * n * out_width).enumerate() {
            let here = out.len() / (n * out_width);
            let (product, weight) = (&mut product[..here * n], &mut weight[..here * n]);
            let decoded = decode_plain(from, &inputs[0][i * BLOCK * n * width..][..here * n * width], weight);
            let left = &left[i * BLOCK * rank..][..here * rank];
            if in_between {
                right.multiply(left, product);
                scale(product, self.scale);
                if let Some(by) = self.divide {
                    for x in product.iter_mut() {
                        *x /= by;
                    }
                }
                for dtype in self.round_product.into_iter().flatten() {
                    round(dtype, product, &mut scratch);
                }
                for (w, x) in weight.iter_mut().zip(&*product) {
                    *w += x;
                }
            } else {
                right.add_to(left, self.scale, weight);
            }
            if self.dora {
                for (r, row) in weight.chunks_mut(n).enumerate() {
                    let length = row.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>().sqrt() as f32;
                    let factor = magnitudes[rows.start as usize + i * BLOCK + r] / length;
                    scale(row, factor);
                }
            }
            let encoded = encode_plain(self.out, weight, out);
            debug_assert!(decoded && encoded, "forms were checked when planning");
            check(self.out, weight, rows.start + (i * BLOCK) as u64, n)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tensormill_tensor::Shape;

    #[test]
    fn a_product_is_added_from_either_side() {
        let form = |dims: &[u64]| Form::new(Shape::new(dims.to_vec()).unwrap(), Encoding::F32);
        let bytes = |v: &[f32]| v.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
        let (b, a) = (bytes(&[1.0, 2.0, 3.0]), bytes(&[10.0, 20.0]));
        let mut op = MergeLora {
            scale: 0.5,
            divide: None,
            transposed: false,
            dora: false,
            round_product: [None; 2],
            out: DType::F32,
        };
        let forms = [form(&[3, 2]), form(&[3, 1]), form(&[1, 2])];
        let (w, mut out) = (bytes(&[1.0; 4]), vec![0; 16]);
        // The last two rows: of the weight and B alone.
        op.run(1..3, &forms, &[&w, &b[4..], &a], &mut out).unwrap();
        assert_eq!(out, bytes(&[11.0, 21.0, 16.0, 31.0]));
        // The last row of the transposed weight.
        op.transposed = true;
        let forms = [form(&[2, 3]), form(&[3, 1]), form(&[1, 2])];
        op.run(1..2, &forms, &[&bytes(&[1.0; 3]), &b, &a], &mut out[..12]).unwrap();
        assert_eq!(out[..12], bytes(&[11.0, 21.0, 31.0]));
        assert!(op.form(&[form(&[3, 2]), form(&[3, 1]), form(&[1, 2])]).is_err());
    }
}
