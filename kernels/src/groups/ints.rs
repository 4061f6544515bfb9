//! Integer codes: zero points and scales by each library's rule.

use super::{GroupRows, Quantizer};

/// Fills the bundles of finite rows.
pub(super) fn encode(q: &Quantizer, rows: GroupRows<'_>, out: &mut [u8]) {
    for (x, out) in rows.x.chunks_exact(rows.len).zip(out.chunks_exact_mut(q.grid.bundle_bytes(rows.len))) {
        let len = q.grid.group_len(rows.len).max(1);
        let parts = q.grid.parts_mut(out, rows.len);
        for (g, (x, codes)) in x.chunks(len).zip(parts.codes.chunks_mut(len)).enumerate() {
            // Symmetric integers by compressed-tensors' rule alone, until the other rules stand beside it.
            let amax = x.iter().fold(0f32, |a, v| a.max(v.abs()));
            let middle = q.grid.code.middle();
            let scale = amax / (middle - 0.5);
            parts.scales[g] = scale.to_le_bytes();
            for (c, v) in codes.iter_mut().zip(x) {
                let level = if scale == 0.0 { 0.0 } else { v / scale };
                *c = (level.round_ties_even().clamp(-middle, middle - 1.0) + middle) as u8;
            }
        }
    }
}
