//! What a pickle would do to a loader that obeys it, without obeying: opcodes one by one, and the names it imports and
//! calls with their places. For any pickle, not only torch's; nothing is refused for what it names.

use crate::{
    files,
    machine::{
        Log, Machine, Persistent,
        heap::Heap,
        opcodes::{self, code as c},
        ops::{Arg, KEEP, Ops},
    },
};
use std::sync::Arc;
use tensormill_model::{Error, Limits, Result, Store};

/// One opcode.
#[derive(Clone, Debug, PartialEq)]
pub struct Instruction {
    /// Position in the store.
    pub at: u64,
    /// Its byte.
    pub code: u8,
    /// Name as `pickletools` prints it.
    pub name: &'static str,
    /// Its argument.
    pub argument: Argument,
}

/// The argument of an opcode.
#[derive(Clone, Debug, PartialEq)]
pub enum Argument {
    /// None.
    None,
    /// A number, a memo key, an extension code.
    Int(i64),
    /// A float.
    Float(f64),
    /// A short string, or a line; what is not UTF-8 is replaced.
    Text(String),
    /// Short bytes.
    Bytes(Vec<u8>),
    /// A string or bytes too long to show: how many.
    Long(u64),
    /// Module and name.
    Global(String, String),
}

/// Opcodes of one pickle, up to `STOP` or the first error.
pub struct Instructions<'a> {
    ops: Ops<'a>,
    done: bool,
}

/// The opcodes of the pickle that starts at `start`.
pub fn instructions<'a>(store: &'a dyn Store, start: u64, limits: &'a Limits) -> Instructions<'a> {
    Instructions { ops: Ops::new(store, start, limits), done: false }
}

impl Iterator for Instructions<'_> {
    type Item = Result<Instruction>;
    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let op = match self.ops.next() {
            Ok(op) => op,
            Err(e) => {
                self.done = true;
                return Some(Err(e));
            }
        };
        self.done = op.code == c::STOP;
        let kept = || String::from_utf8_lossy(self.ops.kept()).into_owned();
        let argument = match op.arg {
            Arg::None => Argument::None,
            Arg::Int(n) => Argument::Int(n),
            Arg::Float(f) => Argument::Float(f),
            Arg::Bytes { len, .. } if len > KEEP => Argument::Long(len),
            Arg::Bytes { .. } if is_text(op.code) => Argument::Text(kept()),
            Arg::Bytes { .. } => Argument::Bytes(self.ops.kept().to_vec()),
            Arg::Lines => {
                let text = kept();
                match text.split_once('\n') {
                    Some((module, name)) => Argument::Global(module.to_owned(), name.to_owned()),
                    None => Argument::Text(text),
                }
            }
        };
        Some(Ok(Instruction { at: op.at, code: op.code, name: name(op.code), argument }))
    }
}

fn is_text(code: u8) -> bool {
    matches!(code, c::BINUNICODE | c::SHORT_BINUNICODE | c::BINUNICODE8 | c::BINSTRING | c::SHORT_BINSTRING)
}

fn name(code: u8) -> &'static str {
    opcodes::describe(code).map_or("?", |(name, _)| name)
}

/// A name that a pickle imports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Import {
    /// Position of the opcode in the store.
    pub at: u64,
    /// `GLOBAL`, `STACK_GLOBAL`, `INST`, or `EXT1` to `EXT4`.
    pub opcode: &'static str,
    /// Module; `?` where it is computed, `copyreg.extension` for a registered code.
    pub module: String,
    /// Name in it, dots included.
    pub name: String,
}

/// Something that a loader would call: a function, a class, or `__setstate__` of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Position of the opcode in the store.
    pub at: u64,
    /// `REDUCE`, `INST`, `OBJ`, `NEWOBJ`, `NEWOBJ_EX` or `BUILD`.
    pub opcode: &'static str,
    /// What is called, or what the object is: `os.system`, or a description of something computed.
    pub target: String,
}

/// What one pickle does.
#[derive(Clone, Debug, Default)]
pub struct Audit {
    /// Imports, in order.
    pub imports: Vec<Import>,
    /// Calls, in order.
    pub calls: Vec<Call>,
    /// Position behind the pickle, or where it could not be followed further.
    pub end: u64,
    /// Why it could not. A loader may get as far, so what is listed still counts.
    pub error: Option<Error>,
}

/// Follows the pickle that starts at `start`.
pub fn audit(store: &dyn Store, start: u64, limits: &Limits) -> Audit {
    let heap = Heap::new(limits, store.name().to_owned(), 0);
    let mut machine = Machine::new(store, start, heap, Persistent::Storages, limits);
    machine.log = Some(Log::default());
    let error = loop {
        match machine.step() {
            Ok(None) => {}
            Ok(Some(_)) => break None,
            Err(e) => break Some(e),
        }
    };
    let end = machine.position();
    let log = machine.log.take().unwrap_or_default();
    let heap = &machine.heap;
    // One long name can be imported by a few bytes again and again: what is told is bounded, too.
    let mut left = limits.unpacked_bytes;
    let mut within = |n: usize| {
        left = left.saturating_sub(n as u64);
        left > 0
    };
    let imports: Vec<Import> = log
        .imports
        .iter()
        .filter_map(|(at, code, v)| heap.global(*v).map(|g| (at, code, g)))
        .take_while(|(.., g)| within(g.module.len() + g.name.len()))
        .map(|(at, code, g)| Import {
            at: *at,
            opcode: name(*code),
            module: g.module.clone(),
            name: g.name.clone(),
        })
        .collect();
    let calls: Vec<Call> = log
        .calls
        .iter()
        .map(|(at, code, v)| Call { at: *at, opcode: name(*code), target: heap.kind(*v) })
        .take_while(|c| within(c.target.len()))
        .collect();
    let cut = || Error::over_limit(format!("imports and calls of more than {} bytes", limits.unpacked_bytes));
    let error = error.or_else(|| (left == 0).then(cut));
    Audit { imports, calls, end, error }
}

/// A pickle in a file.
pub struct PickleIn {
    /// Name of the archive's member; empty for the file itself.
    pub member: String,
    /// Where it is.
    pub store: Arc<dyn Store>,
    /// Where in that it starts.
    pub start: u64,
}

/// Every pickle of a file that `torch.load` or `pickle.load` would follow.
///
/// # Errors
/// Archives that cannot be opened.
pub fn pickles(store: &Arc<dyn Store>, limits: &Limits) -> Result<Vec<PickleIn>> {
    let members = files::pickles(store, limits).map_err(|e| e.file(store.name()))?;
    let each = members.into_iter().flat_map(|(member, store, starts)| {
        let one = move |start| PickleIn { member: member.clone(), store: Arc::clone(&store), start };
        starts.into_iter().map(one)
    });
    Ok(each.collect())
}

/// Pickles that follow each other from `start` on, at most `most` of them: the start of each, up to the first that
/// cannot be followed to its end.
pub(crate) fn sequence(store: &dyn Store, start: u64, most: usize, limits: &Limits) -> Vec<u64> {
    let mut starts = Vec::new();
    let mut at = start;
    while starts.len() < most && at < store.len() {
        starts.push(at);
        let one = audit(store, at, limits);
        if one.error.is_some() {
            break;
        }
        at = one.end;
    }
    starts
}
