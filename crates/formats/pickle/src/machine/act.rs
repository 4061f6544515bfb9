//! Opcodes that import, call, build or refer to what is outside the pickle: here they make known things and opaque ones.

use super::{
    Machine, Persistent,
    globals::Known,
    heap::{Heap, Object, Opaque, Storage, Value},
    opcodes::code as c,
    ops::{Arg, Op},
};
use tensormill_model::{Error, ErrorKind, Result};

impl Machine<'_> {
    /// Opcodes that import, call or build.
    pub(super) fn act(&mut self, op: Op) -> Result<()> {
        match (op.code, op.arg) {
            (c::GLOBAL, _) => {
                let v = self.import_lines()?;
                self.imported(op, v)?;
                self.push(v);
            }
            (c::STACK_GLOBAL, _) => {
                let (name, module) = (self.pop()?, self.pop()?);
                let names = (self.heap.str(module), self.heap.str(name));
                // Names that are computed or overlong cannot be told; a loader would fail on most of them.
                let (module, name) = match names {
                    (Some(m), Some(n)) => (m.to_owned(), n.to_owned()),
                    _ => ("?".to_owned(), "?".to_owned()),
                };
                let v = self.heap.import(&module, &name)?;
                self.imported(op, v)?;
                self.push(v);
            }
            (c::EXT1 | c::EXT2 | c::EXT4, Arg::Int(n)) => {
                let v = self.heap.import("copyreg.extension", &n.to_string())?;
                self.imported(op, v)?;
                self.push(v);
            }
            (c::PERSID, _) => {
                let id = self.heap.text(self.ops.kept())?;
                let v = self.persistent(Value::Text(id))?;
                self.push(v);
            }
            (c::BINPERSID, _) => {
                let id = self.pop()?;
                let v = self.persistent(id)?;
                self.push(v);
            }
            (c::REDUCE | c::NEWOBJ, _) => {
                let (args, func) = (self.pop()?, self.pop()?);
                self.called(op, func, args)?;
            }
            (c::NEWOBJ_EX, _) => {
                let (kwargs, args, func) = (self.pop()?, self.pop()?, self.pop()?);
                let none = match self.heap.get(kwargs) {
                    Some(Object::Dict(d)) => d.is_empty(),
                    _ => false,
                };
                if none {
                    self.called(op, func, args)?;
                } else {
                    self.note(op, func)?;
                    let v = self.heap.opaque_call(func, &[args, kwargs], op.at)?;
                    self.push(v);
                }
            }
            (c::OBJ, _) => {
                let items = self.pop_mark()?;
                let (func, args) =
                    items.split_first().ok_or_else(|| Error::malformed("OBJ without a class"))?;
                let args = self.heap.object(Object::Tuple(args.into()))?;
                self.called(op, *func, args)?;
            }
            (c::INST, _) => {
                let func = self.import_lines()?;
                self.imported(op, func)?;
                let items = self.pop_mark()?;
                let args = self.heap.object(Object::Tuple(items.into()))?;
                self.called(op, func, args)?;
            }
            (c::BUILD, _) => {
                let state = self.pop()?;
                let target = self.top()?;
                self.note(op, target)?;
                self.heap.build(target, state, op.at)?;
            }
            _ => return Err(Error::malformed("an opcode with the wrong argument")),
        }
        Ok(())
    }

    fn called(&mut self, op: Op, func: Value, args: Value) -> Result<()> {
        self.note(op, func)?;
        let v = self.heap.call(func, args, op.at)?;
        self.push(v);
        Ok(())
    }

    fn imported(&mut self, op: Op, v: Value) -> Result<()> {
        if let Some(log) = &mut self.log {
            log.imports.push((op.at, op.code, v));
            self.heap.charge(2)?;
        }
        Ok(())
    }

    fn note(&mut self, op: Op, target: Value) -> Result<()> {
        if let Some(log) = &mut self.log {
            log.calls.push((op.at, op.code, target));
            self.heap.charge(2)?;
        }
        Ok(())
    }

    fn import_lines(&mut self) -> Result<Value> {
        let text = std::str::from_utf8(self.ops.kept())
            .map_err(|_| Error::malformed("an imported name that is not UTF-8"))?;
        let (module, name) = text.split_once('\n').unwrap_or((text, ""));
        let clip = |s: &str| s.strip_suffix('\r').unwrap_or(s).to_owned();
        let (module, name) = (clip(module), clip(name));
        self.heap.import(&module, &name)
    }

    /// What a persistent id stands for. When nothing is loaded, anything goes.
    fn persistent(&mut self, id: Value) -> Result<Value> {
        match self.persistent_object(id) {
            Err(e) if self.log.is_some() && e.kind() != ErrorKind::OverLimit => {
                self.heap.opaque_call(Value::None, &[id], self.ops.position())
            }
            result => result,
        }
    }

    fn persistent_object(&mut self, id: Value) -> Result<Value> {
        let heap = &mut self.heap;
        let first = heap.tuple(id).and_then(|t| t.first()).copied();
        if let Some(tag) = first {
            match heap.str(tag) {
                // A class with its source text, in files of torch 0.1 to 1.5: the class is all that counts.
                Some("module") => return Ok(heap.tuple(id).and_then(|t| t.get(1)).copied().unwrap_or(id)),
                Some("storage") if matches!(self.persistent, Persistent::Storages) => {
                    let storage = heap.storage(id)?;
                    return heap.object(Object::Storage(Box::new(storage)));
                }
                // The same without a tag, in tar archives.
                _ if matches!(self.persistent, Persistent::Objects(_)) => return Ok(tag),
                _ => {}
            }
        }
        if let Persistent::Objects(known) = &self.persistent {
            let number = match id {
                Value::Int(n) => Some(n),
                v => heap.str(v).and_then(|s| s.trim().parse().ok()),
            };
            return number
                .and_then(|n| known.get(&n).copied())
                .ok_or_else(|| Error::malformed("a persistent id that names no tensor of the archive"));
        }
        Err(Error::malformed("a persistent id that names no storage"))
    }
}

impl Heap {
    /// The storage of a persistent id `("storage", class, key, location, numel[, view])`.
    fn storage(&mut self, id: Value) -> Result<Storage> {
        let bad = |what: &str| Error::malformed(format!("a persistent id of a storage with {what}"));
        let items = self.tuple(id).unwrap_or_default();
        let (class, key, numel, view) = match *items {
            [_, class, key, _, numel] => (class, key, numel, Value::None),
            [_, class, key, _, numel, view] => (class, key, numel, view),
            _ => return Err(bad(&format!("{} parts", items.len()))),
        };
        let Some(Known::Storage(ty)) = self.known(class) else {
            let kind = self.kind(class);
            return Err(Error::unsupported(format!("{kind} is not a class of storages that is known")));
        };
        let Value::Int(numel) = numel else { return Err(bad("an odd number of elements")) };
        let numel = u64::try_from(numel).map_err(|_| bad("a negative number of elements"))?;
        let view = match self.tuple(view) {
            Some([_, Value::Int(first), Value::Int(len)]) => {
                let of = |n: i64| u64::try_from(n).map_err(|_| bad("a negative view"));
                Some((of(*first)?, of(*len)?))
            }
            Some(_) => return Err(bad("an odd view")),
            None => None,
        };
        let key = match key {
            Value::Int(n) => n.to_string(),
            v => self.str(v).ok_or_else(|| bad("a key that is no text"))?.to_owned(),
        };
        let key = self.key(&key)?;
        Ok(Storage { key, ty, numel, view })
    }

    /// An object that stands for the result of a call that is not made.
    pub fn opaque_call(&mut self, func: Value, parts: &[Value], at: u64) -> Result<Value> {
        let global = match func {
            Value::Global(n) => Some(n),
            // A method or the like of something opaque: its name is the best there is.
            v => match self.get(v) {
                Some(Object::Opaque(o)) => o.global,
                _ => None,
            },
        };
        let mut parts = parts.to_vec();
        if global.is_none() && func != Value::None {
            parts.push(func);
        }
        let opaque = Opaque { global, at, parts, entries: Vec::new(), state: None };
        self.object(Object::Opaque(Box::new(opaque)))
    }
}
