//! The converter's choice of types: which tensors stay binary32 and which take the type that was asked for.
//!
//! Source: llama.cpp's `conversion/base.py`, `prepare_tensors` and the guess in `ModelBase.__init__`. Must not
//! know recipes.

use crate::{Dequantize, QuantizeOp};
use std::sync::Arc;
use tensormill_model::{Cast, Expr, Kind, Model, Result, Role, Slot, Tensor, Transform, Value};
use tensormill_tensor::{BlockFormat, DType, Encoding, TensorSpec, ggml};

/// What the converter can be asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target {
    /// Every weight as binary32.
    F32,
    /// Matrices as binary16.
    F16,
    /// Matrices as bfloat16.
    Bf16,
    /// Matrices in 8-bit blocks; rows that do not fill them as binary16.
    Q8_0,
    /// Matrices in ternary blocks of five weights to a byte, embeddings and output as binary16.
    Tq1_0,
    /// Matrices in ternary blocks of 2 bits, embeddings and output as binary16.
    Tq2_0,
}

impl Target {
    /// What `--outtype auto` means for these source tensors: the type of the first matrix that is bf16 or f16,
    /// and F16 where there is none. (A config's `torch_dtype` is not asked: some lie.)
    pub fn auto<'a>(source: impl IntoIterator<Item = &'a TensorSpec>) -> Self {
        source
            .into_iter()
            .filter(|t| t.shape.rank() >= 2)
            .find_map(|t| match t.encoding {
                Encoding::Plain(DType::BF16) => Some(Self::Bf16),
                Encoding::Plain(DType::F16) => Some(Self::F16),
                _ => None,
            })
            .unwrap_or(Self::F16)
    }

    /// The plain type that loses nothing of these source tensors: the intermediate that quantization stands on.
    pub fn lossless<'a>(source: impl IntoIterator<Item = &'a TensorSpec>) -> Self {
        let mut found = None;
        for t in source.into_iter().filter(|t| t.shape.rank() >= 2) {
            let this = match t.encoding {
                Encoding::Plain(DType::BF16) => Self::Bf16,
                Encoding::Plain(DType::F16) => Self::F16,
                // Exact in either.
                Encoding::Plain(DType::F8E4M3 | DType::F8E5M2) => continue,
                _ => Self::F32,
            };
            if *found.get_or_insert(this) != this {
                return Self::F32;
            }
        }
        found.unwrap_or(Self::F32)
    }

    /// The encoding of a tensor that nothing pins.
    pub fn encoding(self) -> Encoding {
        match self {
            Self::F32 => Encoding::F32,
            Self::F16 => Encoding::F16,
            Self::Bf16 => Encoding::BF16,
            Self::Q8_0 => Encoding::Block(ggml::Q8_0),
            Self::Tq1_0 => Encoding::Block(ggml::TQ1_0),
            Self::Tq2_0 => Encoding::Block(ggml::TQ2_0),
        }
    }

    /// Floats of a type, if converters write whole files of them.
    pub fn plain(dtype: DType) -> Option<Self> {
        match dtype {
            DType::F32 => Some(Self::F32),
            DType::F16 => Some(Self::F16),
            DType::BF16 => Some(Self::Bf16),
            _ => None,
        }
    }

    /// The number under `general.file_type`.
    pub fn file_type(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Bf16 => 32,
            Self::Q8_0 => 7,
            Self::Tq1_0 => 36,
            Self::Tq2_0 => 37,
        }
    }
}

/// Kinds that ternary blocks are too coarse for.
static NEVER_TERNARY: &[Kind] = &[
    Kind::TokenEmbd,
    Kind::PerLayerTokenEmbd,
    Kind::Output,
    Kind::AltupRouter,
    Kind::LaurelL,
    Kind::LaurelR,
];

/// Gives every tensor the encoding that llama.cpp's converter would, and sets `general.file_type`.
#[derive(Clone, Copy, Debug)]
pub struct ConvertDtype {
    /// The type asked for.
    pub target: Target,
}

impl ConvertDtype {
    /// The encoding of one tensor.
    pub fn encoding(&self, t: &Tensor) -> Encoding {
        let name = t.name();
        if t.spec.shape.rank() <= 1 || name.ends_with("_norm.weight") {
            return Encoding::F32;
        }
        if let Some(pinned) = t.pinned {
            return fit(pinned, t.spec.shape.row_len());
        }
        let spelled;
        let role = if t.role.is_some() {
            t.role.as_ref()
        } else {
            spelled = Role::from_gguf_name(name);
            spelled.as_ref()
        };
        let weight_of =
            |kinds: &[Kind]| role.is_some_and(|r| r.slot == Slot::Weight && kinds.contains(&r.kind));
        let matrix = [".weight", ".lora_a", ".lora_b"].iter().any(|s| name.ends_with(s));
        if !matrix || weight_of(Kind::STAY_F32) {
            return Encoding::F32;
        }
        if matches!(self.target, Target::Tq1_0 | Target::Tq2_0) && weight_of(NEVER_TERNARY) {
            return Encoding::F16;
        }
        fit(self.target.encoding(), t.spec.shape.row_len())
    }
}

/// Rows that do not fill blocks become F16.
fn fit(encoding: Encoding, row: u64) -> Encoding {
    if encoding.row_bytes(row).is_none() { Encoding::F16 } else { encoding }
}

/// The expression, converted the converter's way (infinities pass).
fn convert(expr: Expr, from: Encoding, to: Encoding) -> Result<Expr> {
    if from == to {
        return Ok(expr);
    }
    let quantize = |block: &'static BlockFormat, expr: Expr| -> Result<Expr> {
        Ok(Expr::Apply { op: Arc::new(QuantizeOp::new(block, None)?), inputs: vec![expr] })
    };
    match to {
        Encoding::Block(block) => match from {
            Encoding::Plain(d) if !d.is_float() => quantize(block, cast(expr, DType::F32)),
            _ => quantize(block, expr),
        },
        Encoding::Plain(d) => {
            if !from.is_block() {
                return Ok(cast(expr, d));
            }
            let plain = Expr::Apply { op: Arc::new(Dequantize), inputs: vec![expr] };
            Ok(if d == DType::F32 { plain } else { cast(plain, d) })
        }
    }
}

fn cast(expr: Expr, to: DType) -> Expr {
    Expr::Apply { op: Arc::new(Cast(to)), inputs: vec![expr] }
}

impl Transform for ConvertDtype {
    fn rewrite(&self, mut model: Model) -> Result<Model> {
        for t in &mut model.tensors {
            let (from, to) = (t.spec.encoding, self.encoding(t));
            if from != to {
                let expr = convert(t.expr.clone(), from, to).map_err(|e| e.tensor(t.name()))?;
                t.set_expr(expr)?;
            }
        }
        model.metadata.set("general.file_type", Value::U32(self.target.file_type()));
        Ok(model)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tensormill_model::{Form, MemoryAssets, Metadata};
    use tensormill_tensor::Shape;

    fn spec(name: &str, dims: &[u64], encoding: Encoding) -> TensorSpec {
        TensorSpec::new(name, Shape::new(dims.to_vec()).unwrap(), encoding)
    }
    fn tensor(name: &str, dims: &[u64], encoding: Encoding) -> Tensor {
        let form = Form::new(Shape::new(dims.to_vec()).unwrap(), encoding);
        Tensor::new(name, Expr::Read { source: 0, tensor: 0, form }).unwrap()
    }

    #[test]
    fn auto_takes_the_first_half_precision_matrix() {
        let specs = [
            spec("norm", &[8], Encoding::F16),
            spec("a", &[8, 8], Encoding::F32),
            spec("b", &[8, 8], Encoding::BF16),
        ];
        assert_eq!(Target::auto(&specs), Target::Bf16);
        assert_eq!(Target::auto(&specs[..2]), Target::F16);
        assert_eq!(Target::lossless(&specs), Target::F32);
        assert_eq!(Target::lossless(&specs[2..]), Target::Bf16);
        let bytes = [specs[2].clone(), spec("c", &[8, 8], Encoding::Plain(DType::F8E4M3))];
        assert_eq!(Target::lossless(&bytes), Target::Bf16);
        assert_eq!(Target::lossless(&bytes[1..]), Target::F32);
    }

    #[test]
    fn the_converters_rule() {
        let of = |target, name: &str, dims: &[u64]| {
            ConvertDtype { target }.encoding(&tensor(name, dims, Encoding::BF16))
        };
        let q8 = Encoding::Block(ggml::Q8_0);
        assert_eq!(of(Target::Q8_0, "blk.0.attn_q.weight", &[4, 64]), q8);
        assert_eq!(of(Target::Q8_0, "blk.0.attn_q.weight", &[4, 48]), Encoding::F16);
        assert_eq!(of(Target::Bf16, "blk.0.attn_q.weight", &[4, 48]), Encoding::BF16);
        assert_eq!(of(Target::F16, "blk.0.attn_norm.weight", &[64]), Encoding::F32);
        assert_eq!(of(Target::F16, "blk.0.attn_q_norm.weight", &[4, 64]), Encoding::F32);
        assert_eq!(of(Target::F16, "blk.0.ffn_gate_inp.weight", &[4, 64]), Encoding::F32);
        assert_eq!(of(Target::F16, "position_embd.weight", &[4, 64]), Encoding::F32);
        assert_eq!(of(Target::F16, "blk.0.attn_q.bias", &[4, 64]), Encoding::F32);
        assert_eq!(of(Target::Tq2_0, "output.weight", &[4, 256]), Encoding::F16);
        let mut pinned = tensor("blk.0.attn_q.weight", &[4, 64], Encoding::BF16);
        pinned.pinned = Some(Encoding::F32);
        assert_eq!(ConvertDtype { target: Target::Q8_0 }.encoding(&pinned), Encoding::F32);
    }

    #[test]
    fn equal_encodings_are_left_alone_and_others_wrapped() {
        let model = Model {
            tensors: vec![
                tensor("a.weight", &[2, 32], Encoding::BF16),
                tensor("b.weight", &[2, 32], Encoding::F32),
                tensor("c.weight", &[2, 32], Encoding::Block(ggml::Q8_0)),
            ],
            metadata: Metadata::new(),
            assets: Arc::new(MemoryAssets::default()),
            program: None,
        };
        let out = ConvertDtype { target: Target::Bf16 }.rewrite(model).unwrap();
        let exprs: Vec<String> = out.tensors.iter().map(|t| t.expr.to_string()).collect();
        assert_eq!(exprs, ["read(0:0)", "cast[bf16](read(0:0))", "cast[bf16](dequantize(read(0:0)))"]);
        assert_eq!(out.metadata.u64("general.file_type"), Some(32));
    }
}
