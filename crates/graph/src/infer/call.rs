//! A node with what is known of its inputs, as the rules of operators see it.

use super::{Fact, dim::show};
use crate::{Dim, Node, fault::Fault};

/// What is known of one output; element types are found elsewhere.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Found {
    pub(super) dims: Option<Vec<Dim>>,
    /// Elements of integers without or with one dimension.
    pub(super) data: Option<Vec<Dim>>,
}

impl Found {
    /// Nothing is known.
    pub(super) fn nothing() -> Self {
        Self::default()
    }
    pub(super) fn dims(dims: Vec<Dim>) -> Self {
        Self { dims: Some(dims), data: None }
    }
    /// As [`Self::dims`], where they are known.
    pub(super) fn maybe(dims: Option<Vec<Dim>>) -> Self {
        Self { dims, data: None }
    }
    /// With elements, unless they are too many or no list.
    pub(super) fn with(mut self, data: Option<Vec<Dim>>) -> Self {
        let list = self.dims.as_ref().is_none_or(|d| d.len() < 2);
        self.data = data.filter(|d| list && d.len() <= super::MOST_DATA);
        self
    }
}

/// What a rule gives: outputs in order; those behind are not known.
pub(super) type Outputs = Result<Vec<Found>, Fault>;

/// A node and what is known of its inputs.
pub(super) struct Call<'a> {
    pub(super) node: &'a Node,
    /// Version of the node's domain.
    pub(super) version: i64,
    pub(super) inputs: &'a [Option<&'a Fact>],
}

impl<'a> Call<'a> {
    /// Whether an input is there.
    pub(super) fn has(&self, i: usize) -> bool {
        self.node.inputs.get(i).is_some_and(|v| !v.is_empty())
    }
    /// Dimensions of an input.
    pub(super) fn dims(&self, i: usize) -> Option<&'a [Dim]> {
        self.inputs.get(i).copied().flatten()?.dims.as_deref()
    }
    /// Elements of an input.
    pub(super) fn data(&self, i: usize) -> Option<&'a [Dim]> {
        self.inputs.get(i).copied().flatten()?.data.as_deref()
    }
    /// Elements of an input, where all are known.
    pub(super) fn ints(&self, i: usize) -> Option<Vec<i64>> {
        let known = |d: &Dim| if let Dim::Known(n) = d { Some(*n) } else { None };
        self.data(i)?.iter().map(known).collect()
    }
    /// Integers of an attribute, or of the input that has taken its place.
    pub(super) fn ints_of(&self, name: &str, input: usize) -> Option<Vec<i64>> {
        match self.node.attribute(name) {
            Some(a) => Some(a.ints.clone()),
            None => self.ints(input),
        }
    }
    /// The integer of an attribute.
    pub(super) fn int(&self, name: &str, usual: i64) -> i64 {
        self.node.int(name).unwrap_or(usual)
    }
    /// An axis of `rank` dimensions that an attribute says; negative ones count from the end.
    pub(super) fn axis(&self, usual: i64, rank: usize) -> Result<usize, Fault> {
        axis(self.int("axis", usual), rank)
    }
    /// A contradiction.
    pub(super) fn wrong<T>(text: impl Into<String>) -> Result<T, Fault> {
        Err(Fault::Contradiction(text.into()))
    }
    /// Refuses inputs of other ranks.
    pub(super) fn rank(&self, i: usize, ranks: std::ops::RangeInclusive<usize>) -> Result<(), Fault> {
        match self.dims(i) {
            Some(d) if !ranks.contains(&d.len()) => {
                let name = &self.node.inputs[i];
                Self::wrong(format!("{name:?} has dimensions {}, which are not {ranks:?} in number", show(d)))
            }
            _ => Ok(()),
        }
    }
}

/// An axis of `rank` dimensions; negative ones count from the end.
pub(super) fn axis(n: i64, rank: usize) -> Result<usize, Fault> {
    let place = if n < 0 { n.checked_add(rank as i64) } else { Some(n) };
    let found = place.and_then(|n| usize::try_from(n).ok()).filter(|n| *n < rank);
    found.ok_or_else(|| Fault::Contradiction(format!("axis {n} of {rank} dimensions")))
}
