//! Adapters merged while converting: what PEFT's own merge gives, within one unit in the last place by default and bit
//! for bit with `--merge-precision peft`.

mod common;

use common::{Stored, demo, expect, safetensors, tensors, text, write_tensors};
use serde_json::json;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

fn golden(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../golden/adapters")).join(name)
}

fn values(dtype: &str, bytes: &[u8]) -> Vec<f64> {
    let half = |b: &[u8]| u16::from_le_bytes(b.try_into().unwrap());
    match dtype {
        "F32" => {
            bytes.chunks_exact(4).map(|b| f64::from(f32::from_le_bytes(b.try_into().unwrap()))).collect()
        }
        "BF16" => {
            bytes.chunks_exact(2).map(|b| f64::from(f32::from_bits(u32::from(half(b)) << 16))).collect()
        }
        "F16" => bytes.chunks_exact(2).map(|b| f16(half(b))).collect(),
        other => panic!("{other}"),
    }
}

/// A finite half-precision float.
fn f16(bits: u16) -> f64 {
    let (exponent, fraction) = (i32::from(bits >> 10 & 31), f64::from(bits & 1023));
    let size = if exponent == 0 {
        fraction / 1024.0 * 2f64.powi(-14)
    } else {
        (1.0 + fraction / 1024.0) * 2f64.powi(exponent - 15)
    };
    if bits >> 15 == 1 { -size } else { size }
}

/// The unit in the last place of a type at a value.
fn unit(dtype: &str, at: f64) -> f64 {
    let (digits, least) = match dtype {
        "F32" => (23, -126),
        "BF16" => (7, -126),
        _ => (10, -14),
    };
    2f64.powi((at.abs().log2().floor() as i32).max(least) - digits)
}

fn cases() -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(golden(""))
        .unwrap()
        .map(|e| e.unwrap())
        .filter(|e| e.path().is_dir())
        .map(|e| e.file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert!(names.len() > 10);
    names
}

/// How far from PEFT's values a merge is.
#[derive(Clone, Copy, Default)]
struct Distance {
    /// In units in the last place of the largest of base, change and result: sums can cancel.
    units: f64,
    /// In units in the last place of the tensor's largest value.
    of_largest: f64,
    /// Whether no bit differs.
    same: bool,
}

fn distance(case: &str, more: &[&str]) -> Distance {
    let folder = golden(case);
    let base = golden(fs::read_to_string(folder.join("base.txt")).unwrap().trim());
    apart(case, &base, &folder.join("merged.safetensors"), &[&["--adapter", &text(&folder)], more].concat())
}

/// A base merged with these arguments, and what should come of it.
fn apart(case: &str, base: &Path, want: &Path, args: &[&str]) -> Distance {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out.safetensors");
    expect(0, [&["convert", &text(base), "-o", &text(&out)], args].concat());
    let (base, got, want) = (tensors(base), tensors(&out), tensors(want));
    assert_eq!(base.keys().collect::<Vec<_>>(), got.keys().collect::<Vec<_>>());
    let mut all = Distance { same: true, ..Distance::default() };
    for (name, got) in &got {
        // What PEFT's merge leaves alone stays as it is.
        let want = want.get(name).unwrap_or(&base[name]);
        assert_eq!((&got.dtype, &got.shape), (&want.dtype, &want.shape), "{case}: {name}");
        let (dtype, bytes, want) = (got.dtype.as_str(), &got.bytes, &want.bytes);
        all.same &= bytes == want;
        let before = values(dtype, &base[name].bytes);
        let largest = values(dtype, want).into_iter().fold(0f64, |m, x| m.max(x.abs()));
        for ((got, want), before) in values(dtype, bytes).into_iter().zip(values(dtype, want)).zip(before) {
            let at = want.abs().max(before.abs()).max((want - before).abs());
            all.units = all.units.max((got - want).abs() / unit(dtype, at));
            all.of_largest = all.of_largest.max((got - want).abs() / unit(dtype, largest));
        }
    }
    all
}

/// Cases in which torch sums in an order of its own: convolutions, squares under a norm, products with few columns,
/// and systems of equations. Where terms cancel, that shows; ours are as near to the exact sums as those.
fn inexact(case: &str) -> bool {
    const OTHER_ORDER: [&str; 4] = ["loha", "loha-core", "lokr", "lokr-core"];
    case.contains("conv")
        || case.starts_with("dora")
        || case.starts_with("oft")
        || case.starts_with("boft")
        || OTHER_ORDER.contains(&case)
}

fn near(case: &str, far: Distance) -> bool {
    if inexact(case) { far.of_largest <= 4.0 } else { far.units <= 1.0 }
}

#[test]
fn merges_are_pefts_within_one_unit() {
    let far = cases().into_iter().map(|c| (distance(&c, &[]), c)).filter(|(far, c)| !near(c, *far));
    let far: Vec<String> = far.map(|(d, c)| format!("{c}: {:.1}, {:.1}", d.units, d.of_largest)).collect();
    assert!(far.is_empty(), "units: {}", far.join("; "));
}

#[test]
fn merges_in_pefts_precision_are_its_bits() {
    let other = cases().into_iter().filter_map(|c| {
        let far = distance(&c, &["--merge-precision", "peft"]);
        let fine = far.same || (inexact(&c) && near(&c, far));
        (!fine).then(|| format!("{c}: {:.1}, {:.1}", far.units, far.of_largest))
    });
    let other: Vec<String> = other.collect();
    assert!(other.is_empty(), "units: {}", other.join("; "));
}

#[test]
fn combinations_are_pefts() {
    let of = |name: &str| golden("../adapters-combined").join(name);
    for (name, how, shares) in [
        ("linear", "linear", [0.7, -0.4]),
        ("cat", "cat", [0.7, -0.4]),
        ("ties", "ties:density=0.5", [0.7, 0.4]),
        ("ties-frequency", "ties:density=0.4,majority=frequency", [0.7, 0.4]),
        ("magnitude_prune", "magnitude_prune:density=0.3", [0.7, 0.4]),
        ("svd", "svd:rank=3", [0.7, 0.4]),
        ("dare_linear", "dare_linear:density=1", [0.7, 0.4]),
        ("dare_ties", "dare_ties:density=1", [0.7, 0.4]),
    ] {
        let adapters = ["a", "b"].map(|n| text(&of(n)));
        let [a, b] = [0, 1].map(|i| format!("{}={}", adapters[i], shares[i]));
        let want = of(&format!("{name}.safetensors"));
        let args = ["--adapter", &a, "--adapter", &b, "--combine", how];
        let far = apart(name, &golden("base-f32.safetensors"), &want, &args);
        // PEFT decomposes in f32, which moves singular vectors by far more than ours, in f64, are off.
        let near = if name == "svd" { far.of_largest <= 64.0 } else { far.units <= 1.0 };
        assert!(near, "{name}: {:.1}, {:.1}", far.units, far.of_largest);
    }
}

/// An adapter for the demo's matrices of one kind, its numbers from a fixed sequence.
fn adapter(folder: &Path, module: &str, size: f32) {
    const RANK: usize = 4;
    let listed = common::json(&expect(0, ["inspect", &text(&demo()), "--json"]).0);
    let (mut tensors, mut state) = (BTreeMap::new(), 7u32);
    for t in listed["tensors"].as_array().unwrap() {
        let name = t["name"].as_str().unwrap();
        let Some(of) = name.strip_suffix(".weight").filter(|n| n.ends_with(module)) else { continue };
        let dims: Vec<usize> =
            t["shape"].as_array().unwrap().iter().map(|d| d.as_u64().unwrap() as usize).collect();
        for (part, shape) in [("A", [RANK, dims[1]]), ("B", [dims[0], RANK])] {
            let values = (0..shape[0] * shape[1]).map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                ((state >> 8) as f32 / 8_388_608.0 - 1.0) * size
            });
            let stored = Stored::f32(&shape, values.collect::<Vec<_>>());
            tensors.insert(format!("base_model.model.{of}.lora_{part}.weight"), stored);
        }
    }
    assert!(!tensors.is_empty(), "{module}");
    fs::create_dir_all(folder).unwrap();
    write_tensors(&folder.join("adapter_model.safetensors"), &tensors);
    let config = format!(r#"{{"peft_type":"LORA","r":{RANK},"lora_alpha":8,"target_modules":["{module}"]}}"#);
    fs::write(folder.join("adapter_config.json"), config).unwrap();
}

#[test]
fn a_merge_and_a_conversion_are_one_run() {
    let dir = tempfile::tempdir().unwrap();
    let path = |n: &str| text(&dir.path().join(n));
    adapter(&dir.path().join("a"), "q_proj", 0.2);
    adapter(&dir.path().join("b"), "down_proj", 0.2);
    let adapters = [format!("{}=0.5", path("a")), path("b")];
    let with: Vec<&str> = adapters.iter().flat_map(|a| ["--adapter", a]).collect();
    // A folder's name becomes part of a GGUF file's metadata.
    let merged = path("tiny-llama");
    expect(0, [&["convert", &text(&demo()), "-o", &merged, "--to", "safetensors"], &with[..]].concat());
    for quant in ["Q4_K_M", "Q8_0"] {
        let (two, one) = (path("two.gguf"), path(&format!("{quant}.gguf")));
        expect(0, ["convert", &merged, "-o", &two, "--quant", quant, "--force"]);
        let at_once =
            ["convert", &text(&demo()), "-o", &one, "--quant", quant, "--memory", "96MiB", "-j", "3"];
        expect(0, [&at_once[..], &with[..]].concat());
        assert!(fs::read(&one).unwrap() == fs::read(&two).unwrap(), "{quant}");
        let plain = path("plain.gguf");
        expect(0, ["convert", &text(&demo()), "-o", &plain, "--quant", quant, "--force"]);
        assert!(fs::read(&one).unwrap() != fs::read(&plain).unwrap(), "{quant} has no adapter in it");
    }
    // In a release, and recorded there.
    let release = dir.path().join("release.toml");
    let toml = format!(
        "[source]\npath = {:?}\nadapters = [{{ path = \"a\", scale = 0.5 }}, \"b\"]\n[release]\nname = \"r\"\n\
         [[variant]]\nquant = \"Q8_0\"\n",
        text(&demo())
    );
    fs::write(&release, toml).unwrap();
    expect(0, ["release", &text(&release), "--verify"]);
    assert!(fs::read(path("r-Q8_0.gguf")).unwrap() == fs::read(path("Q8_0.gguf")).unwrap());
    let manifest = common::json(&fs::read_to_string(dir.path().join("r.manifest.json")).unwrap());
    assert_eq!(manifest["adapters"], json!([{"name": "a", "scale": 0.5}, {"name": "b", "scale": 1.0}]));
}

#[test]
fn what_does_not_belong_together_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("a");
    let out = text(&dir.path().join("out.gguf"));
    adapter(&folder, "q_proj", 0.2);
    let run = |code: i32, says: &str, more: &[&str]| {
        let args = ["convert", &text(&demo()), "-o", &out, "--force", "--adapter", &text(&folder)];
        let (stdout, stderr) = expect(code, [&args[..], more].concat());
        assert!((stdout + &stderr).contains(says), "{stderr}");
    };
    run(0, "adapters change", &["--dry-run"]);
    let weights = folder.join("adapter_model.safetensors");
    let good = fs::read(&weights).unwrap();
    let renamed = |from: &str, to: &str| {
        let n = u64::from_le_bytes(good[..8].try_into().unwrap()) as usize;
        let header = std::str::from_utf8(&good[8..8 + n]).unwrap().replacen(from, to, 2);
        let mut file = safetensors(&header, 0);
        file.extend(&good[8 + n..]);
        fs::write(&weights, file).unwrap();
    };
    // A module that the base does not have, by name; and nothing is left without it.
    renamed("q_proj", "r_proj");
    run(3, "r_proj.lora_A", &[]);
    // A module of another shape.
    renamed("q_proj", "k_proj");
    run(3, "another base", &[]);
    // Too large for what it is added to.
    let config = folder.join("adapter_config.json");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&weights, &good).unwrap();
    fs::write(&config, text.replace("\"lora_alpha\":8", "\"lora_alpha\":1e60")).unwrap();
    run(3, "beyond what can be computed with", &[]);
    fs::write(&config, text.replace("\"r\":4", "\"r\":5")).unwrap();
    run(3, "rank 5", &[]);
    for family in ["XLORA", "FOURIERFT"] {
        fs::write(&config, text.replace("LORA", family)).unwrap();
        run(4, family, &[]);
    }
    fs::remove_file(&config).unwrap();
    run(3, "adapter_config.json", &[]);
}

#[test]
fn what_multiplies_weights_has_no_share() {
    let dir = tempfile::tempdir().unwrap();
    let (base, out) = (text(&golden("base-f32.safetensors")), text(&dir.path().join("out.safetensors")));
    for case in ["oft", "boft", "ia3-fan"] {
        let half = format!("{}=0.5", text(&golden(case)));
        let (_, stderr) = expect(2, ["convert", &base, "-o", &out, "--adapter", &half]);
        assert!(stderr.contains("as a whole only"), "{stderr}");
    }
    // Sums do have one.
    let half = format!("{}=0.5", text(&golden("lokr")));
    expect(0, ["convert", &base, "-o", &out, "--adapter", &half]);
}

/// Other dimensions for as many elements, and none.
fn misshapen(t: &Stored, how: usize) -> Stored {
    let n: usize = t.shape.iter().product();
    let turned: Vec<usize> = t.shape.iter().rev().copied().collect();
    let shape = match how % 8 {
        0 => turned,
        1 => vec![n],
        2 => vec![1, n],
        3 => vec![n, 1],
        4 => [&[1], t.shape.as_slice()].concat(),
        5 => [t.shape.as_slice(), &[1, 1]].concat(),
        6 => return Stored { shape: vec![0, t.shape[0]], bytes: Vec::new(), ..t.clone() },
        _ => return Stored { shape: vec![t.shape[0], 0], bytes: Vec::new(), ..t.clone() },
    };
    Stored { shape, ..t.clone() }
}

#[test]
fn misshapen_factors_never_panic() {
    let dir = tempfile::tempdir().unwrap();
    let (folder, out) = (dir.path().join("a"), text(&dir.path().join("out.safetensors")));
    fs::create_dir_all(&folder).unwrap();
    let mut refused = 0;
    for (i, case) in cases().iter().enumerate() {
        let base = golden(fs::read_to_string(golden(case).join("base.txt")).unwrap().trim());
        fs::copy(golden(case).join("adapter_config.json"), folder.join("adapter_config.json")).unwrap();
        let good = tensors(&golden(case).join("adapter_model.safetensors"));
        for (j, name) in good.keys().enumerate().take(7) {
            let mut bad = good.clone();
            bad.insert(name.clone(), misshapen(&good[name], i + j));
            write_tensors(&folder.join("adapter_model.safetensors"), &bad);
            let args = ["convert", &text(&base), "-o", &out, "--force", "--adapter", &text(&folder)];
            let run = common::run(args);
            let code = run.status.code();
            let stderr = String::from_utf8_lossy(&run.stderr);
            assert!(matches!(code, Some(0 | 3 | 4)), "{case}: {name}: {code:?} {stderr}");
            refused += usize::from(code != Some(0));
        }
    }
    assert!(refused > 100, "{refused}");
}
