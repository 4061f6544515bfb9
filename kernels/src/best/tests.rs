//! What the search promises.

use super::*;
use crate::formats;

#[path = "../../tests/common/inputs.rs"]
mod inputs;

const COLUMNS: usize = 512;

fn encode(codec: &dyn BlockCodec, x: &[f32], w: Option<&[f32]>) -> Vec<u8> {
    let bytes = codec.block().row_bytes(x.len() as u64).expect("whole blocks") as usize;
    let mut out = vec![0u8; bytes];
    codec.encode_row(x, w, &mut out).expect("finite rows encode");
    out
}

fn decode(codec: &dyn BlockCodec, blocks: &[u8], weights: usize) -> Vec<f32> {
    let mut out = vec![0f32; weights];
    codec.decode_row(blocks, &mut out).expect("whole blocks decode");
    out
}

fn pairs() -> impl Iterator<Item = (&'static dyn BlockCodec, &'static dyn BlockCodec)> {
    formats().filter(|c| c.can_encode()).map(|ggml| {
        let best = codec_for(ggml.block(), Search::Best).expect("every format");
        (ggml, best)
    })
}

#[test]
fn no_block_is_ever_worse() {
    for (ggml, best) in pairs() {
        let n = ggml.block().weights as usize;
        for (seed, distribution) in inputs::DISTRIBUTIONS.iter().enumerate() {
            for kind in inputs::IMPORTANCES {
                let x = inputs::row(distribution, seed as u64, COLUMNS);
                let w = inputs::importance(kind, seed as u64, COLUMNS);
                if w.is_none() && ggml.needs_importance() {
                    continue;
                }
                let (old, new) = (encode(ggml, &x, w.as_deref()), encode(best, &x, w.as_deref()));
                assert_eq!(new, encode(best, &x, w.as_deref()), "deterministic");
                let (old, new) = (decode(ggml, &old, COLUMNS), decode(ggml, &new, COLUMNS));
                for i in (0..COLUMNS).step_by(n) {
                    let (x, w) = (&x[i..i + n], w.as_deref().map(|w| &w[i..i + n]));
                    let (old, new) =
                        (weighted_error(x, w, &old[i..i + n]), weighted_error(x, w, &new[i..i + n]));
                    assert!(
                        new <= old || old.is_nan(),
                        "{} {distribution} {kind}: {new:e} after {old:e}",
                        ggml.block().name
                    );
                }
            }
        }
    }
}
