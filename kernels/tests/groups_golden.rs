//! Groups of integers against what the libraries made (`golden/groups`, by `golden/generators/group_kernels.py`): the same codes,
//! scales and zero points, at every level.

#[path = "common/golden.rs"]
#[allow(dead_code, reason = "each test file uses its part")]
mod golden;
#[path = "common/inputs.rs"]
#[allow(dead_code, reason = "each test file uses its part")]
mod inputs;

use golden::{fnv, golden};
use tensormill_kernels::groups::{Code, Fit, Grid, GroupRows, Offset, Quantizer, Rule, ScaleType};
use tensormill_kernels::{Level, available_levels};

struct Case {
    q: Quantizer,
    x: Vec<f32>,
    columns: usize,
    want: Vec<u8>,
    line: String,
}

fn case(line: &str, data: &mut &[u8]) -> Case {
    let f: Vec<&str> = line.split('\t').collect();
    let number = |i: usize| f[i].parse::<u64>().expect("a number");
    let rule = match f[0] {
        "compressed_tensors" => Rule::CompressedTensors,
        "gptq" => Rule::Gptq,
        "awq" => Rule::Awq,
        "mlx" => Rule::Mlx,
        "mlas" => Rule::Mlas,
        "ort_tools" => Rule::OrtTools,
        "ort_tools_reduced" => Rule::OrtToolsReduced,
        "bitsandbytes" => Rule::BitsAndBytes,
        "hqq" => Rule::Hqq,
        other => panic!("no rule {other}"),
    };
    let offset = match f[3] {
        "middle" => Offset::Middle,
        "point" => Offset::Point,
        _ => Offset::Bias,
    };
    let scale = match f[4] {
        "F16" => ScaleType::F16,
        "BF16" => ScaleType::BF16,
        _ => ScaleType::F32,
    };
    // What bitsandbytes stores is the largest magnitude, so that 1/127 is what all scales are multiplied by.
    let grid = Grid {
        code: Code::Int(number(2) as u8),
        group: number(5) as u32,
        rows: number(6) as u32,
        offset,
        outer: rule == Rule::BitsAndBytes,
    };
    let fit = if f[1] == "hqq" { Fit::Hqq } else { Fit::Nearest };
    let (seed, rows, columns) = (number(8), number(9), number(10) as usize);
    let x: Vec<f32> = (0..rows).flat_map(|r| inputs::row(f[7], seed + r, columns)).collect();
    assert_eq!(format!("{:016x}", fnv(&x)), f[11], "{line}: not the input that the library had");
    let stored = Grid { outer: false, ..grid };
    let (want, rest) = data.split_at(rows as usize * stored.bundle_bytes(columns));
    *data = rest;
    Case { q: Quantizer { grid, scale, rule, fit }, x, columns, want: want.to_vec(), line: line.to_string() }
}

fn cases() -> Vec<Case> {
    let text = String::from_utf8(golden("groups/cases.tsv")).expect("UTF-8");
    let data = golden("groups/groups.bin");
    let mut data = data.as_slice();
    let cases = text.lines().map(|line| case(line, &mut data)).collect();
    assert!(data.is_empty(), "every byte belongs to a case");
    cases
}

/// The bundles of a case, less the outer scale.
fn encode(case: &Case, level: Level) -> Vec<u8> {
    let (grid, columns) = (case.q.grid, case.columns);
    let bytes = grid.bundle_bytes(columns);
    let mut out = vec![0u8; case.x.len() / columns * bytes];
    let outer = if grid.outer { 1.0 / 127.0 } else { 1.0 };
    let rows = GroupRows { x: &case.x, len: columns, importance: None, outer };
    case.q.encode_rows_at(level, rows, &mut out).expect("finite rows encode");
    let shown = bytes - if grid.outer { 4 } else { 0 };
    out.chunks(bytes).flat_map(|bundle| &bundle[..shown]).copied().collect()
}

fn numbers(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

#[test]
fn the_numbers_and_codes_of_the_libraries() {
    let mut wrong = Vec::new();
    let cases: Vec<Case> = cases().into_iter().filter(|c| c.q.fit == Fit::Nearest).collect();
    for rule in [
        Rule::CompressedTensors,
        Rule::Gptq,
        Rule::Awq,
        Rule::Mlx,
        Rule::Mlas,
        Rule::OrtTools,
        Rule::OrtToolsReduced,
        Rule::BitsAndBytes,
        Rule::Hqq,
    ] {
        assert!(cases.iter().filter(|c| c.q.rule == rule).count() > 4, "{rule:?} lacks cases");
    }
    for case in &cases {
        for &level in available_levels() {
            let got = encode(case, level);
            let bytes = Grid { outer: false, ..case.q.grid }.bundle_bytes(case.columns);
            for (r, (got, want)) in got.chunks(bytes).zip(case.want.chunks(bytes)).enumerate() {
                let (g, w) = (numbers(&got[case.columns..]), numbers(&want[case.columns..]));
                // Equal as numbers: the sign of a zero scale is the order of a block's zeros.
                let codes = (0..case.columns).filter(|&i| got[i] != want[i]).count();
                if g != w || codes > 0 {
                    let at = (0..case.columns).find(|&i| got[i] != want[i]);
                    let n = (0..g.len()).find(|&i| g[i] != w[i]);
                    let shown = (at.map(|i| (i, got[i], want[i])), n.map(|i| (i, g[i], w[i])));
                    wrong.push(format!(
                        "{} row {r} at {}: {codes} codes, {shown:?}",
                        case.line,
                        level.name()
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong[..wrong.len().min(40)].join("\n"));
}

#[test]
fn half_quadratic_as_the_package() {
    let cases: Vec<Case> = cases().into_iter().filter(|c| c.q.fit == Fit::Hqq).collect();
    assert!(cases.len() > 10);
    let (mut groups, mut same, mut better) = (0, 0, 0);
    for case in &cases {
        let grid = case.q.grid;
        let bytes = grid.bundle_bytes(case.columns);
        for &level in available_levels() {
            let got = encode(case, level);
            for (r, (got, want)) in got.chunks(bytes).zip(case.want.chunks(bytes)).enumerate() {
                let x = &case.x[r * case.columns..][..case.columns];
                let mut back = [vec![0f32; case.columns], vec![0f32; case.columns]];
                grid.decode_row(got, &mut back[0]);
                grid.decode_row(want, &mut back[1]);
                let (g, w) = (numbers(&got[case.columns..]), numbers(&want[case.columns..]));
                let count = grid.groups(case.columns);
                assert_eq!(g[..count], w[..count], "{}: scales", case.line);
                groups += count;
                let len = grid.group_len(case.columns);
                for (group, x) in x.chunks(len).enumerate() {
                    let far = |back: &[f32]| -> f64 {
                        let back = &back[group * len..][..x.len()];
                        x.iter().zip(back).map(|(a, b)| f64::from((a - b).abs())).sum()
                    };
                    let [ours, theirs] = [far(&back[0]), far(&back[1])];
                    let scale = f64::from(g[group]);
                    // Where it ends worse than it started, this does not.
                    let slack = 2e-3 * theirs + 1e-4 * scale * x.len() as f64;
                    let (g, w) = (g[count + group], w[count + group]);
                    if (g - w).abs() <= 1e-3 * w.abs().max(1.0) {
                        same += 1;
                    } else if ours <= theirs {
                        better += 1;
                    }
                    assert!(ours <= theirs + slack, "{} row {r} group {group}: {ours} {theirs}", case.line);
                }
            }
        }
    }
    // The others end where they started, because that left less, or stop elsewhere with less.
    println!("{same} of {groups} zero points are those of the package, {better} others leave less");
    assert!(same * 100 >= groups * 80 && same + better == groups, "{same} + {better} of {groups}");
}
