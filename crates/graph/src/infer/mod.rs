//! Element types and dimensions of values, from what goes in: so far as they can be told, and whether they fit.
//!
//! Dimensions are numbers, names that inputs give them, or unknown. Elements of small lists of integers are followed, too,
//! since graphs compute shapes: `Shape`, `Gather`, `Concat`, `Reshape`. Where no rule is known, nothing is: that is no error.
//! Nor are two names beside each other, which may stand for one length.

mod bodies;
mod call;
mod computing;
mod dim;
mod picking;
mod quantized;
mod rules;
mod runtime;
mod shaping;

use crate::{
    Dim, Elem, Graph, Node, Opset, Program, Tensor, ValueInfo,
    check::{Functions, called, functions},
    fault::{CheckError, Fault, node_name},
    schema, types,
};
use call::{Call, Found};
use dim::{same_all, show};
use std::{cell::Cell, collections::HashMap};

/// So many elements of a value are followed.
const MOST_DATA: usize = 1024;
/// So many nodes are looked at within functions, which may call each other more often than there is time for.
const MOST_CALLS: usize = 1 << 20;
/// So deep may functions call each other.
const MOST_DEPTH: usize = 32;

/// What is known of a value.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fact {
    /// Element type; `UNDEFINED` where it is not known, or the value is no tensor.
    pub elem: Elem,
    /// Dimensions; `None` where not even their number is known.
    pub dims: Option<Vec<Dim>>,
    /// Elements of integers without or with one dimension.
    data: Option<Vec<Dim>>,
}

impl Fact {
    /// Of a tensor whose dimensions are known.
    fn of(elem: Elem, dims: &[i64]) -> Self {
        let one = |n: &i64| if *n < 0 { Dim::Unknown } else { Dim::Known(*n) };
        Self { elem, dims: Some(dims.iter().map(one).collect()), data: None }
    }
    /// Of a tensor that is there.
    fn of_tensor(t: &Tensor) -> Self {
        let list = t.dims.len() < 2 && t.elements().is_some_and(|n| n <= MOST_DATA as u64);
        let data = if list { t.as_ints() } else { None };
        Self { data: data.map(|d| d.into_iter().map(Dim::Known).collect()), ..Self::of(t.elem, &t.dims) }
    }
    /// Of a value as it is declared.
    fn declared(info: &ValueInfo) -> Self {
        let one = |d: Dim| if matches!(d, Dim::Known(..0)) { Dim::Unknown } else { d };
        let dims = info.dims().map(|dims| dims.into_iter().map(one).collect());
        Self { elem: info.elem().unwrap_or_default(), dims, data: None }
    }
    /// The value's declaration; `None` where its element type is not known.
    pub fn info(&self, name: &str) -> Option<ValueInfo> {
        if self.elem == Elem::UNDEFINED {
            return None;
        }
        let mut info = ValueInfo::tensor(name, self.elem, self.dims.as_deref().unwrap_or_default());
        if self.dims.is_none()
            && let Some(t) = info.kind.as_mut().and_then(|k| k.tensor.as_mut())
        {
            t.shape = None;
        }
        Some(info)
    }
    /// What both say of one value.
    fn and(&self, other: &Self) -> Option<Self> {
        let elem = match (self.elem, other.elem) {
            (a, Elem::UNDEFINED) => a,
            (Elem::UNDEFINED, b) => b,
            (a, b) => Some(a).filter(|_| a == b)?,
        };
        let dims = match (&self.dims, &other.dims) {
            (Some(a), Some(b)) => Some(same_all(a, b)?),
            (a, b) => a.clone().or_else(|| b.clone()),
        };
        Some(Self { elem, dims, data: self.data.clone().or_else(|| other.data.clone()) })
    }
    /// What holds for either of two values.
    fn or(&self, other: &Self) -> Self {
        let dims = match (&self.dims, &other.dims) {
            (Some(a), Some(b)) if a.len() == b.len() => {
                Some(a.iter().zip(b).map(|(a, b)| dim::either(a, b)).collect())
            }
            _ => None,
        };
        Self { elem: if self.elem == other.elem { self.elem } else { Elem::UNDEFINED }, dims, data: None }
    }
}

impl std::fmt::Display for Fact {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.elem {
            Elem::UNDEFINED => f.write_str("?")?,
            elem => write!(f, "{elem}")?,
        }
        f.write_str(&self.dims.as_deref().map_or_else(String::new, show))
    }
}

/// What is known of the values of a program's graph.
#[derive(Clone, Debug, Default)]
pub struct Inferred {
    facts: HashMap<String, Fact>,
    order: Vec<String>,
}

impl Inferred {
    /// What is known of a value.
    pub fn get(&self, value: &str) -> Option<&Fact> {
        self.facts.get(value)
    }
    /// All values: inputs, initializers, and outputs of nodes in order.
    pub fn values(&self) -> impl Iterator<Item = (&str, &Fact)> {
        self.order.iter().filter_map(|name| Some((name.as_str(), self.facts.get(name)?)))
    }
}

/// Element type and dimensions of a weight by its number.
pub type Weights<'a> = &'a dyn Fn(usize) -> Option<(Elem, Vec<i64>)>;

impl Program {
    /// What is known of the graph's values. `weights` are asked for what initializers of the program's weights hold; where they
    /// do not know, what the initializer says itself counts.
    ///
    /// # Errors
    /// Types and dimensions that do not fit each other, what is declared included.
    pub fn infer(&self, weights: Weights<'_>) -> Result<Inferred, CheckError> {
        let functions = functions(self);
        let infer = Infer { functions: &functions, weights, calls: Cell::new(0), depth: Cell::new(0) };
        let scope = infer.graph(&self.graph, &[], None, &self.opsets)?;
        Ok(Inferred { facts: scope.facts, order: scope.order })
    }
}

/// What is known so far, and around.
#[derive(Default)]
struct Scope<'o> {
    outer: Option<&'o Scope<'o>>,
    facts: HashMap<String, Fact>,
    order: Vec<String>,
}

impl Scope<'_> {
    fn get(&self, value: &str) -> Option<&Fact> {
        self.facts.get(value).or_else(|| self.outer?.get(value))
    }
    fn set(&mut self, value: &str, fact: Fact) {
        if self.facts.insert(value.to_owned(), fact).is_none() {
            self.order.push(value.to_owned());
        }
    }
}

struct Infer<'p> {
    functions: &'p Functions<'p>,
    weights: Weights<'p>,
    calls: Cell<usize>,
    depth: Cell<usize>,
}

impl Infer<'_> {
    /// Values of a graph. `given` is what is known of its inputs.
    fn graph<'o>(
        &self,
        g: &Graph,
        given: &[Fact],
        outer: Option<&'o Scope<'o>>,
        opsets: &[Opset],
    ) -> Result<Scope<'o>, CheckError> {
        let mut scope = Scope { outer, ..Scope::default() };
        let nothing = Fact::default();
        for (i, input) in g.inputs.iter().enumerate() {
            let fact = agreed(&input.name, &Fact::declared(input), given.get(i).unwrap_or(&nothing))
                .map_err(|fault| CheckError::new("the graph's inputs", fault))?;
            scope.set(&input.name, fact);
        }
        for t in &g.initializers {
            let held = t.slot.and_then(self.weights).map(|(elem, dims)| Fact::of(elem, &dims));
            let fact = match held {
                Some(held) => Fact { data: Fact::of_tensor(t).data, ..held },
                // Weights of graphs that are built say nothing of themselves.
                None if t.elem == Elem::UNDEFINED => Fact::default(),
                None => Fact::of_tensor(t),
            };
            let fact = match scope.facts.get(&t.name) {
                // What is usual is not what must be.
                Some(input) => Fact { data: None, ..input.clone() },
                None => fact,
            };
            scope.set(&t.name, fact);
        }
        for s in &g.sparse {
            if let Some(values) = &s.values {
                scope.set(&values.name, Fact::of(values.elem, &s.dims));
            }
        }
        let declared: HashMap<&str, Fact> =
            g.values.iter().chain(&g.outputs).map(|v| (v.name.as_str(), Fact::declared(v))).collect();
        self.nodes(&g.nodes, &mut scope, &declared, opsets)?;
        for output in &g.outputs {
            // Inputs and weights may be outputs, too.
            if let Some(fact) = scope.get(&output.name) {
                agreed(&output.name, &Fact::declared(output), fact)
                    .map_err(|fault| CheckError::new("the graph's outputs", fault))?;
            }
        }
        Ok(scope)
    }

    fn nodes(
        &self,
        nodes: &[Node],
        scope: &mut Scope<'_>,
        declared: &HashMap<&str, Fact>,
        opsets: &[Opset],
    ) -> Result<(), CheckError> {
        for (i, node) in nodes.iter().enumerate() {
            let at = |fault| CheckError::new(node_name(i, node), fault);
            let facts = self.node(node, scope, opsets).map_err(|e| match e {
                Trouble::Here(fault) => at(fault),
                Trouble::Within(e) => e.within(&node_name(i, node)),
            })?;
            for (name, found) in node.outputs.iter().zip(facts).filter(|(name, _)| !name.is_empty()) {
                let fact = match declared.get(name.as_str()) {
                    Some(declared) => agreed(name, declared, &found).map_err(at)?,
                    None => found,
                };
                scope.set(name, fact);
            }
        }
        Ok(())
    }

    /// What is known of a node's outputs.
    fn node(&self, node: &Node, scope: &Scope<'_>, opsets: &[Opset]) -> Result<Vec<Fact>, Trouble> {
        let inputs: Vec<Option<&Fact>> = node.inputs.iter().map(|v| scope.get(v)).collect();
        let mut facts = if let Some(f) = called(self.functions, node) {
            self.function(f, node, &inputs)?
        } else if bodies::has(node) {
            self.bodies(node, &inputs, scope, opsets)?
        } else {
            let elem =
                |i: usize| Some(inputs.get(i).copied().flatten()?.elem).filter(|e| *e != Elem::UNDEFINED);
            let operator = schema::of_node(node, opsets);
            if let Some(operator) = operator {
                types::fits(node, operator, &elem)?;
            }
            let elems = types::outputs(node, operator, &elem);
            let version = schema::version(opsets, &node.domain).unwrap_or_default();
            let found = rules::outputs(&Call { node, version, inputs: &inputs })?;
            let found = found.into_iter().chain(std::iter::repeat(Found::nothing()));
            elems
                .into_iter()
                .zip(found)
                .map(|(elem, Found { dims, data })| Fact { elem: elem.unwrap_or_default(), dims, data })
                .collect()
        };
        facts.resize(node.outputs.len(), Fact::default());
        Ok(facts)
    }
}

/// An error that has no place yet, or one of something within.
enum Trouble {
    Here(Fault),
    Within(CheckError),
}

impl From<Fault> for Trouble {
    fn from(fault: Fault) -> Self {
        Self::Here(fault)
    }
}

impl From<CheckError> for Trouble {
    fn from(e: CheckError) -> Self {
        Self::Within(e)
    }
}

/// What is known of a value that is declared. What is declared comes first, since people have named it.
fn agreed(name: &str, declared: &Fact, found: &Fact) -> Result<Fact, Fault> {
    declared.and(found).ok_or_else(|| {
        Fault::Contradiction(format!("{name:?} is declared as {declared}; what is computed is {found}"))
    })
}
