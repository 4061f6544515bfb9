//! What calls and `BUILD` make of known names; everything else becomes opaque.

use super::{
    globals::Known,
    heap::{Array, ArrayType, Heap, LongKind, Object, Value},
};
use tensormill_model::{Error, ErrorKind, Result};

impl Heap {
    /// What calling `func` with `args` makes, as far as it is known.
    pub fn call(&mut self, func: Value, args: Value, at: u64) -> Result<Value> {
        if self.items(args).is_none() {
            let kind = self.kind(args);
            return Err(Error::malformed(format!("a call with {kind} for arguments")));
        }
        let Some(known) = self.known(func) else {
            return self.opaque_call(func, &[args], at);
        };
        let given = |heap: &Self, i: usize| heap.items(args).and_then(|a| a.get(i)).copied();
        let made = match known {
            Known::Dict | Known::DefaultDict => {
                let source = given(self, 0).filter(|_| matches!(known, Known::Dict));
                return self.dict(source);
            }
            Known::Identity => match given(self, 0) {
                Some(v) => return Ok(v),
                None => return self.object(Object::List(Vec::new())),
            },
            Known::TensorClass => match given(self, 0) {
                Some(v) => self.parameter(v),
                // Comes alive by BUILD.
                None => return self.opaque_call(func, &[args], at),
            },
            Known::Encode | Known::Bytes => match given(self, 0) {
                Some(v) => self.encoded(v, given(self, 1)),
                None => Ok(Some(Value::Bytes(self.text(&[])?))),
            },
            Known::NumpyReconstruct => self.reconstruct(given(self, 0)),
            Known::NumpyType => self.array_type(given(self, 0)),
            Known::NumpyScalar => self.scalar(given(self, 0), given(self, 1)),
            Known::NumpyFromBuffer => self.buffer_array(args),
            Known::Refused(what) => Err(Error::unsupported(format!("{what} cannot be read"))),
            Known::RebuildTensor
            | Known::RebuildTensorV2
            | Known::RebuildTensorV3
            | Known::RebuildParameter
            | Known::RebuildQuantized
            | Known::RebuildFromType
            | Known::RebuildOnDevice => self.rebuild(known, args),
            // Classes of old tensors come alive by BUILD; the others are no functions.
            Known::OldTensor
            | Known::Storage(_)
            | Known::Type(_)
            | Known::PerTensor
            | Known::PerChannel
            | Known::NumpyArray => Ok(None),
        };
        self.or_refused(made, func, args, at)
    }

    /// What was made, or a tensor that says why it could not be: it may never be asked for.
    pub(super) fn or_refused(
        &mut self,
        made: Result<Option<Value>>,
        func: Value,
        args: Value,
        at: u64,
    ) -> Result<Value> {
        match made {
            Ok(Some(v)) => Ok(v),
            // Not a case that is known of this function: like an unknown one.
            Ok(None) => self.opaque_call(func, &[args], at),
            Err(e) if e.kind() == ErrorKind::OverLimit => Err(e),
            Err(e) => {
                let by = self.global(func).map_or_else(String::new, |g| format!("{}, ", g.path()));
                let e = Error::new(e.kind(), format!("{} ({by}{})", e.message(), self.place(at)));
                self.object(Object::Refused(Box::new(e)))
            }
        }
    }

    /// `dict()`, `dict(pairs)` or `dict(dict)`.
    fn dict(&mut self, source: Option<Value>) -> Result<Value> {
        let Some(v) = source else { return self.object(Object::Dict(Vec::new())) };
        let len = match self.get(v) {
            Some(Object::Dict(d)) => d.len(),
            _ => self.items(v).map_or(0, <[Value]>::len),
        };
        self.charge_copy(2 * len as u64)?;
        let entries = if let Some(Object::Dict(d)) = self.get(v) {
            d.clone()
        } else {
            let odd = || Error::malformed(format!("a dict made of {}", self.kind(v)));
            let items = self.items(v).ok_or_else(odd)?;
            let pair = |p: &Value| match self.items(*p) {
                Some([k, v]) => Ok((*k, *v)),
                _ => Err(odd()),
            };
            items.iter().map(pair).collect::<Result<_>>()?
        };
        self.object(Object::Dict(entries))
    }

    /// Bytes given as bytes or as text of the code points 0 to 255; `None` for other forms.
    fn encoded(&mut self, v: Value, encoding: Option<Value>) -> Result<Option<Value>> {
        let latin = encoding
            .and_then(|e| self.str(e))
            .is_some_and(|e| matches!(e, "latin1" | "latin-1" | "iso-8859-1" | "iso8859-1"));
        match v {
            Value::Bytes(_) => Ok(Some(v)),
            Value::Text(t) if latin => {
                self.charge(self.bytes(t).len() as u64 / 4)?;
                let text = std::str::from_utf8(self.bytes(t)).ok();
                let bytes: Option<Vec<u8>> =
                    text.and_then(|s| s.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect());
                let bytes =
                    bytes.ok_or_else(|| Error::malformed("bytes written as text that is not Latin-1"))?;
                Ok(Some(Value::Bytes(self.text(&bytes)?)))
            }
            _ => match self.get(v) {
                Some(&Object::Long { at, len, kind: LongKind::Text }) if latin => {
                    self.object(Object::Long { at, len, kind: LongKind::Latin1 }).map(Some)
                }
                Some(Object::Long { kind: LongKind::Bytes | LongKind::Latin1, .. }) => Ok(Some(v)),
                _ => Ok(None),
            },
        }
    }

    /// Gives an object its state.
    pub fn build(&mut self, target: Value, state: Value, at: u64) -> Result<()> {
        let Value::Object(n) = target else { return Ok(()) };
        let replaced = match self.get(target) {
            Some(Object::Opaque(o)) => {
                let known = o.global.and_then(|g| self.globals[g as usize].known);
                // As `Tensor.__setstate__` of torch 0.1 to 0.3 takes it.
                let old = matches!(known, Some(Known::OldTensor | Known::TensorClass))
                    && self.items(state).is_some_and(|s| s.len() >= 4);
                if old { self.old_tensor(state).map(Some) } else { Ok(None) }
            }
            Some(Object::ArrayType(_)) => self.array_type_state(target, state).map(|()| None),
            Some(Object::Array(_)) => self.array_state(target, state).map(|()| None),
            _ => Ok(None),
        };
        match replaced {
            Ok(Some(object)) => self.objects[n as usize] = object,
            Ok(None) => {
                if let Some(Object::Opaque(o)) = self.get_mut(target) {
                    if let Some(earlier) = o.state.replace(state) {
                        o.parts.push(earlier);
                    }
                    self.charge(1)?;
                }
            }
            Err(e) if e.kind() == ErrorKind::OverLimit => return Err(e),
            Err(e) => {
                let e = Error::new(e.kind(), format!("{} ({})", e.message(), self.place(at)));
                self.objects[n as usize] = Object::Refused(Box::new(e));
            }
        }
        Ok(())
    }

    /// `numpy.core.multiarray._reconstruct(numpy.ndarray, (0,), b"b")`: an array that its state will fill.
    fn reconstruct(&mut self, class: Option<Value>) -> Result<Option<Value>> {
        if !matches!(class.and_then(|c| self.known(c)), Some(Known::NumpyArray)) {
            return Ok(None);
        }
        let ty = ArrayType { name: String::new(), big_endian: false, structured: false, torch: None };
        let empty = Array { ty, shape: Box::default(), fortran: false, data: Value::None };
        self.object(Object::Array(Box::new(empty))).map(Some)
    }

    /// `numpy.dtype("f4", False, True)`; byte order and fields come as state.
    fn array_type(&mut self, arg: Option<Value>) -> Result<Option<Value>> {
        let Some(arg) = arg else { return Ok(None) };
        let torch = match self.known(arg) {
            Some(Known::Type(ty)) => Some(ty),
            _ => None,
        };
        let text = self.str(arg).map(str::to_owned);
        let structured = text.is_none() && torch.is_none();
        let name = text.unwrap_or_else(|| self.kind(arg));
        let big_endian = name.starts_with('>');
        let name = name.trim_start_matches(['<', '>', '|', '=']).to_owned();
        self.charge(name.len() as u64 / 16)?;
        let ty = ArrayType { name, big_endian, structured, torch };
        self.object(Object::ArrayType(Box::new(ty))).map(Some)
    }

    fn array_type_state(&mut self, target: Value, state: Value) -> Result<()> {
        let items = self.items(state).unwrap_or_default();
        let [_, order, sub, names, ..] = *items else {
            return Err(Error::malformed("a numpy dtype with an odd state"));
        };
        let big = matches!(self.str(order), Some(">"));
        if let Some(Object::ArrayType(ty)) = self.get_mut(target) {
            ty.big_endian = big;
            ty.structured |= sub != Value::None || names != Value::None;
        }
        Ok(())
    }

    fn array_type_of(&self, v: Value) -> Result<ArrayType> {
        match self.get(v) {
            Some(Object::ArrayType(ty)) => Ok((**ty).clone()),
            _ => Err(Error::unsupported(format!("a numpy array whose dtype is {}", self.kind(v)))),
        }
    }

    /// `(version, shape, dtype, is_fortran, data)`.
    fn array_state(&mut self, target: Value, state: Value) -> Result<()> {
        let items = self.items(state).unwrap_or_default();
        let ([_, shape, ty, fortran, data] | [shape, ty, fortran, data]) = *items else {
            return Err(Error::malformed("a numpy array with an odd state"));
        };
        let fortran = !matches!(fortran, Value::Bool(false) | Value::Int(0));
        let array = Array { ty: self.array_type_of(ty)?, shape: self.sizes(shape)?, fortran, data };
        self.charge(array.shape.len() as u64)?;
        if let Some(Object::Array(a)) = self.get_mut(target) {
            **a = array;
        }
        Ok(())
    }

    /// `numpy.core.numeric._frombuffer(buffer, dtype, shape, order)`.
    fn buffer_array(&mut self, args: Value) -> Result<Option<Value>> {
        let items = self.items(args).unwrap_or_default();
        let [data, ty, shape, order, ..] = *items else { return Ok(None) };
        let fortran = match self.str(order) {
            Some("C") => false,
            Some("F") => true,
            _ => return Ok(None),
        };
        let array = Array { ty: self.array_type_of(ty)?, shape: self.sizes(shape)?, fortran, data };
        self.object(Object::Array(Box::new(array))).map(Some)
    }

    /// `numpy.core.multiarray.scalar(dtype, bytes)`: an array without dimensions.
    fn scalar(&mut self, ty: Option<Value>, data: Option<Value>) -> Result<Option<Value>> {
        let (Some(ty), Some(data)) = (ty, data) else { return Ok(None) };
        let array = Array { ty: self.array_type_of(ty)?, shape: Box::default(), fortran: false, data };
        self.object(Object::Array(Box::new(array))).map(Some)
    }
}
