//! A tensor made of pieces: boxes of its elements, each lying somewhere of its own.
//!
//! What three kinds of checkpoints have in common once their headers are understood. Offsets count in a *grid*: the
//! tensor's dimensions, or one dimension of all its elements where it was divided flat. Row-major order within a box is
//! the order of the tensor, so whatever range of the tensor is read, every box gives one range of its own.
//!
//! Must not know which checkpoint the pieces come from.

use crate::data::Data;
use std::collections::HashMap;
use tensormill_model::{Error, Result};
use tensormill_tensor::{DType, decode_plain};

/// Bytes that are read at a time where they do not go to one place.
const WINDOW: u64 = 1 << 20;
/// Corners of boxes that are compared; a tensor of 100000 pieces in three dimensions has a million.
const MAX_CORNERS: u64 = 1 << 22;

/// A box of elements, and where they lie in row-major order.
#[derive(Clone)]
pub(crate) struct Piece {
    pub at: Box<[u64]>,
    pub size: Box<[u64]>,
    /// Number of the file.
    pub file: usize,
    pub data: Data,
}

/// A tensor whose pieces cover it exactly.
pub(crate) struct Pieced {
    grid: Box<[u64]>,
    pieces: Vec<Piece>,
    /// Bytes of one element of the pieces.
    unit: u64,
    /// The type of the pieces, where the tensor is to be F32 and they are not.
    from: Option<DType>,
}

impl Pieced {
    /// Pieces that may be in any order. Empty ones go; one that is there several times, as on processes that hold the
    /// same, counts once.
    ///
    /// # Errors
    /// `Malformed` when a piece reaches over the end, or when pieces leave a gap or overlap.
    pub fn new(grid: &[u64], mut pieces: Vec<Piece>, dtype: DType) -> Result<Self> {
        pieces.retain(|p| !p.size.contains(&0));
        for p in &pieces {
            let inside = p.at.len() == grid.len()
                && p.size.len() == grid.len()
                && grid
                    .iter()
                    .zip(p.at.iter().zip(&p.size))
                    .all(|(d, (a, s))| a.checked_add(*s).is_some_and(|e| e <= *d));
            if !inside {
                return Err(Error::malformed(format!(
                    "a part of {:?} elements from {:?} on is outside of the shape {grid:?}",
                    p.size, p.at
                )));
            }
        }
        pieces.sort_by(|a, b| a.at.cmp(&b.at).then_with(|| a.size.cmp(&b.size)));
        pieces.dedup_by(|b, a| a.at == b.at && a.size == b.size);
        covers(grid, &pieces)?;
        Ok(Self { grid: grid.into(), pieces, unit: dtype.bits() / 8, from: None })
    }

    /// The same, read as F32.
    pub fn widened(mut self, from: DType) -> Self {
        self.from = Some(from);
        self
    }

    /// File and place of the first piece.
    pub fn place(&self) -> (usize, u64) {
        self.pieces.first().map_or((0, 0), |p| (p.file, p.data.place))
    }

    /// Whether both are the same bytes of the same files.
    pub fn is_same(&self, other: &Self) -> bool {
        let same = |a: &Piece, b: &Piece| {
            let (x, y) = (&a.data, &b.data);
            a.file == b.file && x.place == y.place && x.view == y.view && a.at == b.at && a.size == b.size
        };
        !self.pieces.is_empty()
            && self.grid == other.grid
            && self.from == other.from
            && self.pieces.len() == other.pieces.len()
            && self.pieces.iter().zip(&other.pieces).all(|(a, b)| same(a, b))
    }

    /// Fills `out` with the tensor's bytes from number `first` on; both are whole elements.
    pub fn read(&self, first: u64, out: &mut [u8]) -> Result<()> {
        let Some(from) = self.from else { return self.read_stored(first / self.unit, out) };
        let (mut stored, mut floats) = (Vec::new(), Vec::new());
        let mut next = first / 4;
        for out in out.chunks_mut(WINDOW as usize) {
            let n = out.len() / 4;
            stored.resize(n * self.unit as usize, 0);
            floats.resize(n, 0.0);
            self.read_stored(next, &mut stored)?;
            if !decode_plain(from, &stored, &mut floats) {
                return Err(Error::unsupported(format!("{from} has no value in f32")));
            }
            for (o, f) in out.as_chunks_mut::<4>().0.iter_mut().zip(&floats) {
                *o = f.to_le_bytes();
            }
            next += n as u64;
        }
        Ok(())
    }

    fn read_stored(&self, first: u64, out: &mut [u8]) -> Result<()> {
        let end = first + out.len() as u64 / self.unit;
        let mut window = Vec::new();
        for p in &self.pieces {
            let range = p.before(&self.grid, first)..p.before(&self.grid, end);
            if !range.is_empty() {
                self.scatter(p, range, first, out, &mut window)?;
            }
        }
        Ok(())
    }

    /// Reads elements of a piece to their places in `out`, whose first element is number `first` of the tensor.
    fn scatter(
        &self,
        p: &Piece,
        range: std::ops::Range<u64>,
        first: u64,
        out: &mut [u8],
        window: &mut Vec<u8>,
    ) -> Result<()> {
        let unit = self.unit;
        let run = p.run(&self.grid);
        let mut i = range.start;
        while i < range.end {
            let here = (run - i % run).min(range.end - i);
            if here == range.end - i || here * unit >= WINDOW {
                let to = ((p.number(&self.grid, i) - first) * unit) as usize;
                p.data.read(i * unit, &mut out[to..][..(here * unit) as usize])?;
                i += here;
                continue;
            }
            // Many short runs by one read.
            let n = (WINDOW / unit).max(1).min(range.end - i);
            window.resize((n * unit) as usize, 0);
            p.data.read(i * unit, window)?;
            let mut done = 0;
            while done < n {
                let len = (run - (i + done) % run).min(n - done);
                let to = ((p.number(&self.grid, i + done) - first) * unit) as usize;
                let bytes = (len * unit) as usize;
                out[to..][..bytes].copy_from_slice(&window[(done * unit) as usize..][..bytes]);
                done += len;
            }
            i += n;
        }
        Ok(())
    }
}

impl Piece {
    /// How many of its elements come before element number `n` of the tensor.
    fn before(&self, grid: &[u64], n: u64) -> u64 {
        let volume: u64 = self.size.iter().product();
        let total: u64 = grid.iter().product();
        if n >= total {
            return volume;
        }
        let (mut rest, mut stride, mut inner, mut count) = (n, total, volume, 0);
        for ((d, at), size) in grid.iter().zip(&self.at).zip(&self.size) {
            stride /= d;
            inner /= size;
            let i = rest / stride;
            rest %= stride;
            if i < *at {
                return count;
            }
            if i - at >= *size {
                return count + size * inner;
            }
            count += (i - at) * inner;
        }
        count
    }

    /// Number in the tensor of its element number `i`.
    fn number(&self, grid: &[u64], i: u64) -> u64 {
        let (mut rest, mut stride, mut number) = (i, 1, 0);
        for ((d, at), size) in grid.iter().zip(&self.at).zip(&self.size).rev() {
            number += (at + rest % size) * stride;
            rest /= size;
            stride *= d;
        }
        number
    }

    /// Elements that follow each other in the tensor as they do in the piece, counted from the piece's first.
    fn run(&self, grid: &[u64]) -> u64 {
        let mut run = 1;
        for (d, size) in grid.iter().zip(&self.size).rev() {
            run *= size;
            if size != d {
                break;
            }
        }
        run
    }
}

/// Whether boxes cover a grid exactly, with neither gap nor overlap: then, and only then, their corners cancel out, with
/// alternating signs, except for those of the grid.
fn covers(grid: &[u64], pieces: &[Piece]) -> Result<()> {
    let count = |size: &[u64]| size.iter().map(|n| u128::from(*n)).product::<u128>();
    let total = count(grid);
    let have = pieces.iter().map(|p| count(&p.size)).fold(0, u128::saturating_add);
    if have != total {
        let what = if have < total { "leave a gap" } else { "overlap" };
        return Err(Error::malformed(format!(
            "its {} parts {what}: they have {have} elements, its shape {grid:?} has {total}",
            pieces.len()
        )));
    }
    if total == 0 {
        return Ok(());
    }
    // Dimensions that no piece divides have the same two corners everywhere.
    let divided: Vec<usize> =
        (0..grid.len()).filter(|d| pieces.iter().any(|p| p.size[*d] != grid[*d])).collect();
    let corners = 1u64.checked_shl(divided.len() as u32).and_then(|n| n.checked_mul(pieces.len() as u64 + 1));
    if corners.is_none_or(|n| n > MAX_CORNERS) {
        return Err(Error::over_limit(format!(
            "{} parts that divide {} dimensions",
            pieces.len(),
            divided.len()
        )));
    }
    let mut signs: HashMap<Vec<u64>, i64> = HashMap::new();
    let mut add = |at: &[u64], size: &[u64], weight: i64| {
        for corner in 0..1u32 << divided.len() {
            let point = divided
                .iter()
                .enumerate()
                .map(|(i, d)| at[*d] + if corner >> i & 1 == 1 { size[*d] } else { 0 });
            let sign = if corner.count_ones() % 2 == 0 { weight } else { -weight };
            *signs.entry(point.collect()).or_default() += sign;
        }
    };
    add(&vec![0; grid.len()], grid, -1);
    for p in pieces {
        add(&p.at, &p.size, 1);
    }
    if signs.values().any(|n| *n != 0) {
        return Err(Error::malformed(format!(
            "its {} parts overlap in one place and leave a gap in another",
            pieces.len()
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Boxes of a tensor whose elements count up from zero; each piece has its elements in a store of its own.
    fn pieces(grid: &[u64], boxes: &[(&[u64], &[u64])]) -> Vec<Piece> {
        let blank = |at: &[u64], size: &[u64]| Piece {
            at: at.into(),
            size: size.into(),
            file: 0,
            data: Data::in_memory("x", vec![]),
        };
        boxes
            .iter()
            .map(|(at, size)| {
                let mut p = blank(at, size);
                let n = size.iter().product();
                let bytes = (0..n).flat_map(|i| (p.number(grid, i) as u16).to_le_bytes()).collect();
                p.data = Data::in_memory("x", bytes);
                p
            })
            .collect()
    }

    #[test]
    fn every_stretch_of_every_division_is_right() {
        type Boxes = &'static [(&'static [u64], &'static [u64])];
        let cases: [(&[u64], Boxes); 6] = [
            (&[7, 5], &[(&[0, 0], &[3, 2]), (&[3, 0], &[4, 2]), (&[0, 2], &[4, 3]), (&[4, 2], &[3, 3])]),
            (&[12], &[(&[5], &[7]), (&[0], &[5]), (&[5], &[0])]),
            (&[], &[(&[], &[])]),
            (&[2, 3, 4], &[(&[0, 0, 0], &[2, 1, 4]), (&[0, 1, 0], &[2, 2, 4])]),
            (&[2, 3, 4], &[(&[0, 0, 0], &[2, 3, 1]), (&[0, 0, 1], &[1, 3, 3]), (&[1, 0, 1], &[1, 3, 3])]),
            (&[3, 2], &[(&[0, 0], &[3, 2]), (&[0, 0], &[3, 2])]),
        ];
        for (grid, boxes) in cases {
            let t = Pieced::new(grid, pieces(grid, boxes), DType::U16).unwrap();
            let total: u64 = grid.iter().product();
            for first in 0..total {
                for end in first + 1..=total {
                    let mut out = vec![0; 2 * (end - first) as usize];
                    t.read(2 * first, &mut out).unwrap();
                    let got: Vec<u64> =
                        out.as_chunks::<2>().0.iter().map(|b| u16::from_le_bytes(*b).into()).collect();
                    assert_eq!(got, (first..end).collect::<Vec<_>>(), "{grid:?} {boxes:?}");
                }
            }
        }
    }

    #[test]
    fn gaps_overlaps_and_boxes_outside_are_told_apart() {
        let refused = |grid: &[u64], boxes: &[(&[u64], &[u64])]| {
            let blank = boxes.iter().map(|(at, size)| Piece {
                at: (*at).into(),
                size: (*size).into(),
                file: 0,
                data: Data::in_memory("x", vec![]),
            });
            Pieced::new(grid, blank.collect(), DType::U16).err().expect("this was accepted").to_string()
        };
        assert!(refused(&[4], &[(&[0], &[3])]).contains("gap"));
        assert!(refused(&[4], &[(&[0], &[3]), (&[2], &[2])]).contains("overlap"));
        assert!(refused(&[4], &[(&[0], &[2]), (&[1], &[2])]).contains("in one place"));
        assert!(
            refused(
                &[4, 4],
                &[(&[0, 0], &[2, 2]), (&[0, 2], &[2, 2]), (&[2, 0], &[2, 2]), (&[1, 2], &[2, 2])]
            )
            .contains("in one place")
        );
        assert!(refused(&[4], &[(&[2], &[3])]).contains("outside"));
        assert!(refused(&[4], &[(&[u64::MAX], &[3])]).contains("outside"));
        assert!(refused(&[4, 1], &[(&[0], &[4])]).contains("outside"));
        assert!(refused(&[1 << 40, 1 << 40], &[]).contains("gap"));
    }
}
