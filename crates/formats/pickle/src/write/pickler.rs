//! The pickle of a flat dict of tensors: byte for byte what CPython's pickler writes for `torch.save`, protocol 2.
//!
//! The pickler memoizes objects by identity, so which objects are one counts: `"storage"`, `"cpu"`, what is imported and
//! the key of a storage are; equal tuples, and names that read like keys, are not.

use crate::{machine::opcodes::code as c, types::TorchType};
use std::collections::HashMap;

/// Items of a dict that are set at once (`_BATCHSIZE` of `pickle.py`).
const BATCH: usize = 1000;

/// One tensor to be pickled.
pub(super) struct Item<'a> {
    pub name: &'a str,
    pub ty: &'static TorchType,
    /// Dimensions in torch's elements.
    pub size: Vec<u64>,
    /// Number of its storage.
    pub storage: usize,
}

#[derive(Default)]
pub(super) struct Pickler {
    out: Vec<u8>,
    memo: u32,
    /// Memo numbers of names imported and of strings that are one object.
    known: HashMap<String, u32>,
    /// Of the keys of storages.
    keys: HashMap<usize, u32>,
}

/// `data.pkl` of these tensors.
pub(super) fn pickle(items: &[Item<'_>]) -> Vec<u8> {
    let mut p = Pickler::default();
    p.out.extend([c::PROTO, 2, c::EMPTY_DICT]);
    p.put();
    if let [item] = items {
        p.item(item);
        p.out.push(c::SETITEM);
    } else {
        for batch in items.chunks(BATCH) {
            p.out.push(c::MARK);
            for item in batch {
                p.item(item);
            }
            p.out.push(c::SETITEMS);
        }
        // It looks for more after every full batch.
        if !items.is_empty() && items.len().is_multiple_of(BATCH) {
            p.out.extend([c::MARK, c::SETITEMS]);
        }
    }
    p.out.push(c::STOP);
    p.out
}

impl Pickler {
    /// Memoizes what was written last; gives its number.
    fn put(&mut self) -> u32 {
        let n = self.memo;
        self.memo += 1;
        self.memo_op(c::BINPUT, c::LONG_BINPUT, n);
        n
    }

    fn get(&mut self, n: u32) {
        self.memo_op(c::BINGET, c::LONG_BINGET, n);
    }

    fn memo_op(&mut self, short: u8, long: u8, n: u32) {
        if let Ok(n) = u8::try_from(n) {
            self.out.extend([short, n]);
        } else {
            self.out.push(long);
            self.out.extend(n.to_le_bytes());
        }
    }

    fn int(&mut self, v: u64) {
        if let Ok(v) = u8::try_from(v) {
            self.out.extend([c::BININT1, v]);
        } else if let Ok(v) = u16::try_from(v) {
            self.out.push(c::BININT2);
            self.out.extend(v.to_le_bytes());
        } else if let Ok(v) = i32::try_from(v) {
            self.out.push(c::BININT);
            self.out.extend(v.to_le_bytes());
        } else {
            // The shortest two's complement.
            let bytes = v.to_le_bytes();
            let used = 8 - v.leading_zeros() as usize / 8;
            let sign = usize::from(bytes[used - 1] & 0x80 != 0);
            self.out.extend([c::LONG1, (used + sign) as u8]);
            self.out.extend(&bytes[..used]);
            self.out.extend(&[0][..sign]);
        }
    }

    fn ints(&mut self, v: &[u64]) {
        let end = match v.len() {
            0 => return self.out.push(c::EMPTY_TUPLE),
            1 => c::TUPLE1,
            2 => c::TUPLE2,
            3 => c::TUPLE3,
            _ => {
                self.out.push(c::MARK);
                c::TUPLE
            }
        };
        for n in v {
            self.int(*n);
        }
        self.out.push(end);
        self.put();
    }

    fn new_string(&mut self, s: &str) -> u32 {
        self.out.push(c::BINUNICODE);
        self.out.extend((s.len() as u32).to_le_bytes());
        self.out.extend(s.as_bytes());
        self.put()
    }

    /// A string of which there is one object however often it is written.
    fn one_string(&mut self, s: &str) -> u32 {
        if let Some(n) = self.known.get(s).copied() {
            self.get(n);
            return n;
        }
        let n = self.new_string(s);
        self.known.insert(s.to_owned(), n);
        n
    }

    fn global(&mut self, module: &str, name: &str) {
        let line = format!("{module}\n{name}\n");
        if let Some(n) = self.known.get(&line).copied() {
            return self.get(n);
        }
        self.out.push(c::GLOBAL);
        self.out.extend(line.as_bytes());
        let n = self.put();
        self.known.insert(line, n);
    }

    fn item(&mut self, t: &Item<'_>) {
        self.new_string(t.name);
        let function = if t.ty.storage.is_some() { "_rebuild_tensor_v2" } else { "_rebuild_tensor_v3" };
        self.global("torch._utils", function);
        self.out.push(c::MARK);
        self.storage(t);
        self.int(0);
        self.ints(&t.size);
        self.ints(&contiguous(&t.size));
        self.out.push(c::NEWFALSE);
        self.global("collections", "OrderedDict");
        self.out.extend([c::EMPTY_TUPLE, c::REDUCE]);
        self.put();
        if t.ty.storage.is_none() {
            self.global("torch", t.ty.name);
        }
        self.out.push(c::TUPLE);
        self.put();
        self.out.push(c::REDUCE);
        self.put();
    }

    fn storage(&mut self, t: &Item<'_>) {
        self.out.push(c::MARK);
        self.one_string("storage");
        match t.ty.storage {
            Some(class) => self.global("torch", class),
            None => self.global("torch.storage", "UntypedStorage"),
        }
        if let Some(n) = self.keys.get(&t.storage).copied() {
            self.get(n);
        } else {
            let n = self.new_string(&t.storage.to_string());
            self.keys.insert(t.storage, n);
        }
        self.one_string("cpu");
        let elements: u64 = t.size.iter().product();
        self.int(if t.ty.storage.is_some() { elements } else { elements * t.ty.unit });
        self.out.push(c::TUPLE);
        self.put();
        self.out.push(c::BINPERSID);
    }
}

/// Strides of a contiguous tensor as torch counts them: empty dimensions count as one.
fn contiguous(size: &[u64]) -> Vec<u64> {
    let mut stride = vec![1; size.len()];
    for i in (1..size.len()).rev() {
        stride[i - 1] = stride[i] * size[i].max(1);
    }
    stride
}
