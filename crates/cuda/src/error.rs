//! What can go wrong between here and a device, and what to do about it.

use tensormill_model::ErrorKind;

/// Why a device cannot be used, or can no longer be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The driver's library is not on this machine.
    #[error("no CUDA driver was found on this machine")]
    NoDriver,
    /// The driver is there, but no device is.
    #[error("the CUDA driver sees no device")]
    NoDevice,
    /// Another device was asked for than there is.
    #[error("there is no device cuda:{asked}: the CUDA driver sees {count}, counted from 0")]
    NoSuchDevice {
        /// The number that was asked for.
        asked: u32,
        /// How many there are.
        count: u32,
    },
    /// The run-time compiler's library is not on this machine.
    #[error("NVRTC, CUDA's run-time compiler, was not found (looked for {tried})")]
    NoCompiler {
        /// What was looked for.
        tried: String,
    },
    /// The run-time compiler knows newer devices only.
    #[error("NVRTC {version} does not compile for devices as old as sm_{arch}")]
    TooOld {
        /// Architecture of the device.
        arch: u32,
        /// Version of the compiler.
        version: String,
    },
    /// Device code does not compile.
    #[error("{file} does not compile for {target}:\n{log}")]
    Compile {
        /// File of the device code.
        file: String,
        /// For what.
        target: String,
        /// What the compiler says.
        log: String,
    },
    /// The compiler failed otherwise.
    #[error("NVRTC failed to {what}: {text}")]
    Compiler {
        /// What it was to do.
        what: &'static str,
        /// What it says.
        text: String,
    },
    /// The device, or memory that it can reach, is full.
    #[error("out of memory: no room for {what}")]
    OutOfMemory {
        /// For what.
        what: &'static str,
    },
    /// The budget is too small for one portion at a time.
    #[error("a device memory of {given} bytes is too little: {least} bytes are the least that works")]
    TooLittle {
        /// The budget.
        given: u64,
        /// What would do.
        least: u64,
    },
    /// What the device makes is not what the processor makes.
    #[error("the device gives other bytes than the processor for {format}")]
    Differs {
        /// Name of the format.
        format: &'static str,
    },
    /// A call of the driver failed.
    #[error("the device failed to {what}: {text} ({name})")]
    Driver {
        /// What it was to do.
        what: &'static str,
        /// Name of the driver's error.
        name: String,
        /// What the driver says.
        text: String,
    },
}

impl Error {
    /// Whether there is nothing to use, rather than something that does not work.
    pub fn is_absence(&self) -> bool {
        matches!(self, Self::NoDriver | Self::NoDevice)
    }

    /// What the user can do next.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NoDriver => "install NVIDIA's driver, or use --device cpu",
            Self::NoDevice => "see what `nvidia-smi` and CUDA_VISIBLE_DEVICES say, or use --device cpu",
            Self::NoSuchDevice { .. } => "`tensormill list devices` shows those there are",
            Self::NoCompiler { .. } => {
                "install the CUDA toolkit or the wheel nvidia-cuda-nvrtc-cu12 and name its folder of libraries in \
                 TENSORMILL_NVRTC, or use --device cpu"
            }
            Self::TooOld { .. } => "use --device cpu",
            Self::Compile { .. } | Self::Compiler { .. } => {
                "this is a bug in tensormill, or a broken CUDA toolkit: please report it, and use --device cpu"
            }
            Self::Differs { .. } => {
                "please report it with what `tensormill list devices` says, and use --device cpu"
            }
            Self::OutOfMemory { .. } => {
                "see with `nvidia-smi` who holds the memory, lower --device-memory, or use --device cpu"
            }
            Self::TooLittle { .. } => "raise --device-memory, or use --device cpu",
            Self::Driver { .. } => "see what `nvidia-smi` and the system's log say, or use --device cpu",
        }
    }
}

impl From<Error> for tensormill_model::Error {
    fn from(e: Error) -> Self {
        let kind = match e {
            Error::NoSuchDevice { .. } => ErrorKind::Usage,
            Error::OutOfMemory { .. } | Error::TooLittle { .. } => ErrorKind::OverLimit,
            Error::Driver { .. } => ErrorKind::Io,
            _ => ErrorKind::Unsupported,
        };
        Self::new(kind, e.to_string()).hint(e.hint())
    }
}
