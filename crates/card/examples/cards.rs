//! Writes golden/cards/{round,kept,written}: the front matters of golden/cards/front, written anew and as they stood, and cards
//! made of facts. `golden/generators/model_cards.py` has huggingface_hub read them; `tests/cards.rs` makes them again.
//!
//! usage: cargo run -p tensormill-card --example cards

use std::{collections::BTreeMap, fs, path::Path};
use tensormill_card::{
    document::Card,
    facts::{Facts, File, Model, Numbers, Plot, Reported, Row, Source, Variant, recommend},
    front::{Known, front},
    privacy::Scrub,
    write,
    yaml::Tree,
};

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../golden/cards");

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let golden = Path::new(GOLDEN);
    for (name, card) in inputs()? {
        put(&golden.join("round").join(&name), &card.restyled().text())?;
        put(&golden.join("kept").join(&name), &card.text())?;
    }
    for (name, text) in written()? {
        put(&golden.join("written").join(name), &text)?;
    }
    Ok(())
}

fn put(path: &Path, text: &str) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(path, text)
}

/// The front matters that were made elsewhere.
pub fn inputs() -> Result<BTreeMap<String, Card>, Box<dyn std::error::Error>> {
    let mut out = BTreeMap::new();
    for entry in fs::read_dir(Path::new(GOLDEN).join("front"))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let text = String::from_utf8(fs::read(entry.path())?)?;
        let card = Card::parse(&text).map_err(|p| format!("{name}: {}: {}", p.at.line, p.message))?;
        out.insert(name, card);
    }
    Ok(out)
}

/// Cards of every kind that the writer makes.
pub fn written() -> Result<BTreeMap<String, String>, Box<dyn std::error::Error>> {
    let inputs = inputs()?;
    let source = |name: &str| inputs.get(name).cloned().ok_or(format!("{name} is not there"));
    let cards = [
        ("gguf-release.md", release(&source("model-index.md")?)),
        ("embedding.md", embedding(&source("all-minilm-l6-v2.md")?)),
        ("training.md", training(&source("emissions.md")?)),
        ("merge.md", merge()),
    ];
    let scrub = Scrub::default();
    let text = |(name, facts): (&str, Facts)| Ok((name.to_owned(), write(&facts, None, &scrub)?));
    cards.into_iter().map(text).collect()
}

fn variant(name: &str, format: &str, bytes: u64, bits: f64, rmse: f64) -> Variant {
    let entry = format!("Mill-7B-{name}.{format}");
    Variant {
        name: name.into(),
        target: name.into(),
        format: format.into(),
        files: vec![File {
            name: entry.clone(),
            bytes,
            size: format!("{} MB", bytes / 1_000_000),
            sha256: Some("0123456789abcdef".repeat(4)),
        }],
        entry: entry.clone(),
        bytes,
        size: format!("{} MB", bytes / 1_000_000),
        bits_per_weight: Some(bits),
        quantized: rmse > 0.0,
        error: Some(Numbers {
            rmse,
            max_abs: rmse * 9.0,
            sqnr_db: (rmse > 0.0).then(|| -20.0 * rmse.log10()),
            cosine: 1.0 - rmse,
        }),
        command: Some(format!("tensormill convert hf://mill/Mill-7B@0123abc -o {entry} --quant {name}")),
        ..Variant::default()
    }
}

fn release(source: &Card) -> Facts {
    let variants = vec![
        variant("Q4_K_M", "gguf", 4_370_000_000, 4.83, 0.0042),
        variant("Q8_0", "gguf", 7_700_000_000, 8.5, 0.0003),
        variant("Q4_0", "gguf", 4_380_000_000, 4.84, 0.0061),
    ];
    let known = Known {
        base: vec!["mill/Mill-7B".into()],
        relation: Some("quantized".into()),
        formats: vec!["gguf".into()],
        library: Some("gguf".into()),
        pipeline: Some("text-generation".into()),
        quantization: vec!["Q4_K_M".into(), "Q8_0".into(), "Q4_0".into()],
        quantized_by: Some("no".into()),
        derived: true,
        ..Known::default()
    };
    let mut facts = Facts {
        title: "Mill-7B in GGUF".into(),
        repository: Some("mill/Mill-7B-GGUF".into()),
        tool: "tensormill 0.0".into(),
        front: front(Some(source), &known),
        source: Source {
            name: "Mill-7B".into(),
            repository: Some("mill/Mill-7B".into()),
            revision: Some("0123abc".into()),
            format: Some("safetensors".into()),
            fingerprint: Some("xxh3-64:00".into()),
            has_card: true,
            license_files: vec!["LICENSE".into()],
        },
        model: Model {
            generates: true,
            chats: true,
            rows: vec![Row::new("class", "LlamaForCausalLM"), Row::new("a | b", 32)],
            generation: vec![Row::new("temperature", 0.6)],
            ..Model::default()
        },
        variants,
        verified: true,
        plots: vec![Plot { title: "Size against error".into(), file: "m.report/size-vs-error.svg".into() }],
        reported: vec![Reported {
            task: "Text Generation".into(),
            dataset: "ARC".into(),
            metric: "acc_norm".into(),
            value: "64.59".into(),
        }],
        ..Facts::default()
    };
    recommend(&mut facts.variants);
    facts
}

fn embedding(source: &Card) -> Facts {
    let mut exact = variant("F32", "safetensors", 90_000_000, 32.0, 0.0);
    (exact.entry, exact.is_folder) = ("Mill-7B-F32".into(), true);
    let known = Known {
        base: vec!["sentence-transformers/all-MiniLM-L6-v2".into()],
        relation: Some("quantized".into()),
        formats: vec!["safetensors".into(), "onnx".into()],
        derived: true,
        ..Known::default()
    };
    Facts {
        title: "all-MiniLM-L6-v2".into(),
        tool: "tensormill 0.0".into(),
        front: front(Some(source), &known),
        source: Source { name: "all-MiniLM-L6-v2".into(), ..Source::default() },
        model: Model { embeds: true, sentence_transformers: true, ..Model::default() },
        variants: vec![exact, variant("onnx-int8", "onnx", 23_000_000, 8.2, 0.001)],
        ..Facts::default()
    }
}

fn training(source: &Card) -> Facts {
    let result = serde_json::json!([{
        "name": "tuned",
        "results": [{
            "task": { "type": "text-classification" },
            "dataset": { "type": "glue", "name": "GLUE SST-2", "config": "sst2", "split": "validation" },
            "metrics": [{ "type": "accuracy", "value": 0.9231 }, { "type": "loss", "value": 1e-7 }],
        }],
    }]);
    let known = Known {
        base: vec!["a/base".into()],
        relation: Some("adapter".into()),
        library: Some("peft".into()),
        pipeline: Some("text-classification".into()),
        results: Some(Tree::from_json(&result)),
        languages: vec!["en".into(), "no".into()],
        ..Known::default()
    };
    Facts {
        title: "tuned".into(),
        tool: "tensormill 0.0".into(),
        front: front(Some(source), &known),
        adapter: vec![Row::new("scheme", "LORA"), Row::new("rank", 16)],
        training: vec![Row::new("learning rate", 5e-5), Row::new("seed", 42)],
        evaluation: vec![Row::new("accuracy", 0.9231)],
        emissions: vec![Row::new("CO2 equivalent (g)", 1.2345)],
        ..Facts::default()
    }
}

fn merge() -> Facts {
    let known = Known {
        base: vec!["a/one".into(), "b/two".into()],
        relation: Some("merge".into()),
        license: [Some("other".into()), Some("own-1.0".into()), Some("https://example.org/license".into())],
        tags: vec!["merge".into()],
        datasets: vec!["a/data".into()],
        ..Known::default()
    };
    Facts {
        title: "Both".into(),
        tool: "tensormill 0.0".into(),
        front: front(None, &known),
        merge: vec![Row::new("method", "ties"), Row::new("models", "a/one, b/two")],
        ..Facts::default()
    }
}
