//! The machine that reads a pickle as data: it keeps the pickle's stack and memo, makes plain values and the few things
//! that [`globals`] knows, and stands an opaque object in for everything else. No name is looked up, nothing is called.
//!
//! Semantics follow CPython's `pickle.py`. Objects are shared by reference; nothing here recurses.
//!
//! Must not know files, containers, or what a name in a state dict means.

mod act;
mod calls;
pub(crate) mod globals;
pub(crate) mod heap;
pub(crate) mod opcodes;
pub(crate) mod ops;
mod rebuild;
mod text;

use heap::{Heap, LongKind, Object, Value};
use opcodes::code as c;
use ops::{Arg, KEEP, Op, Ops};
use std::collections::HashMap;
use tensormill_model::{Error, ErrorKind, Limits, Result, Store};

/// What persistent ids stand for.
#[derive(Debug)]
pub(crate) enum Persistent {
    /// Tuples `("storage", class, key, location, numel)`, with a view as sixth element in old files.
    Storages,
    /// Numbers of objects that exist already: tensors of tar archives.
    Objects(HashMap<i64, Value>),
}

/// What a pickle did that a real loader would have acted on.
#[derive(Debug, Default)]
pub(crate) struct Log {
    /// Place, opcode and import.
    pub imports: Vec<(u64, u8, Value)>,
    /// Place, opcode and what it was applied to.
    pub calls: Vec<(u64, u8, Value)>,
}

pub(crate) struct Machine<'a> {
    ops: Ops<'a>,
    pub heap: Heap,
    stack: Vec<Value>,
    marks: Vec<usize>,
    memo: Memo,
    persistent: Persistent,
    pub log: Option<Log>,
}

/// The memo: keys are nearly always counted up from zero.
#[derive(Default)]
struct Memo {
    dense: Vec<Option<Value>>,
    sparse: HashMap<usize, Value>,
    count: usize,
}

impl Memo {
    /// Keys that may be left out at a time and still be counted up.
    const GAP: usize = 256;

    fn insert(&mut self, n: usize, v: Value) {
        let new = if n < self.dense.len() + Self::GAP {
            if n >= self.dense.len() {
                self.dense.resize(n + 1, None);
            }
            self.dense[n].replace(v).is_none()
        } else {
            self.sparse.insert(n, v).is_none()
        };
        self.count += usize::from(new);
    }

    fn get(&self, n: i64) -> Option<Value> {
        let n = usize::try_from(n).ok()?;
        self.dense.get(n).copied().flatten().or_else(|| self.sparse.get(&n).copied())
    }
}

/// What is left after the last opcode.
#[derive(Debug)]
pub(crate) struct Finished {
    pub heap: Heap,
    pub root: Value,
    /// Position behind the pickle.
    pub end: u64,
}

/// Runs one pickle to its end.
pub(crate) fn run(
    store: &dyn Store,
    start: u64,
    label: impl Into<String>,
    persistent: Persistent,
    limits: &Limits,
) -> Result<Finished> {
    Machine::new(store, start, Heap::new(limits, label.into(), start), persistent, limits).finish()
}

impl<'a> Machine<'a> {
    pub fn new(
        store: &'a dyn Store,
        start: u64,
        heap: Heap,
        persistent: Persistent,
        limits: &'a Limits,
    ) -> Self {
        Self {
            ops: Ops::new(store, start, limits),
            heap,
            stack: Vec::new(),
            marks: Vec::new(),
            memo: Memo::default(),
            persistent,
            log: None,
        }
    }

    /// Runs to the end.
    pub fn finish(mut self) -> Result<Finished> {
        loop {
            if let Some(root) = self.step()? {
                return Ok(Finished { root, end: self.ops.position(), heap: self.heap });
            }
        }
    }

    /// Position of the next opcode.
    pub fn position(&self) -> u64 {
        self.ops.position()
    }

    /// Runs one opcode; gives the pickle's value after the last one.
    pub fn step(&mut self) -> Result<Option<Value>> {
        let op = self.ops.next().map_err(|e| self.located(&e, self.ops.position()))?;
        if op.code == c::STOP {
            return self.pop().map(Some).map_err(|e| self.located(&e, op.at));
        }
        self.apply(op).map_err(|e| self.located(&e, op.at))?;
        // What is kept on the stack and in the memo counts as well; it is never more than both counts together.
        self.heap.within((self.stack.len() + self.marks.len() + 2 * self.memo.count) as u64)?;
        Ok(None)
    }

    /// The same error with its place in the pickle instead of one in the store.
    fn located(&self, e: &Error, at: u64) -> Error {
        match e.kind() {
            ErrorKind::Malformed | ErrorKind::Unsupported => {
                let place = self.heap.place(e.offset().unwrap_or(at));
                Error::new(e.kind(), format!("{} ({place})", e.message()))
            }
            _ => e.clone(),
        }
    }

    fn push(&mut self, v: Value) {
        self.stack.push(v);
    }

    /// The topmost value above the last mark.
    fn pop(&mut self) -> Result<Value> {
        let floor = self.marks.last().copied().unwrap_or(0);
        if self.stack.len() <= floor {
            return Err(Error::malformed("the stack is empty here"));
        }
        self.stack.pop().ok_or_else(|| Error::malformed("the stack is empty here"))
    }

    fn top(&self) -> Result<Value> {
        let floor = self.marks.last().copied().unwrap_or(0);
        match self.stack.last() {
            Some(v) if self.stack.len() > floor => Ok(*v),
            _ => Err(Error::malformed("the stack is empty here")),
        }
    }

    /// Everything above the last mark, which goes.
    fn pop_mark(&mut self) -> Result<Vec<Value>> {
        let mark = self.marks.pop().ok_or_else(|| Error::malformed("no mark is on the stack"))?;
        Ok(self.stack.split_off(mark))
    }

    fn make(&mut self, object: Object) -> Result<()> {
        let v = self.heap.object(object)?;
        self.push(v);
        Ok(())
    }

    fn tuple(&mut self, n: usize) -> Result<()> {
        let mut items = vec![Value::None; n];
        for slot in items.iter_mut().rev() {
            *slot = self.pop()?;
        }
        self.make(Object::Tuple(items.into()))
    }

    fn apply(&mut self, op: Op) -> Result<()> {
        match (op.code, op.arg) {
            (c::PROTO, Arg::Int(v)) => {
                if v > 5 {
                    return Err(Error::unsupported(format!(
                        "pickle protocol {v}; protocols 0 to 5 are known"
                    )));
                }
            }
            (c::FRAME, _) => {}
            (c::MARK, _) => self.marks.push(self.stack.len()),
            (c::POP, _) => {
                // As in CPython: with nothing above the mark, the mark itself goes.
                if self.marks.last() == Some(&self.stack.len()) {
                    self.marks.pop();
                } else {
                    self.pop()?;
                }
            }
            (c::POP_MARK, _) => drop(self.pop_mark()?),
            (c::DUP, _) => self.push(self.top()?),

            (c::NONE, _) => self.push(Value::None),
            (c::NEWTRUE, _) => self.push(Value::Bool(true)),
            (c::NEWFALSE, _) => self.push(Value::Bool(false)),
            (c::BININT | c::BININT1 | c::BININT2, Arg::Int(v)) => self.push(Value::Int(v)),
            (c::BINFLOAT, Arg::Float(v)) => self.push(Value::Float(v)),
            (c::INT | c::LONG | c::FLOAT | c::STRING | c::UNICODE, _) => {
                let v = text::literal(&mut self.heap, op.code, self.ops.kept())?;
                self.push(v);
            }
            (c::LONG1 | c::LONG4, Arg::Bytes { len, .. }) => {
                if len > KEEP {
                    return Err(Error::over_limit(format!("an integer of {len} bytes")));
                }
                let v = text::integer(&mut self.heap, self.ops.kept())?;
                self.push(v);
            }
            (
                c::BINSTRING
                | c::SHORT_BINSTRING
                | c::BINUNICODE
                | c::SHORT_BINUNICODE
                | c::BINUNICODE8
                | c::BINBYTES
                | c::SHORT_BINBYTES
                | c::BINBYTES8
                | c::BYTEARRAY8,
                Arg::Bytes { at, len },
            ) => self.string(op.code, at, len)?,
            (c::NEXT_BUFFER | c::READONLY_BUFFER, _) => {
                return Err(Error::unsupported(
                    "a buffer that is not in the pickle (protocol 5, out of band)",
                ));
            }

            (c::EMPTY_TUPLE, _) => self.tuple(0)?,
            (c::TUPLE1, _) => self.tuple(1)?,
            (c::TUPLE2, _) => self.tuple(2)?,
            (c::TUPLE3, _) => self.tuple(3)?,
            (c::TUPLE, _) => {
                let items = self.pop_mark()?;
                self.make(Object::Tuple(items.into()))?;
            }
            (c::EMPTY_LIST | c::EMPTY_SET, _) => self.make(Object::List(Vec::new()))?,
            (c::LIST | c::FROZENSET, _) => {
                let items = self.pop_mark()?;
                self.make(Object::List(items))?;
            }
            (c::EMPTY_DICT, _) => self.make(Object::Dict(Vec::new()))?,
            (c::DICT, _) => {
                let items = self.pop_mark()?;
                let entries = pairs(&items)?;
                self.make(Object::Dict(entries))?;
            }
            (c::APPEND, _) => {
                let item = self.pop()?;
                self.append(&[item])?;
            }
            (c::APPENDS | c::ADDITEMS, _) => {
                let items = self.pop_mark()?;
                self.append(&items)?;
            }
            (c::SETITEM, _) => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.set_items(&[(key, value)])?;
            }
            (c::SETITEMS, _) => {
                let items = self.pop_mark()?;
                self.set_items(&pairs(&items)?)?;
            }

            (c::PUT, _) => {
                let n = self.memo_number()?;
                self.memoize(n)?;
            }
            (c::BINPUT | c::LONG_BINPUT, Arg::Int(n)) => self.memoize(n)?,
            (c::MEMOIZE, _) => self.memoize(self.memo.count as i64)?,
            (c::GET, _) => {
                let n = self.memo_number()?;
                self.recall(n)?;
            }
            (c::BINGET | c::LONG_BINGET, Arg::Int(n)) => self.recall(n)?,

            _ => return self.act(op),
        }
        Ok(())
    }

    /// A string or bytes: kept when short, left in the pickle otherwise.
    fn string(&mut self, code: u8, at: u64, len: u64) -> Result<()> {
        let text = match code {
            c::BINUNICODE | c::SHORT_BINUNICODE | c::BINUNICODE8 => true,
            // Strings of Python 2 are text where they can be.
            c::BINSTRING | c::SHORT_BINSTRING => len <= KEEP && std::str::from_utf8(self.ops.kept()).is_ok(),
            _ => false,
        };
        if len > KEEP {
            let kind = if text { LongKind::Text } else { LongKind::Bytes };
            return self.make(Object::Long { at, len, kind });
        }
        let t = self.heap.text(self.ops.kept())?;
        self.push(if text { Value::Text(t) } else { Value::Bytes(t) });
        Ok(())
    }

    fn append(&mut self, items: &[Value]) -> Result<()> {
        let target = self.top()?;
        self.heap.charge(items.len() as u64)?;
        match self.heap.get_mut(target) {
            Some(Object::List(list)) => {
                // Most lists are filled once.
                if list.is_empty() {
                    list.reserve_exact(items.len());
                }
                list.extend_from_slice(items);
            }
            Some(Object::Opaque(o)) => o.parts.extend_from_slice(items),
            _ => {
                let kind = self.heap.kind(target);
                return Err(Error::malformed(format!("items are added to {kind}")));
            }
        }
        Ok(())
    }

    fn set_items(&mut self, entries: &[(Value, Value)]) -> Result<()> {
        let target = self.top()?;
        self.heap.charge(2 * entries.len() as u64)?;
        match self.heap.get_mut(target) {
            Some(Object::Dict(dict)) => {
                if dict.is_empty() {
                    dict.reserve_exact(entries.len());
                }
                dict.extend_from_slice(entries);
            }
            Some(Object::Opaque(o)) => o.entries.extend_from_slice(entries),
            _ => {
                let kind = self.heap.kind(target);
                return Err(Error::malformed(format!("keys are set in {kind}")));
            }
        }
        Ok(())
    }

    fn memo_number(&self) -> Result<i64> {
        let text = std::str::from_utf8(self.ops.kept()).ok();
        text.and_then(|s| s.trim().parse().ok())
            .ok_or_else(|| Error::malformed("a memo key that is no number"))
    }

    fn memoize(&mut self, n: i64) -> Result<()> {
        let v = self.top()?;
        let n = usize::try_from(n).map_err(|_| Error::malformed("a negative memo key"))?;
        self.memo.insert(n, v);
        Ok(())
    }

    fn recall(&mut self, n: i64) -> Result<()> {
        match self.memo.get(n) {
            Some(v) => self.push(v),
            None => return Err(Error::malformed(format!("nothing is in the memo under {n}"))),
        }
        Ok(())
    }
}

/// Keys and values from a list in which they alternate.
fn pairs(items: &[Value]) -> Result<Vec<(Value, Value)>> {
    let (pairs, rest) = items.as_chunks::<2>();
    if !rest.is_empty() {
        return Err(Error::malformed("a key without a value"));
    }
    Ok(pairs.iter().map(|[k, v]| (*k, *v)).collect())
}
