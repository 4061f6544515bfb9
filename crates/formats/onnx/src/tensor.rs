//! `TensorProto`: reading it without its elements, and writing it with a hole for them.

use crate::{
    codec::{self, Message},
    data::{self, Found, FoundTensor, Placing, Stored, fits},
    wire::{Field, Input, Out, Span},
};
use std::sync::Arc;
use tensormill_graph::{Content, Elem, Pair, Tensor};
use tensormill_model::{Error, Result};

/// Elements that are written one field each, or in several pieces, are read at once, up to this many bytes.
const LOOSE: u64 = 1 << 20;

/// Entries of external data: there are five keys.
const EXTERNAL: usize = 16;

/// The fields that hold elements.
#[derive(Default)]
struct Fields {
    raw: Option<Span>,
    /// Packed `float_data`, `double_data`: little-endian as they stand.
    fixed: Option<Span>,
    /// Packed numbers of varying length.
    numbers: Option<Span>,
    /// Elements that are not packed or in several pieces, as bytes of floats or as numbers.
    loose: Vec<u8>,
    loose_numbers: Vec<u64>,
    external: Vec<Pair>,
    /// Value of `data_location`.
    location: u64,
    segment: bool,
}

impl Fields {
    /// Packed floats: where they are, or behind those that came before.
    fn floats(&mut self, input: &mut Input<'_>, span: Span) -> Result<()> {
        if self.fixed.is_none() && self.loose.is_empty() {
            self.fixed = Some(span);
            return Ok(());
        }
        for span in self.fixed.take().into_iter().chain([span]) {
            room(self.loose.len() as u64 + span.len)?;
            self.loose.extend(input.bytes(span)?);
        }
        Ok(())
    }

    /// Floats in a field of their own.
    fn float(&mut self, input: &mut Input<'_>, bytes: &[u8]) -> Result<()> {
        if let Some(span) = self.fixed.take() {
            room(span.len)?;
            self.loose = input.bytes(span)?;
        }
        input.charge(bytes.len() as u64)?;
        room(self.loose.len() as u64)?;
        self.loose.extend_from_slice(bytes);
        Ok(())
    }

    /// The same for numbers of varying length.
    fn integers(&mut self, input: &mut Input<'_>, span: Span) -> Result<()> {
        if self.numbers.is_none() && self.loose_numbers.is_empty() {
            self.numbers = Some(span);
            return Ok(());
        }
        for span in self.numbers.take().into_iter().chain([span]) {
            self.unpack(input, span)?;
        }
        Ok(())
    }

    fn integer(&mut self, input: &mut Input<'_>, n: u64) -> Result<()> {
        if let Some(span) = self.numbers.take() {
            self.unpack(input, span)?;
        }
        input.charge(8)?;
        room(self.loose_numbers.len() as u64 * 8)?;
        self.loose_numbers.push(n);
        Ok(())
    }

    fn unpack(&mut self, input: &mut Input<'_>, span: Span) -> Result<()> {
        // A number takes one byte or more.
        let most = span.len.saturating_mul(8);
        room((self.loose_numbers.len() as u64 * 8).saturating_add(most))?;
        input.charge(most)?;
        input.varints(span, |n, _| {
            self.loose_numbers.push(n);
            Ok(())
        })
    }

    /// Elements are in one place.
    fn agree(&self) -> Result<()> {
        let within = [
            self.raw.is_some(),
            self.fixed.is_some() || !self.loose.is_empty(),
            self.numbers.is_some() || !self.loose_numbers.is_empty(),
        ];
        match (self.location, within.iter().filter(|w| **w).count()) {
            (0, 0 | 1) | (1, 0) => Ok(()),
            (0 | 1, _) => Err(Error::malformed("it has its elements twice")),
            (n, _) => Err(Error::malformed(format!("its data are in the unknown place {n}"))),
        }
    }
}

pub(crate) fn read(t: &mut Tensor, input: &mut Input<'_>, span: Span, found: &mut Found) -> Result<()> {
    let mut fields = Fields::default();
    let mut texts: Vec<Vec<u8>> = Vec::new();
    input.message(span, |input, number, field, whole| {
        match (number, field) {
            (1, Field::Varint(n)) => {
                input.charge(8)?;
                t.dims.push(n as i64);
            }
            (1, Field::Bytes(span)) => {
                input.charge(span.len.saturating_mul(8))?;
                input.varints(span, |n, _| {
                    t.dims.push(n as i64);
                    Ok(())
                })?;
            }
            (2, Field::Varint(n)) => t.elem = Elem(n as i32),
            (3, _) => fields.segment = true,
            (4 | 10, Field::Bytes(span)) => fields.floats(input, span)?,
            (4, Field::Fixed32(n)) => fields.float(input, &n.to_le_bytes())?,
            (10, Field::Fixed64(n)) => fields.float(input, &n.to_le_bytes())?,
            (5 | 7 | 11, Field::Bytes(span)) => fields.integers(input, span)?,
            (5 | 7 | 11, Field::Varint(n)) => fields.integer(input, n)?,
            (6, Field::Bytes(span)) => {
                input.charge(size_of::<Vec<u8>>() as u64)?;
                texts.push(input.bytes(span)?);
            }
            (8, Field::Bytes(span)) => t.name = input.text(span)?,
            (9, Field::Bytes(span)) => fields.raw = Some(span),
            (12, Field::Bytes(span)) => t.doc = input.text(span)?,
            (13, _) if fields.external.len() >= EXTERNAL => {
                return Err(Error::malformed("more entries of external data than there are keys"));
            }
            (13 | 16, Field::Bytes(span)) => {
                let mut pair = Pair::default();
                pair.read(input, span, &mut Found::default())?;
                let list = if number == 13 { &mut fields.external } else { &mut t.metadata };
                list.push(pair);
            }
            (14, Field::Varint(n)) => fields.location = n,
            (1..=14 | 16, _) => return Err(Error::malformed("a field of another type than ONNX says")),
            _ => {
                let bytes = input.bytes(whole)?;
                t.unknown.extend(bytes);
            }
        }
        Ok(())
    })?;
    let name = t.name.clone();
    let named = |e: Error| if name.is_empty() { e } else { e.tensor(&name) };
    if t.elem == Elem::STRING {
        if t.elements() != Some(texts.len() as u64) {
            return Err(named(Error::malformed(format!(
                "{} texts for the dimensions {:?}",
                texts.len(),
                t.dims
            ))));
        }
        t.content = Content::Texts(texts);
        return Ok(());
    }
    elements(t, fields, input, found).map_err(|e| named(e.at(span.start)))
}

/// Finds the elements; small ones are read.
fn elements(t: &mut Tensor, fields: Fields, input: &mut Input<'_>, found: &mut Found) -> Result<()> {
    if fields.segment {
        return Err(Error::unsupported("a tensor in segments"));
    }
    if t.elem.0 <= 0 {
        return Err(Error::malformed(format!("it has no element type ({})", t.elem.0)));
    }
    fields.agree()?;
    let rank = input.limits().rank;
    if t.dims.len() > rank as usize {
        return Err(Error::over_limit(format!("{} dimensions; the limit is {rank}", t.dims.len())));
    }
    let Some(bits) = t.elem.bits() else {
        return Err(Error::unsupported(format!("{} is unknown to this version", t.elem)));
    };
    let size = t.elements().and_then(|n| Some((n, t.elem.bytes(n)?)));
    let Some((_, bytes)) = size.filter(|(_, bytes)| i64::try_from(*bytes).is_ok()) else {
        return Err(Error::malformed(format!("dimensions {:?} that no tensor can have", t.dims)));
    };
    let dims: Vec<u64> = t.dims.iter().map(|d| *d as u64).collect();
    // A dimension of zero lets the others be anything; none of them may be more than can be counted.
    if dims.iter().filter(|d| **d != 0).try_fold(bits, |n, d| n.checked_mul(*d)).is_none() {
        return Err(Error::malformed(format!("dimensions {:?} that no tensor can have", t.dims)));
    }
    let stored = if fields.location == 1 {
        external(&fields.external, bytes)?
    } else {
        here(t, bits, bytes, fields, input)?
    };
    t.content = Content::Elsewhere;
    if bytes < data::SMALL && !matches!(stored, Stored::External { .. }) {
        let known = known(&stored, bytes, input)?;
        t.content = Content::Raw(Arc::clone(&known));
    }
    if found.tensors.len() as u64 >= input.limits().tensors {
        return Err(Error::over_limit(format!("more than {} tensors", input.limits().tensors)));
    }
    if t.name.len() > crate::CAPABILITIES.max_name_bytes {
        return Err(Error::over_limit(format!("a name of {} bytes", t.name.len())));
    }
    input.charge(size_of::<FoundTensor>() as u64)?;
    t.slot = Some(found.tensors.len());
    found.tensors.push(FoundTensor { stored, elem: t.elem, dims, bytes });
    Ok(())
}

fn known(stored: &Stored, bytes: u64, input: &mut Input<'_>) -> Result<Arc<[u8]>> {
    if let Stored::Known(known) = stored {
        return Ok(Arc::clone(known));
    }
    let mut out = vec![0; bytes as usize];
    input.charge(bytes)?;
    stored.read(input.store(), 0, &mut out)?;
    Ok(out.into())
}

/// Elements that the tensor holds itself.
fn here(t: &Tensor, bits: u64, bytes: u64, mut fields: Fields, input: &mut Input<'_>) -> Result<Stored> {
    let elem = t.elem;
    let lengths = |have: u64| {
        Err(Error::malformed(format!("{have} bytes of elements, where its shape takes {bytes}"))
            .hint("the file is damaged: download or export it again"))
    };
    let width = (bits / 8).max(1);
    if let Some(span) = fields.raw {
        return if span.len == bytes { Ok(Stored::Here(span)) } else { lengths(span.len) };
    }
    if bits == 6 {
        return six_bits(t, &mut fields, input);
    }
    let floats = matches!(elem, Elem::F32 | Elem::F64 | Elem::C64 | Elem::C128);
    match (floats, fields.fixed, fields.numbers) {
        (true, Some(span), _) if span.len == bytes => Ok(Stored::Here(span)),
        (true, Some(span), _) => lengths(span.len),
        (true, None, _) if fields.loose.len() as u64 == bytes => Ok(Stored::Known(fields.loose.into())),
        (true, None, _) => lengths(fields.loose.len() as u64),
        (false, _, Some(span)) => Stored::numbers(input, span, (elem, width as usize), bytes / width),
        (false, _, None) => {
            let loose = &fields.loose_numbers;
            let have = loose.len() as u64 * width;
            if have != bytes {
                return lengths(have);
            }
            if loose.iter().any(|n| !fits(*n, elem, width as usize)) {
                return Err(Error::malformed("an element beyond its type's range"));
            }
            let known: Vec<u8> =
                loose.iter().flat_map(|n| n.to_le_bytes().into_iter().take(width as usize)).collect();
            Ok(Stored::Known(known.into()))
        }
    }
}

/// Six-bit numbers are densely packed as bytes, and one to a number elsewhere.
fn six_bits(t: &Tensor, fields: &mut Fields, input: &mut Input<'_>) -> Result<Stored> {
    if let Some(span) = fields.numbers.take() {
        fields.unpack(input, span)?;
    }
    let numbers = &fields.loose_numbers;
    let count = t.elements().unwrap_or_default();
    if numbers.len() as u64 != count {
        return Err(Error::malformed(format!("{} numbers, where its shape takes {count}", numbers.len())));
    }
    let mut bytes = vec![0; (numbers.len() * 6).div_ceil(8)];
    for (i, n) in numbers.iter().enumerate() {
        if n >> 6 != 0 {
            return Err(Error::malformed("an element beyond its type's range"));
        }
        for bit in (0..6).filter(|bit| n >> bit & 1 == 1) {
            bytes[(i * 6 + bit) / 8] |= 1 << ((i * 6 + bit) % 8);
        }
    }
    Ok(Stored::Known(bytes.into()))
}

/// Elements that are not one piece of the file are held in memory.
fn room(bytes: u64) -> Result<()> {
    if bytes > LOOSE {
        return Err(Error::unsupported(format!(
            "more than {LOOSE} bytes of elements that are not packed into one field"
        )));
    }
    Ok(())
}

/// What `external_data` says. Keys are those of `onnx.proto`.
fn external(pairs: &[Pair], bytes: u64) -> Result<Stored> {
    if pairs.iter().enumerate().any(|(i, p)| pairs[..i].iter().any(|q| q.key == p.key)) {
        return Err(Error::malformed("external data with a key that occurs twice"));
    }
    let of = |key: &str| pairs.iter().find(|p| p.key == key).map(|p| p.value.as_str());
    let number = |key: &str| {
        of(key).map_or(Ok(None), |v| {
            let digits = Some(v).filter(|v| v.bytes().all(|b| b.is_ascii_digit()));
            digits.and_then(|v| v.parse::<u64>().ok()).map(Some).ok_or_else(|| {
                let shown: String = v.chars().take(40).collect();
                Error::malformed(format!("external data of the {key} {shown:?}"))
            })
        })
    };
    let location = of("location").filter(|l| !l.is_empty());
    let location = location.ok_or_else(|| Error::malformed("external data without a location"))?;
    let leads_out = location.starts_with('/')
        || location.contains(['\\', '\0', ':'])
        || location.split('/').any(|part| part == "..");
    if leads_out || location.len() > 4096 {
        return Err(Error::malformed(format!(
            "external data at {:?}, which leads out of the model's folder",
            location.chars().take(100).collect::<String>()
        ))
        .hint("do not load this file: a loader would read whatever file the path leads to"));
    }
    let length = number("length")?;
    if let Some(length) = length.filter(|n| *n != bytes) {
        return Err(Error::malformed(format!(
            "{length} bytes of external data, where its shape takes {bytes}"
        )));
    }
    let offset = number("offset")?.unwrap_or(0);
    Ok(Stored::External { location: location.to_owned(), offset, to_end: length.is_none() })
}

pub(crate) fn put(t: &Tensor, out: &mut Out, placing: &Placing<'_>) {
    let placed = t.slot.and_then(|slot| placing.slots.get(slot));
    let (dims, elem) = placed.map_or((&t.dims, t.elem), |p| (&p.dims, p.elem));
    for d in dims {
        out.number(1, *d);
    }
    out.number(2, elem.0.into());
    if let (None, Content::Texts(texts)) = (placed, &t.content) {
        for text in texts {
            out.blob(6, text);
        }
    }
    if !t.name.is_empty() {
        out.blob(8, t.name.as_bytes());
    }
    match (placed, &t.content) {
        (Some(p), _) if p.external.is_none() => out.hole(9, p.bytes, t.slot.unwrap_or_default()),
        (None, Content::Raw(bytes)) => out.blob(9, bytes),
        _ => {}
    }
    if !t.doc.is_empty() {
        out.blob(12, t.doc.as_bytes());
    }
    if let Some((location, offset)) = placed.and_then(|p| p.external.as_ref()) {
        let length = placed.map_or(0, |p| p.bytes);
        let pairs = [
            Pair::new("location", location),
            Pair::new("offset", offset.to_string()),
            Pair::new("length", length.to_string()),
        ];
        codec::put_pairs(&pairs, 13, out, placing);
        out.number(14, 1);
    }
    codec::put_pairs(&t.metadata, 16, out, placing);
    out.bytes.extend_from_slice(&t.unknown);
}
