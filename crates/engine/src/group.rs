//! Which tensors of all outputs come from the same rows.
//!
//! Must not know tile sizes or threads.

use crate::{
    Output, PlanOptions,
    chain::{Chain, Link},
    measure,
    node::{Kind, Node, Reductions, lcm},
    split::{Split, parts_of, picks, split},
};
use std::{collections::HashMap, collections::hash_map::Entry, sync::Arc};
use tensormill_model::{Error, Expr, Form, Place, Reader, Result, Rows};

/// One base expression with all that is computed from it.
pub(crate) struct Group {
    pub base: Node,
    /// The base expression's text: equal texts mean equal values.
    pub text: String,
    /// Name of the first tensor it feeds.
    pub label: String,
    /// What ops need as a whole beside the base's rows.
    pub extras: Vec<Extra>,
    pub stems: Vec<Stem>,
    pub computes: Vec<Compute>,
    /// `f32` elements that measuring takes; zero when nothing is measured.
    pub floats: u64,
    /// Rows that may not be cut apart, so that statistics do not depend on tiles, and no op gets less than it needs.
    pub unit: u64,
}

/// What is evaluated once for a tile.
pub(crate) struct Extra {
    pub text: String,
    pub node: Node,
}

/// An op on a group's rows that makes a bundle, of which tensors are parts.
pub(crate) struct Stem {
    text: String,
    pub link: Link,
    /// Whether the bundle's error is measured: it is recorded as that of the first part.
    pub measured: bool,
    /// As [`Compute::offload`].
    pub offload: bool,
    /// The first of the computes that are its parts.
    pub first: usize,
    /// Whether some part of it is transposed.
    pub turned: bool,
    /// Output and tensor of what stands for all parts in a report: of every output the first one, where it is wanted.
    pub firsts: Vec<(usize, usize)>,
}

/// What a compute takes rows of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum On {
    Base,
    /// The bundle of the stem of this number.
    Stem(usize),
}

/// One distinct computation on a group's rows, with the places its result goes to.
pub(crate) struct Compute {
    /// See [`Split::text`].
    pub text: String,
    pub on: On,
    /// Empty: the rows as they stand.
    pub chain: Chain,
    /// Where the chain's result is transposed.
    pub turned: Option<Turned>,
    pub form: Form,
    pub row_bytes: u64,
    pub sinks: Vec<SinkRef>,
    pub measured: bool,
    /// Whether an accelerator may be asked for it: its result then has a place of its own.
    pub offload: bool,
}

/// A matrix whose rows come as columns, and what is made of it when they are all there.
pub(crate) struct Turned {
    /// Its rows: the chain's columns.
    pub rows: u64,
    /// Its columns: the chain's rows.
    pub columns: u64,
    /// Bytes of an element.
    pub element: u64,
    pub chain: Chain,
}

/// Bytes of a transposed matrix to which ops are applied at one time.
const TURNED_BYTES: u64 = 1 << 20;

impl Turned {
    pub(crate) fn row_bytes(&self) -> u64 {
        self.columns.saturating_mul(self.element)
    }

    /// Rows that are kept at one time, where the base passes by so many times.
    pub(crate) fn window(&self, passes: u64) -> u64 {
        let step = self.chain.step();
        self.rows.div_ceil(step).div_ceil(passes).saturating_mul(step).min(self.rows)
    }

    /// Rows of those that ops are applied to at one time.
    pub(crate) fn portion(&self, window: u64) -> u64 {
        let step = self.chain.step();
        let steps = TURNED_BYTES / step.saturating_mul(self.row_bytes()).max(1);
        steps.max(1).saturating_mul(step).min(window)
    }
}

impl Compute {
    /// Its rows for some rows of the base. What is transposed comes as a whole.
    pub(crate) fn rows(&self, base: &Rows) -> Rows {
        match &self.turned {
            Some(_) => 0..self.form.shape.rows(),
            None => self.chain.rows(base),
        }
    }
}

/// One tensor of one output.
pub(crate) struct SinkRef {
    pub output: usize,
    pub tensor: usize,
    pub name: String,
    pub place: Place,
}

impl Group {
    /// Where the base goes as it stands, if that is one place, and if it is not read in a place that suits the source:
    /// then it can be made where it suits the output.
    pub(crate) fn placed(&self) -> Option<Place> {
        let moved = self.computes.iter().find(|c| c.moves())?;
        match moved.sinks.as_slice() {
            [sink] if !self.base.reads_in_place() => Some(sink.place),
            _ => None,
        }
    }

    /// Bytes written to all outputs for some rows, which cut no unit apart.
    pub(crate) fn writes(&self, rows: &Rows) -> u64 {
        let of = |c: &Compute| {
            let rows = c.rows(rows);
            (rows.end - rows.start) * c.row_bytes * c.sinks.len() as u64
        };
        self.computes.iter().map(of).fold(0, u64::saturating_add)
    }

    /// Whether something is transposed: then all rows are one tile.
    pub(crate) fn turns(&self) -> bool {
        self.stems.iter().any(|s| s.turned) || self.computes.iter().any(|c| c.turned.is_some())
    }

    /// Passes after which nothing gets smaller.
    pub(crate) fn most_passes(&self) -> u64 {
        let turned = self.computes.iter().filter_map(|c| c.turned.as_ref());
        turned.map(|t| t.rows.div_ceil(t.chain.step())).max().unwrap_or(1).max(1)
    }

    /// Bytes of base for which it is worth evaluating what is needed as a whole.
    pub(crate) fn worth(&self) -> u64 {
        let costs = |e: &&Extra| !matches!(e.node.kind, Kind::Const(_) | Kind::Reduce { .. });
        let bytes = |e: &Extra| e.node.reads(0..e.node.rows).max(e.node.rows * e.node.row_bytes);
        self.extras.iter().filter(costs).map(bytes).fold(0, u64::saturating_add)
    }
}

impl Compute {
    /// Whether it is bytes of the base.
    pub(crate) fn only_moves(&self) -> bool {
        self.on == On::Base && self.turned.is_none() && self.chain.0.iter().all(|l| picks(&*l.op))
    }

    /// Whether it is the base as it stands.
    pub(crate) fn moves(&self) -> bool {
        self.on == On::Base && self.chain.is_empty() && self.turned.is_none()
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
    let mut reductions = Reductions::new();
    // The first tensor of an output that is a part of a stem, whether or not its file is wanted: of a release that is made
    // in pieces, one piece measures.
    let mut firsts: HashMap<(usize, String), usize> = HashMap::new();
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
            let split = split(&t.expr).map_err(fail)?;
            if let Some(stem) = split.stem {
                firsts.entry((output, stem.to_string())).or_insert(tensor);
            }
            if o.files.is_some_and(|wanted| !wanted.get(place.file).copied().unwrap_or(false)) {
                continue;
            }
            let text = split.base.to_string();
            let g = match by_text.entry(text) {
                Entry::Occupied(e) => *e.get(),
                Entry::Vacant(e) => {
                    groups.push(Group {
                        text: e.key().clone(),
                        base: Node::new(split.base, sources, &mut reductions).map_err(fail)?,
                        label: name.to_owned(),
                        extras: Vec::new(),
                        stems: Vec::new(),
                        computes: Vec::new(),
                        floats: 0,
                        unit: 1,
                    });
                    *e.insert(groups.len() - 1)
                }
            };
            let sink = SinkRef { output, tensor, name: name.to_owned(), place };
            groups[g].attach(&split, sink, sources, &mut reductions).map_err(fail)?;
        }
    }
    for g in &mut groups {
        for (i, stem) in g.stems.iter_mut().enumerate() {
            let parts = g.computes.iter().filter(|c| c.on == On::Stem(i)).flat_map(|c| &c.sinks);
            let first = |s: &&SinkRef| firsts.get(&(s.output, stem.text.clone())) == Some(&s.tensor);
            stem.firsts = parts.filter(first).map(|s| (s.output, s.tensor)).collect();
        }
    }
    if options.measure {
        groups.iter_mut().for_each(Group::measure);
    }
    for g in &mut groups {
        g.bound();
        if options.offload {
            g.offload();
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

impl Group {
    fn attach(
        &mut self,
        split: &Split<'_>,
        sink: SinkRef,
        sources: &[Arc<dyn Reader>],
        reductions: &mut Reductions,
    ) -> Result<()> {
        let text = split.text();
        if let Some(c) = self.computes.iter_mut().find(|c| c.text == text) {
            c.sinks.push(sink);
            return Ok(());
        }
        let mut extra = |group: &mut Self, e: &Expr| -> Result<usize> {
            let text = e.to_string();
            if let Some(i) = group.extras.iter().position(|x| x.text == text) {
                return Ok(i);
            }
            group.extras.push(Extra { text, node: Node::new(e, sources, reductions)? });
            Ok(group.extras.len() - 1)
        };
        let mut link = |group: &mut Self, below: &Form, expr: &Expr| -> Result<Link> {
            let (op, inputs) = parts_of(expr).ok_or_else(|| Error::mismatch("no op"))?;
            let extras = inputs[1..].iter().map(|e| extra(group, e)).collect::<Result<Vec<_>>>()?;
            let wholes = extras.iter().map(|i| group.extras[*i].node.form.clone());
            Link::new(op, std::iter::once(below.clone()).chain(wholes).collect(), extras)
        };
        let mut chain = |group: &mut Self, below: Form, exprs: &[&Expr]| -> Result<(Chain, Form)> {
            let (mut links, mut below) = (Vec::with_capacity(exprs.len()), below);
            for expr in exprs {
                let next = link(group, &below, expr)?;
                below = next.form.clone();
                links.push(next);
            }
            Ok((Chain(links), below))
        };
        let (mut on, mut form) = (On::Base, self.base.form.clone());
        let first = self.computes.len();
        if let Some(stem) = split.stem {
            let text = stem.to_string();
            let known = self.stems.iter().position(|s| s.text == text);
            let number = if let Some(number) = known {
                number
            } else {
                let (Chain(mut links), _) = chain(self, form, &[stem])?;
                let link = links.remove(0);
                self.stems.push(Stem {
                    text,
                    link,
                    measured: false,
                    offload: false,
                    first,
                    turned: false,
                    firsts: Vec::new(),
                });
                self.stems.len() - 1
            };
            self.stems[number].turned |= split.turned.is_some();
            (on, form) = (On::Stem(number), self.stems[number].link.form.clone());
        }
        let (below, form) = chain(self, form, &split.chain)?;
        let (turned, form) = match &split.turned {
            None => (None, form),
            Some(above) => {
                let (rows, columns) = (form.shape.row_len(), form.shape.rows());
                let element = form.row_bytes()? / rows.max(1);
                let shape = tensormill_tensor::Shape::new(vec![rows, columns])?;
                let (chain, form) = chain(self, Form::new(shape, form.encoding), above)?;
                (Some(Turned { rows, columns, element, chain }), form)
            }
        };
        let row_bytes = form.row_bytes()?;
        self.computes.push(Compute {
            text,
            on,
            chain: below,
            turned,
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
        for c in self.computes.iter_mut().filter(|c| c.on == On::Base && c.turned.is_none()) {
            let Some((pick, link)) = c.chain.encoder() else { continue };
            c.measured = measure::measurable(pick.map_or(base, |p| &p.form), link);
        }
        for s in &mut self.stems {
            s.measured = !s.firsts.is_empty() && measure::measurable(base, &s.link);
        }
        let bundles = self.stems.iter().any(|s| s.measured);
        if bundles || self.computes.iter().any(|c| c.measured) {
            // Rows of what is measured; of the base they may be more, or longer ones.
            let encoders = self.computes.iter().filter(|c| c.measured).filter_map(|c| c.chain.encoder());
            let unit = encoders.filter_map(|(pick, _)| pick).map(Link::measured_unit).fold(1, lcm);
            self.unit = lcm(unit, measure::unit_rows(base.shape.row_len())).min(self.base.rows.max(1));
            self.floats = 2 * measure::chunk(base.shape.row_len(), bundles).min(base.shape.elements());
        }
    }

    /// Makes units of rows as high as ops need them.
    fn bound(&mut self) {
        let mut unit = self.unit;
        for s in &self.stems {
            unit = lcm(unit, s.link.op.unit().max(1));
        }
        for c in &self.computes {
            unit = lcm(unit, c.chain.step());
        }
        self.unit = unit.min(self.base.rows.max(1));
    }

    fn offload(&mut self) {
        let encodes = |link: &Link| link.op.encodes().is_some() && link.extras.is_empty();
        for s in &mut self.stems {
            s.offload = encodes(&s.link);
        }
        for c in self.computes.iter_mut().filter(|c| c.on == On::Base && c.turned.is_none()) {
            c.offload = c.chain.only().is_some_and(encodes);
        }
    }
}
