//! Facts of a model from the small files beside its weights: configuration, tokenizer, adapter, what training leaves.
//!
//! Of files that programs write for themselves, only what is listed here is taken, numbers and single words: whatever else
//! they hold, paths and names of machines among it, is never looked at. `training_args.bin` is a pickle and is not opened.

use crate::{
    document::Card,
    facts::{Model, Reported, Row},
    privacy::hub_id,
    sections::{Section, sections},
    yaml::{Tree, parse_tree},
};
use serde_json::{Map, Value as Json};
use std::collections::BTreeMap;
use tensormill_model::{Assets, Result};

/// What the files say.
#[derive(Clone, Debug, Default)]
pub struct Gathered {
    /// The card's front matter.
    pub card: Option<Card>,
    /// The card's text by what it speaks of.
    pub sections: BTreeMap<&'static str, Vec<Section>>,
    /// The model.
    pub model: Model,
    /// How an adapter was made; empty where the folder is none.
    pub adapter: Vec<Row>,
    /// How a merge was made.
    pub merge: Vec<Row>,
    /// Hub ids of the models it comes from, and what it is to them.
    pub base: Vec<String>,
    /// See `base`.
    pub relation: Option<&'static str>,
    /// Hyper-parameters and what training says of itself.
    pub training: Vec<Row>,
    /// What training measured: name, value.
    pub evaluation: Vec<(String, f64)>,
    /// Evaluation results of the card.
    pub reported: Vec<Reported>,
    /// Environmental impact, from the card.
    pub emissions: Vec<Row>,
    /// The task that the architecture is for.
    pub pipeline: Option<&'static str>,
    /// Files with a licence's text.
    pub license_files: Vec<String>,
    /// Files that were left aside, each a sentence.
    pub warnings: Vec<String>,
}

/// Reads what is there.
///
/// # Errors
/// Files that cannot be read; those that hold something unexpected are left aside with a warning.
pub fn gather(assets: &dyn Assets) -> Result<Gathered> {
    let mut out = Gathered::default();
    if let Some(bytes) = assets.read("README.md")? {
        match Card::parse(&String::from_utf8_lossy(&bytes)) {
            Ok(card) => {
                out.sections = sections(&card.body);
                out.reported = reported(&card);
                out.emissions = emissions(&card);
                out.card = Some(card);
            }
            Err(p) => out.warnings.push(format!(
                "README.md: left aside: line {}: {}; `tensormill card --check` says more",
                p.at.line, p.message
            )),
        }
    }
    let is_license = |n: &String| {
        let upper = n.to_ascii_uppercase();
        ["LICENSE", "LICENCE", "USE_POLICY", "NOTICE"].iter().any(|w| upper.starts_with(w))
    };
    out.license_files = assets.list().into_iter().filter(is_license).collect();
    out.model.sentence_transformers = assets.list().iter().any(|n| n == "modules.json");
    if let Some(config) = object(assets, "config.json", &mut out.warnings)? {
        model(&config, &mut out);
    }
    if let Some(generation) = object(assets, "generation_config.json", &mut out.warnings)? {
        out.model.generation = rows(&generation, GENERATION);
    }
    if let Some(tokenizer) = object(assets, "tokenizer_config.json", &mut out.warnings)? {
        out.model.rows.extend(rows(&tokenizer, &[("tokenizer", &["tokenizer_class"])]));
        out.model.chats = tokenizer.get("chat_template").is_some_and(|t| !t.is_null());
    }
    out.model.chats |= assets.list().iter().any(|n| n == "chat_template.jinja");
    if let Some(adapter) = object(assets, "adapter_config.json", &mut out.warnings)? {
        out.adapter = rows(&adapter, ADAPTER);
        out.relation = Some("adapter");
        out.base = base(adapter.get("base_model_name_or_path"));
    }
    for name in ["mergekit_config.yml", "mergekit_config.yaml"] {
        if let Some(bytes) = assets.read(name)? {
            merge(&String::from_utf8_lossy(&bytes), &mut out);
        }
    }
    if let Some(args) = object(assets, "training_args.json", &mut out.warnings)? {
        out.training.extend(rows(&args, TRAINING));
    }
    if let Some(state) = object(assets, "trainer_state.json", &mut out.warnings)? {
        trainer_state(&state, &mut out);
    }
    for name in ["train_results.json", "eval_results.json", "all_results.json"] {
        if let Some(results) = object(assets, name, &mut out.warnings)? {
            out.training.extend(rows(&results, RESULTS));
            add_results(&results, &mut out.evaluation);
        }
    }
    let mut seen = Vec::new();
    out.training.retain(|r| {
        !seen.contains(&r.name) && {
            seen.push(r.name.clone());
            true
        }
    });
    Ok(out)
}

/// A label, and the keys that hold its value, the first that is there counts.
type Names = &'static [(&'static str, &'static [&'static str])];

const MODEL: Names = &[
    ("layers", &["num_hidden_layers", "n_layer", "num_layers"]),
    ("hidden size", &["hidden_size", "n_embd", "d_model"]),
    ("feed-forward size", &["intermediate_size", "n_inner", "d_ff"]),
    ("attention heads", &["num_attention_heads", "n_head", "num_heads"]),
    ("key and value heads", &["num_key_value_heads"]),
    ("head size", &["head_dim"]),
    ("experts", &["num_local_experts", "num_experts", "n_routed_experts"]),
    ("experts per token", &["num_experts_per_tok"]),
    ("vocabulary", &["vocab_size"]),
    ("context length", &["max_position_embeddings", "n_positions", "max_seq_len"]),
    ("sliding window", &["sliding_window"]),
    ("activation", &["hidden_act", "hidden_activation", "activation_function"]),
    ("rope theta", &["rope_theta"]),
    ("tied embeddings", &["tie_word_embeddings"]),
    ("labels", &["num_labels"]),
    ("dtype", &["torch_dtype", "dtype"]),
    ("transformers", &["transformers_version"]),
];
const GENERATION: Names = &[
    ("do_sample", &["do_sample"]),
    ("temperature", &["temperature"]),
    ("top_p", &["top_p"]),
    ("top_k", &["top_k"]),
    ("min_p", &["min_p"]),
    ("repetition_penalty", &["repetition_penalty"]),
    ("max_new_tokens", &["max_new_tokens"]),
];
const ADAPTER: Names = &[
    ("scheme", &["peft_type"]),
    ("task", &["task_type"]),
    ("rank", &["r"]),
    ("alpha", &["lora_alpha", "alpha"]),
    ("dropout", &["lora_dropout"]),
    ("modules", &["target_modules"]),
    ("rank-stabilised", &["use_rslora"]),
    ("DoRA", &["use_dora"]),
    ("bias", &["bias"]),
    ("saved modules", &["modules_to_save"]),
];
const TRAINING: Names = &[
    ("learning rate", &["learning_rate"]),
    ("schedule", &["lr_scheduler_type"]),
    ("warm-up steps", &["warmup_steps"]),
    ("warm-up ratio", &["warmup_ratio"]),
    ("optimizer", &["optim"]),
    ("weight decay", &["weight_decay"]),
    ("Adam beta 1", &["adam_beta1"]),
    ("Adam beta 2", &["adam_beta2"]),
    ("Adam epsilon", &["adam_epsilon"]),
    ("gradient clipping", &["max_grad_norm"]),
    ("batch size per device", &["per_device_train_batch_size"]),
    ("gradient accumulation", &["gradient_accumulation_steps"]),
    ("epochs", &["num_train_epochs"]),
    ("most steps", &["max_steps"]),
    ("label smoothing", &["label_smoothing_factor"]),
    ("seed", &["seed"]),
    ("bf16", &["bf16"]),
    ("fp16", &["fp16"]),
    ("gradient checkpointing", &["gradient_checkpointing"]),
];
const RESULTS: Names = &[
    ("epochs done", &["epoch"]),
    ("training loss", &["train_loss"]),
    ("training time (s)", &["train_runtime"]),
    ("training samples", &["train_samples"]),
    ("floating-point operations", &["total_flos"]),
];

fn rows(json: &Map<String, Json>, names: Names) -> Vec<Row> {
    let value = |keys: &[&str]| keys.iter().find_map(|k| word(json.get(*k)?));
    names.iter().filter_map(|(label, keys)| Some(Row::new(*label, value(keys)?))).collect()
}

/// A number, a truth value, a single word, or a list of words.
fn word(json: &Json) -> Option<String> {
    match json {
        Json::Number(n) => Some(number(n)),
        Json::Bool(b) => Some(if *b { "yes" } else { "no" }.to_owned()),
        Json::String(s) if is_word(s) => Some(s.clone()),
        Json::Array(v) if !v.is_empty() && v.len() <= 64 => v
            .iter()
            .map(|j| j.as_str().filter(|s| is_word(s)))
            .collect::<Option<Vec<_>>>()
            .map(|w| w.join(", ")),
        _ => None,
    }
}

/// Small ones as people write them: 2e-5.
fn number(n: &serde_json::Number) -> String {
    match n.as_f64() {
        Some(x) if n.is_f64() && x != 0.0 && x.abs() < 1e-3 => format!("{x:e}"),
        _ => n.to_string(),
    }
}

/// Names of classes, modules, versions and options; no paths and no sentences.
fn is_word(s: &str) -> bool {
    (1..=64).contains(&s.len()) && s.chars().all(|c| c.is_ascii_alphanumeric() || "_-.+".contains(c))
}

fn object(assets: &dyn Assets, name: &str, warnings: &mut Vec<String>) -> Result<Option<Map<String, Json>>> {
    let Some(bytes) = assets.read(name)? else { return Ok(None) };
    if let Ok(Json::Object(map)) = serde_json::from_slice(&bytes) {
        Ok(Some(map))
    } else {
        warnings.push(format!("{name}: left aside: not a JSON object"));
        Ok(None)
    }
}

fn model(config: &Map<String, Json>, out: &mut Gathered) {
    let text = |key: &str| config.get(key).and_then(Json::as_str).filter(|s| is_word(s));
    out.model.kind = text("model_type").map(str::to_owned);
    let class =
        config.get("architectures").and_then(|a| a.get(0)).and_then(Json::as_str).filter(|s| is_word(s));
    out.model.class = class.map(str::to_owned);
    let (task, auto) = class.map_or((None, None), purpose);
    out.pipeline = if out.model.sentence_transformers { Some("sentence-similarity") } else { task };
    out.model.auto_class = auto.map(str::to_owned);
    out.model.generates = task == Some("text-generation");
    out.model.embeds = matches!(out.pipeline, Some("feature-extraction" | "sentence-similarity"));
    let named = [("class", &out.model.class), ("model type", &out.model.kind)];
    out.model.rows = named.into_iter().filter_map(|(n, v)| Some(Row::new(n, v.as_ref()?))).collect();
    // Models of several parts keep the text's sizes one level down.
    let inner = config.get("text_config").and_then(Json::as_object);
    out.model
        .rows
        .extend(rows(inner.filter(|_| !config.contains_key("hidden_size")).unwrap_or(config), MODEL));
    out.base = base(config.get("_name_or_path"));
    out.relation = (!out.base.is_empty()).then_some("finetune");
}

/// The task that a class is for, and transformers' class that finds it, by the class's name.
fn purpose(class: &str) -> (Option<&'static str>, Option<&'static str>) {
    const HEADS: [(&str, &str, &str); 13] = [
        ("ForCausalLM", "text-generation", "AutoModelForCausalLM"),
        ("LMHeadModel", "text-generation", "AutoModelForCausalLM"),
        ("ForMaskedLM", "fill-mask", "AutoModelForMaskedLM"),
        ("ForSequenceClassification", "text-classification", "AutoModelForSequenceClassification"),
        ("ForTokenClassification", "token-classification", "AutoModelForTokenClassification"),
        ("ForQuestionAnswering", "question-answering", "AutoModelForQuestionAnswering"),
        ("ForMultipleChoice", "multiple-choice", "AutoModelForMultipleChoice"),
        ("ForImageClassification", "image-classification", "AutoModelForImageClassification"),
        ("ForObjectDetection", "object-detection", "AutoModelForObjectDetection"),
        ("ForAudioClassification", "audio-classification", "AutoModelForAudioClassification"),
        ("ForCTC", "automatic-speech-recognition", "AutoModelForCTC"),
        ("ForSpeechSeq2Seq", "automatic-speech-recognition", "AutoModelForSpeechSeq2Seq"),
        ("ViTModel", "image-feature-extraction", "AutoModel"),
    ];
    if let Some((_, task, auto)) = HEADS.iter().find(|(end, ..)| class.ends_with(end)) {
        return (Some(task), Some(auto));
    }
    // What the others are for is not in their names.
    let encoder = ["BertModel", "RobertaModel", "MPNetModel", "DistilBertModel", "ModernBertModel"];
    let task = encoder.iter().any(|e| class.ends_with(e)).then_some("feature-extraction");
    (task, class.ends_with("Model").then_some("AutoModel"))
}

fn base(json: Option<&Json>) -> Vec<String> {
    // A bare word is too often the name of a folder.
    let id = json.and_then(Json::as_str).and_then(hub_id).filter(|id| id.contains('/'));
    id.map(str::to_owned).into_iter().collect()
}

/// Method and models of a merge, by mergekit's configuration.
fn merge(text: &str, out: &mut Gathered) {
    let Ok(parsed) = parse_tree(text) else {
        out.warnings.push("mergekit_config.yml: left aside: not YAML".into());
        return;
    };
    merge_recipe(&parsed.root, out);
}

/// Method and models of a merge, by its recipe.
pub fn merge_recipe(recipe: &Tree, out: &mut Gathered) {
    let mut models: Vec<String> = Vec::new();
    collect_models(recipe, &mut models);
    if let Some(method) = recipe.get("merge_method").and_then(Tree::as_str).filter(|m| is_word(m)) {
        out.merge.push(Row::new("method", method));
    }
    if !models.is_empty() {
        out.merge.push(Row::new("models", models.join(", ")));
        out.base = models;
    }
    out.relation = Some("merge");
}

fn collect_models(tree: &Tree, out: &mut Vec<String>) {
    for e in tree.entries().unwrap_or_default() {
        let id = e.value.as_str().and_then(hub_id).filter(|id| id.contains('/'));
        match (e.key.as_str(), id) {
            (Some("model" | "base_model"), Some(id)) => {
                if !out.iter().any(|known| known == id) {
                    out.push(id.to_owned());
                }
            }
            _ => collect_models(&e.value, out),
        }
    }
    for item in tree.items().unwrap_or_default() {
        collect_models(item, out);
    }
}

fn trainer_state(state: &Map<String, Json>, out: &mut Gathered) {
    const STATE: Names = &[
        ("steps done", &["global_step"]),
        ("epochs done", &["epoch"]),
        ("batch size of the trainer", &["train_batch_size"]),
        ("floating-point operations", &["total_flos"]),
        ("best metric", &["best_metric"]),
    ];
    out.training.extend(rows(state, STATE));
    let log = state.get("log_history").and_then(Json::as_array).map_or(&[][..], Vec::as_slice);
    let last = |key: &str| log.iter().rev().find_map(|e| e.get(key)?.as_f64());
    if let Some(loss) = last("loss") {
        out.training.push(Row::new("last logged loss", loss));
    }
    if let Some(entry) =
        log.iter().rev().filter_map(Json::as_object).find(|e| e.keys().any(|k| k.starts_with("eval_")))
    {
        add_results(entry, &mut out.evaluation);
    }
}

/// What evaluation gave, without its timings; what is there already is newer or the same.
fn add_results(json: &Map<String, Json>, out: &mut Vec<(String, f64)>) {
    const TIMINGS: [&str; 6] = [
        "runtime",
        "samples_per_second",
        "steps_per_second",
        "samples",
        "model_preparation_time",
        "mem_gpu_alloc_delta",
    ];
    for (key, value) in json {
        let Some((name, value)) = key.strip_prefix("eval_").zip(value.as_f64()) else { continue };
        if TIMINGS.contains(&name) || !is_word(name) || !value.is_finite() {
            continue;
        }
        match out.iter_mut().find(|(known, _)| known == name) {
            Some(known) => known.1 = value,
            None => out.push((name.to_owned(), value)),
        }
    }
}

fn shown(tree: Option<&Tree>) -> Option<String> {
    let text = tree?.node().scalar_text()?.trim().to_owned();
    (!text.is_empty()).then_some(text)
}

fn reported(card: &Card) -> Vec<Reported> {
    let mut out = Vec::new();
    let models = card.get("model-index").map(Tree::each).unwrap_or_default();
    let results = models.iter().filter_map(|m| m.get("results")).flat_map(Tree::each);
    for result in results {
        let part =
            |part: &str| result.get(part).and_then(|p| shown(p.get("name")).or_else(|| shown(p.get("type"))));
        for metric in result.get("metrics").map(Tree::each).unwrap_or_default() {
            let name = shown(metric.get("name")).or_else(|| shown(metric.get("type")));
            let (Some(metric), Some(value)) = (name, shown(metric.get("value"))) else { continue };
            let (task, dataset) = (part("task").unwrap_or_default(), part("dataset").unwrap_or_default());
            out.push(Reported { task, dataset, metric, value });
        }
    }
    out
}

fn emissions(card: &Card) -> Vec<Row> {
    const PARTS: [(&str, &str); 5] = [
        ("emissions", "CO2 equivalent (g)"),
        ("source", "source"),
        ("training_type", "training"),
        ("geographical_location", "location"),
        ("hardware_used", "hardware"),
    ];
    let Some(value) = card.get("co2_eq_emissions") else { return Vec::new() };
    if let Some(grams) = shown(Some(value)) {
        return vec![Row::new(PARTS[0].1, grams)];
    }
    PARTS.iter().filter_map(|(key, name)| Some(Row::new(*name, shown(value.get(key))?))).collect()
}
