//! Codes that are floats: FP8, FP4 and the code books of bitsandbytes.

use super::{GroupRows, Quantizer};

/// Fills the bundles of finite rows.
pub(super) fn encode(q: &Quantizer, rows: GroupRows<'_>, out: &mut [u8]) {
    // Nearest by comparison with every code, until each code has its own rounding.
    let table = q.grid.code.values();
    let codes_of = 1usize << q.grid.code.bits();
    let largest = table[..codes_of].iter().filter(|v| v.is_finite()).fold(0f32, |a, v| a.max(v.abs()));
    for (x, out) in rows.x.chunks_exact(rows.len).zip(out.chunks_exact_mut(q.grid.bundle_bytes(rows.len))) {
        let len = q.grid.group_len(rows.len).max(1);
        let parts = q.grid.parts_mut(out, rows.len);
        if let Some(outer) = parts.outer {
            *outer = rows.outer.to_le_bytes();
        }
        for (g, (x, codes)) in x.chunks(len).zip(parts.codes.chunks_mut(len)).enumerate() {
            let scale = x.iter().fold(0f32, |a, v| a.max(v.abs())) / largest / rows.outer;
            parts.scales[g] = scale.to_le_bytes();
            for (c, v) in codes.iter_mut().zip(x) {
                let v = if scale == 0.0 { 0.0 } else { v / (scale * rows.outer) };
                let far = |i: &usize| (table[*i] - v).abs();
                let best =
                    (0..codes_of).filter(|i| table[*i].is_finite()).min_by(|a, b| far(a).total_cmp(&far(b)));
                *c = best.unwrap_or(0) as u8;
            }
        }
    }
}
