//! Encoders on CUDA devices: the same bytes as the processor's, at the speed of the bus.
//!
//! The program links nothing of CUDA and runs where there is none: the driver and NVRTC, the run-time compiler, are
//! loaded when a device is asked for. Device code is the kernels' (`tensormill_kernels::cuda`); this crate compiles it for
//! the device at hand and keeps the result on the disk ([`Cache`]), takes memory ([`Seats`]), and runs it ([`Device`],
//! an [`Accelerator`](tensormill_model::Accelerator)).
//!
//! - `driver`, `nvrtc`: the two libraries, call by call. `seat`: buffers, streams and launches. Nothing else is unsafe.
//! - `kernels`: text to launchable code. `encode`: rows through it. `check`: a few rows whose bytes are known, first. `device`: all of it together.
//!
//! Must *not* know what to do when a device fails: whether the processor goes on in its place is its caller's choice.

mod cache;
mod check;
mod device;
mod driver;
mod encode;
mod error;
mod kernels;
mod nvrtc;
mod seat;

pub use cache::{CACHE_VARIABLE, Cache};
pub use device::{Device, DeviceInfo, Options, devices};
pub use error::Error;
pub use nvrtc::{Compiled, NVRTC_VARIABLE, Nvrtc, OPTIONS, Source, Target};
pub use seat::Seats;
