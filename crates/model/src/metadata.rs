//! Ordered, typed key-value metadata, as GGUF stores it. Other formats map theirs onto it.

use std::{collections::HashSet, fmt, sync::Arc};

/// One metadata value.
#[derive(Clone, PartialEq, Debug)]
pub enum Value {
    /// Unsigned 8-bit.
    U8(u8),
    /// Signed 8-bit.
    I8(i8),
    /// Unsigned 16-bit.
    U16(u16),
    /// Signed 16-bit.
    I16(i16),
    /// Unsigned 32-bit.
    U32(u32),
    /// Signed 32-bit.
    I32(i32),
    /// Unsigned 64-bit.
    U64(u64),
    /// Signed 64-bit.
    I64(i64),
    /// Binary32.
    F32(f32),
    /// Binary64.
    F64(f64),
    /// Boolean.
    Bool(bool),
    /// Text.
    Str(String),
    /// A string that is not UTF-8, kept as it is so that nothing is lost.
    Bytes(Vec<u8>),
    /// Values of one type.
    Array(Array),
}

/// An array of one element type.
#[derive(Clone, PartialEq, Debug)]
pub enum Array {
    /// Unsigned 8-bit.
    U8(Vec<u8>),
    /// Signed 8-bit.
    I8(Vec<i8>),
    /// Unsigned 16-bit.
    U16(Vec<u16>),
    /// Signed 16-bit.
    I16(Vec<i16>),
    /// Unsigned 32-bit.
    U32(Vec<u32>),
    /// Signed 32-bit.
    I32(Vec<i32>),
    /// Unsigned 64-bit.
    U64(Vec<u64>),
    /// Signed 64-bit.
    I64(Vec<i64>),
    /// Binary32.
    F32(Vec<f32>),
    /// Binary64.
    F64(Vec<f64>),
    /// Boolean.
    Bool(Vec<bool>),
    /// Text.
    Str(Vec<String>),
    /// Strings of which at least one is not UTF-8.
    Bytes(Vec<Vec<u8>>),
    /// Arrays of arrays (GGUF allows them).
    Array(Vec<Array>),
}

/// Type of a value, for messages and `inspect`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ValueType(pub &'static str);

/// The type of a [`Value`], or of the elements of an [`Array`]: their variants have the same names.
macro_rules! type_name {
    ($value:expr) => {
        ValueType(match $value {
            Self::U8(_) => "u8",
            Self::I8(_) => "i8",
            Self::U16(_) => "u16",
            Self::I16(_) => "i16",
            Self::U32(_) => "u32",
            Self::I32(_) => "i32",
            Self::U64(_) => "u64",
            Self::I64(_) => "i64",
            Self::F32(_) => "f32",
            Self::F64(_) => "f64",
            Self::Bool(_) => "bool",
            Self::Str(_) | Self::Bytes(_) => "str",
            Self::Array(_) => "array",
        })
    };
}

impl Array {
    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            Self::U8(v) => v.len(),
            Self::I8(v) => v.len(),
            Self::U16(v) => v.len(),
            Self::I16(v) => v.len(),
            Self::U32(v) => v.len(),
            Self::I32(v) => v.len(),
            Self::U64(v) => v.len(),
            Self::I64(v) => v.len(),
            Self::F32(v) => v.len(),
            Self::F64(v) => v.len(),
            Self::Bool(v) => v.len(),
            Self::Str(v) => v.len(),
            Self::Bytes(v) => v.len(),
            Self::Array(v) => v.len(),
        }
    }
    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Element type.
    pub fn element_type(&self) -> ValueType {
        type_name!(self)
    }
    /// The `i`-th element as a scalar value.
    pub fn get(&self, i: usize) -> Option<Value> {
        Some(match self {
            Self::U8(v) => Value::U8(*v.get(i)?),
            Self::I8(v) => Value::I8(*v.get(i)?),
            Self::U16(v) => Value::U16(*v.get(i)?),
            Self::I16(v) => Value::I16(*v.get(i)?),
            Self::U32(v) => Value::U32(*v.get(i)?),
            Self::I32(v) => Value::I32(*v.get(i)?),
            Self::U64(v) => Value::U64(*v.get(i)?),
            Self::I64(v) => Value::I64(*v.get(i)?),
            Self::F32(v) => Value::F32(*v.get(i)?),
            Self::F64(v) => Value::F64(*v.get(i)?),
            Self::Bool(v) => Value::Bool(*v.get(i)?),
            Self::Str(v) => Value::Str(v.get(i)?.clone()),
            Self::Bytes(v) => Value::Bytes(v.get(i)?.clone()),
            Self::Array(v) => Value::Array(v.get(i)?.clone()),
        })
    }
}

impl Value {
    /// Type of this value.
    pub fn value_type(&self) -> ValueType {
        type_name!(self)
    }
    /// Any integer type that fits `u64`.
    pub fn as_u64(&self) -> Option<u64> {
        match *self {
            Self::U8(v) => Some(v.into()),
            Self::U16(v) => Some(v.into()),
            Self::U32(v) => Some(v.into()),
            Self::U64(v) => Some(v),
            Self::I8(v) => v.try_into().ok(),
            Self::I16(v) => v.try_into().ok(),
            Self::I32(v) => v.try_into().ok(),
            Self::I64(v) => v.try_into().ok(),
            _ => None,
        }
    }
    /// Text.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Str(s) => Some(s),
            _ => None,
        }
    }
    /// Binary32 or binary64.
    pub fn as_f64(&self) -> Option<f64> {
        match *self {
            Self::F32(v) => Some(v.into()),
            Self::F64(v) => Some(v),
            _ => None,
        }
    }
    /// Boolean.
    pub fn as_bool(&self) -> Option<bool> {
        match *self {
            Self::Bool(v) => Some(v),
            _ => None,
        }
    }
    /// Array.
    pub fn as_array(&self) -> Option<&Array> {
        match self {
            Self::Array(a) => Some(a),
            _ => None,
        }
    }
}

macro_rules! from {
    ($($t:ty => $v:ident),*) => {$(
        impl From<$t> for Value { fn from(v: $t) -> Self { Self::$v(v) } }
        impl From<Vec<$t>> for Value { fn from(v: Vec<$t>) -> Self { Self::Array(Array::$v(v)) } }
    )*};
}
from!(u8 => U8, i8 => I8, u16 => U16, i16 => I16, u32 => U32, i32 => I32, u64 => U64, i64 => I64, f32 => F32,
      f64 => F64, bool => Bool, String => Str);
impl From<&str> for Value {
    fn from(v: &str) -> Self {
        Self::Str(v.to_owned())
    }
}
impl From<Array> for Value {
    fn from(v: Array) -> Self {
        Self::Array(v)
    }
}

impl fmt::Display for Value {
    /// Abridged: arrays show their first elements and their length.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::U8(v) => v.fmt(f),
            Self::I8(v) => v.fmt(f),
            Self::U16(v) => v.fmt(f),
            Self::I16(v) => v.fmt(f),
            Self::U32(v) => v.fmt(f),
            Self::I32(v) => v.fmt(f),
            Self::U64(v) => v.fmt(f),
            Self::I64(v) => v.fmt(f),
            Self::F32(v) => v.fmt(f),
            Self::F64(v) => v.fmt(f),
            Self::Bool(v) => v.fmt(f),
            Self::Str(v) => write!(f, "{v:?}"),
            Self::Bytes(v) => write!(f, "{:?}", String::from_utf8_lossy(v)),
            Self::Array(a) => {
                f.write_str("[")?;
                for i in 0..a.len().min(6) {
                    if i > 0 {
                        f.write_str(", ")?;
                    }
                    if let Some(v) = a.get(i) {
                        v.fmt(f)?;
                    }
                }
                if a.len() > 6 { write!(f, ", ... {} in all]", a.len()) } else { f.write_str("]") }
            }
        }
    }
}

/// Keys and values in file order. Keys are unique. Clones share their values: twenty variants of one model hold
/// one vocabulary.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Metadata {
    entries: Vec<(String, Arc<Value>)>,
}

impl Metadata {
    /// No entries.
    pub fn new() -> Self {
        Self::default()
    }
    /// All entries at once, in order: linear in their number, where repeated [`Self::set`] is quadratic.
    ///
    /// # Errors
    /// The first key that occurs twice.
    pub fn from_entries(entries: Vec<(String, Value)>) -> Result<Self, String> {
        let mut seen = HashSet::with_capacity(entries.len());
        if let Some((k, _)) = entries.iter().find(|(k, _)| !seen.insert(k.as_str())) {
            return Err(k.clone());
        }
        Ok(Self { entries: entries.into_iter().map(|(k, v)| (k, Arc::new(v))).collect() })
    }
    /// Number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }
    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.entries.iter().find(|(k, _)| k == key).map(|(_, v)| &**v)
    }
    /// Sets a key: in place where it exists (keeping its position), at the end otherwise.
    pub fn set(&mut self, key: impl Into<String>, value: impl Into<Value>) {
        self.set_shared(key.into(), Arc::new(value.into()));
    }
    fn set_shared(&mut self, key: String, value: Arc<Value>) {
        match self.entries.iter_mut().find(|(k, _)| *k == key) {
            Some((_, v)) => *v = value,
            None => self.entries.push((key, value)),
        }
    }
    /// Sets a key at the end, dropping an earlier position (what ggml's `gguf_set_val_*` does).
    pub fn set_last(&mut self, key: impl Into<String>, value: impl Into<Value>) {
        let key = key.into();
        self.remove(&key);
        self.entries.push((key, Arc::new(value.into())));
    }
    /// Removes a key.
    pub fn remove(&mut self, key: &str) -> Option<Arc<Value>> {
        let i = self.entries.iter().position(|(k, _)| k == key)?;
        Some(self.entries.remove(i).1)
    }
    /// Appends every entry of `other`, with [`Self::set`]'s rule for keys that exist.
    pub fn extend(&mut self, other: Metadata) {
        for (k, v) in other.entries {
            self.set_shared(k, v);
        }
    }
    /// Replaces the values for which `f` gives another one.
    pub fn map_values(&mut self, f: impl Fn(&Value) -> Option<Value>) {
        for (_, value) in &mut self.entries {
            if let Some(new) = f(value) {
                *value = Arc::new(new);
            }
        }
    }
    /// Entries in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.entries.iter().map(|(k, v)| (k.as_str(), &**v))
    }
    /// An unsigned integer under this key.
    pub fn u64(&self, key: &str) -> Option<u64> {
        self.get(key)?.as_u64()
    }
    /// Text under this key.
    pub fn str(&self, key: &str) -> Option<&str> {
        self.get(key)?.as_str()
    }
}
