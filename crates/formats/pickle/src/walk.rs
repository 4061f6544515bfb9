//! From what a pickle made to names: tensors, aliases, metadata, and what is left out.
//!
//! A walk over the object graph with a stack of its own. Objects are shared and may contain themselves, so the number of
//! paths through a small file is unbounded: tensors are counted against the limits path by path, and parts without
//! tensors have a budget.

use crate::{
    PickleOptions,
    files::Program,
    machine::heap::{Object, Value},
    names::{MAX_NAME, ObjectKind, Parts},
    scalars::{self, Scalar},
    sharded::is_shard,
    tensors::Collector,
};
use std::collections::HashSet;
use tensormill_model::{Error, LeftOut, Limits, Result, Value as Meta};

/// Containers within containers, tensors inside.
const MAX_DEPTH: usize = 64;
/// Entries in the list of what is left out.
const MAX_LEFT_OUT: usize = 4096;
/// Bytes of all metadata together.
const MAX_METADATA_BYTES: usize = 16 << 20;
/// Parts looked at even in the smallest file; larger ones may have more of them in proportion.
const MIN_STEPS: u64 = 1 << 20;
/// Elements of lists looked at to find out whether they are arrays of numbers.
const MAX_SCANNED: u64 = 1 << 24;

/// A container that is being walked through.
struct Frame {
    value: Value,
    parts: Option<Parts>,
    next: usize,
    /// Length of its path.
    path: usize,
    /// Whether parts other than tensors are attributes of an object rather than entries of a dict.
    attributes: bool,
    /// Whether there are no tensors in it.
    extra: bool,
}

struct Walk<'a, 'b> {
    program: &'a Program,
    number: usize,
    options: &'a PickleOptions,
    limits: &'a Limits,
    out: &'a mut Collector<'b>,
    /// Per object: whether a tensor can be reached from it.
    carries: Vec<bool>,
    path: String,
    frames: Vec<Frame>,
    /// Parts looked at, on whatever path.
    steps: u64,
}

/// What was found beside tensors, and how much more of it may be.
#[derive(Default)]
pub(crate) struct Extras {
    pub metadata: Vec<(String, Meta)>,
    pub left_out: Vec<LeftOut>,
    keys: HashSet<String>,
    bytes: usize,
    visits: u64,
    /// Elements of lists looked at.
    scanned: u64,
    dropped: u64,
    attributes: u64,
}

impl Extras {
    pub fn leave_out(&mut self, name: &str, what: impl Into<String>) {
        let what = what.into();
        self.bytes = self.bytes.saturating_add(name.len() + what.len());
        if self.left_out.len() < MAX_LEFT_OUT && self.bytes < MAX_METADATA_BYTES {
            self.left_out.push(LeftOut { name: name.to_owned(), what });
        } else {
            self.dropped += 1;
        }
    }

    /// Bytes that metadata may still take.
    fn room(&self) -> usize {
        MAX_METADATA_BYTES.saturating_sub(self.bytes)
    }

    fn metadata(&mut self, name: &str, value: Meta, limits: &Limits) {
        let size = name.len() + scalars::size(&value);
        let room = (self.metadata.len() as u64) < limits.metadata && self.bytes + size < MAX_METADATA_BYTES;
        if !room {
            self.dropped += 1;
        } else if self.keys.insert(name.to_owned()) {
            self.bytes += size;
            self.metadata.push((name.to_owned(), value));
        } else {
            self.leave_out(name, "a second value of this name");
        }
    }

    /// Sums up what was too much to list one by one.
    pub fn finish(&mut self) {
        if self.attributes > 0 {
            let what = format!("{} attributes of objects that are no tensors", self.attributes);
            self.left_out.push(LeftOut { name: "(objects)".into(), what });
        }
        if self.dropped > 0 {
            let what = format!("{} further values, too many to keep or list", self.dropped);
            self.left_out.push(LeftOut { name: "(rest)".into(), what });
        }
    }
}

/// Walks through one program from `root` on.
pub(crate) fn walk(
    program: &Program,
    number: usize,
    root: Value,
    options: &PickleOptions,
    limits: &Limits,
    out: &mut Collector<'_>,
) -> Result<()> {
    let carries = carries(program, root);
    let path = program.prefix.to_owned();
    let max_steps = MIN_STEPS.max(8 * program.heap.used()).min(limits.values.max(MIN_STEPS));
    let mut w = Walk { program, number, options, limits, out, carries, path, frames: Vec::new(), steps: 0 };
    w.visit(root, false)?;
    while let Some(frame) = w.frames.last_mut() {
        w.steps += 1;
        if w.steps > max_steps {
            return Err(Error::over_limit(format!("more than {max_steps} ways to reach its values by name")));
        }
        if frame.extra && w.out.extras.visits > limits.metadata {
            w.frames.pop();
            continue;
        }
        let i = frame.next;
        frame.next += 1;
        let attributes = frame.attributes;
        w.path.truncate(frame.path);
        let part = match &mut frame.parts {
            Some(parts) => parts.get_mut(i).map(|(name, v)| (name.take(), *v)),
            None => program.heap.items(frame.value).and_then(|items| items.get(i)).map(|v| {
                // TorchScript's code calls its constants c0, c1, ...
                let c = if w.frames.len() == 1 && !program.prefix.is_empty() { "c" } else { "" };
                (Some(format!("{c}{i}")), *v)
            }),
        };
        let Some((name, v)) = part else {
            w.frames.pop();
            continue;
        };
        if let Some(name) = name {
            if !w.path.is_empty() {
                w.path.push('.');
            }
            w.path.push_str(&name);
        }
        w.visit(v, attributes)?;
    }
    Ok(())
}

impl Walk<'_, '_> {
    /// Takes what is at the current path: a tensor, a scalar, or a container to walk through next.
    fn visit(&mut self, v: Value, attribute: bool) -> Result<()> {
        let program = self.program;
        if let Some(object) = program.heap.get(v) {
            match object {
                Object::Tensor(_) | Object::Array(_) | Object::Refused(_) if self.carries(v) => {
                    return self.tensor(v);
                }
                // Of some tensors a process holds nothing.
                Object::Opaque(_) if is_shard(program, v) => return self.tensor(v),
                _ if self.carries(v) => return self.container(v),
                _ => {}
            }
        }
        if attribute {
            // A parameter that a module does not have is no loss.
            self.out.extras.attributes += u64::from(v != Value::None);
            return Ok(());
        }
        self.extra(v)
    }

    fn carries(&self, v: Value) -> bool {
        match v {
            Value::Object(n) => self.carries[n as usize],
            _ => false,
        }
    }

    fn name(&self) -> &str {
        // A tensor that is all there is in a file has no name.
        if self.path.is_empty() { "tensor" } else { &self.path }
    }

    fn tensor(&mut self, v: Value) -> Result<()> {
        let name = self.name().to_owned();
        if name.len() > MAX_NAME {
            return Err(Error::over_limit(format!("a tensor name of {} bytes", name.len())));
        }
        self.out.add(self.program, self.number, v, &name).map_err(|e| e.tensor(&name))
    }

    /// A container with tensors in it.
    fn container(&mut self, v: Value) -> Result<()> {
        let program = self.program;
        let here = |e: Error| e.tensor(if self.path.is_empty() { "(root)" } else { &self.path });
        if self.frames.iter().any(|f| f.value == v) {
            self.out.extras.leave_out(&self.path, "an object that contains itself");
            return Ok(());
        }
        if self.frames.len() >= MAX_DEPTH {
            return Err(here(Error::over_limit(format!("nested deeper than {MAX_DEPTH}"))));
        }
        if !self.options.all && !self.frames.is_empty() && self.is_optimizer(v) {
            let n = count_tensors(program, v);
            let what = format!("optimizer state ({n} tensors); --all keeps it");
            self.out.extras.leave_out(&self.path, what);
            return Ok(());
        }
        let mut attributes = false;
        let parts = match program.parts(v).map_err(here)? {
            None => None,
            Some((parts, dropped)) => {
                if let Some(Object::Opaque(o)) = program.heap.get(v) {
                    if program.object_kind(o) == ObjectKind::Other {
                        return Err(here(
                            Error::unsupported(format!(
                                "tensors are inside an object of {}, which is not made here",
                                program.heap.opaque(o)
                            ))
                            .hint("name a part of the file with --key, or save a state dict"),
                        ));
                    }
                    attributes = true;
                }
                for (name, v) in dropped {
                    if self.carries(v) {
                        let name = format!("{}.{}", self.path, name.unwrap_or_default());
                        let what = "tensors that are no parameters or buffers that are kept";
                        self.out.extras.leave_out(name.trim_start_matches('.'), what);
                    }
                }
                Some(parts)
            }
        };
        // The state of an object is its attributes; dicts inside an attribute are data again.
        let inherited = self.frames.last().is_some_and(|f| f.attributes && f.path == self.path.len());
        self.push(v, parts, attributes || inherited, false);
        Ok(())
    }

    /// By form, or by the last part of its name; parts of a module are never meant.
    fn is_optimizer(&self, v: Value) -> bool {
        if self.frames.last().is_some_and(|f| f.attributes) {
            return false;
        }
        let last = self.path.rsplit('.').next().unwrap_or_default();
        last == "optim" || last.starts_with("optimizer") || self.program.is_optimizer_state(v)
    }

    /// Something without tensors in it.
    fn extra(&mut self, v: Value) -> Result<()> {
        let program = self.program;
        self.out.extras.visits += 1;
        if self.out.extras.visits > self.limits.metadata {
            self.out.extras.dropped += 1;
            return Ok(());
        }
        let extras = &mut self.out.extras;
        let room = if extras.scanned < MAX_SCANNED { extras.room() } else { 0 };
        let found = scalars::scalar(program, v, room, &mut extras.scanned)?;
        let name = if self.path.is_empty() { "value".to_owned() } else { self.path.clone() };
        match found {
            Scalar::Value(value) => self.out.extras.metadata(&name, value, self.limits),
            Scalar::Nothing => {}
            Scalar::Other(what) => self.out.extras.leave_out(&name, what),
            Scalar::Container => {
                let deep = self.frames.len() >= MAX_DEPTH || self.path.len() > MAX_NAME;
                if deep || self.frames.iter().any(|f| f.value == v) {
                    self.out.extras.leave_out(&name, "containers nested too deeply, or in themselves");
                    return Ok(());
                }
                let parts = program.parts(v)?.map(|(parts, _)| parts);
                self.push(v, parts, false, true);
            }
        }
        Ok(())
    }

    fn push(&mut self, value: Value, parts: Option<Parts>, attributes: bool, extra: bool) {
        self.steps += parts.as_ref().map_or(0, |p| p.len() as u64);
        self.frames.push(Frame { value, parts, next: 0, path: self.path.len(), attributes, extra });
    }
}

/// The `i`-th value inside an object.
fn inside(object: &Object, i: usize) -> Option<Value> {
    match object {
        Object::Tuple(items) => items.get(i).copied(),
        Object::List(items) => items.get(i).copied(),
        Object::Dict(entries) => entries.get(i).map(|(_, v)| *v),
        Object::Opaque(o) => match i.checked_sub(o.parts.len()) {
            None => o.parts.get(i).copied(),
            Some(j) if j == o.entries.len() => o.state,
            Some(j) => o.entries.get(j).map(|(_, v)| *v),
        },
        _ => None,
    }
}

/// For every object whether a tensor can be reached from it, without going in circles.
fn carries(program: &Program, root: Value) -> Vec<bool> {
    let objects = &program.heap.objects;
    let mut carries = vec![false; objects.len()];
    let mut seen = vec![false; objects.len()];
    let mut stack: Vec<(u32, usize)> = Vec::new();
    let mut enter = |v: Value, stack: &mut Vec<(u32, usize)>, carries: &mut [bool]| -> bool {
        let Value::Object(n) = v else { return false };
        if !std::mem::replace(&mut seen[n as usize], true) {
            carries[n as usize] = match &objects[n as usize] {
                Object::Tensor(_) | Object::Refused(_) => true,
                Object::Array(a) => !a.shape.is_empty(),
                _ => {
                    stack.push((n, 0));
                    false
                }
            };
        }
        carries[n as usize]
    };
    enter(root, &mut stack, &mut carries);
    while let Some((n, i)) = stack.last_mut() {
        let n = *n as usize;
        let Some(v) = inside(&objects[n], *i) else {
            stack.pop();
            // Whoever led here carries what is in here.
            if let Some((parent, _)) = stack.last() {
                carries[*parent as usize] |= carries[n];
            }
            continue;
        };
        *i += 1;
        if enter(v, &mut stack, &mut carries) {
            carries[n] = true;
        }
    }
    carries
}

/// Different tensors that can be reached from a value.
fn count_tensors(program: &Program, root: Value) -> usize {
    let objects = &program.heap.objects;
    let mut seen = HashSet::new();
    let mut open = vec![root];
    let mut count = 0;
    while let Some(v) = open.pop() {
        let Value::Object(n) = v else { continue };
        if !seen.insert(n) {
            continue;
        }
        let object = &objects[n as usize];
        count += usize::from(matches!(object, Object::Tensor(_) | Object::Refused(_)));
        open.extend((0..).map_while(|i| inside(object, i)));
    }
    count
}
