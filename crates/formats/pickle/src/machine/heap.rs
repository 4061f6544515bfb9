//! What a pickle made: values, and the objects they refer to.
//!
//! Objects lie in one table and refer to each other by number, so that sharing costs nothing, cycles are harmless, and
//! dropping needs no recursion. Nothing is ever copied from one object to another without being counted.

use super::globals::Known;
use crate::types::TorchType;
use std::collections::HashMap;
use tensormill_model::{Error, Limits, Result};

/// One value; sixteen bytes.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Value {
    None,
    Bool(bool),
    Int(i64),
    /// An integer beyond 64 bits, as little-endian bytes.
    Huge(Text),
    Float(f64),
    /// A string, not necessarily valid UTF-8.
    Text(Text),
    Bytes(Text),
    /// Number in [`Heap::globals`].
    Global(u32),
    /// Number in [`Heap::objects`].
    Object(u32),
}

/// Bytes in [`Heap::texts`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Text {
    start: u32,
    len: u32,
}

/// What bytes that stayed in the pickle are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum LongKind {
    Text,
    Bytes,
    /// Bytes that were written as text of the code points 0 to 255.
    Latin1,
}

#[derive(Debug)]
pub(crate) enum Object {
    Tuple(Box<[Value]>),
    /// A list or a set.
    List(Vec<Value>),
    Dict(Vec<(Value, Value)>),
    /// Bytes too long to keep: their place in the pickle.
    Long {
        at: u64,
        len: u64,
        kind: LongKind,
    },
    Storage(Box<Storage>),
    Tensor(Box<Tensor>),
    Array(Box<Array>),
    ArrayType(Box<ArrayType>),
    Opaque(Box<Opaque>),
    /// A tensor that cannot be had, and why.
    Refused(Box<Error>),
}

/// Elements of one type in a record of the file.
#[derive(Clone, Debug)]
pub(crate) struct Storage {
    /// Number in [`Heap::keys`].
    pub key: u32,
    pub ty: &'static TorchType,
    /// Elements of the whole storage.
    pub numel: u64,
    /// First element and number of elements, where only a part of it is meant.
    pub view: Option<(u64, u64)>,
}

/// A view of a storage, in elements.
#[derive(Clone, Debug)]
pub(crate) struct Tensor {
    pub storage: Storage,
    pub ty: &'static TorchType,
    pub offset: u64,
    pub size: Box<[u64]>,
    pub stride: Box<[u64]>,
    pub quantizer: Option<Box<Quantizer>>,
    /// Class that the object had beyond being a tensor: a number in [`Heap::globals`].
    pub class: Option<u32>,
}

/// How the integers of a quantized tensor are meant.
#[derive(Clone, Debug)]
pub(crate) enum Quantizer {
    PerTensor { scale: f64, zero_point: i64 },
    PerChannel { scales: Value, zero_points: Value, axis: i64 },
}

/// A numpy array.
#[derive(Clone, Debug)]
pub(crate) struct Array {
    pub ty: ArrayType,
    pub shape: Box<[u64]>,
    pub fortran: bool,
    pub data: Value,
}

/// A numpy dtype.
#[derive(Clone, Debug)]
pub(crate) struct ArrayType {
    /// As numpy spells it: `f4`, `V2`.
    pub name: String,
    pub big_endian: bool,
    /// Records and sub-arrays, which nothing here can hold.
    pub structured: bool,
    /// The dtype of another package that this stands for.
    pub torch: Option<&'static TorchType>,
}

/// An object of a class that is not known, or what an unknown function would have given. Never made.
#[derive(Debug)]
pub(crate) struct Opaque {
    /// Global that would have been called, where it is one.
    pub global: Option<u32>,
    /// Where in the pickle.
    pub at: u64,
    /// What it was given: arguments, state, elements.
    pub parts: Vec<Value>,
    /// Keys and values it was given as a dict.
    pub entries: Vec<(Value, Value)>,
    /// Its state, where that is one value.
    pub state: Option<Value>,
}

/// A name that the pickle imports.
#[derive(Debug)]
pub(crate) struct Global {
    pub module: String,
    pub name: String,
    pub known: Option<Known>,
}

impl Global {
    pub fn path(&self) -> String {
        format!("{}.{}", self.module, self.name)
    }
}

/// Everything a pickle made.
#[derive(Debug)]
pub(crate) struct Heap {
    pub objects: Vec<Object>,
    pub globals: Vec<Global>,
    /// Names of storages.
    pub keys: Vec<String>,
    texts: Vec<u8>,
    by_path: HashMap<(String, String), u32>,
    by_key: HashMap<String, u32>,
    used: u64,
    limit: u64,
    pub max_rank: u32,
    /// What to call the pickle in messages.
    pub label: String,
    /// Where it starts in its store.
    pub start: u64,
}

/// What an object costs in units of [`Limits::values`], beyond its elements.
const OBJECT: u64 = 2;

impl Heap {
    pub fn new(limits: &Limits, label: String, start: u64) -> Self {
        Self {
            objects: Vec::new(),
            globals: Vec::new(),
            keys: Vec::new(),
            texts: Vec::new(),
            by_path: HashMap::new(),
            by_key: HashMap::new(),
            used: 0,
            limit: limits.values,
            max_rank: limits.rank,
            label,
            start,
        }
    }

    /// Counts `n` values about to be made.
    pub fn charge(&mut self, n: u64) -> Result<()> {
        self.used = self.used.saturating_add(n);
        self.within(0)
    }

    /// Counts `n` values about to be copied from others: a few bytes can ask for that again and again, where every
    /// other value takes bytes of its own in the pickle.
    pub fn charge_copy(&mut self, n: u64) -> Result<()> {
        const DEAR: u64 = 16;
        self.charge(n.saturating_mul(DEAR))
    }

    /// How many values were made.
    pub fn used(&self) -> u64 {
        self.used
    }

    /// Whether what is there and `more` stay within the limit.
    pub fn within(&self, more: u64) -> Result<()> {
        if self.used.saturating_add(more) > self.limit {
            return Err(Error::over_limit(format!("{} makes more than {} values", self.label, self.limit)));
        }
        Ok(())
    }

    pub fn object(&mut self, object: Object) -> Result<Value> {
        let inside = match &object {
            Object::Tuple(v) => v.len(),
            Object::List(v) => v.len(),
            Object::Dict(v) => 2 * v.len(),
            Object::Tensor(t) => 8 + 2 * t.size.len(),
            Object::Array(a) => 8 + a.shape.len(),
            Object::Long { .. } => 0,
            Object::Storage(_) | Object::ArrayType(_) | Object::Opaque(_) | Object::Refused(_) => 8,
        };
        self.charge(OBJECT + inside as u64)?;
        let n = u32::try_from(self.objects.len()).map_err(|_| Error::over_limit("too many objects"))?;
        self.objects.push(object);
        Ok(Value::Object(n))
    }

    pub fn text(&mut self, bytes: &[u8]) -> Result<Text> {
        self.charge(1 + bytes.len() as u64 / 16)?;
        let too_many = |_| Error::over_limit("too many strings");
        let start = u32::try_from(self.texts.len()).map_err(too_many)?;
        let len = u32::try_from(bytes.len()).map_err(too_many)?;
        start.checked_add(len).ok_or_else(|| Error::over_limit("too many strings"))?;
        self.texts.extend_from_slice(bytes);
        Ok(Text { start, len })
    }

    pub fn bytes(&self, t: Text) -> &[u8] {
        &self.texts[t.start as usize..][..t.len as usize]
    }

    /// The text of a string that was kept, where it is valid UTF-8.
    pub fn str(&self, v: Value) -> Option<&str> {
        match v {
            Value::Text(t) | Value::Bytes(t) => std::str::from_utf8(self.bytes(t)).ok(),
            _ => None,
        }
    }

    pub fn get(&self, v: Value) -> Option<&Object> {
        match v {
            Value::Object(n) => self.objects.get(n as usize),
            _ => None,
        }
    }

    pub fn get_mut(&mut self, v: Value) -> Option<&mut Object> {
        match v {
            Value::Object(n) => self.objects.get_mut(n as usize),
            _ => None,
        }
    }

    /// Elements of a tuple.
    pub fn tuple(&self, v: Value) -> Option<&[Value]> {
        match self.get(v)? {
            Object::Tuple(items) => Some(items),
            _ => None,
        }
    }

    /// Elements of a tuple or list.
    pub fn items(&self, v: Value) -> Option<&[Value]> {
        match self.get(v)? {
            Object::Tuple(items) => Some(items),
            Object::List(items) => Some(items),
            _ => None,
        }
    }

    pub fn global(&self, v: Value) -> Option<&Global> {
        match v {
            Value::Global(n) => self.globals.get(n as usize),
            _ => None,
        }
    }

    pub fn known(&self, v: Value) -> Option<Known> {
        self.global(v)?.known
    }

    /// The value that stands for an imported name.
    pub fn import(&mut self, module: &str, name: &str) -> Result<Value> {
        // The key is made for the look-up too; imports are few beside everything else.
        let key = (module.to_owned(), name.to_owned());
        if let Some(n) = self.by_path.get(&key) {
            return Ok(Value::Global(*n));
        }
        self.charge(16 + (module.len() + name.len()) as u64 / 4)?;
        let n = self.globals.len() as u32;
        self.globals.push(Global {
            module: key.0.clone(),
            name: key.1.clone(),
            known: super::globals::known(module, name),
        });
        self.by_path.insert(key, n);
        Ok(Value::Global(n))
    }

    /// Number of a storage's name.
    pub fn key(&mut self, key: &str) -> Result<u32> {
        if let Some(n) = self.by_key.get(key) {
            return Ok(*n);
        }
        self.charge(8 + key.len() as u64 / 8)?;
        let n = self.keys.len() as u32;
        self.keys.push(key.to_owned());
        self.by_key.insert(key.to_owned(), n);
        Ok(n)
    }

    /// Number of a storage's name, where a storage of this name is mentioned.
    pub fn find_key(&self, key: &str) -> Option<u32> {
        self.by_key.get(key).copied()
    }

    /// Where something stands, for messages.
    pub fn place(&self, at: u64) -> String {
        format!("at byte {} of {}", at.saturating_sub(self.start), self.label)
    }

    /// What a value is, for messages.
    pub fn kind(&self, v: Value) -> String {
        match v {
            Value::None => "None".into(),
            Value::Bool(_) => "a bool".into(),
            Value::Int(i) => format!("the integer {i}"),
            Value::Huge(_) => "an integer beyond 64 bits".into(),
            Value::Float(_) => "a float".into(),
            Value::Text(_) => "a string".into(),
            Value::Bytes(_) => "bytes".into(),
            Value::Global(n) => self.globals[n as usize].path(),
            Value::Object(n) => match &self.objects[n as usize] {
                Object::Tuple(_) => "a tuple".into(),
                Object::List(_) => "a list".into(),
                Object::Dict(_) => "a dict".into(),
                Object::Long { kind: LongKind::Text, .. } => "a long string".into(),
                Object::Long { .. } => "long bytes".into(),
                Object::Storage(_) => "a storage".into(),
                Object::Tensor(_) | Object::Refused(_) => "a tensor".into(),
                Object::Array(_) => "a numpy array".into(),
                Object::ArrayType(_) => "a numpy dtype".into(),
                Object::Opaque(o) => self.opaque(o),
            },
        }
    }

    /// What an object would have been, and where.
    pub fn opaque(&self, o: &Opaque) -> String {
        let what = o.global.map_or_else(|| "a computed object".into(), |g| self.globals[g as usize].path());
        format!("{what} ({})", self.place(o.at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_stay_small() {
        assert_eq!(size_of::<Value>(), 16);
        assert!(size_of::<Object>() <= 32, "{}", size_of::<Object>());
    }

    #[test]
    fn the_limit_counts_elements_and_strings() {
        let limits = {
            let mut l = Limits::default();
            l.values = 100;
            l
        };
        let mut heap = Heap::new(&limits, "x".into(), 0);
        heap.object(Object::List(vec![Value::None; 90])).unwrap();
        assert!(heap.text(&[0; 160]).is_err());
        assert!(heap.within(1).is_err());
    }
}
