//! Columns as rows: which rows of the input are read for some rows of the output, and how elements change places.
//!
//! A row of the output takes an element from every row of the input, so the input passes by in blocks whose size does not
//! depend on the tensor's, once for every range of rows that is asked for. Must not know where rows come from.

use crate::{
    node::{Node, lcm},
    place::{OWN_SLACK, ROOMY},
};
use tensormill_model::Rows;

/// Bytes of input in memory at one time, unless rows are very wide.
const BLOCK_BYTES: u64 = 2 << 20;

/// Bytes that every row of the output gets from a block at least, however wide rows of the input are: a cache line.
const LINE: u64 = 64;

/// Of the bytes of output, the part that a block may take: where memory is short, higher tiles make better use of it.
const SHARE: u64 = 4;

/// Matrices of `m` rows and `n` columns, one after the other.
pub(crate) struct Transpose {
    pub input: Box<Node>,
    m: u64,
    n: u64,
    /// Bytes of an element.
    element: u64,
    /// Heights of blocks of which the input reads nothing twice.
    align: u64,
}

/// Rows of the input that are in memory at one time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Piece {
    /// Some rows of one matrix, or all rows of some.
    pub input: Rows,
    /// Columns that are asked for.
    columns: Rows,
    /// Its first row, counted in its matrix.
    row: u64,
    /// Where its first column goes: a row of the output, counted from the first that is asked for.
    out: u64,
}

impl Transpose {
    /// For an input whose form can be transposed.
    pub(crate) fn new(input: Node) -> Self {
        let dims = input.form.shape.dims();
        let (m, n) = (dims.iter().nth_back(1).copied().unwrap_or(1), input.form.shape.row_len());
        let element = input.row_bytes / n.max(1);
        let align = input.align();
        Self { input: Box::new(input), m, n, element, align }
    }

    /// Rows of the output at whose multiples nothing is read twice: those of so many whole matrices.
    pub(crate) fn align(&self) -> u64 {
        let m = self.m.max(1);
        (lcm(m, self.align) / m).saturating_mul(self.n.max(1))
    }

    /// Most rows of the input at one time, for so many bytes of output. Never less for more bytes.
    pub(crate) fn block(&self, bytes: u64) -> u64 {
        let lines = (LINE / self.element.max(1)).saturating_mul(self.input.row_bytes);
        let room = BLOCK_BYTES.max(lines).min(bytes / SHARE);
        let rows = (room / self.input.row_bytes.max(1)).clamp(1, self.input.rows.max(1));
        // Whole matrices, or parts of one; both as the input likes them, where that is possible.
        let unit = if rows < self.m { 1 } else { self.m.max(1) };
        let liked = lcm(unit, self.align);
        let unit = if liked <= rows { liked } else { unit };
        rows / unit * unit
    }

    /// Bytes of scratch for so many rows of the input, with what [`crate::place`] may leave out.
    pub(crate) fn room(&self, rows: u64) -> u64 {
        let bytes = rows.saturating_mul(self.input.row_bytes);
        if bytes < ROOMY { bytes } else { bytes.saturating_add(OWN_SLACK) }
    }

    /// Bytes that rows of the output, of `row_bytes` each, read.
    pub(crate) fn reads(&self, rows: Rows, row_bytes: u64) -> u64 {
        if self.input.adds_up() {
            let matrices = rows.start / self.n..rows.end.div_ceil(self.n);
            return self.input.reads(matrices.start * self.m..matrices.end * self.m);
        }
        let bytes = (rows.end - rows.start) * row_bytes;
        self.pieces(rows, bytes).map(|p| self.input.reads(p.input)).fold(0, u64::saturating_add)
    }

    /// What is read for some rows of the output, which are `bytes` long, one after the other.
    pub(crate) fn pieces(&self, rows: Rows, bytes: u64) -> impl Iterator<Item = Piece> {
        let (m, n, block) = (self.m, self.n, self.block(bytes));
        let (mut at, mut row) = (rows.start, 0);
        std::iter::from_fn(move || {
            if at >= rows.end {
                return None;
            }
            let (matrix, first) = (at / n, at % n);
            let out = at - rows.start;
            let whole = if first == 0 { (block / m).min((rows.end - at) / n) } else { 0 };
            if whole > 0 {
                at += whole * n;
                return Some(Piece { input: matrix * m..(matrix + whole) * m, columns: 0..n, row, out });
            }
            let columns = first..n.min(first + rows.end - at);
            let start = row;
            row = m.min(row + block);
            let input = matrix * m + start..matrix * m + row;
            if row == m {
                (at, row) = (at + columns.end - columns.start, 0);
            }
            Some(Piece { input, columns, row: start, out })
        })
    }

    /// Puts a piece's elements, `value`, where they belong in the rows that are asked for.
    pub(crate) fn place(&self, piece: &Piece, value: &[u8], out: &mut [u8]) {
        let (m, n, e) = (self.m as usize, self.n as usize, self.element as usize);
        let columns = piece.columns.start as usize..piece.columns.end as usize;
        let height = columns.len() * m * e;
        let turn = Turn { n, columns, m, row: piece.row as usize };
        let mut at = piece.out as usize * m * e;
        for matrix in value.chunks(m * n * e) {
            turn.run(e, matrix, &mut out[at..]);
            at += height;
        }
    }
}

/// Columns of rows of `n` elements that become rows of `m`, beginning at element `row` of each.
pub(crate) struct Turn {
    pub n: usize,
    pub columns: std::ops::Range<usize>,
    pub m: usize,
    pub row: usize,
}

impl Turn {
    /// Writes them, of elements of so many bytes.
    pub(crate) fn run(&self, element: usize, from: &[u8], to: &mut [u8]) {
        match element {
            1 => self.run_as::<1, 128>(from, to),
            2 => self.run_as::<2, 64>(from, to),
            4 => self.run_as::<4, 64>(from, to),
            _ => self.run_as::<8, 32>(from, to),
        }
    }

    /// A square of elements at a time is turned in the first-level cache, so that each line of either side is touched
    /// once, whatever their distance.
    fn run_as<const E: usize, const SIDE: usize>(&self, from: &[u8], to: &mut [u8]) {
        let Self { n, columns, m, row } = self;
        let (from, to) = (from.as_chunks::<E>().0, to.as_chunks_mut::<E>().0);
        let mut square = [[[0u8; E]; SIDE]; SIDE];
        for (rows, first) in from.chunks(n * SIDE).zip((*row..).step_by(SIDE)) {
            let height = rows.len() / n;
            for column in columns.clone().step_by(SIDE) {
                let width = SIDE.min(columns.end - column);
                for (i, line) in rows.chunks_exact(*n).enumerate() {
                    for (x, line_of) in line[column..column + width].iter().zip(&mut square) {
                        line_of[i] = *x;
                    }
                }
                for (j, line) in square[..width].iter().enumerate() {
                    let at = (column - columns.start + j) * m + first;
                    to[at..at + height].copy_from_slice(&line[..height]);
                }
            }
        }
    }
}
