//! Encoders on a device: from their text to what can be launched, with their tables.
//!
//! Must not know what rows they work on.

use crate::{
    Error,
    cache::{Cache, Key},
    driver::{Context, DeviceBuffer, Function, Module},
    nvrtc::{Nvrtc, OPTIONS, Source, Target},
};
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};
use tensormill_kernels::cuda::{DeviceCode, ROW_MEANS, RowMeans, headers};
use tensormill_tensor::BlockFormat;

/// Translation units that are compiled at a time; each takes about 100 MB.
const AT_ONCE: usize = 8;

/// One encoder.
pub(crate) struct Kernel {
    pub code: &'static DeviceCode,
    pub function: Function,
    tables: Option<DeviceBuffer>,
}

impl Kernel {
    /// Address of its tables, or null.
    pub(crate) fn tables(&self) -> u64 {
        self.tables.as_ref().map_or(0, DeviceBuffer::address)
    }
}

/// What was asked for, ready to be launched.
pub(crate) struct Kernels {
    encoders: Vec<Kernel>,
    row_means: Option<Function>,
    /// Of tables, on the device.
    pub bytes: u64,
}

impl Kernels {
    pub(crate) fn of(&self, block: &BlockFormat) -> Option<&Kernel> {
        self.encoders.iter().find(|k| k.code.block == block)
    }

    /// Takes the mean square of each row.
    pub(crate) fn row_means(&self) -> Option<&Function> {
        self.row_means.as_ref()
    }
}

/// Makes code for one device.
pub(crate) struct Maker<'a> {
    pub context: &'a Arc<Context>,
    pub nvrtc: &'a Nvrtc,
    pub cache: &'a Cache,
    pub driver_version: i32,
    pub target: Target,
}

impl Maker<'_> {
    /// Compiles, or finds in the cache, and loads.
    pub(crate) fn make(&self, codes: &[&'static DeviceCode]) -> Result<Kernels, Error> {
        let mut units: Vec<(&str, &str)> = Vec::new();
        let means = codes.iter().any(|c| c.row_means != RowMeans::Unused);
        let all = codes.iter().map(|c| (c.file, c.text));
        for unit in all.chain(means.then_some((ROW_MEANS.file, ROW_MEANS.text))) {
            if !units.contains(&unit) {
                units.push(unit);
            }
        }
        let modules = self.modules(&units)?;
        let mut bytes = 0;
        let encoders = codes
            .iter()
            .map(|&code| {
                let tables = code.tables.map(|make| make());
                let tables = tables.map(|t| DeviceBuffer::of(self.context, &t, "tables")).transpose()?;
                bytes += tables.as_ref().map_or(0, DeviceBuffer::len) as u64;
                Ok(Kernel { code, function: modules[code.file].function(code.kernel)?, tables })
            })
            .collect::<Result<_, Error>>()?;
        let row_means = means.then(|| modules[ROW_MEANS.file].function(ROW_MEANS.kernel)).transpose()?;
        Ok(Kernels { encoders, row_means, bytes })
    }

    /// All units, several at a time.
    fn modules<'u>(&self, units: &[(&'u str, &'u str)]) -> Result<HashMap<&'u str, Arc<Module>>, Error> {
        let next = AtomicUsize::new(0);
        let done = Mutex::new(Vec::new());
        let work = || {
            while let Some(&(file, text)) = units.get(next.fetch_add(1, Ordering::Relaxed)) {
                let module = self.module(file, text);
                done.lock().unwrap_or_else(PoisonError::into_inner).push((file, module));
            }
        };
        let threads = thread::available_parallelism().map_or(1, usize::from).min(AT_ONCE).min(units.len());
        thread::scope(|scope| {
            for _ in 1..threads {
                // Where the system gives no more threads, this one does the work.
                if thread::Builder::new().spawn_scoped(scope, work).is_err() {
                    break;
                }
            }
            work();
        });
        let done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
        done.into_iter().map(|(file, module)| Ok((file, module?))).collect()
    }

    fn module(&self, file: &str, text: &str) -> Result<Arc<Module>, Error> {
        let (name, key) = (self.name(file), self.key(file, text));
        if let Some(image) = self.cache.get(&name, &key) {
            match Module::new(self.context, &image) {
                Ok(module) => return Ok(module),
                Err(e) => tracing::info!(file, error = %e, "the cache's code does not load: compiling"),
            }
        }
        let compiled = self.nvrtc.compile(&Source { file, text, headers: headers() }, self.target, &[])?;
        tracing::info!(file, target = %self.target, bytes = compiled.image.len(), "device code compiled");
        let module = Module::new(self.context, &compiled.image)?;
        // Only what loads is worth keeping.
        self.cache.put(&name, &key, &compiled.image);
        Ok(module)
    }

    /// `legacy-cuda.cu-sm_90`: for people who look into the folder.
    fn name(&self, file: &str) -> String {
        format!("{}-{}", file.replace('/', "-"), self.target)
    }

    fn key(&self, file: &str, text: &str) -> Key {
        let mut key = Key::default().with(env!("CARGO_PKG_VERSION")).with(file).with(text);
        for (name, text) in headers() {
            key = key.with(name).with(text);
        }
        for option in OPTIONS {
            key = key.with(option);
        }
        let (major, minor) = self.nvrtc.version();
        key.with(self.target.to_string())
            .with(self.driver_version.to_le_bytes())
            .with(format!("{major}.{minor}"))
    }
}
