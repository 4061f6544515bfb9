//! Error of what is written against the values it came from, accumulated while a tile is in memory.
//!
//! Floating sums depend on their order, so statistics are taken per *unit* of rows, whose height depends on the
//! shape alone; units merge in any order ([`ErrorStats::merge`]), whatever the tiles and threads. Must not know block
//! types: ops decode their own output.

use crate::chain::Link;
use tensormill_model::{Error, Form, Result};
use tensormill_tensor::{Encoding, ErrorStats, decode_plain};

/// Elements decoded at a time: small enough for the second-level cache, a multiple of every block's length.
pub(crate) const CHUNK: u64 = 16384;

/// Rows in one unit: a power of two, so that it goes well with other alignments.
pub(crate) fn unit_rows(row_len: u64) -> u64 {
    let most = (CHUNK / row_len.max(1)).max(1);
    1 << most.ilog2()
}

/// Elements that are compared at one time. Bundles are decoded by whole rows.
pub(crate) fn chunk(row_len: u64, bundles: bool) -> u64 {
    if bundles { CHUNK.max(row_len) } else { CHUNK }
}

/// Whether plain elements of this encoding have `f32` values.
fn has_values(encoding: Encoding) -> bool {
    matches!(encoding, Encoding::Plain(d) if decode_plain(d, &[], &mut []))
}

/// Whether the error of such an output is worth the name: it must stand for the same values as the base.
pub(crate) fn measurable(base: &Form, link: &Link) -> bool {
    let comparable = match link.form.encoding {
        _ if link.op.makes_bundle() => true,
        Encoding::Plain(_) => {
            link.op.is_encoding()
                && has_values(link.form.encoding)
                && base.shape.row_len() == link.form.shape.row_len()
        }
        Encoding::Block(b) => {
            CHUNK.is_multiple_of(u64::from(b.weights)) && base.shape.row_len() == link.form.shape.row_len()
        }
    };
    comparable && has_values(base.encoding) && base.shape.rows() == link.form.shape.rows()
}

/// Statistics of some rows, from one unit's boundary to another's; `None` when the op cannot decode its output.
///
/// `floats` holds twice [`chunk`] elements, or twice the tile where that is less.
pub(crate) fn tile(
    base: &Form,
    value: &[u8],
    link: &Link,
    out: &[u8],
    floats: &mut [f32],
) -> Result<Option<ErrorStats>> {
    let Encoding::Plain(dtype) = base.encoding else { return Ok(None) };
    let (op, encoding) = (&link.op, link.form.encoding);
    let row_len = base.shape.row_len();
    let chunk = chunk(row_len, op.makes_bundle());
    let bytes = |encoding: Encoding, n: u64| {
        encoding.row_bytes(n).map(|n| n as usize).ok_or_else(|| Error::mismatch("a cut block"))
    };
    let per_unit = unit_rows(row_len) * row_len;
    let total = value.len() as u64 / bytes(base.encoding, row_len)?.max(1) as u64 * row_len;
    let mut all = ErrorStats::default();
    let (mut value, mut out) = (value, out);
    let mut done = 0;
    while done < total {
        let mut stats = ErrorStats::default();
        let end = total.min(done + per_unit);
        while done < end {
            let n = chunk.min(end - done);
            let (want, rest) = floats.split_at_mut(n as usize);
            let got = &mut rest[..n as usize];
            let (v, value_rest) = value.split_at(bytes(base.encoding, n)?);
            let len =
                if op.makes_bundle() { n / row_len * link.row_bytes } else { bytes(encoding, n)? as u64 };
            let (o, out_rest) = out.split_at(len as usize);
            (value, out) = (value_rest, out_rest);
            let decoded = match encoding {
                _ if op.makes_bundle() => {
                    let rows =
                        o.chunks_exact(link.row_bytes as usize).zip(got.chunks_exact_mut(row_len as usize));
                    let mut decoded = true;
                    for (o, got) in rows {
                        decoded = decoded && op.decode(o, got).transpose()?.is_some();
                    }
                    decoded
                }
                Encoding::Plain(d) => decode_plain(d, o, got),
                Encoding::Block(_) => match op.decode(o, got) {
                    Some(result) => result.map(|()| true)?,
                    None => false,
                },
            };
            if !decoded || !decode_plain(dtype, v, want) {
                return Ok(None);
            }
            stats.add(want, got);
            done += n;
        }
        all.merge(&stats);
    }
    Ok(Some(all))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_depend_on_the_row_alone() {
        assert_eq!(unit_rows(4096), 4);
        assert_eq!(unit_rows(3), 4096);
        assert_eq!(unit_rows(100_000), 1);
        assert_eq!(unit_rows(0), 16384);
    }
}
