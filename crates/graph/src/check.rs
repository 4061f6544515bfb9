//! Whether a program is one: every value is defined once and before it is used, every operator is there in the version that
//! is imported and has the inputs, outputs and attributes that it takes.
//!
//! What values hold is not looked at: that is inference (`infer`). Operators of domains that are not known are taken as they are.

use crate::{
    Attribute, Function, Graph, Kind, Node, Opset, Program,
    fault::{CheckError, Fault, node_name},
    schema::{self, Formal, Known, Many, arity, formal},
};
use std::collections::{HashMap, HashSet};

/// How a function is called.
type Key<'a> = (&'a str, &'a str, &'a str);

/// Functions of a program by what calls them.
pub(crate) type Functions<'a> = HashMap<Key<'a>, &'a Function>;

/// The function that a node calls, if it does.
pub(crate) fn called<'a>(functions: &Functions<'a>, node: &Node) -> Option<&'a Function> {
    functions.get(&(schema::standard(&node.domain), &*node.op, &*node.overload)).copied()
}

fn key(f: &Function) -> Key<'_> {
    (schema::standard(&f.domain), &f.name, &f.overload)
}

/// Functions of a program.
pub(crate) fn functions(program: &Program) -> Functions<'_> {
    program.functions.iter().map(|f| (key(f), f)).collect()
}

/// How a function is called in errors.
pub(crate) fn function_name(f: &Function) -> String {
    let domain = if f.domain.is_empty() { String::new() } else { format!("{}.", f.domain) };
    format!("the function {domain}{}", f.name)
}

impl Program {
    /// Looks for what makes a program none.
    ///
    /// # Errors
    /// The first fault, with the node and the value.
    pub fn check(&self) -> Result<(), CheckError> {
        let whole = |fault| CheckError::new("the model", fault);
        opsets(&self.opsets).map_err(whole)?;
        let functions = functions(self);
        let check = Check { functions: &functions, opsets: &self.opsets };
        let main = check.graph(&self.graph, None).map_err(|e| named(e, "the graph"))?;
        for t in &self.training {
            // Training sees the values of inference that are known, and changes them.
            let known: HashSet<&str> = self
                .graph
                .initializers
                .iter()
                .map(|t| t.name.as_str())
                .filter(|n| main.contains(n))
                .collect();
            let outer = Scope { outer: None, values: known };
            for (name, g) in [("initialization", &t.initialization), ("algorithm", &t.algorithm)] {
                if let Some(g) = g {
                    let what = format!("the graph of training's {name}");
                    check.graph(g, Some(&outer)).map_err(|e| named(e, &what))?;
                }
            }
        }
        let mut seen = HashSet::new();
        for f in &self.functions {
            let at = |fault| CheckError::new(function_name(f), fault);
            if !seen.insert(key(f)) {
                return Err(at(Fault::FunctionTwice));
            }
            opsets(&f.opsets).map_err(at)?;
            Check { functions: &functions, opsets: &f.opsets }
                .function(f)
                .map_err(|e| named(e, &function_name(f)))?;
        }
        recursion(self, &functions)
    }
}

/// Where an error about a graph itself has no place yet, it gets this one; others are in it.
fn named(e: CheckError, what: &str) -> CheckError {
    match e.place.as_str() {
        "" => CheckError { place: what.to_owned(), ..e },
        _ if what == "the graph" => e,
        _ => e.within(what),
    }
}

fn opsets(all: &[Opset]) -> Result<(), Fault> {
    let mut seen = HashSet::new();
    let twice = all.iter().find(|o| !seen.insert(schema::standard(&o.domain)));
    twice.map_or(Ok(()), |o| Err(Fault::TwoOpsets { domain: o.domain.clone() }))
}

/// Values that are there, and those of the graphs around.
struct Scope<'o, 'g> {
    outer: Option<&'o Scope<'o, 'o>>,
    values: HashSet<&'g str>,
}

impl<'g> Scope<'_, 'g> {
    fn has(&self, value: &str) -> bool {
        self.values.contains(value) || self.outer.is_some_and(|outer| outer.has(value))
    }
    fn define(&mut self, value: &'g str) -> Result<(), Fault> {
        if self.has(value) {
            return Err(Fault::Twice { value: value.to_owned() });
        }
        self.values.insert(value);
        Ok(())
    }
}

struct Check<'a> {
    functions: &'a Functions<'a>,
    opsets: &'a [Opset],
}

impl Check<'_> {
    /// The values that a graph defines.
    fn graph<'g>(&self, g: &'g Graph, outer: Option<&Scope<'_, '_>>) -> Result<HashSet<&'g str>, CheckError> {
        let at = |fault| CheckError::new("", fault);
        let mut scope = Scope { outer, values: HashSet::new() };
        let inputs: HashSet<&str> = g.inputs.iter().map(|i| i.name.as_str()).collect();
        for input in &g.inputs {
            if input.name.is_empty() {
                return Err(at(Fault::NoName { what: "inputs" }));
            }
            scope.define(&input.name).map_err(at)?;
        }
        let sparse = g.sparse.iter().filter_map(|s| s.values.as_ref());
        let mut known = HashSet::new();
        for t in g.initializers.iter().chain(sparse) {
            if t.name.is_empty() {
                return Err(at(Fault::NoName { what: "initializers" }));
            }
            // An initializer may be what an input is where nothing is given.
            if !known.insert(t.name.as_str()) {
                return Err(at(Fault::Twice { value: t.name.clone() }));
            }
            if !inputs.contains(t.name.as_str()) {
                scope.define(&t.name).map_err(at)?;
            }
        }
        self.nodes(&g.nodes, &mut scope)?;
        for output in &g.outputs {
            if output.name.is_empty() {
                return Err(at(Fault::NoName { what: "outputs" }));
            }
            if !scope.has(&output.name) {
                return Err(at(Fault::NoOutput { value: output.name.clone() }));
            }
        }
        Ok(scope.values)
    }

    fn function(&self, f: &Function) -> Result<(), CheckError> {
        let at = |fault| CheckError::new("", fault);
        let mut scope = Scope { outer: None, values: HashSet::new() };
        for input in &f.inputs {
            scope.define(input).map_err(at)?;
        }
        self.nodes(&f.nodes, &mut scope)?;
        match f.outputs.iter().find(|o| !scope.has(o)) {
            Some(value) => Err(at(Fault::NoOutput { value: value.clone() })),
            None => Ok(()),
        }
    }

    fn nodes<'g>(&self, nodes: &'g [Node], scope: &mut Scope<'_, 'g>) -> Result<(), CheckError> {
        for (i, node) in nodes.iter().enumerate() {
            let at = |fault| CheckError::new(node_name(i, node), fault);
            self.operator(node).map_err(at)?;
            if let Some(value) = node.inputs.iter().find(|v| !v.is_empty() && !scope.has(v)) {
                return Err(at(Fault::Undefined { value: value.clone() }));
            }
            for a in &node.attributes {
                for g in a.held() {
                    let what = format!("{} of {}", a.name, node_name(i, node));
                    self.graph(g, Some(scope)).map_err(|e| named(e, &what))?;
                }
            }
            for value in node.outputs.iter().filter(|v| !v.is_empty()) {
                scope.define(value).map_err(at)?;
            }
        }
        Ok(())
    }

    /// The operator of a node, and how it is applied.
    fn operator(&self, node: &Node) -> Result<(), Fault> {
        if node.op.is_empty() {
            return Err(Fault::NoOperator);
        }
        let domain = || node.domain.clone();
        let version =
            schema::version(self.opsets, &node.domain).ok_or_else(|| Fault::NoOpset { domain: domain() })?;
        attributes_once(node)?;
        if let Some(f) = called(self.functions, node) {
            at_most("inputs", node.inputs.len(), f.inputs.len())?;
            return at_most("outputs", node.outputs.len(), f.outputs.len());
        }
        match schema::find(&node.domain, &node.op, version) {
            Known::Nothing if schema::standard(&node.domain).is_empty() => {
                Err(Fault::Unknown { domain: "ai.onnx".to_owned() })
            }
            Known::Nothing => Ok(()),
            Known::Since(since) => Err(Fault::TooNew { since, version }),
            Known::Until(until) => Err(Fault::Gone { until, version }),
            Known::Now(operator) => {
                values("input", &node.inputs, &operator.inputs)?;
                values("output", &node.outputs, &operator.outputs)?;
                attributes(&node.attributes, &operator.attributes)
            }
        }
    }
}

fn at_most(what: &'static str, found: usize, most: usize) -> Result<(), Fault> {
    if found <= most { Ok(()) } else { Err(Fault::Count { what, found, least: 0, most: Some(most) }) }
}

fn values(what: &'static str, names: &[String], formals: &[Formal]) -> Result<(), Fault> {
    let (least, most) = arity(formals);
    let found = names.len();
    if found < least || most.is_some_and(|most| found > most) {
        let what = if what == "input" { "inputs" } else { "outputs" };
        return Err(Fault::Count { what, found, least, most });
    }
    // Outputs that nobody wants have no name, whatever they are.
    let needed = |i: usize| what == "input" && formal(formals, i).is_some_and(|f| f.many == Many::One);
    match (0..found).find(|i| names[*i].is_empty() && needed(*i)) {
        Some(index) => Err(Fault::LeftOut { what, index }),
        None => Ok(()),
    }
}

fn attributes_once(node: &Node) -> Result<(), Fault> {
    let mut seen = HashSet::new();
    let twice = node.attributes.iter().find(|a| !seen.insert(a.name.as_str()));
    twice.map_or(Ok(()), |a| Err(Fault::AttributeTwice { name: a.name.clone() }))
}

fn attributes(found: &[Attribute], known: &[(&str, Kind, bool)]) -> Result<(), Fault> {
    for a in found {
        let name = || a.name.clone();
        let (_, kind, _) = known
            .iter()
            .find(|(name, ..)| *name == a.name)
            .ok_or_else(|| Fault::OtherAttribute { name: name() })?;
        // Files of the first version do not say the kind.
        if a.kind != *kind && a.kind != Kind::default() {
            return Err(Fault::AttributeKind { name: name() });
        }
    }
    let missing = known.iter().find(|(name, _, must)| *must && !found.iter().any(|a| a.name == *name));
    missing.map_or(Ok(()), |(name, ..)| Err(Fault::NoAttribute { name: (*name).to_owned() }))
}

/// Functions that call themselves: those that are left when all have been taken away that call none of what is left.
fn recursion(program: &Program, functions: &Functions<'_>) -> Result<(), CheckError> {
    let mut callers: HashMap<Key<'_>, Vec<Key<'_>>> = HashMap::new();
    let mut calls: HashMap<Key<'_>, usize> = HashMap::new();
    for f in &program.functions {
        let mut of_this = HashSet::new();
        calls_in(&f.nodes, functions, &mut of_this);
        calls.insert(key(f), of_this.len());
        for callee in of_this {
            callers.entry(callee).or_default().push(key(f));
        }
    }
    let mut free: Vec<Key<'_>> = calls.iter().filter(|(_, n)| **n == 0).map(|(k, _)| *k).collect();
    while let Some(done) = free.pop() {
        calls.remove(&done);
        for caller in callers.get(&done).into_iter().flatten() {
            if let Some(n) = calls.get_mut(caller) {
                *n -= 1;
                if *n == 0 {
                    free.push(*caller);
                }
            }
        }
    }
    match program.functions.iter().find(|f| calls.contains_key(&key(f))) {
        Some(f) => Err(CheckError::new(function_name(f), Fault::Recursion)),
        None => Ok(()),
    }
}

fn calls_in<'a>(nodes: &[Node], functions: &Functions<'a>, calls: &mut HashSet<Key<'a>>) {
    for node in nodes {
        calls.extend(called(functions, node).map(key));
        for g in node.graphs() {
            calls_in(&g.nodes, functions, calls);
        }
    }
}
