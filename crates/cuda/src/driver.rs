//! The driver, call by call: contexts, memory, streams, modules. Owners free what they own.
//!
//! What is unsafe about the driver's interface is dealt with here and in `seat`; nothing else in this crate calls it.
//! Must not know kernels or formats.
#![allow(unsafe_code)]

use crate::Error;
use cudarc::driver::{
    DriverError, result,
    sys::{self, CUctx_flags_enum, CUdevice_attribute_enum, CUresult},
};
use std::{
    ffi::{CString, c_void},
    ptr::NonNull,
    sync::{Arc, OnceLock},
};

/// Gives a driver's error the words for what was being done.
pub(crate) fn doing<T>(what: &'static str, result: Result<T, DriverError>) -> Result<T, Error> {
    result.map_err(|e| match e.0 {
        CUresult::CUDA_ERROR_OUT_OF_MEMORY => Error::OutOfMemory { what },
        CUresult::CUDA_ERROR_NO_DEVICE => Error::NoDevice,
        _ => {
            let text = |t: Result<&std::ffi::CStr, DriverError>| {
                t.map_or_else(|_| "unknown".to_owned(), |t| t.to_string_lossy().into_owned())
            };
            Error::Driver { what, name: text(e.error_name()), text: text(e.error_string()) }
        }
    })
}

/// Loads the driver, once. Where there is none, this is all that it costs.
pub(crate) fn load() -> Result<(), Error> {
    static LOADED: OnceLock<Result<(), Error>> = OnceLock::new();
    LOADED
        .get_or_init(|| {
            // SAFETY: loading the driver's library runs its initialisers, which is what a driver's library is for. Every
            // call of the driver in this crate comes after this check, without which the bindings would panic.
            if !unsafe { sys::is_culib_present() } {
                return Err(Error::NoDriver);
            }
            doing("start", result::init())
        })
        .clone()
}

/// Number of devices.
pub(crate) fn count() -> Result<u32, Error> {
    load()?;
    match doing("count devices", result::device::get_count())? {
        0 => Err(Error::NoDevice),
        n => Ok(n.unsigned_abs()),
    }
}

/// The newest CUDA that the driver supports, as `1000 * major + 10 * minor`.
pub(crate) fn version() -> Result<i32, Error> {
    load()?;
    let mut version = 0;
    // SAFETY: the pointer is that of a local variable.
    doing("tell its version", unsafe { sys::cuDriverGetVersion(&raw mut version) }.result())?;
    Ok(version)
}

/// A device that exists.
#[derive(Clone, Copy)]
pub(crate) struct Handle(sys::CUdevice);

impl Handle {
    pub(crate) fn get(ordinal: u32) -> Result<Self, Error> {
        let count = count()?;
        if ordinal >= count {
            return Err(Error::NoSuchDevice { asked: ordinal, count });
        }
        doing("name a device", result::device::get(ordinal as i32)).map(Self)
    }

    pub(crate) fn name(self) -> Result<String, Error> {
        doing("tell its name", result::device::get_name(self.0))
    }

    /// Major and minor number of its compute capability.
    pub(crate) fn capability(self) -> Result<(u32, u32), Error> {
        use CUdevice_attribute_enum as Attribute;
        let get = |attribute| {
            // SAFETY: the handle came from the driver.
            let value = unsafe { result::device::get_attribute(self.0, attribute) };
            doing("tell its compute capability", value).map(i32::unsigned_abs)
        };
        Ok((
            get(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            get(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        ))
    }

    /// Bytes of its memory.
    pub(crate) fn memory(self) -> Result<u64, Error> {
        // SAFETY: the handle came from the driver.
        doing("tell its memory", unsafe { result::device::total_mem(self.0) }).map(|n| n as u64)
    }
}

/// The device's primary context.
pub(crate) struct Context {
    device: Handle,
    raw: sys::CUcontext,
}

// SAFETY: the driver lets every thread use a context that it has made current, several at a time.
unsafe impl Send for Context {}
// SAFETY: as above.
unsafe impl Sync for Context {}

impl Context {
    pub(crate) fn new(device: Handle) -> Result<Arc<Self>, Error> {
        // Threads that wait for the device sleep. Refused where somebody has started the context with other flags; then
        // they spin, which costs time and nothing else.
        // SAFETY: the handle came from the driver.
        let _ = unsafe {
            sys::cuDevicePrimaryCtxSetFlags_v2(device.0, CUctx_flags_enum::CU_CTX_SCHED_BLOCKING_SYNC as u32)
        };
        // SAFETY: as above.
        let raw = doing("make a context", unsafe { result::primary_ctx::retain(device.0) })?;
        let context = Arc::new(Self { device, raw });
        context.bind()?;
        Ok(context)
    }

    /// Makes it this thread's: what every call below needs.
    pub(crate) fn bind(&self) -> Result<(), Error> {
        // SAFETY: the context is retained until `self` is dropped.
        doing("change threads", unsafe { result::ctx::set_current(self.raw) })
    }

    /// Bytes that are free, and all.
    pub(crate) fn memory(&self) -> Result<(u64, u64), Error> {
        self.bind()?;
        let (free, total) = doing("tell its free memory", result::mem_get_info())?;
        Ok((free as u64, total as u64))
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: retained by `new`, released once. A device that is lost refuses, and nobody can do better then.
        let _ = unsafe { result::primary_ctx::release(self.device.0) };
    }
}

/// Memory of the device.
pub(crate) struct DeviceBuffer {
    address: sys::CUdeviceptr,
    len: usize,
    context: Arc<Context>,
}

impl DeviceBuffer {
    pub(crate) fn new(context: &Arc<Context>, len: usize, what: &'static str) -> Result<Self, Error> {
        context.bind()?;
        // SAFETY: an allocation; nothing is read from it before something is written.
        let address = doing(what, unsafe { result::malloc_sync(len.max(1)) })?;
        Ok(Self { address, len, context: Arc::clone(context) })
    }

    /// A buffer that holds these bytes.
    pub(crate) fn of(context: &Arc<Context>, bytes: &[u8], what: &'static str) -> Result<Self, Error> {
        let buffer = Self::new(context, bytes.len(), what)?;
        // SAFETY: the buffer is as long as the bytes, and the copy is over when the call returns.
        doing("take tables", unsafe { result::memcpy_htod_sync(buffer.address, bytes) })?;
        Ok(buffer)
    }

    /// Address on the device; aligned to 256 bytes at least.
    pub(crate) fn address(&self) -> u64 {
        self.address
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }
}

impl Drop for DeviceBuffer {
    fn drop(&mut self) {
        let _ = self.context.bind();
        // SAFETY: allocated by `new`, freed once; the driver waits for what is still using it.
        let _ = unsafe { result::free_sync(self.address) };
    }
}

/// Memory of the machine that the device reaches without a detour.
pub(crate) struct HostBuffer {
    bytes: NonNull<u8>,
    len: usize,
    context: Arc<Context>,
}

// SAFETY: plain memory with one owner.
unsafe impl Send for HostBuffer {}

impl HostBuffer {
    pub(crate) fn new(context: &Arc<Context>, len: usize, what: &'static str) -> Result<Self, Error> {
        context.bind()?;
        // SAFETY: an allocation, made plain bytes by the line after it.
        let bytes = doing(what, unsafe { result::malloc_host(len.max(1), 0) })?.cast::<u8>();
        let bytes = NonNull::new(bytes).ok_or(Error::OutOfMemory { what })?;
        // SAFETY: `len` bytes, just allocated.
        unsafe { bytes.write_bytes(0, len) };
        Ok(Self { bytes, len, context: Arc::clone(context) })
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: `len` bytes that were written by `new`. That the device does not write them now is `seat`'s to see to.
        unsafe { std::slice::from_raw_parts(self.bytes.as_ptr(), self.len) }
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.bytes.as_ptr(), self.len) }
    }
}

impl Drop for HostBuffer {
    fn drop(&mut self) {
        let _ = self.context.bind();
        // SAFETY: allocated by `new`, freed once; the driver waits for what is still using it.
        let _ = unsafe { result::free_host(self.bytes.as_ptr().cast::<c_void>()) };
    }
}

/// A queue of copies and kernels. What is queued runs in order, at some later time.
pub(crate) struct Stream {
    raw: sys::CUstream,
    context: Arc<Context>,
}

// SAFETY: the driver lets any thread use a stream whose context it has made current.
unsafe impl Send for Stream {}

impl Stream {
    pub(crate) fn new(context: &Arc<Context>) -> Result<Self, Error> {
        context.bind()?;
        let raw = doing("make a stream", result::stream::create(result::stream::StreamKind::NonBlocking))?;
        Ok(Self { raw, context: Arc::clone(context) })
    }

    /// Makes its context this thread's.
    pub(crate) fn bind(&self) -> Result<(), Error> {
        self.context.bind()
    }

    /// Queues a copy to the device, `offset` bytes into a buffer.
    ///
    /// # Safety
    /// `from` must stay, unchanged, until [`Self::wait`] has returned.
    pub(crate) unsafe fn upload(&self, to: &DeviceBuffer, offset: usize, from: &[u8]) -> Result<(), Error> {
        assert!(offset + from.len() <= to.len);
        // SAFETY: inside the buffer; the rest is the caller's promise.
        let queued = unsafe { result::memcpy_htod_async(to.address + offset as u64, from, self.raw) };
        doing("take weights", queued)
    }

    /// Queues a copy from the start of a device's buffer.
    ///
    /// # Safety
    /// `to` must stay, untouched, until [`Self::wait`] has returned.
    pub(crate) unsafe fn download(&self, to: &mut [u8], from: &DeviceBuffer) -> Result<(), Error> {
        assert!(to.len() <= from.len);
        // SAFETY: inside the buffer; the rest is the caller's promise.
        let queued = unsafe { result::memcpy_dtoh_async(to, from.address, self.raw) };
        doing("give blocks", queued)
    }

    /// Queues a kernel whose one parameter is `parameter`.
    ///
    /// # Safety
    /// The kernel must take a `T`, and keep to memory of the device that stays until it has run.
    pub(crate) unsafe fn launch<T: Copy>(
        &self,
        kernel: &Function,
        (blocks, threads): (u32, u32),
        parameter: &T,
    ) -> Result<(), Error> {
        let mut parameters = [std::ptr::from_ref(parameter).cast_mut().cast::<c_void>()];
        // SAFETY: the driver copies the parameter before the call returns; the rest is the caller's promise.
        let queued = unsafe {
            result::launch_kernel(kernel.raw, (blocks, 1, 1), (threads, 1, 1), 0, self.raw, &mut parameters)
        };
        doing("start a kernel", queued)
    }

    /// Waits until all that was queued is done.
    pub(crate) fn wait(&self) -> Result<(), Error> {
        // SAFETY: the stream is destroyed by `drop` alone.
        doing("run a kernel", unsafe { result::stream::synchronize(self.raw) })
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let _ = self.context.bind();
        // SAFETY: made by `new`, destroyed once.
        let _ = unsafe { result::stream::destroy(self.raw) };
    }
}

/// Loaded device code.
pub(crate) struct Module {
    raw: sys::CUmodule,
    context: Arc<Context>,
}

// SAFETY: a handle; the driver lets any thread use it whose context is current.
unsafe impl Send for Module {}
// SAFETY: as above.
unsafe impl Sync for Module {}

impl Module {
    /// Loads a CUBIN or PTX.
    pub(crate) fn new(context: &Arc<Context>, image: &[u8]) -> Result<Arc<Self>, Error> {
        context.bind()?;
        // PTX is a text that ends with zero; a CUBIN knows its own length.
        let mut image = image.to_vec();
        image.push(0);
        // SAFETY: the image came from the compiler, whole: the cache checks its sum.
        let raw = doing("load a kernel", unsafe { result::module::load_data(image.as_ptr().cast()) })?;
        Ok(Arc::new(Self { raw, context: Arc::clone(context) }))
    }

    pub(crate) fn function(self: &Arc<Self>, name: &str) -> Result<Function, Error> {
        let missing = || Error::Driver {
            what: "find a kernel",
            name: name.to_owned(),
            text: "not in its file".to_owned(),
        };
        self.context.bind()?;
        let c_name = CString::new(name).map_err(|_| missing())?;
        // SAFETY: the module is loaded, and stays so while the function is alive.
        let raw = doing("find a kernel", unsafe { result::module::get_function(self.raw, c_name) })?;
        Ok(Function { raw, _module: Arc::clone(self) })
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        let _ = self.context.bind();
        // SAFETY: loaded by `new`, unloaded once.
        let _ = unsafe { result::module::unload(self.raw) };
    }
}

/// A kernel.
#[derive(Clone)]
pub(crate) struct Function {
    raw: sys::CUfunction,
    _module: Arc<Module>,
}

// SAFETY: as `Module`.
unsafe impl Send for Function {}
// SAFETY: as `Module`.
unsafe impl Sync for Function {}
