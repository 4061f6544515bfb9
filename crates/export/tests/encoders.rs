//! Graphs of encoders without running them: inputs, outputs, weights, and what is refused. What they compute is compared
//! with transformers elsewhere, as that takes a runtime.

mod common;
mod typed;

use common::{signature, well_formed};
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;
use tensormill_export::{Config, Form, Request};
use tensormill_graph::{Elem, Program};
use tensormill_model::{ErrorKind, MemoryAssets, Result};
use tensormill_tensor::Shape;

const OPSETS: std::ops::RangeInclusive<i64> = 14..=26;

/// Sizes of all models here.
const HIDDEN: u64 = 24;
const INNER: u64 = 40;
const WORDS: u64 = 80;
const PLACES: u64 = 50;
const LABELS: u64 = 3;
const LAYERS: u64 = 2;

/// A checkpoint without its weights.
#[derive(Clone)]
struct Model {
    config: Json,
    tensors: BTreeMap<String, Vec<u64>>,
    assets: MemoryAssets,
}

impl Model {
    fn new(config: Json) -> Self {
        Self { config, tensors: BTreeMap::new(), assets: MemoryAssets::default() }
    }
    fn tensor(mut self, name: &str, dims: &[u64]) -> Self {
        self.tensors.insert(name.to_owned(), dims.to_vec());
        self
    }
    fn linear(self, module: &str, out: u64, input: u64) -> Self {
        self.tensor(&format!("{module}.weight"), &[out, input]).tensor(&format!("{module}.bias"), &[out])
    }
    fn norm(self, module: &str) -> Self {
        self.tensor(&format!("{module}.weight"), &[HIDDEN]).tensor(&format!("{module}.bias"), &[HIDDEN])
    }
    fn set(mut self, key: &str, value: Json) -> Self {
        self.config[key] = value;
        self
    }
    fn file(mut self, name: &str, content: &Json) -> Self {
        self.assets.files.insert(name.to_owned(), content.to_string().into_bytes());
        self
    }
    /// Layers of a text encoder: attention's four products, its norm, the feed-forward part, its norm.
    fn layers(mut self, prefix: &str, names: [&str; 8]) -> Self {
        for i in 0..LAYERS {
            let module = |name: &str| format!("{prefix}.{i}.{name}");
            let [q, k, v, o, norm, up, down, last] = names;
            for name in [q, k, v, o] {
                self = self.linear(&module(name), HIDDEN, HIDDEN);
            }
            self = self.norm(&module(norm)).norm(&module(last));
            self = self.linear(&module(up), INNER, HIDDEN).linear(&module(down), HIDDEN, INNER);
        }
        self
    }
    fn embeddings(self, prefix: &str, types: Option<u64>) -> Self {
        let module = |name: &str| format!("{prefix}embeddings.{name}");
        let model = self
            .tensor(&module("word_embeddings.weight"), &[WORDS, HIDDEN])
            .tensor(&module("position_embeddings.weight"), &[PLACES, HIDDEN])
            .norm(&module("LayerNorm"));
        match types {
            Some(n) => model.tensor(&module("token_type_embeddings.weight"), &[n, HIDDEN]),
            None => model,
        }
    }

    fn build(&self, opset: i64, float: Elem, keep_io_types: bool) -> Result<Program> {
        let Json::Object(map) = self.config.clone() else { panic!("configurations are objects") };
        tensormill_export::build(&Request {
            config: &Config::new(map),
            assets: &self.assets,
            tensors: &|name| self.tensors.get(name).map(|d| Shape::new(d.clone()).expect("small")),
            opset,
            float,
            keep_io_types,
            form: Form::Standard,
            metadata: Vec::new(),
        })
    }
    fn usual(&self) -> Result<Program> {
        self.build(17, Elem::F32, false)
    }
    fn refused(&self) -> tensormill_model::Error {
        self.usual().expect_err("is refused")
    }
}

fn config(kind: &str, class: &str) -> Json {
    json!({
        "model_type": kind, "architectures": [class], "vocab_size": WORDS, "hidden_size": HIDDEN,
        "num_hidden_layers": LAYERS, "num_attention_heads": 3, "intermediate_size": INNER, "hidden_act": "gelu",
        "max_position_embeddings": PLACES, "type_vocab_size": 2, "layer_norm_eps": 1e-12,
        "id2label": {"0": "a", "1": "b", "2": "c"},
    })
}

const BERT: [&str; 8] = [
    "attention.self.query",
    "attention.self.key",
    "attention.self.value",
    "attention.output.dense",
    "attention.output.LayerNorm",
    "intermediate.dense",
    "output.dense",
    "output.LayerNorm",
];
const DISTILBERT: [&str; 8] = [
    "attention.q_lin",
    "attention.k_lin",
    "attention.v_lin",
    "attention.out_lin",
    "sa_layer_norm",
    "ffn.lin1",
    "ffn.lin2",
    "output_layer_norm",
];
const MPNET: [&str; 8] = [
    "attention.attn.q",
    "attention.attn.k",
    "attention.attn.v",
    "attention.attn.o",
    "attention.LayerNorm",
    "intermediate.dense",
    "output.dense",
    "output.LayerNorm",
];

fn bert(class: &str, prefix: &str) -> Model {
    Model::new(config("bert", class))
        .embeddings(prefix, Some(2))
        .layers(&format!("{prefix}encoder.layer"), BERT)
}

fn roberta(kind: &str, class: &str, prefix: &str) -> Model {
    Model::new(config(kind, class))
        .set("type_vocab_size", json!(1))
        .set("pad_token_id", json!(1))
        .embeddings(prefix, Some(1))
        .layers(&format!("{prefix}encoder.layer"), BERT)
}

fn distilbert(class: &str, prefix: &str) -> Model {
    Model::new(json!({
        "model_type": "distilbert", "architectures": [class], "vocab_size": WORDS, "dim": HIDDEN,
        "n_layers": LAYERS, "n_heads": 3, "hidden_dim": INNER, "activation": "gelu",
        "max_position_embeddings": PLACES, "id2label": {"0": "a", "1": "b", "2": "c"},
    }))
    .embeddings(prefix, None)
    .layers(&format!("{prefix}transformer.layer"), DISTILBERT)
}

fn mpnet(class: &str, prefix: &str) -> Model {
    Model::new(config("mpnet", class))
        .embeddings(prefix, None)
        .layers(&format!("{prefix}encoder.layer"), MPNET)
        .tensor(&format!("{prefix}encoder.relative_attention_bias.weight"), &[32, 3])
}

/// RoBERTa's head for classes of texts, MPNet's too.
fn classes(model: Model) -> Model {
    model.linear("classifier.dense", HIDDEN, HIDDEN).linear("classifier.out_proj", LABELS, HIDDEN)
}

/// The same for words.
fn words(model: Model) -> Model {
    model.linear("lm_head.dense", HIDDEN, HIDDEN).norm("lm_head.layer_norm").tensor("lm_head.bias", &[WORDS])
}

fn vit(class: &str, prefix: &str, layers: &str, names: [&str; 8]) -> Model {
    let module = |name: &str| format!("{prefix}{name}");
    Model::new(config("vit", class))
        .set("image_size", json!(24))
        .set("patch_size", json!([8, 4]))
        .tensor(&module("embeddings.cls_token"), &[1, 1, HIDDEN])
        .tensor(&module("embeddings.position_embeddings"), &[1, 19, HIDDEN])
        .tensor(&module("embeddings.patch_embeddings.projection.weight"), &[HIDDEN, 3, 8, 4])
        .tensor(&module("embeddings.patch_embeddings.projection.bias"), &[HIDDEN])
        .norm(&module("layernorm"))
        .layers(&module(layers), names)
}

const VIT: [&str; 8] = [
    "attention.attention.query",
    "attention.attention.key",
    "attention.attention.value",
    "attention.output.dense",
    "layernorm_before",
    "intermediate.dense",
    "output.dense",
    "layernorm_after",
];
const VIT_MODULES: [&str; 8] = [
    "attention.q_proj",
    "attention.k_proj",
    "attention.v_proj",
    "attention.o_proj",
    "layernorm_before",
    "mlp.fc1",
    "mlp.fc2",
    "layernorm_after",
];

/// A folder of sentence-transformers: the modules behind the encoder by folder, type and configuration.
fn sentence(model: Model, modules: &[(&str, &str, Json)]) -> Model {
    let mut list = vec![json!({"idx": 0, "path": "", "type": "sentence_transformers.models.Transformer"})];
    let mut model = model;
    for (folder, kind, config) in modules {
        let kind = format!("sentence_transformers.models.{kind}");
        list.push(json!({"idx": list.len(), "path": folder, "type": kind}));
        if !config.is_null() {
            model = model.file(&format!("{folder}/config.json"), config);
        }
    }
    model.file("modules.json", &Json::Array(list))
}

const IDS: &str = "input_ids int64 [batch_size, sequence_length]";
const MASK: &str = "attention_mask int64 [batch_size, sequence_length]";
const TYPES: &str = "token_type_ids int64 [batch_size, sequence_length]";
const STATES: &str = "last_hidden_state float [batch_size, sequence_length, 24]";
const CLASSES: &str = "logits float [batch_size, 3]";
const OF_TOKENS: &str = "logits float [batch_size, sequence_length, 3]";
const OF_WORDS: &str = "logits float [batch_size, sequence_length, 80]";
const STARTS: &str = "start_logits float [batch_size, sequence_length]";
const ENDS: &str = "end_logits float [batch_size, sequence_length]";
const PIXELS: &str = "pixel_values float [batch_size, 3, 24, 24]";

/// All models, and their inputs and outputs in `f32`.
fn all() -> Vec<(Model, Vec<&'static str>)> {
    let bert_words = |m: Model| {
        m.linear("cls.predictions.transform.dense", HIDDEN, HIDDEN)
            .norm("cls.predictions.transform.LayerNorm")
            .tensor("cls.predictions.bias", &[WORDS])
    };
    let pooled = |dims: &'static str| vec![IDS, MASK, TYPES, STATES, dims];
    let pooling = |config: Json| sentence(bert("BertForMaskedLM", ""), &[("1_Pooling", "Pooling", config)]);
    vec![
        (bert("BertModel", ""), vec![IDS, MASK, TYPES, STATES]),
        (bert("BertModel", "bert."), vec![IDS, MASK, TYPES, STATES]),
        (
            bert("BertForSequenceClassification", "bert.")
                .linear("bert.pooler.dense", HIDDEN, HIDDEN)
                .linear("classifier", LABELS, HIDDEN),
            vec![IDS, MASK, TYPES, CLASSES],
        ),
        (
            bert("BertForTokenClassification", "bert.").linear("classifier", LABELS, HIDDEN),
            vec![IDS, MASK, TYPES, OF_TOKENS],
        ),
        (bert_words(bert("BertForMaskedLM", "bert.")), vec![IDS, MASK, TYPES, OF_WORDS]),
        (
            bert_words(bert("BertForMaskedLM", "bert.")).set("tie_word_embeddings", json!(false)).linear(
                "cls.predictions.decoder",
                WORDS,
                HIDDEN,
            ),
            vec![IDS, MASK, TYPES, OF_WORDS],
        ),
        (
            bert("BertForQuestionAnswering", "bert.").linear("qa_outputs", 2, HIDDEN),
            vec![IDS, MASK, TYPES, STARTS, ENDS],
        ),
        (roberta("roberta", "RobertaModel", ""), vec![IDS, MASK, STATES]),
        (
            classes(roberta("roberta", "RobertaForSequenceClassification", "roberta.")),
            vec![IDS, MASK, CLASSES],
        ),
        (words(roberta("roberta", "RobertaForMaskedLM", "roberta.")), vec![IDS, MASK, OF_WORDS]),
        (roberta("xlm-roberta", "XLMRobertaModel", ""), vec![IDS, MASK, STATES]),
        (
            classes(roberta("xlm-roberta", "XLMRobertaForSequenceClassification", "roberta.")),
            vec![IDS, MASK, CLASSES],
        ),
        (roberta("camembert", "CamembertModel", "roberta."), vec![IDS, MASK, STATES]),
        (distilbert("DistilBertModel", ""), vec![IDS, MASK, STATES]),
        (
            distilbert("DistilBertForSequenceClassification", "distilbert.")
                .linear("pre_classifier", HIDDEN, HIDDEN)
                .linear("classifier", LABELS, HIDDEN),
            vec![IDS, MASK, CLASSES],
        ),
        (
            distilbert("DistilBertForMaskedLM", "distilbert.")
                .linear("vocab_transform", HIDDEN, HIDDEN)
                .norm("vocab_layer_norm")
                .tensor("vocab_projector.bias", &[WORDS]),
            vec![IDS, MASK, OF_WORDS],
        ),
        (mpnet("MPNetModel", ""), vec![IDS, MASK, STATES]),
        (classes(mpnet("MPNetForSequenceClassification", "mpnet.")), vec![IDS, MASK, CLASSES]),
        (words(mpnet("MPNetForMaskedLM", "mpnet.")), vec![IDS, MASK, OF_WORDS]),
        (
            vit("ViTModel", "", "encoder.layer", VIT),
            vec![PIXELS, "last_hidden_state float [batch_size, 19, 24]"],
        ),
        (
            vit("ViTForImageClassification", "vit.", "encoder.layer", VIT).linear(
                "classifier",
                LABELS,
                HIDDEN,
            ),
            vec![PIXELS, CLASSES],
        ),
        (
            vit("ViTForImageClassification", "vit.", "layers", VIT_MODULES).linear(
                "classifier",
                LABELS,
                HIDDEN,
            ),
            vec![PIXELS, CLASSES],
        ),
        (
            pooling(json!({"embedding_dimension": 24, "pooling_mode": "cls", "include_prompt": true})),
            pooled("sentence_embedding float [batch_size, 24]"),
        ),
        (
            // Nothing is on: the mean.
            pooling(json!({"word_embedding_dimension": 24, "pooling_mode_mean_tokens": false})),
            pooled("sentence_embedding float [batch_size, 24]"),
        ),
        (
            pooling(json!({"pooling_mode_mean_tokens": true, "pooling_mode_max_tokens": true})),
            pooled("sentence_embedding float [batch_size, 48]"),
        ),
        (
            pooling(json!({"pooling_mode":
                ["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"]})),
            pooled("sentence_embedding float [batch_size, 144]"),
        ),
        (
            sentence(
                bert("BertModel", ""),
                &[
                    ("1_Pooling", "Pooling", json!({"pooling_mode": "mean"})),
                    ("2_Dropout", "Dropout", json!({"dropout": 0.1})),
                    (
                        "3_Dense",
                        "Dense",
                        json!({"in_features": 24, "out_features": 10, "use_residual": true,
                            "activation_function": "torch.nn.modules.activation.GELU"}),
                    ),
                    ("4_Normalize", "Normalize", Json::Null),
                ],
            )
            .linear("3_Dense/linear", 10, HIDDEN)
            .tensor("3_Dense/residual.weight", &[10, HIDDEN]),
            pooled("sentence_embedding float [batch_size, 10]"),
        ),
    ]
}

fn title(m: &Model) -> String {
    m.config["architectures"].to_string()
}

#[test]
fn graphs_are_well_formed_for_all_operators_and_floats() {
    for (model, wanted) in all() {
        for opset in OPSETS {
            for (float, keep) in
                [(Elem::F32, false), (Elem::F16, false), (Elem::F16, true), (Elem::BF16, false)]
            {
                let program =
                    model.build(opset, float, keep).unwrap_or_else(|e| panic!("{}: {e}", title(&model)));
                well_formed(&program, opset);
                let io = if keep { Elem::F32 } else { float };
                let wanted: Vec<String> =
                    wanted.iter().map(|s| s.replace(" float ", &format!(" {io} "))).collect();
                assert_eq!(signature(&program), wanted, "{} {float}", title(&model));
            }
        }
    }
}

#[test]
fn every_tensor_that_is_there_is_used_as_it_is_called() {
    for (model, _) in all() {
        let program = model.usual().expect("builds");
        let used: std::collections::BTreeSet<_> = program.weights.iter().map(|w| w.tensor.clone()).collect();
        let mut given: std::collections::BTreeSet<_> = model.tensors.keys().cloned().collect();
        if model.config["tie_word_embeddings"] == json!(false) {
            given.remove("cls.predictions.bias");
        }
        assert_eq!(used, given, "{}", title(&model));
        for w in &program.weights {
            let dims = &model.tensors[&w.tensor];
            let tied = w.tensor.contains("embeddings") || w.tensor.contains("relative_attention_bias");
            assert_eq!(w.transposed, dims.len() == 2 && !tied, "{}", w.tensor);
        }
    }
}

#[test]
fn a_missing_tensor_is_named() {
    for (model, _) in all() {
        for name in model.tensors.keys() {
            // What may be missing: tensors that tell names apart, and output layers that may be tied.
            if ["word_embeddings.weight", "cls_token", "predictions.bias", "predictions.decoder.weight"]
                .iter()
                .any(|n| name.ends_with(n))
                || name.ends_with("layers.0.attention.q_proj.weight")
                || name == "cls.predictions.decoder.bias"
            {
                continue;
            }
            let mut less = model.clone();
            less.tensors.remove(name);
            let e = less.refused();
            assert_eq!(e.kind(), ErrorKind::Malformed, "{name}: {e}");
            assert_eq!(e.tensor_name(), Some(name.as_str()), "{e}");
        }
    }
}

#[test]
fn a_tensor_of_another_shape_is_named() {
    for (model, _) in all() {
        for (name, dims) in &model.tensors {
            if name == "cls.predictions.bias" && model.config["tie_word_embeddings"] == json!(false) {
                continue;
            }
            let mut other = model.clone();
            let longer: Vec<u64> = dims.iter().map(|d| d + 1).collect();
            other.tensors.insert(name.clone(), longer);
            let e = other.refused();
            assert_eq!(e.kind(), ErrorKind::Mismatch, "{name}: {e}");
            assert_eq!(e.tensor_name(), Some(name.as_str()), "{e}");
        }
    }
}

#[test]
fn what_has_no_graph_is_refused_by_its_key() {
    let base = || bert("BertModel", "");
    let dense = |config: Json| {
        let pooling = ("1_Pooling", "Pooling", json!({"pooling_mode": "mean"}));
        sentence(base(), &[pooling, ("2_Dense", "Dense", config)]).linear("2_Dense/linear", 10, HIDDEN)
    };
    let cases: Vec<(Model, &str)> = vec![
        (base().set("is_decoder", json!(true)), "is_decoder"),
        (base().set("add_cross_attention", json!(true)), "add_cross_attention"),
        (base().set("position_embedding_type", json!("relative_key")), "position_embedding_type"),
        (base().set("pruned_heads", json!({"0": [1]})), "pruned_heads"),
        (base().set("hidden_act", json!("laplace")), "hidden_act"),
        (bert("BertForNextSentencePrediction", "bert."), "BertForNextSentencePrediction"),
        (bert("BertLMHeadModel", "bert."), "BertLMHeadModel"),
        (vit("ViTForMaskedImageModeling", "vit.", "encoder.layer", VIT), "ViTForMaskedImageModeling"),
        (vit("ViTModel", "", "encoder.layer", VIT).set("head_dim", json!(5)), "head_dim"),
        (base().set("model_type", json!("deberta")), "deberta"),
        (sentence(base(), &[("1_WordWeights", "WordWeights", json!({}))]), "WordWeights"),
        (sentence(base(), &[("1_Pooling", "Pooling", json!({"pooling_mode": "median"}))]), "median"),
        (
            dense(json!({"in_features": 24, "out_features": 10, "activation_function": "my.Tanh"})),
            "activation_function",
        ),
        (
            dense(json!({"in_features": 24, "out_features": 10, "module_input_name": "token_embeddings"})),
            "module_input_name",
        ),
    ];
    for (model, what) in cases {
        let e = model.refused();
        assert_eq!(e.kind(), ErrorKind::Unsupported, "{e}");
        assert!(e.to_string().contains(what), "{e}");
        assert!(e.file_name().is_some(), "{e}");
    }
    for (opset, float) in [(13, Elem::F32), (27, Elem::F32), (17, Elem::F64)] {
        let e = base().build(opset, float, false).expect_err("is refused");
        assert_eq!(e.kind(), ErrorKind::Unsupported, "{e}");
    }
}

#[test]
fn configurations_that_lie_are_refused() {
    let base = || bert("BertModel", "");
    let pooled = |c: Json| sentence(base(), &[("1_Pooling", "Pooling", c)]);
    let cases = vec![
        (base().set("num_attention_heads", json!(5)), "num_attention_heads"),
        (base().set("hidden_size", json!(0)), "hidden_size"),
        (base().set("vocab_size", json!(-1)), "vocab_size"),
        (base().set("num_hidden_layers", json!("two")), "num_hidden_layers"),
        (
            mpnet("MPNetModel", "").set("relative_attention_num_buckets", json!(8)),
            "relative_attention_num_buckets",
        ),
        (roberta("roberta", "RobertaModel", "").set("pad_token_id", json!(-1)), "pad_token_id"),
        (vit("ViTModel", "", "encoder.layer", VIT).set("image_size", json!([24, 24, 24])), "image_size"),
        (
            vit("ViTModel", "", "encoder.layer", VIT).set("image_size", json!([i64::MAX, i64::MAX])),
            "image_size",
        ),
        (base().file("modules.json", &json!({"0": 1})), "modules"),
        (base().file("modules.json", &json!([{"type": "x.Pooling", "path": "../1"}])), "leads out"),
        (sentence(base(), &[("1_Pooling", "Pooling", Json::Null)]), "not there"),
        (pooled(json!([1])), "configuration"),
    ];
    for (model, what) in cases {
        let e = model.refused();
        assert_eq!(e.kind(), ErrorKind::Malformed, "{e}");
        assert!(e.to_string().contains(what), "{what}: {e}");
    }
    // As many layers as can be counted end at the first that is not there.
    let e = base().set("num_hidden_layers", json!(i64::MAX)).refused();
    assert_eq!(e.tensor_name(), Some("encoder.layer.2.attention.self.query.weight"));
}

#[test]
fn every_activation_has_a_graph() {
    let names = [
        "gelu",
        "gelu_python",
        "gelu_10",
        "gelu_new",
        "gelu_fast",
        "gelu_accurate",
        "gelu_pytorch_tanh",
        "gelu_python_tanh",
        "quick_gelu",
        "relu",
        "relu2",
        "relu6",
        "leaky_relu",
        "silu",
        "swish",
        "mish",
        "hardswish",
        "sigmoid",
        "tanh",
        "linear",
    ];
    for name in names {
        for opset in OPSETS {
            for float in [Elem::F32, Elem::BF16] {
                let model = bert("BertModel", "").set("hidden_act", json!(name));
                well_formed(&model.build(opset, float, false).expect(name), opset);
            }
        }
    }
}

#[test]
fn old_names_of_norms_are_known() {
    let mut model = bert("BertModel", "");
    model.tensors = std::mem::take(&mut model.tensors)
        .into_iter()
        .map(|(k, d)| {
            (k.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"), d)
        })
        .collect();
    let program = model.usual().expect("builds");
    assert!(program.weights.iter().any(|w| w.tensor == "encoder.layer.1.output.LayerNorm.gamma"));
    well_formed(&program, 17);
}

#[test]
fn nodes_are_called_as_modules_are() {
    let program = bert("BertModel", "").usual().expect("builds");
    for name in [
        "/embeddings/word_embeddings/Gather",
        "/encoder/layer.0/attention/self/query/MatMul",
        "/encoder/layer.0/attention/self/Softmax",
        "/encoder/layer.1/intermediate/Erf",
        "/encoder/layer.1/output/LayerNorm/LayerNormalization",
    ] {
        assert!(program.graph.nodes.iter().any(|n| n.name == name), "{name}");
    }
}
