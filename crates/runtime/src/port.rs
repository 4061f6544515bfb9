//! What a graph says about its inputs and outputs.

use crate::Value;
use std::fmt;
use tensormill_model::{Error, Result};
use tensormill_tensor::DType;

/// One dimension.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dim {
    /// Always this size.
    Fixed(usize),
    /// Whatever is given. Equal names should be equal sizes; without a name, empty.
    Symbol(String),
}

/// An input or output of a graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Name.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Dimensions, outermost first; none where the graph does not even say how many there are.
    pub dims: Option<Vec<Dim>>,
}

impl Port {
    /// Whether a value may be given here.
    pub(crate) fn check(&self, value: &Value) -> Result<()> {
        let fits = self.dims.as_ref().is_none_or(|dims| {
            dims.len() == value.shape().len()
                && dims.iter().zip(value.shape()).all(|(d, n)| match d {
                    Dim::Fixed(size) => size == n,
                    Dim::Symbol(_) => true,
                })
        });
        if fits && self.dtype == value.dtype() {
            return Ok(());
        }
        let given = format!("{} {:?}", value.dtype(), value.shape());
        Err(Error::usage(format!("input `{}` is {self}; {given} is given", self.name)))
    }
}

impl fmt::Display for Port {
    /// Type and dimensions: `i64 [batch, 7]`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.dtype)?;
        let Some(dims) = &self.dims else { return Ok(()) };
        let dims: Vec<String> = dims
            .iter()
            .map(|d| match d {
                Dim::Fixed(n) => n.to_string(),
                Dim::Symbol(s) if s.is_empty() => "?".to_owned(),
                Dim::Symbol(s) => s.clone(),
            })
            .collect();
        write!(f, " [{}]", dims.join(", "))
    }
}
