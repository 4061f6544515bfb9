//! Root mean square norms, and the sum of what layers add, which is what is normed.

use crate::{
    Form,
    layers::{Layers, cast, reduce},
};
use tensormill_graph::{Attribute, Elem, Value};
use tensormill_model::Result;

/// The sum of embeddings and of what layers have added so far. The last addend is still apart: ONNX Runtime adds and norms
/// in one operator.
pub(super) struct Stream {
    sum: Value,
    added: Option<Value>,
}

impl Stream {
    /// Begins with embeddings.
    pub(super) fn new(sum: Value) -> Self {
        Self { sum, added: None }
    }

    /// Adds what a layer gives.
    pub(super) fn add(&mut self, x: Value) {
        debug_assert!(self.added.is_none(), "every addend is followed by a norm");
        self.added = Some(x);
    }

    /// The sum's norm.
    pub(super) fn norm(
        &mut self,
        net: &mut Layers<'_>,
        module: &str,
        dim: u64,
        epsilon: f32,
    ) -> Result<Value> {
        let Some(added) = self.added.take() else { return rms(net, &self.sum, module, dim, epsilon) };
        if net.request.form == Form::Standard {
            self.sum = net.at(module, |b| b.node("Add", &[&self.sum, &added], vec![]));
            return rms(net, &self.sum, module, dim, epsilon);
        }
        let weight = net.tensor(&format!("{module}.weight"), &[dim])?;
        let [y, _, _, sum] = net.at(module, |b| {
            let attributes = vec![Attribute::float("epsilon", epsilon)];
            b.microsoft("SkipSimplifiedLayerNormalization", &[&self.sum, &added, &weight], attributes)
        });
        self.sum = sum;
        Ok(y)
    }
}

/// `x / sqrt(mean(x^2) + epsilon)` over the last dimension in `f32`, rounded to the graph's floats before it is multiplied by
/// the weight.
pub(super) fn rms(net: &mut Layers<'_>, x: &Value, module: &str, dim: u64, epsilon: f32) -> Result<Value> {
    let weight = net.tensor(&format!("{module}.weight"), &[dim])?;
    let contrib = net.request.form == Form::Contrib;
    Ok(net.at(module, |b| {
        let whole = vec![
            Attribute::int("axis", -1),
            Attribute::float("epsilon", epsilon),
            Attribute::int("stash_type", Elem::F32.0.into()),
        ];
        if contrib {
            // ONNX Runtime's own, though it counts it among ONNX's operators.
            return b.node("SimplifiedLayerNormalization", &[x, &weight], whole);
        }
        if b.opset() >= 23 {
            return b.node("RMSNormalization", &[x, &weight], whole);
        }
        // In the order of nodes that ONNX Runtime makes one of.
        let float = b.float();
        let wide = cast(b, x, float, Elem::F32);
        let (two, epsilon) = (b.scalar_of(Elem::F32, 2.0), b.scalar_of(Elem::F32, epsilon));
        let y = b.node("Pow", &[&wide, &two], vec![]);
        let y = reduce(b, "ReduceMean", &y, -1, true);
        let y = b.node("Add", &[&y, &epsilon], vec![]);
        let y = b.node("Sqrt", &[&y], vec![]);
        let y = b.node("Div", &[&wide, &y], vec![]);
        let y = cast(b, &y, Elem::F32, float);
        b.node("Mul", &[&y, &weight], vec![])
    }))
}
