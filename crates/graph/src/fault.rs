//! What can be wrong with a program, and where.

use crate::{Elem, Node};

/// Something that a program must not be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {fault}")]
pub struct CheckError {
    /// Where: the node with its number, operator and name, and what it is in.
    pub place: String,
    /// What.
    pub fault: Fault,
}

impl CheckError {
    pub(crate) fn new(place: impl Into<String>, fault: Fault) -> Self {
        Self { place: place.into(), fault }
    }
    /// Says what the place is in.
    pub(crate) fn within(mut self, outer: &str) -> Self {
        self.place = format!("{} in {outer}", self.place);
        self
    }
}

/// How a node is called in errors.
pub(crate) fn node_name(index: usize, node: &Node) -> String {
    let domain = if node.domain.is_empty() { String::new() } else { format!("{}.", node.domain) };
    let name = if node.name.is_empty() { String::new() } else { format!(" {:?}", node.name) };
    format!("node {index} ({domain}{}{name})", node.op)
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A node without operator.
    #[error("it names no operator")]
    NoOperator,
    /// Operators of a domain whose version is not said.
    #[error("the version of the operators of {domain:?} is not said: an opset_import is missing")]
    NoOpset {
        /// The domain.
        domain: String,
    },
    /// Two versions of one domain.
    #[error("two versions of the operators of {domain:?} are imported")]
    TwoOpsets {
        /// The domain.
        domain: String,
    },
    /// An operator that came later.
    #[error("the operator came with opset {since}; opset {version} is imported")]
    TooNew {
        /// Version that it came with.
        since: i64,
        /// Version that is imported.
        version: i64,
    },
    /// An operator that is gone.
    #[error("the operator went with opset {until}; opset {version} is imported")]
    Gone {
        /// Version that it went with.
        until: i64,
        /// Version that is imported.
        version: i64,
    },
    /// No operator of this name in a domain that is known, and no function of the file.
    #[error("{domain:?} has no such operator, and no function of the file is called so")]
    Unknown {
        /// The domain.
        domain: String,
    },
    /// Too few or too many inputs or outputs.
    #[error("it has {found} {what}; the operator has {}", range(*.least, *.most))]
    Count {
        /// `inputs` or `outputs`.
        what: &'static str,
        /// How many there are.
        found: usize,
        /// Least number.
        least: usize,
        /// Largest number, where there is one.
        most: Option<usize>,
    },
    /// An input or output that must be there is left out.
    #[error("{what} {index} is left out; the operator needs it")]
    LeftOut {
        /// `input` or `output`.
        what: &'static str,
        /// Which.
        index: usize,
    },
    /// An attribute that must be there.
    #[error("the attribute {name:?} is missing")]
    NoAttribute {
        /// Its name.
        name: String,
    },
    /// An attribute that the operator does not have.
    #[error("the operator has no attribute {name:?}")]
    OtherAttribute {
        /// Its name.
        name: String,
    },
    /// An attribute of another kind.
    #[error("the attribute {name:?} is of another kind than the operator's")]
    AttributeKind {
        /// Its name.
        name: String,
    },
    /// Two attributes of one name.
    #[error("it has the attribute {name:?} twice")]
    AttributeTwice {
        /// Its name.
        name: String,
    },
    /// A value that is there already, here or in a graph around.
    #[error("it defines {value:?}, which is defined before")]
    Twice {
        /// The value.
        value: String,
    },
    /// A value that nothing defines before.
    #[error("it uses {value:?}, which nothing before it defines")]
    Undefined {
        /// The value.
        value: String,
    },
    /// An output of a graph or function that nothing defines.
    #[error("nothing defines its output {value:?}")]
    NoOutput {
        /// The value.
        value: String,
    },
    /// An input, output or initializer without name.
    #[error("one of its {what} has no name")]
    NoName {
        /// `inputs`, `outputs` or `initializers`.
        what: &'static str,
    },
    /// Two functions of one name.
    #[error("the file defines it twice")]
    FunctionTwice,
    /// A function that calls itself.
    #[error("it calls itself, if through others")]
    Recursion,
    /// A value of an element type that the operator does not take.
    #[error("{value:?} is {elem}, which the operator does not take there in this version")]
    ElementType {
        /// The value.
        value: String,
        /// Its element type.
        elem: Elem,
    },
    /// Types or dimensions that do not fit each other.
    #[error("{0}")]
    Contradiction(String),
}

fn range(least: usize, most: Option<usize>) -> String {
    match most {
        Some(most) if most == least => format!("{least}"),
        Some(most) => format!("{least} to {most}"),
        None => format!("at least {least}"),
    }
}
