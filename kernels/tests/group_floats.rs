//! 8-bit floats and grouped float codes against the libraries whose files hold them (`golden/groups`, made by
//! `golden/generators/group_floats.py`).

#[path = "common/golden.rs"]
mod golden;

use golden::{Bytes, fnv, golden};
use tensormill_kernels::groups::{
    Code, Fit, Grid, GroupRows, Offset, Quantizer, Rule, ScaleType, global_scale, nested,
};
use tensormill_tensor::{DType, decode_plain, encode_plain, encode_saturating};

const TYPES: [DType; 5] = [DType::F8E4M3, DType::F8E5M2, DType::F8E4M3Fnuz, DType::F8E5M2Fnuz, DType::F8E8M0];

/// For each type, from which bit pattern of binary32 on torch gives which code.
fn casts() -> Vec<(DType, Vec<(u32, u8)>)> {
    let file = golden("groups/fp8.bin");
    let mut bytes = Bytes(&file);
    TYPES.map(|dtype| (dtype, (0..bytes.u32()).map(|_| (bytes.u32(), bytes.take(1)[0])).collect())).into()
}

#[test]
fn casts_to_eight_bits_are_torchs() {
    for (dtype, runs) in casts() {
        let code_at = |bits: u32| runs[runs.partition_point(|(start, _)| *start <= bits) - 1].1;
        // Every bfloat16, every binary32 next to where codes change, and a walk over all others.
        let near =
            runs.iter().flat_map(|(start, _)| (0..5).map(move |i| start.wrapping_add(i).wrapping_sub(2)));
        let every = (0..=u32::from(u16::MAX)).map(|bits| bits << 16);
        let walk = (0..1u32 << 18).map(|i| i.wrapping_mul(2_654_435_761));
        let bits: Vec<u32> = every.chain(near).chain(walk).collect();
        let x: Vec<f32> = bits.iter().map(|b| f32::from_bits(*b)).collect();
        let mut codes = vec![0u8; x.len()];
        assert!(encode_plain(dtype, &x, &mut codes));
        let mut saturated = codes.clone();
        assert!(encode_saturating(dtype, &x, &mut saturated));
        let mut back = vec![0f32; x.len()];
        assert!(decode_plain(dtype, &codes, &mut back));
        for (i, bits) in bits.iter().enumerate() {
            assert_eq!(codes[i], code_at(*bits), "{dtype} of {bits:#010x}");
            assert!(saturated[i] == codes[i] || !back[i].is_finite(), "{dtype} of {bits:#010x}");
        }
    }
}

fn splitmix(seed: u64, i: u64) -> u64 {
    let mut z = (i + 1).wrapping_add(seed << 20).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

const ROWS: usize = 4;
const COLUMNS: usize = 192;

/// The generator's `matrix`.
fn matrix(kind: &str) -> Vec<f32> {
    let seed = ["bell", "wide", "ties", "gaps"].iter().position(|k| *k == kind).expect("a kind") as u64;
    (0..ROWS * COLUMNS)
        .map(|i| {
            let z = splitmix(seed, i as u64);
            let bell = (z & 0xffff) + (z >> 16 & 0xffff) + (z >> 32 & 0xffff);
            let bell = (bell as i64 - 98304) as f32;
            match kind {
                "bell" => bell * 2f32.powi(-20),
                "wide" => bell * 2f32.powi((z >> 48 & 63) as i32 - 48),
                "ties" if i % 16 == 0 => 6.0,
                "ties" => ((z & 63) as i64 - 32) as f32 * 0.125,
                _ => {
                    let mut x = if z >> 48 & 3 != 0 { 0.0 } else { bell * 2f32.powi(-16) };
                    x = if (z >> 50).is_multiple_of(8) { -0.0 } else { x };
                    x = if i % COLUMNS < COLUMNS / 3 { 0.0 } else { x };
                    match i / COLUMNS {
                        1 => x * 2f32.powi(-120),
                        2 => x * 2f32.powi(100),
                        _ => x,
                    }
                }
            }
        })
        .collect()
}

/// What makes the generator's case, and how long its rows are.
fn quantizer(name: &str) -> (Quantizer, usize) {
    use {Code::*, Rule::*};
    let (code, group, rows, scale, rule) = match name {
        "ct-fp8-tensor" => (E4M3, 0, 0, ScaleType::F32, CompressedTensors),
        "ct-fp8-channel" => (E4M3, 0, 1, ScaleType::F32, CompressedTensors),
        "ct-fp8-block" => (E4M3, 64, 2, ScaleType::F32, CompressedTensors),
        "ct-nvfp4" => (E2M1, 16, 1, ScaleType::E4M3, CompressedTensors),
        "ct-mxfp4" => (E2M1, 32, 1, ScaleType::E8M0, CompressedTensors),
        "ct-mxfp8" => (E4M3, 32, 1, ScaleType::E8M0, CompressedTensors),
        "hf-fp8-block" => (E4M3, 64, 2, ScaleType::F32, DeepSeek),
        "hf-fp8-block-ue8m0" => (E4M3, 64, 2, ScaleType::E8M0, DeepSeek),
        "bnb-nf4" | "bnb-nf4-rest" => (Nf4, 64, 1, ScaleType::F32, BitsAndBytes),
        "bnb-fp4" | "bnb-fp4-rest" => (Fp4, 64, 1, ScaleType::F32, BitsAndBytes),
        "mlx-mxfp4" => (E2M1, 32, 1, ScaleType::E8M0, Mlx),
        "mlx-nvfp4" => (E2M1, 16, 1, ScaleType::E4M3, Mlx),
        "mlx-mxfp8" => (E4M3, 32, 1, ScaleType::E8M0, Mlx),
        other => panic!("no case {other}"),
    };
    let outer = name == "ct-nvfp4";
    let grid = Grid { code, group, rows, offset: Offset::None, outer };
    (Quantizer { grid, scale, rule, fit: Fit::Nearest }, if name.ends_with("-rest") { 150 } else { COLUMNS })
}

#[test]
fn codes_and_scales_are_the_libraries() {
    let file = golden("groups/floats.bin");
    let mut bytes = Bytes(&file);
    let mut cases = 0;
    while !bytes.0.is_empty() {
        let title = usize::from(bytes.take(1)[0]);
        let title = std::str::from_utf8(bytes.take(title)).expect("a title");
        let (name, kind) = title.split_once('/').expect("name and kind");
        let (scale_count, code_count, global) = (bytes.u32() as usize, bytes.u32() as usize, bytes.f32());
        let decoded = u64::from_le_bytes(bytes.take(8).try_into().expect("eight bytes"));
        let (scales, codes) = (bytes.floats(scale_count), bytes.take(code_count));
        cases += 1;

        let (q, len) = quantizer(name);
        let x = matrix(kind);
        let x = &x[..code_count];
        let bundle = q.grid.bundle_bytes(len);
        let mut out = vec![0u8; x.len() / len * bundle];
        let rows = GroupRows { x, len, importance: None, outer: 1.0 };
        if q.grid.outer {
            let amax = x.iter().fold(0f32, |a, v| a.max(v.abs()));
            assert_eq!(global_scale(amax).to_bits(), global.to_bits(), "{title}: global scale");
            q.encode_rows_over(rows, global, &mut out).expect("finite");
        } else {
            q.encode_rows(rows, &mut out).expect("finite");
        }
        let groups = q.grid.groups(len);
        let mut back = vec![0f32; x.len()];
        let bands = out.chunks_exact(bundle).zip(back.chunks_exact_mut(len)).zip(codes.chunks_exact(len));
        // Rows with which MLX's CPU code goes astray: under a scale that saturated it finds all values equally far from huge
        // numbers and takes code 0, and of a scale that is subnormal it gets a wrong logarithm. Ours get the largest value,
        // and the smallest scale.
        let astray = match title {
            "mlx-nvfp4/gaps" => Some(2),
            "mlx-mxfp8/gaps" => Some(1),
            _ => None,
        };
        for (row, ((bundle, back), codes)) in bands.enumerate() {
            let parts = q.grid.parts(bundle, len);
            if astray == Some(row) {
                continue;
            }
            let band = if q.grid.rows == 0 { 0 } else { row / q.grid.rows as usize };
            for (g, scale) in parts.scales.iter().enumerate() {
                let (got, want) = (f32::from_le_bytes(*scale), scales[band * groups + g]);
                assert_eq!(got.to_bits(), want.to_bits(), "{title}: row {row} group {g}: {got} for {want}");
            }
            for (i, (got, want)) in parts.codes.iter().zip(codes).enumerate() {
                assert_eq!(got, want, "{title}: row {row} column {i} of {}", x[row * len + i]);
            }
            q.grid.decode_row(bundle, back);
        }
        // By the inverse of the global scale, values may differ in their last bit.
        if !q.grid.outer && astray.is_none() {
            assert_eq!(fnv(&back), decoded, "{title}: decoded weights");
        }
        if name == "ct-fp8-tensor" {
            by_tiles(&q, x, len, &out);
        }
    }
    assert_eq!(cases, 60);
}

/// A scale that was found before gives tiles the codes that the whole matrix has.
fn by_tiles(q: &Quantizer, x: &[f32], len: usize, want: &[u8]) {
    let amax = x.iter().fold(0f32, |a, v| a.max(v.abs()));
    let outer = q.matrix_scale(amax);
    let tiled = Quantizer { grid: Grid { outer: true, ..q.grid }, ..*q };
    let (bundle, tile_bundle) = (q.grid.bundle_bytes(len), tiled.grid.bundle_bytes(len));
    for (x, want) in x.chunks_exact(len).zip(want.chunks_exact(bundle)) {
        let mut out = vec![0u8; tile_bundle];
        tiled.encode_rows(GroupRows { x, len, importance: None, outer }, &mut out).expect("finite");
        assert_eq!(out[..len], want[..len]);
        let (mut a, mut b) = (vec![0f32; len], vec![0f32; len]);
        tiled.grid.decode_row(&out, &mut a);
        q.grid.decode_row(want, &mut b);
        assert_eq!(a, b);
    }
}

#[test]
fn scales_of_scales_are_the_librarys() {
    let file = golden("groups/nested.bin");
    let mut bytes = Bytes(&file);
    let map = nested::map();
    assert_eq!(bytes.floats(256), map, "the dynamic map");
    while !bytes.0.is_empty() {
        let count = bytes.u32() as usize;
        let (scales, offset) = (bytes.floats(count), bytes.f32());
        let blocks = count.div_ceil(nested::BLOCK);
        let (outer, codes, back) = (bytes.floats(blocks), bytes.take(count), bytes.floats(count));
        let ours = nested::offset(&scales);
        assert!((ours - offset).abs() <= 2.0 * f32::EPSILON * offset.abs(), "{ours} for {offset}");
        let (mut got_codes, mut got_outer) = (vec![9u8; count], vec![9f32; blocks]);
        nested::encode(&scales, offset, &mut got_codes, &mut got_outer);
        assert_eq!(got_outer, outer, "{count} scales");
        let differs = got_codes.iter().zip(codes).position(|(a, b)| a != b);
        assert!(differs.is_none(), "{count} scales: code {differs:?}");
        let mut got = vec![0f32; count];
        nested::decode(codes, &outer, offset, &mut got);
        assert_eq!(got, back, "{count} scales");
    }
}

#[test]
fn what_is_not_finite_is_named() {
    let (q, len) = quantizer("ct-nvfp4");
    let mut x = vec![1f32; 3 * len];
    x[2 * len + 5] = f32::NAN;
    let mut out = vec![0u8; 3 * q.grid.bundle_bytes(len)];
    let rows = GroupRows { x: &x, len, importance: None, outer: 1.0 };
    let error = q.encode_rows_over(rows, 2.0, &mut out).expect_err("NaN");
    assert_eq!(error.to_string(), "row 2: column 5 of the row is NaN or infinite");
}
