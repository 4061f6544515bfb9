//! Graphs of decoders as data: nothing is run. What they compute is checked beside transformers by the generators under golden/.

mod common;
mod decoder;
mod typed;

use decoder::{Asked, Decoder, check};
use serde_json::{Value, json};
use tensormill_export::{Form, genai_config};
use tensormill_graph::{Content, Dim, Elem, Program, Tensor};
use tensormill_tensor::ulp_distance_f32;

const FORMS: [Form; 2] = [Form::Standard, Form::Contrib];

fn models() -> Vec<Decoder> {
    let window = json!({"use_sliding_window": true, "sliding_window": 5, "max_window_layers": 1});
    [
        ("LlamaForCausalLM", json!({})),
        ("LlamaForCausalLM", json!({"attention_bias": true, "mlp_bias": true, "hidden_act": "gelu"})),
        ("LlamaForCausalLM", json!({"tie_word_embeddings": true})),
        ("LlamaForCausalLM", json!({"rope_scaling": {"type": "yarn", "factor": 4.0}})),
        ("MistralForCausalLM", json!({"sliding_window": 4})),
        ("Qwen2ForCausalLM", window.clone()),
        ("Qwen3ForCausalLM", window),
        ("Qwen3ForCausalLM", json!({"attention_bias": true, "tie_word_embeddings": true})),
    ]
    .map(|(class, said)| Decoder::new(class, &said))
    .into()
}

fn all_asked() -> impl Iterator<Item = Asked> {
    let floats = [(Elem::F32, false), (Elem::F16, false), (Elem::F16, true), (Elem::BF16, true)];
    FORMS.into_iter().flat_map(move |form| {
        [14, 17, 18, 20, 23, 26].into_iter().flat_map(move |opset| {
            floats.map(|(float, keep_io_types)| Asked { form, opset, float, keep_io_types })
        })
    })
}

fn contrib() -> Asked {
    Asked { form: Form::Contrib, ..Asked::default() }
}

fn initializer<'a>(program: &'a Program, name: &str) -> &'a Tensor {
    program.graph.initializers.iter().find(|t| t.name == name).unwrap_or_else(|| panic!("{name} is there"))
}

fn floats(tensor: &Tensor) -> Vec<f32> {
    let Content::Raw(bytes) = &tensor.content else { panic!("{} is known", tensor.name) };
    assert_eq!(tensor.elem, Elem::F32, "{}", tensor.name);
    bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

#[test]
fn graphs_are_well_formed_in_every_form_version_and_type() {
    let heads =
        ["LlamaModel", "Qwen3Model", "Qwen2ForSequenceClassification", "MistralForSequenceClassification"];
    for asked in all_asked() {
        for model in models() {
            let program = model.build(asked).unwrap();
            check(&program, &model.tensors);
        }
        for class in heads.into_iter().filter(|_| asked.form == Form::Standard) {
            for said in [json!({}), json!({"pad_token_id": 0, "sliding_window": 3})] {
                let model = Decoder::new(class, &said);
                let program = model.build(asked).unwrap();
                check(&program, &model.tensors);
            }
        }
    }
}

#[test]
fn inputs_and_outputs_are_called_and_typed_as_runtimes_expect() {
    let text = |d: Dim| match d {
        Dim::Known(n) => n.to_string(),
        Dim::Named(name) => name,
        Dim::Unknown => "?".to_owned(),
    };
    let list = |values: &[tensormill_graph::ValueInfo]| -> Vec<String> {
        let one = |v: &tensormill_graph::ValueInfo| {
            let dims: Vec<String> = v.dims().unwrap().into_iter().map(text).collect();
            format!("{} {} [{}]", v.name, v.elem().unwrap(), dims.join(", "))
        };
        values.iter().filter(|v| !v.name.contains(".1.") && !v.name.contains(".2.")).map(one).collect()
    };
    let model = Decoder::new("LlamaForCausalLM", &json!({}));
    let kept = Asked { float: Elem::F16, keep_io_types: true, ..Asked::default() };
    for (asked, float, total) in [
        (Asked::default(), "float", "past_sequence_length + sequence_length"),
        (Asked { float: Elem::F16, ..Asked::default() }, "float16", "past_sequence_length + sequence_length"),
        (kept, "float", "past_sequence_length + sequence_length"),
        (contrib(), "float", "total_sequence_length"),
    ] {
        let graph = model.build(asked).unwrap().graph;
        let mut inputs = vec![
            "input_ids int64 [batch_size, sequence_length]".to_owned(),
            format!("attention_mask int64 [batch_size, {total}]"),
            "position_ids int64 [batch_size, sequence_length]".to_owned(),
            format!("past_key_values.0.key {float} [batch_size, 2, past_sequence_length, 16]"),
            format!("past_key_values.0.value {float} [batch_size, 2, past_sequence_length, 16]"),
        ];
        if asked.form == Form::Contrib {
            inputs.remove(2);
        }
        assert_eq!(list(&graph.inputs), inputs);
        let outputs = [
            format!("logits {float} [batch_size, sequence_length, 96]"),
            format!("present.0.key {float} [batch_size, 2, {total}, 16]"),
            format!("present.0.value {float} [batch_size, 2, {total}, 16]"),
        ];
        assert_eq!(list(&graph.outputs), outputs);
    }
    let bare = Decoder::new("Qwen2Model", &json!({})).build(Asked::default()).unwrap().graph;
    assert_eq!(list(&bare.inputs).len(), 2);
    assert_eq!(list(&bare.outputs), ["last_hidden_state float [batch_size, sequence_length, 24]"]);
    let classes = Decoder::new("Qwen2ForSequenceClassification", &json!({})).build(Asked::default()).unwrap();
    assert_eq!(list(&classes.graph.outputs), ["logits float [batch_size, 2]"]);
}

#[test]
fn nodes_are_called_after_modules() {
    let program = Decoder::new("LlamaForCausalLM", &json!({})).build(Asked::default()).unwrap();
    for name in
        ["/model/layers.0/self_attn/q_proj/MatMul", "/model/layers.2/mlp/down_proj/MatMul", "/lm_head/MatMul"]
    {
        assert!(program.graph.nodes.iter().any(|n| n.name == name), "{name}");
    }
}

#[test]
fn a_tied_head_is_the_table_of_embeddings_as_it_stands() {
    for form in FORMS {
        let asked = Asked { form, ..Asked::default() };
        let program =
            Decoder::new("LlamaForCausalLM", &json!({"tie_word_embeddings": true})).build(asked).unwrap();
        let table = "model.embed_tokens.weight";
        let weights: Vec<_> = program.weights.iter().filter(|w| w.tensor == table).collect();
        assert!(weights.len() == 1 && !weights[0].transposed);
        let readers: Vec<&str> = (program.graph.nodes.iter())
            .filter(|n| n.inputs.iter().any(|i| i == table))
            .map(|n| n.op.as_str())
            .collect();
        assert_eq!(readers, ["Gather", "Gemm"]);
    }
}

/// Sliding windows by layer.
fn windows(model: &Decoder) -> Vec<Option<i64>> {
    let program = model.build(contrib()).unwrap();
    let nodes = program.graph.nodes.iter().filter(|n| n.op == "GroupQueryAttention");
    nodes.map(|n| n.int("local_window_size").filter(|w| *w != -1)).collect()
}

#[test]
fn layers_have_the_windows_that_the_configuration_gives_them() {
    let on = json!({"use_sliding_window": true, "sliding_window": 5});
    let with = |more: Value| {
        let mut said = on.clone();
        said.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        windows(&Decoder::new("Qwen2ForCausalLM", &said))
    };
    assert_eq!(with(json!({"max_window_layers": 1})), [None, Some(5), Some(5)]);
    assert_eq!(with(json!({"max_window_layers": 0})), [Some(5); 3]);
    assert_eq!(with(json!({})), [None; 3], "28 layers see everything where nothing is said");
    let types = json!({"layer_types": ["sliding_attention", "full_attention", "sliding_attention"]});
    assert_eq!(with(types), [Some(5), None, Some(5)]);
    assert_eq!(with(json!({"use_sliding_window": false, "max_window_layers": 0})), [None; 3]);

    assert_eq!(windows(&Decoder::new("MistralForCausalLM", &json!({"sliding_window": 4}))), [Some(4); 3]);
    assert_eq!(windows(&Decoder::new("MistralForCausalLM", &json!({"sliding_window": null}))), [None; 3]);
    assert_eq!(windows(&Decoder::new("LlamaForCausalLM", &json!({"sliding_window": 4}))), [None; 3]);
    let mut usual = Decoder::new("MistralForCausalLM", &json!({}));
    usual.config.shift_remove("sliding_window");
    assert_eq!(windows(&usual), [Some(4096); 3]);
    // One mask for each window, not for each layer.
    let masks = |model: &Decoder| {
        let program = model.build(Asked::default()).unwrap();
        program.graph.nodes.iter().filter(|n| n.op == "Where").count()
    };
    assert_eq!(masks(&Decoder::new("Qwen2ForCausalLM", &json!({}))), 1);
    let mut two = on.clone();
    two["max_window_layers"] = 1.into();
    assert_eq!(masks(&Decoder::new("Qwen2ForCausalLM", &two)), 2);
}

#[test]
fn frequencies_are_those_of_transformers() {
    let rows: Vec<Value> = serde_json::from_str(include_str!("../../../golden/onnx/rope.json")).unwrap();
    assert!(rows.len() > 12);
    let mut worst = 0;
    for row in rows {
        let name = row["name"].as_str().unwrap();
        let mut model = Decoder::new("LlamaForCausalLM", &json!({}));
        model.config.shift_remove("rope_theta");
        model.config.extend(row["config"].as_object().unwrap().clone());
        // Shapes do not matter to frequencies, but to the graph.
        let dim = row["head_dim"].as_u64().unwrap();
        model.config.insert("head_dim".to_owned(), dim.into());
        for (tensor, shape) in &mut model.tensors {
            let dims = match tensor.split('.').nth_back(1).unwrap() {
                "q_proj" => vec![4 * dim, 24],
                "k_proj" | "v_proj" => vec![2 * dim, 24],
                "o_proj" => vec![24, 4 * dim],
                _ => continue,
            };
            *shape = tensormill_tensor::Shape::new(dims).unwrap();
        }
        let program = model.build(Asked::default()).unwrap();
        let found = floats(initializer(&program, "rotary_emb.inv_freq"));
        let expected: Vec<f32> =
            row["inverse"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect();
        assert_eq!(found.len(), expected.len(), "{name}");
        for (i, (x, y)) in found.iter().zip(&expected).enumerate() {
            let ulps = ulp_distance_f32(*x, *y);
            worst = worst.max(ulps);
            assert!(ulps <= 1, "{name}: frequency {i} is {x}, not {y}");
        }
        let factor = row["factor"].as_f64().unwrap() as f32;
        let factors: Vec<&str> = (program.graph.nodes.iter())
            .filter(|n| n.name.starts_with("/rotary_emb/Mul_"))
            .map(|n| n.inputs[1].as_str())
            .collect();
        if factor == 1.0 {
            assert!(factors.is_empty(), "{name}");
        } else {
            assert_eq!(factors.len(), 2, "{name}");
            assert_eq!(floats(initializer(&program, factors[0])), [factor], "{name}");
        }
    }
    println!("frequencies differ from transformers' by {worst} units in the last place at most");
}

#[test]
fn tables_of_cosines_and_sines_are_as_long_as_the_model_says_up_to_a_bound() {
    let said = json!({"rope_scaling": {"type": "yarn", "factor": 4.0, "attention_factor": 0.5}});
    let model = Decoder::new("LlamaForCausalLM", &said);
    let program = model.build(contrib()).unwrap();
    let (cos, sin) = (initializer(&program, "cos_cache"), initializer(&program, "sin_cache"));
    assert_eq!((&cos.dims, &sin.dims), (&vec![64, 8], &vec![64, 8]));
    let frequencies = floats(initializer(&model.build(Asked::default()).unwrap(), "rotary_emb.inv_freq"));
    for (i, (c, s)) in floats(cos).into_iter().zip(floats(sin)).enumerate() {
        let angle = f64::from((i / 8) as f32 * frequencies[i % 8]);
        assert_eq!((c, s), (angle.cos() as f32 * 0.5, angle.sin() as f32 * 0.5), "element {i}");
    }
    let half = model.build(Asked { float: Elem::F16, ..contrib() }).unwrap();
    assert_eq!(initializer(&half, "cos_cache").elem, Elem::F16);
    let long = Decoder::new("LlamaForCausalLM", &json!({"max_position_embeddings": 1u64 << 40}));
    assert_eq!(initializer(&long.build(contrib()).unwrap(), "cos_cache").dims, [1 << 18, 8]);
}

#[test]
fn checkpoints_with_a_head_may_lack_the_prefix() {
    let mut model = Decoder::new("Qwen3ForCausalLM", &json!({"tie_word_embeddings": true}));
    let strip = |name: String| name.strip_prefix("model.").map(str::to_owned).unwrap_or(name);
    model.tensors = model.tensors.into_iter().map(|(name, shape)| (strip(name), shape)).collect();
    check(&model.build(Asked::default()).unwrap(), &model.tensors);
}

#[test]
fn errors_name_the_tensor_or_the_key() {
    let model = Decoder::new("LlamaForCausalLM", &json!({}));
    let name = "model.layers.1.mlp.up_proj.weight";
    let mut missing = model.clone();
    missing.tensors.remove(name);
    let said = missing.error(Asked::default());
    assert!(said.contains(name) && said.contains("has none"), "{said}");
    let mut wrong = model.clone();
    wrong.tensors.insert(name.to_owned(), tensormill_tensor::Shape::new(vec![24, 40]).unwrap());
    let said = wrong.error(Asked::default());
    assert!(said.contains(name) && said.contains("[40, 24]"), "{said}");
    let mut untied = model;
    untied.tensors.remove("lm_head.weight");
    assert!(untied.error(Asked::default()).contains("lm_head.weight"));

    let dynamic = json!({"rope_scaling": {"type": "dynamic", "factor": 2.0}});
    for (class, said, words) in [
        ("LlamaForCausalLM", dynamic, "length of the sequence"),
        ("LlamaForCausalLM", json!({"rope_parameters": {"rope_type": "longrope"}}), "longrope"),
        ("LlamaForCausalLM", json!({"rope_parameters": {"rope_type": "spiral"}}), "spiral"),
        ("LlamaForCausalLM", json!({"rope_parameters": {"rope_type": "linear"}}), "factor"),
        ("LlamaForCausalLM", json!({"rope_scaling": {"type": "linear", "factor": 0.0}}), "factor"),
        ("LlamaForCausalLM", json!({"rope_scaling": 4}), "rope_scaling"),
        ("LlamaForCausalLM", json!({"rope_parameters": {"full_attention": {}}}), "full_attention"),
        ("LlamaForCausalLM", json!({"partial_rotary_factor": 0.5}), "partial_rotary_factor"),
        ("LlamaForCausalLM", json!({"rope_theta": -1.0}), "rope_theta"),
        ("LlamaForCausalLM", json!({"head_dim": 5}), "head_dim"),
        ("LlamaForCausalLM", json!({"num_key_value_heads": 3}), "num_key_value_heads"),
        ("LlamaForCausalLM", json!({"head_dim": null, "num_attention_heads": 5}), "hidden_size"),
        ("LlamaForCausalLM", json!({"hidden_size": 1u64 << 60}), "more than any model has"),
        ("LlamaForCausalLM", json!({"num_hidden_layers": 1u64 << 19}), "more layers"),
        ("LlamaForCausalLM", json!({"hidden_act": "snake"}), "snake"),
        ("LlamaForCausalLM", json!({"vocab_size": null}), "vocab_size"),
        ("LlamaForCausalLM", json!({"architectures": ["LlamaForTokenClassification"]}), "LlamaForCausalLM"),
        ("LlamaForCausalLM", json!({"architectures": ["LlavaForCausalLM"]}), "LlavaForCausalLM"),
        (
            "Qwen2ForCausalLM",
            json!({"use_sliding_window": true, "layer_types": ["full_attention"]}),
            "layer_types",
        ),
        ("Qwen2ForCausalLM", json!({"layer_types": vec!["sliding_attention"; 3]}), "sliding window"),
        ("Qwen2ForCausalLM", json!({"layer_types": vec!["linear_attention"; 3]}), "linear_attention"),
    ] {
        let error = Decoder::new(class, &said).error(Asked::default());
        assert!(error.contains(words), "{said}: {error}");
    }
    let bare = Decoder::new("LlamaModel", &json!({})).error(contrib());
    assert!(bare.contains("generate text"), "{bare}");
    let small = Decoder::new("LlamaForCausalLM", &json!({"head_dim": 8})).error(contrib());
    assert!(small.contains("head_dim") && small.contains("multiple of 16"), "{small}");
    let endless = Decoder::new("LlamaForCausalLM", &json!({"max_position_embeddings": null}));
    assert!(endless.error(contrib()).contains("max_position_embeddings"));
    assert!(endless.build(Asked::default()).is_ok());
}

#[test]
fn genai_is_told_names_sizes_and_tokens() {
    let model = Decoder::new(
        "Qwen3ForCausalLM",
        &json!({"eos_token_id": [7, 8], "max_position_embeddings": 1u64 << 20}),
    );
    let generation =
        json!({"temperature": 0.6, "top_k": 20, "do_sample": true, "bos_token_id": 5, "pad_token_id": null});
    let made = genai_config(&model.config(), generation.as_object(), Form::Contrib, "model.onnx").unwrap();
    let decoder = &made["model"]["decoder"];
    assert_eq!(made["model"]["type"], "qwen3");
    assert_eq!((&made["model"]["eos_token_id"], &made["model"]["pad_token_id"]), (&json!([7, 8]), &json!(7)));
    assert_eq!(made["model"]["bos_token_id"], 5);
    assert_eq!(made["model"]["context_length"], 1 << 18, "as long as the tables");
    assert_eq!((&decoder["head_size"], &decoder["num_key_value_heads"]), (&json!(16), &json!(2)));
    assert_eq!(decoder["filename"], "model.onnx");
    assert_eq!(made["search"]["temperature"], 0.6);
    assert_eq!((&made["search"]["top_k"], &made["search"]["do_sample"]), (&json!(20), &json!(true)));
    assert_eq!(made["search"]["past_present_share_buffer"], true);

    let wide =
        Decoder::new("LlamaForCausalLM", &json!({"head_dim": 1 << 12, "max_position_embeddings": 1 << 20}));
    let made = genai_config(&wide.config(), None, Form::Contrib, "x").unwrap();
    assert_eq!(made["model"]["context_length"], 1 << 13, "tables stay within a bound");

    // Names are those of the graph, in both forms.
    for form in FORMS {
        let graph = model.build(Asked { form, ..Asked::default() }).unwrap().graph;
        let made = genai_config(&model.config(), None, form, "model.onnx").unwrap();
        for (key, values) in [("inputs", &graph.inputs), ("outputs", &graph.outputs)] {
            let names = made["model"]["decoder"][key].as_object().unwrap();
            let expected: usize =
                names.values().map(|n| if n.as_str().unwrap().contains("%d") { 3 } else { 1 }).sum();
            assert_eq!(expected, values.len(), "{key}");
            for name in names.values() {
                let name = name.as_str().unwrap().replace("%d", "2");
                assert!(values.iter().any(|v| v.name == name), "{name}");
            }
        }
    }
    let mut endless = model;
    endless.config.shift_remove("eos_token_id");
    assert!(
        genai_config(&endless.config(), None, Form::Contrib, "x")
            .unwrap_err()
            .to_string()
            .contains("eos_token_id")
    );
    let bare = Decoder::new("LlamaModel", &json!({}));
    assert!(genai_config(&bare.config(), None, Form::Contrib, "x").is_err());
}
