//! A device that is open: kernels loaded, seats taken, work done.

use crate::{
    Error,
    cache::Cache,
    check,
    driver::{self, Context, Handle},
    encode,
    kernels::{Kernels, Maker},
    nvrtc::Nvrtc,
    seat::{Pool, Seats},
};
use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};
use tensormill_kernels::cuda::device_code;
use tensormill_model::{Accelerator, Form, Rows, Task};
use tensormill_tensor::BlockFormat;

/// A device as the driver describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceInfo {
    /// Its number, counted from zero.
    pub ordinal: u32,
    /// Its name.
    pub name: String,
    /// Compute capability, as major and minor number.
    pub capability: (u32, u32),
    /// Bytes of its memory.
    pub memory: u64,
    /// The newest CUDA that the driver supports, as major and minor number.
    pub driver: (u32, u32),
}

impl DeviceInfo {
    /// How `--device` names it: `cuda:0`.
    pub fn id(&self) -> String {
        format!("cuda:{}", self.ordinal)
    }

    /// Asks the driver about a device.
    ///
    /// # Errors
    /// [`Error::NoDriver`], [`Error::NoDevice`], [`Error::NoSuchDevice`], and what drivers come up with.
    pub fn of(ordinal: u32) -> Result<Self, Error> {
        let handle = Handle::get(ordinal)?;
        let version = driver::version()?.unsigned_abs();
        Ok(Self {
            ordinal,
            name: handle.name()?,
            capability: handle.capability()?,
            memory: handle.memory()?,
            driver: (version / 1000, version % 1000 / 10),
        })
    }

    /// Bytes of its memory that nobody uses now. Starts the device.
    ///
    /// # Errors
    /// When the driver refuses: the device is taken by another process, for example.
    pub fn free_memory(&self) -> Result<u64, Error> {
        Ok(Context::new(Handle::get(self.ordinal)?)?.memory()?.0)
    }
}

/// Every device that the driver sees.
///
/// # Errors
/// [`Error::NoDriver`], [`Error::NoDevice`], and what drivers come up with.
pub fn devices() -> Result<Vec<DeviceInfo>, Error> {
    (0..driver::count()?).map(DeviceInfo::of).collect()
}

/// Share of the free memory that is used when nobody says how much.
const SHARE: (u64, u64) = (4, 5);

/// What a device is opened for.
#[derive(Clone, Debug)]
pub struct Options<'a> {
    /// Formats to encode; those without device code are left to the processor.
    pub formats: &'a [&'static BlockFormat],
    /// Seats, as the memory of the machine allows them.
    pub seats: Seats,
    /// Bytes of the device's memory for buffers and tables; four fifths of what is free where nobody says.
    pub memory: Option<u64>,
    /// Where compiled code is kept.
    pub cache: Cache,
    /// Whether its bytes are compared with the processor's first. Not where that is done anyway.
    pub check: bool,
}

/// An open device.
pub struct Device {
    info: DeviceInfo,
    // Before the context, which goes last of all: everything holds on to it.
    pool: Pool,
    kernels: Kernels,
    encoded: AtomicU64,
    /// The first failure: after it, nothing that the device says is worth anything.
    lost: Mutex<Option<Error>>,
}

impl Device {
    /// Opens a device: compiles and loads what it is to encode, takes its memory, and compares what it makes of a few
    /// rows with what the processor makes of them.
    ///
    /// # Errors
    /// All that [`Error`] knows.
    pub fn open(info: &DeviceInfo, options: &Options<'_>) -> Result<Self, Error> {
        let codes: Vec<_> = options.formats.iter().filter_map(|f| device_code(f)).collect();
        let context = Context::new(Handle::get(info.ordinal)?)?;
        let driver_version = driver::version()?;
        let nvrtc = Nvrtc::find(info.driver.0)?;
        let target = nvrtc.target(info.capability.0 * 10 + info.capability.1)?;
        tracing::info!(device = info.id(), nvrtc = %nvrtc.path().display(), version = ?nvrtc.version(), %target, "device opened");
        let maker = Maker { context: &context, nvrtc: &nvrtc, cache: &options.cache, driver_version, target };
        let kernels = maker.make(&codes)?;
        let budget = match options.memory {
            Some(given) => given,
            None => context.memory()?.0 / SHARE.1 * SHARE.0,
        };
        let least = kernels.bytes + Seats::LEAST.device_bytes();
        let mut seats = options.seats;
        while seats.device_bytes() > budget.saturating_sub(kernels.bytes) {
            seats = seats.fewer().ok_or(Error::TooLittle { given: budget, least })?;
        }
        let pool = Pool::new(&context, seats)?;
        if options.check {
            check::same_bytes(&kernels, &pool, &codes)?;
        }
        tracing::info!(seats = ?pool.seats(), tables = kernels.bytes, "memory of the device taken");
        Ok(Self { info: info.clone(), pool, kernels, encoded: AtomicU64::new(0), lost: Mutex::new(None) })
    }

    /// What it is.
    pub fn info(&self) -> &DeviceInfo {
        &self.info
    }

    /// Bytes of blocks that it has made.
    pub fn encoded(&self) -> u64 {
        self.encoded.load(Ordering::Relaxed)
    }

    /// Bytes of its memory that are taken.
    pub fn memory(&self) -> u64 {
        self.pool.seats().device_bytes() + self.kernels.bytes
    }

    /// The same as [`Accelerator::run`], with an error of this crate.
    ///
    /// # Errors
    /// When the device fails; then, and from then on.
    pub fn encode(
        &self,
        rows: &Rows,
        form: &Form,
        value: &[u8],
        tasks: &mut [Task<'_>],
    ) -> Result<(), Error> {
        let lost = || self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(error) = lost().clone() {
            return Err(error);
        }
        let result = encode::run(&self.kernels, &self.pool, rows, form, value, tasks);
        let made: usize = tasks.iter().filter(|t| t.done).map(|t| t.out.len()).sum();
        self.encoded.fetch_add(made as u64, Ordering::Relaxed);
        result.inspect_err(|error| {
            lost().get_or_insert_with(|| error.clone());
        })
    }
}

impl Accelerator for Device {
    fn run(
        &self,
        rows: Rows,
        form: &Form,
        value: &[u8],
        tasks: &mut [Task<'_>],
    ) -> tensormill_model::Result<()> {
        Ok(self.encode(&rows, form, value, tasks)?)
    }
}
