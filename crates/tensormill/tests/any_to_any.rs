//! Every layout as a source of every layout: what results opens again and is as near to the plain model as the coarser of
//! the two allows; what is not the same codes asks for consent first. `docs/schemes.md` has the table, which this test keeps.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, atomic::AtomicBool},
};
use tensormill_core::{
    DType, Error, ErrorReport, Result,
    compare::{self, Comparison},
    convert::Target,
    device,
    job::{self, Job, Variant},
};
use tensormill_schemes::{scheme, schemes};

/// What is made of a model.
#[derive(Clone, Copy)]
enum What {
    Scheme,
    Recipe,
    /// A recipe whose matrices are of another type.
    Blocks(&'static str),
    Plain(DType),
    Lossless,
}

/// A row and a column: name, what, file in the folder of this name.
struct Layout(&'static str, What, &'static str);

const HF: &str = "model.safetensors";
const TORCH: &str = "pytorch_model.bin";
const GRAPH: &str = "onnx/model.onnx";
const GGUF: &str = "model.gguf";

/// Tables of the page with their columns. Groups of 32 wherever there are such: they divide the rows of all models here.
const TABLES: &[(&str, &[Layout])] = &[
    (
        "Plain, GGUF and ONNX",
        &[
            Layout("bf16", What::Plain(DType::BF16), HF),
            Layout("torch-f32", What::Plain(DType::F32), TORCH),
            Layout("onnx-f32", What::Plain(DType::F32), GRAPH),
            Layout("gguf", What::Lossless, GGUF),
            Layout("Q8_0", What::Recipe, GGUF),
            Layout("Q4_0", What::Recipe, GGUF),
            Layout("Q4_K_M", What::Recipe, GGUF),
            Layout("gguf-mxfp4", What::Blocks("mxfp4"), GGUF),
            Layout("gguf-nvfp4", What::Blocks("nvfp4"), GGUF),
            Layout("onnx-int4", What::Scheme, GRAPH),
            Layout("onnx-int8", What::Scheme, GRAPH),
            Layout("onnx-qdq-int4", What::Scheme, GRAPH),
        ],
    ),
    (
        "compressed-tensors, and 8-bit floats of others",
        &[
            Layout("int4-g32", What::Scheme, HF),
            Layout("int4-g32-asym", What::Scheme, HF),
            Layout("int8", What::Scheme, HF),
            Layout("w8a8", What::Scheme, HF),
            Layout("fp8", What::Scheme, HF),
            Layout("fp8-weights", What::Scheme, HF),
            Layout("mxfp8", What::Scheme, HF),
            Layout("nvfp4", What::Scheme, HF),
            Layout("mxfp4", What::Scheme, HF),
            Layout("deepseek-fp8", What::Scheme, HF),
            Layout("fp8-cast", What::Scheme, HF),
            Layout("fp8-cast-e5m2", What::Scheme, HF),
        ],
    ),
    (
        "GPTQ, AWQ, bitsandbytes, MLX",
        &[
            Layout("gptq-int4-g32", What::Scheme, HF),
            Layout("gptq-int4-g128-v2", What::Scheme, HF),
            Layout("awq-int4-g64", What::Scheme, HF),
            Layout("nf4", What::Scheme, HF),
            Layout("nf4-dq", What::Scheme, HF),
            Layout("fp4", What::Scheme, HF),
            Layout("bnb-int8", What::Scheme, HF),
            Layout("mlx-4bit-g32", What::Scheme, HF),
            Layout("mlx-mxfp4", What::Scheme, HF),
            Layout("mlx-nvfp4", What::Scheme, HF),
            Layout("mlx-mxfp8", What::Scheme, HF),
        ],
    ),
];

/// Layouts that are read and not written, or are written otherwise, of `golden/quantized`.
const READ: &[&str] = &[
    "ct-fp8-block",
    "ct-int3-g32-v0.9.4",
    "ct-mixed",
    "gptq-int4-g32-asym-act-order-v2",
    "awq-int4-g32",
    "bnb-nf4-storage-bf16",
    "mlx-mixed",
    "modelopt-fp8",
    "modelopt-nvfp4",
    "modelopt-mxfp4",
    "fp8-block-ue8m0",
    "fbgemm-fp8",
    "hqq-int4-g32",
    "hqq-int4-g32-axis0",
    "bitnet",
];

/// What noises that are added may be below the sum of their powers: they are not independent, since the values that a source
/// decodes to are few, and so lie anywhere but evenly between a target's.
const MARGIN_DB: f64 = 2.0;

/// Above this, values are the same but for the last bit of a number about the whole matrix: some layouts store the inverse.
const SAME_DB: f64 = 130.0;

/// Pairs that hold the same codes, beside each layout and itself: nobody is asked, and every value is kept.
const SAME: &[(&str, &str)] = &[
    ("Q4_0", "int4-g32"),
    ("Q4_0", "gptq-int4-g32"),
    ("Q4_0", "onnx-int4"),
    ("gptq-int4-g32", "Q4_0"),
    ("gptq-int4-g32", "Q8_0"),
    ("gptq-int4-g32", "int4-g32"),
    ("gptq-int4-g32", "onnx-int4"),
    ("int4-g32", "onnx-int4"),
    ("int4-g32", "onnx-qdq-int4"),
    ("int8", "w8a8"),
    ("w8a8", "onnx-int8"),
    ("fp8", "fp8-weights"),
    ("mxfp4", "gguf"),
    ("mxfp4", "gguf-mxfp4"),
    ("mxfp4", "mlx-mxfp4"),
    ("mlx-mxfp4", "mxfp4"),
    ("mxfp8", "mlx-mxfp8"),
    ("awq-int4-g32", "int4-g32-asym"),
    ("modelopt-nvfp4", "nvfp4"),
    ("modelopt-mxfp4", "mxfp4"),
    ("fbgemm-fp8", "fp8"),
];

/// What is encoded anew even from itself, so that somebody is asked: scales are quantized, too, or one is found for a matrix.
const ANEW: &[&str] = &["nf4-dq", "onnx-int8", "bnb-int8"];

fn layouts() -> impl Iterator<Item = &'static Layout> {
    TABLES.iter().flat_map(|(_, columns)| *columns)
}

fn golden(path: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../golden")).join(path)
}

impl Layout {
    /// Whether weights are quantized.
    fn is_quantized(&self) -> bool {
        matches!(self.1, What::Scheme | What::Recipe | What::Blocks(_))
    }
    fn variant(&self, consent: bool) -> Variant {
        let Self(name, what, file) = *self;
        let target = match what {
            What::Scheme | What::Recipe => Target::Recipe(name.to_owned()),
            What::Blocks(_) => Target::Recipe("Q8_0".to_owned()),
            What::Plain(dtype) => Target::Dtype(dtype),
            What::Lossless => Target::Lossless,
        };
        let mut v = Variant::new(name, format!("{name}/{file}"), target);
        if let What::Blocks(block) = what {
            v.tensor_types.push(format!("blk={block}"));
        }
        v.side_files = file != GGUF;
        v.allow_requantize = consent;
        v
    }
    /// What to open.
    fn made(&self, dir: &Path) -> PathBuf {
        let folder = dir.join(self.0);
        if self.2 == GGUF { folder.join(GGUF) } else { folder }
    }
}

fn plan(source: &Path, dir: &Path, variants: Vec<Variant>) -> Result<job::Planned> {
    job::plan(Job {
        create_folder: true,
        variants,
        threads: Some(1),
        device: device::Choice::Cpu,
        measure: false,
        // Only ONNX holds graphs, and GGUF files lack a pooler.
        allow_loss: true,
        ..Job::new(source, dir, "all")
    })
}

/// How far one model is from another, in dB; infinite where no value differs.
struct Distance {
    all: f64,
    /// Of the tensors, by what GGUF files call them.
    each: BTreeMap<String, f64>,
}

fn distance(a: &Path, b: &Path) -> std::result::Result<Distance, String> {
    let options = compare::Options { max_rmse: None, memory: 256 << 20 };
    let c: Comparison = compare::compare(a, b, &options).map_err(|e| e.to_string())?;
    if c.total.values == 0 || c.total.non_finite > 0 {
        return Err(format!("{} values, {} not finite", c.total.values, c.total.non_finite));
    }
    let names = c.mismatched.iter().map(|m| &m.name).chain(&c.only_in_a).chain(&c.only_in_b);
    let names: Vec<&String> = names.collect();
    if !names.is_empty() {
        return Err(format!("not in both: {names:?}"));
    }
    let db = |e: &ErrorReport| if e.max_abs == 0.0 { f64::INFINITY } else { e.sqnr_db };
    let name = |n: &str| tensormill_arch::checkpoint_role(n).map_or(n.to_owned(), |r| r.to_string());
    let each = c.tensors.iter().map(|t| (name(&t.name), db(&t.error))).collect();
    Ok(Distance { all: db(&c.total), each })
}

/// Noises of these distances, added.
fn together(a: f64, b: f64) -> f64 {
    -10.0 * (10f64.powf(-a / 10.0) + 10f64.powf(-b / 10.0)).log10()
}

/// Whether a result has all values that its source does not have from the plain model: what the source has plain may have been
/// quantized. Of a plain source, all values.
fn keeps(source: &Distance, result: &Distance) -> bool {
    if source.all.is_infinite() {
        return result.all.is_infinite();
    }
    let codes = source.each.iter().filter(|(_, db)| db.is_finite());
    codes.map(|(name, _)| result.each.get(name).copied().unwrap_or_default()).all(|db| db > SAME_DB)
}

/// A cell of the table, or what is wrong.
type Cell = std::result::Result<String, String>;

/// A model, and what its plain form becomes.
struct Family {
    plain: PathBuf,
    /// Distances of the layouts from it; those that do not fit it are missing.
    base: BTreeMap<&'static str, f64>,
    /// What does not open again.
    wrong: String,
}

fn said(e: &Error) -> String {
    format!("{e}; {}", e.hint_text().unwrap_or_default())
}

impl Family {
    fn new(plain: PathBuf, dir: &Path) -> Self {
        let fits = |l: &&Layout| match plan(&plain, dir, vec![l.variant(false)]) {
            Ok(_) => true,
            Err(e)
                if e.message().contains("no weight of this model can be quantized so")
                    || e.message().contains("do not fill NVFP4 blocks") =>
            {
                false
            }
            Err(e) => panic!("{}: {}", l.0, said(&e)),
        };
        let fitting: Vec<&Layout> = layouts().filter(fits).collect();
        let variants = fitting.iter().map(|l| l.variant(false)).collect();
        let planned = plan(&plain, dir, variants).unwrap_or_else(|e| panic!("{}", said(&e)));
        planned.run(&(), &AtomicBool::new(false)).unwrap_or_else(|e| panic!("{}", said(&e)));
        let mut base = BTreeMap::new();
        let mut wrong = String::new();
        for l in fitting {
            match distance(&plain, &l.made(dir)) {
                Ok(near) => _ = base.insert(l.0, near.all),
                Err(e) => _ = writeln!(wrong, "plain to {}: {e}", l.0),
            }
        }
        Self { plain, base, wrong }
    }

    /// A source becomes everything: a cell for every layout.
    fn row(&self, name: &str, source: &Path, is_quantized: bool, dir: &Path) -> BTreeMap<&'static str, Cell> {
        let mut cells: BTreeMap<&'static str, Cell> = BTreeMap::new();
        let noise = match distance(&self.plain, source) {
            Ok(noise) => noise,
            Err(e) => return BTreeMap::from([("source", Err(e))]),
        };
        let from_gguf = source.ends_with(GGUF);
        let mut wanted = Vec::new();
        let mut unasked = BTreeSet::new();
        for l in layouts() {
            if !self.base.contains_key(l.0) {
                cells.insert(l.0, Ok(String::new()));
                continue;
            }
            match plan(source, dir, vec![l.variant(false)]) {
                Ok(_) => _ = unasked.insert(l.0),
                Err(e) if said(&e).contains("--allow-requantize") && is_quantized && l.is_quantized() => {}
                Err(e) => {
                    cells.insert(l.0, Err(said(&e)));
                    continue;
                }
            }
            match plan(source, dir, vec![l.variant(true)]) {
                Ok(_) => wanted.push(l),
                Err(e) => _ = cells.insert(l.0, Err(said(&e))),
            }
        }
        let variants = wanted.iter().map(|l| l.variant(true)).collect();
        let run = plan(source, dir, variants).and_then(|p| p.run(&(), &AtomicBool::new(false)));
        if let Err(e) = run {
            cells.insert("run", Err(said(&e)));
            return cells;
        }
        for l in wanted {
            let result = l.made(dir);
            let cell = distance(source, &result).and_then(|from_source| {
                let from_plain = distance(&self.plain, &result)?;
                let bound = together(noise.all, self.base[l.0]);
                let same = keeps(&noise, &from_source);
                // Recipes take what a checkpoint decodes to without asking, as llama.cpp's converter does.
                let asks = matches!(l.1, What::Scheme) || l.is_quantized() && from_gguf;
                if is_quantized && asks && unasked.contains(l.0) && !same {
                    return Err(format!("asked nobody, and is from the source {:.1?}", from_source.each));
                }
                let from_plain = from_plain.all;
                let held = SAME.contains(&(name, l.0)) || (name == l.0 && !ANEW.contains(&name));
                if held && !(same && unasked.contains(l.0)) {
                    return Err(format!(
                        "holds the same codes, and is from the source {:.1?}",
                        from_source.each
                    ));
                }
                if from_plain < bound - MARGIN_DB {
                    let (a, b) = (noise.all, self.base[l.0]);
                    return Err(format!("{from_plain:.1} dB, of {a:.1} and {b:.1}"));
                }
                Ok(if same { "=".to_owned() } else { format!("{from_plain:.0}") })
            });
            cells.insert(l.0, cell);
        }
        cells
    }
}

/// A golden folder, with the tokenizer that all of them share.
fn with_tokenizer(name: &str, dir: &Path) -> PathBuf {
    let to = dir.join(name);
    fs::create_dir_all(&to).unwrap();
    for (folder, file) in [
        (name, "model.safetensors"),
        (name, "config.json"),
        (name, "hf_quant_config.json"),
        ("source", "tokenizer.model"),
        ("source", "tokenizer_config.json"),
    ] {
        let from = golden("quantized").join(folder).join(file);
        if from.exists() {
            fs::copy(from, to.join(file)).unwrap();
        }
    }
    to
}

#[test]
fn the_columns_are_all_layouts() {
    let columns: BTreeSet<_> = layouts().filter_map(|l| scheme(l.0)).map(kind).collect();
    let all: BTreeSet<_> = schemes().iter().map(kind).collect();
    let missing: Vec<_> = all.difference(&columns).collect();
    assert!(missing.is_empty(), "no column for {missing:?}");
}

/// Layouts by what they hold, in however many bits.
fn kind(s: &tensormill_schemes::Scheme) -> (&'static str, String) {
    let code = format!("{:?}", s.grid.code);
    (s.layout.id(), code.split('(').next().unwrap_or_default().to_owned())
}

#[test]
fn any_source_becomes_any_target() {
    let dir = tempfile::tempdir().unwrap();
    let [made, made_small, goldens, cells] =
        ["made", "made-small", "goldens", "cells"].map(|n| dir.path().join(n));
    let large = Family::new(golden("models/tiny-llama"), &made);
    let small = Family::new(golden("quantized/source"), &made_small);
    // 8-bit floats without scales are a type like others: nobody is asked before they are quantized.
    let of_layouts = layouts()
        .filter(|l| large.base.contains_key(l.0))
        .map(|l| (l.0, &large, l.made(&made), l.is_quantized() && !l.0.starts_with("fp8-cast")));
    let of_goldens = READ.iter().map(|n| (*n, &small, with_tokenizer(n, &goldens), true));
    let sources: Vec<_> = of_layouts.chain(of_goldens).collect();
    let (queue, rows) = (Mutex::new(sources.iter().enumerate()), Mutex::new(BTreeMap::new()));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let Some((i, (name, family, source, quantized))) = queue.lock().unwrap().next() else {
                        return;
                    };
                    let dir = cells.join(name);
                    let row = family.row(name, source, *quantized, &dir);
                    rows.lock().unwrap().insert(i, row);
                    _ = fs::remove_dir_all(dir);
                }
            });
        }
    });
    let rows = rows.into_inner().unwrap();
    let mut wrong = format!("{}{}", large.wrong, small.wrong);
    for (i, row) in &rows {
        for (target, cell) in row {
            if let Err(e) = cell {
                _ = writeln!(wrong, "{} to {target}: {e}", sources[*i].0);
            }
        }
    }
    assert!(wrong.is_empty(), "{} cells:\n{wrong}", wrong.lines().count());
    let cell = |row: &BTreeMap<&str, Cell>, l: &Layout| row[l.0].clone().unwrap_or_default();
    let mut text = String::new();
    for (title, columns) in TABLES {
        let names: Vec<&str> = columns.iter().map(|l| l.0).collect();
        _ = write!(text, "\n#### To: {title}\n\n| from \\ to | {} |\n", names.join(" | "));
        _ = writeln!(text, "|{}", "---|".repeat(columns.len() + 1));
        for (i, row) in &rows {
            let cells: Vec<String> = columns.iter().map(|l| cell(row, l)).collect();
            _ = writeln!(text, "| {} | {} |", sources[*i].0, cells.join(" | "));
        }
    }
    text.push('\n');
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/schemes.md");
    let page = fs::read_to_string(&path).unwrap();
    let (begin, end) = ("<!-- made by crates/tensormill/tests/any_to_any.rs -->\n", "<!-- end -->");
    let (before, rest) = page.split_once(begin).expect("the page has a place for the table");
    let (shown, after) = rest.split_once(end).expect("the place for the table ends");
    if std::env::var_os("TENSORMILL_UPDATE").is_some() {
        fs::write(&path, format!("{before}{begin}{text}{end}{after}")).unwrap();
    } else {
        assert_eq!(shown, text, "run this test with TENSORMILL_UPDATE=1 to write the table");
    }
}
