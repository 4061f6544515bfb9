//! Which tensors of all outputs come from the same rows.
//!
//! Must not know tile sizes or threads.

use crate::{
    Output, PlanOptions,
    budget::Demand,
    measure,
    node::Node,
    place::{OWN_SLACK, ROOMY, SLACK},
};
use std::{collections::HashMap, sync::Arc};
use tensormill_model::{Error, Expr, Form, Locality, Op, Place, Reader, Result};

/// One base expression with all that is computed from it.
pub(crate) struct Group {
    pub base: Node,
    /// The base expression's text: equal texts mean equal values.
    pub text: String,
    /// Name of the first tensor it feeds.
    pub label: String,
    pub computes: Vec<Compute>,
    /// `f32` elements that measuring takes; zero when nothing is measured.
    pub floats: u64,
    /// Rows that may not be cut apart, so that statistics do not depend on tiles.
    pub unit: u64,
}

/// One distinct op on a group's rows, with the places its result goes to.
pub(crate) struct Compute {
    /// `None`: the base as it stands.
    pub op: Option<Arc<dyn Op>>,
    pub form: Form,
    pub row_bytes: u64,
    pub sinks: Vec<SinkRef>,
    pub measured: bool,
    /// Whether an accelerator may be asked for it: its result then has a place of its own.
    pub offload: bool,
}

/// One tensor of one output.
pub(crate) struct SinkRef {
    pub output: usize,
    pub tensor: usize,
    pub name: String,
    pub place: Place,
}

impl Group {
    /// Memory for `n` rows in tiles that start at multiples of `step`.
    pub(crate) fn demand(&self, n: u64, step: u64) -> Demand {
        let need = self.base.need(n, step);
        let forms = std::slice::from_ref(&self.base.form);
        let value = n.saturating_mul(self.base.row_bytes);
        let roomy = value >= ROOMY;
        let (mut own, mut shared, mut outside) = (0u64, 0u64, need.outside);
        for c in &self.computes {
            if let Some(op) = &c.op {
                outside = outside.max(op.scratch(forms, n));
            }
            let bytes = n.saturating_mul(c.row_bytes);
            if c.offload {
                own = own.saturating_add(bytes).saturating_add(if roomy { OWN_SLACK } else { 0 });
            } else if c.op.is_some() || (roomy && self.placed().is_none()) {
                // Values that are only moved are copied where there is room, to a place that suits direct I/O.
                shared = shared.max(bytes);
            }
        }
        let arena = need.arena.max(own.saturating_add(shared));
        Demand {
            bytes: value.saturating_add(arena).saturating_add(if roomy { SLACK } else { 0 }),
            floats: self.floats,
            outside,
            roomy,
        }
    }

    /// Where the base goes as it stands, if that is one place, and if it is not read in a place that suits the source:
    /// then it can be made where it suits the output.
    pub(crate) fn placed(&self) -> Option<Place> {
        let moved = self.computes.iter().find(|c| c.op.is_none())?;
        match moved.sinks.as_slice() {
            [sink] if !self.base.reads_in_place() => Some(sink.place),
            _ => None,
        }
    }

    /// Bytes written to all outputs for `n` rows.
    pub(crate) fn writes(&self, n: u64) -> u64 {
        self.computes.iter().map(|c| n * c.row_bytes * c.sinks.len() as u64).fold(0, u64::saturating_add)
    }
}

/// Groups the tensors of all outputs, in the order of their first byte in the sources, or in the output that
/// [`PlanOptions::follow`] names.
pub(crate) fn groups(
    sources: &[Arc<dyn Reader>],
    outputs: &[Output<'_>],
    options: &PlanOptions,
) -> Result<Vec<Group>> {
    let mut groups: Vec<Group> = Vec::new();
    let mut by_text: HashMap<String, usize> = HashMap::new();
    for (output, o) in outputs.iter().enumerate() {
        let tensors = &o.model.model().tensors;
        if tensors.len() != o.layout.places.len() {
            return Err(Error::mismatch(format!(
                "the layout has places for {} tensors, the model has {}",
                o.layout.places.len(),
                tensors.len()
            )));
        }
        for (tensor, (t, &place)) in tensors.iter().zip(&o.layout.places).enumerate() {
            let name = t.name();
            let fail = |e: Error| e.tensor(name);
            let len = t.spec.bytes().map_err(|e| fail(e.into()))?;
            let file = o.layout.files.get(place.file);
            if file.is_none_or(|f| place.offset.checked_add(len).is_none_or(|end| end > f.len)) {
                return Err(fail(Error::mismatch("its place is outside the file that the layout gives it")));
            }
            if o.files.is_some_and(|wanted| !wanted.get(place.file).copied().unwrap_or(false)) {
                continue;
            }
            let (base, op) = split(&t.expr).map_err(fail)?;
            let g = match by_text.entry(base.to_string()) {
                std::collections::hash_map::Entry::Occupied(e) => *e.get(),
                std::collections::hash_map::Entry::Vacant(e) => {
                    groups.push(Group {
                        text: base.to_string(),
                        base: Node::new(base, sources).map_err(fail)?,
                        label: name.to_owned(),
                        computes: Vec::new(),
                        floats: 0,
                        unit: 1,
                    });
                    *e.insert(groups.len() - 1)
                }
            };
            let sink = SinkRef { output, tensor, name: name.to_owned(), place };
            groups[g].attach(op, sink).map_err(fail)?;
        }
    }
    if options.measure {
        groups.iter_mut().for_each(Group::measure);
    }
    if options.offload {
        for c in groups.iter_mut().flat_map(|g| &mut g.computes) {
            c.offload = c.op.as_ref().is_some_and(|op| op.encodes().is_some());
        }
    }
    // A stable sort: what reads nothing comes first, equal places stay in the outputs' order.
    groups.sort_by_cached_key(|g| g.base.first_place(sources));
    if let Some(output) = options.follow {
        // What that output does not hold comes last.
        let place = |g: &Group| {
            let sinks = g.computes.iter().flat_map(|c| &c.sinks).filter(|s| s.output == output);
            sinks.map(|s| s.place).min()
        };
        groups.sort_by_cached_key(|g| place(g).map_or((1, None), |p| (0, Some(p))));
    }
    Ok(groups)
}

/// The base of a tensor and the op on top: what variants of one model share is below their last op.
fn split(expr: &Expr) -> Result<(&Expr, Option<&Arc<dyn Op>>)> {
    if let Expr::Apply { op, inputs } = expr
        && let [input] = inputs.as_slice()
        && op.locality(0) == Locality::Row
        && input.form()?.shape.rows() == expr.form()?.shape.rows()
    {
        return Ok((input, Some(op)));
    }
    Ok((expr, None))
}

impl Group {
    fn attach(&mut self, op: Option<&Arc<dyn Op>>, sink: SinkRef) -> Result<()> {
        let text = op.map(|o| o.describe());
        let same = |c: &&mut Compute| c.op.as_ref().map(|o| o.describe()) == text;
        if let Some(c) = self.computes.iter_mut().find(same) {
            c.sinks.push(sink);
            return Ok(());
        }
        let form = match op {
            Some(op) => op.form(std::slice::from_ref(&self.base.form))?,
            None => self.base.form.clone(),
        };
        let row_bytes = form.row_bytes()?;
        self.computes.push(Compute {
            op: op.map(Arc::clone),
            form,
            row_bytes,
            sinks: vec![sink],
            measured: false,
            offload: false,
        });
        Ok(())
    }

    fn measure(&mut self) {
        let base = &self.base.form;
        for c in &mut self.computes {
            c.measured = measure::measurable(base, c);
        }
        if self.computes.iter().any(|c| c.measured) {
            self.unit = measure::unit_rows(base.shape.row_len()).min(self.base.rows.max(1));
            self.floats = 2 * measure::CHUNK.min(base.shape.elements());
        }
    }
}
