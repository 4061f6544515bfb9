//! The pooling layer of sentence-transformers folders (`_try_set_pooling_type` in the peer).

use crate::{hyper::Hyper, vocab::json};
use serde_json::Value;
use tensormill_model::{Error, Result};

const MEAN: u32 = 1;
const CLS: u32 = 2;
const LAST: u32 = 3;

/// Whether Python would take the value as true.
fn truthy(v: Option<&Value>) -> bool {
    match v {
        None | Some(Value::Null) => false,
        Some(Value::Bool(b)) => *b,
        Some(Value::Number(n)) => n.as_f64() != Some(0.0),
        Some(Value::String(s)) => !s.is_empty(),
        Some(Value::Array(a)) => !a.is_empty(),
        Some(Value::Object(o)) => !o.is_empty(),
    }
}

/// Writes `pooling_type` where modules.json names a pooling module.
pub(crate) fn write(h: &mut Hyper) -> Result<()> {
    if let Some(path) = pooling_module(h)? {
        let file = if path.is_empty() { "config.json".to_owned() } else { format!("{path}/config.json") };
        let pooling = json(h.assets, &file)?.ok_or_else(|| {
            Error::malformed("modules.json names this file, but it is not there").file(&file)
        })?;
        let mode = pooling.get("pooling_mode").and_then(Value::as_str);
        let on = |key| truthy(pooling.get(key));
        let code = match mode {
            _ if on("pooling_mode_mean_tokens") => MEAN,
            _ if on("pooling_mode_cls_token") => CLS,
            _ if on("pooling_mode_lasttoken") => LAST,
            Some("mean") => MEAN,
            Some("cls") => CLS,
            Some("lasttoken") => LAST,
            _ => {
                return Err(
                    Error::unsupported("a pooling that is none of mean, cls and last token").file(&file)
                );
            }
        };
        h.set("pooling_type", code);
    }
    if let Some(v) = h.config.find(&["classifier_pooling"]) {
        let code = match v.as_str() {
            Some("cls") => CLS,
            Some("mean") => MEAN,
            _ => return Err(Error::unsupported(format!("classifier_pooling {v}")).file("config.json")),
        };
        h.set("classifier.pooling_type", code);
    }
    Ok(())
}

/// The path of the first module whose type ends in `Pooling`.
fn pooling_module(h: &Hyper) -> Result<Option<String>> {
    let Some(modules) = json(h.assets, "modules.json")? else { return Ok(None) };
    let bad = |what: &str| Error::malformed(what).file("modules.json");
    for module in modules.as_array().ok_or_else(|| bad("not a list of modules"))? {
        let kind = module.get("type").and_then(Value::as_str).ok_or_else(|| bad("a module without type"))?;
        if kind.ends_with("Pooling") {
            let path = module
                .get("path")
                .and_then(Value::as_str)
                .ok_or_else(|| bad("a pooling module without path"))?;
            // The path comes from a file: it may only lead downwards.
            if path.starts_with('/') || path.contains('\\') || path.split('/').any(|p| p == "..") {
                return Err(bad("the pooling module's path leads out of the folder"));
            }
            return Ok(Some(path.trim_end_matches('/').to_owned()));
        }
    }
    Ok(None)
}
