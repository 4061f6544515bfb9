//! Scales by calibration files: GPTQ's error feedback and AWQ's scaling, on the demo model with inputs that are made up.

mod common;

use common::{demo, expect, json};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

const COLUMNS: usize = 256;
const SAMPLES: usize = 300;
const LAYER: &str = "model.layers.0";
/// Who sees which input: the first is the one under whose name it is stored.
const INPUTS: &[&[&str]] = &[
    &["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
    &["self_attn.o_proj"],
    &["mlp.gate_proj", "mlp.up_proj"],
    &["mlp.down_proj"],
];

type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// Inputs of which some columns are large, and all have something in common.
fn inputs(seed: u64) -> Vec<f32> {
    let mut state = seed + 1;
    let mut next = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 24) as f32 - 0.5
    };
    let sizes: Vec<f32> = (0..COLUMNS).map(|_| (4.0 * next()).exp()).collect();
    let ways: Vec<f32> = (0..8 * COLUMNS).map(|_| next()).collect();
    (0..SAMPLES)
        .flat_map(|_| {
            let shared: Vec<f32> = (0..8).map(|_| 2.0 * next()).collect();
            let x = |j: usize| {
                let common: f32 = (0..8).map(|k| shared[k] * ways[k * COLUMNS + j]).sum();
                (common + 0.5 * next()) * sizes[j]
            };
            (0..COLUMNS).map(x).collect::<Vec<f32>>()
        })
        .collect()
}

fn hessian(x: &[f32]) -> Vec<f32> {
    let mut h = vec![0f64; COLUMNS * COLUMNS];
    for row in x.chunks_exact(COLUMNS) {
        for (i, a) in row.iter().enumerate() {
            for (h, b) in h[i * COLUMNS..].iter_mut().zip(row) {
                *h += f64::from(*a) * f64::from(*b);
            }
        }
    }
    h.iter().map(|h| (h / SAMPLES as f64) as f32).collect()
}

/// The statistics of all inputs, as files have them.
fn statistics() -> Tensors {
    let mut all = Tensors::new();
    for (seed, modules) in INPUTS.iter().enumerate() {
        let x = inputs(seed as u64);
        let h = hessian(&x);
        let mean_abs = (0..COLUMNS)
            .map(|j| x.iter().skip(j).step_by(COLUMNS).map(|x| x.abs()).sum::<f32>() / SAMPLES as f32)
            .collect();
        let name = |what: &str| format!("{LAYER}.{}.{what}", modules[0]);
        all.insert(name("mean_square"), (vec![COLUMNS], (0..COLUMNS).map(|j| h[j * COLUMNS + j]).collect()));
        all.insert(name("mean_abs"), (vec![COLUMNS], mean_abs));
        all.insert(name("hessian"), (vec![COLUMNS, COLUMNS], h));
    }
    all
}

fn metadata() -> BTreeMap<String, String> {
    let own =
        [("format", "tensormill.calibration"), ("version", "1"), ("samples", "300"), ("dataset", "made up")];
    let own = own.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
    let same = INPUTS.iter().flat_map(|modules| {
        modules[1..].iter().map(|m| (format!("{LAYER}.{m}"), format!("{LAYER}.{}", modules[0])))
    });
    own.chain(same).collect()
}

fn write(path: &Path, tensors: &Tensors, metadata: &BTreeMap<String, String>) {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    header.insert("__metadata__".to_owned(), serde_json::json!(metadata));
    for (name, (shape, values)) in tensors {
        let start = data.len();
        data.extend(values.iter().flat_map(|x| x.to_le_bytes()));
        let entry =
            serde_json::json!({ "dtype": "F32", "shape": shape, "data_offsets": [start, data.len()] });
        header.insert(name.clone(), entry);
    }
    let header = serde_json::Value::from(header).to_string();
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend(data);
    fs::write(path, bytes).unwrap();
}

fn read(path: &Path) -> Tensors {
    let bytes = fs::read(path).unwrap();
    let (len, rest) = bytes.split_at(8);
    let (header, data) = rest.split_at(u64::from_le_bytes(len.try_into().unwrap()) as usize);
    let header = json(std::str::from_utf8(header).unwrap());
    let tensors = header.as_object().unwrap().iter().filter(|(name, _)| *name != "__metadata__");
    let numbers = |v: &serde_json::Value| -> Vec<usize> {
        v.as_array().unwrap().iter().map(|n| n.as_u64().unwrap() as usize).collect()
    };
    let tensors = tensors.map(|(name, t)| {
        assert_eq!(t["dtype"], "F32", "{name}");
        let at = numbers(&t["data_offsets"]);
        let values = data[at[0]..at[1]].as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b));
        (name.clone(), (numbers(&t["shape"]), values.collect()))
    });
    tensors.collect()
}

/// A folder for a test, with the demo model in f32 and a calibration file.
struct Bench {
    dir: PathBuf,
}

impl Bench {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("tensormill-calibration-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        let bench = Self { dir };
        bench.convert(0, &demo(), "plain", &["--dtype", "f32"]);
        write(&bench.path("calibration.safetensors"), &statistics(), &metadata());
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Standard error.
    fn convert(&self, code: i32, source: &Path, to: &str, more: &[&str]) -> String {
        let (source, to) = (source.display().to_string(), self.path(to).display().to_string());
        let args = ["convert", &source, "-o", &to, "--to", "safetensors", "--no-measure"];
        expect(code, args.iter().chain(more)).1
    }

    /// Quantizes the plain model, with `--calibration` where it is to be searched.
    fn quantize(&self, to: &str, more: &[&str]) {
        if !more.contains(&"--search") {
            self.convert(0, &self.path("plain"), to, more);
            return;
        }
        let file = self.path("calibration.safetensors").display().to_string();
        self.convert(0, &self.path("plain"), to, &[&["--calibration", &file], more].concat());
    }

    /// The weights of a folder, decoded.
    fn values(&self, folder: &str) -> Tensors {
        let to = format!("{folder}-values");
        self.convert(0, &self.path(folder), &to, &["--dtype", "f32"]);
        read(&self.path(&to).join("model.safetensors"))
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// `tr(E H E^T)` of every linear layer: how far its outputs are off.
fn errors(plain: &Tensors, made: &Tensors) -> BTreeMap<String, f64> {
    let statistics = statistics();
    let mut errors = BTreeMap::new();
    for modules in INPUTS {
        let h = &statistics[&format!("{LAYER}.{}.hessian", modules[0])].1;
        for module in *modules {
            let name = format!("{LAYER}.{module}.weight");
            let (a, b) = (&plain[&name].1, &made[&name].1);
            let mut sum = 0f64;
            for (a, b) in a.chunks_exact(COLUMNS).zip(b.chunks_exact(COLUMNS)) {
                let e: Vec<f64> = a.iter().zip(b).map(|(a, b)| f64::from(a - b)).collect();
                for (i, row) in h.chunks_exact(COLUMNS).enumerate() {
                    sum += e[i] * row.iter().zip(&e).map(|(h, e)| f64::from(*h) * e).sum::<f64>();
                }
            }
            errors.insert(name, sum);
        }
    }
    errors
}

#[test]
fn feedback_leaves_less_error_in_every_scheme() {
    let bench = Bench::new("feedback");
    let plain = read(&bench.path("plain/model.safetensors"));
    for scheme in
        ["int4-g32", "int4-g128-asym", "int8", "int3-g32", "w8a8", "fp8", "fp8-block", "nvfp4", "mxfp4"]
    {
        let of = |search: &str, more: &[&str]| {
            let to = format!("{scheme}-{search}{}", more.len());
            let search: &[&str] = if search == "usual" { &[] } else { &["--search", search] };
            bench.quantize(&to, &[&["--quant", scheme], search, more].concat());
            errors(&plain, &bench.values(&to))
        };
        let (usual, gptq, ordered) = (of("usual", &[]), of("gptq", &[]), of("gptq", &["--act-order"]));
        let total = |e: &BTreeMap<String, f64>| e.values().sum::<f64>();
        println!(
            "{scheme}: {:.3} usual, {:.3} gptq, {:.3} ordered",
            total(&usual),
            total(&gptq),
            total(&ordered)
        );
        for (name, error) in &usual {
            assert!(gptq[name] < *error, "{scheme}, {name}: {} is not below {error}", gptq[name]);
            assert!(
                ordered[name] < *error,
                "{scheme}, {name} by activity: {} is not below {error}",
                ordered[name]
            );
        }
    }
}

#[test]
fn feedback_depends_on_neither_memory_nor_threads() {
    let bench = Bench::new("tiles");
    let bytes = |to: &str, more: &[&str]| {
        bench.quantize(to, &[&["--quant", "int4-g32", "--search", "gptq"], more].concat());
        fs::read(bench.path(to).join("model.safetensors")).unwrap()
    };
    let all = bytes("one", &["--threads", "1"]);
    assert!(bytes("small", &["--threads", "3", "--memory", "12MiB"]) == all);
    assert!(bytes("damped", &["--damp-percent", "0.3"]) != all, "damping changes codes");
}

/// Weights with what the norm before them multiplies, or the rows before them: what a layer does to a model's values.
fn effective(name: &str, tensors: &Tensors) -> Vec<f32> {
    let (layer, weight) = name.rsplit_once('.').unwrap().0.rsplit_once('.').unwrap();
    let block = layer.rsplit_once('.').unwrap().0;
    let norm = match weight {
        "q_proj" | "k_proj" | "v_proj" => format!("{block}.input_layernorm.weight"),
        "gate_proj" | "up_proj" => format!("{block}.post_attention_layernorm.weight"),
        _ => return tensors[name].1.clone(),
    };
    let norm = &tensors[&norm].1;
    tensors[name].1.chunks_exact(COLUMNS).flat_map(|row| row.iter().zip(norm).map(|(w, n)| w * n)).collect()
}

#[test]
fn scaling_changes_no_product_and_loses_less() {
    let bench = Bench::new("scaling");
    let plain = read(&bench.path("plain/model.safetensors"));
    // What stays plain is scaled with the others: by it, products can be compared.
    let keep = ["--tensor-type", "(k|up|v)_proj=plain", "--quant", "int4-g32", "--search", "awq"];
    bench.quantize("some", &keep);
    let some = bench.values("some");
    let norm = format!("{LAYER}.input_layernorm.weight");
    assert_ne!(plain[&norm].1, some[&norm].1, "scales were found");
    for module in ["self_attn.k_proj", "mlp.up_proj"] {
        let name = format!("{LAYER}.{module}.weight");
        assert_ne!(plain[&name].1, some[&name].1);
        let rows = |t: &Tensors| effective(&name, t);
        // Rows of up_proj are divided by what columns of down_proj are multiplied by: one number a row.
        for (row, (a, b)) in
            rows(&plain).chunks_exact(COLUMNS).zip(rows(&some).chunks_exact(COLUMNS)).enumerate()
        {
            let largest = (0..COLUMNS).max_by(|i, j| a[*i].abs().total_cmp(&a[*j].abs())).unwrap();
            let by = if module == "mlp.up_proj" { b[largest] / a[largest] } else { 1.0 };
            for (j, (a, b)) in a.iter().zip(b).enumerate() {
                assert!(
                    (a * by - b).abs() <= 2e-6 * (a * by).abs(),
                    "{name}, row {row}, column {j}: {a} * {by}, {b}"
                );
            }
        }
    }
    // Weighted by the inputs' squares, as the search is.
    for scheme in ["int4-g32", "int4-g128-asym", "int3-g32", "mxfp4", "nvfp4", "fp8"] {
        let keep = ["--tensor-type", "(up|v|o|down)_proj=plain", "--quant", scheme];
        bench.quantize(&format!("{scheme}-usual"), &keep);
        bench.quantize(&format!("{scheme}-awq"), &[&keep[..], &["--search", "awq"]].concat());
        let [usual, awq] = ["usual", "awq"].map(|s| {
            let made = bench.values(&format!("{scheme}-{s}"));
            let statistics = statistics();
            let mut sum = 0f64;
            for (module, input) in [("self_attn.q_proj", 0), ("self_attn.k_proj", 0), ("mlp.gate_proj", 2)] {
                let square = &statistics[&format!("{LAYER}.{}.mean_square", INPUTS[input][0])].1;
                let name = format!("{LAYER}.{module}.weight");
                let norm = if input == 0 { "input_layernorm" } else { "post_attention_layernorm" };
                let norm = &plain[&format!("{LAYER}.{norm}.weight")].1;
                let (a, b) = (effective(&name, &plain), effective(&name, &made));
                for (i, (a, b)) in a.iter().zip(&b).enumerate() {
                    let j = i % COLUMNS;
                    sum += f64::from(square[j]) * f64::from((a - b) / norm[j]).powi(2);
                }
            }
            sum
        });
        println!("{scheme}: {usual:.4} usual, {awq:.4} awq");
        assert!(awq < usual, "{scheme}: {awq} is not below {usual}");
    }
}

#[test]
fn squares_alone_weigh_errors() {
    let bench = Bench::new("weighed");
    bench.quantize("weighed", &["--quant", "int4-g32", "--search", "mse"]);
    let file: &[&str] = &["--quant", "int4-g32", "--search", "mse"];
    bench.convert(0, &bench.path("plain"), "unweighed", file);
    let plain = read(&bench.path("plain/model.safetensors"));
    let sum = |folder: &str| {
        let made = bench.values(folder);
        let statistics = statistics();
        let square = &statistics[&format!("{LAYER}.mlp.down_proj.mean_square")].1;
        let name = format!("{LAYER}.mlp.down_proj.weight");
        let far = plain[&name].1.iter().zip(&made[&name].1).enumerate();
        far.map(|(i, (a, b))| f64::from(square[i % COLUMNS]) * f64::from(a - b).powi(2)).sum::<f64>()
    };
    assert!(sum("weighed") < sum("unweighed"));
}

#[test]
fn errors_say_what_is_missing() {
    let bench = Bench::new("errors");
    let plain = bench.path("plain");
    let fails = |code: i32, more: &[&str], wanted: &[&str]| {
        let text = bench.convert(code, &plain, "out", more);
        for wanted in wanted {
            assert!(text.contains(wanted), "{wanted:?} is not in:\n{text}");
        }
        assert!(!bench.path("out").join("model.safetensors").exists());
    };
    fails(2, &["--quant", "int4-g32", "--search", "gptq"], &["--search gptq needs --calibration"]);
    fails(2, &["--quant", "int4-g32", "--search", "awq"], &["--search awq needs --calibration", "--imatrix"]);
    let bad = bench.path("bad.safetensors").display().to_string();
    let gptq = ["--quant", "int4-g32", "--search", "gptq", "--calibration", &bad];
    let with = |change: &dyn Fn(&mut Tensors, &mut BTreeMap<String, String>)| {
        let (mut tensors, mut metadata) = (statistics(), metadata());
        change(&mut tensors, &mut metadata);
        write(Path::new(&bad), &tensors, &metadata);
    };
    let down = "model.layers.0.mlp.down_proj.hessian";
    with(&|t, _| drop(t.remove(down)));
    fails(2, &gptq, &[down, "bad.safetensors"]);
    with(&|_, m| drop(m.insert("version".to_owned(), "7".to_owned())));
    fails(4, &gptq, &["version", "7"]);
    with(&|_, m| drop(m.remove("format")));
    fails(3, &gptq, &["is no calibration file"]);
    with(&|t, _| t.get_mut(down).unwrap().1[5] = f32::NAN);
    fails(3, &gptq, &[down, "row 0, column 5 is NaN"]);
    with(&|t, _| t.get_mut(down).unwrap().1[COLUMNS + 1] = -1.0);
    fails(3, &gptq, &[down, "number 1 of the diagonal is negative"]);
    with(&|t, _| t.get_mut(down).unwrap().1[5] += 1e4);
    fails(3, &gptq, &[down, "mirror image"]);
    with(&|t, _| {
        t.insert(down.to_owned(), (vec![COLUMNS, 2 * COLUMNS], vec![0.0; 2 * COLUMNS * COLUMNS]));
    });
    fails(3, &gptq, &[down, "square"]);
    with(&|_, m| drop(m.insert("model.layers.0.mlp.up_proj".to_owned(), "nobody".to_owned())));
    fails(3, &gptq, &["nobody"]);
    with(&|t, _| {
        for what in ["hessian", "mean_abs", "mean_square"] {
            let name = format!("{LAYER}.mlp.down_proj.{what}");
            let values = t[&name].1[..if what == "hessian" { 128 * 128 } else { 128 }].to_vec();
            t.insert(name, (if what == "hessian" { vec![128, 128] } else { vec![128] }, values));
        }
    });
    fails(3, &gptq, &["128 columns", "calibrate this very model"]);
    let good = bench.path("calibration.safetensors").display().to_string();
    let gguf = bench.path("out.gguf").display().to_string();
    let source = plain.display().to_string();
    let (_, text) = expect(
        2,
        ["convert", &source, "-o", &gguf, "--quant", "Q4_0", "--search", "gptq", "--calibration", &good],
    );
    assert!(text.contains("for schemes, not for GGUF's blocks"), "{text}");
}
