//! The one shape of errors: what went wrong, in which file, tensor and place, and what to do next.

use std::{fmt, io, sync::Arc};

/// Result with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// Classes of failure; each has one exit code in the command line.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The operating system or network refused.
    Io,
    /// The bytes contradict their own format.
    Malformed,
    /// Well-formed, but something this version does not handle.
    Unsupported,
    /// A length, count or nesting above what the caller allows.
    OverLimit,
    /// Two things that must agree do not (index and shard, shape and config).
    Mismatch,
    /// The request itself makes no sense.
    Usage,
    /// Stopped on request.
    Cancelled,
    /// Another process holds what is needed, or has not finished yet.
    Busy,
    /// A check of what was made did not pass: a limit on its error, or bytes read back.
    Failed,
}

/// An error with its place. Built with [`Error::malformed`] and friends, then `.file()`, `.tensor()`, ...
#[derive(Clone, Debug)]
pub struct Error(Box<Inner>);

#[derive(Clone, Debug)]
struct Inner {
    kind: ErrorKind,
    message: String,
    file: Option<String>,
    tensor: Option<String>,
    offset: Option<u64>,
    hint: Option<String>,
    source: Option<Arc<io::Error>>,
}

macro_rules! makers {
    ($($(#[$doc:meta])* $name:ident $kind:ident;)*) => {$(
        $(#[$doc])*
        pub fn $name(message: impl Into<String>) -> Self {
            Self::new(ErrorKind::$kind, message)
        }
    )*};
}

impl Error {
    /// An error of any kind.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            message: message.into(),
            file: None,
            tensor: None,
            offset: None,
            hint: None,
            source: None,
        }))
    }
    makers! {
        /// Bytes that contradict their own format.
        malformed Malformed;
        /// Something well-formed that is not handled.
        unsupported Unsupported;
        /// A count or length above the limits.
        over_limit OverLimit;
        /// Two things that must agree do not.
        mismatch Mismatch;
        /// A request that makes no sense.
        usage Usage;
        /// Another process holds what is needed, or has not finished yet.
        busy Busy;
        /// A check of what was made did not pass.
        failed Failed;
    }

    /// Somebody asked the run to stop.
    pub fn cancelled() -> Self {
        Self::new(ErrorKind::Cancelled, "stopped on request")
    }

    /// An operating system error: `what` is the action that failed ("read", "create").
    pub fn io(what: impl fmt::Display, source: io::Error) -> Self {
        let mut e = Self::new(ErrorKind::Io, format!("cannot {what}: {source}"));
        e.0.source = Some(Arc::new(source));
        e
    }

    /// Names the file, unless an inner layer already did.
    #[must_use]
    pub fn file(mut self, file: impl fmt::Display) -> Self {
        self.0.file.get_or_insert_with(|| file.to_string());
        self
    }
    /// Names the tensor, unless an inner layer already did.
    #[must_use]
    pub fn tensor(mut self, tensor: impl fmt::Display) -> Self {
        self.0.tensor.get_or_insert_with(|| tensor.to_string());
        self
    }
    /// Gives the byte offset in the file, unless an inner layer already did.
    #[must_use]
    pub fn at(mut self, offset: u64) -> Self {
        self.0.offset.get_or_insert(offset);
        self
    }
    /// Says what the user can do next.
    #[must_use]
    pub fn hint(mut self, hint: impl fmt::Display) -> Self {
        self.0.hint.get_or_insert_with(|| hint.to_string());
        self
    }

    /// Puts what was being done in front of the message.
    #[must_use]
    pub fn context(mut self, context: impl fmt::Display) -> Self {
        self.0.message = format!("{context}: {}", self.0.message);
        self
    }

    /// Says something more that the user can do, behind what an inner layer said.
    #[must_use]
    pub fn also_hint(mut self, hint: impl fmt::Display) -> Self {
        self.0.hint = Some(match self.0.hint.take() {
            Some(first) => format!("{first}; {hint}"),
            None => hint.to_string(),
        });
        self
    }

    /// Whether the same run may succeed when it is simply repeated: the trouble is a moment's (a lock held by another
    /// process, a network disk that did not answer), not the input's or the request's.
    pub fn is_transient(&self) -> bool {
        use io::ErrorKind as E;
        const EIO: i32 = 5;
        match (&self.0.source, self.0.kind) {
            (Some(e), _) => {
                matches!(
                    e.kind(),
                    E::Interrupted
                        | E::TimedOut
                        | E::WouldBlock
                        | E::ConnectionReset
                        | E::ConnectionAborted
                        | E::NetworkDown
                        | E::NetworkUnreachable
                        | E::HostUnreachable
                        | E::StaleNetworkFileHandle
                        | E::ResourceBusy
                ) || e.raw_os_error() == Some(EIO)
            }
            (None, kind) => kind == ErrorKind::Busy,
        }
    }

    /// The class of failure.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }
    /// What went wrong, without the place.
    pub fn message(&self) -> &str {
        &self.0.message
    }
    /// The file, where known.
    pub fn file_name(&self) -> Option<&str> {
        self.0.file.as_deref()
    }
    /// The tensor, where known.
    pub fn tensor_name(&self) -> Option<&str> {
        self.0.tensor.as_deref()
    }
    /// The byte offset, where known.
    pub fn offset(&self) -> Option<u64> {
        self.0.offset
    }
    /// What to do next, where known.
    pub fn hint_text(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.0.file {
            write!(f, "{file}: ")?;
        }
        if let Some(tensor) = &self.0.tensor {
            write!(f, "tensor {tensor}: ")?;
        }
        f.write_str(&self.0.message)?;
        if let Some(offset) = self.0.offset {
            write!(f, " (at byte {offset})")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|e| e as _)
    }
}

impl From<tensormill_tensor::SizeError> for Error {
    fn from(e: tensormill_tensor::SizeError) -> Self {
        Self::malformed(e.to_string())
    }
}
