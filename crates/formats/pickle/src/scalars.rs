//! Values that are no tensors, as metadata.

use crate::{
    files::{Program, sequential::read_span},
    machine::heap::{Array as NumpyArray, LongKind, Object, Value},
};
use tensormill_model::{Array, Result, Value as Meta};
use tensormill_tensor::DType;

/// What a value becomes.
pub(crate) enum Scalar {
    Value(Meta),
    /// A container to look into.
    Container,
    /// An empty container: nothing is lost.
    Nothing,
    /// Nothing that metadata can hold; what it is.
    Other(String),
}

/// What a value becomes, if that takes no more than `room` bytes. Lists are shared and may be asked for again and again:
/// `scanned` counts the elements that were looked at.
pub(crate) fn scalar(program: &Program, v: Value, room: usize, scanned: &mut u64) -> Result<Scalar> {
    let heap = &program.heap;
    Ok(match v {
        Value::None => Scalar::Other("None".into()),
        Value::Global(_) => Scalar::Other(format!("the name {}", heap.kind(v))),
        Value::Huge(t) => match heap.bytes(t) {
            // Positive, and in 64 bits without a sign.
            [b @ .., 0] if b.len() == 8 => {
                Scalar::Value(Meta::U64(b.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b))))
            }
            _ => Scalar::Other("an integer beyond 64 bits".into()),
        },
        Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Text(_) | Value::Bytes(_) => {
            Scalar::Value(plain(program, v).unwrap_or(Meta::Bool(false)))
        }
        Value::Object(_) => match heap.get(v) {
            Some(Object::Dict(d)) if d.is_empty() => Scalar::Nothing,
            Some(Object::Dict(_)) => Scalar::Container,
            Some(Object::List(_) | Object::Tuple(_)) => {
                let items = heap.items(v).unwrap_or_default();
                if items.is_empty() {
                    Scalar::Nothing
                } else if 8 * items.len() > room {
                    Scalar::Other(format!("a list of {} elements", items.len()))
                } else {
                    *scanned += items.len() as u64;
                    array(program, items).map_or(Scalar::Container, |a| Scalar::Value(Meta::Array(a)))
                }
            }
            Some(&Object::Long { at, len, kind: LongKind::Text }) => {
                match read_span(&*program.source, at, len, room as u64)? {
                    Some(b) => Scalar::Value(text(b)),
                    None => Scalar::Other(format!("a string of {len} bytes")),
                }
            }
            Some(Object::Long { len, .. }) => Scalar::Other(format!("{len} bytes")),
            Some(Object::Array(a)) => match number(program, a) {
                Some(value) => Scalar::Value(value),
                None => Scalar::Other(format!("a numpy scalar of dtype {}", a.ty.name)),
            },
            Some(Object::Opaque(o)) => {
                Scalar::Other(format!("an object of {}; nothing of it was run", heap.opaque(o)))
            }
            _ => Scalar::Other(heap.kind(v)),
        },
    })
}

fn text(bytes: Vec<u8>) -> Meta {
    String::from_utf8(bytes).map_or_else(|e| Meta::Bytes(e.into_bytes()), Meta::Str)
}

/// Values that need no further look.
fn plain(program: &Program, v: Value) -> Option<Meta> {
    Some(match v {
        Value::Bool(b) => Meta::Bool(b),
        Value::Int(n) => Meta::I64(n),
        Value::Float(f) => Meta::F64(f),
        Value::Text(t) => text(program.heap.bytes(t).to_vec()),
        Value::Bytes(t) => Meta::Bytes(program.heap.bytes(t).to_vec()),
        _ => return None,
    })
}

/// A list of numbers of one kind, or of texts.
fn array(program: &Program, items: &[Value]) -> Option<Array> {
    macro_rules! all {
        ($kind:ident, $array:ident) => {
            items
                .iter()
                .map(|v| match v {
                    Value::$kind(x) => Some(*x),
                    _ => None,
                })
                .collect::<Option<Vec<_>>>()
                .map(Array::$array)
        };
    }
    match items[0] {
        Value::Bool(_) => all!(Bool, Bool),
        Value::Int(_) => all!(Int, I64),
        Value::Float(_) => all!(Float, F64),
        Value::Text(_) => items
            .iter()
            .map(|v| match v {
                Value::Text(_) => program.heap.str(*v).map(str::to_owned),
                _ => None,
            })
            .collect::<Option<Vec<_>>>()
            .map(Array::Str),
        _ => None,
    }
}

/// The number that an array without dimensions is.
fn number(program: &Program, a: &NumpyArray) -> Option<Meta> {
    let ty = a.ty.torch_type()?;
    let crate::types::Becomes::Same(dtype) = ty.becomes else { return None };
    let (Value::Bytes(t) | Value::Text(t)) = a.data else { return None };
    let mut b = program.heap.bytes(t).to_vec();
    if b.len() as u64 != ty.unit {
        return None;
    }
    if a.ty.big_endian {
        b.reverse();
    }
    macro_rules! le {
        ($t:ty) => {
            <$t>::from_le_bytes(b.as_slice().try_into().ok()?)
        };
    }
    Some(match dtype {
        DType::Bool => Meta::Bool(b[0] != 0),
        DType::U8 => Meta::U8(b[0]),
        DType::I8 => Meta::I8(b[0] as i8),
        DType::U16 => Meta::U16(le!(u16)),
        DType::I16 => Meta::I16(le!(i16)),
        DType::U32 => Meta::U32(le!(u32)),
        DType::I32 => Meta::I32(le!(i32)),
        DType::U64 => Meta::U64(le!(u64)),
        DType::I64 => Meta::I64(le!(i64)),
        DType::F32 => Meta::F32(le!(f32)),
        DType::F64 => Meta::F64(le!(f64)),
        DType::F16 | DType::BF16 => {
            let mut out = [0f32];
            tensormill_tensor::decode_plain(dtype, &b, &mut out).then_some(Meta::F32(out[0]))?
        }
        _ => return None,
    })
}

/// About as many bytes as a value takes.
pub(crate) fn size(v: &Meta) -> usize {
    match v {
        Meta::Str(s) => s.len(),
        Meta::Bytes(b) => b.len(),
        Meta::Array(Array::Str(v)) => v.iter().map(|s| s.len() + 24).sum(),
        Meta::Array(a) => 8 * a.len(),
        _ => 8,
    }
}
