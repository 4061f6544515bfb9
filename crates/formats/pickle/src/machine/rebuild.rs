//! `torch._utils._rebuild_*`: tensors as views of storages, checked against what their storages claim to hold.

use super::{
    globals::Known,
    heap::{Heap, Object, Quantizer, Storage, Tensor, Value},
};
use crate::{sharded::kind, types::TorchType};
use tensormill_model::{Error, Result};

/// Nested `_rebuild_from_type_v2` calls that are unwrapped; torch writes one.
const WRAPPERS: usize = 8;

impl Heap {
    pub(super) fn rebuild(&mut self, known: Known, args: Value) -> Result<Option<Value>> {
        let items = self.items(args).unwrap_or_default();
        match (known, items) {
            (Known::RebuildTensor, [storage, offset, size, stride])
            | (Known::RebuildTensorV2, [storage, offset, size, stride, _, _]) => {
                self.tensor([*storage, *offset, *size, *stride], None, Value::None).map(Some)
            }
            (Known::RebuildTensorV2, [storage, offset, size, stride, _, _, bits]) => {
                self.tensor([*storage, *offset, *size, *stride], None, *bits).map(Some)
            }
            (Known::RebuildTensorV3, [storage, offset, size, stride, _, _, ty, rest @ ..]) => {
                let Some(Known::Type(dtype)) = self.known(*ty) else {
                    return Err(Error::unsupported(format!("{} is no dtype that is known", self.kind(*ty))));
                };
                let bits = rest.first().copied().unwrap_or(Value::None);
                self.tensor([*storage, *offset, *size, *stride], Some(dtype), bits).map(Some)
            }
            (Known::RebuildQuantized, [storage, offset, size, stride, quantizer, ..]) => {
                let view = [*storage, *offset, *size, *stride];
                let quantizer = self.quantizer(*quantizer)?;
                let v = self.tensor(view, None, Value::None)?;
                if let Some(Object::Tensor(t)) = self.get_mut(v) {
                    t.quantizer = Some(Box::new(quantizer));
                }
                Ok(Some(v))
            }
            (Known::RebuildParameter, [data, ..]) => self.parameter(*data),
            (Known::RebuildOnDevice, [data, ty, ..]) => self.on_device(*data, *ty),
            (Known::RebuildFromType, [func, class, args, ..]) => self.typed_tensor(*func, *class, *args),
            _ => Err(Error::malformed(format!("it is given {} arguments", items.len()))),
        }
    }

    /// The tensor that a parameter is.
    pub(super) fn parameter(&mut self, data: Value) -> Result<Option<Value>> {
        match self.get(data) {
            Some(Object::Tensor(_) | Object::Refused(_) | Object::Array(_) | Object::Opaque(_)) => {
                Ok(Some(data))
            }
            _ => Err(Error::malformed(format!("a parameter made of {}", self.kind(data)))),
        }
    }

    /// `_rebuild_from_type_v2(func, class, args, state)`: a tensor of a class of its own, or with attributes. Class and
    /// attributes are lost, the tensor is not.
    fn typed_tensor(&mut self, func: Value, class: Value, args: Value) -> Result<Option<Value>> {
        let (mut func, mut args) = (func, args);
        for _ in 0..WRAPPERS {
            match self.known(func) {
                Some(Known::RebuildFromType) => match self.items(args) {
                    Some([f, _, a, ..]) => (func, args) = (*f, *a),
                    _ => return Err(Error::malformed("odd arguments")),
                },
                Some(
                    known @ (Known::RebuildTensor
                    | Known::RebuildTensorV2
                    | Known::RebuildTensorV3
                    | Known::RebuildParameter
                    | Known::RebuildQuantized
                    | Known::RebuildOnDevice),
                ) => {
                    let made = self.rebuild(known, args)?;
                    let class = match class {
                        Value::Global(g) if !matches!(self.known(class), Some(Known::TensorClass)) => Some(g),
                        _ => None,
                    };
                    if let Some(Object::Tensor(t)) = made.and_then(|v| self.get_mut(v)) {
                        t.class = class;
                    }
                    return Ok(made);
                }
                // What one process holds: understood where the parts of all of them are at hand.
                Some(Known::Refused(_))
                    if self.global(class).is_some_and(|g| kind(&g.module, &g.name).is_some()) =>
                {
                    return Ok(None);
                }
                Some(Known::Refused(what)) => {
                    return Err(Error::unsupported(format!("{what} cannot be read")));
                }
                _ => {
                    let (func, class) = (self.kind(func), self.kind(class));
                    return Err(Error::unsupported(format!(
                        "a tensor of {class} that only {func} can make cannot be read"
                    )));
                }
            }
        }
        Err(Error::unsupported("a tensor wrapped in too many classes"))
    }

    /// A tensor of a device whose data was pickled from the processor, with its dtype.
    fn on_device(&mut self, data: Value, ty: Value) -> Result<Option<Value>> {
        let Some(Known::Type(dtype)) = self.known(ty) else {
            return Err(Error::unsupported(format!("{} is no dtype that is known", self.kind(ty))));
        };
        let same = match self.get(data) {
            Some(Object::Tensor(t)) => std::ptr::eq(t.ty, dtype),
            Some(Object::Array(a)) => a.ty.torch_type().is_some_and(|t| std::ptr::eq(t, dtype)),
            Some(Object::Refused(_)) => true,
            _ => return Err(Error::malformed(format!("a tensor made of {}", self.kind(data)))),
        };
        if same {
            Ok(Some(data))
        } else {
            Err(Error::unsupported(format!("a tensor to be cast to {}", dtype.name)))
        }
    }

    /// State of a tensor class of torch 0.1: `(storage, offset, size, stride, ...)`.
    pub(super) fn old_tensor(&mut self, state: Value) -> Result<Object> {
        match self.items(state) {
            Some([storage, offset, size, stride, ..]) => {
                self.view([*storage, *offset, *size, *stride], None, Value::None)
            }
            _ => Err(Error::malformed("a tensor with an odd state")),
        }
    }

    fn tensor(&mut self, view: [Value; 4], ty: Option<&'static TorchType>, bits: Value) -> Result<Value> {
        let object = self.view(view, ty, bits)?;
        self.object(object)
    }

    fn view(
        &self,
        [storage, offset, size, stride]: [Value; 4],
        ty: Option<&'static TorchType>,
        bits: Value,
    ) -> Result<Object> {
        let Some(Object::Storage(storage)) = self.get(storage) else {
            return Err(Error::unsupported(format!("its storage is {}", self.kind(storage))));
        };
        if let Some(Object::Dict(d)) = self.get(bits)
            && d.iter().any(|(_, v)| *v != Value::Bool(false))
        {
            return Err(Error::unsupported("a conjugated or negated view cannot be read"));
        }
        let offset = match offset {
            Value::Int(n) => u64::try_from(n).ok(),
            _ => None,
        };
        let offset = offset.ok_or_else(|| Error::malformed("its offset is no size"))?;
        let (size, stride) = (self.sizes(size)?, self.sizes(stride)?);
        if size.len() != stride.len() {
            return Err(Error::malformed(format!("{} dimensions and {} strides", size.len(), stride.len())));
        }
        let tensor = Tensor {
            ty: ty.unwrap_or(storage.ty),
            storage: (**storage).clone(),
            offset,
            size,
            stride,
            quantizer: None,
            class: None,
        };
        tensor.end()?;
        Ok(Object::Tensor(Box::new(tensor)))
    }

    /// Dimensions or strides.
    pub fn sizes(&self, v: Value) -> Result<Box<[u64]>> {
        let items =
            self.items(v).ok_or_else(|| Error::malformed(format!("its dimensions are {}", self.kind(v))))?;
        if items.len() as u64 > u64::from(self.max_rank) {
            return Err(Error::over_limit(format!(
                "a tensor of {} dimensions; the limit is {}",
                items.len(),
                self.max_rank
            )));
        }
        let size = |v: &Value| match v {
            Value::Int(n) => u64::try_from(*n).ok(),
            _ => None,
        };
        let odd = |v: &Value| Error::malformed(format!("a dimension or stride is {}", self.kind(*v)));
        items.iter().map(|v| size(v).ok_or_else(|| odd(v))).collect()
    }

    /// `(scheme, ...)` of a quantized tensor.
    fn quantizer(&self, v: Value) -> Result<Quantizer> {
        let items = self.items(v).unwrap_or_default();
        let scheme = items.first().copied().unwrap_or(Value::None);
        match (self.known(scheme), items) {
            (Some(Known::PerTensor), [_, Value::Float(scale), Value::Int(zero_point)]) => {
                Ok(Quantizer::PerTensor { scale: *scale, zero_point: *zero_point })
            }
            (Some(Known::PerChannel), [_, scales, zero_points, Value::Int(axis)]) => {
                Ok(Quantizer::PerChannel { scales: *scales, zero_points: *zero_points, axis: *axis })
            }
            _ => Err(Error::unsupported(format!("the quantization scheme {}", self.kind(scheme)))),
        }
    }
}

impl Tensor {
    /// One past the last byte of the storage that is read, which the storage must hold; zero for empty tensors.
    pub fn end(&self) -> Result<u64> {
        let overflow = || Error::malformed("its dimensions and strides are larger than 64 bits can count");
        let claimed = self.storage.view.map_or(self.storage.numel, |(_, len)| len);
        let bytes = claimed.checked_mul(self.storage.ty.unit).ok_or_else(overflow)?;
        let mut elements = 1u64;
        let mut last = self.offset;
        for (d, s) in self.size.iter().zip(&self.stride) {
            // Not short-circuited by a zero: no product of any other dimensions may overflow either.
            elements = elements.checked_mul((*d).max(1)).ok_or_else(overflow)?;
            let reach = d.saturating_sub(1).checked_mul(*s).ok_or_else(overflow)?;
            last = last.checked_add(reach).ok_or_else(overflow)?;
        }
        if self.size.contains(&0) {
            return Ok(0);
        }
        let end = last.checked_add(1).and_then(|n| n.checked_mul(self.ty.unit)).ok_or_else(overflow)?;
        if end > bytes {
            return Err(Error::malformed(format!(
                "it ends at byte {end} of a storage of {bytes} (shape {:?}, strides {:?}, offset {})",
                self.size, self.stride, self.offset
            )));
        }
        Ok(end)
    }
}

impl Storage {
    /// Bytes that the whole storage takes, as its persistent id says.
    pub fn bytes(&self) -> Option<u64> {
        self.numel.checked_mul(self.ty.unit)
    }

    /// First byte of the part that is meant.
    pub fn first(&self) -> Result<u64> {
        let Some((first, len)) = self.view else { return Ok(0) };
        let inside = first.checked_add(len).is_some_and(|end| end <= self.numel);
        match first.checked_mul(self.ty.unit) {
            Some(byte) if inside => Ok(byte),
            _ => Err(Error::malformed(format!(
                "its storage is a view of elements {first}+{len} of {}",
                self.numel
            ))),
        }
    }
}
