//! `config.json`, read with errors that name the key.

use serde_json::{Map, Value};
use tensormill_model::{Error, Result};

/// A model's configuration.
#[derive(Clone, Debug)]
pub struct Config(Map<String, Value>);

impl Config {
    /// Takes the object.
    pub fn new(map: Map<String, Value>) -> Self {
        Self(map)
    }

    /// What kind of model it is.
    ///
    /// # Errors
    /// Where it does not say so.
    pub fn model_type(&self) -> Result<&str> {
        self.text("model_type")?.ok_or_else(|| self.bad("model_type", "is missing"))
    }

    /// The value under a key, null like nothing.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key).filter(|v| !v.is_null())
    }

    /// Whether a key is there at all: null says that there is nothing, a missing key means the usual value.
    pub fn mentions(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    /// An error about a key.
    #[allow(clippy::unused_self, reason = "reads as what it is about")]
    pub fn bad(&self, key: &str, what: &str) -> Error {
        Error::malformed(format!("{key} {what}")).file("config.json")
    }

    /// An error about a value that is well-formed, but that no graph can be built for.
    #[allow(clippy::unused_self, reason = "reads as what it is about")]
    pub fn unsupported(&self, key: &str, what: &str) -> Error {
        Error::unsupported(format!("{key} {what}")).file("config.json")
    }

    /// A number that must be there and positive.
    ///
    /// # Errors
    /// Where it is not.
    pub fn count(&self, key: &str) -> Result<u64> {
        self.maybe_count(key)?.ok_or_else(|| self.bad(key, "is missing"))
    }

    /// A number that must be positive where it is there.
    ///
    /// # Errors
    /// Where it is anything else.
    pub fn maybe_count(&self, key: &str) -> Result<Option<u64>> {
        let Some(v) = self.get(key) else { return Ok(None) };
        let n = v.as_u64().filter(|n| (1..=i64::MAX as u64).contains(n));
        n.map(Some).ok_or_else(|| self.bad(key, &format!("is {v}, which is no positive number")))
    }

    /// The number of a token that must be there or have a usual one.
    ///
    /// # Errors
    /// Where it is no token's.
    pub fn token(&self, key: &str, usual: i64) -> Result<i64> {
        let Some(v) = self.get(key) else { return Ok(usual) };
        v.as_i64()
            .filter(|n| *n >= 0)
            .ok_or_else(|| self.bad(key, &format!("is {v}, which is no token's number")))
    }

    /// Number of classes: as many as `id2label` names, two where nothing is said.
    ///
    /// # Errors
    /// Where it is no number.
    pub fn labels(&self) -> Result<u64> {
        match self.get("id2label") {
            Some(Value::Object(names)) => Ok(names.len() as u64),
            Some(v) => Err(self.bad("id2label", &format!("is {v}, which is no object"))),
            None => Ok(self.maybe_count("num_labels")?.unwrap_or(2)),
        }
    }

    /// A real number, `usual` where there is none.
    ///
    /// # Errors
    /// Where it is no number.
    pub fn real(&self, key: &str, usual: f64) -> Result<f64> {
        match self.get(key) {
            None => Ok(usual),
            Some(v) => v.as_f64().ok_or_else(|| self.bad(key, &format!("is {v}, which is no number"))),
        }
    }

    /// A switch, `usual` where there is none.
    ///
    /// # Errors
    /// Where it is no switch.
    pub fn switch(&self, key: &str, usual: bool) -> Result<bool> {
        match self.get(key) {
            None => Ok(usual),
            Some(v) => v.as_bool().ok_or_else(|| self.bad(key, &format!("is {v}, neither true nor false"))),
        }
    }

    /// A text.
    ///
    /// # Errors
    /// Where it is no text.
    pub fn text(&self, key: &str) -> Result<Option<&str>> {
        match self.get(key) {
            None => Ok(None),
            Some(v) => {
                v.as_str().map(Some).ok_or_else(|| self.bad(key, &format!("is {v}, which is no text")))
            }
        }
    }

    /// The first class name under `architectures`.
    pub fn architecture(&self) -> Option<&str> {
        self.get("architectures")?.get(0)?.as_str()
    }
}
