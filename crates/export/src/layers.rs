//! Layers that families have in common: modules of PyTorch by the names of their tensors, as nodes in scopes of the same
//! names. What a family is made of is its own affair.

use crate::Request;
use tensormill_graph::{Attribute, Builder, Dim, Elem, Program, Value};
use tensormill_model::{Error, Result};

/// Versions of the operators that graphs are built for: the first has all that they need, the last is the newest that
/// ONNX Runtime 1.31 runs.
pub const OPSETS: std::ops::RangeInclusive<i64> = 14..=26;

/// Version of the file's structures with which a version of the operators came (ONNX's table of versions).
pub(crate) fn ir_version(opset: i64) -> i64 {
    match opset {
        ..=14 => 7,
        15..=18 => 8,
        19..=20 => 9,
        21..=22 => 10,
        23 => 11,
        24 => 12,
        _ => 13,
    }
}

/// A graph that is being built from a checkpoint's tensors. Modules are called as tensors' names call them:
/// `bert.encoder.layer.0.output.dense`.
pub(crate) struct Layers<'a> {
    /// Where nodes go.
    pub(crate) b: Builder,
    /// What is asked for.
    pub(crate) request: &'a Request<'a>,
}

impl<'a> Layers<'a> {
    /// An empty graph.
    ///
    /// # Errors
    /// Operators or floats that graphs are not built for.
    pub(crate) fn new(request: &'a Request<'a>, name: &str) -> Result<Self> {
        let Request { opset, float, .. } = *request;
        if !OPSETS.contains(&opset) {
            let (first, last) = OPSETS.into_inner();
            return Err(Error::unsupported(format!("graphs for opset {opset} cannot be built"))
                .hint(format!("--opset takes {first} to {last}")));
        }
        if ![Elem::F32, Elem::F16, Elem::BF16].contains(&float) {
            return Err(Error::unsupported(format!("graphs cannot compute with {float} numbers"))
                .hint("--dtype takes f32, f16 and bf16"));
        }
        Ok(Self { b: Builder::new(name, opset, float), request })
    }

    /// The program.
    pub(crate) fn finish(self) -> Program {
        self.b.finish(ir_version(self.request.opset), self.request.metadata.clone())
    }

    /// Builds what belongs to a module.
    pub(crate) fn at<T>(&mut self, module: &str, build: impl FnOnce(&mut Builder) -> T) -> T {
        self.b.scoped(scope(module), build)
    }

    /// A module's parameter as it stands. Norms of old checkpoints have `gamma` and `beta`.
    pub(crate) fn parameter(&mut self, module: &str, kind: &str, dims: &[u64]) -> Result<Value> {
        let name = format!("{module}.{kind}");
        let old = match kind {
            "weight" => format!("{module}.gamma"),
            _ => format!("{module}.beta"),
        };
        let name = if !self.request.has(&name) && self.request.has(&old) { old } else { name };
        self.tensor(&name, dims)
    }

    /// A tensor as it stands.
    pub(crate) fn tensor(&mut self, name: &str, dims: &[u64]) -> Result<Value> {
        Ok(self.b.weight(self.request.plain(name, dims)?))
    }

    /// `nn.Linear`, whose weight is `[out, in]`.
    pub(crate) fn linear(&mut self, x: &Value, module: &str, dims: (u64, u64), bias: bool) -> Result<Value> {
        let weight = self.b.weight(self.request.linear(&format!("{module}.weight"), dims)?);
        let bias = if bias { Some(self.parameter(module, "bias", &[dims.0])?) } else { None };
        Ok(self.at(module, |b| {
            let y = b.node("MatMul", &[x, &weight], vec![]);
            bias.map_or(y.clone(), |bias| b.node("Add", &[&y, &bias], vec![]))
        }))
    }

    /// A product with a table of embeddings, which is in the graph as it stands: output layers share it.
    pub(crate) fn tied(&mut self, x: &Value, module: &str, table: &Value, bias: Option<&Value>) -> Value {
        self.at(module, |b| {
            let weight = b.node("Transpose", &[table], vec![Attribute::ints("perm", &[1, 0])]);
            let y = b.node("MatMul", &[x, &weight], vec![]);
            bias.map_or(y.clone(), |bias| b.node("Add", &[&y, bias], vec![]))
        })
    }

    /// `nn.Embedding` of `[rows, dim]`.
    pub(crate) fn embedding(&mut self, ids: &Value, module: &str, dims: (u64, u64)) -> Result<Value> {
        let table = self.tensor(&format!("{module}.weight"), &[dims.0, dims.1])?;
        Ok(self.at(module, |b| b.node("Gather", &[&table, ids], vec![])))
    }

    /// `nn.LayerNorm` over the last dimension. Its mean and variance are `f32` whatever the graph's floats.
    pub(crate) fn layer_norm(&mut self, x: &Value, module: &str, dim: u64, epsilon: f32) -> Result<Value> {
        let weight = self.parameter(module, "weight", &[dim])?;
        let bias = self.parameter(module, "bias", &[dim])?;
        Ok(self.at(module, |b| {
            if b.opset() >= 17 {
                let attributes = vec![
                    Attribute::int("axis", -1),
                    Attribute::float("epsilon", epsilon),
                    Attribute::int("stash_type", 1),
                ];
                return b.node("LayerNormalization", &[x, &weight, &bias], attributes);
            }
            let float = b.float();
            let wide = cast(b, x, float, Elem::F32);
            let mean = reduce(b, "ReduceMean", &wide, -1, true);
            let centred = b.node("Sub", &[&wide, &mean], vec![]);
            // The order of nodes that runtimes know and make one of.
            let two = b.scalar_of(Elem::F32, 2.0);
            let square = b.node("Pow", &[&centred, &two], vec![]);
            let variance = reduce(b, "ReduceMean", &square, -1, true);
            let epsilon = b.scalar_of(Elem::F32, epsilon);
            let y = b.node("Add", &[&variance, &epsilon], vec![]);
            let y = b.node("Sqrt", &[&y], vec![]);
            let y = b.node("Div", &[&centred, &y], vec![]);
            let y = cast(b, &y, Elem::F32, float);
            let y = b.node("Mul", &[&y, &weight], vec![]);
            b.node("Add", &[&y, &bias], vec![])
        }))
    }

    /// A float input: `f32` where inputs keep their types.
    pub(crate) fn float_input(&mut self, name: &str, dims: &[Dim]) -> Value {
        let float = self.request.float;
        let given = self.io_float();
        let x = self.b.input(name, given, dims);
        cast(&mut self.b, &x, given, float)
    }

    /// The type of float inputs and outputs.
    pub(crate) fn io_float(&self) -> Elem {
        if self.request.keep_io_types { Elem::F32 } else { self.request.float }
    }

    /// Gives a value of type `elem` as a float output. Values have other names afterwards: nothing may use them any more.
    pub(crate) fn float_output(&mut self, name: &str, value: &Value, elem: Elem, dims: &[Dim]) {
        let to = self.io_float();
        let value = cast(&mut self.b, value, elem, to);
        self.b.output(name, &value, to, dims);
    }
}

/// The scope of a module: `bert.encoder.layer.0.output` is `bert/encoder/layer.0/output`.
pub(crate) fn scope(module: &str) -> String {
    let mut path = String::new();
    for part in module.split('.') {
        let number = part.bytes().all(|c| c.is_ascii_digit());
        if !path.is_empty() {
            path.push(if number { '.' } else { '/' });
        }
        path.push_str(part);
    }
    path
}

/// A value as another type; itself where it is of that type.
pub(crate) fn cast(b: &mut Builder, x: &Value, from: Elem, to: Elem) -> Value {
    if from == to { x.clone() } else { b.node("Cast", &[x], vec![Attribute::int("to", to.0.into())]) }
}

/// The type in which to use an operator that takes `bf16` since a version only.
pub(crate) fn held(b: &Builder, since: i64) -> Elem {
    if b.float() == Elem::BF16 && b.opset() < since { Elem::F32 } else { b.float() }
}

/// `ReduceMean`, `ReduceMax` or `ReduceSum` over one axis, which the first two take as an input from opset 18 on.
pub(crate) fn reduce(b: &mut Builder, op: &str, x: &Value, axis: i64, keep: bool) -> Value {
    let keep = Attribute::int("keepdims", keep.into());
    if b.opset() >= 18 || op == "ReduceSum" {
        let axes = b.ints(&[1], &[axis]);
        b.node(op, &[x, &axes], vec![keep])
    } else {
        b.node(op, &[x], vec![Attribute::ints("axes", &[axis]), keep])
    }
}

/// A new dimension of one at each of the axes.
pub(crate) fn unsqueeze(b: &mut Builder, x: &Value, axes: &[i64]) -> Value {
    let axes = b.ints(&[axes.len() as i64], axes);
    b.node("Unsqueeze", &[x, &axes], vec![])
}

/// How long a value's dimension is, without dimensions.
pub(crate) fn length(b: &mut Builder, x: &Value, axis: i64) -> Value {
    let shape = b.node("Shape", &[x], vec![]);
    let axis = b.ints(&[], &[axis]);
    b.node("Gather", &[&shape, &axis], vec![])
}

/// Permutes dimensions.
pub(crate) fn transpose(b: &mut Builder, x: &Value, order: &[i64]) -> Value {
    b.node("Transpose", &[x], vec![Attribute::ints("perm", order)])
}

/// Gives dimensions: 0 stands for one of `x`, -1 for what is left.
pub(crate) fn reshape(b: &mut Builder, x: &Value, dims: &[i64]) -> Value {
    let dims = b.ints(&[dims.len() as i64], dims);
    b.node("Reshape", &[x, &dims], vec![])
}

/// The lowest finite number of a float type: `torch.finfo(dtype).min`.
pub(crate) fn lowest(float: Elem) -> f32 {
    match float {
        Elem::F16 => -65504.0,
        // Nothing finite of this type lies between it and the lowest f32, which would become infinite.
        Elem::BF16 => f32::from_bits(0xFF7F_0000),
        _ => f32::MIN,
    }
}

/// What is added to scores so that padding gets none of the attention: `[batch, 1, 1, sequence]` of a mask that is
/// `[batch, sequence]`, zero for padding.
pub(crate) fn padding_mask(b: &mut Builder, mask: &Value) -> Value {
    b.scoped("mask", |b| {
        let keep = cast(b, mask, Elem::I64, Elem::BOOL);
        let keep = unsqueeze(b, &keep, &[1, 2]);
        let elem = held(b, 16);
        let (zero, low) = (b.scalar_of(elem, 0.0), b.scalar_of(elem, lowest(b.float())));
        let added = b.node("Where", &[&keep, &zero, &low], vec![]);
        cast(b, &added, elem, b.float())
    })
}

/// Attention of every position to every other: queries, keys and values are `[batch, sequence, heads * dim]`, each of
/// `added` is added to the scores.
pub(crate) fn attention(
    b: &mut Builder,
    [q, k, v]: [&Value; 3],
    (heads, dim): (u64, u64),
    added: &[Value],
) -> Value {
    let split = [0, 0, heads as i64, dim as i64];
    let q = reshape(b, q, &split);
    let q = transpose(b, &q, &[0, 2, 1, 3]);
    let k = reshape(b, k, &split);
    let k = transpose(b, &k, &[0, 2, 3, 1]);
    let v = reshape(b, v, &split);
    let v = transpose(b, &v, &[0, 2, 1, 3]);
    let scale = b.scalar((dim as f64).powf(-0.5) as f32);
    let scores = b.node("MatMul", &[&q, &k], vec![]);
    let mut scores = b.node("Mul", &[&scores, &scale], vec![]);
    for bias in added {
        scores = b.node("Add", &[&scores, bias], vec![]);
    }
    let weights = b.node("Softmax", &[&scores], vec![Attribute::int("axis", -1)]);
    let y = b.node("MatMul", &[&weights, &v], vec![]);
    let y = transpose(b, &y, &[0, 2, 1, 3]);
    reshape(b, &y, &[0, 0, (heads * dim) as i64])
}

#[cfg(test)]
mod tests {
    use super::*;
    use tensormill_tensor::encode_plain;

    #[test]
    fn the_lowest_number_is_the_last_finite_one() {
        for (elem, bits) in [(Elem::F32, 0xFF7F_FFFFu32), (Elem::F16, 0xFBFF), (Elem::BF16, 0xFF7F)] {
            let dtype = elem.dtype().expect("floats have one");
            let mut bytes = vec![0; dtype.bits() as usize / 8];
            assert!(encode_plain(dtype, &[lowest(elem)], &mut bytes));
            assert_eq!(bytes, bits.to_le_bytes()[..bytes.len()], "{elem}");
        }
    }

    #[test]
    fn scopes_keep_numbers_with_their_lists() {
        assert_eq!(scope("bert.encoder.layer.11.output.dense"), "bert/encoder/layer.11/output/dense");
        assert_eq!(scope("2_Dense/linear"), "2_Dense/linear");
    }
}
