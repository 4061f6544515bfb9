//! Every pair of formats from the command line: what goes through another format comes back as it was.

mod common;

use common::{GOLDEN, demo, expect, golden, json, run, text};
use std::{
    fmt::Write,
    fs,
    path::{Path, PathBuf},
};

/// The demo model in three formats: files, and folders where there is a configuration beside the weights.
struct Sources {
    _dir: tempfile::TempDir,
    root: PathBuf,
}

impl Sources {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().to_owned();
        expect(0, ["convert", &text(&demo()), "-o", &text(&root.join("from.gguf"))]);
        for to in ["safetensors", "pickle"] {
            let folder = root.join(to).join("tiny-llama");
            fs::create_dir_all(folder.parent().unwrap()).unwrap();
            expect(0, ["convert", &text(&demo()), "-o", &text(&folder), "--to", to]);
        }
        Self { _dir: dir, root }
    }

    fn of(&self, format: &str) -> PathBuf {
        match format {
            "gguf" => self.root.join("from.gguf"),
            folder => self.root.join(folder).join("tiny-llama"),
        }
    }
}

/// Formats, what their files end in, and their names in the README.
const FORMATS: [(&str, &str, &str); 4] = [
    ("safetensors", "safetensors", "safetensors"),
    ("pickle", "pt", "PyTorch"),
    ("gguf", "gguf", "GGUF"),
    ("onnx", "onnx", "ONNX"),
];

/// Golden models that no graph is built for.
const WITHOUT_GRAPH: &[&str] = &["mixtral-4x", "qwen3-moe", "gpt-oss", "gemma2", "gemma3"];

/// Converts a golden model, naming the pre-tokenizer that a small vocabulary has to be told.
fn convert(from: &Path, out: &Path, pre: Option<&str>, more: &[&str]) {
    let mut args = vec!["convert".to_owned(), text(from), "-o".into(), text(out)];
    args.extend(pre.iter().flat_map(|p| ["--pre".to_owned(), (*p).to_owned()]));
    args.extend(more.iter().map(|a| (*a).to_owned()));
    expect(0, &args);
}

/// What a conversion kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kept {
    /// There is no graph for such models, which was an error that says so.
    Refused,
    /// Not every value.
    Less,
    /// Every value of every tensor that is there.
    Values,
    /// The file is the one that the original gives.
    File,
}

/// What the form of a format has no place for: GGUF's of an encoder has no pooler, and says so; graphs that end in a
/// sentence's embedding do not use it.
fn may_be_missing(name: &str) -> bool {
    name.starts_with("pooler.")
}

/// Converts a model through every cell.
fn cells(model: &str, pre: Option<&str>) -> Vec<Kept> {
    let dir = tempfile::tempdir().unwrap();
    let original = golden(model);
    // A folder's name becomes part of a GGUF file's metadata.
    let source = |format: &str| match format {
        "gguf" => dir.path().join("from.gguf"),
        folder => dir.path().join(folder).join(model),
    };
    let has_graph = !WITHOUT_GRAPH.contains(&model);
    let refused = |format: &str| format == "onnx" && !has_graph;
    for (format, _, _) in FORMATS {
        let out = source(format);
        fs::create_dir_all(out.parent().unwrap()).unwrap();
        if refused(format) {
            let (_, stderr) = expect(4, ["convert", &text(&original), "-o", &text(&out), "--to", format]);
            assert!(stderr.contains("hint: "), "{stderr}");
        } else {
            convert(&original, &out, pre, &["--to", format]);
        }
    }
    let mut cells = Vec::new();
    for (from, _, _) in FORMATS {
        for (to, extension, _) in FORMATS {
            if refused(from) || refused(to) {
                cells.push(Kept::Refused);
                continue;
            }
            // An archive's members begin with the file's name: it must not tell the two apart.
            let [direct, out] = ["direct", &format!("{from}-{to}")]
                .map(|n| dir.path().join(n).join(format!("out.{extension}")));
            fs::create_dir_all(out.parent().unwrap()).unwrap();
            if !direct.exists() {
                fs::create_dir_all(direct.parent().unwrap()).unwrap();
                convert(&original, &direct, pre, &[]);
            }
            // Only ONNX holds graphs, and a run that loses one asks first.
            let consent: &[&str] = if from == "onnx" && to != "onnx" { &["--allow-loss"] } else { &[] };
            convert(&source(from), &out, pre, consent);
            let compared = run(["compare", &text(&direct), &text(&out), "--json"]);
            let compared = json(&String::from_utf8_lossy(&compared.stdout));
            let names =
                |key: &str| compared[key].as_array().unwrap().iter().map(|n| n.as_str().unwrap_or("?"));
            let same = compared["total"]["different"] == 0
                && compared["total"]["values"].as_u64() > Some(0)
                && names("mismatched").next().is_none()
                && names("only_in_b").next().is_none()
                && names("only_in_a").all(may_be_missing);
            if !same {
                eprintln!("{model} from {from} to {to}: {compared}");
            }
            cells.push(match fs::read(&direct).unwrap() == fs::read(&out).unwrap() {
                true => Kept::File,
                false if same => Kept::Values,
                false => Kept::Less,
            });
        }
    }
    cells
}

/// A cell in words: each of the models that have one.
fn in_words(each: &[Kept]) -> String {
    let there = each.iter().filter(|k| **k != Kept::Refused).count();
    let files = each.iter().filter(|k| **k == Kept::File).count();
    let what = match files {
        n if n == there => "the same file".to_owned(),
        0 => "every value".to_owned(),
        n => format!("every value; {n} of {there} the same file"),
    };
    if there == each.len() { what } else { format!("{there} of {} models: {what}", each.len()) }
}

#[test]
fn the_readme_tells_what_every_cell_keeps() {
    let all: Vec<Vec<Kept>> = GOLDEN.iter().map(|(model, pre)| cells(model, *pre)).collect();
    let mut table = String::from("| from \\ to |");
    for (_, _, name) in FORMATS {
        let _ = write!(table, " {name} |");
    }
    let _ = write!(table, "\n|{}\n", "---|".repeat(FORMATS.len() + 1));
    for (row, (_, _, from)) in FORMATS.iter().enumerate() {
        let _ = write!(table, "| {from} |");
        for column in 0..FORMATS.len() {
            let each: Vec<Kept> = all.iter().map(|model| model[row * FORMATS.len() + column]).collect();
            let models = GOLDEN.iter().map(|(model, _)| *model);
            let broken: Vec<&str> =
                models.zip(&each).filter(|(_, k)| **k == Kept::Less).map(|(m, _)| m).collect();
            assert!(broken.is_empty(), "{from} to {}: {broken:?}", FORMATS[column].2);
            let _ = write!(table, " {} |", in_words(&each));
        }
        table += "\n";
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../README.md");
    let readme = fs::read_to_string(&path).unwrap();
    let (begin, end) = ("<!-- made by crates/cli/tests/matrix.rs -->\n", "<!-- end -->");
    let (before, rest) = readme.split_once(begin).expect("the README has a place for the table");
    let (shown, after) = rest.split_once(end).expect("the place for the table ends");
    if std::env::var_os("TENSORMILL_UPDATE").is_some() {
        fs::write(&path, format!("{before}{begin}{table}{end}{after}")).unwrap();
    } else {
        assert_eq!(shown, table, "run this test with TENSORMILL_UPDATE=1 to write the table");
    }
}

#[test]
fn there_and_back_is_the_same_file() {
    let sources = Sources::new();
    let dir = &sources.root;
    // The same tensors, by the same writer, in the same order: the same bytes, whichever format lay between.
    let direct = dir.join("direct.safetensors");
    expect(0, ["convert", &text(&sources.of("safetensors")), "-o", &text(&direct)]);
    for (between, extension) in [("pickle", "pt"), ("safetensors", "safetensors")] {
        let middle = dir.join(format!("between.{extension}"));
        expect(0, ["convert", &text(&direct), "-o", &text(&middle), "--force"]);
        let back = dir.join("back.safetensors");
        expect(0, ["convert", &text(&middle), "-o", &text(&back), "--force"]);
        assert!(fs::read(&direct).unwrap() == fs::read(&back).unwrap(), "through {between}");
    }
    // A checkpoint of torch becomes the same GGUF file as one of safetensors, quantized too.
    for quant in [None, Some("Q4_K_M")] {
        let made: Vec<Vec<u8>> = ["safetensors", "pickle"]
            .map(|from| {
                let out = dir.join(format!("{from}.gguf"));
                let mut args = vec![
                    "convert".to_owned(),
                    text(&sources.of(from)),
                    "-o".into(),
                    text(&out),
                    "--force".into(),
                ];
                args.extend(quant.iter().flat_map(|q| ["--quant".to_owned(), (*q).to_owned()]));
                expect(0, &args);
                fs::read(&out).unwrap()
            })
            .into();
        assert!(made[0] == made[1], "{quant:?}");
    }
}

#[test]
fn torch_checkpoints_shard_resume_and_release() {
    let sources = Sources::new();
    let dir = &sources.root;
    let sharded = dir.join("sharded");
    let args = ["--to", "pickle", "--max-shard-size", "200KB"];
    expect(0, [&["convert", &text(&demo()), "-o", &text(&sharded)], &args[..]].concat());
    assert!(sharded.join("pytorch_model.bin.index.json").is_file());
    expect(0, ["compare", &text(&demo()), &text(&sharded), "--max-rmse", "0"]);
    // Divided among processes, an archive has the checksums that one process gives it.
    let release = dir.join("release.toml");
    let toml = format!(
        "[source]\npath = {:?}\n[release]\nname = \"m\"\nfolder = \"out\"\n[[variant]]\nname = \"pt\"\ndtype = \"bf16\"\nfile = \"m.pt\"\n",
        text(&demo())
    );
    fs::write(&release, toml).unwrap();
    expect(0, ["release", &text(&release)]);
    let whole = fs::read(dir.join("out/m.pt")).unwrap();
    let sums = fs::read_to_string(dir.join("out/SHA256SUMS")).unwrap();
    fs::remove_dir_all(dir.join("out")).unwrap();
    for part in ["1/2", "2/2"] {
        expect(0, ["release", &text(&release), "--shard", part]);
    }
    expect(0, ["finish", &text(&release), "--verify"]);
    assert!(fs::read(dir.join("out/m.pt")).unwrap() == whole);
    assert_eq!(fs::read_to_string(dir.join("out/SHA256SUMS")).unwrap(), sums);
}

#[test]
fn releases_hold_folders_of_checkpoints() {
    let sources = Sources::new();
    let dir = &sources.root;
    let release = dir.join("release.toml");
    let toml = format!(
        "[source]\npath = {:?}\n[release]\nname = \"m\"\nfolder = \"out\"\nformat = \"safetensors\"\n\
         [[variant]]\ndtype = \"bf16\"\nmax_shard_tensors = 4\n[[variant]]\ndtype = \"f16\"\nfile = \"one.safetensors\"\n\
         [[variant]]\nformat = \"gguf\"\ndtype = \"bf16\"\nfile = \"m.gguf\"\n",
        text(&demo())
    );
    fs::write(&release, &toml).unwrap();
    expect(0, ["release", &text(&release), "--verify"]);
    let out = dir.join("out");
    let folder = out.join("m-BF16-safetensors");
    for file in
        ["config.json", "tokenizer.model", "model.safetensors.index.json", "model-00003-of-00003.safetensors"]
    {
        assert!(folder.join(file).is_file(), "{file}");
    }
    assert!(out.join("one.safetensors").is_file() && out.join("m.gguf").is_file());
    expect(0, ["compare", &text(&demo()), &text(&folder), "--max-rmse", "0"]);
    let sums = fs::read_to_string(out.join("SHA256SUMS")).unwrap();
    assert!(sums.contains("m-BF16-safetensors/config.json"), "{sums}");
    // What a name and a format say must agree.
    fs::write(&release, toml.replace("one.safetensors", "one.pt")).unwrap();
    let (_, stderr) = expect(2, ["release", &text(&release), "--force"]);
    assert!(stderr.contains("does not end like a safetensors file"), "{stderr}");
}

#[test]
fn metadata_are_edited_and_files_divided_by_number() {
    let sources = Sources::new();
    let out = sources.root.join("set.gguf");
    let edits = [
        "--remove-metadata",
        "general.name",
        "--metadata",
        "general.alignment=128",
        "--max-shard-tensors",
        "4",
    ];
    expect(0, [&["convert", &text(&sources.of("gguf")), "-o", &text(&out)], &edits[..]].concat());
    let first = sources.root.join("set-00001-of-00003.gguf");
    let (stdout, _) = expect(0, ["inspect", &text(&first)]);
    assert!(stdout.contains("general.alignment") && !stdout.contains("general.name "), "{stdout}");
    expect(0, ["compare", &text(&sources.of("gguf")), &text(&first), "--max-rmse", "0"]);
    // Together again, as it was.
    let again = sources.root.join("again.gguf");
    expect(0, ["convert", &text(&first), "-o", &text(&again), "--metadata", "general.alignment=32"]);
    expect(0, ["compare", &text(&sources.of("gguf")), &text(&again), "--max-rmse", "0"]);
    let (_, stderr) = expect(
        2,
        ["convert", &text(&demo()), "-o", &text(&again), "--force", "--remove-metadata", "no.such.key"],
    );
    assert!(stderr.contains("no.such.key"), "{stderr}");
}

#[test]
fn names_stay_where_no_way_between_them_is_known() {
    let dir = tempfile::tempdir().unwrap();
    let path = |n: &str| text(&dir.path().join(n));
    // Weights of nothing in particular: no configuration, integers too.
    let header = r#"{"__metadata__":{"format":"pt","made by":"hand"},"x.y":{"dtype":"F16","shape":[2,3],"data_offsets":[0,12]},
        "n":{"dtype":"I64","shape":[1],"data_offsets":[12,20]}}"#;
    fs::write(path("any.safetensors"), common::safetensors(header, 20)).unwrap();
    let (_, stderr) = expect(3, ["convert", &path("any.safetensors"), "-o", &path("any.gguf")]);
    assert!(stderr.contains("--keep-names"), "{stderr}");
    expect(0, ["convert", &path("any.safetensors"), "-o", &path("any.gguf"), "--keep-names"]);
    expect(0, ["compare", &path("any.safetensors"), &path("any.gguf"), "--max-rmse", "0"]);
    let (stdout, _) = expect(0, ["inspect", &path("any.gguf")]);
    assert!(stdout.contains("unknown") && stdout.contains("made by"), "{stdout}");
    // The way back needs an architecture, or the same wish and consent.
    let (_, stderr) = expect(4, ["convert", &path("any.gguf"), "-o", &path("back.safetensors")]);
    assert!(stderr.contains("--keep-names"), "{stderr}");
    let back = ["convert", &path("any.gguf"), "-o", &path("back.safetensors"), "--keep-names"];
    expect(2, back);
    expect(0, [&back[..], &["--allow-loss"]].concat());
    expect(0, ["compare", &path("any.safetensors"), &path("back.safetensors"), "--max-rmse", "0"]);
}
