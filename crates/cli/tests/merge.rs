//! Merges: what mergekit makes of the same recipes. Bit for bit, except where norms and angles of whole tensors are summed
//! in another precision: there, within two units in the last place of the largest term (sums can cancel), or three where changes of `f32` are
//! rescaled. Results of 16 bits are the same bits all the same.

mod common;

use common::{expect, json, tensors, text};
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

fn golden(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../golden/merge")).join(name)
}

fn cases() -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(golden(""))
        .unwrap()
        .filter_map(|e| Some(e.unwrap().file_name().into_string().unwrap().strip_suffix(".yaml")?.to_owned()))
        .collect();
    names.sort();
    assert!(names.len() > 20);
    names
}

/// Merges a recipe into a folder, in little memory, with tiles and threads in their way.
fn merge(recipe: &Path, out: &Path, more: &[&str]) {
    let args = ["merge", &text(recipe), "-o", &text(out), "--memory", "96MiB", "-j", "3"];
    expect(0, [&args[..], more].concat());
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut s, b| {
        let _ = write!(s, "{b:02x}");
        s
    })
}

fn values(bytes: &[u8]) -> Vec<f64> {
    bytes.chunks_exact(4).map(|b| f64::from(f32::from_le_bytes(b.try_into().unwrap()))).collect()
}

/// How far `f32` values are from what they should be, in units in the last place of the sizes of what they are sums of.
fn units(got: &[f64], want: &[f64], sizes: &[f64]) -> f64 {
    let each = got.iter().zip(want).zip(sizes).map(|((got, want), size)| {
        let unit = 2f64.powi((size.max(want.abs()).log2().floor() as i32).max(-126) - 23);
        (got - want).abs() / unit
    });
    each.fold(0.0, f64::max)
}

#[test]
fn merges_are_mergekits() {
    let dir = tempfile::tempdir().unwrap();
    let mut near = 0;
    let sources: BTreeMap<&str, _> =
        ["base", "a", "b"].map(|m| (m, tensors(&golden(m).join("model.safetensors")))).into();
    for case in cases() {
        let out = dir.path().join(&case);
        merge(&golden(&format!("{case}.yaml")), &out, &["--seed", "7"]);
        let got = tensors(&out.join("model.safetensors"));
        let want = json(&fs::read_to_string(golden(&format!("{case}.json"))).unwrap());
        let config = json(&fs::read_to_string(out.join("config.json")).unwrap());
        assert_eq!(config["num_hidden_layers"], want["layers"], "{case}");
        let names: Vec<&String> = want["tensors"].as_object().unwrap().keys().collect();
        assert_eq!(got.keys().collect::<Vec<_>>(), names, "{case}");
        let bytes = golden(&format!("{case}.safetensors"));
        let bytes = bytes.exists().then(|| tensors(&bytes));
        near += usize::from(bytes.is_some());
        for (name, common::Stored { dtype, shape, bytes: data }) in &got {
            let t = &want["tensors"][name];
            let long = match dtype.as_str() {
                "F32" => "float32",
                "BF16" => "bfloat16",
                _ => "float16",
            };
            assert_eq!((&t[0], &t[1]), (&long.into(), &shape.as_slice().into()), "{case}: {name}");
            let same = t[2] == hex(&Sha256::digest(data));
            let Some(bytes) = &bytes else {
                assert!(same, "{case}: {name} is of other bytes");
                continue;
            };
            let [base, a, b] = ["base", "a", "b"].map(|m| values(&sources[m][name].bytes));
            let rescale = if case == "slerp" { 1.0 } else { 1.0 / 0.3 };
            let sizes: Vec<f64> = (0..base.len())
                .map(|i| {
                    let change = (a[i] - base[i]).abs().max((b[i] - base[i]).abs());
                    base[i].abs().max(a[i].abs()).max(b[i].abs()).max(change * rescale)
                })
                .collect();
            let far = units(&values(data), &values(&bytes[name].bytes), &sizes);
            // Coefficients of `f32` come from sums in `f32` there, each some last places off what ours are.
            let most = if case == "slerp" { 2.0 } else { 3.0 };
            assert!(far <= most, "{case}: {name} is {far} units away");
        }
    }
    assert_eq!(near, 3, "only these may be near");
}
