//! Ops on top of one another, each on the rows of the one beneath it.
//!
//! Where an op packs several rows into one, row numbers change on the way up; rows go through a chain in portions that cut
//! none of its units ([`Chain::step`]). Must not know where the first rows come from, nor where the last ones go.

use crate::{measure::unit_rows, node::lcm, split::picks};
use std::sync::Arc;
use tensormill_model::{Error, Form, Op, Result, Rows};

/// An op whose first input passes by in rows; of others it needs the whole.
pub(crate) struct Link {
    pub op: Arc<dyn Op>,
    /// Forms of all inputs.
    pub forms: Vec<Form>,
    /// Whole inputs, by their number in the group.
    pub extras: Vec<usize>,
    /// Rows of the first input that make one of its own.
    ratio: u64,
    pub form: Form,
    pub row_bytes: u64,
}

impl Link {
    /// For an op that takes its first input by rows.
    pub(crate) fn new(op: &Arc<dyn Op>, forms: Vec<Form>, extras: Vec<usize>) -> Result<Self> {
        let form = op.form(&forms)?;
        let row_bytes = form.row_bytes()?;
        let ratio = op.locality(0).ratio().filter(|r| *r > 0);
        let ratio = ratio.ok_or_else(|| Error::mismatch(format!("{} takes no rows", op.describe())))?;
        if form.shape.rows().checked_mul(row_bytes).is_none() {
            let text = format!("{} {} is too large to address", form.encoding, form.shape);
            return Err(Error::malformed(text));
        }
        Ok(Self { op: Arc::clone(op), forms, extras, ratio, form, row_bytes })
    }

    /// Rows of its first input that give whole units of what is measured.
    pub(crate) fn measured_unit(&self) -> u64 {
        self.ratio.saturating_mul(unit_rows(self.form.shape.row_len()))
    }

    /// Its rows for some rows of its first input.
    pub(crate) fn rows(&self, input: &Rows) -> Rows {
        input.start / self.ratio..input.end.div_ceil(self.ratio)
    }

    /// Bytes of its rows for so many of its first input.
    pub(crate) fn bytes(&self, n: u64) -> u64 {
        n.div_ceil(self.ratio).saturating_mul(self.row_bytes)
    }

    /// Computes what some rows of its first input, which `value` holds, give. `extras` are all of the group's.
    pub(crate) fn run(&self, input: &Rows, value: &[u8], extras: &[&[u8]], out: &mut [u8]) -> Result<()> {
        let rows = self.rows(input);
        if self.extras.is_empty() {
            return self.op.run(rows, &self.forms, &[value], out);
        }
        let inputs: Vec<&[u8]> =
            std::iter::once(value).chain(self.extras.iter().map(|i| extras[*i])).collect();
        self.op.run(rows, &self.forms, &inputs, out)
    }
}

/// Links from the bottom up; none: rows as they stand.
#[derive(Default)]
pub(crate) struct Chain(pub Vec<Link>);

impl Chain {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The link, where there is one and no other.
    pub(crate) fn only(&self) -> Option<&Link> {
        match self.0.as_slice() {
            [link] => Some(link),
            _ => None,
        }
    }

    /// The last link, where nothing else is there but what picks rows for it: of what the link encodes, and how.
    pub(crate) fn encoder(&self) -> Option<(Option<&Link>, &Link)> {
        match self.0.as_slice() {
            [link] => Some((None, link)),
            [pick, link] if picks(&*pick.op) => Some((Some(pick), link)),
            _ => None,
        }
    }

    /// Rows at the top for some rows at the bottom.
    pub(crate) fn rows(&self, input: &Rows) -> Rows {
        self.0.iter().fold(input.clone(), |rows, link| link.rows(&rows))
    }

    /// Rows at the bottom that may not be cut apart, unless they are the last ones.
    pub(crate) fn step(&self) -> u64 {
        let (mut ratio, mut step) = (1u64, 1u64);
        for link in &self.0 {
            ratio = ratio.saturating_mul(link.ratio);
            step = lcm(step, ratio.saturating_mul(link.op.unit().max(1)));
        }
        step
    }

    /// Bytes at the top for `n` rows at the bottom; zero where there is no link.
    pub(crate) fn bytes(&self, n: u64) -> u64 {
        let Some((last, below)) = self.0.split_last() else { return 0 };
        last.bytes(below.iter().fold(n, |n, link| n.div_ceil(link.ratio)))
    }

    /// Bytes between the bottom and the top, for `n` rows at the bottom.
    pub(crate) fn between(&self, n: u64) -> u64 {
        let Some((_, below)) = self.0.split_last() else { return 0 };
        let (mut n, mut bytes) = (n, 0u64);
        for link in below {
            bytes = bytes.saturating_add(link.bytes(n));
            n = n.div_ceil(link.ratio);
        }
        bytes
    }

    /// Bytes that ops allocate themselves for `n` rows at the bottom.
    pub(crate) fn outside(&self, n: u64) -> u64 {
        let (mut n, mut most) = (n, 0);
        for link in &self.0 {
            n = n.div_ceil(link.ratio);
            most = most.max(link.op.scratch(&link.forms, n));
        }
        most
    }

    /// Computes what some rows at the bottom, which `value` holds, give at the top; `scratch` has room for what is
    /// [between](Self::between).
    pub(crate) fn run(
        &self,
        input: &Rows,
        value: &[u8],
        extras: &[&[u8]],
        out: &mut [u8],
        scratch: &mut [u8],
    ) -> Result<()> {
        let Some((last, below)) = self.0.split_last() else {
            out.copy_from_slice(value);
            return Ok(());
        };
        let (mut rows, mut value, mut rest) = (input.clone(), value, scratch);
        for link in below {
            let (between, more) = rest.split_at_mut(link.bytes(rows.end - rows.start) as usize);
            link.run(&rows, value, extras, between)?;
            (rows, value, rest) = (link.rows(&rows), between, more);
        }
        last.run(&rows, value, extras, out)
    }
}
