//! From rows to lanes and back: which blocks go side by side, and the transposes at both ends.

use super::{MAX_LANES, Simd};

/// Rows of one tensor, one after the other, and the importance of their columns.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'a> {
    pub(crate) x: &'a [f32],
    /// Columns; `x` has a whole number of rows.
    pub(crate) len: usize,
    /// One weight per column.
    pub(crate) importance: Option<&'a [f32]>,
}

/// As many blocks as there are lanes; at the end of the rows, lanes without a block of their own repeat the last.
#[derive(Clone, Copy)]
pub(crate) struct Batch {
    first: usize,
    blocks: usize,
    /// Where each lane's block starts within the rows.
    starts: [usize; MAX_LANES],
}

impl Batch {
    /// The batch that begins with block `first` of blocks of `weights`; `None` beyond the last.
    #[inline(always)]
    pub(crate) fn at<V: Simd>(v: V, rows: &Rows<'_>, weights: usize, first: usize) -> Option<Self> {
        if first * weights >= rows.x.len() {
            return None;
        }
        let [batch] = Self::several(v, rows, weights, first)?;
        Some(batch)
    }

    /// `U` batches, for formats of one group per block; the last of them may be without blocks.
    #[inline(always)]
    pub(crate) fn several<V: Simd, const U: usize>(
        _: V,
        rows: &Rows<'_>,
        weights: usize,
        first: usize,
    ) -> Option<[Self; U]> {
        let all = rows.x.len() / weights;
        if first >= all {
            return None;
        }
        let mut batches = [Self { first: 0, blocks: 0, starts: [0; MAX_LANES] }; U];
        for (u, batch) in batches.iter_mut().enumerate() {
            batch.first = (first + u * V::N).min(all);
            batch.blocks = V::N.min(all - batch.first);
            for l in 0..V::N {
                batch.starts[l] = (batch.first + l).min(all - 1) * weights;
            }
        }
        Some(batches)
    }

    /// Each lane's own of one number per row.
    #[inline(always)]
    pub(crate) fn of_row<V: Simd>(&self, v: V, rows: &Rows<'_>, numbers: &[f32]) -> V::F {
        let mut own = [0.0; MAX_LANES];
        for l in 0..V::N {
            own[l] = numbers[self.starts[l] / rows.len];
        }
        v.load(&own)
    }

    /// Where the block of lane `l` starts within the rows.
    #[inline(always)]
    pub(crate) fn start(&self, l: usize) -> usize {
        self.starts[l]
    }

    /// The blocks' weights, `out[i]` having weight `i` of each.
    #[inline(always)]
    pub(crate) fn load<V: Simd>(&self, v: V, rows: &Rows<'_>, out: &mut [V::F]) {
        columns(v, rows.x, &self.starts, out);
    }

    /// The importance of the blocks' weights.
    #[inline(always)]
    pub(crate) fn load_importance<V: Simd>(&self, v: V, importance: &[f32], out: &mut [V::F]) {
        let mut at = self.starts;
        for start in &mut at[..V::N] {
            *start %= importance.len();
        }
        columns(v, importance, &at, out);
    }

    /// Writes the blocks of `BYTES` bytes, whose words are `words`, to their places in the rows' output. `W` is a
    /// multiple of the lanes.
    #[inline(always)]
    pub(crate) fn store<V: Simd, const BYTES: usize, const W: usize>(
        &self,
        v: V,
        words: &[V::I; W],
        out: &mut [u8],
    ) {
        let mut packed = [[0u32; W]; MAX_LANES];
        let mut c = 0;
        while c < W {
            v.store_columns(&words[c..], &mut packed.as_flattened_mut()[c..], W);
            c += V::N;
        }
        let blocks = &mut out.as_chunks_mut::<BYTES>().0[self.first..][..self.blocks];
        for (block, words) in blocks.iter_mut().zip(&packed) {
            let (whole, rest) = block.as_chunks_mut::<4>();
            for (bytes, word) in whole.iter_mut().zip(words) {
                *bytes = word.to_le_bytes();
            }
            if !BYTES.is_multiple_of(4) {
                let last = words[BYTES / 4].to_le_bytes();
                rest.copy_from_slice(&last[..BYTES % 4]);
            }
        }
    }
}

#[inline(always)]
fn columns<V: Simd>(v: V, x: &[f32], starts: &[usize; MAX_LANES], out: &mut [V::F]) {
    let mut at = *starts;
    for part in out.chunks_exact_mut(V::N) {
        v.load_columns(x, &at, part);
        for start in &mut at[..V::N] {
            *start += V::N;
        }
    }
}

/// The mean square of each row, each summed first to last.
#[inline(always)]
pub(crate) fn row_mean_squares<V: Simd>(v: V, rows: &Rows<'_>) -> Vec<f32> {
    let count = rows.x.len() / rows.len;
    let mut means = Vec::with_capacity(count + MAX_LANES);
    let mut column = [v.splat(0.0); MAX_LANES];
    let column = &mut column[..V::N];
    while means.len() < count {
        let mut at = [0; MAX_LANES];
        for l in 0..V::N {
            at[l] = (means.len() + l).min(count - 1) * rows.len;
        }
        let mut sum = v.splat(0.0);
        let mut c = 0;
        while c < rows.len {
            v.load_columns(rows.x, &at, column);
            for &x in &*column {
                sum = sum + x * x;
            }
            for start in &mut at[..V::N] {
                *start += V::N;
            }
            c += V::N;
        }
        let sums = v.store(sum / v.splat(rows.len as f32));
        means.extend_from_slice(&sums[..V::N]);
    }
    means
}
