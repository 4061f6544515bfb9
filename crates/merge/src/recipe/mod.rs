//! What a merge recipe says, from the tree of its TOML or YAML file. The keys are mergekit's (`config.py`), and one more:
//! `seed`. Every key is known: what is misspelled or not done here is refused by its name.
//!
//! Must not know where models are: they are texts here.

mod reader;

use crate::{Method, setting::Setting};
use reader::{Reader, dtype, refuse_unknown};
use serde_json::Value;
use std::collections::BTreeMap;
use tensormill_model::{Error, Result};
use tensormill_tensor::DType;

/// Parameters by name.
pub(crate) type Parameters = BTreeMap<&'static str, Setting>;

/// Most models, slices, and models in a slice.
const MOST: usize = 1000;

/// A merge recipe.
#[derive(Clone, Debug, PartialEq)]
pub struct Recipe {
    /// How models are merged.
    pub method: Method,
    /// The models, each once, as the recipe writes them; other fields hold numbers of this list.
    pub models: Vec<String>,
    /// What changes are counted from.
    pub base: Option<usize>,
    /// Layers of the result, in order.
    pub slices: Vec<Slice>,
    /// Type that everything is computed in.
    pub dtype: Option<DType>,
    /// Type of the result, where it is another one.
    pub out_dtype: Option<DType>,
    /// Where the tokenizer comes from.
    pub tokenizer: Option<Tokenizer>,
    /// For random numbers.
    pub seed: u64,
    /// What a user may want to know.
    pub notes: Vec<String>,
    pub(crate) parameters: Parameters,
}

/// Some layers of the result.
#[derive(Clone, Debug, PartialEq)]
pub struct Slice {
    /// What they are merged from.
    pub parts: Vec<Part>,
    /// The base, where it is another one here.
    pub base: Option<usize>,
    pub(crate) parameters: Parameters,
}

/// Some layers of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// The model.
    pub model: usize,
    /// The first layer, and the one behind the last; all of them where nothing is said.
    pub layers: Option<(u64, u64)>,
    pub(crate) parameters: Parameters,
}

/// Where the tokenizer comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tokenizer {
    /// The base's, or the first model's.
    Base,
    /// That of a model.
    Model(usize),
    /// All models' tokens: the same as [`Self::Base`] where all have the same ones.
    Union,
}

impl Recipe {
    /// Reads a recipe's tree.
    ///
    /// # Errors
    /// `Usage` for what is no recipe, `Unsupported` for what is not merged here; both name the key.
    pub fn parse(tree: &Value) -> Result<Self> {
        let Value::Object(map) = tree else { return Err(no_recipe()) };
        let method = match map.get("merge_method") {
            Some(Value::String(name)) => Method::of(name).map_err(|e| e.context("merge_method"))?,
            _ => return Err(no_recipe()),
        };
        refuse_unknown(map, KEYS, "")?;
        for (key, why) in REFUSED {
            if map.get(*key).is_some_and(|v| !v.is_null()) {
                return Err(Error::unsupported(format!("{key} is not done by this version")).hint(*why));
            }
        }
        let mut reader = Reader { method, models: Vec::new(), notes: Vec::new() };
        let base = reader.optional_model(map.get("base_model"), "base_model")?;
        let parameters = reader.parameters(map.get("parameters"), "")?;
        let present = |key: &str| map.get(key).filter(|v| !v.is_null());
        let slices = match (present("models"), present("slices")) {
            (Some(models), None) => vec![reader.models(models, base)?],
            (None, Some(slices)) => reader.slices(slices)?,
            (Some(_), Some(_)) => return Err(Error::usage("a recipe has either models or slices, not both")),
            (None, None) => return Err(Error::usage("a recipe lists models, or slices")),
        };
        let recipe = Self {
            method,
            base,
            slices,
            dtype: dtype(map.get("dtype"), "dtype")?,
            out_dtype: dtype(map.get("out_dtype"), "out_dtype")?,
            tokenizer: reader.tokenizer(map)?,
            seed: match map.get("seed") {
                None | Some(Value::Null) => 0,
                Some(v) => {
                    v.as_u64().ok_or_else(|| Error::usage(format!("seed: {v} is not a whole number")))?
                }
            },
            notes: reader.notes,
            models: reader.models,
            parameters,
        };
        recipe.check()?;
        Ok(recipe)
    }

    /// The base of a slice.
    pub fn base_of(&self, slice: &Slice) -> Option<usize> {
        slice.base.or(self.base)
    }

    /// The model whose configuration the result has: the base, or the first one.
    pub fn donor(&self) -> usize {
        self.base.unwrap_or(0)
    }

    /// Whether layers are taken from here and there.
    pub fn restacks(&self) -> bool {
        self.slices.iter().flat_map(|s| &s.parts).any(|p| p.layers.is_some())
    }

    /// Whether every tensor is one model's, as it is there.
    pub fn only_moves(&self) -> bool {
        let slices = self.slices.iter();
        let own = slices.flat_map(|s| s.parts.iter().map(|p| &p.parameters).chain([&s.parameters]));
        self.method == Method::Passthrough
            && self.dtype.or(self.out_dtype).is_none()
            && own.chain([&self.parameters]).all(|p| !p.contains_key("scale"))
    }

    /// Numbers of models that the method takes, and that ranges are as long as each other.
    fn check(&self) -> Result<()> {
        for (number, slice) in self.slices.iter().enumerate() {
            let named = |e: Error| if self.restacks() { e.context(format!("slices[{number}]")) } else { e };
            let base = self.base_of(slice);
            let has_base = base.is_some_and(|b| slice.parts.iter().any(|p| p.model == b));
            let (method, parts) = (self.method.name(), slice.parts.len());
            let needs_base = self.method == Method::Slerp || self.method.of_changes();
            if needs_base && !has_base {
                return Err(named(
                    Error::usage(format!("{method} needs a base among the models it merges"))
                        .hint("set base_model to one of them"),
                ));
            }
            let wanted = match self.method {
                Method::Slerp if parts != 2 => "two models",
                Method::Passthrough if parts != 1 => "one model at a time",
                _ => "",
            };
            if !wanted.is_empty() {
                return Err(named(Error::usage(format!("{method} takes {wanted}, not {parts}"))));
            }
            for (i, part) in slice.parts.iter().enumerate() {
                if slice.parts[..i].iter().any(|p| p.model == part.model) {
                    let name = &self.models[part.model];
                    return Err(named(Error::usage(format!("{name} is there twice"))));
                }
            }
            let lengths = slice.parts.iter().filter_map(|p| p.layers).map(|(a, b)| b - a);
            if lengths.clone().min() != lengths.max() {
                return Err(named(Error::usage(
                    "the ranges of layers in one slice are of different lengths",
                )));
            }
        }
        Ok(())
    }
}

/// All keys of a recipe.
const KEYS: &[&str] = &[
    "base_model",
    "chat_template",
    "dtype",
    "merge_method",
    "models",
    "modules",
    "out_dtype",
    "parameters",
    "seed",
    "slices",
    "tokenizer",
    "tokenizer_source",
];

/// Keys that mergekit knows and this does not do, with what to do instead.
const REFUSED: &[(&str, &str)] = &[
    ("modules", "list models, which merges every module of a model alike"),
    (
        "chat_template",
        "leave it out, and put the template into the tokenizer_config.json of the tokenizer's model",
    ),
];

fn no_recipe() -> Error {
    Error::usage("not a merge recipe: there is no merge_method")
        .hint("`tensormill merge --help` shows one; release files are for `tensormill release`")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use tensormill_model::ErrorKind;

    fn ties() -> Value {
        json!({
            "merge_method": "ties",
            "base_model": "base",
            "models": [
                {"model": "a", "parameters": {"weight": 0.5, "density": [1, 0.5]}},
                {"model": "b", "parameters": {"weight": [{"filter": "mlp", "value": 1}, {"value": 0}]}},
            ],
            "parameters": {"normalize": true, "int8_mask": true},
            "dtype": "bfloat16",
        })
    }

    #[test]
    fn recipes_are_read() {
        let r = Recipe::parse(&ties()).unwrap();
        assert_eq!((r.method, r.base, r.dtype, r.seed), (Method::Ties, Some(0), Some(DType::BF16), 0));
        assert_eq!(r.models, ["base", "a", "b"]);
        // The base goes last, where mergekit adds it.
        assert_eq!(r.slices[0].parts.iter().map(|p| p.model).collect::<Vec<_>>(), [1, 2, 0]);
        assert!(!r.restacks() && r.notes.is_empty());
        let stacked = json!({
            "merge_method": "passthrough",
            "slices": [
                {"sources": [{"model": "a", "layer_range": [0, 3]}]},
                {"sources": [{"model": "b", "layer_range": [1, 4], "parameters": {"scale": 0.5}}]},
            ],
            "tokenizer_source": "b",
        });
        let r = Recipe::parse(&stacked).unwrap();
        assert!(r.restacks() && r.slices[1].parts[0].layers == Some((1, 4)));
        assert_eq!((r.tokenizer, r.donor()), (Some(Tokenizer::Model(1)), 0));
    }

    #[test]
    fn what_is_wrong_is_named() {
        // A change to a good recipe, what the error is, and a word of it.
        let changes: &[(&str, Value, ErrorKind, &str)] = &[
            ("merge_method", json!("tise"), ErrorKind::Usage, "tise"),
            ("merge_method", json!("della"), ErrorKind::Unsupported, "della"),
            ("merge_method", json!(null), ErrorKind::Usage, "merge_method"),
            ("base_model", json!(null), ErrorKind::Usage, "base"),
            ("base_model", json!({"path": "x"}), ErrorKind::Usage, "base_model"),
            ("models", json!([]), ErrorKind::Usage, "models"),
            ("models", json!(null), ErrorKind::Usage, "models"),
            ("models", json!([{"modle": "a"}]), ErrorKind::Usage, "models[0].modle"),
            ("models", json!([{"model": "a"}, {"model": "a"}]), ErrorKind::Usage, "twice"),
            ("slices", json!([]), ErrorKind::Usage, "either"),
            ("modules", json!({}), ErrorKind::Unsupported, "modules"),
            ("parameters", json!({"weigth": 1}), ErrorKind::Usage, "parameters.weigth"),
            ("parameters", json!({"lambda": "much"}), ErrorKind::Usage, "parameters.lambda"),
            ("parameters", json!({"density": -0.5}), ErrorKind::Usage, "density"),
            ("parameters", json!(7), ErrorKind::Usage, "parameters"),
            ("dtype", json!("float64"), ErrorKind::Unsupported, "float64"),
            ("dtype", json!(16), ErrorKind::Usage, "dtype"),
            ("seed", json!(-1), ErrorKind::Usage, "seed"),
            ("tokenizer_source", json!("c"), ErrorKind::Usage, "c is none"),
            ("tokenizer", json!({"source": "base", "tokens": {}}), ErrorKind::Unsupported, "tokens"),
            ("tokenizer", json!({"sorce": "base"}), ErrorKind::Usage, "tokenizer.sorce"),
            ("chat_template", json!("auto"), ErrorKind::Unsupported, "chat_template"),
            ("name", json!("x"), ErrorKind::Usage, "name"),
        ];
        for (key, value, kind, word) in changes {
            let mut tree = ties();
            tree[*key] = value.clone();
            let e = Recipe::parse(&tree).unwrap_err();
            assert!(e.kind() == *kind && e.to_string().contains(word), "{key} {value}: {e}");
        }
    }

    #[test]
    fn slices_are_checked() {
        let of = |method: &str, sources: Value| {
            Recipe::parse(&json!({
                "merge_method": method,
                "base_model": "a",
                "slices": [{"sources": sources}],
            }))
        };
        let part = |m: &str, a: u64, b: u64| json!({"model": m, "layer_range": [a, b]});
        assert!(of("slerp", json!([part("a", 0, 2), part("b", 1, 3)])).is_ok());
        assert!(of("slerp", json!([part("a", 0, 2), part("b", 1, 4)])).is_err());
        assert!(of("slerp", json!([part("a", 0, 2)])).is_err());
        assert!(of("slerp", json!([part("c", 0, 2), part("b", 0, 2)])).is_err());
        assert!(of("passthrough", json!([part("a", 0, 2), part("b", 0, 2)])).is_err());
        assert!(of("passthrough", json!([part("a", 2, 2)])).is_err());
        assert!(of("passthrough", json!([{"model": "a", "layer_range": [0, -1]}])).is_err());
        assert!(of("passthrough", json!([{"model": "a"}])).is_err());
    }

    #[test]
    fn no_tree_is_too_strange() {
        // Every value of a good recipe replaced by every kind of value: errors, but never a panic.
        let odd =
            [json!(null), json!(true), json!(-1), json!(1e300), json!("x"), json!([[]]), json!({"a": 1})];
        let mut seen = 0;
        for place in [
            "/merge_method",
            "/base_model",
            "/models",
            "/models/0",
            "/models/0/model",
            "/dtype",
            "/models/0/parameters",
            "/models/0/parameters/density",
            "/models/0/parameters/density/1",
            "/parameters",
            "/models/1/parameters/weight/0",
            "/models/1/parameters/weight/0/filter",
            "/parameters/normalize",
        ] {
            for value in &odd {
                let mut tree = ties();
                *tree.pointer_mut(place).unwrap() = value.clone();
                seen += usize::from(Recipe::parse(&tree).is_err());
            }
        }
        assert!(seen > 50, "{seen}");
        for value in odd {
            assert!(Recipe::parse(&value).is_err());
        }
    }
}
