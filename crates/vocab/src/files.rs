//! The small JSON files of a tokenizer folder, read once. `tokenizer.json` has its own module: it may be large.
//!
//! Must not know what the values mean; only that each file, where present, is a JSON object.

use crate::tokenizer_json::TokenizerJson;
use serde_json::{Map, Value as Json};
use tensormill_model::{Assets, Error, Result};

/// Side files of a tokenizer, parsed.
pub struct Files {
    /// `config.json`.
    pub config: Json,
    /// `tokenizer_config.json`.
    pub tokenizer_config: Option<Map<String, Json>>,
    /// `special_tokens_map.json`.
    pub special_tokens_map: Option<Map<String, Json>>,
    /// `added_tokens.json`.
    pub added_tokens: Option<Map<String, Json>>,
    /// `tokenizer.json`, without its vocabulary and merges.
    pub tokenizer_json: Option<TokenizerJson>,
    /// `merges.txt`, read only where `tokenizer.json` has no merges.
    pub merges_txt: Option<String>,
    /// The chat template(s) of `chat_template.jinja` (with its siblings) or `chat_template.json`.
    pub chat_template: Option<Json>,
}

impl Files {
    /// Reads what is there.
    pub fn read(assets: &dyn Assets, config: &Json) -> Result<Self> {
        let tokenizer_json = match assets.read("tokenizer.json")? {
            Some(bytes) => Some(TokenizerJson::parse(&bytes).map_err(|e| e.file("tokenizer.json"))?),
            None => None,
        };
        let has_merges = tokenizer_json.as_ref().is_some_and(TokenizerJson::has_merges);
        let merges_txt = match assets.read("merges.txt")? {
            Some(bytes) if !has_merges => Some(text(bytes, "merges.txt")?),
            _ => None,
        };
        Ok(Self {
            config: config.clone(),
            tokenizer_config: object(assets, "tokenizer_config.json")?,
            special_tokens_map: object(assets, "special_tokens_map.json")?,
            added_tokens: object(assets, "added_tokens.json")?,
            tokenizer_json,
            merges_txt,
            chat_template: crate::chat::side_templates(assets)?,
        })
    }

    /// A key of `tokenizer_config.json`.
    pub fn setting(&self, key: &str) -> Option<&Json> {
        self.tokenizer_config.as_ref()?.get(key)
    }
}

/// A file that must be a JSON object, where it is present.
pub fn object(assets: &dyn Assets, name: &str) -> Result<Option<Map<String, Json>>> {
    let Some(bytes) = assets.read(name)? else { return Ok(None) };
    match serde_json::from_slice(&bytes) {
        Ok(Json::Object(map)) => Ok(Some(map)),
        Ok(_) => Err(Error::malformed("expected a JSON object").file(name)),
        Err(e) => Err(Error::malformed(format!("not valid JSON: {e}")).file(name)),
    }
}

/// A file that must be UTF-8.
pub fn text(bytes: Vec<u8>, name: &str) -> Result<String> {
    String::from_utf8(bytes).map_err(|e| {
        let at = e.utf8_error().valid_up_to() as u64;
        Error::malformed("not valid UTF-8").at(at).file(name)
    })
}
