//! The corpus of hostile files: what each is called, how the program is given it, with which code it must exit, and what
//! it tries. `examples/hostile.rs` writes `golden/hostile` from this; tests of the command line run each file.
//!
//! Pickles and archives are those of the pickle reader's own tests; the rest is put together here. Everything is made by
//! hand, byte by byte: no library writes such files.

mod configs;
mod gguf;
mod graphs;
mod pickles;
mod safetensors;

use serde_json::{Value as Json, json};

/// How the program is given a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum How {
    /// `inspect FILE`
    Inspect,
    /// `convert FILE -o OUT.safetensors`: for what shows only when weights are read.
    Convert,
    /// The file takes the place of this one in a copy of this model of `golden/models`, and that is converted to GGUF.
    InModel(&'static str, &'static str),
    /// `convert golden/models/tiny-llama --quant Q4_0 --imatrix FILE`
    Imatrix,
    /// `release FILE --dry-run`, in a copy of `golden/models/tiny-llama`.
    Release,
    /// `scan FILE`, for formats that nothing else reads.
    Scan,
}

impl How {
    fn text(self) -> String {
        match self {
            Self::Inspect => "inspect".into(),
            Self::Convert => "convert".into(),
            Self::InModel(model, name) => format!("in {model} as {name}"),
            Self::Imatrix => "imatrix".into(),
            Self::Release => "release".into(),
            Self::Scan => "scan".into(),
        }
    }
}

/// One file.
#[derive(Clone, Debug)]
pub struct Case {
    /// Path in the corpus.
    pub path: String,
    /// What is in it.
    pub bytes: Vec<u8>,
    /// How the program is given it.
    pub how: How,
    /// Its exit code.
    pub exit: u8,
    /// What the file tries, in one line.
    pub tries: String,
    /// Why the exit code is not 3, in one line; empty where it is.
    pub why: &'static str,
}

impl Case {
    /// A file that must be refused with exit code 3.
    fn new(folder: &str, suffix: &str, how: How, tries: &str, bytes: Vec<u8>) -> Self {
        let path = format!("{folder}/{}{suffix}", slug(tries));
        Self { path, bytes, how, exit: 3, tries: tries.to_owned(), why: "" }
    }

    /// The same with another code, and why.
    fn exits(self, exit: u8, why: &'static str) -> Self {
        Self { exit, why, ..self }
    }
}

/// `2^63 bytes (a lie)` becomes `2-63-bytes-a-lie`.
fn slug(text: &str) -> String {
    let dashed = text.to_lowercase().replace(|c: char| !c.is_ascii_alphanumeric(), "-");
    dashed.split('-').filter(|p| !p.is_empty()).collect::<Vec<_>>().join("-")
}

/// All of them.
pub fn cases() -> Vec<Case> {
    let all = [pickles::cases(), safetensors::cases(), gguf::cases(), configs::cases(), graphs::cases()];
    all.into_iter().flatten().collect()
}

/// The table for tests: `golden/hostile/cases.json`.
pub fn table(cases: &[Case]) -> Json {
    let row = |c: &Case| json!({"path": c.path, "how": c.how.text(), "exit": c.exit, "tries": c.tries});
    Json::Array(cases.iter().map(row).collect())
}

/// The same for people: `golden/hostile/README.md`.
pub fn page(cases: &[Case]) -> String {
    let mut out = HEAD.to_owned();
    let mut folder = String::new();
    for c in cases {
        let (of, name) = c.path.split_once('/').unwrap_or(("", &c.path));
        if of != folder {
            of.clone_into(&mut folder);
            out.extend(["\n## ", of, "\n\n| file | how | exit | what it tries |\n|---|---|---|---|\n"]);
        }
        let why = if c.why.is_empty() { String::new() } else { format!(" **{}:** {}", c.exit, c.why) };
        let row = format!("| `{name}` | {} | {} | {}.{why} |\n", c.how.text(), c.exit, c.tries);
        out.push_str(&row);
    }
    out
}

const HEAD: &str = "\
# Hostile files

Files that lie. Whatever one of them says of itself, the program must end with the exit code in the table within a second
and within 64 MiB of memory, without a panic, without running anything, and without leaving a file behind.
`crates/cli/tests/hostile_corpus.rs` runs each; `cargo xtask hostile` measures time and memory. Made by
`cargo run -p tensormill-tests --example hostile`; `tests/tests/hostile_corpus.rs` fails where this folder differs from
what that makes.

The code is 3 (bad or hostile input) unless the table says why not: some of what looks hostile harms only a loader that
obeys it, and some is well-formed but not supported (4).

`how`: `inspect` and `scan` are given the file; `convert` converts it to safetensors, for what shows only when weights are
read; `in MODEL as NAME` puts it in that place of a copy of `golden/models/MODEL`, which is converted to GGUF; `imatrix`
and `release` give it to `convert --imatrix` and to `release --dry-run`. Conversions run with `--memory 16MiB`.

`onnx/` has a table of its own, `onnx/cases.json`: `golden/generators/onnx_hostile.py` makes both, and the same programs run
them.
";
