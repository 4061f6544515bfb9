//! Names: what the parts of containers are called, and which part a `key` means.

use crate::{
    files::{Program, sequential::read_span},
    machine::heap::{LongKind, Object, Opaque, Value},
};
use std::collections::HashMap;
use tensormill_model::{Error, Result};

/// Longest name that is made.
pub(crate) const MAX_NAME: usize = 1 << 16;

/// Parts of a container, and what each is called; parts without a name take their container's.
pub(crate) type Parts = Vec<(Option<String>, Value)>;

/// What a pickled object is, as far as its parts are concerned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ObjectKind {
    /// A `torch.nn.Module` of any class: it has `_parameters`, `_buffers` and `_modules`.
    Module,
    /// An object of a TorchScript archive: its attributes are its parts.
    Script,
    Other,
}

impl Program {
    /// The value of a key in a dict, compared as text.
    pub fn entry(&self, dict: Value, key: &str) -> Option<Value> {
        match self.heap.get(dict) {
            Some(Object::Dict(entries)) => {
                entries.iter().rev().find(|(k, _)| self.heap.str(*k) == Some(key)).map(|(_, v)| *v)
            }
            _ => None,
        }
    }

    /// A field of an object of a class that means nothing here.
    pub fn field(&self, object: Value, name: &str) -> Option<Value> {
        match self.heap.get(object) {
            Some(Object::Opaque(o)) => self.state_field(o.state?, name),
            _ => None,
        }
    }

    /// A field in the state of an object; slots are pickled apart from the others.
    pub fn state_field(&self, state: Value, name: &str) -> Option<Value> {
        // Of the classes that are read here; a state is shared at no cost, and would be searched again and again.
        const MAX_FIELDS: usize = 256;
        let of = |v: Value| match self.heap.get(v) {
            Some(Object::Dict(d)) if d.len() <= MAX_FIELDS => self.entry(v, name),
            _ => None,
        };
        of(state).or_else(|| self.heap.tuple(state)?.iter().take(2).find_map(|part| of(*part)))
    }

    fn is_dict(&self, v: Option<Value>) -> bool {
        matches!(v.and_then(|v| self.heap.get(v)), Some(Object::Dict(_)))
    }

    pub fn object_kind(&self, o: &Opaque) -> ObjectKind {
        let state = o.state.unwrap_or(Value::None);
        if ["_parameters", "_buffers", "_modules"].iter().all(|k| self.is_dict(self.entry(state, k))) {
            return ObjectKind::Module;
        }
        match o.global.map(|g| &self.heap.globals[g as usize]) {
            Some(g) if g.module == "__torch__" || g.module.starts_with("__torch__.") => ObjectKind::Script,
            _ => ObjectKind::Other,
        }
    }

    /// Whether this is the state of an optimizer: by its form, as `Optimizer.state_dict` makes it.
    pub fn is_optimizer_state(&self, v: Value) -> bool {
        let groups = self.entry(v, "param_groups").and_then(|g| self.heap.get(g));
        self.is_dict(self.entry(v, "state")) && matches!(groups, Some(Object::List(_)))
    }

    /// The parts of a module in the order of `state_dict()`: parameters, buffers that are kept, submodules. And what is
    /// not in there: buffers that are not kept, and attributes.
    fn module_parts(&self, o: &Opaque) -> Result<(Parts, Parts)> {
        let state = o.state.unwrap_or(Value::None);
        let of = |key: &str| match self.entry(state, key) {
            Some(d) => self.dict_parts(d),
            None => Ok(Vec::new()),
        };
        let skipped: Vec<&str> = self
            .entry(state, "_non_persistent_buffers_set")
            .and_then(|s| self.heap.items(s))
            .map(|names| names.iter().filter_map(|n| self.heap.str(*n)).collect())
            .unwrap_or_default();
        let (mut dropped, buffers) = of("_buffers")?
            .into_iter()
            .partition::<Parts, _>(|(name, _)| name.as_deref().is_some_and(|n| skipped.contains(&n)));
        let mut parts = of("_parameters")?;
        parts.extend(buffers);
        parts.extend(of("_modules")?);
        let own = ["_parameters", "_buffers", "_modules"];
        dropped.extend(
            self.dict_parts(state)?
                .into_iter()
                .filter(|(name, _)| name.as_deref().is_some_and(|n| !own.contains(&n))),
        );
        Ok((parts, dropped))
    }

    /// Keys as names; of keys that occur twice the last value counts, at the first place, as in Python.
    fn dict_parts(&self, dict: Value) -> Result<Parts> {
        let Some(Object::Dict(entries)) = self.heap.get(dict) else { return Ok(Vec::new()) };
        let mut parts: Parts = Vec::with_capacity(entries.len());
        let mut seen: HashMap<String, usize> = HashMap::with_capacity(entries.len());
        for (key, value) in entries {
            let name = self.key_name(*key)?;
            if let Some(at) = seen.get(&name) {
                parts[*at].1 = *value;
            } else {
                seen.insert(name.clone(), parts.len());
                parts.push((Some(name), *value));
            }
        }
        Ok(parts)
    }

    /// The parts of a dict or object, with those that its class leaves out of its state dict; `None` for lists and
    /// tuples, whose parts are numbered, and for everything without parts.
    pub fn parts(&self, v: Value) -> Result<Option<(Parts, Parts)>> {
        Ok(match self.heap.get(v) {
            Some(Object::Dict(_)) => Some((self.dict_parts(v)?, Vec::new())),
            Some(Object::Opaque(o)) => Some(match self.object_kind(o) {
                ObjectKind::Module => self.module_parts(o)?,
                ObjectKind::Script | ObjectKind::Other => {
                    let mut parts: Parts = o.state.map(|s| (None, s)).into_iter().collect();
                    for (key, value) in &o.entries {
                        parts.push((Some(self.key_name(*key)?), *value));
                    }
                    (parts, Vec::new())
                }
            }),
            _ => None,
        })
    }

    fn key_name(&self, key: Value) -> Result<String> {
        let long = || Error::over_limit(format!("a key of more than {MAX_NAME} bytes"));
        let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
        Ok(match key {
            Value::Text(t) | Value::Bytes(t) if self.heap.bytes(t).len() > MAX_NAME => return Err(long()),
            Value::Text(t) | Value::Bytes(t) => text(self.heap.bytes(t)),
            Value::Int(n) => n.to_string(),
            Value::Bool(b) => if b { "True" } else { "False" }.to_owned(),
            Value::Float(f) => f.to_string(),
            Value::None => "None".to_owned(),
            v => match self.heap.get(v) {
                Some(&Object::Long { at, len, kind: LongKind::Text | LongKind::Bytes }) => {
                    text(&read_span(&*self.source, at, len, MAX_NAME as u64)?.ok_or_else(long)?)
                }
                // Nothing good can be made of these; they must only not be mistaken for one another.
                _ => match v {
                    Value::Object(n) => format!("<{} {n}>", self.heap.kind(v)),
                    _ => format!("<{}>", self.heap.kind(v)),
                },
            },
        })
    }

    /// The part that `key` names, parts of names being joined by dots. Keys with dots in them are found too: the longest
    /// that fits is tried first.
    pub fn select(&self, key: &str) -> Result<Value> {
        // Value and how much of the key led there. Each pair of them is looked at once.
        let mut open = vec![(self.root, 0)];
        let mut seen = vec![];
        while let Some((v, at)) = open.pop() {
            if at >= key.len() {
                return Ok(v);
            }
            if seen.contains(&(v, at)) {
                continue;
            }
            if seen.len() > 4096 {
                return Err(Error::over_limit("the key fits too many parts"));
            }
            seen.push((v, at));
            let rest = &key[at..];
            if let Some(items) = self.heap.items(v) {
                let (head, tail) = rest.split_once('.').map_or((rest, None), |(h, t)| (h, Some(t)));
                let item = head.parse().ok().and_then(|i: usize| items.get(i));
                if let (Some(item), false) = (item, tail == Some("")) {
                    open.push((*item, tail.map_or(key.len(), |t| key.len() - t.len())));
                }
                continue;
            }
            let Some((parts, _)) = self.parts(v)? else { continue };
            let mut fits: Vec<(usize, Value)> = parts
                .into_iter()
                .filter_map(|(name, v)| match name {
                    None => Some((at, v)),
                    Some(n) => match rest.strip_prefix(n.as_str()) {
                        Some("") => Some((key.len(), v)),
                        Some(tail) if tail.len() > 1 && tail.starts_with('.') => Some((at + n.len() + 1, v)),
                        _ => None,
                    },
                })
                .collect();
            fits.sort_by_key(|(next, _)| *next);
            open.extend(fits.into_iter().map(|(next, v)| (v, next)));
        }
        Err(Error::usage(format!("there is no {key:?} in this file")).hint(self.keys()?))
    }

    /// What could be selected at the top.
    fn keys(&self) -> Result<String> {
        const SHOWN: usize = 12;
        let Some((parts, _)) = self.parts(self.root)? else {
            return Ok(format!("its root is {}", self.heap.kind(self.root)));
        };
        let names: Vec<&str> = parts.iter().filter_map(|(n, _)| n.as_deref()).take(SHOWN).collect();
        let more = if parts.len() > SHOWN { ", ..." } else { "" };
        Ok(format!("at its root there are: {}{more}", names.join(", ")))
    }
}
