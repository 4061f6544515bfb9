//! Which files of a repository a job needs, by their names alone.
//!
//! Repositories hold the same weights several times over: safetensors and pickle, TensorFlow, Flax, ONNX, the authors' own format.
//! One of them is enough. What is preferred is the first that is there: safetensors (whole by construction, nothing to execute), PyTorch's
//! archives, GGUF, ONNX. Small files (configuration, tokenizer, card, licence) are always taken.

use crate::{
    glob::matches,
    snapshot::{Entry, Snapshot},
};
use std::collections::BTreeSet;
use tensormill_model::{Error, Result};

/// What files are for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Need {
    /// Configuration, tokenizer, card: what says everything but the weights.
    Config,
    /// What a conversion reads: the small files and one form of the weights.
    #[default]
    Weights,
    /// The small files, and every GGUF file that matches.
    Gguf,
    /// The small files and the ONNX graphs.
    Onnx,
    /// All files.
    Everything,
}

/// What a file is, by its name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Small,
    Safetensors,
    Pickle,
    Gguf,
    Onnx,
    /// What no job reads: other frameworks, optimizer states, pictures.
    Other,
}

/// Forms of weights, in the order of preference.
const FORMS: [Kind; 4] = [Kind::Safetensors, Kind::Pickle, Kind::Gguf, Kind::Onnx];

/// Folders that hold the same weights once more, or something else.
const ASIDE: &[&str] = &[
    "original",
    "onnx",
    "openvino",
    "coreml",
    "tflite",
    "gguf",
    "metal",
    "flax",
    "tf",
    "runs",
    "logs",
    "eval",
    "examples",
    "assets",
    "images",
    "figures",
    "test_outputs",
];

/// Extensions of small files.
const SMALL: &[&str] =
    &["json", "txt", "model", "jinja", "md", "tiktoken", "yaml", "yml", "vocab", "bpe", "merges", "lock"];

/// Files with a weights' extension that hold none.
const STATES: &[&str] =
    &["training_args", "optimizer", "scheduler", "scaler", "rng_state", "trainer_state", "random_states"];

fn kind(path: &str) -> Kind {
    let name = path.rsplit('/').next().unwrap_or(path);
    let lower = name.to_ascii_lowercase();
    let extension = lower.rsplit_once('.').map_or("", |(_, e)| e);
    let state = STATES.iter().any(|s| lower.starts_with(s));
    match extension {
        _ if lower.ends_with(".safetensors.index.json") => Kind::Safetensors,
        _ if lower.ends_with(".bin.index.json") => Kind::Pickle,
        _ if lower.ends_with(".index.json") || lower.starts_with("openvino") || lower == ".gitattributes" => {
            Kind::Other
        }
        _ if lower.contains(".onnx") => Kind::Onnx,
        "safetensors" => Kind::Safetensors,
        "bin" | "pt" | "pth" | "ckpt" if state => Kind::Other,
        "bin" | "pt" | "pth" | "ckpt" | "distcp" => Kind::Pickle,
        "gguf" => Kind::Gguf,
        e if SMALL.contains(&e) => Kind::Small,
        _ if ["license", "licence", "notice", "use_policy", ".metadata"]
            .iter()
            .any(|s| lower.starts_with(s)) =>
        {
            Kind::Small
        }
        _ => Kind::Other,
    }
}

/// The files that are needed, sorted. `folder` limits them to a folder (or one file) of the repository; `include` names files by pattern
/// instead of by need; `exclude` takes files away in any case.
///
/// # Errors
/// `Usage` where nothing is left, or where one of several GGUF files has to be chosen; the message lists them.
pub fn wanted<'a>(
    snapshot: &'a Snapshot,
    folder: Option<&str>,
    need: Need,
    include: &[String],
    exclude: &[String],
) -> Result<Vec<&'a str>> {
    let none = |what: String| Error::usage(what).file(snapshot.file_name(folder.unwrap_or_default()));
    if let Some(file) = folder.and_then(|f| snapshot.file(f)) {
        return Ok(vec![&file.path]);
    }
    let prefix = folder.map(|f| format!("{}/", f.trim_end_matches('/'))).unwrap_or_default();
    let all: Vec<(&str, &Entry)> =
        snapshot.files.iter().filter_map(|e| Some((e.path.strip_prefix(&prefix)?, e))).collect();
    if all.is_empty() {
        return Err(none("there is no such file or folder at this commit".to_owned()));
    }
    let any = |patterns: &[String], path: &str| patterns.iter().any(|p| matches(p, path));
    let kept: Vec<(&str, &Entry)> = all.into_iter().filter(|(path, _)| !any(exclude, path)).collect();
    let chosen: Vec<&Entry> = if !include.is_empty() {
        kept.iter().filter(|(path, _)| any(include, path)).map(|(_, e)| *e).collect()
    } else if need == Need::Everything {
        kept.iter().map(|(_, e)| *e).collect()
    } else {
        let weights = match need {
            Need::Config => Vec::new(),
            Need::Gguf => form(&kept, Kind::Gguf),
            Need::Onnx => form(&kept, Kind::Onnx),
            Need::Weights | Need::Everything => {
                FORMS.iter().map(|&k| form(&kept, k)).find(|found| !found.is_empty()).unwrap_or_default()
            }
        };
        one_gguf(&weights).map_err(|e| e.file(&snapshot.repo))?;
        let small =
            kept.iter().filter(|(path, _)| kind(path) == Kind::Small && !aside(path)).map(|(_, e)| *e);
        small.chain(weights).collect()
    };
    if chosen.is_empty() {
        return Err(none("no file is left of what was asked for".to_owned()).hint(
            "files are listed by `tensormill pull --dry-run --all`; patterns are matched against whole paths",
        ));
    }
    let mut paths: Vec<&str> = chosen.iter().map(|e| e.path.as_str()).collect();
    paths.sort_unstable();
    paths.dedup();
    Ok(paths)
}

/// Whether a path lies in a folder that holds something else.
fn aside(path: &str) -> bool {
    path.split_once('/').is_some_and(|(top, _)| {
        let top = top.to_ascii_lowercase();
        ASIDE.contains(&top.as_str()) || top.starts_with("checkpoint-") || top.starts_with('.')
    })
}

/// The weights of one form: those outside the folders that hold them again, or those inside where nowhere else are any.
fn form<'a>(files: &[(&str, &'a Entry)], of: Kind) -> Vec<&'a Entry> {
    let these: Vec<&(&str, &Entry)> = files.iter().filter(|(path, _)| kind(path) == of).collect();
    let outside: Vec<&(&str, &Entry)> = these.iter().filter(|(path, _)| !aside(path)).copied().collect();
    let these = if outside.is_empty() { these } else { outside };
    let names: BTreeSet<&str> = these.iter().map(|(path, _)| *path).collect();
    these.iter().filter(|(path, _)| !again(path, &names)).map(|(_, e)| *e).collect()
}

/// Whether a file is the same weights in another precision or by the authors' own names: `model.fp16.safetensors` beside
/// `model.safetensors`, `consolidated.*` beside an index.
fn again(path: &str, names: &BTreeSet<&str>) -> bool {
    let (folder, name) = path.rsplit_once('/').map_or(("", path), |(f, n)| (f, n));
    let full = |n: String| if folder.is_empty() { n } else { format!("{folder}/{n}") };
    let variant = [".fp16", ".bf16", ".fp32", ".non_ema"].iter().any(|v| {
        name.contains(&format!("{v}."))
            && names.contains(full(name.replacen(&format!("{v}."), ".", 1)).as_str())
    });
    let model = [
        "model.safetensors",
        "model.safetensors.index.json",
        "pytorch_model.bin",
        "pytorch_model.bin.index.json",
    ];
    variant
        || (name.starts_with("consolidated")
            && model.iter().any(|m| names.contains(full((*m).to_owned()).as_str())))
}

/// Of a repository of GGUF files one is a model's; shards count as one.
fn one_gguf(weights: &[&Entry]) -> Result<()> {
    let set = |e: &&Entry| {
        let path = e.path.to_ascii_lowercase();
        let parts: Vec<&str> = path.trim_end_matches(".gguf").rsplitn(4, '-').collect();
        match parts.as_slice() {
            [_, "of", _, stem] => (*stem).to_owned(),
            _ => path,
        }
    };
    let ggufs = weights.iter().filter(|e| kind(&e.path) == Kind::Gguf);
    let sets: BTreeSet<String> = ggufs.map(set).collect();
    if sets.len() < 2 {
        return Ok(());
    }
    let names: Vec<&str> =
        weights.iter().filter(|e| kind(&e.path) == Kind::Gguf).map(|e| e.path.as_str()).collect();
    let shown = names[..names.len().min(12)].join(", ");
    Err(Error::usage(format!(
        "the repository holds several GGUF files, of which one has to be chosen: {shown}"
    ))
    .hint("name one: --include '*Q8_0*', or hf://org/model/file.gguf"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::Place;

    fn snapshot(paths: &[&str]) -> Snapshot {
        let entry =
            |p: &&str| Entry { path: (*p).to_owned(), size: 1, oid: String::new(), sha256: None, xet: None };
        let mut files: Vec<Entry> = paths.iter().map(entry).collect();
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Snapshot {
            repo: "o/m".into(),
            revision: "main".into(),
            commit: None,
            files,
            info: None,
            place: Place::Server,
        }
    }

    fn pick(paths: &[&str], need: Need) -> Vec<String> {
        let s = snapshot(paths);
        wanted(&s, None, need, &[], &[]).unwrap().into_iter().map(str::to_owned).collect()
    }

    #[test]
    fn one_form_of_the_weights_is_enough() {
        let llama = [
            ".gitattributes",
            "LICENSE",
            "README.md",
            "USE_POLICY.md",
            "config.json",
            "generation_config.json",
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
            "model.safetensors.index.json",
            "original/consolidated.00.pth",
            "original/params.json",
            "original/tokenizer.model",
            "special_tokens_map.json",
            "tokenizer.json",
            "tokenizer_config.json",
        ];
        let found = pick(&llama, Need::Weights);
        let left: Vec<&&str> = llama.iter().filter(|p| !found.contains(&(**p).to_owned())).collect();
        assert_eq!(
            left,
            [
                &".gitattributes",
                &"original/consolidated.00.pth",
                &"original/params.json",
                &"original/tokenizer.model"
            ]
        );
        let config = pick(&llama, Need::Config);
        assert!(config.iter().all(|p| !p.contains("safetensors")), "{config:?}");
        assert!(config.contains(&"tokenizer.json".to_owned()) && config.contains(&"config.json".to_owned()));
    }

    #[test]
    fn sentence_transformers_keep_their_modules_and_lose_other_frameworks() {
        let minilm = [
            "1_Pooling/config.json",
            "2_Dense/config.json",
            "2_Dense/model.safetensors",
            "2_Dense/pytorch_model.bin",
            "config.json",
            "config_sentence_transformers.json",
            "data_config.json",
            "model.safetensors",
            "modules.json",
            "onnx/model.onnx",
            "onnx/model_O1.onnx",
            "openvino/openvino_model.bin",
            "openvino/openvino_model.xml",
            "pytorch_model.bin",
            "rust_model.ot",
            "tf_model.h5",
            "tokenizer.json",
            "train_script.py",
            "training_args.bin",
            "vocab.txt",
        ];
        let found = pick(&minilm, Need::Weights);
        for not in [
            "onnx/model.onnx",
            "pytorch_model.bin",
            "2_Dense/pytorch_model.bin",
            "tf_model.h5",
            "rust_model.ot",
            "openvino/openvino_model.bin",
            "training_args.bin",
            "train_script.py",
        ] {
            assert!(!found.contains(&not.to_owned()), "{not}");
        }
        for yes in [
            "1_Pooling/config.json",
            "2_Dense/model.safetensors",
            "model.safetensors",
            "vocab.txt",
            "modules.json",
        ] {
            assert!(found.contains(&yes.to_owned()), "{yes}");
        }
        let onnx = pick(&minilm, Need::Onnx);
        assert!(
            onnx.contains(&"onnx/model.onnx".to_owned()) && !onnx.contains(&"model.safetensors".to_owned())
        );
    }

    #[test]
    fn pickle_is_taken_where_nothing_better_is() {
        let found =
            pick(&["config.json", "pytorch_model.bin", "optimizer.pt", "flax_model.msgpack"], Need::Weights);
        assert_eq!(found, ["config.json", "pytorch_model.bin"]);
        let found = pick(&["config.json", "model.onnx", "model.onnx_data"], Need::Weights);
        assert_eq!(found, ["config.json", "model.onnx", "model.onnx_data"]);
        let found =
            pick(&["model.safetensors", "model.fp16.safetensors", "consolidated.safetensors"], Need::Weights);
        assert_eq!(found, ["model.safetensors"]);
        assert_eq!(pick(&["consolidated.safetensors", "params.json"], Need::Weights).len(), 2);
    }

    #[test]
    fn one_of_several_gguf_files_is_chosen_by_people() {
        let files =
            ["README.md", "m-Q4_K_M.gguf", "m-Q8_0-00001-of-00002.gguf", "m-Q8_0-00002-of-00002.gguf"];
        let s = snapshot(&files);
        let e = wanted(&s, None, Need::Weights, &[], &[]).unwrap_err();
        assert!(e.message().contains("m-Q4_K_M.gguf") && e.hint_text().unwrap().contains("--include"), "{e}");
        let q8 = wanted(&s, None, Need::Weights, &["*Q8_0*".into()], &[]).unwrap();
        assert_eq!(q8, files[2..]);
        let rest = wanted(&s, None, Need::Gguf, &[], &["*Q4*".into()]).unwrap();
        assert_eq!(rest, [files[0], files[2], files[3]]);
        assert_eq!(wanted(&s, Some("m-Q4_K_M.gguf"), Need::Weights, &[], &[]).unwrap(), ["m-Q4_K_M.gguf"]);
    }

    #[test]
    fn folders_are_repositories_of_their_own() {
        let s = snapshot(&["config.json", "sub/config.json", "sub/model.safetensors", "model.safetensors"]);
        assert_eq!(
            wanted(&s, Some("sub"), Need::Weights, &[], &[]).unwrap(),
            ["sub/config.json", "sub/model.safetensors"]
        );
        assert!(wanted(&s, Some("no"), Need::Weights, &[], &[]).is_err());
        assert!(wanted(&s, None, Need::Weights, &["*.gguf".into()], &[]).unwrap_err().hint_text().is_some());
    }
}
