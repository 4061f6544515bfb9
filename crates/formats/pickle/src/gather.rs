//! Reading views whose elements do not follow each other: element by element where need be, in ascending order of
//! their places, neighbours by one read, within fixed memory.

use crate::data::View;
use tensormill_model::{Result, Store};

/// Runs that are planned and sorted at a time, 24 bytes each.
const RUNS: usize = 1 << 16;
/// Bytes read at once for runs that lie close together.
const WINDOW: u64 = 1 << 20;
/// A gap up to which two runs are read together: a page costs what a byte costs.
const GAP: u64 = 4096;

/// Consecutive elements: where they lie, and where they go.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Run {
    from: u64,
    to: u64,
}

/// Fills `out` with the view's elements from number `first` on, in row-major order. The view is known to lie within the
/// store from byte `at` on.
pub(crate) fn gather(store: &dyn Store, at: u64, view: &View, first: u64, out: &mut [u8]) -> Result<()> {
    let unit = view.unit;
    let mut next = Elements::new(view, first);
    let count = out.len() as u64 / unit;
    let mut runs = Vec::with_capacity(RUNS.min(count as usize));
    let mut done = 0;
    let mut window = Vec::new();
    while done < count {
        runs.clear();
        let mut longest = 0;
        let from = done;
        while done < count && runs.len() < RUNS {
            let n = next.run().min(count - done);
            runs.push((Run { from: at + next.offset() * unit, to: done * unit }, n * unit));
            longest = longest.max(n * unit);
            next.advance(n);
            done += n;
            // Long runs need no sorting together: what is planned ahead stays small.
            if longest >= WINDOW && done - from >= WINDOW {
                break;
            }
        }
        runs.sort_unstable();
        read_runs(store, &runs, out, &mut window)?;
    }
    Ok(())
}

fn read_runs(store: &dyn Store, runs: &[(Run, u64)], out: &mut [u8], window: &mut Vec<u8>) -> Result<()> {
    let mut i = 0;
    while i < runs.len() {
        let (run, len) = runs[i];
        let start = run.from;
        let mut end = start + len;
        let mut j = i + 1;
        while let Some((r, n)) = runs.get(j)
            && r.from <= end + GAP
            && r.from + n - start <= WINDOW
        {
            end = end.max(r.from + n);
            j += 1;
        }
        if j == i + 1 {
            store.read_at(start, &mut out[run.to as usize..][..len as usize])?;
        } else {
            window.resize((end - start) as usize, 0);
            store.read_at(start, window)?;
            for (r, n) in &runs[i..j] {
                out[r.to as usize..][..*n as usize]
                    .copy_from_slice(&window[(r.from - start) as usize..][..*n as usize]);
            }
        }
        i = j;
    }
    Ok(())
}

/// Places of a view's elements, one after another.
struct Elements<'a> {
    view: &'a View,
    index: Vec<u64>,
    offset: u64,
    /// Dimensions from here on lie without gaps, and how many elements they have.
    inner: usize,
    inner_len: u64,
}

impl<'a> Elements<'a> {
    fn new(view: &'a View, first: u64) -> Self {
        let mut inner = view.size.len();
        let mut inner_len = 1u64;
        while inner > 0 && (view.size[inner - 1] == 1 || view.stride[inner - 1] == inner_len) {
            inner -= 1;
            inner_len *= view.size[inner];
        }
        let mut index = vec![0; view.size.len()];
        let mut rest = first;
        let mut offset = 0;
        for i in (0..view.size.len()).rev() {
            index[i] = rest % view.size[i];
            rest /= view.size[i];
            offset += index[i] * view.stride[i];
        }
        Self { view, index, offset, inner, inner_len }
    }

    fn offset(&self) -> u64 {
        self.offset
    }

    /// How many elements from this one on follow each other.
    fn run(&self) -> u64 {
        let within = (self.inner..self.index.len()).fold(0, |n, i| n * self.view.size[i] + self.index[i]);
        self.inner_len - within
    }

    /// Goes `n` elements on, within the run or to the next one.
    fn advance(&mut self, n: u64) {
        let run = self.run();
        let mut carry = n;
        // Within the run the offset moves along; at its end everything inner starts again.
        for i in (0..self.index.len()).rev() {
            if carry == 0 {
                break;
            }
            let (d, s) = (self.view.size[i], self.view.stride[i]);
            let sum = self.index[i] + carry;
            self.offset -= self.index[i] * s;
            self.index[i] = sum % d;
            self.offset += self.index[i] * s;
            carry = sum / d;
        }
        debug_assert!(n <= run, "runs are not overstepped");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tensormill_model::MemoryStore;

    #[test]
    fn every_stretch_of_every_view_is_right() {
        let bytes: Vec<u8> = (0..4000u32).flat_map(|i| (i as u16).to_le_bytes()).collect();
        let store = MemoryStore { name: "x".into(), bytes };
        let views: [(&[u64], &[u64]); 7] = [
            (&[20, 30], &[1, 20]),
            (&[4, 3, 5], &[100, 5, 1]),
            (&[5, 4, 3], &[1, 15, 5]),
            (&[3, 7], &[0, 1]),
            (&[6, 2], &[3, 3]),
            (&[2, 1, 4], &[9, 0, 2]),
            (&[10], &[400]),
        ];
        for (size, stride) in views {
            let view = View { unit: 2, size: size.into(), stride: stride.into() };
            let total: u64 = size.iter().product();
            let want: Vec<u16> = (0..total)
                .map(|mut n| {
                    let mut at = 5;
                    for i in (0..size.len()).rev() {
                        at += n % size[i] * stride[i];
                        n /= size[i];
                    }
                    at as u16
                })
                .collect();
            for first in 0..total {
                for count in [1, 2, total - first] {
                    let count = count.min(total - first);
                    let mut out = vec![0; 2 * count as usize];
                    gather(&store, 10, &view, first, &mut out).unwrap();
                    let got: Vec<u16> =
                        out.as_chunks::<2>().0.iter().map(|b| u16::from_le_bytes(*b)).collect();
                    assert_eq!(got, want[first as usize..][..count as usize], "{size:?} {stride:?} {first}");
                }
            }
        }
    }
}
