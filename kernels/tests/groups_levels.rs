//! Grouped codes at every level against the scalar one: the same bundles, and the same values of any bytes. A level that this
//! machine lacks is printed as skipped.

#[path = "common/groups.rs"]
mod groups;
#[path = "common/inputs.rs"]
#[allow(dead_code, reason = "each test file uses its part")]
mod inputs;
#[path = "common/levels.rs"]
mod levels;

use groups::RULES;
use inputs::DISTRIBUTIONS;
use levels::levels;
use tensormill_kernels::Level;
use tensormill_kernels::groups::{Code, Fit, Grid, GroupRows, Offset, Quantizer, ScaleType};

const OFFSETS: [Offset; 4] = [Offset::None, Offset::Middle, Offset::Point, Offset::Bias];
const SCALES: [ScaleType; 5] =
    [ScaleType::F32, ScaleType::F16, ScaleType::BF16, ScaleType::E4M3, ScaleType::E8M0];
const FITS: [Fit; 3] = [Fit::Nearest, Fit::Mse, Fit::Hqq];

fn encode(q: &Quantizer, level: Level, rows: GroupRows<'_>) -> Vec<u8> {
    let mut out = vec![0xa5; rows.x.len() / rows.len * q.grid.bundle_bytes(rows.len)];
    q.encode_rows_at(level, rows, &mut out).expect("finite rows encode");
    out
}

#[test]
fn every_rule_fit_and_distribution() {
    let levels = levels();
    // Widths that are no multiple of groups, of stretches or of lanes; rows that are no multiple of bands.
    let shapes = [(61, 32, 1), (160, 0, 1), (7, 3, 2), (200, 128, 0), (1, 32, 1)];
    let mut count = 0;
    for (d, distribution) in DISTRIBUTIONS.iter().enumerate() {
        for rule in RULES {
            for offset in OFFSETS {
                for scale in SCALES {
                    let bits = 1 + (count % 8) as u8;
                    let (len, group, rows) = shapes[count % shapes.len()];
                    let outer = count % 7 == 0;
                    count += 1;
                    // Every other time as checkpoints in bfloat16 have them.
                    let kept = if count % 2 == 0 { 0xffff_0000 } else { u32::MAX };
                    let x: Vec<f32> = (0..3)
                        .flat_map(|r| inputs::row(distribution, 10 * d as u64 + r, len))
                        .map(|x| f32::from_bits(x.to_bits() & kept))
                        .collect();
                    let grid = Grid { code: Code::Int(bits), group, rows, offset, outer };
                    for fit in FITS {
                        for kind in ["none", "extreme"] {
                            let importance = inputs::importance(kind, 3, len);
                            let q = Quantizer { grid, scale, rule, fit };
                            let outer = if grid.outer { 1.0 / 127.0 } else { 1.0 };
                            let rows = GroupRows { x: &x, len, importance: importance.as_deref(), outer };
                            let want = encode(&q, Level::Scalar, rows);
                            for &level in &levels {
                                let got = encode(&q, level, rows);
                                let at = got.iter().zip(&want).position(|(a, b)| a != b);
                                assert_eq!(at, None, "{q:?} {distribution} {kind} at {}", level.name());
                            }
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn any_bytes_decode_alike() {
    let codes = (1..=8).map(Code::Int).chain([Code::E2M1, Code::Nf4, Code::Fp4, Code::E4M3, Code::E5M2]);
    for code in codes {
        for offset in OFFSETS {
            for (columns, group, outer) in
                [(256, 32, false), (259, 0, true), (61, 7, false), (512, 128, true)]
            {
                let grid = Grid { code, group, rows: 1, offset, outer };
                let mut bundle: Vec<u8> =
                    (0..grid.bundle_bytes(columns) as u64).map(|i| inputs::draw(5, i) as u8).collect();
                // Every code once; numbers stay what they are, some of them infinite or NaN.
                for (i, byte) in bundle[..columns.min(256)].iter_mut().enumerate() {
                    *byte = i as u8;
                }
                let mut want = vec![0f32; columns];
                grid.decode_row_at(Level::Scalar, &bundle, &mut want);
                for level in levels() {
                    let mut got = vec![1f32; columns];
                    grid.decode_row_at(level, &bundle, &mut got);
                    let same = |a: f32, b: f32| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan();
                    let at = got.iter().zip(&want).position(|(a, b)| !same(*a, *b));
                    assert_eq!(at, None, "{grid:?} at {}", level.name());
                }
            }
        }
    }
}
