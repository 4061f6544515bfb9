//! What goes wrong, and when: a list that every request is held against.

use crate::http::{Request, Side};
use std::{sync::Arc, time::Duration};

/// Something that goes wrong.
#[derive(Clone, Debug)]
pub enum What {
    /// Another answer than there would be: status, headers, `error` text.
    Answer(u16, Vec<(String, String)>, String),
    /// Success, with these bytes for a JSON document and with these headers.
    Say(Arc<Vec<u8>>, Vec<(String, String)>),
    /// The connection is closed without an answer.
    Drop,
    /// The connection is closed after so many bytes of the body.
    DropAfter(u64),
    /// One bit of the first byte of the body is wrong.
    Corrupt,
    /// The body comes in pieces of so many bytes with a pause between.
    Slow(usize, Duration),
    /// After so many bytes of the body nothing comes for that long, then the connection is closed.
    Stall(u64, Duration),
    /// The request's range is ignored: the whole file comes.
    IgnoreRange,
    /// The answer has this header instead of its own.
    Header(String, String),
}

/// A fault: which requests it is for, how often it happens, what it is.
#[derive(Clone, Debug)]
pub struct Fault {
    /// Part of the path.
    pub path: String,
    /// The method; all where `None`.
    pub method: Option<String>,
    /// The port; both where `None`.
    pub side: Option<Side>,
    /// Requests that are spared first.
    pub after: usize,
    /// Requests that are hit.
    pub times: usize,
    /// What happens.
    pub what: What,
}

impl Fault {
    /// A fault that hits the next request whose path has `path` in it.
    pub fn once(path: &str, what: What) -> Self {
        Self { path: path.to_owned(), method: None, side: None, after: 0, times: 1, what }
    }
    /// A fault that hits all of them.
    pub fn always(path: &str, what: What) -> Self {
        Self { times: usize::MAX, ..Self::once(path, what) }
    }
    /// Only with this method.
    #[must_use]
    pub fn method(self, method: &str) -> Self {
        Self { method: Some(method.to_owned()), ..self }
    }
    /// Only on this port.
    #[must_use]
    pub fn side(self, side: Side) -> Self {
        Self { side: Some(side), ..self }
    }
    /// So many requests later.
    #[must_use]
    pub fn after(self, requests: usize) -> Self {
        Self { after: requests, ..self }
    }
    /// So often.
    #[must_use]
    pub fn times(self, times: usize) -> Self {
        Self { times, ..self }
    }

    fn is_for(&self, request: &Request) -> bool {
        request.path.contains(&self.path)
            && self.method.as_ref().is_none_or(|m| *m == request.method)
            && self.side.is_none_or(|s| s == request.side)
    }
}

/// The fault that hits a request; counts it.
pub(crate) fn hit(faults: &mut [Fault], request: &Request) -> Option<What> {
    for fault in faults.iter_mut().filter(|f| f.is_for(request) && f.times > 0) {
        if fault.after > 0 {
            fault.after -= 1;
            continue;
        }
        fault.times -= 1;
        return Some(fault.what.clone());
    }
    None
}
