//! What is checked before a file's parts are handed to the `tokenizers` crate, which trusts them.
//!
//! That crate indexes and slices by what a file says in a few places (a merge longer than every token, a template
//! naming a token it does not define, a broken character map). The known ones are refused here with their own
//! messages; [`contained`] turns any other panic into an error.
//!
//! Must not know what a vocabulary becomes.

use serde_json::Value as Json;
use std::panic::{AssertUnwindSafe, catch_unwind};
use tensormill_model::{Error, Result};

/// How much a chain of replacements may lengthen a text, as a power of two.
const GROWTH_BITS: f64 = 16.0;

/// Steps of templates: each puts a whole text or a token into the result.
const MAX_STEPS: usize = 64;

/// Runs a call into the library.
pub fn contained<T>(what: &str, call: impl FnOnce() -> tokenizers::Result<T>) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(v)) => Ok(v),
        Ok(Err(e)) => Err(Error::malformed(format!("{what}: {e}"))),
        Err(_) => Err(Error::malformed(format!("{what}: the tokenizer library failed on this file"))),
    }
}

/// Every merge joins two tokens of the vocabulary to a third.
pub fn merges<'a>(
    has: impl Fn(&str) -> bool,
    merges: impl IntoIterator<Item = (&'a str, &'a str)>,
    prefix: &str,
) -> Result<()> {
    let mut joined = String::new();
    for (a, b) in merges {
        joined.clear();
        joined.push_str(a);
        joined.push_str(b.strip_prefix(prefix).unwrap_or(b));
        let missing = [a, b, &joined].into_iter().find(|t| !has(t));
        if missing.is_some() || !b.starts_with(prefix) {
            return Err(Error::malformed(format!(
                "merges and vocabulary disagree: {a:?} with {b:?} needs the token {:?}",
                missing.unwrap_or(&joined)
            )));
        }
    }
    Ok(())
}

/// A component's templates name only tokens they define, and its replacements do not multiply without end.
pub fn component(what: &str, v: &Json) -> Result<()> {
    let mut bits = 0.0;
    walk(what, v, &mut bits)?;
    if bits > GROWTH_BITS {
        return Err(Error::over_limit(format!(
            "{what}: its replacements could lengthen a text 2^{bits:.0} times"
        )));
    }
    Ok(())
}

/// Nesting is bounded by the JSON reader.
fn walk(what: &str, v: &Json, bits: &mut f64) -> Result<()> {
    match v {
        Json::Object(o) => {
            match o.get("type").and_then(Json::as_str) {
                Some("Replace") => {
                    let len = o.get("content").and_then(Json::as_str).map_or(0, str::len);
                    *bits += (len.max(1) as f64).log2();
                }
                Some("TemplateProcessing") => {
                    let template = |key: &str| o.get(key).and_then(Json::as_array).into_iter().flatten();
                    let sequence = |s: &Json| s.get("Sequence")?.get("id")?.as_str().map(str::to_owned);
                    if template("single").filter_map(sequence).any(|id| id != "A") {
                        return Err(Error::malformed(format!(
                            "{what}: its template for one text asks for a second one"
                        )));
                    }
                    if template("single").chain(template("pair")).count() > MAX_STEPS {
                        return Err(Error::over_limit(format!(
                            "{what}: its templates have more than {MAX_STEPS} steps"
                        )));
                    }
                    let steps = template("single").chain(template("pair"));
                    for id in steps.filter_map(|s| s.get("SpecialToken")?.get("id")?.as_str()) {
                        if o.get("special_tokens").and_then(|t| t.get(id)).is_none() {
                            return Err(Error::malformed(format!(
                                "{what}: its template names {id:?} without an id"
                            )));
                        }
                    }
                }
                _ => {}
            }
            o.values().try_for_each(|v| walk(what, v, bits))
        }
        Json::Array(a) => a.iter().try_for_each(|v| walk(what, v, bits)),
        _ => Ok(()),
    }
}
