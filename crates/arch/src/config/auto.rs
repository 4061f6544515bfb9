//! What transformers' `AutoConfig` makes of a config.json: defaults for absent keys, renamed keys, rope
//! settings gathered in `rope_parameters`.
//!
//! Field tables are extracted (`data/configs.json`); the few rules that are code there are code here. Where
//! transformers would refuse the file the result is `None`: the peer then takes the plain JSON.

use serde_json::{Map, Value, json};
use std::sync::OnceLock;
use tensormill_model::{Error, Result};

type Object = Map<String, Value>;

fn tables() -> &'static Value {
    static TABLES: OnceLock<Value> = OnceLock::new();
    TABLES.get_or_init(|| {
        serde_json::from_str(include_str!("../../data/configs.json"))
            .expect("an extracted table is valid JSON")
    })
}

/// The config as `AutoConfig.from_pretrained(...).to_dict()` gives it, or `None` where that fails.
pub(super) fn normalise(raw: &Object) -> Result<Option<Object>> {
    let Some(model_type) = raw.get("model_type").and_then(Value::as_str) else { return Ok(None) };
    let Some(table) = tables()["models"].get(model_type) else { return Ok(None) };
    let mut out = Object::new();
    let mut extra = raw.clone();
    let map = &table["attribute_map"];
    let stored = |name: &str| map.get(name).and_then(Value::as_str).unwrap_or(name).to_owned();
    for field in table["fields"].as_array().into_iter().flatten() {
        let (Some(name), default, Some(kind)) = (field[0].as_str(), &field[1], field[2].as_str()) else {
            continue;
        };
        let value = extra.shift_remove(name).unwrap_or_else(|| default.clone());
        if !type_fits(kind, &value) && name != "rope_parameters" {
            return Ok(None);
        }
        out.insert(stored(name), value);
    }
    extra.shift_remove("model_type");

    // Composite configs: the text part is a config of its own.
    if model_type == "gemma3" {
        let mut text = match extra.shift_remove("text_config") {
            None | Some(Value::Null) => Object::new(),
            Some(Value::Object(o)) => o,
            Some(_) => return Ok(None),
        };
        text.insert("model_type".to_owned(), json!("gemma3_text"));
        let Some(text) = normalise(&text)? else { return Ok(None) };
        out.insert("text_config".to_owned(), Value::Object(text));
    }

    if !class_rules(model_type, &mut out, &extra) {
        return Ok(None);
    }
    if let Some(dtype) = extra.shift_remove("torch_dtype")
        && out.get("dtype").is_none_or(Value::is_null)
    {
        out.insert("dtype".to_owned(), dtype);
    }
    labels(&mut out, &extra)?;
    if table["rope"] == json!(true) && !rope(model_type, table, &mut out, &mut extra) {
        return Ok(None);
    }
    for key in tables()["generation"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        extra.shift_remove(key);
    }
    for key in [
        "name_or_path",
        "_commit_hash",
        "output_attentions",
        "attn_implementation",
        "experts_implementation",
        "num_labels",
    ] {
        extra.shift_remove(key);
    }
    for (key, value) in extra {
        out.insert(stored(&key), value);
    }
    out.insert("model_type".to_owned(), json!(model_type));
    Ok(valid(model_type, &out).then_some(out))
}

/// Whether a value has the declared type; Python's `bool` is no `int` here, and `int` no `float`.
fn type_fits(kind: &str, v: &Value) -> bool {
    kind == "any"
        || kind.split('|').any(|k| match k {
            "none" => v.is_null(),
            "bool" => v.is_boolean(),
            "str" => v.is_string(),
            "int" => v.is_i64() || v.is_u64(),
            "float" => v.is_f64(),
            _ => false,
        })
}

/// What the classes' own `__post_init__` does; false where it would raise.
fn class_rules(model_type: &str, out: &mut Object, extra: &Object) -> bool {
    let null = |o: &Object, key: &str| o.get(key).is_none_or(Value::is_null);
    if matches!(model_type, "llama" | "mistral") && null(out, "head_dim") {
        let int = |key: &str| out.get(key).and_then(Value::as_i64);
        let (Some(hidden), Some(heads)) = (int("hidden_size"), int("num_attention_heads")) else {
            return false;
        };
        if heads <= 0 {
            return false;
        }
        out.insert("head_dim".to_owned(), json!(hidden.div_euclid(heads)));
    }
    if out.contains_key("num_key_value_heads") && null(out, "num_key_value_heads") {
        let heads = out.get("num_attention_heads").cloned().unwrap_or_default();
        out.insert("num_key_value_heads".to_owned(), heads);
    }
    if out.get("use_sliding_window") == Some(&json!(false)) {
        out.insert("sliding_window".to_owned(), Value::Null);
    }
    if model_type == "gemma3_text" && out.get("use_bidirectional_attention") == Some(&json!(true)) {
        // Halved when read and doubled when written out again.
        let Some(window) = out.get("sliding_window").and_then(Value::as_i64) else { return false };
        out.insert("sliding_window".to_owned(), json!(window.div_euclid(2).saturating_mul(2)));
    }
    if model_type == "gemma3_text" && extra.get("sliding_window_pattern") == Some(&json!(0)) {
        return false;
    }
    true
}

/// `id2label` and `num_labels`: dummy labels where there are none.
fn labels(out: &mut Object, extra: &Object) -> Result<()> {
    let asked = extra.get("num_labels").and_then(Value::as_u64);
    let have = out.get("id2label").and_then(Value::as_object).map(|o| o.len() as u64);
    let want = asked.or(have).unwrap_or(2);
    if have != Some(want) {
        if want > 1 << 16 {
            return Err(Error::over_limit(format!("num_labels is {want}")).file("config.json"));
        }
        let dummy: Object = (0..want).map(|i| (i.to_string(), json!(format!("LABEL_{i}")))).collect();
        out.insert("id2label".to_owned(), Value::Object(dummy));
    }
    Ok(())
}

fn object<'a>(o: &'a mut Object, key: &str) -> Option<&'a mut Object> {
    let slot = o.entry(key.to_owned()).or_insert(Value::Null);
    if slot.is_null() {
        *slot = json!({ "rope_type": "default" });
    }
    slot.as_object_mut()
}

/// `convert_rope_params_to_dict` and `standardize_rope_params`; false where they would raise.
fn rope(model_type: &str, table: &Value, out: &mut Object, extra: &mut Object) -> bool {
    let scaling = extra.shift_remove("rope_scaling").filter(|v| !v.is_null());
    let truthy = |v: &Value| v.as_object().is_none_or(|o| !o.is_empty());
    let given = out.get("rope_parameters").filter(|v| !v.is_null()).cloned();
    let mut rope = if model_type == "gemma3_text" {
        let Value::Object(mut rope) = given.unwrap_or_else(|| json!({})) else { return false };
        let theta = &table["default_theta"];
        if rope.is_empty() || scaling.is_some() || !rope.contains_key("full_attention") {
            let Some(full) = object(&mut rope, "full_attention") else { return false };
            match scaling {
                None => {}
                Some(Value::Object(s)) => full.extend(s),
                Some(_) => return false,
            }
        }
        let global = extra.shift_remove("rope_theta").unwrap_or_else(|| theta["global"].clone());
        let local = extra.shift_remove("rope_local_base_freq").unwrap_or_else(|| theta["local"].clone());
        for (key, theta) in [("full_attention", global), ("sliding_attention", local)] {
            let Some(part) = object(&mut rope, key) else { return false };
            part.entry("rope_theta").or_insert(theta);
        }
        rope
    } else {
        let given = scaling.filter(truthy).or(given).unwrap_or_else(|| json!({}));
        let Value::Object(mut rope) = given else { return false };
        let theta = extra.shift_remove("rope_theta").unwrap_or_else(|| table["default_theta"].clone());
        let partial = if model_type == "phi3" {
            Some(extra.get("partial_rotary_factor").cloned().unwrap_or_else(|| json!(1.0)))
        } else {
            extra.shift_remove("partial_rotary_factor").filter(|v| !v.is_null())
        };
        for part in parts(&mut rope, out) {
            part.entry("rope_theta").or_insert_with(|| theta.clone());
            if let Some(p) = &partial {
                part.entry("partial_rotary_factor").or_insert_with(|| p.clone());
            }
        }
        rope
    };
    let original = out.get("original_max_position_embeddings").cloned();
    let positions = out.get("max_position_embeddings").cloned().unwrap_or_default();
    let nested = !nested_keys(&rope, out).is_empty();
    for part in parts(&mut rope, out) {
        let kind = part.get("type").cloned().unwrap_or_else(|| json!("default"));
        let kind = part.entry("rope_type").or_insert(kind).clone();
        if matches!(kind.as_str(), Some("llama3" | "yarn" | "longrope")) {
            match &original {
                Some(v) if !nested => {
                    part.insert("original_max_position_embeddings".to_owned(), v.clone());
                }
                _ => {
                    part.entry("original_max_position_embeddings").or_insert_with(|| positions.clone());
                }
            }
        }
        if model_type == "phi3" && matches!(part["rope_type"].as_str(), Some("su" | "yarn")) {
            part.insert("rope_type".to_owned(), json!("longrope"));
        }
    }
    out.insert("rope_parameters".to_owned(), Value::Object(rope));
    true
}

/// The layer types that rope settings are nested under.
fn nested_keys(rope: &Object, out: &Object) -> Vec<String> {
    const USUAL: [&str; 2] = ["full_attention", "sliding_attention"];
    // Configs without the field declare no types; absent values default to a list made of the usual two.
    let labels: Vec<&str> = match out.get("layer_types") {
        None => return Vec::new(),
        Some(Value::Array(a)) => a.iter().filter_map(Value::as_str).collect(),
        Some(_) => USUAL.to_vec(),
    };
    rope.keys().filter(|k| labels.contains(&k.as_str())).cloned().collect()
}

/// The dictionaries that hold settings: the nested ones, or the whole.
fn parts<'a>(rope: &'a mut Object, out: &Object) -> Vec<&'a mut Object> {
    let nested = nested_keys(rope, out);
    if nested.is_empty() {
        return vec![rope];
    }
    rope.iter_mut().filter(|(k, _)| nested.contains(k)).filter_map(|(_, v)| v.as_object_mut()).collect()
}

/// The class validators that a usable file can fail.
fn valid(model_type: &str, out: &Object) -> bool {
    let int = |key: &str| out.get(key).and_then(Value::as_i64);
    let (hidden, heads) = (int("hidden_size"), int("num_attention_heads"));
    if matches!(model_type, "llama" | "gemma2" | "gemma3_text")
        && let (Some(hidden), Some(heads)) = (hidden, heads)
        && (heads == 0 || hidden % heads != 0)
    {
        return false;
    }
    if let (Some(Value::Array(types)), Some(layers)) = (out.get("layer_types"), int("num_hidden_layers"))
        && types.len() as i64 != layers
    {
        return false;
    }
    let Some(Value::Object(rope)) = out.get("rope_parameters") else { return true };
    let mut rope = rope.clone();
    parts(&mut rope, out).into_iter().all(|part| {
        let kind = part.get("rope_type").and_then(Value::as_str).unwrap_or_default().to_owned();
        let required: &[&str] = match kind.as_str() {
            "linear" | "dynamic" => &["factor"],
            "yarn" => &["factor", "original_max_position_embeddings"],
            "longrope" => &["short_factor", "long_factor", "original_max_position_embeddings"],
            "llama3" => &[
                "factor",
                "original_max_position_embeddings",
                "low_freq_factor",
                "high_freq_factor",
                "rope_theta",
            ],
            _ => &[],
        };
        required.iter().all(|k| part.contains_key(*k))
            && (model_type != "phi3" || phi3_rope(part, &kind, hidden, heads))
    })
}

/// `Phi3Config.validate_rope`.
fn phi3_rope(part: &Object, kind: &str, hidden: Option<i64>, heads: Option<i64>) -> bool {
    let (Some(hidden), Some(heads @ 1..)) = (hidden, heads) else { return false };
    let partial = part.get("partial_rotary_factor").and_then(Value::as_f64).unwrap_or(1.0);
    let half = ((hidden / heads) as f64 * partial) as i64 / 2;
    let fits = |key: &str| match part.get(key) {
        None | Some(Value::Null) => true,
        Some(Value::Array(a)) => a.iter().all(Value::is_number) && a.len() as i64 == half,
        Some(_) => false,
    };
    matches!(kind, "default" | "longrope") && fits("short_factor") && fits("long_factor")
}
