//! Goes through all tensors of a program, wherever they stand, to read them or to change them.

use crate::{Program, Tensor};

/// Where a tensor stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stand {
    /// It is an initializer: a value of its name.
    Initializer,
    /// It is the attribute of a node.
    Attribute,
    /// It is a part of a sparse tensor.
    Sparse,
}

impl Program {
    /// Calls `each` for every tensor, with a text that says where it is: the value's name in the main graph, behind the
    /// names of what is around it elsewhere. Texts need not be unique.
    pub fn tensors(&self, mut each: impl FnMut(&str, Stand, &Tensor)) {
        reading::program(self, &mut each);
    }

    /// The same, to change them.
    pub fn tensors_mut(&mut self, mut each: impl FnMut(&str, Stand, &mut Tensor)) {
        changing::program(self, &mut each);
    }
}

/// One walk, over `&` or `&mut`.
macro_rules! walk {
    ($module:ident $($mutable:tt)?) => {
        mod $module {
            use super::Stand;
            use crate::{Attribute, Graph, Node, Program, Sparse, Tensor};

            /// Called with a path, where the tensor stands, and the tensor.
            type Each<'a> = &'a mut dyn FnMut(&str, Stand, &$($mutable)? Tensor);

            pub(super) fn program(p: &$($mutable)? Program, each: Each<'_>) {
                graph(&$($mutable)? p.graph, "", each);
                for f in &$($mutable)? p.functions {
                    let domain = if f.domain.is_empty() { String::new() } else { format!("{}.", f.domain) };
                    let path = format!("{domain}{}/", f.name);
                    nodes(&$($mutable)? f.nodes, &path, each);
                }
                let mut n = 0;
                for t in &$($mutable)? p.training {
                    if let Some(g) = &$($mutable)? t.initialization {
                        graph(g, &format!("training.{n}.initialization/"), each);
                    }
                    if let Some(g) = &$($mutable)? t.algorithm {
                        graph(g, &format!("training.{n}.algorithm/"), each);
                    }
                    n += 1;
                }
            }

            fn graph(g: &$($mutable)? Graph, path: &str, each: Each<'_>) {
                for t in &$($mutable)? g.initializers {
                    let name = format!("{path}{}", t.name);
                    each(&name, Stand::Initializer, t);
                }
                for s in &$($mutable)? g.sparse {
                    sparse(s, path, each);
                }
                nodes(&$($mutable)? g.nodes, path, each);
            }

            fn sparse(s: &$($mutable)? Sparse, path: &str, each: Each<'_>) {
                let name = s.values.as_ref().map_or(String::new(), |v| format!("{path}{}", v.name));
                if let Some(t) = &$($mutable)? s.values {
                    each(&format!("{name}.values"), Stand::Sparse, t);
                }
                if let Some(t) = &$($mutable)? s.indices {
                    each(&format!("{name}.indices"), Stand::Sparse, t);
                }
            }

            fn nodes(all: &$($mutable)? Vec<Node>, path: &str, each: Each<'_>) {
                let mut n = 0;
                for node in all {
                    let constant = node.is("Constant");
                    let Node { name, op, outputs, attributes, .. } = node;
                    let own = match (constant, outputs.first(), name.is_empty()) {
                        (true, Some(value), _) => value.clone(),
                        (_, _, false) => name.clone(),
                        _ => format!("{op}.{n}"),
                    };
                    n += 1;
                    for a in attributes {
                        attribute(a, &format!("{path}{own}"), constant, each);
                    }
                }
            }

            fn attribute(a: &$($mutable)? Attribute, at: &str, constant: bool, each: Each<'_>) {
                let Attribute { name, t, g, tensors, graphs, sparse: one, sparses, .. } = a;
                if let Some(t) = t {
                    let value = if constant { at.to_owned() } else { format!("{at}/{name}") };
                    each(&value, Stand::Attribute, t);
                }
                let mut n = 0;
                for t in tensors {
                    each(&format!("{at}/{name}.{n}"), Stand::Attribute, t);
                    n += 1;
                }
                if let Some(s) = one {
                    sparse(s, &format!("{at}/{name}/"), each);
                }
                for s in sparses {
                    sparse(s, &format!("{at}/{name}/"), each);
                }
                if let Some(g) = g {
                    graph(g, &format!("{at}/{name}/"), each);
                }
                n = 0;
                for g in graphs {
                    graph(g, &format!("{at}/{name}.{n}/"), each);
                    n += 1;
                }
            }
        }
    };
}

walk! { reading }
walk! { changing mut }
