//! Messages of `onnx.proto` to structures and back: which field has which number, written down once for both ways.

use crate::{
    data::{Found, Placing},
    tensor,
    wire::{Field, Input, Out, Span},
};
use tensormill_graph::{
    Annotation, Attribute, Dimension, Dims, Elem, Function, Graph, Kind, Node, Opset, Pair, Program, Sparse,
    Tensor, TensorType, Training, Type, ValueInfo,
};
use tensormill_model::{Error, Result};

/// A message.
pub(crate) trait Message: Default {
    /// Takes one field; gives `false` for one that is not known.
    fn take(&mut self, input: &mut Input<'_>, number: u64, field: Field, found: &mut Found) -> Result<bool>;
    /// Where fields that are not known are kept.
    fn unknown(&mut self) -> &mut Vec<u8>;
    /// Writes all fields.
    fn put(&self, out: &mut Out, placing: &Placing<'_>);

    /// Reads a message.
    fn read(&mut self, input: &mut Input<'_>, span: Span, found: &mut Found) -> Result<()> {
        input.charge(size_of::<Self>() as u64)?;
        input.message(span, |input, number, field, whole| {
            if !self.take(input, number, field, found)? {
                let bytes = input.bytes(whole)?;
                self.unknown().extend(bytes);
            }
            Ok(())
        })
    }

    /// The message alone.
    fn encoded(&self, placing: &Placing<'_>) -> Out {
        let mut out = Out::default();
        self.put(&mut out, placing);
        out
    }
}

/// Something that a field fills.
trait Slot {
    fn take(&mut self, input: &mut Input<'_>, field: Field, found: &mut Found) -> Result<()>;
    fn put(&self, number: u32, out: &mut Out, placing: &Placing<'_>);
}

fn other_type() -> Error {
    Error::malformed("a field of another type than ONNX says")
}

fn span(field: Field) -> Result<Span> {
    match field {
        Field::Bytes(span) => Ok(span),
        _ => Err(other_type()),
    }
}

fn number(field: Field) -> Result<i64> {
    match field {
        Field::Varint(n) => Ok(n as i64),
        _ => Err(other_type()),
    }
}

impl Slot for String {
    fn take(&mut self, input: &mut Input<'_>, field: Field, _: &mut Found) -> Result<()> {
        *self = input.text(span(field)?)?;
        Ok(())
    }
    fn put(&self, number: u32, out: &mut Out, _: &Placing<'_>) {
        if !self.is_empty() {
            out.blob(number, self.as_bytes());
        }
    }
}

impl Slot for Option<String> {
    fn take(&mut self, input: &mut Input<'_>, field: Field, _: &mut Found) -> Result<()> {
        *self = Some(input.text(span(field)?)?);
        Ok(())
    }
    fn put(&self, number: u32, out: &mut Out, _: &Placing<'_>) {
        if let Some(text) = self {
            out.blob(number, text.as_bytes());
        }
    }
}

impl Slot for Vec<String> {
    fn take(&mut self, input: &mut Input<'_>, field: Field, _: &mut Found) -> Result<()> {
        input.charge(size_of::<String>() as u64)?;
        self.push(input.text(span(field)?)?);
        Ok(())
    }
    fn put(&self, number: u32, out: &mut Out, _: &Placing<'_>) {
        for text in self {
            out.blob(number, text.as_bytes());
        }
    }
}

impl Slot for Option<Vec<u8>> {
    fn take(&mut self, input: &mut Input<'_>, field: Field, _: &mut Found) -> Result<()> {
        *self = Some(input.bytes(span(field)?)?);
        Ok(())
    }
    fn put(&self, number: u32, out: &mut Out, _: &Placing<'_>) {
        if let Some(bytes) = self {
            out.blob(number, bytes);
        }
    }
}

impl Slot for Vec<Vec<u8>> {
    fn take(&mut self, input: &mut Input<'_>, field: Field, _: &mut Found) -> Result<()> {
        input.charge(size_of::<Vec<u8>>() as u64)?;
        self.push(input.bytes(span(field)?)?);
        Ok(())
    }
    fn put(&self, number: u32, out: &mut Out, _: &Placing<'_>) {
        for bytes in self {
            out.blob(number, bytes);
        }
    }
}

impl Slot for i64 {
    fn take(&mut self, _: &mut Input<'_>, field: Field, _: &mut Found) -> Result<()> {
        *self = number(field)?;
        Ok(())
    }
    fn put(&self, number: u32, out: &mut Out, _: &Placing<'_>) {
        if *self != 0 {
            out.number(number, *self);
        }
    }
}

impl Slot for Option<i64> {
    fn take(&mut self, _: &mut Input<'_>, field: Field, _: &mut Found) -> Result<()> {
        *self = Some(number(field)?);
        Ok(())
    }
    fn put(&self, number: u32, out: &mut Out, _: &Placing<'_>) {
        if let Some(n) = self {
            out.number(number, *n);
        }
    }
}

impl Slot for Elem {
    fn take(&mut self, _: &mut Input<'_>, field: Field, _: &mut Found) -> Result<()> {
        self.0 = number(field)? as i32;
        Ok(())
    }
    fn put(&self, number: u32, out: &mut Out, _: &Placing<'_>) {
        out.number(number, self.0.into());
    }
}

impl Slot for Kind {
    fn take(&mut self, _: &mut Input<'_>, field: Field, _: &mut Found) -> Result<()> {
        self.0 = number(field)? as i32;
        Ok(())
    }
    fn put(&self, number: u32, out: &mut Out, _: &Placing<'_>) {
        if self.0 != 0 {
            out.number(number, self.0.into());
        }
    }
}

impl Slot for Option<f32> {
    fn take(&mut self, _: &mut Input<'_>, field: Field, _: &mut Found) -> Result<()> {
        let Field::Fixed32(n) = field else { return Err(other_type()) };
        *self = Some(f32::from_bits(n));
        Ok(())
    }
    fn put(&self, number: u32, out: &mut Out, _: &Placing<'_>) {
        if let Some(x) = self {
            out.fixed32(number, x.to_bits());
        }
    }
}

impl Slot for Vec<i64> {
    fn take(&mut self, input: &mut Input<'_>, field: Field, _: &mut Found) -> Result<()> {
        match field {
            Field::Varint(n) => {
                input.charge(8)?;
                self.push(n as i64);
            }
            Field::Bytes(span) => {
                // A number takes one byte or more.
                input.charge(span.len.saturating_mul(8))?;
                input.varints(span, |n, _| {
                    self.push(n as i64);
                    Ok(())
                })?;
            }
            _ => return Err(other_type()),
        }
        Ok(())
    }
    /// Not packed: proto2 packs where it is told to.
    fn put(&self, number: u32, out: &mut Out, _: &Placing<'_>) {
        for n in self {
            out.number(number, *n);
        }
    }
}

impl Slot for Vec<f32> {
    fn take(&mut self, input: &mut Input<'_>, field: Field, _: &mut Found) -> Result<()> {
        match field {
            Field::Fixed32(n) => {
                input.charge(4)?;
                self.push(f32::from_bits(n));
            }
            Field::Bytes(span) => {
                let bytes = input.bytes(span)?;
                let (words, []) = bytes.as_chunks::<4>() else { return Err(other_type()) };
                self.extend(words.iter().map(|w| f32::from_le_bytes(*w)));
            }
            _ => return Err(other_type()),
        }
        Ok(())
    }
    fn put(&self, number: u32, out: &mut Out, _: &Placing<'_>) {
        for x in self {
            out.fixed32(number, x.to_bits());
        }
    }
}

impl Slot for Graph {
    fn take(&mut self, input: &mut Input<'_>, field: Field, found: &mut Found) -> Result<()> {
        self.read(input, span(field)?, found)
    }
    fn put(&self, number: u32, out: &mut Out, placing: &Placing<'_>) {
        out.nested(number, self.encoded(placing));
    }
}

impl<M: Message> Slot for Vec<M> {
    fn take(&mut self, input: &mut Input<'_>, field: Field, found: &mut Found) -> Result<()> {
        let mut message = M::default();
        message.read(input, span(field)?, found)?;
        self.push(message);
        Ok(())
    }
    fn put(&self, number: u32, out: &mut Out, placing: &Placing<'_>) {
        for message in self {
            out.nested(number, message.encoded(placing));
        }
    }
}

/// A message that occurs again goes on with the first: so do protocol buffers have it.
impl<M: Message> Slot for Option<Box<M>> {
    fn take(&mut self, input: &mut Input<'_>, field: Field, found: &mut Found) -> Result<()> {
        self.get_or_insert_default().read(input, span(field)?, found)
    }
    fn put(&self, number: u32, out: &mut Out, placing: &Placing<'_>) {
        if let Some(message) = self {
            out.nested(number, message.encoded(placing));
        }
    }
}

macro_rules! optional {
    ($($name:ty)*) => {$(
        impl Slot for Option<$name> {
            fn take(&mut self, input: &mut Input<'_>, field: Field, found: &mut Found) -> Result<()> {
                self.get_or_insert_default().read(input, span(field)?, found)
            }
            fn put(&self, number: u32, out: &mut Out, placing: &Placing<'_>) {
                if let Some(message) = self {
                    out.nested(number, message.encoded(placing));
                }
            }
        }
    )*};
}
optional! { Tensor Type TensorType Dims }

/// Fields by number and name, in the order in which they are written.
macro_rules! message {
    ($($name:ident { $($number:literal $field:ident)* })*) => {$(
        impl Message for $name {
            fn take(
                &mut self,
                input: &mut Input<'_>,
                number: u64,
                field: Field,
                found: &mut Found,
            ) -> Result<bool> {
                match number {
                    $($number => Slot::take(&mut self.$field, input, field, found)
                        .map_err(|e| e.context(concat!(stringify!($name), ".", stringify!($field))))?,)*
                    _ => return Ok(false),
                }
                Ok(true)
            }
            fn unknown(&mut self) -> &mut Vec<u8> {
                &mut self.unknown
            }
            fn put(&self, out: &mut Out, placing: &Placing<'_>) {
                $(Slot::put(&self.$field, $number, out, placing);)*
                out.bytes.extend_from_slice(&self.unknown);
            }
        }
    )*};
}

message! {
    Program {
        1 ir_version 2 producer 3 producer_version 4 domain 5 model_version 6 doc 7 graph 8 opsets 14 metadata
        20 training 25 functions
    }
    Graph {
        1 nodes 2 name 5 initializers 10 doc 11 inputs 12 outputs 13 values 14 annotations 15 sparse 16 metadata
    }
    Node { 1 inputs 2 outputs 3 name 4 op 5 attributes 6 doc 7 domain 8 overload 9 metadata }
    Attribute {
        1 name 2 f 3 i 4 s 5 t 6 g 7 floats 8 ints 9 strings 10 tensors 11 graphs 13 doc 20 kind 21 reference
        22 sparse 23 sparses
    }
    Function {
        1 name 4 inputs 5 outputs 6 attributes 7 nodes 8 doc 9 opsets 10 domain 11 defaults 12 values 13 overload
        14 metadata
    }
    Training { 1 initialization 2 algorithm 3 initialization_binding 4 update_binding }
    Sparse { 1 values 2 indices 3 dims }
    Annotation { 1 tensor 2 parameters }
    ValueInfo { 1 name 2 kind 3 doc 4 metadata }
    Type { 1 tensor 6 denotation }
    TensorType { 1 elem 2 shape }
    Dims { 1 dims }
    Dimension { 1 value 2 name 3 denotation }
    Opset { 1 domain 2 version }
    Pair { 1 key 2 value }
}

impl Message for Tensor {
    fn take(&mut self, _: &mut Input<'_>, _: u64, _: Field, _: &mut Found) -> Result<bool> {
        Ok(false)
    }
    fn unknown(&mut self) -> &mut Vec<u8> {
        &mut self.unknown
    }
    fn put(&self, out: &mut Out, placing: &Placing<'_>) {
        tensor::put(self, out, placing);
    }
    fn read(&mut self, input: &mut Input<'_>, span: Span, found: &mut Found) -> Result<()> {
        input.charge(size_of::<Self>() as u64)?;
        tensor::read(self, input, span, found)
    }
}

/// Writes fields that [`tensor`] shares with other messages.
pub(crate) fn put_pairs(pairs: &[Pair], number: u32, out: &mut Out, placing: &Placing<'_>) {
    for pair in pairs {
        out.nested(number, pair.encoded(placing));
    }
}
