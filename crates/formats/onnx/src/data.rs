//! Where the elements of tensors are: in the model's file or in another one, as bytes or as numbers of varying length.

use crate::wire::{Input, Span};
use std::sync::Arc;
use tensormill_graph::Elem;
use tensormill_model::{Error, Limits, Result, Store};

/// Tensors of fewer bytes stay in the graph, as ONNX's own tools have it, and are known to it: shapes, axes, scales.
pub(crate) const SMALL: u64 = 1024;
/// Numbers of varying length between two marks: what is read in vain before a row.
const MARK: u64 = 4096;

/// A tensor's elements.
#[derive(Clone, Debug)]
pub(crate) enum Stored {
    /// Little-endian bytes in the model's file.
    Here(Span),
    /// Numbers in the model's file, one for each element or byte; each gives this many bytes.
    Numbers { span: Span, width: usize, marks: Vec<u64> },
    /// Few enough to be kept.
    Known(Arc<[u8]>),
    /// In another file, up to its end where no length is given.
    External { location: String, offset: u64, to_end: bool },
}

/// A tensor of the file that has a slot.
#[derive(Clone, Debug)]
pub(crate) struct FoundTensor {
    pub stored: Stored,
    pub elem: Elem,
    pub dims: Vec<u64>,
    /// Of its elements.
    pub bytes: u64,
}

/// What was found while a model was read.
#[derive(Default)]
pub(crate) struct Found {
    pub tensors: Vec<FoundTensor>,
}

/// What is written in place of a slot.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Placed {
    pub elem: Elem,
    pub dims: Vec<i64>,
    /// Bytes of its elements.
    pub bytes: u64,
    /// File and offset, where they are not within the tensor.
    pub external: Option<(String, u64)>,
}

/// By slot.
pub(crate) struct Placing<'a> {
    pub slots: &'a [Placed],
}

/// Whether a number is one that an element, or a byte of packed elements, can be.
pub(crate) fn fits(n: u64, elem: Elem, width: usize) -> bool {
    let signed = n as i64;
    match elem {
        Elem::BOOL => n <= 1,
        Elem::I8 => i8::try_from(signed).is_ok(),
        Elem::I16 => i16::try_from(signed).is_ok(),
        Elem::I32 => i32::try_from(signed).is_ok() || u32::try_from(n).is_ok(),
        _ if width < 8 => n >> (8 * width) == 0 || width == 1 && i8::try_from(signed).is_ok(),
        _ => true,
    }
}

impl Stored {
    /// Goes through numbers once, so that any of them are found quickly; there must be `count`.
    pub fn numbers(
        input: &mut Input<'_>,
        span: Span,
        (elem, width): (Elem, usize),
        count: u64,
    ) -> Result<Self> {
        let (mut marks, mut n) = (Vec::new(), 0u64);
        let mut start = span.start;
        input.varints(span, |value, end| {
            if !fits(value, elem, width) {
                return Err(Error::malformed("an element beyond its type's range").at(start));
            }
            if n.is_multiple_of(MARK) {
                marks.push(start);
            }
            n += 1;
            start = end;
            Ok(())
        })?;
        if n != count {
            return Err(
                Error::malformed(format!("{n} numbers, where its shape takes {count}")).at(span.start)
            );
        }
        input.charge(marks.len() as u64 * 8)?;
        Ok(Self::Numbers { span, width, marks })
    }

    /// Reads bytes from `offset` on; `store` is the file they are in.
    pub fn read(&self, store: &dyn Store, offset: u64, out: &mut [u8]) -> Result<()> {
        match self {
            Self::Here(span) => store.read_at(span.start + offset, out),
            Self::External { offset: first, .. } => store.read_at(first + offset, out),
            Self::Known(bytes) => {
                out.copy_from_slice(&bytes[offset as usize..][..out.len()]);
                Ok(())
            }
            Self::Numbers { span, width, marks } => {
                let first = offset / *width as u64;
                let mut skip = (first % MARK) as usize;
                let Some(start) = marks.get((first / MARK) as usize) else { return Ok(()) };
                let limits = Limits::default();
                let mut input = Input::new(store, &limits);
                let mut rest = out.chunks_mut(*width);
                let len = span.start + span.len - start;
                let done = input.varints(Span { start: *start, len }, |n, _| {
                    if skip > 0 {
                        skip -= 1;
                        return Ok(());
                    }
                    match rest.next() {
                        Some(out) => {
                            out.copy_from_slice(&n.to_le_bytes()[..out.len()]);
                            Ok(())
                        }
                        None => Err(Error::cancelled()),
                    }
                });
                match done {
                    Err(e) if e.kind() == tensormill_model::ErrorKind::Cancelled => Ok(()),
                    other => other,
                }
            }
        }
    }
}
