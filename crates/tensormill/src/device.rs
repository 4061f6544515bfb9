//! Which device encodes: chosen while planning, opened when a run begins, replaced by the processor when it fails.
//!
//! The bytes are the same wherever they are made, so a device is a matter of speed alone. [`Choice::Auto`] therefore goes
//! on with the processor whatever happens, and says so once; [`Choice::Cuda`] is a request, and what keeps it from being
//! fulfilled is an error.

use crate::report::{DeviceReport, PlannedDevice};
use serde::Serialize;
use std::{
    fmt,
    str::FromStr,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};
use tensormill_cuda::{Cache, Device, DeviceInfo, Nvrtc, Options, Seats};
use tensormill_engine::{Event, Progress};
use tensormill_kernels::cuda::device_code;
use tensormill_model::{Accelerator, Error, Expr, Form, Model, Result, Rows, Task};
use tensormill_tensor::BlockFormat;

/// Where to encode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// On the first CUDA device, if there is one that works; else on the processor.
    #[default]
    Auto,
    /// On the processor.
    Cpu,
    /// On this CUDA device, or not at all.
    Cuda(u32),
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(n) => write!(f, "cuda:{n}"),
        }
    }
}

impl FromStr for Choice {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let number =
            |n: &str| n.parse().ok().filter(|_| n.bytes().all(|b| b.is_ascii_digit())).map(Self::Cuda);
        let choice = match text {
            "auto" => Some(Self::Auto),
            "cpu" => Some(Self::Cpu),
            _ => text.strip_prefix("cuda:").and_then(number),
        };
        choice.ok_or_else(|| {
            format!("{text:?} is no device: write auto, cpu, or cuda:N (`tensormill list devices`)")
        })
    }
}

/// One device, as `tensormill list devices` shows it.
#[derive(Debug, Serialize)]
pub struct DeviceRow {
    /// What `--device` calls it.
    pub device: String,
    /// Its name.
    pub name: String,
    /// Compute capability.
    pub compute_capability: String,
    /// Bytes of its memory.
    pub memory: u64,
    /// Bytes of its memory that are free, where it tells.
    pub free_memory: Option<u64>,
    /// The newest CUDA that its driver supports.
    pub driver: String,
    /// Version of NVRTC that would compile for it, where one is found.
    pub compiler: Option<String>,
}

/// Devices, or why there are none.
#[derive(Debug)]
pub struct Devices {
    /// Every device that can encode, beside the processor.
    pub devices: Vec<DeviceRow>,
    /// What is missing where there is none.
    pub missing: Option<String>,
}

/// Looks for devices.
///
/// # Errors
/// When there is a driver that does not work.
pub fn list() -> Result<Devices> {
    let devices = match tensormill_cuda::devices() {
        Ok(devices) => devices,
        Err(e) if e.is_absence() => {
            return Ok(Devices { devices: Vec::new(), missing: Some(format!("{e}: the processor encodes")) });
        }
        Err(e) => return Err(e.into()),
    };
    let compiler = devices.first().and_then(|d| Nvrtc::find(d.driver.0).ok());
    let compiler = compiler.map(|c| format!("{}.{}", c.version().0, c.version().1));
    let row = |d: &DeviceInfo| DeviceRow {
        device: d.id(),
        name: d.name.clone(),
        compute_capability: format!("{}.{}", d.capability.0, d.capability.1),
        memory: d.memory,
        free_memory: d.free_memory().ok(),
        driver: format!("{}.{}", d.driver.0, d.driver.1),
        compiler: compiler.clone(),
    };
    Ok(Devices { devices: devices.iter().map(row).collect(), missing: None })
}

/// What a plan knows of the device.
#[derive(Debug, Default)]
pub(crate) struct Selection {
    chosen: Option<Chosen>,
    /// What came of it.
    outcome: Mutex<Option<DeviceReport>>,
}

/// A device that is there, and what it is to do.
#[derive(Debug)]
struct Chosen {
    info: DeviceInfo,
    /// Whether the processor may not go on in its place.
    required: bool,
    formats: Vec<&'static BlockFormat>,
    seats: Seats,
    memory: Option<u64>,
}

/// What a job says about devices, and what it leaves them.
pub(crate) struct Wishes {
    pub choice: Choice,
    /// `--device-memory`.
    pub memory: Option<u64>,
    /// Memory of the machine for what is on its way to and from a device.
    pub staging: u64,
    /// Tiles at work at one time.
    pub workers: usize,
}

impl Selection {
    /// Looks for the device that is asked for. Costs nothing where there is no driver, and starts no device.
    ///
    /// # Errors
    /// What keeps a device from being used that was asked for by name.
    pub(crate) fn new<'m>(
        wishes: &Wishes,
        models: impl Iterator<Item = &'m Model>,
        notes: &mut Vec<String>,
    ) -> Result<Self> {
        let formats = formats(models);
        let found = match wishes.choice {
            Choice::Cpu => return Ok(Self::default()),
            Choice::Auto if formats.is_empty() => return Ok(Self::default()),
            Choice::Auto => tensormill_cuda::devices().map(|d| d.into_iter().next()),
            Choice::Cuda(n) => DeviceInfo::of(n).map(Some),
        };
        let required = matches!(wishes.choice, Choice::Cuda(_));
        let chosen = found.map_err(Problem::Cuda).and_then(|info| {
            let Some(info) = info else { return Ok(None) };
            if formats.is_empty() {
                notes.push(format!("{}: nothing is made that it can encode", info.id()));
                return Ok(None);
            }
            let seats = wishes.seats()?;
            Ok(Some(Chosen { info, required, formats, seats, memory: wishes.memory }))
        });
        match chosen {
            Ok(chosen) => Ok(Self { chosen, ..Self::default() }),
            Err(problem) if required => Err(problem.into()),
            Err(Problem::Cuda(e)) if e.is_absence() => {
                tracing::info!(reason = %e, "no device");
                Ok(Self::default())
            }
            Err(problem) => {
                notes.push(instead(&Error::from(problem)));
                Ok(Self::default())
            }
        }
    }

    /// Memory of the machine that it takes beside the tiles.
    pub(crate) fn staging(&self) -> u64 {
        self.chosen.as_ref().map_or(0, |c| c.seats.host_bytes())
    }

    pub(crate) fn report(&self) -> Option<PlannedDevice> {
        let c = self.chosen.as_ref()?;
        Some(PlannedDevice {
            device: c.info.id(),
            name: c.info.name.clone(),
            compute_capability: format!("{}.{}", c.info.capability.0, c.info.capability.1),
            staging_bytes: c.seats.host_bytes(),
        })
    }

    /// Opens the device.
    ///
    /// # Errors
    /// What keeps it from working, where it was asked for by name.
    pub(crate) fn open<'p>(&'p self, progress: &'p dyn Progress) -> Result<Option<Guarded<'p>>> {
        let Some(c) = &self.chosen else { return Ok(None) };
        let options = Options {
            formats: &c.formats,
            seats: c.seats,
            memory: c.memory,
            cache: Cache::of_user(),
            check: true,
        };
        let guarded =
            |device| Guarded { device, selection: self, chosen: c, progress, left: AtomicU64::new(0) };
        match Device::open(&c.info, &options) {
            Ok(device) => {
                self.note(c.outcome());
                Ok(Some(guarded(device)))
            }
            Err(e) if c.required => Err(e.into()),
            Err(e) => {
                let text = instead(&e.into());
                progress.event(Event::Note { text: &text });
                self.note(DeviceReport { failure: Some(text), ..c.outcome() });
                Ok(None)
            }
        }
    }

    /// What came of it.
    pub(crate) fn outcome(&self) -> Option<DeviceReport> {
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, report: DeviceReport) {
        *self.outcome.lock().unwrap_or_else(PoisonError::into_inner) = Some(report);
    }
}

impl Chosen {
    fn outcome(&self) -> DeviceReport {
        DeviceReport {
            device: self.info.id(),
            name: self.info.name.clone(),
            encoded_bytes: 0,
            processor_bytes: 0,
            memory_bytes: 0,
            failure: None,
        }
    }
}

impl Wishes {
    fn seats(&self) -> std::result::Result<Seats, Problem> {
        let device = self.memory.unwrap_or(u64::MAX);
        let least = Seats::LEAST;
        if device < least.device_bytes() {
            let e = tensormill_cuda::Error::TooLittle { given: device, least: least.device_bytes() };
            return Err(Problem::Cuda(e));
        }
        Seats::within(self.workers, self.staging, device).ok_or_else(|| {
            Problem::Memory(
                Error::over_limit(format!(
                    "--memory leaves {} bytes for what is on its way to a device and back, and the least is {}",
                    self.staging,
                    least.host_bytes()
                ))
                .hint("raise --memory, or use --device cpu"),
            )
        })
    }
}

/// Why a device is not used.
enum Problem {
    Cuda(tensormill_cuda::Error),
    Memory(Error),
}

impl From<Problem> for Error {
    fn from(p: Problem) -> Self {
        match p {
            Problem::Cuda(e) => e.into(),
            Problem::Memory(e) => e,
        }
    }
}

/// Says that the processor does the work.
fn instead(e: &Error) -> String {
    format!("{e}; the processor encodes instead, with the same bytes")
}

/// Formats that some tensor is encoded in and that there is device code for.
fn formats<'m>(models: impl Iterator<Item = &'m Model>) -> Vec<&'static BlockFormat> {
    let mut formats: Vec<&'static BlockFormat> = Vec::new();
    for tensor in models.flat_map(|m| &m.tensors) {
        let Expr::Apply { op, .. } = &tensor.expr else { continue };
        let Some(block) = op.encodes().map(|e| e.block) else { continue };
        if device_code(block).is_some() && !formats.contains(&block) {
            formats.push(block);
        }
    }
    formats
}

/// An open device, with the processor behind it where that is allowed.
pub(crate) struct Guarded<'p> {
    device: Device,
    selection: &'p Selection,
    chosen: &'p Chosen,
    progress: &'p dyn Progress,
    /// Bytes of blocks that were offered to it, and that the processor made.
    left: AtomicU64,
}

impl Accelerator for Guarded<'_> {
    fn run(&self, rows: Rows, form: &Form, value: &[u8], tasks: &mut [Task<'_>]) -> Result<()> {
        let result = self.device.encode(&rows, form, value, tasks);
        let left: usize = tasks.iter().filter(|t| !t.done).map(|t| t.out.len()).sum();
        self.left.fetch_add(left as u64, Ordering::Relaxed);
        let Err(e) = result else { return Ok(()) };
        let e = Error::from(e);
        if self.chosen.required {
            return Err(e);
        }
        let mut outcome = self.selection.outcome.lock().unwrap_or_else(PoisonError::into_inner);
        let known = outcome.as_mut().filter(|o| o.failure.is_none());
        if let Some(report) = known {
            let text = instead(&e);
            report.failure = Some(text.clone());
            drop(outcome);
            self.progress.event(Event::Note { text: &text });
        }
        Ok(())
    }
}

impl Drop for Guarded<'_> {
    fn drop(&mut self) {
        let mut outcome = self.selection.outcome.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(report) = outcome.as_mut() {
            report.encoded_bytes = self.device.encoded();
            report.processor_bytes = self.left.load(Ordering::Relaxed);
            report.memory_bytes = self.device.memory();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_named_as_they_are_shown() {
        for choice in [Choice::Auto, Choice::Cpu, Choice::Cuda(0), Choice::Cuda(12)] {
            assert_eq!(choice.to_string().parse(), Ok(choice));
        }
        for bad in ["", "gpu", "cuda", "cuda:", "cuda:x", "cuda:-1", "cuda:+1", "CPU"] {
            assert!(bad.parse::<Choice>().unwrap_err().contains("cuda:N"), "{bad}");
        }
    }
}
