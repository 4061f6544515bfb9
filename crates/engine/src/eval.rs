//! Evaluates ranges of rows of prepared expressions. Allocates no buffers: output and scratch are handed in,
//! as large as [`Node::need`] said. Must not know tiles, budgets or outputs.

use crate::{
    cores::Cores,
    node::{Kind, Node, parts, swap_run, units},
    place::{ROOMY, skip},
    transpose::Transpose,
};
use std::sync::Arc;
use tensormill_model::{Reader, Result, Rows};

/// Evaluates, and counts what is read.
pub(crate) struct Eval<'a> {
    pub sources: &'a [Arc<dyn Reader>],
    /// Where the caller computes under a permit: others may have it while this one waits for a disk.
    pub cores: Option<&'a Cores>,
    /// Bytes read so far.
    pub read: u64,
}

impl Eval<'_> {
    /// Computes rows `rows` of `node` into `out`, which is exactly as long as they are.
    pub(crate) fn rows(&mut self, node: &Node, rows: Rows, out: &mut [u8], scratch: &mut [u8]) -> Result<()> {
        debug_assert_eq!(out.len() as u64, (rows.end - rows.start) * node.row_bytes);
        if rows.is_empty() {
            return Ok(());
        }
        let row_bytes = node.row_bytes as usize;
        match &node.kind {
            Kind::Read { source, tensor } => {
                let read = || self.sources[*source].read(*tensor, rows, out);
                match self.cores {
                    Some(cores) => cores.lend(read)?,
                    None => read()?,
                }
                self.read += out.len() as u64;
                Ok(())
            }
            Kind::Const(bytes) => {
                let at = rows.start as usize * row_bytes;
                out.copy_from_slice(&bytes[at..at + out.len()]);
                Ok(())
            }
            Kind::Slice { input, start } => {
                self.rows(input, start + rows.start..start + rows.end, out, scratch)
            }
            Kind::Swap { input, a, b } => self.swap(input, (*a, *b), rows, out, scratch),
            Kind::Concat { inputs, starts } => {
                let mut rest = out;
                for (input, part) in parts(inputs, starts, &rows) {
                    let (here, tail) = rest.split_at_mut((part.end - part.start) as usize * row_bytes);
                    self.rows(input, part, here, scratch)?;
                    rest = tail;
                }
                Ok(())
            }
            Kind::Transpose(t) => self.transpose(t, rows, out, scratch),
            Kind::Reshape(input) => self.reshape(input, rows.start * node.row_bytes, out, scratch),
            Kind::Apply { op, .. } if units(op.unit(), &rows, node.rows) != rows => {
                // What was cut is computed as a whole.
                let whole = units(op.unit(), &rows, node.rows);
                let (value, tail) = scratch.split_at_mut((whole.end - whole.start) as usize * row_bytes);
                self.rows(node, whole.clone(), value, tail)?;
                out.copy_from_slice(&value[(rows.start - whole.start) as usize * row_bytes..][..out.len()]);
                Ok(())
            }
            Kind::Apply { op, forms, inputs } => {
                let mut rest = scratch;
                let mut values: Vec<&[u8]> = Vec::with_capacity(inputs.len());
                for (i, input) in inputs.iter().enumerate() {
                    let range = op.locality(i).of(&rows, input.rows);
                    let len = (range.end - range.start) as usize * input.row_bytes as usize;
                    let (value, tail) = rest.split_at_mut(len);
                    self.rows(input, range, value, tail)?;
                    values.push(value);
                    rest = tail;
                }
                op.run(rows, forms, &values, out)
            }
            Kind::Reduce { op, forms, inputs, found, .. } => {
                let Some(reduction) = op.reduction() else { return Ok(()) };
                let bytes = node.rows as usize * row_bytes;
                let value = found.value(reduction, forms, bytes, self.cores, |earlier, rows, tally| {
                    let mut rest = &mut *scratch;
                    let mut values: Vec<&[u8]> = Vec::with_capacity(inputs.len());
                    for input in inputs {
                        let len = (rows.end - rows.start) as usize * input.row_bytes as usize;
                        let (value, tail) = rest.split_at_mut(len);
                        self.rows(input, rows.clone(), value, tail)?;
                        values.push(value);
                        rest = tail;
                    }
                    reduction.add(earlier, rows, forms, &values, tally)
                })?;
                out.copy_from_slice(&value[rows.start as usize * row_bytes..][..out.len()]);
                Ok(())
            }
        }
    }

    /// `[o][a][b]` rows to `[o][b][a]`. Whole periods come from one contiguous read; of a period that is cut,
    /// each of the `a` runs is read for the columns at hand.
    fn swap(
        &mut self,
        input: &Node,
        (a, b): (u64, u64),
        rows: Rows,
        out: &mut [u8],
        scratch: &mut [u8],
    ) -> Result<()> {
        let (period, row_bytes) = (a * b, input.row_bytes as usize);
        let mut at = rows.start;
        while at < rows.end {
            let done = (at - rows.start) as usize * row_bytes;
            if at.is_multiple_of(period) && rows.end - at >= period {
                let n = (rows.end - at) / period * period;
                let (value, tail) = scratch.split_at_mut(n as usize * row_bytes);
                self.rows(input, at..at + n, value, tail)?;
                let mut to = out[done..].chunks_exact_mut(row_bytes);
                for from in value.chunks_exact(period as usize * row_bytes) {
                    for j in 0..b as usize {
                        for (i, to) in (0..a as usize).zip(&mut to) {
                            to.copy_from_slice(&from[(i * b as usize + j) * row_bytes..][..row_bytes]);
                        }
                    }
                }
                at += n;
                continue;
            }
            let base = at / period * period;
            let end = rows.end.min(base + period);
            for i in 0..a {
                let from = swap_run((a, b), base, i, &(at..end));
                let (value, tail) = scratch.split_at_mut((from.end - from.start) as usize * row_bytes);
                self.rows(input, from.clone(), value, tail)?;
                for (row, value) in from.zip(value.chunks_exact(row_bytes)) {
                    let to = (base + (row - base - i * b) * a + i - rows.start) as usize * row_bytes;
                    out[to..to + row_bytes].copy_from_slice(value);
                }
            }
            at = end;
        }
        Ok(())
    }

    /// Columns of the input as rows, from one block of its rows after the other.
    fn transpose(&mut self, t: &Transpose, rows: Rows, out: &mut [u8], scratch: &mut [u8]) -> Result<()> {
        let row_bytes = t.input.row_bytes as usize;
        for piece in t.pieces(rows, out.len() as u64) {
            let len = (piece.input.end - piece.input.start) as usize * row_bytes;
            let offset = t.input.offset(self.sources, piece.input.start).filter(|_| len as u64 >= ROOMY);
            let skip = offset.map_or(0, |o| skip(scratch, o));
            let (value, tail) = scratch[skip..].split_at_mut(len);
            self.rows(&t.input, piece.input.clone(), value, tail)?;
            t.place(&piece, value, out);
        }
        Ok(())
    }

    /// Bytes from `start` of the input's value. Whole rows go straight to `out`; rows that are cut at either
    /// end pass through scratch.
    fn reshape(&mut self, input: &Node, start: u64, out: &mut [u8], scratch: &mut [u8]) -> Result<()> {
        let row_bytes = input.row_bytes;
        let end = start + out.len() as u64;
        let mut at = start;
        while at < end {
            let (row, skip) = (at / row_bytes, at % row_bytes);
            let here = &mut out[(at - start) as usize..];
            if skip == 0 && end - at >= row_bytes {
                let n = (end - at) / row_bytes;
                let len = n * row_bytes;
                self.rows(input, row..row + n, &mut here[..len as usize], scratch)?;
                at += len;
            } else {
                let len = (row_bytes - skip).min(end - at);
                let (value, tail) = scratch.split_at_mut(row_bytes as usize);
                self.rows(input, row..row + 1, value, tail)?;
                here[..len as usize].copy_from_slice(&value[skip as usize..][..len as usize]);
                at += len;
            }
        }
        Ok(())
    }
}
