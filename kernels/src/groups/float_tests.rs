//! Every level against the scalar reference, byte for byte.

use super::super::{Offset, ScaleType};
use super::*;
use crate::dispatch::available_levels;
use crate::lanes::{Job, Portable};
use crate::levels::inputs;

const CODES: [Code; 5] = [Code::E4M3, Code::E5M2, Code::E2M1, Code::Nf4, Code::Fp4];
const RULES: [Rule; 4] = [Rule::CompressedTensors, Rule::DeepSeek, Rule::BitsAndBytes, Rule::Mlx];
const SCALES: [ScaleType; 5] =
    [ScaleType::F32, ScaleType::F16, ScaleType::BF16, ScaleType::E4M3, ScaleType::E8M0];

fn task<'a>(q: &'a Quantizer, rows: GroupRows<'a>) -> Task<'a> {
    Task {
        q,
        rows,
        rounding: Rounding::new(q.grid.code, q.rule),
        outer: if q.grid.outer { Outer::Over(1.0 / rows.outer, Float::BF16) } else { Outer::None },
        searches: q.fit != Fit::Nearest,
    }
}

/// All levels' bytes must be the reference's, and decode alike.
fn agree(q: &Quantizer, rows: GroupRows<'_>) {
    let count = rows.x.len() / rows.len;
    let bundle = q.grid.bundle_bytes(rows.len);
    let task = task(q, rows);
    let outer = task.outer;
    let mut want = vec![0xa5; count * bundle];
    encode_at(Level::Scalar, q, rows, outer, &mut want);
    let mut all = vec![];
    for level in available_levels() {
        let mut got = vec![0x5a; count * bundle];
        encode_at(*level, q, rows, outer, &mut got);
        all.push((level.name(), got));
    }
    if q.fit == Fit::Nearest || rows.len < 100 {
        let mut got = [vec![0x5a; count * bundle], vec![0x5a; count * bundle]];
        let [four, one] = got.each_mut().map(|out| Encode { task: &task, out });
        four.run(Portable::<4>);
        one.run(Portable::<1>);
        all.extend(got.map(|got| ("portable", got)));
    }
    for (level, got) in all {
        let differs = got.iter().zip(&want).position(|(a, b)| a != b);
        assert!(differs.is_none(), "{q:?} {level} row of {} byte {differs:?}", rows.len);
    }
    let table = q.grid.code.values();
    for bundle in want.chunks_exact(bundle) {
        let parts = q.grid.parts(bundle, rows.len);
        let width = q.grid.group_len(rows.len);
        let outer = parts.outer.map_or(1.0, |b| f32::from_le_bytes(*b));
        for level in available_levels() {
            let mut out = vec![0.0; rows.len];
            q.grid.decode_row_at(*level, bundle, &mut out);
            for (i, (got, code)) in out.iter().zip(parts.codes).enumerate() {
                let scale = outer * f32::from_le_bytes(parts.scales[i / width]);
                let want = table[usize::from(*code)] * scale;
                assert_eq!(got.to_bits(), want.to_bits(), "{q:?} {} column {i}", level.name());
            }
        }
    }
}

#[test]
fn levels_equal_the_reference() {
    for (columns, rows) in [(256, 3), (70, 4), (33, 2)] {
        for distribution in inputs::DISTRIBUTIONS {
            let x: Vec<f32> = (0..rows).flat_map(|r| inputs::row(distribution, r, columns)).collect();
            for code in CODES {
                for rule in RULES {
                    for scale in SCALES {
                        for (group, height, outer) in [
                            (0, 1, 1.0),
                            (16, 1, 0.37),
                            (16, 1, 1.0),
                            (32, 1, 1.0),
                            (64, 2, 3.0),
                            (0, 0, 0.37),
                            (48, 0, 1.0),
                        ] {
                            if outer != 1.0
                                && group != 0
                                && matches!(rule, Rule::DeepSeek | Rule::BitsAndBytes)
                            {
                                continue;
                            }
                            let (outer_scale, offset) = (outer != 1.0, Offset::None);
                            let grid = Grid { code, group, rows: height, offset, outer: outer_scale };
                            let q = Quantizer { grid, scale, rule, fit: Fit::Nearest };
                            agree(&q, GroupRows { x: &x, len: columns, importance: None, outer });
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn levels_search_alike_and_errors_shrink() {
    let (columns, rows) = (70, 3);
    for distribution in inputs::DISTRIBUTIONS {
        let x: Vec<f32> = (0..rows).flat_map(|r| inputs::row(distribution, r, columns)).collect();
        let w = inputs::importance(inputs::IMPORTANCES[1], 5, columns);
        for code in CODES {
            for (scale, group, height) in
                [(ScaleType::F32, 16, 1), (ScaleType::E8M0, 32, 1), (ScaleType::F32, 64, 2)]
            {
                let grid = Grid { code, group, rows: height, offset: Offset::None, outer: false };
                let q = Quantizer { grid, scale, rule: Rule::CompressedTensors, fit: Fit::Mse };
                for importance in [None, w.as_deref()] {
                    agree(&q, GroupRows { x: &x, len: columns, importance, outer: 1.0 });
                }
                let error = |fit| {
                    let q = Quantizer { fit, ..q };
                    let mut out = vec![0; rows as usize * grid.bundle_bytes(columns)];
                    let rows = GroupRows { x: &x, len: columns, importance: None, outer: 1.0 };
                    encode(&q, rows, selected_level(), &mut out);
                    let mut back = vec![0.0; columns];
                    let mut sum = 0.0;
                    for (x, bundle) in x.chunks(columns).zip(out.chunks(grid.bundle_bytes(columns))) {
                        grid.decode_row(bundle, &mut back);
                        sum += x.iter().zip(&back).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>();
                    }
                    sum
                };
                let (nearest, searched) = (error(Fit::Nearest), error(Fit::Mse));
                // Sums in binary32 choose, so equal ones may differ a little.
                assert!(searched <= nearest * 1.000_01, "{q:?} {distribution}: {searched} {nearest}");
            }
        }
    }
}

#[test]
fn importance_moves_the_range() {
    // One large weight that does not count must not decide the scale of those that do.
    let mut x: Vec<f32> = (0..32).map(|i| (i as f32 * 0.7).sin()).collect();
    x[7] = 1.9;
    let mut w = vec![1.0; 32];
    w[7] = 0.0;
    let grid = Grid { code: Code::E2M1, group: 32, rows: 1, offset: Offset::None, outer: false };
    let q = Quantizer { grid, scale: ScaleType::F32, rule: Rule::CompressedTensors, fit: Fit::Nearest };
    let scale = |importance| {
        let mut out = vec![0; grid.bundle_bytes(32)];
        encode(&q, GroupRows { x: &x, len: 32, importance, outer: 1.0 }, selected_level(), &mut out);
        f32::from_le_bytes(grid.parts(&out, 32).scales[0].to_owned())
    };
    assert!(scale(Some(&w)) < scale(None));
}
